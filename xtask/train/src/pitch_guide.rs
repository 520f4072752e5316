//! What HARD's harmony latent should look like at the start of training: the notes in a log-mel, folded onto its channels.
//!
//! HARD has no pitch axis: nothing but the rotation of the channels by the pitch shift tells it that a channel is a
//! semitone. A latent that is pulled to this pattern for a while starts out that way.

use std::ops::RangeInclusive;

use anyhow::Result;
use candle_core::{Device, Tensor};
use vocoder::MelConfig;

/// MIDI numbers of the notes: from where mel bands are about as narrow as a semitone, to 10 kHz.
const NOTES: RangeInclusive<i32> = 55..=123;
/// A note counts by how much it rises above the mean of the notes this many semitones around it.
const CONTRAST_SEMITONES: i32 = 6;
/// Scale of this rise, in nepers, so that the pattern has about the variance of the prior.
const CONTRAST_NEPERS: f64 = 0.5;
/// The pattern is averaged over this many frames before and after, which hides the rhythm.
const AVERAGED_FRAMES: usize = 6;

/// Computes the pattern.
pub struct PitchGuide {
    /// From mel bands to channels and positions: (channels * positions, n_mels).
    fold: Tensor,
    channels: usize,
    positions: usize,
}

impl PitchGuide {
    /// The pattern for a latent with `channels` at each of `positions`, which divide the mel bands evenly. Notes that
    /// are `channels` semitones apart share a channel, so a transposition rotates the channels.
    ///
    /// # Errors
    ///
    /// Returns an error if the tensor cannot be created.
    pub fn new(
        mel: &MelConfig,
        channels: usize,
        positions: usize,
        device: &Device,
    ) -> Result<Self> {
        let bands_per_position = mel.n_mels / positions;
        let band = |note: i32| mel.band_at_hz(440.0 * (f64::from(note - 69) / 12.0).exp2());
        // Level of a note from the mel bands, by linear interpolation.
        let level = |note: i32| -> Vec<f64> {
            let band = band(note).clamp(0.0, mel.n_mels as f64 - 1.001);
            let below = band as usize;
            let mut row = vec![0.0; mel.n_mels];
            row[below] = 1.0 - (band - below as f64);
            row[below + 1] = band - below as f64;
            row
        };
        let mut fold = vec![vec![0.0; mel.n_mels]; channels * positions];
        let mut notes = vec![0.0; channels * positions];
        for note in NOTES {
            let position = (band(note) as usize / bands_per_position).min(positions - 1);
            let row = note.rem_euclid(channels as i32) as usize * positions + position;
            notes[row] += 1.0;
            let around = note - CONTRAST_SEMITONES..=note + CONTRAST_SEMITONES;
            let share = 1.0 / f64::from(2 * CONTRAST_SEMITONES + 1);
            add(&mut fold[row], &level(note), 1.0 / CONTRAST_NEPERS);
            for other in around {
                add(&mut fold[row], &level(other), -share / CONTRAST_NEPERS);
            }
        }
        let values = fold.iter().zip(&notes);
        let values = values.flat_map(|(row, &notes)| {
            let share = 1.0 / f64::max(notes, 1.0);
            row.iter().map(move |value| (value * share) as f32)
        });
        let values: Vec<f32> = values.collect();
        Ok(Self {
            fold: Tensor::from_vec(values, (channels * positions, mel.n_mels), device)?,
            channels,
            positions,
        })
    }

    /// The pattern (B, channels, positions, T) of log-mels (B, 1, n_mels, T).
    ///
    /// # Errors
    ///
    /// Returns an error if the shape does not fit.
    pub fn pattern(&self, mels: &Tensor) -> Result<Tensor> {
        let (batch, _, _, frames) = mels.dims4()?;
        let mels = mels.squeeze(1)?.contiguous()?;
        let notes = self
            .fold
            .broadcast_as((batch, self.fold.dim(0)?, self.fold.dim(1)?))?;
        let notes = notes.contiguous()?.matmul(&mels)?;
        let averages = averages(frames, mels.device())?;
        let averages = averages.broadcast_as((batch, frames, frames))?;
        let pattern = notes.matmul(&averages.contiguous()?)?;
        Ok(pattern.reshape((batch, self.channels, self.positions, frames))?)
    }
}

/// Adds `factor` times `other`.
fn add(row: &mut [f64], other: &[f64], factor: f64) {
    for (value, other) in row.iter_mut().zip(other) {
        *value += factor * other;
    }
}

