//! The list of all networks.

use std::sync::Arc;

use candle_core::Result;
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;

use crate::hard::HardConfig;
use crate::network::{Network, NetworkConfig};
use crate::pitch_aligned::PitchAlignedConfig;
use crate::timbre::TimbreConfig;

/// Which network, and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Architecture {
    /// HARD as published.
    Hard(HardConfig),
    /// The network of the built-in model.
    PitchAligned(PitchAlignedConfig),
    /// The network of the engine Timbre.
    Timbre(TimbreConfig),
}

impl Architecture {
    fn config(&self) -> &dyn NetworkConfig {
        match self {
            Self::Hard(config) => config,
            Self::PitchAligned(config) => config,
            Self::Timbre(config) => config,
        }
    }

    /// Reads or creates the weights of the network for this mel spectrogram. `weight_norm` splits the weights of HARD
    /// for training.
    ///
    /// # Errors
    ///
    /// If a tensor is missing or has another shape, or if the network does not support the mel spectrogram.
    pub fn build(
        &self,
        mel: &MelConfig,
        weight_norm: bool,
        vb: &VarBuilder,
    ) -> Result<Arc<dyn Network>> {
        self.config().build(mel, weight_norm, vb)
    }

    /// Rejects unreasonable sizes, so that a malicious file cannot make the plugin allocate unlimited memory.
    pub(crate) fn validate(&self) -> std::result::Result<(), String> {
        for (name, found, range) in self.config().sizes() {
            if !range.contains(&found) {
                let (least, most) = range.into_inner();
                return Err(format!("{name}: expected {least} to {most}, found {found}"));
            }
        }
        self.config().validate_values()
    }
}
