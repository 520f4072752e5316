//! What a step of training lowers.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::loss::{
    contrast, cross_entropy, kl_normal, kl_uniform, one_hot, sample_pitch, sample_timbre,
    squared_distance,
};
use super::network::{Encoded, LuoNetwork, Mode};
use crate::recipe::luo::LuoLoss;

/// One or two views of some notes.
pub struct Views {
    /// The frames of the notes, (notes, bands).
    pub first: Tensor,
    /// Their true pitches, (notes), u32.
    pub labels: Tensor,
    /// The second view of each note.
    pub second: Option<SecondView>,
}

/// The second view of each note.
pub struct SecondView {
    /// The frames, (notes, bands).
    pub frames: Tensor,
    /// Their transpositions in semitones.
    pub shifts: Vec<i32>,
}

/// Noise and temperature of the samples of timbre and pitch.
pub struct Sampling<'a> {
    /// Temperature of the pitches.
    pub temperature: f64,
    /// Draws as many random numbers of a distribution as it is asked for.
    pub draw: &'a mut dyn FnMut(Distribution, usize) -> Vec<f32>,
}

/// A distribution of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// The standard normal one, for timbres.
    Normal,
    /// The standard Gumbel one, for pitches.
    Gumbel,
}

/// Losses of some notes.
pub struct Objective {
    /// The weighted sum of all losses but the cycle.
    pub total: Tensor,
    /// The weighted cycle, which has a step of its own.
    pub cycle: Option<Tensor>,
    /// The losses by name, without their weights.
    pub parts: BTreeMap<&'static str, Tensor>,
}

impl Objective {
    /// The losses as numbers, with their weighted sum `loss`.
    ///
    /// # Errors
    ///
    /// Returns an error if they cannot be read.
    pub fn figures(&self) -> Result<BTreeMap<&'static str, f32>> {
        let parts = self.parts.iter().map(|(&name, part)| (name, part));
        let all = parts.chain([("loss", &self.total)]);
        all.map(|(name, part)| Ok((name, part.to_scalar()?)))
            .collect()
    }
}

/// Draws the timbre, or takes its mean.
fn timbre(encoded: &Encoded, sampling: &mut Option<Sampling>) -> Result<Tensor> {
    let Some(sampling) = sampling else {
        return Ok(encoded.mean.clone());
    };
    let noise = (sampling.draw)(Distribution::Normal, encoded.mean.elem_count());
    let noise = like(noise, &encoded.mean)?;
    sample_timbre(&encoded.mean, &encoded.log_variance, &noise)
}

/// Draws the pitch, or takes the likeliest.
fn pitch(encoded: &Encoded, sampling: &mut Option<Sampling>) -> Result<Tensor> {
    let logits = &encoded.logits;
    let Some(sampling) = sampling else {
        return one_hot(&logits.argmax(1)?, logits.dim(1)?);
    };
    let noise = (sampling.draw)(Distribution::Gumbel, logits.elem_count());
    sample_pitch(logits, &like(noise, logits)?, sampling.temperature)
}

fn like(values: Vec<f32>, tensor: &Tensor) -> Result<Tensor> {
    let values = Tensor::from_vec(values, tensor.shape(), tensor.device())?;
    Ok(values.to_dtype(tensor.dtype())?)
}

/// A view of some notes, decoded.
struct Decoded {
    encoded: Encoded,
    timbre: Tensor,
    pitch: Tensor,
    frames: Tensor,
}

