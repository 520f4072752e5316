//! Atomic file writing: after a failure, a file is complete or unchanged.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};

/// Writes `bytes` to `path`, replacing an older file.
///
/// # Errors
///
/// Returns an error if the file cannot be written. An older file is then unchanged.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |part| Ok(fs::write(part, bytes)?))
}

/// Lets `write` create a temporary file next to `path`, with the same extension, syncs it to disk, and renames it to
/// `path`.
///
/// # Errors
///
/// Returns an error if `write` fails or the file cannot be renamed. An older file is then unchanged, and the
/// temporary file is removed.
pub fn write_with(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = OsString::from(format!(".part-{}-", std::process::id()));
    name.push(path.file_name().context("the path has no file name")?);
    let part = path.with_file_name(name);
    let place = || -> Result<()> {
        write(&part)?;
        // Windows syncs only a file that is open for writing.
        File::options().write(true).open(&part)?.sync_all()?;
        Ok(fs::rename(&part, path)?)
    };
    place()
        .inspect_err(|_| {
            // Ignore this error: the first one is reported, and there may be no temporary file.
            let _ = fs::remove_file(&part);
        })
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestFolder;
    use anyhow::bail;

    #[test]
    fn a_failure_keeps_the_old_file_and_leaves_nothing_else() {
        let folder = TestFolder::new("whole");
        let path = folder.path().join("a file é.txt");
        write(&path, b"old").unwrap();
        let error = write_with(&path, |part| {
            fs::write(part, b"ne")?;
            bail!("no more room")
        });
        assert!(format!("{:#}", error.unwrap_err()).contains("a file é.txt: no more room"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_new_file_takes_the_place_of_the_old_one() {
        let folder = TestFolder::new("replace");
        let path = folder.path().join("file");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
