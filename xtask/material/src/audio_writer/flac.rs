//! FLAC, in frames of a fixed length, with flacenc.

use std::fmt::Display;

use anyhow::{Error, Result, anyhow, ensure};
use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, StreamInfo};
use flacenc::error::{Verified, Verify};
use flacenc::source::{Context, Fill, FrameBuf};
use flacenc::{config, encode_fixed_size_frame};

use super::{AudioSpec, FlacFormat, to_pcm};

/// Samples per channel of a frame.
const FRAME_SAMPLES: usize = 4096;

/// The highest sample rate that flacenc accepts.
const MAX_RATE_HZ: u32 = 96_000;

/// What is in front of the description of the stream: the mark of the format, and the head of a metadata block that is
/// the last one, describes the stream and has 34 bytes.
const MARK: [u8; 8] = *b"fLaC\x80\x00\x00\x22";

/// Bytes of the description of the stream.
const STREAM_INFO_BYTES: usize = 34;

/// Encodes FLAC.
pub struct Encoder {
    config: Verified<config::Encoder>,
    info: StreamInfo,
    bits: u32,
    /// Rounded samples, interleaved, of the next frame.
    pending: Vec<i32>,
    frame: FrameBuf,
    /// Counts samples and frames and computes the checksum.
    context: Context,
    sink: ByteSink,
}

impl Encoder {
    pub fn new(spec: AudioSpec, format: FlacFormat) -> Result<Self> {
        ensure!(
            (1..=8).contains(&spec.channels),
            "expected 1 to 8 channels for FLAC, found {}",
            spec.channels
        );
        ensure!(
            (1..=MAX_RATE_HZ).contains(&spec.sample_rate_hz),
            "expected a sample rate of up to {MAX_RATE_HZ} Hz for FLAC, found {} Hz; write WAV instead",
            spec.sample_rate_hz
        );
        let bits = match format {
            FlacFormat::Pcm16 => 16,
            FlacFormat::Pcm24 => 24,
        };
        let config = config::Encoder::default().into_verified();
        Ok(Self {
            config: config.map_err(|(_, error)| error)?,
            info: StreamInfo::new(spec.sample_rate_hz as usize, spec.channels, bits as usize)?,
            bits,
            pending: Vec::new(),
            frame: FrameBuf::with_size(spec.channels, FRAME_SAMPLES)?,
            context: Context::new(bits as usize, spec.channels),
            sink: ByteSink::new(),
        })
    }

    /// Encodes the pending values as a frame.
    fn encode_frame(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        self.frame
            .fill_interleaved(&self.pending)
            .map_err(to_error)?;
        self.context
            .fill_interleaved(&self.pending)
            .map_err(to_error)?;
        self.pending.clear();
        let number = self.context.current_frame_number().unwrap_or(0);
        let frame = encode_fixed_size_frame(&self.config, &self.frame, number, &self.info)
            .map_err(to_error)?;
        self.info.update_frame_info(&frame);
        self.sink.clear();
        frame.write(&mut self.sink).map_err(to_error)?;
        bytes.extend_from_slice(self.sink.as_slice());
        Ok(())
    }
}

impl super::Encoder for Encoder {
    fn header(&self, samples: Option<u64>) -> Result<Vec<u8>> {
        let mut header = MARK.to_vec();
        if samples.is_some() {
            let mut info = self.info.clone();
            // The last frame, which may be shorter, does not count.
            info.set_block_sizes(FRAME_SAMPLES, FRAME_SAMPLES)?;
            info.set_md5_digest(&self.context.md5_digest());
            let mut sink = ByteSink::new();
            info.write(&mut sink).map_err(to_error)?;
            header.extend_from_slice(sink.as_slice());
        }
        header.resize(MARK.len() + STREAM_INFO_BYTES, 0);
        Ok(header)
    }

    fn encode(&mut self, interleaved: &[f32], bytes: &mut Vec<u8>) -> Result<()> {
        for &sample in interleaved {
            self.pending.push(to_pcm(sample, self.bits));
            if self.pending.len() == FRAME_SAMPLES * self.info.channels() {
                self.encode_frame(bytes)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.encode_frame(bytes)
    }
}

/// flacenc's own errors cannot be sent between threads.
fn to_error(error: impl Display) -> Error {
    anyhow!("cannot encode FLAC: {error}")
}
