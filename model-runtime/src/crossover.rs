//! Splits audio at the highest frequency of a model.

use crate::error::Result;
use crate::resample::Resampler;

/// Splits one channel into the band below the model's Nyquist frequency and the band above. The filters have linear
/// phase. Both bands are time-aligned with the input and add up to it.
pub(crate) struct Crossover {
    down: Resampler,
    up: Resampler,
    /// Input whose low band is not complete.
    waiting: Vec<f32>,
}

impl Crossover {
    /// Creates a crossover for audio at `host_hz` and a model at `model_hz`.
    ///
    /// # Errors
    ///
    /// If a rate is 0.
    pub(crate) fn new(host_hz: u32, model_hz: u32) -> Result<Self> {
        Ok(Self {
            down: Resampler::new(host_hz, model_hz)?,
            up: Resampler::new(model_hz, host_hz)?,
            waiting: Vec::new(),
        })
    }

    /// Largest lag of the output behind the input, in samples at each of the two rates.
    pub(crate) fn latency_samples(&self) -> (usize, usize) {
        (self.down.latency_samples(), self.up.latency_samples())
    }

    /// Takes the next samples and appends the completed samples of both bands.
    pub(crate) fn push(&mut self, samples: &[f32], low: &mut Vec<f32>, high: &mut Vec<f32>) {
        self.waiting.extend_from_slice(samples);
        let start = low.len();
        let mut at_model = Vec::new();
        self.down.push(samples, &mut at_model);
        self.up.push(&at_model, low);
        self.split(start, low, high);
    }

    /// Ends the stream: appends the remaining samples and resets.
    pub(crate) fn finish(&mut self, low: &mut Vec<f32>, high: &mut Vec<f32>) {
        let start = low.len();
        let mut at_model = Vec::new();
        self.down.finish(&mut at_model);
        self.up.push(&at_model, low);
        self.up.finish(low);
        low.resize(start + self.waiting.len(), 0.0);
        self.split(start, low, high);
    }

    /// Resets to sample 0.
    pub(crate) fn reset(&mut self) {
        self.down.reset();
        self.up.reset();
        self.waiting.clear();
    }

    /// Appends the high band for the samples of `low` from number `start` on: the input minus the low band.
    fn split(&mut self, start: usize, low: &mut Vec<f32>, high: &mut Vec<f32>) {
        // At the end of a stream, rounding of the rates may complete one sample more than was pushed.
        let complete = (low.len() - start).min(self.waiting.len());
        low.truncate(start + complete);
        let input = self.waiting.drain(..complete);
        high.extend(input.zip(&low[start..]).map(|(input, low)| input - low));
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    fn sine(hz: f64, rate_hz: u32, samples: usize) -> Vec<f32> {
        let step = TAU * hz / f64::from(rate_hz);
        (0..samples)
            .map(|n| (step * n as f64).sin() as f32)
            .collect()
    }

    fn split(input: &[f32], rate_hz: u32, sizes: &[usize]) -> [Vec<f32>; 2] {
        let mut crossover = Crossover::new(rate_hz, 22_050).unwrap();
        let (mut low, mut high) = (Vec::new(), Vec::new());
        let mut rest = input;
        for &size in sizes.iter().cycle() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            crossover.push(now, &mut low, &mut high);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        crossover.finish(&mut low, &mut high);
        [low, high]
    }

    fn level_db(samples: &[f32]) -> f64 {
        let energy: f64 = samples.iter().map(|&x| f64::from(x).powi(2)).sum();
        10.0 * (2.0 * energy / samples.len() as f64).log10()
    }

    #[test]
    fn the_parts_are_the_input_again_and_each_has_its_band() {
        for rate_hz in [44_100, 48_000, 96_000] {
            for (hz, low_db, high_db) in [
                (1000.0, 0.0, -80.0),
                (9500.0, 0.0, -80.0),
                (12_500.0, -80.0, 0.0),
            ] {
                let input = sine(hz, rate_hz, 20_000);
                let [low, high] = split(&input, rate_hz, &[64, 1, 700]);
                assert_eq!((low.len(), high.len()), (input.len(), input.len()));
                for ((low, high), input) in low.iter().zip(&high).zip(&input) {
                    assert!((low + high - input).abs() < 1e-6);
                }
                for (part, expected_db) in [(low, low_db), (high, high_db)] {
                    // Ignore the ends, where the sine is truncated.
                    let found_db = level_db(&part[1000..19_000]);
                    let fits = match expected_db {
                        0.0 => found_db.abs() < 0.01,
                        limit => found_db < limit,
                    };
                    assert!(fits, "{hz} Hz at {rate_hz} Hz: {found_db:.1} dB");
                }
            }
        }
    }

    #[test]
    fn the_parts_are_the_same_however_the_input_is_cut() {
        let input = sine(3000.0, 48_000, 5000);
        let whole = split(&input, 48_000, &[5000]);
        assert!(whole == split(&input, 48_000, &[1]));
        assert!(whole == split(&input, 48_000, &[557, 3]));
    }
}
