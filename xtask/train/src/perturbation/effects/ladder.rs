//! The Moog ladder as four one-pole filters with a zero each in a loop (Stilson and Smith, "Analyzing the Moog VCF with
//! Considerations for Digital Implementation", ICMC 1996), driven through a hyperbolic tangent, with output after the second pole
//! (Välimäki and Huovilainen, "Oscillator and Filter Algorithms for Virtual Analog Synthesis", Computer Music Journal 2006).

use std::f64::consts::TAU;

const CUTOFF_HZ: f64 = 200.0;

/// The zero of each stage; it makes cutoff and resonance nearly independent.
const ZERO: f32 = 0.3;

/// Share of the output of the fourth stage that is fed back four times, where the resonance is set to 0.
const RESONANCE: f32 = 0.1;

/// Share of the input in what is fed back, so that resonance does not thin out the bass.
const COMPENSATION: f32 = 0.5;

/// Factor on the output.
const GAIN: f32 = 1.2;

pub fn apply(samples: &mut [f32], rate_hz: f64) {
    let pole = (-TAU * CUTOFF_HZ / rate_hz).exp() as f32;
    let now = (1.0 - pole) / (1.0 + ZERO);
    let before = ZERO * now;
    // The input and the outputs of the four stages.
    let mut states = [0.0f32; 5];
    for sample in samples {
        let input = sample.tanh();
        let fed_back = 4.0 * RESONANCE * (COMPENSATION * input - states[4].tanh());
        let mut previous = states[0];
        states[0] = input + fed_back;
        for stage in 1..states.len() {
            let output = now * states[stage - 1] + before * previous + pole * states[stage];
            previous = states[stage];
            states[stage] = output;
        }
        *sample = GAIN * states[2];
    }
}
