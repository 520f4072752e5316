//! The convolution kernel: the inner products of one layer for a list of pixels, on the processor's widest vectors.
//!
//! A *pixel* is one position of a plane with all of its channels, which lie next to each other. An output pixel is the
//! bias plus the product of the packed weight with the input values that it reads: `segments` runs of equal length, at
//! equal distances. The kernel computes a tile of several pixels by several vectors of output channels in registers,
//! so that each loaded value is used many times and each output is written once. Every output is one chain of
//! multiply-adds in a fixed order, so it does not depend on the tile that it falls into, nor on the width of a vector.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::float32x4_t;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

use crate::simd::{Isa, Kind, Plain, Vector};

/// Most pixels in a tile.
const MOST_PIXELS: usize = 12;

/// Pixels in a tile, for a number of vectors and of registers: sums, weights and one input value fit into the registers.
const fn tile_pixels(registers: usize, vectors: usize) -> usize {
    match (registers, vectors) {
        (32, 1 | 2) => 12,
        (32, 3) => 8,
        (32, _) => 6,
        (_, 1) => 10,
        (_, _) => 6,
    }
}

/// Where the values of one output pixel are: offsets into the slices of a [`Job`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pixel {
    pub(super) input: u32,
    pub(super) output: u32,
    pub(super) activated: u32,
    pub(super) addends: [u32; 2],
}

impl Pixel {
    /// The step from another pixel.
    pub(super) fn minus(self, other: &Self) -> Self {
        Self {
            input: self.input - other.input,
            output: self.output - other.output,
            activated: self.activated - other.activated,
            addends: [0, 1].map(|i| self.addends[i] - other.addends[i]),
        }
    }

    /// The pixel that is `count` steps further.
    #[inline(always)]
    fn plus(self, step: &Self, count: u32) -> Self {
        Self {
            input: self.input + count * step.input,
            output: self.output + count * step.output,
            activated: self.activated + count * step.activated,
            addends: [0, 1].map(|i| self.addends[i] + count * step.addends[i]),
        }
    }
}

/// The pixels of a job: a lattice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pixels {
    pub(super) first: Pixel,
    /// Number of pixels along each axis, the innermost first, and the step from one to the next.
    pub(super) axes: [(u32, Pixel); 3],
}

impl Pixels {
    fn count(&self) -> usize {
        self.axes.iter().map(|&(count, _)| count as usize).product()
    }

    /// The largest of an offset. In 64 bits: a step that was meant to go backwards is far out of bounds, not wrapped into them.
    fn last(&self, offset: impl Fn(&Pixel) -> u32) -> u64 {
        let axes = self.axes.iter();
        let steps = axes.map(|(count, step)| u64::from(count - 1) * u64::from(offset(step)));
        u64::from(offset(&self.first)) + steps.sum::<u64>()
    }

    /// The same pixels with those axes first that have more than one.
    fn compact(mut self) -> Self {
        // A stable sort keeps the order of the others.
        self.axes.sort_by_key(|&(count, _)| count == 1);
        self
    }
}

/// Walks through [`Pixels`].
struct Walk<'a> {
    pixels: &'a Pixels,
    /// The next pixel, and the first one of its line along the first axis and of its plane along the first two.
    here: [Pixel; 3],
    place: [u32; 3],
}

impl<'a> Walk<'a> {
    fn new(pixels: &'a Pixels) -> Self {
        Self {
            pixels,
            here: [pixels.first; 3],
            place: [0; 3],
        }
    }

    /// The next pixels.
    #[inline(always)]
    fn fill(&mut self, mut pixels: &mut [Pixel]) {
        while !pixels.is_empty() {
            let (count, step) = &self.pixels.axes[0];
            let here = self.here[0];
            let run = pixels.len().min((count - self.place[0]) as usize);
            let (line, rest) = pixels.split_at_mut(run);
            // Each from the first one: a chain of steps would wait for itself.
            for (n, pixel) in line.iter_mut().enumerate() {
                *pixel = here.plus(step, n as u32);
            }
            pixels = rest;
            self.here[0] = here.plus(step, run as u32);
            self.place[0] += run as u32;
            if self.place[0] == *count {
                self.next_line();
            }
        }
    }

    fn next_line(&mut self) {
        for axis in 1..3 {
            let (count, step) = &self.pixels.axes[axis];
            self.place[axis - 1] = 0;
            self.place[axis] += 1;
            self.here[axis] = self.here[axis].plus(step, 1);
            if axis == 2 || self.place[axis] < *count {
                let start = self.here[axis];
                self.here[..axis].fill(start);
                return;
            }
        }
    }
}

