//! `cargo xtask test`: all checks that a change must pass.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use graft_material::workspace;

use crate::aside;

/// Check formatting, run clippy (warnings are errors) and run all tests
///
/// Some tests load the plugin into a host, as a DAW would. Builds in the release profile, like `install`.
#[derive(Args)]
pub struct Test {
    /// Also test the editor with mouse and keyboard, on a virtual display (needs Xvfb and OpenGL)
    #[arg(long)]
    editor: bool,
}

const CHECKS: [(&str, &[&str]); 3] = [
    ("formatting", &["fmt", "--all", "--check"]),
    (
        "clippy",
        &[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ],
    ),
    ("tests", &["test", "--release", "--workspace"]),
];

impl Test {
    /// Runs the checks and stops at the first that fails.
    pub fn run(self) -> Result<()> {
        aside::step_aside()?;
        for (number, (name, arguments)) in CHECKS.iter().enumerate() {
            let command = format!("cargo {}", arguments.join(" "));
            println!("[{}/{}] {name}: {command}", number + 1, CHECKS.len());
            let start = Instant::now();
            let mut cargo = workspace::cargo();
            if self.editor {
                cargo.env("GRAFT_EDITOR", "1");
            }
            let status = cargo
                .args(*arguments)
                .status()
                .context("cannot start cargo")?;
            ensure!(status.success(), "{name} failed: {command}");
            println!("      passed in {:.0} s", start.elapsed().as_secs_f64());
        }
        Ok(())
    }
}
