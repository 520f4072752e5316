//! Training of both networks: `cargo xtask train`.

pub mod audio_cache;
pub mod checkpoint;
pub mod dataset;
pub mod loss;
pub mod optim;
pub mod parameters;
pub mod recipe;
pub mod sampler;
pub mod shifted_mel;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use indicatif::{ProgressBar, ProgressStyle};
use model_runtime::Network;
use serde_json::json;
use vocoder::MelConfig;

use checkpoint::Header;
use dataset::{Dataset, Split};
use loss::Views;
use optim::{RAdam, RAdamConfig};
use parameters::Parameters;
use recipe::Recipe;
use sampler::{CropSampler, CropSettings};

/// Where decoded audio is kept between runs.
const CACHE_FOLDER: &str = "target/cache/audio";
/// Crops in the validation set.
const VALIDATION_CROPS: usize = 32;
/// Steps between two lines of training figures.
const METRICS_STEPS: u64 = 10;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// At this step of the run.
    Step(u64),
    /// After this much time of this call.
    Time(Duration),
}

/// One call of the trainer.
pub struct Job {
    /// The recipe file.
    pub recipe: PathBuf,
    /// Folders of music.
    pub data: Vec<PathBuf>,
    /// Folder of the run.
    pub run: PathBuf,
    /// When to stop.
    pub until: Until,
    /// Whether to go on from the run's checkpoint.
    pub resume: bool,
}

/// Trains until the end that the job names; saves at intervals and at the end.
pub fn train(job: &Job) -> Result<()> {
    let recipe = Recipe::load(&job.recipe)?;
    let exists = checkpoint::path(&job.run).exists();
    if exists && !job.resume {
        bail!(
            "{} holds a run already: go on with --resume, or name another folder",
            job.run.display()
        );
    }
    ensure!(
        exists || !job.resume,
        "{} holds no checkpoint to resume from",
        job.run.display()
    );
    std::fs::create_dir_all(&job.run)
        .with_context(|| format!("cannot create {}", job.run.display()))?;
    let mut run = Run::new(recipe, &job.run, job.resume)?;

    let mel = MelConfig::default();
    let dataset = Dataset::load(&job.data, Path::new(CACHE_FOLDER), mel.sample_rate_hz)?;
    let split = Split::load_or_draw(&job.run, &dataset, run.header.recipe.crops.seed)?;
    let parts = dataset.partition(&split)?;
    let settings = run.header.recipe.crop_settings();
    let mut validation = CropSampler::new(
        &parts.validation,
        &mel,
        CropSettings {
            gain_nepers: 0.0,
            unshifted_share: 0.0,
            two_views: true,
            ..settings.clone()
        },
    )?;
    let validation = (0..VALIDATION_CROPS.div_ceil(settings.batch) as u64)
        .map(|index| Views::new(validation.batch(index)?, &run.device))
        .collect::<Result<Vec<_>>>()?;
    let mut batches = CropSampler::new(&parts.training, &mel, settings)?.stream(run.header.step);

    let bar = progress_bar(job.until, run.header.step);
    let (begin, begin_seconds) = (Instant::now(), run.header.train_seconds);
    loop {
        let done = match job.until {
            Until::Step(last) => run.header.step >= last,
            Until::Time(limit) => begin.elapsed() >= limit,
        };
        if done {
            break;
        }
        let line = run.step(Views::new(batches.next_batch()?, &run.device)?)?;
        run.header.train_seconds = begin_seconds + begin.elapsed().as_secs_f64();
        match job.until {
            Until::Step(_) => bar.inc(1),
            Until::Time(_) => bar.set_position(begin.elapsed().as_secs()),
        }
        bar.set_message(line);
        let every = |steps: u64| run.header.step.is_multiple_of(steps);
        let (validate, save) = (
            every(run.header.recipe.optimiser.validation_steps),
            every(run.header.recipe.optimiser.checkpoint_steps),
        );
        if validate {
            let line = run.validate(&validation)?;
            bar.suspend(|| println!("{line}"));
        }
        if save {
            run.save()?;
        }
    }
    bar.finish_and_clear();
    println!("{}", run.validate(&validation)?);
    run.save()
}

/// A run in progress.
struct Run {
    folder: PathBuf,
    header: Header,
    device: Device,
    network: Network,
    optimiser: RAdam,
    metrics: File,
}

