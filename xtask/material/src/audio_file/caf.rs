//! The header of CAF files whose samples end with the file: recordings of unknown length, and those cut short. symphonia
//! (0.6.1) expects a length that fits.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use anyhow::{Result, ensure};

use super::chunks::{Chunk, Family, MOST_CHUNKS, read_at};
use super::open::Header;
use super::splice::Splice;

/// Longest header that is copied.
const MOST_HEADER_BYTES: u64 = 1 << 20;

/// Bytes before the samples in their chunk: a counter of edits.
const SOUND_HEADER_BYTES: u64 = 4;

/// Whether a file that begins with these bytes is of this kind.
pub(super) fn is_caf(start: &[u8]) -> bool {
    start.starts_with(b"caff")
}

/// The parts of a CAF file whose samples are its last chunk and have another length than announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caf {
    /// The file up to the first sample.
    header: Vec<u8>,
    /// Bytes of one sample of all channels; 0 if the format is compressed.
    block_bytes: u64,
    /// Bytes of samples in the file, whole blocks.
    bytes: u64,
    /// Bytes of samples that the header announces; `None` if it says that it does not know.
    promised_bytes: Option<u64>,
}

impl Caf {
    /// Finds format and samples in a file for which [`is_caf`] holds. `None` if the lengths in its header fit.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or its header is longer than that of any recording.
    pub(super) fn locate(file: &mut File) -> Result<Option<Self>> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut block_bytes = 0;
        let mut next = Chunk::first(file, Family::Caf)?;
        for _ in 0..MOST_CHUNKS {
            let Some(chunk) = next else { break };
            let fits = chunk.start.saturating_add(chunk.bytes) <= length;
            if &chunk.id == b"desc" {
                // The sample rate takes 8 bytes, names and flags of the format 8 more.
                let bytes = chunk.content(file, 20)?;
                let bytes = bytes.get(16..20).unwrap_or(&[0; 4]);
                block_bytes = bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            }
            if &chunk.id == b"data" && !fits && block_bytes > 0 {
                let start = chunk.start + SOUND_HEADER_BYTES;
                ensure!(
                    start <= length.min(MOST_HEADER_BYTES),
                    "expected samples after at most {MOST_HEADER_BYTES} bytes, found none"
                );
                let bytes = (length - start) / block_bytes * block_bytes;
                let mut header = vec![0; start as usize];
                read_at(file, 0, &mut header)?;
                let size = chunk.start as usize - 8;
                header[size..size + 8].copy_from_slice(&(SOUND_HEADER_BYTES + bytes).to_be_bytes());
                return Ok(Some(Self {
                    header,
                    block_bytes,
                    bytes,
                    // -1 stands for an unknown length.
                    promised_bytes: (chunk.bytes != u64::MAX)
                        .then(|| chunk.bytes - SOUND_HEADER_BYTES),
                }));
            }
            next = chunk.next(file)?;
        }
        Ok(None)
    }

    /// What the header says about the length.
    pub(super) fn header(&self) -> Header {
        Header {
            promised_samples: self.promised_bytes.map(|bytes| bytes / self.block_bytes),
            samples: Some(self.bytes / self.block_bytes),
        }
    }

    /// The samples with a header of their length.
    pub(super) fn splice(&self, file: File) -> Splice {
        let start = self.header.len() as u64;
        Splice::new(self.header.clone(), file, start..start + self.bytes)
    }
}
