//! What symphonia (0.6.1) leaves out of MP4 files (ISO/IEC 14496-12): the edit list, and files that are cut short.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;

use super::chunks::read_at;

/// More boxes and entries than any program writes next to each other.
const MOST_ITEMS: usize = 10_000;

/// The part of a track that is played: encoders put a start-up delay of a few dozen milliseconds before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Edit {
    /// Decoded audio before it.
    pub(super) skip_seconds: f64,
    /// Its length, unless it goes on to the end of the track.
    pub(super) length_seconds: Option<f64>,
}

/// Whether a file that begins with these bytes is an MP4 file.
pub(super) fn is_mp4(start: &[u8]) -> bool {
    start.get(4..8) == Some(b"ftyp")
}

/// The only edit of the first audio track. `None` if there is none, if there are several, which no encoder of music
/// writes, or if the file is damaged: the decoder then says so.
pub(super) fn edit(file: &mut File) -> Option<Edit> {
    let length = file.seek(SeekFrom::End(0)).ok()?;
    let mut boxes = Boxes { file };
    let moov = boxes.find(&(0..length), b"moov")?;
    let movie_scale = boxes.timescale(&moov, b"mvhd")?;
    let track = boxes
        .all(&moov, b"trak")
        .into_iter()
        .find(|track| boxes.is_audio(track).unwrap_or(false))?;
    let media = boxes.find(&track, b"mdia")?;
    let media_scale = boxes.timescale(&media, b"mdhd")?;
    let list = boxes.find(&track, b"edts")?;
    let list = boxes.find(&list, b"elst")?;
    let edits = boxes.edits(&list)?;
    let [(duration, media_time)] = edits[..] else {
        return None;
    };
    Some(Edit {
        skip_seconds: media_time as f64 / units(media_scale)?,
        length_seconds: match duration {
            0 => None,
            duration => Some(duration as f64 / units(movie_scale)?),
        },
    })
}

/// Longest part of a file before its samples that is copied.
const MOST_HEADER_BYTES: u64 = 1 << 28;

/// If the samples of a file end before the end of their box, the file with a box that fits.
///
/// # Errors
///
/// If the file cannot be read.
pub(super) fn fitted(file: &mut File) -> io::Result<Option<(Vec<u8>, Range<u64>)>> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut position = 0;
    for _ in 0..MOST_ITEMS {
        let mut header = [0; 16];
        if position + header.len() as u64 > length {
            break;
        }
        read_at(file, position, &mut header)?;
        let short = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let long = header[8..]
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (header_bytes, bytes) = match short {
            0 => break,
            1 => (16, long),
            bytes => (8, u64::from(bytes)),
        };
        let end = position.saturating_add(bytes.max(8));
        if &header[4..8] == b"mdat" && end > length && position < MOST_HEADER_BYTES {
            let mut start = vec![0; (position + header_bytes) as usize];
            read_at(file, 0, &mut start)?;
            // A size of 0 stands for the rest of the file.
            let size = position as usize;
            match header_bytes {
                8 => start[size..size + 4].fill(0),
                _ => start[size + 8..].copy_from_slice(&(length - position).to_be_bytes()),
            }
            let samples = start.len() as u64..length;
            return Ok(Some((start, samples)));
        }
        position = end;
    }
    Ok(None)
}

/// Units per second, if not 0.
fn units(scale: u32) -> Option<f64> {
    (scale > 0).then_some(f64::from(scale))
}

/// The boxes of a file. Each is the range of its content.
struct Boxes<'a> {
    file: &'a mut File,
}

impl Boxes<'_> {
    fn read<const N: usize>(&mut self, parent: &Range<u64>, offset: u64) -> Option<[u8; N]> {
        let position = parent.start.checked_add(offset)?;
        let mut bytes = [0; N];
        let fits = position.checked_add(N as u64)? <= parent.end;
        (fits && read_at(self.file, position, &mut bytes).is_ok()).then_some(bytes)
    }

    fn read_u32(&mut self, parent: &Range<u64>, offset: u64) -> Option<u32> {
        self.read(parent, offset).map(u32::from_be_bytes)
    }

    fn read_u64(&mut self, parent: &Range<u64>, offset: u64) -> Option<u64> {
        self.read(parent, offset).map(u64::from_be_bytes)
    }

    /// The boxes of this type in `parent`.
    fn all(&mut self, parent: &Range<u64>, kind: &[u8; 4]) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let mut offset = 0;
        for _ in 0..MOST_ITEMS {
            let Some((found_kind, content)) = self.header(parent, offset) else {
                break;
            };
            offset = content.end - parent.start;
            if &found_kind == kind {
                found.push(content);
            }
        }
        found
    }

    fn find(&mut self, parent: &Range<u64>, kind: &[u8; 4]) -> Option<Range<u64>> {
        self.all(parent, kind).into_iter().next()
    }

    /// Type and content of the box at `offset`.
    fn header(&mut self, parent: &Range<u64>, offset: u64) -> Option<([u8; 4], Range<u64>)> {
        let size = u64::from(self.read_u32(parent, offset)?);
        let kind = self.read(parent, offset + 4)?;
        let (header, size) = match size {
            // To the end of the file.
            0 => (8, parent.end - parent.start - offset),
            // A long size follows.
            1 => (16, self.read_u64(parent, offset + 8)?),
            size => (8, size),
        };
        let start = parent.start + offset;
        let end = start.checked_add(size)?;
        (size >= header && end <= parent.end).then_some((kind, start + header..end))
    }

    /// Units per second, from a movie or media header in `parent`.
    fn timescale(&mut self, parent: &Range<u64>, kind: &[u8; 4]) -> Option<u32> {
        let header = self.find(parent, kind)?;
        match self.read(&header, 0)? {
            [0] => self.read_u32(&header, 12),
            _ => self.read_u32(&header, 20),
        }
    }

    fn is_audio(&mut self, track: &Range<u64>) -> Option<bool> {
        let media = self.find(track, b"mdia")?;
        let handler = self.find(&media, b"hdlr")?;
        Some(&self.read::<4>(&handler, 8)? == b"soun")
    }

    /// Duration and media time of all edits that play something.
    fn edits(&mut self, list: &Range<u64>) -> Option<Vec<(u64, u64)>> {
        let [version] = self.read(list, 0)?;
        let entries = self.read_u32(list, 4)?;
        let entries = (entries as usize).min(MOST_ITEMS) as u64;
        let edits = (0..entries).map(|entry| match version {
            0 => {
                let duration = self.read_u32(list, 8 + 12 * entry)?;
                let time = self.read_u32(list, 12 + 12 * entry)?;
                Some((u64::from(duration), i64::from(time.cast_signed())))
            }
            _ => {
                let duration = self.read_u64(list, 8 + 20 * entry)?;
                let time = self.read_u64(list, 16 + 20 * entry)?;
                Some((duration, time.cast_signed()))
            }
        });
        let edits = edits.collect::<Option<Vec<_>>>()?.into_iter();
        Some(
            edits
                .filter_map(|(duration, time)| Some((duration, u64::try_from(time).ok()?)))
                .collect(),
        )
    }
}
