//! `cargo xtask test`: all checks that a change must pass.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use graft_material::workspace;

use crate::{aside, deny};

/// Check formatting, run clippy (warnings are errors), run all tests, and check the licences of dependencies
///
/// Some tests load the plugin into a host, as a DAW would. Builds in the release profile, like `install`. The first run
/// builds cargo-deny, which checks licences and sources of the dependencies.
#[derive(Args)]
pub struct Test {
    /// Also test the editor with mouse and keyboard, on a virtual display (needs Xvfb and OpenGL)
    #[arg(long)]
    editor: bool,
    /// Also look for known faults of the dependencies (downloads a list of them)
    #[arg(long)]
    advisories: bool,
}

const CARGO_CHECKS: [(&str, &[&str]); 3] = [
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

const DENY_CHECKS: [&str; 4] = ["check", "licenses", "bans", "sources"];

impl Test {
    /// Runs the checks and stops at the first that fails.
    pub fn run(self) -> Result<()> {
        aside::step_aside()?;
        let count = CARGO_CHECKS.len() + 1;
        for (number, (name, arguments)) in CARGO_CHECKS.iter().enumerate() {
            let text = format!("cargo {}", arguments.join(" "));
            println!("[{}/{count}] {name}: {text}", number + 1);
            let mut cargo = workspace::cargo();
            if self.editor {
                cargo.env("GRAFT_EDITOR", "1");
            }
            cargo.args(*arguments);
            check(name, &text, cargo)?;
        }
        let mut arguments = DENY_CHECKS.to_vec();
        if self.advisories {
            arguments.push("advisories");
        }
        let text = format!("cargo deny {}", arguments.join(" "));
        println!("[{count}/{count}] dependencies: {text}");
        let mut deny = deny::command()?;
        deny.args(arguments);
        check("dependencies", &text, deny)
    }
}

/// Runs a command that must succeed.
fn check(name: &str, text: &str, mut command: Command) -> Result<()> {
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot start {text}"))?;
    ensure!(status.success(), "{name} failed: {text}");
    println!("      passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
