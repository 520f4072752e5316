//! A chorus: the mean of the sound and of itself from a delay line whose length swings (e.g. Dattorro, "Effect Design, Part 2:
//! Delay-Line Modulation and Chorus", J. Audio Eng. Soc. 1997), read by linear interpolation.

use std::f64::consts::TAU;

const RATE_HZ: f64 = 1.0;
const CENTRE_DELAY_S: f64 = 0.007;

/// The delay swings by this much either way.
const SWING_S: f64 = 0.0025;

pub fn apply(samples: &mut [f32], rate_hz: f64) {
    // From the end, so that what is read is not yet overwritten.
    for index in (0..samples.len()).rev() {
        let swing = (TAU * RATE_HZ * index as f64 / rate_hz).sin();
        let delay_samples = (CENTRE_DELAY_S - SWING_S * swing) * rate_hz;
        let whole = delay_samples as usize;
        let part = (delay_samples - whole as f64) as f32;
        let at = |delay: usize| index.checked_sub(delay).map_or(0.0, |index| samples[index]);
        let delayed = (1.0 - part) * at(whole) + part * at(whole + 1);
        samples[index] = 0.5 * (samples[index] + delayed);
    }
}
