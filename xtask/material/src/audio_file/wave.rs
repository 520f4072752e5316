//! The headers of the WAVE family: RIFF, RF64 (EBU Tech 3306, also as BW64) and Sony's Wave64. This module finds the
//! format and the samples, and writes a plain header for the decoder.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use anyhow::{Context, Result, bail, ensure};

use super::chunks::{Chunk, Family, MOST_CHUNKS, Samples, u64_at};
use super::open::Header;
use super::splice::Splice;

/// Format tags of the registry of wave formats (RFC 2361).
mod tag {
    pub(super) const PCM: u16 = 1;
    pub(super) const MS_ADPCM: u16 = 2;
    pub(super) const FLOAT: u16 = 3;
    pub(super) const A_LAW: u16 = 6;
    pub(super) const MU_LAW: u16 = 7;
    pub(super) const IMA_ADPCM: u16 = 0x11;
    pub(super) const MPEG: u16 = 0x50;
    pub(super) const MP3: u16 = 0x55;
    pub(super) const EXTENSIBLE: u16 = 0xfffe;
}

/// Channel positions that the format knows.
const MOST_CHANNELS: u16 = 18;

/// Longest format chunk that is read.
const MOST_FORMAT_BYTES: u64 = 4096;

/// Identifier at the beginning of a Wave64 file.
const WAVE64: [u8; 16] = *b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00";

/// The family of a WAVE file that begins with these bytes; `None` for another file.
pub(super) fn family(start: &[u8]) -> Option<Family> {
    let is_riff = matches!(start.get(..4), Some(b"RIFF" | b"RF64" | b"BW64"))
        && start.get(8..12) == Some(b"WAVE");
    match () {
        () if is_riff => Some(Family::Riff),
        () if start.starts_with(&WAVE64) => Some(Family::Wave64),
        () => None,
    }
}

/// The audio of a WAVE file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wave {
    format: Format,
    samples: Samples,
}

impl Wave {
    /// Finds format and samples.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, has no format chunk or no samples, or is in a format that cannot be decoded.
    pub(super) fn locate(file: &mut File, family: Family) -> Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut format = None;
        let mut long_bytes = None;
        let mut next = Chunk::first(file, family)?;
        for _ in 0..MOST_CHUNKS {
            let Some(chunk) = next else { break };
            match &chunk.id {
                // The 64-bit sizes of RF64: of the file, then of the samples.
                b"ds64" => {
                    let sizes = chunk.content(file, 16)?;
                    long_bytes = (sizes.len() == 16).then(|| u64_at(&sizes, 8));
                }
                b"fmt " => {
                    format = Some(Format::parse(chunk.content(file, MOST_FORMAT_BYTES)?)?);
                }
                b"data" => {
                    let format: Format =
                        format.context("expected a format chunk before the samples, found none")?;
                    let announced = match long_bytes {
                        Some(bytes) if chunk.bytes == u64::from(u32::MAX) => bytes,
                        _ => chunk.bytes,
                    };
                    let rest = chunk.start..length;
                    let block_bytes = format.block_bytes;
                    return Ok(Self {
                        samples: Samples::locate(file, rest, announced, block_bytes, family)?,
                        format,
                    });
                }
                _ => {}
            }
            next = chunk.next(file)?;
        }
        bail!("expected a chunk with samples, found none");
    }

    /// What the header says about the length.
    pub(super) fn header(&self) -> Header {
        let is_plain = matches!(
            self.format.tag,
            tag::PCM | tag::FLOAT | tag::A_LAW | tag::MU_LAW
        );
        let block_bytes = self.format.block_bytes;
        Header {
            promised_samples: self.samples.promised(block_bytes).filter(|_| is_plain),
            samples: is_plain.then(|| self.samples.count(block_bytes)),
        }
    }

    /// The samples with a plain header, and the extension of the format in which to decode them.
    pub(super) fn splice(&self, file: File) -> (Splice, &'static str) {
        let range = self.samples.range.clone();
        match self.format.tag {
            tag::MPEG | tag::MP3 => (Splice::new(Vec::new(), file, range), "mp3"),
            _ => (Splice::new(self.format.plain_header(), file, range), "wav"),
        }
    }
}

/// The format chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Format {
    /// The tag; that of the subformat if the chunk is extensible.
    tag: u16,
    channels: u16,
    rate_hz: u32,
    /// Bytes of one sample of all channels, or of one block of a compressed format.
    block_bytes: u16,
    /// Bits of one sample of one channel, filled up to whole bytes.
    bits: u16,
    /// Positions of the channels, or 0.
    channel_mask: u32,
    chunk: Vec<u8>,
}

