//! The network: two encoders and a decoder of fully connected layers.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;

use super::tanh::tanh;
use crate::parameters::Parameters;

/// Fully connected layers of each encoder and the decoder, before their last one.
const LAYERS: usize = 3;

/// Share of a new batch in the running statistics of batch norm.
const MOMENTUM: f64 = 0.1;

/// Added to variances in batch norm.
const EPSILON: f64 = 1e-5;

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LuoConfig {
    /// Values of the timbre.
    pub latents: usize,
    /// Number of pitches.
    pub pitches: usize,
    /// MIDI key of the lowest pitch, for labels: notes of other keys are left out.
    pub lowest_key: u8,
    /// Values of a hidden layer.
    pub hidden: usize,
    /// Coefficients of the cosine transform of a frame that the timbre encoder reads.
    pub cepstra: usize,
}

impl LuoConfig {
    /// Checks the sizes.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first one that is out of range.
    pub fn check(&self, mel: &MelConfig) -> Result<()> {
        ensure!(
            self.latents > 0 && self.hidden > 0,
            "luo.latents and luo.hidden must be at least 1, found {} and {}",
            self.latents,
            self.hidden
        );
        ensure!(
            self.pitches > 1 && usize::from(self.lowest_key) + self.pitches <= 128,
            "luo.pitches must be at least 2 and end at key 127, found {} from key {}",
            self.pitches,
            self.lowest_key
        );
        ensure!(
            (1..=mel.n_mels).contains(&self.cepstra),
            "luo.cepstra must be between 1 and {}, found {}",
            mel.n_mels,
            self.cepstra
        );
        Ok(())
    }

    /// The pitch of a key, if the network has it.
    pub fn pitch(&self, key: u8) -> Option<usize> {
        let pitch = usize::from(key).checked_sub(self.lowest_key.into())?;
        (pitch < self.pitches).then_some(pitch)
    }
}

/// What batch norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch; the running ones are updated.
    Training,
    /// The running statistics.
    Inference,
}

/// Timbre and pitch of frames.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Means of the timbre, (frames, latents).
    pub mean: Tensor,
    /// Logarithms of its variances, (frames, latents).
    pub log_variance: Tensor,
    /// Logits of the pitch, (frames, pitches).
    pub logits: Tensor,
}

/// The network. Frames have shape (frames, bands), with values between -1 and 1.
pub struct LuoNetwork {
    cosines: Tensor,
    timbre: Layers,
    mean: Linear,
    log_variance: Linear,
    pitch: Layers,
    logits: Linear,
    decoder: Layers,
    output: Linear,
}

impl LuoNetwork {
    /// Creates the network, with its weights in `parameters` and the running statistics of its batch norms in `statistics`.
    ///
    /// # Errors
    ///
    /// Returns an error if they hold tensors of other shapes.
    pub fn new(
        config: &LuoConfig,
        bands: usize,
        parameters: &Parameters,
        statistics: &Parameters,
        device: &Device,
    ) -> Result<Self> {
        let (vb, hidden) = (parameters.builder(device), config.hidden);
        let layers =
            |name: &str, input: usize| Layers::new(input, hidden, &vb.pp(name), statistics);
        Ok(Self {
            cosines: cosine_transform(bands, config.cepstra, device)?,
            timbre: layers("timbre", config.cepstra)?,
            mean: Linear::new(hidden, config.latents, &vb.pp("mean"))?,
            log_variance: Linear::new(hidden, config.latents, &vb.pp("log_variance"))?,
            pitch: layers("pitch", bands)?,
            logits: Linear::new(hidden, config.pitches, &vb.pp("logits"))?,
            decoder: layers("decoder", config.latents + config.pitches)?,
            output: Linear::new(hidden, bands, &vb.pp("output"))?,
        })
    }

    /// Timbre and pitch of frames.
    ///
    /// # Errors
    ///
    /// Returns an error if the frames have another number of bands.
    pub fn encode(&self, frames: &Tensor, mode: Mode) -> Result<Encoded> {
        let timbre = self.timbre.forward(&frames.matmul(&self.cosines)?, mode)?;
        let pitch = self.pitch.forward(frames, mode)?;
        Ok(Encoded {
            mean: self.mean.forward(&timbre)?,
            log_variance: self.log_variance.forward(&timbre)?,
            logits: self.logits.forward(&pitch)?,
        })
    }

    /// Frames with a timbre (frames, latents) and a pitch (frames, pitches), one-hot.
    ///
    /// # Errors
    ///
    /// Returns an error if the shapes do not match the network.
    pub fn decode(&self, timbre: &Tensor, pitch: &Tensor, mode: Mode) -> Result<Tensor> {
        let both = Tensor::cat(&[timbre, pitch], 1)?;
        let hidden = self.decoder.forward(&both, mode)?;
        Ok(tanh(&self.output.forward(&hidden)?)?)
    }
}

/// The hidden layers of an encoder, decoder or classifier.
pub struct Layers(Vec<Dense>);

impl Layers {
    /// Layers from `input` to `hidden` values.
    ///
    /// # Errors
    ///
    /// Returns an error if the builder or `statistics` hold tensors of other shapes.
    pub fn new(
        input: usize,
        hidden: usize,
        vb: &VarBuilder,
        statistics: &Parameters,
    ) -> Result<Self> {
        let layer = |index: usize| {
            let input = if index == 0 { input } else { hidden };
            Dense::new(input, hidden, &vb.pp(index), statistics)
        };
        Ok(Self((0..LAYERS).map(layer).collect::<Result<_>>()?))
    }

