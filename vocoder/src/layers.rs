//! Layers shared by the networks, as they are trained: on whole clips, with gradients. [`crate::plan`] runs the same
//! layers faster, in steps and on clips.
//!
//! Shapes: B batch, C channels, H height (frequency), T time.

use candle_core::{D, Result, Tensor};
use candle_nn::{Init, VarBuilder};

use crate::conv::{Conv2dSpec, PadMode, conv_transpose2d, conv2d};

/// Slope of every LeakyReLU in HARD, and in the pitch-aligned network, which was derived from it.
pub const LEAKY_SLOPE: f64 = 0.2;

/// A weight tensor, plain or split by weight norm (Salimans and Kingma, 2016).
#[derive(Clone, Debug)]
enum Weight {
    Plain(Tensor),
    /// `direction` is scaled to the length `magnitude` over all axes but the first.
    Normed {
        magnitude: Tensor,
        direction: Tensor,
    },
}

/// The usual initialisation of a layer's weights and bias: uniform in `±bound`.
fn uniform(bound: f64) -> Init {
    Init::Uniform {
        lo: -bound,
        up: bound,
    }
}

impl Weight {
    fn new(
        vb: &VarBuilder,
        shape: (usize, usize, usize, usize),
        bound: f64,
        norm: bool,
    ) -> Result<Self> {
        let init = uniform(bound);
        if !norm {
            return vb.get_with_hints(shape, "weight", init).map(Self::Plain);
        }
        let direction = vb.get_with_hints(shape, "weight_v", init)?;
        let length = (bound * bound / 3.0 * (shape.1 * shape.2 * shape.3) as f64).sqrt();
        let magnitude = vb.get_with_hints((shape.0, 1, 1, 1), "weight_g", Init::Const(length))?;
        Ok(Self::Normed {
            magnitude,
            direction,
        })
    }

    fn is_trained(&self) -> bool {
        match self {
            Self::Plain(weight) => weight.track_op(),
            Self::Normed { direction, .. } => direction.track_op(),
        }
    }

    fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Plain(weight) => Ok(weight.clone()),
            Self::Normed {
                magnitude,
                direction,
            } => fold_weight_norm(magnitude, direction),
        }
    }
}

/// The plain weight of a weight-normed layer: `magnitude * direction / |direction|`, lengths over all axes but the
/// first.
///
/// # Errors
/// If the shapes do not broadcast.
pub fn fold_weight_norm(magnitude: &Tensor, direction: &Tensor) -> Result<Tensor> {
    let length = direction.sqr()?.flatten_from(1)?.sum(1)?.sqrt()?;
    let scale = (magnitude.flatten_all()? / length)?.reshape(magnitude.shape())?;
    direction.broadcast_mul(&scale)
}

/// Sizes of a convolution layer.
#[derive(Clone, Copy, Debug)]
pub struct ConvConfig {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Kernel (height, width).
    pub kernel: (usize, usize),
    /// Geometry and fused activations.
    pub spec: Conv2dSpec,
    /// Whether the weight is split by weight norm (while training) or plain (folded).
    pub weight_norm: bool,
}

impl ConvConfig {
    /// Odd kernel at unit stride with size-preserving padding; edges replicated, LeakyReLU on the output.
    pub fn same(input: usize, output: usize, kernel: (usize, usize)) -> Self {
        Self {
            input,
            output,
            kernel,
            spec: Conv2dSpec {
                padding: (kernel.0 / 2, kernel.1 / 2),
                pad_mode: PadMode::Replicate,
                output_slope: Some(LEAKY_SLOPE),
                ..Conv2dSpec::default()
            },
            weight_norm: false,
        }
    }

    /// Removes the activation.
    #[must_use]
    pub fn linear(mut self) -> Self {
        self.spec.output_slope = None;
        self
    }

    /// Sets the strides (height, width).
    #[must_use]
    pub fn strided(mut self, stride: (usize, usize)) -> Self {
        self.spec.stride = stride;
        self
    }

    /// Sets the padding (height, width). In time, it is the padding before the first frame. The padding after the last
    /// frame preserves the length; if none comes before, none comes after.
    #[must_use]
    pub fn padded(mut self, padding: (usize, usize)) -> Self {
        self.spec.padding = padding;
        self
    }

    /// Sets the padding mode.
    #[must_use]
    pub fn pad_mode(mut self, mode: PadMode) -> Self {
        self.spec.pad_mode = mode;
        self
    }

    /// Splits the weight by weight norm if `norm` is true.
    #[must_use]
    pub fn weight_norm(mut self, norm: bool) -> Self {
        self.weight_norm = norm;
        self
    }
}

/// A convolution with bias: (B, C, H, T) to (B, C', H', T').
#[derive(Clone, Debug)]
pub struct Conv {
    weight: Weight,
    bias: Tensor,
    config: ConvConfig,
}

