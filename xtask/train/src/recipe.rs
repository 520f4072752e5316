//! What is trained and how: a TOML file.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use model_runtime::{Architecture, Factor};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::discriminator;
use crate::magnitudes::MagnitudesRecipe;
use crate::midi::MidiSettings;
use crate::optim::AdamConfig;
use crate::sampler::CropSettings;
use crate::voice::recipe::VoiceRecipe;

/// A training recipe. One with a table `[generator]` is for a voice, one with a table `[magnitudes]` for a magnitude network, any
/// other for a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Recipe {
    /// For an encoder and decoder.
    Network(NetworkRecipe),
    /// For a HiFi-GAN voice.
    Voice(VoiceRecipe),
    /// For what guesses magnitudes from mels.
    Magnitudes(MagnitudesRecipe),
}

impl<'de> Deserialize<'de> for Recipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let has = |table: &str| value.get(table).is_some();
        let recipe = match (has("generator"), has("magnitudes")) {
            (true, _) => serde_json::from_value(value).map(Self::Voice),
            (_, true) => serde_json::from_value(value).map(Self::Magnitudes),
            _ => serde_json::from_value(value).map(Self::Network),
        };
        recipe.map_err(D::Error::custom)
    }
}

impl Recipe {
    /// Reads and checks a recipe.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the recipe {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in the recipe {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let table = toml::from_str::<toml::Table>(text)?;
        let has = |name: &str| table.contains_key(name);
        let recipe = match (has("generator"), has("magnitudes")) {
            (true, _) => Self::Voice(toml::from_str(text)?),
            (_, true) => Self::Magnitudes(toml::from_str(text)?),
            _ => Self::Network(toml::from_str(text)?),
        };
        recipe.optimiser().check()?;
        match &recipe {
            Self::Network(recipe) => recipe.check()?,
            Self::Voice(recipe) => recipe.check()?,
            Self::Magnitudes(recipe) => recipe.check()?,
        }
        Ok(recipe)
    }

    /// Name of the model that comes of it.
    pub fn name(&self) -> &str {
        match self {
            Self::Network(recipe) => &recipe.name,
            Self::Voice(recipe) => &recipe.name,
            Self::Magnitudes(recipe) => &recipe.name,
        }
    }

    /// Start of all random numbers.
    pub fn seed(&self) -> u64 {
        match self {
            Self::Network(recipe) => recipe.crops.seed,
            Self::Voice(recipe) => recipe.segments.seed,
            Self::Magnitudes(recipe) => recipe.segments.seed,
        }
    }

    /// How the loss is minimised.
    pub fn optimiser(&self) -> &Optimiser {
        match self {
            Self::Network(recipe) => &recipe.optimiser,
            Self::Voice(recipe) => &recipe.optimiser,
            Self::Magnitudes(recipe) => &recipe.optimiser,
        }
    }

    /// What is trained, with its sizes.
    pub fn trained(&self) -> String {
        match self {
            Self::Network(recipe) => format!("{:?}", recipe.network),
            Self::Voice(recipe) => format!("{:?}", recipe.generator),
            Self::Magnitudes(recipe) => format!("{:?}", recipe.magnitudes),
        }
    }
}

/// A recipe for a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecipe {
    /// Name of the model that comes of it.
    pub name: String,
    /// The network.
    pub network: Architecture,
    /// How crops are drawn.
    pub crops: Crops,
    /// Crops rendered from MIDI files, if there are to be any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub midi: Option<Midi>,
    /// Practice for streams that cannot wait for all that the network sees ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_ahead: Option<LimitedLookAhead>,
    /// What is minimised.
    pub loss: Loss,
    /// What a discriminator adds to it; none takes part without this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<Adversarial>,
    /// How it is minimised.
    pub optimiser: Optimiser,
}

