//! Compiles layers to a plan.

use std::sync::{Arc, Mutex};

use candle_core::{Result, Tensor, bail};

use super::kernel::Packed;
use super::ops::{Convolution, MixRows, Node, Op, Timing};
use super::plane::PlaneSpec;
use super::{Output, Plan, Reader};
use crate::conv::PadMode;
use crate::layers::{Block, Conv, Stack, TimeUpsample, Upsample};
use crate::simd::Isa;

/// A signal in a plan under construction: frames of `rows` by `channels` values, of which readers see
/// `scale * value + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    plane: usize,
    rows: usize,
    channels: usize,
    /// Rows that were flattened into the channels.
    flattened: usize,
    scale: f32,
    offset: f32,
}

/// Builds a [`Plan`], operation by operation.
#[derive(Debug)]
pub struct Builder {
    isa: Isa,
    planes: Vec<PlaneSpec>,
    drafts: Vec<Draft>,
    inputs: Vec<usize>,
    outputs: Vec<Signal>,
}

/// An operation under construction.
#[derive(Debug)]
struct Draft {
    op: DraftOp,
    timing: Timing,
    input: Signal,
    others: Vec<Signal>,
    /// The plain output, and the activated one with its slope.
    plain: usize,
    activated: Option<(usize, f32)>,
}

#[derive(Debug)]
enum DraftOp {
    Convolve(Weights),
    MixRows(MixRows),
    Stretch,
    Join,
    WeightedSum,
    Weigh,
    RunningMean,
}

/// A convolution whose weights are not packed yet.
#[derive(Debug)]
struct Weights {
    /// (output, time tap, row tap, channel)
    values: Vec<f32>,
    bias: Vec<f32>,
    /// Kernel (rows, time).
    kernel: (usize, usize),
    dilation: usize,
    /// Output rows, and the step and padding in input rows.
    rows: usize,
    row_stride: usize,
    row_padding: usize,
    slope: Option<f32>,
}

/// How a convolution reads its input.
struct Reading {
    kernel: (usize, usize),
    row_stride: usize,
    row_padding: usize,
    dilation: usize,
    mode: PadMode,
    input_slope: Option<f64>,
    output_slope: Option<f64>,
    timing: Timing,
    /// Frames after the last one that are needed.
    after_last: usize,
}

/// The values of a tensor on the CPU.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor
        .to_dtype(candle_core::DType::F32)?
        .flatten_all()?
        .to_vec1()
}

/// A slope of a LeakyReLU, which the kernel computes as a maximum.
fn slope(slope: Option<f64>) -> Result<Option<f32>> {
    match slope {
        Some(slope) if !(0.0..=1.0).contains(&slope) => {
            bail!("a plan expects LeakyReLU slopes from 0 to 1, found {slope}")
        }
        slope => Ok(slope.map(|slope| slope as f32)),
    }
}

