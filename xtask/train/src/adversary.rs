//! Adversarial training: discriminators, their optimiser, and their part of each step.
//!
//! In each step, the discriminators first score the real and the generated batch. The scores of the generated batch
//! enter the network's loss, with the discriminators' weights fixed. After the network's step, the discriminators
//! take their own step on the same two batches, with the generated one detached. The public code of HARD and of
//! HiFi-GAN updates the discriminators first; here the real batch is evaluated only once per step.

use std::collections::HashMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use serde::Serialize;

use crate::critic::{Critic, Judge, Verdict, discriminator_loss, feature_matching, generator_loss};
use crate::optim::{Adam, AdamConfig};
use crate::parameters::Parameters;

/// Prefix of the discriminators' state in a checkpoint.
const PREFIX: &str = "discriminator/";

/// Settings for adversarial training.
#[derive(Clone, Copy, Debug)]
pub struct AdversaryConfig {
    /// Weight of the least-squares loss.
    pub weight: f64,
    /// Weight of feature matching.
    pub feature_matching: f64,
    /// Step from which the discriminators are used.
    pub start_step: u64,
    /// Learning rate relative to that of the network.
    pub relative_rate: f64,
}

/// Discriminators in training.
pub struct Adversary<C> {
    config: AdversaryConfig,
    critic: C,
    optimiser: Adam,
}

/// Output of the discriminators in a step, before their own update.
pub struct Trial<J> {
    /// Weighted term for the network's loss.
    pub loss: Tensor,
    generator: Tensor,
    feature_matching: Tensor,
    judge: J,
    real: Vec<Verdict>,
    generated: Tensor,
}

/// Unweighted figures of one step. Losses are summed over the discriminators; scores are averaged.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AdversarialFigures {
    /// Least-squares loss of the network.
    pub generator: f32,
    /// Difference of the discriminators' features between generated and real batch.
    pub feature_matching: f32,
    /// Least-squares loss of the discriminators: for each, 0.5 if it cannot distinguish real from generated, 0 if it
    /// always can.
    pub discriminator: f32,
    /// Mean score of the real batch.
    pub real_score: f32,
    /// Mean score of the generated batch.
    pub decoded_score: f32,
    /// Norm of the discriminators' gradients.
    pub gradient_norm: f64,
}

impl<C: Critic> Adversary<C> {
    /// Creates the discriminators with `critic`, with weights from the checkpoint or, if it has none, random weights
    /// from the seed.
    ///
    /// # Errors
    ///
    /// Returns an error if the critic cannot be created or does not match the checkpoint.
    pub fn new(
        config: AdversaryConfig,
        optimiser: AdamConfig,
        seed: u64,
        device: &Device,
        critic: impl FnOnce(&VarBuilder) -> Result<C>,
        checkpoint: Option<&HashMap<String, Tensor>>,
    ) -> Result<Self> {
        let parameters = Parameters::new(seed);
        let critic = critic(&parameters.builder(device))?;
        let optimiser = AdamConfig {
            amsgrad: false,
            average_decay: None,
            ..optimiser
        };
        let mut adversary = Self {
            config,
            optimiser: Adam::new(&parameters, optimiser)?,
            critic,
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
                .context("the discriminator of the checkpoint differs from the recipe's")?;
        }
        Ok(adversary)
    }

    /// Whether the discriminators are used in the step after `step` steps.
    pub fn takes_part(&self, step: u64) -> bool {
        step >= self.config.start_step
    }

    /// Evaluates a real and a generated batch of the same shape.
    ///
    /// # Errors
    ///
    /// Returns an error if the batch is too short.
    pub fn judge(&mut self, target: &Tensor, generated: &Tensor) -> Result<Trial<C::Judge>> {
        self.critic.iterate()?;
        let judge = self.critic.judge()?;
        let real = judge.look(target)?;
        let verdicts = judge.frozen().look(generated)?;
        let generator = sum(verdicts.iter().map(generator_loss))?;
        let pairs = real.iter().zip(&verdicts);
        let feature_matching =
            sum(pairs.map(|(real, generated)| feature_matching(real, generated)))?;
        Ok(Trial {
            loss: ((&generator * self.config.weight)?
                + (&feature_matching * self.config.feature_matching)?)?,
            generator,
            feature_matching,
            judge,
            real,
            generated: generated.detach(),
        })
    }

    /// Updates the discriminators. `learning_rate` is that of the network.
    ///
    /// # Errors
    ///
    /// Returns an error if their gradients are not finite.
    pub fn step(
        &mut self,
        trial: &Trial<C::Judge>,
        learning_rate: f64,
    ) -> Result<AdversarialFigures> {
        let generated = trial.judge.look(&trial.generated)?;
        let pairs = trial.real.iter().zip(&generated);
        let loss = sum(pairs.map(|(real, generated)| discriminator_loss(real, generated)))?;
        let gradients = loss.backward()?;
        let score = |verdicts: &[Verdict]| -> Result<Tensor> {
            let scores = verdicts
                .iter()
                .map(|verdict| Ok(verdict.scores.mean_all()?));
            Ok((sum(scores)? / verdicts.len() as f64)?)
        };
        // Read all figures at once after the backward pass has been queued, because reading waits for the GPU.
        let figures = [
            trial.generator.clone(),
            trial.feature_matching.clone(),
            (loss / generated.len() as f64)?,
            score(&trial.real)?,
            score(&generated)?,
        ];
        let figures: Vec<f32> = Tensor::stack(&figures, 0)?.to_vec1()?;
        let gradient_norm = self
            .optimiser
            .step(&gradients, learning_rate * self.config.relative_rate)
            .context("in the discriminator")?;
        Ok(AdversarialFigures {
            generator: figures[0],
            feature_matching: figures[1],
            discriminator: figures[2],
            real_score: figures[3],
            decoded_score: figures[4],
            gradient_norm,
        })
    }

    /// The tensors that resuming needs, by name.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor cannot be copied.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = self.optimiser.state()?;
        state.extend(self.critic.state());
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
        self.critic.restore(state)
    }
}

/// The sum of scalars.
fn sum(terms: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let terms = terms.collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&terms, 0)?.sum_all()?)
}
