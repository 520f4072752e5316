//! Log-mels of pitch-shifted audio, without shifting the audio.
//!
//! Audio that is shifted in pitch by a ratio `r` at unchanged tempo has, around any moment, the
//! spectrum of the original stretched along frequency by `r`. An analysis of the *original* with a
//! window of `r * n_fft` samples around the same moment puts the frequency `f` into bin
//! `f * r * n_fft / rate`; read as bins of the standard analysis, these are the frequencies `f * r`.
//! Magnitudes are scaled by `1 / r`, the ratio of the windows' sums. So a shifted log-mel costs as
//! much as a plain one and has none of the artefacts of a time stretcher. Two things differ from a
//! shift of the sound itself: a frame sees `r` times as much time, and a shift down leaves nothing
//! above `r` times the highest frequency (as it would in any shifter).

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use realfft::num_complex::Complex32;
use realfft::{RealFftPlanner, RealToComplex};
use vocoder::{MEL_FLOOR, MelConfig, MelFilterBank};

use super::audio_cache::Pcm;

/// Analyses stretches of a track as if they were shifted in pitch.
pub struct ShiftedMel {
    config: MelConfig,
    filters: MelFilterBank,
    planner: RealFftPlanner<f32>,
    analyses: HashMap<i32, Analysis>,
    magnitude: Vec<f32>,
    mel: Vec<f32>,
}

/// Window and transform for one shift.
struct Analysis {
    /// Periodic Hann window; its length is that of the transform.
    window: Vec<f32>,
    /// What brings a magnitude to that of the standard window.
    scale: f32,
    fft: Arc<dyn RealToComplex<f32>>,
    frame: Vec<f32>,
    spectrum: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Analysis {
    fn new(n_fft: usize, semitones: i32, planner: &mut RealFftPlanner<f32>) -> Self {
        let length = window_samples(n_fft, semitones);
        let step = std::f64::consts::TAU / length as f64;
        let fft = planner.plan_fft_forward(length);
        Self {
            window: (0..length)
                .map(|n| (0.5 - 0.5 * (step * n as f64).cos()) as f32)
                .collect(),
            scale: n_fft as f32 / length as f32,
            frame: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
        }
    }
}

/// The even length nearest to `n_fft * 2^(semitones / 12)`: less than 2 cents off for shifts of an
/// octave and `n_fft` of 2048.
fn window_samples(n_fft: usize, semitones: i32) -> usize {
    let exact = n_fft as f64 * (f64::from(semitones) / 12.0).exp2();
    2 * (exact / 2.0).round() as usize
}

/// A stretch of frames to analyse.
#[derive(Debug, Clone, Copy)]
pub struct Crop {
    /// Sample of the track where the stretch begins; frame `i` is centred
    /// `i * hop_length + hop_length / 2` samples after it, as in a log-mel of the stretch alone.
    pub start_samples: usize,
    /// Number of frames.
    pub frames: usize,
    /// Shift of the pitch.
    pub semitones: i32,
    /// Factor on all magnitudes.
    pub gain: f32,
}

impl ShiftedMel {
    /// # Errors
    ///
    /// When `config` is not valid.
    pub fn new(config: &MelConfig) -> Result<Self> {
        let filters = MelFilterBank::new(config)?;
        Ok(Self {
            magnitude: vec![0.0; filters.n_bins()],
            mel: vec![0.0; filters.n_mels()],
            filters,
            config: config.clone(),
            planner: RealFftPlanner::new(),
            analyses: HashMap::new(),
        })
    }