impl Builder {
    /// Begins a plan for a set of instructions.
    #[must_use]
    pub fn new(isa: Isa) -> Self {
        Self {
            isa,
            planes: Vec::new(),
            drafts: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Adds an input of `rows` by `channels` values per frame.
    pub fn input(&mut self, rows: usize, channels: usize) -> Signal {
        let signal = self.plane(rows, channels);
        self.inputs.push(signal.plane);
        signal
    }

    /// Makes a signal an output: the next number from 0.
    pub fn output(&mut self, signal: Signal) {
        self.outputs.push(signal);
    }

    /// The signal `scale * value + offset`. It costs nothing: the readers fold it into their weights.
    #[must_use]
    pub fn affine(signal: Signal, scale: f64, offset: f64) -> Signal {
        let (scale, offset) = (scale as f32, offset as f32);
        Signal {
            scale: scale * signal.scale,
            offset: scale * signal.offset + offset,
            ..signal
        }
    }

    /// The rows of a signal as channels, in the order of [`Block::Flatten`].
    #[must_use]
    pub fn flatten(signal: Signal) -> Signal {
        Signal {
            rows: 1,
            channels: signal.rows * signal.channels,
            flattened: signal.rows,
            ..signal
        }
    }

    /// Adds a stack of layers.
    ///
    /// # Errors
    /// If the layers do not fit the signal, or cannot run on the CPU.
    pub fn stack(&mut self, input: Signal, stack: &Stack) -> Result<Signal> {
        let mut blocks = stack.blocks().iter();
        blocks.try_fold(input, |x, block| self.block(x, block, None))
    }

    /// Adds a stack whose result is added to `sum`, if there is one. The stack must end with a residual block.
    ///
    /// # Errors
    /// As [`Self::stack`].
    pub fn stack_onto(
        &mut self,
        input: Signal,
        stack: &Stack,
        sum: Option<Signal>,
    ) -> Result<Signal> {
        let [blocks @ .., last] = stack.blocks() else {
            bail!("expected at least one block, found none");
        };
        let x = blocks
            .iter()
            .try_fold(input, |x, block| self.block(x, block, None))?;
        self.block(x, last, sum)
    }

    fn block(&mut self, x: Signal, block: &Block, sum: Option<Signal>) -> Result<Signal> {
        match block {
            Block::Residual(convs) => {
                let Some((last, others)) = convs.split_last() else {
                    bail!("a residual block expects at least one layer, found none");
                };
                let y = others
                    .iter()
                    .try_fold(x, |y, conv| self.conv(y, conv, &[]))?;
                let added: Vec<Signal> = [x].into_iter().chain(sum).collect();
                self.conv(y, last, &added)
            }
            _ if sum.is_some() => bail!("expected a residual block at the end of a sum"),
            Block::Conv(conv) => self.conv(x, conv, &[]),
            Block::Upsample(up) => self.upsample(x, up),
            Block::Flatten => Ok(Self::flatten(x)),
        }
    }

    /// Adds a convolution; adds the signals `added`, at most two, to its result.
    ///
    /// # Errors
    /// If the layer does not fit the signals, or cannot run on the CPU.
    pub fn conv(&mut self, x: Signal, conv: &Conv, added: &[Signal]) -> Result<Signal> {
        let config = conv.config();
        let spec = config.spec;
        let (kernel_h, kernel_w) = config.kernel;
        if config.input != x.channels || spec.dilation.0 != 1 {
            bail!(
                "a plan expects a layer for {} channels without dilation of rows, found {config:?}",
                x.channels
            );
        }
        let Some(last_row) = (x.rows + 2 * spec.padding.0).checked_sub(kernel_h) else {
            bail!("a kernel of {kernel_h} rows does not fit {} rows", x.rows);
        };
        let rows = last_row / spec.stride.0 + 1;
        let weight = values(&conv.weight()?)?;
        let (flattened, channels) = (x.flattened, x.channels / x.flattened);
        let weight = |out: usize, time: usize, row: usize, n: usize| {
            let channel = n % channels * flattened + n / channels;
            weight[((out * config.input + channel) * kernel_h + row) * kernel_w + time]
        };
        let reading = Reading {
            kernel: config.kernel,
            row_stride: spec.stride.0,
            row_padding: spec.padding.0,
            dilation: spec.dilation.1,
            mode: spec.pad_mode,
            input_slope: spec.input_slope,
            output_slope: spec.output_slope,
            timing: Timing {
                before: spec.padding.1,
                after: conv.look_ahead_frames(),
                stride: spec.stride.1,
                ..Timing::PLAIN
            },
            after_last: conv.look_ahead_frames(),
        };
        let bias = values(conv.bias())?;
        self.convolve(
            x,
            (rows, config.output),
            weight,
            bias,
            &reading,
            added,
            (rows, config.output),
        )
    }

    /// As a convolution along time whose output channels are the new rows of a row.
    fn upsample(&mut self, x: Signal, up: &Upsample) -> Result<Signal> {
        let (kernel_h, kernel_w) = up.kernel();
        let weight = up.weight()?;
        let (input, channels, _, _) = weight.dims4()?;
        self.expect_channels(x, input)?;
        let weight = values(&weight)?;
        // A transposed convolution meets the oldest frame with its last tap.
        let weight = |out: usize, time: usize, _: usize, n: usize| {
            let (row, out) = (out / channels, out % channels);
            weight[((n * channels + out) * kernel_h + row) * kernel_w + kernel_w - 1 - time]
        };
        let reading = Reading {
            kernel: (1, kernel_w),
            row_stride: 1,
            row_padding: 0,
            dilation: 1,
            mode: PadMode::Zero,
            input_slope: None,
            output_slope: None,
            timing: Timing {
                before: kernel_w - 1 - up.look_ahead_frames(),
                after: up.look_ahead_frames(),
                ..Timing::PLAIN
            },
            after_last: up.look_ahead_frames(),
        };
        let bias = values(up.bias())?.repeat(kernel_h);
        let outputs = (x.rows, kernel_h * channels);
        let shape = (x.rows * kernel_h, channels);
        self.convolve(x, outputs, weight, bias, &reading, &[], shape)
    }

    /// Adds a transposed convolution along time; adds the signal `added`, if there is one, to its result.
    ///
    /// # Errors
    /// As [`Self::conv`].
    pub fn time_upsample(
        &mut self,
        x: Signal,
        up: &TimeUpsample,
        added: Option<Signal>,
    ) -> Result<Signal> {
        let config = *up.config();
        self.expect_channels(x, config.input)?;
        if x.rows != 1 {
            bail!("upsampling in time expects one row, found {}", x.rows);
        }
        let (rate, taps, channels) = (config.rate, config.kernel / config.rate, config.output);
        let weight = values(&up.weight()?)?;
        let weight = |out: usize, time: usize, _: usize, n: usize| {
            let (phase, out) = (out / channels, out % channels);
            weight[(n * channels + out) * config.kernel + phase + (taps - 1 - time) * rate]
        };
        let reading = Reading {
            kernel: (1, taps),
            row_stride: 1,
            row_padding: 0,
            dilation: 1,
            mode: PadMode::Zero,
            input_slope: config.input_slope,
            output_slope: None,
            timing: Timing {
                before: taps - 1,
                rate,
                cut: up.padding(),
                ..Timing::PLAIN
            },
            after_last: up.padding().div_ceil(rate),
        };
        let bias = values(up.bias())?.repeat(rate);
        let added: Vec<Signal> = added.into_iter().collect();
        self.convolve(
            x,
            (1, rate * channels),
            weight,
            bias,
            &reading,
            &added,
            (1, channels),
        )
    }

    /// Adds a convolution with `outputs` (rows, channels) and a weight by (output, time tap, row tap, channel). Its result
    /// has frames of `shape`: as many values in the same order, or several frames of them.
    #[expect(
        clippy::too_many_arguments,
        reason = "all kinds of convolutions meet here"
    )]
    fn convolve(
        &mut self,
        x: Signal,
        outputs: (usize, usize),
        weight: impl Fn(usize, usize, usize, usize) -> f32,
        mut bias: Vec<f32>,
        reading: &Reading,
        added: &[Signal],
        shape: (usize, usize),
    ) -> Result<Signal> {
        let (kernel_h, kernel_w) = reading.kernel;
        let timing = reading.timing;
        let mut weights = Vec::with_capacity(outputs.1 * kernel_h * kernel_w * x.channels);
        for (out, bias) in bias.iter_mut().enumerate() {
            let mut sum = 0.0;
            for time in 0..kernel_w {
                for row in 0..kernel_h {
                    for channel in 0..x.channels {
                        let weight = weight(out, time, row, channel);
                        sum += weight;
                        weights.push(weight * x.scale);
                    }
                }
            }
            *bias += sum * x.offset;
        }
        let has_padding = reading.row_padding > 0 || timing.before > 0 || reading.after_last > 0;
        if x.offset != 0.0
            && (reading.mode == PadMode::Zero && has_padding || reading.input_slope.is_some())
        {
            bail!(
                "an offset cannot be folded into a layer with zero padding or an activated input"
            );
        }
        let input = match slope(reading.input_slope)? {
            Some(slope) => self.activated(x, slope)?,
            None => x,
        };
        self.read(input.plane, reading)?;
        let result = self.plane(shape.0, shape.1);
        for other in added {
            if (other.rows, other.channels) != shape || (other.scale, other.offset) != (1.0, 0.0) {
                bail!("expected a sum of {shape:?}, found {other:?}");
            }
            let other = &mut self.planes[other.plane];
            other.lead = other.lead.max(timing.cut);
            other.slack = other.slack.max(timing.rate);
        }
        self.planes[result.plane].lead = timing.cut;
        self.drafts.push(Draft {
            op: DraftOp::Convolve(Weights {
                values: weights,
                bias,
                kernel: reading.kernel,
                dilation: reading.dilation,
                rows: outputs.0,
                row_stride: reading.row_stride,
                row_padding: reading.row_padding,
                slope: slope(reading.output_slope)?,
            }),
            timing,
            input,
            others: added.to_vec(),
            plain: result.plane,
            activated: None,
        });
        Ok(result)
    }

