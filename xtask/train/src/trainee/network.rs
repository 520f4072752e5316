//! Training of encoder and decoder.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use graft_material::workspace;
use model_runtime::{Architecture, FactorMap, Model, Network};
use serde_json::json;
use vocoder::MelConfig;
use vocoder::layers::fold_weight_norm;

use super::{Report, Trainee};
use crate::adversary::Adversary;
use crate::assemble;
use crate::batches::{BatchStream, MakeBatch};
use crate::checkpoint::CheckpointHeader;
use crate::dataset::{Partition, Track, load_loops};
use crate::discriminator::Discriminator;
use crate::loss::{self, Networks, Views};
use crate::midi::{self, Renderings};
use crate::optim::{Adam, AdamConfig};
use crate::parameters::Parameters;
use crate::phrases::sampler::{PhraseSampler, conversion_batches};
use crate::phrases::{self, Colour, Conversion, ConversionSettings};
use crate::pitch_guide::PitchGuide;
use crate::preview::Preview;
use crate::recipe::network::{NetworkRecipe, Start};
use crate::sampler::{Batch, CropSampler, CropSettings, Material};
use crate::weights::Weights;

/// Crops in the validation set.
const VALIDATION_CROPS: usize = 32;

/// Training data of a network.
pub struct NetworkMaterial<'a> {
    /// The music.
    pub parts: Partition,
    /// Folders that may contain MIDI files.
    pub data: &'a [PathBuf],
    /// Folders of drum loops.
    pub drums: &'a [PathBuf],
}

/// An encoder and decoder in training.
pub struct NetworkTrainee {
    recipe: NetworkRecipe,
    device: Device,
    parameters: Parameters,
    network: Arc<dyn Network>,
    optimiser: Adam,
    adversary: Option<Adversary<Discriminator>>,
    guide: Option<PitchGuide>,
    batches: BatchStream<Batch>,
    validation: Vec<Views>,
    /// Sets of conversions with their truth, by name; only for networks that train on phrases.
    conversions: Vec<(&'static str, Vec<Views>)>,
    preview: Preview,
}

/// The batches of a network, and what it is judged by.
struct Course {
    batches: BatchStream<Batch>,
    validation: Vec<Views>,
    conversions: Vec<(&'static str, Vec<Views>)>,
    preview: Preview,
}

impl NetworkTrainee {
    /// Creates the network of a recipe with random or given weights. The next step is the one after `header.step`
    /// steps.
    ///
    /// # Errors
    ///
    /// Returns an error if weights or training data do not match the recipe.
    pub fn new(
        recipe: NetworkRecipe,
        header: &CheckpointHeader,
        weights: &Weights,
        material: NetworkMaterial,
        device: Device,
    ) -> Result<Self> {
        let mel = recipe.mel.clone();
        let parameters = Parameters::new(recipe.crops.seed);
        let network = recipe
            .network
            .build(&mel, true, &parameters.builder(&device))?;
        match (weights, &recipe.start) {
            (Weights::Model(weights), _) => parameters.set(weights)?,
            (Weights::Random, Some(start)) => start_at_level(&parameters, start)?,
            _ => {}
        }
        let config = AdamConfig {
            rectified: true,
            ..recipe.optimiser.adam()
        };
        let mut optimiser = Adam::new(&parameters, config)?;
        if let Weights::Checkpoint(state) = weights {
            optimiser.restore(state, header.step)?;
        }
        let adversary = recipe.adversarial.as_ref().map(|settings| {
            Adversary::new(
                settings.config(&recipe.optimiser),
                config,
                recipe.crops.seed,
                &device,
                |builder| Discriminator::new(settings.channels, builder),
                weights.checkpoint(),
            )
        });
        let adversary = adversary.transpose()?;

        let guide = match (&recipe.loss.guide, &recipe.network) {
            (Some(_), Architecture::Hard(config)) => Some(PitchGuide::new(
                &mel,
                config.latents,
                config.positions(&mel),
                &device,
            )?),
            _ => None,
        };
        let first_batch = header.total_steps();
        let course = match recipe.phrases {
            Some(_) => Course::of_phrases(&recipe, material, first_batch, &device)?,
            None => Course::of_music(&recipe, material, first_batch, &device)?,
        };
        Ok(Self {
            batches: course.batches,
            validation: course.validation,
            conversions: course.conversions,
            preview: course.preview,
            recipe,
            device,
            parameters,
            network,
            optimiser,
            adversary,
            guide,
        })
    }

