//! What all short-time Fourier transforms here share: the window and the transform of one frame.

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