    /// Adds rows that are weighted sums of two neighbouring input rows each: the first of the two, and both weights.
    ///
    /// # Errors
    /// If a row does not exist.
    pub fn mix_rows(&mut self, x: Signal, rows: &[(usize, [f32; 2])]) -> Result<Signal> {
        if rows.iter().any(|(row, _)| row + 1 >= x.rows) {
            bail!("expected pairs of {} rows, found {rows:?}", x.rows);
        }
        let result = self.plane(rows.len(), x.channels);
        let op = DraftOp::MixRows(MixRows {
            rows: rows.to_vec(),
        });
        self.elementwise(op, Timing::PLAIN, x, &[], result)
    }

    /// Interpolates linearly between frames, as PyTorch's `interpolate` with `align_corners=False`: `rate` frames for each
    /// one. Repeats the edges. If it does not look ahead, it repeats each frame in place of the next one.
    ///
    /// # Errors
    /// If other readers pad the signal differently.
    pub fn stretch(&mut self, x: Signal, rate: usize, looks_ahead: bool) -> Result<Signal> {
        let timing = Timing {
            before: 1,
            after: usize::from(looks_ahead),
            rate,
            ..Timing::PLAIN
        };
        self.pad(x.plane, &timing, timing.after, 0, PadMode::Replicate)?;
        let result = self.plane(x.rows, x.channels);
        self.elementwise(DraftOp::Stretch, timing, x, &[], result)
    }

