//! Levels of a voice that shapes whole sources.

use realfft::num_complex::Complex32;

use super::{Correction, Framing, Parts, SourceGains, SourceLevel, loudness, match_gains};
use crate::simd::sum;
use crate::vectorized;

/// Running levels of both sources and of the output.
pub(in crate::guided) struct ShapedLevels {
    framing: Framing,
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
            framing: Framing::new(sample_rate_hz, n_fft, hop_seconds, channels),
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
            level.next_frame((energy.into(), Parts::default()), self.framing.keep);
        }
        let variation = f64::from(variation);
        let [main_loudness, sidechain_loudness] =
            [main, sidechain].map(|spectra| loudness(spectra, &self.framing.weights));
        self.target = (1.0 - variation) * main_loudness + variation * sidechain_loudness;
        let rms = [&self.main, &self.sidechain];
        let [main, sidechain] = match_gains(
            rms.map(|level| (level.energy() * self.framing.mean_square).sqrt()),
            variation,
        );
        SourceGains {
            main: main as f32,
            sidechain: sidechain as f32,
        }
    }

    /// The gain of the output's current frame: it brings the loudness of the last second to that of the source of the variation.
    pub(in crate::guided) fn output_gain(&mut self, mixture: &[Complex32]) -> f32 {
        let found = loudness(mixture, &self.framing.weights);
        self.correction
            .next_frame(self.target, found, self.framing.keep_corrected);
        self.correction.gain(self.framing.settling_frames) as f32
    }
}
