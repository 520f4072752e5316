//! How sharp the strokes of a remix are: rise times and spectral flux in short windows, at the strokes of its sources.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use vocoder::{MelConfig, MelFilterBank};

use crate::margins::{SAMPLE_RATE_HZ, mean_rises_db};
use crate::stft::Stft;

/// Analysis of the flux: windows of 23 ms, 5.8 ms apart, in bands that are wide enough for them.
const N_FFT: usize = 512;
const HOP_LENGTH: usize = 128;
const BANDS: usize = 40;

/// Distance between the values of the envelope of amplitudes: 1 ms.
const ENVELOPE_HOP: usize = 22;

/// Length of the windows of that envelope: 4 ms.
const ENVELOPE_WINDOW: usize = 88;

/// A stroke is the only one within this time.
const APART_S: f64 = 0.06;

/// Share of the flux of the strongest strokes that makes a stroke.
const STROKE_SHARE: f32 = 0.5;

/// Rank of the flux from which on strokes are the strongest: one frame in fifty.
const STRONGEST: f64 = 0.98;

/// A remix may have a stroke this much earlier or later than its source.
const TOLERANCE_S: f64 = 0.03;

/// Fewer strokes than this have no mean.
const MIN_STROKES: usize = 3;

/// The onsets of a clip in short windows.
#[derive(Debug, Clone, PartialEq)]
pub struct Strokes {
    /// Mean rise over all bands, in dB, every [`HOP_LENGTH`] samples.
    flux: Vec<f32>,
    /// Amplitudes with emphasis on high frequencies, every [`ENVELOPE_HOP`] samples.
    envelope: Vec<f32>,
    /// Frames of the flux at which a stroke is.
    frames: Vec<usize>,
}

/// How the strokes of a remix compare with those of its sources. None where a source has too few.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Attacks {
    /// Median rise time at the strokes of the source of rhythm, less that of the source itself, in milliseconds.
    pub rise_beside_ms: Option<f32>,
    /// Flux at the strokes of the source of rhythm, above that away from all strokes, as a share of that of the source itself.
    pub sharpness: Option<f32>,
    /// The same at those strokes of the source of harmony that the source of rhythm does not have, as a share of that of the
    /// source of harmony itself.
    pub residual: Option<f32>,
}

/// Computes [`Strokes`].
pub struct StrokeAnalysis {
    stft: Stft,
    bands: MelFilterBank,
}

impl StrokeAnalysis {
    /// Prepares transforms and filters.
    ///
    /// # Errors
    ///
    /// Returns an error if the filters cannot be made.
    pub fn new() -> Result<Self> {
        let bands = MelConfig {
            sample_rate_hz: SAMPLE_RATE_HZ,
            n_fft: N_FFT,
            hop_length: HOP_LENGTH,
            n_mels: BANDS,
            ..MelConfig::default()
        };
        Ok(Self {
            stft: Stft::new(N_FFT, HOP_LENGTH),
            bands: MelFilterBank::new(&bands)?,
        })
    }

    /// The strokes of `samples` (mono, 22,050 Hz).
    ///
    /// # Errors
    ///
    /// Returns an error if a transform fails.
    pub fn analyse(&self, samples: &[f32]) -> Result<Strokes> {
        const MIN_MAGNITUDE: f32 = 1e-7;

        let spectra = self.stft.analyse(samples)?;
        let mut levels_db = Vec::with_capacity(spectra.len() / self.stft.n_bins() * BANDS);
        let mut band_magnitudes = [0.0; BANDS];
        for spectrum in spectra.chunks_exact(self.stft.n_bins()) {
            let magnitudes: Vec<f32> = spectrum.iter().map(|bin| bin.norm()).collect();
            self.bands.apply(&magnitudes, &mut band_magnitudes);
            levels_db.extend(
                band_magnitudes
                    .iter()
                    .map(|magnitude| 20.0 * magnitude.max(MIN_MAGNITUDE).log10()),
            );
        }
        let flux = mean_rises_db(&mut levels_db, BANDS);
        Ok(Strokes {
            frames: strokes(&flux),
            envelope: envelope(samples),
            flux,
        })
    }
}

