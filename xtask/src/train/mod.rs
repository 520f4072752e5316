//! Training of both networks: `cargo xtask train`.

pub mod adversary;
pub mod audio_cache;
pub mod checkpoint;
pub mod curves;
pub mod dataset;
pub mod device;
pub mod discriminator;
pub mod equaliser;
pub mod loss;
pub mod midi;
pub mod optim;
pub mod parameters;
pub mod preview;
pub mod recipe;
pub mod sampler;
pub mod shifted_mel;
pub mod spectral_norm;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use model_runtime::{Model, Network};
use serde_json::json;
use vocoder::MelConfig;

use crate::{export, whole_file, workspace};

use adversary::Adversary;
use checkpoint::{Header, Origin};
use dataset::{Dataset, Split, Track};
use device::DeviceName;
use loss::{Networks, Views};
use optim::{RAdam, RAdamConfig};
use parameters::Parameters;
use preview::Preview;
use recipe::Recipe;
use sampler::{CropSampler, CropSettings, Material};

/// Where decoded audio is kept between runs.
pub fn cache_folder() -> PathBuf {
    workspace::root().join("target/cache/audio")
}

/// Crops in the validation set.
const VALIDATION_CROPS: usize = 32;
/// Steps between two lines of training figures.
const METRICS_STEPS: u64 = 10;

/// Train a model on your own music.
///
/// Audio is read once and cached in target/cache. The run folder receives the checkpoint, the validation split,
/// metrics.jsonl, losses.png, and previews of two remixes. A model file comes of it by `cargo xtask export`.
#[derive(Args)]
pub struct Train {
    /// What to train and how, e.g. xtask/recipes/graft.toml.
    recipe: PathBuf,
    /// Folders of music (WAV, FLAC, Ogg Vorbis, MP3; for recipes that ask for it also MIDI files, alone or in .tar.gz
    /// archives), searched with all that is below them.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Folders of drum loops to put under the music, for recipes that ask for it.
    #[arg(long, num_args = 1.., value_name = "DIR")]
    drums: Vec<PathBuf>,
    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Stop when the run has done this many steps in all.
    #[arg(long, required_unless_present = "minutes", conflicts_with = "minutes")]
    steps: Option<u64>,
    /// Stop after this many minutes of this call.
    #[arg(long)]
    minutes: Option<f64>,
    /// Go on from the run's checkpoint.
    #[arg(long)]
    resume: bool,
    /// Start from the weights of an exported model instead of random ones.
    #[arg(long, value_name = "MODEL.safetensors", conflicts_with = "resume")]
    init: Option<PathBuf>,
    /// Where to compute: cpu, cuda or cuda:N. A GPU needs a build with `--features cuda`.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceName,
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// At this step of the run.
    Step(u64),
    /// After this much time of this call.
    Time(Duration),
}

