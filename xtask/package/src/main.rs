//! The program behind `cargo xtask package`.

mod archive;
mod compile;
mod contents;
mod crates;
mod debian;
mod licences;
mod needs;
mod package;
mod release;
mod sbom;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use graft_material::exit;
use package::Package;

/// Write the files that users download.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Package(Package),
}

fn main() -> ExitCode {
    let Task::Package(task) = Cli::parse().task;
    exit::code(task.run())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
