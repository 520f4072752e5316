//! The factors into which a network separates music, such as harmony and rhythm.
//!
//! A network names its factors ([`Network::factors`](crate::Network::factors)). The code that mixes, freezes, shows or
//! trains latents iterates over that list. [`Factor`] is the fixed list of the factors for which the plugin has knobs: harmony
//! and rhythm, and for the engine Timbre, which takes one instrument apart, timbre, pitch and variation.

use std::fmt::{self, Display};
use std::ops::{Index, IndexMut};

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// A property of the music that a latent represents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Factor {
    /// Chords and notes.
    Harmony,
    /// Onsets and their timbre.
    Rhythm,
    /// The colour of an instrument: what stays the same for about two seconds, whatever it plays.
    Timbre,
    /// The notes that sound: the fine structure of the spectrum.
    Pitch,
    /// Articulation: how level and colour change over time.
    Variation,
}

impl Factor {
    /// Number of factors.
    pub const COUNT: usize = 5;

    /// All factors, in display order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Harmony,
        Self::Rhythm,
        Self::Timbre,
        Self::Pitch,
        Self::Variation,
    ];

    /// The name, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Harmony => "harmony",
            Self::Rhythm => "rhythm",
            Self::Timbre => "timbre",
            Self::Pitch => "pitch",
            Self::Variation => "variation",
        }
    }
}

impl Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Layout of the latent of one factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactorLayout {
    /// The factor.
    pub factor: Factor,
    /// Mel frames per frame of the latent. Knobs and frozen loops follow the frames of the latent.
    pub pool_frames: usize,
    /// How the latent is transposed.
    pub transposition: Transposition,
}

/// How a latent (B, C, H, T) is transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transposition {
    /// Not at all: the factor has no pitch.
    None,
    /// A shift along H, one step per semitone. Notes that leave the axis are lost; new ones are silent.
    ShiftNotes,
    /// A circular shift of C, one step per semitone, as in HARD.
    RollChannels,
}

/// One value for each of some factors, in the order of [`Factor::ALL`].
#[derive(Clone, Debug, PartialEq)]
pub struct FactorMap<T>([Option<T>; Factor::COUNT]);

impl<T> FactorMap<T> {
    /// The value of a factor, if there is one.
    #[must_use]
    pub fn get(&self, factor: Factor) -> Option<&T> {
        self.0[factor as usize].as_ref()
    }

    /// A mutable reference to the value of a factor, if there is one.
    pub fn get_mut(&mut self, factor: Factor) -> Option<&mut T> {
        self.0[factor as usize].as_mut()
    }

    /// Sets the value of a factor and returns the previous one.
    pub fn insert(&mut self, factor: Factor, value: T) -> Option<T> {
        self.0[factor as usize].replace(value)
    }

    /// Removes the value of a factor and returns it.
    pub fn remove(&mut self, factor: Factor) -> Option<T> {
        self.0[factor as usize].take()
    }

    /// All factors that have a value, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (Factor, &T)> {
        let values = Factor::ALL.into_iter().zip(&self.0);
        values.filter_map(|(factor, value)| Some((factor, value.as_ref()?)))
    }

    /// All factors that have a value, with mutable references to their values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Factor, &mut T)> {
        let values = Factor::ALL.into_iter().zip(&mut self.0);
        values.filter_map(|(factor, value)| Some((factor, value.as_mut()?)))
    }

    /// The values, without their factors.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    /// Applies `f` to each value.
    pub fn map<'a, U>(&'a self, mut f: impl FnMut(Factor, &'a T) -> U) -> FactorMap<U> {
        self.iter()
            .map(|(factor, value)| (factor, f(factor, value)))
            .collect()
    }

    /// Applies `f` to each value.
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
    /// If there is no value for the factor.
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
