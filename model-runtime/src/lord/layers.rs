//! Layers of the networks: convolutions along time, instance norm, and changes of the number of frames.
//!
//! Shapes: B batch, C channels, T frames. A clip (B, C, 1, T) is a plane of height 1.

use candle_core::{D, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use vocoder::conv::{Conv2dSpec, PadMode, conv2d};

/// Added to variances in instance norm.
const EPSILON: f64 = 1e-5;

/// Uniform within ±1/√`inputs`.
fn uniform(inputs: usize) -> Init {
    let bound = 1.0 / (inputs as f64).sqrt();
    Init::Uniform {
        lo: -bound,
        up: bound,
    }
}

/// A convolution along time that keeps the number of frames, but for its stride. The edges are mirrored.
#[derive(Clone, Debug)]
pub struct TimeConv {
    weight: Tensor,
    bias: Tensor,
    spec: Conv2dSpec,
}

/// Sizes of a [`TimeConv`].
#[derive(Clone, Copy, Debug)]
pub struct TimeConvConfig {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Kernel in frames. An even one reaches further back than ahead.
    pub kernel: usize,
    /// Distance of the outputs in frames.
    pub stride: usize,
    /// Negative slope of a LeakyReLU on the output, if any.
    pub slope: Option<f64>,
}

impl TimeConvConfig {
    /// A linear layer without stride.
    pub fn new(input: usize, output: usize, kernel: usize) -> Self {
        Self {
            input,
            output,
            kernel,
            stride: 1,
            slope: None,
        }
    }
}

impl TimeConv {
    /// Reads or creates `weight` (out, in, 1, kernel) and `bias` (out).
    ///
    /// # Errors
    ///
    /// If a tensor is missing or has another shape.
    pub fn new(config: TimeConvConfig, vb: &VarBuilder) -> Result<Self> {
        let TimeConvConfig {
            input,
            output,
            kernel,
            stride,
            slope,
        } = config;
        let init = uniform(input * kernel);
        Ok(Self {
            weight: vb.get_with_hints((output, input, 1, kernel), "weight", init)?,
            bias: vb.get_with_hints(output, "bias", init)?,
            spec: Conv2dSpec {
                stride: (1, stride),
                padding: (0, kernel / 2),
                pad_mode: PadMode::Reflect,
                output_slope: slope,
                ..Conv2dSpec::default()
            },
        })
    }

    /// (B, C, 1, T) to (B, C', 1, T / stride).
    ///
    /// # Errors
    ///
    /// If the input has other channels or too few frames.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = conv2d(x, &self.weight, &self.bias, self.spec)?;
        // An even kernel is padded by one frame too many.
        let frames = x.dim(D::Minus1)?.div_ceil(self.spec.stride.1);
        match y.dim(D::Minus1)? == frames {
            true => Ok(y),
            false => y.narrow(D::Minus1, 0, frames)?.contiguous(),
        }
    }
}

/// A fully connected layer.
#[derive(Clone, Debug)]
pub struct Dense {
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    /// Reads or creates `weight` (in, out) and `bias` (1, out).
    ///
    /// # Errors
    ///
    /// If a tensor is missing or has another shape.
    pub fn new(input: usize, output: usize, vb: &VarBuilder) -> Result<Self> {
        let init = uniform(input);
        Ok(Self {
            weight: vb.get_with_hints((input, output), "weight", init)?,
            bias: vb.get_with_hints((1, output), "bias", init)?,
        })
    }

    /// (B, in) to (B, out).
    ///
    /// # Errors
    ///
    /// If the input has another size.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// Instance norm (Ulyanov et al., 2016) without weights: each channel of each clip gets mean 0 and variance 1 over time.
///
/// # Errors
///
/// If the shape does not fit.
pub fn instance_norm(x: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_mul(&(variance + EPSILON)?.sqrt()?.recip()?)
}

/// Each frame `up` times: (B, C, 1, T) to (B, C, 1, T * up).
///
/// # Errors
///
/// If the shape does not fit.
pub fn repeat_frames(x: &Tensor, up: usize) -> Result<Tensor> {
    if up == 1 {
        return Ok(x.clone());
    }
    let (batch, channels, height, frames) = x.dims4()?;
    x.unsqueeze(4)?
        .broadcast_as((batch, channels, height, frames, up))?
        .contiguous()?
        .reshape((batch, channels, height, frames * up))
}

/// Neighbouring channels become neighbouring frames: (B, C * up, 1, T) to (B, C, 1, T * up).
///
/// # Errors
///
/// If the shape does not fit.
pub fn shuffle_into_frames(x: &Tensor, up: usize) -> Result<Tensor> {
    if up == 1 {
        return Ok(x.clone());
    }
    let (batch, channels, height, frames) = x.dims4()?;
    x.reshape((batch, channels / up, up, frames))?
        .transpose(2, 3)?
        .contiguous()?
        .reshape((batch, channels / up, height, frames * up))
}

/// Means of `stride` frames each: (B, C, 1, T) to (B, C, 1, T / stride).
///
/// # Errors
///
/// If the stride does not divide the number of frames.
pub fn average_frames(x: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let (batch, channels, height, frames) = x.dims4()?;
    x.reshape((batch, channels, height, frames / stride, stride))?
        .mean(D::Minus1)
}
