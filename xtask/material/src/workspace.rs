//! Paths of the project and its build folder, and calls of its Cargo.

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

/// Displays a path relative to the current folder, if it lies below that folder.
pub fn display(path: &Path) -> std::path::Display<'_> {
    match std::env::current_dir() {
        Ok(folder) => path.strip_prefix(folder).unwrap_or(path).display(),
        Err(_) => path.display(),
    }
}
