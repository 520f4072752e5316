//! Sample rate conversion of whole files, for a host that runs at another rate.

use anyhow::{Result, ensure};
use rubato::audioadapter_buffers::owned::InterleavedOwned;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

/// Length of a block of the Fourier transform, in input samples, at least. With so many the pass band is flat to 95 % of the
/// lower Nyquist frequency.
const LEAST_BLOCK_SAMPLES: usize = 4096;

/// Converts `samples` from `from_hz` to `to_hz`. The result has `ceil(len * to_hz / from_hz)` samples and no delay.
///
/// # Errors
///
/// When a rate is 0.
pub fn convert(samples: &[f32], from_hz: u32, to_hz: u32) -> Result<Vec<f32>> {
    ensure!(
        from_hz > 0 && to_hz > 0,
        "sample rates: expected more than 0 Hz, found {from_hz} Hz and {to_hz} Hz"
    );
    if from_hz == to_hz || samples.is_empty() {
        return Ok(samples.to_vec());
    }
    let (from, to) = (from_hz as usize, to_hz as usize);
    // Blocks are multiples of this length. An even number of them makes the delay a whole number of samples.
    let unit = from / greatest_common_divisor(from, to);
    let block = unit * LEAST_BLOCK_SAMPLES.div_ceil(unit).next_multiple_of(2);
    let window = WindowFunction::BlackmanHarris2;
    let mut resampler = Fft::<f32>::new_custom(from, to, block, 1, 1, window, FixedSync::Input)?;
    let input = InterleavedOwned::new_from(samples.to_vec(), 1, samples.len())?;
    let mut converted = resampler
        .process_all(&input, samples.len(), None)?
        .take_data();
    converted.resize((samples.len() * to).div_ceil(from), 0.0);
    Ok(converted)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => greatest_common_divisor(b, a % b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES_HZ: [(u32, u32); 6] = [
        (44_100, 48_000),
        (48_000, 44_100),
        (44_100, 22_050),
        (22_050, 96_000),
        (96_000, 44_100),
        (44_100, 8_000),
    ];

    fn sine(hz: f64, rate_hz: u32, samples: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * hz / f64::from(rate_hz);
        (0..samples)
            .map(|n| (step * n as f64).sin() as f32)
            .collect()
    }

    #[test]
    fn sines_keep_level_and_place_and_lengths_are_exact() {
        for (from_hz, to_hz) in RATES_HZ {
            for samples in [1, 1000, 30_011] {
                let converted = convert(&sine(1000.0, from_hz, samples), from_hz, to_hz).unwrap();
                let expected = (samples * to_hz as usize).div_ceil(from_hz as usize);
                assert_eq!(converted.len(), expected, "{from_hz} to {to_hz} Hz");
                // Where a sine is cut off it rings.
                let edge = 6000.min(expected);
                let inner = edge..expected.saturating_sub(edge).max(edge);
                let sine = sine(1000.0, to_hz, expected);
                for (found, expected) in converted[inner.clone()].iter().zip(&sine[inner]) {
                    assert!((found - expected).abs() < 1e-5, "{from_hz} to {to_hz} Hz");
                }
            }
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_gone() {
        let converted = convert(&sine(12_500.0, 44_100, 100_000), 44_100, 22_050).unwrap();
        let loudest = converted[5000..45_000]
            .iter()
            .fold(0f32, |most, x| most.max(x.abs()));
        assert!(loudest < 1e-5, "{loudest}");
    }

    #[test]
    fn no_rate_is_refused() {
        assert!(convert(&[0.0], 0, 44_100).is_err());
        assert!(convert(&[], 44_100, 48_000).unwrap().is_empty());
    }
}
