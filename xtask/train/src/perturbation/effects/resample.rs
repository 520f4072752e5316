//! Conversion of sample rates by an interpolating filter, one set of taps for each of its phases.

use std::f64::consts::PI;

/// Zero crossings of the filter on either side: as few as pedalboard seems to have, by the slope below the Nyquist frequency.
const CROSSINGS: f64 = 3.0;

/// `samples` at another rate, `(length * to / from)` of them, in time with the original.
pub fn resample(samples: &[f32], from_hz: u32, to_hz: u32) -> Vec<f32> {
    let divisor = greatest_common_divisor(from_hz, to_hz);
    let (up, down) = ((to_hz / divisor) as usize, (from_hz / divisor) as usize);
    // The filter passes what both rates can hold.
    let cutoff = (up as f64 / down as f64).min(1.0);
    let reach = (CROSSINGS / cutoff).ceil() as usize;
    let phases: Vec<Vec<f32>> = (0..up)
        .map(|phase| {
            let taps = (0..2 * reach).map(|tap| {
                let distance = tap as f64 + 1.0 - reach as f64 - phase as f64 / up as f64;
                (cutoff * windowed_sinc(cutoff * distance)) as f32
            });
            taps.collect()
        })
        .collect();
    let length = samples.len() * up / down;
    (0..length)
        .map(|index| {
            let (whole, phase) = (index * down / up, index * down % up);
            let first = (whole + 1) as isize - reach as isize;
            let taps = phases[phase].iter().zip(first..);
            taps.filter_map(|(tap, place)| Some(tap * samples.get(usize::try_from(place).ok()?)?))
                .sum()
        })
        .collect()
}

fn windowed_sinc(x: f64) -> f64 {
    if x.abs() >= CROSSINGS {
        return 0.0;
    }
    let window = 0.5 + 0.5 * (PI * x / CROSSINGS).cos();
    if x == 0.0 {
        1.0
    } else {
        window * (PI * x).sin() / (PI * x)
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_stays_in_tune_and_in_time() {
        let tone = |rate_hz: f64, hz: f64, length: usize| -> Vec<f32> {
            let phase = |n: usize| std::f64::consts::TAU * hz * n as f64 / rate_hz;
            (0..length).map(|n| phase(n).sin() as f32).collect()
        };
        for (from_hz, to_hz) in [(22_050, 8000), (8000, 22_050), (44_100, 8000)] {
            let found = resample(&tone(from_hz.into(), 1000.0, 4000), from_hz, to_hz);
            let expected = tone(to_hz.into(), 1000.0, found.len());
            assert_eq!(found.len(), 4000 * to_hz as usize / from_hz as usize);
            let middle = found.len() / 4..3 * found.len() / 4;
            for (found, expected) in found[middle.clone()].iter().zip(&expected[middle]) {
                // The filter is short.
                assert!((found - expected).abs() < 0.03, "{found} {expected}");
            }
        }
        // Above the new Nyquist frequency, little is left.
        let high = resample(&tone(22_050.0, 7000.0, 4000), 22_050, 8000);
        assert!(high[200..1200].iter().all(|sample| sample.abs() < 1e-2));
    }
}
