//! Loudness of music and its normalisation.

use anyhow::{Context, Result};

/// Level of every track after loudness normalisation, as RMS in dB relative to full scale.
pub const TARGET_RMS_DBFS: f32 = -20.0;

/// Blocks below this level do not count for a track's loudness.
const GATE_DBFS: f32 = -50.0;

/// Length of those blocks, in seconds.
const BLOCK_SECONDS: f32 = 0.4;

/// The gain that normalises `samples` to [`TARGET_RMS_DBFS`].
///
/// # Errors
///
/// Returns an error if all of them are below -50 dBFS.
pub fn loudness_gain(samples: &[f32], sample_rate_hz: u32) -> Result<f32> {
    gain_of_rms(gated_rms(samples, sample_rate_hz))
}

/// The same from the RMS that [`GatedRms::finish`] returns.
///
/// # Errors
///
/// As [`loudness_gain`].
pub fn gain_of_rms(rms: Option<f32>) -> Result<f32> {
    let rms = rms.with_context(|| format!("the file is silent (below {GATE_DBFS} dBFS)"))?;
    Ok(decibels(TARGET_RMS_DBFS) / rms)
}

/// RMS over the blocks above the gate, if there are any.
pub fn gated_rms(samples: &[f32], sample_rate_hz: u32) -> Option<f32> {
    let mut rms = GatedRms::new(sample_rate_hz);
    rms.push(samples);
    rms.finish()
}

/// The same in steps.
pub struct GatedRms {
    block_samples: usize,
    /// Energy and samples of the block that is not complete.
    block: (f32, usize),
    /// The same of all blocks above the gate.
    loud: (f64, usize),
}

impl GatedRms {
    /// Begins a recording.
    pub fn new(sample_rate_hz: u32) -> Self {
        Self {
            block_samples: ((BLOCK_SECONDS * sample_rate_hz as f32) as usize).max(1),
            block: (0.0, 0),
            loud: (0.0, 0),
        }
    }

    /// Takes the next samples.
    pub fn push(&mut self, mut samples: &[f32]) {
        while !samples.is_empty() {
            let (of_block, rest) =
                samples.split_at(samples.len().min(self.block_samples - self.block.1));
            // One by one, so that pieces make no difference.
            self.block.0 = (of_block.iter()).fold(self.block.0, |energy, x| energy + x * x);
            self.block.1 += of_block.len();
            if self.block.1 == self.block_samples {
                self.end_block();
            }
            samples = rest;
        }
    }

    /// Ends the recording.
    pub fn finish(mut self) -> Option<f32> {
        self.end_block();
        let (sum, count) = self.loud;
        (count > 0).then(|| (sum / count as f64).sqrt() as f32)
    }

    fn end_block(&mut self) {
        let (energy, samples) = std::mem::take(&mut self.block);
        if energy > decibels(GATE_DBFS).powi(2) * samples as f32 {
            self.loud.0 += f64::from(energy);
            self.loud.1 += samples;
        }
    }
}

/// A level in dB as a factor on amplitudes.
fn decibels(level: f32) -> f32 {
    10f32.powf(level / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_no_difference() {
        let samples: Vec<f32> = (0..3000)
            .map(|n| 0.3 * (0.1 * n as f32).sin() * f32::from(n % 1000 < 600))
            .collect();
        let whole = gated_rms(&samples, 1000);
        for piece in [1, 7, 400, 2999] {
            let mut rms = GatedRms::new(1000);
            samples.chunks(piece).for_each(|piece| rms.push(piece));
            assert_eq!(rms.finish(), whole, "{piece}");
        }
        assert_eq!(gated_rms(&[1e-4; 3000], 1000), None);
        assert!(gain_of_rms(None).is_err());
        // Half of the last block is loud.
        let end = gated_rms(&[[0.0; 400], [0.5; 400]].concat()[..600], 1000);
        assert!((end.unwrap() - 0.5).abs() < 1e-6);
    }
}
