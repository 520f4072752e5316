//! The program behind `cargo xtask evaluate`, `evaluate-instruments`, `evaluate-levels`, `evaluate-notes`, `evaluate-timbre` and
//! `evaluate-voice`: evaluates a model with the protocol of its paper (Wu, DAFx 2023), and compares it with remixes made without a network.
//!
//! - Table 1, information about chords and onsets in the latents: [`songs`] with known [`chords`] and [`onsets`],
//!   [`probe`]s of two [GRU](graft_train::gru) layers, combined by [`disentanglement`];
//! - Table 2, similarity of remixes to real music: [`pairs`] brought to one tempo ([`stretch`]) and into [`beat`] phase by
//!   [`preparation`], [`baselines`] and [`model_methods`], a [`classifier`] for features, and their [`frechet`] distance;
//! - what a remix is for: [`remixes`] compared with their [`sources`] by [`margins`], as [`mel_features`] where there is only a
//!   [`decoded`] mel; in [`sounds`], their [`strokes`] and [`loudness`];
//! - whether it matters how loud the inputs are: [`levels`], by itself as [`evaluate_levels`];
//! - whether rotating the harmony latent transposes: [`transposition`];
//! - [`page`], [`pictures`], and [`compare`] with an older report; [`stages`] to resume after an interruption;
//! - [`evaluate_notes`]: recipes on notes with the measures of their papers: [`luo`]; [`tanaka`], by [`neighbours`];
//! - [`conversions`] of timbre compared with the truth, also by a classifier of [`instruments`], for `cargo xtask evaluate-timbre`
//!   ([`evaluate_timbre`]);
//! - [`translations`] to other instruments compared with the truth, and what content codes tell of the instrument, also as a picture,
//!   for `cargo xtask evaluate-instruments` ([`evaluate_instruments`]);
//! - [`voices`]: accuracy of the voices, for `cargo xtask evaluate-voice`.

mod baselines;
mod beat;
mod chords;
mod chroma;
mod classifier;
mod compare;
mod conversions;
mod decoded;
mod disentanglement;
mod evaluate;
mod evaluate_instruments;
mod evaluate_levels;
mod evaluate_notes;
mod evaluate_timbre;
mod frechet;
mod instruments;
mod judge;
mod levels;
mod loudness;
mod luo;
mod margins;
mod mel_features;
mod method;
mod model_methods;
mod neighbours;
mod onsets;
mod page;
mod pairs;
mod parallel;
mod pictures;
mod preparation;
mod probe;
mod remixes;
mod songs;
mod sounds;
mod sources;
mod stages;
mod stft;
mod stretch;
mod strokes;
mod tanaka;
#[cfg(test)]
mod test_signal;
mod translations;
mod transposition;
mod voices;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use graft_material::exit;

/// Evaluate models.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Evaluate(evaluate::Evaluate),
    EvaluateInstruments(evaluate_instruments::EvaluateInstruments),
    EvaluateLevels(evaluate_levels::EvaluateLevels),
    EvaluateNotes(evaluate_notes::EvaluateNotes),
    EvaluateTimbre(evaluate_timbre::EvaluateTimbre),
    EvaluateVoice(voices::EvaluateVoice),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Evaluate(task) => task.run(),
        Task::EvaluateInstruments(task) => task.run(),
        Task::EvaluateLevels(task) => task.run(),
        Task::EvaluateNotes(task) => task.run(),
        Task::EvaluateTimbre(task) => task.run(),
        Task::EvaluateVoice(task) => task.run(),
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
