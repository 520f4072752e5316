//! Paths of the project and its build folder, its commit, and calls of its Cargo.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The root folder of the project.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .ancestors()
        .nth(2)
        .expect("this package lies in xtask/material")
}

/// Cache folder for a `kind` of data, kept between runs.
pub fn cache(kind: &str) -> PathBuf {
    root().join("target/cache").join(kind)
}

/// Cargo's build folder: `target/`, unless the user's settings name another.
///
/// # Errors
///
/// Returns an error if Cargo cannot be started or its output has no target folder.
pub fn target() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .context("cannot parse the output of cargo metadata")?;
    let target = metadata["target_directory"]
        .as_str()
        .context("expected a target_directory from cargo metadata, found none")?;
    Ok(PathBuf::from(target))
}

/// A command for the Cargo that runs this program, in the root folder.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The commit that the project's files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The first 12 digits of its hash.
    pub hash: String,
    /// When it was made, in seconds since 1970.
    pub time_seconds: u64,
    /// Whether the files differ from it.
    pub is_dirty: bool,
}

/// The hash, with `-dirty` if the files differ from it.
impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.is_dirty { "-dirty" } else { "" };
        write!(f, "{}{suffix}", self.hash)
    }
}

/// The commit of the project; `None` without git, and for files that are not the root of a git repository.
pub fn commit() -> Option<Commit> {
    commit_of(root())
}

fn commit_of(folder: &Path) -> Option<Commit> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(arguments)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // Sources that were unpacked inside of another repository do not come from its commit.
    let is_root = git(&["rev-parse", "--show-prefix"])?.is_empty();
    if !is_root {
        return None;
    }
    let log = git(&["log", "-1", "--abbrev=12", "--format=%h %ct"])?;
    let (hash, time_seconds) = log.split_once(' ')?;
    Some(Commit {
        hash: hash.to_owned(),
        time_seconds: time_seconds.parse().ok()?,
        is_dirty: !git(&["status", "--porcelain"])?.is_empty(),
    })
}

/// Displays a path relative to the current folder, if it lies below that folder.
pub fn display(path: &Path) -> std::path::Display<'_> {
    match std::env::current_dir() {
        Ok(folder) => path.strip_prefix(folder).unwrap_or(path).display(),
        Err(_) => path.display(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestFolder;

    #[test]
    fn only_the_root_of_a_repository_has_a_commit() {
        let folder = TestFolder::new("commit");
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(folder.path());
            git.args(["-c", "user.name=A", "-c", "user.email=a@b.c"]);
            git.args(arguments).output()
        };
        assert_eq!(commit_of(folder.path()), None, "no repository");
        // Projects are also built where there is no git.
        if git(&["init"]).is_err() {
            return;
        }
        assert_eq!(commit_of(folder.path()), None, "no commit");
        git(&["commit", "--allow-empty", "--message=One"]).unwrap();
        let clean = commit_of(folder.path()).unwrap();
        assert_eq!(clean.hash.len(), 12);
        assert_eq!(clean.to_string(), clean.hash);
        assert!(clean.time_seconds > 1_700_000_000);
        assert_eq!(commit_of(&inner), None, "a folder in a repository");
        std::fs::write(inner.join("new"), "").unwrap();
        let dirty = commit_of(folder.path()).unwrap();
        assert_eq!(dirty.to_string(), format!("{}-dirty", clean.hash));
    }
}
