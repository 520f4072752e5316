//! The loss of a step, and its cyclical weight.

use anyhow::Result;
use candle_core::Tensor;
use model_runtime::FactorMap;
use model_runtime::latent::{Latent, Latents};
use serde::{Deserialize, Serialize};

use super::network::{Inputs, Tanaka};

/// Weights of the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TanakaLoss {
    /// Variance of a log magnitude around the decoded one: the squared differences are divided by twice this.
    pub variance: f64,
    /// Largest weight of the divergences.
    pub beta: f64,
    /// Steps in which this weight rises from 0 and stays, before it starts again.
    pub cycle_steps: u64,
}

/// Share of a cycle in which the weight rises.
const RAMP: f64 = 0.5;

impl TanakaLoss {
    /// Weight of the divergences at a step (Fu et al., "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing",
    /// NAACL 2019).
    pub fn beta_at(&self, step: u64) -> f64 {
        let place = (step % self.cycle_steps) as f64 / self.cycle_steps as f64;
        self.beta * (place / RAMP).min(1.0)
    }
}

/// Parts of the loss, as scalars on the device.
pub struct Parts {
    /// Sum of squared differences of a note's log magnitudes, mean over the notes.
    pub squares: Tensor,
    /// Mean of the squared differences.
    pub mean_square: Tensor,
    /// Sum of the divergences from the standard normal of a note's latents in nats, mean over the notes.
    pub kl: FactorMap<Tensor>,
}

impl Parts {
    /// Encodes and decodes notes, with `value` taken from the posteriors, and compares the result with `target` (T, B, F).
    ///
    /// # Errors
    ///
    /// Returns an error if the shapes do not match.
    pub fn of(
        network: &Tanaka,
        inputs: &Inputs,
        target: &Tensor,
        value: impl FnMut(&Latent) -> Result<Tensor>,
    ) -> Result<Self> {
        let (latents, values) = network.encode(inputs, value)?;
        let decoded = network.decode(&values)?;
        Self::between(&decoded, target, &inputs.mask, &latents)
    }

    fn between(
        decoded: &Tensor,
        target: &Tensor,
        mask: &Tensor,
        latents: &Latents,
    ) -> Result<Self> {
        let (_, batch, bins) = target.dims3()?;
        let squares = (decoded - target)?.sqr()?.broadcast_mul(mask)?.sum_all()?;
        let count = (mask.sum_all()? * bins as f64)?;
        Ok(Self {
            mean_square: (&squares / count)?,
            squares: (squares / batch as f64)?,
            kl: latents.try_map(|_, latent| divergence(latent, mask))?,
        })
    }

    /// The whole loss.
    ///
    /// # Errors
    ///
    /// Returns an error if a computation fails.
    pub fn total(&self, loss: &TanakaLoss, beta: f64) -> Result<Tensor> {
        let mut total = (&self.squares / (2.0 * loss.variance))?;
        for kl in self.kl.values() {
            total = (total + (kl * beta)?)?;
        }
        Ok(total)
    }
}

/// Divergence of a note's latents from the standard normal, summed over frames that sound, mean over the notes.
fn divergence(latent: &Latent, mask: &Tensor) -> Result<Tensor> {
    let variance = latent.spread.sqr()?;
    let twice = ((latent.mean.sqr()? + &variance)? - variance.log()?)?;
    let mut nats = ((twice - 1.0)? * 0.5)?;
    if nats.rank() == mask.rank() {
        nats = nats.broadcast_mul(mask)?;
    }
    Ok((nats.sum_all()? / mask.dim(1)? as f64)?)
}
