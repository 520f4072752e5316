//! The CPU kernels: one accumulating matrix product per kernel tap.

use candle_core::WithDType;

use super::geometry::Geometry;

/// Columns per tile of a product: few enough for the tile's sums to stay in the cache.
const TILE_COLUMNS: usize = 512;

/// Values in the widest vector register. The column counts of products are multiples of it where possible, which saves
/// the matrix product a copy of its operand.
const LANES: usize = 16;

/// A float that the kernels compute with.
pub(super) trait Real: WithDType + std::ops::AddAssign + std::ops::MulAssign {}
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
    /// A matrix with neighbouring columns.
    fn rows(offset: usize, row_stride: usize) -> Self {
        Self {
            offset,
            row_stride,
            column_stride: 1,
        }
    }

    fn transposed(self) -> Self {
        Self {
            offset: self.offset,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    fn last(&self, rows: usize, columns: usize) -> usize {
        self.offset + (rows - 1) * self.row_stride + (columns - 1) * self.column_stride
    }
}

/// `dst = lhs * rhs`, or `dst += lhs * rhs`, for (m, k) by (k, n).
fn matmul<T: Real>(
    (m, n, k): (usize, usize, usize),
    accumulate: bool,
    (dst, dst_view): (&mut [T], View),
    (lhs, lhs_view): (&[T], View),
    (rhs, rhs_view): (&[T], View),
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

/// LeakyReLU in place.
pub(super) fn leaky<T: Real>(values: &mut [T], slope: Option<T>) {
    let Some(slope) = slope else { return };
    for v in values {
        *v = if *v < T::zero() { *v * slope } else { *v };
    }
}

/// Multiplies a gradient by the slope of a LeakyReLU wherever `signs` (its input or output) is negative.
pub(super) fn through_leaky<T: Real>(gradient: &mut [T], signs: &[T], slope: Option<T>) {
    let Some(slope) = slope else { return };
    for (g, &s) in gradient.iter_mut().zip(signs) {
        *g = if s < T::zero() { *g * slope } else { *g };
    }
}

/// Sum over many values, in as many partial sums as a register holds.
pub(super) fn sum<T: Real>(values: &[T]) -> T {
    let mut sums = [T::zero(); LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(T::zero(), |a, &b| a + b);
    for chunk in chunks {
        for (sum, &v) in sums.iter_mut().zip(chunk) {
            *sum += v;
        }
    }
    sums.into_iter().fold(rest, |a, b| a + b)
}

/// The kernels of one convolution geometry, on contiguous slices. Weights are (tap, out, in).
pub(super) struct Taps<'a>(pub(super) &'a Geometry);

/// Which gradients [`Taps::backward`] computes, in addition to that of the bias.
pub(super) struct Wanted {
    pub(super) input: bool,
    pub(super) weight: bool,
}

/// The gradients from [`Taps::backward`], each in the shape of its operand.
pub(super) struct Backward<T> {
    pub(super) input: Option<Vec<T>>,
    pub(super) weight: Option<Vec<T>>,
    pub(super) bias: Vec<T>,
}

impl Taps<'_> {
    fn input_len(&self) -> usize {
        self.0.in_channels * self.0.height * self.0.width
    }

    fn output_len(&self) -> usize {
        self.0.out_channels * self.0.out_h * self.0.out_w
    }

    /// Distance between the channels of a wide output: its columns, rounded up.
    fn wide_pitch(&self) -> usize {
        self.0.wide_len().next_multiple_of(LANES)
    }

    /// An empty plane (in, plane), with space for the rounded-up columns.
    fn new_plane<T: Real>(&self) -> Vec<T> {
        vec![T::zero(); self.0.in_channels * self.0.plane_len() + LANES]
    }

    /// An empty wide output (out, wide pitch).
    fn new_wide<T: Real>(&self) -> Vec<T> {
        vec![T::zero(); self.0.out_channels * self.wide_pitch()]
    }

    /// First column and column count of every tile of a wide output.
    fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let pitch = self.wide_pitch();
        (0..pitch)
            .step_by(TILE_COLUMNS)
            .map(move |start| (start, TILE_COLUMNS.min(pitch - start)))
    }

    fn tap_weight(&self, tap: usize) -> View {
        let g = self.0;
        View::rows(tap * g.out_channels * g.in_channels, g.in_channels)
    }

    /// The part of a plane that a tap reads for a tile.
    fn tap_plane(&self, tap: usize, start: usize) -> View {
        View::rows(start + self.0.tap_offset(tap), self.0.plane_len())
    }

    /// Writes one batch element (in, height, width) into its plane (in, plane), activated and padded. Zero padding is
    /// not written.
    fn fill_plane<T: Real>(&self, input: &[T], plane: &mut [T]) {
        let g = self.0;
        let slope = g.spec.input_slope.map(T::from_f64);
        let (rows, columns) = (g.rows(), g.columns());
        for (x, p) in input
            .chunks_exact(g.height * g.width)
            .zip(plane.chunks_exact_mut(g.plane_len()))
        {
            for &(source, base) in &rows {
                let x = &x[source * g.width..][..g.width];
                for run in &columns.runs {
                    let p = &mut p[base + run.offset..][..run.count];
                    if g.spec.stride.1 == 1 {
                        p.copy_from_slice(&x[run.source..][..run.count]);
                    } else {
                        let x = x[run.source..].iter().step_by(g.spec.stride.1);
                        p.iter_mut().zip(x).for_each(|(p, &x)| *p = x);
                    }
                }
                for &(column, offset) in &columns.edges {
                    p[base + offset] = x[column];
                }
            }
            leaky(p, slope);
        }
    }

    /// Adds a plane (in, plane) back onto one batch element (in, height, width): the transpose of
    /// [`Self::fill_plane`] without its activation.
    fn fold_plane<T: Real>(&self, plane: &[T], input: &mut [T]) {
        let g = self.0;
        let (rows, columns) = (g.rows(), g.columns());
        for (p, x) in plane
            .chunks_exact(g.plane_len())
            .zip(input.chunks_exact_mut(g.height * g.width))
        {
            for &(source, base) in &rows {
                let x = &mut x[source * g.width..][..g.width];
                for run in &columns.runs {
                    let p = &p[base + run.offset..][..run.count];
                    if g.spec.stride.1 == 1 {
                        let x = &mut x[run.source..][..run.count];
                        x.iter_mut().zip(p).for_each(|(x, &p)| *x += p);
                    } else {
                        let x = x[run.source..].iter_mut().step_by(g.spec.stride.1);
                        x.zip(p).for_each(|(x, &p)| *x += p);
                    }
                }
                for &(column, offset) in &columns.edges {
                    x[column] += p[base + offset];
                }
            }
        }
    }

    /// One batch element (out, out_h, out_w) spread to the row pitch of the plane; the gap columns stay zero.
    fn widen<T: Real>(&self, compact: &[T], wide: &mut [T]) {
        let g = self.0;
        let channels = compact.chunks_exact(g.out_h * g.out_w);
        for (y, wide) in channels.zip(wide.chunks_exact_mut(self.wide_pitch())) {
            for (row, y) in y.chunks_exact(g.out_w).enumerate() {
                wide[row * g.phase.1..][..g.out_w].copy_from_slice(y);
            }
        }
    }

    /// (batch, in, height, width) to (batch, out, out_h, out_w), with bias and activation.
    pub(super) fn forward<T: Real>(&self, input: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let g = self.0;
        let mut output = vec![T::zero(); g.batch * self.output_len()];
        let mut plane = self.new_plane();
        let pitch = TILE_COLUMNS.min(self.wide_pitch());
        let mut sums = vec![T::zero(); g.out_channels * pitch];
        for (x, y) in input
            .chunks_exact(self.input_len())
            .zip(output.chunks_exact_mut(self.output_len()))
        {
            self.fill_plane(x, &mut plane);
            for (start, columns) in self.tiles() {
                for tap in 0..g.taps() {
                    matmul(
                        (g.out_channels, columns, g.in_channels),
                        tap > 0,
                        (&mut sums, View::rows(0, pitch)),
                        (weight, self.tap_weight(tap)),
                        (&plane, self.tap_plane(tap, start)),
                    );
                }
                self.store_tile(&sums, pitch, bias, (start, columns), y);
            }
        }
        output
    }

    /// Adds the bias to a tile of sums (out, pitch), applies the activation, and skips the gap columns.
    fn store_tile<T: Real>(
        &self,
        sums: &[T],
        pitch: usize,
        bias: &[T],
        (start, columns): (usize, usize),
        output: &mut [T],
    ) {
        let g = self.0;
        let slope = g.spec.output_slope.map(T::from_f64);
        let rows = start / g.phase.1..g.out_h.min((start + columns).div_ceil(g.phase.1));
        for ((sums, &bias), y) in sums
            .chunks_exact(pitch)
            .zip(bias)
            .zip(output.chunks_exact_mut(g.out_h * g.out_w))
        {
            for row in rows.clone() {
                let row_start = row * g.phase.1;
                let from = start.max(row_start);
                let to = (start + columns).min(row_start + g.out_w);
                if from >= to {
                    continue;
                }
                let y = &mut y[row * g.out_w + from - row_start..][..to - from];
                for (y, &sum) in y.iter_mut().zip(&sums[from - start..to - start]) {
                    *y = sum + bias;
                }
                leaky(y, slope);
            }
        }
    }

    /// The transpose: (batch, out, out_h, out_w) to (batch, in, height, width), without bias. `input_slope` activates
    /// its input.
    pub(super) fn transpose<T: Real>(
        &self,
        input: &[T],
        weight: &[T],
        input_slope: Option<T>,
    ) -> Vec<T> {
        let mut output = vec![T::zero(); self.0.batch * self.input_len()];
        let mut plane = self.new_plane();
        let mut wide = self.new_wide();
        for (x, y) in input
            .chunks_exact(self.output_len())
            .zip(output.chunks_exact_mut(self.input_len()))
        {
            self.widen(x, &mut wide);
            leaky(&mut wide, input_slope);
            self.spread(&wide, weight, &mut plane);
            self.fold_plane(&plane, y);
        }
        output
    }

    /// Gradients from that of the output. The signs of `output` select the slope of the output's activation.
    pub(super) fn backward<T: Real>(
        &self,
        input: &[T],
        weight: &[T],
        output: &[T],
        gradient: &[T],
        wanted: &Wanted,
    ) -> Backward<T> {
        let g = self.0;
        let [input_slope, output_slope] =
            [g.spec.input_slope, g.spec.output_slope].map(|slope| slope.map(T::from_f64));
        let mut input_gradient = wanted
            .input
            .then(|| vec![T::zero(); g.batch * self.input_len()]);
        let mut bias_gradient = vec![T::zero(); g.out_channels];
        let mut weight_gradient = wanted.weight.then(|| WeightGradient::new(g));
        let (mut plane, mut gradient_plane) = (self.new_plane(), self.new_plane());
        let mut wide = self.new_wide();
        let mut activated = vec![T::zero(); self.output_len()];
        for (i, ((x, y), dy)) in input
            .chunks_exact(self.input_len())
            .zip(output.chunks_exact(self.output_len()))
            .zip(gradient.chunks_exact(self.output_len()))
            .enumerate()
        {
            let dy = if output_slope.is_some() {
                activated.copy_from_slice(dy);
                through_leaky(&mut activated, y, output_slope);
                &activated
            } else {
                dy
            };
            for (db, dy) in bias_gradient
                .iter_mut()
                .zip(dy.chunks_exact(g.out_h * g.out_w))
            {
                *db += sum(dy);
            }
            self.widen(dy, &mut wide);
            if let Some(dx) = &mut input_gradient {
                let dx = &mut dx[i * self.input_len()..][..self.input_len()];
                self.spread(&wide, weight, &mut gradient_plane);
                self.fold_plane(&gradient_plane, dx);
                through_leaky(dx, x, input_slope);
            }
            if let Some(weight_gradient) = &mut weight_gradient {
                self.fill_plane(x, &mut plane);
                weight_gradient.add(self, &wide, &plane);
            }
        }
        Backward {
            input: input_gradient,
            weight: weight_gradient.map(|gradient| gradient.finish(g)),
            bias: bias_gradient,
        }
    }

    /// Gradient of the weight alone, for a plain convolution of `input`; `gradient` is that of the outputs.
    pub(super) fn weight_gradient<T: Real>(&self, input: &[T], gradient: &[T]) -> Vec<T> {
        let mut weight_gradient = WeightGradient::new(self.0);
        let (mut plane, mut wide) = (self.new_plane(), self.new_wide());
        for (x, dy) in input
            .chunks_exact(self.input_len())
            .zip(gradient.chunks_exact(self.output_len()))
        {
            self.fill_plane(x, &mut plane);
            self.widen(dy, &mut wide);
            weight_gradient.add(self, &wide, &plane);
        }
        weight_gradient.finish(self.0)
    }

    /// Adds a wide output (out, wide pitch) onto the plane (in, plane) that it was computed from: the transpose of the
    /// products in [`Self::forward`].
    fn spread<T: Real>(&self, wide: &[T], weight: &[T], plane: &mut [T]) {
        let g = self.0;
        plane.fill(T::zero());
        for (start, columns) in self.tiles() {
            for tap in 0..g.taps() {
                matmul(
                    (g.in_channels, columns, g.out_channels),
                    true,
                    (plane, self.tap_plane(tap, start)),
                    (weight, self.tap_weight(tap).transposed()),
                    (wide, View::rows(start, self.wide_pitch())),
                );
            }
        }
    }
}

