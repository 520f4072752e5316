//! Archives: `.tar.xz` and `.zip`. The same files give the same bytes.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use liblzma::write::XzEncoder;
use miniz_oxide::deflate::compress_to_vec;

/// Strongest compression. Its dictionary (64 MiB) reaches from the VST3 back to the CLAP, which holds the same code.
const XZ_PRESET: u32 = 9;
const DEFLATE_LEVEL: u8 = 9;

/// A file in an archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its path, with `/` between its parts.
    pub path: String,
    /// Its contents.
    pub data: Vec<u8>,
    /// Whether it is a program or a library, with the mode 755 instead of 644.
    pub is_executable: bool,
}

impl Entry {
    /// A file that is not executable.
    pub fn new(path: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            data: data.into(),
            is_executable: false,
        }
    }

    fn mode(&self) -> u32 {
        if self.is_executable { 0o755 } else { 0o644 }
    }
}

/// A `.tar.xz` with the files and their folders, in order of their paths. `time_seconds` is the time of each, since
/// 1970; all belong to root.
///
/// # Errors
///
/// Returns an error if a path is too long for the format.
pub fn tar_xz(entries: &[Entry], time_seconds: u64) -> Result<Vec<u8>> {
    let xz = XzEncoder::new(Vec::new(), XZ_PRESET);
    let mut tar = tar::Builder::new(xz);
    let header = |kind, size: usize, mode| -> Result<tar::Header> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(mode);
        header.set_mtime(time_seconds);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        Ok(header)
    };
    for folder in folders(entries) {
        let mut header = header(tar::EntryType::Directory, 0, 0o755)?;
        tar.append_data(&mut header, &folder, [].as_slice())?;
    }
    for entry in sorted(entries) {
        let mut header = header(tar::EntryType::Regular, entry.data.len(), entry.mode())?;
        tar.append_data(&mut header, &entry.path, entry.data.as_slice())
            .with_context(|| format!("cannot archive {}", entry.path))?;
    }
    Ok(tar.into_inner()?.finish()?)
}

/// A `.zip` with the files, in order of their paths. `time_seconds` is the time of each, since 1970, with a resolution
/// of 2 s.
///
/// # Errors
///
/// Returns an error if there is more than the format holds: 65535 files, or 4 GiB.
pub fn zip(entries: &[Entry], time_seconds: u64) -> Result<Vec<u8>> {
    let [time, date] = dos_time(time_seconds);
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for entry in sorted(entries) {
        let packed = compress_to_vec(&entry.data, DEFLATE_LEVEL);
        let start = u32::try_from(file.len()).context("expected less than 4 GiB of files")?;
        let mut common = Vec::new();
        // Version 2.0; names in UTF-8; deflate.
        for field in [20, 1 << 11, 8, time, date] {
            common.write_all(&u16::to_le_bytes(field))?;
        }
        common.write_all(&crc32fast::hash(&entry.data).to_le_bytes())?;
        for length in [packed.len(), entry.data.len()] {
            let length = u32::try_from(length).context("expected less than 4 GiB in a file")?;
            common.write_all(&length.to_le_bytes())?;
        }
        let name_length = u16::try_from(entry.path.len())?;
        common.write_all(&name_length.to_le_bytes())?;
        // No extra field.
        common.write_all(&[0, 0])?;

        file.write_all(b"PK\x03\x04")?;
        file.write_all(&common)?;
        file.write_all(entry.path.as_bytes())?;
        file.write_all(&packed)?;

        directory.write_all(b"PK\x01\x02")?;
        // Made by version 2.0 on Unix: the modes count.
        directory.write_all(&[20, 3])?;
        directory.write_all(&common)?;
        // No comment, the first disk, no attributes of DOS.
        directory.write_all(&[0; 6])?;
        let regular_file = 0o100_000;
        directory.write_all(&((regular_file | entry.mode()) << 16).to_le_bytes())?;
        directory.write_all(&start.to_le_bytes())?;
        directory.write_all(entry.path.as_bytes())?;
    }
    let start = u32::try_from(file.len()).context("expected less than 4 GiB of files")?;
    let count = u16::try_from(entries.len()).context("expected at most 65535 files")?;
    file.write_all(&directory)?;
    file.write_all(b"PK\x05\x06\0\0\0\0")?;
    file.write_all(&count.to_le_bytes())?;
    file.write_all(&count.to_le_bytes())?;
    file.write_all(&u32::try_from(directory.len())?.to_le_bytes())?;
    file.write_all(&start.to_le_bytes())?;
    file.write_all(&[0, 0])?;
    Ok(file)
}

/// A `.deb` or another archive of `ar`.
///
/// # Errors
///
/// Returns an error if a name is longer than 16 bytes.
pub fn ar(members: &[(&str, Vec<u8>)], time_seconds: u64) -> Result<Vec<u8>> {
    let mut file = b"!<arch>\n".to_vec();
    for (name, data) in members {
        ensure!(
            name.len() <= 16,
            "expected a name of at most 16 bytes, found {name}"
        );
        let size = data.len();
        writeln!(
            file,
            "{name:<16}{time_seconds:<12}0     0     100644  {size:<10}`"
        )?;
        file.write_all(data)?;
        if size % 2 == 1 {
            file.push(b'\n');
        }
    }
    Ok(file)
}

fn sorted(entries: &[Entry]) -> Vec<&Entry> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort();
    sorted
}

