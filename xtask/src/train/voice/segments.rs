//! Batches of short segments of music with their mels.

use std::sync::Arc;

use anyhow::Result;
use rand::Rng;
use vocoder::MelConfig;

use super::recipe::Segments;
use crate::train::batches::{MakeBatch, random};
use crate::train::dataset::Track;
use crate::train::sampler::{by_artist, draw_track};
use crate::train::shifted_mel::{Layer, ShiftedMel};

/// Segments are no louder than this: a generator cannot go beyond full scale.
const LOUDEST: f32 = 0.95;

/// Material for one step.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentBatch {
    /// Samples of the segments, (size, frames * hop length).
    pub samples: Vec<f32>,
    /// Log-mels of the segments with the context on either side, (size, n_mels, context + frames + context).
    pub mel: Vec<f32>,
    /// Number of segments.
    pub size: usize,
}

/// Makes batches of segments.
#[derive(Clone)]
pub struct SegmentSampler {
    settings: Segments,
    context_frames: usize,
    mel: MelConfig,
    tracks_by_artist: Arc<Vec<Vec<Arc<Track>>>>,
    analysis: ShiftedMel,
}

impl SegmentSampler {
    /// Takes segments of tracks whose sample rate is that of `mel`, with `context_frames` more mel frames on either
    /// side. Artists are drawn evenly, then a track of theirs, then a place in it; tracks that are too short are left
    /// out.
    ///
    /// # Errors
    ///
    /// When no track is long enough.
    pub fn new(
        tracks: &[Arc<Track>],
        mel: &MelConfig,
        settings: Segments,
        context_frames: usize,
    ) -> Result<Self> {
        let frames = settings.frames + 2 * context_frames;
        let tracks_by_artist = by_artist(tracks, frames * mel.hop_length)?;
        Ok(Self {
            settings,
            context_frames,
            tracks_by_artist: Arc::new(tracks_by_artist),
            analysis: ShiftedMel::new(mel)?,
            mel: mel.clone(),
        })
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
        } = self.settings;
        let crop_frames = frames + 2 * self.context_frames;
        let hop_length = self.mel.hop_length;
        let crop_values = crop_frames * self.mel.n_mels;
        let mut batch = SegmentBatch {
            samples: Vec::with_capacity(size * frames * hop_length),
            mel: vec![0.0; size * crop_values],
            size,
        };
        let mut random = random(seed, index);
        for mel in batch.mel.chunks_exact_mut(crop_values) {
            let pcm = &draw_track(&self.tracks_by_artist, &mut random)?.pcm;
            let start_samples =
                random.random_range(0..=pcm.samples.len() - crop_frames * hop_length);
            let drawn = random.random_range(-gain_nepers..=gain_nepers).exp();
            let first = start_samples + self.context_frames * hop_length;
            let segment = &pcm.samples[first..first + frames * hop_length];
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
            self.analysis.log_mel(&[layer], mel)?;
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::audio_cache::Pcm;
    use vocoder::MelSpectrogram;

    fn sampler(context_frames: usize, gain_nepers: f32) -> SegmentSampler {
        let samples: Vec<f32> = (0..60_000)
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
        };
        let mel = MelConfig::default();
        SegmentSampler::new(&[Arc::new(track)], &mel, settings, context_frames).unwrap()
    }

    #[test]
    fn a_segment_has_its_own_mel_in_the_middle_of_the_context() {
        let batch = sampler(4, 0.5).batch(3).unwrap();
        assert_eq!(batch.samples.len(), 3 * 16 * 512);
        assert_eq!(batch.mel.len(), 3 * 128 * 24);
        let mut spectrogram = MelSpectrogram::new(&MelConfig::default()).unwrap();
        for i in 0..3 {
            let own = spectrogram.log_mel(&batch.samples[i * 8192..(i + 1) * 8192]);
            // Beyond these frames, the clip alone is reflected at its ends.
            for frame in 2..14 {
                for band in 0..128 {
                    let found = batch.mel[(i * 128 + band) * 24 + 4 + frame];
                    let expected = own.frame(frame)[band];
                    assert!((found - expected).abs() < 0.01, "{found}, {expected}");
                }
            }
        }
    }

    #[test]
    fn a_batch_depends_on_its_index_alone_and_stays_below_full_scale() {
        let mut sampler = sampler(0, 6.0);
        let first = sampler.batch(0).unwrap();
        assert_ne!(sampler.batch(1).unwrap(), first);
        assert_eq!(sampler.batch(0).unwrap(), first);
        for index in 0..20 {
            let batch = sampler.batch(index).unwrap();
            assert!(batch.samples.iter().all(|s| s.abs() < 0.951));
        }
    }
}
