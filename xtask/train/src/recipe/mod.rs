//! Training recipes: TOML files that describe what to train and how.

pub mod lord;
pub mod luo;
pub mod magnitudes;
pub mod network;
pub mod notes;
pub mod optimiser;
pub mod tanaka;
pub mod voice;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use vocoder::MelConfig;

use lord::LordRecipe;
use magnitudes::MagnitudesRecipe;
use network::NetworkRecipe;
use notes::NotesRecipe;
use optimiser::{Intervals, Optimiser};
use voice::VoiceRecipe;

/// A training recipe. One with a table `[generator]` is for a voice, one with a table `[magnitudes]` for a magnitude network, one
/// with a table `[luo]` for pitch and timbre of a frame, one with a table `[tanaka]` for timbre, pitch and variation of a note, one
/// with a table `[lord]` for content and instrument of a clip, any other for a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Recipe {
    /// Recipe for an encoder and decoder.
    Network(NetworkRecipe),
    /// Recipe for a HiFi-GAN voice.
    Voice(VoiceRecipe),
    /// Recipe for a magnitude network.
    Magnitudes(MagnitudesRecipe),
    /// Recipe that trains on isolated notes.
    Notes(NotesRecipe),
    /// Recipe for a model of content and instruments.
    Lord(Box<LordRecipe>),
}

/// What a recipe is for.
#[derive(Clone, Copy)]
enum Kind {
    Network,
    Voice,
    Magnitudes,
    Luo,
    Tanaka,
    Lord,
}

impl Kind {
    /// The kind of a recipe that has some tables.
    fn of(has: impl Fn(&str) -> bool) -> Self {
        let kinds = [
            ("generator", Self::Voice),
            ("magnitudes", Self::Magnitudes),
            ("luo", Self::Luo),
            ("tanaka", Self::Tanaka),
            ("lord", Self::Lord),
        ];
        let kind = kinds.into_iter().find(|(table, _)| has(table));
        kind.map_or(Self::Network, |(_, kind)| kind)
    }

    fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Recipe, D::Error> {
        Ok(match self {
            Self::Network => Recipe::Network(Deserialize::deserialize(deserializer)?),
            Self::Voice => Recipe::Voice(Deserialize::deserialize(deserializer)?),
            Self::Magnitudes => Recipe::Magnitudes(Deserialize::deserialize(deserializer)?),
            Self::Luo => Recipe::Notes(NotesRecipe::Luo(Deserialize::deserialize(deserializer)?)),
            Self::Tanaka => {
                Recipe::Notes(NotesRecipe::Tanaka(Deserialize::deserialize(deserializer)?))
            }
            Self::Lord => Recipe::Lord(Deserialize::deserialize(deserializer)?),
        })
    }
}

impl<'de> Deserialize<'de> for Recipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let kind = Kind::of(|table| value.get(table).is_some());
        kind.read(value).map_err(D::Error::custom)
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
        let kind = Kind::of(|name| table.contains_key(name));
        let recipe = kind.read(toml::Deserializer::parse(text)?)?;
        if let Some(optimiser) = recipe.optimiser() {
            optimiser.check()?;
        }
        if let (Some(mel), Some(optimiser)) = (recipe.mel(), recipe.optimiser()) {
            mel.validate()?;
            ensure!(
                optimiser.average_decay.is_some(),
                "the averaged weights are exported: expected optimiser.average_decay, found none"
            );
        }
        match &recipe {
            Self::Network(recipe) => recipe.check()?,
            Self::Voice(recipe) => recipe.check()?,
            Self::Magnitudes(recipe) => recipe.check()?,
            Self::Notes(recipe) => recipe.check()?,
            Self::Lord(recipe) => recipe.check()?,
        }
        Ok(recipe)
    }

    /// Name of the trained model.
    pub fn name(&self) -> &str {
        match self {
            Self::Network(recipe) => &recipe.name,
            Self::Voice(recipe) => &recipe.name,
            Self::Magnitudes(recipe) => &recipe.name,
            Self::Notes(recipe) => recipe.name(),
            Self::Lord(recipe) => &recipe.name,
        }
    }

    /// The mel spectrogram of music, which model files have; none if the recipe trains on notes.
    pub fn mel(&self) -> Option<&MelConfig> {
        match self {
            Self::Network(recipe) => Some(&recipe.mel),
            Self::Voice(recipe) => Some(&recipe.mel),
            Self::Magnitudes(recipe) => Some(&recipe.mel),
            Self::Notes(_) => None,
            Self::Lord(recipe) => Some(&recipe.mel),
        }
    }

    /// Seed of all random numbers.
    pub fn seed(&self) -> u64 {
        match self {
            Self::Network(recipe) => recipe.crops.seed,
            Self::Voice(recipe) => recipe.segments.seed,
            Self::Magnitudes(recipe) => recipe.segments.seed,
            Self::Notes(recipe) => recipe.seed(),
            Self::Lord(recipe) => recipe.seed,
        }
    }

    /// Settings of the optimiser, if there is only one.
    fn optimiser(&self) -> Option<&Optimiser> {
        match self {
            Self::Network(recipe) => Some(&recipe.optimiser),
            Self::Voice(recipe) => Some(&recipe.optimiser),
            Self::Magnitudes(recipe) => Some(&recipe.optimiser),
            Self::Notes(recipe) => Some(recipe.optimiser()),
            Self::Lord(_) => None,
        }
    }

    /// Steps between checkpoints and validations.
    pub fn intervals(&self) -> Intervals {
        match self {
            Self::Network(recipe) => recipe.optimiser.intervals(),
            Self::Voice(recipe) => recipe.optimiser.intervals(),
            Self::Magnitudes(recipe) => recipe.optimiser.intervals(),
            Self::Notes(recipe) => recipe.optimiser().intervals(),
            Self::Lord(recipe) => recipe.intervals,
        }
    }

    /// Kind and sizes of the trained part, as text.
    pub fn trained(&self) -> String {
        match self {
            Self::Network(recipe) => format!("{:?}", recipe.network),
            Self::Voice(recipe) => format!("{:?}", recipe.generator),
            Self::Magnitudes(recipe) => format!("{:?}", recipe.magnitudes),
            Self::Notes(recipe) => recipe.trained(),
            Self::Lord(recipe) => recipe.trained(),
        }
    }
}
