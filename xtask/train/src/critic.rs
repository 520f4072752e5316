//! The interface of discriminators, and the adversarial losses.
//!
//! Legend of shapes: B batch, C channels, H height, T frames or the width.

use std::collections::HashMap;

use anyhow::Result;
use candle_core::Tensor;

/// One or more discriminators. Their weights are normalised at each step.
pub trait Critic {
    /// The discriminators at one step.
    type Judge: Judge;

    /// Updates the estimates of the normalisation.
    ///
    /// # Errors
    ///
    /// Returns an error if a computation fails.
    fn iterate(&mut self) -> Result<()>;

    /// The discriminators with normalised weights. Gradients reach the weights.
    ///
    /// # Errors
    ///
    /// Returns an error if a computation fails.
    fn judge(&self) -> Result<Self::Judge>;

    /// State in addition to the weights that resuming needs, by name.
    fn state(&self) -> HashMap<String, Tensor>;

    /// Restores the tensors of [`Self::state`].
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor is missing or has another shape.
    fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()>;
}

/// Discriminators at one step.
pub trait Judge: Sized {
    /// The same discriminators with detached weights.
    #[must_use]
    fn frozen(&self) -> Self;

    /// Evaluates a batch with each discriminator.
    ///
    /// # Errors
    ///
    /// Returns an error if the shape does not match.
    fn look(&self, x: &Tensor) -> Result<Vec<Verdict>>;
}

/// Output of a discriminator for a batch.
pub struct Verdict {
    /// Features of its layers (B, C, H, T); the sizes differ between layers.
    pub features: Vec<Tensor>,
    /// One score per patch (B, 1, H, T): near 1 for real, near 0 for generated input.
    pub scores: Tensor,
}

/// The generator's least-squares loss (Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017): the
/// target score of decoded mels is 1.
///
/// # Errors
///
/// Returns an error if a computation fails.
pub fn generator_loss(decoded: &Verdict) -> Result<Tensor> {
    Ok((&decoded.scores - 1.0)?.sqr()?.mean_all()?)
}

/// The discriminator's least-squares loss: the target scores are 1 for real mels and 0 for decoded mels. HARD's
/// public code swaps the two arguments, so that its discriminator has the same targets as the generator; here they
/// compete.
///
/// # Errors
///
/// Returns an error if a computation fails.
pub fn discriminator_loss(real: &Verdict, decoded: &Verdict) -> Result<Tensor> {
    let real = (&real.scores - 1.0)?.sqr()?.mean_all()?;
    Ok((real + decoded.scores.sqr()?.mean_all()?)?)
}

/// Feature matching (Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", ICML 2016; with
/// L1 as in MelGAN, Kumar et al., NeurIPS 2019): the mean absolute difference of each layer's features, summed over
/// the layers. The features of the real mel are detached.
///
/// # Errors
///
/// Returns an error if the shapes differ.
pub fn feature_matching(real: &Verdict, decoded: &Verdict) -> Result<Tensor> {
    let differences = real
        .features
        .iter()
        .zip(&decoded.features)
        .map(|(real, decoded)| mean(&(decoded - real.detach())?.abs()?))
        .collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::stack(&differences, 0)?.sum_all()?)
}

/// The mean of all values (B, C, ..). Sums in two stages, which a GPU computes in parallel.
fn mean(x: &Tensor) -> candle_core::Result<Tensor> {
    x.flatten_from(2)?.sum(2)?.sum_all()? / x.elem_count() as f64
}