/// The runs of input values that a pixel reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Segments {
    pub(super) count: usize,
    /// Distance between the starts of two runs.
    pub(super) distance: usize,
    /// Values in a run.
    pub(super) length: usize,
}

impl Segments {
    /// The same values in fewer, longer runs, if they follow each other.
    fn merged(self) -> Self {
        match self.distance == self.length {
            true => Self {
                count: 1,
                distance: 0,
                length: self.count * self.length,
            },
            false => self,
        }
    }

    /// Values from the first to the last, both included.
    fn span(&self) -> usize {
        (self.count - 1) * self.distance + self.length
    }
}

/// A weight and a bias in the order in which the kernel reads them.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    isa: Isa,
    outputs: usize,
    inputs: usize,
    /// First output channel and number of vectors of each block of outputs.
    blocks: Vec<(usize, usize)>,
    /// Block by block: for each input value, the weights of all outputs of the block. Outputs are rounded up to whole
    /// vectors with zeros.
    weights: Vec<f32>,
    /// Rounded up likewise.
    bias: Vec<f32>,
}

impl Packed {
    /// Packs the weight of `outputs` channels from `inputs` values each: `weight(output, input)`.
    pub(super) fn new(
        isa: Isa,
        (outputs, inputs): (usize, usize),
        weight: impl Fn(usize, usize) -> f32,
        bias: &[f32],
    ) -> Self {
        let lanes = isa.lanes();
        let vectors = outputs.div_ceil(lanes);
        let mut blocks = Vec::new();
        let mut first = 0;
        for count in split(vectors, isa.registers()) {
            blocks.push((first * lanes, count));
            first += count;
        }
        let value = |output, input| match output < outputs {
            true => weight(output, input),
            false => 0.0,
        };
        let mut weights = Vec::with_capacity(vectors * lanes * inputs);
        for &(first, count) in &blocks {
            for input in 0..inputs {
                weights.extend((first..first + count * lanes).map(|output| value(output, input)));
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(vectors * lanes, 0.0);
        Self {
            isa,
            outputs,
            inputs,
            blocks,
            weights,
            bias,
        }
    }

    /// Output channels.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }
}

/// Numbers of vectors per block.
fn split(vectors: usize, registers: usize) -> Vec<usize> {
    let mut left = vectors;
    let mut blocks = Vec::new();
    while left > 0 {
        let block = match (registers, left) {
            // Not 4 and 1: a single vector uses a loaded value only once.
            (32, 3 | 5) => 3,
            (32, 4..) => 4,
            (_, left) => left.min(2),
        };
        blocks.push(block);
        left -= block;
    }
    blocks
}

/// What happens to the sums of a layer before they are stored: `output = leaky(sum, slope) + addends`, and `activated =
/// leaky(output)`.
pub(super) struct Job<'a> {
    pub(super) packed: &'a Packed,
    pub(super) pixels: Pixels,
    pub(super) segments: Segments,
    pub(super) input: &'a [f32],
    pub(super) slope: Option<f32>,
    pub(super) addends: [Option<&'a [f32]>; 2],
    pub(super) output: Option<&'a mut [f32]>,
    /// With the slope of its activation.
    pub(super) activated: Option<(&'a mut [f32], f32)>,
}

/// The same with raw pointers, for one block of outputs.
struct Block {
    weights: *const f32,
    bias: *const f32,
    segments: Segments,
    input: *const f32,
    /// One for no activation.
    slope: f32,
    addends: [Option<*const f32>; 2],
    output: Option<*mut f32>,
    activated: Option<(*mut f32, f32)>,
    /// Vectors of outputs.
    vectors: usize,
    /// First output channel, and the number from there.
    first: usize,
    left: usize,
}

impl Job<'_> {
    /// Computes all pixels.
    ///
    /// # Panics
    ///
    /// If a pixel lies outside one of the slices.
    pub(super) fn run(mut self) {
        let packed = self.packed;
        assert_eq!(
            self.segments.count * self.segments.length,
            packed.inputs,
            "the segments hold the inputs of the weight"
        );
        self.check_bounds();
        let isa = packed.isa;
        let pixels = self.pixels.compact();
        let output = self.output.as_mut().map(|output| output.as_mut_ptr());
        let activated = self.activated.as_mut();
        let activated = activated.map(|(activated, slope)| (activated.as_mut_ptr(), *slope));
        let mut weights = packed.weights.as_slice();
        for &(first, vectors) in &packed.blocks {
            let (here, rest) = weights.split_at(packed.inputs * vectors * isa.lanes());
            weights = rest;
            let block = Block {
                weights: here.as_ptr(),
                bias: packed.bias[first..].as_ptr(),
                segments: self.segments.merged(),
                input: self.input.as_ptr(),
                slope: self.slope.unwrap_or(1.0),
                addends: self.addends.map(|addend| addend.map(<[f32]>::as_ptr)),
                output,
                activated,
                vectors,
                first,
                left: packed.outputs - first,
            };
            // SAFETY: `check_bounds` found all values of all pixels inside their slices; weights and bias of a block are as
            // long as its whole vectors; the processor has the instructions, as `Isa` promises.
            unsafe {
                match isa.0 {
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx512 => avx512(&block, &pixels),
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx2 => avx2(&block, &pixels),
                    #[cfg(target_arch = "aarch64")]
                    Kind::Neon => neon(&block, &pixels),
                    Kind::Plain => plain(&block, &pixels),
                }
            }
        }
    }

    /// Asserts that all pixels lie inside the slices.
    fn check_bounds(&self) {
        assert!(self.pixels.axes.iter().all(|&(count, _)| count > 0));
        let outputs = self.packed.outputs;
        let inside = |offset: fn(&Pixel) -> u32, values: usize, slice: &[f32]| {
            assert!(self.pixels.last(offset) + values as u64 <= slice.len() as u64);
        };
        inside(|pixel| pixel.input, self.segments.span(), self.input);
        if let Some(output) = &self.output {
            inside(|pixel| pixel.output, outputs, output);
        }
        if let Some((activated, _)) = &self.activated {
            inside(|pixel| pixel.activated, outputs, activated);
        }
        let [first, second] = self.addends;
        if let Some(addend) = first {
            inside(|pixel| pixel.addends[0], outputs, addend);
        }
        if let Some(addend) = second {
            inside(|pixel| pixel.addends[1], outputs, addend);
        }
    }
}

/// Computes a tile: `P` pixels, `Q` vectors of outputs.
///
/// # Safety
/// All pixels must be inside the slices of the block, and the processor must have the instructions of `V`.
#[expect(
    clippy::needless_range_loop,
    reason = "loops over whole tiles, which the compiler unrolls"
)]
#[inline(always)]
unsafe fn tile<V: Vector, const P: usize, const Q: usize>(block: &Block, pixels: &[Pixel]) {
    // SAFETY: the caller vouches for all of this function's reads and writes.
    unsafe {
        let mut inputs = [block.input; P];
        let mut sums = [[V::splat(0.0); Q]; P];
        for p in 0..P {
            inputs[p] = block.input.add(pixels[p].input as usize);
            for q in 0..Q {
                sums[p][q] = V::load(block.bias.add(q * V::LANES));
            }
        }
        let mut weights = block.weights;
        for _ in 0..block.segments.count {
            for n in 0..block.segments.length {
                let mut w = [V::splat(0.0); Q];
                for q in 0..Q {
                    w[q] = V::load(weights.add(q * V::LANES));
                }
                for p in 0..P {
                    let x = V::splat(*inputs[p].add(n));
                    for q in 0..Q {
                        sums[p][q] = x.mul_add(w[q], sums[p][q]);
                    }
                }
                weights = weights.add(Q * V::LANES);
            }
            for input in &mut inputs {
                *input = input.wrapping_add(block.segments.distance);
            }
        }
        // A copy, so that the sums above never need an address and stay in registers.
        let mut stored = [[V::splat(0.0); Q]; P];
        for p in 0..P {
            for q in 0..Q {
                sums[p][q].store((&raw mut stored[p][q]).cast());
            }
        }
        for (pixel, sums) in pixels.iter().zip(&stored) {
            for (q, &sum) in sums.iter().enumerate() {
                let first = q * V::LANES;
                finish(block, pixel, block.first + first, block.left - first, sum);
            }
        }
    }
}

