//! Recipes for a magnitude network, which predicts magnitudes from mels.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use vocoder::magnitudes::MagnitudesConfig;

use super::is_standard;
use super::optimiser::Optimiser;
use crate::voice::segments::Segments;
use vocoder::MelConfig;

/// Frames at either end of a segment whose analysis window extends beyond it.
pub const EDGE_FRAMES: usize = 2;

/// A recipe for a magnitude network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MagnitudesRecipe {
    /// Name of the magnitude network.
    pub name: String,
    /// The mel spectrogram; the standard one without this.
    #[serde(default, skip_serializing_if = "is_standard")]
    pub mel: MelConfig,
    /// Sizes of the network.
    pub magnitudes: MagnitudesConfig,
    /// Sampling of segments.
    pub segments: Segments,
    /// Settings of the optimiser.
    pub optimiser: Optimiser,
}

impl MagnitudesRecipe {
    /// Checks that the recipe can be trained.
    pub fn check(&self) -> Result<()> {
        self.magnitudes.validate()?;
        self.segments.check(2 * EDGE_FRAMES + 1)
    }
}
