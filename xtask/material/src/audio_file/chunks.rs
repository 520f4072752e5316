//! Chunks of RIFF, Wave64, IFF and CAF files.
//!
//! Programs write their sizes as they can: of a stream whose length was not known, of a file that grew beyond 4 GiB, or
//! simply wrong.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use anyhow::Result;

/// More chunks than any program writes.
pub(super) const MOST_CHUNKS: usize = 10_000;

/// How chunks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Little-endian, with 32-bit sizes: WAVE, also as RF64.
    Riff,
    /// With GUIDs and 64-bit sizes. A GUID begins with the four letters of its RIFF counterpart.
    Wave64,
    /// Big-endian, with 32-bit sizes: AIFF.
    Iff,
    /// Big-endian, with 64-bit sizes and without padding.
    Caf,
}

impl Family {
    /// Bytes of the header of a chunk.
    fn header_bytes(self) -> usize {
        match self {
            Self::Wave64 => 24,
            Self::Caf => 12,
            _ => 8,
        }
    }

    /// Bytes of the header of the file.
    fn file_header_bytes(self) -> u64 {
        match self {
            Self::Wave64 => 40,
            Self::Caf => 8,
            _ => 12,
        }
    }
}

/// The header of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) id: [u8; 4],
    /// Position of its content in the file.
    pub(super) start: u64,
    /// Announced length of its content.
    pub(super) bytes: u64,
    family: Family,
}

impl Chunk {
    /// The first chunk of a file; `None` if the file ends before.
    pub(super) fn first(file: &mut File, family: Family) -> Result<Option<Self>> {
        Self::read(file, family.file_header_bytes(), family)
    }

    fn read(file: &mut File, position: u64, family: Family) -> Result<Option<Self>> {
        let mut header = [0; 24];
        let header = &mut header[..family.header_bytes()];
        match read_at(file, position, header) {
            // Also at a position that no file has.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
                ) =>
            {
                return Ok(None);
            }
            other => other?,
        }
        let size = [header[4], header[5], header[6], header[7]];
        let bytes = match family {
            Family::Riff => u64::from(u32::from_le_bytes(size)),
            Family::Iff => u64::from(u32::from_be_bytes(size)),
            // The size includes the header.
            Family::Wave64 => u64_at(header, 16).saturating_sub(24),
            Family::Caf => u64_at(header, 4).swap_bytes(),
        };
        Ok(Some(Self {
            id: [header[0], header[1], header[2], header[3]],
            start: position + header.len() as u64,
            bytes,
            family,
        }))
    }

    /// The next chunk; `None` at the end of the file. Some programs forget the byte of zero after a chunk of odd length.
    pub(super) fn next(&self, file: &mut File) -> Result<Option<Self>> {
        let end = self.start.saturating_add(self.bytes);
        let position = match self.family {
            Family::Wave64 => end.checked_next_multiple_of(8).unwrap_or(u64::MAX),
            Family::Caf => end,
            _ if self.bytes.is_multiple_of(2) => end,
            _ => {
                let mut byte = [0];
                match read_at(file, end, &mut byte) {
                    Ok(()) if byte != [0] => end,
                    _ => end.saturating_add(1),
                }
            }
        };
        Self::read(file, position, self.family)
    }

    /// The first bytes of the content, up to `most`.
    pub(super) fn content(&self, file: &mut File, most: u64) -> Result<Vec<u8>> {
        file.seek(SeekFrom::Start(self.start))?;
        let mut content = Vec::new();
        file.take(self.bytes.min(most)).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Whether this looks like a chunk that ends before `end`.
    fn fits(&self, end: u64) -> bool {
        let is_text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        self.id.iter().all(is_text) && self.start.saturating_add(self.bytes) <= end
    }
}

/// Where the samples of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Samples {
    /// Bytes of the file, whole blocks.
    pub(super) range: Range<u64>,
    /// Bytes that the header announces, unless it says that it does not know.
    promised_bytes: Option<u64>,
}

impl Samples {
    /// Samples in blocks of `block_bytes`. `rest` is the file from the first one on, `announced` their length in the
    /// header.
    pub(super) fn locate(
        file: &mut File,
        rest: Range<u64>,
        announced: u64,
        block_bytes: u16,
        family: Family,
    ) -> Result<Self> {
        let available = rest.end.saturating_sub(rest.start);
        let is_unknown = match family {
            Family::Wave64 => announced == 0,
            _ => is_unknown_length(announced) || has_overflowed(announced, available),
        };
        // A file without samples may go on with other chunks.
        let is_empty = announced == 0
            && Chunk::read(file, rest.start, family)?.is_some_and(|next| next.fits(rest.end));
        let promised_bytes = (!is_unknown || is_empty).then_some(announced);
        let block_bytes = u64::from(block_bytes.max(1));
        let bytes = promised_bytes.unwrap_or(available).min(available) / block_bytes * block_bytes;
        Ok(Self {
            range: rest.start..rest.start + bytes,
            promised_bytes,
        })
    }

    /// Number of blocks in the file.
    pub(super) fn count(&self, block_bytes: u16) -> u64 {
        (self.range.end - self.range.start) / u64::from(block_bytes.max(1))
    }

    /// Number of blocks that the header announces, if it does.
    pub(super) fn promised(&self, block_bytes: u16) -> Option<u64> {
        Some(self.promised_bytes? / u64::from(block_bytes.max(1)))
    }
}

/// Whether a program that does not know the length of its stream writes this size: zero, the largest number with or
/// without sign, or such a number less a header.
fn is_unknown_length(bytes: u64) -> bool {
    bytes == 0 || (0x7fff_f000..=0x8000_0000).contains(&bytes) || bytes >= 0xffff_f000
}

/// Whether a file with `available` bytes of samples grew beyond the 32 bits of its header, which then holds the
/// remainder. Chunks after the samples may take up to a mebibyte.
fn has_overflowed(announced: u64, available: u64) -> bool {
    available > u64::from(u32::MAX) && (available - announced) % (1 << 32) < (1 << 20)
}

/// Reads all of `bytes` from `position` on.
pub(super) fn read_at(file: &mut File, position: u64, bytes: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(position))?;
    file.read_exact(bytes)
}

/// The little-endian number at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    (0..8).fold(0, |number, byte| {
        number | u64::from(bytes[at + byte]) << (8 * byte)
    })
}
