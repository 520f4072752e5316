//! Batches of short segments of music with the generator's inputs.

use std::slice;
use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use model_runtime::tensors::{to_log_mels, to_tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};
use vocoder::generated::{TEMPLATE_CONTEXT_FRAMES, template_stream, whole_template};
use vocoder::griffin_lim::GriffinLimStream;
use vocoder::{LogMel, MelConfig};

use super::reconstructor::Reconstructor;
use crate::batches::{MakeBatch, random};
use crate::dataset::{Partition, Track};
use crate::sampler::{by_artist, draw_track};
use crate::shifted_mel::{Layer, ShiftedMel};

/// Largest peak of a segment: the output of a generator is limited to full scale.
const LOUDEST: f32 = 0.95;

/// Sampling of segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segments {
    /// Seed of all random numbers.
    pub seed: u64,
    /// Segments per step.
    pub batch: usize,
    /// Mel frames per segment.
    pub frames: usize,
    /// Largest random change of a segment's level, up or down, in nepers; limited so that the segment stays below
    /// full scale.
    pub gain_nepers: f32,
    /// Share of the segments with mels decoded by the model of `--from`; no effect without that model.
    #[serde(default = "all")]
    pub decoded_share: f64,
}

fn all() -> f64 {
    1.0
}

impl Segments {
    /// Checks the settings.
    pub fn check(&self, least_frames: usize) -> Result<()> {
        let Self {
            batch,
            frames,
            gain_nepers,
            decoded_share,
            ..
        } = *self;
        ensure!(
            batch > 0 && frames >= least_frames,
            "batch must be at least 1 and frames at least {least_frames}, found {batch} and {frames}"
        );
        ensure!(
            gain_nepers >= 0.0 && gain_nepers.is_finite(),
            "gain_nepers must be at least 0, found {gain_nepers}"
        );
        ensure!(
            (0.0..=1.0).contains(&decoded_share),
            "decoded_share must be between 0 and 1, found {decoded_share}"
        );
        Ok(())
    }
}

/// Training data for one step.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentBatch {
    /// Samples of the segments, (size, frames * hop length).
    pub samples: Vec<f32>,
    /// Log-mels of the segments, (size, n_mels, frames).
    pub mel: Vec<f32>,
    /// Templates for these mels, (size, frames * hop length), if the generator uses templates.
    pub template: Option<Vec<f32>>,
    /// Number of segments.
    pub size: usize,
}

/// Training data of a voice.
pub struct VoiceMaterial {
    /// The music.
    pub parts: Partition,
    /// Decodes the mels; without it, the music's own mels are used.
    pub reconstructor: Option<Reconstructor>,
}

/// Kind of the generator's inputs.
#[derive(Clone)]
pub struct Heard {
    /// Decodes the mels; without it, the music's own mels are used.
    pub reconstructor: Option<Reconstructor>,
    /// Whether the generator uses templates.
    pub template: bool,
}

impl Heard {
    /// Makes templates the same way as the reconstructing model.
    ///
    /// # Errors
    ///
    /// Returns an error if `mel` is not valid.
    pub fn template_stream(&self, mel: &MelConfig) -> Result<GriffinLimStream> {
        let magnitudes = self
            .reconstructor
            .as_ref()
            .and_then(Reconstructor::magnitudes);
        Ok(template_stream(mel, magnitudes)?)
    }

    /// The generator's input mel for a complete clip.
    ///
    /// # Errors
    ///
    /// Returns an error if the mel cannot be reconstructed.
    pub fn whole(&self, log_mel: &LogMel) -> Result<LogMel> {
        let Some(reconstructor) = &self.reconstructor else {
            return Ok(log_mel.clone());
        };
        let mel = to_tensor(slice::from_ref(log_mel))?;
        Ok(to_log_mels(&reconstructor.reconstruct(&mel)?)?.remove(0))
    }

    /// Frames of music that a segment of `segment_frames` is made from: with context on either side.
    pub fn crop_frames(&self, segment_frames: usize) -> usize {
        let context = self.reconstructor_context_frames() + self.template_context_frames();
        segment_frames + 2 * context
    }

    /// Frames of context on either side of a segment for its reconstruction.
    fn reconstructor_context_frames(&self) -> usize {
        let reconstructor = self.reconstructor.as_ref();
        reconstructor.map_or(0, Reconstructor::context_frames)
    }

