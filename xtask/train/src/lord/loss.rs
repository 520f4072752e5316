//! The losses.
//!
//! Mels are standardised, (B, `n_mels`, 1, T).

use anyhow::Result;
use candle_core::{D, Tensor};
use candle_nn::ops;
use serde::{Deserialize, Serialize};

use super::classifier::Classifier;

/// Times that the difference of two mels is pooled for the loss by halves: 1, 2 and 4 bands and frames.
const POOLINGS: usize = 3;

/// Weights of the parts of the reconstruction loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LordLoss {
    /// Mean absolute differences of the mels, and of their averages over 2 and 4 bands and frames, added up.
    pub l1: f64,
    /// Mean absolute differences of the classifier's features, added up over its layers.
    pub features: f64,
    /// Frobenius norm of the difference relative to that of the true mel.
    pub frobenius: f64,
}

/// The parts of a reconstruction loss, unweighted.
pub struct Reconstruction {
    /// Mean absolute difference of the mels.
    pub mel: Tensor,
    /// The same with those of the poolings.
    pub l1: Tensor,
    /// Of the classifier's features.
    pub features: Tensor,
    /// Relative Frobenius norm.
    pub frobenius: Tensor,
}

impl Reconstruction {
    /// Compares generated mels with the true ones.
    ///
    /// # Errors
    ///
    /// Returns an error if the shapes differ, or do not suit the classifier.
    pub fn of(classifier: &Classifier, generated: &Tensor, target: &Tensor) -> Result<Self> {
        let difference = (generated - target)?;
        let mut pooled = difference.clone();
        let mut means = Vec::new();
        for pooling in 0..POOLINGS {
            if pooling > 0 {
                pooled = halved(&pooled)?;
            }
            means.push(pooled.abs()?.mean_all()?);
        }
        let norm = |mel: &Tensor| mel.flatten_from(1)?.sqr()?.sum(1)?.sqrt();
        let pairs = classifier.features(generated)?.into_iter();
        let pairs = pairs.zip(classifier.features(target)?);
        let features = pairs.map(|(a, b)| Ok((a - b.detach())?.abs()?.mean_all()?));
        Ok(Self {
            mel: means[0].clone(),
            l1: Tensor::stack(&means, 0)?.sum_all()?,
            features: Tensor::stack(&features.collect::<Result<Vec<_>>>()?, 0)?.sum_all()?,
            frobenius: (norm(&difference)? / norm(target)?)?.mean_all()?,
        })
    }

    /// The weighted sum.
    ///
    /// # Errors
    ///
    /// Returns an error if a computation fails.
    pub fn total(&self, weights: &LordLoss) -> Result<Tensor> {
        let sum = ((&self.l1 * weights.l1)? + (&self.features * weights.features)?)?;
        Ok((sum + (&self.frobenius * weights.frobenius)?)?)
    }
}

/// Averages of 2 bands and 2 frames.
fn halved(mel: &Tensor) -> Result<Tensor> {
    let (batch, bands, _, frames) = mel.dims4()?;
    let by_time = mel
        .reshape((batch * bands * frames / 2, 2))?
        .mean(D::Minus1)?;
    let by_both = by_time
        .reshape((batch, bands / 2, 2, frames / 2))?
        .mean(2)?;
    Ok(by_both.reshape((batch, bands / 2, 1, frames / 2))?)
}

/// Sum of squares of each code, on average.
///
/// # Errors
///
/// Returns an error if a computation fails.
pub fn decay(codes: &Tensor) -> Result<Tensor> {
    Ok((codes.sqr()?.sum_all()? / codes.dim(0)? as f64)?)
}

/// Divergence of each code from the standard normal, on average.
///
/// # Errors
///
/// Returns an error if the shapes differ.
pub fn divergence(mean: &Tensor, log_variance: &Tensor) -> Result<Tensor> {
    let sum = ((mean.sqr()? + log_variance.exp()?)? - (log_variance + 1.0)?)?;
    Ok((sum.sum_all()? * (0.5 / mean.dim(0)? as f64))?)
}

/// Mean squared difference.
///
/// # Errors
///
/// Returns an error if the shapes differ.
pub fn mean_square(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok((a - b)?.sqr()?.mean_all()?)
}

/// Divergence of a classifier's opinion, by its logits (B, classes), from all classes being equally likely, on average.
///
/// # Errors
///
/// Returns an error if a computation fails.
pub fn certainty(logits: &Tensor) -> Result<Tensor> {
    let log = ops::log_softmax(logits, D::Minus1)?;
    let even = (logits.dim(D::Minus1)? as f64).ln();
    Ok((log.mean_all()?.neg()? - even)?)
}
