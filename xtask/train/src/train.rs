//! `cargo xtask train`: starts or resumes a training run.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor, Var};
use clap::Args;
use graft_material::workspace;
use model_runtime::{Architecture, Model};
use vocoder::MelConfig;

use crate::assemble;
use crate::checkpoint::{self, CheckpointHeader};
use crate::dataset::{Dataset, Partition, Split};
use crate::device::DeviceName;
use crate::lord::material::LordMaterial;
use crate::notes::NotesMaterial;
use crate::parameters::Parameters;
use crate::recipe::Recipe;
use crate::recipe::network::NetworkRecipe;
use crate::recipe::notes::NotesRecipe;
use crate::run::{Run, Until};
use crate::trainee::lord::LordTrainee;
use crate::trainee::luo::LuoTrainee;
use crate::trainee::magnitudes::MagnitudesTrainee;
use crate::trainee::network::{NetworkMaterial, NetworkTrainee};
use crate::trainee::tanaka::TanakaTrainee;
use crate::trainee::voice::VoiceTrainee;
use crate::voice::reconstructor::Reconstructor;
use crate::voice::segments::VoiceMaterial;
use crate::weights::Weights;

/// Train a model on your own music, or a recipe on notes.
///
/// Decodes audio once and caches it in target/cache. Writes the checkpoint, the validation split, metrics.jsonl,
/// losses.png, and previews (pictures and sounds) to the run folder. Export the result with `cargo xtask export`.
#[derive(Args)]
pub struct Train {
    /// Training recipe, e.g. xtask/recipes/graft.toml.
    recipe: PathBuf,
    /// Folders of music, searched recursively, in any format that Graft reads. Recipes with a table [midi] also use MIDI
    /// files, as files or in .tar.gz archives. Recipes with a table [notes] train on notes of the system's sound font; for
    /// these, folders of recorded notes, each with a CSV file (file, instrument, midi_pitch), for figures only. Recipes with
    /// a table [phrases] need none, unless they have a music_share, and those with a table [clips] use none.
    #[arg(long, num_args = 1.., value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Folders of drum loops to mix into the music, for recipes with drums_share.
    #[arg(long, num_args = 1.., value_name = "DIR")]
    drums: Vec<PathBuf>,
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Stop when the run has this many steps in total.
    #[arg(long, required_unless_present = "minutes", conflicts_with = "minutes")]
    steps: Option<u64>,
    /// Stop this call after this many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Resume from the run's checkpoint.
    #[arg(long)]
    resume: bool,
    /// Start from the weights of an exported model instead of random weights.
    #[arg(long, value_name = "MODEL.safetensors", conflicts_with = "resume")]
    init: Option<PathBuf>,
    /// For a voice or magnitude network: train on mels decoded by this model's network instead of the music's own
    /// mels. The templates use the magnitudes that this model predicts.
    #[arg(long, value_name = "MODEL.safetensors")]
    from: Option<PathBuf>,
    /// Device: cpu, cuda or cuda:N. cuda builds the trainer with CUDA and needs the CUDA toolkit.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceName,
}

