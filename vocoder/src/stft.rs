//! Common parts of all short-time Fourier transforms: the sample buffer, the transform, and overlap-add.

use std::sync::Arc;

use realfft::num_complex::{Complex, Complex32};
use realfft::{ComplexToReal, FftNum, RealFftPlanner, RealToComplex};

use crate::vectorized;
use crate::window::AnalysisWindow;

/// Samples above this magnitude, or not finite, count as silence.
const SAMPLE_LIMIT: f32 = 1e6;

/// The weights of a window in the precision of a transform.
fn weights<T: Sample>(window: AnalysisWindow, length_samples: usize) -> Vec<T> {
    let weights = window.weights(length_samples).into_iter();
    weights
        .map(|weight| T::from_f64(weight).expect("a weight is a number of any kind"))
        .collect()
}

/// Precision of a transform: `f32`, or `f64` where quiet bins next to loud ones must be exact.
pub(crate) trait Sample: FftNum + From<f32> {}

impl<T: FftNum + From<f32>> Sample for T {}

/// Windowed real Fourier transform of frames, and its inverse. Has its own scratch memory and does not allocate
/// while running.
pub(crate) struct FrameTransform<T: Sample = f32> {
    forward: Arc<dyn RealToComplex<T>>,
    inverse: Arc<dyn ComplexToReal<T>>,
    forward_scratch: Vec<Complex<T>>,
    inverse_scratch: Vec<Complex<T>>,
    window: Vec<T>,
    /// Synthesis window, scaled for the inverse transform.
    synthesis: Vec<T>,
    frame: Vec<T>,
}

impl<T: Sample> FrameTransform<T> {
    /// Creates a transform with Hann windows for frames of `n_fft` samples, an even number.
    pub(crate) fn new(n_fft: usize) -> Self {
        Self::with_window(n_fft, AnalysisWindow::Symmetric)
    }

    /// Creates a transform with another analysis window. Only [`keeping`](FrameTransform::keeping) has an inverse for it.
    pub(crate) fn with_window(n_fft: usize, window: AnalysisWindow) -> Self {
        let mut planner = RealFftPlanner::new();
        let forward = planner.plan_fft_forward(n_fft);
        let inverse = planner.plan_fft_inverse(n_fft);
        Self {
            forward_scratch: forward.make_scratch_vec(),
            inverse_scratch: inverse.make_scratch_vec(),
            forward,
            inverse,
            synthesis: weights(AnalysisWindow::Symmetric, n_fft)
                .into_iter()
                .map(|weight: T| weight / T::from_usize(n_fft).expect("a length is a number"))
                .collect(),
            window: weights(window, n_fft),
            frame: vec![T::zero(); n_fft],
        }
    }

    pub(crate) fn window(&self) -> &[T] {
        &self.window
    }

    /// Windows the frame of `input` that starts at sample `start` and writes its `n_fft / 2 + 1` bins to `spectrum`.
    pub(crate) fn forward_at(
        &mut self,
        input: &SampleBuffer,
        start: isize,
        spectrum: &mut [Complex<T>],
    ) {
        vectorized!(input.read_windowed(start, &self.window, &mut self.frame));
        self.transform_frame(spectrum);
    }

    fn transform_frame(&mut self, spectrum: &mut [Complex<T>]) {
        self.forward
            .process_with_scratch(&mut self.frame, spectrum, &mut self.forward_scratch)
            .expect("frame and spectrum have the planned lengths");
    }
}

