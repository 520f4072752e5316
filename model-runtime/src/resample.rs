//! Sample rate conversion of one channel (rubato's synchronous FFT resampler), in time with the original.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use crate::error::{Error, Result};

/// Shortest block: long enough for a steep filter.
const MIN_BLOCK_SAMPLES: usize = 1024;

/// Resamples a stream. Output sample `n` is the input at time `n / to_hz`, whatever the sizes of the pushes.
pub struct Resampler {
    from_hz: u32,
    to_hz: u32,
    engine: Option<Engine>,
    pushed_samples: u64,
    pulled_samples: u64,
}

struct Engine {
    fft: Fft<f32>,
    block_samples: usize,
    pending: Vec<f32>,
    output: Vec<f32>,
    /// Output samples still to be dropped, so that the output is in time.
    delay_left: usize,
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
        let engine = (from_hz != to_hz)
            .then(|| Engine::new(from_hz, to_hz))
            .transpose()?;
        Ok(Self {
            from_hz,
            to_hz,
            engine,
            pushed_samples: 0,
            pulled_samples: 0,
        })
    }

    /// By how many input samples the newest input is ahead of the newest output, at most.
    #[must_use]
    pub fn latency_samples(&self) -> usize {
        self.engine.as_ref().map_or(0, |engine| {
            let delay = engine.fft.output_delay() as u64 * u64::from(self.from_hz);
            engine.block_samples + delay.div_ceil(u64::from(self.to_hz)) as usize
        })
    }

    /// Takes the next samples and appends those that they complete to `out`.
    ///
    /// # Errors
    ///
    /// When rubato fails.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<()> {
        self.pushed_samples += samples.len() as u64;
        let before = out.len();
        match &mut self.engine {
            Some(engine) => engine.push(samples, out)?,
            None => out.extend_from_slice(samples),
        }
        self.pulled_samples += (out.len() - before) as u64;
        Ok(())
    }

    /// Ends the stream: appends the rest, so that `n` samples in all became `ceil(n * to_hz / from_hz)`, and starts
    /// again.
    ///
    /// # Errors
    ///
    /// When rubato fails.
    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<()> {
        if let Some(engine) = &mut self.engine {
            let total =
                (self.pushed_samples * u64::from(self.to_hz)).div_ceil(u64::from(self.from_hz));
            let end = out.len() + total.saturating_sub(self.pulled_samples) as usize;
            let silence = vec![0.0; engine.block_samples];
            while out.len() < end {
                engine.push(&silence, out)?;
            }
            out.truncate(end);
        }
        self.reset();
        Ok(())
    }

    /// Starts again at sample 0.
    pub fn reset(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.fft.reset();
            engine.pending.clear();
            engine.delay_left = engine.fft.output_delay();
        }
        self.pushed_samples = 0;
        self.pulled_samples = 0;
    }
}

impl Engine {
    fn new(from_hz: u32, to_hz: u32) -> Result<Self> {
        // The delay is half an output block, so a block of even length keeps it whole.
        let unit_samples = 2 * from_hz as usize / greatest_common_divisor(from_hz, to_hz) as usize;
        let block_samples = MIN_BLOCK_SAMPLES.next_multiple_of(unit_samples);
        let fft = Fft::new_custom(
            from_hz as usize,
            to_hz as usize,
            block_samples,
            1,
            1,
            WindowFunction::BlackmanHarris2,
            FixedSync::Input,
        )
        .map_err(|error| Error::Resample(error.to_string()))?;
        Ok(Self {
            block_samples,
            pending: Vec::new(),
            output: vec![0.0; fft.output_frames_max()],
            delay_left: fft.output_delay(),
            fft,
        })
    }

    fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<()> {
        self.pending.extend_from_slice(samples);
        let blocks = self.pending.len() / self.block_samples;
        for block in self.pending.chunks_exact(self.block_samples) {
            let capacity = self.output.len();
            let failed = |error: &dyn std::fmt::Display| Error::Resample(error.to_string());
            let input =
                SequentialSlice::new(block, 1, block.len()).map_err(|error| failed(&error))?;
            let mut output = SequentialSlice::new_mut(&mut self.output, 1, capacity)
                .map_err(|error| failed(&error))?;
            let (_, written) = self
                .fft
                .process_into_buffer(&input, &mut output, None)
                .map_err(|error| failed(&error))?;
            let skip = self.delay_left.min(written);
            self.delay_left -= skip;
            out.extend_from_slice(&self.output[skip..written]);
        }
        self.pending.drain(..blocks * self.block_samples);
        Ok(())
    }
}

/// Resamples a whole clip of one channel: `n` samples become `ceil(n * to_hz / from_hz)`.
///
/// # Errors
///
/// When a rate is 0.
pub fn resample(samples: &[f32], from_hz: u32, to_hz: u32) -> Result<Vec<f32>> {
    let mut resampler = Resampler::new(from_hz, to_hz)?;
    let mut out = Vec::new();
    resampler.push(samples, &mut out)?;
    resampler.finish(&mut out)?;
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
                resampler.push(chunk, &mut out).unwrap();
                let pushed = (i * size + chunk.len()) as f64;
                let due = (pushed - resampler.latency_samples() as f64) * 22_050.0 / 48_000.0;
                assert!(
                    out.len() as f64 >= due.floor(),
                    "{} of {due} samples",
                    out.len()
                );
            }
            resampler.finish(&mut out).unwrap();
            assert!(out == whole, "pushes of {size}");
        }
    }

    #[test]
    fn a_rate_of_zero_is_refused() {
        assert!(resample(&[0.0], 0, 44_100).is_err());
    }
}