    /// The network with its current weights, detached: gradients pass through it but do not reach the weights.
    fn frozen_network(&self, look_ahead_frames: Option<usize>) -> Result<Arc<dyn Network>> {
        let vars = self.parameters.vars().into_iter();
        let weights = vars
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect();
        let builder = VarBuilder::from_tensors(weights, DType::F32, &self.device);
        let network = self
            .recipe
            .network
            .build(&self.recipe.mel, true, &builder)?;
        Ok(match look_ahead_frames {
            Some(frames) => network.with_look_ahead(frames)?,
            None => network,
        })
    }
}

impl Trainee for NetworkTrainee {
    type Batch = Batch;

    fn next_batch(&mut self) -> Result<Batch> {
        self.batches.next_batch()
    }

    fn step(&mut self, header: &CheckpointHeader, batch: Batch) -> Result<Report> {
        let recipe = &self.recipe;
        let views = Views::new(batch, &self.device)?;
        let step = header.step;
        let noise_seed =
            recipe.crops.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ header.total_steps();
        let limited_frames = recipe.look_ahead_frames(header.total_steps());
        let limited = limited_frames
            .map(|frames| self.network.with_look_ahead(frames))
            .transpose()?;
        let frozen = (recipe.loss.cycle > 0.0)
            .then(|| self.frozen_network(limited_frames))
            .transpose()?;
        let networks = Networks {
            trained: &**limited.as_ref().unwrap_or(&self.network),
            frozen: frozen.as_deref(),
        };
        let guide_weight = recipe
            .loss
            .guide
            .as_ref()
            .map(|guide| guide.weight_at(step));
        let guide = self.guide.as_ref().zip(guide_weight);
        let guide = guide.filter(|(_, weight)| *weight > 0.0);
        let loss = loss::step_loss(&networks, &views, &recipe.loss, guide, noise_seed)?;
        let learning_rate = recipe.optimiser.learning_rate(step);
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
        let mut figures = json!({ "train": parts.to_json(), "gradient_norm": norm, "learning_rate": learning_rate });
        if let Some(adversarial) = adversarial {
            figures["adversarial"] = json!(adversarial);
        }
        let line = format!(
            "mel {:.3} kl {} cycle {}",
            parts.reconstruction,
            in_thousandths(&parts.kl),
            in_thousandths(&parts.cycle)
        );
        Ok(Report { line, figures })
    }

