//! The network. Shapes: T frames, B notes, F bins, all sequences with the time first.

use anyhow::{Result, ensure};
use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};
use model_runtime::latent::{Latent, Latents};
use model_runtime::{Factor, FactorMap};
use serde::{Deserialize, Serialize};

use crate::gru::BiGru;
use crate::perturbation::spectra::Analysis;

/// Lower limit of the spread, so that its logarithm stays finite.
const MIN_SPREAD: f64 = 1e-4;

/// What the last layer of the pitch encoder hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PitchEncoder {
    /// Only the layers before.
    Independent,
    /// Timbre and variation, too.
    Conditional,
}

/// Kind and sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TanakaConfig {
    /// What the pitch encoder hears.
    pub pitch_encoder: PitchEncoder,
    /// Units of each recurrent layer in each direction.
    pub hidden: usize,
    /// Timbre latents of a note; with 0, there is no timbre latent.
    pub timbre_latents: usize,
    /// Variation latents of a frame; with 0, there is no variation latent.
    pub variation_latents: usize,
    /// Pitch latents of a frame.
    pub pitch_latents: usize,
    /// Mean and deviation of the log spectra, in nepers: what the network hears and makes is standardised by these.
    pub log_mean: f64,
    /// See [`log_mean`](Self::log_mean).
    pub log_deviation: f64,
}

impl TanakaConfig {
    /// Checks the sizes.
    ///
    /// # Errors
    ///
    /// Returns an error if one is out of range.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.hidden > 0 && self.pitch_latents > 0,
            "tanaka: expected hidden and pitch_latents of at least 1, found {} and {}",
            self.hidden,
            self.pitch_latents
        );
        ensure!(
            self.timbre_latents + self.variation_latents > 0,
            "tanaka: expected timbre_latents or variation_latents, found neither"
        );
        ensure!(
            self.log_mean.is_finite() && self.log_deviation > 0.0,
            "tanaka: log_mean must be finite and log_deviation above 0, found {} and {}",
            self.log_mean,
            self.log_deviation
        );
        Ok(())
    }

    /// Latents of a note or a frame, for each factor that there is.
    pub fn latents(&self) -> FactorMap<usize> {
        let sizes = [
            (Factor::Timbre, self.timbre_latents),
            (Factor::Pitch, self.pitch_latents),
            (Factor::Variation, self.variation_latents),
        ];
        sizes.into_iter().filter(|(_, size)| *size > 0).collect()
    }
}

/// What the encoders hear of a batch of notes.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Cepstral coefficients of the envelopes (T, B, cut).
    pub cepstra: Tensor,
    /// Fine structures (T, B, F).
    pub fine: Tensor,
    /// 1 where a note sounds, 0 behind its end (T, B, 1).
    pub mask: Tensor,
}

/// Recurrent layers, and a linear one for means and spreads.
struct Encoder {
    layers: Vec<BiGru>,
    head: Linear,
}

/// Encoders and decoder.
pub struct Tanaka {
    config: TanakaConfig,
    cepstra_scale: Tensor,
    timbre: Option<Encoder>,
    variation: Option<Encoder>,
    pitch: Encoder,
    decoder: Vec<BiGru>,
    output: Linear,
}

impl Tanaka {
    /// Reads or creates the weights.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor is missing or has another shape.
    pub fn new(config: &TanakaConfig, analysis: &Analysis, vb: &VarBuilder) -> Result<Self> {
        let TanakaConfig {
            hidden,
            timbre_latents,
            variation_latents,
            pitch_latents,
            ..
        } = *config;
        let (cut, bins) = (analysis.cut, analysis.bins());
        // What is concatenated before the last layer of an encoder.
        let encoder = |input: usize, beside: usize, latents: usize, vb: VarBuilder| -> Result<_> {
            Ok(Encoder {
                layers: stack(input, beside, hidden, &vb)?,
                head: Linear::new(2 * hidden, 2 * latents, &vb.pp("head"))?,
            })
        };
        let timbre = match timbre_latents {
            0 => None,
            latents => Some(encoder(cut, 0, latents, vb.pp("timbre"))?),
        };
        let variation = match variation_latents {
            0 => None,
            latents => Some(encoder(cut, timbre_latents, latents, vb.pp("variation"))?),
        };
        let beside = match config.pitch_encoder {
            PitchEncoder::Independent => 0,
            PitchEncoder::Conditional => timbre_latents + variation_latents,
        };
        let latents = timbre_latents + variation_latents + pitch_latents;
        // An envelope is the sum of cosines that are twice as high as their coefficients, but for the constant.
        let scale = (0..cut).map(|n| if n == 0 { 1.0f32 } else { 2.0 });
        let scale = Tensor::from_iter(scale, vb.device())?;
        Ok(Self {
            cepstra_scale: (scale / config.log_deviation)?,
            timbre,
            variation,
            pitch: encoder(bins, beside, pitch_latents, vb.pp("pitch"))?,
            decoder: stack(latents, 0, hidden, &vb.pp("decoder"))?,
            output: Linear::new(2 * hidden, bins, &vb.pp("output"))?,
            config: config.clone(),
        })
    }

