//! Layers shared by the networks. Each has two forms: `forward` for whole clips, and `step` for streams, which keeps
//! the past frames that it needs. At the end of a stream, `finish` computes the remaining frames as at the end of a
//! clip. Both forms give the same frames.
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
            return Self::plain(vb.get_with_hints(shape, "weight", init)?);
        }
        let direction = vb.get_with_hints(shape, "weight_v", init)?;
        let length = (bound * bound / 3.0 * (shape.1 * shape.2 * shape.3) as f64).sqrt();
        let magnitude = vb.get_with_hints((shape.0, 1, 1, 1), "weight_g", Init::Const(length))?;
        Ok(Self::Normed {
            magnitude,
            direction,
        })
    }

    /// A weight that is not trained is stored tap by tap, so that the convolution needs no copy.
    fn plain(weight: Tensor) -> Result<Self> {
        if weight.track_op() {
            return Ok(Self::Plain(weight));
        }
        let taps_first = weight.permute((2, 3, 0, 1))?.contiguous()?;
        Ok(Self::Plain(taps_first.permute((2, 3, 0, 1))?))
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
            weight: Weight::plain(Tensor::cat(&[known, newest], 3)?)?,
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

    /// Takes the next frames and returns the completed frames, if any.
    ///
    /// # Errors
    /// If the input does not fit, or the layer has a stride in time.
    pub fn step(&self, past: &mut Past, x: &Tensor) -> Result<Option<Tensor>> {
        let spec = self.config.spec;
        if spec.stride.1 != 1 {
            candle_core::bail!("step() needs a time stride of 1, found {}", spec.stride.1);
        }
        let Some(x) = past.extend(x, spec.padding.1, spec.pad_mode, self.reach())? else {
            return Ok(None);
        };
        conv2d(
            &x,
            &self.weight.tensor()?,
            &self.bias,
            without_time_padding(spec),
        )
        .map(Some)
    }

    /// Ends the stream: takes the last frames, if there are more, and returns the remaining frames.
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn finish(&self, past: &mut Past, x: Option<&Tensor>) -> Result<Option<Tensor>> {
        let spec = self.config.spec;
        let around = (spec.padding.1, self.look_ahead_frames());
        let Some(x) = past.finish(x, around, spec.pad_mode, self.reach())? else {
            return Ok(None);
        };
        conv2d(
            &x,
            &self.weight.tensor()?,
            &self.bias,
            without_time_padding(spec),
        )
        .map(Some)
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
            weight: Weight::plain(Tensor::cat(&[newest, known], 3)?)?,
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

    /// As [`Conv::step`].
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn step(&self, past: &mut Past, x: &Tensor) -> Result<Option<Tensor>> {
        let reach = self.kernel.1 - 1;
        let Some(x) = past.extend(x, self.spec.padding.1, PadMode::Zero, reach)? else {
            return Ok(None);
        };
        self.known(&x).map(Some)
    }

    /// As [`Conv::finish`].
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn finish(&self, past: &mut Past, x: Option<&Tensor>) -> Result<Option<Tensor>> {
        let around = (self.spec.padding.1, self.look_ahead_frames());
        let frames = past.finish(x, around, PadMode::Zero, self.kernel.1 - 1)?;
        frames.map(|x| self.known(&x)).transpose()
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

/// State of a [`TimeUpsample`] between steps.
#[derive(Clone, Debug, Default)]
pub struct TimeUpsampleState {
    past: Past,
    started: bool,
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

    /// Takes the next frames and returns the completed frames: T * rate, minus [`Self::padding`] in the first step.
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn step(&self, state: &mut TimeUpsampleState, x: &Tensor) -> Result<Option<Tensor>> {
        let reach = self.config.kernel / self.config.rate - 1;
        let Some(x) = state.past.extend(x, reach, PadMode::Zero, reach)? else {
            return Ok(None);
        };
        let y = self.run(&x, reach * self.config.rate)?;
        if state.started {
            return Ok(Some(y));
        }
        state.started = true;
        let (cut, frames) = (self.padding(), y.dim(D::Minus1)?);
        (frames > cut)
            .then(|| y.narrow(D::Minus1, cut, frames - cut))
            .transpose()
    }

    /// Ends the stream: takes the last frames, if there are more, and returns the remaining frames.
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn finish(
        &self,
        state: &mut TimeUpsampleState,
        x: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        let TimeUpsampleState { mut past, started } = std::mem::take(state);
        let TimeUpsampleConfig { rate, kernel, .. } = self.config;
        let (reach, padding) = (kernel / rate - 1, self.padding());
        let frames = x.map_or(Ok(0), |x| x.dim(D::Minus1))?;
        let around = (reach, padding.div_ceil(rate));
        let Some(x) = past.finish(x, around, PadMode::Zero, reach)? else {
            return Ok(None);
        };
        let y = self.run(&x, reach * rate)?;
        match started {
            true => y.narrow(D::Minus1, 0, frames * rate + padding),
            false => y.narrow(D::Minus1, padding, frames * rate),
        }
        .map(Some)
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

/// The last input frames of a layer.
#[derive(Clone, Debug, Default)]
pub struct Past {
    frames: Option<Tensor>,
    started: bool,
}

impl Past {
    /// Returns the kept frames followed by `x`, or nothing if there are at most `reach` frames; then keeps the last
    /// `reach` frames. At the start of the stream, inserts `padding` frames according to `mode`.
    pub fn extend(
        &mut self,
        x: &Tensor,
        padding: usize,
        mode: PadMode,
        reach: usize,
    ) -> Result<Option<Tensor>> {
        let mut frames = match self.frames.take() {
            Some(past) => Tensor::cat(&[&past, x], D::Minus1)?,
            None => x.clone(),
        };
        if !self.started {
            if mode == PadMode::Reflect && frames.dim(D::Minus1)? <= padding {
                self.frames = Some(frames);
                return Ok(None);
            }
            self.started = true;
            frames = lead_in(&frames, padding, mode)?;
        }
        let count = frames.dim(D::Minus1)?;
        if reach > 0 {
            let keep = count.min(reach);
            self.frames = Some(frames.narrow(D::Minus1, count - keep, keep)?.contiguous()?);
        }
        Ok((count > reach).then_some(frames))
    }

    /// Ends the stream: returns the kept frames, followed by `x`, if there is any, and by `after` frames according to
    /// `mode`, or nothing if there are at most `reach` frames. `before` is the padding of [`Self::extend`]. A stream too
    /// short for reflection repeats its edges.
    ///
    /// # Errors
    /// If `x` does not fit the kept frames.
    pub fn finish(
        &mut self,
        x: Option<&Tensor>,
        (before, after): (usize, usize),
        mode: PadMode,
        reach: usize,
    ) -> Result<Option<Tensor>> {
        let Self { frames, started } = std::mem::take(self);
        let mut frames = match (frames, x) {
            (Some(past), Some(x)) => Tensor::cat(&[&past, x], D::Minus1)?,
            (Some(frames), None) => frames,
            (None, Some(x)) => x.clone(),
            (None, None) => return Ok(None),
        };
        let mode = match mode {
            PadMode::Reflect if frames.dim(D::Minus1)? <= before.max(after) => PadMode::Replicate,
            mode => mode,
        };
        if !started {
            frames = lead_in(&frames, before, mode)?;
        }
        frames = lead_out(&frames, after, mode)?;
        Ok((frames.dim(D::Minus1)? > reach).then_some(frames))
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

/// Appends `padding` frames according to `mode`.
fn lead_out(x: &Tensor, padding: usize, mode: PadMode) -> Result<Tensor> {
    if padding == 0 {
        return Ok(x.clone());
    }
    if mode == PadMode::Zero {
        return x.pad_with_zeros(D::Minus1, 0, padding);
    }
    let last = x.dim(D::Minus1)? - 1;
    let mut frames = vec![x.clone()];
    for i in 1..=padding {
        let source = if mode == PadMode::Reflect {
            last - i
        } else {
            last
        };
        frames.push(x.narrow(D::Minus1, source, 1)?);
    }
    Tensor::cat(&frames, D::Minus1)
}

/// A queue of frames that wait for those of another path.
#[derive(Clone, Debug, Default)]
pub struct FrameQueue(Option<Tensor>);

impl FrameQueue {
    /// Number of frames in the queue.
    pub fn frames(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |t| t.dims().last().copied().unwrap_or(0))
    }

    /// Appends frames along the last axis.
    ///
    /// # Errors
    /// If the other axes differ from those of the earlier frames.
    pub fn push(&mut self, x: &Tensor) -> Result<()> {
        self.0 = Some(match self.0.take() {
            Some(waiting) => Tensor::cat(&[&waiting, x], D::Minus1)?,
            None => x.clone(),
        });
        Ok(())
    }

    /// Takes the oldest `count` frames.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn take(&mut self, count: usize) -> Result<Tensor> {
        let waiting = self.frames();
        let Some(frames) = self.0.take().filter(|_| count <= waiting) else {
            candle_core::bail!("frame queue expects at least {count} frames, found {waiting}");
        };
        if count < waiting {
            let rest = frames.narrow(D::Minus1, count, waiting - count)?;
            self.0 = Some(rest.contiguous()?);
        }
        frames.narrow(D::Minus1, 0, count)
    }
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

    fn step(&self, state: &mut BlockState, x: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::Conv(conv) => conv.step(&mut state.past, x),
            Self::Upsample(up) => up.step(&mut state.past, x),
            Self::Residual(convs) => {
                state.skip.push(x)?;
                state.inner.resize_with(convs.len(), Past::default);
                let mut y = x.clone();
                for (conv, past) in convs.iter().zip(&mut state.inner) {
                    match conv.step(past, &y)? {
                        Some(next) => y = next,
                        None => return Ok(None),
                    }
                }
                let skip = state.skip.take(y.dim(D::Minus1)?)?;
                (y + skip).map(Some)
            }
            Self::Flatten => flatten(x).map(Some),
        }
    }

    fn finish(&self, state: &mut BlockState, x: Option<&Tensor>) -> Result<Option<Tensor>> {
        match self {
            Self::Conv(conv) => conv.finish(&mut state.past, x),
            Self::Upsample(up) => up.finish(&mut state.past, x),
            Self::Residual(convs) => {
                if let Some(x) = x {
                    state.skip.push(x)?;
                }
                state.inner.resize_with(convs.len(), Past::default);
                let mut y = x.cloned();
                for (conv, past) in convs.iter().zip(&mut state.inner) {
                    y = conv.finish(past, y.as_ref())?;
                }
                let Some(y) = y else { return Ok(None) };
                let skip = state.skip.take(y.dim(D::Minus1)?)?;
                (y + skip).map(Some)
            }
            Self::Flatten => x.map(flatten).transpose(),
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

/// State of a [`Stack`] between steps.
#[derive(Clone, Debug, Default)]
pub struct StackState(Vec<BlockState>);

#[derive(Clone, Debug, Default)]
struct BlockState {
    past: Past,
    /// State of the convolutions in a residual block.
    inner: Vec<Past>,
    skip: FrameQueue,
}

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
            Block::Conv(conv) => conv.weight.is_trained(),
            Block::Upsample(up) => up.weight.is_trained(),
            Block::Residual(convs) => convs.iter().any(|conv| conv.weight.is_trained()),
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

    /// Takes the next frames and returns the completed frames, if any.
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn step(&self, state: &mut StackState, x: &Tensor) -> Result<Option<Tensor>> {
        state.0.resize_with(self.0.len(), BlockState::default);
        let mut x = x.clone();
        for (block, state) in self.0.iter().zip(&mut state.0) {
            match block.step(state, &x)? {
                Some(y) => x = y,
                None => return Ok(None),
            }
        }
        Ok(Some(x))
    }

    /// Ends the stream: takes the last frames, if there are more, and returns the remaining frames.
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn finish(&self, state: &mut StackState, x: Option<&Tensor>) -> Result<Option<Tensor>> {
        state.0.resize_with(self.0.len(), BlockState::default);
        let blocks = self.0.iter().zip(&mut state.0);
        blocks
            .into_iter()
            .try_fold(x.cloned(), |x, (block, state)| {
                block.finish(state, x.as_ref())
            })
    }

    /// Look-ahead: frames after a frame that the stack needs to compute it.
    #[must_use]
    pub fn look_ahead_frames(&self) -> usize {
        self.0.iter().map(Block::look_ahead_frames).sum()
    }
}
