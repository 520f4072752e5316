//! The 2-D convolution with which all networks are trained (a 1-D signal is a plane of height one), with stride and
//! dilation per axis. Padding, bias and LeakyReLU are fused. Also its transpose.
//!
//! On the CPU, a convolution is one accumulating matrix product per kernel tap, on shifted views of a padded plane. For
//! strides, the rows and columns of the plane are sorted by phase (position modulo stride), so that every tap reads
//! contiguous runs. The same few kernels (`taps`) serve the convolution, its transpose, and the gradients of both. On
//! other devices, the convolution is composed of candle's own operations ([`conv2d_composed`]).

mod composed;
mod geometry;
mod taps;

use std::borrow::Cow;
use std::cell::Cell;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};

pub use composed::{conv_transpose2d_composed, conv2d_composed};
use geometry::Geometry;
use taps::{Taps, Wanted, leaky, sum, through_leaky};

/// Values beyond the edge of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// Zeros.
    Zero,
    /// The edge value, repeated.
    Replicate,
    /// The mirror image without the edge value itself, as in PyTorch's `reflect`.
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
    /// Values of the added positions.
    pub pad_mode: PadMode,
    /// Negative slope (above zero) of a LeakyReLU on the input, if any.
    pub input_slope: Option<f64>,
    /// Negative slope (above zero) of a LeakyReLU on the output, if any.
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
    /// Checks the conditions common to the convolution and its transpose.
    fn validate(&self, input: &[usize], weight: &[usize]) -> Result<()> {
        if input.len() != 4 || weight.len() != 4 || input.contains(&0) || weight.contains(&0) {
            bail!(
                "convolution needs non-empty tensors of rank 4, found input {input:?}, weight {weight:?}"
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
        // The backward pass derives the side of the LeakyReLU from the sign of its output.
        let slopes = [self.input_slope, self.output_slope];
        if slopes.into_iter().flatten().any(|s| s <= 0.0 || s.is_nan()) {
            bail!("convolution expects LeakyReLU slopes above zero, found {self:?}");
        }
        Ok(())
    }
}

thread_local! {
    static AS_ON_A_GPU: Cell<bool> = const { Cell::new(false) };
}

/// Whether convolutions on `device` are composed of candle's own operations: not on the CPU, except within
/// [`as_on_a_gpu`].
#[must_use]
pub fn is_composed(device: &Device) -> bool {
    !matches!(device, Device::Cpu) || AS_ON_A_GPU.get()
}

/// Runs `work` with this thread's convolutions composed as on a GPU. For tests on machines without one.
pub fn as_on_a_gpu<T>(work: impl FnOnce() -> T) -> T {
    let before = AS_ON_A_GPU.replace(true);
    let result = work();
    AS_ON_A_GPU.set(before);
    result
}

/// Runs matrix products, also those of convolutions, without TF32 rounding of their factors on a GPU, whatever the
/// setting of the device.
pub fn exactly<T>(products: impl FnOnce() -> T) -> T {
    use candle_core::cuda::{gemm_reduced_precision_f32, set_gemm_reduced_precision_f32};

    let rounded = gemm_reduced_precision_f32();
    set_gemm_reduced_precision_f32(false);
    let result = products();
    set_gemm_reduced_precision_f32(rounded);
    result
}

/// Convolves `input` (batch, in, height, width) with `weight` (out, in, kernel height, kernel width) and adds `bias`
/// (out). Result: (batch, out, out height, out width).
///
/// # Errors
/// If ranks, channel counts or types disagree, or the padded input is smaller than the kernel.
pub fn conv2d(input: &Tensor, weight: &Tensor, bias: &Tensor, spec: Conv2dSpec) -> Result<Tensor> {
    if is_composed(input.device()) {
        return conv2d_composed(input, weight, bias, spec);
    }
    input
        .contiguous()?
        .apply_op3(weight, &bias.contiguous()?, Conv2d(spec))
}

/// The transpose of [`conv2d`], as in PyTorch's `ConvTranspose2d`: `input` (batch, in, height, width), `weight` (in,
/// out, kernel height, kernel width), `bias` (out). `spec.padding` is cut from the result, and `spec.pad_mode` must be
/// [`PadMode::Zero`]. An output axis has `(n - 1) * stride - 2 * padding + kernel` positions.
///
/// # Errors
/// If ranks, channel counts or types disagree, if the dilation is not one or the padding mode not zero, or if the
/// output would be empty.
pub fn conv_transpose2d(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor> {
    if is_composed(input.device()) {
        return conv_transpose2d_composed(input, weight, bias, spec);
    }
    input
        .contiguous()?
        .apply_op3(weight, &bias.contiguous()?, ConvTranspose2d(spec))
}

type Gradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

/// The values of a contiguous operand.
fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("convolution expects contiguous operands, found {layout:?}");
    };
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// The values of a weight (out, in, kernel height, kernel width) as (tap, out, in), without a copy if they are already
/// stored that way.
fn tap_major<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [T]>> {
    let (out, input, kernel_h, kernel_w) = layout.shape().dims4()?;
    let values = &storage.as_slice::<T>()?[layout.start_offset()..];
    let stride = layout.stride();
    let tap_first = [input, 1, kernel_w * out * input, out * input];
    // The stride of an axis of length one does not matter.
    let in_place = |axis: usize| layout.dims()[axis] == 1 || stride[axis] == tap_first[axis];
    if (0..4).all(in_place) {
        return Ok(Cow::Borrowed(&values[..layout.shape().elem_count()]));
    }
    let mut sorted = Vec::with_capacity(layout.shape().elem_count());
    for tap in 0..kernel_h * kernel_w {
        let tap = tap / kernel_w * stride[2] + tap % kernel_w * stride[3];
        for out in 0..out {
            let row = tap + out * stride[0];
            sorted.extend((0..input).map(|input| values[row + input * stride[1]]));
        }
    }
    Ok(Cow::Owned(sorted))
}

/// The CPU storage of a tensor.
fn cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => bail!("convolution gradient expects tensors on the CPU"),
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
            &tap_major(weight, weight_layout)?,
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
        let gradient = gradient.contiguous()?;
        let (x, x_layout) = input.storage_and_layout();
        let (w, w_layout) = weight.storage_and_layout();
        let (y, y_layout) = output.storage_and_layout();
        let (dy, dy_layout) = gradient.storage_and_layout();
        with_real!(input.dtype(), T => {
            let gradients = Taps(&g).backward::<T>(
                slice(cpu(&x)?, x_layout)?,
                &tap_major(cpu(&w)?, w_layout)?,
                slice(cpu(&y)?, y_layout)?,
                slice(cpu(&dy)?, dy_layout)?,
                &Wanted { input: input.track_op(), weight: weight.track_op() },
            );
            let device = input.device();
            let dx = gradients.input.map(|dx| Tensor::from_vec(dx, g.in_dims(), device));
            let dw = gradients.weight.map(|dw| Tensor::from_vec(dw, weight.dims(), device));
            Ok((
                dx.transpose()?,
                dw.transpose()?,
                Some(Tensor::from_vec(gradients.bias, g.out_channels, device)?),
            ))
        })
    }
}

