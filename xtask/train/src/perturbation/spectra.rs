//! Magnitude spectrograms of single sounds, also as if they were shifted in pitch.
//!
//! A shift by a ratio `r` is an analysis with a window of `r * n_fft` samples, read as bins of the standard analysis, as in
//! [`shifted_mel`](crate::shifted_mel).

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use realfft::num_complex::Complex32;
use realfft::{RealFftPlanner, RealToComplex};
use serde::{Deserialize, Serialize};
use vocoder::AnalysisWindow;

/// Lower limit of magnitudes before the logarithm, in relation to their mean.
const FLOOR: f32 = 1e-5;

/// Frames at the end whose mean magnitude is below this share of the loudest frame's (-80 dB) are silent.
const SILENCE: f32 = 1e-4;

/// Settings of the analysis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// Sample rate of the sounds.
    pub sample_rate_hz: u32,
    /// Length of the analysis window and of the Fourier transform, in samples.
    pub n_fft: usize,
    /// Distance between frames, in samples.
    pub hop_length: usize,
    /// Frames of a sound, from its onset on.
    pub frames: usize,
    /// Cepstral coefficients of an envelope.
    pub cut: usize,
}

impl Analysis {
    /// Bins of a spectrum.
    pub fn bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Samples that the frames of a sound stand for.
    pub fn samples(&self) -> usize {
        self.frames * self.hop_length
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// Returns an error if one is out of range.
    pub fn check(&self) -> Result<()> {
        let Self {
            sample_rate_hz,
            n_fft,
            hop_length,
            frames,
            cut,
        } = *self;
        ensure!(
            sample_rate_hz >= 8000 && (16..=65_536).contains(&n_fft) && n_fft.is_multiple_of(2),
            "analysis: expected a sample rate from 8000 Hz and an even n_fft from 16 to 65536, found {sample_rate_hz} and {n_fft}"
        );
        ensure!(
            (1..=n_fft).contains(&hop_length) && frames >= 1 && (1..=n_fft / 2).contains(&cut),
            "analysis: expected hop_length from 1 to n_fft, frames from 1, cut from 1 to n_fft / 2, found {hop_length}, {frames} \
             and {cut}"
        );
        Ok(())
    }
}

/// Computes spectrograms.
pub struct Spectra {
    settings: Analysis,
    planner: RealFftPlanner<f32>,
    /// By length.
    transforms: HashMap<usize, Transform>,
}

/// Window and transform of one length.
struct Transform {
    window: Vec<f32>,
    fft: Arc<dyn RealToComplex<f32>>,
    frame: Vec<f32>,
    spectrum: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Transform {
    fn new(length: usize, planner: &mut RealFftPlanner<f32>) -> Self {
        let fft = planner.plan_fft_forward(length);
        let weights = AnalysisWindow::Symmetric.weights(length).into_iter();
        Self {
            window: weights.map(|weight| weight as f32).collect(),
            frame: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
        }
    }
}

impl Clone for Spectra {
    /// Clones with separate transforms and scratch memory.
    fn clone(&self) -> Self {
        Self::new(self.settings.clone())
    }
}

impl Spectra {
    /// Spectrograms with these settings.
    pub fn new(settings: Analysis) -> Self {
        Self {
            settings,
            planner: RealFftPlanner::new(),
            transforms: HashMap::new(),
        }
    }

    /// Magnitudes `(frames, bins)` of a sound that begins with `samples` and is shifted by `semitones`. Frame `i` is centred on
    /// `(i + 1/2) * hop_length`; there is silence around the samples.
    ///
    /// # Errors
    ///
    /// Returns an error if the transform fails.
    pub fn magnitudes(&mut self, samples: &[f32], semitones: i32) -> Result<Vec<f32>> {
        let Analysis {
            n_fft,
            hop_length,
            frames,
            ..
        } = self.settings;
        let length = window_samples(n_fft, semitones);
        let transform = self
            .transforms
            .entry(length)
            .or_insert_with(|| Transform::new(length, &mut self.planner));
        let bins = self.settings.bins();
        let scale = n_fft as f32 / length as f32;
        let mut magnitudes = vec![0.0; frames * bins];
        for (index, row) in magnitudes.chunks_exact_mut(bins).enumerate() {
            let start = (index * hop_length + hop_length / 2) as isize - (length / 2) as isize;
            let places = (start..).zip(&transform.window);
            for (value, (place, weight)) in transform.frame.iter_mut().zip(places) {
                let sample = usize::try_from(place)
                    .ok()
                    .and_then(|place| samples.get(place));
                *value = weight * sample.copied().unwrap_or(0.0);
            }
            transform.fft.process_with_scratch(
                &mut transform.frame,
                &mut transform.spectrum,
                &mut transform.scratch,
            )?;
            // A longer transform has more bins, a shorter one fewer.
            for (magnitude, bin) in row.iter_mut().zip(&transform.spectrum) {
                *magnitude = scale * (bin.re * bin.re + bin.im * bin.im).sqrt();
            }
        }
        Ok(magnitudes)
    }

    /// Frames of magnitudes up to the last that is not silent, at least one.
    pub fn sounding_frames(&self, magnitudes: &[f32]) -> usize {
        let rows = magnitudes.chunks_exact(self.settings.bins());
        let levels: Vec<f32> = rows.map(|row| row.iter().sum()).collect();
        let loudest = levels.iter().copied().fold(0.0, f32::max);
        let last = levels.iter().rposition(|level| *level > SILENCE * loudest);
        last.map_or(1, |last| last + 1)
    }