impl Run {
    fn new(recipe: Recipe, folder: &Path, resume: bool) -> Result<Self> {
        let device = Device::Cpu;
        let parameters = Parameters::new(recipe.crops.seed);
        let network = Network::new(
            &recipe.network,
            &MelConfig::default(),
            true,
            &parameters.builder(&device),
        )?;
        let config = RAdamConfig {
            betas: recipe.optimiser.betas.into(),
            clip_norm: recipe.optimiser.clip_norm,
            average_decay: recipe.optimiser.average_decay,
        };
        let mut optimiser = RAdam::new(&parameters, config)?;
        let mut header = Header {
            recipe,
            step: 0,
            train_seconds: 0.0,
        };
        if resume {
            let (saved, tensors) = checkpoint::load(folder)?;
            ensure!(
                saved.recipe.network == header.recipe.network,
                "the run in {} trains {:?}, the recipe describes {:?}",
                folder.display(),
                saved.recipe.network,
                header.recipe.network
            );
            optimiser.restore(&tensors, saved.step)?;
            header = Header {
                recipe: header.recipe,
                ..saved
            };
        }
        let metrics = folder.join("metrics.jsonl");
        let metrics = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&metrics)
            .with_context(|| format!("cannot open {}", metrics.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            header,
            device,
            network,
            optimiser,
            metrics,
        })
    }

    /// One step; returns a line on how it went.
    fn step(&mut self, views: Views) -> Result<String> {
        let recipe = &self.header.recipe;
        let step = self.header.step;
        let noise_seed = recipe.crops.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step;
        let loss = loss::step_loss(&self.network, &views, &recipe.loss, noise_seed)?;
        let learning_rate = recipe.learning_rate(step);
        let norm = self
            .optimiser
            .step(&loss.total.backward()?, learning_rate)?;
        self.header.step = self.optimiser.steps();
        let parts = loss.parts;
        if self.header.step.is_multiple_of(METRICS_STEPS) {
            self.log(json!({
                "step": self.header.step, "train": parts, "gradient_norm": norm, "learning_rate": learning_rate,
            }))?;
        }
        Ok(format!(
            "step {} mel {:.3} kl {:.3} {:.3}",
            self.header.step, parts.reconstruction, parts.kl_harmony, parts.kl_rhythm
        ))
    }

    /// Figures of the averaged weights; returns a line on them.
    fn validate(&mut self, batches: &[Views]) -> Result<String> {
        let averages =
            VarBuilder::from_tensors(self.optimiser.averages(), DType::F32, &self.device);
        let network = Network::new(
            &self.header.recipe.network,
            &MelConfig::default(),
            true,
            &averages,
        )?;
        let v = loss::validate(&network, batches)?;
        self.log(json!({
            "step": self.header.step, "validation": v, "train_seconds": self.header.train_seconds,
        }))?;
        Ok(format!(
            "step {}: mel L1 {:.3} (no harmony {:.3}), harmony drift rotated {:.2} / not {:.2}, rhythm drift {:.2}, \
             KL {:.3} / {:.3}",
            self.header.step,
            v.mel_l1,
            v.mel_l1_without_harmony,
            v.harmony_drift_rotated,
            v.harmony_drift,
            v.rhythm_drift,
            v.kl_harmony,
            v.kl_rhythm
        ))
    }

    fn save(&self) -> Result<()> {
        checkpoint::save(&self.folder, &self.header, &self.optimiser.state())
    }

    fn log(&mut self, line: serde_json::Value) -> Result<()> {
        writeln!(self.metrics, "{line}").context("cannot write metrics.jsonl")
    }
}

fn progress_bar(until: Until, step: u64) -> ProgressBar {
    let (length, template) = match until {
        Until::Step(last) => (
            last,
            "[{wide_bar}] {pos}/{len}, {per_sec}, {eta} left, {msg}",
        ),
        Until::Time(limit) => (limit.as_secs(), "[{wide_bar}] {eta} left, {msg}"),
    };
    let style = ProgressStyle::with_template(template)
        .expect("the template is valid")
        .progress_chars("=> ");
    let bar = ProgressBar::new(length).with_style(style);
    if let Until::Step(_) = until {
        bar.set_position(step);
        bar.reset_eta();
    }
    bar
}
