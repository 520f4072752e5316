//! Recipes for content and instrument of a clip ([`crate::lord`]).

use std::f64::consts::PI;

use anyhow::{Result, ensure};
use model_runtime::lord::LordConfig;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;

use super::is_standard;
use super::optimiser::Intervals;
use crate::discriminator::MIN_FRAMES;
use crate::lord::classifier::ClassifierConfig;
use crate::lord::loss::LordLoss;
use crate::lord::material::ClipSettings;
use crate::optim::AdamConfig;

/// A recipe for a model of content and instruments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LordRecipe {
    /// Name of the trained model.
    pub name: String,
    /// Seed of all random numbers but those of the clips.
    pub seed: u64,
    /// Clips per step.
    pub batch: usize,
    /// Mean of the log-mels of the clips, in nepers.
    pub mel_mean: f64,
    /// Their standard deviation, in nepers.
    pub mel_deviation: f64,
    /// Sizes of the networks.
    pub lord: LordConfig,
    /// The mel spectrogram.
    #[serde(default, skip_serializing_if = "is_standard")]
    pub mel: MelConfig,
    /// The clips.
    pub clips: ClipSettings,
    /// The codes.
    pub codes: CodeSettings,
    /// The classifier whose features are compared.
    pub classifier: ClassifierConfig,
    /// Weights of the reconstruction loss.
    pub loss: LordLoss,
    /// Latent optimisation: the codes of the clips, and the generator.
    pub stage_1: FirstStage,
    /// The encoders, and the generator again.
    pub stage_2: SecondStage,
    /// Steps between checkpoints and validations.
    pub intervals: Intervals,
}

/// The codes of the first stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeSettings {
    /// Where the content codes come from.
    pub content: ContentCodes,
    /// What keeps them from holding more than they must.
    pub noise: Noise,
    /// Weight of the sum of squares of a content code, or of its divergence from the standard normal.
    pub decay: f64,
}

/// Where the content codes of the first stage come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentCodes {
    /// One for each clip, optimised with the generator.
    Table,
    /// The encoder, from the first step on: the ablation "amortised".
    Encoder,
}

/// The noise on the content codes in the first stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// Of variance 1, and decay of the codes.
    Fixed,
    /// Of a variance of its own for each value, with the divergence from the standard normal: the ablation "KL".
    Kl,
}

/// Optimisation in the first stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstStage {
    /// Its steps.
    pub steps: u64,
    /// Learning rate of the generator at the first step.
    pub generator_rate: f64,
    /// Learning rate of the codes at the first step.
    pub code_rate: f64,
    /// Learning rates at the last step.
    pub rate_floor: f64,
    /// Decay of the gradients' first and second moments per step.
    pub betas: [f64; 2],
}

/// Optimisation in the second stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondStage {
    /// Its steps.
    pub steps: u64,
    /// Learning rate at its first step.
    pub rate: f64,
    /// Learning rate at its last step.
    pub rate_floor: f64,
    /// Decay of the gradients' first and second moments per step.
    pub betas: [f64; 2],
    /// Whether noise and decay go on, now of the codes that the encoder gives.
    #[serde(default)]
    pub noise: bool,
    /// Weight of the mean squared distance of the content encoder to the table.
    pub content: f64,
    /// The same for the class encoder.
    pub class: f64,
    /// Weight of the least-squares adversary.
    pub adversary: f64,
    /// Channels of the discriminator's first layer.
    pub adversary_channels: usize,
    /// Step of this stage from which the adversary takes part.
    pub adversary_start: u64,
    /// Learning rate of the discriminator relative to that of the networks.
    pub adversary_rate: f64,
    /// Weight of the loss that takes the instrument out of the content codes ([`crate::lord::confusion`]).
    #[serde(default)]
    pub confusion: f64,
    /// Step of this stage from which that loss takes part.
    #[serde(default)]
    pub confusion_start: u64,
    /// Learning rate of its classifier relative to that of the networks.
    #[serde(default)]
    pub confusion_rate: f64,
    /// Step of this stage at which the content codes are confined to the directions in which they vary most then, if the networks
    /// have a `content_rank`.
    #[serde(default)]
    pub rank_start: u64,
}

