//! A recipe for a HiFi-GAN voice.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;
use vocoder::generator::GeneratorConfig;

use super::discriminators::DiscriminatorsConfig;
use super::spectra::STFT_SIZES;
use crate::recipe::Optimiser;

/// How a voice is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoiceRecipe {
    /// Name of the voice.
    pub name: String,
    /// The generator, by its published names.
    pub generator: GeneratorConfig,
    /// How segments are drawn.
    pub segments: Segments,
    /// What is minimised.
    pub loss: VoiceLoss,
    /// What discriminators add to it; none take part without this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<VoiceAdversarial>,
    /// How it is minimised.
    pub optimiser: Optimiser,
}

/// How segments are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segments {
    /// Start of all random numbers.
    pub seed: u64,
    /// Segments a step.
    pub batch: usize,
    /// Mel frames a segment.
    pub frames: usize,
    /// A segment's level changes by up to this much either way, as far as it stays below full scale.
    pub gain_nepers: f32,
    /// Share of the segments whose mels are decoded, where a model is given that decodes them (`--from`).
    #[serde(default = "all")]
    pub decoded_share: f64,
}

fn all() -> f64 {
    1.0
}

impl Segments {
    /// Refuses what cannot be drawn.
    pub fn check(&self, least_frames: usize) -> Result<()> {
        let Self {
            batch,
            frames,
            gain_nepers,
            decoded_share,
            ..
        } = *self;
        ensure!(
            batch > 0 && frames >= least_frames,
            "expected a batch of at least one segment of at least {least_frames} frames, found {batch} of {frames}"
        );
        ensure!(
            gain_nepers >= 0.0 && gain_nepers.is_finite(),
            "expected a gain of 0 nepers or more, found {gain_nepers}"
        );
        ensure!(
            (0.0..=1.0).contains(&decoded_share),
            "expected a decoded_share of 0 to 1, found {decoded_share}"
        );
        Ok(())
    }
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

/// Discriminators, and what they add to the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoiceAdversarial {
    /// Weight of the generator's least-squares loss, summed over the discriminators.
    pub weight: f64,
    /// Weight of feature matching, summed over the discriminators and their layers.
    pub feature_matching: f64,
    /// The discriminators take part, and begin to learn, after so many steps.
    pub start_step: u64,
    /// AdamW's learning rate for them at the first step; it falls as the generator's does.
    pub learning_rate: f64,
    /// Which discriminators.
    pub discriminators: DiscriminatorsConfig,
}

impl VoiceRecipe {
    /// Refuses what cannot be trained.
    pub fn check(&self) -> Result<()> {
        self.generator.validate()?;
        let mel = MelConfig::default();
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
            "expected loss weights of 0 or more, found {mel} and {stft}"
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
                "expected adversarial weights of 0 or more and a learning rate above 0, found {weight}, \
                 {feature_matching} and {learning_rate}"
            );
            adversarial
                .discriminators
                .check(self.segments.frames * self.generator.hop_length())?;
        }
        Ok(())
    }
}