    /// Concatenates the channels of signals. The result ends with the shortest.
    ///
    /// # Errors
    /// If there is none, or their rows differ.
    pub fn join(&mut self, signals: &[Signal]) -> Result<Signal> {
        let Some((&first, others)) = signals.split_first() else {
            bail!("expected signals to join, found none");
        };
        if others.iter().any(|other| other.rows != first.rows) {
            bail!("expected signals with the same rows, found {signals:?}");
        }
        let channels = signals.iter().map(|signal| signal.channels).sum();
        let result = self.plane(first.rows, channels);
        self.elementwise(DraftOp::Join, Timing::PLAIN, first, others, result)
    }

    /// The sum of the channels of `bands`, each weighted by one plus its `correction`.
    ///
    /// # Errors
    /// If their sizes differ.
    pub fn weighted_sum(&mut self, corrections: Signal, bands: Signal) -> Result<Signal> {
        if (corrections.rows, corrections.channels) != (bands.rows, bands.channels) {
            bail!("expected signals of one size, found {corrections:?} and {bands:?}");
        }
        let result = self.plane(bands.rows, 1);
        self.elementwise(
            DraftOp::WeightedSum,
            Timing::PLAIN,
            corrections,
            &[bands],
            result,
        )
    }

    /// The mean of a frame of `x` and the frames before it, `frames` in all, weighted by the mean amplitudes of a log-mel. There
    /// is nothing before the first frame.
    ///
    /// # Errors
    /// If `x` has several rows, or a signal is not plain.
    pub fn mean_by_level(&mut self, x: Signal, mel: Signal, frames: usize) -> Result<Signal> {
        if x.rows != 1 || frames == 0 {
            bail!("expected one row and at least one frame, found {x:?} and {frames}");
        }
        let weighted = self.plane(1, x.channels + 1);
        let weighted = self.elementwise(DraftOp::Weigh, Timing::PLAIN, x, &[mel], weighted)?;
        let timing = Timing {
            before: frames - 1,
            ..Timing::PLAIN
        };
        self.pad(weighted.plane, &timing, 0, 0, PadMode::Zero)?;
        let result = self.plane(1, x.channels);
        self.elementwise(DraftOp::RunningMean, timing, weighted, &[], result)
    }

