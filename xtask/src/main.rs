//! `cargo xtask`: builds, installs, tests and runs Graft outside a DAW.

mod aside;
mod bench;
mod bundle;
mod demo;
mod deny;
mod host;
mod install;
mod play;
mod programs;
mod remix;
#[cfg(target_os = "linux")]
mod screenshots;
mod speed;
mod system_packages;
mod test;
mod translate;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use graft_material::exit;
use programs::{Arguments, Program};

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
    Translate(translate::Translate),
    Test(test::Test),
    Bundle(bundle::Bundle),
    Validate(validate::Validate),
    /// Train a model on your own music, or a recipe on notes
    Train(Arguments),
    /// Export a training run as a model file
    Export(Arguments),
    /// Import a HiFi-GAN generator trained with PyTorch into a model file
    ImportHifigan(Arguments),
    /// Evaluate a model: a report with tables, pictures and sounds
    Evaluate(Arguments),
    /// Evaluate a model of instruments: what its content tells of them, and its translations
    EvaluateInstruments(Arguments),
    /// Measure how much voices depend on the levels of their inputs
    EvaluateLevels(Arguments),
    /// Evaluate runs of a recipe on notes with the measures of its paper
    EvaluateNotes(Arguments),
    /// Measure conversions of timbre against the truth
    EvaluateTimbre(Arguments),
    /// Measure how accurately voices turn mels into sound
    EvaluateVoice(Arguments),
    /// Build Graft for others, and write archives of it into dist/
    Package(Arguments),
    Bench(bench::Bench),
    Play(play::Play),
    #[cfg(target_os = "linux")]
    Screenshots(screenshots::Screenshots),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Install(task) => task.run(),
        Task::Remix(task) => task.run(),
        Task::Translate(task) => task.run(),
        Task::Test(task) => task.run(),
        Task::Bundle(task) => task.run(),
        Task::Validate(task) => task.run(),
        Task::Train(arguments) => Program::Train.run("train", arguments),
        Task::Export(arguments) => Program::Train.run("export", arguments),
        Task::ImportHifigan(arguments) => Program::Train.run("import-hifigan", arguments),
        Task::Evaluate(arguments) => Program::Evaluate.run("evaluate", arguments),
        Task::EvaluateInstruments(arguments) => {
            Program::Evaluate.run("evaluate-instruments", arguments)
        }
        Task::EvaluateLevels(arguments) => Program::Evaluate.run("evaluate-levels", arguments),
        Task::EvaluateNotes(arguments) => Program::Evaluate.run("evaluate-notes", arguments),
        Task::EvaluateTimbre(arguments) => Program::Evaluate.run("evaluate-timbre", arguments),
        Task::EvaluateVoice(arguments) => Program::Evaluate.run("evaluate-voice", arguments),
        Task::Package(arguments) => Program::Package.run("package", arguments),
        Task::Bench(task) => task.run(),
        Task::Play(task) => task.run(),
        #[cfg(target_os = "linux")]
        Task::Screenshots(task) => task.run(),
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
