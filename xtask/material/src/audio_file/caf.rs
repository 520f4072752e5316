//! The header of CAF files. symphonia (0.6.1) expects that their last chunk ends with the file, which it does not in
//! recordings of unknown length, and in those cut short.

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

/// The parts of a CAF file with samples of constant size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caf {
    /// The file up to the first sample.
    header: Vec<u8>,
    /// Bytes of one packet.
    block_bytes: u64,
    /// Samples per channel in a packet.
    block_samples: u64,
    /// Bytes of samples in the file, whole blocks.
    bytes: u64,
    /// Bytes of samples that the header announces; `None` if it says that it does not know.
    promised_bytes: Option<u64>,
}

impl Caf {
    /// Finds format and samples in a file for which [`is_caf`] holds. `None` if its packets have different sizes: then
    /// another chunk has a table of them.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or its header is longer than that of any recording.
    pub(super) fn locate(file: &mut File) -> Result<Option<Self>> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut packet = [0; 2];
        let mut next = Chunk::first(file, Family::Caf)?;
        for _ in 0..MOST_CHUNKS {
            let Some(chunk) = next else { break };
            if &chunk.id == b"desc" {
                let description = chunk.content(file, 24)?;
                packet = [16, 20].map(|at| u32_at(&description, at).unwrap_or(0));
            }
            if &chunk.id == b"data" && packet[0] > 0 && packet[1] > 0 {
                let [block_bytes, block_samples] = packet.map(u64::from);
                let start = chunk.start + SOUND_HEADER_BYTES;
                ensure!(
                    start <= length.min(MOST_HEADER_BYTES),
                    "expected samples after at most {MOST_HEADER_BYTES} bytes, found none"
                );
                // -1 stands for an unknown length.
                let promised_bytes = (chunk.bytes != u64::MAX)
                    .then(|| chunk.bytes.saturating_sub(SOUND_HEADER_BYTES));
                let available = length - start;
                let bytes = promised_bytes.unwrap_or(available).min(available);
                let bytes = bytes / block_bytes * block_bytes;
                let mut header = vec![0; start as usize];
                read_at(file, 0, &mut header)?;
                let size = chunk.start as usize - 8;
                header[size..size + 8].copy_from_slice(&(SOUND_HEADER_BYTES + bytes).to_be_bytes());
                return Ok(Some(Self {
                    header,
                    block_bytes,
                    block_samples,
                    bytes,
                    promised_bytes,
                }));
            }
            next = chunk.next(file)?;
        }
        Ok(None)
    }

    /// What the header says about the length.
    pub(super) fn header(&self) -> Header {
        Header {
            promised_samples: self.promised_bytes.map(|bytes| self.samples(bytes)),
            samples: Some(self.samples(self.bytes)),
        }
    }

    fn samples(&self, bytes: u64) -> u64 {
        (bytes / self.block_bytes).saturating_mul(self.block_samples)
    }

    /// The samples with a header of their length.
    pub(super) fn splice(&self, file: File) -> Splice {
        let start = self.header.len() as u64;
        Splice::new(self.header.clone(), file, start..start + self.bytes)
    }
}

/// The big-endian number at `at`.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte)),
    )
}
