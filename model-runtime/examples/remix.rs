//! Puts a chord into the rhythm of clicks, step by step as if both came from files, and prints the speed.
//!
//! ```text
//! cargo run --release --package model-runtime --example remix
//! ```

use std::f32::consts::TAU;
use std::time::Instant;

use model_runtime::{ClipRemixer, Controls, Factor, Model, RemixSettings, Result};

const RATE_HZ: u32 = 44_100;

/// Samples from one click to the next.
const BEAT_SAMPLES: usize = 22_050;

/// Samples in a step.
const STEP_SAMPLES: usize = 4410;

fn main() -> Result<()> {
    let seconds = 4;
    let samples = seconds * RATE_HZ as usize;
    let settings = RemixSettings {
        controls: Controls::default().with_share(Factor::Rhythm, 1.0),
        ..RemixSettings::default()
    };
    let mut remixer = ClipRemixer::new(&*Model::built_in()?, RATE_HZ, 1, &settings)?;
    let mut remix = vec![Vec::new()];
    let began = Instant::now();
    for start in (0..samples).step_by(STEP_SAMPLES) {
        let step = start..start + STEP_SAMPLES;
        let main: Vec<f32> = step.clone().map(chord).collect();
        let sidechain: Vec<f32> = step.map(click).collect();
        remixer.push(&[&main], &[&sidechain], &mut remix)?;
    }
    remixer.finish(&mut remix)?;
    let speed = seconds as f64 / began.elapsed().as_secs_f64();
    println!("{} samples, {speed:.0} times real time", remix[0].len());
    Ok(())
}

/// A held chord.
fn chord(sample: usize) -> f32 {
    let seconds = sample as f32 / RATE_HZ as f32;
    let notes = [220.0, 277.18, 329.63].map(|hz| (TAU * hz * seconds).sin());
    0.1 * notes.iter().sum::<f32>()
}

/// A click on every beat.
fn click(sample: usize) -> f32 {
    let since_beat = (sample % BEAT_SAMPLES) as f32;
    // As good as noise: it jumps from one sample to the next.
    0.5 * (since_beat * since_beat).sin() * (-since_beat / 200.0).exp()
}

#[test]
fn it_runs() {
    main().unwrap();
}
