//! Stretches clips to one tempo.

use std::f32::consts::TAU;

use anyhow::{Result, ensure};
use realfft::num_complex::Complex32;

use crate::margins::{FeatureExtractor, HOP_LENGTH, SAMPLE_RATE_HZ};
use crate::stft::Stft;

/// The tempo that clips are brought to, as in Wu's evaluation.
pub const TEMPO_BPM: f64 = 120.0;

/// Periods that are looked for, in beats a minute.
const SLOWEST_BPM: f64 = 40.0;
const FASTEST_BPM: f64 = 240.0;

/// Standard deviation of the prior on tempo, in octaves around [`TEMPO_BPM`].
const PRIOR_OCTAVES: f64 = 1.0;

/// `samples` (mono, 22,050 Hz) at [`TEMPO_BPM`]. The detected tempo, its double and its half count as the same beat:
/// the one that needs the least stretching is used, so the rate is within 0.71 to 1.42.
///
/// # Errors
///
/// Returns an error if a transform fails.
pub fn to_common_tempo(extractor: &FeatureExtractor, samples: &[f32]) -> Result<Vec<f32>> {
    let tempo_bpm = tempo_bpm(&extractor.onset_strength(samples)?);
    let octaves = (TEMPO_BPM / tempo_bpm).log2();
    time_stretch(samples, (octaves - octaves.round()).exp2())
}

/// Tempo of an onset envelope, in beats a minute: the largest peak of its autocorrelation, weighted by a log-normal prior (Ellis,
/// "Beat Tracking by Dynamic Programming", 2007), refined by the peaks at up to eight times
/// its lag. [`TEMPO_BPM`] if it has no beat at all.
fn tempo_bpm(envelope: &[f32]) -> f64 {
    let frames_per_minute = 60.0 * f64::from(SAMPLE_RATE_HZ) / HOP_LENGTH as f64;
    let mean = envelope.iter().sum::<f32>() / envelope.len().max(1) as f32;
    let centred: Vec<f64> = envelope
        .iter()
        .map(|value| f64::from(value - mean))
        .collect();
    let correlation = |lag: usize| -> f64 {
        let later = centred.iter().skip(lag);
        centred.iter().zip(later).map(|(a, b)| a * b).sum()
    };
    let weighted = |lag: usize| {
        let octaves = (frames_per_minute / lag as f64 / TEMPO_BPM).log2() / PRIOR_OCTAVES;
        correlation(lag) * (-0.5 * octaves * octaves).exp()
    };
    let shortest = (frames_per_minute / FASTEST_BPM).ceil() as usize;
    let longest = (frames_per_minute / SLOWEST_BPM) as usize;
    let best = (shortest..=longest)
        .map(|lag| (lag, weighted(lag)))
        .filter(|(_, strength)| *strength > 0.0)
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let Some((lag, _)) = best else {
        return TEMPO_BPM;
    };
    // Several beats tell the length of one more finely than the frames do.
    let mut period = lag as f64;
    for beats in [2.0, 4.0, 8.0] {
        let near = (beats * period).round() as usize;
        if 2 * near > centred.len() {
            break;
        }
        let best = (near - 2..=near + 2)
            .max_by(|&a, &b| correlation(a).total_cmp(&correlation(b)))
            .expect("there are lags");
        period = best as f64 / beats;
    }
    frames_per_minute / period
}

/// `librosa.effects.time_stretch(samples, rate=rate)`: a phase vocoder (Flanagan and Golden, 1966), `rate` times as fast.
fn time_stretch(samples: &[f32], rate: f64) -> Result<Vec<f32>> {
    ensure!(
        rate.is_finite() && rate > 0.0,
        "expected a rate above 0, found {rate}"
    );
    let stft = Stft::new(2048, 512);
    let n_bins = stft.n_bins();
    let spectra = stft.analyse(samples)?;
    let frames = spectra.len() / n_bins;
    let silence = vec![Complex32::default(); n_bins];
    let frame = |index: usize| {
        if index < frames {
            &spectra[index * n_bins..][..n_bins]
        } else {
            &silence[..]
        }
    };
    let mut phases: Vec<f32> = frame(0).iter().map(|bin| bin.arg()).collect();
    let mut stretched = Vec::with_capacity((frames as f64 / rate) as usize * n_bins + n_bins);
    for step in 0.. {
        let position = step as f64 * rate;
        if position >= frames as f64 {
            break;
        }
        let index = position as usize;
        let share = (position - index as f64) as f32;
        let (before, after) = (frame(index), frame(index + 1));
        for (bin, (phase, (before, after))) in
            phases.iter_mut().zip(before.iter().zip(after)).enumerate()
        {
            let magnitude = (1.0 - share) * before.norm() + share * after.norm();
            stretched.push(Complex32::from_polar(magnitude, *phase));
            // Whole turns in a hop leave the phase as it is: a bin is a quarter turn from the next.
            let advance = TAU * (bin % 4) as f32 / 4.0;
            let difference = after.arg() - before.arg() - advance;
            let difference = difference - TAU * (difference / TAU).round();
            *phase = (*phase + advance + difference) % TAU;
        }
    }
    stft.synthesise(&stretched, (samples.len() as f64 / rate).round() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_signal::plucks;

    // Python (librosa 0.11.0), with `x` made as in `plucks`:
    //   librosa.effects.time_stretch(x, rate=1.25)[4000:12000:1000]
    #[test]
    fn stretching_is_that_of_librosa() {
        let found = time_stretch(&plucks().channels[0], 1.25).unwrap();
        assert_eq!(found.len(), 17_640);
        let expected = [
            0.062_653_95,
            0.059_863_72,
            0.051_212_77,
            -0.207_071_9,
            -0.020_691_11,
            0.022_847_85,
            0.027_965_43,
            -0.010_080_34,
        ];
        for (index, expected) in expected.into_iter().enumerate() {
            let found = found[4000 + 1000 * index];
            assert!(
                (found - expected).abs() < 2e-3,
                "{index}: {found} {expected}"
            );
        }
        assert!(time_stretch(&[0.0; 100], 0.0).is_err());
    }

    #[test]
    fn clips_of_any_tempo_come_to_120() {
        let extractor = FeatureExtractor::new().unwrap();
        for bpm in [70.0, 97.0, 120.0, 150.0] {
            let beat = 60.0 / bpm * 22_050.0;
            let clicks: Vec<f32> = (0..20 * 22_050)
                .map(|n| {
                    let since = f64::from(n) % beat;
                    ((-since / 400.0).exp() * (since * 0.7).sin()) as f32
                })
                .collect();
            let found = tempo_bpm(&extractor.onset_strength(&clicks).unwrap());
            assert!((found / bpm - 1.0).abs() < 0.01, "{bpm}: {found}");
            // Of the beat and its double and half, the one that is nearest to 120 counts.
            let octaves = (TEMPO_BPM / bpm).log2();
            let rate = (octaves - octaves.round()).exp2();
            let common = to_common_tempo(&extractor, &clicks).unwrap();
            let found = clicks.len() as f64 / common.len() as f64;
            assert!((found / rate - 1.0).abs() < 0.01, "{bpm}: {found} {rate}");
        }
    }
}
