//! The spectrum of one frame, as one voice hands it to another.

use realfft::num_complex::Complex32;

use crate::mel::MelConfig;
use crate::vectorized;

/// The spectrum of one analysis window of sound, with its phases: `n_fft / 2 + 1` bins of a [`MelConfig`].
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum(Vec<Complex32>);

impl Spectrum {
    /// Its bins.
    pub(crate) fn bins(&self) -> &[Complex32] {
        &self.0
    }
}

/// Multiplies spectra, channel by channel, by the gain of each bin.
pub(crate) fn multiply(spectra: &mut [Complex32], bin_gains: &[f32]) {
    vectorized!({
        for spectrum in spectra.chunks_exact_mut(bin_gains.len()) {
            for (bin, gain) in spectrum.iter_mut().zip(bin_gains) {
                *bin *= gain;
            }
        }
    });
}

/// Converts spectra of the host's rate to those of a [`MelConfig`], whose analysis windows last as long, except for
/// rounding.
pub(crate) struct Conversion {
    n_bins: usize,
    /// Bins of the source per bin.
    ratio: f64,
    scale: f32,
}

impl Conversion {
    /// For frames of `n_fft` samples at `sample_rate_hz`.
    pub(crate) fn new(mel: &MelConfig, sample_rate_hz: f64, n_fft: usize) -> Self {
        let seconds = |samples: usize, rate_hz: f64| samples as f64 / rate_hz;
        Self {
            n_bins: mel.n_bins(),
            ratio: seconds(n_fft, sample_rate_hz)
                / seconds(mel.n_fft, f64::from(mel.sample_rate_hz)),
            scale: mel.n_fft as f32 / n_fft as f32,
        }
    }

    /// The mean of all channels of `spectra`, channel by channel, of `n_bins` bins each. Above the source's highest
    /// frequency, there is nothing.
    ///
    /// The phase of a sound in the middle of a window alternates from bin to bin, so bins are interpolated with
    /// alternating signs.
    pub(crate) fn middle(&self, spectra: &[Complex32], n_bins: usize) -> Spectrum {
        let scale = self.scale * n_bins as f32 / spectra.len() as f32;
        let sign = |bin: usize| if bin.is_multiple_of(2) { 1.0 } else { -1.0 };
        let mut centred = vec![Complex32::default(); n_bins];
        for channel in spectra.chunks_exact(n_bins) {
            for (bin, (sum, value)) in centred.iter_mut().zip(channel).enumerate() {
                *sum += value * (scale * sign(bin));
            }
        }
        // The spectrum of real sound continues below 0 as its conjugate.
        let at = |bin: isize| {
            let value = centred.get(bin.unsigned_abs()).copied().unwrap_or_default();
            if bin < 0 { value.conj() } else { value }
        };
        let converted = (0..self.n_bins).map(|bin| {
            let place = bin as f64 * self.ratio;
            let below = place as isize;
            let weights = cubic_weights((place - below as f64) as f32);
            let taps = (below - 1..).zip(weights);
            let sum: Complex32 = taps.map(|(bin, weight)| at(bin) * weight).sum();
            sum * sign(bin)
        });
        Spectrum(converted.collect())
    }
}

/// Weights of the four nearest values for one that is `share` of the way between the middle two (Catmull and Rom, 1974).
fn cubic_weights(share: f32) -> [f32; 4] {
    let (one, two, three) = (share, share * share, share * share * share);
    [
        0.5 * (2.0 * two - one - three),
        0.5 * (2.0 - 5.0 * two + 3.0 * three),
        0.5 * (one + 4.0 * two - 3.0 * three),
        0.5 * (three - two),
    ]
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;
    use crate::stft::FrameTransform;

    /// A tone and a click that is 10 ms before the middle, as analysed at a rate, the middle being that of the frame.
    fn analysed(sample_rate_hz: f64, n_fft: usize, gain: f32) -> Vec<Complex32> {
        let width_s = 1e-4;
        let sound = |n: usize| {
            let time_s = (n as f64 - n_fft as f64 / 2.0) / sample_rate_hz;
            let click = (-0.5 * ((time_s + 0.01) / width_s).powi(2)).exp();
            gain * (0.3 * (TAU * 440.0 * time_s + 1.0).sin() + click) as f32
        };
        let samples: Vec<f32> = (0..n_fft).map(sound).collect();
        let mut spectrum = vec![Complex32::default(); n_fft / 2 + 1];
        FrameTransform::new(n_fft).forward(&samples, &mut spectrum);
        spectrum
    }

    #[test]
    fn a_frame_of_the_host_is_that_of_the_model() {
        let mel = MelConfig::default();
        let expected = analysed(22_050.0, 2048, 1.0);
        // Cubic interpolation halfway between two bins of a tone's Hann lobe is off by 6.6 %: -23.6 dB.
        let cases = [
            (22_050.0, 2048, -25.0),
            (44_100.0, 4096, -25.0),
            (48_000.0, 4500, -23.5),
        ];
        for (rate_hz, n_fft, limit_db) in cases {
            let n_bins = n_fft / 2 + 1;
            // The mean of two channels.
            let [left, right] = [1.5, 0.5].map(|gain| analysed(rate_hz, n_fft, gain));
            let conversion = Conversion::new(&mel, rate_hz, n_fft);
            let found = conversion.middle(&[left, right].concat(), n_bins);
            let energy = |bins: &mut dyn Iterator<Item = Complex32>| -> f32 {
                bins.map(|bin| bin.norm_sqr()).sum()
            };
            // Up to 5 kHz, which the click hardly exceeds.
            let pairs = found.bins().iter().zip(&expected).take(465);
            let error = energy(&mut pairs.map(|(found, expected)| found - expected));
            let error_db = 10.0 * (error / energy(&mut expected.iter().copied())).log10();
            assert!(error_db < limit_db, "{rate_hz} Hz: {error_db:.1} dB");
        }
    }
}
