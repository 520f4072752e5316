//! Rounding to 8 bits.

/// Steps from silence to full scale. Eight bits for each sign, as pedalboard counts them.
const STEPS: f32 = 256.0;

pub fn apply(samples: &mut [f32]) {
    for sample in samples {
        *sample = (*sample * STEPS).round_ties_even() / STEPS;
    }
}
