//! The files below folders as people keep them: with files of the system, links, and folders that may not be read.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Folders that systems and archives leave among the user's own: macOS archives, the bins of Windows, network drives.
const SYSTEM_FOLDERS: [&str; 4] = [
    "__MACOSX",
    "$RECYCLE.BIN",
    "System Volume Information",
    "@eaDir",
];

/// A file below one of the given folders.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundFile {
    /// Path of the file; begins with `root`.
    pub path: PathBuf,
    /// The folder that was searched.
    pub root: PathBuf,
}

/// Result of a search.
#[derive(Debug, Default)]
pub struct Found {
    /// The files, ordered by path.
    pub files: Vec<FoundFile>,
    /// What could not be read and was skipped: a line for each.
    pub warnings: Vec<String>,
}

/// Whether a file or folder is hidden (its name begins with a dot) or belongs to the system.
pub fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || SYSTEM_FOLDERS.contains(&&*name)
}

/// Finds all files below `roots`, each once.
///
/// Passes over hidden files and folders, and those of the system. Follows links: a file that is reached in several ways
/// is found under its own name, or else under the name of the first link. A folder below the roots that cannot be read,
/// and a link that leads nowhere, gives a warning and is skipped.
///
/// # Errors
///
/// Returns an error if one of `roots` is not a folder or cannot be read.
pub fn files(roots: &[PathBuf]) -> Result<Found> {
    files_with(roots, &list)
}

/// What is in a folder, in order.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn files_with(
    roots: &[PathBuf],
    list: &dyn Fn(&Path) -> io::Result<Vec<PathBuf>>,
) -> Result<Found> {
    let mut search = Search {
        list,
        seen: HashSet::new(),
        links: VecDeque::new(),
        found: Found::default(),
    };
    for root in roots {
        let describe = || format!("cannot read the folder {}", root.display());
        ensure!(
            !root.is_file(),
            "expected a folder, found the file {}",
            root.display()
        );
        search.enter(root, root).with_context(describe)?;
    }
    // Links come last, so that files are found under their own names.
    while let Some(FoundFile { path, root }) = search.links.pop_front() {
        search.add(path, &root);
    }
    search.found.files.sort();
    Ok(search.found)
}

struct Search<'a> {
    list: &'a dyn Fn(&Path) -> io::Result<Vec<PathBuf>>,
    /// Canonical paths of the files and folders that are done.
    seen: HashSet<PathBuf>,
    /// Links that are yet to be followed.
    links: VecDeque<FoundFile>,
    found: Found,
}

impl Search<'_> {
    fn enter(&mut self, folder: &Path, root: &Path) -> io::Result<()> {
        let identity = folder.canonicalize()?;
        if self.seen.contains(&identity) {
            return Ok(());
        }
        let paths = (self.list)(folder)?;
        self.seen.insert(identity);
        for path in paths {
            if is_hidden(&path) {
                continue;
            }
            if path.is_symlink() {
                self.links.push_back(FoundFile {
                    path,
                    root: root.to_owned(),
                });
            } else {
                self.add(path, root);
            }
        }
        Ok(())
    }

    /// Adds a file, or all files of a folder.
    fn add(&mut self, path: PathBuf, root: &Path) {
        if path.is_dir() {
            if let Err(error) = self.enter(&path, root) {
                let path = path.display();
                self.warn(format!("cannot read the folder {path}: {error}"));
            }
            return;
        }
        match path.canonicalize() {
            Ok(identity) if path.is_file() => {
                if self.seen.insert(identity) {
                    let root = root.to_owned();
                    self.found.files.push(FoundFile { path, root });
                }
            }
            // A pipe or a device.
            Ok(_) => {}
            Err(error) => self.warn(format!("cannot read {}: {error}", path.display())),
        }
    }

    fn warn(&mut self, warning: String) {
        self.found.warnings.push(warning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestFolder;

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    /// Paths below `folder`, with `/` between the names.
    fn paths(found: &Found, folder: &Path) -> Vec<String> {
        let below = |file: &FoundFile| {
            let below = file.path.strip_prefix(folder).unwrap();
            let names: Vec<_> = below.iter().map(|name| name.to_string_lossy()).collect();
            names.join("/")
        };
        found.files.iter().map(below).collect()
    }

    #[test]
    fn hidden_files_and_those_of_the_system_are_passed_over() {
        let folder = TestFolder::new("folder-hidden");
        for name in [
            "b.wav",
            "a/1.wav",
            "a/._1.wav",
            "a/.DS_Store",
            "__MACOSX/a/._1.wav",
            "__MACOSX/2.wav",
            ".hidden/3.wav",
            "$RECYCLE.BIN/4.wav",
        ] {
            write(&folder.path().join(name));
        }
        let root = folder.path().to_owned();
        let found = files(&[root.clone(), root.clone(), root.join("a")]).unwrap();
        assert_eq!(paths(&found, &root), ["a/1.wav", "b.wav"]);
        assert_eq!(found.warnings, [""; 0]);
        // A hidden folder that is named is searched.
        let found = files(&[root.join(".hidden")]).unwrap();
        assert_eq!(paths(&found, &root), [".hidden/3.wav"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_each_file_is_found_once_under_its_own_name() {
        use std::os::unix::fs::symlink;
        let folder = TestFolder::new("folder-links");
        let root = folder.path().join("music");
        let elsewhere = folder.path().join("elsewhere");
        for path in [
            root.join("b/1.wav"),
            root.join("b/2.wav"),
            elsewhere.join("3.wav"),
        ] {
            write(&path);
        }
        symlink(&root, root.join("b/back")).unwrap();
        symlink(root.join("b"), root.join("a")).unwrap();
        symlink(root.join("b/1.wav"), root.join("0.wav")).unwrap();
        symlink(&elsewhere, root.join("c")).unwrap();
        symlink(&elsewhere, root.join("d")).unwrap();
        symlink(root.join("self"), root.join("self")).unwrap();
        symlink(root.join("nothing"), root.join("gone.wav")).unwrap();
        let found = files(&[root.clone(), root.join("a")]).unwrap();
        // The second root leads to a folder that was searched already.
        assert_eq!(paths(&found, &root), ["b/1.wav", "b/2.wav", "c/3.wav"]);
        let [gone, lost] = &*found.warnings else {
            panic!("expected two warnings, found {:?}", found.warnings);
        };
        assert!(gone.contains("gone.wav") && lost.contains("self"));
    }

    #[test]
    fn a_folder_that_may_not_be_read_is_named_and_skipped() {
        let folder = TestFolder::new("folder-locked");
        let root = folder.path().to_owned();
        write(&root.join("a/1.wav"));
        write(&root.join("locked/2.wav"));
        let guarded = |path: &Path| match path.ends_with("locked") {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => list(path),
        };
        let found = files_with(std::slice::from_ref(&root), &guarded).unwrap();
        assert_eq!(paths(&found, &root), ["a/1.wav"]);
        let [warning] = &*found.warnings else {
            panic!("expected a warning, found {:?}", found.warnings);
        };
        assert!(warning.contains("locked: permission denied"), "{warning}");

        // But not if it was named.
        let error = files_with(&[root.clone(), root.join("locked")], &guarded).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("locked: permission denied"), "{error}");
    }

    #[test]
    fn what_is_named_must_be_a_folder() {
        let folder = TestFolder::new("folder-named");
        write(&folder.path().join("1.wav"));
        for name in ["missing", "1.wav"] {
            let error = files(&[folder.path().join(name)]).unwrap_err();
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
    }
}
