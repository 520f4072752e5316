//! The convolutions composed of candle's own operations, for devices other than the CPU.
//!
//! As on the CPU, positions are sorted by phase (position modulo stride), after which every tap reads a rectangle of
//! the padded plane. The rectangles of all taps, channel by channel, are stacked into one matrix for the whole batch
//! (im2col), so that each pass is one large matrix product. The backward pass is written out, because candle's own
//! kernels for it are slow on GPUs.
//!
//! Shapes: B batch, I input channels, O output channels, K taps, N = B * output height * output width.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};

use super::geometry::{Geometry, source_index};
use super::{Conv2dSpec, Gradients, PadMode, expect_bias};

/// Largest matrix of stacked taps, in values (256 MB in f32). Larger batches are split.
const MAX_STACKED_VALUES: usize = 1 << 26;

/// [`conv2d`](super::conv2d) on any device.
///
/// # Errors
/// As [`conv2d`](super::conv2d).
pub fn conv2d_composed(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor> {
    let geometry = Geometry::new(input.dims(), weight.dims(), &spec)?;
    expect_bias(bias.dims(), geometry.out_channels)?;
    let taps = Taps(&geometry);
    let output = taps.forward(&taps.plane(&input.detach())?, &weight.detach())?;
    let output = finish(&output, bias, spec.output_slope)?;
    let op = Composed {
        geometry,
        spec,
        transposed: false,
        output,
    };
    op.attach(input, weight, bias)
}

/// [`conv_transpose2d`](super::conv_transpose2d) on any device.
///
/// # Errors
/// As [`conv_transpose2d`](super::conv_transpose2d).
pub fn conv_transpose2d_composed(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor> {
    let geometry = Geometry::transposed(input.dims(), weight.dims(), &spec)?;
    expect_bias(bias.dims(), geometry.in_channels)?;
    let activated = leaky(&input.detach(), spec.input_slope)?;
    let output = Taps(&geometry).transpose(&activated, &weight.detach())?;
    let output = finish(&output, bias, spec.output_slope)?;
    let op = Composed {
        geometry,
        spec,
        transposed: true,
        output,
    };
    op.attach(input, weight, bias)
}

/// Adds a bias (C) to (B, C, H, W) and applies the activation.
fn finish(x: &Tensor, bias: &Tensor, slope: Option<f64>) -> Result<Tensor> {
    let bias = bias.detach().reshape((1, (), 1, 1))?;
    leaky(&x.broadcast_add(&bias)?, slope)
}

/// A computed output, wrapped as an operation with a backward pass.
struct Composed {
    geometry: Geometry,
    /// The caller's spec; the geometry of a transposed convolution has no slopes.
    spec: Conv2dSpec,
    transposed: bool,
    output: Tensor,
}

impl Composed {
    fn attach(self, input: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        if [input, weight, bias].into_iter().any(Tensor::track_op) {
            input.apply_op3(weight, bias, self)
        } else {
            Ok(self.output)
        }
    }
}

impl CustomOp3 for Composed {
    fn name(&self) -> &'static str {
        "composed-convolution"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (storage, layout) = self.output.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("convolution expects all operands on the CPU"),
        }
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (storage, layout) = self.output.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("convolution expects all operands on one GPU"),
        }
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _output: &Tensor,
        gradient: &Tensor,
    ) -> Result<Gradients> {
        let taps = Taps(&self.geometry);
        let (x, w) = (input.detach(), weight.detach());
        let dy = through_leaky(&gradient.detach(), &self.output, self.spec.output_slope)?;
        let db = bias.track_op().then(|| dy.flatten_from(2)?.sum(2)?.sum(0));
        let (dx, dw) = if self.transposed {
            let plane = taps.plane(&dy)?;
            let dx = input.track_op().then(|| taps.forward(&plane, &w));
            let activated = || leaky(&x, self.spec.input_slope);
            let dw = weight
                .track_op()
                .then(|| taps.weight_gradient(&plane, &activated()?));
            (dx, dw)
        } else {
            let dx = input.track_op().then(|| taps.transpose(&dy, &w));
            let dw = weight
                .track_op()
                .then(|| taps.weight_gradient(&taps.plane(&x)?, &dy));
            (dx, dw)
        };
        let dx = dx
            .transpose()?
            .map(|dx| through_leaky(&dx, &x, self.spec.input_slope));
        Ok((dx.transpose()?, dw.transpose()?, db.transpose()?))
    }
}

/// The passes of one convolution geometry, on detached tensors.
struct Taps<'a>(&'a Geometry);

