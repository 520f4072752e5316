//! The separation compared with librosa, and the stream with the whole clip.

use std::collections::BTreeMap;

use serde::Deserialize;
use vocoder::hpss::{HpssConfig, HpssStream, hpss};

#[derive(Deserialize)]
struct Case {
    n_bins: usize,
    n_frames: usize,
    median_bins: usize,
    median_frames: usize,
    margin_harmonic: f32,
    margin_percussive: f32,
    /// Harmonic and percussive magnitudes of some frames.
    frames: BTreeMap<usize, [Vec<f32>; 2]>,
}

impl Case {
    fn config(&self) -> HpssConfig {
        HpssConfig {
            median_frames: self.median_frames,
            look_ahead_frames: None,
            median_bins: self.median_bins,
            margin_harmonic: self.margin_harmonic,
            margin_percussive: self.margin_percussive,
        }
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("data/hpss_reference.json")).unwrap()
}

/// Tones, transients, noise, and gaps of exact zeros.
fn magnitude(n_bins: usize, n_frames: usize) -> Vec<f32> {
    (0..n_bins * n_frames)
        .map(|n| {
            let tone = usize::from((n % n_bins) % 13 == 5);
            let stroke = usize::from((n / n_bins) % 9 == 4);
            let noise = n * n % 1009 * (n % 7) % 509;
            let hole = n % 101 <= 2;
            let value = (noise + 900 * tone + 700 * stroke) as f32 / 512.0;
            if hole { 0.0 } else { value }
        })
        .collect()
}

