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

use super::simd::{Isa, Kind, Plain, Vector};

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

/// Where the values of one output pixel are, as offsets into the slices of a [`Job`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pixel {
    pub(super) input: u32,
    pub(super) output: u32,
    pub(super) activated: u32,
    pub(super) addends: [u32; 2],
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
    pub(super) pixels: &'a [Pixel],
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
    slope: Option<f32>,
    addends: [Option<*const f32>; 2],
    output: Option<*mut f32>,
    activated: Option<(*mut f32, f32)>,
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
        let registers = isa.registers();
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
                slope: self.slope,
                addends: self.addends.map(|addend| addend.map(<[f32]>::as_ptr)),
                output,
                activated,
                first,
                left: packed.outputs - first,
            };
            for pixels in self.pixels.chunks(tile_pixels(registers, vectors)) {
                // SAFETY: `check_bounds` found all values of all pixels inside their slices; weights and bias of a block
                // are as long as its whole vectors; the processor has the instructions, as `Isa` promises.
                unsafe {
                    match isa.0 {
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx512 => avx512(&block, pixels, vectors),
                        #[cfg(target_arch = "x86_64")]
                        Kind::Avx2 => avx2(&block, pixels, vectors),
                        #[cfg(target_arch = "aarch64")]
                        Kind::Neon => neon(&block, pixels, vectors),
                        Kind::Plain => plain(&block, pixels, vectors),
                    }
                }
            }
        }
    }

    /// Asserts that all pixels lie inside the slices.
    fn check_bounds(&self) {
        let mut last = Pixel::default();
        for pixel in self.pixels {
            last.input = last.input.max(pixel.input);
            last.output = last.output.max(pixel.output);
            last.activated = last.activated.max(pixel.activated);
            for (last, addend) in last.addends.iter_mut().zip(pixel.addends) {
                *last = (*last).max(addend);
            }
        }
        let outputs = self.packed.outputs;
        assert!(last.input as usize + self.segments.span() <= self.input.len());
        if let Some(output) = &self.output {
            assert!(last.output as usize + outputs <= output.len());
        }
        if let Some((activated, _)) = &self.activated {
            assert!(last.activated as usize + outputs <= activated.len());
        }
        for (addend, last) in self.addends.iter().zip(last.addends) {
            if let Some(addend) = addend {
                assert!(last as usize + outputs <= addend.len());
            }
        }
    }
}

/// Computes a tile: `P` pixels, `Q` vectors of outputs.
///
/// # Safety
/// All pixels must be inside the slices of the block, and the processor must have the instructions of `V`.
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
        finish_tile(block, pixels, stored.as_flattened());
    }
}

/// Activates and stores the sums of a tile, pixel by pixel.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn finish_tile<V: Vector>(block: &Block, pixels: &[Pixel], sums: &[V]) {
    let vectors = sums.len() / pixels.len();
    for (pixel, sums) in pixels.iter().zip(sums.chunks_exact(vectors)) {
        for (q, &sum) in sums.iter().enumerate() {
            let first = q * V::LANES;
            let lanes = V::LANES.min(block.left - first);
            // SAFETY: the caller vouches for the pixels.
            unsafe { finish(block, pixel, block.first + first, lanes, sum) };
        }
    }
}

/// Activates and stores the first `lanes` sums of a pixel, from output channel `first`.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn finish<V: Vector>(block: &Block, pixel: &Pixel, first: usize, lanes: usize, sum: V) {
    // SAFETY: the caller vouches for all of this function's reads and writes.
    unsafe {
        let leaky = |x: V, slope: f32| x.mul(V::splat(slope)).max(x);
        let mut value = match block.slope {
            Some(slope) => leaky(sum, slope),
            None => sum,
        };
        for (addend, offset) in block.addends.iter().zip(pixel.addends) {
            if let Some(addend) = addend {
                value = value.add(load::<V>(addend.add(offset as usize + first), lanes));
            }
        }
        if let Some(output) = block.output {
            store(value, output.add(pixel.output as usize + first), lanes);
        }
        if let Some((activated, slope)) = block.activated {
            let activated = activated.add(pixel.activated as usize + first);
            store(leaky(value, slope), activated, lanes);
        }
    }
}

