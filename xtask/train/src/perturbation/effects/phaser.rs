//! A phaser: the mean of the sound and of what six equal all-pass filters of first order make of it, whose frequency swings on a
//! logarithmic scale (e.g. Smith, "An Allpass Approach to Digital Phasing and Flanging", 1984).

use std::f64::consts::{PI, TAU};

const RATE_HZ: f64 = 1.0;
const CENTRE_HZ: f64 = 1300.0;

/// The frequency as a share of the way from the lowest to the highest, on a logarithmic scale, swings by this much either way.
const SWING: f64 = 0.25;

const LOWEST_HZ: f64 = 20.0;
const HIGHEST_HZ: f64 = 20_000.0;

/// Where half of the sample rate is lower, the highest frequency is this share of the rate.
const HIGHEST_SHARE: f64 = 0.49;

const STAGES: usize = 6;

/// Samples between changes of the frequency.
const UPDATE_SAMPLES: usize = 4;

pub fn apply(samples: &mut [f32], rate_hz: f64) {
    let highest_hz = HIGHEST_HZ.min(HIGHEST_SHARE * rate_hz);
    // The centre is a share of the full range, whatever the sample rate.
    let centre = (CENTRE_HZ / LOWEST_HZ).ln() / (HIGHEST_HZ / LOWEST_HZ).ln();
    let mut states = [0.0f32; STAGES];
    for (block, samples) in samples.chunks_mut(UPDATE_SAMPLES).enumerate() {
        let seconds = (block * UPDATE_SAMPLES) as f64 / rate_hz;
        let place = centre - SWING * (TAU * RATE_HZ * seconds).sin();
        let frequency_hz = LOWEST_HZ * (highest_hz / LOWEST_HZ).powf(place);
        let warped = (PI * frequency_hz / rate_hz).tan();
        let gain = (warped / (1.0 + warped)) as f32;
        for sample in samples {
            let mut passed = *sample;
            for state in &mut states {
                let step = gain * (passed - *state);
                let low = *state + step;
                *state = low + step;
                passed = 2.0 * low - passed;
            }
            *sample = 0.5 * (*sample + passed);
        }
    }
}
