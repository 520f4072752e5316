//! The spectrum of one frame, as one voice hands it to another.

use realfft::num_complex::Complex32;

use crate::mel::{LogMel, MelConfig};
use crate::vectorized;

/// The spectrum of one analysis window of sound, with its phases: `n_fft / 2 + 1` bins of a [`MelConfig`].
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    bins: Vec<Complex32>,
    /// How loud each band of the next voice's log-mel may be at most, if there is a limit.
    log_mel_limit: Option<Vec<f32>>,
}

impl Spectrum {
    /// Its bins.
    pub(crate) fn bins(&self) -> &[Complex32] {
        &self.bins
    }

    /// The same with a limit for each band of the log-mel.
    pub(crate) fn with_log_mel_limit(mut self, limit: Vec<f32>) -> Self {
        self.log_mel_limit = Some(limit);
        self
    }
}

/// Log-mel frames within the limits of as many spectra.
pub(crate) fn limited(log_mel: &LogMel, spectra: &[Spectrum]) -> LogMel {
    let mut limited = LogMel::new(log_mel.n_mels());
    for (frame, spectrum) in spectra.iter().enumerate() {
        let frame = log_mel.frame(frame);
        match &spectrum.log_mel_limit {
            Some(limit) => {
                let bands = frame.iter().zip(limit);
                let bands: Vec<f32> = bands.map(|(level, limit)| level.min(*limit)).collect();
                limited.push_frame(&bands);
            }
            None => limited.push_frame(frame),
        }
    }
    limited
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
        Spectrum {
            bins: converted.collect(),
            log_mel_limit: None,
        }
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
    use crate::guided::{FrameControls, GuidedConfig, GuidedVoice};
    use crate::mel::MelSpectrogram;
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

    /// The middle frame of a tone by main, as a network decodes it and as it is left for the next voice.
    fn decoded_and_limited(decoded_gain: f32, gain_limit: f32, is_frozen: bool) -> [Vec<f32>; 2] {
        let sound = |n: i32| 0.1 * (TAU * 440.0 * f64::from(n) / 22_050.0).sin() as f32;
        let main: Vec<f32> = (0..22_050).map(sound).collect();
        let heard = MelSpectrogram::new(&MelConfig::default())
            .unwrap()
            .log_mel(&main);
        let levels = heard.values().iter().map(|level| level + decoded_gain.ln());
        let decoded = LogMel::from_values(heard.n_mels(), levels.collect()).unwrap();
        let config = GuidedConfig {
            gain_limit,
            ..GuidedConfig::new(MelConfig::default(), 22_050, 1)
        };
        let controls = FrameControls {
            is_frozen,
            ..FrameControls::default()
        };
        let mut voice = GuidedVoice::new(&config).unwrap().with_spectra();
        voice
            .push_mel(&decoded, &vec![controls; decoded.frames()])
            .unwrap();
        voice
            .push_audio(&[&main], &[&vec![0.0; main.len()]])
            .unwrap();
        voice.finish(&mut [Vec::new()]).unwrap();
        let mut spectra = voice.take_spectra();
        spectra.truncate(decoded.frames());
        let frame = decoded.frames() / 2;
        [&decoded, &limited(&decoded, &spectra)].map(|mel| mel.frame(frame).to_vec())
    }

    #[test]
    fn a_band_far_louder_than_the_inputs_is_limited_unless_a_loop_accounts_for_it() {
        let loudest = |levels: &[f32]| levels.iter().copied().fold(f32::MIN, f32::max);
        let [decoded, limited] = decoded_and_limited(40.0, 6.0, false);
        let lowered = loudest(&decoded) - loudest(&limited);
        assert!((lowered - (40.0 / 6.0_f32).ln()).abs() < 0.02, "{lowered}");
        let [decoded, limited] = decoded_and_limited(5.9, 6.0, false);
        assert!(loudest(&decoded) == loudest(&limited));
        let [decoded, limited] = decoded_and_limited(40.0, 6.0, true);
        assert_eq!(decoded, limited);
    }
}
