//! Turns a glide into its mel and back into sound by Griffin-Lim, and measures what is lost.
//!
//! ```text
//! cargo run --release --package vocoder --example resynthesis
//! ```

use std::f32::consts::TAU;

use vocoder::griffin_lim::GriffinLim;
use vocoder::{MelConfig, MelSpectrogram, Result};

fn main() -> Result<()> {
    let config = MelConfig::default();
    let mut spectrogram = MelSpectrogram::new(&config)?;
    let mel = spectrogram.log_mel(&glide(2 * config.sample_rate_hz, config.sample_rate_hz));
    for iterations in [1, 8, 32] {
        let sound = GriffinLim::new(&config, iterations)?.samples(&mel)?;
        let error = distance(spectrogram.log_mel(&sound).values(), mel.values());
        println!("{iterations:2} iterations: off by {error:.3} nepers");
    }
    Ok(())
}

/// A tone that rises from 110 to 880 Hz.
fn glide(samples: u32, rate_hz: u32) -> Vec<f32> {
    let mut phase = 0.0;
    (0..samples)
        .map(|n| {
            let frequency_hz = 110.0 * 8.0_f32.powf(n as f32 / samples as f32);
            phase = (phase + frequency_hz / rate_hz as f32).fract();
            0.3 * (TAU * phase).sin()
        })
        .collect()
}

/// Mean absolute difference of two log-mels.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let sum: f32 = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum();
    sum / a.len().max(1) as f32
}

#[test]
fn it_runs() {
    main().unwrap();
}
