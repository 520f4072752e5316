//! A small classifier of artists. Its last hidden layer gives the features for the Fréchet distance.
//!
//! Two convolutions over time on the log-mel, mean and deviation over the clip, a layer of [`FEATURES`] values, the
//! artists. It is trained on the model's training artists, so it has not seen the artists of the remixes.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use candle_nn::{Init, VarBuilder, loss};
use graft_material::progress;
use graft_train::dataset::Track;
use graft_train::optim::{Adam, AdamConfig};
use graft_train::parameters::Parameters;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vocoder::layers::{Conv, ConvConfig};
use vocoder::{LogMel, MelConfig, MelSpectrogram};

use crate::frechet::ClipFeatures;

/// Values of a window's features.
pub const FEATURES: usize = 32;

/// Length of a window, 3 s, and the distance to the next.
pub const WINDOW_FRAMES: usize = 128;
const WINDOW_HOP: usize = 64;

const CHANNELS: usize = 48;
const BATCH: usize = 16;
const LEARNING_RATE: f64 = 2e-3;

/// Mean and deviation of log-mels of music, in nepers.
const MEL_MEAN: f32 = -4.5;
const MEL_DEVIATION: f32 = 2.2;

/// Windows of each artist that the accuracy is measured on.
const TEST_WINDOWS: usize = 4;

/// A trained classifier.
pub struct Classifier {
    convolutions: [Conv; 2],
    feature_weight: Tensor,
    feature_bias: Tensor,
    artist_weight: Tensor,
    artist_bias: Tensor,
    /// Number of artists.
    pub artists: usize,
    /// Accuracy on windows from the last quarters of tracks, which are not used for training.
    pub accuracy: f64,
}

