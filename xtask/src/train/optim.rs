//! RAdam (Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020) as PyTorch writes it, with
//! clipping by the global norm, and an exponential moving average of the weights.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::parameters::Parameters;

/// Guards the division by the root of the second moment.
const EPSILON: f64 = 1e-8;

struct Slot {
    var: Var,
    first_moment: Tensor,
    second_moment: Tensor,
    average: Tensor,
}

/// Settings of [`RAdam`].
#[derive(Clone, Copy, Debug)]
pub struct RAdamConfig {
    /// Decay of the first and second moments.
    pub betas: (f64, f64),
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Decay of the averaged weights, a step.
    pub average_decay: f64,
}

/// The optimiser with its state for each variable.
pub struct RAdam {
    config: RAdamConfig,
    slots: BTreeMap<String, Slot>,
    steps: u64,
}

impl RAdam {
    /// Starts with empty moments and the average at the present weights.
    pub fn new(parameters: &Parameters, config: RAdamConfig) -> Result<Self> {
        let slots = parameters
            .vars()
            .into_iter()
            .map(|(name, var)| {
                let slot = Slot {
                    first_moment: var.zeros_like()?,
                    second_moment: var.zeros_like()?,
                    average: var.as_detached_tensor().copy()?,
                    var,
                };
                Ok((name, slot))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            config,
            slots,
            steps: 0,
        })
    }

    /// Updates every variable that has a gradient; returns the gradients' global norm before clipping.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<f64> {
        let mut squares = 0.0;
        for slot in self.slots.values() {
            if let Some(gradient) = gradients.get(&slot.var) {
                squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
            }
        }
        let norm = squares.sqrt();
        anyhow::ensure!(
            norm.is_finite(),
            "the gradients are not finite (norm {norm})"
        );
        let clip = (self.config.clip_norm / (norm + EPSILON)).min(1.0);

        self.steps += 1;
        let (beta1, beta2) = self.config.betas;
        let t = self.steps as f64;
        let correction1 = 1.0 - beta1.powf(t);
        let correction2 = 1.0 - beta2.powf(t);
        let rho_limit = 2.0 / (1.0 - beta2) - 1.0;
        let rho = rho_limit - 2.0 * t * beta2.powf(t) / correction2;
        let rectification = (rho > 5.0).then(|| {
            ((rho - 4.0) * (rho - 2.0) * rho_limit / ((rho_limit - 4.0) * (rho_limit - 2.0) * rho))
                .sqrt()
        });
        // Early averages would be made of the starting point alone.
        let decay = self.config.average_decay.min((1.0 + t) / (10.0 + t));
        for slot in self.slots.values_mut() {
            if let Some(gradient) = gradients.get(&slot.var) {
                let gradient = (gradient.detach() * clip)?;
                slot.first_moment = ((&slot.first_moment * beta1)? + (&gradient * (1.0 - beta1))?)?;
                slot.second_moment =
                    ((&slot.second_moment * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
                let update = match rectification {
                    Some(rectification) => {
                        let root = (slot.second_moment.sqrt()? + EPSILON)?;
                        ((&slot.first_moment / root)? * (rectification * correction2.sqrt()))?
                    }
                    None => slot.first_moment.clone(),
                };
                let value = slot.var.as_detached_tensor();
                slot.var
                    .set(&(value - (update * (learning_rate / correction1))?)?)?;
            }
            let value = slot.var.as_detached_tensor();
            slot.average = ((&slot.average * decay)? + (value * (1.0 - decay))?)?;
        }
        Ok(norm)
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The averaged weights by name.
    pub fn averages(&self) -> HashMap<String, Tensor> {
        self.slots
            .iter()
            .map(|(name, slot)| (name.clone(), slot.average.clone()))
            .collect()
    }

    /// Everything that a resumed run needs, by prefixed name.
    pub fn state(&self) -> HashMap<String, Tensor> {
        let mut state = HashMap::new();
        for (name, slot) in &self.slots {
            state.insert(format!("weight/{name}"), slot.var.as_detached_tensor());
            state.insert(format!("moment1/{name}"), slot.first_moment.clone());
            state.insert(format!("moment2/{name}"), slot.second_moment.clone());
            state.insert(format!("average/{name}"), slot.average.clone());
        }
        state
    }

    /// Restores what [`Self::state`] gave after `steps` steps.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>, steps: u64) -> Result<()> {
        let fetch = |prefix: &str, name: &str, like: &Tensor| -> Result<Tensor> {
            let key = format!("{prefix}/{name}");
            let tensor = state
                .get(&key)
                .with_context(|| format!("expected a tensor \"{key}\""))?;
            anyhow::ensure!(
                tensor.dims() == like.dims(),
                "{key}: expected shape {:?}, found {:?}",
                like.dims(),
                tensor.dims()
            );
            Ok(tensor.to_device(like.device())?)
        };
        for (name, slot) in &mut self.slots {
            slot.var.set(&fetch("weight", name, &slot.var)?)?;
            slot.first_moment = fetch("moment1", name, &slot.var)?;
            slot.second_moment = fetch("moment2", name, &slot.var)?;
            slot.average = fetch("average", name, &slot.var)?;
        }
        self.steps = steps;
        Ok(())
    }
}
