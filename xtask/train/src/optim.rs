//! RAdam (Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020) and AdamW (Loshchilov
//! and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019) as implemented in PyTorch, with clipping by the
//! global norm and an exponential moving average of the weights.
//!
//! All variables are updated as one long vector, because on a GPU the launch overhead of many small operations
//! dominates.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};

use crate::parameters::Parameters;

/// Guards the division by the root of the second moment.
const EPSILON: f64 = 1e-8;

/// Row length for sums: a GPU sums rows in parallel.
const ROW: usize = 1024;

/// Settings of [`Adam`].
#[derive(Clone, Copy, Debug)]
pub struct AdamConfig {
    /// RAdam instead of Adam: smaller steps while the second moments are uncertain.
    pub rectified: bool,
    /// Decoupled weight decay: a step reduces the weights by this share times the learning rate.
    pub weight_decay: f64,
    /// Decay of the first and second moments.
    pub betas: (f64, f64),
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
    /// Largest second moment so far instead of the latest (Reddi et al., "On the Convergence of Adam and Beyond", ICLR 2018).
    pub amsgrad: bool,
    /// Decay per step of the averaged weights; without it, there are no averages.
    pub average_decay: Option<f64>,
}

/// The optimiser with its state for all variables.
pub struct Adam {
    config: AdamConfig,
    vars: BTreeMap<String, Var>,
    state: State,
    steps: u64,
}

/// Vectors over all variables, sorted by name.
struct State {
    weight: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    /// For amsgrad.
    largest_moment: Option<Tensor>,
    average: Option<Tensor>,
}

impl Adam {
    /// Starts with zero moments and with the current weights as the average.
    pub fn new(parameters: &Parameters, config: AdamConfig) -> Result<Self> {
        let vars = parameters.vars();
        let weights: Vec<Tensor> = vars.values().map(|var| var.as_detached_tensor()).collect();
        let weight = flat(&weights)?;
        let state = State {
            first_moment: weight.zeros_like()?,
            second_moment: weight.zeros_like()?,
            largest_moment: config.amsgrad.then(|| weight.zeros_like()).transpose()?,
            average: config.average_decay.is_some().then(|| weight.clone()),
            weight,
        };
        Ok(Self {
            config,
            vars,
            state,
            steps: 0,
        })
    }

    /// Updates every variable. A missing gradient counts as zero. Returns the global norm of the gradients before
    /// clipping.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<f64> {
        let gradients = self.vars.values().map(|var| match gradients.get(var) {
            Some(gradient) => Ok(gradient.detach()),
            None => var.zeros_like(),
        });
        let gradient = flat(&gradients.collect::<candle_core::Result<Vec<_>>>()?)?;
        let norm = norm(&gradient)?;
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
        // Factor on the adaptive step; `None` is a plain momentum step.
        let adaptive = match self.config.rectified {
            false => Some(1.0),
            true => (rho > 5.0).then(|| {
                let limit = (rho_limit - 4.0) * (rho_limit - 2.0) * rho;
                ((rho - 4.0) * (rho - 2.0) * rho_limit / limit).sqrt()
            }),
        };

