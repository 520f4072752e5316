//! The one convolution of the project: 2-D (a 1-D signal is a plane of height one), strided and dilated per axis,
//! with its padding, bias and LeakyReLU in the same pass, and its transpose.
//!
//! On the CPU a convolution is one accumulating matrix product per kernel tap, on shifted views of a plane that
//! carries its own halo. A stride is handled while the plane is written: rows and columns are sorted by their phase
//! (position modulo stride), after which every tap reads a contiguous run again. Three kernels (`Taps::forward`,
//! `Taps::input_gradient`, `Taps::weight_gradient`) serve the convolution, its transpose, and the gradients of both.
//! On other devices the same result is composed of candle's own operations ([`conv2d_composed`]).

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};

/// What lies beyond the edge of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// Zeros.
    Zero,
    /// The edge value, repeated.
    Replicate,
    /// The mirror image without the edge value itself, as PyTorch's `reflect`.
    Reflect,
}

/// Geometry and fused activations of a convolution. Pairs are (height, width), that is (frequency, time).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dSpec {
    /// Step between neighbouring outputs, in input positions.
    pub stride: (usize, usize),
    /// Step between neighbouring taps, in input positions.
    pub dilation: (usize, usize),
    /// Positions added on either side.
    pub padding: (usize, usize),
    /// What the added positions hold.
    pub pad_mode: PadMode,
    /// Negative slope (above zero) of a LeakyReLU on the input, if there is one.
    pub input_slope: Option<f64>,
    /// Negative slope (above zero) of a LeakyReLU on the output, if there is one.
    pub output_slope: Option<f64>,
}

impl Default for Conv2dSpec {
    fn default() -> Self {
        Self {
            stride: (1, 1),
            dilation: (1, 1),
            padding: (0, 0),
            pad_mode: PadMode::Zero,
            input_slope: None,
            output_slope: None,
        }
    }
}

impl Conv2dSpec {
    /// Checks what holds for the convolution and its transpose alike.
    fn validate(&self, input: &[usize], weight: &[usize]) -> Result<()> {
        if input.len() != 4 || weight.len() != 4 || input.contains(&0) || weight.contains(&0) {
            bail!(
                "convolution expects rank 4 and no empty axis, found input {input:?}, weight {weight:?}"
            );
        }
        let steps = [
            self.stride.0,
            self.stride.1,
            self.dilation.0,
            self.dilation.1,
        ];
        if steps.contains(&0) {
            bail!("convolution expects strides and dilations of at least one, found {self:?}");
        }
        // The backward pass tells from an output's sign which side of the LeakyReLU it was on.
        let slopes = [self.input_slope, self.output_slope];
        if slopes.into_iter().flatten().any(|s| s <= 0.0 || s.is_nan()) {
            bail!("convolution expects LeakyReLU slopes above zero, found {self:?}");
        }
        Ok(())
    }
}

/// Columns that one tile of a product covers: small enough for the tile's sums to stay in the cache.
const TILE_COLUMNS: usize = 512;

/// Convolves `input` (batch, in, height, width) with `weight` (out, in, kernel height, kernel width) and adds `bias`
/// (out). Result: (batch, out, out height, out width).
///
/// # Errors
/// If ranks, channel counts or types disagree, or the padded input is smaller than the kernel.
pub fn conv2d(input: &Tensor, weight: &Tensor, bias: &Tensor, spec: Conv2dSpec) -> Result<Tensor> {
    if !matches!(input.device(), Device::Cpu) {
        return conv2d_composed(input, weight, bias, spec);
    }
    input
        .contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, Conv2d(spec))
}