    /// Rows (rows, input) to (rows, hidden).
    ///
    /// # Errors
    ///
    /// Returns an error if the rows have another length.
    pub fn forward(&self, rows: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut layers = self.0.iter();
        layers.try_fold(rows.clone(), |x, layer| layer.forward(&x, mode))
    }
}

/// The first coefficients of the orthonormal cosine transform (DCT-II) as a matrix, (bands, coefficients).
fn cosine_transform(bands: usize, coefficients: usize, device: &Device) -> Result<Tensor> {
    let values = (0..bands).flat_map(|band| {
        (0..coefficients).map(move |k| {
            let scale = (if k == 0 { 1.0 } else { 2.0 } / bands as f64).sqrt();
            let angle = std::f64::consts::PI / bands as f64 * (band as f64 + 0.5) * k as f64;
            (scale * angle.cos()) as f32
        })
    });
    let values: Vec<f32> = values.collect();
    Ok(Tensor::from_vec(values, (bands, coefficients), device)?)
}

/// `rows` copies of a row (1, values), as a product: the gradient of a broadcast is a sum along rows, which is slow on the CPU.
fn repeat(row: &Tensor, rows: usize) -> Result<Tensor> {
    Ok(Tensor::ones((rows, 1), row.dtype(), row.device())?.matmul(row)?)
}

/// Mean of the rows, (1, values), as a product.
fn mean_row(x: &Tensor) -> Result<Tensor> {
    let rows = x.dim(0)?;
    let shares = Tensor::full(1.0 / rows as f32, (1, rows), x.device())?;
    Ok(shares.to_dtype(x.dtype())?.matmul(x)?)
}

/// A linear layer with the start of PyTorch's.
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// A layer from `input` to `output` values.
    ///
    /// # Errors
    ///
    /// Returns an error if the builder holds tensors of other shapes.
    pub fn new(input: usize, output: usize, vb: &VarBuilder) -> Result<Self> {
        let bound = 1.0 / (input as f64).sqrt();
        let init = Init::Uniform {
            lo: -bound,
            up: bound,
        };
        Ok(Self {
            weight: vb.get_with_hints((input, output), "weight", init)?,
            bias: vb.get_with_hints((1, output), "bias", init)?,
        })
    }

    /// Rows (rows, input) to (rows, output).
    ///
    /// # Errors
    ///
    /// Returns an error if the rows have another length.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok((x.matmul(&self.weight)? + repeat(&self.bias, x.dim(0)?)?)?)
    }
}

/// A linear layer, the hyperbolic tangent and batch norm.
struct Dense {
    linear: Linear,
    norm: BatchNorm,
}

impl Dense {
    fn new(input: usize, output: usize, vb: &VarBuilder, statistics: &Parameters) -> Result<Self> {
        Ok(Self {
            linear: Linear::new(input, output, vb)?,
            norm: BatchNorm::new(output, &vb.pp("norm"), statistics)?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.norm.forward(&tanh(&self.linear.forward(x)?)?, mode)
    }
}

/// Batch norm (Ioffe and Szegedy, 2015), as PyTorch's.
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Var,
    running_variance: Var,
}

impl BatchNorm {
    pub fn new(width: usize, vb: &VarBuilder, statistics: &Parameters) -> Result<Self> {
        let running = |name: &str, start: f64| -> Result<Var> {
            let own = statistics.builder(vb.device()).pp(vb.prefix());
            own.get_with_hints((1, width), name, Init::Const(start))?;
            let path = format!("{}.{name}", vb.prefix());
            let vars = statistics.vars();
            let var = vars.get(&path);
            Ok(var.context("a tensor has its place and name")?.clone())
        };
        Ok(Self {
            weight: vb.get_with_hints((1, width), "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints((1, width), "bias", Init::Const(0.0))?,
            running_mean: running("running_mean", 0.0)?,
            running_variance: running("running_variance", 1.0)?,
        })
    }

    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let (mean, variance) = match mode {
            Mode::Training => (mean_row(x)?, None),
            Mode::Inference => {
                let variance = self.running_variance.as_detached_tensor();
                (self.running_mean.as_detached_tensor(), Some(variance))
            }
        };
        let centred = (x - repeat(&mean, rows)?)?;
        let variance = match variance {
            Some(variance) => variance,
            None => {
                let variance = mean_row(&centred.sqr()?)?;
                self.update(&mean.detach(), &variance.detach(), rows)?;
                variance
            }
        };
        let scale = (&self.weight / (variance + EPSILON)?.sqrt()?)?;
        let scaled = (centred * repeat(&scale, rows)?)?;
        Ok((scaled + repeat(&self.bias, rows)?)?)
    }

    /// Moves the running statistics towards those of a batch.
    fn update(&self, mean: &Tensor, variance: &Tensor, rows: usize) -> Result<()> {
        let unbiased = rows as f64 / (rows as f64 - 1.0).max(1.0);
        for (running, (new, factor)) in [
            (&self.running_mean, (mean, 1.0)),
            (&self.running_variance, (variance, unbiased)),
        ] {
            let kept = (running.as_tensor() * (1.0 - MOMENTUM))?;
            running.set(&(kept + (new * (factor * MOMENTUM))?)?.to_dtype(DType::F32)?)?;
        }
        Ok(())
    }
}
