//! Batches of short segments of music with the generator's inputs.
//!
//! Decoding mels and making templates takes a CPU far longer than a GPU needs for a step. Therefore the segments of a
//! track lie on a grid, and what is decoded or made for one when it is first drawn is kept in memory. This happens at the
//! level of the track; a random change of level scales it afterwards. On music, templates made at another level are no
//! closer to the sound than scaled ones.

use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use graft_material::audio_cache::Pcm;
use model_runtime::tensors::{to_log_mels, to_tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};
use vocoder::generated::{TEMPLATE_CONTEXT_FRAMES, template_stream, whole_template};
use vocoder::griffin_lim::GriffinLimStream;
use vocoder::{LogMel, MEL_FLOOR, MelConfig};

use super::reconstructor::Reconstructor;
use crate::batches::{MakeBatch, random};
use crate::dataset::{Partition, Track};
use crate::sampler::{by_artist, draw_track};
use crate::shifted_mel::{Layer, ShiftedMel};

/// Largest peak of a segment: the output of a generator is limited to full scale.
const LOUDEST: f32 = 0.95;

/// Most memory for kept inputs. Each minute of music takes at most 6.6 MB: 2.6 MB for the templates of its own mels, as much
/// for those of decoded mels, and 1.3 MB for decoded mels. Beyond, inputs are made each time.
const MOST_KEPT_BYTES: usize = 4 << 30;

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

/// A track, divided into segments.
struct Music {
    track: Arc<Track>,
    /// Samples before the first segment: its context, and a random part of a segment, so that another seed gives other
    /// segments.
    first_sample: usize,
    /// What was made so far for each segment: for its own mel, for its decoded mel.
    kept: Vec<[OnceLock<Arc<Made>>; 2]>,
}

/// What is made for a segment, at the level of the track.
struct Made {
    /// The decoded log-mel (n_mels, frames), unless the segment has its own mel.
    decoded: Option<Vec<f32>>,
    /// Template for the mel, if the generator uses templates.
    template: Option<Pcm>,
}

impl Made {
    fn bytes(&self) -> usize {
        let decoded = self.decoded.as_ref().map_or(0, |mel| size_of_val(&**mel));
        let template = self.template.as_ref();
        decoded + template.map_or(0, |pcm| size_of_val(&*pcm.samples))
    }
}

/// Makes batches of segments.
#[derive(Clone)]
pub struct SegmentSampler {
    settings: Segments,
    heard: Heard,
    mel: MelConfig,
    music_by_artist: Arc<Vec<Vec<Music>>>,
    /// Memory of all that is kept.
    kept_bytes: Arc<AtomicUsize>,
    most_kept_bytes: usize,
    analysis: ShiftedMel,
}

impl SegmentSampler {
    /// Creates a sampler. The tracks must have the sample rate of `mel`. Artists are drawn uniformly, then one of
    /// their tracks, then a segment of it. Tracks that are too short are skipped.
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
        let crop_samples = heard.crop_frames(settings.frames) * mel.hop_length;
        let segment_samples = settings.frames * mel.hop_length;
        let context_samples = (crop_samples - segment_samples) / 2;
        let mut number = 0;
        let mut divide = |track: Arc<Track>| {
            let room = track.pcm.samples.len() - crop_samples;
            let most = room.min(segment_samples - 1);
            let offset = random(settings.seed, number).random_range(0..=most);
            number += 1;
            Music {
                track,
                first_sample: context_samples + offset,
                kept: (0..=(room - offset) / segment_samples)
                    .map(|_| Default::default())
                    .collect(),
            }
        };
        let music_by_artist = by_artist(tracks, crop_samples)?
            .into_iter()
            .map(|tracks| tracks.into_iter().map(&mut divide).collect())
            .collect();
        Ok(Self {
            settings,
            heard,
            music_by_artist: Arc::new(music_by_artist),
            kept_bytes: Arc::default(),
            most_kept_bytes: MOST_KEPT_BYTES,
            analysis: ShiftedMel::new(mel)?,
            mel: mel.clone(),
        })
    }

    /// What is made for the segment `index` of a track: kept before or made now.
    fn made(&mut self, music: &Music, index: usize, is_decoded: bool) -> Result<Arc<Made>> {
        let kept = &music.kept[index][usize::from(is_decoded)];
        if let Some(made) = kept.get() {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(self.make(music, index, is_decoded)?);
        let bytes = made.bytes();
        if self.kept_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.most_kept_bytes {
            // If another thread made the same in the meantime, that stays.
            let _ = kept.set(Arc::clone(&made));
        }
        Ok(made)
    }

    fn make(&mut self, music: &Music, index: usize, is_decoded: bool) -> Result<Made> {
        let frames = self.settings.frames;
        let hop_length = self.mel.hop_length;
        let segment_samples = frames * hop_length;
        let template_context = self.heard.template_context_frames();
        let context = self.heard.reconstructor_context_frames() + template_context;
        let layer = Layer {
            pcm: &music.track.pcm,
            start_samples: music.first_sample + index * segment_samples - context * hop_length,
            semitones: 0.0,
            gain: 1.0,
            equaliser: None,
        };
        let mut crop = vec![0.0; (frames + 2 * context) * self.mel.n_mels];
        self.analysis.log_mel(&[layer], &mut crop)?;
        let mel = self.heard_mel(crop, is_decoded)?;
        let template = if self.heard.template {
            let stream = &mut self.heard.template_stream(&self.mel)?;
            let samples = whole_template(stream, &mel)?;
            let first = template_context * hop_length;
            let samples = &samples[first..first + segment_samples];
            Some(Pcm::amplified(samples, 1.0))
        } else {
            None
        };
        let decoded = is_decoded.then(|| {
            let band = |band| (0..frames).map(move |frame| (template_context + frame, band));
            let places = (0..self.mel.n_mels).flat_map(band);
            places.map(|(frame, band)| mel.frame(frame)[band]).collect()
        });
        Ok(Made { decoded, template })
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
        let segment_samples = frames * self.mel.hop_length;
        let mut batch = SegmentBatch {
            samples: Vec::with_capacity(size * segment_samples),
            mel: Vec::with_capacity(size * frames * self.mel.n_mels),
            template: self.heard.template.then(Vec::new),
            size,
        };
        let music_by_artist = Arc::clone(&self.music_by_artist);
        let mut random = random(seed, index);
        for _ in 0..size {
            let music = draw_track(&music_by_artist, &mut random)?;
            let index = random.random_range(0..music.kept.len());
            let drawn = random.random_range(-gain_nepers..=gain_nepers).exp();
            let is_decoded = decoded_share == 1.0 || random.random_bool(decoded_share);
            let is_decoded = is_decoded && self.heard.reconstructor.is_some();

            let pcm = &music.track.pcm;
            let start_samples = music.first_sample + index * segment_samples;
            let segment = &pcm.samples[start_samples..start_samples + segment_samples];
            let peak = segment.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
            let gain = drawn.min(LOUDEST / (f32::from(peak) * pcm.level).max(f32::MIN_POSITIVE));
            let samples = segment.iter().map(|&s| f32::from(s) * pcm.level * gain);
            batch.samples.extend(samples);

            let made = self.made(music, index, is_decoded)?;
            if let Some(mel) = &made.decoded {
                batch
                    .mel
                    .extend(mel.iter().map(|&value| amplified(value, gain)));
            } else {
                let start = batch.mel.len();
                batch.mel.resize(start + frames * self.mel.n_mels, 0.0);
                let layer = Layer {
                    pcm,
                    start_samples,
                    semitones: 0.0,
                    gain,
                    equaliser: None,
                };
                self.analysis.log_mel(&[layer], &mut batch.mel[start..])?;
            }
            if let (Some(templates), Some(template)) = (&mut batch.template, &made.template) {
                templates.extend(template.floats().iter().map(|sample| sample * gain));
            }
        }
        Ok(batch)
    }
}

