//! `cargo xtask evaluate-levels`: the part of an evaluation that shows whether voices care about levels, by itself.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use graft_material::arguments;
use model_runtime::{LatencyMode, Remixer};

use crate::evaluate::{load_models, load_parts};
use crate::levels::{self, Levels};
use crate::{model_methods, preparation};

/// Measure how much voices depend on the levels of their inputs.
///
/// Remixes pairs of excerpts by validation artists at the levels of their files and at offsets from -18 to 18 dB between
/// main and sidechain, and prints the harmony and rhythm margins, and how far the loudness is off its target, as Markdown
/// tables. `evaluate` has the same tables.
#[derive(Args)]
pub struct EvaluateLevels {
    /// Folders of music.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Model file; repeatable [default: the built-in model]
    #[arg(long, value_name = "MODEL.safetensors")]
    model: Vec<PathBuf>,
    /// Run folder of the models, for its validation artists [default: those of the built-in model]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Number of pairs.
    #[arg(long, default_value_t = 24)]
    pairs: usize,
    /// Latency mode of the remixes.
    #[arg(long, value_parser = arguments::latency(), default_value = "full")]
    latency: LatencyMode,
    /// Seed for the choice of pairs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl EvaluateLevels {
    /// Prints the tables.
    pub fn run(&self) -> Result<()> {
        let models = load_models(&self.model)?;
        let parts = load_parts(&self.data, self.run.as_deref())?;
        let pairs = preparation::pairs(
            &parts.validation,
            self.pairs,
            preparation::CLIP_SECONDS,
            self.seed,
        )?;
        for (index, pair) in pairs.iter().enumerate() {
            println!("{}. {} / {}", index + 1, pair.main, pair.sidechain);
        }
        let levels = Levels::new(&pairs)?;
        let mut scores = levels.ceilings();
        let ceilings = scores.len();
        for (name, model) in &models {
            let remixer = Remixer::new(Arc::clone(model));
            for method in model_methods::at_levels(name, model, &remixer, self.latency)? {
                let measured = levels.measure(&method)?;
                scores.push((method.name, measured));
            }
        }
        for table in levels::tables(&scores) {
            print!(
                "\n## {}\n\n{}\n\n{}",
                table.title,
                table.note,
                table.markdown()
            );
        }
        println!();
        for (name, scores) in &scores[ceilings..] {
            let checks = [
                Some(levels::check(name, scores)),
                levels::loudness_check(name, scores),
            ];
            for check in checks.into_iter().flatten() {
                let holds = if check.holds { "yes" } else { "no" };
                println!("- {}: {} ({holds})", check.name, check.found);
            }
        }
        Ok(())
    }
}
