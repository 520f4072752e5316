//! Atomic file writing: after a failure, a file is complete or unchanged.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

/// Links that are followed from one to the next, as on Linux.
const MAX_LINKS: usize = 40;

/// Writes `bytes` to `path`, replacing an older file.
///
/// # Errors
///
/// Returns an error if the file cannot be written. An older file is then unchanged.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |part| Ok(part.write_all(bytes)?))
}

/// Lets `write` fill a temporary file and puts it in the place of `path`.
///
/// # Errors
///
/// Returns an error if `write` fails or the file cannot be written. An older file is then unchanged.
pub fn write_with(path: &Path, write: impl FnOnce(&mut PartFile) -> Result<()>) -> Result<()> {
    let place = || -> Result<()> {
        let mut part = PartFile::create(path)?;
        write(&mut part)?;
        Ok(part.keep()?)
    };
    place().with_context(|| format!("cannot write {}", path.display()))
}

/// A file that is being written: a temporary file next to its place, with a short name. Dropped without
/// [`keep`](Self::keep), it is removed; after a kill, [`remove_abandoned`] does that.
#[derive(Debug)]
pub struct PartFile {
    /// Locked as long as it is open: a file without a lock has no writer any more.
    file: File,
    part: PathBuf,
    place: PathBuf,
}

impl PartFile {
    /// Creates the temporary file. If `path` is a symbolic link, the place is the file that it points to.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let place = follow(path)?;
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let part = place.with_file_name(format!("{}{process}-{number}", part_prefix(&place)?));
        // The list first: an interrupt must find the file there.
        let mut open_parts = open_parts();
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&part)?;
        open_parts.push(part.clone());
        drop(open_parts);
        // Not every file system has locks. Without one, the file stays after a kill.
        let _ = file.try_lock();
        Ok(Self { file, part, place })
    }

    /// Syncs the file to disk and renames it to its place.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written or renamed. It is then removed.
    pub fn keep(self) -> io::Result<()> {
        self.file.sync_all()?;
        // An interrupt waits until the file has its name.
        let _open_parts = open_parts();
        fs::rename(&self.part, &self.place)
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        let mut open_parts = open_parts();
        open_parts.retain(|part| *part != self.part);
        // There is none any more after `keep`, and no way to report another error.
        let _ = fs::remove_file(&self.part);
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for PartFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for PartFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// The file that `path` means: follows symbolic links, also to a file that does not exist yet.
///
/// # Errors
///
/// Returns an error if a link cannot be read or the links lead in a circle.
pub fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut file = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        if !file.is_symlink() {
            return Ok(file);
        }
        let link = fs::read_link(&file)?;
        file = file.with_file_name("").join(link);
    }
    Err(io::Error::other("the symbolic links lead in a circle"))
}

/// Removes temporary files that killed processes left when they wrote to `path`. Leaves those that are being written.
///
/// # Errors
///
/// Returns an error if the folder cannot be read or a file cannot be removed.
pub fn remove_abandoned(path: &Path) -> io::Result<()> {
    let place = follow(path)?;
    let prefix = part_prefix(&place)?;
    for entry in fs::read_dir(folder(&place))? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let file = File::options().write(true).open(entry.path())?;
        if file.try_lock().is_ok() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes Ctrl-C and a request to terminate remove all files that are being written, and end the process with the status
/// 130. For programs that do not handle Ctrl-C in another way.
///
/// # Errors
///
/// Returns an error if the process cannot handle these signals, or does already.
pub fn remove_parts_on_interrupt() -> Result<()> {
    ctrlc::set_handler(|| {
        // Never released: no file is created or renamed from now on.
        let open_parts = open_parts();
        for part in open_parts.iter() {
            let _ = fs::remove_file(part);
        }
        // On a line of its own, below a progress bar.
        eprintln!("\nstopped");
        std::process::exit(130);
    })
    .context("cannot listen for Ctrl-C")
}

/// The folder of a file.
pub fn folder(file: &Path) -> &Path {
    file.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Beginning of the names of all temporary files for this place. As short as possible, since the name of the place may be
/// as long as the file system permits.
fn part_prefix(place: &Path) -> io::Result<String> {
    let name = place
        .file_name()
        .ok_or_else(|| io::Error::other("the path has no file name"))?;
    let checksum = crc32fast::hash(name.as_encoded_bytes());
    Ok(format!(".part-{checksum:08x}-"))
}

/// Temporary files of this process.
fn open_parts() -> MutexGuard<'static, Vec<PathBuf>> {
    static OPEN_PARTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    // A list of paths is never half-changed.
    OPEN_PARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestFolder;
    use anyhow::bail;

    fn files_in(folder: &TestFolder) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    #[test]
    fn a_failure_keeps_the_old_file_and_leaves_nothing_else() {
        let folder = TestFolder::new("whole");
        let path = folder.path().join("a file é.txt");
        write(&path, b"old").unwrap();
        let error = write_with(&path, |part| {
            part.write_all(b"ne")?;
            bail!("no more room")
        });
        assert!(format!("{:#}", error.unwrap_err()).contains("a file é.txt: no more room"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(files_in(&folder), 1);
    }

    #[test]
    fn the_new_file_takes_the_place_of_the_old_one() {
        let folder = TestFolder::new("replace");
        let path = folder.path().join("file");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(files_in(&folder), 1);
    }

    #[test]
    fn a_name_as_long_as_possible_can_be_written() {
        let folder = TestFolder::new("long_name");
        let path = folder.path().join("n".repeat(255));
        write(&path, b"text").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_its_file_is_written() {
        use std::os::unix::fs::symlink;
        let folder = TestFolder::new("link");
        fs::create_dir(folder.path().join("sub")).unwrap();
        let target = folder.path().join("sub/file");
        let links = ["first", "second"].map(|name| folder.path().join(name));
        symlink("second", &links[0]).unwrap();
        symlink("sub/file", &links[1]).unwrap();
        for text in ["new", "newer"] {
            write(&links[0], text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
            assert!(links.iter().all(|link| link.is_symlink()));
        }

        let circle = folder.path().join("circle");
        symlink("circle", &circle).unwrap();
        let error = format!("{:#}", write(&circle, b"text").unwrap_err());
        assert!(error.contains("circle"), "{error}");
    }

    #[test]
    fn only_files_without_a_writer_are_abandoned() {
        let folder = TestFolder::new("abandoned");
        let path = folder.path().join("file");
        let others = PartFile::create(&folder.path().join("other")).unwrap();
        let mut part = PartFile::create(&path).unwrap();
        part.write_all(b"text").unwrap();
        // What a killed process leaves: nobody holds its lock.
        let abandoned = folder
            .path()
            .join(format!("{}1-0", part_prefix(&path).unwrap()));
        fs::write(&abandoned, b"te").unwrap();

        remove_abandoned(&path).unwrap();
        assert!(!abandoned.exists());
        part.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");
        drop(others);
        assert_eq!(files_in(&folder), 1);
    }
}