/// The transpose of [`conv2d`] as PyTorch's `ConvTranspose2d`: `input` (batch, in, height, width), `weight` (in, out,
/// kernel height, kernel width), `bias` (out). `spec.padding` is cut from the result and `spec.pad_mode` must be
/// [`PadMode::Zero`]. An output axis has `(n - 1) * stride - 2 * padding + kernel` positions.
///
/// # Errors
/// If ranks, channel counts or types disagree, if dilation is not one or the padding mode not zero, or if the padding
/// leaves nothing.
pub fn conv_transpose2d(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor> {
    if !matches!(input.device(), Device::Cpu) {
        return conv_transpose2d_composed(input, weight, bias, spec);
    }
    input.contiguous()?.apply_op3(
        &weight.contiguous()?,
        &bias.contiguous()?,
        ConvTranspose2d(spec),
    )
}

/// [`conv2d`] composed of candle's own differentiable operations: what runs on other devices than the CPU.
///
/// Strides are folded into channels first, since candle knows one stride for both axes and is slow on strided
/// gradients.
///
/// # Errors
/// As [`conv2d`]; further if an axis has both a stride and a dilation.
pub fn conv2d_composed(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor> {
    let (batch, channels, height, width) = input.dims4()?;
    let (out, _, kernel_h, kernel_w) = weight.dims4()?;
    let g = Geometry::new(input.dims(), weight.dims(), &spec)?;
    expect_bias(bias.dims(), out)?;
    let (sh, sw) = spec.stride;
    if (sh > 1 && spec.dilation.0 > 1) || (sw > 1 && spec.dilation.1 > 1) {
        bail!("a strided convolution with dilation is not supported on this device: {spec:?}");
    }
    let mut x = leaky(input, spec.input_slope)?;
    for (dim, size, pad) in [(2, height, spec.padding.0), (3, width, spec.padding.1)] {
        x = pad_axis(&x, dim, size, pad, spec.pad_mode)?;
    }
    let mut w = weight.clone();
    if (sh, sw) != (1, 1) {
        let (kh, kw) = (kernel_h.div_ceil(sh), kernel_w.div_ceil(sw));
        let (rows, columns) = (g.out_h + kh - 1, g.out_w + kw - 1);
        x = fit_axis(&fit_axis(&x, 2, rows * sh)?, 3, columns * sw)?
            .reshape(&[batch, channels, rows, sh, columns, sw][..])?
            .permute(vec![0, 1, 3, 5, 2, 4])?
            .reshape((batch, channels * sh * sw, rows, columns))?;
        w = fit_axis(&fit_axis(&w, 2, kh * sh)?, 3, kw * sw)?
            .reshape(&[out, channels, kh, sh, kw, sw][..])?
            .permute(vec![0, 1, 3, 5, 2, 4])?
            .reshape((out, channels * sh * sw, kh, kw))?;
    }
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let y = match spec.dilation {
        (d, e) if d == e || kernel_h == 1 => x.conv2d(&w, 0, 1, e, 1)?,
        (d, _) if kernel_w == 1 => x.conv2d(&w, 0, 1, d, 1)?,
        d => bail!("dilation {d:?} differs per axis, which is not supported on this device"),
    };
    let y = y
        .narrow(2, 0, g.out_h)?
        .narrow(3, 0, g.out_w)?
        .broadcast_add(&bias.reshape((1, out, 1, 1))?)?;
    leaky(&y, spec.output_slope)
}

/// [`conv_transpose2d`] composed of candle's own operations: one unit-stride convolution makes all phases of the
/// result, which are then interleaved.
///
/// # Errors
/// As [`conv_transpose2d`].
pub fn conv_transpose2d_composed(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor> {
    let (batch, channels, height, width) = input.dims4()?;
    let (_, out, kernel_h, kernel_w) = weight.dims4()?;
    let (out_h, out_w) = transposed_size(input.dims(), weight.dims(), &spec)?;
    expect_bias(bias.dims(), out)?;
    let (sh, sw) = spec.stride;
    let (kh, kw) = (kernel_h.div_ceil(sh), kernel_w.div_ceil(sw));
    let flip =
        |n: usize| Tensor::from_vec((0..n as u32).rev().collect::<Vec<_>>(), n, weight.device());
    let w = fit_axis(&fit_axis(weight, 2, kh * sh)?, 3, kw * sw)?
        .reshape(&[channels, out, kh, sh, kw, sw][..])?
        .permute(vec![1, 3, 5, 0, 2, 4])?
        .reshape((out * sh * sw, channels, kh, kw))?
        .index_select(&flip(kh)?, 2)?
        .index_select(&flip(kw)?, 3)?;
    let x = leaky(input, spec.input_slope)?
        .pad_with_zeros(2, kh - 1, kh - 1)?
        .pad_with_zeros(3, kw - 1, kw - 1)?;
    let (rows, columns) = (height + kh - 1, width + kw - 1);
    let y = x
        .contiguous()?
        .conv2d(&w.contiguous()?, 0, 1, 1, 1)?
        .reshape(&[batch, out, sh, sw, rows, columns][..])?
        .permute(vec![0, 1, 4, 2, 5, 3])?
        .reshape((batch, out, rows * sh, columns * sw))?
        .narrow(2, spec.padding.0, out_h)?
        .narrow(3, spec.padding.1, out_w)?
        .broadcast_add(&bias.reshape((1, out, 1, 1))?)?;
    leaky(&y, spec.output_slope)
}

fn leaky(x: &Tensor, slope: Option<f64>) -> Result<Tensor> {
    match slope {
        Some(slope) => candle_nn::ops::leaky_relu(x, slope),
        None => Ok(x.clone()),
    }
}

fn pad_axis(x: &Tensor, dim: usize, size: usize, pad: usize, mode: PadMode) -> Result<Tensor> {
    if pad == 0 {
        return Ok(x.clone());
    }
    if mode == PadMode::Zero {
        return x.pad_with_zeros(dim, pad, pad);
    }
    let index = (0..size + 2 * pad)
        .map(|i| source_index(i as isize - pad as isize, size, mode).unwrap_or(0) as u32)
        .collect::<Vec<_>>();
    x.index_select(&Tensor::new(index, x.device())?, dim)
}

/// Cuts or zero-extends the end of an axis.
fn fit_axis(x: &Tensor, dim: usize, size: usize) -> Result<Tensor> {
    let have = x.dim(dim)?;
    if have >= size {
        x.narrow(dim, 0, size)
    } else {
        x.pad_with_zeros(dim, 0, size - have)
    }
}

/// Where padded position `i` (0 = first real one) takes its value from; `None` is zero.
fn source_index(i: isize, size: usize, mode: PadMode) -> Option<usize> {
    let n = size as isize;
    if (0..n).contains(&i) {
        return Some(i as usize);
    }
    match mode {
        PadMode::Zero => None,
        PadMode::Replicate => Some(i.clamp(0, n - 1) as usize),
        PadMode::Reflect => Some(if i < 0 { -i } else { 2 * n - 2 - i } as usize),
    }
}

fn transposed_size(input: &[usize], weight: &[usize], spec: &Conv2dSpec) -> Result<(usize, usize)> {
    spec.validate(input, weight)?;
    if spec.dilation != (1, 1) || spec.pad_mode != PadMode::Zero {
        bail!("transposed convolution expects dilation (1, 1) and zero padding, found {spec:?}");
    }
    let (channels, height, width) = (input[1], input[2], input[3]);
    let (w_in, kh, kw) = (weight[0], weight[2], weight[3]);
    if channels != w_in {
        bail!("transposed convolution expects {w_in} input channels, found {channels}");
    }
    let axis = |n: usize, k: usize, s: usize, p: usize| ((n - 1) * s + k).checked_sub(2 * p);
    match (
        axis(height, kh, spec.stride.0, spec.padding.0),
        axis(width, kw, spec.stride.1, spec.padding.1),
    ) {
        (Some(h), Some(w)) if h > 0 && w > 0 => Ok((h, w)),
        _ => bail!("transposed convolution of {input:?} with {weight:?}: {spec:?} leaves nothing"),
    }
}

/// Sizes of one convolution and of the phase-sorted plane that its taps read.
#[derive(Clone, Debug)]
struct Geometry {
    batch: usize,
    in_channels: usize,
    out_channels: usize,
    height: usize,
    width: usize,
    out_h: usize,
    out_w: usize,
    kernel: (usize, usize),
    spec: Conv2dSpec,
    /// Rows and columns of one phase of the padded plane.
    phase: (usize, usize),
}

impl Geometry {
    fn new(input: &[usize], weight: &[usize], spec: &Conv2dSpec) -> Result<Self> {
        spec.validate(input, weight)?;
        let (batch, in_channels, height, width) = (input[0], input[1], input[2], input[3]);
        let (out_channels, w_in, kh, kw) = (weight[0], weight[1], weight[2], weight[3]);
        if in_channels != w_in {
            bail!("convolution expects {w_in} input channels, found {in_channels}");
        }
        let reflects = |size: usize, pad: usize| spec.pad_mode != PadMode::Reflect || pad < size;
        if !reflects(height, spec.padding.0) || !reflects(width, spec.padding.1) {
            bail!("cannot reflect {input:?} by {:?}", spec.padding);
        }
        let axis = |n: usize, k: usize, s: usize, d: usize, p: usize| {
            let reach = d * (k - 1) + 1;
            (n + 2 * p >= reach).then(|| ((n + 2 * p - reach) / s + 1, (n + 2 * p).div_ceil(s)))
        };
        let rows = axis(height, kh, spec.stride.0, spec.dilation.0, spec.padding.0);
        let columns = axis(width, kw, spec.stride.1, spec.dilation.1, spec.padding.1);
        let (Some((out_h, phase_h)), Some((out_w, phase_w))) = (rows, columns) else {
            bail!("input {input:?} is smaller than the kernel of {weight:?} with {spec:?}");
        };
        Ok(Self {
            batch,
            in_channels,
            out_channels,
            height,
            width,
            out_h,
            out_w,
            kernel: (kh, kw),
            spec: *spec,
            phase: (phase_h, phase_w),
        })
    }

    fn out_dims(&self) -> (usize, usize, usize, usize) {
        (self.batch, self.out_channels, self.out_h, self.out_w)
    }

    fn in_dims(&self) -> (usize, usize, usize, usize) {
        (self.batch, self.in_channels, self.height, self.width)
    }

    /// Values of one channel of the padded plane.
    fn plane_len(&self) -> usize {
        self.spec.stride.0 * self.spec.stride.1 * self.phase.0 * self.phase.1
    }

    /// Output columns when the output keeps the row pitch of the plane, so that every tap is one offset.
    fn wide_len(&self) -> usize {
        (self.out_h - 1) * self.phase.1 + self.out_w
    }

    /// Where position (row, column) of the padded input lies in a channel of the plane.
    fn plane_offset(&self, row: usize, column: usize) -> usize {
        let (sh, sw) = self.spec.stride;
        let phase = (row % sh) * sw + column % sw;
        (phase * self.phase.0 + row / sh) * self.phase.1 + column / sw
    }

    fn tap_offset(&self, tap: usize) -> usize {
        let (row, column) = (tap / self.kernel.1, tap % self.kernel.1);
        self.plane_offset(row * self.spec.dilation.0, column * self.spec.dilation.1)
    }

    fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// Calls `visit(input row or none, plane row)` for every padded row.
    fn for_rows(&self, mut visit: impl FnMut(Option<usize>, usize)) {
        let pad = self.spec.padding.0;
        for row in 0..self.height + 2 * pad {
            let source = source_index(row as isize - pad as isize, self.height, self.spec.pad_mode);
            visit(source, row);
        }
    }

    /// For every padded column: the input column it copies (or none) and its offset within a plane row group.
    fn columns(&self) -> Vec<(Option<usize>, usize)> {
        let pad = self.spec.padding.1;
        (0..self.width + 2 * pad)
            .map(|column| {
                let source = source_index(
                    column as isize - pad as isize,
                    self.width,
                    self.spec.pad_mode,
                );
                (source, self.plane_offset(0, column))
            })
            .collect()
    }
}

/// A float that the kernels compute with.
trait Real: WithDType + std::ops::AddAssign + std::ops::MulAssign {}
impl Real for f32 {}
impl Real for f64 {}

/// A matrix inside a slice: element (r, c) is at `offset + r * row_stride + c * column_stride`.
#[derive(Clone, Copy)]
struct View {
    offset: usize,
    row_stride: usize,
    column_stride: usize,
}

impl View {
    fn last(&self, rows: usize, columns: usize) -> usize {
        self.offset + (rows - 1) * self.row_stride + (columns - 1) * self.column_stride
    }
}

/// `dst = lhs * rhs`, or `dst += lhs * rhs`, for (m, k) by (k, n).
#[allow(clippy::too_many_arguments)]
fn matmul<T: Real>(
    (m, n, k): (usize, usize, usize),
    accumulate: bool,
    dst: &mut [T],
    dst_view: View,
    lhs: &[T],
    lhs_view: View,
    rhs: &[T],
    rhs_view: View,
) {
    assert!(dst_view.last(m, n) < dst.len());
    assert!(lhs_view.last(m, k) < lhs.len());
    assert!(rhs_view.last(k, n) < rhs.len());
    // SAFETY: the three assertions above bound every element that the views reach, and `dst` is borrowed
    // exclusively, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr().add(dst_view.offset),
            dst_view.column_stride as isize,
            dst_view.row_stride as isize,
            accumulate,
            lhs.as_ptr().add(lhs_view.offset),
            lhs_view.column_stride as isize,
            lhs_view.row_stride as isize,
            rhs.as_ptr().add(rhs_view.offset),
            rhs_view.column_stride as isize,
            rhs_view.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The kernels of one convolution geometry, on contiguous slices.
struct Taps<'a>(&'a Geometry);

impl Taps<'_> {
    /// Weight as (tap, out, in), so that each tap is one dense matrix.
    fn sort_weight<T: Real>(&self, weight: &[T]) -> Vec<T> {
        let (taps, matrix) = (self.0.taps(), self.0.out_channels * self.0.in_channels);
        let mut sorted = vec![T::zero(); weight.len()];
        for (i, values) in weight.chunks_exact(taps).enumerate() {
            for (tap, &value) in values.iter().enumerate() {
                sorted[tap * matrix + i] = value;
            }
        }
        sorted
    }

    fn tap_view(&self, tap: usize) -> View {
        View {
            offset: tap * self.0.out_channels * self.0.in_channels,
            row_stride: self.0.in_channels,
            column_stride: 1,
        }
    }

    /// Writes one batch element (in, height, width) into its plane (in, plane), activated and padded.
    fn fill_plane<T: Real>(&self, input: &[T], plane: &mut [T]) {
        let g = self.0;
        let slope = g.spec.input_slope.map(T::from_f64);
        let columns = g.columns();
        let contiguous = g.spec.stride.1 == 1;
        let pad = g.spec.padding.1;
        for (x, p) in input
            .chunks_exact(g.height * g.width)
            .zip(plane.chunks_exact_mut(g.plane_len()))
        {
            g.for_rows(|source, row| {
                let base = g.plane_offset(row, 0);
                let Some(source) = source else {
                    for &(_, offset) in &columns {
                        p[base + offset] = T::zero();
                    }
                    return;
                };
                let x = &x[source * g.width..][..g.width];
                let edges = if contiguous {
                    p[base + pad..][..g.width].copy_from_slice(x);
                    [&columns[..pad], &columns[pad + g.width..]]
                } else {
                    [&columns[..], &[]]
                };
                for &(column, offset) in edges.into_iter().flatten() {
                    p[base + offset] = column.map_or(T::zero(), |c| x[c]);
                }
            });
            if let Some(slope) = slope {
                p.iter_mut().for_each(|v| {
                    if *v < T::zero() {
                        *v *= slope;
                    }
                });
            }
        }
    }

    /// Adds a gradient plane (in, plane) back onto one batch element (in, height, width): the transpose of
    /// [`Self::fill_plane`] without its activation.
    fn fold_plane<T: Real>(&self, plane: &[T], input: &mut [T]) {
        let g = self.0;
        let columns = g.columns();
        for (p, x) in plane
            .chunks_exact(g.plane_len())
            .zip(input.chunks_exact_mut(g.height * g.width))
        {
            g.for_rows(|source, row| {
                let Some(source) = source else { return };
                let base = g.plane_offset(row, 0);
                let x = &mut x[source * g.width..][..g.width];
                for &(column, offset) in &columns {
                    if let Some(column) = column {
                        x[column] += p[base + offset];
                    }
                }
            });
        }
    }

    /// One batch element (out, out_h, out_w) spread to the row pitch of the plane; the gap columns stay zero.
    fn widen<T: Real>(&self, compact: &[T], wide: &mut [T]) {
        let g = self.0;
        let rows = compact.chunks_exact(g.out_h * g.out_w);
        for (y, wide) in rows.zip(wide.chunks_exact_mut(g.wide_len())) {
            for (row, y) in y.chunks_exact(g.out_w).enumerate() {
                wide[row * g.phase.1..][..g.out_w].copy_from_slice(y);
            }
        }
    }

    /// (batch, in, height, width) to (batch, out, out_h, out_w), with bias and activation.
    fn forward<T: Real>(&self, input: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let g = self.0;
        let weight = self.sort_weight(weight);
        let mut output = vec![T::zero(); g.batch * g.out_channels * g.out_h * g.out_w];
        let mut plane = vec![T::zero(); g.in_channels * g.plane_len()];
        let mut sums = vec![T::zero(); g.out_channels * TILE_COLUMNS];
        let slope = g.spec.output_slope.map(T::from_f64);
        for (x, y) in input
            .chunks_exact(g.in_channels * g.height * g.width)
            .zip(output.chunks_exact_mut(g.out_channels * g.out_h * g.out_w))
        {
            self.fill_plane(x, &mut plane);
            for start in (0..g.wide_len()).step_by(TILE_COLUMNS) {
                let columns = TILE_COLUMNS.min(g.wide_len() - start);
                let sums_view = View {
                    offset: 0,
                    row_stride: TILE_COLUMNS,
                    column_stride: 1,
                };
                for tap in 0..g.taps() {
                    matmul(
                        (g.out_channels, columns, g.in_channels),
                        tap > 0,
                        &mut sums,
                        sums_view,
                        &weight,
                        self.tap_view(tap),
                        &plane,
                        View {
                            offset: start + g.tap_offset(tap),
                            row_stride: g.plane_len(),
                            column_stride: 1,
                        },
                    );
                }
                let first_row = start / g.phase.1;
                let last_row = (start + columns - 1) / g.phase.1;
                for (channel, sums) in sums.chunks_exact(TILE_COLUMNS).enumerate() {
                    let y = &mut y[channel * g.out_h * g.out_w..][..g.out_h * g.out_w];
                    for row in first_row..=last_row {
                        let from = start.max(row * g.phase.1);
                        let to = (start + columns).min(row * g.phase.1 + g.out_w);
                        if from >= to {
                            continue;
                        }
                        let y = &mut y[row * g.out_w + from - row * g.phase.1..][..to - from];
                        for (y, &sum) in y.iter_mut().zip(&sums[from - start..to - start]) {
                            let value = sum + bias[channel];
                            *y = match slope {
                                Some(slope) if value < T::zero() => value * slope,
                                _ => value,
                            };
                        }
                    }
                }
            }
        }
        output
    }

    /// Gradient of the (activated, padded, then unpadded) input: (batch, out, out_h, out_w) to (batch, in, height,
    /// width). The input activation is not part of it.
    fn input_gradient<T: Real>(&self, gradient: &[T], weight: &[T]) -> Vec<T> {
        let g = self.0;
        let weight = self.sort_weight(weight);
        let mut result = vec![T::zero(); g.batch * g.in_channels * g.height * g.width];
        let mut plane = vec![T::zero(); g.in_channels * g.plane_len()];
        let mut wide = vec![T::zero(); g.out_channels * g.wide_len()];
        for (dy, dx) in gradient
            .chunks_exact(g.out_channels * g.out_h * g.out_w)
            .zip(result.chunks_exact_mut(g.in_channels * g.height * g.width))
        {
            self.widen(dy, &mut wide);
            plane.fill(T::zero());
            for start in (0..g.wide_len()).step_by(TILE_COLUMNS) {
                let columns = TILE_COLUMNS.min(g.wide_len() - start);
                for tap in 0..g.taps() {
                    let weight_view = self.tap_view(tap);
                    matmul(
                        (g.in_channels, columns, g.out_channels),
                        true,
                        &mut plane,
                        View {
                            offset: start + g.tap_offset(tap),
                            row_stride: g.plane_len(),
                            column_stride: 1,
                        },
                        &weight,
                        View {
                            row_stride: weight_view.column_stride,
                            column_stride: weight_view.row_stride,
                            ..weight_view
                        },
                        &wide,
                        View {
                            offset: start,
                            row_stride: g.wide_len(),
                            column_stride: 1,
                        },
                    );
                }
            }
            self.fold_plane(&plane, dx);
        }
        result
    }

    /// Gradient of the weight (out, in, kernel height, kernel width), summed over the batch.
    fn weight_gradient<T: Real>(&self, input: &[T], gradient: &[T]) -> Vec<T> {
        let g = self.0;
        let matrix = g.out_channels * g.in_channels;
        let mut sorted = vec![T::zero(); matrix * g.taps()];
        let mut plane = vec![T::zero(); g.in_channels * g.plane_len()];
        let mut wide = vec![T::zero(); g.out_channels * g.wide_len()];
        for (x, dy) in input
            .chunks_exact(g.in_channels * g.height * g.width)
            .zip(gradient.chunks_exact(g.out_channels * g.out_h * g.out_w))
        {
            self.fill_plane(x, &mut plane);
            self.widen(dy, &mut wide);
            for start in (0..g.wide_len()).step_by(TILE_COLUMNS) {
                let columns = TILE_COLUMNS.min(g.wide_len() - start);
                for tap in 0..g.taps() {
                    matmul(
                        (g.out_channels, g.in_channels, columns),
                        true,
                        &mut sorted,
                        self.tap_view(tap),
                        &wide,
                        View {
                            offset: start,
                            row_stride: g.wide_len(),
                            column_stride: 1,
                        },
                        &plane,
                        View {
                            offset: start + g.tap_offset(tap),
                            row_stride: 1,
                            column_stride: g.plane_len(),
                        },
                    );
                }
            }
        }
        let mut weight = vec![T::zero(); sorted.len()];
        for (tap, matrix) in sorted.chunks_exact(matrix).enumerate() {
            for (i, &value) in matrix.iter().enumerate() {
                weight[i * g.taps() + tap] = value;
            }
        }
        weight
    }
}

/// Multiplies a gradient by the slope of a LeakyReLU wherever `sign_source` is negative.
fn through_leaky<T: Real>(gradient: &mut [T], sign_source: &[T], slope: Option<f64>) {
    let Some(slope) = slope.map(T::from_f64) else {
        return;
    };
    for (g, &s) in gradient.iter_mut().zip(sign_source) {
        if s < T::zero() {
            *g *= slope;
        }
    }
}

/// Sum over batch and positions of each channel of (batch, channels, positions).
fn channel_sums<T: Real>(values: &[T], channels: usize, positions: usize) -> Vec<T> {
    let mut sums = vec![T::zero(); channels];
    for (i, values) in values.chunks_exact(positions).enumerate() {
        sums[i % channels] += values.iter().fold(T::zero(), |sum, &v| sum + v);
    }
    sums
}

fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("convolution expects contiguous operands, found {layout:?}");
    };
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// The values of a CPU tensor, made contiguous.
fn values<T: WithDType>(tensor: &Tensor) -> Result<Vec<T>> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(slice::<T>(storage, layout)?.to_vec()),
        _ => bail!("convolution gradient expects a tensor on the CPU"),
    }
}