struct ConvTranspose2d(Conv2dSpec);

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
        let g = Geometry::transposed(input_layout.dims(), weight_layout.dims(), &self.0)?;
        expect_bias(bias_layout.dims(), g.in_channels)?;
        let output = with_real!(input.dtype(), T => {
            let mut output = Taps(&g).transpose::<T>(
                slice(input, input_layout)?,
                &tap_major(weight, weight_layout)?,
                self.0.input_slope.map(T::from_f64),
            );
            let bias = slice::<T>(bias, bias_layout)?;
            for (y, &bias) in output.chunks_exact_mut(g.height * g.width).zip(bias.iter().cycle()) {
                y.iter_mut().for_each(|y| *y += bias);
            }
            leaky(&mut output, self.0.output_slope.map(T::from_f64));
            T::to_cpu_storage_owned(output)
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
        let g = Geometry::transposed(input.dims(), weight.dims(), &self.0)?;
        let gradient = gradient.contiguous()?;
        let (x, x_layout) = input.storage_and_layout();
        let (w, w_layout) = weight.storage_and_layout();
        let (y, y_layout) = output.storage_and_layout();
        let (dy, dy_layout) = gradient.storage_and_layout();
        with_real!(input.dtype(), T => {
            let taps = Taps(&g);
            let [input_slope, output_slope] =
                [self.0.input_slope, self.0.output_slope].map(|slope| slope.map(T::from_f64));
            let x = slice::<T>(cpu(&x)?, x_layout)?;
            let mut activated = x.to_vec();
            leaky(&mut activated, input_slope);
            let mut dy = slice::<T>(cpu(&dy)?, dy_layout)?.to_vec();
            through_leaky(&mut dy, slice(cpu(&y)?, y_layout)?, output_slope);

            let no_bias = vec![T::default(); g.out_channels];
            let mut dx = taps.forward(&dy, &tap_major(cpu(&w)?, w_layout)?, &no_bias);
            through_leaky(&mut dx, x, input_slope);
            let dw = taps.weight_gradient(&dy, &activated);
            let mut db = vec![T::default(); g.in_channels];
            for (i, dy) in dy.chunks_exact(g.height * g.width).enumerate() {
                db[i % g.in_channels] += sum(dy);
            }
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
