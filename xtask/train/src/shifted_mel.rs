//! Log-mels of pitch-shifted audio, without shifting the audio.
//!
//! Audio that is shifted in pitch by a ratio `r` at unchanged tempo has, around any moment, the spectrum of the
//! original stretched along frequency by `r`. An analysis of the *original* with a window of `r * n_fft` samples
//! around the same moment puts the frequency `f` into bin `f * r * n_fft / rate`; read as bins of the standard
//! analysis, these are the frequencies `f * r`. Magnitudes are scaled by `1 / r`, the ratio of the windows' sums. So
//! a shifted log-mel costs as much as a normal one and has no time-stretching artefacts. Two things differ from a
//! shift of the sound itself: a frame covers `r` times as much time, and a shift down leaves nothing above `r` times
//! the highest frequency (as it would in any shifter).

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use graft_material::audio_cache::Pcm;
use realfft::num_complex::Complex32;
use realfft::{RealFftPlanner, RealToComplex};
use vocoder::{AnalysisWindow, MEL_FLOOR, MelConfig, MelFilterBank};

use crate::equaliser::Equaliser;

/// Computes log-mels of sound as if it were pitch-shifted.
pub struct ShiftedMel {
    config: MelConfig,
    filters: MelFilterBank,
    planner: RealFftPlanner<f32>,
    /// By length and shape of the window.
    analyses: HashMap<(usize, AnalysisWindow), Analysis>,
    /// `(frames, n_bins)`.
    spectra: Vec<Complex32>,
    bin_gains: Vec<f32>,
    magnitude: Vec<f32>,
    mel: Vec<f32>,
}

impl Clone for ShiftedMel {
    /// Clones with separate transforms and scratch memory.
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
            filters: self.filters.clone(),
            planner: RealFftPlanner::new(),
            analyses: HashMap::new(),
            spectra: Vec::new(),
            bin_gains: self.bin_gains.clone(),
            magnitude: self.magnitude.clone(),
            mel: self.mel.clone(),
        }
    }
}

/// Window and transform for one shift.
struct Analysis {
    /// Its length is that of the transform.
    window: Vec<f32>,
    fft: Arc<dyn RealToComplex<f32>>,
    frame: Vec<f32>,
    spectrum: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Analysis {
    fn new(length: usize, window: AnalysisWindow, planner: &mut RealFftPlanner<f32>) -> Self {
        let fft = planner.plan_fft_forward(length);
        let weights = window.weights(length).into_iter();
        Self {
            window: weights.map(|weight| weight as f32).collect(),
            frame: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
        }
    }
}

/// The even length nearest to `n_fft * 2^(semitones / 12)`: less than 2 cents off for shifts of an
/// octave and `n_fft` of 2048.
fn window_samples(n_fft: usize, semitones: f64) -> usize {
    let exact = n_fft as f64 * (semitones / 12.0).exp2();
    2 * (exact / 2.0).round() as usize
}

/// A section of sound, alone or mixed with others.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// Source of the section.
    pub pcm: &'a Pcm,
    /// Sample where the stretch begins; frame `i` is centred `i * hop_length + hop_length / 2` samples
    /// after it, as in a log-mel of the stretch alone.
    pub start_samples: usize,
    /// Pitch shift in semitones; may be fractional.
    pub semitones: f64,
    /// Factor on all magnitudes.
    pub gain: f32,
    /// Filters the sound before it is shifted.
    pub equaliser: Option<&'a Equaliser>,
}

impl ShiftedMel {
    /// # Errors
    ///
    /// Returns an error if `config` is not valid.
    pub fn new(config: &MelConfig) -> Result<Self> {
        let filters = MelFilterBank::new(config)?;
        Ok(Self {
            spectra: Vec::new(),
            bin_gains: vec![1.0; filters.n_bins()],
            magnitude: vec![0.0; filters.n_bins()],
            mel: vec![0.0; filters.n_mels()],
            filters,
            config: config.clone(),
            planner: RealFftPlanner::new(),
            analyses: HashMap::new(),
        })
    }