/// Activates and stores the sums of a pixel, `left` of them from output channel `first` on.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn finish<V: Vector>(block: &Block, pixel: &Pixel, first: usize, left: usize, sum: V) {
    // SAFETY: the caller vouches for all of this function's reads and writes.
    unsafe {
        let leaky = |x: V, slope: f32| x.mul(V::splat(slope)).max(x);
        let mut value = leaky(sum, block.slope);
        for (addend, offset) in block.addends.iter().zip(pixel.addends) {
            if let Some(addend) = addend {
                let addend = addend.add(offset as usize + first);
                value = value.add(match left < V::LANES {
                    true => V::load_first(addend, left),
                    false => V::load(addend),
                });
            }
        }
        let store = |value: V, target: *mut f32| match left < V::LANES {
            true => value.store_first(target, left),
            false => value.store(target),
        };
        if let Some(output) = block.output {
            store(value, output.add(pixel.output as usize + first));
        }
        if let Some((activated, slope)) = block.activated {
            let activated = activated.add(pixel.activated as usize + first);
            store(leaky(value, slope), activated);
        }
    }
}

/// Calls the tile of the size of a block and of a number of pixels.
macro_rules! sized {
    ($tile:ident, $block:ident, $pixels:ident) => {
        match ($block.vectors, $pixels.len()) {
            (1, 1) => $tile::<1, 1>($block, $pixels),
            (1, 2) => $tile::<2, 1>($block, $pixels),
            (1, 3) => $tile::<3, 1>($block, $pixels),
            (1, 4) => $tile::<4, 1>($block, $pixels),
            (1, 5) => $tile::<5, 1>($block, $pixels),
            (1, 6) => $tile::<6, 1>($block, $pixels),
            (1, 7) => $tile::<7, 1>($block, $pixels),
            (1, 8) => $tile::<8, 1>($block, $pixels),
            (1, 9) => $tile::<9, 1>($block, $pixels),
            (1, 10) => $tile::<10, 1>($block, $pixels),
            (1, 11) => $tile::<11, 1>($block, $pixels),
            (1, 12) => $tile::<12, 1>($block, $pixels),
            (2, 1) => $tile::<1, 2>($block, $pixels),
            (2, 2) => $tile::<2, 2>($block, $pixels),
            (2, 3) => $tile::<3, 2>($block, $pixels),
            (2, 4) => $tile::<4, 2>($block, $pixels),
            (2, 5) => $tile::<5, 2>($block, $pixels),
            (2, 6) => $tile::<6, 2>($block, $pixels),
            (2, 7) => $tile::<7, 2>($block, $pixels),
            (2, 8) => $tile::<8, 2>($block, $pixels),
            (2, 9) => $tile::<9, 2>($block, $pixels),
            (2, 10) => $tile::<10, 2>($block, $pixels),
            (2, 11) => $tile::<11, 2>($block, $pixels),
            (2, 12) => $tile::<12, 2>($block, $pixels),
            (3, 1) => $tile::<1, 3>($block, $pixels),
            (3, 2) => $tile::<2, 3>($block, $pixels),
            (3, 3) => $tile::<3, 3>($block, $pixels),
            (3, 4) => $tile::<4, 3>($block, $pixels),
            (3, 5) => $tile::<5, 3>($block, $pixels),
            (3, 6) => $tile::<6, 3>($block, $pixels),
            (3, 7) => $tile::<7, 3>($block, $pixels),
            (3, 8) => $tile::<8, 3>($block, $pixels),
            (4, 1) => $tile::<1, 4>($block, $pixels),
            (4, 2) => $tile::<2, 4>($block, $pixels),
            (4, 3) => $tile::<3, 4>($block, $pixels),
            (4, 4) => $tile::<4, 4>($block, $pixels),
            (4, 5) => $tile::<5, 4>($block, $pixels),
            (4, 6) => $tile::<6, 4>($block, $pixels),
            (vectors, pixels) => unreachable!("no tile of {pixels} pixels by {vectors} vectors"),
        }
    };
}