/// Matrix of averages over neighbouring frames: (T, T).
fn averages(frames: usize, device: &Device) -> Result<Tensor> {
    let mut matrix = vec![0f32; frames * frames];
    for to in 0..frames {
        let from = to.saturating_sub(AVERAGED_FRAMES)..(to + AVERAGED_FRAMES + 1).min(frames);
        let share = 1.0 / from.len() as f32;
        for frame in from {
            matrix[frame * frames + to] = share;
        }
    }
    Ok(Tensor::from_vec(matrix, (frames, frames), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;
    use crate::shifted_mel::{Layer, ShiftedMel};
    use graft_material::audio_cache::Pcm;
    use model_runtime::hard::{HardConfig, HardDecoder};
    use model_runtime::{Architecture, Factor};

    /// The log-mel of a chord of harmonic tones, shifted by `semitones`.
    fn chord(semitones: i32) -> Tensor {
        let samples: Vec<f32> = (0..2 * 22_050)
            .map(|n| {
                let time_s = n as f32 / 22_050.0;
                let tone = |note: i32| {
                    let hz = 440.0 * ((note - 69) as f32 / 12.0).exp2();
                    let part = |k: u8| {
                        (std::f32::consts::TAU * hz * f32::from(k) * time_s).sin() / f32::from(k)
                    };
                    (1..=6).map(part).sum::<f32>()
                };
                tone(60) + tone(64) + tone(67)
            })
            .collect();
        let pcm = Pcm::normalised(&samples, 22_050).unwrap();
        let mut mel = vec![0.0; 128 * 32];
        let layer = Layer {
            pcm: &pcm,
            start_samples: 4096,
            semitones: f64::from(semitones),
            gain: 1.0,
            equaliser: None,
        };
        ShiftedMel::new(&MelConfig::default())
            .unwrap()
            .log_mel(&[layer], &mut mel)
            .unwrap();
        Tensor::from_vec(mel, (1, 1, 128, 32), &Device::Cpu).unwrap()
    }

    /// Correlation of two tensors without their means.
    fn correlation(a: &Tensor, b: &Tensor) -> f32 {
        let [a, b] = [a, b].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let mean = |x: &[f32]| x.iter().sum::<f32>() / x.len() as f32;
        let (mean_a, mean_b) = (mean(&a), mean(&b));
        let covariance = |a: &[f32], mean_a: f32, b: &[f32], mean_b: f32| -> f32 {
            let pairs = a.iter().zip(b);
            pairs.map(|(a, b)| (a - mean_a) * (b - mean_b)).sum()
        };
        let variances = covariance(&a, mean_a, &a, mean_a) * covariance(&b, mean_b, &b, mean_b);
        covariance(&a, mean_a, &b, mean_b) / variances.sqrt()
    }

    #[test]
    fn a_transposition_rotates_the_pattern_as_the_network_does() {
        let mel = MelConfig::default();
        let hard = Architecture::Hard(HardConfig {
            channels: 1,
            latents: 32,
            decoder: HardDecoder::Published,
        });
        let parameters = Parameters::new(1);
        let builder = parameters.builder(&Device::Cpu);
        let network = hard.build(&mel, false, &builder).unwrap();
        let guide = PitchGuide::new(&mel, 32, 2, &Device::Cpu).unwrap();
        let own = guide.pattern(&chord(0)).unwrap();
        assert_eq!(
            own.dims(),
            network.encode(&chord(0)).unwrap()[Factor::Harmony]
                .mean
                .dims()
        );
        for semitones in [-5, 3, 4] {
            let shifted = guide.pattern(&chord(semitones)).unwrap();
            let back = network
                .transpose(Factor::Harmony, &shifted, &[-semitones])
                .unwrap();
            let (rotated, not) = (correlation(&back, &own), correlation(&shifted, &own));
            assert!(rotated > 0.7 && not < 0.5, "{semitones}: {rotated} {not}");
        }
    }

    #[test]
    fn the_pattern_does_not_depend_on_level_and_hardly_on_rhythm() {
        let guide = PitchGuide::new(&MelConfig::default(), 32, 2, &Device::Cpu).unwrap();
        let own = guide.pattern(&chord(0)).unwrap();
        let softer = guide.pattern(&(chord(0) - 2.0).unwrap()).unwrap();
        let difference = (softer - &own).unwrap().abs().unwrap();
        let largest = difference.max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(largest < 1e-4, "{largest}");

        // One frame without notes.
        let flat = Tensor::zeros((1, 1, 128, 1), own.dtype(), own.device()).unwrap();
        let parts = [
            &chord(0).narrow(3, 0, 16).unwrap(),
            &flat,
            &chord(0).narrow(3, 17, 15).unwrap(),
        ];
        let gap = guide.pattern(&Tensor::cat(&parts, 3).unwrap()).unwrap();
        let there = |pattern: &Tensor| pattern.narrow(3, 16, 1).unwrap();
        assert!(correlation(&there(&gap), &there(&own)) > 0.95);
    }
}
