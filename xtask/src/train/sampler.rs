//! Batches of crops for training, made on a thread of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use vocoder::MelConfig;

use super::dataset::Track;
use super::shifted_mel::{Crop, ShiftedMel};

/// Batches that wait ready-made for the network.
const QUEUE_BATCHES: usize = 4;

/// How crops are drawn and changed.
#[derive(Debug, Clone, PartialEq)]
pub struct CropSettings {
    /// Crops in a batch.
    pub batch: usize,
    /// Length of a crop.
    pub frames: usize,
    /// Shifts are drawn evenly from `-max_shift..=max_shift` semitones.
    pub max_shift: u32,
    /// A crop's level is changed by up to this much either way, in nepers.
    pub gain_nepers: f32,
    /// Share of the crops that are not shifted at all.
    pub unshifted_share: f64,
    /// Whether the rhythm view has a shift of its own, or that of the harmony view.
    pub two_views: bool,
    /// Where the random numbers start from.
    pub seed: u64,
}

/// Training material for one step. Log-mels are `(size, n_mels, frames)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The crops as they are.
    pub target: Vec<f32>,
    /// The same crops, shifted by `harmony_shift`.
    pub harmony_view: Vec<f32>,
    /// The same crops, shifted by `rhythm_shift`.
    pub rhythm_view: Vec<f32>,
    /// Semitones, one number a crop.
    pub harmony_shift: Vec<i32>,
    /// Semitones, one number a crop.
    pub rhythm_shift: Vec<i32>,
    /// Crops in the batch.
    pub size: usize,
    /// Frames of a crop.
    pub frames: usize,
}

/// Makes batches. The batch with a given index depends on the settings, the tracks and the index
/// alone, so that a resumed run sees what it would have seen.
pub struct CropSampler {
    settings: CropSettings,
    hop_length: usize,
    n_mels: usize,
    tracks_by_artist: Vec<Vec<Arc<Track>>>,
    analysis: ShiftedMel,
}

impl CropSampler {
    /// Takes crops of `tracks`, whose sample rate is that of `mel`. Artists are drawn evenly, then a
    /// track of theirs, then a place in it. Tracks shorter than a crop are left out.
    ///
    /// # Errors
    ///
    /// When no track is long enough for a crop, or a setting is out of range.
    pub fn new(tracks: &[Arc<Track>], mel: &MelConfig, settings: CropSettings) -> Result<Self> {
        ensure!(
            settings.batch > 0 && settings.frames > 0,
            "expected a batch of at least one crop of at least one frame, found {} of {}",
            settings.batch,
            settings.frames
        );
        ensure!(
            settings.max_shift <= 24,
            "expected shifts of at most 24 semitones, found {}",
            settings.max_shift
        );
        ensure!(
            (0.0..=1.0).contains(&settings.unshifted_share),
            "expected an unshifted share of 0 to 1, found {}",
            settings.unshifted_share
        );
        ensure!(
            settings.gain_nepers >= 0.0 && settings.gain_nepers.is_finite(),
            "expected a gain of 0 nepers or more, found {}",
            settings.gain_nepers
        );
        let crop_samples = settings.frames * mel.hop_length;
        let mut by_artist: BTreeMap<&str, Vec<Arc<Track>>> = BTreeMap::new();
        for track in tracks
            .iter()
            .filter(|track| track.pcm.samples.len() >= crop_samples)
        {
            by_artist
                .entry(&track.artist)
                .or_default()
                .push(Arc::clone(track));
        }
        ensure!(
            !by_artist.is_empty(),
            "expected a track of at least {crop_samples} samples, found none among {}",
            tracks.len()
        );
        Ok(Self {
            tracks_by_artist: by_artist.into_values().collect(),
            analysis: ShiftedMel::new(mel)?,
            hop_length: mel.hop_length,
            n_mels: mel.n_mels,
            settings,
        })
    }