    /// Replaces magnitudes by the logarithms of magnitudes whose mean over the first `frames` frames is 1. Returns the logarithm
    /// of their mean before.
    pub fn normalise(&self, magnitudes: &mut [f32], frames: usize) -> f32 {
        let counted = &magnitudes[..frames * self.settings.bins()];
        let sum: f64 = counted.iter().map(|magnitude| f64::from(*magnitude)).sum();
        let mean = (sum / counted.len() as f64).max(f64::from(f32::MIN_POSITIVE)) as f32;
        for magnitude in magnitudes {
            *magnitude = (*magnitude / mean).max(FLOOR).ln();
        }
        mean.ln()
    }
}

/// Largest prime factor of a window's length, for a fast transform.
const LARGEST_FACTOR: usize = 13;

/// The even length without large prime factors that is nearest to `n_fft * 2^(semitones / 12)`.
fn window_samples(n_fft: usize, semitones: i32) -> usize {
    if semitones == 0 {
        return n_fft;
    }
    let exact = n_fft as f64 * (f64::from(semitones) / 12.0).exp2();
    let nearest = 2 * (exact / 2.0).round() as usize;
    let lengths = (0..nearest / 2).flat_map(|off| [nearest - 2 * off, nearest + 2 * off]);
    let mut fast = lengths.filter(|length| {
        let divided = (2..=LARGEST_FACTOR).fold(*length, |mut rest, factor| {
            while rest.is_multiple_of(factor) {
                rest /= factor;
            }
            rest
        });
        divided == 1
    });
    fast.next().unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Analysis {
        Analysis {
            sample_rate_hz: 22_050,
            n_fft: 2048,
            hop_length: 512,
            frames: 20,
            cut: 50,
        }
    }

    fn harmonics(hz: f64, samples: usize) -> Vec<f32> {
        let phase = |n: usize| std::f64::consts::TAU * hz * n as f64 / 22_050.0;
        let sample = |n: usize| {
            (1..=10)
                .map(|k| (phase(n) * f64::from(k)).sin())
                .sum::<f64>()
        };
        (0..samples).map(|n| 0.05 * sample(n) as f32).collect()
    }

    #[test]
    fn shifts_put_partials_where_the_other_note_has_them() {
        let mut spectra = Spectra::new(settings());
        for semitones in [-7, -3, 1, 7] {
            let ratio = (f64::from(semitones) / 12.0).exp2();
            let shifted = spectra
                .magnitudes(&harmonics(440.0, 10_240), semitones)
                .unwrap();
            let played = spectra
                .magnitudes(&harmonics(440.0 * ratio, 10_240), 0)
                .unwrap();
            for partial in 1..=8 {
                let bin = 440.0 * ratio * f64::from(partial) * 2048.0 / 22_050.0;
                let near = 10 * 1025 + bin.round() as usize - 1;
                let peak = |magnitudes: &[f32]| {
                    magnitudes[near..near + 3]
                        .iter()
                        .copied()
                        .fold(0.0, f32::max)
                };
                let (found, expected) = (peak(&shifted), peak(&played));
                assert!(
                    (found / expected).ln().abs() < 0.25,
                    "{semitones}, {partial}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn windows_are_near_and_fast() {
        for n_fft in [2048, 4096] {
            for semitones in -12..=12 {
                let exact = n_fft as f64 * (f64::from(semitones) / 12.0).exp2();
                let cents = 1200.0 * (window_samples(n_fft, semitones) as f64 / exact).log2();
                assert!(cents.abs() < 15.0, "{n_fft}, {semitones}: {cents} cents");
            }
        }
    }

    #[test]
    fn levels_are_taken_out_and_the_end_is_found() {
        let spectra = Spectra::new(settings());
        let mut analysis = spectra.clone();
        let mut sound = harmonics(440.0, 10 * 512);
        let sounding = {
            let magnitudes = analysis.magnitudes(&sound, 0).unwrap();
            spectra.sounding_frames(&magnitudes)
        };
        // The window of 4 frames ends later.
        assert!((10..=12).contains(&sounding), "{sounding}");
        let mut normalised = |sound: &[f32]| {
            let mut magnitudes = analysis.magnitudes(sound, 0).unwrap();
            let level = spectra.normalise(&mut magnitudes, sounding);
            (magnitudes, level)
        };
        let (loud, loud_level) = normalised(&sound);
        sound.iter_mut().for_each(|sample| *sample *= 0.1);
        let (soft, soft_level) = normalised(&sound);
        assert!((loud_level - soft_level - 10f32.ln()).abs() < 1e-3);
        for (loud, soft) in loud.iter().zip(&soft) {
            // Below this, there is only the rounding of the transform.
            assert!(
                (loud.max(-8.0) - soft.max(-8.0)).abs() < 0.01,
                "{loud} {soft}"
            );
        }
        let counted = &loud[..sounding * 1025];
        let mean = counted.iter().map(|value| value.exp()).sum::<f32>() / counted.len() as f32;
        assert!((mean - 1.0).abs() < 1e-2, "{mean}");
        assert_eq!(spectra.sounding_frames(&vec![0.0; 20 * 1025]), 1);
    }
}