/// Runs `$body` with `$t` as the Rust type of `$dtype`.
macro_rules! with_real {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $t = f32;
                $body
            }
            DType::F64 => {
                type $t = f64;
                $body
            }
            dtype => bail!("convolution expects f32 or f64, found {dtype:?}"),
        }
    };
}

type Gradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

struct Conv2d(Conv2dSpec);

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = Geometry::new(input_layout.dims(), weight_layout.dims(), &self.0)?;
        expect_bias(bias_layout.dims(), g.out_channels)?;
        let output = with_real!(input.dtype(), T => T::to_cpu_storage_owned(Taps(&g).forward::<T>(
            slice(input, input_layout)?,
            slice(weight, weight_layout)?,
            slice(bias, bias_layout)?,
        )));
        Ok((output, g.out_dims().into()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<Gradients> {
        let g = Geometry::new(input.dims(), weight.dims(), &self.0)?;
        let taps = Taps(&g);
        with_real!(input.dtype(), T => {
            let x = values::<T>(input)?;
            let mut dy = values::<T>(gradient)?;
            if self.0.output_slope.is_some() {
                through_leaky(&mut dy, &values::<T>(output)?, self.0.output_slope);
            }
            let mut dx = taps.input_gradient(&dy, &values::<T>(weight)?);
            through_leaky(&mut dx, &x, self.0.input_slope);
            let dw = taps.weight_gradient(&x, &dy);
            let db = channel_sums(&dy, g.out_channels, g.out_h * g.out_w);
            Ok((
                Some(Tensor::from_vec(dx, g.in_dims(), input.device())?),
                Some(Tensor::from_vec(dw, weight.dims(), input.device())?),
                Some(Tensor::from_vec(db, g.out_channels, input.device())?),
            ))
        })
    }
}

struct ConvTranspose2d(Conv2dSpec);

impl ConvTranspose2d {
    /// The convolution whose transpose this is: from this operation's output to its input.
    fn geometry(&self, input: &[usize], weight: &[usize]) -> Result<Geometry> {
        let (out_h, out_w) = transposed_size(input, weight, &self.0)?;
        let spec = Conv2dSpec {
            input_slope: None,
            output_slope: None,
            ..self.0
        };
        Geometry::new(&[input[0], weight[1], out_h, out_w], weight, &spec)
    }
}

impl CustomOp3 for ConvTranspose2d {
    fn name(&self) -> &'static str {
        "conv-transpose2d"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = self.geometry(input_layout.dims(), weight_layout.dims())?;
        expect_bias(bias_layout.dims(), g.in_channels)?;
        let output = with_real!(input.dtype(), T => {
            let mut x = slice::<T>(input, input_layout)?.to_vec();
            if let Some(slope) = self.0.input_slope.map(T::from_f64) {
                x.iter_mut().filter(|v| **v < 0.0).for_each(|v| *v *= slope);
            }
            let mut y = Taps(&g).input_gradient(&x, slice(weight, weight_layout)?);
            let slope = self.0.output_slope.map(T::from_f64);
            let bias = slice::<T>(bias, bias_layout)?;
            for (i, y) in y.chunks_exact_mut(g.height * g.width).enumerate() {
                for y in y {
                    *y += bias[i % bias.len()];
                    if let Some(slope) = slope && *y < 0.0 {
                        *y *= slope;
                    }
                }
            }
            T::to_cpu_storage_owned(y)
        });
        Ok((output, g.in_dims().into()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<Gradients> {
        let g = self.geometry(input.dims(), weight.dims())?;
        let taps = Taps(&g);
        with_real!(input.dtype(), T => {
            let x = values::<T>(input)?;
            let mut activated = x.clone();
            through_leaky(&mut activated, &x, self.0.input_slope);
            let mut dy = values::<T>(gradient)?;
            if self.0.output_slope.is_some() {
                through_leaky(&mut dy, &values::<T>(output)?, self.0.output_slope);
            }
            let no_bias = vec![T::default(); g.out_channels];
            let mut dx = taps.forward(&dy, &values::<T>(weight)?, &no_bias);
            through_leaky(&mut dx, &x, self.0.input_slope);
            let dw = taps.weight_gradient(&dy, &activated);
            let db = channel_sums(&dy, g.in_channels, g.height * g.width);
            Ok((
                Some(Tensor::from_vec(dx, input.dims(), input.device())?),
                Some(Tensor::from_vec(dw, weight.dims(), input.device())?),
                Some(Tensor::from_vec(db, g.in_channels, input.device())?),
            ))
        })
    }
}

fn expect_bias(bias: &[usize], channels: usize) -> Result<()> {
    if bias != [channels] {
        bail!("convolution expects a bias of [{channels}], found {bias:?}");
    }
    Ok(())
}
