//! The program behind `cargo xtask train`, `export` and `import-hifigan`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use graft_material::exit;
use graft_train::export::Export;
use graft_train::import_hifigan::ImportHifigan;
use graft_train::train::Train;

/// Train models, export them, and import voices.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Train(Train),
    Export(Export),
    ImportHifigan(ImportHifigan),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Train(task) => task.run(),
        Task::Export(task) => task.run(),
        Task::ImportHifigan(task) => task.run(),
    };
    exit::code(result)
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
