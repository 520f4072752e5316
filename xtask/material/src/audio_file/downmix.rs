//! From the channels of a file to one or two.

use symphonia::core::audio::{Channels, Position};

/// -3 dB.
const HALF_POWER: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// How the channels of a file become one or two.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Downmix {
    /// One channel.
    Mono,
    /// Two channels.
    Stereo,
    /// Gains of each channel in the left and right one.
    Matrix(Vec<[f32; 2]>),
}

impl Downmix {
    /// For more than two channels, mixes as ITU-R BS.775 does, scaled so that nothing clips: the channels of each side
    /// go to that side, surround and height channels at -3 dB; those in the middle to both sides, 3 dB lower; the bass
    /// channel is left out. Channels without positions go to both sides.
    pub(super) fn new(channels: &Channels) -> Self {
        let gains = match channels {
            _ if channels.count() == 1 => return Self::Mono,
            _ if channels.count() == 2 => return Self::Stereo,
            Channels::Positioned(positions) => positions.iter().map(gains).collect(),
            // Two cardioid microphones to the left and right, from the channels W and Y.
            Channels::Ambisonic(_) => (0..channels.count())
                .map(|channel| match channel {
                    0 => [1.0, 1.0],
                    1 => [1.0, -1.0],
                    _ => [0.0; 2],
                })
                .collect(),
            _ => vec![[1.0; 2]; channels.count()],
        };
        Self::Matrix(normalised(gains))
    }

    /// Number of channels that result.
    pub(super) fn channels(&self) -> usize {
        match self {
            Self::Mono => 1,
            _ => 2,
        }
    }

    /// Mixes one block into `mixed`, which gets one or two channels.
    pub(super) fn mix(&self, channels: &[Vec<f32>], mixed: &mut Vec<Vec<f32>>) {
        match self {
            Self::Mono | Self::Stereo => {
                mixed.resize(channels.len(), Vec::new());
                mixed.clone_from_slice(channels);
            }
            Self::Matrix(gains) => {
                let samples = channels.first().map_or(0, Vec::len);
                mixed.resize(2, Vec::new());
                for (side, mixed) in mixed.iter_mut().enumerate() {
                    mixed.clear();
                    mixed.resize(samples, 0.0);
                    for (channel, gains) in channels.iter().zip(gains) {
                        for (mixed, sample) in mixed.iter_mut().zip(channel) {
                            *mixed += gains[side] * sample;
                        }
                    }
                }
            }
        }
    }
}

/// Gains of a channel at this position in the left and right one.
fn gains(position: Position) -> [f32; 2] {
    let left = Position::FRONT_LEFT | Position::FRONT_LEFT_CENTER | Position::FRONT_LEFT_WIDE;
    let right = Position::FRONT_RIGHT | Position::FRONT_RIGHT_CENTER | Position::FRONT_RIGHT_WIDE;
    let surround_left = Position::REAR_LEFT
        | Position::SIDE_LEFT
        | Position::TOP_FRONT_LEFT
        | Position::TOP_REAR_LEFT
        | Position::TOP_SIDE_LEFT
        | Position::BOTTOM_FRONT_LEFT;
    let surround_right = Position::REAR_RIGHT
        | Position::SIDE_RIGHT
        | Position::TOP_FRONT_RIGHT
        | Position::TOP_REAR_RIGHT
        | Position::TOP_SIDE_RIGHT
        | Position::BOTTOM_FRONT_RIGHT;
    match position {
        _ if left.contains(position) => [1.0, 0.0],
        _ if right.contains(position) => [0.0, 1.0],
        _ if surround_left.contains(position) => [HALF_POWER, 0.0],
        _ if surround_right.contains(position) => [0.0, HALF_POWER],
        _ if (Position::LFE1 | Position::LFE2).contains(position) => [0.0; 2],
        Position::FRONT_CENTER => [HALF_POWER; 2],
        // Behind or above.
        _ => [0.5; 2],
    }
}

/// Scales the gains so that full scale in all channels gives full scale.
fn normalised(mut gains: Vec<[f32; 2]>) -> Vec<[f32; 2]> {
    let sum = |side: usize| gains.iter().map(|gains| gains[side].abs()).sum::<f32>();
    let most = sum(0).max(sum(1));
    if most > 0.0 {
        gains.iter_mut().flatten().for_each(|gain| *gain /= most);
    }
    gains
}
