//! A first pass over the packets of a file, without decoding, for the formats that say too little at their beginning.

use std::path::Path;

use anyhow::{Result, ensure};
use symphonia::core::codecs::audio::well_known::CODEC_ID_AAC;
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::FormatReader;
use symphonia::core::formats::well_known::FORMAT_ID_OGG;

use super::open::{audio_track, open};
use super::{he_aac, mpeg};

/// Packets of AAC in which spectral band replication is looked for.
const AAC_PACKETS: usize = 8;

/// What the packets of a file say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// The most channels of any MPEG audio packet; 0 for other codecs.
    pub(super) channels: usize,
    /// Samples per channel of each stream of the file, with the delay of the encoder and, but for Ogg, its padding.
    pub(super) stream_samples: Vec<u64>,
}

impl Survey {
    /// Surveys a file if its format needs it: MPEG audio, AAC, and Ogg with several streams.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, or is HE-AAC.
    pub(super) fn take(path: &Path) -> Result<Option<Self>> {
        let mut format = open(path)?.format;
        let (track, params) = audio_track(&*format)?;
        let is_chain = format.format_info().format == FORMAT_ID_OGG && track.num_frames.is_none();
        let is_mpeg = mpeg::Layout::is_known(params.codec);
        match is_chain || is_mpeg || params.codec == CODEC_ID_AAC {
            true => Self::of(&mut *format).map(Some),
            false => Ok(None),
        }
    }

    fn of(format: &mut dyn FormatReader) -> Result<Self> {
        let mut survey = Self::default();
        let mut aac = (0, 0);
        loop {
            let (track, params) = audio_track(format)?;
            let (track_id, codec) = (track.id, params.codec);
            let is_ogg = format.format_info().format == FORMAT_ID_OGG;
            let mut samples = 0;
            let mut padding = 0;
            let end = loop {
                let packet = match format.next_packet() {
                    Ok(Some(packet)) if packet.track_id == track_id => packet,
                    Ok(Some(_)) => continue,
                    Ok(None) => break None,
                    // The reader meets the same errors, and reports them.
                    Err(error) => break Some(error),
                };
                let layout = mpeg::Layout::of(codec, &packet.data);
                samples += match layout {
                    Some(layout) => layout.samples,
                    None => packet.block_dur().get(),
                };
                padding = if is_ogg { packet.trim_end.get() } else { 0 };
                survey.channels = survey
                    .channels
                    .max(layout.map_or(0, |layout| layout.channels));
                if codec == CODEC_ID_AAC && aac.0 < AAC_PACKETS {
                    aac.0 += 1;
                    aac.1 += usize::from(he_aac::seems_replicated(&packet.data));
                }
            };
            survey.stream_samples.push(samples - padding);
            if !matches!(end, Some(SymphoniaError::ResetRequired)) {
                break;
            }
        }
        let (packets, replicated) = aac;
        ensure!(
            packets < 3 || 4 * replicated < 3 * packets,
            "HE-AAC is not supported: only half of its frequency range could be decoded; expected AAC-LC"
        );
        Ok(survey)
    }
}