impl FrameTransform {
    /// Creates a transform that uses only `kept_samples` around the centre of a frame for the output, an even number. Returns
    /// the transform, and the product of analysis and synthesis window in that range.
    ///
    /// If it is less than the whole frame, the synthesis window is short, and the product a Hann window of that length
    /// (Mauler and Martin, "A low delay, variable resolution, perfect reconstruction spectral analysis-synthesis
    /// system", EUSIPCO 2007). A window that is not symmetric is never kept whole.
    pub(crate) fn keeping(
        n_fft: usize,
        window: AnalysisWindow,
        kept_samples: usize,
    ) -> (Self, Vec<f32>) {
        let mut transform = Self::with_window(n_fft, window);
        if kept_samples == n_fft {
            let power = transform.window.iter().map(|weight| weight * weight);
            let power = power.collect();
            return (transform, power);
        }
        let kept = weights(AnalysisWindow::Symmetric, kept_samples);
        let start = n_fft - window.after_centre_samples(n_fft) - kept_samples / 2;
        transform.synthesis.fill(0.0);
        for (n, &weight) in kept.iter().enumerate() {
            transform.synthesis[start + n] = weight / transform.window[start + n] / n_fft as f32;
        }
        (transform, kept)
    }

    /// [`forward_at`](Self::forward_at) for a frame given as `samples`.
    pub(crate) fn forward(&mut self, samples: &[f32], spectrum: &mut [Complex32]) {
        vectorized!({
            let windowed = samples.iter().zip(&self.window);
            for (value, (sample, weight)) in self.frame.iter_mut().zip(windowed) {
                *value = sample * weight;
            }
        });
        self.transform_frame(spectrum);
    }

    /// The windowed frame of `spectrum`. Overwrites `spectrum`.
    pub(crate) fn inverse(&mut self, spectrum: &mut [Complex32]) -> &[f32] {
        // The first and the last bin of a real signal are real.
        spectrum[0].im = 0.0;
        spectrum[self.frame.len() / 2].im = 0.0;
        self.inverse
            .process_with_scratch(spectrum, &mut self.frame, &mut self.inverse_scratch)
            .expect("frame and spectrum have the planned lengths");
        vectorized!({
            for (sample, weight) in self.frame.iter_mut().zip(&self.synthesis) {
                *sample *= weight;
            }
        });
        &self.frame
    }
}

/// Magnitude of one bin. Unlike `norm`, it does not guard against overflow, and it compiles to vector instructions.
#[inline(always)]
pub(crate) fn magnitude_of(bin: &Complex32) -> f32 {
    bin.norm_sqr().sqrt()
}

/// The part of a signal that frames still need, mirrored at its first and its last sample.
#[derive(Default)]
pub(crate) struct SampleBuffer {
    samples: Vec<f32>,
    /// Number of the first stored sample.
    start: usize,
}

impl SampleBuffer {
    pub(crate) fn push(&mut self, samples: &[f32]) {
        let sound = |&sample: &f32| {
            if sample.abs() <= SAMPLE_LIMIT {
                sample
            } else {
                0.0
            }
        };
        self.samples.extend(samples.iter().map(sound));
    }

    pub(crate) fn clear(&mut self) {
        self.samples.clear();
        self.start = 0;
    }

    /// Number of samples pushed so far.
    pub(crate) fn end(&self) -> usize {
        self.start + self.samples.len()
    }

    /// Drops the samples before the first sample of the coming frames.
    pub(crate) fn discard_before(&mut self, frame_start: isize) {
        let unneeded = (frame_start.max(0) as usize).saturating_sub(self.start);
        let unneeded = unneeded.min(self.samples.len());
        self.samples.drain(..unneeded);
        self.start += unneeded;
    }

    /// Writes the samples from number `start` on, times `window`, to `frame`. If the frame extends beyond the samples
    /// pushed so far, these are treated as the whole clip and mirrored, repeatedly if necessary.
    #[inline(always)]
    fn read_windowed<T: Sample>(&self, start: isize, window: &[T], frame: &mut [T]) {
        let offset = start - self.start as isize;
        // A frame that starts before the clip mirrors none but its own samples, so that it does not depend on what follows.
        let end = self
            .end()
            .min((start + window.len() as isize).max(0) as usize);
        if offset >= 0 && offset as usize + window.len() <= self.samples.len() {
            let samples = &self.samples[offset as usize..][..window.len()];
            for ((value, &sample), &weight) in frame.iter_mut().zip(samples).zip(window) {
                *value = T::from(sample) * weight;
            }
        } else {
            for (n, (value, &weight)) in frame.iter_mut().zip(window).enumerate() {
                let sample = reflect(start + n as isize, end) - self.start;
                *value = T::from(self.samples[sample]) * weight;
            }
        }
    }
}