// import json, librosa, numpy as np
// def magnitude(n_bins, n_frames):
//     n = np.arange(n_frames * n_bins, dtype=np.int64)
//     tone = (n % n_bins) % 13 == 5
//     stroke = (n // n_bins) % 9 == 4
//     noise = n * n % 1009 * (n % 7) % 509
//     S = (noise + 900 * tone + 700 * stroke) * (n % 101 > 2) / 512
//     return S.astype(np.float32).reshape(n_frames, n_bins)
// cases = []
// for n_bins, n_frames, kernel, margin in [(70, 45, (31, 31), (1, 1)), (70, 45, (31, 11), (1, 1)),
//                                          (33, 5, (31, 11), (1, 1)), (20, 40, (9, 31), (2, 3))]:
//     S = magnitude(n_bins, n_frames)
//     H, P = librosa.decompose.hpss(S.T, kernel_size=kernel[::-1], margin=margin)
//     frames = {str(f): [[round(float(v), 5) for v in X[:, f]] for X in (H, P)]
//               for f in (0, n_frames // 2, n_frames - 1)}
//     cases.append(dict(n_bins=n_bins, n_frames=n_frames, median_bins=kernel[0], median_frames=kernel[1],
//                       margin_harmonic=margin[0], margin_percussive=margin[1], frames=frames))
// json.dump(cases, open("hpss_reference.json", "w"), separators=(",", ":"))
#[test]
fn the_parts_are_those_of_librosa() {
    for case in cases() {
        let magnitude = magnitude(case.n_bins, case.n_frames);
        let masks = hpss(&magnitude, case.n_bins, &case.config()).unwrap();
        for (&frame, expected) in &case.frames {
            for (mask, expected) in [&masks.harmonic, &masks.percussive]
                .into_iter()
                .zip(expected)
            {
                for (bin, expected) in expected.iter().enumerate() {
                    let index = frame * case.n_bins + bin;
                    let found = mask[index] * magnitude[index];
                    assert!(
                        (found - expected).abs() < 1e-4,
                        "frame {frame}, bin {bin}: {found}, librosa has {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn masks_appear_with_the_stated_delay_and_equal_the_whole_clip() {
    for case in cases() {
        let magnitude = magnitude(case.n_bins, case.n_frames);
        let whole = hpss(&magnitude, case.n_bins, &case.config()).unwrap();
        let mut whole = whole.harmonic.chunks_exact(case.n_bins);
        let mut stream = HpssStream::new(case.n_bins, &case.config()).unwrap();
        assert_eq!(stream.delay_frames(), case.median_frames / 2);
        for (frame, magnitude) in magnitude.chunks_exact(case.n_bins).enumerate() {
            let masks = stream.push(magnitude);
            assert_eq!(masks.is_some(), frame >= case.median_frames / 2);
            if let Some(masks) = masks {
                assert!(masks.harmonic == whole.next().unwrap());
            }
        }
        while let Some(masks) = stream.drain() {
            assert!(masks.harmonic == whole.next().unwrap());
        }
        assert!(whole.next().is_none());
    }
}

#[test]
fn with_less_look_ahead_the_filter_leans_to_the_past_however_short_the_clip() {
    let (n_bins, median_frames) = (40, 9);
    for look_ahead in 0..=4 {
        let config = HpssConfig {
            median_frames,
            look_ahead_frames: Some(look_ahead),
            // The percussive estimate is the magnitude itself.
            median_bins: 1,
            ..HpssConfig::default()
        };
        for n_frames in [1, 2, 3, 5, 8, 40] {
            let magnitude = magnitude(n_bins, n_frames);
            let mut stream = HpssStream::new(n_bins, &config).unwrap();
            let mut found = Vec::new();
            for (frame, magnitude) in magnitude.chunks_exact(n_bins).enumerate() {
                let masks = stream.push(magnitude);
                assert_eq!(masks.is_some(), frame >= look_ahead);
                found.extend(masks.map(|masks| masks.harmonic.to_vec()));
            }
            while let Some(masks) = stream.drain() {
                found.push(masks.harmonic.to_vec());
            }
            assert_eq!(found.len(), n_frames);
            assert!(found.iter().flatten().all(|mask| mask.is_finite()));
            for frame in (median_frames - 1 - look_ahead)..n_frames.saturating_sub(look_ahead) {
                for bin in 0..n_bins {
                    let frames = frame + look_ahead + 1 - median_frames..=frame + look_ahead;
                    let mut values: Vec<f32> = frames
                        .map(|frame| magnitude[frame * n_bins + bin])
                        .collect();
                    values.sort_by(f32::total_cmp);
                    let (median, own) = (values[4], magnitude[frame * n_bins + bin]);
                    let expected = match median.max(own) {
                        0.0 => 0.5,
                        _ => median.powi(2) / (median.powi(2) + own.powi(2)),
                    };
                    let mask = found[frame][bin];
                    assert!((mask - expected).abs() < 1e-5, "{mask} for {expected}");
                }
            }
        }
    }
}

#[test]
fn reset_forgets_the_past() {
    let case = &cases()[1];
    let magnitude = magnitude(case.n_bins, case.n_frames);
    let mut stream = HpssStream::new(case.n_bins, &case.config()).unwrap();
    let mut first_masks = || {
        stream.reset();
        magnitude
            .chunks_exact(case.n_bins)
            .find_map(|frame| stream.push(frame).map(|masks| masks.harmonic.to_vec()))
    };
    assert_eq!(first_masks(), first_masks());
}

#[test]
fn a_tone_is_harmonic_and_a_stroke_is_percussive() {
    let (n_bins, n_frames) = (64, 40);
    let mut magnitude = vec![0.01; n_bins * n_frames];
    for frame in 0..n_frames {
        magnitude[frame * n_bins + 20] = 1.0;
    }
    magnitude[15 * n_bins..16 * n_bins].fill(1.0);
    let masks = hpss(&magnitude, n_bins, &HpssConfig::default()).unwrap();
    assert!(masks.harmonic[5 * n_bins + 20] > 0.99);
    assert!(masks.percussive[15 * n_bins + 40] > 0.99);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let good = HpssConfig::default();
    let refused = [
        (
            "median_frames",
            HpssConfig {
                median_frames: 10,
                ..good.clone()
            },
        ),
        (
            "look_ahead_frames",
            HpssConfig {
                look_ahead_frames: Some(16),
                ..good.clone()
            },
        ),
        (
            "median_bins",
            HpssConfig {
                median_bins: 0,
                ..good.clone()
            },
        ),
        (
            "margin_harmonic",
            HpssConfig {
                margin_harmonic: 0.5,
                ..good.clone()
            },
        ),
        (
            "margin_percussive",
            HpssConfig {
                margin_percussive: f32::NAN,
                ..good.clone()
            },
        ),
    ];
    for (setting, config) in refused {
        let error = hpss(&[0.0; 64], 64, &config).unwrap_err().to_string();
        assert!(error.starts_with(setting), "{error}");
    }
    assert!(hpss(&[0.0; 65], 64, &good).is_err());
    assert!(hpss(&[0.0; 64], 0, &good).is_err());
}
