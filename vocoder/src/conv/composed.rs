//! The convolutions composed of candle's own differentiable operations.

use candle_core::{Result, Tensor, bail};

use super::geometry::{Geometry, source_index, transposed_size};
use super::{Conv2dSpec, PadMode, expect_bias};

/// [`conv2d`](super::conv2d) composed of candle's own differentiable operations: what runs on other devices than the CPU.
///
/// Strides are folded into channels first, since candle knows one stride for both axes and is slow on strided
/// gradients.
///
/// # Errors
/// As [`conv2d`](super::conv2d); further if an axis has both a stride and a dilation.
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

/// [`conv_transpose2d`](super::conv_transpose2d) composed of candle's own operations: one unit-stride convolution makes all phases of the
/// result, which are then interleaved.
///
/// # Errors
/// As [`conv_transpose2d`](super::conv_transpose2d).
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
