//! Signals for the tests.
#![allow(dead_code, reason = "no test file uses all of them")]

use std::f32::consts::TAU;

/// Music at 22,050 Hz (see `data/README.md`).
pub fn music() -> Vec<f32> {
    include_bytes!("../data/music_excerpt.i16")
        .chunks_exact(2)
        .map(|bytes| f32::from(i16::from_le_bytes([bytes[0], bytes[1]])) / 32768.0)
        .collect()
}

/// White noise from -1 to 1, reproducible for a seed.
pub fn noise(seed: u32, samples: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..samples)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 * 2.0 - 1.0
        })
        .collect()
}

/// A sine of amplitude 0.5.
pub fn tone(frequency_hz: f32, sample_rate_hz: u32, samples: usize) -> Vec<f32> {
    (0..samples)
        .map(|n| (TAU * frequency_hz * n as f32 / sample_rate_hz as f32).sin() * 0.5)
        .collect()
}

/// Root mean square.
pub fn rms(samples: &[f32]) -> f32 {
    let power: f64 = samples.iter().map(|&x| f64::from(x).powi(2)).sum();
    (power / samples.len().max(1) as f64).sqrt() as f32
}

/// Level of `a - b` relative to `b`, in dB.
pub fn error_db(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    20.0 * (rms(&difference) / rms(b)).log10()
}