/// The sample at `index` if `samples` samples are mirrored at the first and the last one.
fn reflect(index: isize, samples: usize) -> usize {
    let last = samples.saturating_sub(1) as isize;
    if last == 0 {
        return 0;
    }
    let folded = index.rem_euclid(2 * last);
    folded.min(2 * last - folded) as usize
}

/// The sum of windowed frames, and the sum of the squared windows to divide by.
pub(crate) struct OverlapAdd {
    /// Number of the first sample that was not pulled yet.
    start: usize,
    /// Per channel.
    sums: Vec<Vec<f32>>,
    window_power: Vec<f32>,
}

impl OverlapAdd {
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            start: 0,
            sums: vec![Vec::new(); channels],
            window_power: Vec::new(),
        }
    }

    pub(crate) fn channels(&self) -> usize {
        self.sums.len()
    }

    pub(crate) fn reset(&mut self) {
        self.start = 0;
        self.sums.iter_mut().for_each(Vec::clear);
        self.window_power.clear();
    }

    /// Adds a windowed frame of one channel.
    pub(crate) fn add(&mut self, frame_start: isize, channel: usize, frame: &[f32]) {
        let offset = frame_start - self.start as isize;
        add_at(&mut self.sums[channel], offset, frame);
    }

    /// Records the product of analysis and synthesis window of the frames that start there.
    pub(crate) fn add_window(&mut self, frame_start: isize, product: &[f32]) {
        let offset = frame_start - self.start as isize;
        add_at(&mut self.window_power, offset, product);
    }

    /// Appends the samples before number `end` to `out`.
    pub(crate) fn pull(&mut self, end: usize, out: &mut [Vec<f32>]) {
        let samples = end.saturating_sub(self.start);
        for out in &mut *out {
            out.resize(out.len() + samples, 0.0);
        }
        self.pull_onto(end, out);
    }

    /// Adds the samples before number `end` to the last ones of `out`.
    pub(crate) fn pull_onto(&mut self, end: usize, out: &mut [Vec<f32>]) {
        let samples = end.saturating_sub(self.start);
        if self.window_power.len() < samples {
            self.window_power.resize(samples, 0.0);
        }
        for (sums, out) in self.sums.iter_mut().zip(out) {
            sums.resize(self.window_power.len(), 0.0);
            let before = out.len() - samples;
            let covered = sums[..samples].iter().zip(&self.window_power);
            vectorized!({
                for (out, (sum, &power)) in out[before..].iter_mut().zip(covered) {
                    *out += if power > 0.0 { sum / power } else { 0.0 };
                }
            });
            sums.drain(..samples);
        }
        self.window_power.drain(..samples);
        self.start += samples;
    }
}

/// Adds `frame` to `sums` from `offset` on. Drops the part before the first sample.
fn add_at(sums: &mut Vec<f32>, offset: isize, frame: &[f32]) {
    let before = offset.min(0).unsigned_abs();
    let offset = offset.max(0) as usize;
    let end = (offset + frame.len()).saturating_sub(before);
    if sums.len() < end {
        sums.resize(end, 0.0);
    }
    let frame = &frame[before.min(frame.len())..];
    vectorized!(add(&mut sums[offset..], frame));
}

/// Adds `terms` to `sums`, up to the length of the shorter slice.
#[inline(always)]
pub(crate) fn add(sums: &mut [f32], terms: &[f32]) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum += term;
    }
}
