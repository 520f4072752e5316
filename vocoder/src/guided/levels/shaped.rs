//! Levels of a voice that shapes whole sources.

use realfft::num_complex::Complex32;

use super::{
    AVERAGING_SECONDS, CORRECTION_SECONDS, Correction, Parts, SETTLING_SECONDS, SourceGains,
    SourceLevel, loudness, loudness_weights, match_gains, mean_square,
};
use crate::simd::sum;
use crate::vectorized;

/// Running levels of both sources and of the output.
pub(in crate::guided) struct ShapedLevels {
    /// Share of the past that is kept from frame to frame.
    keep: f64,
    /// The same for the correction.
    keep_corrected: f64,
    settling_frames: f64,
    /// Factor from the energy of a frame to the mean square of its samples.
    mean_square: f64,
    /// Loudness weights of the bins.
    weights: Vec<f32>,
    main: SourceLevel,
    sidechain: SourceLevel,
    correction: Correction,
    /// Loudness that the current frame should have.
    target: f64,
}

impl ShapedLevels {
    /// Creates running levels for frames of `n_fft` samples at `sample_rate_hz`, `hop_seconds` apart, in so many channels.
    pub(in crate::guided) fn new(
        sample_rate_hz: f64,
        n_fft: usize,
        hop_seconds: f64,
        channels: usize,
    ) -> Self {
        Self {
            keep: (-hop_seconds / AVERAGING_SECONDS).exp(),
            keep_corrected: (-hop_seconds / CORRECTION_SECONDS).exp(),
            settling_frames: SETTLING_SECONDS / hop_seconds,
            mean_square: mean_square(n_fft, channels),
            weights: loudness_weights(sample_rate_hz, n_fft).collect(),
            main: SourceLevel::default(),
            sidechain: SourceLevel::default(),
            correction: Correction::default(),
            target: 0.0,
        }
    }

    pub(in crate::guided) fn reset(&mut self) {
        self.main = SourceLevel::default();
        self.sidechain = SourceLevel::default();
        self.correction = Correction::default();
    }

    /// Takes the next frame, channel by channel. Returns the gains that bring both sources to the level of the source of the
    /// variation: at a share of 0 the main input, at 1 the sidechain.
    pub(in crate::guided) fn next_frame(
        &mut self,
        [main, sidechain]: [&[Complex32]; 2],
        variation: f32,
    ) -> SourceGains {
        for (level, spectra) in [(&mut self.main, main), (&mut self.sidechain, sidechain)] {
            let energy = vectorized!(sum(spectra, [], |bin, []| bin.norm_sqr()));
            level.next_frame((energy.into(), Parts::default()), self.keep);
        }
        let variation = f64::from(variation);
        let [main_loudness, sidechain_loudness] =
            [main, sidechain].map(|spectra| loudness(spectra, &self.weights));
        self.target = (1.0 - variation) * main_loudness + variation * sidechain_loudness;
        let rms = [&self.main, &self.sidechain];
        let [main, sidechain] = match_gains(
            rms.map(|level| (level.energy() * self.mean_square).sqrt()),
            variation,
        );
        SourceGains {
            main: main as f32,
            sidechain: sidechain as f32,
        }
    }

    /// The gain of the output's current frame: it brings the loudness of the last second to that of the source of the variation.
    pub(in crate::guided) fn output_gain(&mut self, mixture: &[Complex32]) -> f32 {
        let found = loudness(mixture, &self.weights);
        self.correction
            .next_frame(self.target, found, self.keep_corrected);
        self.correction.gain(self.settling_frames) as f32
    }
}
