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
    let rms = gated_rms(samples, sample_rate_hz)
        .with_context(|| format!("the file is silent (below {GATE_DBFS} dBFS)"))?;
    Ok(decibels(TARGET_RMS_DBFS) / rms)
}

/// RMS over the blocks above the gate, if there are any.
pub fn gated_rms(samples: &[f32], sample_rate_hz: u32) -> Option<f32> {
    let block_samples = (BLOCK_SECONDS * sample_rate_hz as f32) as usize;
    let gate = decibels(GATE_DBFS).powi(2);
    let (mut sum, mut count) = (0.0f64, 0usize);
    for block in samples.chunks(block_samples.max(1)) {
        let energy: f32 = block.iter().map(|sample| sample * sample).sum();
        if energy > gate * block.len() as f32 {
            sum += f64::from(energy);
            count += block.len();
        }
    }
    (count > 0).then(|| (sum / count as f64).sqrt() as f32)
}

/// A level in dB as a factor on amplitudes.
fn decibels(level: f32) -> f32 {
    10f32.powf(level / 20.0)
}