/// The folders of the files, outer ones first.
fn folders(entries: &[Entry]) -> BTreeSet<String> {
    let ends = |path: &str| -> Vec<usize> { path.match_indices('/').map(|(end, _)| end).collect() };
    let mut folders = BTreeSet::new();
    for entry in entries {
        for end in ends(&entry.path) {
            folders.insert(format!("{}/", &entry.path[..end]));
        }
    }
    folders
}

/// Time and date as in zip archives: two-second steps since 1980.
fn dos_time(seconds: u64) -> [u16; 2] {
    let day_seconds = seconds % 86_400;
    let (hour, minute, second) = (day_seconds / 3600, day_seconds / 60 % 60, day_seconds % 60);
    let [year, month, day] = date(seconds / 86_400);
    let time = (hour << 11) | (minute << 5) | (second / 2);
    let date = ((year - 1980) << 9) | (month << 5) | day;
    [time as u16, date as u16]
}

/// Year, month and day of a day, counted from 1970.
fn date(mut day: u64) -> [u64; 3] {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    loop {
        let days = if is_leap(year) { 366 } else { 365 };
        if day < days {
            break;
        }
        day -= days;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    [year, month, day + 1]
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use liblzma::read::XzDecoder;
    use miniz_oxide::inflate::decompress_to_vec;

    use super::*;

    const TIME: u64 = 1_800_000_001;

    fn entries() -> Vec<Entry> {
        let program = Entry {
            is_executable: true,
            ..Entry::new("graft/bin/program", vec![7; 100_000])
        };
        vec![program, Entry::new("graft/A fifth up.txt", "words\n")]
    }

    #[test]
    fn the_order_of_the_files_does_not_matter() {
        let entries = entries();
        let reversed: Vec<Entry> = entries.iter().rev().cloned().collect();
        assert_eq!(
            tar_xz(&entries, TIME).unwrap(),
            tar_xz(&reversed, TIME).unwrap()
        );
        assert_eq!(zip(&entries, TIME).unwrap(), zip(&reversed, TIME).unwrap());
    }

    #[test]
    fn a_tar_holds_names_modes_times_and_contents() {
        let file = tar_xz(&entries(), TIME).unwrap();
        let mut tar = tar::Archive::new(XzDecoder::new(file.as_slice()));
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            assert_eq!(header.mtime().unwrap(), TIME);
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            found.push((path, header.mode().unwrap(), data));
        }
        let expected = [
            ("graft/".to_owned(), 0o755, vec![]),
            ("graft/bin/".to_owned(), 0o755, vec![]),
            (
                "graft/A fifth up.txt".to_owned(),
                0o644,
                b"words\n".to_vec(),
            ),
            ("graft/bin/program".to_owned(), 0o755, vec![7; 100_000]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_zip_holds_names_modes_times_and_contents() {
        let file = zip(&entries(), TIME).unwrap();
        let u16_at = |at: usize| usize::from(u16::from_le_bytes([file[at], file[at + 1]]));
        let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
        let end = file.len() - 22;
        assert_eq!(&file[end..end + 4], b"PK\x05\x06");
        assert_eq!(u16_at(end + 10), 2);
        let mut at = u32_at(end + 16);
        let mut found = Vec::new();
        for _ in 0..2 {
            assert_eq!(&file[at..at + 4], b"PK\x01\x02");
            // 2027-01-15, 08:00:00 (01 rounds down).
            assert_eq!(u16_at(at + 12), 8 << 11);
            assert_eq!(u16_at(at + 14), (2027 - 1980) << 9 | 1 << 5 | 15);
            let length = u16_at(at + 28);
            let name = String::from_utf8(file[at + 46..at + 46 + length].to_vec()).unwrap();
            let mode = u32_at(at + 38) >> 16;
            let local = u32_at(at + 42);
            assert_eq!(&file[local..local + 4], b"PK\x03\x04");
            assert_eq!(file[local + 4..local + 30], file[at + 6..at + 32]);
            let start = local + 30 + length;
            let data = decompress_to_vec(&file[start..start + u32_at(at + 20)]).unwrap();
            assert_eq!(data.len(), u32_at(at + 24));
            assert_eq!(crc32fast::hash(&data) as usize, u32_at(at + 16));
            found.push((name, mode, data));
            at += 46 + length;
        }
        assert_eq!(at, end);
        let expected = [
            (
                "graft/A fifth up.txt".to_owned(),
                0o100_644,
                b"words\n".to_vec(),
            ),
            ("graft/bin/program".to_owned(), 0o100_755, vec![7; 100_000]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_ar_pads_its_members() {
        let members = [("odd", b"abc".to_vec()), ("even", b"de".to_vec())];
        let file = String::from_utf8(ar(&members, 7).unwrap()).unwrap();
        let expected = "!<arch>\n\
            odd             7           0     0     100644  3         `\nabc\n\
            even            7           0     0     100644  2         `\nde";
        assert_eq!(file, expected);
        assert!(ar(&[("a name of 17 chars", vec![])], 7).is_err());
    }

    #[test]
    fn dates_know_leap_years() {
        for (day, expected) in [
            (0, [1970, 1, 1]),
            (58, [1970, 2, 28]),
            (59, [1970, 3, 1]),
            (11_016, [2000, 2, 29]),
            (11_017, [2000, 3, 1]),
            (20_453, [2025, 12, 31]),
            (20_454, [2026, 1, 1]),
        ] {
            assert_eq!(date(day), expected, "day {day}");
        }
    }
}
