//! `cargo xtask`: everything that one does with Graft outside a DAW, in one program.

mod audio_file;
mod bench;
mod bundle;
mod demo;
mod evaluate;
mod export;
mod host;
mod import_hifigan;
mod install;
mod play;
mod plot;
mod progress;
mod remix;
#[cfg(target_os = "linux")]
mod screenshots;
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
    ImportHifigan(import_hifigan::ImportHifigan),
    Evaluate(evaluate::Evaluate),
    EvaluateVoice(evaluate::EvaluateVoice),
    Bench(bench::Bench),
    Play(play::Play),
    #[cfg(target_os = "linux")]
    Screenshots(screenshots::Screenshots),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Install(task) => task.run(),
        Task::Remix(task) => task.run(),
        Task::Test(task) => task.run(),
        Task::Bundle(task) => task.run(),
        Task::Train(task) => task.run(),
        Task::Export(task) => task.run(),
        Task::ImportHifigan(task) => task.run(),
        Task::Evaluate(task) => task.run(),
        Task::EvaluateVoice(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Play(task) => task.run(),
        #[cfg(target_os = "linux")]
        Task::Screenshots(task) => task.run(),
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