/// How crops are drawn and changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crops {
    /// Start of all random numbers.
    pub seed: u64,
    /// Crops a step.
    pub batch: usize,
    /// Mel frames a crop.
    pub frames: usize,
    /// Pitch shifts are drawn evenly from minus to plus this many semitones, for each crop on its own.
    pub max_shift_semitones: u32,
    /// Share of crops that are not shifted.
    pub unshifted_share: f64,
    /// Whether the rhythm encoder hears a shift of its own.
    pub two_views: bool,
    /// A crop's level changes by up to this much either way.
    pub gain_nepers: f32,
    /// A crop is out of tune by up to this much either way.
    #[serde(default)]
    pub tuning_cents: f64,
    /// A crop is coloured by two bells of up to this much either way, and a tilt of a sixth of it an octave.
    #[serde(default)]
    pub equaliser_db: f32,
    /// Share of the crops with a drum loop (`--drums`) under them, which is not shifted. The harmony encoder hears
    /// another one, or none.
    #[serde(default)]
    pub drums_share: f64,
}

/// Clips of MIDI files, rendered at several transpositions, with drums that do not move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Midi {
    /// Share of the crops that are taken from them.
    pub share: f64,
    /// Number of clips.
    pub clips: usize,
    /// Length of a clip.
    pub seconds: f64,
    /// Transpositions of a clip.
    pub transpositions: usize,
}

/// Steps with a limited look-ahead (`Network::with_look_ahead`), so that one model serves all latency settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitedLookAhead {
    /// Share of the steps that are limited,
    pub share: f64,
    /// each to one of these numbers of mel frames.
    pub frames: Vec<usize>,
}

/// Distance between decoded and true log-mel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reconstruction {
    /// Mean absolute difference, as the paper has it.
    L1,
    /// Huber with a threshold of one neper, as the paper's public code has it.
    Huber,
}

/// Weights of the losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Kind of the reconstruction loss; its weight is one.
    pub reconstruction: Reconstruction,
    /// Weight of the harmony latent's divergence from the standard normal, per element.
    pub kl_harmony: f64,
    /// The same for the rhythm latent.
    pub kl_rhythm: f64,
    /// Weight of the cycle consistency: the harmony of one crop and the rhythm of the next are decoded together, and
    /// the latents of the result should be those that went in. Squared distance over the latents' variance.
    #[serde(default)]
    pub cycle: f64,
}

impl Loss {
    /// Weight of a latent's divergence from the standard normal, per element.
    pub fn kl(&self, factor: Factor) -> f64 {
        match factor {
            Factor::Harmony => self.kl_harmony,
            Factor::Rhythm => self.kl_rhythm,
        }
    }
}

/// The discriminator, and what it adds to the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversarial {
    /// Weight of the network's least-squares loss, where the reconstruction's is one.
    pub weight: f64,
    /// Weight of feature matching.
    pub feature_matching: f64,
    /// The discriminator takes part, and begins to learn, after so many steps.
    pub start_step: u64,
    /// Channels of its first layer (16 as published); five stages double them.
    pub channels: usize,
    /// RAdam's learning rate for it at the first step; it falls as the network's does.
    pub learning_rate: f64,
}

impl Adversarial {
    fn check(&self, crops: &Crops) -> Result<()> {
        let Self {
            weight,
            feature_matching,
            channels,
            learning_rate,
            ..
        } = *self;
        ensure!(
            weight >= 0.0 && feature_matching >= 0.0,
            "expected adversarial weights of 0 or more, found {weight} and {feature_matching}"
        );
        ensure!(
            learning_rate > 0.0 && channels > 0,
            "expected a discriminator with a learning rate and channels above 0, found {learning_rate} and {channels}"
        );
        ensure!(
            crops.frames >= discriminator::MIN_FRAMES,
            "the discriminator expects crops of at least {} frames, found {}",
            discriminator::MIN_FRAMES,
            crops.frames
        );
        Ok(())
    }
}

