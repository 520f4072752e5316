//! Sizes of a convolution, and the plane that its taps read.

use candle_core::{Result, bail};

use super::{Conv2dSpec, PadMode};

/// The input position that padded position `i` copies (0 = first real one); `None` is zero.
pub(super) fn source_index(i: isize, size: usize, mode: PadMode) -> Option<usize> {
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
        _ => bail!(
            "transposed convolution of {input:?} with {weight:?} and {spec:?} has an empty output"
        ),
    }
}

/// Sizes of one convolution and of the phase-sorted plane that its taps read.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) out_h: usize,
    pub(super) out_w: usize,
    pub(super) kernel: (usize, usize),
    pub(super) spec: Conv2dSpec,
    /// Rows and columns of one phase of the padded plane.
    pub(super) phase: (usize, usize),
}

impl Geometry {
    pub(super) fn new(input: &[usize], weight: &[usize], spec: &Conv2dSpec) -> Result<Self> {
        spec.validate(input, weight)?;
        let (batch, in_channels, height, width) = (input[0], input[1], input[2], input[3]);
        let (out_channels, w_in, kh, kw) = (weight[0], weight[1], weight[2], weight[3]);
        if in_channels != w_in {
            bail!("convolution expects {w_in} input channels, found {in_channels}");
        }
        let reflects = |size: usize, pad: usize| spec.pad_mode != PadMode::Reflect || pad < size;
        if !reflects(height, spec.padding.0) || !reflects(width, spec.padding.1) {
            bail!(
                "input {input:?} is too small for reflect padding of {:?}",
                spec.padding
            );
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

    /// The convolution whose transpose this one is: from the output of the transposed convolution to its input, without
    /// activations.
    pub(super) fn transposed(input: &[usize], weight: &[usize], spec: &Conv2dSpec) -> Result<Self> {
        let (out_h, out_w) = transposed_size(input, weight, spec)?;
        let spec = Conv2dSpec {
            input_slope: None,
            output_slope: None,
            ..*spec
        };
        Self::new(&[input[0], weight[1], out_h, out_w], weight, &spec)
    }

    pub(super) fn out_dims(&self) -> (usize, usize, usize, usize) {
        (self.batch, self.out_channels, self.out_h, self.out_w)
    }

    pub(super) fn in_dims(&self) -> (usize, usize, usize, usize) {
        (self.batch, self.in_channels, self.height, self.width)
    }

    /// Number of values of one channel of the padded plane.
    pub(super) fn plane_len(&self) -> usize {
        self.spec.stride.0 * self.spec.stride.1 * self.phase.0 * self.phase.1
    }

    /// Output columns if the output keeps the row pitch of the plane, so that every tap is a constant offset.
    pub(super) fn wide_len(&self) -> usize {
        (self.out_h - 1) * self.phase.1 + self.out_w
    }

    /// Offset of position (row, column) of the padded input in a channel of the plane.
    pub(super) fn plane_offset(&self, row: usize, column: usize) -> usize {
        let (sh, sw) = self.spec.stride;
        let phase = (row % sh) * sw + column % sw;
        (phase * self.phase.0 + row / sh) * self.phase.1 + column / sw
    }

    pub(super) fn tap_offset(&self, tap: usize) -> usize {
        let (row, column) = (tap / self.kernel.1, tap % self.kernel.1);
        self.plane_offset(row * self.spec.dilation.0, column * self.spec.dilation.1)
    }

    pub(super) fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// For every padded row that copies an input row: that row, and the offset of its first position in the plane.
    pub(super) fn rows(&self) -> Vec<(usize, usize)> {
        let (pad, n) = (self.spec.padding.0, self.height);
        (0..n + 2 * pad)
            .filter_map(|row| {
                let source = source_index(row as isize - pad as isize, n, self.spec.pad_mode)?;
                Some((source, self.plane_offset(row, 0)))
            })
            .collect()
    }

    /// How a row of the plane is filled from a row of the input.
    pub(super) fn columns(&self) -> Columns {
        let (pad, n, stride) = (self.spec.padding.1, self.width, self.spec.stride.1);
        let runs = (0..stride).map(|phase| {
            let first = pad.saturating_sub(phase).div_ceil(stride);
            let end = (pad + n).saturating_sub(phase).div_ceil(stride);
            Run {
                offset: self.plane_offset(0, first * stride + phase),
                source: first * stride + phase - pad,
                count: end.saturating_sub(first),
            }
        });
        let edges = (0..pad).chain(pad + n..n + 2 * pad).filter_map(|column| {
            let source = source_index(column as isize - pad as isize, n, self.spec.pad_mode)?;
            Some((source, self.plane_offset(0, column)))
        });
        Columns {
            runs: runs.filter(|run| run.count > 0).collect(),
            edges: edges.collect(),
        }
    }
}

/// How the values of a plane row are copied.
pub(super) struct Columns {
    /// The input row itself, phase by phase.
    pub(super) runs: Vec<Run>,
    /// Padding: (input column, offset in the plane row).
    pub(super) edges: Vec<(usize, usize)>,
}

/// `count` neighbouring plane columns from `offset`, which hold every `stride`th input column from `source`.
pub(super) struct Run {
    pub(super) offset: usize,
    pub(super) source: usize,
    pub(super) count: usize,
}
