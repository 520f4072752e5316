//! Standard MIDI files in folders and archives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
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
/// of `folders` with its subfolders, or all files directly in one of `folders`. Unreadable archives are reported on
/// the terminal and skipped.
///
/// # Errors
///
/// Returns an error if a folder or file cannot be read.
pub fn find(folders: &[PathBuf]) -> Result<Vec<Vec<MidiFile>>> {
    let mut found = Found::default();
    for folder in folders {
        found.collect(folder, None)?;
    }
    let mut sources: BTreeMap<PathBuf, Vec<MidiFile>> = BTreeMap::new();
    for (path, source) in found.files {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = MidiFile {
            name: path.display().to_string(),
            bytes,
            chords: fs::read_to_string(path.with_file_name(CHORDS_FILE)).ok(),
        };
        sources.entry(source).or_default().push(file);
    }
    for path in found.archives {
        match read_archive(&path) {
            Ok(files) if files.is_empty() => {}
            Ok(files) => {
                sources.insert(path, files);
            }
            Err(error) => eprintln!("skipped: cannot read {}: {error:#}", path.display()),
        }
    }
    Ok(sources.into_values().collect())
}

/// Paths to read.
#[derive(Default)]
struct Found {
    /// MIDI files and the source of each.
    files: BTreeMap<PathBuf, PathBuf>,
    archives: BTreeSet<PathBuf>,
}

impl Found {
    /// Searches `folder`. Its files belong to `source`; without one, each subfolder is a source, and so is
    /// `folder` for the files directly in it.
    fn collect(&mut self, folder: &Path, source: Option<&Path>) -> Result<()> {
        let describe = || format!("cannot read the folder {}", folder.display());
        for entry in fs::read_dir(folder).with_context(describe)? {
            let path = entry.with_context(describe)?.path();
            if path.is_dir() {
                self.collect(&path, Some(source.unwrap_or(&path)))?;
            } else if is_midi(&path) {
                self.files.insert(path, source.unwrap_or(folder).to_owned());
            } else if is_archive(&path) {
                self.archives.insert(path);
            }
        }
        Ok(())
    }
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
    // Some systems add metadata files with a leading dot; they contain no music.
    !name.starts_with('.') && (name.ends_with(".mid") || name.ends_with(".midi"))
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