impl Train {
    /// Trains until the given end; saves at intervals and at the end.
    pub fn run(&self) -> Result<()> {
        let until = match (self.steps, self.minutes) {
            (Some(steps), _) => Until::Step(steps),
            (None, Some(minutes)) if minutes.is_finite() && minutes > 0.0 => {
                Until::Time(Duration::from_secs_f64(minutes * 60.0))
            }
            (None, minutes) => bail!("--minutes: expected a number above 0, found {minutes:?}"),
        };
        let recipe = Recipe::load(&self.recipe)?;
        let exists = checkpoint::path(&self.run).exists();
        let folder = self.run.display();
        ensure!(
            self.resume || !exists,
            "{folder} holds a run already: go on with --resume, or name another folder"
        );
        ensure!(
            exists || !self.resume,
            "{folder} holds no checkpoint to resume from"
        );
        fs::create_dir_all(&self.run).with_context(|| format!("cannot create {folder}"))?;
        let device = self.device.open()?;
        let mut run = match (&self.init, self.resume) {
            (_, true) => Run::resume(recipe, &self.run, device)?,
            (Some(model), false) => Run::from_model(recipe, &self.run, model, device)?,
            (None, false) => Run::new(recipe, &self.run, device)?,
        };

        let mel = MelConfig::default();
        let dataset = Dataset::load(&self.data, &cache_folder(), mel.sample_rate_hz)?;
        let split = Split::load_or_draw(&self.run, &dataset, run.header.recipe.crops.seed)?;
        let parts = dataset.partition(&split)?;
        let mut settings = run.header.recipe.crop_settings();
        let validation = validation_set(&parts.validation, &mel, &settings, &run.device)?;
        let material = Material {
            tracks: parts.training,
            renderings: match run.header.recipe.midi_settings() {
                Some(settings) => {
                    let cache = workspace::root().join("target/cache/midi");
                    midi::load(&self.data, &settings, &cache, mel.sample_rate_hz)?
                }
                None => Vec::new(),
            },
            drums: dataset::load_loops(&self.drums, &cache_folder(), mel.sample_rate_hz)?,
        };
        // A recipe names what helps; those who have less can train all the same.
        if settings.drums_share > 0.0 && material.drums.is_empty() {
            println!("no drum loops (--drums): training without drums under the music");
            settings.drums_share = 0.0;
        }
        if settings.midi_share > 0.0 && material.renderings.is_empty() {
            println!("no MIDI files among the data: training without them");
            settings.midi_share = 0.0;
        }
        let mut batches =
            CropSampler::new(&material, &mel, settings)?.stream(run.header.total_steps());

        let preview = Preview::new(&parts.validation, mel.sample_rate_hz)?;
        let interrupted = interrupt_flag()?;

        let bar = progress_bar(until, run.header.step);
        let (begin, begin_seconds) = (Instant::now(), run.header.train_seconds);
        let mut saved_step = run.header.step;
        let mut train = || -> Result<()> {
            loop {
                let done = match until {
                    Until::Step(last) => run.header.step >= last,
                    Until::Time(limit) => begin.elapsed() >= limit,
                };
                if done || interrupted.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                let batch = batches.next_batch()?;
                run.pace.waited += start.elapsed();
                let line = run.step(&Views::new(batch, &run.device)?)?;
                run.pace.stepped += start.elapsed();
                run.header.train_seconds = begin_seconds + begin.elapsed().as_secs_f64();
                match until {
                    Until::Step(_) => bar.inc(1),
                    Until::Time(_) => bar.set_position(begin.elapsed().as_secs()),
                }
                bar.set_message(line);
                let optimiser = &run.header.recipe.optimiser;
                let validate = run.header.step.is_multiple_of(optimiser.validation_steps);
                let save = run.header.step.is_multiple_of(optimiser.checkpoint_steps);
                if validate {
                    let line = run.validate(&validation)?;
                    bar.suspend(|| println!("{line}"));
                    run.preview(&preview)?;
                }
                if save {
                    run.save()?;
                    saved_step = run.header.step;
                }
            }
            bar.finish_and_clear();
            // The checkpoint first: it is what an impatient second Ctrl-C must not lose.
            run.save()?;
            saved_step = run.header.step;
            if !interrupted.load(Ordering::Relaxed) {
                println!("{}", run.validate(&validation)?);
                run.preview(&preview)?;
                run.save()?;
            }
            Ok(())
        };
        train().with_context(|| match saved_step {
            0 => "the run stopped before its first checkpoint".to_owned(),
            step => format!("the run stopped; {folder} holds the checkpoint of step {step}, --resume goes on from there"),
        })?;
        if interrupted.load(Ordering::Relaxed) {
            println!("stopped at step {}; --resume goes on", run.header.step);
        }
        Ok(())
    }
}

/// Set by Ctrl-C, once for the whole process; a second Ctrl-C ends it at once.
fn interrupt_flag() -> Result<&'static AtomicBool> {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    static HANDLER: OnceLock<Result<(), ctrlc::Error>> = OnceLock::new();
    let set = HANDLER.get_or_init(|| {
        ctrlc::set_handler(|| {
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            eprintln!("stopping after this step; once more to stop at once");
        })
    });
    match set {
        Ok(()) => Ok(&INTERRUPTED),
        Err(error) => bail!("cannot listen for Ctrl-C: {error}"),
    }
}

/// The same crops at every validation, shifted but not otherwise changed.
fn validation_set(
    tracks: &[Arc<Track>],
    mel: &MelConfig,
    settings: &CropSettings,
    device: &Device,
) -> Result<Vec<Views>> {
    let settings = CropSettings {
        gain_nepers: 0.0,
        unshifted_share: 0.0,
        two_views: true,
        tuning_cents: 0.0,
        equaliser_db: 0.0,
        drums_share: 0.0,
        midi_share: 0.0,
        ..settings.clone()
    };
    let material = Material {
        tracks: tracks.to_vec(),
        ..Material::default()
    };
    let batches = VALIDATION_CROPS.div_ceil(settings.batch) as u64;
    let mut crops = CropSampler::new(&material, mel, settings)?;
    (0..batches)
        .map(|index| Views::new(crops.batch(index)?, device))
        .collect()
}