impl Strokes {
    /// Compares the strokes of a remix with those of its sources.
    pub fn compare(&self, harmony_source: &Self, rhythm_source: &Self) -> Attacks {
        let struck = &rhythm_source.frames;
        let left_over = apart(&harmony_source.frames, struck);
        let rise_ms = |clip: &Self| -> Option<f32> {
            median(
                struck
                    .iter()
                    .filter_map(|&frame| clip.rise_ms(frame))
                    .collect(),
            )
        };
        let all: Vec<usize> = (0..self.flux.len().min(rhythm_source.flux.len())).collect();
        let rest = apart(&all, &[struck.as_slice(), &harmony_source.frames].concat());
        let share = |strokes: &[usize], source: &Self| -> Option<f32> {
            let source = source.mean_flux(strokes)? - source.mean_flux(&rest)?;
            let remix = self.mean_flux(strokes)? - self.mean_flux(&rest)?;
            (source > 0.0).then(|| remix / source)
        };
        Attacks {
            rise_beside_ms: rise_ms(self)
                .zip(rise_ms(rhythm_source))
                .map(|(remix, source)| remix - source),
            sharpness: share(struck, rhythm_source),
            residual: share(&left_over, harmony_source),
        }
    }

    /// Highest flux near a frame.
    fn flux_near(&self, frame: usize) -> f32 {
        let reach = frames(TOLERANCE_S);
        let last = (frame + reach + 1).min(self.flux.len());
        let near = &self.flux[frame.saturating_sub(reach).min(last)..last];
        near.iter().copied().fold(0.0, f32::max)
    }

    /// Mean over `frames` of the highest flux near them, if there are enough.
    fn mean_flux(&self, frames: &[usize]) -> Option<f32> {
        let sum: f32 = frames.iter().map(|&frame| self.flux_near(frame)).sum();
        (frames.len() >= MIN_STROKES).then(|| sum / frames.len() as f32)
    }

    /// Time in which the amplitude rises from 10 to 90 % of the way to its peak after the stroke at a frame, in milliseconds.
    /// None if it does not rise.
    fn rise_ms(&self, frame: usize) -> Option<f32> {
        const BEFORE_S: f64 = 0.06;
        const AFTER_S: f64 = 0.06;
        const LEAST_RISE: f32 = 1.2;

        let values = |seconds: f64| {
            (seconds * f64::from(SAMPLE_RATE_HZ) / ENVELOPE_HOP as f64).round() as usize
        };
        let centre = frame * HOP_LENGTH / ENVELOPE_HOP;
        let first = centre.saturating_sub(values(BEFORE_S));
        let last = (centre + values(AFTER_S)).min(self.envelope.len());
        let around = self.envelope.get(first..last)?;
        let peak = (0..around.len()).max_by(|&a, &b| around[a].total_cmp(&around[b]))?;
        let rise = &around[..=peak];
        let lowest = rise.iter().copied().fold(f32::INFINITY, f32::min);
        if around[peak] <= LEAST_RISE * lowest {
            return None;
        }
        let share = |value: f32| (value - lowest) / (around[peak] - lowest);
        let begin = rise.iter().rposition(|&value| share(value) <= 0.1)?;
        let end = begin
            + rise[begin..]
                .iter()
                .position(|&value| share(value) >= 0.9)?;
        Some((end - begin) as f32 * 1000.0 * ENVELOPE_HOP as f32 / SAMPLE_RATE_HZ as f32)
    }
}

/// Those of `frames` that are further than [`APART_S`] from each of `others`.
fn apart(frames: &[usize], others: &[usize]) -> Vec<usize> {
    let reach = self::frames(APART_S);
    let is_apart = |frame: &usize| others.iter().all(|other| frame.abs_diff(*other) > reach);
    frames.iter().copied().filter(is_apart).collect()
}

/// Frames of the flux in a time.
fn frames(seconds: f64) -> usize {
    (seconds * f64::from(SAMPLE_RATE_HZ) / HOP_LENGTH as f64).round() as usize
}

/// Frames at which the flux is the highest within [`APART_S`] and high among all.
fn strokes(flux: &[f32]) -> Vec<usize> {
    let mut sorted = flux.to_vec();
    sorted.sort_by(f32::total_cmp);
    let rank = (STRONGEST * sorted.len() as f64) as usize;
    let enough = STROKE_SHARE * sorted.get(rank).copied().unwrap_or(0.0);
    let reach = frames(APART_S);
    let is_stroke = |frame: usize| {
        let last = (frame + reach + 1).min(flux.len());
        let before = &flux[frame.saturating_sub(reach)..frame];
        let after = &flux[frame + 1..last];
        flux[frame] > enough
            && before.iter().all(|&other| other < flux[frame])
            && after.iter().all(|&other| other <= flux[frame])
    };
    (0..flux.len()).filter(|&frame| is_stroke(frame)).collect()
}

