//! `cargo xtask evaluate`: how well a model carries the harmony of one track and the rhythm of another.
//!
//! - [`margins`]: what is measured;
//! - [`pairs`]: which pieces of music it is measured on;
//! - [`baselines`]: remixes without a network, to compare with;
//! - [`score`]: means over all pairs, and their table;
//! - [`transposition`]: whether rotating the harmony latent transposes;
//! - [`voices`]: how close the voices come to the sound of a mel, for `cargo xtask evaluate-voice`.

mod baselines;
mod chroma;
mod margins;
mod pairs;
mod score;
mod stft;
#[cfg(test)]
mod test_signal;
mod transposition;
mod voices;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use model_runtime::{AudioClip, Model, RemixSettings, Remixer, Voice};

use crate::remix::LatencyName;
use crate::train::cache_folder;
use crate::train::dataset::{Dataset, Split};
use margins::SAMPLE_RATE_HZ;
use score::{Scorer, Table};
use transposition::Transpositions;
pub use voices::EvaluateVoice;

/// Measure a model on music that it was not trained on.
///
/// Pairs of excerpts by artists that the run kept out of training are remixed, the harmony of A with the
/// rhythm of B. The table is Markdown: a harmony margin above 0 means that the remix is closer to A than
/// to B in harmony, a rhythm margin above 0 that it is closer to B than to A in rhythm. Remixes
/// without a model stand beside it.
#[derive(Args)]
pub struct Evaluate {
    /// Folder of the training run; it says which artists were kept out.
    run: PathBuf,
    /// Folders of music that the run was given.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Model file, several times to compare models; without it, the built-in model is measured.
    #[arg(long, value_name = "MODEL.safetensors")]
    model: Vec<PathBuf>,
    /// Number of pairs.
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// How much of the future the remixes wait for.
    #[arg(long, value_enum, default_value_t = LatencyName::Full)]
    latency: LatencyName,
    /// Which pairs are drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Evaluate {
    /// Prints the table.
    pub fn run(&self) -> Result<()> {
        let models = load_models(&self.model)?;
        let dataset = Dataset::load(&self.data, &cache_folder(), SAMPLE_RATE_HZ)?;
        let validation = dataset.partition(&Split::load(&self.run)?)?.validation;
        let pairs = pairs::draw(&validation, SAMPLE_RATE_HZ, self.pairs, self.seed)?;
        let mut scorer = Scorer::new(&pairs)?;
        let mut table = Table::default();
        baselines::score_baselines(&mut scorer, &mut table)?;
        let mut transpositions = Vec::new();
        for (name, model) in models {
            let measured = Transpositions::measure(model.network(), &validation)?;
            transpositions.push((name.clone(), measured));
            let has_generator = model.generator().is_ok();
            let remixer = Remixer::new(model);
            let mut voices = vec![
                ("guided", Voice::Guided),
                ("Griffin-Lim", Voice::GriffinLim),
            ];
            if has_generator {
                voices.push(("HiFi-GAN", Voice::HifiGan));
            }
            for (voice_name, voice) in voices {
                let settings = RemixSettings {
                    voice,
                    mode: self.latency.into(),
                    ..RemixSettings::default()
                };
                let remix = |a: &AudioClip, b: &AudioClip| Ok(remixer.remix(a, b, &settings)?);
                let reconstruction = scorer.reconstruction(remix)?;
                table.push(
                    &format!("{name}, {voice_name} voice"),
                    scorer.score(remix)?,
                    Some(reconstruction),
                );
            }
        }
        println!("{} pairs: harmony of A, rhythm of B\n", pairs.len());
        for pair in &pairs {
            println!("- {} / {}", pair.main, pair.sidechain);
        }
        print!("\n{table}");
        for (name, transpositions) in transpositions {
            print!("\n{name}, 3 s of each track:\n\n{transpositions}");
        }
        Ok(())
    }
}

/// Models by the names of their files; without any, the built-in model.
fn load_models(paths: &[PathBuf]) -> Result<Vec<(String, Arc<Model>)>> {
    if paths.is_empty() {
        return Ok(vec![("built-in model".to_owned(), Model::built_in()?)]);
    }
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap_or(path.as_os_str());
            let name = name.to_string_lossy().into_owned();
            Ok((name, Arc::new(Model::load(path)?)))
        })
        .collect()
}
