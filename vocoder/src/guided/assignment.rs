//! Decides which sound a mel band is filled with: tones or strokes.
//!
//! Neither part is pure. The strokes of one source bring remains of its tones, and the tones of the other remains of its
//! strokes. Where the remains of one part meet the sound of the other, they give way.

use realfft::num_complex::Complex32;

use super::bands::{BandToBin, Bands};
use super::levels::SourceGains;
use super::{FrameControls, GuidedConfig};
use crate::mel::{MelConfig, MelFilterBank};
use crate::spectrum::multiply;

/// Strokes count by this factor more than tones.
const STROKE_FACTOR: f32 = 2.0;

/// Shares of tones and strokes in each band of the current frame.
pub(super) struct Assignment {
    mel: MelConfig,
    tones: Evidence,
    strokes: Evidence,
    shifted_tones: Vec<f32>,
    /// With a neighbour for the top band.
    tone_shares: Vec<f32>,
    stroke_shares: Vec<f32>,
    bin_shares: Vec<f32>,
}

impl Assignment {
    pub(super) fn new(config: &GuidedConfig, filter_bank: &MelFilterBank) -> Self {
        let n_mels = config.mel.n_mels;
        Self {
            tones: Evidence::new(n_mels),
            strokes: Evidence::new(n_mels),
            shifted_tones: vec![0.0; n_mels],
            tone_shares: vec![0.0; n_mels + 1],
            stroke_shares: vec![0.0; n_mels + 1],
            bin_shares: vec![0.0; filter_bank.n_bins()],
            mel: config.mel.clone(),
        }
    }

    /// Takes the tones before they are transposed, and the strokes, both channel by channel. `sources` are the spectra
    /// that they come from.
    pub(super) fn set_parts(
        &mut self,
        tones: &[Complex32],
        strokes: &[Complex32],
        sources: (&[Complex32], &[Complex32]),
        gains: SourceGains,
        controls: &FrameControls,
        bands: &mut Bands,
    ) {
        for (evidence, part, knob) in [
            (&mut self.tones, tones, controls.harmony),
            (&mut self.strokes, strokes, controls.rhythm),
        ] {
            bands.of(part, &mut evidence.part);
            let (main, sidechain) = sources;
            let (main_gain, sidechain_gain) = ((1.0 - knob) * gains.main, knob * gains.sidechain);
            let whole = [(main, main_gain), (sidechain, sidechain_gain)];
            bands.of_sum(whole, &mut evidence.whole);
        }
    }

    /// Weights tones, which are transposed now, and strokes by their shares.
    ///
    /// A part counts in a band by its magnitude times its purity: its share of the sound that it comes from. The more
    /// the parts come from one source, the less they give way: with both knobs at one source, that source stays whole.
    pub(super) fn apply(
        &mut self,
        tones: &mut [Complex32],
        strokes: &mut [Complex32],
        controls: &FrameControls,
        bands: &mut Bands,
        band_to_bin: &BandToBin,
    ) {
        let transposed = controls.transpose_semitones != 0;
        match transposed {
            true => bands.of(tones, &mut self.shifted_tones),
            false => self.shifted_tones.copy_from_slice(&self.tones.part),
        }
        let interval = (f64::from(controls.transpose_semitones) / 12.0).exp2();
        let exponent = (controls.harmony - controls.rhythm).abs();
        let n_mels = self.shifted_tones.len();
        for band in 0..n_mels {
            let origin = match transposed {
                true => band_of_origin(&self.mel, band, interval),
                false => band,
            };
            let tone = self.shifted_tones[band] * self.tones.purity(origin);
            let stroke = STROKE_FACTOR * self.strokes.part[band] * self.strokes.purity(band);
            let both = (tone * tone + stroke * stroke).sqrt();
            (self.tone_shares[band], self.stroke_shares[band]) = match both > 0.0 {
                true => ((tone / both).powf(exponent), (stroke / both).powf(exponent)),
                false => (1.0, 1.0),
            };
        }
        // Strokes last, as their shares are asked for.
        for (shares, part) in [
            (&mut self.tone_shares, tones),
            (&mut self.stroke_shares, strokes),
        ] {
            shares[n_mels] = shares[n_mels - 1];
            band_to_bin.spread(shares, &mut self.bin_shares);
            multiply(part, &self.bin_shares);
        }
    }

