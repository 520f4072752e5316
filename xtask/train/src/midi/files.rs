//! Standard MIDI files in folders and archives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use flate2::read::GzDecoder;
use graft_material::folder::{self, FoundFile};
use tar::Archive;

/// File with chord annotations next to a MIDI file, as in POP909: lines of start, end and chord.
const CHORDS_FILE: &str = "chord_midi.txt";

/// A MIDI file, not yet parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MidiFile {
    /// Path; for a file in an archive, the path of the archive and the path inside it.
    pub name: String,
    /// Contents of the file.
    pub bytes: Vec<u8>,
    /// Text of the [`CHORDS_FILE`] next to it, if there is one.
    pub chords: Option<String>,
}

/// Finds all MIDI files (`.mid`, `.midi`) below `folders` and in the `.tar.gz` archives there, each once, in order.
///
/// Groups them by source, so that large sources do not dominate. A source is an archive, a folder directly below one
/// of `folders` with its subfolders, or all files directly in one of `folders`. Unreadable files and archives are
/// reported on the terminal and skipped; unreadable folders below `folders` as well, by
/// [`Dataset::load`](crate::dataset::Dataset::load), which reads the same folders.
///
/// # Errors
///
/// Returns an error if one of `folders` cannot be read.
pub fn find(folders: &[PathBuf]) -> Result<Vec<Vec<MidiFile>>> {
    let mut sources: BTreeMap<PathBuf, Vec<MidiFile>> = BTreeMap::new();
    for file in folder::files(folders)?.files {
        let FoundFile { path, root } = &file;
        let read = if is_midi(path) {
            read_file(path).map(|midi| (source(path, root), vec![midi]))
        } else if is_archive(path) {
            read_archive(path).map(|files| (path.clone(), files))
        } else {
            continue;
        };
        match read {
            Ok((_, files)) if files.is_empty() => {}
            Ok((source, files)) => sources.entry(source).or_default().extend(files),
            Err(error) => eprintln!("skipped: cannot read {}: {error:#}", path.display()),
        }
    }
    Ok(sources.into_values().collect())
}

/// The folder directly below `root` that `path` is in, or `root` itself.
fn source(path: &Path, root: &Path) -> PathBuf {
    let below = path.strip_prefix(root).unwrap_or(path);
    match below.iter().next() {
        Some(first) if below.iter().nth(1).is_some() => root.join(first),
        _ => root.to_owned(),
    }
}

fn read_file(path: &Path) -> Result<MidiFile> {
    Ok(MidiFile {
        name: path.display().to_string(),
        bytes: fs::read(path)?,
        chords: fs::read_to_string(path.with_file_name(CHORDS_FILE)).ok(),
    })
}

/// The MIDI files in an archive, in order.
fn read_archive(path: &Path) -> Result<Vec<MidiFile>> {
    let mut archive = Archive::new(GzDecoder::new(File::open(path)?));
    let mut files = Vec::new();
    let mut chords = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let inside = entry.path()?.into_owned();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if is_midi(&inside) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.push((inside, bytes));
        } else if inside.file_name().is_some_and(|name| name == CHORDS_FILE) {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            chords.insert(inside, text);
        }
    }
    let mut files: Vec<MidiFile> = files
        .into_iter()
        .map(|(inside, bytes)| MidiFile {
            chords: chords.get(&inside.with_file_name(CHORDS_FILE)).cloned(),
            name: path.join(inside).display().to_string(),
            bytes,
        })
        .collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn is_midi(path: &Path) -> bool {
    let name = lower_case_name(path);
    !folder::is_hidden(path) && (name.ends_with(".mid") || name.ends_with(".midi"))
}

fn is_archive(path: &Path) -> bool {
    lower_case_name(path).ends_with(".tar.gz")
}

fn lower_case_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().to_lowercase()
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use graft_material::testing::TestFolder;

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, *bytes).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn files_are_found_once_and_grouped_by_archive_or_folder() {
        let folder = TestFolder::new("midi_files");
        let music = folder.path().join("music");
        write(&music.join("top.mid"), b"top");
        write(&music.join("one/a.MID"), b"a");
        write(&music.join("one/deep/b.midi"), b"b");
        write(&music.join("one/._b.midi"), b"no music");
        write(&music.join("one/c.wav"), b"no MIDI");
        let packed = archive(&[
            ("x/2.mid", b"2"),
            ("x/1.mid", b"1"),
            ("x/read.me", b"no MIDI"),
            ("x/chord_midi.txt", b"0 1 N"),
        ]);
        write(&music.join("one/packed.tar.gz"), &packed);
        write(&music.join("broken.tar.gz"), &packed[..packed.len() / 2]);
        write(&music.join("other.tar.gz"), &archive(&[("x/a.wav", b"")]));

        let sources = find(&[music.clone(), music]).unwrap();
        let contents: Vec<Vec<&[u8]>> = sources
            .iter()
            .map(|files| files.iter().map(|file| &*file.bytes).collect())
            .collect();
        let expected: [&[&[u8]]; 3] = [&[b"top"], &[b"a", b"b"], &[b"1", b"2"]];
        assert_eq!(contents, expected);
        assert!(sources[2][0].name.ends_with("packed.tar.gz/x/1.mid"));
        assert_eq!(sources[2][0].chords.as_deref(), Some("0 1 N"));
        assert_eq!(sources[1][0].chords, None);
        assert!(find(&[folder.path().join("missing")]).is_err());
    }
}