    /// The batch with this index.
    ///
    /// # Errors
    ///
    /// When a Fourier transform fails.
    pub fn batch(&mut self, index: u64) -> Result<Batch> {
        let CropSettings {
            batch: size,
            frames,
            max_shift,
            gain_nepers,
            ..
        } = self.settings;
        let crop_values = self.n_mels * frames;
        let mut batch = Batch {
            target: vec![0.0; size * crop_values],
            harmony_view: vec![0.0; size * crop_values],
            rhythm_view: vec![0.0; size * crop_values],
            harmony_shift: Vec::with_capacity(size),
            rhythm_shift: Vec::with_capacity(size),
            size,
            frames,
        };
        let mut random = self.random(index);
        let max_shift = max_shift as i32;
        for crop in 0..size {
            let artist = self.tracks_by_artist.choose(&mut random);
            let track = artist.and_then(|tracks| tracks.choose(&mut random));
            let track = track.context("every artist has a track")?;
            let last_start = track.pcm.samples.len() - frames * self.hop_length;
            let target = Crop {
                start_samples: random.random_range(0..=last_start),
                frames,
                semitones: 0,
                gain: random.random_range(-gain_nepers..=gain_nepers).exp(),
            };
            let (mut harmony_shift, mut rhythm_shift) = (
                random.random_range(-max_shift..=max_shift),
                random.random_range(-max_shift..=max_shift),
            );
            if !self.settings.two_views {
                rhythm_shift = harmony_shift;
            }
            if random.random_bool(self.settings.unshifted_share) {
                (harmony_shift, rhythm_shift) = (0, 0);
            }
            batch.harmony_shift.push(harmony_shift);
            batch.rhythm_shift.push(rhythm_shift);

            let values = crop * crop_values..(crop + 1) * crop_values;
            for (semitones, view) in [
                (0, &mut batch.target),
                (harmony_shift, &mut batch.harmony_view),
                (rhythm_shift, &mut batch.rhythm_view),
            ] {
                let crop = Crop {
                    semitones,
                    ..target
                };
                self.analysis
                    .log_mel(&track.pcm, crop, &mut view[values.clone()])?;
            }
        }
        Ok(batch)
    }

    /// Random numbers for the batch with this index.
    fn random(&self, index: u64) -> StdRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.settings.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&index.to_le_bytes());
        StdRng::from_seed(seed)
    }

    /// Makes batches from `first_index` on, one after the other, on a thread that ends when the
    /// stream is dropped.
    pub fn stream(mut self, first_index: u64) -> BatchStream {
        let (sender, batches) = sync_channel(QUEUE_BATCHES);
        thread::spawn(move || {
            for index in first_index.. {
                if sender.send(self.batch(index)).is_err() {
                    // Nobody waits for batches any more.
                    break;
                }
            }
        });
        BatchStream { batches }
    }
}

/// Batches in order, from a thread of their own.
pub struct BatchStream {
    batches: Receiver<Result<Batch>>,
}

