//! Spectral envelopes.

use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// Lower limit of the magnitudes.
const FLOOR: f32 = 1e-6;

/// Number of times that the envelope is lifted to the peaks: enough to come within about 2 dB of them.
const LIFTS: usize = 10;

/// The smooth spectral envelope from the real cepstrum (A. V. Oppenheim and R. W. Schafer, "Homomorphic Analysis of
/// Speech", IEEE Trans. Audio and Electroacoustics, 1968).
pub(super) struct Envelope {
    to_cepstrum: Arc<dyn ComplexToReal<f32>>,
    to_spectrum: Arc<dyn RealToComplex<f32>>,
    scratch: Vec<Complex32>,
    /// Logarithms of the magnitudes, then of the envelope.
    bins: Vec<Complex32>,
    cepstrum: Vec<f32>,
    /// Half a Hann window over the retained quefrencies, scaled for both transforms.
    lifter: Vec<f32>,
    envelope: Vec<f32>,
}

impl Envelope {
    /// Creates the analysis for transforms of `n_fft` samples. Variation over frequency slower than the quefrency
    /// `cut_seconds` belongs to the envelope, faster variation to the partials of tones.
    pub(super) fn new(n_fft: usize, sample_rate_hz: u32, cut_seconds: f64) -> Self {
        let mut planner = RealFftPlanner::new();
        let kept = ((cut_seconds * f64::from(sample_rate_hz)) as usize).clamp(1, n_fft / 2);
        let weight = |n: usize| {
            let phase = std::f32::consts::PI * n as f32 / kept as f32;
            (0.5 + 0.5 * phase.cos()) / n_fft as f32
        };
        let to_cepstrum = planner.plan_fft_inverse(n_fft);
        let to_spectrum = planner.plan_fft_forward(n_fft);
        let scratch_len = to_cepstrum
            .get_scratch_len()
            .max(to_spectrum.get_scratch_len());
        Self {
            to_cepstrum,
            to_spectrum,
            scratch: vec![Complex32::default(); scratch_len],
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
        self.smooth();
        for (envelope, bin) in self.envelope.iter_mut().zip(&self.bins) {
            *envelope = bin.re.exp();
        }
        &self.envelope
    }

    /// The envelope that goes along the peaks, from logarithms of magnitudes to its own logarithms: the "true envelope" of
    /// A. Roebel and X. Rodet ("Efficient spectral envelope estimation and its application to pitch shifting and envelope
    /// preservation", DAFx 2005). The smoothed spectrum alone is the mean of peaks and valleys; smoothed again with its valleys
    /// filled, it rises to the peaks.
    pub(super) fn over_peaks(&mut self, logs: &[f32]) -> &[f32] {
        for (bin, &log) in self.bins.iter_mut().zip(logs) {
            *bin = Complex32::new(log, 0.0);
        }
        self.smooth();
        for _ in 0..LIFTS {
            for (bin, &log) in self.bins.iter_mut().zip(logs) {
                *bin = Complex32::new(bin.re.max(log), 0.0);
            }
            self.smooth();
        }
        for (envelope, bin) in self.envelope.iter_mut().zip(&self.bins) {
            *envelope = bin.re;
        }
        &self.envelope
    }

    /// Smoothes the logarithms.
    fn smooth(&mut self) {
        const FIT: &str = "the lengths are the planned ones";
        let (bins, cepstrum) = (&mut self.bins, &mut self.cepstrum);
        self.to_cepstrum
            .process_with_scratch(bins, cepstrum, &mut self.scratch)
            .expect(FIT);
        let n_fft = cepstrum.len();
        let kept = self.lifter.len();
        cepstrum[0] *= self.lifter[0];
        for n in 1..kept {
            cepstrum[n] *= self.lifter[n];
            cepstrum[n_fft - n] *= self.lifter[n];
        }
        cepstrum[kept..=n_fft - kept].fill(0.0);
        self.to_spectrum
            .process_with_scratch(cepstrum, bins, &mut self.scratch)
            .expect(FIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smooth_spectrum_is_its_own_envelope_and_a_ripple_vanishes() {
        let mut envelope = Envelope::new(2048, 44_100, 0.002);
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

    #[test]
    fn the_true_envelope_goes_along_the_peaks_where_the_smoothed_spectrum_is_below_them() {
        let mut envelope = Envelope::new(512, 48_000, 0.0023);
        // Partials every 375 Hz, 40 dB above the valleys, under a slope.
        let slope = |band: usize| -3.0 * band as f32 / 256.0;
        let partial = |band: usize| if band % 4 == 2 { 0.0 } else { -4.6 };
        let logs: Vec<f32> = (0..257).map(|band| slope(band) + partial(band)).collect();
        let magnitudes: Vec<f32> = logs.iter().map(|log| log.exp()).collect();
        let smooth: Vec<f32> = envelope.of(&magnitudes).iter().map(|x| x.ln()).collect();
        let along_peaks = envelope.over_peaks(&logs);
        for band in (18..240).step_by(4) {
            assert!(smooth[band] < slope(band) - 2.0, "{band}: {}", smooth[band]);
            let off = along_peaks[band] - slope(band);
            assert!(off.abs() < 0.25, "{band}: {off}");
        }
    }
}
