//! Mixes and transposes the latents of both sources.

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::factor::{Factor, Transposition};
use crate::network::Network;

/// Mixes latents (2B, C, H, T), main input first, to (B, C, H, T). `share(t)` is the weight of the sidechain at latent
/// frame `t`.
pub(crate) fn mix(latents: &Tensor, share: impl Fn(usize) -> f32) -> Result<Tensor> {
    let frames = latents.dim(D::Minus1)?;
    let shares = (0..frames).map(share).collect::<Vec<_>>();
    let halves = latents.chunk(2, 0)?;
    let share = Tensor::from_vec(shares, (1, 1, 1, frames), latents.device())?;
    let difference = (&halves[1] - &halves[0])?;
    Ok((&halves[0] + difference.broadcast_mul(&share)?)?)
}

/// Transposes all batch elements of a factor's latent (B, C, H, T). `semitones(t)` is the shift at latent frame `t`.
pub(crate) fn transpose(
    network: &dyn Network,
    factor: Factor,
    latent: &Tensor,
    semitones: impl Fn(usize) -> i32,
) -> Result<Tensor> {
    let (batch, frames) = (latent.dim(0)?, latent.dim(D::Minus1)?);
    if network.layout(factor)?.transposition == Transposition::None {
        return Ok(latent.clone());
    }
    let mut runs = Vec::new();
    let mut start = 0;
    while start < frames {
        let here = semitones(start);
        let end = (start..frames)
            .find(|&frame| semitones(frame) != here)
            .unwrap_or(frames);
        let run = latent.narrow(D::Minus1, start, end - start)?;
        runs.push(network.transpose(factor, &run.contiguous()?, &vec![here; batch])?);
        start = end;
    }
    Ok(Tensor::cat(&runs, D::Minus1)?)
}
