//! Recipes that train on isolated notes instead of music.

use anyhow::Result;
use serde::Serialize;

use super::luo::LuoRecipe;
use super::optimiser::Optimiser;
use super::tanaka::TanakaRecipe;
use crate::notes::NotesConfig;

/// A recipe that trains on the notes of its table `[notes]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum NotesRecipe {
    /// Recipe for the pitch and timbre of a frame (Luo et al., 2020).
    Luo(LuoRecipe),
    /// Recipe for timbre, pitch and variation of a note (Tanaka et al., 2022).
    Tanaka(TanakaRecipe),
}

impl NotesRecipe {
    /// Checks that the recipe can be trained.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first setting that is out of range.
    pub fn check(&self) -> Result<()> {
        self.notes().check()?;
        match self {
            Self::Luo(recipe) => recipe.check(),
            Self::Tanaka(recipe) => recipe.check(),
        }
    }

    /// Name of the trained model.
    pub fn name(&self) -> &str {
        match self {
            Self::Luo(recipe) => &recipe.name,
            Self::Tanaka(recipe) => &recipe.name,
        }
    }

    /// The notes.
    pub fn notes(&self) -> &NotesConfig {
        match self {
            Self::Luo(recipe) => &recipe.notes,
            Self::Tanaka(recipe) => &recipe.notes,
        }
    }

    /// Sample rate at which the notes are rendered and read.
    pub fn sample_rate_hz(&self) -> u32 {
        match self {
            Self::Luo(recipe) => recipe.mel.sample_rate_hz,
            Self::Tanaka(recipe) => recipe.analysis.sample_rate_hz,
        }
    }

    /// Seed of all random numbers but those of the notes.
    pub fn seed(&self) -> u64 {
        match self {
            Self::Luo(recipe) => recipe.frames.seed,
            Self::Tanaka(recipe) => recipe.seed,
        }
    }

    /// Settings of the optimiser.
    pub fn optimiser(&self) -> &Optimiser {
        match self {
            Self::Luo(recipe) => &recipe.optimiser,
            Self::Tanaka(recipe) => &recipe.optimiser,
        }
    }

    /// Kind and sizes of the trained network, as text.
    pub fn trained(&self) -> String {
        match self {
            Self::Luo(recipe) => format!("{:?}", recipe.luo),
            Self::Tanaka(recipe) => format!("{:?}, {:?}", recipe.tanaka, recipe.analysis),
        }
    }

    /// What runs must have in common to be compared in one table, as text.
    pub fn judged(&self) -> String {
        match self {
            Self::Luo(_) => self.trained(),
            Self::Tanaka(recipe) => format!("Tanaka, {:?}", recipe.analysis),
        }
    }
}