/// Loads `lanes` values; the other lanes are zero.
///
/// # Safety
/// The values must be readable.
#[inline(always)]
unsafe fn load<V: Vector>(values: *const f32, lanes: usize) -> V {
    // SAFETY: the caller vouches for `lanes` values; no vector has more than 16.
    unsafe {
        if lanes == V::LANES {
            return V::load(values);
        }
        let mut whole = [0.0; 16];
        values.copy_to_nonoverlapping(whole.as_mut_ptr(), lanes);
        V::load(whole.as_ptr())
    }
}

/// Stores the first `lanes` values.
///
/// # Safety
/// The values must be writable.
#[inline(always)]
unsafe fn store<V: Vector>(vector: V, values: *mut f32, lanes: usize) {
    // SAFETY: the caller vouches for `lanes` values; no vector has more than 16.
    unsafe {
        if lanes == V::LANES {
            return vector.store(values);
        }
        let mut whole = [0.0; 16];
        vector.store(whole.as_mut_ptr());
        values.copy_from_nonoverlapping(whole.as_ptr(), lanes);
    }
}

/// Compiles the tiles of all sizes for one set of instructions: `$run` computes a tile of `pixels.len()` pixels and
/// `vectors` vectors.
macro_rules! instructions {
    ($run:ident, $tile:ident, $vector:ty, $registers:literal $(, $features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        unsafe fn $tile<const P: usize, const Q: usize>(block: &Block, pixels: &[Pixel]) {
            // SAFETY: the caller vouches for the block, and this function has the instructions.
            unsafe { tile::<$vector, P, Q>(block, pixels) }
        }

        /// # Safety
        /// As [`tile`].
        unsafe fn $run(block: &Block, pixels: &[Pixel], vectors: usize) {
            macro_rules! sizes {
                ($q:literal: $p:literal) => {
                    // SAFETY: the caller vouches for the block and the instructions.
                    unsafe { $tile::<$p, $q>(block, pixels) }
                };
            }
            match (vectors, pixels.len()) {
                (1, 1) => sizes!(1: 1),
                (1, 2) => sizes!(1: 2),
                (1, 3) => sizes!(1: 3),
                (1, 4) => sizes!(1: 4),
                (1, 5) => sizes!(1: 5),
                (1, 6) => sizes!(1: 6),
                (1, 7) => sizes!(1: 7),
                (1, 8) => sizes!(1: 8),
                (1, 9) => sizes!(1: 9),
                (1, 10) => sizes!(1: 10),
                (1, 11) => sizes!(1: 11),
                (1, 12) => sizes!(1: 12),
                (2, 1) => sizes!(2: 1),
                (2, 2) => sizes!(2: 2),
                (2, 3) => sizes!(2: 3),
                (2, 4) => sizes!(2: 4),
                (2, 5) => sizes!(2: 5),
                (2, 6) => sizes!(2: 6),
                (2, 7) => sizes!(2: 7),
                (2, 8) => sizes!(2: 8),
                (2, 9) => sizes!(2: 9),
                (2, 10) => sizes!(2: 10),
                (2, 11) => sizes!(2: 11),
                (2, 12) => sizes!(2: 12),
                (3, 1) => sizes!(3: 1),
                (3, 2) => sizes!(3: 2),
                (3, 3) => sizes!(3: 3),
                (3, 4) => sizes!(3: 4),
                (3, 5) => sizes!(3: 5),
                (3, 6) => sizes!(3: 6),
                (3, 7) => sizes!(3: 7),
                (3, 8) => sizes!(3: 8),
                (4, 1) => sizes!(4: 1),
                (4, 2) => sizes!(4: 2),
                (4, 3) => sizes!(4: 3),
                (4, 4) => sizes!(4: 4),
                (4, 5) => sizes!(4: 5),
                (4, 6) => sizes!(4: 6),
                (vectors, pixels) => unreachable!("no tile of {pixels} pixels by {vectors} vectors"),
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
