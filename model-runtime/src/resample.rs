//! Sample rate conversion of one channel, in time with the original.
//!
//! A windowed sinc, tabulated for every phase that the two rates can have to each other (J. O. Smith, "Digital Audio
//! Resampling", 2002). It looks only [`REACH`] samples of the lower rate ahead, which blocks and Fourier transforms cannot,
//! and every output sample is the same sum however the input is cut.

use std::f64::consts::PI;
use std::sync::Arc;

use vocoder::simd::sum;
use vocoder::vectorized;

use crate::error::{Error, Result};

/// Zero crossings of the sinc on either side, in samples of the lower rate.
const REACH: usize = 64;

/// Cut-off as a share of the lower rate's Nyquist frequency: the transition ends there.
const CUT_OFF: f64 = 0.955;

/// Shape of the Kaiser window, for a stop band of -90 dB.
const KAISER_BETA: f64 = 9.0;

/// Most phases that are tabulated; rates with less in common take the nearest one.
const MAX_PHASES: u64 = 2048;

/// Resamples a stream. Output sample `n` is the input at time `n / to_hz`, whatever the sizes of the pushes. Clones share the
/// filter, which takes some milliseconds to make.
#[derive(Clone)]
pub struct Resampler {
    from_hz: u64,
    to_hz: u64,
    filter: Option<Arc<Filter>>,
    /// Input that output samples to come still need, before the first one zeros.
    input: Vec<f32>,
    /// Number of the first sample in `input`; below 0 before the stream.
    input_start: i64,
    pushed_samples: u64,
    pulled_samples: u64,
}

/// The weights of all phases.
struct Filter {
    phases: u64,
    /// Taps of a phase: from `reach - 1` samples before the output's place to `reach` after it.
    taps: usize,
    reach: usize,
    weights: Vec<f32>,
}

impl Resampler {
    /// A resampler at the beginning of a stream.
    ///
    /// # Errors
    ///
    /// When a rate is 0.
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Self> {
        if from_hz == 0 || to_hz == 0 {
            return Err(Error::input(
                "sample rates",
                "more than 0 Hz",
                format!("{from_hz} Hz and {to_hz} Hz"),
            ));
        }
        let divisor = greatest_common_divisor(from_hz, to_hz);
        let mut resampler = Self {
            from_hz: u64::from(from_hz / divisor),
            to_hz: u64::from(to_hz / divisor),
            filter: (from_hz != to_hz)
                .then(|| Arc::new(Filter::new(from_hz / divisor, to_hz / divisor))),
            input: Vec::new(),
            input_start: 0,
            pushed_samples: 0,
            pulled_samples: 0,
        };
        resampler.reset();
        Ok(resampler)
    }

    /// By how many input samples the newest input is ahead of the newest output, at most.
    #[must_use]
    pub fn latency_samples(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| filter.reach)
    }

    /// Takes the next samples and appends those that they complete to `out`.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.pushed_samples += samples.len() as u64;
        let Some(filter) = self.filter.clone() else {
            out.extend_from_slice(samples);
            return;
        };
        self.input.extend_from_slice(samples);
        vectorized!(self.pull(&filter, out));
    }

    /// Appends all output samples whose input is there.
    #[inline(always)]
    fn pull(&mut self, filter: &Filter, out: &mut Vec<f32>) {
        loop {
            let place = self.pulled_samples * self.from_hz;
            // The nearest tabulated phase at or before the output's place.
            let phase = place % self.to_hz * filter.phases / self.to_hz;
            let first = (place / self.to_hz) as i64 + 1 - filter.reach as i64 - self.input_start;
            let first = first as usize;
            let Some(input) = self.input.get(first..first + filter.taps) else {
                // Everything before is used up.
                let unneeded = first.min(self.input.len());
                self.input.drain(..unneeded);
                self.input_start += unneeded as i64;
                return;
            };
            out.push(sum(input, [filter.of_phase(phase)], |x, [weight]| {
                x * weight
            }));
            self.pulled_samples += 1;
        }
    }

    /// Ends the stream: appends the rest, so that `n` samples in all became `ceil(n * to_hz / from_hz)`, and starts
    /// again.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        if let Some(filter) = &self.filter {
            let total = (self.pushed_samples * self.to_hz).div_ceil(self.from_hz);
            let end = out.len() + total.saturating_sub(self.pulled_samples) as usize;
            let silence = vec![0.0; filter.taps];
            self.push(&silence, out);
            out.truncate(end);
        }
        self.reset();
    }

    /// Starts again at sample 0.
    pub fn reset(&mut self) {
        let before = self.filter.as_ref().map_or(0, |filter| filter.reach - 1);
        self.input.clear();
        self.input.resize(before, 0.0);
        self.input_start = -(before as i64);
        self.pushed_samples = 0;
        self.pulled_samples = 0;
    }
}