/// Accumulates the gradient of a weight, as (tap, in, out), with the outputs rounded up to whole registers.
struct WeightGradient<T> {
    sums: Vec<T>,
    /// A transposed tile of the output's gradient: (tile, out).
    tile: Vec<T>,
    out_pitch: usize,
}

impl<T: Real> WeightGradient<T> {
    fn new(g: &Geometry) -> Self {
        let out_pitch = g.out_channels.next_multiple_of(LANES);
        Self {
            sums: vec![T::zero(); g.taps() * g.in_channels * out_pitch],
            tile: vec![T::zero(); TILE_COLUMNS * out_pitch],
            out_pitch,
        }
    }

    /// Adds one batch element: the gradient of its wide output, and its plane.
    fn add(&mut self, taps: &Taps, wide: &[T], plane: &[T]) {
        let g = taps.0;
        let out_pitch = self.out_pitch;
        for (start, columns) in taps.tiles() {
            self.transpose_tile(wide, taps.wide_pitch(), start, columns);
            for tap in 0..g.taps() {
                matmul(
                    (g.in_channels, out_pitch, columns),
                    true,
                    (
                        &mut self.sums,
                        View::rows(tap * g.in_channels * out_pitch, out_pitch),
                    ),
                    (plane, taps.tap_plane(tap, start)),
                    (&self.tile, View::rows(0, out_pitch)),
                );
            }
        }
    }

    fn transpose_tile(&mut self, wide: &[T], wide_pitch: usize, start: usize, columns: usize) {
        for first in (0..columns).step_by(LANES) {
            let tile = &mut self.tile[first * self.out_pitch..][..LANES * self.out_pitch];
            for (channel, wide) in wide.chunks_exact(wide_pitch).enumerate() {
                let wide = &wide[start + first..][..LANES];
                for (row, &v) in tile.chunks_exact_mut(self.out_pitch).zip(wide) {
                    row[channel] = v;
                }
            }
        }
    }

    /// As (out, in, kernel height, kernel width).
    fn finish(self, g: &Geometry) -> Vec<T> {
        let taps = g.taps();
        let mut weight = vec![T::zero(); g.out_channels * g.in_channels * taps];
        for (i, sums) in self.sums.chunks_exact(self.out_pitch).enumerate() {
            let (tap, channel) = (i / g.in_channels, i % g.in_channels);
            for (out, &sum) in sums[..g.out_channels].iter().enumerate() {
                weight[(out * g.in_channels + channel) * taps + tap] = sum;
            }
        }
        weight
    }
}
