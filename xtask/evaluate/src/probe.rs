//! Classifiers that measure the information in a sequence of features: two bidirectional GRU layers and a linear one,
//! frame by frame, as in Wu's evaluation (DAFx 2023).

use anyhow::{Context, Result, ensure};
use candle_core::{D, Device, Tensor};
use candle_nn::{Init, VarBuilder, loss, ops};
use graft_train::gru::BiGru;
use graft_train::optim::{Adam, AdamConfig};
use graft_train::parameters::Parameters;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Units per direction and layer.
const HIDDEN: usize = 64;

/// Crops in a step.
const BATCH: usize = 16;

/// Learning rate of the first step; it decays to 0 along a half cosine.
const LEARNING_RATE: f64 = 5e-3;

/// The label of a frame that does not count.
pub const IGNORED: u32 = u32::MAX;

/// One song: features frame by frame, and their labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Features in a frame.
    pub width: usize,
    /// All features, frame after frame.
    pub features: Vec<f32>,
    /// A label for each frame, or [`IGNORED`].
    pub labels: Vec<u32>,
}

/// How a probe is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProbeConfig {
    /// Number of labels.
    pub classes: usize,
    /// Length of a crop.
    pub crop_frames: usize,
    /// Training steps.
    pub steps: usize,
    /// Seed for weights and crops.
    pub seed: u64,
}

/// A trained classifier.
pub struct Probe {
    layers: [BiGru; 2],
    /// (2 * HIDDEN, classes).
    weight: Tensor,
    bias: Tensor,
    /// Mean and deviation of all features it was trained on.
    scale: (f32, f32),
}

impl Probe {
    /// Trains on songs by cross-entropy. All features share one normalisation to mean 0 and standard deviation 1, so
    /// that a feature with little variation stays small.
    ///
    /// # Errors
    ///
    /// Returns an error if no song is as long as a crop, or the songs' features differ in width.
    pub fn train(songs: &[&Example], config: &ProbeConfig) -> Result<Self> {
        let long_enough = |song: &&&Example| song.labels.len() >= config.crop_frames;
        let songs: Vec<&Example> = songs.iter().filter(long_enough).copied().collect();
        let width = songs
            .first()
            .context("the song is shorter than a crop")?
            .width;
        ensure!(
            songs.iter().all(|song| song.width == width && song.features.len() == width * song.labels.len()),
            "expected {width} features in every frame"
        );
        let parameters = Parameters::new(config.seed);
        let vb = parameters.builder(&Device::Cpu);
        let probe = Self::new(width, config.classes, mean_and_deviation(&songs), &vb)?;
        let mut optimiser = Adam::new(
            &parameters,
            AdamConfig {
                rectified: true,
                weight_decay: 0.0,
                betas: (0.9, 0.99),
                clip_norm: 1.0,
                amsgrad: false,
                average_decay: None,
            },
        )?;
        let mut random = StdRng::seed_from_u64(config.seed);
        for step in 0..config.steps {
            let crops: Vec<(&Example, usize)> = (0..BATCH)
                .map(|_| {
                    let song = *songs.choose(&mut random).expect("there is a song");
                    (
                        song,
                        random.random_range(0..=song.labels.len() - config.crop_frames),
                    )
                })
                .collect();
            let logits = probe.logits(&crops, config.crop_frames)?;
            let labels = (0..config.crop_frames).flat_map(|frame| {
                crops
                    .iter()
                    .map(move |(song, start)| song.labels[start + frame])
            });
            let (rows, labels): (Vec<u32>, Vec<u32>) = (0..)
                .zip(labels)
                .filter(|(_, label)| *label != IGNORED)
                .unzip();
            if rows.is_empty() {
                continue;
            }
            let count = rows.len();
            let rows = Tensor::from_vec(rows, count, &Device::Cpu)?;
            let labels = Tensor::from_vec(labels, count, &Device::Cpu)?;
            let loss = loss::cross_entropy(&logits.index_select(&rows, 0)?, &labels)?;
            let progress = step as f64 / config.steps as f64;
            let rate = LEARNING_RATE * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
            optimiser.step(&loss.backward()?, rate)?;
        }
        Ok(probe)
    }

    fn new(width: usize, classes: usize, scale: (f32, f32), vb: &VarBuilder) -> Result<Self> {
        let bound = 1.0 / (2.0 * HIDDEN as f64).sqrt();
        let init = Init::Uniform {
            lo: -bound,
            up: bound,
        };
        Ok(Self {
            layers: [
                BiGru::new(width, HIDDEN, &vb.pp("first"))?,
                BiGru::new(2 * HIDDEN, HIDDEN, &vb.pp("second"))?,
            ],
            weight: vb.get_with_hints((2 * HIDDEN, classes), "weight", init)?,
            bias: vb.get_with_hints(classes, "bias", init)?,
            scale,
        })
    }

