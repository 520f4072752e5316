//! Runs networks on the CPU, in steps or on whole clips.
//!
//! A [`Plan`] is compiled from the same layers that are trained ([`crate::layers`]). Its weights are folded and packed
//! once for the processor's vector instructions ([`Isa`](crate::simd::Isa)). A [`Run`] holds the state of one stream or clip: for every
//! signal between two operations, a plane with the frames that are still needed. Planes hold the channels of a position
//! next to each other, then the rows of a frame, then the frames. A convolution reads them where they are, and writes its
//! result, with bias, activation and sums, into the next plane; nothing is copied between operations except the edges
//! of a plane. A step allocates nothing once the planes have grown to its size.
//!
//! A whole clip is many steps ([`Run::whole`]), so it takes linear time and its memory does not grow with its length.
//! The frames do not depend on the steps, bit for bit.
//!
//! ```
//! use candle_core::{DType, Device};
//! use candle_nn::{VarBuilder, VarMap};
//! use vocoder::layers::{Block, Conv, ConvConfig, Stack};
//! use vocoder::plan::{Builder, Run};
//! use vocoder::simd::Isa;
//!
//! let weights = VarMap::new();
//! let vb = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
//! let layer = Conv::new(ConvConfig::same(1, 2, (3, 3)), &vb)?;
//! let stack = Stack::new(vec![Block::Conv(layer)]);
//!
//! let mut builder = Builder::new(Isa::best());
//! let mel = builder.input(8, 1);
//! let encoded = builder.stack(mel, &stack)?;
//! builder.output(encoded);
//! let mut run = Run::new(&builder.build(), 1);
//!
//! // Two frames of 8 rows. The last one waits for the frame after it.
//! let mut out = Vec::new();
//! run.push(0, &[0.5; 2 * 8]);
//! run.step();
//! assert_eq!(run.take(0, &mut out), 1);
//! run.finish();
//! assert_eq!(run.take(0, &mut out), 1);
//! assert_eq!(out.len(), 2 * 8 * 2);
//! # candle_core::Result::Ok(())
//! ```

mod builder;
mod kernel;
mod ops;
mod plane;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use builder::{Builder, Signal};
use ops::Node;
use plane::{Plane, PlaneSpec};

/// A compiled network. Shared by all of its [`Run`]s.
#[derive(Debug)]
pub struct Plan {
    planes: Vec<PlaneSpec>,
    /// Who reads a plane.
    readers: Vec<Vec<Reader>>,
    /// In the order in which they run.
    nodes: Vec<Node>,
    inputs: Vec<usize>,
    outputs: Vec<Output>,
    /// Planes of a whole clip that has ended, for the next one: fresh memory would cost page faults.
    spare: Mutex<Vec<Plane>>,
}

/// A reader of a plane.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// A node, as its input.
    Input(usize),
    /// A node, at the frames of its output.
    Other(usize),
    /// The caller.
    Output(usize),
}

impl Plan {
    fn spare(&self) -> MutexGuard<'_, Vec<Plane>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A plane that the caller reads, as `scale * value + offset`.
#[derive(Clone, Copy, Debug)]
struct Output {
    plane: usize,
    scale: f32,
    offset: f32,
}

/// The state of a stream or clip in a [`Plan`], for a number of batch elements.
#[derive(Clone, Debug)]
pub struct Run {
    plan: Arc<Plan>,
    batch: usize,
    planes: Vec<Plane>,
    /// The next position of each node.
    next: Vec<usize>,
    /// Frames that the caller has taken of each output.
    taken: Vec<usize>,
}

impl Run {
    /// Begins a stream with `batch` elements.
    #[must_use]
    pub fn new(plan: &Arc<Plan>, batch: usize) -> Self {
        Self {
            batch,
            planes: plan
                .planes
                .iter()
                .map(|spec| Plane::new(spec.clone(), batch))
                .collect(),
            next: vec![0; plan.nodes.len()],
            taken: vec![0; plan.outputs.len()],
            plan: Arc::clone(plan),
        }
    }