impl Conv {
    /// Reads or creates `weight` (or `weight_g`, `weight_v`) and `bias`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: ConvConfig, vb: &VarBuilder) -> Result<Self> {
        let (h, w) = config.kernel;
        let bound = 1.0 / ((config.input * h * w) as f64).sqrt();
        Ok(Self {
            weight: Weight::new(
                vb,
                (config.output, config.input, h, w),
                bound,
                config.weight_norm,
            )?,
            bias: vb.get_with_hints(config.output, "bias", uniform(bound))?,
            config,
        })
    }

    /// Creates a layer with given weights.
    #[must_use]
    pub fn from_tensors(weight: Tensor, bias: Tensor, config: ConvConfig) -> Self {
        Self {
            weight: Weight::Plain(weight),
            bias,
            config,
        }
    }

    /// (B, C, H, T) to (B, C', H', T').
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let spec = self.config.spec;
        if self.look_ahead_frames() == spec.padding.1 {
            return conv2d(x, &self.weight.tensor()?, &self.bias, spec);
        }
        let mut x = lead_in(x, spec.padding.1, spec.pad_mode)?;
        match (spec.padding.1, self.look_ahead_frames(), spec.pad_mode) {
            (0, _, _) | (_, 0, _) => {}
            (_, ahead, PadMode::Zero) => x = x.pad_with_zeros(D::Minus1, 0, ahead)?,
            (_, _, mode) => candle_core::bail!(
                "a layer with look-ahead and uneven time padding needs zero padding, found {mode:?}"
            ),
        }
        conv2d(
            &x,
            &self.weight.tensor()?,
            &self.bias,
            without_time_padding(spec),
        )
    }

    /// Look-ahead: frames after a frame that the layer needs to compute it.
    #[must_use]
    pub fn look_ahead_frames(&self) -> usize {
        self.reach() - self.config.spec.padding.1
    }

    /// Whether the weight may change: it is a variable, or computed from one.
    pub(crate) fn is_trained(&self) -> bool {
        self.weight.is_trained()
    }

    pub(crate) fn config(&self) -> &ConvConfig {
        &self.config
    }

    pub(crate) fn weight(&self) -> Result<Tensor> {
        self.weight.tensor()
    }

    pub(crate) fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// The same layer without look-ahead, for streams with low latency: it repeats the newest frame in place of the
    /// following ones. Gradients reach the original weights.
    ///
    /// # Errors
    /// If the layer has a stride or a dilation in time.
    pub fn without_look_ahead(&self) -> Result<Self> {
        let Self { config, .. } = self;
        let (before, ahead) = (config.spec.padding.1, self.look_ahead_frames());
        if ahead == 0 {
            return Ok(self.clone());
        }
        if (config.spec.stride.1, config.spec.dilation.1) != (1, 1) {
            candle_core::bail!(
                "cannot limit the look-ahead of a layer with a time stride or dilation"
            );
        }
        let weight = self.weight.tensor()?;
        let known = weight.narrow(3, 0, before)?;
        let newest = weight.narrow(3, before, ahead + 1)?.sum_keepdim(3)?;
        Ok(Self {
            weight: Weight::Plain(Tensor::cat(&[known, newest], 3)?),
            bias: self.bias.clone(),
            config: ConvConfig {
                kernel: (config.kernel.0, before + 1),
                // Reflection at the start would need future frames.
                spec: Conv2dSpec {
                    pad_mode: match config.spec.pad_mode {
                        PadMode::Reflect => PadMode::Replicate,
                        mode => mode,
                    },
                    ..config.spec
                },
                ..*config
            },
        })
    }

    /// Distance between the first and the last tap, in frames.
    fn reach(&self) -> usize {
        (self.config.kernel.1 - 1) * self.config.spec.dilation.1
    }
}

fn without_time_padding(spec: Conv2dSpec) -> Conv2dSpec {
    Conv2dSpec {
        padding: (spec.padding.0, 0),
        ..spec
    }
}

/// A transposed convolution with bias that upsamples the height and keeps the time axis: (B, C, H, T) to (B, C', H *
/// stride, T).
#[derive(Clone, Debug)]
pub struct Upsample {
    weight: Weight,
    bias: Tensor,
    spec: Conv2dSpec,
    kernel: (usize, usize),
}

