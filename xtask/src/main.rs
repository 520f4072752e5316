//! `cargo xtask`: everything that one does with Graft outside a DAW, in one program.

mod audio_file;
mod bench;
mod bundle;
mod demo;
mod evaluate;
mod export;
mod host;
mod install;
mod plot;
mod progress;
mod remix;
mod speed;
mod system_packages;
mod test;
#[cfg(test)]
mod test_folder;
mod train;
mod whole_file;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, install, test and try out Graft, the plugin that remixes two tracks.
///
/// New here? Start with `cargo xtask install`.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Install(install::Install),
    Remix(remix::Remix),
    Test(test::Test),
    Bundle(bundle::Bundle),
    Train(train::Train),
    Export(export::Export),
    Evaluate(evaluate::Evaluate),
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Install(task) => task.run(),
        Task::Remix(task) => task.run(),
        Task::Test(task) => task.run(),
        Task::Bundle(task) => task.run(),
        Task::Train(task) => task.run(),
        Task::Export(task) => task.run(),
        Task::Evaluate(task) => task.run(),
        Task::Bench(task) => task.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
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
