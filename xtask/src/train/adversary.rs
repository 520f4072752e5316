//! Adversarial training: the discriminator with its optimiser, and its turn in each step.
//!
//! In one step the discriminator first judges the true and the decoded mel, and what it says of the decoded one enters
//! the network's loss with the discriminator's weights held fixed. When the network has taken its step, the
//! discriminator takes its own, on the same two mels, the decoded one detached. HARD's public code lets the
//! discriminator go first; here one judgement of the true mel serves both.

use std::collections::HashMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use serde::Serialize;

use super::discriminator::{
    Discriminator, Judge, Verdict, discriminator_loss, feature_matching, generator_loss,
};
use super::optim::{RAdam, RAdamConfig};
use super::parameters::Parameters;
use super::recipe::{Adversarial, Recipe};

/// What the discriminator's state begins with in a checkpoint.
const PREFIX: &str = "discriminator/";

/// The discriminator in training.
pub struct Adversary {
    settings: Adversarial,
    /// Its learning rate over the network's.
    relative_rate: f64,
    discriminator: Discriminator,
    optimiser: RAdam,
}

/// What the discriminator said in a step, before its own turn.
pub struct Trial {
    /// What the network's loss gets on top, weighted.
    pub loss: Tensor,
    generator: Tensor,
    feature_matching: Tensor,
    judge: Judge,
    real: Verdict,
    decoded: Tensor,
}

/// Figures of one step, weighted by nothing.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AdversarialFigures {
    /// Least-squares loss of the network.
    pub generator: f32,
    /// Difference of the discriminator's features between decoded and true mels.
    pub feature_matching: f32,
    /// Least-squares loss of the discriminator: 0.5 when it cannot tell, 0 when it always can.
    pub discriminator: f32,
    /// Mean score of true mels.
    pub real_score: f32,
    /// Mean score of decoded mels.
    pub decoded_score: f32,
    /// Norm of the discriminator's gradients.
    pub gradient_norm: f64,
}

impl Adversary {
    /// The discriminator of a recipe, if it has one: as the checkpoint left it, or a new one if the checkpoint has
    /// none.
    ///
    /// # Errors
    /// If the checkpoint's does not fit.
    pub fn new(
        recipe: &Recipe,
        device: &Device,
        checkpoint: Option<&HashMap<String, Tensor>>,
    ) -> Result<Option<Self>> {
        let Some(settings) = recipe.adversarial.clone() else {
            return Ok(None);
        };
        let parameters = Parameters::new(recipe.crops.seed);
        let discriminator = Discriminator::new(settings.channels, &parameters.builder(device))?;
        let config = RAdamConfig {
            betas: recipe.optimiser.betas.into(),
            clip_norm: recipe.optimiser.clip_norm,
            average_decay: None,
        };
        let mut adversary = Self {
            relative_rate: settings.learning_rate / recipe.optimiser.learning_rate,
            optimiser: RAdam::new(&parameters, config)?,
            discriminator,
            settings,
        };
        let state: HashMap<_, _> = checkpoint
            .into_iter()
            .flatten()
            .filter_map(|(name, tensor)| {
                Some((name.strip_prefix(PREFIX)?.to_owned(), tensor.clone()))
            })
            .collect();
        if !state.is_empty() {
            adversary
                .restore(&state)
                .context("the checkpoint's discriminator is another than the recipe's")?;
        }
        Ok(Some(adversary))
    }

    /// Whether it takes part in the step after `step` steps.
    pub fn takes_part(&self, step: u64) -> bool {
        step >= self.settings.start_step
    }

    /// Judges a true and a decoded log-mel (B, 1, n_mels, T).
    ///
    /// # Errors
    /// If a crop is too short.
    pub fn judge(&mut self, target: &Tensor, decoded: &Tensor) -> Result<Trial> {
        self.discriminator.iterate()?;
        let judge = self.discriminator.judge()?;
        let real = judge.look(target)?;
        let verdict = judge.frozen().look(decoded)?;
        let generator = generator_loss(&verdict)?;
        let feature_matching = feature_matching(&real, &verdict)?;
        Ok(Trial {
            loss: ((&generator * self.settings.weight)?
                + (&feature_matching * self.settings.feature_matching)?)?,
            generator,
            feature_matching,
            judge,
            real,
            decoded: decoded.detach(),
        })
    }

    /// The discriminator's own step, at the network's learning rate.
    ///
    /// # Errors
    /// If its gradients are not finite.
    pub fn step(&mut self, trial: &Trial, learning_rate: f64) -> Result<AdversarialFigures> {
        let decoded = trial.judge.look(&trial.decoded)?;
        let loss = discriminator_loss(&trial.real, &decoded)?;
        let gradient_norm = self
            .optimiser
            .step(&loss.backward()?, learning_rate * self.relative_rate)
            .context("in the discriminator")?;
        Ok(AdversarialFigures {
            generator: trial.generator.to_scalar()?,
            feature_matching: trial.feature_matching.to_scalar()?,
            discriminator: loss.to_scalar()?,
            real_score: trial.real.scores.mean_all()?.to_scalar()?,
            decoded_score: decoded.scores.mean_all()?.to_scalar()?,
            gradient_norm,
        })
    }

    /// Everything that a resumed run needs, by name.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = self.optimiser.state()?;
        state.extend(self.discriminator.state());
        state.insert(
            "steps".to_owned(),
            Tensor::new(self.optimiser.steps() as i64, &Device::Cpu)?,
        );
        Ok(state
            .into_iter()
            .map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor))
            .collect())
    }

    fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        let steps = state.get("steps").context("expected a tensor \"steps\"")?;
        self.optimiser
            .restore(state, steps.to_scalar::<i64>()? as u64)?;
        self.discriminator.restore(state)
    }
}
