//! Spectral envelopes.

use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// Quefrency of the cut. Slower variation over frequency belongs to the envelope, faster variation to the partials of
/// tones above about 500 Hz.
const CUT_SECONDS: f64 = 0.002;
/// Lower limit of the magnitudes.
const FLOOR: f32 = 1e-6;

/// The smooth spectral envelope from the real cepstrum (A. V. Oppenheim and R. W. Schafer, "Homomorphic Analysis of
/// Speech", IEEE Trans. Audio and Electroacoustics, 1968).
pub(super) struct Envelope {
    to_cepstrum: Arc<dyn ComplexToReal<f32>>,
    to_spectrum: Arc<dyn RealToComplex<f32>>,
    bins: Vec<Complex32>,
    cepstrum: Vec<f32>,
    /// Half a Hann window over the retained quefrencies, scaled for both transforms.
    lifter: Vec<f32>,
    envelope: Vec<f32>,
}

impl Envelope {
    /// Creates the analysis for transforms of `n_fft` samples.
    pub(super) fn new(n_fft: usize, sample_rate_hz: u32) -> Self {
        let mut planner = RealFftPlanner::new();
        let kept = ((CUT_SECONDS * f64::from(sample_rate_hz)) as usize).clamp(1, n_fft / 2);
        let weight = |n: usize| {
            let phase = std::f32::consts::PI * n as f32 / kept as f32;
            (0.5 + 0.5 * phase.cos()) / n_fft as f32
        };
        Self {
            to_cepstrum: planner.plan_fft_inverse(n_fft),
            to_spectrum: planner.plan_fft_forward(n_fft),
            bins: vec![Complex32::default(); n_fft / 2 + 1],
            cepstrum: vec![0.0; n_fft],
            lifter: (0..kept).map(weight).collect(),
            envelope: vec![0.0; n_fft / 2 + 1],
        }
    }

    /// The envelope of the magnitudes of one frame; always above zero.
    pub(super) fn of(&mut self, magnitude: &[f32]) -> &[f32] {
        for (bin, &magnitude) in self.bins.iter_mut().zip(magnitude) {
            *bin = Complex32::new(magnitude.clamp(FLOOR, f32::MAX).ln(), 0.0);
        }
        const FIT: &str = "the lengths are the planned ones";
        self.to_cepstrum
            .process(&mut self.bins, &mut self.cepstrum)
            .expect(FIT);
        let n_fft = self.cepstrum.len();
        let kept = self.lifter.len();
        self.cepstrum[0] *= self.lifter[0];
        for n in 1..kept {
            self.cepstrum[n] *= self.lifter[n];
            self.cepstrum[n_fft - n] *= self.lifter[n];
        }
        self.cepstrum[kept..=n_fft - kept].fill(0.0);
        self.to_spectrum
            .process(&mut self.cepstrum, &mut self.bins)
            .expect(FIT);
        for (envelope, bin) in self.envelope.iter_mut().zip(&self.bins) {
            *envelope = bin.re.exp();
        }
        &self.envelope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smooth_spectrum_is_its_own_envelope_and_a_ripple_vanishes() {
        let mut envelope = Envelope::new(2048, 44_100);
        let smooth = |bin: usize| (-3.0 * bin as f32 / 1024.0).exp();
        // A ripple faster than the cut vanishes; the geometric mean remains.
        for ripple in [0.0, 1.0] {
            let rippled = |bin: usize| smooth(bin) * (ripple * (bin as f32 * 0.8).sin()).exp();
            let magnitude: Vec<f32> = (0..1025).map(rippled).collect();
            for (bin, found) in envelope
                .of(&magnitude)
                .iter()
                .enumerate()
                .take(1000)
                .skip(24)
            {
                let off = (found / smooth(bin)).ln();
                assert!(off.abs() < 0.1, "{ripple}, {bin}: {off}");
            }
        }
    }
}
