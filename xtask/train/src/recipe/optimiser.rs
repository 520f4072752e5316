//! Settings of the optimiser in recipes.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::optim::AdamConfig;

/// Settings of the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimiser {
    /// Learning rate at the first step (RAdam for a network, AdamW for a voice).
    pub learning_rate: f64,
    /// Steps after which the learning rate has halved.
    pub half_life_steps: f64,
    /// Lower limit of the learning rate.
    pub learning_rate_floor: f64,
    /// Decay of the gradients' first and second moments per step.
    pub betas: [f64; 2],
    /// Decoupled weight decay: a step reduces the weights by this share times the learning rate.
    #[serde(default)]
    pub weight_decay: f64,
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Largest second moment so far instead of the latest (Reddi et al., "On the Convergence of Adam and Beyond", ICLR 2018).
    #[serde(default)]
    pub amsgrad: bool,
    /// Decay per step of the averaged weights, which are exported. Only recipes on notes may go without.
    pub average_decay: Option<f64>,
    /// Steps between checkpoints.
    pub checkpoint_steps: u64,
    /// Steps between validations.
    pub validation_steps: u64,
}

/// Steps between checkpoints and validations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervals {
    /// Steps between checkpoints.
    pub checkpoint_steps: u64,
    /// Steps between validations.
    pub validation_steps: u64,
}

impl Optimiser {
    /// Checks the settings.
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
            "learning_rate and half_life_steps must be above 0, found {learning_rate} and {half_life_steps}"
        );
        ensure!(
            weight_decay >= 0.0,
            "weight_decay must be at least 0, found {weight_decay}"
        );
        ensure!(
            checkpoint_steps > 0 && validation_steps > 0,
            "checkpoint_steps and validation_steps must be at least 1, found 0"
        );
        Ok(())
    }

    /// Learning rate at a step.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let rate = self.learning_rate * (-(step as f64) / self.half_life_steps).exp2();
        rate.max(self.learning_rate_floor)
    }

    /// Steps between checkpoints and validations.
    pub fn intervals(&self) -> Intervals {
        Intervals {
            checkpoint_steps: self.checkpoint_steps,
            validation_steps: self.validation_steps,
        }
    }

    /// Adam with these settings.
    pub fn adam(&self) -> AdamConfig {
        AdamConfig {
            rectified: false,
            weight_decay: self.weight_decay,
            betas: self.betas.into(),
            clip_norm: self.clip_norm,
            amsgrad: self.amsgrad,
            average_decay: self.average_decay,
        }
    }
}