    fn elementwise(
        &mut self,
        op: DraftOp,
        timing: Timing,
        input: Signal,
        others: &[Signal],
        result: Signal,
    ) -> Result<Signal> {
        for x in [input].iter().chain(others) {
            if (x.scale, x.offset, x.flattened) != (1.0, 0.0, 1) {
                bail!("expected a plain signal, found {x:?}");
            }
        }
        self.drafts.push(Draft {
            op,
            timing,
            input,
            others: others.to_vec(),
            plain: result.plane,
            activated: None,
        });
        Ok(result)
    }

    /// Splits the channels of a convolution's result into rows. Like PyTorch's `reshape`, it takes the channels as
    /// (channel, row).
    ///
    /// # Errors
    /// If the signal is not the result of a convolution with one row, or has other readers.
    pub fn unflatten(&mut self, x: Signal, rows: usize) -> Result<Signal> {
        let is_read = self.drafts.iter().any(|draft| {
            let mut read = [&draft.input].into_iter().chain(&draft.others);
            read.any(|signal| signal.plane == x.plane)
        });
        let draft = self.drafts.iter_mut().find(|draft| draft.plain == x.plane);
        match draft.map(|draft| &mut draft.op) {
            Some(DraftOp::Convolve(weights))
                if x.rows == 1 && x.channels.is_multiple_of(rows) && !is_read =>
            {
                let channels = x.channels / rows;
                let old = |output: usize| output % channels * rows + output / channels;
                let len = weights.values.len() / x.channels;
                weights.values = (0..x.channels)
                    .flat_map(|output| weights.values[old(output) * len..][..len].iter().copied())
                    .collect();
                weights.bias = (0..x.channels)
                    .map(|output| weights.bias[old(output)])
                    .collect();
                (self.planes[x.plane].rows, self.planes[x.plane].channels) = (rows, channels);
                Ok(Signal {
                    rows,
                    channels,
                    ..x
                })
            }
            _ => bail!("expected a new result of a convolution with one row, found {x:?}"),
        }
    }

    /// Compiles the plan.
    #[must_use]
    pub fn build(self) -> Arc<Plan> {
        let mut readers = vec![Vec::new(); self.planes.len()];
        for (number, draft) in self.drafts.iter().enumerate() {
            readers[draft.input.plane].push(Reader::Input(number));
            for other in &draft.others {
                readers[other.plane].push(Reader::Other(number));
            }
        }
        for (number, output) in self.outputs.iter().enumerate() {
            readers[output.plane].push(Reader::Output(number));
        }
        let isa = self.isa;
        let nodes = self.drafts.into_iter().map(|draft| {
            let stores_plain = !readers[draft.plain].is_empty() || draft.activated.is_none();
            let plain = stores_plain.then_some(draft.plain);
            let activated = draft.activated.map(|(plane, _)| plane);
            Node {
                timing: draft.timing,
                input: draft.input.plane,
                others: draft.others.iter().map(|other| other.plane).collect(),
                outputs: plain.into_iter().chain(activated).collect(),
                op: match draft.op {
                    DraftOp::Convolve(weights) => Op::Convolve(Convolution {
                        stores_plain,
                        activated: draft.activated.map(|(_, slope)| slope),
                        ..weights.pack(isa, draft.input.channels)
                    }),
                    DraftOp::MixRows(mix) => Op::MixRows(mix),
                    DraftOp::Stretch => Op::Stretch,
                    DraftOp::Join => Op::Join,
                    DraftOp::WeightedSum => Op::WeightedSum,
                    DraftOp::Weigh => Op::Weigh,
                    DraftOp::RunningMean => Op::RunningMean,
                },
            }
        });
        Arc::new(Plan {
            nodes: nodes.collect(),
            planes: self.planes,
            readers,
            inputs: self.inputs,
            outputs: self
                .outputs
                .iter()
                .map(|signal| Output {
                    plane: signal.plane,
                    scale: signal.scale,
                    offset: signal.offset,
                })
                .collect(),
            spare: Mutex::default(),
        })
    }

