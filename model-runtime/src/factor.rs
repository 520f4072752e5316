//! The factors that a network takes music apart into, such as harmony and rhythm.
//!
//! A network names its factors ([`Network::factors`](crate::Network::factors)). All that mixes, freezes, shows or trains
//! latents goes over that list. [`Factor`] is the fixed list of those that the plugin has knobs for.

use std::fmt::{self, Display};
use std::ops::{Index, IndexMut};

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// What a latent describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Factor {
    /// What sounds: chords and notes.
    Harmony,
    /// When it sounds: onsets and their colour.
    Rhythm,
}

impl Factor {
    /// Number of factors.
    pub const COUNT: usize = 2;

    /// All factors, in the order in which they are shown.
    pub const ALL: [Self; Self::COUNT] = [Self::Harmony, Self::Rhythm];

    /// Its name, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Harmony => "harmony",
            Self::Rhythm => "rhythm",
        }
    }
}

impl Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a network lays out the latent of one factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactorLayout {
    /// Which factor.
    pub factor: Factor,
    /// Mel frames for each frame of the latent. Knobs and frozen loops follow the latent's frames.
    pub pool_frames: usize,
    /// What transposition does to the latent.
    pub transposition: Transposition,
}

/// What transposition does to a latent (B, C, H, T).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transposition {
    /// Nothing: the factor has no pitch.
    None,
    /// A shift along H, one step a semitone. Notes that leave the axis are lost, those that enter are silent.
    ShiftNotes,
    /// A rotation of C that wraps, one step a semitone, as in HARD.
    RollChannels,
}

/// A value for some of the factors, in the order of [`Factor::ALL`].
#[derive(Clone, Debug, PartialEq)]
pub struct FactorMap<T>([Option<T>; Factor::COUNT]);

impl<T> FactorMap<T> {
    /// The value of a factor, if there is one.
    #[must_use]
    pub fn get(&self, factor: Factor) -> Option<&T> {
        self.0[factor as usize].as_ref()
    }

    /// The value of a factor, to change it, if there is one.
    pub fn get_mut(&mut self, factor: Factor) -> Option<&mut T> {
        self.0[factor as usize].as_mut()
    }

    /// Sets the value of a factor and returns the one before.
    pub fn insert(&mut self, factor: Factor, value: T) -> Option<T> {
        self.0[factor as usize].replace(value)
    }

    /// Removes the value of a factor and returns it.
    pub fn remove(&mut self, factor: Factor) -> Option<T> {
        self.0[factor as usize].take()
    }

    /// All factors that have a value, with the value.
    pub fn iter(&self) -> impl Iterator<Item = (Factor, &T)> {
        let values = Factor::ALL.into_iter().zip(&self.0);
        values.filter_map(|(factor, value)| Some((factor, value.as_ref()?)))
    }

    /// All factors that have a value, with the value, to change it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Factor, &mut T)> {
        let values = Factor::ALL.into_iter().zip(&mut self.0);
        values.filter_map(|(factor, value)| Some((factor, value.as_mut()?)))
    }

    /// The values without their factors.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    /// The same factors with other values.
    pub fn map<'a, U>(&'a self, mut f: impl FnMut(Factor, &'a T) -> U) -> FactorMap<U> {
        self.iter()
            .map(|(factor, value)| (factor, f(factor, value)))
            .collect()
    }

    /// The same factors with other values.
    ///
    /// # Errors
    ///
    /// The first error of `f`.
    pub fn try_map<'a, U, E>(
        &'a self,
        mut f: impl FnMut(Factor, &'a T) -> std::result::Result<U, E>,
    ) -> std::result::Result<FactorMap<U>, E> {
        self.iter()
            .map(|(factor, value)| Ok((factor, f(factor, value)?)))
            .collect()
    }
}

impl<T> Default for FactorMap<T> {
    fn default() -> Self {
        Self([const { None }; Factor::COUNT])
    }
}

impl<T> FromIterator<(Factor, T)> for FactorMap<T> {
    fn from_iter<I: IntoIterator<Item = (Factor, T)>>(values: I) -> Self {
        let mut map = Self::default();
        for (factor, value) in values {
            map.insert(factor, value);
        }
        map
    }
}

impl<T> Index<Factor> for FactorMap<T> {
    type Output = T;

    /// # Panics
    ///
    /// When there is no value for the factor.
    fn index(&self, factor: Factor) -> &T {
        self.get(factor)
            .unwrap_or_else(|| panic!("no value for {factor}"))
    }
}

impl<T> IndexMut<Factor> for FactorMap<T> {
    fn index_mut(&mut self, factor: Factor) -> &mut T {
        self.get_mut(factor)
            .unwrap_or_else(|| panic!("no value for {factor}"))
    }
}

impl FactorMap<Tensor> {
    /// The latent of a factor that a network decodes.
    pub(crate) fn expect(&self, factor: Factor) -> Result<&Tensor> {
        match self.get(factor) {
            Some(latent) => Ok(latent),
            None => candle_core::bail!("expected a {factor} latent, found none"),
        }
    }
}