/// A log-mel value of the sound times `gain`. Silence stays silence.
fn amplified(log_mel: f32, gain: f32) -> f32 {
    let silence = MEL_FLOOR.ln();
    if log_mel > silence {
        (log_mel + gain.ln()).max(silence)
    } else {
        log_mel
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn what_is_kept_equals_what_was_made() {
        let mut sampler = sampler(true, 0.5);
        let made = sampler.batch(0).unwrap();
        let bytes = sampler.kept_bytes.load(Ordering::Relaxed);
        // Some of the three segments may be the same.
        let of_segment = 16 * 512 * size_of::<i16>();
        assert!(bytes >= of_segment && bytes.is_multiple_of(of_segment));
        assert_eq!(sampler.clone().batch(0).unwrap(), made);
        assert_eq!(sampler.kept_bytes.load(Ordering::Relaxed), bytes);

        sampler.most_kept_bytes = bytes + of_segment - 1;
        for index in [1, 2, 1] {
            sampler.batch(index).unwrap();
        }
        let music = sampler.music_by_artist.iter().flatten();
        let kept = music.flat_map(|music| music.kept.iter().flatten());
        let kept = kept.filter_map(OnceLock::get).map(|made| made.bytes());
        assert_eq!(kept.sum::<usize>(), bytes);
    }

    #[test]
    fn a_change_of_level_changes_sound_mel_and_template_alike() {
        let (soft, loud) = (sampler(true, 0.0), sampler(true, 1.0));
        let [soft, loud] = [soft, loud].map(|mut sampler| sampler.batch(4).unwrap());
        let template = |batch: &SegmentBatch| batch.template.clone().unwrap();
        let (of_soft, of_loud) = (template(&soft), template(&loud));
        for segment in 0..3 {
            let samples = segment * 8192..(segment + 1) * 8192;
            let level = |samples: &[f32]| samples.iter().map(|s| s * s).sum::<f32>().sqrt();
            let gain =
                level(&loud.samples[samples.clone()]) / level(&soft.samples[samples.clone()]);
            assert!((gain - 1.0).abs() > 0.01, "{gain}");
            for sample in samples {
                let expected = of_soft[sample] * gain;
                assert!((of_loud[sample] - expected).abs() < 1e-5);
            }
            for value in segment * 2048..(segment + 1) * 2048 {
                if soft.mel[value] > MEL_FLOOR.ln() + 1.0 {
                    let expected = amplified(soft.mel[value], gain);
                    assert!((loud.mel[value] - expected).abs() < 1e-3);
                }
            }
        }
        let silence = MEL_FLOOR.ln();
        assert_eq!(amplified(silence, 3.0), silence);
        assert_eq!(amplified(silence + 0.1, 0.5), silence);
    }

    #[test]
    fn segments_cover_a_track() {
        let sampler = sampler(true, 0.0);
        let music = &sampler.music_by_artist[0][0];
        let context = TEMPLATE_CONTEXT_FRAMES * 512;
        let end = music.first_sample + music.kept.len() * 8192;
        let samples = music.track.pcm.samples.len();
        assert!((context..context + 8192).contains(&music.first_sample));
        assert!((samples - context - 8192 + 1..=samples - context).contains(&end));
    }
}