    /// Writes the log-mel of the layers' sum to `out`, `(n_mels, frames)` with the frames of one band in a row.
    ///
    /// Frames include the audio around the sections; beyond the ends of a track the audio is reflected.
    ///
    /// # Errors
    ///
    /// Returns an error if a stretch does not lie within its track, or `out` is not made of whole bands.
    pub fn log_mel(&mut self, layers: &[Layer], out: &mut [f32]) -> Result<()> {
        self.log_mel_with(AnalysisWindow::Symmetric, layers, out)
    }

    /// The same, with another analysis window.
    ///
    /// # Errors
    ///
    /// As [`log_mel`](Self::log_mel).
    pub fn log_mel_with(
        &mut self,
        window: AnalysisWindow,
        layers: &[Layer],
        out: &mut [f32],
    ) -> Result<()> {
        ensure!(
            out.len().is_multiple_of(self.mel.len()),
            "expected room for {} bands, found {} values",
            self.mel.len(),
            out.len()
        );
        let frames = out.len() / self.mel.len();
        let n_bins = self.filters.n_bins();
        self.spectra.clear();
        self.spectra.resize(frames * n_bins, Complex32::default());
        for layer in layers {
            self.add(layer, window, frames)?;
        }
        for (frame, spectrum) in self.spectra.chunks_exact(n_bins).enumerate() {
            for (magnitude, bin) in self.magnitude.iter_mut().zip(spectrum) {
                *magnitude = (bin.re * bin.re + bin.im * bin.im).sqrt();
            }
            self.filters.apply(&self.magnitude, &mut self.mel);
            for (row, value) in out.chunks_exact_mut(frames).zip(&self.mel) {
                row[frame] = value.max(MEL_FLOOR).ln();
            }
        }
        Ok(())
    }

