//! Distortion by a hyperbolic tangent.

/// Amplification before, in dB.
const DRIVE_DB: f32 = 25.0;

pub fn apply(samples: &mut [f32]) {
    let gain = 10f32.powf(DRIVE_DB / 20.0);
    for sample in samples {
        *sample = (*sample * gain).tanh();
    }
}