/// Encodes and decodes all views. Without `sampling`, timbres are means and pitches the likeliest ones.
///
/// # Errors
///
/// Returns an error if the frames do not match the network.
pub fn objective(
    network: &LuoNetwork,
    views: &Views,
    weights: &LuoLoss,
    mut sampling: Option<Sampling>,
    mode: Mode,
) -> Result<Objective> {
    let sampling = &mut sampling;
    let mut decode = |frames: &Tensor| -> Result<Decoded> {
        let encoded = network.encode(frames, mode)?;
        let timbre = timbre(&encoded, sampling)?;
        let pitch = pitch(&encoded, sampling)?;
        Ok(Decoded {
            frames: network.decode(&timbre, &pitch, mode)?,
            encoded,
            timbre,
            pitch,
        })
    };
    let first = decode(&views.first)?;
    let second = match &views.second {
        Some(view) => Some((view, decode(&view.frames)?)),
        None => None,
    };

    let mut terms = Vec::new();
    // Losses of each view.
    let decoded = second
        .as_ref()
        .map(|(view, decoded)| (&view.frames, decoded));
    let decoded: Vec<(&Tensor, &Decoded)> = [(&views.first, &first)]
        .into_iter()
        .chain(decoded)
        .collect();
    let mut of_views = |name: &'static str,
                        weight: f64,
                        loss: &dyn Fn(&Tensor, &Decoded) -> Result<Tensor>|
     -> Result<()> {
        let losses = decoded
            .iter()
            .map(|(frames, decoded)| loss(frames, decoded));
        let losses = losses.collect::<Result<Vec<_>>>()?;
        terms.push((name, weight, Tensor::stack(&losses, 0)?.sum_all()?));
        Ok(())
    };
    of_views(
        "squared_distance",
        weights.reconstruction,
        &|frames, decoded| squared_distance(frames, &decoded.frames),
    )?;
    of_views("kl_timbre", weights.kl_timbre, &|_, decoded| {
        kl_normal(&decoded.encoded.mean, &decoded.encoded.log_variance)
    })?;
    of_views("kl_pitch", weights.kl_pitch, &|_, decoded| {
        kl_uniform(&decoded.encoded.logits)
    })?;
    if weights.labels > 0.0 {
        let loss = cross_entropy(&first.encoded.logits, &views.labels, None)?;
        terms.push(("labels", weights.labels, loss));
    }
    let mut cycle = None;
    if let Some((view, second)) = &second {
        if weights.l1 > 0.0 {
            let loss = squared_distance(&first.timbre, &second.timbre)?;
            terms.push(("timbre_distance", weights.l1, loss));
        }
        if weights.l2 > 0.0 {
            let loss = contrast(&first.encoded.mean, &second.encoded.mean)?;
            terms.push(("contrast", weights.l2, loss));
        }
        if weights.l4 > 0.0 {
            let loss = shift(&first.encoded.logits, &second.encoded.logits, &view.shifts)?;
            terms.push(("shift", weights.l4, loss));
        }
        if weights.l3 > 0.0 {
            cycle = Some(cycle_loss(network, &first, second, sampling, mode)?);
        }
    }
    let weighted = terms.iter().map(|(_, weight, loss)| loss * *weight);
    let weighted = weighted.collect::<candle_core::Result<Vec<_>>>()?;
    let mut parts: BTreeMap<_, _> = terms
        .into_iter()
        .map(|(name, _, loss)| (name, loss))
        .collect();
    if let Some(cycle) = &cycle {
        parts.insert("cycle", cycle.clone());
    }
    Ok(Objective {
        total: Tensor::stack(&weighted, 0)?.sum_all()?,
        cycle: cycle.map(|cycle| cycle * weights.l3).transpose()?,
        parts,
    })
}

/// How unlikely the second views' pitches are those of the first, shifted. Pitches that would lie out of range do not count.
fn shift(first: &Tensor, second: &Tensor, shifts: &[i32]) -> Result<Tensor> {
    let pitches = first.dim(1)? as i64;
    let likeliest = first.argmax(1)?.to_vec1::<u32>()?;
    let shifted = likeliest.iter().zip(shifts);
    let shifted = shifted.map(|(&pitch, &shift)| i64::from(pitch) + i64::from(shift));
    let (classes, mask): (Vec<u32>, Vec<f32>) = shifted
        .map(|pitch| {
            let in_range = (0..pitches).contains(&pitch);
            (
                pitch.clamp(0, pitches - 1) as u32,
                f32::from(u8::from(in_range)),
            )
        })
        .unzip();
    let device: &Device = first.device();
    let classes = Tensor::new(classes, device)?;
    let mask = Tensor::new(mask, device)?;
    cross_entropy(second, &classes, Some(&mask.to_dtype(second.dtype())?))
}

/// How far the timbres and pitches of frames with the timbre of one view and the pitch of the other are from these.
fn cycle_loss(
    network: &LuoNetwork,
    first: &Decoded,
    second: &Decoded,
    sampling: &mut Option<Sampling>,
    mode: Mode,
) -> Result<Tensor> {
    let mut of_swap = |of_timbre: &Decoded, of_pitch: &Decoded| -> Result<Tensor> {
        let swap = network.decode(&of_timbre.timbre, &of_pitch.pitch, mode)?;
        let encoded = network.encode(&swap, mode)?;
        let distance = squared_distance(&timbre(&encoded, sampling)?, &of_timbre.timbre)?;
        let likeliest = of_pitch.encoded.logits.argmax(1)?;
        Ok((distance + cross_entropy(&encoded.logits, &likeliest, None)?)?)
    };
    Ok((of_swap(second, first)? + of_swap(first, second)?)?)
}
