//! Freeverb by Jezar at Dreampoint (public domain, 2000): eight parallel combs with a low-pass filter in the loop, then four
//! all-pass filters in series. Its one input and output are those of its left side.

/// Lengths in samples at 44.1 kHz.
const COMBS: [u32; 8] = [1116, 1188, 1277, 1356, 1422, 1491, 1557, 1617];
const ALL_PASSES: [u32; 4] = [556, 441, 341, 225];
const RATE_HZ: u32 = 44_100;

const ROOM_SIZE: f32 = 0.5;
const DAMPING: f32 = 0.5;
const WET: f32 = 0.33;
const DRY: f32 = 0.4;

/// Freeverb's scales of these settings.
const INPUT_GAIN: f32 = 0.015;
const FEEDBACK: f32 = 0.7 + 0.28 * ROOM_SIZE;
const LOW_PASS: f32 = 0.4 * DAMPING;
const WET_GAIN: f32 = 3.0 * WET;
const DRY_GAIN: f32 = 2.0 * DRY;
const ALL_PASS_GAIN: f32 = 0.5;

pub fn apply(samples: &mut [f32], sample_rate_hz: u32) {
    let line = |length: u32| {
        let length = u64::from(length) * u64::from(sample_rate_hz) / u64::from(RATE_HZ);
        vec![0.0f32; (length as usize).max(1)]
    };
    let mut wet = vec![0.0f32; samples.len()];
    for length in COMBS {
        let mut line = line(length);
        let (mut place, mut low) = (0, 0.0);
        for (sum, sample) in wet.iter_mut().zip(&*samples) {
            let output = line[place];
            low = (1.0 - LOW_PASS) * output + LOW_PASS * low;
            line[place] = INPUT_GAIN * sample + FEEDBACK * low;
            place = next(place, line.len());
            *sum += output;
        }
    }
    for length in ALL_PASSES {
        let mut line = line(length);
        let mut place = 0;
        for sample in &mut wet {
            let delayed = line[place];
            line[place] = *sample + ALL_PASS_GAIN * delayed;
            place = next(place, line.len());
            *sample = delayed - *sample;
        }
    }
    for (sample, wet) in samples.iter_mut().zip(wet) {
        *sample = DRY_GAIN * *sample + WET_GAIN * wet;
    }
}

fn next(place: usize, length: usize) -> usize {
    if place + 1 == length { 0 } else { place + 1 }
}