impl Classifier {
    /// Trains on tracks of at least two artists. Artists are drawn uniformly.
    ///
    /// # Errors
    ///
    /// Returns an error if there are fewer.
    pub fn train(tracks: &[Arc<Track>], steps: usize, seed: u64) -> Result<Self> {
        let mut mel = MelSpectrogram::new(&MelConfig::default())?;
        let bar = progress::bar("Analysing tracks", tracks.len() as u64);
        let tracks: Vec<(&str, LogMel)> = tracks
            .iter()
            .map(|track| {
                let log_mel = mel.log_mel(&track.pcm.floats());
                bar.inc(1);
                (track.artist.as_str(), log_mel)
            })
            // Three quarters for training and one for the test have a window each.
            .filter(|(_, log_mel)| log_mel.frames() >= 4 * WINDOW_FRAMES + 4)
            .collect();
        bar.finish_and_clear();
        let artists: BTreeSet<&str> = tracks.iter().map(|(artist, _)| *artist).collect();
        ensure!(
            artists.len() > 1,
            "expected tracks by at least two artists, found {}",
            artists.len()
        );
        let by_artist: Vec<Vec<&LogMel>> = artists
            .iter()
            .map(|name| {
                tracks
                    .iter()
                    .filter(|(artist, _)| artist == name)
                    .map(|(_, mel)| mel)
                    .collect()
            })
            .collect();

        let parameters = Parameters::new(seed);
        let vb = parameters.builder(&Device::Cpu);
        let mut classifier = Self::new(by_artist.len(), &vb)?;
        let config = AdamConfig {
            rectified: true,
            weight_decay: 0.0,
            betas: (0.9, 0.99),
            clip_norm: 1.0,
            amsgrad: false,
            average_decay: None,
        };
        let mut optimiser = Adam::new(&parameters, config)?;
        let mut random = StdRng::seed_from_u64(seed);
        let bar = progress::bar("Training the classifier", steps as u64);
        for step in 0..steps {
            let labels: Vec<u32> = (0..BATCH)
                .map(|_| random.random_range(0..by_artist.len() as u32))
                .collect();
            let windows: Vec<&[f32]> = labels
                .iter()
                .map(|&artist| window(&by_artist[artist as usize], false, &mut random))
                .collect();
            let logits = classifier.logits(&windows)?;
            let labels = Tensor::from_vec(labels, BATCH, &Device::Cpu)?;
            let loss = loss::cross_entropy(&logits, &labels)?;
            let progress = step as f64 / steps as f64;
            let rate = LEARNING_RATE * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
            optimiser.step(&loss.backward()?, rate)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mut right = 0;
        for (artist, tracks) in by_artist.iter().enumerate() {
            let windows: Vec<&[f32]> = (0..TEST_WINDOWS)
                .map(|_| window(tracks, true, &mut random))
                .collect();
            let logits = classifier.logits(&windows)?.to_vec2::<f32>()?;
            right += logits
                .iter()
                .filter(|row| super::probe::likeliest(row) == artist)
                .count();
        }
        classifier.accuracy = right as f64 / (TEST_WINDOWS * by_artist.len()) as f64;
        Ok(classifier)
    }

    fn new(artists: usize, vb: &VarBuilder) -> Result<Self> {
        let n_mels = MelConfig::default().n_mels;
        let linear = |name: &str, input: usize, output: usize| -> Result<[Tensor; 2]> {
            let bound = 1.0 / (input as f64).sqrt();
            let init = Init::Uniform {
                lo: -bound,
                up: bound,
            };
            let vb = vb.pp(name);
            Ok([
                vb.get_with_hints((input, output), "weight", init)?,
                vb.get_with_hints(output, "bias", init)?,
            ])
        };
        let [feature_weight, feature_bias] = linear("features", 2 * CHANNELS, FEATURES)?;
        let [artist_weight, artist_bias] = linear("artists", FEATURES, artists)?;
        Ok(Self {
            convolutions: [
                Conv::new(ConvConfig::same(n_mels, CHANNELS, (1, 3)), &vb.pp("first"))?,
                Conv::new(
                    ConvConfig::same(CHANNELS, CHANNELS, (1, 3)),
                    &vb.pp("second"),
                )?,
            ],
            feature_weight,
            feature_bias,
            artist_weight,
            artist_bias,
            artists,
            accuracy: 0.0,
        })
    }

    /// Windows of [`WINDOW_FRAMES`] frames to (windows, FEATURES).
    fn embed(&self, windows: &[&[f32]]) -> Result<Tensor> {
        let n_mels = MelConfig::default().n_mels;
        let values = windows.iter().flat_map(|window| window.iter());
        let values: Vec<f32> = values
            .map(|value| (value - MEL_MEAN) / MEL_DEVIATION)
            .collect();
        let x = Tensor::from_vec(values, (windows.len(), WINDOW_FRAMES, n_mels), &Device::Cpu)?;
        let mut x = x.transpose(1, 2)?.contiguous()?.unsqueeze(2)?;
        for convolution in &self.convolutions {
            x = convolution.forward(&x)?;
        }
        let x = x.squeeze(2)?;
        let mean = x.mean_keepdim(2)?;
        let variance = x.broadcast_sub(&mean)?.sqr()?.mean(2)?;
        let pooled = Tensor::cat(&[mean.squeeze(2)?, (variance + 1e-5)?.sqrt()?], 1)?;
        let features = pooled
            .contiguous()?
            .matmul(&self.feature_weight)?
            .broadcast_add(&self.feature_bias)?;
        Ok(features.tanh()?)
    }

    fn logits(&self, windows: &[&[f32]]) -> Result<Tensor> {
        let features = self.embed(windows)?;
        Ok(features
            .matmul(&self.artist_weight)?
            .broadcast_add(&self.artist_bias)?)
    }

    /// Features of the windows of a clip, in order.
    ///
    /// # Errors
    ///
    /// Returns an error if it is shorter than a window.
    pub fn features(&self, log_mel: &LogMel) -> Result<ClipFeatures> {
        let last = log_mel.frames().checked_sub(WINDOW_FRAMES);
        let last = last.context("the clip is shorter than one segment of features")?;
        let windows: Vec<&[f32]> = (0..=last)
            .step_by(WINDOW_HOP)
            .map(|start| frames(log_mel, start))
            .collect();
        Ok(self.embed(&windows)?.to_vec2()?)
    }
}

/// The window of a log-mel from a frame on.
fn frames(log_mel: &LogMel, start: usize) -> &[f32] {
    &log_mel.values()[start * log_mel.n_mels()..][..WINDOW_FRAMES * log_mel.n_mels()]
}

/// A window from the first three quarters of a track, or from the last.
fn window<'a>(tracks: &[&'a LogMel], test: bool, random: &mut StdRng) -> &'a [f32] {
    let log_mel = tracks[random.random_range(0..tracks.len())];
    let border = log_mel.frames() * 3 / 4;
    let start = match test {
        false => random.random_range(0..=border - WINDOW_FRAMES),
        true => random.random_range(border..=log_mel.frames() - WINDOW_FRAMES),
    };
    frames(log_mel, start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::audio_cache::Pcm;

    fn track(artist: &str, hz: f32) -> Arc<Track> {
        let samples: Vec<f32> = (0..22_050 * 14)
            .map(|n| {
                let n = n as f32;
                (n * hz * 2.8e-4).sin() * (1.0 + 0.5 * (n * 1e-4).sin()) * 0.3
            })
            .collect();
        Arc::new(Track {
            path: artist.into(),
            artist: artist.into(),
            pcm: Pcm::normalised(&samples, 22_050).unwrap(),
        })
    }

    #[test]
    fn artists_are_told_apart_and_their_features_too() {
        let tracks = [
            track("low", 220.0),
            track("high", 3000.0),
            track("higher", 6000.0),
        ];
        let classifier = Classifier::train(&tracks, 30, 1).unwrap();
        assert_eq!(classifier.artists, 3);
        assert!(classifier.accuracy > 0.9, "{}", classifier.accuracy);
        let mut mel = MelSpectrogram::new(&MelConfig::default()).unwrap();
        let mut features = |track: &Track| {
            classifier
                .features(&mel.log_mel(&track.pcm.floats()))
                .unwrap()
        };
        let [low, high, _] = [0, 1, 2].map(|index| features(&tracks[index]));
        assert_eq!((low.len(), low[0].len()), (8, FEATURES));
        let distance =
            |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum() };
        assert!(distance(&low[0], &high[0]) > 4.0 * distance(&low[0], &low[5]));
        assert!(Classifier::train(&tracks[..1], 1, 1).is_err());
        assert!(classifier.features(&LogMel::new(128)).is_err());
    }
}