/// Falls from `first` to `last` like half a cosine.
fn cosine(first: f64, last: f64, step: u64, steps: u64) -> f64 {
    let done = (step as f64 / steps as f64).min(1.0);
    last + (first - last) * 0.5 * (1.0 + (PI * done).cos())
}

fn adam(betas: [f64; 2]) -> AdamConfig {
    AdamConfig {
        rectified: false,
        weight_decay: 0.0,
        betas: betas.into(),
        clip_norm: f64::INFINITY,
        amsgrad: false,
        average_decay: None,
    }
}

impl FirstStage {
    /// The learning rates of generator and codes at a step.
    pub fn rates(&self, step: u64) -> [f64; 2] {
        [self.generator_rate, self.code_rate]
            .map(|rate| cosine(rate, self.rate_floor, step, self.steps))
    }

    /// The optimiser.
    pub fn adam(&self) -> AdamConfig {
        adam(self.betas)
    }
}

impl SecondStage {
    /// The learning rate at a step of this stage.
    pub fn rate(&self, step: u64) -> f64 {
        cosine(self.rate, self.rate_floor, step, self.steps)
    }

    /// The optimiser.
    pub fn adam(&self) -> AdamConfig {
        adam(self.betas)
    }
}

impl LordRecipe {
    /// Steps of both stages.
    pub fn steps(&self) -> u64 {
        self.stage_1.steps + self.stage_2.steps
    }

    /// Steps of both stages before the content codes are confined, if they are.
    pub fn confined_after(&self) -> Option<u64> {
        let rank = self.lord.content_rank;
        rank.map(|_| self.stage_1.steps + self.stage_2.rank_start)
    }

    /// Sizes, codes and classifier, and when codes are confined, as text.
    pub fn trained(&self) -> String {
        let Self {
            lord,
            codes,
            classifier,
            ..
        } = self;
        let clips = self.clips.programs.len() * self.clips.melodies;
        // With another step, a resumed run might have missed it.
        let confined = match self.confined_after() {
            Some(steps) => format!(", confined after {steps} steps"),
            None => String::new(),
        };
        format!(
            "{lord:?}, {:?} and {:?} for {clips} clips{confined}, {classifier:?}",
            codes.content, codes.noise
        )
    }