    fn template_context_frames(&self) -> usize {
        if self.template {
            TEMPLATE_CONTEXT_FRAMES
        } else {
            0
        }
    }
}

/// Makes batches of segments.
#[derive(Clone)]
pub struct SegmentSampler {
    settings: Segments,
    heard: Heard,
    mel: MelConfig,
    tracks_by_artist: Arc<Vec<Vec<Arc<Track>>>>,
    analysis: ShiftedMel,
}

impl SegmentSampler {
    /// Creates a sampler. The tracks must have the sample rate of `mel`. Artists are drawn uniformly, then one of
    /// their tracks, then a position in it. Tracks that are too short are skipped.
    ///
    /// # Errors
    ///
    /// Returns an error if no track is long enough.
    pub fn new(
        tracks: &[Arc<Track>],
        mel: &MelConfig,
        settings: Segments,
        heard: Heard,
    ) -> Result<Self> {
        let frames = heard.crop_frames(settings.frames);
        let tracks_by_artist = by_artist(tracks, frames * mel.hop_length)?;
        Ok(Self {
            settings,
            heard,
            tracks_by_artist: Arc::new(tracks_by_artist),
            analysis: ShiftedMel::new(mel)?,
            mel: mel.clone(),
        })
    }

    /// The generator's input mel for a crop's mel (n_mels, context + frames + context): decoded if `is_decoded`,
    /// frame by frame, with only the context that the template needs.
    fn heard_mel(&self, crop: Vec<f32>, is_decoded: bool) -> Result<LogMel> {
        let n_mels = self.mel.n_mels;
        let mut mel = Tensor::from_vec(crop, (1, 1, n_mels, ()), &Device::Cpu)?;
        if let Some(reconstructor) = &self.heard.reconstructor {
            if is_decoded {
                mel = reconstructor.reconstruct(&mel)?;
            }
            let context = reconstructor.context_frames();
            mel = mel.narrow(3, context, mel.dim(3)? - 2 * context)?;
        }
        Ok(to_log_mels(&mel)?.remove(0))
    }
}

impl MakeBatch for SegmentSampler {
    type Batch = SegmentBatch;

