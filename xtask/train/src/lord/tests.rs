//! Losses and classifier compared with PyTorch. Each test begins with the snippet that made its numbers; all begin with:
//!
//! ```python
//! import math, torch
//! import torch.nn.functional as F
//! torch.set_default_dtype(torch.float64)
//! def wave(*shape, phase):
//!     n = math.prod(shape)
//!     return torch.sin(0.37 * torch.arange(n) ** 2 + phase).reshape(shape)
//! def digest(x):
//!     return (x * wave(*x.shape, phase=9.0)).sum().item()
//! shapes = {"layers.0": (2, 1, 3, 3), "layers.1": (4, 2, 3, 3), "layers.2": (8, 4, 3, 3), "layers.3": (8, 8, 3, 3),
//!           "instrument": (3, 8, 1, 1), "pitch": (12, 16, 1, 1)}
//! w = {n: (0.5 * wave(*s, phase=float(i)), 0.5 * wave(s[0], phase=i + 0.5)) for i, (n, s) in enumerate(shapes.items())}
//! def features(x):
//!     x, out = x.transpose(1, 2), []
//!     for n in range(4):
//!         x = F.leaky_relu(F.conv2d(x, *w[f"layers.{n}"], stride=2, padding=1), 0.2)
//!         out.append(x)
//!     return out
//! ```

use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;

use super::classifier::{Classifier, ClassifierConfig};
use super::loss::{LordLoss, Reconstruction, certainty, decay, divergence, mean_square};
use crate::wave::{digest, wave};

const LAYERS: [(&str, [usize; 4]); 6] = [
    ("layers.0", [2, 1, 3, 3]),
    ("layers.1", [4, 2, 3, 3]),
    ("layers.2", [8, 4, 3, 3]),
    ("layers.3", [8, 8, 3, 3]),
    ("instrument", [3, 8, 1, 1]),
    ("pitch", [12, 16, 1, 1]),
];

fn classifier() -> Result<Classifier> {
    let config = ClassifierConfig {
        channels: 2,
        steps: 0,
        batch: 1,
        learning_rate: 1e-3,
    };
    let tensors = LAYERS.iter().enumerate().map(|(i, (name, shape))| {
        let phase = i as f64;
        Ok([
            (format!("{name}.weight"), (wave(shape, phase)? * 0.5)?),
            (
                format!("{name}.bias"),
                (wave(&shape[..1], phase + 0.5)? * 0.5)?,
            ),
        ])
    });
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    let tensors = tensors.into_iter().flatten().collect();
    let vb = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
    Classifier::new(&config, 32, 3, &vb)
}

#[track_caller]
fn assert_near(found: &Tensor, expected: f64) {
    let found: f64 = found.to_scalar().unwrap();
    assert!((found - expected).abs() < 1e-9, "{found}, {expected}");
}

// a, b = wave(2, 32, 1, 32, phase=0.1).requires_grad_(), wave(2, 32, 1, 32, phase=0.2)
// d = (a - b).transpose(1, 2)
// l1 = sum(F.avg_pool2d(d, p).abs().mean() for p in (1, 2, 4))
// matching = sum((x - y).abs().mean() for x, y in zip(features(a), features(b)))
// frobenius = ((a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).mean()
// (g,) = torch.autograd.grad(0.5 * l1 + 2 * matching + 3 * frobenius, a)
// print(d.abs().mean().item(), l1.item(), matching.item(), frobenius.item(), digest(g))
#[test]
fn the_reconstruction_loss_and_its_gradient_are_those_of_pytorch() -> Result<()> {
    let generated = Var::from_tensor(&wave(&[2, 32, 1, 32], 0.1)?)?;
    let target = wave(&[2, 32, 1, 32], 0.2)?;
    let parts = Reconstruction::of(&classifier()?, &generated, &target)?;
    assert_near(&parts.mel, 0.06251233180479669);
    assert_near(&parts.l1, 0.10644445963431876);
    assert_near(&parts.features, 0.25338885049870197);
    assert_near(&parts.frobenius, 0.09752828288954171);
    let weights = LordLoss {
        l1: 0.5,
        features: 2.0,
        frobenius: 3.0,
    };
    let gradients = parts.total(&weights)?.backward()?;
    let found = digest(gradients.get(&generated).unwrap())?;
    assert!((found + 4.030559242965182).abs() < 1e-9, "{found}");
    Ok(())
}

// last = features(wave(2, 32, 1, 32, phase=0.2))[-1]
// instrument = F.conv2d(last.mean((2, 3), keepdim=True), *w["instrument"]).flatten(1)
// pitch = F.conv2d(last.flatten(1, 2)[:, :, None], *w["pitch"]).squeeze(2)
// played = (wave(2, 12, 2, phase=0.3) > 0).double()
// loss = F.cross_entropy(instrument, torch.tensor([2, 0])) + F.binary_cross_entropy_with_logits(pitch, played)
// print(loss.item())
#[test]
fn the_loss_of_the_classifier_is_that_of_pytorch() -> Result<()> {
    let played = wave(&[2, 12, 2], 0.3)?.gt(0.0)?.to_dtype(DType::F64)?;
    let instruments = Tensor::new(&[2u32, 0], &Device::Cpu)?;
    let loss = classifier()?.loss(&wave(&[2, 32, 1, 32], 0.2)?, &instruments, &played)?;
    assert_near(&loss, 6.263624098558165);
    Ok(())
}

// from torch.distributions import Normal, kl_divergence
// mean, log_variance = wave(3, 4, phase=0.4), wave(3, 4, phase=0.5)
// kl = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
// print(mean.square().sum(1).mean().item(), kl.sum(1).mean().item(), F.mse_loss(mean, log_variance).item())
#[test]
fn what_codes_cost_is_that_of_pytorch() -> Result<()> {
    let (mean, log_variance) = (wave(&[3, 4], 0.4)?, wave(&[3, 4], 0.5)?);
    assert_near(&decay(&mean)?, 1.76275468625687);
    assert_near(&divergence(&mean, &log_variance)?, 1.4091485254573335);
    assert_near(&mean_square(&mean, &log_variance)?, 0.005539096059461686);
    Ok(())
}

// even = torch.full((3, 4), 0.25)
// print(F.kl_div(wave(3, 4, phase=0.6).log_softmax(1), even, reduction="batchmean").item())
#[test]
fn the_certainty_of_a_classifier_is_that_of_pytorch() -> Result<()> {
    assert_near(&certainty(&wave(&[3, 4], 0.6)?)?, 0.19365203651481447);
    assert_near(
        &certainty(&Tensor::ones((3, 4), DType::F64, &Device::Cpu)?)?,
        0.0,
    );
    Ok(())
}
