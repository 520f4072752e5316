//! cargo-deny, which checks the dependencies against `deny.toml`.

use std::env::consts::EXE_SUFFIX;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use graft_material::workspace;

/// The version in use.
const VERSION: &str = "0.20.2";

/// A call of cargo-deny in the project. Builds it first if that has not been done, into `target/tools`.
///
/// # Errors
///
/// Returns an error if it cannot be built.
pub fn command() -> Result<Command> {
    let folder = workspace::target()?.join(format!("tools/cargo-deny-{VERSION}"));
    let program = folder.join(format!("bin/cargo-deny{EXE_SUFFIX}"));
    if !program.exists() {
        println!("      building cargo-deny {VERSION} (once; takes some minutes)");
        let status = workspace::cargo()
            .args(["install", "cargo-deny", "--quiet", "--locked"])
            .args(["--version", VERSION, "--root"])
            .arg(&folder)
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "cannot build cargo-deny {VERSION}");
    }
    let mut command = Command::new(program);
    command
        .current_dir(workspace::root())
        .args(["--locked", "--workspace"]);
    Ok(command)
}