    /// Crops of `frames` frames, each a song and its first frame, to (frames * crops, classes).
    fn logits(&self, crops: &[(&Example, usize)], frames: usize) -> Result<Tensor> {
        let width = crops.first().map_or(0, |(song, _)| song.width);
        let (mean, deviation) = self.scale;
        let mut values = Vec::with_capacity(frames * crops.len() * width);
        for frame in 0..frames {
            for (song, start) in crops {
                let features = &song.features[(start + frame) * width..][..width];
                values.extend(features.iter().map(|value| (value - mean) / deviation));
            }
        }
        let mut x = Tensor::from_vec(values, (frames, crops.len(), width), &Device::Cpu)?;
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        let x = x.reshape((frames * crops.len(), 2 * HIDDEN))?;
        Ok(x.matmul(&self.weight)?.broadcast_add(&self.bias)?)
    }

    /// Probability of each class in each frame of a song.
    ///
    /// # Errors
    ///
    /// Returns an error if its features have another width.
    pub fn probabilities(&self, song: &Example) -> Result<Vec<Vec<f32>>> {
        let logits = self.logits(&[(song, 0)], song.labels.len())?;
        Ok(ops::softmax(&logits, D::Minus1)?.to_vec2()?)
    }
}

fn mean_and_deviation(songs: &[&Example]) -> (f32, f32) {
    let values = || {
        songs
            .iter()
            .flat_map(|song| &song.features)
            .map(|&value| f64::from(value))
    };
    let count = values().count().max(1) as f64;
    let mean = values().sum::<f64>() / count;
    let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean as f32, variance.sqrt().max(1e-6) as f32)
}

/// The most likely class of a frame.
pub fn likeliest(probabilities: &[f32]) -> usize {
    let classes = probabilities.iter().enumerate();
    classes
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map_or(0, |(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Songs of 60 frames in four features, with one of three labels for twelve frames at a time. The features tell the label in
    /// the frame before only, so that a probe has to remember, or they tell nothing.
    fn songs(informed: bool) -> Vec<Example> {
        let mut random = StdRng::seed_from_u64(5);
        (0..24)
            .map(|_| {
                let blocks: Vec<u32> = (0..5).map(|_| random.random_range(0..3)).collect();
                let labels: Vec<u32> = (0..60).map(|frame| blocks[frame / 12]).collect();
                let features = labels.iter().enumerate().flat_map(|(frame, &label)| {
                    let told = frame % 12 == 0 && informed;
                    (0..4).map(move |feature| if told && feature == label { 1.0 } else { 0.0 })
                });
                let features = features.map(|value: f32| value + random.random_range(-0.1..0.1));
                Example {
                    width: 4,
                    features: features.collect(),
                    labels: labels.clone(),
                }
            })
            .collect()
    }

    fn accuracy(songs: &[Example], seed: u64) -> f64 {
        let (evaluation, training) = songs.split_at(8);
        let training: Vec<&Example> = training.iter().collect();
        let config = ProbeConfig {
            classes: 3,
            crop_frames: 48,
            steps: 60,
            seed,
        };
        let probe = Probe::train(&training, &config).unwrap();
        let (mut right, mut all) = (0, 0);
        for song in evaluation {
            let found = probe.probabilities(song).unwrap();
            assert!(
                found
                    .iter()
                    .all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-4)
            );
            right += found
                .iter()
                .zip(&song.labels)
                .filter(|(row, label)| likeliest(row) == **label as usize)
                .count();
            all += song.labels.len();
        }
        right as f64 / all as f64
    }

    #[test]
    fn a_probe_finds_what_is_there_and_nothing_else() {
        let (informed, uninformed) = (accuracy(&songs(true), 1), accuracy(&songs(false), 1));
        assert!(informed > 0.9, "{informed}");
        // Chance is a third.
        assert!(uninformed < 0.55, "{uninformed}");
    }

    #[test]
    fn frames_without_a_label_do_not_count() {
        let mut songs = songs(true);
        for song in &mut songs[8..] {
            song.labels[30..].fill(IGNORED);
        }
        assert!(accuracy(&songs, 2) > 0.8);
        songs[9].width = 3;
        let songs: Vec<&Example> = songs.iter().collect();
        let config = ProbeConfig {
            classes: 3,
            crop_frames: 48,
            steps: 1,
            seed: 1,
        };
        assert!(Probe::train(&songs, &config).is_err());
        let config = ProbeConfig {
            crop_frames: 61,
            ..config
        };
        assert!(Probe::train(&songs[..5], &config).is_err());
    }
}
