//! Reads audio files with symphonia.

mod aiff;
mod caf;
mod chunks;
mod downmix;
mod he_aac;
mod mp4;
mod mpeg;
mod open;
mod reader;
mod splice;
mod survey;
#[cfg(test)]
mod tests;
mod wave;

use std::path::Path;

use anyhow::Result;
use model_runtime::AudioClip;

pub use reader::AudioReader;

/// File name extensions of the formats that [`read`] supports.
pub const EXTENSIONS: [&str; 19] = [
    "wav", "wave", "bwf", "rf64", "w64", "aif", "aiff", "aifc", "caf", "flac", "ogg", "oga", "mp3",
    "mp2", "m4a", "m4b", "mp4", "aac", "mka",
];

/// A whole audio file.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The samples, in one or two channels.
    pub clip: AudioClip,
    /// What was noticed: see [`AudioReader::warnings`].
    pub warnings: Vec<String>,
}

/// Reads a whole audio file, as [`AudioReader`] does.
///
/// # Errors
///
/// As [`AudioReader::open`] and [`AudioReader::next_block`].
pub fn read(path: &Path) -> Result<Recording> {
    let mut reader = AudioReader::open(path)?;
    let mut blocks = vec![Vec::new(); reader.channels()];
    let mut block = Vec::new();
    while reader.next_block(&mut block)? {
        for (blocks, channel) in blocks.iter_mut().zip(&mut block) {
            blocks.push(std::mem::take(channel));
        }
    }
    // Joined one channel after the other, so that little memory is used twice.
    let channels = blocks.into_iter().map(|blocks| blocks.concat()).collect();
    Ok(Recording {
        clip: AudioClip {
            sample_rate_hz: reader.sample_rate_hz(),
            channels,
        },
        warnings: reader.warnings().to_vec(),
    })
}

/// Duration of a clip in seconds. The clip must have at least one channel.
pub fn seconds(clip: &AudioClip) -> f64 {
    clip.channels[0].len() as f64 / f64::from(clip.sample_rate_hz)
}

/// The mean of all channels.
pub fn mono(clip: &AudioClip) -> Vec<f32> {
    let mut channels = clip.channels.iter();
    let mut sum = channels.next().cloned().unwrap_or_default();
    for channel in channels {
        for (sum, sample) in sum.iter_mut().zip(channel) {
            *sum += sample;
        }
    }
    let scale = 1.0 / clip.channels.len().max(1) as f32;
    sum.iter_mut().for_each(|sample| *sample *= scale);
    sum
}

/// Resamples from `from_hz` to `to_hz` with the filter that the plugin uses in front of its network, for material that a
/// network is trained or judged on. The result has `ceil(len * to_hz / from_hz)` samples and no delay.
///
/// # Errors
///
/// Returns an error if a rate is 0.
pub fn resample(samples: &[f32], from_hz: u32, to_hz: u32) -> Result<Vec<f32>> {
    Ok(model_runtime::resample(samples, from_hz, to_hz)?)
}
