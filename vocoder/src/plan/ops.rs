//! The operations of a plan. Each reads frames of one or more planes and writes the next frames of others.

use std::mem;
use std::ops::Range;

use super::kernel::{Job, Packed, Pixel, Pixels, Segments};
use super::plane::Plane;

/// Which frames of its input an operation reads. Position `t` reads frames `t * stride - before` to `t * stride + after`,
/// both included, and yields `rate` frames from `t * rate - cut` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) before: usize,
    pub(super) after: usize,
    pub(super) stride: usize,
    pub(super) rate: usize,
    pub(super) cut: usize,
}

impl Timing {
    /// Frame by frame.
    pub(super) const PLAIN: Self = Self {
        before: 0,
        after: 0,
        stride: 1,
        rate: 1,
        cut: 0,
    };

    /// Positions that can be computed from this many frames.
    pub(super) fn positions(&self, frames: usize) -> usize {
        match frames.checked_sub(self.after + 1) {
            Some(last) => last / self.stride + 1,
            None => 0,
        }
    }

    /// Output frames of a signal that ends after `total` frames.
    pub(super) fn total(&self, total: usize) -> usize {
        total.div_ceil(self.stride) * self.rate
    }

    /// Positions that yield at least the first `frames` output frames.
    pub(super) fn positions_for(&self, frames: usize) -> usize {
        match frames {
            0 => 0,
            _ => (frames + self.cut).div_ceil(self.rate),
        }
    }
}

/// An operation, and the planes that it connects.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) op: Op,
    pub(super) timing: Timing,
    pub(super) input: usize,
    /// Planes that it reads at the frames of its output.
    pub(super) others: Vec<usize>,
    pub(super) outputs: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Convolve(Convolution),
    MixRows(MixRows),
    Stretch,
    Join,
    WeightedSum,
    Weigh,
    RunningMean,
}

/// A convolution, with all that follows before the next one. Its outputs are the plain values, the activated ones, or
/// both in this order. It adds the other planes.
#[derive(Clone, Debug)]
pub(super) struct Convolution {
    pub(super) packed: Packed,
    /// Taps in time, and the distance between them in frames.
    pub(super) taps: usize,
    pub(super) dilation: usize,
    /// Input values per tap in time.
    pub(super) run_len: usize,
    /// Output rows.
    pub(super) rows: usize,
    /// Input values from one output row to the next.
    pub(super) row_step: usize,
    /// Input values that the first output row reads before the first input row.
    pub(super) row_before: usize,
    /// Slope of the activation of the sums.
    pub(super) slope: Option<f32>,
    /// Whether the plain values are stored.
    pub(super) stores_plain: bool,
    /// Slope of the activated values, if they are stored.
    pub(super) activated: Option<f32>,
}

/// Each output row is the weighted sum of two neighbouring input rows.
#[derive(Clone, Debug)]
pub(super) struct MixRows {
    /// For each output row, the first of the two and their weights.
    pub(super) rows: Vec<(usize, [f32; 2])>,
}

impl Node {
    /// Computes these positions. The output planes have space for them.
    pub(super) fn run(&self, positions: Range<usize>, batch: usize, planes: &mut [Plane]) {
        match &self.op {
            Op::Convolve(convolution) => convolution.run(self, positions, batch, planes),
            Op::MixRows(mix) => mix.run(self, positions, batch, planes),
            Op::Stretch => self.stretch(positions, batch, planes),
            Op::Join => self.join(positions, batch, planes),
            Op::WeightedSum => self.weighted_sum(positions, batch, planes),
            Op::Weigh => self.weigh(positions, batch, planes),
            Op::RunningMean => self.running_mean(positions, batch, planes),
        }
    }

    /// The place of the first frame of a position in a plane that is aligned with the output.
    fn output_place(&self, position: usize, plane: &Plane) -> usize {
        position * self.timing.rate + plane.spec.lead - self.timing.cut
    }

    /// The place of the first frame that a position reads.
    fn input_place(&self, position: usize, plane: &Plane) -> usize {
        position * self.timing.stride + plane.spec.lead - self.timing.before
    }

