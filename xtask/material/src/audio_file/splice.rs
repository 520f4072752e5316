//! A file as a decoder should see it: a header of our own, followed by a part of the file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use symphonia::core::io::MediaSource;

/// `header`, followed by the bytes `range` of `file`.
pub(super) struct Splice {
    header: Vec<u8>,
    file: File,
    range: Range<u64>,
    position: u64,
}

impl Splice {
    /// The range must be within the file.
    pub(super) fn new(header: Vec<u8>, file: File, range: Range<u64>) -> Self {
        Self {
            header,
            file,
            range,
            position: 0,
        }
    }

    fn len(&self) -> u64 {
        self.header.len() as u64 + (self.range.end - self.range.start)
    }
}

impl Read for Splice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let header = self.header.len() as u64;
        let read = match self.position.checked_sub(header) {
            None => (&self.header[self.position as usize..]).read(buffer)?,
            Some(offset) => {
                let left = (self.len() - header).saturating_sub(offset);
                let wanted = left.min(buffer.len() as u64) as usize;
                self.file.seek(SeekFrom::Start(self.range.start + offset))?;
                self.file.read(&mut buffer[..wanted])?
            }
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Splice {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.len().checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl MediaSource for Splice {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.len())
    }
}