impl Train {
    /// Trains until the given end. Saves a checkpoint at intervals and at the end.
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
            "{folder} already contains a run: continue it with --resume, or choose another folder"
        );
        ensure!(
            exists || !self.resume,
            "cannot resume: {folder} contains no checkpoint"
        );
        let (header, weights) = match (&self.init, self.resume) {
            (_, true) => resume(recipe, &self.run)?,
            (Some(model), false) => from_model(recipe, model)?,
            (None, false) => (CheckpointHeader::new(recipe, None), Weights::Random),
        };
        let reconstructor = self.reconstructor(&header.recipe)?;
        let device = self.device.open()?;
        fs::create_dir_all(&self.run).with_context(|| format!("cannot create {folder}"))?;

        let seed = header.recipe.seed();
        match header.recipe.clone() {
            Recipe::Network(recipe) => {
                let parts = match recipe.needs_music() {
                    true => self.music(&recipe.mel, recipe.crops.frames, seed)?,
                    false => Partition::empty(recipe.mel.sample_rate_hz),
                };
                let material = NetworkMaterial {
                    parts,
                    data: &self.data,
                    drums: &self.drums,
                };
                let trainee = NetworkTrainee::new(recipe, &header, &weights, material, device)?;
                Run::new(&self.run, header, trainee)?.train(until)
            }
            Recipe::Voice(recipe) => {
                let crop_frames = VoiceTrainee::crop_frames(&recipe, reconstructor.clone());
                let material = VoiceMaterial {
                    parts: self.music(&recipe.mel, crop_frames, seed)?,
                    reconstructor,
                };
                let trainee = VoiceTrainee::new(recipe, &header, &weights, material, device)?;
                Run::new(&self.run, header, trainee)?.train(until)
            }
            Recipe::Magnitudes(recipe) => {
                let crop_frames = MagnitudesTrainee::crop_frames(&recipe, reconstructor.clone());
                let material = VoiceMaterial {
                    parts: self.music(&recipe.mel, crop_frames, seed)?,
                    reconstructor,
                };
                let trainee = MagnitudesTrainee::new(recipe, &header, &weights, material, device)?;
                Run::new(&self.run, header, trainee)?.train(until)
            }
            Recipe::Notes(recipe) => {
                let (notes, rate_hz) = (recipe.notes(), recipe.sample_rate_hz());
                let material = NotesMaterial::load(notes, &self.data, rate_hz)?;
                match recipe {
                    NotesRecipe::Luo(recipe) => {
                        let trainee = LuoTrainee::new(recipe, &header, &weights, material, device)?;
                        Run::new(&self.run, header, trainee)?.train(until)
                    }
                    NotesRecipe::Tanaka(recipe) => {
                        let parts = material.parts;
                        let trainee = TanakaTrainee::new(recipe, &header, &weights, parts, device)?;
                        Run::new(&self.run, header, trainee)?.train(until)
                    }
                }
            }
            Recipe::Lord(recipe) => {
                let (clips, frames) = (&recipe.clips, recipe.lord.frames);
                let cache = workspace::cache("phrases");
                let material = LordMaterial::load(clips, &recipe.mel, frames, &cache)?;
                let trainee = LordTrainee::new(*recipe, &header, &weights, material, device)?;
                Run::new(&self.run, header, trainee)?.train(until)
            }
        }
    }

    /// The music, in the parts of the run's split. Crops of at most `crop_frames` frames are drawn from a track.
    fn music(&self, mel: &MelConfig, crop_frames: usize, seed: u64) -> Result<Partition> {
        ensure!(
            !self.data.is_empty(),
            "expected folders of music (--data), found none"
        );
        let cache = workspace::cache("audio");
        let dataset = Dataset::load(&self.data, &cache, mel.sample_rate_hz)?;
        let crop_samples = crop_frames * mel.hop_length;
        let split = Split::load_or_draw(&self.run, &dataset, seed, crop_samples)?;
        if let Some(cut) = &split.recording {
            println!("{cut}");
        }
        let parts = dataset.partition(&split).with_context(|| {
            let folder = self.run.display();
            format!("the data does not match the split of {folder}: name the folders that the run began with")
        })?;
        Ok(parts.with_short_files_joined(crop_samples))
    }

    /// The model that decodes mels (`--from`), if there is one.
    ///
    /// # Errors
    ///
    /// Returns an error if the recipe does not go with the options.
    fn reconstructor(&self, recipe: &Recipe) -> Result<Option<Reconstructor>> {
        let mel = match recipe {
            Recipe::Voice(recipe) => Some(&recipe.mel),
            Recipe::Magnitudes(recipe) => Some(&recipe.mel),
            Recipe::Network(_) | Recipe::Notes(_) | Recipe::Lord(_) => None,
        };
        ensure!(
            self.drums.is_empty() || matches!(recipe, Recipe::Network(_)),
            "--drums works only with recipes for a network"
        );
        let load = |path: &Path| {
            let mel =
                mel.context("--from works only with recipes for a voice or a magnitude network")?;
            Reconstructor::load(path, mel)
        };
        self.from.as_deref().map(load).transpose()
    }
}

