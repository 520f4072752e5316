//! The headers of MPEG audio frames (ISO/IEC 11172-3 and 13818-3).

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3};

/// What a decoder cannot change between frames. Files that were joined without re-encoding change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Version, layer and sample rate, as they are in the header.
    format: [u8; 2],
    /// 1 or 2.
    pub(super) channels: usize,
    /// Samples per channel of each frame.
    pub(super) samples: u64,
}

impl Layout {
    /// Whether packets of this codec have such a header.
    pub(super) fn is_known(codec: AudioCodecId) -> bool {
        [CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3].contains(&codec)
    }

    /// The layout of a packet; `None` for other codecs.
    pub(super) fn of(codec: AudioCodecId, packet: &[u8]) -> Option<Self> {
        let &[_, version, rate, mode, ..] = packet else {
            return None;
        };
        Self::is_known(codec).then_some(Self {
            format: [version & 0b0001_1110, rate & 0b0000_1100],
            channels: if mode >> 6 == 3 { 1 } else { 2 },
            samples: match (version >> 1 & 3, version >> 3 & 3) {
                // Layer 1.
                (3, _) => 384,
                // Layer 3 with the lower sample rates of MPEG 2 and 2.5.
                (1, 0 | 2) => 576,
                _ => 1152,
            },
        })
    }
}
