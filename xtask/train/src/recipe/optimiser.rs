//! How a loss is minimised.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::optim::AdamConfig;

/// Settings of the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimiser {
    /// Learning rate at the first step, of RAdam for a network, of AdamW for a voice.
    pub learning_rate: f64,
    /// It halves every so many steps,
    pub half_life_steps: f64,
    /// until it reaches this.
    pub learning_rate_floor: f64,
    /// Decay of the gradients' first and second moments, a step.
    pub betas: [f64; 2],
    /// Share of the weights that a step at a learning rate of one would take off, apart from the gradients.
    #[serde(default)]
    pub weight_decay: f64,
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Decay of the averaged weights that are exported, a step.
    pub average_decay: f64,
    /// A checkpoint every so many steps,
    pub checkpoint_steps: u64,
    /// and a validation every so many.
    pub validation_steps: u64,
}

impl Optimiser {
    /// Refuses what minimises nothing.
    pub fn check(&self) -> Result<()> {
        let Self {
            learning_rate,
            half_life_steps,
            weight_decay,
            checkpoint_steps,
            validation_steps,
            ..
        } = *self;
        ensure!(
            learning_rate > 0.0 && half_life_steps > 0.0,
            "expected a learning rate and half life above 0, found {learning_rate} and {half_life_steps}"
        );
        ensure!(
            weight_decay >= 0.0,
            "expected a weight decay of 0 or more, found {weight_decay}"
        );
        ensure!(
            checkpoint_steps > 0 && validation_steps > 0,
            "expected checkpoints and validations at least every step, found 0"
        );
        Ok(())
    }

    /// Learning rate at a step.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let rate = self.learning_rate * (-(step as f64) / self.half_life_steps).exp2();
        rate.max(self.learning_rate_floor)
    }

    /// Adam with these settings.
    pub fn adam(&self) -> AdamConfig {
        AdamConfig {
            rectified: false,
            weight_decay: self.weight_decay,
            betas: self.betas.into(),
            clip_norm: self.clip_norm,
            average_decay: Some(self.average_decay),
        }
    }
}
