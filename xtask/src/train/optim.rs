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
    average: Option<Tensor>,
}

/// Settings of [`RAdam`].
#[derive(Clone, Copy, Debug)]
pub struct RAdamConfig {
    /// Decay of the first and second moments.
    pub betas: (f64, f64),
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Decay of the averaged weights, a step; none are kept without it.
    pub average_decay: Option<f64>,
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
                let average = config.average_decay.is_some();
                let slot = Slot {
                    first_moment: var.zeros_like()?,
                    second_moment: var.zeros_like()?,
                    average: average
                        .then(|| var.as_detached_tensor().copy())
                        .transpose()?,
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
        let squares = self
            .slots
            .values()
            .filter_map(|slot| gradients.get(&slot.var))
            .map(|gradient| gradient.sqr()?.sum_all())
            .collect::<candle_core::Result<Vec<_>>>()?;
        // Read at once: a GPU is waited for at every reading.
        let squares: Vec<f32> = Tensor::stack(&squares, 0)?.to_vec1()?;
        let norm = squares.into_iter().map(f64::from).sum::<f64>().sqrt();
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
        let decay = |decay: f64| decay.min((1.0 + t) / (10.0 + t));
        let decay = self.config.average_decay.map(decay);
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
            if let (Some(average), Some(decay)) = (&mut slot.average, decay) {
                let value = slot.var.as_detached_tensor();
                *average = ((&*average * decay)? + (value * (1.0 - decay))?)?;
            }
        }
        Ok(norm)
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The averaged weights by name, if they are kept.
    pub fn averages(&self) -> HashMap<String, Tensor> {
        self.slots
            .iter()
            .filter_map(|(name, slot)| Some((name.clone(), slot.average.clone()?)))
            .collect()
    }

    /// Everything that a resumed run needs, by prefixed name.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = HashMap::new();
        for (name, slot) in &self.slots {
            state.insert(
                format!("weight/{name}"),
                slot.var.as_detached_tensor().copy()?,
            );
            state.insert(format!("moment1/{name}"), slot.first_moment.clone());
            state.insert(format!("moment2/{name}"), slot.second_moment.clone());
            if let Some(average) = &slot.average {
                state.insert(format!("average/{name}"), average.clone());
            }
        }
        Ok(state)
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
            if let Some(average) = &mut slot.average {
                *average = fetch("average", name, average)?;
            }
        }
        self.steps = steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_nn::Init;

    const CONFIG: RAdamConfig = RAdamConfig {
        betas: (0.8, 0.99),
        clip_norm: f64::INFINITY,
        average_decay: Some(0.9),
    };

    fn parameters() -> (Parameters, Var) {
        let parameters = Parameters::new(1);
        let builder = parameters.builder(&Device::Cpu);
        builder.get_with_hints(3, "w", Init::Const(0.0)).unwrap();
        let var = parameters.vars()["w"].clone();
        var.set(&Tensor::new(&[1f32, -2.0, 3.0], &Device::Cpu).unwrap())
            .unwrap();
        (parameters, var)
    }

    /// One step on `sum(w^4 / 4 + w sin(step))`.
    fn step(optimiser: &mut RAdam, var: &Var, step: u64) -> f64 {
        let w = var.as_tensor();
        let loss = ((w.sqr().unwrap().sqr().unwrap() * 0.25).unwrap()
            + (w * (step as f64).sin()).unwrap())
        .unwrap();
        let gradients = loss.sum_all().unwrap().backward().unwrap();
        optimiser.step(&gradients, 0.05).unwrap()
    }

    // w = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    // opt = torch.optim.RAdam([w], lr=0.05, betas=(0.8, 0.99), eps=1e-8)
    // for step in range(30):
    //     opt.zero_grad()
    //     (w**4 / 4 + w * torch.sin(torch.tensor(float(step)))).sum().backward()
    //     opt.step()
    //     if step in (3, 29): print(step, w.tolist())
    #[test]
    fn it_steps_as_pytorch_does() {
        let (parameters, var) = parameters();
        let mut optimiser = RAdam::new(&parameters, CONFIG).unwrap();
        for i in 0..30 {
            step(&mut optimiser, &var, i);
            let expected = match i {
                3 => [0.747_043_91, -0.996_474_83, 0.108_717_73],
                29 => [0.599_419_94, -0.774_444_65, -0.115_446_86],
                _ => continue,
            };
            for (w, expected) in var.to_vec1::<f32>().unwrap().iter().zip(expected) {
                assert!(
                    (f64::from(*w) - expected).abs() < 1e-5,
                    "step {i}: {w}, {expected}"
                );
            }
        }
    }

    #[test]
    fn a_restored_optimiser_goes_on_as_if_never_stopped() {
        let (parameters, var) = parameters();
        let mut unbroken = RAdam::new(&parameters, CONFIG).unwrap();
        (0..8).for_each(|i| _ = step(&mut unbroken, &var, i));
        let state = unbroken.state().unwrap();
        (8..12).for_each(|i| _ = step(&mut unbroken, &var, i));
        let expected = unbroken.state().unwrap();

        let (parameters, var) = self::parameters();
        let mut resumed = RAdam::new(&parameters, CONFIG).unwrap();
        resumed.restore(&state, 8).unwrap();
        (8..12).for_each(|i| _ = step(&mut resumed, &var, i));
        for (name, tensor) in resumed.state().unwrap() {
            let values = |t: &Tensor| t.to_vec1::<f32>().unwrap();
            assert_eq!(values(&tensor), values(&expected[&name]), "{name}");
        }
    }

    #[test]
    fn gradients_are_clipped_by_their_norm() {
        let (parameters, var) = parameters();
        let mut clipped = RAdam::new(
            &parameters,
            RAdamConfig {
                clip_norm: 1.0,
                ..CONFIG
            },
        )
        .unwrap();
        // The gradient is w^3 = (1, -8, 27); the first step of RAdam is a plain one.
        let norm = step(&mut clipped, &var, 0);
        assert!((norm - 794f64.sqrt()).abs() < 1e-3, "{norm}");
        let expected = [
            1.0 - 0.05 / norm,
            -2.0 + 0.05 * 8.0 / norm,
            3.0 - 0.05 * 27.0 / norm,
        ];
        for (w, expected) in var.to_vec1::<f32>().unwrap().iter().zip(expected) {
            assert!((f64::from(*w) - expected).abs() < 1e-5, "{w}, {expected}");
        }
    }

    #[test]
    fn gradients_that_are_not_finite_change_nothing() {
        let (parameters, var) = parameters();
        let mut optimiser = RAdam::new(&parameters, CONFIG).unwrap();
        let loss = (var.as_tensor() * f64::NAN).unwrap().sum_all().unwrap();
        assert!(optimiser.step(&loss.backward().unwrap(), 0.05).is_err());
        assert_eq!(var.to_vec1::<f32>().unwrap(), [1.0, -2.0, 3.0]);
        assert_eq!(optimiser.steps(), 0);
    }
}
