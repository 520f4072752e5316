//! Filters with one pole, by the bilinear transform (e.g. Zoelzer, "DAFX: Digital Audio Effects", 2nd edition, 2.2).

use std::f64::consts::PI;

const CUTOFF_HZ: f64 = 50.0;

/// Passes what is above the cutoff.
pub fn high_pass(samples: &mut [f32], rate_hz: f64) {
    // What the low-pass filter leaves over.
    filter(samples, rate_hz, |sample, low| sample - low);
}

/// Passes what is below the cutoff.
pub fn low_pass(samples: &mut [f32], rate_hz: f64) {
    filter(samples, rate_hz, |_, low| low);
}

fn filter(samples: &mut [f32], rate_hz: f64, output: impl Fn(f64, f64) -> f64) {
    let warped = (PI * CUTOFF_HZ / rate_hz).tan();
    let gain = warped / (1.0 + warped);
    let mut state = 0.0;
    for sample in samples {
        let input = f64::from(*sample);
        // A trapezoidal integrator in a loop.
        let step = gain * (input - state);
        let low = state + step;
        state = low + step;
        *sample = output(input, low) as f32;
    }
}