    /// Adds a layer to the spectra.
    fn add(&mut self, layer: &Layer, window: AnalysisWindow, frames: usize) -> Result<()> {
        let samples = &layer.pcm.samples;
        let hop_length = self.config.hop_length;
        let end = layer.start_samples + frames * hop_length;
        ensure!(
            end <= samples.len(),
            "expected a crop within the {} samples of the track, found one that ends at {end}",
            samples.len()
        );
        let length = window_samples(self.config.n_fft, layer.semitones);
        let analysis = self
            .analyses
            .entry((length, window))
            .or_insert_with(|| Analysis::new(length, window, &mut self.planner));
        // Scales a magnitude to that of the standard window.
        let scale = self.config.n_fft as f32 / length as f32 * layer.gain * layer.pcm.level;
        match layer.equaliser {
            Some(equaliser) => {
                let bin_hz = f64::from(self.config.sample_rate_hz) / length as f64;
                for (bin, gain) in self.bin_gains.iter_mut().enumerate() {
                    *gain = scale * equaliser.gain((bin as f64 * bin_hz) as f32);
                }
            }
            None => self.bin_gains.fill(scale),
        }
        let before_centre = (length - window.after_centre_samples(length)) as isize;
        let n_bins = self.filters.n_bins();
        for (frame, spectrum) in self.spectra.chunks_exact_mut(n_bins).enumerate() {
            let centre = (layer.start_samples + frame * hop_length + hop_length / 2) as isize;
            read_reflected(samples, centre - before_centre, &mut analysis.frame);
            for (sample, window) in analysis.frame.iter_mut().zip(&analysis.window) {
                *sample *= window;
            }
            analysis.fft.process_with_scratch(
                &mut analysis.frame,
                &mut analysis.spectrum,
                &mut analysis.scratch,
            )?;
            // A longer transform has more bins than the filters need, a shorter one fewer.
            for ((sum, bin), gain) in spectrum
                .iter_mut()
                .zip(&analysis.spectrum)
                .zip(&self.bin_gains)
            {
                *sum += bin * gain;
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
    use rand::SeedableRng;
    use rand::rngs::StdRng;
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
        ShiftedMel::new(&MelConfig::default())
            .unwrap()
            .log_mel(&[layer(track, start_samples, semitones)], &mut out)
            .unwrap();
        out
    }

    fn layer(pcm: &Pcm, start_samples: usize, semitones: i32) -> Layer<'_> {
        Layer {
            pcm,
            start_samples,
            semitones: semitones.into(),
            gain: 1.0,
            equaliser: None,
        }
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
        for semitones in (-1200..=1200).map(|cents| f64::from(cents) / 100.0) {
            let exact = 2048.0 * (semitones / 12.0).exp2();
            let cents = 1200.0 * (window_samples(2048, semitones) as f64 / exact).log2();
            assert!(cents.abs() < 2.0, "{semitones}: {cents} cents");
        }
        assert_eq!(window_samples(2048, 0.0), 2048);
    }

    #[test]
    fn crops_outside_the_track_are_refused() {
        let track = note(0, 5000);
        let mut analysis = ShiftedMel::new(&MelConfig::default()).unwrap();
        let layers = [layer(&track, 0, 0)];
        assert!(analysis.log_mel(&layers, &mut [0.0; 1280]).is_err());
        assert!(analysis.log_mel(&layers, &mut [0.0; 9 * 128]).is_ok());
    }

    #[test]
    fn layers_add_up_as_their_sounds_do() {
        let tone = |hz: f64| -> Vec<f32> {
            (0..30 * 512)
                .map(|n| 0.3 * (std::f64::consts::TAU * hz * f64::from(n) / RATE_HZ).sin() as f32)
                .collect()
        };
        let pcm = |samples: &[f32]| Pcm {
            samples: samples
                .iter()
                .map(|x| (x * 32_767.0).round() as i16)
                .collect(),
            level: 1.0 / 32_767.0,
        };
        let (a, b) = (tone(440.0), tone(1300.0));
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + 0.5 * b).collect();
        let (a, b, sum) = (pcm(&a), pcm(&b), pcm(&sum));
        let mut analysis = ShiftedMel::new(&MelConfig::default()).unwrap();
        let mut mixed = vec![0.0; 128 * 10];
        let half = Layer {
            gain: 0.5,
            ..layer(&b, 512, 0)
        };
        analysis
            .log_mel(&[layer(&a, 512, 0), half], &mut mixed)
            .unwrap();
        for (mixed, expected) in mixed.iter().zip(log_mel(&sum, 512, 10, 0)) {
            assert!(
                (mixed.max(-6.0) - expected.max(-6.0)).abs() < 0.01,
                "{mixed} {expected}"
            );
        }
    }

    #[test]
    fn colour_moves_with_the_shift() {
        let mut random = StdRng::seed_from_u64(3);
        let equaliser = Equaliser::draw(12.0, &mut random);
        for semitones in [-7, 0, 5] {
            let track = note(0, 60 * 512);
            let plain = log_mel(&track, 5120, 40, semitones);
            let mut coloured = vec![0.0; plain.len()];
            let layer = Layer {
                equaliser: Some(&equaliser),
                ..layer(&track, 5120, semitones)
            };
            ShiftedMel::new(&MelConfig::default())
                .unwrap()
                .log_mel(&[layer], &mut coloured)
                .unwrap();
            let mel = MelConfig::default();
            // The first three partials, where they are heard and where they come from.
            for partial in [1.0, 2.0, 3.0] {
                let heard_hz = 220.0 * partial * (f64::from(semitones) / 12.0).exp2();
                let band = mel.band_at_hz(heard_hz).round() as usize;
                let change: f32 = (0..40)
                    .map(|frame| coloured[band * 40 + frame] - plain[band * 40 + frame])
                    .sum::<f32>()
                    / 40.0;
                let expected = equaliser.gain(220.0 * partial as f32).ln();
                assert!((change - expected).abs() < 0.1, "{change} {expected}");
            }
        }
    }
}