    /// Linear interpolation in time between the frames before, at and after a position: PyTorch's `interpolate` with
    /// `align_corners=False`.
    fn stretch(&self, positions: Range<usize>, batch: usize, planes: &mut [Plane]) {
        let mut target = mem::take(&mut planes[self.outputs[0]].data);
        let (input, output) = (&planes[self.input], &planes[self.outputs[0]]);
        let Timing { after, rate, .. } = self.timing;
        let (frame, out_frame) = (input.spec.frame_len(), output.spec.frame_len());
        let len = input.spec.inner_len();
        for b in 0..batch {
            for position in positions.clone() {
                let before =
                    b * input.batch_len() + input.offset(self.input_place(position, input));
                let here = before + frame;
                let first =
                    b * output.batch_len() + output.offset(self.output_place(position, output));
                for phase in 0..rate {
                    let place = (phase as f32 + 0.5) / rate as f32 - 0.5;
                    let neighbour = if place < 0.0 {
                        before
                    } else {
                        here + after * frame
                    };
                    let (own, other) = (1.0 - place.abs(), place.abs());
                    let target = &mut target[first + phase * out_frame..][..len];
                    let pairs = input.data[here..][..len]
                        .iter()
                        .zip(&input.data[neighbour..][..len]);
                    for (target, (here, neighbour)) in target.iter_mut().zip(pairs) {
                        *target = here * own + neighbour * other;
                    }
                }
            }
        }
        planes[self.outputs[0]].data = target;
    }

    /// Sums the channels of the second input, each weighted by one plus the first input.
    fn weighted_sum(&self, positions: Range<usize>, batch: usize, planes: &mut [Plane]) {
        let mut target = mem::take(&mut planes[self.outputs[0]].data);
        let [weights, bands, output] =
            [self.input, self.others[0], self.outputs[0]].map(|plane| &planes[plane]);
        let channels = bands.spec.channels;
        for b in 0..batch {
            for position in positions.clone() {
                let at = |plane: &Plane| {
                    b * plane.batch_len() + plane.offset(self.output_place(position, plane))
                };
                let weights = weights.data[at(weights)..].chunks_exact(channels);
                let bands = bands.data[at(bands)..].chunks_exact(channels);
                let target = &mut target[at(output)..][..output.spec.rows];
                for (target, (weights, bands)) in target.iter_mut().zip(weights.zip(bands)) {
                    let products = weights.iter().zip(bands).map(|(w, band)| band + w * band);
                    *target = products.sum();
                }
            }
        }
        planes[self.outputs[0]].data = target;
    }

    /// Multiplies the channels of a row by a weight, and appends the weight: the mean amplitude of the second input, a log-mel.
    fn weigh(&self, positions: Range<usize>, batch: usize, planes: &mut [Plane]) {
        let mut target = mem::take(&mut planes[self.outputs[0]].data);
        let [input, mel, output] =
            [self.input, self.others[0], self.outputs[0]].map(|plane| &planes[plane]);
        let (channels, bands) = (input.spec.channels, mel.spec.inner_len());
        for b in 0..batch {
            for position in positions.clone() {
                let at = |plane: &Plane| {
                    b * plane.batch_len() + plane.offset(self.output_place(position, plane))
                };
                let amplitudes = mel.data[at(mel)..][..bands].iter().map(|value| value.exp());
                let weight = amplitudes.sum::<f32>() / bands as f32;
                let values = &input.data[at(input)..][..channels];
                let target = &mut target[at(output)..][..channels + 1];
                for (target, value) in target.iter_mut().zip(values) {
                    *target = weight * value;
                }
                target[channels] = weight;
            }
        }
        planes[self.outputs[0]].data = target;
    }

    /// The sums of all channels but the last over the frames that a position reads, divided by the sum of the last.
    fn running_mean(&self, positions: Range<usize>, batch: usize, planes: &mut [Plane]) {
        let mut target = mem::take(&mut planes[self.outputs[0]].data);
        let (input, output) = (&planes[self.input], &planes[self.outputs[0]]);
        let channels = output.spec.channels;
        for b in 0..batch {
            for position in positions.clone() {
                let source =
                    b * input.batch_len() + input.offset(self.input_place(position, input));
                let first =
                    b * output.batch_len() + output.offset(self.output_place(position, output));
                let target = &mut target[first..][..channels];
                target.fill(0.0);
                let mut weight = 0.0;
                let frames = input.data[source..].chunks_exact(channels + 1);
                for frame in frames.take(self.timing.before + 1) {
                    for (target, value) in target.iter_mut().zip(frame) {
                        *target += value;
                    }
                    weight += frame[channels];
                }
                let scale = f32::max(weight, f32::MIN_POSITIVE).recip();
                target.iter_mut().for_each(|value| *value *= scale);
            }
        }
        planes[self.outputs[0]].data = target;
    }