impl Format {
    fn parse(chunk: Vec<u8>) -> Result<Self> {
        ensure!(
            chunk.len() >= 14,
            "expected a format chunk of at least 14 bytes, found {}",
            chunk.len()
        );
        let u16_or_0 = |at: usize| chunk.get(at..at + 2).map_or(0, |bytes| u16_at(bytes, 0));
        let mut format = Self {
            tag: u16_at(&chunk, 0),
            channels: u16_at(&chunk, 2),
            rate_hz: u32_at(&chunk, 4),
            block_bytes: u16_at(&chunk, 12),
            bits: u16_or_0(14),
            channel_mask: 0,
            chunk: Vec::new(),
        };
        if format.tag == tag::EXTENSIBLE {
            ensure!(
                chunk.len() >= 40,
                "expected an extensible format chunk of at least 40 bytes, found {}",
                chunk.len()
            );
            format.channel_mask = u32_at(&chunk, 20);
            format.tag = u16_at(&chunk, 24);
        }
        format.chunk = chunk;
        ensure!(
            (1..=MOST_CHANNELS).contains(&format.channels),
            "expected 1 to {MOST_CHANNELS} channels, found {}",
            format.channels
        );
        ensure!(format.rate_hz > 0, "expected a sample rate, found 0 Hz");
        format.set_sample_size()?;
        Ok(format)
    }

    /// Checks the size of a sample, and corrects that of a block.
    fn set_sample_size(&mut self) -> Result<()> {
        let sizes: &[u16] = match self.tag {
            tag::PCM => &[8, 16, 24, 32],
            tag::FLOAT => &[32, 64],
            tag::A_LAW | tag::MU_LAW => &[8],
            tag::MS_ADPCM | tag::IMA_ADPCM => {
                self.block_bytes = self.block_bytes.max(1);
                return Ok(());
            }
            tag::MPEG | tag::MP3 => {
                self.block_bytes = 1;
                return Ok(());
            }
            other => bail!(
                "expected PCM, floating point, A-law, mu-law, ADPCM or MPEG in the WAV file, found {}",
                name_of(other)
            ),
        };
        // Samples of odd sizes, such as 12 or 20 bits, are stored in whole bytes.
        let stored = self.block_bytes / self.channels * 8;
        self.bits = match self.block_bytes.is_multiple_of(self.channels) && stored >= self.bits {
            true => stored,
            false => self.bits.next_multiple_of(8),
        };
        ensure!(
            sizes.contains(&self.bits),
            "expected {} bits per sample, found {}",
            sizes
                .iter()
                .map(u16::to_string)
                .collect::<Vec<_>>()
                .join(" or "),
            self.bits
        );
        self.block_bytes = (self.bits / 8)
            .checked_mul(self.channels)
            .context("too many channels")?;
        Ok(())
    }

    /// A header for a stream of unknown length, in the form that symphonia reads.
    fn plain_header(&self) -> Vec<u8> {
        let format = match self.tag {
            tag::MS_ADPCM | tag::IMA_ADPCM => self.chunk.clone(),
            tag::A_LAW | tag::MU_LAW => [self.fields(self.tag), vec![0; 2]].concat(),
            _ => self.extensible(),
        };
        let unknown = u32::MAX.to_le_bytes();
        let length = (format.len() as u32).to_le_bytes();
        let padding: &[u8] = if format.len() % 2 == 1 { &[0] } else { &[] };
        [
            &b"RIFF"[..],
            &unknown,
            b"WAVEfmt ",
            &length,
            &format,
            padding,
            b"data",
            &unknown,
        ]
        .concat()
    }

    /// An extensible format chunk, which names the positions of the channels.
    fn extensible(&self) -> Vec<u8> {
        let mut chunk = self.fields(tag::EXTENSIBLE);
        chunk.extend(22_u16.to_le_bytes());
        chunk.extend(self.bits.to_le_bytes());
        chunk.extend(self.mask().to_le_bytes());
        chunk.extend(self.tag.to_le_bytes());
        // The rest of every GUID of this kind.
        chunk.extend(*b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
        chunk
    }

    /// The fields that all format chunks have.
    fn fields(&self, tag: u16) -> Vec<u8> {
        let bytes_per_second = self.rate_hz.wrapping_mul(u32::from(self.block_bytes));
        [
            &tag.to_le_bytes()[..],
            &self.channels.to_le_bytes(),
            &self.rate_hz.to_le_bytes(),
            &bytes_per_second.to_le_bytes(),
            &self.block_bytes.to_le_bytes(),
            &self.bits.to_le_bytes(),
        ]
        .concat()
    }

    /// Positions for all channels: those of the file, or the usual ones.
    fn mask(&self) -> u32 {
        if self.channel_mask.count_ones() == u32::from(self.channels) {
            return self.channel_mask;
        }
        match self.channels {
            // Front centre.
            1 => 0x4,
            2 => 0x3,
            // Front left, right, centre.
            3 => 0x7,
            // Front and rear pairs.
            4 => 0x33,
            5 => 0x37,
            // 5.1: with front centre and bass.
            6 => 0x3f,
            // 6.1: with rear centre.
            7 => 0x13f,
            // 7.1: with side pair.
            8 => 0x63f,
            _ => 0,
        }
    }
}

/// What a format tag stands for.
fn name_of(tag: u16) -> String {
    match tag {
        0x31 => "GSM 6.10".into(),
        0x92 | 0x2000 => "AC-3".into(),
        0xff | 0x1600 | 0x1610 => "AAC".into(),
        0x160..=0x163 => "Windows Media Audio".into(),
        0x2001 => "DTS".into(),
        other => format!("a format with tag {other:#06x}"),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}
