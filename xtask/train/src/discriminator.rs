//! The discriminator of HARD (Wu, DAFx 2023): it scores how real patches of a log-mel are.
//!
//! A 1x1 convolution, five 3x3 convolutions of stride 2 that double the channels, and a 1x1 convolution to one score
//! per patch; LeakyReLU between them, spectral norm on all of them, no padding.
//!
//! Legend of shapes: B batch, C channels, H mel bands, T frames.

use std::collections::HashMap;

use anyhow::{Context, Result};
use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};
use vocoder::conv::{Conv2dSpec, conv2d};
use vocoder::layers::LEAKY_SLOPE;

use crate::critic::{Critic, Judge, Verdict};
use crate::spectral_norm::SpectralNorm;

/// Convolutions of stride 2.
const STAGES: u32 = 5;

/// Least number of mel frames, and of mel bands, that give a score.
pub const MIN_FRAMES: usize = (1 << (STAGES + 1)) - 1;

/// A trained convolution and the estimate of its spectral norm.
struct Layer {
    weight: Tensor,
    bias: Tensor,
    norm: SpectralNorm,
}

/// The network with its trained weights.
pub struct Discriminator {
    layers: Vec<Layer>,
}

impl Discriminator {
    /// Reads or creates the weights, with `channels` (16 as published) after the first convolution.
    ///
    /// # Errors
    ///
    /// Returns an error if a weight is missing or has another shape.
    pub fn new(channels: usize, vb: &VarBuilder) -> Result<Self> {
        let mut shapes = vec![(channels, 1, 1)];
        shapes.extend((0..STAGES).map(|stage| (channels << (stage + 1), channels << stage, 3)));
        shapes.push((1, channels << STAGES, 1));
        let layers = shapes
            .into_iter()
            .enumerate()
            .map(|(i, (output, input, kernel))| {
                let vb = vb.pp(i);
                let bound = 1.0 / ((input * kernel * kernel) as f64).sqrt();
                let init = Init::Uniform {
                    lo: -bound,
                    up: bound,
                };
                let weight = vb.get_with_hints((output, input, kernel, kernel), "weight", init)?;
                Ok(Layer {
                    bias: vb.get_with_hints(output, "bias", init)?,
                    norm: SpectralNorm::new(&weight)?,
                    weight,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }
}

impl Critic for Discriminator {
    type Judge = PatchJudge;

    /// One step of power iteration in every layer.
    fn iterate(&mut self) -> Result<()> {
        for layer in &mut self.layers {
            layer.norm.iterate(&layer.weight)?;
        }
        Ok(())
    }

    /// The network with normalised weights. Gradients reach the weights.
    fn judge(&self) -> Result<PatchJudge> {
        let layers = self
            .layers
            .iter()
            .map(|layer| Ok((layer.norm.normalise(&layer.weight)?, layer.bias.clone())))
            .collect::<Result<_>>()?;
        Ok(PatchJudge { layers })
    }

    /// The singular vectors by name, which resuming needs in addition to the weights.
    fn state(&self) -> HashMap<String, Tensor> {
        let mut state = HashMap::new();
        for (i, layer) in self.layers.iter().enumerate() {
            layer.norm.save(&i.to_string(), &mut state);
        }
        state
    }

    fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            layer.norm.restore(&i.to_string(), state)?;
        }
        Ok(())
    }
}

/// The discriminator at one step, its weights normalised.
pub struct PatchJudge {
    layers: Vec<(Tensor, Tensor)>,
}

impl Judge for PatchJudge {
    fn frozen(&self) -> Self {
        let detach = |(weight, bias): &(Tensor, Tensor)| (weight.detach(), bias.detach());
        Self {
            layers: self.layers.iter().map(detach).collect(),
        }
    }

    /// Evaluates a log-mel (B, 1, H, T), neither axis shorter than [`MIN_FRAMES`]. The features are the outputs of
    /// all convolutions but the last, before their LeakyReLU.
    fn look(&self, mel: &Tensor) -> Result<Vec<Verdict>> {
        let mut outputs: Vec<Tensor> = Vec::with_capacity(self.layers.len());
        for (weight, bias) in &self.layers {
            let stride = if weight.dim(2)? == 1 { 1 } else { 2 };
            let spec = Conv2dSpec {
                stride: (stride, stride),
                input_slope: (!outputs.is_empty()).then_some(LEAKY_SLOPE),
                ..Conv2dSpec::default()
            };
            outputs.push(conv2d(outputs.last().unwrap_or(mel), weight, bias, spec)?);
        }
        let scores = outputs.pop().context("the discriminator has layers")?;
        Ok(vec![Verdict {
            features: outputs,
            scores,
        }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::{discriminator_loss, feature_matching, generator_loss};
    use crate::wave::{digest, wave};
    use candle_core::{DType, Device, Var};

    /// A discriminator of 2 channels in f64, its weights given by [`wave`], and those weights and biases.
    fn discriminator() -> Result<(Discriminator, Vec<(Var, Var)>)> {
        let shapes: [[usize; 4]; 7] = [
            [2, 1, 1, 1],
            [4, 2, 3, 3],
            [8, 4, 3, 3],
            [16, 8, 3, 3],
            [32, 16, 3, 3],
            [64, 32, 3, 3],
            [1, 64, 1, 1],
        ];
        let vars = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| {
                let weight = Var::from_tensor(&wave(shape, i as f64)?)?;
                let bias = Var::from_tensor(&wave(&shape[..1], i as f64 + 0.5)?)?;
                Ok((weight, bias))
            })
            .collect::<Result<Vec<_>>>()?;
        let tensors = vars
            .iter()
            .enumerate()
            .flat_map(|(i, (weight, bias))| {
                [
                    (format!("{i}.weight"), weight.as_tensor().clone()),
                    (format!("{i}.bias"), bias.as_tensor().clone()),
                ]
            })
            .collect();
        let vb = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
        Ok((Discriminator::new(2, &vb)?, vars))
    }

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        let tolerance = 1e-8 * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() < tolerance,
            "{found}, expected {expected}"
        );
    }

    // `wave` and `digest` as in spectral_norm.rs; after that:
    // class Discriminator(nn.Module):
    //     def __init__(self, channels):
    //         super().__init__()
    //         widths = [channels * 2**i for i in range(6)]
    //         self.convs = nn.ModuleList(
    //             [nn.Conv2d(1, channels, 1)]
    //             + [nn.Conv2d(a, b, 3, stride=2) for a, b in zip(widths, widths[1:])]
    //             + [nn.Conv2d(widths[-1], 1, 1)]
    //         )
    //         for i, conv in enumerate(self.convs):
    //             conv.weight.data = wave(*conv.weight.shape, phase=float(i))
    //             conv.bias.data = wave(*conv.bias.shape, phase=i + 0.5)
    //             w = conv.weight.detach().flatten(1)
    //             p = spectral_norm(conv).parametrizations.weight[0]
    //             p._v.fill_(w.shape[1] ** -0.5)
    //             p._power_method(w, 15)
    //     def forward(self, x):
    //         features = []
    //         for conv in self.convs:
    //             x = conv(x if not features else nn.functional.leaky_relu(x, 0.2))
    //             features.append(x)
    //         return features
    // d = Discriminator(2).eval()
    // real = wave(2, 1, 66, 98, phase=0.1)
    // fake = wave(2, 1, 66, 98, phase=0.2).requires_grad_()
    // r, f = d(real), d(fake)
    // print(r[-1].flatten().tolist(), [digest(x) for x in r[:-1]])
    // matching = sum((a.detach() - b).abs().mean() for a, b in zip(r[:-1], f[:-1]))
    // generator = (f[-1] - 1).square().mean()
    // discriminator = (r[-1] - 1).square().mean() + f[-1].square().mean()
    // print(matching.item(), generator.item(), discriminator.item())
    // (g,) = torch.autograd.grad(generator + 10 * matching, fake, retain_graph=True)
    // print(digest(g))
    // discriminator.backward()
    // print([digest(c.parametrizations.weight.original.grad) for c in d.convs])
    // print([digest(c.bias.grad) for c in d.convs])
    #[test]
    fn verdicts_losses_and_gradients_equal_pytorchs() -> Result<()> {
        let (discriminator, vars) = discriminator()?;
        let judge = discriminator.judge()?;
        let decoded = Var::from_tensor(&wave(&[2, 1, 66, 98], 0.2)?)?;
        let real = &judge.look(&wave(&[2, 1, 66, 98], 0.1)?)?[0];
        let scores = real.scores.flatten_all()?.to_vec1::<f64>()?;
        for (found, expected) in scores.into_iter().zip([
            3.1379979768123865,
            3.1306323284343054,
            3.218197352486678,
            3.098824842773779,
        ]) {
            assert_close(found, expected);
        }
        for (features, expected) in real.features.iter().zip([
            -27.72987553760303,
            -133.39020266099993,
            -84.72213871219904,
            53.84858547193637,
            -33.644050297270645,
            -11.915504304126847,
        ]) {
            assert_close(digest(features)?, expected);
        }

        let frozen = &judge.frozen().look(&decoded)?[0];
        let generator = generator_loss(frozen)?;
        let matching = feature_matching(real, frozen)?;
        assert_close(matching.to_scalar()?, 0.12281961991759023);
        assert_close(generator.to_scalar()?, 4.603718415486089);
        let gradients = (generator + (matching * 10.0)?)?.backward()?;
        assert_close(digest(gradients.get(&decoded).unwrap())?, 6.764010779774263);
        for (weight, bias) in &vars {
            assert!(gradients.get(weight).is_none() && gradients.get(bias).is_none());
        }

        let loss = discriminator_loss(real, &judge.look(&decoded.detach())?[0])?;
        assert_close(loss.to_scalar()?, 14.503129696253936);
        let gradients = loss.backward()?;
        assert!(gradients.get(&decoded).is_none());
        let weights = [
            0.2182676291975211,
            0.3265031236423101,
            0.17622046966783944,
            0.040259845952510254,
            1.455810274596744,
            3.7386018086000394,
            -2.256110961916471,
        ];
        let biases = [
            -0.3096457417806997,
            0.04293367797703089,
            -0.2803766193926831,
            1.0726922228373732,
            -1.2304248523185777,
            -32.99204733101315,
            4.361538065079826,
        ];
        for ((weight, bias), (expected, expected_bias)) in
            vars.iter().zip(weights.into_iter().zip(biases))
        {
            assert_close(digest(gradients.get(weight).unwrap())?, expected);
            assert_close(digest(gradients.get(bias).unwrap())?, expected_bias);
        }
        Ok(())
    }

    #[test]
    fn the_smallest_mel_leaves_one_score() -> Result<()> {
        let judge = discriminator()?.0.judge()?;
        let verdict = judge.look(&wave(&[1, 1, MIN_FRAMES, MIN_FRAMES], 0.0)?)?;
        assert_eq!(verdict[0].scores.dims(), [1, 1, 1, 1]);
        assert!(
            judge
                .look(&wave(&[1, 1, MIN_FRAMES, MIN_FRAMES - 1], 0.0)?)
                .is_err()
        );
        Ok(())
    }
}
