//! Brings clips of one tempo into beat phase.

use std::f64::consts::TAU;

use anyhow::Result;

use crate::margins::{FeatureExtractor, HOP_LENGTH, SAMPLE_RATE_HZ};
use crate::stretch::TEMPO_BPM;

/// Length of a beat.
pub const BEAT_SECONDS: f64 = 60.0 / TEMPO_BPM;

/// Beats are looked for in steps of 2 ms.
const CANDIDATES: usize = 250;

/// Onsets up to about this far from a beat support it.
const BEAT_WIDTH_SECONDS: f64 = 0.02;

/// Time of the first beat in `samples` (mono, 22,050 Hz, at [`TEMPO_BPM`]), in seconds, less than a beat: the phase of the grid
/// of beats on which most onset strength lies. A grid through the off-beats counts as well, if it has more.
///
/// # Errors
///
/// Returns an error if a transform fails.
pub fn first_beat_s(extractor: &FeatureExtractor, samples: &[f32]) -> Result<f64> {
    let envelope = extractor.onset_strength(samples)?;
    // A bell around every beat (von Mises), which is 1 on the beat.
    let sharpness = (BEAT_SECONDS / (TAU * BEAT_WIDTH_SECONDS)).powi(2);
    let bell = |seconds: f64| (sharpness * ((TAU * seconds / BEAT_SECONDS).cos() - 1.0)).exp();
    let seconds = |candidate: usize| candidate as f64 / CANDIDATES as f64 * BEAT_SECONDS;
    let support = |candidate: usize| -> f64 {
        let onsets = envelope.iter().enumerate().map(|(frame, &strength)| {
            let onset_s = (frame * HOP_LENGTH) as f64 / f64::from(SAMPLE_RATE_HZ);
            f64::from(strength) * bell(onset_s - seconds(candidate))
        });
        onsets.sum()
    };
    let supports: Vec<f64> = (0..CANDIDATES).map(support).collect();
    let best = (0..CANDIDATES).max_by(|&a, &b| supports[a].total_cmp(&supports[b]));
    Ok(best.map_or(0.0, seconds))
}

/// Samples to drop at the start of a clip, less than a beat of them, so that its beats fall on those of another clip.
pub fn samples_to_drop(first_beat_s: f64, others_first_beat_s: f64) -> usize {
    let seconds = (first_beat_s - others_first_beat_s).rem_euclid(BEAT_SECONDS);
    (seconds * f64::from(SAMPLE_RATE_HZ)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::margins::onset_correlation;
    use model_runtime::AudioClip;

    /// Ten seconds of drums at 120 BPM: a stroke on every beat and a softer one between, of which the first beat is at
    /// `first_s`; each drum a tone of `hz`.
    fn drums(first_s: f64, hz: f64) -> Vec<f32> {
        let sample = |n: u32| {
            let since_s = f64::from(n) / f64::from(SAMPLE_RATE_HZ) - first_s;
            let beat = (since_s / BEAT_SECONDS * 2.0).floor();
            let since_s = since_s.rem_euclid(BEAT_SECONDS / 2.0);
            let level = if beat.rem_euclid(2.0) == 0.0 {
                0.5
            } else {
                0.1
            };
            (level * (-since_s / 0.03).exp() * (TAU * hz * since_s).sin()) as f32
        };
        (0..10 * SAMPLE_RATE_HZ).map(sample).collect()
    }

    #[test]
    fn the_first_beat_is_found() {
        let extractor = FeatureExtractor::new().unwrap();
        let found = |first_s| first_beat_s(&extractor, &drums(first_s, 300.0)).unwrap();
        let reference = found(0.0);
        for first_s in [0.06, 0.13, 0.25, 0.31, 0.47] {
            // The envelope is late by the same time everywhere.
            let moved = (found(first_s) - reference).rem_euclid(BEAT_SECONDS);
            assert!((moved - first_s).abs() < 0.012, "{moved} {first_s}");
        }
    }

    #[test]
    fn clips_that_are_out_of_phase_are_brought_into_phase() {
        let mut extractor = FeatureExtractor::new().unwrap();
        let main = drums(0.11, 300.0);
        for sidechain_first_s in [0.0, 0.2, 0.4] {
            let sidechain = drums(sidechain_first_s, 900.0);
            let beats =
                [&main, &sidechain].map(|samples| first_beat_s(&extractor, samples).unwrap());
            let dropped = samples_to_drop(beats[1], beats[0]);
            assert!(dropped < (BEAT_SECONDS * 22_050.0) as usize);
            let mut features = |samples: &[f32]| {
                let clip = AudioClip {
                    sample_rate_hz: SAMPLE_RATE_HZ,
                    channels: vec![samples[..8 * 22_050].to_vec()],
                };
                extractor.extract(&clip).unwrap()
            };
            let main = features(&main);
            let before = onset_correlation(&features(&sidechain), &main);
            let after = onset_correlation(&features(&sidechain[dropped..]), &main);
            assert!(before < 0.5 && after > 0.8, "{before} {after}");
        }
    }
}
