//! Recipes for a HiFi-GAN voice.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;
use vocoder::generator::GeneratorConfig;

use super::is_standard;
use super::optimiser::Optimiser;
use crate::adversary::AdversaryConfig;
use crate::voice::discriminators::DiscriminatorsConfig;
use crate::voice::segments::Segments;
use crate::voice::spectra::STFT_SIZES;

/// A recipe for a voice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoiceRecipe {
    /// Name of the voice.
    pub name: String,
    /// The mel spectrogram; the standard one without this.
    #[serde(default, skip_serializing_if = "is_standard")]
    pub mel: MelConfig,
    /// Sizes of the generator, with the published field names.
    pub generator: GeneratorConfig,
    /// Sampling of segments.
    pub segments: Segments,
    /// The loss.
    pub loss: VoiceLoss,
    /// The discriminators' part of the loss; no discriminators without this table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<VoiceAdversarial>,
    /// Settings of the optimiser.
    pub optimiser: Optimiser,
}

/// Weights of the losses that need no discriminator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoiceLoss {
    /// Weight of the mean absolute difference of log-mels.
    pub mel: f64,
    /// Weight of the multi-resolution STFT loss.
    #[serde(default)]
    pub stft: f64,
}

/// The discriminators and their part of the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoiceAdversarial {
    /// Weight of the generator's least-squares loss, summed over the discriminators.
    pub weight: f64,
    /// Weight of feature matching, summed over the discriminators and their layers.
    pub feature_matching: f64,
    /// Step from which the discriminators are trained and used in the loss.
    pub start_step: u64,
    /// Learning rate of their AdamW optimiser at the first step. It decays like that of the generator.
    pub learning_rate: f64,
    /// Kinds and sizes of the discriminators.
    pub discriminators: DiscriminatorsConfig,
}

impl VoiceAdversarial {
    /// Settings for adversarial training; `optimiser` is that of the generator.
    pub fn config(&self, optimiser: &Optimiser) -> AdversaryConfig {
        AdversaryConfig {
            weight: self.weight,
            feature_matching: self.feature_matching,
            start_step: self.start_step,
            relative_rate: self.learning_rate / optimiser.learning_rate,
        }
    }
}

impl VoiceRecipe {
    /// Checks that the recipe can be trained.
    pub fn check(&self) -> Result<()> {
        self.generator.validate()?;
        let mel = &self.mel;
        let found = (self.generator.n_mels, self.generator.hop_length());
        ensure!(
            found == (mel.n_mels, mel.hop_length),
            "expected a generator for {} bands and a hop of {} samples, found {} and {}",
            mel.n_mels,
            mel.hop_length,
            found.0,
            found.1
        );
        self.segments
            .check(STFT_SIZES[0].max(mel.n_fft).div_ceil(mel.hop_length))?;
        let VoiceLoss { mel, stft } = self.loss;
        ensure!(
            mel >= 0.0 && stft >= 0.0,
            "mel and stft must be at least 0, found {mel} and {stft}"
        );
        if let Some(adversarial) = &self.adversarial {
            let VoiceAdversarial {
                weight,
                feature_matching,
                learning_rate,
                ..
            } = *adversarial;
            ensure!(
                weight >= 0.0 && feature_matching >= 0.0 && learning_rate > 0.0,
                "weight and feature_matching must be at least 0 and learning_rate above 0, found {weight}, \
                 {feature_matching} and {learning_rate}"
            );
            adversarial
                .discriminators
                .check(self.segments.frames * self.generator.hop_length())?;
        }
        Ok(())
    }
}
