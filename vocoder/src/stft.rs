//! What all short-time Fourier transforms here share: the window, the input of frames and the transform of one frame.

use std::f64::consts::TAU;
use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{RealFftPlanner, RealToComplex};

/// Periodic Hann window, as in `torch.hann_window` and `scipy.signal.get_window("hann", n)`.
pub(crate) fn hann_window(length_samples: usize) -> Vec<f32> {
    (0..length_samples)
        .map(|n| (0.5 - 0.5 * (TAU * n as f64 / length_samples as f64).cos()) as f32)
        .collect()
}

/// Real FFT of one frame, with scratch memory of its own: transforms do not allocate.
pub(crate) struct FrameFft {
    forward: Arc<dyn RealToComplex<f32>>,
    forward_scratch: Vec<Complex32>,
}

impl FrameFft {
    pub(crate) fn new(n_fft: usize) -> Self {
        let forward = RealFftPlanner::new().plan_fft_forward(n_fft);
        Self {
            forward_scratch: forward.make_scratch_vec(),
            forward,
        }
    }

    /// Transforms `frame` (`n_fft` samples, overwritten) to `spectrum` (`n_fft / 2 + 1` bins).
    pub(crate) fn forward(&mut self, frame: &mut [f32], spectrum: &mut [Complex32]) {
        self.forward
            .process_with_scratch(frame, spectrum, &mut self.forward_scratch)
            .expect("frame and spectrum have the planned lengths");
    }
}

/// Magnitude of one bin; unlike `norm` it does not guard against overflow, and compiles to vector instructions.
#[inline(always)]
pub(crate) fn magnitude_of(bin: &Complex32) -> f32 {
    bin.norm_sqr().sqrt()
}

/// The part of a signal that frames still need, mirrored at its first and its last sample.
#[derive(Default)]
pub(crate) struct SampleBuffer {
    samples: Vec<f32>,
    /// Number of the first sample that is kept.
    start: usize,
}

impl SampleBuffer {
    pub(crate) fn push(&mut self, samples: &[f32]) {
        self.samples.extend_from_slice(samples);
    }

    /// Number of samples pushed so far.
    pub(crate) fn end(&self) -> usize {
        self.start + self.samples.len()
    }

    /// Lets go of samples that come before the first sample of every frame to come.
    pub(crate) fn discard_before(&mut self, frame_start: isize) {
        let unneeded = (frame_start.max(0) as usize).saturating_sub(self.start);
        let unneeded = unneeded.min(self.samples.len());
        self.samples.drain(..unneeded);
        self.start += unneeded;
    }

    /// Writes the samples from number `start` on, times `window`, to `frame`. Where the frame reaches beyond the samples
    /// pushed so far, these are taken for the whole clip and mirrored, as often as it takes.
    pub(crate) fn read_windowed(&self, start: isize, window: &[f32], frame: &mut [f32]) {
        let offset = start - self.start as isize;
        if offset >= 0 && offset as usize + window.len() <= self.samples.len() {
            let samples = &self.samples[offset as usize..][..window.len()];
            for ((value, sample), weight) in frame.iter_mut().zip(samples).zip(window) {
                *value = sample * weight;
            }
        } else {
            for (n, (value, weight)) in frame.iter_mut().zip(window).enumerate() {
                let sample = reflect(start + n as isize, self.end()) - self.start;
                *value = self.samples[sample] * weight;
            }
        }
    }
}

/// The sample that stands at `index` when `samples` samples are mirrored at the first and the last one.
fn reflect(index: isize, samples: usize) -> usize {
    let last = samples.saturating_sub(1) as isize;
    if last == 0 {
        return 0;
    }
    let folded = index.rem_euclid(2 * last);
    folded.min(2 * last - folded) as usize
}