impl Upsample {
    /// Kernel (stride, 3) with stride (stride, 1), as in HARD's decoder.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(
        input: usize,
        output: usize,
        stride: usize,
        norm: bool,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let kernel = (stride, 3);
        let bound = 1.0 / ((output * kernel.0 * kernel.1) as f64).sqrt();
        Ok(Self {
            weight: Weight::new(vb, (input, output, kernel.0, kernel.1), bound, norm)?,
            bias: vb.get_with_hints(output, "bias", uniform(bound))?,
            spec: Conv2dSpec {
                stride: (stride, 1),
                padding: (0, kernel.1 / 2),
                ..Conv2dSpec::default()
            },
            kernel,
        })
    }

    /// (B, C, H, T) to (B, C', H * stride, T).
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.look_ahead_frames() == self.spec.padding.1 {
            return conv_transpose2d(x, &self.weight.tensor()?, &self.bias, self.spec);
        }
        let x = x.pad_with_zeros(D::Minus1, self.spec.padding.1, 0)?;
        self.known(&x)
    }

    pub(crate) fn look_ahead_frames(&self) -> usize {
        self.kernel.1 - 1 - self.spec.padding.1
    }

    pub(crate) fn kernel(&self) -> (usize, usize) {
        self.kernel
    }

    pub(crate) fn weight(&self) -> Result<Tensor> {
        self.weight.tensor()
    }

    pub(crate) fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// As [`Conv::without_look_ahead`].
    ///
    /// # Errors
    /// If the weight cannot be folded.
    pub fn without_look_ahead(&self) -> Result<Self> {
        let (before, ahead) = (self.spec.padding.1, self.look_ahead_frames());
        // The first taps of a transposed convolution meet the future frames.
        let weight = self.weight.tensor()?;
        let newest = weight.narrow(3, 0, ahead + 1)?.sum_keepdim(3)?;
        let known = weight.narrow(3, ahead + 1, before)?;
        Ok(Self {
            weight: Weight::Plain(Tensor::cat(&[newest, known], 3)?),
            bias: self.bias.clone(),
            spec: self.spec,
            kernel: (self.kernel.0, before + 1),
        })
    }

    /// The frames whose inputs are all in `x`.
    fn known(&self, x: &Tensor) -> Result<Tensor> {
        let spec = Conv2dSpec {
            padding: (0, self.kernel.1 - 1),
            ..self.spec
        };
        conv_transpose2d(x, &self.weight.tensor()?, &self.bias, spec)
    }
}

/// Sizes of a [`TimeUpsample`].
#[derive(Clone, Copy, Debug)]
pub struct TimeUpsampleConfig {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Output frames per input frame.
    pub rate: usize,
    /// Kernel size in output frames: a multiple of the rate with the same parity.
    pub kernel: usize,
    /// Negative slope of a LeakyReLU on the input, if any.
    pub input_slope: Option<f64>,
    /// Whether an output frame depends on no later input frame.
    pub causal: bool,
    /// Whether the weight is split by weight norm (while training) or plain (folded).
    pub weight_norm: bool,
}

/// A transposed convolution with bias along time: (B, C, 1, T) to (B, C', 1, T * rate).
#[derive(Clone, Debug)]
pub struct TimeUpsample {
    weight: Weight,
    bias: Tensor,
    config: TimeUpsampleConfig,
}

impl TimeUpsample {
    /// Reads or creates `weight` (in, out, 1, kernel) (or `weight_g`, `weight_v`) and `bias`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape, or if kernel and rate do not fit together.
    pub fn new(config: TimeUpsampleConfig, vb: &VarBuilder) -> Result<Self> {
        let TimeUpsampleConfig { rate, kernel, .. } = config;
        if rate == 0 || kernel < rate || kernel % rate != 0 || (kernel - rate) % 2 != 0 {
            candle_core::bail!(
                "upsampling by {rate} needs a kernel size that is a multiple of the rate and has its parity, found {kernel}"
            );
        }
        let bound = 1.0 / ((config.output * kernel) as f64).sqrt();
        let shape = (config.input, config.output, 1, kernel);
        Ok(Self {
            weight: Weight::new(vb, shape, bound, config.weight_norm)?,
            bias: vb.get_with_hints(config.output, "bias", uniform(bound))?,
            config,
        })
    }

    pub(crate) fn config(&self) -> &TimeUpsampleConfig {
        &self.config
    }

    pub(crate) fn weight(&self) -> Result<Tensor> {
        self.weight.tensor()
    }

    pub(crate) fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// Output frames per input frame.
    #[must_use]
    pub fn rate(&self) -> usize {
        self.config.rate
    }

    /// Output frames that are cut from each end of the transposed convolution's result; none if it is causal. Also the
    /// lag of a stream, in output frames.
    #[must_use]
    pub fn padding(&self) -> usize {
        match self.config.causal {
            true => 0,
            false => (self.config.kernel - self.config.rate) / 2,
        }
    }

    /// (B, C, 1, T) to (B, C', 1, T * rate).
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.run(x, self.padding())?;
        y.narrow(D::Minus1, 0, x.dim(D::Minus1)? * self.config.rate)
    }

    fn run(&self, x: &Tensor, padding: usize) -> Result<Tensor> {
        let spec = Conv2dSpec {
            stride: (1, self.config.rate),
            padding: (0, padding),
            input_slope: self.config.input_slope,
            ..Conv2dSpec::default()
        };
        conv_transpose2d(x, &self.weight.tensor()?, &self.bias, spec)
    }
}

