//! `cargo xtask evaluate`: writes a report on one or more models.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use graft_material::{arguments, whole_file, workspace};
use graft_train::dataset::{Dataset, Partition, Split};
use model_runtime::{LatencyMode, Model};
use vocoder::MelConfig;

use crate::judge::{Judge, Protocol};
use crate::margins::SAMPLE_RATE_HZ;
use crate::{compare, page};

/// Evaluate a model: a report with tables, pictures and sounds.
///
/// Writes report.json, report.md and index.html (opens in a browser and plays the remixes) to OUT. Uses music by
/// artists that the model was not trained on. Table 1 needs MIDI songs with chord annotations (POP909) in the data.
/// An interrupted evaluation resumes where it stopped.
#[derive(Args)]
pub struct Evaluate {
    /// Folders of music, and of MIDI songs with chord annotations (files or .tar.gz archives).
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Model file; repeatable [default: the built-in model]
    #[arg(long, value_name = "MODEL.safetensors")]
    model: Vec<PathBuf>,
    /// Run folder of the models, for its validation artists [default: those of the built-in model]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Output folder [default: target/evaluation]
    #[arg(long, value_name = "OUT")]
    out: Option<PathBuf>,
    /// Use fewer songs, pairs and seeds: minutes instead of hours.
    #[arg(long)]
    quick: bool,
    /// Latency mode of the remixes.
    #[arg(long, value_parser = arguments::latency(), default_value = "full")]
    latency: LatencyMode,
    /// Seed for the choice of songs and pairs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Older report.json: print what changed since, and whether it exceeds the noise. Reports of other versions of the
    /// measurements are refused.
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
}

impl Evaluate {
    /// Writes the report.
    pub fn run(&self) -> Result<()> {
        let old = self.compare.as_deref().map(compare::load).transpose()?;
        let out = match &self.out {
            Some(out) => out.clone(),
            None => workspace::target()?.join("evaluation"),
        };
        fs::create_dir_all(&out)
            .with_context(|| format!("cannot create the folder {}", out.display()))?;
        let models = load_models(&self.model)?;
        let parts = load_parts(&self.data, self.run.as_deref())?;
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
        println!("\nOpen the report: {}", out.join("index.html").display());
        Ok(())
    }
}

/// Reads the music below `data` and splits it as the run folder `run` does or, without one, as for the built-in model.
///
/// # Errors
///
/// Returns an error if the music cannot be read or does not match the split.
pub fn load_parts(data: &[PathBuf], run: Option<&Path>) -> Result<Partition> {
    let split = match run {
        Some(run) => Split::load(run)?,
        None => Split::of_built_in_model()?,
    };
    let dataset = Dataset::load(data, &workspace::cache("audio"), SAMPLE_RATE_HZ)?;
    dataset.partition(&split).with_context(|| match run {
        Some(run) => format!("the data does not match the split of {}", run.display()),
        None => "the data does not contain the artists of the built-in model; for other data, name its training run with --run".to_owned(),
    })
}

/// Loads models, named after their files; without paths, the built-in model.
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
