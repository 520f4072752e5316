//! Onsets as events: picked from an envelope, and compared with the true ones.

/// Onsets further than this from each other are no match, in seconds: the tolerance of MIREX and of `mir_eval`.
pub const TOLERANCE_S: f64 = 0.05;

/// Frames before and after a frame whose mean it must exceed: `librosa.onset.onset_detect` at 22,050 Hz and a hop of 512.
const MEAN_BEFORE: usize = 4;
const MEAN_AFTER: usize = 4;

/// By how much, for an envelope from 0 to 1.
const DELTA: f32 = 0.07;

/// Frames with onsets by a spectral-flux envelope: `librosa.onset.onset_detect(onset_envelope=envelope, sr=22050,
/// hop_length=512)`.
///
/// The envelope is brought to 0 to 1. An onset is a frame that is no lower than the one before it, exceeds the mean around it by
/// 0.07, and does not follow the last onset at once (Böck, Krebs and Schedl, "Evaluating the Online Capabilities of Onset
/// Detection Methods", 2012).
pub fn detect(envelope: &[f32]) -> Vec<usize> {
    let lowest = envelope.iter().copied().fold(f32::INFINITY, f32::min);
    let highest = envelope.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if highest <= lowest {
        return Vec::new();
    }
    let scaled: Vec<f32> = envelope
        .iter()
        .map(|value| (value - lowest) / (highest - lowest))
        .collect();
    let mut onsets: Vec<usize> = Vec::new();
    for (frame, &value) in scaled.iter().enumerate() {
        let last = (frame + MEAN_AFTER + 1).min(scaled.len());
        let around = &scaled[frame.saturating_sub(MEAN_BEFORE)..last];
        let mean = around.iter().sum::<f32>() / around.len() as f32;
        let rises = frame == 0 || value >= scaled[frame - 1];
        let waited = onsets.last().is_none_or(|&onset| frame > onset + 1);
        if rises && waited && value >= mean + DELTA {
            onsets.push(frame);
        }
    }
    onsets
}

/// Frames at which a probability has a peak of at least `threshold`.
pub fn peaks(probabilities: &[f32], threshold: f32) -> Vec<usize> {
    let is_peak = |frame: usize| {
        let value = probabilities[frame];
        let before = frame
            .checked_sub(1)
            .map_or(0.0, |before| probabilities[before]);
        let after = probabilities.get(frame + 1).copied().unwrap_or(0.0);
        value >= threshold && value > before && value >= after
    };
    (0..probabilities.len())
        .filter(|&frame| is_peak(frame))
        .collect()
}

/// F-measure of estimated against true onsets, both ascending, in seconds: each counts once, within [`TOLERANCE_S`]. 0 if there
/// are none of either.
pub fn f_measure(truth_s: &[f64], estimate_s: &[f64]) -> f64 {
    // In order of time, taking the earliest partner leaves most for the rest.
    let (mut matched, mut next) = (0, 0);
    for &onset_s in truth_s {
        while next < estimate_s.len() && estimate_s[next] < onset_s - TOLERANCE_S {
            next += 1;
        }
        if next < estimate_s.len() && estimate_s[next] <= onset_s + TOLERANCE_S {
            matched += 1;
            next += 1;
        }
    }
    let total = truth_s.len() + estimate_s.len();
    if total == 0 {
        0.0
    } else {
        2.0 * f64::from(matched) / total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::margins::FeatureExtractor;
    use crate::test_signal::plucks;

    // Python (librosa 0.11.0), with `x` made as in `plucks`:
    //   o = librosa.onset
    //   o.onset_detect(onset_envelope=o.onset_strength(y=x, sr=22050, center=False), sr=22050)
    //   i = numpy.arange(120)
    //   e = (numpy.sin(i*.7)**2 * numpy.exp(-(i%17)/5) + .3*numpy.sin(i*1.9)**2).astype("f4")
    //   o.onset_detect(onset_envelope=e, sr=22050)
    #[test]
    fn onsets_are_those_of_librosa() {
        let plucks = FeatureExtractor::new().unwrap().extract(&plucks()).unwrap();
        assert_eq!(detect(&plucks.onset_strength), [3, 14, 25, 42]);
        let envelope: Vec<f32> = (0..120)
            .map(|i| {
                let x = f64::from(i);
                let decay = (-f64::from(i % 17) / 5.0).exp();
                ((x * 0.7).sin().powi(2) * decay + 0.3 * (x * 1.9).sin().powi(2)) as f32
            })
            .collect();
        let expected = [
            1, 6, 11, 14, 17, 19, 24, 29, 34, 37, 39, 42, 44, 47, 51, 57, 62, 69, 74, 80, 82, 87,
            92, 95, 97, 102, 105, 110, 119,
        ];
        assert_eq!(detect(&envelope), expected);
        assert!(detect(&[1.0; 9]).is_empty());
    }

    // Python: mir_eval.onset.f_measure(truth, estimate) (mir_eval 0.8.2)
    #[test]
    fn the_f_measure_is_that_of_mir_eval() {
        let truth = [0.1, 0.5, 0.52, 1.0, 2.0];
        let estimate = [0.13, 0.47, 0.9, 1.04, 1.06, 2.049, 3.0];
        assert!((f_measure(&truth, &estimate) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(f_measure(&truth, &truth), 1.0);
        assert_eq!(f_measure(&truth, &[]), 0.0);
    }

    #[test]
    fn peaks_are_picked_once() {
        assert_eq!(peaks(&[0.6, 0.2, 0.9, 0.9, 0.4, 0.7], 0.5), [0, 2, 5]);
        assert_eq!(peaks(&[0.6, 0.2, 0.9, 0.9, 0.4, 0.7], 0.8), [2]);
    }
}
