//! What a discriminator is, what it says, and the losses made of that.
//!
//! Legend of shapes: B batch, C channels, H height, T frames or the width.

use std::collections::HashMap;

use anyhow::Result;
use candle_core::Tensor;

/// One or more discriminators, whose weights are normalised anew at each step.
pub trait Critic {
    /// They at one step.
    type Judge: Judge;

    /// Brings what the normalisation estimates up to date.
    ///
    /// # Errors
    /// If a computation fails.
    fn iterate(&mut self) -> Result<()>;

    /// With the weights normalised, which gradients reach.
    ///
    /// # Errors
    /// If a computation fails.
    fn judge(&self) -> Result<Self::Judge>;

    /// What a resumed run needs beside the weights, by name.
    fn state(&self) -> HashMap<String, Tensor>;

    /// Takes what [`Self::state`] gave.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()>;
}

/// Discriminators at one step.
pub trait Judge: Sized {
    /// The same, whose weights no gradient reaches.
    #[must_use]
    fn frozen(&self) -> Self;

    /// What each of them makes of a batch.
    ///
    /// # Errors
    /// If the shape does not fit.
    fn look(&self, x: &Tensor) -> Result<Vec<Verdict>>;
}

/// What a discriminator makes of a batch.
pub struct Verdict {
    /// What its layers see in it (B, C, H, T), each with sizes of its own.
    pub features: Vec<Tensor>,
    /// One score a patch (B, 1, H, T): near 1 for what looks real, near 0 for what looks generated.
    pub scores: Tensor,
}

/// The generator's least-squares loss (Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017): decoded
/// mels shall score 1.
///
/// # Errors
/// If a computation fails.
pub fn generator_loss(decoded: &Verdict) -> Result<Tensor> {
    Ok((&decoded.scores - 1.0)?.sqr()?.mean_all()?)
}

/// The discriminator's least-squares loss: real mels shall score 1, decoded ones 0. HARD's public code hands the two
/// over the other way round, so that its discriminator learns to score as the generator wants it; here they compete.
///
/// # Errors
/// If a computation fails.
pub fn discriminator_loss(real: &Verdict, decoded: &Verdict) -> Result<Tensor> {
    let real = (&real.scores - 1.0)?.sqr()?.mean_all()?;
    Ok((real + decoded.scores.sqr()?.mean_all()?)?)
}

/// Feature matching (Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", ICML 2016; with L1
/// as in MelGAN, Kumar et al., NeurIPS 2019): the mean absolute difference of each layer's features, summed over the
/// layers. No gradient reaches the real mel's.
///
/// # Errors
/// If the shapes differ.
pub fn feature_matching(real: &Verdict, decoded: &Verdict) -> Result<Tensor> {
    let differences = real
        .features
        .iter()
        .zip(&decoded.features)
        .map(|(real, decoded)| mean(&(decoded - real.detach())?.abs()?))
        .collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::stack(&differences, 0)?.sum_all()?)
}

/// The mean of all values (B, C, ..). Summed in two stages, which a GPU does side by side.
fn mean(x: &Tensor) -> candle_core::Result<Tensor> {
    x.flatten_from(2)?.sum(2)?.sum_all()? / x.elem_count() as f64
}
