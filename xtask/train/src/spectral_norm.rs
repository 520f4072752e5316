//! Spectral norm (Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018): a weight
//! divided by its largest singular value, which is estimated by power iteration, as in PyTorch's
//! `torch.nn.utils.parametrizations.spectral_norm`.

use std::collections::HashMap;

use anyhow::Context;
use candle_core::{Result, Tensor};

/// Iterations at the start, so that the first steps have a good estimate.
const FIRST_ITERATIONS: usize = 15;
/// Guards the division by a length.
const EPSILON: f64 = 1e-12;

/// Estimates of a weight's first singular vectors. The weight, of any rank, is the matrix (first axis, all others).
#[derive(Clone, Debug)]
pub struct SpectralNorm {
    /// (1, rows).
    pub left: Tensor,
    /// (columns, 1).
    pub right: Tensor,
}

impl SpectralNorm {
    /// A first estimate, from an even right vector.
    ///
    /// # Errors
    ///
    /// Returns an error if the weight has no axes or an empty one.
    pub fn new(weight: &Tensor) -> Result<Self> {
        let (rows, columns) = weight.flatten_from(1)?.dims2()?;
        let ones = |shape| Tensor::ones(shape, weight.dtype(), weight.device());
        let mut norm = Self {
            left: unit(&ones((1, rows))?)?,
            right: unit(&ones((columns, 1))?)?,
        };
        for _ in 0..FIRST_ITERATIONS {
            norm.iterate(weight)?;
        }
        Ok(norm)
    }

    /// One step of power iteration. No gradient flows through the vectors.
    ///
    /// # Errors
    ///
    /// Returns an error if the weight has another shape than at the start.
    pub fn iterate(&mut self, weight: &Tensor) -> Result<()> {
        let matrix = weight.detach().flatten_from(1)?;
        let left = unit(&matrix.matmul(&self.right)?)?;
        self.left = left.reshape(self.left.shape())?;
        let right = unit(&self.left.matmul(&matrix)?)?;
        self.right = right.reshape(self.right.shape())?;
        Ok(())
    }

    /// The largest singular value by the present vectors (1, 1).
    fn sigma(&self, weight: &Tensor) -> Result<Tensor> {
        let matrix = weight.flatten_from(1)?;
        self.left.matmul(&matrix)?.matmul(&self.right)
    }

    /// The weight divided by its largest singular value. The gradient includes that value.
    ///
    /// # Errors
    ///
    /// Returns an error if the weight has another shape than at the start.
    pub fn normalise(&self, weight: &Tensor) -> Result<Tensor> {
        let sigma = self.sigma(weight)?.reshape(vec![1; weight.rank()])?;
        weight.broadcast_div(&sigma)
    }

    /// Adds the singular vectors to `state`, by the name of their layer: resuming needs them in addition to the
    /// weight.
    pub fn save(&self, layer: &str, state: &mut HashMap<String, Tensor>) {
        state.insert(format!("left/{layer}"), self.left.clone());
        state.insert(format!("right/{layer}"), self.right.clone());
    }

    /// Restores the vectors that [`Self::save`] added.
    ///
    /// # Errors
    ///
    /// Returns an error if a vector is missing or has another shape.
    pub fn restore(&mut self, layer: &str, state: &HashMap<String, Tensor>) -> anyhow::Result<()> {
        for (side, vector) in [("left", &mut self.left), ("right", &mut self.right)] {
            let key = format!("{side}/{layer}");
            let saved = state
                .get(&key)
                .with_context(|| format!("expected a tensor \"{key}\""))?;
            anyhow::ensure!(
                saved.dims() == vector.dims(),
                "{key}: expected shape {:?}, found {:?}",
                vector.dims(),
                saved.dims()
            );
            *vector = saved.to_device(vector.device())?;
        }
        Ok(())
    }
}

fn unit(vector: &Tensor) -> Result<Tensor> {
    let length = vector.sqr()?.sum_all()?.sqrt()?;
    vector.broadcast_div(&length.maximum(EPSILON)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wave::{digest, wave};
    use candle_core::Var;

    // import math, torch
    // from torch import nn
    // from torch.nn.utils.parametrizations import spectral_norm
    // torch.set_default_dtype(torch.float64)
    // def wave(*shape, phase):
    //     i = torch.arange(math.prod(shape), dtype=torch.float64)
    //     return torch.sin(0.37 * i * i + phase).reshape(shape)
    // def digest(t):
    //     return (t.detach() * wave(*t.shape, phase=9.0)).sum().item()
    // conv = nn.Conv2d(5, 7, 3)
    // conv.weight.data = wave(7, 5, 3, 3, phase=1.0)
    // w = conv.weight.detach().flatten(1)
    // p = spectral_norm(conv).parametrizations.weight[0]
    // for k in (1, 2, 15):
    //     p._v.fill_(w.shape[1] ** -0.5)
    //     p._power_method(w, k)
    //     print(k, (p._u @ w @ p._v).item(), digest(p._u), digest(p._v))
    // conv.eval()
    // x = conv.weight
    // (x * wave(*x.shape, phase=2.0)).sum().backward()
    // print(digest(x), digest(conv.parametrizations.weight.original.grad))
    #[test]
    fn it_iterates_and_normalises_as_pytorch_does() -> Result<()> {
        let weight = Var::from_tensor(&wave(&[7, 5, 3, 3], 1.0)?)?;
        let ones = Tensor::ones((45, 1), weight.dtype(), weight.device())?;
        let mut norm = SpectralNorm::new(&weight)?;
        norm.right = unit(&ones)?;
        for k in 1..=15 {
            norm.iterate(&weight)?;
            let expected = match k {
                1 => [5.112538349352226, 0.4383342464364846, -0.047559456218968565],
                2 => [5.15946289099434, 0.36937363321769556, -0.018363814010446178],
                15 => [5.303562029065316, -0.2158166373275922, 0.179090655258194],
                _ => continue,
            };
            let sigma = norm.sigma(&weight)?.flatten_all()?.to_vec1::<f64>()?[0];
            let found = [sigma, digest(&norm.left)?, digest(&norm.right)?];
            for (found, expected) in found.into_iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-9,
                    "{k}: {found}, expected {expected}"
                );
            }
        }
        let normed = norm.normalise(&weight)?;
        let loss = (&normed * wave(&[7, 5, 3, 3], 2.0)?)?.sum_all()?;
        let gradients = loss.backward()?;
        let found = [digest(&normed)?, digest(gradients.get(&weight).unwrap())?];
        for (found, expected) in found
            .into_iter()
            .zip([-5.437996478032262, 21.6817162755827])
        {
            assert!(
                (found - expected).abs() < 1e-8,
                "{found}, expected {expected}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_new_estimate_starts_as_pytorchs() -> Result<()> {
        let norm = SpectralNorm::new(&wave(&[7, 5, 3, 3], 1.0)?)?;
        // As above, after 15 iterations.
        assert!((digest(&norm.left)? - -0.2158166373275922).abs() < 1e-9);
        Ok(())
    }
}