impl Taps<'_> {
    /// (B, I, height, width), activated, padded and sorted by phase: (B, I, rows, row phases, columns, column phases).
    fn plane(&self, x: &Tensor) -> Result<Tensor> {
        let g = self.0;
        let x = leaky(x, g.spec.input_slope)?;
        let x = pad(&x, 2, g.spec.padding.0, g.spec.pad_mode)?;
        let x = pad(&x, 3, g.spec.padding.1, g.spec.pad_mode)?;
        let ((rows, columns), (down, across)) = (g.phase, g.spec.stride);
        x.pad_with_zeros(2, 0, rows * down - x.dim(2)?)?
            .pad_with_zeros(3, 0, columns * across - x.dim(3)?)?
            .reshape(vec![g.batch, g.in_channels, rows, down, columns, across])
    }

    /// Phase (row, column) and shift (row, column) of a tap.
    fn place(&self, tap: usize) -> [(usize, usize); 2] {
        let Conv2dSpec {
            stride: (down, across),
            dilation,
            ..
        } = self.0.spec;
        let (row, column) = (
            tap / self.0.kernel.1 * dilation.0,
            tap % self.0.kernel.1 * dilation.1,
        );
        [(row % down, column % across), (row / down, column / across)]
    }

    /// Starts and lengths of the parts of the batch, if a stack holds `values` per element.
    fn parts(&self, values: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let batch = self.0.batch;
        let part = (MAX_STACKED_VALUES / values).clamp(1, batch);
        (0..batch)
            .step_by(part)
            .map(move |start| (start, part.min(batch - start)))
    }

    /// For each part of a plane, the values that its taps read as a matrix (K * I, N): start, length, matrix.
    fn stacks(&self, plane: &Tensor) -> impl Iterator<Item = Result<(usize, usize, Tensor)>> {
        let g = self.0;
        let values = g.taps() * g.in_channels * g.out_h * g.out_w;
        self.parts(values).map(move |(start, batch)| {
            let plane = plane.narrow(0, start, batch)?.transpose(0, 1)?;
            let reads = (0..g.taps())
                .map(|tap| {
                    let [phase, shift] = self.place(tap);
                    plane
                        .narrow(2, shift.0, g.out_h)?
                        .narrow(3, phase.0, 1)?
                        .narrow(4, shift.1, g.out_w)?
                        .narrow(5, phase.1, 1)?
                        .squeeze(5)?
                        .squeeze(3)
                })
                .collect::<Result<Vec<_>>>()?;
            let matrix = Tensor::cat(&reads, 0)?.reshape((g.taps() * g.in_channels, ()))?;
            Ok((start, batch, matrix))
        })
    }

    /// Multiplies a plane by a weight (O, I, kernel height, kernel width): (B, O, output height, output width).
    fn forward(&self, plane: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let g = self.0;
        let weight = weight
            .permute((0, 2, 3, 1))?
            .reshape((g.out_channels, g.taps() * g.in_channels))?
            .contiguous()?;
        let outputs = self
            .stacks(plane)
            .map(|stack| {
                let (_, batch, matrix) = stack?;
                weight
                    .matmul(&matrix)?
                    .reshape((g.out_channels, batch, g.out_h, g.out_w))?
                    .transpose(0, 1)
            })
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&outputs, 0)?.contiguous()
    }

    /// Gradient of the weight, from the plane and the gradient of the output.
    fn weight_gradient(&self, plane: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let g = self.0;
        let (kernel_h, kernel_w) = g.kernel;
        let mut sum: Option<Tensor> = None;
        for stack in self.stacks(plane) {
            let (start, batch, matrix) = stack?;
            let dy = gradient
                .narrow(0, start, batch)?
                .transpose(0, 1)?
                .reshape((g.out_channels, ()))?
                .contiguous()?;
            let dw = dy.matmul(&matrix.t()?)?;
            sum = Some(match sum {
                Some(sum) => (sum + dw)?,
                None => dw,
            });
        }
        match sum {
            Some(dw) => dw
                .reshape((g.out_channels, kernel_h, kernel_w, g.in_channels))?
                .permute((0, 3, 1, 2))?
                .contiguous(),
            None => bail!("convolution expects a batch of at least one"),
        }
    }

    /// The transpose: (B, O, output height, output width) to (B, I, height, width).
    fn transpose(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let g = self.0;
        let Conv2dSpec {
            stride: (down, across),
            padding,
            pad_mode,
            ..
        } = g.spec;
        let (rows, columns) = g.phase;
        // A plane position gets values from the outputs before it, shifted by the taps.
        let [_, reach] = self.place(g.taps() - 1);
        let x = x
            .pad_with_zeros(2, reach.0, rows - g.out_h)?
            .pad_with_zeros(3, reach.1, columns - g.out_w)?;
        // As (K, O, I).
        let weight =
            weight
                .permute((2, 3, 0, 1))?
                .reshape((g.taps(), g.out_channels, g.in_channels))?;
        let phases = (0..down)
            .flat_map(|row| (0..across).map(move |column| (row, column)))
            .map(|phase| self.transpose_phase(&x, &weight, phase, reach))
            .collect::<Result<Vec<_>>>()?;
        let plane = Tensor::stack(&phases, 4)?
            .reshape(vec![g.batch, g.in_channels, rows, columns, down, across])?
            .permute(vec![0, 1, 2, 4, 3, 5])?
            .reshape((g.batch, g.in_channels, rows * down, columns * across))?;
        let x = unpad(&plane, 2, g.height, padding.0, pad_mode)?;
        unpad(&x, 3, g.width, padding.1, pad_mode)
    }

    /// One phase (B, I, rows, columns) of the plane, from padded outputs and a weight (K, O, I).
    fn transpose_phase(
        &self,
        x: &Tensor,
        weight: &Tensor,
        phase: (usize, usize),
        reach: (usize, usize),
    ) -> Result<Tensor> {
        let g = self.0;
        let (rows, columns) = g.phase;
        let taps: Vec<usize> = (0..g.taps())
            .filter(|&tap| self.place(tap)[0] == phase)
            .collect();
        if taps.is_empty() {
            let shape = (g.batch, g.in_channels, rows, columns);
            return Tensor::zeros(shape, x.dtype(), x.device());
        }
        let weights = taps
            .iter()
            .map(|&tap| weight.get(tap))
            .collect::<Result<Vec<_>>>()?;
        let weights = Tensor::cat(&weights, 0)?.contiguous()?;
        let parts = self
            .parts(taps.len() * g.out_channels * rows * columns)
            .map(|(start, batch)| {
                let x = x.narrow(0, start, batch)?.transpose(0, 1)?;
                let reads = taps
                    .iter()
                    .map(|&tap| {
                        let [_, shift] = self.place(tap);
                        x.narrow(2, reach.0 - shift.0, rows)?
                            .narrow(3, reach.1 - shift.1, columns)
                    })
                    .collect::<Result<Vec<_>>>()?;
                let matrix = Tensor::cat(&reads, 0)?
                    .reshape((taps.len() * g.out_channels, ()))?
                    .contiguous()?;
                weights
                    .t()?
                    .matmul(&matrix)?
                    .reshape((g.in_channels, batch, rows, columns))?
                    .transpose(0, 1)
            })
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&parts, 0)?.contiguous()
    }
}

