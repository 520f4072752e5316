//! `cargo xtask train`, `export`, `import-hifigan`, `evaluate`, `evaluate-instruments`, `evaluate-levels`, `evaluate-notes`,
//! `evaluate-timbre`, `evaluate-voice` and `package`: tasks of separate programs, so that installing the plugin builds neither the
//! trainer nor the evaluation nor the packager.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use graft_material::workspace;

/// A program in its own package.
#[derive(Clone, Copy)]
pub enum Program {
    /// Trains, exports and imports.
    Train,
    /// Evaluates.
    Evaluate,
    /// Packages.
    Package,
}

/// Arguments that are passed to the program, including `--help`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Program {
    fn package(self) -> &'static str {
        match self {
            Self::Train => "graft-train",
            Self::Evaluate => "graft-evaluate",
            Self::Package => "graft-package",
        }
    }

    /// Builds the program and replaces this process with it, to run `task`. The program sets the exit status and
    /// handles Ctrl-C.
    ///
    /// # Errors
    ///
    /// Returns an error if the program cannot be built or started.
    pub fn run(self, task: &str, arguments: Arguments) -> Result<()> {
        let package = self.package();
        let mut build = workspace::cargo();
        // Same packages as `cargo xtask install`: this gives the same features, so nothing is built twice.
        build
            .args(["build", "--release", "--package", "graft"])
            .args(["--package", "xtask", "--package", package])
            .args(["--bin", package]);
        if matches!(self, Self::Train) && names_cuda(&arguments.arguments) {
            build.args(["--features", "graft-train/cuda"]);
        }
        let status = build.status().context("cannot start cargo")?;
        ensure!(status.success(), "cannot build {package}");
        let file = format!("release/{package}{}", env::consts::EXE_SUFFIX);
        let mut program = Command::new(workspace::target()?.join(file));
        program.arg(task).args(arguments.arguments);
        become_command(program).with_context(|| format!("cannot start {package}"))
    }
}

/// Whether the arguments contain `--device cuda` or `--device cuda:N`.
fn names_cuda(arguments: &[OsString]) -> bool {
    let is_cuda = |device: &str| device == "cuda" || device.starts_with("cuda:");
    let mut arguments = arguments.iter().filter_map(|argument| argument.to_str());
    while let Some(argument) = arguments.next() {
        let device = match argument {
            "--device" => arguments.next(),
            _ => argument.strip_prefix("--device="),
        };
        if device.is_some_and(is_cuda) {
            return true;
        }
    }
    false
}

/// Replaces this process with the command.
#[cfg(unix)]
fn become_command(mut command: Command) -> std::io::Result<()> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}

/// Runs the command and exits with its status. Ignores Ctrl-C, which also reaches the command.
#[cfg(not(unix))]
fn become_command(mut command: Command) -> std::io::Result<()> {
    ctrlc::set_handler(|| {}).map_err(std::io::Error::other)?;
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_noticed_wherever_it_is_named() {
        for (line, expected) in [
            ("a.toml --data x --device cuda --run y", true),
            ("a.toml --device=cuda:1", true),
            ("a.toml --device cuda:0", true),
            ("a.toml --device cpu --run cuda", false),
            ("a.toml --run y --device", false),
            ("cuda", false),
        ] {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(names_cuda(&arguments), expected, "{line}");
        }
    }
}