    fn batch(&mut self, index: u64) -> Result<SegmentBatch> {
        let Segments {
            seed,
            batch: size,
            frames,
            gain_nepers,
            decoded_share,
        } = self.settings;
        let template_context = self.heard.template_context_frames();
        let context = self.heard.reconstructor_context_frames() + template_context;
        let crop_frames = self.heard.crop_frames(frames);
        let hop_length = self.mel.hop_length;
        let segment_samples = frames * hop_length;
        let mut stream = self.heard.template_stream(&self.mel)?;
        let mut batch = SegmentBatch {
            samples: Vec::with_capacity(size * segment_samples),
            mel: Vec::with_capacity(size * frames * self.mel.n_mels),
            template: self.heard.template.then(Vec::new),
            size,
        };
        let mut random = random(seed, index);
        for _ in 0..size {
            let pcm = &draw_track(&self.tracks_by_artist, &mut random)?.pcm;
            let start_samples =
                random.random_range(0..=pcm.samples.len() - crop_frames * hop_length);
            let drawn = random.random_range(-gain_nepers..=gain_nepers).exp();
            let first = start_samples + context * hop_length;
            let segment = &pcm.samples[first..first + segment_samples];
            let peak = segment.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
            let gain = drawn.min(LOUDEST / (f32::from(peak) * pcm.level).max(f32::MIN_POSITIVE));
            let samples = segment.iter().map(|&s| f32::from(s) * pcm.level * gain);
            batch.samples.extend(samples);
            let layer = Layer {
                pcm,
                start_samples,
                semitones: 0.0,
                gain,
                equaliser: None,
            };
            let mut crop = vec![0.0; crop_frames * self.mel.n_mels];
            self.analysis.log_mel(&[layer], &mut crop)?;
            let is_decoded = decoded_share == 1.0 || random.random_bool(decoded_share);
            let mel = self.heard_mel(crop, is_decoded)?;
            if let Some(template) = &mut batch.template {
                let samples = whole_template(&mut stream, &mel)?;
                let first = template_context * hop_length;
                template.extend(&samples[first..first + segment_samples]);
            }
            for band in 0..self.mel.n_mels {
                let of_band = |frame| mel.frame(template_context + frame)[band];
                batch.mel.extend((0..frames).map(of_band));
            }
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::audio_cache::Pcm;
    use vocoder::MelSpectrogram;

    fn sampler(template: bool, gain_nepers: f32) -> SegmentSampler {
        let heard = Heard {
            reconstructor: None,
            template,
        };
        sampler_for(heard, gain_nepers, 1.0)
    }

    fn sampler_for(heard: Heard, gain_nepers: f32, decoded_share: f64) -> SegmentSampler {
        let samples: Vec<f32> = (0..120_000)
            .map(|n| 0.2 * (n as f32 * (0.05 + n as f32 * 1e-6)).sin())
            .collect();
        let track = Track {
            path: "sweep".into(),
            artist: "test".into(),
            pcm: Pcm::normalised(&samples, 22_050).unwrap(),
        };
        let settings = Segments {
            seed: 1,
            batch: 3,
            frames: 16,
            gain_nepers,
            decoded_share,
        };
        let mel = MelConfig::default();
        SegmentSampler::new(&[Arc::new(track)], &mel, settings, heard).unwrap()
    }

    #[test]
    fn a_segment_has_its_own_mel_and_a_template_that_sounds_like_it() {
        for template in [false, true] {
            let batch = sampler(template, 0.5).batch(3).unwrap();
            assert_eq!(batch.samples.len(), 3 * 16 * 512);
            assert_eq!(batch.mel.len(), 3 * 128 * 16);
            let mut spectrogram = MelSpectrogram::new(&MelConfig::default()).unwrap();
            for i in 0..3 {
                let segment = i * 8192..(i + 1) * 8192;
                let own = spectrogram.log_mel(&batch.samples[segment.clone()]);
                let guessed = batch.template.as_ref();
                let guessed = guessed.map(|template| spectrogram.log_mel(&template[segment]));
                let mut distance = 0.0;
                // Beyond these frames, the clip alone is reflected at its ends.
                for frame in 2..14 {
                    for band in 0..128 {
                        let found = batch.mel[(i * 128 + band) * 16 + frame];
                        let expected = own.frame(frame)[band];
                        assert!((found - expected).abs() < 0.01, "{found}, {expected}");
                        if let Some(guessed) = &guessed {
                            let energy = expected.exp();
                            distance += energy * (guessed.frame(frame)[band] - expected).abs();
                        }
                    }
                }
                let energy: f32 = own.values()[2 * 128..14 * 128]
                    .iter()
                    .map(|x| x.exp())
                    .sum();
                assert!(distance < 0.1 * energy, "{}", distance / energy);
            }
        }
    }

    #[test]
    fn a_share_of_the_mels_is_decoded() {
        let model = graft_material::workspace::root().join("assets/graft.safetensors");
        let heard = Heard {
            reconstructor: Some(Reconstructor::load(&model, &MelConfig::default()).unwrap()),
            template: false,
        };
        let batch = |share| {
            let mut sampler = sampler_for(heard.clone(), 0.0, share);
            sampler.batch(0).unwrap()
        };
        let [own, half, all] = [0.0, 0.5, 1.0].map(batch);
        let mut spectrogram = MelSpectrogram::new(&MelConfig::default()).unwrap();
        let expected = spectrogram.log_mel(&own.samples[..16 * 512]);
        let (found, expected) = (own.mel[60 * 16 + 8], expected.frame(8)[60]);
        assert!((found - expected).abs() < 0.01, "{found}, {expected}");
        // Random numbers are drawn alike for 0 and a half.
        assert_eq!(own.samples, half.samples);
        let alike = own.mel.chunks(128 * 16).zip(half.mel.chunks(128 * 16));
        let alike = alike.filter(|(a, b)| a == b).count();
        assert!((1..3).contains(&alike), "{alike} of 3");
        assert_eq!(all.samples.len(), own.samples.len());
        assert!(all.mel != own.mel);
    }

    #[test]
    fn a_batch_depends_on_its_index_alone_and_stays_below_full_scale() {
        let mut sampler = sampler(false, 6.0);
        let first = sampler.batch(0).unwrap();
        assert_ne!(sampler.batch(1).unwrap(), first);
        assert_eq!(sampler.batch(0).unwrap(), first);
        for index in 0..20 {
            let batch = sampler.batch(index).unwrap();
            assert!(batch.samples.iter().all(|s| s.abs() < 0.951));
        }
    }
}
