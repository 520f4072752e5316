//! Frames of notes, at several transpositions.

use std::f32::consts::PI;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use model_runtime::Resampler;
use realfft::{RealFftPlanner, RealToComplex};
use vocoder::{MelConfig, MelFilterBank};

use crate::notes::{NoteLabel, NoteSet};

/// Range of the logarithms of powers that becomes -1 to 1; the least is that of the smallest difference of doubles from 1.
const LOG_POWERS: [f32; 2] = [-36.04, 9.77];

/// Computes single frames of a power mel spectrogram.
pub struct FrameAnalysis {
    filters: MelFilterBank,
    transform: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
}

impl FrameAnalysis {
    /// Prepares transform and filters.
    ///
    /// # Errors
    ///
    /// Returns an error if the settings are not valid.
    pub fn new(mel: &MelConfig) -> Result<Self> {
        let length = mel.n_fft;
        let window = |n: usize| 0.5 - 0.5 * (2.0 * PI * n as f32 / length as f32).cos();
        Ok(Self {
            filters: MelFilterBank::new(mel)?,
            transform: RealFftPlanner::new().plan_fft_forward(length),
            window: (0..length).map(window).collect(),
        })
    }

    /// The frame around the sample `centre`, scaled to between -1 and 1.
    ///
    /// # Errors
    ///
    /// Returns an error if its window extends beyond the samples.
    pub fn frame(&self, samples: &[f32], centre: usize) -> Result<Vec<f32>> {
        let length = self.window.len();
        let start = centre.checked_sub(length / 2);
        let heard = start.and_then(|start| samples.get(start..start + length));
        let heard = heard.with_context(|| {
            format!(
                "expected {length} samples around sample {centre}, found {}",
                samples.len()
            )
        })?;
        let windowed = heard.iter().zip(&self.window);
        let mut windowed: Vec<f32> = windowed.map(|(x, w)| x * w).collect();
        let mut spectrum = self.transform.make_output_vec();
        self.transform.process(&mut windowed, &mut spectrum)?;
        let powers: Vec<f32> = spectrum.iter().map(|bin| bin.norm_sqr()).collect();
        let mut mel = vec![0.0; self.filters.n_mels()];
        self.filters.apply(&powers, &mut mel);
        let [least, most] = LOG_POWERS;
        let scaled = mel.into_iter().map(|power| {
            let log = (power + f64::EPSILON as f32).ln().clamp(least, most);
            2.0 * (log - least) / (most - least) - 1.0
        });
        Ok(scaled.collect())
    }
}

/// Frames of notes.
#[derive(Clone, Debug)]
pub struct NoteFrames {
    /// What the notes are.
    pub labels: Vec<NoteLabel>,
    /// Values of a frame.
    pub bands: usize,
    /// Number of frames of each note: the note as it is, then its transpositions.
    pub views: usize,
    /// The frames, note by note and view by view.
    pub values: Vec<f32>,
}

impl NoteFrames {
    /// Takes the frame `at_seconds` after the onset of each note for whose label `keep` says so, as it is and transposed
    /// (resampled) by each of `shifts`, at the same instant of the note.
    ///
    /// # Errors
    ///
    /// Returns an error if the notes have another sample rate or are too short.
    pub fn new(
        set: &NoteSet,
        mel: &MelConfig,
        at_seconds: f64,
        shifts: &[i32],
        keep: impl Fn(&NoteLabel) -> bool,
    ) -> Result<Self> {
        ensure!(
            set.sample_rate_hz == mel.sample_rate_hz,
            "expected notes at {} Hz, found {} Hz",
            mel.sample_rate_hz,
            set.sample_rate_hz
        );
        let analysis = FrameAnalysis::new(mel)?;
        let rate_hz = f64::from(mel.sample_rate_hz);
        // Played at a higher rate than recorded, a note is higher and its instants come earlier.
        let resamplers = shifts.iter().map(|&shift| {
            let from_hz = (rate_hz * (f64::from(shift) / 12.0).exp2()).round() as u32;
            let centre = (at_seconds * rate_hz * rate_hz / f64::from(from_hz)).round();
            Ok((
                Resampler::new(from_hz, mel.sample_rate_hz)?,
                centre as usize,
            ))
        });
        let resamplers = resamplers.collect::<Result<Vec<_>>>()?;
        let mut frames = Self {
            labels: Vec::new(),
            bands: mel.n_mels,
            views: 1 + shifts.len(),
            values: Vec::new(),
        };
        for note in set.notes.iter().filter(|note| keep(&note.label)) {
            let samples = note.pcm.floats();
            frames.labels.push(note.label);
            let centre = (at_seconds * rate_hz).round() as usize;
            frames.values.extend(analysis.frame(&samples, centre)?);
            for (resampler, centre) in &resamplers {
                let (mut resampler, mut shifted) = (resampler.clone(), Vec::new());
                resampler.push(&samples, &mut shifted);
                resampler.finish(&mut shifted);
                frames.values.extend(analysis.frame(&shifted, *centre)?);
            }
        }
        Ok(frames)
    }

