//! Adversarial training: discriminators with their optimiser, and their turn in each step.
//!
//! In one step the discriminators first judge the true and the generated, and what they say of the generated enters the
//! network's loss with the discriminators' weights held fixed. When the network has taken its step, the discriminators take
//! their own, on the same two, the generated one detached. The public codes of HARD and HiFi-GAN let the discriminators go
//! first; here one judgement of the true serves both.

use std::collections::HashMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use serde::Serialize;

use crate::critic::{Critic, Judge, Verdict, discriminator_loss, feature_matching, generator_loss};
use crate::optim::{Adam, AdamConfig};
use crate::parameters::Parameters;

/// What the discriminators' state begins with in a checkpoint.
const PREFIX: &str = "discriminator/";

/// What an adversary adds to the loss, and when.
#[derive(Clone, Copy, Debug)]
pub struct AdversaryConfig {
    /// Weight of the least-squares loss.
    pub weight: f64,
    /// Weight of feature matching.
    pub feature_matching: f64,
    /// It takes part after so many steps.
    pub start_step: u64,
    /// Its learning rate over the network's.
    pub relative_rate: f64,
}

/// Discriminators in training.
pub struct Adversary<C> {
    config: AdversaryConfig,
    critic: C,
    optimiser: Adam,
}

/// What the discriminators said in a step, before their own turn.
pub struct Trial<J> {
    /// What the network's loss gets on top, weighted.
    pub loss: Tensor,
    generator: Tensor,
    feature_matching: Tensor,
    judge: J,
    real: Vec<Verdict>,
    generated: Tensor,
}

/// Figures of one step, weighted by nothing; those of several discriminators are added up, but for the scores.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AdversarialFigures {
    /// Least-squares loss of the network.
    pub generator: f32,
    /// Difference of the discriminators' features between the generated and the true.
    pub feature_matching: f32,
    /// Least-squares loss of the discriminators, for each: 0.5 when it cannot tell, 0 when it always can.
    pub discriminator: f32,
    /// Mean score of the true.
    pub real_score: f32,
    /// Mean score of the generated.
    pub decoded_score: f32,
    /// Norm of the discriminators' gradients.
    pub gradient_norm: f64,
}

impl<C: Critic> Adversary<C> {
    /// What `critic` makes of weights on the device: as the checkpoint left them, or drawn from the seed if it has none.
    ///
    /// # Errors
    /// If the critic cannot be made, or the checkpoint's does not fit.
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

    /// Whether it takes part in the step after `step` steps.
    pub fn takes_part(&self, step: u64) -> bool {
        step >= self.config.start_step
    }

    /// Judges a true and a generated batch of the same shape.
    ///
    /// # Errors
    /// If it is too short.
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

    /// The discriminators' own step, at the network's learning rate.
    ///
    /// # Errors
    /// If their gradients are not finite.
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
        // Read at once, with the backward pass under way: a GPU is waited for.
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

    /// Everything that a resumed run needs, by name.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
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
