//! Classifiers of frames, to judge what the network makes, and linear probes of its latents.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::loss::cross_entropy;
use super::network::{Layers, Linear, Mode};
use crate::optim::{Adam, AdamConfig};
use crate::parameters::Parameters;

/// Values of a hidden layer.
const HIDDEN: usize = 512;

/// Rows in a step.
const BATCH: usize = 128;

const EPOCHS: usize = 30;
const LEARNING_RATE: f64 = 1e-3;

/// Steps and learning rate of a probe, on all rows at once.
const PROBE_STEPS: usize = 400;
const PROBE_LEARNING_RATE: f64 = 0.05;

const ADAM: AdamConfig = AdamConfig {
    rectified: false,
    weight_decay: 0.0,
    betas: (0.9, 0.999),
    clip_norm: f64::INFINITY,
    amsgrad: true,
    average_decay: None,
};

/// A classifier with layers as those of the network's encoders.
pub struct FrameClassifier {
    layers: Layers,
    output: Linear,
}

impl FrameClassifier {
    /// Trains on rows (rows, values) and their classes, below `classes`.
    ///
    /// # Errors
    ///
    /// Returns an error if there are fewer than two rows.
    pub fn train(rows: &Tensor, labels: &[u32], classes: usize, seed: u64) -> Result<Self> {
        let (count, width) = rows.dims2()?;
        ensure!(
            count > 1 && labels.len() == count,
            "expected at least two rows, each with its class, found {count} and {}",
            labels.len()
        );
        let parameters = Parameters::new(seed);
        let statistics = Parameters::new(seed);
        let vb = parameters.builder(rows.device());
        let classifier = Self {
            layers: Layers::new(width, HIDDEN, &vb.pp("layers"), &statistics)?,
            output: Linear::new(HIDDEN, classes, &vb.pp("output"))?,
        };
        let mut optimiser = Adam::new(&parameters, ADAM)?;
        let mut random = StdRng::seed_from_u64(seed);
        let batches = (count / BATCH).max(1);
        let steps = (EPOCHS * batches) as f64;
        let mut order: Vec<u32> = (0..count as u32).collect();
        for epoch in 0..EPOCHS {
            order.shuffle(&mut random);
            for (batch, chosen) in order.chunks(BATCH).take(batches).enumerate() {
                let of_batch: Vec<u32> = chosen.iter().map(|&row| labels[row as usize]).collect();
                let chosen = Tensor::new(chosen, rows.device())?;
                let of_batch = Tensor::new(of_batch, rows.device())?;
                let rows = rows.index_select(&chosen, 0)?;
                let features = classifier.layers.forward(&rows, Mode::Training)?;
                let logits = classifier.output.forward(&features)?;
                let loss = cross_entropy(&logits, &of_batch, None)?;
                let progress = (epoch * batches + batch) as f64 / steps;
                let rate = LEARNING_RATE * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                optimiser.step(&loss.backward()?, rate)?;
            }
        }
        Ok(classifier)
    }

    /// The last hidden layer, (rows, features).
    ///
    /// # Errors
    ///
    /// Returns an error if the rows have another length.
    pub fn features(&self, rows: &Tensor) -> Result<Tensor> {
        self.layers.forward(rows, Mode::Inference)
    }

    /// Logits of the classes, (rows, classes).
    ///
    /// # Errors
    ///
    /// Returns an error if the rows have another length.
    pub fn logits(&self, rows: &Tensor) -> Result<Tensor> {
        self.output.forward(&self.features(rows)?)
    }
}

/// Share of `test` that a linear classifier fitted on `training` gets right; each is rows (rows, values) with their classes, below
/// `classes`.
///
/// # Errors
///
/// Returns an error if a set is empty.
pub fn linear_probe(
    training: (&Tensor, &[u32]),
    test: (&Tensor, &[u32]),
    classes: usize,
) -> Result<f64> {
    let (rows, labels) = training;
    ensure!(
        !labels.is_empty() && !test.1.is_empty(),
        "expected notes to fit a probe on and others to test it, found {} and {}",
        labels.len(),
        test.1.len()
    );
    let mean = rows.mean_keepdim(0)?;
    let variance = rows.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?;
    let deviation = (variance + 1e-12)?.sqrt()?;
    let scaled = |rows: &Tensor| -> Result<Tensor> {
        Ok(rows.broadcast_sub(&mean)?.broadcast_div(&deviation)?)
    };
    let parameters = Parameters::new(1);
    let probe = Linear::new(rows.dim(1)?, classes, &parameters.builder(&Device::Cpu))?;
    let mut optimiser = Adam::new(&parameters, ADAM)?;
    let (rows, labels) = (scaled(rows)?, Tensor::new(labels, &Device::Cpu)?);
    for step in 0..PROBE_STEPS {
        let loss = cross_entropy(&probe.forward(&rows)?, &labels, None)?;
        let rate = PROBE_LEARNING_RATE * (1.0 - step as f64 / PROBE_STEPS as f64);
        optimiser.step(&loss.backward()?, rate)?;
    }
    accuracy(&probe.forward(&scaled(test.0)?)?, test.1)
}

/// Share of rows of logits whose largest one is that of their class.
///
/// # Errors
///
/// Returns an error if the logits cannot be read.
pub fn accuracy(logits: &Tensor, labels: &[u32]) -> Result<f64> {
    let found = logits.argmax(1)?.to_vec1::<u32>()?;
    let right = found.iter().zip(labels).filter(|(a, b)| a == b).count();
    Ok(right as f64 / labels.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    /// Rows of six values with one of three classes. The signs of the first two values tell the class, alone or as a product.
    fn rows(count: usize, linear: bool, seed: u64) -> (Tensor, Vec<u32>) {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let row: Vec<f32> = (0..6).map(|_| random.random_range(-1.0..1.0)).collect();
            labels.push(match linear {
                true => u32::from(row[0] > 0.0) + u32::from(row[0] + row[1] > 0.8),
                false => u32::from(row[0] * row[1] > 0.0),
            });
            values.extend(row);
        }
        (
            Tensor::from_vec(values, (count, 6), &Device::Cpu).unwrap(),
            labels,
        )
    }

    #[test]
    fn probes_are_linear_and_classifiers_are_not() {
        let probe = |linear| {
            let (training, test) = (rows(600, linear, 1), rows(300, linear, 2));
            linear_probe((&training.0, &training.1), (&test.0, &test.1), 3).unwrap()
        };
        assert!(probe(true) > 0.9 && probe(false) < 0.65);
        let (training, test) = (rows(512, false, 1), rows(300, false, 2));
        let classifier = FrameClassifier::train(&training.0, &training.1, 2, 1).unwrap();
        let logits = classifier.logits(&test.0).unwrap();
        assert!(accuracy(&logits, &test.1).unwrap() > 0.85);
        assert_eq!(classifier.features(&test.0).unwrap().dims(), [300, HIDDEN]);
    }
}
