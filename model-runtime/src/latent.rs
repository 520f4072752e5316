//! Latent sequences, and the operations on them.

use candle_core::{Result, Tensor};

use crate::factor::FactorMap;

/// Lower limit of the spread, so that its logarithm stays finite.
const MIN_SPREAD: f64 = 1e-3;

/// A diagonal Gaussian over a latent sequence (B, C, H, T).
#[derive(Clone, Debug)]
pub struct Latent {
    /// Mean.
    pub mean: Tensor,
    /// Standard deviation, positive.
    pub spread: Tensor,
}

impl Latent {
    /// Splits (B, 2C, H, T) into the mean and, through a softplus, the spread.
    pub(crate) fn from_raw(raw: &Tensor) -> Result<Self> {
        let parts = raw.chunk(2, 1)?;
        Ok(Self {
            mean: parts[0].contiguous()?,
            spread: (softplus(&parts[1])? + MIN_SPREAD)?,
        })
    }

    /// A random sample: `mean + spread * noise`, with standard normal `noise` of the mean's shape.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        &self.mean + (&self.spread * noise)?
    }

    /// Mean Kullback-Leibler divergence from the standard normal, per element, in nats.
    ///
    /// # Errors
    /// If a computation fails.
    pub fn kl(&self) -> Result<Tensor> {
        let variance = self.spread.sqr()?;
        let twice = ((self.mean.sqr()? + &variance)? - variance.log()?)?;
        ((twice - 1.0)? * 0.5)?.mean_all()
    }
}

/// `ln(1 + exp(x))` without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()? + ((x.abs()?.neg()?.exp()? + 1.0)?.log()?)
}

/// The latents of a clip, one for each factor of the network.
pub type Latents = FactorMap<Latent>;

impl Latents {
    /// The means of all latents.
    #[must_use]
    pub fn means(&self) -> FactorMap<Tensor> {
        self.map(|_, latent| latent.mean.clone())
    }
}

/// Shifts each batch element `b` of a latent (B, C, notes, T) by `semitones[b]` along the notes. Notes that leave the
/// axis are lost; new ones are silent (zero, the prior's mean).
pub(crate) fn shift_notes(latent: &Tensor, semitones: &[i32]) -> Result<Tensor> {
    let (batch, _, notes, _) = latent.dims4()?;
    if semitones.len() != batch {
        candle_core::bail!(
            "transposition expects {batch} shifts, found {}",
            semitones.len()
        );
    }
    if semitones.iter().all(|&n| n == 0) {
        return Ok(latent.clone());
    }
    let shifted = semitones
        .iter()
        .enumerate()
        .map(|(b, &n)| {
            let x = latent.narrow(0, b, 1)?;
            let by = (n.unsigned_abs() as usize).min(notes);
            match n {
                0 => Ok(x),
                1.. => x.narrow(2, 0, notes - by)?.pad_with_zeros(2, by, 0),
                _ => x.narrow(2, by, notes - by)?.pad_with_zeros(2, 0, by),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&shifted, 0)
}

/// Shifts the channels of each batch element `b` of a latent (B, C, H, T) by `semitones[b]`, circularly, as HARD does.
pub(crate) fn roll_channels(latent: &Tensor, semitones: &[i32]) -> Result<Tensor> {
    let (batch, channels, _, _) = latent.dims4()?;
    if semitones.len() != batch {
        candle_core::bail!(
            "transposition expects {batch} shifts, found {}",
            semitones.len()
        );
    }
    let rolled = semitones
        .iter()
        .enumerate()
        .map(|(b, &n)| {
            let x = latent.narrow(0, b, 1)?;
            let by = n.rem_euclid(channels as i32) as usize;
            if by == 0 {
                return Ok(x);
            }
            let (head, tail) = (
                x.narrow(1, 0, channels - by)?,
                x.narrow(1, channels - by, by)?,
            );
            Tensor::cat(&[tail, head], 1)
        })
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&rolled, 0)
}