    /// Posteriors of a batch, and the values that are taken from them by `value`: timbre (B, C), variation and pitch (T, B, C).
    /// Later encoders hear the values of earlier ones.
    ///
    /// # Errors
    ///
    /// Returns an error if the shapes do not match.
    pub fn encode(
        &self,
        inputs: &Inputs,
        mut value: impl FnMut(&Latent) -> Result<Tensor>,
    ) -> Result<(Latents, FactorMap<Tensor>)> {
        let (mut latents, mut values) = (Latents::default(), FactorMap::default());
        let mut take = |factor, latent: Latent, values: &mut FactorMap<Tensor>| -> Result<()> {
            values.insert(factor, value(&latent)?);
            latents.insert(factor, latent);
            Ok(())
        };
        let frames = inputs.mask.dim(0)?;
        let standard = inputs.cepstra.broadcast_mul(&self.cepstra_scale)?;
        // The coefficients but the first have a mean of about 0.
        let offset = self.config.log_mean / self.config.log_deviation;
        let constant = (standard.narrow(2, 0, 1)? - offset)?;
        let others = standard.narrow(2, 1, standard.dim(2)? - 1)?;
        let envelope = Tensor::cat(&[constant, others], 2)?;
        if let Some(encoder) = &self.timbre {
            let heard = encoder.layers(&envelope, &[])?;
            let sum = heard.broadcast_mul(&inputs.mask)?.sum(0)?;
            let mean = sum.broadcast_div(&inputs.mask.sum(0)?)?;
            take(Factor::Timbre, encoder.latent(&mean)?, &mut values)?;
        }
        if let Some(encoder) = &self.variation {
            let beside = in_frames(&values, &[Factor::Timbre], frames)?;
            let heard = encoder.layers(&envelope, &beside)?;
            take(Factor::Variation, encoder.latent(&heard)?, &mut values)?;
        }
        let beside = match self.config.pitch_encoder {
            PitchEncoder::Independent => Vec::new(),
            PitchEncoder::Conditional => {
                in_frames(&values, &[Factor::Timbre, Factor::Variation], frames)?
            }
        };
        let heard = self.pitch.layers(&inputs.fine, &beside)?;
        take(Factor::Pitch, self.pitch.latent(&heard)?, &mut values)?;
        Ok((latents, values))
    }

    /// Log spectrograms (T, B, F) of values in the shapes of [`encode`](Self::encode).
    ///
    /// # Errors
    ///
    /// Returns an error if a factor is missing or the shapes do not match.
    pub fn decode(&self, values: &FactorMap<Tensor>) -> Result<Tensor> {
        let frames = values[Factor::Pitch].dim(0)?;
        let factors = [Factor::Timbre, Factor::Variation, Factor::Pitch];
        let mut x = Tensor::cat(&in_frames(values, &factors, frames)?, 2)?;
        for layer in &self.decoder {
            x = layer.forward(&x)?;
        }
        let spectra = self.output.forward(&x)?;
        Ok(spectra.affine(self.config.log_deviation, self.config.log_mean)?)
    }
}

impl Encoder {
    /// (T, B, input) to (T, B, 2 * hidden); the last layer also hears what is `beside`, (T, B, any).
    fn layers(&self, x: &Tensor, beside: &[Tensor]) -> Result<Tensor> {
        let mut x = x.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            if index + 1 == self.layers.len() && !beside.is_empty() {
                x = Tensor::cat(&[&[x], beside].concat(), 2)?;
            }
            x = layer.forward(&x)?;
        }
        Ok(x)
    }

    /// The posterior from the outputs of the layers.
    fn latent(&self, x: &Tensor) -> Result<Latent> {
        let raw = self.head.forward(x)?;
        let parts = raw.chunk(2, raw.rank() - 1)?;
        Ok(Latent {
            mean: parts[0].contiguous()?,
            spread: (softplus(&parts[1].contiguous()?)? + MIN_SPREAD)?,
        })
    }
}

/// Three layers.
fn stack(input: usize, beside: usize, hidden: usize, vb: &VarBuilder) -> Result<Vec<BiGru>> {
    Ok(vec![
        BiGru::new(input, hidden, &vb.pp("first"))?,
        BiGru::new(2 * hidden, hidden, &vb.pp("second"))?,
        BiGru::new(2 * hidden + beside, hidden, &vb.pp("third"))?,
    ])
}

/// The values of some factors as sequences (T, B, C).
fn in_frames(values: &FactorMap<Tensor>, factors: &[Factor], frames: usize) -> Result<Vec<Tensor>> {
    let values = factors.iter().filter_map(|factor| values.get(*factor));
    let sequences = values.map(|value| match value.rank() {
        2 => {
            let (batch, latents) = value.dims2()?;
            Ok(value
                .unsqueeze(0)?
                .broadcast_as((frames, batch, latents))?
                .contiguous()?)
        }
        _ => Ok(value.clone()),
    });
    sequences.collect()
}

struct Linear {
    /// (input, output).
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn new(input: usize, output: usize, vb: &VarBuilder) -> Result<Self> {
        let bound = 1.0 / (input as f64).sqrt();
        let init = Init::Uniform {
            lo: -bound,
            up: bound,
        };
        Ok(Self {
            weight: vb.get_with_hints((input, output), "weight", init)?,
            bias: vb.get_with_hints(output, "bias", init)?,
        })
    }

    /// (..., input) to (..., output).
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut dims = x.dims().to_vec();
        let input = dims.pop().unwrap_or(0);
        dims.push(self.bias.elem_count());
        let rows = x.reshape(((), input))?.matmul(&self.weight)?;
        Ok(rows.broadcast_add(&self.bias)?.reshape(dims)?)
    }
}

/// `ln(1 + exp(x))` without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    Ok((x.relu()? + ((x.abs()?.neg()?.exp()? + 1.0)?.log()?))?)
}