    /// Checks that the recipe can be trained.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first setting that is out of range.
    pub fn check(&self) -> Result<()> {
        self.lord.validate(&self.mel)?;
        self.clips.check()?;
        self.classifier.check(&self.lord)?;
        ensure!(self.batch > 0, "batch must be at least 1, found 0");
        ensure!(
            self.mel_mean.is_finite() && self.mel_deviation > 0.0 && self.mel_deviation.is_finite(),
            "expected a finite mel_mean and a mel_deviation above 0, found {} and {}",
            self.mel_mean,
            self.mel_deviation
        );
        let LordLoss {
            l1,
            features,
            frobenius,
        } = self.loss;
        let SecondStage {
            content,
            class,
            adversary,
            confusion,
            confusion_rate,
            ..
        } = self.stage_2;
        for (name, weight) in [
            ("codes.decay", self.codes.decay),
            ("loss.l1", l1),
            ("loss.features", features),
            ("loss.frobenius", frobenius),
            ("stage_2.content", content),
            ("stage_2.class", class),
            ("stage_2.adversary", adversary),
            ("stage_2.confusion", confusion),
            ("stage_2.confusion_rate", confusion_rate),
        ] {
            ensure!(
                weight >= 0.0 && weight.is_finite(),
                "{name} must be at least 0, found {weight}"
            );
        }
        ensure!(
            self.stage_1.steps > 0 && self.stage_2.steps > 0,
            "each stage must have a step at least, found {} and {}",
            self.stage_1.steps,
            self.stage_2.steps
        );
        let clips = self.clips.programs.len() * self.clips.melodies;
        let rank = self.lord.content_rank.unwrap_or(0);
        ensure!(
            rank < clips,
            "lord.content_rank: expected less than the {clips} clips, found {rank}"
        );
        let rank_starts = match self.lord.content_rank {
            Some(_) => 1..self.stage_2.steps,
            None => 0..1,
        };
        ensure!(
            rank_starts.contains(&self.stage_2.rank_start),
            "stage_2.rank_start: expected a step after the first of stage 2 with lord.content_rank, and none without, found {}",
            self.stage_2.rank_start
        );
        ensure!(
            confusion == 0.0 || confusion_rate > 0.0,
            "stage_2.confusion needs a confusion_rate above 0, found {confusion_rate}"
        );
        ensure!(
            adversary == 0.0 || self.lord.n_mels.min(self.lord.frames) >= MIN_FRAMES,
            "an adversary needs {MIN_FRAMES} bands and frames, found {} and {}",
            self.lord.n_mels,
            self.lord.frames
        );
        let Intervals {
            checkpoint_steps,
            validation_steps,
        } = self.intervals;
        ensure!(
            checkpoint_steps > 0 && validation_steps > 0,
            "checkpoint_steps and validation_steps must be at least 1, found {checkpoint_steps} and {validation_steps}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recipe;
    use super::*;
    use candle_core::Device;
    use model_runtime::lord::Generator;

    use crate::parameters::Parameters;

    fn parse(text: &str) -> Result<LordRecipe> {
        match Recipe::parse(text)? {
            Recipe::Lord(recipe) => Ok(*recipe),
            other => panic!("{other:?}"),
        }
    }

    fn generator_weights(recipe: &LordRecipe) -> usize {
        let parameters = Parameters::new(1);
        Generator::new(&recipe.lord, &parameters.builder(&Device::Cpu)).unwrap();
        parameters.vars().values().map(|var| var.elem_count()).sum()
    }

    #[test]
    fn the_recipes_are_that_of_the_public_code_and_a_smaller_one() {
        let full = parse(include_str!("../../../recipes/lord.toml")).unwrap();
        assert_eq!(generator_weights(&full), 18_175_360);
        let lord = &full.lord;
        assert_eq!(lord.content_channels * lord.content_frames, 512);
        assert_eq!([lord.class_size, lord.n_mels, lord.frames], [256, 128, 128]);
        let small = parse(include_str!("../../../recipes/lord-small.toml")).unwrap();
        let weights = generator_weights(&small);
        assert!(weights < 1_000_000, "{weights}");
        assert_eq!(
            small.codes,
            CodeSettings {
                decay: small.codes.decay,
                ..full.codes
            }
        );
    }

    #[test]
    fn recipes_that_cannot_be_trained_are_rejected() {
        let text = include_str!("../../../recipes/lord-small.toml");
        for (found, changed) in [
            ("content = \"table\"", "content = \"tables\""),
            ("content_frames = 16", "content_frames = 15"),
            ("frobenius = 0.08", "frobenius = -1.0"),
            ("keys = [60, 76]", "keys = [20, 76]"),
            ("held_out_programs = [12,", "held_out_programs = [0,"),
            ("held_out_keys = [63, 70]", "held_out_keys = []\nmore = 1"),
            ("checkpoint_steps = 250", "checkpoint_steps = 0"),
            ("mel_deviation = ", "mel_deviation = -"),
            ("channels = 12", "channels = 0"),
            ("confusion_rate = 2.0", "confusion_rate = 0.0"),
            ("content_rank = 96", "content_rank = 1025"),
            ("rank_start = 3750", "rank_start = 5000"),
            ("rank_start = 3750", "rank_start = 0"),
            ("melodies = 128", "melodies = 6"),
            ("content_rank = 96\n", ""),
        ] {
            assert!(text.contains(found), "{found}");
            assert!(
                parse(&text.replacen(found, changed, 1)).is_err(),
                "{changed}"
            );
        }
    }

    #[test]
    fn rates_fall_like_half_a_cosine() {
        let found = [0, 50, 100, 200].map(|step| cosine(1.0, 0.2, step, 100));
        for (found, expected) in found.into_iter().zip([1.0, 0.6, 0.2, 0.2]) {
            assert!((found - expected).abs() < 1e-12, "{found}, {expected}");
        }
    }
}