    /// As [`Self::new`], with the plan's spare planes if they fit.
    fn with_spare_planes(plan: &Arc<Plan>, batch: usize) -> Self {
        let mut run = Self::new(plan, batch);
        let spare = std::mem::take(&mut *plan.spare());
        if spare.first().is_some_and(|plane| plane.batch() == batch) {
            run.planes = spare;
        }
        run
    }

    /// Batch elements.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Returns to the beginning.
    pub fn reset(&mut self) {
        self.planes.iter_mut().for_each(Plane::reset);
        self.next.fill(0);
        self.taken.fill(0);
    }

    /// Values of a frame of an input.
    #[must_use]
    pub fn input_len(&self, input: usize) -> usize {
        self.planes[self.plan.inputs[input]].spec.inner_len()
    }

    /// Values of a frame of an output.
    #[must_use]
    pub fn output_len(&self, output: usize) -> usize {
        self.planes[self.plan.outputs[output].plane]
            .spec
            .inner_len()
    }

    /// Appends frames to an input: (batch, frame, row, channel).
    ///
    /// # Panics
    ///
    /// If there is no such input, or if the values are not whole frames for all batch elements.
    pub fn push(&mut self, input: usize, values: &[f32]) {
        let len = self.input_len(input);
        let plane = self.plan.inputs[input];
        let frames = values.len() / (self.batch * len);
        assert_eq!(values.len(), self.batch * frames * len, "whole frames");
        let keep = self.keep(plane);
        let plane = &mut self.planes[plane];
        let first = plane.spec.lead + plane.frames();
        plane.reserve(first + frames, keep);
        for (i, frame) in values.chunks_exact(len).enumerate() {
            let (b, place) = (i / frames, first + i % frames);
            let at = b * plane.batch_len() + plane.offset(place);
            plane.data[at..at + len].copy_from_slice(frame);
        }
        plane.written(first + frames);
    }

    /// Computes all frames that can be computed.
    pub fn step(&mut self) {
        let plan = Arc::clone(&self.plan);
        for (number, node) in plan.nodes.iter().enumerate() {
            self.run_node(number, node);
        }
    }

    /// Ends the inputs and computes all remaining frames.
    pub fn finish(&mut self) {
        let plan = Arc::clone(&self.plan);
        for &input in &plan.inputs {
            let keep = self.keep(input);
            let frames = self.planes[input].frames();
            self.planes[input].finish(frames, keep);
        }
        self.step();
    }

    /// Appends all new frames of an output to `out`: (batch, frame, row, channel). Returns their number.
    ///
    /// # Panics
    ///
    /// If there is no such output.
    pub fn take(&mut self, output: usize, out: &mut Vec<f32>) -> usize {
        let Output {
            plane,
            scale,
            offset,
        } = self.plan.outputs[output];
        let plane = &self.planes[plane];
        let len = plane.spec.inner_len();
        let taken = self.taken[output];
        let frames = plane.total.unwrap_or(plane.frames());
        for b in 0..self.batch {
            for frame in taken..frames {
                let at = b * plane.batch_len() + plane.offset(plane.spec.lead + frame);
                let values = &plane.data[at..at + len];
                match (scale, offset) {
                    (1.0, 0.0) => out.extend_from_slice(values),
                    _ => out.extend(values.iter().map(|value| scale * value + offset)),
                }
            }
        }
        self.taken[output] = frames;
        frames - taken
    }