        let state = &mut self.state;
        let gradient = (gradient * clip)?;
        state.first_moment = ((&state.first_moment * beta1)? + (&gradient * (1.0 - beta1))?)?;
        state.second_moment =
            ((&state.second_moment * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
        if let Some(largest) = &mut state.largest_moment {
            *largest = largest.maximum(&state.second_moment)?;
        }
        let update = match adaptive {
            Some(factor) => {
                let moment = state.largest_moment.as_ref();
                let root = (moment.unwrap_or(&state.second_moment).sqrt()?
                    + EPSILON * correction2.sqrt())?;
                ((&state.first_moment / root)? * (factor * correction2.sqrt()))?
            }
            None => state.first_moment.clone(),
        };
        let kept = (&state.weight * (1.0 - learning_rate * self.config.weight_decay))?;
        state.weight = (kept - (update * (learning_rate / correction1))?)?;
        if let (Some(average), Some(decay)) = (&mut state.average, self.config.average_decay) {
            // A smaller decay in early steps, so that the average does not stay at the initial weights.
            let decay = decay.min((1.0 + t) / (10.0 + t));
            *average = ((&*average * decay)? + (&state.weight * (1.0 - decay))?)?;
        }
        for (name, weight) in self.split(&self.state.weight)? {
            self.vars[name].set(&weight)?;
        }
        Ok(norm)
    }

    /// Takes over variables that were set from outside. Moments and averages stay.
    pub fn take_over(&mut self) -> Result<()> {
        let weights: Vec<Tensor> = self
            .vars
            .values()
            .map(|var| var.as_detached_tensor())
            .collect();
        self.state.weight = flat(&weights)?;
        Ok(())
    }

    /// Number of steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The averaged weights by name, if there are any.
    pub fn averages(&self) -> Result<HashMap<String, Tensor>> {
        let Some(average) = &self.state.average else {
            return Ok(HashMap::new());
        };
        let averages = self.split(average)?.into_iter();
        averages
            .map(|(name, part)| Ok((name.to_owned(), part.force_contiguous()?)))
            .collect()
    }

    /// The tensors that resuming needs, by prefixed name.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = HashMap::new();
        for (prefix, vector) in self.vectors() {
            // Copy the whole vector once: reading a part of a vector on a GPU would copy all of it each time.
            let vector = vector.to_device(&Device::Cpu)?;
            for (name, part) in self.split(&vector)? {
                state.insert(format!("{prefix}/{name}"), part);
            }
        }
        Ok(state)
    }

    /// Restores the tensors of [`Self::state`] after `steps` steps.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>, steps: u64) -> Result<()> {
        let fetch = |prefix: &str| -> Result<Tensor> {
            let tensors = self.vars.iter().map(|(name, var)| {
                let key = format!("{prefix}/{name}");
                let tensor = state
                    .get(&key)
                    .with_context(|| format!("expected a tensor \"{key}\""))?;
                anyhow::ensure!(
                    tensor.dims() == var.dims(),
                    "{key}: expected shape {:?}, found {:?}",
                    var.dims(),
                    tensor.dims()
                );
                Ok(tensor.to_device(var.device())?)
            });
            flat(&tensors.collect::<Result<Vec<_>>>()?)
        };
        let optional = |prefix: &str, vector: &Option<Tensor>| {
            let needed = vector.as_ref();
            needed.map(|_| fetch(prefix)).transpose()
        };
        self.state = State {
            weight: fetch("weight")?,
            first_moment: fetch("moment1")?,
            second_moment: fetch("moment2")?,
            largest_moment: optional("largest", &self.state.largest_moment)?,
            average: optional("average", &self.state.average)?,
        };
        for (name, weight) in self.split(&self.state.weight)? {
            self.vars[name].set(&weight)?;
        }
        self.steps = steps;
        Ok(())
    }

    fn vectors(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let state = &self.state;
        [
            ("weight", &state.weight),
            ("moment1", &state.first_moment),
            ("moment2", &state.second_moment),
        ]
        .into_iter()
        .chain(
            state
                .largest_moment
                .iter()
                .map(|largest| ("largest", largest)),
        )
        .chain(state.average.iter().map(|average| ("average", average)))
    }

    /// Splits a vector into the parts of the variables, in their shapes.
    fn split(&self, vector: &Tensor) -> Result<Vec<(&str, Tensor)>> {
        let mut start = 0;
        self.vars
            .iter()
            .map(|(name, var)| {
                let count = var.elem_count();
                let part = vector.narrow(0, start, count)?.reshape(var.shape())?;
                start += count;
                Ok((name.as_str(), part))
            })
            .collect()
    }
}