    /// Writes the log-mel of `crop` to `out`, `(n_mels, frames)` with the frames of one band in a row.
    ///
    /// Frames see the audio around the crop; only beyond the ends of the track it is reflected.
    ///
    /// # Errors
    ///
    /// When the crop does not lie within the track, or `out` has another length.
    pub fn log_mel(&mut self, track: &Pcm, crop: Crop, out: &mut [f32]) -> Result<()> {
        let samples = &track.samples;
        let hop_length = self.config.hop_length;
        let end = crop.start_samples + crop.frames * hop_length;
        ensure!(
            end <= samples.len(),
            "expected a crop within the {} samples of the track, found one that ends at {end}",
            samples.len()
        );
        ensure!(
            out.len() == crop.frames * self.mel.len(),
            "expected room for {} values, found {}",
            crop.frames * self.mel.len(),
            out.len()
        );
        let analysis = self
            .analyses
            .entry(crop.semitones)
            .or_insert_with(|| Analysis::new(self.config.n_fft, crop.semitones, &mut self.planner));
        let scale = analysis.scale * crop.gain * track.level;
        let half_window = (analysis.window.len() / 2) as isize;
        for frame in 0..crop.frames {
            let centre = (crop.start_samples + frame * hop_length + hop_length / 2) as isize;
            read_reflected(samples, centre - half_window, &mut analysis.frame);
            for (sample, window) in analysis.frame.iter_mut().zip(&analysis.window) {
                *sample *= window;
            }
            analysis.fft.process_with_scratch(
                &mut analysis.frame,
                &mut analysis.spectrum,
                &mut analysis.scratch,
            )?;
            // A longer transform has more bins than the filters need, a shorter one fewer.
            self.magnitude.fill(0.0);
            for (magnitude, bin) in self.magnitude.iter_mut().zip(&analysis.spectrum) {
                *magnitude = scale * (bin.re * bin.re + bin.im * bin.im).sqrt();
            }
            self.filters.apply(&self.magnitude, &mut self.mel);
            for (row, value) in out.chunks_exact_mut(crop.frames).zip(&self.mel) {
                row[frame] = value.max(MEL_FLOOR).ln();
            }
        }
        Ok(())
    }
}

/// Copies the samples from `start` on; beyond the ends of the track it is mirrored about its first
/// and last sample.
fn read_reflected(track: &[i16], start: isize, out: &mut [f32]) {
    let last = track.len() as isize - 1;
    if start >= 0 && start + out.len() as isize <= last + 1 {
        let samples = &track[start as usize..start as usize + out.len()];
        for (out, &sample) in out.iter_mut().zip(samples) {
            *out = f32::from(sample);
        }
        return;
    }
    for (index, out) in (start..).zip(out.iter_mut()) {
        // Windows are shorter than any track that crops are taken from, so one reflection is enough.
        let index = if index > last {
            2 * last - index
        } else {
            index.abs()
        };
        *out = f32::from(track[index.clamp(0, last) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vocoder::MelSpectrogram;

    const RATE_HZ: f64 = 22_050.0;

    /// A note whose harmonics swell and fade, each in its own time, shifted by `semitones`.
    fn note(semitones: i32, samples: usize) -> Pcm {
        let base_hz = 220.0 * (f64::from(semitones) / 12.0).exp2();
        let harmonic = |number: f64, seconds: f64| {
            let swell = (12.0 * seconds + number).sin();
            let phase = std::f64::consts::TAU * base_hz * number * seconds;
            (2.0 * swell).exp() / number * phase.sin()
        };
        let audio: Vec<f32> = (0..samples)
            .map(|n| n as f64 / RATE_HZ)
            .map(|seconds| {
                (1..=18)
                    .map(|n| harmonic(f64::from(n), seconds))
                    .sum::<f64>() as f32
            })
            .collect();
        let mut pcm = Pcm::normalised(&audio, RATE_HZ as u32).unwrap();
        // Loudness must not differ between the shifts that are compared.
        pcm.level = 0.1 / f32::from(i16::MAX) * audio.iter().fold(0.0, |peak, x| x.abs().max(peak));
        pcm
    }

    fn log_mel(track: &Pcm, start_samples: usize, frames: usize, semitones: i32) -> Vec<f32> {
        let mut out = vec![0.0; 128 * frames];
        let crop = Crop {
            start_samples,
            frames,
            semitones,
            gain: 1.0,
        };
        ShiftedMel::new(&MelConfig::default())
            .unwrap()
            .log_mel(track, crop, &mut out)
            .unwrap();
        out
    }

    #[test]
    fn without_a_shift_it_is_the_plain_log_mel_also_at_the_ends() {
        let track = note(0, 40 * 512);
        let audio: Vec<f32> = track
            .samples
            .iter()
            .map(|&x| f32::from(x) * track.level)
            .collect();
        let whole = MelSpectrogram::new(&MelConfig::default())
            .unwrap()
            .log_mel(&audio);
        for first_frame in [0, 7, 30] {
            let crop = log_mel(&track, first_frame * 512, 10, 0);
            for frame in 0..10 {
                for (mel, expected) in whole.frame(first_frame + frame).iter().enumerate() {
                    let found = crop[mel * 10 + frame];
                    assert!(
                        (found - expected).abs() < 5e-3,
                        "{frame} {mel}: {found} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_octave_up_turns_440_hz_into_880_hz() {
        let sine = |hz: f64| Pcm {
            samples: (0..30_000)
                .map(|n| (2e4 * (std::f64::consts::TAU * hz * f64::from(n) / RATE_HZ).sin()) as i16)
                .collect(),
            level: 1e-4,
        };
        let shifted = log_mel(&sine(440.0), 5120, 20, 12);
        let expected = log_mel(&sine(880.0), 5120, 20, 0);
        for (shifted, expected) in shifted.iter().zip(&expected) {
            // Below these levels there is only the rounding to 16 bits.
            assert!(
                (shifted.max(-4.0) - expected.max(-4.0)).abs() < 0.02,
                "{shifted} {expected}"
            );
        }
    }

    #[test]
    fn shifts_agree_with_music_played_at_the_other_pitch() {
        let frames = 60;
        for semitones in [-8, -7, -3, -1, 1, 4, 7, 8] {
            let shifted = log_mel(&note(0, 80 * 512), 5120, frames, semitones);
            let played = log_mel(&note(semitones, 80 * 512), 5120, frames, 0);
            let unshifted = log_mel(&note(0, 80 * 512), 5120, frames, 0);
            // Without the bands that only one pitch fills, and the depths between partials, where a
            // log-mel shows how the level changed within the window.
            let bands = ..80 * frames;
            let distance = |a: &[f32], b: &[f32]| {
                let sum: f32 = a[bands]
                    .iter()
                    .zip(&b[bands])
                    .map(|(a, b)| (a.max(-6.0) - b.max(-6.0)).abs())
                    .sum();
                sum / a[bands].len() as f32
            };
            let (error, reference) = (distance(&shifted, &played), distance(&unshifted, &played));
            assert!(
                error < 0.08 * reference,
                "{semitones}: {error} of {reference}"
            );
        }
    }

    #[test]
    fn windows_are_less_than_two_cents_off() {
        for semitones in -12..=12 {
            let exact = 2048.0 * (f64::from(semitones) / 12.0).exp2();
            let cents = 1200.0 * (window_samples(2048, semitones) as f64 / exact).log2();
            assert!(cents.abs() < 2.0, "{semitones}: {cents} cents");
        }
        assert_eq!(window_samples(2048, 0), 2048);
    }

    #[test]
    fn crops_outside_the_track_are_refused() {
        let track = note(0, 5000);
        let crop = Crop {
            start_samples: 0,
            frames: 10,
            semitones: 0,
            gain: 1.0,
        };
        let mut analysis = ShiftedMel::new(&MelConfig::default()).unwrap();
        assert!(analysis.log_mel(&track, crop, &mut [0.0; 1280]).is_err());
    }
}
