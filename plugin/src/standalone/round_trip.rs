//! Measures how long sound takes from an output of the audio device to an input.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Stages of the shift register: noise of 4095 samples.
const STAGES: u32 = 12;
const NOISE_SAMPLES: usize = (1 << STAGES) - 1;

/// -20 dBFS.
const NOISE_LEVEL: f32 = 0.1;

/// Samples before the noise, 3 s at 48 kHz: time to connect ports of JACK.
const WAITING_SAMPLES: usize = 144_000;

/// Samples recorded from the first sample of the noise on: up to 1 s at 48 kHz.
const RECORDED_SAMPLES: usize = 48_000;

/// The correlation at the right delay, over the root of its mean square at all delays: about 60 without a disturbance,
/// about 4 if nothing came back.
const CLEAR_PEAK: f64 = 10.0;

/// A measurement: plays noise and records what comes back.
pub struct Probe {
    noise: Vec<f32>,
    /// As bits.
    recording: Vec<AtomicU32>,
    recorded_samples: AtomicUsize,
    waited_samples: AtomicUsize,
}

impl Default for Probe {
    /// Prepares a measurement.
    fn default() -> Self {
        Self {
            noise: noise(),
            recording: (0..RECORDED_SAMPLES).map(|_| AtomicU32::new(0)).collect(),
            recorded_samples: AtomicUsize::new(0),
            waited_samples: AtomicUsize::new(0),
        }
    }
}

impl Probe {
    /// Whether the recording is complete.
    pub fn is_done(&self) -> bool {
        self.recorded_samples.load(Ordering::Acquire) == self.recording.len()
    }

    /// Audio thread: records a block of one input channel. Returns where in the measurement the block begins, or none before
    /// and after the measurement.
    pub fn record(&self, input: &[f32]) -> Option<usize> {
        let waited = self.waited_samples.load(Ordering::Relaxed);
        if waited < WAITING_SAMPLES {
            self.waited_samples
                .store(waited + input.len(), Ordering::Relaxed);
            return None;
        }
        let start = self.recorded_samples.load(Ordering::Relaxed);
        let rest = &self.recording[start..];
        for (slot, sample) in rest.iter().zip(input) {
            slot.store(sample.to_bits(), Ordering::Relaxed);
        }
        let end = start + input.len().min(rest.len());
        self.recorded_samples.store(end, Ordering::Release);
        (!rest.is_empty()).then_some(start)
    }

    /// Audio thread: replaces a block of one output channel, which begins at `start` in the measurement. After the noise
    /// comes silence.
    pub fn play(&self, start: usize, output: &mut [f32]) {
        let noise = self.noise.iter().skip(start).copied();
        let noise = noise.chain(std::iter::repeat(0.0));
        output
            .iter_mut()
            .zip(noise)
            .for_each(|(out, noise)| *out = noise);
    }

    /// The delay of the noise in the recording, in samples; none if it is not there.
    pub fn round_trip_samples(&self) -> Option<usize> {
        let bits = self.recording.iter();
        let recording: Vec<f32> = bits
            .map(|bits| f32::from_bits(bits.load(Ordering::Relaxed)))
            .collect();
        let correlations: Vec<f64> = recording
            .windows(self.noise.len())
            .map(|part| {
                let products = part.iter().zip(&self.noise).map(|(a, b)| f64::from(a * b));
                products.sum::<f64>().abs()
            })
            .collect();
        let mean_square =
            correlations.iter().map(|c| c * c).sum::<f64>() / correlations.len() as f64;
        let (delay, &peak) = correlations
            .iter()
            .enumerate()
            .max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        (peak > CLEAR_PEAK * mean_square.sqrt()).then_some(delay)
    }
}

/// A maximum length sequence, of the polynomial x^12 + x^8 + x^2 + x + 1.
fn noise() -> Vec<f32> {
    let mut register = 1_u32;
    (0..NOISE_SAMPLES)
        .map(|_| {
            let bit = [0, 1, 2, 8]
                .iter()
                .fold(0, |sum, tap| sum ^ (register >> tap))
                & 1;
            register = register >> 1 | bit << (STAGES - 1);
            if bit == 1 { NOISE_LEVEL } else { -NOISE_LEVEL }
        })
        .collect()
}

/// The measurement in words.
pub fn report(device_samples: Option<usize>, graft_samples: u32, rate_hz: u32) -> String {
    let in_words = |samples: usize| {
        let milliseconds = 1000.0 * samples as f64 / f64::from(rate_hz);
        format!("{milliseconds:.1} ms ({samples} samples)")
    };
    let graft = in_words(graft_samples as usize);
    match device_samples {
        Some(device_samples) => format!(
            "round trip: audio device {} + Graft {graft} = {}",
            in_words(device_samples),
            in_words(device_samples + graft_samples as usize)
        ),
        None => format!(
            "round trip: Graft {graft}; that of the audio device is not known, as nothing came back within {:.1} s: connect \
             an output to an input and measure again",
            RECORDED_SAMPLES as f64 / f64::from(rate_hz)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the measurement through a device with this delay, in blocks.
    fn measure(delay_samples: usize, gain: f32, block_samples: usize) -> Option<usize> {
        let probe = Probe::default();
        let mut state = 1_u32;
        let mut hum = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0.01 * (state as f32 / u32::MAX as f32 - 0.5)
        };
        let mut played = vec![0.0; delay_samples];
        let mut position = 0;
        while !probe.is_done() {
            let input: Vec<f32> = (position..position + block_samples)
                .map(|sample| gain * played.get(sample).copied().unwrap_or(0.0) + hum())
                .collect();
            let Some(start) = probe.record(&input) else {
                continue;
            };
            let mut output = vec![0.5; block_samples];
            probe.play(start, &mut output);
            played.extend(output);
            position += block_samples;
        }
        assert_eq!(probe.record(&[0.0; 8]), None);
        probe.round_trip_samples()
    }

    #[test]
    fn the_delay_is_found_at_any_block_size_level_and_polarity() {
        assert_eq!(measure(64, 1.0, 64), Some(64));
        assert_eq!(measure(1234, -0.1, 100), Some(1234));
        assert_eq!(measure(40_000, 0.03, 1024), Some(40_000));
    }

    #[test]
    fn without_a_connection_nothing_is_found() {
        assert_eq!(measure(64, 0.0, 64), None);
    }

    #[test]
    fn the_noise_has_a_flat_spectrum() {
        let noise = noise();
        let ones = noise.iter().filter(|&&sample| sample > 0.0).count();
        assert_eq!(ones, 1 << (STAGES - 1));
        for shift in [1, 2, 3, 1000, 4094] {
            let rotated = noise.iter().cycle().skip(shift);
            let sum: f32 = noise.iter().zip(rotated).map(|(a, b)| a * b).sum();
            assert!(
                (sum + NOISE_LEVEL * NOISE_LEVEL).abs() < 1e-3,
                "{shift}: {sum}"
            );
        }
    }

    #[test]
    fn the_report_adds_both_terms() {
        let text = report(Some(480), 4800, 48_000);
        assert_eq!(
            text,
            "round trip: audio device 10.0 ms (480 samples) + Graft 100.0 ms (4800 samples) = 110.0 ms (5280 samples)"
        );
        assert!(report(None, 4800, 48_000).contains("not known"));
    }
}