/// Settings of the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimiser {
    /// Learning rate at the first step, of RAdam for a network, of AdamW for a voice.
    pub learning_rate: f64,
    /// It halves every so many steps,
    pub half_life_steps: f64,
    /// until it reaches this.
    pub learning_rate_floor: f64,
    /// Decay of the gradients' first and second moments, a step.
    pub betas: [f64; 2],
    /// Share of the weights that a step at a learning rate of one would take off, apart from the gradients.
    #[serde(default)]
    pub weight_decay: f64,
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Decay of the averaged weights that are exported, a step.
    pub average_decay: f64,
    /// A checkpoint every so many steps,
    pub checkpoint_steps: u64,
    /// and a validation every so many.
    pub validation_steps: u64,
}

impl Optimiser {
    fn check(&self) -> Result<()> {
        let Self {
            learning_rate,
            half_life_steps,
            weight_decay,
            checkpoint_steps,
            validation_steps,
            ..
        } = *self;
        ensure!(
            learning_rate > 0.0 && half_life_steps > 0.0,
            "expected a learning rate and half life above 0, found {learning_rate} and {half_life_steps}"
        );
        ensure!(
            weight_decay >= 0.0,
            "expected a weight decay of 0 or more, found {weight_decay}"
        );
        ensure!(
            checkpoint_steps > 0 && validation_steps > 0,
            "expected checkpoints and validations at least every step, found 0"
        );
        Ok(())
    }

    /// Learning rate at a step.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let rate = self.learning_rate * (-(step as f64) / self.half_life_steps).exp2();
        rate.max(self.learning_rate_floor)
    }

    /// Adam with these settings.
    pub fn adam(&self) -> AdamConfig {
        AdamConfig {
            rectified: false,
            weight_decay: self.weight_decay,
            betas: self.betas.into(),
            clip_norm: self.clip_norm,
            average_decay: Some(self.average_decay),
        }
    }
}

impl NetworkRecipe {
    fn check(&self) -> Result<()> {
        if let Some(LimitedLookAhead { share, frames }) = &self.look_ahead {
            ensure!(
                (0.0..=1.0).contains(share) && !frames.is_empty(),
                "look_ahead: expected a share of 0 to 1 and a number of frames, found {share} and {frames:?}"
            );
        }
        if let Some(adversarial) = &self.adversarial {
            adversarial.check(&self.crops)?;
        }
        Ok(())
    }

    /// Mel frames that the network may see ahead in a step, if they are limited.
    pub fn look_ahead_frames(&self, step: u64) -> Option<usize> {
        let LimitedLookAhead { share, frames } = self.look_ahead.as_ref()?;
        let mut random = StdRng::seed_from_u64(self.crops.seed.rotate_left(32) ^ step);
        if !random.random_bool(*share) {
            return None;
        }
        frames.choose(&mut random).copied()
    }

    /// What is rendered of MIDI files, if anything.
    pub fn midi_settings(&self) -> Option<MidiSettings> {
        self.midi.as_ref().map(|midi| MidiSettings {
            clips: midi.clips,
            seconds: midi.seconds,
            transpositions: midi.transpositions,
            // Two of them are up to twice as far apart; those too far are not paired.
            max_shift_semitones: self.crops.max_shift_semitones,
            seed: self.crops.seed,
        })
    }

    /// The crops as the sampler wants them.
    pub fn crop_settings(&self) -> CropSettings {
        let crops = &self.crops;
        CropSettings {
            batch: crops.batch,
            frames: crops.frames,
            max_shift: crops.max_shift_semitones,
            gain_nepers: crops.gain_nepers,
            unshifted_share: crops.unshifted_share,
            two_views: crops.two_views,
            tuning_cents: crops.tuning_cents,
            equaliser_db: crops.equaliser_db,
            drums_share: crops.drums_share,
            midi_share: self.midi.as_ref().map_or(0.0, |midi| midi.share),
            seed: crops.seed,
        }
    }
}