impl Filter {
    fn new(from_hz: u32, to_hz: u32) -> Self {
        // Input samples for each sample of the lower rate.
        let stretch = (f64::from(from_hz) / f64::from(to_hz)).max(1.0);
        let reach = (REACH as f64 * stretch).ceil() as usize;
        let taps = 2 * reach;
        let phases = u64::from(to_hz).min(MAX_PHASES);
        let weight = |distance: f64| {
            let x = distance / stretch;
            let window = (1.0 - (x / REACH as f64).powi(2)).max(0.0).sqrt();
            CUT_OFF / stretch * sinc(CUT_OFF * x) * bessel_i0(KAISER_BETA * window)
                / bessel_i0(KAISER_BETA)
        };
        let mut weights = Vec::with_capacity(phases as usize * taps);
        for phase in 0..phases {
            let place = phase as f64 / phases as f64;
            let exact = (0..taps).map(|tap| weight(tap as f64 + 1.0 - reach as f64 - place));
            let exact = exact.collect::<Vec<_>>();
            // A constant stays what it is in every phase.
            let sum = exact.iter().sum::<f64>();
            weights.extend(exact.iter().map(|weight| (weight / sum) as f32));
        }
        Self {
            phases,
            taps,
            reach,
            weights,
        }
    }

    fn of_phase(&self, phase: u64) -> &[f32] {
        &self.weights[phase as usize * self.taps..][..self.taps]
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

/// Modified Bessel function of the first kind and order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..50 {
        term *= quarter / f64::from(k * k);
        sum += term;
    }
    sum
}

/// Resamples a whole clip of one channel: `n` samples become `ceil(n * to_hz / from_hz)`.
///
/// # Errors
///
/// When a rate is 0.
pub fn resample(samples: &[f32], from_hz: u32, to_hz: u32) -> Result<Vec<f32>> {
    let mut resampler = Resampler::new(from_hz, to_hz)?;
    let mut out = Vec::new();
    resampler.push(samples, &mut out);
    resampler.finish(&mut out);
    Ok(out)
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use vocoder::simd::Isa;

    use super::*;

    fn sine(rate_hz: u32, samples: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * 440.0 / f64::from(rate_hz);
        (0..samples)
            .map(|n| (0.5 * (step * n as f64).sin()) as f32)
            .collect()
    }

    #[test]
    fn a_sine_keeps_its_phase_at_every_rate() {
        for (from, to) in [
            (44_100, 22_050),
            (48_000, 22_050),
            (22_050, 48_000),
            (96_000, 22_050),
            (8_000, 22_050),
        ] {
            let out = resample(&sine(from, from as usize), from, to).unwrap();
            assert_eq!(out.len(), to as usize);
            let expected = sine(to, to as usize);
            let edge = to as usize / 10;
            for n in edge..out.len() - edge {
                assert!(
                    (out[n] - expected[n]).abs() < 1e-3,
                    "{from} to {to} Hz, sample {n}"
                );
            }
        }
    }

    #[test]
    fn pushes_of_any_size_give_the_same_within_the_stated_latency() {
        let input = sine(48_000, 20_000);
        let whole = resample(&input, 48_000, 22_050).unwrap();
        for size in [1, 7, 1000, 4096] {
            let mut resampler = Resampler::new(48_000, 22_050).unwrap();
            let mut out = Vec::new();
            for (i, chunk) in input.chunks(size).enumerate() {
                resampler.push(chunk, &mut out);
                let pushed = (i * size + chunk.len()) as f64;
                let due = (pushed - resampler.latency_samples() as f64) * 22_050.0 / 48_000.0;
                assert!(
                    out.len() as f64 >= due.floor(),
                    "{} of {due} samples",
                    out.len()
                );
            }
            resampler.finish(&mut out);
            assert!(out == whole, "pushes of {size}");
        }
    }

    #[test]
    fn all_instructions_give_the_same() {
        let input = sine(48_000, 5_000);
        let outputs = Isa::available().map(|isa| {
            let mut resampler = Resampler::new(48_000, 22_050).unwrap();
            resampler.input.extend_from_slice(&input);
            let filter = resampler.filter.clone().unwrap();
            let mut out = Vec::new();
            isa.run(
                #[inline(always)]
                || resampler.pull(&filter, &mut out),
            );
            out
        });
        let outputs: Vec<_> = outputs.collect();
        assert!(outputs[0].len() > 2_000);
        assert!(outputs.iter().all(|output| *output == outputs[0]));
    }

    #[test]
    fn what_lies_above_the_new_nyquist_frequency_is_gone() {
        let tone = |hz: f64| -> Vec<f32> {
            let step = std::f64::consts::TAU * hz / 48_000.0;
            (0..48_000)
                .map(|n| (step * n as f64).sin() as f32)
                .collect()
        };
        let rms = |hz: f64| {
            let out = resample(&tone(hz), 48_000, 22_050).unwrap();
            let inner = &out[1000..out.len() - 1000];
            (inner.iter().map(|x| x * x).sum::<f32>() / inner.len() as f32).sqrt()
        };
        assert!(
            (rms(9_800.0) - 0.5f32.sqrt()).abs() < 0.01,
            "{}",
            rms(9_800.0)
        );
        for hz in [11_100.0, 12_500.0, 20_000.0] {
            assert!(rms(hz) < 1e-3, "{hz} Hz: {}", rms(hz));
        }
    }

    #[test]
    fn rates_with_nothing_in_common_stay_in_time() {
        let out = resample(&sine(44_099, 44_099), 44_099, 22_050).unwrap();
        let expected = sine(22_050, 22_050);
        for n in 1000..21_000 {
            assert!((out[n] - expected[n]).abs() < 1e-3, "sample {n}");
        }
    }

    #[test]
    fn a_rate_of_zero_is_refused() {
        assert!(resample(&[0.0], 0, 44_100).is_err());
    }
}
