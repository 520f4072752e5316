//! The header of AIFF and AIFF-C files: finds the samples, and writes a header with the right sizes for the decoder.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use anyhow::{Context, Result, bail, ensure};

use super::chunks::{Chunk, Family, MOST_CHUNKS, Samples, read_at};
use super::open::Header;
use super::splice::Splice;

/// Longest format chunk that is read; it ends with a name of up to 255 letters.
const MOST_FORMAT_BYTES: u64 = 512;

/// Bytes before the samples in their chunk: offset and block size.
const SOUND_HEADER_BYTES: u64 = 8;

/// Whether a file that begins with these bytes is of this kind.
pub(super) fn is_aiff(start: &[u8]) -> bool {
    start.starts_with(b"FORM") && matches!(start.get(8..12), Some(b"AIFF" | b"AIFC"))
}

/// The audio of an AIFF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aiff {
    /// `AIFF` or `AIFC`.
    form: [u8; 4],
    /// The content of the format chunk.
    format: Vec<u8>,
    block_bytes: u16,
    samples: Samples,
}

impl Aiff {
    /// Finds format and samples in a file for which [`is_aiff`] holds. The two may come in any order.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has no format chunk or no samples.
    pub(super) fn locate(file: &mut File) -> Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut form = [0; 4];
        read_at(file, 8, &mut form)?;
        let mut format = None;
        let mut sound = None;
        let mut next = Chunk::first(file, Family::Iff)?;
        for _ in 0..MOST_CHUNKS {
            let Some(chunk) = next else { break };
            match &chunk.id {
                b"COMM" => format = Some(chunk.content(file, MOST_FORMAT_BYTES)?),
                b"SSND" => sound = Some(chunk),
                _ => {}
            }
            if let (Some(format), Some(sound)) = (&format, &sound) {
                return Self::with_sound(file, form, format, sound, length);
            }
            next = chunk.next(file)?;
        }
        bail!("expected chunks with a format and samples, found only a part of them");
    }

    fn with_sound(
        file: &mut File,
        form: [u8; 4],
        format: &[u8],
        sound: &Chunk,
        length: u64,
    ) -> Result<Self> {
        ensure!(
            format.len() >= 18,
            "expected a format chunk of at least 18 bytes, found {}",
            format.len()
        );
        let block_bytes =
            block_bytes(format).context("expected at least one channel, found none")?;
        let mut offset = [0; 4];
        read_at(file, sound.start, &mut offset)?;
        let before = SOUND_HEADER_BYTES + u64::from(u32::from_be_bytes(offset));
        let start = sound.start + before;
        ensure!(
            start <= length,
            "expected samples, found the end of the file"
        );
        let announced = sound.bytes.saturating_sub(before);
        Ok(Self {
            form,
            format: format.to_vec(),
            block_bytes,
            samples: Samples::locate(file, start..length, announced, block_bytes, Family::Iff)?,
        })
    }

    /// What the header says about the length.
    pub(super) fn header(&self) -> Header {
        Header {
            promised_samples: self.samples.promised(self.block_bytes),
            samples: Some(self.samples.count(self.block_bytes)),
        }
    }

    /// The samples with a plain header.
    ///
    /// # Errors
    ///
    /// If they do not fit the 32 bits of the header.
    pub(super) fn splice(&self, file: File) -> Result<Splice> {
        let range = self.samples.range.clone();
        let padding: &[u8] = if self.format.len() % 2 == 1 {
            &[0]
        } else {
            &[]
        };
        let format_bytes = (self.format.len() as u32).to_be_bytes();
        let samples_bytes = range.end - range.start;
        let chunks_bytes = 4 + 8 + self.format.len() + padding.len() + 8;
        let file_bytes = chunks_bytes as u64 + SOUND_HEADER_BYTES + samples_bytes;
        let file_bytes =
            u32::try_from(file_bytes).context("expected less than 4 GiB of samples")?;
        let sound_bytes = (SOUND_HEADER_BYTES + samples_bytes) as u32;
        let header = [
            &b"FORM"[..],
            &file_bytes.to_be_bytes(),
            &self.form,
            b"COMM",
            &format_bytes,
            &self.format,
            padding,
            b"SSND",
            &sound_bytes.to_be_bytes(),
            &[0; SOUND_HEADER_BYTES as usize],
        ];
        Ok(Splice::new(header.concat(), file, range))
    }
}

/// Bytes of one sample of all channels; `None` without channels.
fn block_bytes(format: &[u8]) -> Option<u16> {
    let channels = u16::from_be_bytes([format[0], format[1]]);
    let bits = u16::from_be_bytes([format[6], format[7]]);
    let bytes = match format.get(18..22) {
        Some(b"alaw" | b"ALAW" | b"ulaw" | b"ULAW") => 1,
        Some(b"fl32" | b"FL32") => 4,
        Some(b"fl64" | b"FL64") => 8,
        _ => bits.div_ceil(8).max(1),
    };
    channels.checked_mul(bytes).filter(|bytes| *bytes > 0)
}
