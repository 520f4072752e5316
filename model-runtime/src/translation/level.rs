//! Keeps a translation from becoming louder than the recording, second by second.
//!
//! The generator decides how loud each note is, and may err: a passage that is unlike its training becomes far too loud. Within a
//! second it is trusted, as notes of another instrument swell and fade in another way. Passages that are too soft stay: what the
//! generator makes is blurred and has less energy than the truth, and a gain would raise the noise between its partials.

use std::collections::VecDeque;

use vocoder::{LogMel, MelConfig};

/// Time before and after a frame over which levels are compared.
const REACH_SECONDS: f64 = 0.5;

/// Least gain of a frame: -20 dB.
const LEAST_GAIN: f64 = 0.1;

/// Limits levels frame by frame, half a second behind.
pub(super) struct LevelLimit {
    reach_frames: usize,
    /// Width of each band relative to its weight in the log-mel, so that squares add up to an energy.
    widths_hz: Vec<f64>,
    /// Energies of the recording's frames, from `first` on.
    recorded: VecDeque<f64>,
    /// Energies and log-mels of the translated frames, from `first` on.
    translated: VecDeque<(f64, Vec<f32>)>,
    /// How many of these were handed on.
    done: usize,
}

impl LevelLimit {
    pub(super) fn new(mel: &MelConfig) -> Self {
        let width_hz = |band: usize| {
            let band = band as f64;
            mel.band_centre_hz(band + 1.0) - mel.band_centre_hz(band - 1.0)
        };
        Self {
            reach_frames: (REACH_SECONDS / mel.hop_seconds()).round() as usize,
            widths_hz: (0..mel.n_mels).map(width_hz).collect(),
            recorded: VecDeque::new(),
            translated: VecDeque::new(),
            done: 0,
        }
    }

    /// Takes the next frames of the recording.
    pub(super) fn push_recorded(&mut self, frames: &LogMel) {
        for frame in 0..frames.frames() {
            let energy = self.energy(frames.frame(frame));
            self.recorded.push_back(energy);
        }
    }

    /// Takes the next translated frames, whose recorded ones were pushed before. Appends those whose second is complete to `out`.
    pub(super) fn push(&mut self, frames: &LogMel, out: &mut LogMel) {
        for frame in 0..frames.frames() {
            let frame = frames.frame(frame);
            let energy = self.energy(frame);
            self.translated.push_back((energy, frame.to_vec()));
            if self.translated.len() > self.done + self.reach_frames {
                self.hand_on(out);
            }
        }
    }

    /// Ends the recording and appends the remaining frames.
    pub(super) fn finish(&mut self, out: &mut LogMel) {
        while self.done < self.translated.len() {
            self.hand_on(out);
        }
    }

    fn hand_on(&mut self, out: &mut LogMel) {
        let first = self.done.saturating_sub(self.reach_frames);
        let end = self.translated.len().min(self.done + self.reach_frames + 1);
        let wanted: f64 = self.recorded.range(first..end).sum();
        let found = self.translated.range(first..end);
        let found: f64 = found.map(|(energy, _)| energy).sum();
        let gain = match wanted > 0.0 && found > 0.0 {
            true => (wanted / found).sqrt().clamp(LEAST_GAIN, 1.0),
            false => 1.0,
        };
        let nepers = gain.ln() as f32;
        let frame = self.translated[self.done].1.iter();
        out.push_frame(&frame.map(|value| value + nepers).collect::<Vec<_>>());
        if self.done == self.reach_frames {
            self.recorded.pop_front();
            self.translated.pop_front();
        } else {
            self.done += 1;
        }
    }

    fn energy(&self, frame: &[f32]) -> f64 {
        let bands = frame.iter().zip(&self.widths_hz);
        let squares = bands.map(|(value, width)| (f64::from(value.exp()) * width).powi(2));
        squares.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REACH: usize = 22;

    /// Frames of one level each, in nepers, with a tilt over the bands.
    fn frames(levels: impl Iterator<Item = f32>, tilt: f32) -> LogMel {
        let mut frames = LogMel::new(128);
        for level in levels {
            let frame = (0..128).map(|band| level + tilt * band as f32);
            frames.push_frame(&frame.collect::<Vec<_>>());
        }
        frames
    }

    fn limited(recorded: &LogMel, translated: &LogMel, piece: usize) -> LogMel {
        let mut level = LevelLimit::new(&MelConfig::default());
        assert_eq!(level.reach_frames, REACH);
        let (mut recorded, mut translated) = (recorded.clone(), translated.clone());
        let mut out = LogMel::new(128);
        while recorded.frames() > 0 {
            let frames = piece.min(recorded.frames());
            level.push_recorded(&recorded.take_first(frames));
            level.push(&translated.take_first(frames), &mut out);
        }
        level.finish(&mut out);
        out
    }

    #[test]
    fn what_is_too_loud_is_put_right_whatever_the_colour_and_what_is_soft_stays() {
        let recorded = frames((0..200).map(|_| -4.0), -0.02);
        // Louder after two seconds.
        let translated = frames((0..200).map(|n| if n < 100 { -4.5 } else { -2.5 }), -0.03);
        let out = limited(&recorded, &translated, 7);
        assert_eq!(out.frames(), 200);
        let energy = |frame: &[f32]| LevelLimit::new(&MelConfig::default()).energy(frame).ln();
        for frame in 0..100 - REACH {
            assert_eq!(out.frame(frame), translated.frame(frame));
        }
        for frame in 100 + REACH..200 {
            let difference = energy(out.frame(frame)) - energy(recorded.frame(frame));
            assert!(difference.abs() < 1e-3, "{frame}: {difference}");
            let tilt = out.frame(frame)[100] - out.frame(frame)[0];
            assert!((tilt + 3.0).abs() < 1e-3, "{tilt}");
        }
        for piece in [1, 40, 200] {
            assert_eq!(limited(&recorded, &translated, piece), out, "{piece}");
        }
    }

    #[test]
    fn what_swells_and_fades_within_a_second_stays() {
        // Notes every 0.46 s that decay, for steady ones that are softer.
        let recorded = frames((0..200).map(|_| -7.0), 0.0);
        let decay = |n: usize| -4.0 - 0.1 * (n % 20) as f32;
        let out = limited(&recorded, &frames((0..200).map(decay), 0.0), 10);
        for frame in (60..140).filter(|frame| frame % 20 > 0) {
            let step = out.frame(frame)[0] - out.frame(frame - 1)[0];
            assert!((step + 0.1).abs() < 0.06, "{frame}: {step}");
        }
    }

    #[test]
    fn gains_are_limited_and_silence_stays() {
        let recorded = frames((0..60).map(|_| 0.0), 0.0);
        let loud = limited(&recorded, &frames((0..60).map(|_| 20.0), 0.0), 60);
        assert!((loud.frame(30)[5] - 20.0 + 10f32.ln()).abs() < 1e-3);
        let silence = frames((0..60).map(|_| f32::NEG_INFINITY), 0.0);
        assert_eq!(limited(&recorded, &silence, 60), silence);
        let short = limited(
            &recorded.clone().take_first(1),
            &frames([1.0].into_iter(), 0.0),
            1,
        );
        assert!(short.frame(0)[0].abs() < 1e-3);
    }
}
