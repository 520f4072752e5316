//! Windows of the analysis.

use std::f64::consts::{PI, TAU};

/// One part in this many of a [low-delay window](AnalysisWindow::LowDelay) falls; the rest rises.
const FALL: usize = 8;

/// Shape of the window of an analysis. All shapes of one length have the same sum and the same power, so tones and noise keep
/// their levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AnalysisWindow {
    /// A periodic Hann window.
    #[default]
    Symmetric,
    /// A long rise and a short fall, each half of a Hann window, after Mauler and Martin ("A low delay, variable resolution,
    /// perfect reconstruction spectral analysis-synthesis system", EUSIPCO 2007). It ends earlier: with 2048 samples, 609
    /// after the centre in place of 1024.
    LowDelay,
}

impl AnalysisWindow {
    /// The weights of a window of an even number of samples.
    #[must_use]
    pub fn weights(self, length_samples: usize) -> Vec<f64> {
        let n = 0..length_samples;
        match self {
            Self::Symmetric => n
                .map(|n| 0.5 - 0.5 * (TAU * n as f64 / length_samples as f64).cos())
                .collect(),
            Self::LowDelay => {
                let fall = length_samples / FALL;
                let rise = length_samples - fall;
                n.map(|n| match n.checked_sub(rise) {
                    None => 0.5 - 0.5 * (PI * n as f64 / rise as f64).cos(),
                    Some(fallen) => 0.5 + 0.5 * (PI * fallen as f64 / fall as f64).cos(),
                })
                .collect()
            }
        }
    }

    /// Longest part around the centre of a frame that a low-delay synthesis may use, so that the window weighs more than
    /// nothing at both of its ends.
    #[must_use]
    pub fn most_kept_samples(self, length_samples: usize) -> usize {
        2 * self.after_centre_samples(length_samples) / 8 * 7
    }

    /// Samples from the centre of a frame to the end of its window. The centre is the centre of gravity of the window's power:
    /// the time that a frame tells about.
    #[must_use]
    pub fn after_centre_samples(self, length_samples: usize) -> usize {
        match self {
            Self::Symmetric => length_samples / 2,
            Self::LowDelay => {
                let fall = length_samples / FALL;
                let rise = length_samples - fall;
                // Of the power of half a Hann window, as a share of its length from the peak.
                let gravity = 0.5 - 8.0 / (3.0 * PI * PI);
                fall + (gravity * (rise - fall) as f64).round() as usize
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_one_length_have_the_same_sum_and_power_and_are_centred_on_their_power() {
        for length in [16, 2048, 4410, 4500] {
            let measured = [AnalysisWindow::Symmetric, AnalysisWindow::LowDelay].map(|window| {
                let weights = window.weights(length);
                assert_eq!(weights.len(), length);
                let power = weights.iter().map(|w| w * w).sum::<f64>();
                let moments = weights.iter().enumerate().map(|(n, w)| n as f64 * w * w);
                let centre = (length - window.after_centre_samples(length)) as f64;
                let found = moments.sum::<f64>() / power;
                assert!(
                    (found - centre).abs() < 0.6,
                    "{window:?}, {length}: {found} for {centre}"
                );
                (weights.iter().sum::<f64>(), power)
            });
            let [(sum, power), (other_sum, other_power)] = measured;
            // The two halves of a Hann window meet at the peak, so their lengths count in full.
            assert!((sum - other_sum).abs() < 1e-3 * sum, "{sum} {other_sum}");
            assert!(
                (power - other_power).abs() < 1e-3 * power,
                "{power} {other_power}"
            );
        }
    }
}