    fn validate(&mut self, _: &CheckpointHeader) -> Result<Report> {
        let averages =
            VarBuilder::from_tensors(self.optimiser.averages()?, DType::F32, &self.device);
        let network = self
            .recipe
            .network
            .build(&self.recipe.mel, true, &averages)?;
        let v = loss::validate(&*network, &self.validation)?;
        let limits = self.recipe.look_ahead.iter();
        let limited = limits
            .flat_map(|limits| &limits.frames)
            .map(|&frames| {
                let network = network.with_look_ahead(frames)?;
                Ok((frames, loss::validate(&*network, &self.validation)?.mel_l1))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        let mut figures =
            json!({ "validation": v.to_json(), "mel_l1_by_look_ahead_frames": limited });
        let limited = limited
            .iter()
            .map(|(frames, mel_l1)| format!(", {mel_l1:.3} with {frames} frames of look-ahead"));
        let mut line = format!("mel L1 {:.3}{}", v.mel_l1, limited.collect::<String>());
        for (programs, views) in &self.conversions {
            let mel_l1 = loss::converted_l1(&*network, views)?;
            figures["validation"][format!("mel_l1_converted_{programs}")] = json!(mel_l1);
            line += &format!(", converted to {programs} programs {mel_l1:.3}");
        }
        for (factor, v) in v.factors.iter() {
            line += &format!(
                "; {factor}: mel L1 without {:.3}, drift transposed {:.2} / not {:.2}, KL {:.3}",
                v.mel_l1_without, v.drift_transposed, v.drift, v.kl
            );
        }
        Ok(Report { line, figures })
    }

    fn preview(&self, header: &CheckpointHeader, run: &Path) -> Result<()> {
        let averages = self.optimiser.averages()?;
        let bytes = assemble::network_bytes(&self.recipe, &averages, assemble::card(header))?;
        let model = Arc::new(Model::from_bytes(&bytes)?);
        self.preview.write(run, header.step, model)
    }

    fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = self.optimiser.state()?;
        if let Some(adversary) = &self.adversary {
            state.extend(adversary.state()?);
        }
        Ok(state)
    }
}

impl Course {
    /// Crops of music, and of MIDI files.
    fn of_music(
        recipe: &NetworkRecipe,
        material: NetworkMaterial,
        first_batch: u64,
        device: &Device,
    ) -> Result<Self> {
        let mel = &recipe.mel;
        let mut settings = recipe.crop_settings();
        let validation = validation_set(&material.parts.validation, mel, &settings, device)?;
        let preview = Preview::new(&material.parts.validation, mel.sample_rate_hz)?;
        let material = Material {
            tracks: material.parts.training,
            midi: match recipe.midi_settings() {
                Some(settings) => {
                    let cache = workspace::cache("midi");
                    midi::load(material.data, &settings, &cache, mel.sample_rate_hz)?
                }
                None => Renderings::default(),
            },
            drums: load_loops(
                material.drums,
                &workspace::cache("audio"),
                mel.sample_rate_hz,
            )?,
        };
        // A recipe may ask for drums and MIDI files; training also works without them.
        if settings.drums_share > 0.0 && material.drums.is_empty() {
            println!("no drum loops given (--drums): training without them");
            settings.drums_share = 0.0;
        }
        if recipe.midi.is_some() && material.midi.clips.is_empty() {
            println!("no MIDI files in the data: training without them");
            (settings.midi_share, settings.swaps_share) = (0.0, 0.0);
        }
        let sampler = CropSampler::new(&material, mel, settings)?;
        Ok(Self {
            batches: sampler.stream(first_batch),
            validation,
            conversions: Vec::new(),
            preview,
        })
    }

