//! Training recipes: TOML files that describe what to train and how.

pub mod magnitudes;
pub mod network;
pub mod optimiser;
pub mod tanaka;
pub mod voice;

use std::path::Path;

use anyhow::{Context, Result};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use vocoder::MelConfig;

use magnitudes::MagnitudesRecipe;
use network::NetworkRecipe;
use optimiser::Optimiser;
use voice::VoiceRecipe;

/// A training recipe. One with a table `[generator]` is for a voice, one with a table `[magnitudes]` for a magnitude network, any
/// other for a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Recipe {
    /// Recipe for an encoder and decoder.
    Network(NetworkRecipe),
    /// Recipe for a HiFi-GAN voice.
    Voice(VoiceRecipe),
    /// Recipe for a magnitude network.
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

/// Whether a recipe need not name its mel spectrogram.
fn is_standard(mel: &MelConfig) -> bool {
    *mel == MelConfig::default()
}

impl Recipe {
    /// Reads and checks a recipe.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the recipe {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in the recipe {}", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let table = toml::from_str::<toml::Table>(text)?;
        let has = |name: &str| table.contains_key(name);
        let recipe = match (has("generator"), has("magnitudes")) {
            (true, _) => Self::Voice(toml::from_str(text)?),
            (_, true) => Self::Magnitudes(toml::from_str(text)?),
            _ => Self::Network(toml::from_str(text)?),
        };
        recipe.mel().validate()?;
        recipe.optimiser().check()?;
        match &recipe {
            Self::Network(recipe) => recipe.check()?,
            Self::Voice(recipe) => recipe.check()?,
            Self::Magnitudes(recipe) => recipe.check()?,
        }
        Ok(recipe)
    }

    /// Name of the trained model.
    pub fn name(&self) -> &str {
        match self {
            Self::Network(recipe) => &recipe.name,
            Self::Voice(recipe) => &recipe.name,
            Self::Magnitudes(recipe) => &recipe.name,
        }
    }

    /// The mel spectrogram.
    pub fn mel(&self) -> &MelConfig {
        match self {
            Self::Network(recipe) => &recipe.mel,
            Self::Voice(recipe) => &recipe.mel,
            Self::Magnitudes(recipe) => &recipe.mel,
        }
    }

    /// Seed of all random numbers.
    pub fn seed(&self) -> u64 {
        match self {
            Self::Network(recipe) => recipe.crops.seed,
            Self::Voice(recipe) => recipe.segments.seed,
            Self::Magnitudes(recipe) => recipe.segments.seed,
        }
    }

    /// Settings of the optimiser.
    pub fn optimiser(&self) -> &Optimiser {
        match self {
            Self::Network(recipe) => &recipe.optimiser,
            Self::Voice(recipe) => &recipe.optimiser,
            Self::Magnitudes(recipe) => &recipe.optimiser,
        }
    }

    /// Kind and sizes of the trained part, as text.
    pub fn trained(&self) -> String {
        match self {
            Self::Network(recipe) => format!("{:?}", recipe.network),
            Self::Voice(recipe) => format!("{:?}", recipe.generator),
            Self::Magnitudes(recipe) => format!("{:?}", recipe.magnitudes),
        }
    }
}