    /// Runs a whole clip: for each input, its values (batch, frame, row, channel). Returns those of the outputs. A step
    /// takes `step_frames` frames of the first input, and as much of the others: enough to use a weight several times when
    /// it is loaded, few enough for the planes to stay in the cache.
    ///
    /// # Panics
    ///
    /// If the inputs do not fit.
    #[must_use]
    pub fn whole(
        plan: &Arc<Plan>,
        batch: usize,
        inputs: &[&[f32]],
        step_frames: usize,
    ) -> Vec<Vec<f32>> {
        let mut run = Self::with_spare_planes(plan, batch);
        // The frames of each batch element are appended one after another, so the batch is outermost at the end.
        let mut outputs = vec![vec![Vec::new(); batch]; plan.outputs.len()];
        let mut frames = Vec::new();
        let mut collect = |run: &mut Self| {
            for (number, output) in outputs.iter_mut().enumerate() {
                frames.clear();
                run.take(number, &mut frames);
                let len = frames.len() / batch;
                for (b, output) in output.iter_mut().enumerate() {
                    output.extend_from_slice(&frames[b * len..][..len]);
                }
            }
        };
        let frames = |input: usize| inputs[input].len() / (batch * run.input_len(input));
        let lengths: Vec<usize> = (0..inputs.len()).map(frames).collect();
        let mut part = Vec::new();
        for step in 0..lengths[0].div_ceil(step_frames) {
            for (input, &frames) in lengths.iter().enumerate() {
                let share = |step: usize| (step * step_frames * frames / lengths[0]).min(frames);
                let (from, to) = (share(step), share(step + 1));
                let len = run.input_len(input);
                part.clear();
                for b in 0..batch {
                    part.extend_from_slice(
                        &inputs[input][(b * frames + from) * len..][..(to - from) * len],
                    );
                }
                if to > from {
                    run.push(input, &part);
                }
            }
            run.step();
            collect(&mut run);
        }
        run.finish();
        collect(&mut run);
        run.reset();
        *plan.spare() = run.planes;
        outputs.into_iter().map(|output| output.concat()).collect()
    }

    /// The first place of a plane that somebody still reads.
    fn keep(&self, plane: usize) -> usize {
        let lead = self.planes[plane].spec.lead;
        let places = self.plan.readers[plane].iter().map(|reader| match *reader {
            Reader::Input(node) => {
                let timing = &self.plan.nodes[node].timing;
                self.next[node] * timing.stride + lead - timing.before
            }
            Reader::Other(node) => {
                let timing = &self.plan.nodes[node].timing;
                self.next[node] * timing.rate + lead - timing.cut
            }
            Reader::Output(output) => self.taken[output] + lead,
        });
        places.min().unwrap_or(usize::MAX)
    }

    /// Computes all positions of a node that can be computed, and ends its outputs if its inputs have ended.
    fn run_node(&mut self, number: usize, node: &Node) {
        let timing = &node.timing;
        let others = || node.others.iter().map(|&other| &self.planes[other]);
        let input = &self.planes[node.input];
        let total = others().map(|other| other.total).fold(
            input.total.map(|total| timing.total(total)),
            |least, total| Some(least?.min(total?)),
        );
        let frames = match timing.before {
            0 => input.frames(),
            _ => input.frames_after_lead_in(),
        };
        let mut positions = timing.positions(frames);
        for other in others() {
            positions = positions.min(match other.total {
                Some(total) => timing.positions_for(total),
                None => (other.frames() + timing.cut) / timing.rate,
            });
        }
        if let Some(total) = total {
            positions = positions.min(timing.positions_for(total));
        }
        let next = self.next[number];
        if positions > next {
            let frames = (positions * timing.rate).saturating_sub(timing.cut);
            let end = |plane: &Plane| plane.spec.lead + frames;
            for &output in &node.outputs {
                let keep = self.keep(output);
                let plane = &mut self.planes[output];
                plane.reserve(end(plane), keep);
            }
            node.run(next..positions, self.batch, &mut self.planes);
            self.next[number] = positions;
            for &output in &node.outputs {
                let end = end(&self.planes[output]);
                self.planes[output].written(end);
            }
        }
        if let Some(total) = total {
            for &output in &node.outputs {
                if self.planes[output].total.is_none() {
                    let keep = self.keep(output);
                    self.planes[output].finish(total, keep);
                }
            }
        }
    }
}