/// Starts a run from the weights of a model file.
fn from_model(recipe: Recipe, path: &Path) -> Result<(CheckpointHeader, Weights)> {
    let model = Model::load(path)?;
    let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
    let (held, prefix, mel) = match &recipe {
        Recipe::Network(recipe) => {
            let mut held = &model.header().architecture;
            if *held != recipe.network && has_weights_for(&tensors, recipe)? {
                let changes = changes(held, &recipe.network)?;
                println!("unlike {}, the recipe has {changes}", path.display());
                held = &recipe.network;
            }
            (Some(format!("{held:?}")), "network.", &recipe.mel)
        }
        Recipe::Voice(recipe) => {
            let generator = model.header().generator.as_ref();
            let held = generator.map(|config| format!("{config:?}"));
            (held, "generator.", &recipe.mel)
        }
        Recipe::Magnitudes(recipe) => {
            let magnitudes = model.header().magnitudes.as_ref();
            let held = magnitudes.map(|config| format!("{config:?}"));
            (held, "magnitudes.", &recipe.mel)
        }
        Recipe::Notes(_) | Recipe::Lord(_) => {
            bail!("--init works only with recipes for parts of a model file")
        }
    };
    ensure!(
        model.header().mel == *mel,
        "{} is for {:?}, the recipe for {mel:?}",
        path.display(),
        model.header().mel,
    );
    let part = prefix.trim_end_matches('.');
    let held = held.with_context(|| format!("{} contains no {part}", path.display()))?;
    ensure!(
        held == recipe.trained(),
        "{} does not match the recipe: expected {}, found {held}",
        path.display(),
        recipe.trained()
    );
    let weights = tensors
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor)))
        .collect();
    let origin = assemble::origin(&model, &recipe);
    Ok((
        CheckpointHeader::new(recipe, Some(origin)),
        Weights::Model(weights),
    ))
}

/// Whether a model file's network has the tensors that a recipe's network needs, and no others.
fn has_weights_for(tensors: &HashMap<String, Tensor>, recipe: &NetworkRecipe) -> Result<bool> {
    let parameters = Parameters::new(recipe.crops.seed);
    let builder = parameters.builder(&Device::Cpu).pp("network");
    recipe.network.build(&recipe.mel, false, &builder)?;
    let needed = parameters.vars();
    let found = tensors.keys().filter(|name| name.starts_with("network."));
    let fits =
        |(name, var): (&String, &Var)| tensors.get(name).map(Tensor::shape) == Some(var.shape());
    Ok(needed.len() == found.count() && needed.iter().all(fits))
}

/// The settings of `to` that differ from those of `from`, as text.
fn changes(from: &Architecture, to: &Architecture) -> Result<String> {
    let (from, to) = (serde_json::to_value(from)?, serde_json::to_value(to)?);
    let settings = to.as_object().into_iter().flatten();
    let changes = settings.filter(|(name, value)| from.get(name) != Some(value));
    let changes = changes.map(|(name, value)| format!("{name} {value} instead of {}", from[name]));
    Ok(changes.collect::<Vec<_>>().join(", "))
}