fn leaky(x: &Tensor, slope: Option<f64>) -> Result<Tensor> {
    through_leaky(x, x, slope)
}

/// Multiplies by the slope of a LeakyReLU wherever `signs` is negative.
fn through_leaky(x: &Tensor, signs: &Tensor, slope: Option<f64>) -> Result<Tensor> {
    match slope {
        Some(slope) => signs.lt(0.0)?.where_cond(&(x * slope)?, x),
        None => Ok(x.clone()),
    }
}

/// Pads both ends of an axis.
fn pad(x: &Tensor, dim: usize, padding: usize, mode: PadMode) -> Result<Tensor> {
    if mode == PadMode::Zero || padding == 0 {
        return x.pad_with_zeros(dim, padding, padding);
    }
    let size = x.dim(dim)?;
    let edge = |positions: std::ops::Range<usize>| {
        positions.filter_map(move |i| source_index(i as isize - padding as isize, size, mode))
    };
    let mut pieces = Vec::with_capacity(2 * padding + 1);
    for source in edge(0..padding) {
        pieces.push(x.narrow(dim, source, 1)?);
    }
    pieces.push(x.clone());
    for source in edge(padding + size..size + 2 * padding) {
        pieces.push(x.narrow(dim, source, 1)?);
    }
    Tensor::cat(&pieces, dim)?.contiguous()
}

/// The transpose of [`pad`]: adds the values in the padding of an axis to the positions that they were copied from, for
/// an axis of `size` positions. Drops values beyond.
fn unpad(x: &Tensor, dim: usize, size: usize, padding: usize, mode: PadMode) -> Result<Tensor> {
    let inner = x.narrow(dim, padding, size)?;
    if mode == PadMode::Zero || padding == 0 {
        return inner.contiguous();
    }
    let sum = inner.force_contiguous()?;
    for edge in (0..padding).chain(padding + size..size + 2 * padding) {
        let source = source_index(edge as isize - padding as isize, size, mode).unwrap_or(0);
        let at = (sum.narrow(dim, source, 1)? + x.narrow(dim, edge, 1)?)?;
        sum.slice_set(&at, dim, source)?;
    }
    Ok(sum)
}