    /// Crops of phrases. The validation has other phrases of the same programs, and phrases of held-out ones.
    fn of_phrases(
        recipe: &NetworkRecipe,
        material: NetworkMaterial,
        first_batch: u64,
        device: &Device,
    ) -> Result<Self> {
        let mel = &recipe.mel;
        let missing = "expected a table [phrases]";
        let settings = recipe.phrase_settings().context(missing)?;
        let crops = recipe.phrase_crop_settings().context(missing)?;
        let cache = workspace::cache("phrases");
        let trained = phrases::render(&settings, &cache, mel.sample_rate_hz)?;
        let conversions = |targets: &[u8], seed: u64| {
            let wanted = ConversionSettings {
                count: VALIDATION_CROPS,
                seconds: settings.seconds,
                voices: 1,
                colour: Colour::Phrase,
                seed,
            };
            phrases::conversions(
                &settings.programs,
                targets,
                wanted,
                &cache,
                mel.sample_rate_hz,
            )
        };
        // Other random numbers than those of the phrases to train on.
        let seen = conversions(&settings.programs, !settings.seed)?;
        let unseen = conversions(
            &settings.held_out_programs,
            (!settings.seed).wrapping_sub(1),
        )?;
        let views = |conversions: &[Conversion]| -> Result<Vec<Views>> {
            let batches = conversion_batches(conversions, crops.frames, crops.batch, mel)?;
            batches
                .into_iter()
                .map(|batch| Views::new(batch, device))
                .collect()
        };
        let preview: Vec<Arc<Track>> = seen
            .iter()
            .map(|conversion| {
                Arc::new(Track {
                    path: PathBuf::from(conversion.source.name),
                    artist: conversion.source.name.to_owned(),
                    pcm: conversion.phrase.clone(),
                })
            })
            .collect();
        let sampler = PhraseSampler::new(trained, &material.parts.training, mel, crops.clone())?;
        Ok(Self {
            batches: sampler.stream(first_batch),
            validation: views(&seen)?,
            conversions: vec![("seen", views(&seen)?), ("unseen", views(&unseen)?)],
            preview: Preview::new(&preview, mel.sample_rate_hz)?,
        })
    }
}

/// Changes random weights of HARD as [`Start`] says: the first layer to that of (x - mean) / deviation, the last one to
/// y deviation + mean.
fn start_at_level(parameters: &Parameters, start: &Start) -> Result<()> {
    let (mean, deviation) = (start.mel_mean, start.mel_deviation);
    let vars = parameters.vars();
    let var = |name: &str| {
        let var = vars.get(name);
        var.with_context(|| format!("expected a weight \"{name}\", found none"))
    };
    let (magnitude, direction) = (var("trunk.first.weight_g")?, var("trunk.first.weight_v")?);
    let sum = fold_weight_norm(magnitude, direction)?
        .flatten_from(1)?
        .sum(1)?;
    let bias = var("trunk.first.bias")?;
    bias.set(&(bias.as_tensor() - (sum * (mean / deviation))?)?)?;
    magnitude.set(&(magnitude.as_tensor() / deviation)?)?;
    for name in ["decoder.last.weight", "decoder.last.bias"] {
        var(name)?.set(&(var(name)?.as_tensor() * deviation)?)?;
    }
    let bias = var("decoder.last.bias")?;
    bias.set(&(bias.as_tensor() + mean)?)?;
    Ok(())
}

/// One figure per factor, with three decimals.
fn in_thousandths(figures: &FactorMap<f32>) -> String {
    let figures = figures.values().map(|value| format!("{value:.3}"));
    figures.collect::<Vec<_>>().join(" ")
}

/// The validation crops, pitch-shifted but not otherwise augmented. They are the same at every validation.
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
        swaps_share: 0.0,
        live_share: 0.0,
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

#[cfg(test)]
mod tests {
    use super::*;
    use model_runtime::hard::{HardConfig, HardDecoder};

    #[test]
    fn a_start_at_the_level_of_music_is_a_network_for_standardised_mels() {
        let architecture = Architecture::Hard(HardConfig {
            channels: 2,
            latents: 12,
            decoder: HardDecoder::Published,
        });
        let mel_config = MelConfig::default();
        let network = |start: Option<&Start>| {
            let parameters = Parameters::new(1);
            let builder = parameters.builder(&Device::Cpu);
            let network = architecture.build(&mel_config, true, &builder).unwrap();
            if let Some(start) = start {
                start_at_level(&parameters, start).unwrap();
            }
            network
        };
        let start = Start {
            mel_mean: -4.5,
            mel_deviation: 2.2,
        };
        let mel = Tensor::randn(-4f32, 2.0, (1, 1, 128, 8), &Device::Cpu).unwrap();
        let standard = ((&mel + 4.5).unwrap() / 2.2).unwrap();
        let through = |network: &dyn Network, mel: &Tensor| {
            let means = network.encode(mel).unwrap().means();
            network.decode(&means).unwrap()
        };
        let plain = through(&*network(None), &standard);
        let expected = plain.affine(2.2, -4.5).unwrap();
        let found = through(&*network(Some(&start)), &mel);
        let largest = |tensor: Tensor| -> f32 {
            let largest = tensor.abs().unwrap().max_all().unwrap();
            largest.to_scalar().unwrap()
        };
        assert!(largest((&found - &expected).unwrap()) < 1e-4);
        let raw = through(&*network(None), &mel);
        assert!(largest((raw - expected).unwrap()) > 1.0);
    }
}