/// How long some steps took.
#[derive(Debug, Default)]
struct Pace {
    /// All in all.
    stepped: Duration,
    /// Of this, waiting for crops.
    waited: Duration,
}

impl Pace {
    /// Share of the time that was spent waiting for crops.
    fn wait_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.stepped.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// A run in progress.
struct Run {
    folder: PathBuf,
    header: Header,
    device: Device,
    parameters: Parameters,
    network: Network,
    optimiser: RAdam,
    adversary: Option<Adversary>,
    metrics: File,
    /// Since the last validation.
    pace: Pace,
}

impl Run {
    /// A run from random weights.
    fn new(recipe: Recipe, folder: &Path, device: Device) -> Result<Self> {
        let header = Header {
            recipe,
            origin: None,
            step: 0,
            train_seconds: 0.0,
        };
        Self::start(header, folder, device, None, None)
    }

    /// A run from the weights of a model file.
    fn from_model(recipe: Recipe, folder: &Path, path: &Path, device: Device) -> Result<Self> {
        let model = Model::load(path)?;
        let card = &model.header().card;
        let origin = Origin {
            sha256: model.sha256().to_owned(),
            steps: card.steps,
            train_hours: card.train_hours,
        };
        ensure!(
            model.header().architecture == recipe.network,
            "{} holds {:?}, the recipe describes {:?}",
            path.display(),
            model.header().architecture,
            recipe.network
        );
        let weights = candle_core::safetensors::load(path, &Device::Cpu)?
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix("network.")?.to_owned(), tensor)))
            .collect();
        let header = Header {
            recipe,
            origin: Some(origin),
            step: 0,
            train_seconds: 0.0,
        };
        Self::start(header, folder, device, Some(&weights), None)
    }

    /// A run from its newest checkpoint. The recipe may have changed, but for the network.
    fn resume(recipe: Recipe, folder: &Path, device: Device) -> Result<Self> {
        let (saved, tensors) = checkpoint::load(folder)?;
        ensure!(
            saved.recipe.network == recipe.network,
            "the run in {} trains {:?}, the recipe describes {:?}",
            folder.display(),
            saved.recipe.network,
            recipe.network
        );
        let header = Header { recipe, ..saved };
        Self::start(header, folder, device, None, Some(&tensors))
    }

    fn start(
        header: Header,
        folder: &Path,
        device: Device,
        weights: Option<&HashMap<String, Tensor>>,
        state: Option<&HashMap<String, Tensor>>,
    ) -> Result<Self> {
        let recipe = &header.recipe;
        let parameters = Parameters::new(recipe.crops.seed);
        let network = Network::new(
            &recipe.network,
            &MelConfig::default(),
            true,
            &parameters.builder(&device),
        )?;
        if let Some(weights) = weights {
            parameters.set(weights)?;
        }
        let config = RAdamConfig {
            betas: recipe.optimiser.betas.into(),
            clip_norm: recipe.optimiser.clip_norm,
            average_decay: Some(recipe.optimiser.average_decay),
        };
        let mut optimiser = RAdam::new(&parameters, config)?;
        if let Some(state) = state {
            optimiser.restore(state, header.step)?;
        }
        let adversary = Adversary::new(recipe, &device, state)?;
        let metrics = open_metrics(&folder.join("metrics.jsonl"), header.step)?;
        Ok(Self {
            folder: folder.to_owned(),
            header,
            device,
            parameters,
            network,
            optimiser,
            adversary,
            metrics,
            pace: Pace::default(),
        })
    }

    /// One step; returns a line on how it went.
    fn step(&mut self, views: &Views) -> Result<String> {
        let recipe = &self.header.recipe;
        let step = self.header.step;
        let noise_seed =
            recipe.crops.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.header.total_steps();
        let limited_frames = recipe.look_ahead_frames(self.header.total_steps());
        let limited = limited_frames
            .map(|frames| self.network.with_look_ahead(frames))
            .transpose()?;
        let frozen = (recipe.loss.cycle > 0.0)
            .then(|| self.frozen_network(limited_frames))
            .transpose()?;
        let networks = Networks {
            trained: limited.as_ref().unwrap_or(&self.network),
            frozen: frozen.as_ref(),
        };
        let loss = loss::step_loss(&networks, views, &recipe.loss, noise_seed)?;
        let learning_rate = recipe.learning_rate(step);
        let mut adversary = self.adversary.as_mut().filter(|a| a.takes_part(step));
        let trial = match &mut adversary {
            Some(adversary) => Some(adversary.judge(&views.target, &loss.decoded)?),
            None => None,
        };
        let gradients = match &trial {
            Some(trial) => (&loss.total + &trial.loss)?.backward()?,
            None => loss.total.backward()?,
        };
        let parts = loss.figures()?;
        let norm = self.optimiser.step(&gradients, learning_rate)?;
        let adversarial = match (adversary, &trial) {
            (Some(adversary), Some(trial)) => Some(adversary.step(trial, learning_rate)?),
            _ => None,
        };
        self.header.step = self.optimiser.steps();
        if self.header.step.is_multiple_of(METRICS_STEPS) {
            let mut line = json!({
                "step": self.header.step, "train": parts, "gradient_norm": norm, "learning_rate": learning_rate,
            });
            if let Some(figures) = adversarial {
                line["adversarial"] = json!(figures);
            }
            self.log(line)?;
        }
        Ok(format!(
            "step {} mel {:.3} kl {:.3} {:.3} cycle {:.3} {:.3}",
            self.header.step,
            parts.reconstruction,
            parts.kl_harmony,
            parts.kl_rhythm,
            parts.cycle_harmony,
            parts.cycle_rhythm
        ))
    }

    /// The network as it stands, for gradients to pass through but not to reach.
    fn frozen_network(&self, look_ahead_frames: Option<usize>) -> Result<Network> {
        let vars = self.parameters.vars().into_iter();
        let weights = vars
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect();
        let network = Network::new(
            &self.header.recipe.network,
            &MelConfig::default(),
            true,
            &VarBuilder::from_tensors(weights, DType::F32, &self.device),
        )?;
        Ok(match look_ahead_frames {
            Some(frames) => network.with_look_ahead(frames)?,
            None => network,
        })
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
        let limits = self.header.recipe.look_ahead.iter();
        let limited = limits
            .flat_map(|limits| &limits.frames)
            .map(|&frames| {
                let network = network.with_look_ahead(frames)?;
                Ok((frames, loss::validate(&network, batches)?.mel_l1))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        let pace = mem::take(&mut self.pace);
        self.log(json!({
            "step": self.header.step, "validation": v, "mel_l1_by_look_ahead_frames": limited,
            "train_seconds": self.header.train_seconds, "crop_wait_share": pace.wait_share(),
        }))?;
        Ok(format!(
            "step {}: mel L1 {:.3}{} (no harmony {:.3}), harmony drift rotated {:.2} / not {:.2}, rhythm drift {:.2}, \
             KL {:.3} / {:.3}",
            self.header.step,
            v.mel_l1,
            limited
                .iter()
                .map(|(frames, mel_l1)| format!(", {mel_l1:.3} with {frames} ahead"))
                .collect::<String>(),
            v.mel_l1_without_harmony,
            v.harmony_drift_rotated,
            v.harmony_drift,
            v.rhythm_drift,
            v.kl_harmony,
            v.kl_rhythm
        ))
    }

    /// A picture and sounds of the averaged weights.
    fn preview(&self, preview: &Preview) -> Result<()> {
        let averages = self.optimiser.averages();
        let bytes = export::model_bytes(&self.header, &averages, export::card(&self.header))?;
        let model = Arc::new(Model::from_bytes(&bytes)?);
        preview.write(&self.folder, self.header.step, model)
    }

    fn save(&self) -> Result<()> {
        let mut state = self.optimiser.state()?;
        if let Some(adversary) = &self.adversary {
            state.extend(adversary.state()?);
        }
        checkpoint::save(&self.folder, &self.header, &state)?;
        curves::draw(&self.folder)
    }

    fn log(&mut self, line: serde_json::Value) -> Result<()> {
        writeln!(self.metrics, "{line}").context("cannot write metrics.jsonl")
    }
}

/// Opens the run's figures for appending, without those that a killed call wrote after `step`, the last checkpoint.
fn open_metrics(path: &Path, step: u64) -> Result<File> {
    let kept = match fs::read_to_string(path) {
        Ok(text) => text
            .lines()
            .filter(|line| {
                serde_json::from_str(line)
                    .is_ok_and(|figures: serde_json::Value| figures["step"].as_u64() <= Some(step))
            })
            .flat_map(|line| [line, "\n"])
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    whole_file::write(path, kept.as_bytes())?;
    OpenOptions::new()
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio_file::{self, WavFormat};
    use crate::test_folder::TestFolder;
    use model_runtime::AudioClip;

    const RECIPE: &str = r#"
        name = "tiny"
        [network]
        kind = "pitch-aligned"
        harmony_channels = 3
        harmony_latents = 1
        pool_frames = 4
        rhythm_channels = 2
        rhythm_latents = 2
        rhythm_planes = 2
        decoder_channels = 3
        mel_mean = -4.5
        mel_deviation = 2.2
        [crops]
        seed = 1
        batch = 2
        frames = 16
        max_shift_semitones = 3
        unshifted_share = 0.1
        two_views = true
        gain_nepers = 0.5
        tuning_cents = 30
        equaliser_db = 6
        drums_share = 0.5
        [look_ahead]
        share = 0.5
        frames = [3, 8]
        [loss]
        reconstruction = "l1"
        kl_harmony = 0.01
        kl_rhythm = 0.02
        cycle = 0.1
        [optimiser]
        learning_rate = 1e-2
        half_life_steps = 100
        learning_rate_floor = 1e-3
        betas = [0.9, 0.99]
        clip_norm = 5.0
        average_decay = 0.99
        checkpoint_steps = 5
        validation_steps = 10
    "#;

    /// A discriminator that comes in between the checkpoints, for crops that are long enough for it.
    const ADVERSARIAL: &str = r#"
        [adversarial]
        weight = 0.1
        feature_matching = 1.0
        start_step = 3
        channels = 1
        learning_rate = 1e-2
    "#;

    fn task(folder: &TestFolder, run: &str, steps: u64, resume: bool) -> Train {
        Train {
            recipe: folder.path().join("recipe.toml"),
            data: vec![folder.path().join("music")],
            drums: vec![folder.path().join("music")],
            run: folder.path().join(run),
            steps: Some(steps),
            minutes: None,
            resume,
            init: None,
            device: DeviceName::Cpu,
        }
    }

    fn prepare(name: &str) -> TestFolder {
        let folder = TestFolder::new(name);
        fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
        fs::create_dir(folder.path().join("music")).unwrap();
        for (i, hz) in [220.0, 330.0, 440.0].into_iter().enumerate() {
            let samples = (0..44_100)
                .map(|n| 0.3 * (std::f64::consts::TAU * hz * f64::from(n) / 22_050.0).sin() as f32)
                .collect();
            let clip = AudioClip {
                sample_rate_hz: 22_050,
                channels: vec![samples],
            };
            let path = folder.path().join(format!("music/{i}.wav"));
            audio_file::write_wav(&path, &clip, WavFormat::Pcm16).unwrap();
        }
        folder
    }

    #[test]
    fn a_resumed_run_ends_where_an_unbroken_one_does() {
        let folder = prepare("resume");
        let recipe = RECIPE.replace("frames = 16", "frames = 64") + ADVERSARIAL;
        fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
        task(&folder, "unbroken", 20, false).run().unwrap();
        task(&folder, "broken", 7, false).run().unwrap();
        task(&folder, "broken", 20, true).run().unwrap();
        let load = |run: &str| checkpoint::load(&folder.path().join(run)).unwrap();
        let ((unbroken, expected), (broken, tensors)) = (load("unbroken"), load("broken"));
        assert_eq!((unbroken.step, broken.step), (20, 20));
        assert_eq!(tensors.len(), expected.len());
        assert_eq!(
            tensors["discriminator/steps"].to_scalar::<i64>().unwrap(),
            17
        );
        for (name, tensor) in tensors {
            let values = |t: &Tensor| {
                let all = t.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
                all.to_vec1::<f64>().unwrap()
            };
            assert_eq!(values(&tensor), values(&expected[&name]), "{name}");
        }
        let figures =
            |run: &str| fs::read_to_string(folder.path().join(run).join("metrics.jsonl")).unwrap();
        let train = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|line| line.contains("\"train\""))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(train(&figures("unbroken")), train(&figures("broken")));
        assert_eq!(train(&figures("unbroken")).len(), 2);
        assert!(figures("unbroken").contains("\"real_score\""));
    }

    /// Needs a GPU, as does the build that this is in.
    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_trains_as_the_cpu_does() {
        let folder = prepare("gpu");
        let recipe = RECIPE.replace("frames = 16", "frames = 64") + ADVERSARIAL;
        fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
        let figures =
            [("cpu", DeviceName::Cpu), ("gpu", DeviceName::Cuda(0))].map(|(run, device)| {
                let task = Train {
                    device,
                    ..task(&folder, run, 10, false)
                };
                task.run().unwrap();
                let path = folder.path().join(run).join("metrics.jsonl");
                let text = fs::read_to_string(path).unwrap();
                let line = text.lines().next().unwrap();
                serde_json::from_str::<serde_json::Value>(line).unwrap()
            });
        for figure in [
            "/train/reconstruction",
            "/train/kl_harmony",
            "/train/kl_rhythm",
            "/adversarial/feature_matching",
            "/adversarial/discriminator",
        ] {
            let [cpu, gpu] = figures
                .each_ref()
                .map(|line| line.pointer(figure).unwrap().as_f64().unwrap());
            assert!((cpu / gpu - 1.0).abs() < 0.02, "{figure}: {cpu}, {gpu}");
        }
    }

    #[test]
    fn a_discriminator_can_join_and_leave_a_run() {
        let folder = prepare("join");
        let path = folder.path().join("recipe.toml");
        let without = RECIPE.replace("frames = 16", "frames = 64");
        let discriminator = |channels: &str| {
            let adversarial = ADVERSARIAL.replace("channels = 1", channels);
            fs::write(&path, without.clone() + &adversarial).unwrap();
        };
        let saved = || {
            let (_, tensors) = checkpoint::load(&folder.path().join("run")).unwrap();
            tensors.keys().any(|name| name.starts_with("discriminator"))
        };
        fs::write(&path, &without).unwrap();
        task(&folder, "run", 4, false).run().unwrap();
        assert!(!saved());
        discriminator("channels = 1");
        task(&folder, "run", 5, true).run().unwrap();
        assert!(saved());
        discriminator("channels = 2");
        let error = task(&folder, "run", 6, true).run().unwrap_err();
        assert!(error.to_string().contains("discriminator"), "{error}");
        fs::write(&path, &without).unwrap();
        task(&folder, "run", 6, true).run().unwrap();
        assert!(!saved());
    }

    #[test]
    fn crops_too_short_for_the_discriminator_are_refused() {
        let folder = prepare("short");
        let recipe = RECIPE.to_owned() + ADVERSARIAL;
        fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
        let error = task(&folder, "run", 1, false).run().unwrap_err();
        assert!(error.to_string().contains("at least 63 frames"), "{error}");
    }

    #[test]
    fn training_lowers_the_reconstruction_loss() {
        let folder = prepare("lowers");
        task(&folder, "run", 60, false).run().unwrap();
        let text = fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
        let losses: Vec<f64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter_map(|figures| figures["train"]["reconstruction"].as_f64())
            .collect();
        assert!(losses.last().unwrap() < &(0.7 * losses[0]), "{losses:?}");
    }

    #[test]
    fn a_run_is_neither_overwritten_nor_made_up() {
        let folder = prepare("guard");
        let error = task(&folder, "run", 1, true).run().unwrap_err();
        assert!(error.to_string().contains("no checkpoint"), "{error}");
        task(&folder, "run", 1, false).run().unwrap();
        let error = task(&folder, "run", 2, false).run().unwrap_err();
        assert!(error.to_string().contains("--resume"), "{error}");
    }

    #[test]
    fn figures_after_the_checkpoint_are_dropped_on_resume() {
        let folder = TestFolder::new("figures");
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":10}\n{\"step\":20}\n{\"step\":30}\n{\"ste").unwrap();
        drop(open_metrics(&path, 20).unwrap());
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"step\":10}\n{\"step\":20}\n"
        );
    }

    #[test]
    fn the_recipes_are_valid() {
        for entry in fs::read_dir(crate::workspace::root().join("xtask/recipes")).unwrap() {
            Recipe::load(&entry.unwrap().path()).unwrap();
        }
    }
}