/// Prepends `padding` frames according to `mode`.
fn lead_in(x: &Tensor, padding: usize, mode: PadMode) -> Result<Tensor> {
    if padding == 0 {
        return Ok(x.clone());
    }
    if mode == PadMode::Zero {
        return x.pad_with_zeros(D::Minus1, padding, 0);
    }
    let mut frames = (1..=padding)
        .rev()
        .map(|i| x.narrow(D::Minus1, if mode == PadMode::Reflect { i } else { 0 }, 1))
        .collect::<Result<Vec<_>>>()?;
    frames.push(x.clone());
    Tensor::cat(&frames, D::Minus1)
}

/// One layer of a [`Stack`].
#[derive(Clone, Debug)]
pub enum Block {
    /// A convolution.
    Conv(Conv),
    /// A transposed convolution along the height.
    Upsample(Upsample),
    /// `x + last(.. first(x))`, each with its LeakyReLU.
    Residual(Vec<Conv>),
    /// (B, C, H, T) to (B, C * H, 1, T).
    Flatten,
}

impl Block {
    /// A residual block of two 3x3 convolutions.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn residual(config: ConvConfig, vb: &VarBuilder) -> Result<Self> {
        Ok(Self::Residual(vec![
            Conv::new(config, &vb.pp("0"))?,
            Conv::new(config, &vb.pp("1"))?,
        ]))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Upsample(up) => up.forward(x),
            Self::Residual(convs) => {
                let y = convs
                    .iter()
                    .try_fold(x.clone(), |y, conv| conv.forward(&y))?;
                y + x
            }
            Self::Flatten => flatten(x),
        }
    }

    fn look_ahead_frames(&self) -> usize {
        match self {
            Self::Conv(conv) => conv.look_ahead_frames(),
            Self::Upsample(up) => up.look_ahead_frames(),
            Self::Residual(convs) => convs.iter().map(Conv::look_ahead_frames).sum(),
            Self::Flatten => 0,
        }
    }

    /// The block with look-ahead in its first layers, up to `frames`; subtracts the look-ahead that they use.
    fn with_look_ahead(&self, frames: &mut usize) -> Result<Self> {
        let mut limited = |conv: &Conv| {
            let wanted = conv.look_ahead_frames();
            if wanted > *frames {
                return conv.without_look_ahead();
            }
            *frames -= wanted;
            Ok(conv.clone())
        };
        Ok(match self {
            Self::Conv(conv) => Self::Conv(limited(conv)?),
            Self::Residual(convs) => {
                Self::Residual(convs.iter().map(limited).collect::<Result<_>>()?)
            }
            Self::Upsample(up) if up.look_ahead_frames() > *frames => {
                Self::Upsample(up.without_look_ahead()?)
            }
            Self::Upsample(up) => {
                *frames -= up.look_ahead_frames();
                Self::Upsample(up.clone())
            }
            Self::Flatten => Self::Flatten,
        })
    }
}

fn flatten(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, t) = x.dims4()?;
    x.reshape((b, c * h, 1, t))
}

/// Layers one after another, all of unit stride in time.
#[derive(Clone, Debug)]
pub struct Stack(Vec<Block>);

impl Stack {
    /// Creates a stack of layers in their order.
    #[must_use]
    pub fn new(blocks: Vec<Block>) -> Self {
        Self(blocks)
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.0
    }

    /// Whether the weights may change: they are variables, or computed from some.
    #[must_use]
    pub fn is_trained(&self) -> bool {
        self.0.iter().any(|block| match block {
            Block::Conv(conv) => conv.is_trained(),
            Block::Upsample(up) => up.weight.is_trained(),
            Block::Residual(convs) => convs.iter().any(Conv::is_trained),
            Block::Flatten => false,
        })
    }

    /// The same stack with a look-ahead of at most `frames`: its first layers look ahead, the others repeat the newest
    /// frame in place of the following ones ([`Conv::without_look_ahead`]).
    ///
    /// # Errors
    /// If the look-ahead of a layer cannot be limited.
    pub fn with_look_ahead(&self, mut frames: usize) -> Result<Self> {
        let blocks = self.0.iter();
        blocks
            .map(|block| block.with_look_ahead(&mut frames))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Runs a whole clip.
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0
            .iter()
            .try_fold(x.clone(), |x, block| block.forward(&x))
    }

    /// Look-ahead: frames after a frame that the stack needs to compute it.
    #[must_use]
    pub fn look_ahead_frames(&self) -> usize {
        self.0.iter().map(Block::look_ahead_frames).sum()
    }
}