/// RMS of the differences of neighbouring samples, which weigh an attack more than a bass, in Hann windows.
fn envelope(samples: &[f32]) -> Vec<f32> {
    let step = std::f32::consts::TAU / ENVELOPE_WINDOW as f32;
    let window: Vec<f32> = (0..ENVELOPE_WINDOW)
        .map(|n| 0.5 - 0.5 * (step * (n as f32 + 0.5)).cos())
        .collect();
    let squares: Vec<f32> = samples
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).powi(2))
        .collect();
    let weight = ENVELOPE_WINDOW as f32 / 2.0;
    (0..samples.len() / ENVELOPE_HOP)
        .map(|index| {
            // Centred at its sample.
            let centre = index * ENVELOPE_HOP;
            let sum: f32 = window
                .iter()
                .enumerate()
                .filter_map(|(n, window)| {
                    let sample = (centre + n).checked_sub(ENVELOPE_WINDOW / 2)?;
                    Some(window * squares.get(sample)?)
                })
                .sum();
            (sum / weight).sqrt()
        })
        .collect()
}

fn median(mut values: Vec<f32>) -> Option<f32> {
    values.sort_by(f32::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count.is_multiple_of(2) => Some(0.5 * (values[middle - 1] + values[middle])),
        _ => Some(values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// Four seconds of strokes of noise, the first at `first_s` and one every half second, which rise in `rise_s` and fall in 80 ms,
    /// above soft noise.
    fn strokes_of_noise(first_s: f64, rise_s: f64) -> Vec<f32> {
        let mut random = StdRng::seed_from_u64(5);
        (0..4 * SAMPLE_RATE_HZ)
            .map(|n| {
                let since_s = (f64::from(n) / f64::from(SAMPLE_RATE_HZ) - first_s).rem_euclid(0.5);
                let rise = (since_s / rise_s).min(1.0);
                let fall = (-(since_s - rise_s).max(0.0) / 0.08).exp();
                let level = 0.5 * rise * fall + 1e-3;
                (level * random.random_range(-1.0..1.0)) as f32
            })
            .collect()
    }

    fn analyse(samples: &[f32]) -> Strokes {
        StrokeAnalysis::new().unwrap().analyse(samples).unwrap()
    }

    #[test]
    fn strokes_are_found_once_where_they_are() {
        let found = analyse(&strokes_of_noise(0.2, 0.002));
        assert_eq!(found.frames.len(), 8, "{:?}", found.frames);
        for (index, &frame) in found.frames.iter().enumerate() {
            let seconds = (frame * HOP_LENGTH) as f64 / f64::from(SAMPLE_RATE_HZ);
            let expected = 0.2 + 0.5 * index as f64;
            assert!((seconds - expected).abs() < 0.02, "{seconds} {expected}");
        }
    }

    #[test]
    fn a_smoothed_stroke_rises_more_slowly_and_has_less_flux() {
        let sharp = analyse(&strokes_of_noise(0.2, 0.002));
        let none = analyse(&vec![0.0; 88_200]);
        let itself = sharp.compare(&none, &sharp);
        assert_eq!(
            (itself.rise_beside_ms, itself.sharpness, itself.residual),
            (Some(0.0), Some(1.0), None)
        );
        let mut last = (0.0, 1.0);
        // From 10 to 90 % of a straight rise it takes eight tenths of it.
        for (rise_s, expected_ms) in [(0.012, 9.6), (0.025, 20.0), (0.05, 40.0)] {
            let smooth = analyse(&strokes_of_noise(0.2, rise_s)).compare(&none, &sharp);
            let rise_ms = smooth.rise_beside_ms.unwrap();
            assert!(
                (rise_ms - expected_ms).abs() < 6.0,
                "{rise_ms} {expected_ms}"
            );
            let sharpness = smooth.sharpness.unwrap();
            assert!(
                rise_ms > last.0 && sharpness < last.1,
                "{smooth:?} {last:?}"
            );
            last = (rise_ms, sharpness);
        }
    }

    #[test]
    fn what_is_left_of_strokes_is_between_nothing_and_all() {
        let (a, b) = (strokes_of_noise(0.2, 0.002), strokes_of_noise(0.45, 0.002));
        let (main, sidechain) = (analyse(&a), analyse(&b));
        let residual = |remix: &Strokes| remix.compare(&main, &sidechain).residual.unwrap();
        assert_eq!(residual(&main), 1.0);
        assert!(residual(&sidechain).abs() < 0.1, "{}", residual(&sidechain));
        let mixed = |share: f32| {
            let mixed = a.iter().zip(&b).map(|(a, b)| share * a + b);
            residual(&analyse(&mixed.collect::<Vec<_>>()))
        };
        let (tenth, all) = (mixed(0.1), mixed(1.0));
        // The other source's sounds cover some of them.
        assert!(0.1 < tenth && tenth < all && all > 0.4, "{tenth} {all}");
        // Strokes at the same time cannot be told apart.
        assert_eq!(sidechain.compare(&main, &main).residual, None);
    }
}