    /// Concatenates the channels of all inputs.
    fn join(&self, positions: Range<usize>, batch: usize, planes: &mut [Plane]) {
        let mut target = mem::take(&mut planes[self.outputs[0]].data);
        let output = &planes[self.outputs[0]];
        let mut channel = 0;
        for &input in [self.input].iter().chain(&self.others) {
            let input = &planes[input];
            let channels = input.spec.channels;
            for b in 0..batch {
                for position in positions.clone() {
                    let source =
                        b * input.batch_len() + input.offset(self.input_place(position, input));
                    let first =
                        b * output.batch_len() + output.offset(self.output_place(position, output));
                    let source = &input.data[source..][..input.spec.inner_len()];
                    let target = &mut target[first..][..output.spec.inner_len()];
                    let rows = target.chunks_exact_mut(output.spec.channels);
                    for (target, source) in rows.zip(source.chunks_exact(channels)) {
                        target[channel..][..channels].copy_from_slice(source);
                    }
                }
            }
            channel += channels;
        }
        planes[self.outputs[0]].data = target;
    }
}

impl Convolution {
    fn run(&self, node: &Node, positions: Range<usize>, batch: usize, planes: &mut [Plane]) {
        // Owned here, so that the planes can be read and written at a time.
        let mut outputs = node.outputs.iter();
        let [plain, activated] = [self.stores_plain, self.activated.is_some()]
            .map(|stored| stored.then(|| outputs.next().copied()).flatten());
        let mut take = |plane: Option<usize>| plane.map(|plane| mem::take(&mut planes[plane].data));
        let (mut plain_data, mut activated_data) = (take(plain), take(activated));

        let input = &planes[node.input];
        let aligned = |plane: Option<usize>, b: usize, position: usize| {
            let Some(plane) = plane.map(|plane| &planes[plane]) else {
                return 0;
            };
            b * plane.batch_len() + plane.offset(node.output_place(position, plane))
        };
        let others = [0, 1].map(|other| node.others.get(other).copied());
        let pitch = self.packed.outputs() as u32;
        let at = |b: usize, position: usize| Pixel {
            input: (b * input.batch_len() + input.offset(node.input_place(position, input))
                - self.row_before) as u32,
            output: aligned(plain, b, position) as u32,
            activated: aligned(activated, b, position) as u32,
            addends: others.map(|other| aligned(other, b, position) as u32),
        };
        let row = Pixel {
            input: self.row_step as u32,
            output: pitch,
            activated: pitch,
            addends: [pitch; 2],
        };
        let first = at(0, positions.start);
        let pixels = Pixels {
            first,
            axes: [
                (self.rows as u32, row),
                (
                    positions.len() as u32,
                    at(0, positions.start + 1).minus(&first),
                ),
                (batch as u32, at(1, positions.start).minus(&first)),
            ],
        };
        Job {
            packed: &self.packed,
            pixels,
            segments: Segments {
                count: self.taps,
                distance: self.dilation * input.spec.frame_len(),
                length: self.run_len,
            },
            input: &input.data,
            slope: self.slope,
            addends: others.map(|other| other.map(|other| planes[other].data.as_slice())),
            output: plain_data.as_deref_mut(),
            activated: activated_data.as_deref_mut().zip(self.activated),
        }
        .run();
        for (plane, data) in [(plain, plain_data), (activated, activated_data)] {
            if let (Some(plane), Some(data)) = (plane, data) {
                planes[plane].data = data;
            }
        }
    }
}

impl MixRows {
    fn run(&self, node: &Node, positions: Range<usize>, batch: usize, planes: &mut [Plane]) {
        let mut target = mem::take(&mut planes[node.outputs[0]].data);
        let (input, output) = (&planes[node.input], &planes[node.outputs[0]]);
        let channels = input.spec.channels;
        for b in 0..batch {
            for position in positions.clone() {
                let source =
                    b * input.batch_len() + input.offset(node.input_place(position, input));
                let first =
                    b * output.batch_len() + output.offset(node.output_place(position, output));
                let source = &input.data[source..][..input.spec.inner_len()];
                let target = &mut target[first..][..output.spec.inner_len()];
                for (target, &(row, [own, next])) in
                    target.chunks_exact_mut(channels).zip(&self.rows)
                {
                    let (first, second) =
                        source[row * channels..][..2 * channels].split_at(channels);
                    for (target, (first, second)) in target.iter_mut().zip(first.iter().zip(second))
                    {
                        *target = own * first + next * second;
                    }
                }
            }
        }
        planes[node.outputs[0]].data = target;
    }
}