/// Concatenates all values.
fn flat(tensors: &[Tensor]) -> Result<Tensor> {
    let vectors = tensors.iter().map(|tensor| tensor.flatten_all());
    Ok(Tensor::cat(
        &vectors.collect::<candle_core::Result<Vec<_>>>()?,
        0,
    )?)
}

/// Norm of a vector.
fn norm(vector: &Tensor) -> Result<f64> {
    let count = vector.elem_count();
    let squares = vector
        .sqr()?
        .pad_with_zeros(0, 0, count.next_multiple_of(ROW) - count)?;
    let sum: f32 = squares.reshape(((), ROW))?.sum(1)?.sum_all()?.to_scalar()?;
    Ok(f64::from(sum).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_nn::Init;

    const CONFIG: AdamConfig = AdamConfig {
        rectified: true,
        weight_decay: 0.0,
        betas: (0.8, 0.99),
        clip_norm: f64::INFINITY,
        amsgrad: false,
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
    fn step(optimiser: &mut Adam, var: &Var, step: u64) -> f64 {
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
        let mut optimiser = Adam::new(&parameters, CONFIG).unwrap();
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

    // w = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    // opt = torch.optim.AdamW([w], lr=0.05, betas=(0.8, 0.99), eps=1e-8, weight_decay=0.1)
    // and on as above, with steps 0, 3 and 29.
    #[test]
    fn without_rectification_it_steps_as_pytorchs_adamw_does() {
        let (parameters, var) = parameters();
        let config = AdamConfig {
            rectified: false,
            weight_decay: 0.1,
            ..CONFIG
        };
        let mut optimiser = Adam::new(&parameters, config).unwrap();
        for i in 0..30 {
            step(&mut optimiser, &var, i);
            let expected = match i {
                0 => [0.945, -1.94, 2.935],
                3 => [0.785_279_51, -1.766_010_88, 2.743_387_22],
                29 => [0.353_705_26, -0.842_447_4, 1.577_266_57],
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

    // w = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    // opt = torch.optim.Adam([w], lr=0.05, betas=(0.8, 0.99), eps=1e-8, amsgrad=True)
    // and on as above. Without amsgrad, the last weights are 0.400868, -0.966150 and 1.821943.
    #[test]
    fn with_the_largest_moments_it_steps_as_pytorchs_amsgrad_does() {
        let (parameters, var) = parameters();
        let config = AdamConfig {
            rectified: false,
            amsgrad: true,
            ..CONFIG
        };
        let mut optimiser = Adam::new(&parameters, config).unwrap();
        for i in 0..30 {
            step(&mut optimiser, &var, i);
            let expected = match i {
                0 => [0.95, -1.95, 2.95],
                3 => [0.803_474_19, -1.803_601_86, 2.801_030_16],
                29 => [0.401_059_15, -0.968_890_01, 1.822_197_2],
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
        let config = AdamConfig {
            amsgrad: true,
            ..CONFIG
        };
        let (parameters, var) = parameters();
        let mut unbroken = Adam::new(&parameters, config).unwrap();
        (0..8).for_each(|i| _ = step(&mut unbroken, &var, i));
        let state = unbroken.state().unwrap();
        (8..12).for_each(|i| _ = step(&mut unbroken, &var, i));
        let expected = unbroken.state().unwrap();

        let (parameters, var) = self::parameters();
        let mut resumed = Adam::new(&parameters, config).unwrap();
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
        let mut clipped = Adam::new(
            &parameters,
            AdamConfig {
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
        let mut optimiser = Adam::new(&parameters, CONFIG).unwrap();
        let loss = (var.as_tensor() * f64::NAN).unwrap().sum_all().unwrap();
        assert!(optimiser.step(&loss.backward().unwrap(), 0.05).is_err());
        assert_eq!(var.to_vec1::<f32>().unwrap(), [1.0, -2.0, 3.0]);
        assert_eq!(optimiser.steps(), 0);
    }
}