/// Resumes a run from its newest checkpoint. The recipe may have changed, except for the sizes of the trained part.
fn resume(recipe: Recipe, folder: &Path) -> Result<(CheckpointHeader, Weights)> {
    let (saved, tensors) = checkpoint::load(folder)?;
    ensure!(
        saved.recipe.trained() == recipe.trained(),
        "the run in {} does not match the recipe: expected {}, found {}",
        folder.display(),
        recipe.trained(),
        saved.recipe.trained()
    );
    Ok((
        CheckpointHeader { recipe, ..saved },
        Weights::Checkpoint(tensors),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Export;
    use candle_core::DType;
    use graft_material::audio_writer::{self, WavFormat};
    use graft_material::testing::TestFolder;
    use model_runtime::AudioClip;
    use model_runtime::model_file::{Card, Figure};

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
            from: None,
            device: DeviceName::Cpu,
        }
    }

    fn prepare(name: &str) -> TestFolder {
        prepare_seconds(name, 2)
    }

    fn prepare_seconds(name: &str, seconds: i32) -> TestFolder {
        let folder = TestFolder::new(name);
        fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
        fs::create_dir(folder.path().join("music")).unwrap();
        for (i, hz) in [220.0, 330.0, 440.0].into_iter().enumerate() {
            let samples = (0..seconds * 22_050)
                .map(|n| 0.3 * (std::f64::consts::TAU * hz * f64::from(n) / 22_050.0).sin() as f32)
                .collect();
            let clip = AudioClip {
                sample_rate_hz: 22_050,
                channels: vec![samples],
            };
            let path = folder.path().join(format!("music/{i}.wav"));
            audio_writer::write_wav(&path, &clip, WavFormat::Pcm16).unwrap();
        }
        folder
    }

    #[test]
    fn a_recipe_with_a_mel_of_its_own_makes_a_model_for_it() {
        let folder = prepare("mel");
        let recipe = RECIPE.to_owned()
            + r#"
            [mel]
            sample_rate_hz = 16000
            n_fft = 1024
            hop_length = 256
            n_mels = 64
            f_min_hz = 50
            f_max_hz = 8000
        "#;
        fs::write(folder.path().join("recipe.toml"), &recipe).unwrap();
        task(&folder, "run", 2, false).run().unwrap();
        let output = folder.path().join("model.safetensors");
        let export = [
            "export".into(),
            folder.path().join("run").into_os_string(),
            "-o".into(),
            output.clone().into_os_string(),
        ];
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            export: crate::export::Export,
        }
        let command: Command = clap::Parser::parse_from(export);
        command.export.run().unwrap();
        let model = model_runtime::Model::load(&output).unwrap();
        assert_eq!(model.header().mel.sample_rate_hz, 16_000);
        // A voice for it has to work on the same mel.
        let standard = MelConfig::default();
        let error = Reconstructor::load(&output, &standard).err().unwrap();
        assert!(error.to_string().contains("16000"), "{error}");
    }

    #[test]
    fn a_run_starts_from_a_model_with_the_weights_that_its_recipe_needs() {
        let folder = prepare("init");
        task(&folder, "run", 2, false).run().unwrap();
        let model = folder.path().join("model.safetensors");
        let run = folder.path().join("run").into_os_string();
        let arguments = vec!["export".into(), run, "-o".into(), model.clone().into()];
        Export::parse_from_arguments(arguments).run().unwrap();
        let from_model = |run: &str, from: &str, to: &str| {
            fs::write(folder.path().join("recipe.toml"), RECIPE.replace(from, to)).unwrap();
            let train = Train {
                init: Some(model.clone()),
                ..task(&folder, run, 1, false)
            };
            train.run()
        };
        // Settings that no weight depends on.
        for (run, from, to) in [
            ("same", "", ""),
            ("pool", "pool_frames = 4", "pool_frames = 2"),
            ("mean", "mel_mean = -4.5", "mel_mean = -5.5"),
        ] {
            from_model(run, from, to).unwrap();
            let (header, _) = checkpoint::load(&folder.path().join(run)).unwrap();
            assert_eq!(header.total_steps(), 3);
        }
        let error = from_model("wide", "rhythm_latents = 2", "rhythm_latents = 3").unwrap_err();
        for part in [
            "model.safetensors",
            "rhythm_latents: 3",
            "rhythm_latents: 2",
        ] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn changed_settings_are_named() {
        let network = |recipe: &str| match Recipe::parse(recipe).unwrap() {
            Recipe::Network(recipe) => recipe.network,
            other => panic!("expected a network, found {other:?}"),
        };
        let changed = RECIPE.replace("pool_frames = 4", "pool_frames = 2");
        assert_eq!(
            changes(&network(RECIPE), &network(&changed)).unwrap(),
            "pool_frames 2 instead of 4"
        );
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
        // At steps 10 and 20, the last one not twice.
        let validations = figures("unbroken").matches("\"validation\"").count();
        assert_eq!(validations, 2);
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
        let error = format!("{error:#}");
        assert!(error.contains("at least 63 frames"), "{error}");
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
    fn one_recording_trains_and_resumes_with_the_same_parts() {
        let folder = prepare_seconds("recording", 5);
        for other in ["music/1.wav", "music/2.wav"] {
            fs::remove_file(folder.path().join(other)).unwrap();
        }
        task(&folder, "run", 2, false).run().unwrap();
        let split = || Split::load(&folder.path().join("run")).unwrap();
        let cut = split().recording.unwrap();
        assert!(cut.training_until_seconds < cut.validation_from_seconds);
        task(&folder, "run", 3, true).run().unwrap();
        assert_eq!(split().recording, Some(cut));
    }

    #[test]
    fn files_shorter_than_a_crop_train_together() {
        // 2 s each; a crop takes 3 s.
        let folder = prepare("short-files");
        let recipe = RECIPE.replace("frames = 16", "frames = 128");
        fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
        let error = task(&folder, "run", 1, false).run().unwrap_err();
        assert!(error.to_string().contains("6.0 s in 3 files"), "{error}");
        let music = folder.path().join("music");
        for (from, to) in [("0.wav", "3.wav"), ("1.wav", "4.wav"), ("2.wav", "5.wav")] {
            fs::copy(music.join(from), music.join(to)).unwrap();
        }
        task(&folder, "run", 1, false).run().unwrap();
        let split = Split::load(&folder.path().join("run")).unwrap();
        assert_eq!(split.validation_artists.len(), 2);
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

    const VOICE: &str = r#"
        name = "tiny"
        [generator]
        n_mels = 128
        upsample_rates = [8, 8, 4, 2]
        upsample_kernel_sizes = [16, 16, 8, 4]
        upsample_initial_channel = 16
        resblock = "2"
        resblock_kernel_sizes = [3]
        resblock_dilation_sizes = [[1]]
        causal = true
        template = true
        [segments]
        seed = 1
        batch = 2
        frames = 8
        gain_nepers = 0.5
        [loss]
        mel = 45
        stft = 1
        [adversarial]
        weight = 1
        feature_matching = 2
        start_step = 3
        learning_rate = 1e-3
        [adversarial.discriminators]
        periods = [2, 3]
        period_width = 0.03
        scales = 1
        scale_width = 0.125
        resolutions = [512]
        resolution_width = 0.125
        [optimiser]
        learning_rate = 2e-3
        half_life_steps = 100
        learning_rate_floor = 1e-4
        betas = [0.8, 0.99]
        weight_decay = 0.01
        clip_norm = 1e9
        average_decay = 0.9
        checkpoint_steps = 5
        validation_steps = 10
    "#;

    #[test]
    fn a_voice_trains_resumes_and_joins_a_network() {
        let folder = prepare("voice");
        fs::write(folder.path().join("recipe.toml"), VOICE).unwrap();
        let task = |run: &str, steps: u64, resume: bool| Train {
            drums: Vec::new(),
            ..task(&folder, run, steps, resume)
        };
        task("unbroken", 7, false).run().unwrap();
        task("broken", 4, false).run().unwrap();
        task("broken", 7, true).run().unwrap();
        let load = |run: &str| checkpoint::load(&folder.path().join(run)).unwrap();
        let ((_, expected), (header, tensors)) = (load("unbroken"), load("broken"));
        assert_eq!(header.step, 7);
        assert_eq!(tensors.len(), expected.len());
        assert!(tensors.contains_key("discriminator/left/2.3"));
        for (name, tensor) in tensors {
            let values = |t: &Tensor| {
                let all = t.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
                all.to_vec1::<f64>().unwrap()
            };
            assert_eq!(values(&tensor), values(&expected[&name]), "{name}");
        }
        let run = folder.path().join("unbroken");
        assert!(run.join("losses.png").exists());
        assert!(run.join("previews/step-000007-main.wav").exists());

        // A network's run takes no voice, and the other way round.
        let error = Train {
            drums: vec![folder.path().join("music")],
            ..task("other", 1, false)
        };
        let error = error.run().unwrap_err();
        assert!(error.to_string().contains("--drums"), "{error}");

        // Into a model file, and on from there.
        let base = workspace::root().join("assets/graft.safetensors");
        let model = folder.path().join("voice.safetensors");
        let export = |network: Option<&Path>| {
            let mut arguments = vec!["export".into(), run.clone().into_os_string()];
            arguments.extend(["-o".into(), model.clone().into_os_string()]);
            if let Some(network) = network {
                arguments.extend(["--into".into(), network.as_os_str().to_owned()]);
            }
            Export::parse_from_arguments(arguments).run()
        };
        let error = export(None).unwrap_err();
        assert!(error.to_string().contains("--into"), "{error}");
        export(Some(&base)).unwrap();
        let (built_in, loaded) = (Model::load(&base).unwrap(), Model::load(&model).unwrap());
        assert!(loaded.generator().is_ok());
        let (before, after) = (&built_in.header().card, &loaded.header().card);
        assert_eq!((before.steps, &before.name), (after.steps, &after.name));
        let steps = after
            .figures
            .iter()
            .find(|figure| figure.name == "voice: training steps");
        assert_eq!(steps.unwrap().value, 7.0);
        let further = Train {
            init: Some(model.clone()),
            ..task("further", 1, false)
        };
        further.run().unwrap();
        let (header, _) = load("further");
        assert_eq!(header.total_steps(), 8);

        let mut header = built_in.header().clone();
        let mut tensors = candle_core::safetensors::load(&base, &Device::Cpu).unwrap();
        (header.generator, header.magnitudes) = (None, None);
        tensors.retain(|name, _| name.starts_with("network."));
        let bytes = model_runtime::model_file::to_bytes(&header, &tensors).unwrap();
        let bare = folder.path().join("bare.safetensors");
        fs::write(&bare, bytes).unwrap();
        let without = Train {
            init: Some(bare),
            ..task("none", 1, false)
        };
        let error = without.run().unwrap_err();
        assert!(error.to_string().contains("no generator"), "{error}");
    }

    const MAGNITUDES: &str = r#"
        name = "tiny"
        [magnitudes]
        channels = 8
        [segments]
        seed = 1
        batch = 2
        frames = 8
        gain_nepers = 0.5
        [optimiser]
        learning_rate = 1e-2
        half_life_steps = 100
        learning_rate_floor = 1e-4
        betas = [0.8, 0.99]
        clip_norm = 1
        average_decay = 0.9
        checkpoint_steps = 10
        validation_steps = 30
    "#;

    #[test]
    fn magnitudes_train_resume_and_join_a_model_beside_its_voice() {
        let folder = prepare_seconds("magnitudes", 5);
        fs::write(folder.path().join("recipe.toml"), MAGNITUDES).unwrap();
        let task = |run: &str, steps: u64, resume: bool| Train {
            drums: Vec::new(),
            ..task(&folder, run, steps, resume)
        };
        task("unbroken", 30, false).run().unwrap();
        task("broken", 13, false).run().unwrap();
        task("broken", 30, true).run().unwrap();
        let figures = |run: &str| -> Vec<serde_json::Value> {
            let path = folder.path().join(run).join("metrics.jsonl");
            let text = fs::read_to_string(path).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.collect()
        };
        let losses = |run: &str| -> Vec<f64> {
            let figures = figures(run);
            let losses = figures.iter().map(|line| &line["train"]["magnitude_l1"]);
            losses.filter_map(serde_json::Value::as_f64).collect()
        };
        let learnt = losses("unbroken");
        assert_eq!(learnt, losses("broken"));
        assert!(
            learnt.len() == 3 && learnt[2] < 0.8 * learnt[0],
            "{learnt:?}"
        );

        let base = workspace::root().join("assets/graft.safetensors");
        let model = folder.path().join("model.safetensors");
        let export = |run: &str, network: &Path| {
            let run = folder.path().join(run).into_os_string();
            let mut arguments = vec!["export".into(), run, "-o".into(), model.clone().into()];
            arguments.extend(["--into".into(), network.as_os_str().to_owned()]);
            Export::parse_from_arguments(arguments).run().unwrap();
            Model::load(&model).unwrap()
        };
        assert!(export("unbroken", &base).magnitudes().is_some());
        // A voice hears templates of what the model guesses, and takes its place beside it.
        fs::write(folder.path().join("recipe.toml"), VOICE).unwrap();
        let voice = Train {
            from: Some(model.clone()),
            ..task("voice", 1, false)
        };
        voice.run().unwrap();
        let whole = export("voice", &model);
        assert!(whole.magnitudes().is_some() && whole.generator().is_ok());
        let names = whole
            .header()
            .card
            .figures
            .iter()
            .map(|figure| &figure.name);
        let names: Vec<&String> = names.filter(|name| name.contains("training")).collect();
        assert!(
            names
                .iter()
                .any(|name| *name == "magnitudes: training steps"),
            "{names:?}"
        );
        fs::write(folder.path().join("recipe.toml"), MAGNITUDES).unwrap();
        let further = Train {
            init: Some(model.clone()),
            from: Some(model.clone()),
            ..task("further", 1, false)
        };
        further.run().unwrap();
        let (header, _) = checkpoint::load(&folder.path().join("further")).unwrap();
        assert_eq!(header.total_steps(), 31);

        // A new network takes the place of the model's, and both other parts stay.
        fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
        self::task(&folder, "network", 1, false).run().unwrap();
        let renewed = export("network", &model);
        assert!(renewed.magnitudes().is_some() && renewed.generator().is_ok());
        let (old, new) = (&whole.header().card, &renewed.header().card);
        assert_eq!((new.name.as_str(), new.steps), ("tiny", 1));
        let of_parts = |card: &Card| -> Vec<Figure> {
            let figures = card.figures.iter();
            figures
                .filter(|figure| figure.name.contains(": training"))
                .cloned()
                .collect()
        };
        assert_eq!(of_parts(old), of_parts(new));
        assert_eq!(new.figures, of_parts(new), "figures of the old network");

        let other_mels = format!(
            "{RECIPE}\n[mel]\nsample_rate_hz = 22050\nn_fft = 2048\nhop_length = 512\nn_mels = 128\n\
                                  f_min_hz = 30.0\nf_max_hz = 11025.0"
        );
        fs::write(folder.path().join("recipe.toml"), other_mels).unwrap();
        self::task(&folder, "other", 1, false).run().unwrap();
        let run = folder.path().join("other").into_os_string();
        let output = folder.path().join("other.safetensors").into_os_string();
        let into = folder.path().join("model.safetensors").into_os_string();
        let arguments = [
            "export".into(),
            run,
            "-o".into(),
            output,
            "--into".into(),
            into,
        ];
        let error = Export::parse_from_arguments(arguments.into())
            .run()
            .unwrap_err();
        assert!(error.to_string().contains("f_min_hz: 30.0"), "{error}");
    }

    #[test]
    fn a_voice_learns_from_decoded_mels() {
        let folder = prepare_seconds("decoded", 5);
        fs::write(folder.path().join("recipe.toml"), VOICE).unwrap();
        let task = Train {
            drums: Vec::new(),
            from: Some(workspace::root().join("assets/graft.safetensors")),
            ..task(&folder, "run", 2, false)
        };
        task.run().unwrap();
        fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
        let error = Train {
            run: folder.path().join("network"),
            ..task
        };
        let error = error.run().unwrap_err();
        assert!(error.to_string().contains("--from"), "{error}");
    }

    #[test]
    fn the_recipes_are_valid() {
        for entry in fs::read_dir(graft_material::workspace::root().join("xtask/recipes")).unwrap()
        {
            Recipe::load(&entry.unwrap().path()).unwrap();
        }
    }
}