/// Compiles the tiles of all sizes for one set of instructions: `$run` computes all pixels of a block.
macro_rules! instructions {
    ($run:ident, $tile:ident, $vector:ty, $registers:literal $(, $features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        unsafe fn $tile<const P: usize, const Q: usize>(block: &Block, pixels: &[Pixel]) {
            // SAFETY: the caller vouches for the block, and this function has the instructions.
            unsafe { tile::<$vector, P, Q>(block, pixels) }
        }

        /// # Safety
        /// As [`tile`].
        unsafe fn $run(block: &Block, pixels: &Pixels) {
            let mut walk = Walk::new(pixels);
            let mut left = pixels.count();
            let mut tile = [Pixel::default(); MOST_PIXELS];
            while left > 0 {
                let pixels = &mut tile[..left.min(tile_pixels($registers, block.vectors))];
                walk.fill(pixels);
                left -= pixels.len();
                // SAFETY: the caller vouches for the block and the instructions.
                unsafe { sized!($tile, block, pixels) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instructions!(avx512, avx512_tile, __m512, 32, "avx512f");
#[cfg(target_arch = "x86_64")]
instructions!(avx2, avx2_tile, __m256, 16, "avx2,fma");
#[cfg(target_arch = "aarch64")]
instructions!(neon, neon_tile, float32x4_t, 32, "neon");
instructions!(plain, plain_tile, Plain, 16);