    /// Number of notes.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no notes.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// A view of a note: 0 as it is, from 1 on its transpositions.
    pub fn view(&self, note: usize, view: usize) -> &[f32] {
        let start = (note * self.views + view) * self.bands;
        &self.values[start..start + self.bands]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::Note;
    use graft_material::audio_cache::Pcm;

    const RATE_HZ: u32 = 22_050;
    const AT_SECONDS: f64 = 0.2;

    fn mel() -> MelConfig {
        MelConfig {
            sample_rate_hz: RATE_HZ,
            n_fft: 2048,
            hop_length: 256,
            n_mels: 256,
            f_min_hz: 20.0,
            f_max_hz: 11_000.0,
        }
    }

    /// A sine that decays by one neper in 50 ms.
    fn note(hz: f64, amplitude: f64) -> NoteSet {
        let samples: Vec<f32> = (0..RATE_HZ / 2)
            .map(|n| {
                let seconds = f64::from(n) / f64::from(RATE_HZ);
                let sine = (std::f64::consts::TAU * hz * seconds).sin();
                (amplitude * (-seconds / 0.05).exp() * sine) as f32
            })
            .collect();
        let label = NoteLabel {
            instrument: 0,
            key: 69,
            velocity: 100,
        };
        NoteSet {
            instruments: vec!["sine".to_owned()],
            sample_rate_hz: RATE_HZ,
            notes: vec![Note {
                label,
                pcm: Pcm::amplified(&samples, 1.0),
            }],
        }
    }

    fn frames(set: &NoteSet, shifts: &[i32]) -> NoteFrames {
        NoteFrames::new(set, &mel(), AT_SECONDS, shifts, |_| true).unwrap()
    }

    fn loudest(frame: &[f32]) -> (usize, f32) {
        let bands = frame.iter().copied().enumerate();
        bands.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
    }

    #[test]
    fn a_frame_shows_pitch_and_level_of_its_instant() {
        let (band, level) = loudest(frames(&note(1000.0, 1.0), &[]).view(0, 0));
        assert!((band as f64 - mel().band_at_hz(1000.0)).abs() <= 1.0);
        // Half as loud, and one neper later.
        let scale = 2.0 / (LOG_POWERS[1] - LOG_POWERS[0]);
        let (_, half) = loudest(frames(&note(1000.0, 0.5), &[]).view(0, 0));
        assert!((level - half - scale * 2.0 * std::f32::consts::LN_2).abs() < 1e-3);
        let later = NoteFrames::new(&note(1000.0, 1.0), &mel(), 0.25, &[], |_| true).unwrap();
        let (_, later) = loudest(later.view(0, 0));
        assert!((level - later - scale * 2.0).abs() < 1e-3);
        let silence = FrameAnalysis::new(&mel()).unwrap();
        let silence = silence.frame(&[0.0; 4096], 2048).unwrap();
        assert!(silence.iter().all(|&value| (value + 1.0).abs() < 1e-3));
    }

    #[test]
    fn a_transposed_frame_is_that_of_a_transposed_note_at_the_same_instant() {
        let shifts = [-2, -1, 1];
        let transposed = frames(&note(1000.0, 1.0), &shifts);
        let (_, level) = loudest(transposed.view(0, 0));
        for (view, shift) in shifts.into_iter().enumerate() {
            let (band, found) = loudest(transposed.view(0, 1 + view));
            let hz = 1000.0 * (f64::from(shift) / 12.0).exp2();
            assert!((band as f64 - mel().band_at_hz(hz)).abs() <= 1.0, "{shift}");
            // At 200 ms of the transposed sound, the level would be off by up to 0.02.
            assert!((found - level).abs() < 0.006, "{shift}: {found}, {level}");
        }
    }

    #[test]
    fn notes_that_are_too_short_or_left_out_are_told_apart() {
        let mut set = note(440.0, 1.0);
        set.notes[0].pcm.samples.truncate(5000);
        let error = NoteFrames::new(&set, &mel(), AT_SECONDS, &[], |_| true).unwrap_err();
        assert!(error.to_string().contains("found 5000"), "{error}");
        let none = NoteFrames::new(&set, &mel(), AT_SECONDS, &[], |_| false).unwrap();
        assert!(none.is_empty() && none.values.is_empty());
    }
}