impl BatchStream {
    /// Waits for the next batch.
    ///
    /// # Errors
    ///
    /// When it could not be made.
    pub fn next_batch(&mut self) -> Result<Batch> {
        self.batches
            .recv()
            .context("the thread that makes batches has ended")?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::audio_cache::Pcm;

    fn settings() -> CropSettings {
        CropSettings {
            batch: 4,
            frames: 16,
            max_shift: 7,
            gain_nepers: 0.7,
            unshifted_share: 0.1,
            two_views: true,
            seed: 3,
        }
    }

    /// A sine for each artist; the last one is too short for a crop.
    fn tracks() -> Vec<Arc<Track>> {
        [(200.0, 20_000), (500.0, 30_000), (900.0, 2_000)]
            .into_iter()
            .map(|(hz, samples)| {
                let step = std::f32::consts::TAU * hz / 22_050.0;
                let samples: Vec<f32> = (0..samples).map(|n| (step * n as f32).sin()).collect();
                Arc::new(Track {
                    path: "sine".into(),
                    artist: hz.to_string(),
                    pcm: Pcm::normalised(&samples, 22_050).unwrap(),
                })
            })
            .collect()
    }

    fn sampler(settings: CropSettings) -> CropSampler {
        CropSampler::new(&tracks(), &MelConfig::default(), settings).unwrap()
    }

    /// The band with the most energy in each crop.
    fn loudest_bands(values: &[f32], frames: usize) -> Vec<usize> {
        let of_crop = |crop: &[f32]| {
            let sums: Vec<f32> = crop.chunks(frames).map(|row| row.iter().sum()).collect();
            (0..sums.len())
                .max_by(|&a, &b| sums[a].total_cmp(&sums[b]))
                .unwrap()
        };
        values.chunks(128 * frames).map(of_crop).collect()
    }

    #[test]
    fn a_batch_depends_on_seed_and_index_alone() {
        let mut first = sampler(settings());
        let batches: Vec<Batch> = (0..3).map(|index| first.batch(index).unwrap()).collect();
        assert_ne!(batches[0], batches[1]);
        assert_eq!(sampler(settings()).batch(2).unwrap(), batches[2]);
        assert_ne!(
            sampler(CropSettings {
                seed: 4,
                ..settings()
            })
            .batch(2)
            .unwrap(),
            batches[2]
        );

        let mut stream = sampler(settings()).stream(1);
        assert_eq!(stream.next_batch().unwrap(), batches[1]);
        assert_eq!(stream.next_batch().unwrap(), batches[2]);
    }

    #[test]
    fn views_hold_the_target_moved_by_their_shifts() {
        let mut sampler = sampler(CropSettings {
            batch: 32,
            ..settings()
        });
        let batch = sampler.batch(0).unwrap();
        let values = 32 * 128 * 16;
        assert_eq!((batch.size, batch.frames), (32, 16));
        assert_eq!(batch.target.len(), values);
        assert_eq!(batch.harmony_view.len(), values);
        assert_eq!(batch.rhythm_view.len(), values);
        assert_ne!(batch.harmony_shift, batch.rhythm_shift);
        let target = loudest_bands(&batch.target, 16);
        for (view, shifts) in [
            (&batch.harmony_view, &batch.harmony_shift),
            (&batch.rhythm_view, &batch.rhythm_shift),
        ] {
            assert_eq!(shifts.len(), 32);
            let found = loudest_bands(view, 16);
            for ((target, found), shift) in target.iter().zip(found).zip(shifts) {
                assert!((-7..=7).contains(shift));
                // Below 1 kHz bands are evenly spaced, so a shift multiplies their number.
                let ratio = (*shift as f32 / 12.0).exp2();
                let expected = (*target as f32 + 1.0) * ratio - 1.0;
                let off = (found as f32 - expected).abs();
                assert!(off <= 1.5, "{shift}: band {found} from {target}");
            }
        }
    }

    #[test]
    fn unshifted_crops_are_the_target_itself() {
        let mut sampler = sampler(CropSettings {
            unshifted_share: 1.0,
            ..settings()
        });
        let batch = sampler.batch(0).unwrap();
        assert_eq!(batch.harmony_shift, [0; 4]);
        assert_eq!(batch.harmony_view, batch.target);
        assert_eq!(batch.rhythm_view, batch.target);
    }

    #[test]
    fn with_one_view_both_branches_see_the_same() {
        let mut sampler = sampler(CropSettings {
            two_views: false,
            ..settings()
        });
        let batch = sampler.batch(0).unwrap();
        assert_eq!(batch.harmony_shift, batch.rhythm_shift);
        assert_eq!(batch.harmony_view, batch.rhythm_view);
        assert_ne!(batch.harmony_view, batch.target);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for wrong in [
            CropSettings {
                batch: 0,
                ..settings()
            },
            CropSettings {
                frames: 100,
                ..settings()
            },
            CropSettings {
                unshifted_share: 1.5,
                ..settings()
            },
            CropSettings {
                gain_nepers: f32::NAN,
                ..settings()
            },
            CropSettings {
                max_shift: 25,
                ..settings()
            },
        ] {
            assert!(CropSampler::new(&tracks(), &MelConfig::default(), wrong).is_err());
        }
    }
}
