//! Audio clips.

/// A whole clip of audio, one buffer per channel.
#[derive(Debug, Clone, PartialEq)]
pub struct AudioClip {
    /// Samples per second of each channel.
    pub sample_rate_hz: u32,
    /// The channels, `(channel, sample)`; all have the same length. Full scale is -1 to 1.
    pub channels: Vec<Vec<f32>>,
}

/// The mean of all channels.
pub(crate) fn mono(channels: &[Vec<f32>]) -> Vec<f32> {
    match channels {
        [left, right] => left.iter().zip(right).map(|(l, r)| 0.5 * (l + r)).collect(),
        channels => channels[0].clone(),
    }
}