    fn plane(&mut self, rows: usize, channels: usize) -> Signal {
        self.planes.push(PlaneSpec::new(rows, channels));
        Signal {
            plane: self.planes.len() - 1,
            rows,
            channels,
            flattened: 1,
            scale: 1.0,
            offset: 0.0,
        }
    }

    fn expect_channels(&self, x: Signal, channels: usize) -> Result<()> {
        if x.channels != channels || x.flattened != 1 {
            bail!("expected a signal of {channels} channels, found {x:?}");
        }
        Ok(())
    }

    /// The activated form of a signal, which the convolution that makes it stores too.
    fn activated(&mut self, x: Signal, slope: f32) -> Result<Signal> {
        let maker = self.drafts.iter().position(|draft| draft.plain == x.plane);
        let Some(maker) =
            maker.filter(|&maker| matches!(self.drafts[maker].op, DraftOp::Convolve(_)))
        else {
            bail!("an activated input must be the result of a convolution, found {x:?}");
        };
        let plane = match self.drafts[maker].activated {
            Some((plane, known)) if known == slope => plane,
            Some((_, known)) => {
                bail!("a result cannot be activated with both slopes {known} and {slope}")
            }
            None => {
                let lead = self.planes[x.plane].lead;
                let plane = self.plane(x.rows, x.channels).plane;
                self.planes[plane].lead = lead;
                self.drafts[maker].activated = Some((plane, slope));
                plane
            }
        };
        Ok(Signal { plane, ..x })
    }

    /// Adds a convolution to the readers of a plane.
    fn read(&mut self, plane: usize, reading: &Reading) -> Result<()> {
        self.pad(
            plane,
            &reading.timing,
            reading.after_last,
            reading.row_padding,
            reading.mode,
        )
    }

    /// Gives a plane the padding that a reader needs.
    fn pad(
        &mut self,
        plane: usize,
        timing: &Timing,
        after_last: usize,
        row_padding: usize,
        mode: PadMode,
    ) -> Result<()> {
        let plane = &mut self.planes[plane];
        if [timing.before, after_last, row_padding] == [0; 3] {
            return Ok(());
        }
        let is_padded = [plane.before, plane.after, plane.row_padding] != [0; 3];
        if is_padded && plane.mode != mode {
            bail!(
                "expected readers with the same padding, found {:?} and {mode:?}",
                plane.mode
            );
        }
        plane.mode = mode;
        plane.before = plane.before.max(timing.before);
        plane.after = plane.after.max(after_last);
        plane.row_padding = plane.row_padding.max(row_padding);
        plane.lead = plane.lead.max(plane.before);
        Ok(())
    }
}

impl Weights {
    fn pack(self, isa: Isa, channels: usize) -> Convolution {
        let (kernel_h, kernel_w) = self.kernel;
        let inputs = kernel_h * kernel_w * channels;
        let weight = |output: usize, input: usize| self.values[output * inputs + input];
        Convolution {
            packed: Packed::new(isa, (self.bias.len(), inputs), weight, &self.bias),
            taps: kernel_w,
            dilation: self.dilation,
            run_len: kernel_h * channels,
            rows: self.rows,
            row_step: self.row_stride * channels,
            row_before: self.row_padding * channels,
            slope: self.slope,
            stores_plain: true,
            activated: None,
        }
    }
}