    /// The shares of strokes that were applied last, bin by bin.
    pub(super) fn stroke_bin_shares(&self) -> &[f32] {
        &self.bin_shares
    }
}

/// Mel of a part, and of the sound that it is a part of.
struct Evidence {
    part: Vec<f32>,
    whole: Vec<f32>,
}

impl Evidence {
    fn new(n_mels: usize) -> Self {
        Self {
            part: vec![0.0; n_mels],
            whole: vec![0.0; n_mels],
        }
    }

    fn purity(&self, band: usize) -> f32 {
        self.part[band] / self.whole[band].max(f32::MIN_POSITIVE)
    }
}

/// The band whose tones reach `band` when transposed by the factor `interval`.
fn band_of_origin(mel: &MelConfig, band: usize, interval: f64) -> usize {
    let origin = mel.band_at_hz(mel.band_centre_hz(band as f64) / interval);
    (origin.round().max(0.0) as usize).min(mel.n_mels - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bin of a tone and of a stroke after the assignment. Both parts have magnitude 1; their sources have these.
    fn assigned(main: f32, sidechain: f32, controls: FrameControls) -> [f32; 2] {
        const BIN: usize = 100;
        let config = GuidedConfig::new(MelConfig::default(), 22_050, 1);
        let filter_bank = MelFilterBank::new(&config.mel).unwrap();
        let spectrum = |magnitude: f32| {
            let mut spectrum = vec![Complex32::default(); filter_bank.n_bins()];
            spectrum[BIN].re = magnitude;
            spectrum
        };
        let (mut tones, mut strokes) = (spectrum(1.0), spectrum(1.0));
        let (main, sidechain) = (spectrum(main), spectrum(sidechain));
        let gains = SourceGains {
            main: 1.0,
            sidechain: 1.0,
        };
        let mut assignment = Assignment::new(&config, &filter_bank);
        let band_to_bin = BandToBin::new(&filter_bank);
        let mut bands = Bands::new(filter_bank, 1.0);
        let sources = (main.as_slice(), sidechain.as_slice());
        assignment.set_parts(&tones, &strokes, sources, gains, &controls, &mut bands);
        assignment.apply(
            &mut tones,
            &mut strokes,
            &controls,
            &mut bands,
            &band_to_bin,
        );
        [tones[BIN].re, strokes[BIN].re]
    }

    #[test]
    fn remains_give_way_to_the_sound_of_the_other_source() {
        let apart = FrameControls {
            rhythm: 1.0,
            ..FrameControls::default()
        };
        // A pure tone, and remains of a loud tone among the strokes; then a pure stroke, and remains among the tones.
        let [tone, remains] = assigned(1.0, 10.0, apart);
        assert!(tone > 0.95 && remains < 0.25, "{tone} {remains}");
        let [remains, stroke] = assigned(10.0, 1.0, apart);
        assert!(stroke > 0.95 && remains < 0.1, "{stroke} {remains}");
    }

    #[test]
    fn one_source_stays_whole() {
        for knob in [0.0, 1.0] {
            let together = FrameControls {
                harmony: knob,
                rhythm: knob,
                ..FrameControls::default()
            };
            assert_eq!(assigned(10.0, 10.0, together), [1.0, 1.0]);
        }
    }

    #[test]
    fn transposed_bands_come_from_bands_below() {
        let mel = MelConfig::default();
        let band = mel.band_at_hz(880.0).round() as usize;
        let origin = band_of_origin(&mel, band, 2.0);
        assert!((mel.band_at_hz(440.0) - origin as f64).abs() < 1.0);
        assert_eq!(band_of_origin(&mel, 127, 0.5), 127);
    }
}
