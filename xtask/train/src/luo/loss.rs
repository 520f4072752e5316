//! The losses: sums over the values of a frame or latent, and means over the frames of a batch.

use anyhow::Result;
use candle_core::{DType, Tensor};
use candle_nn::ops;

/// Temperature of the contrast.
const CONTRAST_TEMPERATURE: f64 = 0.5;

/// Lower limit of the length of a latent where its direction is taken.
const LEAST_LENGTH: f64 = 1e-8;

/// Mean over frames of `values` (frames): of those for which `mask` (frames) is 1, if there is a mask, and 0 if there are none.
fn mean(values: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let Some(mask) = mask else {
        return Ok(values.mean_all()?);
    };
    let count = mask.sum_all()?.maximum(1.0)?;
    Ok(((values * mask)?.sum_all()? / count)?)
}

/// Squared distance of `a` and `b`, both (frames, values).
pub fn squared_distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    mean(&(a - b)?.sqr()?.sum(1)?, None)
}

/// Kullback-Leibler divergence of normal distributions from standard ones; both (frames, latents).
pub fn kl_normal(mean: &Tensor, log_variance: &Tensor) -> Result<Tensor> {
    let terms = ((mean.sqr()? + log_variance.exp()?)? - log_variance)?;
    self::mean(&((terms - 1.0)? * 0.5)?.sum(1)?, None)
}

/// Kullback-Leibler divergence of the distributions of logits (frames, classes) from the uniform one.
pub fn kl_uniform(logits: &Tensor) -> Result<Tensor> {
    let log = ops::log_softmax(logits, 1)?;
    let classes = logits.dim(1)? as f64;
    mean(&((log.exp()? * log)?.sum(1)? + classes.ln())?, None)
}

/// Cross-entropy of logits (frames, classes) and `classes` (frames, u32).
pub fn cross_entropy(logits: &Tensor, classes: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let log = ops::log_softmax(logits, 1)?;
    let chosen = one_hot(classes, logits.dim(1)?)?.to_dtype(log.dtype())?;
    let chosen = (log * chosen)?.sum(1)?;
    mean(&chosen.neg()?, mask)
}

/// Contrast of both views' timbres (frames, latents): how likely each is taken for the partner of the other, among all other
/// timbres, by their cosine (Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020).
pub fn contrast(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let all = Tensor::cat(&[a, b], 0)?;
    let lengths = all.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(LEAST_LENGTH)?;
    let directions = all.broadcast_div(&lengths)?;
    let cosines = directions.matmul(&directions.t()?)?;
    let likeness = (cosines / CONTRAST_TEMPERATURE)?;
    let (frames, both) = (a.dim(0)?, all.dim(0)?);
    let others = (1.0 - Tensor::eye(both, all.dtype(), all.device())?)?;
    let total = (likeness.exp()? * others)?.sum(1)?.log()?;
    let (own, partner) = (
        directions.narrow(0, 0, frames)?,
        directions.narrow(0, frames, frames)?,
    );
    let likeness = ((own * partner)?.sum_all()? * (2.0 / CONTRAST_TEMPERATURE))?;
    Ok((total.mean_all()? - (likeness / both as f64)?)?)
}

/// A sample of the distributions of logits (frames, classes), one-hot, with the gradient of a soft sample (Jang et al.,
/// "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017). `noise` has a Gumbel distribution.
pub fn sample_pitch(logits: &Tensor, noise: &Tensor, temperature: f64) -> Result<Tensor> {
    let soft = ops::softmax(&((logits + noise)? / temperature)?, 1)?;
    let hard = one_hot(&soft.argmax(1)?, logits.dim(1)?)?.to_dtype(soft.dtype())?;
    Ok(((hard - soft.detach())? + soft)?)
}

/// A sample of normal distributions. `noise` has a standard normal distribution.
pub fn sample_timbre(mean: &Tensor, log_variance: &Tensor, noise: &Tensor) -> Result<Tensor> {
    Ok((mean + ((log_variance * 0.5)?.exp()? * noise)?)?)
}

/// Classes (frames, u32) as rows with a single 1, (frames, classes), in f32.
pub fn one_hot(classes: &Tensor, count: usize) -> Result<Tensor> {
    let all = Tensor::arange(0u32, count as u32, classes.device())?.unsqueeze(0)?;
    let rows = classes.dim(0)?;
    let equal = classes
        .unsqueeze(1)?
        .broadcast_as((rows, count))?
        .eq(&all.broadcast_as((rows, count))?)?;
    Ok(equal.to_dtype(DType::F32)?)
}
