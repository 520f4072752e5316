//! The files to remix.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use graft_material::audio_file;

/// The audio files of a folder, in the order of their names, without hidden ones and those in folders below; for
/// another path, the path itself.
///
/// # Errors
///
/// Returns an error if the folder cannot be read or has no audio files.
pub fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let context = || format!("cannot read the folder {}", path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(context)? {
        let file = entry.with_context(context)?.path();
        if is_visible_audio(&file) && file.is_file() {
            files.push(file);
        }
    }
    ensure!(
        !files.is_empty(),
        "cannot remix the folder {}: expected audio files, found none",
        path.display()
    );
    files.sort();
    Ok(files)
}

fn is_visible_audio(file: &Path) -> bool {
    let is_hidden = file
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_audio = file.extension().is_some_and(|found| {
        audio_file::EXTENSIONS
            .iter()
            .any(|known| found.eq_ignore_ascii_case(known))
    });
    is_audio && !is_hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::testing::TestFolder;

    #[test]
    fn a_folder_is_its_audio_files_in_order() {
        let folder = TestFolder::new("inputs");
        for name in ["b.WAV", "a.ogg", "c.flac", ".hidden.wav", "notes.txt"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        fs::create_dir(folder.path().join("folder.wav")).unwrap();
        let files = expand(folder.path()).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
        assert_eq!(names, ["a.ogg", "b.WAV", "c.flac"]);

        // Whether it exists is found out when it is read.
        let file = folder.path().join("missing.wav");
        assert_eq!(expand(&file).unwrap(), [file]);
        let error = expand(&folder.path().join("folder.wav")).unwrap_err();
        assert!(error.to_string().contains("found none"), "{error}");
    }
}
