//! `cargo xtask evaluate`: a report on one or more models.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use graft_material::report::Report;
use graft_material::{arguments, whole_file, workspace};
use graft_train::dataset::{Dataset, Split};
use model_runtime::{LatencyMode, Model};
use vocoder::MelConfig;

use crate::judge::{Judge, Protocol};
use crate::margins::SAMPLE_RATE_HZ;
use crate::{compare, page};

/// Judge a model: tables, pictures and sounds in one report.
///
/// The folder OUT receives report.json, report.md, and index.html, which opens with a double-click and plays the remixes. The
/// music is that of artists whom the model was not trained on; chords and onsets are those of MIDI songs with chord
/// annotations (POP909) among the data, if there are some. What was done before a stop is not done again.
#[derive(Args)]
pub struct Evaluate {
    /// Folders of music, and of MIDI files or archives with chord annotations.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Model file, several times to compare models; without it, the built-in model is judged.
    #[arg(long, value_name = "MODEL.safetensors")]
    model: Vec<PathBuf>,
    /// Folder of the models' training run, which says which artists were kept out; without it, those that the built-in model was
    /// not trained on.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Folder for the report; by default target/evaluation.
    #[arg(long, value_name = "OUT")]
    out: Option<PathBuf>,
    /// Fewer songs, pairs and seeds: minutes instead of hours.
    #[arg(long)]
    quick: bool,
    /// How much of the future the remixes wait for.
    #[arg(long, value_parser = arguments::latency(), default_value = "full")]
    latency: LatencyMode,
    /// Which songs and pairs are drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// An older report.json: say what changed since, and whether it is more than noise.
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
}

impl Evaluate {
    /// Writes the report.
    pub fn run(&self) -> Result<()> {
        let old = self.compare.as_deref().map(Report::load).transpose()?;
        let out = match &self.out {
            Some(out) => out.clone(),
            None => workspace::target()?.join("evaluation"),
        };
        fs::create_dir_all(&out)
            .with_context(|| format!("cannot make the folder {}", out.display()))?;
        let models = load_models(&self.model)?;
        let split = match &self.run {
            Some(run) => Split::load(run)?,
            None => Split::of_built_in_model()?,
        };
        let dataset = Dataset::load(&self.data, &workspace::cache("audio"), SAMPLE_RATE_HZ)?;
        let parts = dataset.partition(&split).with_context(|| match &self.run {
            Some(run) => format!("the data is not that of {}", run.display()),
            None => "the data is not that of the built-in model; --run names the training run of other data".to_owned(),
        })?;
        let protocol = match self.quick {
            true => Protocol::quick(self.seed, self.latency),
            false => Protocol::full(self.seed, self.latency),
        };
        let judge = Judge {
            protocol,
            parts,
            data: &self.data,
            models,
            folder: &out,
        };
        let report = judge.report()?;
        whole_file::write(
            &out.join("report.json"),
            &serde_json::to_vec_pretty(&report)?,
        )?;
        whole_file::write(&out.join("report.md"), report.markdown().as_bytes())?;
        whole_file::write(&out.join("index.html"), page::html(&report).as_bytes())?;
        print!("\n{}", report.markdown());
        if let Some(old) = old {
            print!("\n## Changes\n\n{}", compare::compare(&old, &report));
        }
        println!(
            "\nTo look at and listen to: {}",
            out.join("index.html").display()
        );
        Ok(())
    }
}

/// Models by the names of their files; without any, the built-in model.
pub fn load_models(paths: &[PathBuf]) -> Result<Vec<(String, Arc<Model>)>> {
    if paths.is_empty() {
        return Ok(vec![("built-in model".to_owned(), Model::built_in()?)]);
    }
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap_or(path.as_os_str());
            let name = name.to_string_lossy().into_owned();
            let model = Model::load(path)?;
            // All models are compared on the same features of the same clips.
            let (found, expected) = (&model.header().mel, MelConfig::default());
            ensure!(
                *found == expected,
                "{}: expected a model for the standard mel, {expected:?}, found {found:?}",
                path.display()
            );
            Ok((name, Arc::new(model)))
        })
        .collect()
}
