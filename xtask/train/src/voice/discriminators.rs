//! The discriminators of a voice, on different representations of the samples:
//!
//! - by period and by scale, as in Kong, Kim and Bae, "HiFi-GAN", NeurIPS 2020: every p-th sample in a column, and
//!   samples averaged to lower and lower rates;
//! - by resolution: magnitudes of short-time Fourier transforms, as in Jang et al., "UnivNet", Interspeech 2021, with the
//!   convolutions and transforms of Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN", NeurIPS 2023.
//!
//! Each is a chain of convolutions with LeakyReLU and weight norm (the first scale uses spectral norm). Their
//! channels can be scaled by a factor.
//!
//! Legend of shapes: B batch, C channels, L samples, H height, W width.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{D, Device, Tensor};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};
use vocoder::conv::{Conv2dSpec, conv2d, is_composed};
use vocoder::layers::fold_weight_norm;

use super::spectra::Magnitudes;
use crate::critic::{Critic, Judge, Verdict};
use crate::spectral_norm::SpectralNorm;

/// Slope of every LeakyReLU.
const LEAKY_SLOPE: f64 = 0.1;

/// Largest number of groups of a convolution by scale; its channels must be a multiple.
const MOST_GROUPS: usize = 16;

/// Kinds and sizes of the discriminators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscriminatorsConfig {
    /// Periods, in samples; one discriminator each.
    #[serde(default)]
    pub periods: Vec<usize>,
    /// Factor on the published channels of those by period.
    #[serde(default = "one")]
    pub period_width: f64,
    /// Number of discriminators by scale: the first uses every sample, each further one half as many.
    #[serde(default)]
    pub scales: usize,
    /// Factor on the published channels of those by scale.
    #[serde(default = "one")]
    pub scale_width: f64,
    /// Lengths of Fourier transforms, in samples; one discriminator each.
    #[serde(default)]
    pub resolutions: Vec<usize>,
    /// Factor on the published channels of those by resolution.
    #[serde(default = "one")]
    pub resolution_width: f64,
}

fn one() -> f64 {
    1.0
}

impl DiscriminatorsConfig {
    /// Checks the settings for segments of `samples` samples.
    pub fn check(&self, samples: usize) -> Result<()> {
        ensure!(
            !self.periods.is_empty() || self.scales > 0 || !self.resolutions.is_empty(),
            "expected at least one discriminator, found none"
        );
        ensure!(
            self.periods.iter().all(|period| (1..=64).contains(period)),
            "periods must be between 1 and 64 samples, found {:?}",
            self.periods
        );
        ensure!(
            self.scales <= 8,
            "scales must be at most 8, found {}",
            self.scales
        );
        for &n_fft in &self.resolutions {
            ensure!(
                n_fft % 4 == 0 && (64..=samples).contains(&n_fft),
                "resolutions must be multiples of 4 between 64 and {samples} samples, found {n_fft}"
            );
        }
        for width in [self.period_width, self.scale_width, self.resolution_width] {
            ensure!(
                width > 0.0 && width <= 4.0,
                "widths must be above 0 and at most 4, found {width}"
            );
        }
        let channels = channels(128, self.scale_width);
        ensure!(
            self.scales == 0 || channels.is_multiple_of(MOST_GROUPS),
            "scale_width must give a multiple of {MOST_GROUPS} channels (of 128), found {channels}"
        );
        Ok(())
    }
}

/// Published channels times a factor.
fn channels(published: usize, width: f64) -> usize {
    ((published as f64 * width).round() as usize).max(1)
}

/// Geometry of one convolution.
#[derive(Clone, Copy)]
struct Shape {
    output: usize,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
    groups: usize,
}

impl Shape {
    fn new(output: usize, kernel: (usize, usize)) -> Self {
        Self {
            output,
            kernel,
            stride: (1, 1),
            padding: (kernel.0 / 2, kernel.1 / 2),
            groups: 1,
        }
    }

    fn by_period(width: f64) -> Vec<Self> {
        let strided = [32, 128, 512, 1024].map(|published| Self {
            stride: (3, 1),
            ..Self::new(channels(published, width), (5, 1))
        });
        let last = [
            Self::new(channels(1024, width), (5, 1)),
            Self::new(1, (3, 1)),
        ];
        strided.into_iter().chain(last).collect()
    }

    fn by_scale(width: f64) -> Vec<Self> {
        let strided = [
            (128, 1, 1),
            (128, 2, 4),
            (256, 2, 16),
            (512, 4, 16),
            (1024, 4, 16),
            (1024, 1, 16),
        ]
        .into_iter()
        .map(|(published, stride, groups)| {
            let kernel = if groups == 1 { 15 } else { 41 };
            Self {
                stride: (1, stride),
                groups,
                ..Self::new(channels(published, width), (1, kernel))
            }
        });
        let last = [
            Self::new(channels(1024, width), (1, 5)),
            Self::new(1, (1, 3)),
        ];
        strided.chain(last).collect()
    }

    fn by_resolution(width: f64) -> Vec<Self> {
        let output = channels(32, width);
        let wide = Self::new(output, (3, 9));
        let strided = Self {
            stride: (1, 2),
            ..wide
        };
        let (square, last) = (Self::new(output, (3, 3)), Self::new(1, (3, 3)));
        vec![wide, strided, strided, strided, square, last]
    }
}

/// A normalised weight.
enum Weight {
    /// By weight norm.
    Normed {
        magnitude: Tensor,
        direction: Tensor,
    },
    /// By spectral norm.
    Spectral { weight: Tensor, norm: SpectralNorm },
}

/// A trained convolution.
struct Layer {
    weight: Weight,
    bias: Tensor,
    shape: Shape,
}

impl Layer {
    fn new(input: usize, shape: Shape, spectral: bool, vb: &VarBuilder) -> Result<Self> {
        let (height, width) = shape.kernel;
        let size = (shape.output, input / shape.groups, height, width);
        let fan_in = (size.1 * height * width) as f64;
        // Initialised as in PyTorch.
        let bound = 1.0 / fan_in.sqrt();
        let init = Init::Uniform {
            lo: -bound,
            up: bound,
        };
        let weight = if spectral {
            let weight = vb.get_with_hints(size, "weight", init)?;
            Weight::Spectral {
                norm: SpectralNorm::new(&weight)?,
                weight,
            }
        } else {
            let length = Init::Const(bound / 3f64.sqrt() * fan_in.sqrt());
            Weight::Normed {
                magnitude: vb.get_with_hints((shape.output, 1, 1, 1), "weight_g", length)?,
                direction: vb.get_with_hints(size, "weight_v", init)?,
            }
        };
        Ok(Self {
            weight,
            bias: vb.get_with_hints(shape.output, "bias", init)?,
            shape,
        })
    }

    fn normalised(&self) -> Result<NormalisedLayer> {
        let weight = match &self.weight {
            Weight::Normed {
                magnitude,
                direction,
            } => fold_weight_norm(magnitude, direction)?,
            Weight::Spectral { weight, norm } => norm.normalise(weight)?,
        };
        // On a GPU, one large convolution is faster than many small ones.
        let (weight, groups) = match self.shape.groups {
            groups if groups > 1 && is_composed(weight.device()) => (dense(&weight, groups)?, 1),
            groups => (weight, groups),
        };
        Ok(NormalisedLayer {
            weight,
            bias: self.bias.clone(),
            shape: Shape {
                groups,
                ..self.shape
            },
        })
    }
}

/// Representation of the samples.
enum View {
    Period(usize),
    /// Sample rate halved this many times.
    Scale(usize),
    Resolution(Magnitudes, f64),
}

impl View {
    fn resolution(n_fft: usize, vb: &VarBuilder) -> Result<Self> {
        // White noise then has the level of the samples at all resolutions.
        let scale = 1.0 / (0.375 * n_fft as f64).sqrt();
        let magnitudes = Magnitudes::new(n_fft, vb.dtype(), vb.device())?;
        Ok(Self::Resolution(magnitudes, scale))
    }

    /// Samples (B, 1, L) as a plane (B, 1, H, W).
    fn of(&self, samples: &Tensor) -> Result<Tensor> {
        let (batch, _, length) = samples.dims3()?;
        Ok(match self {
            Self::Period(period) => {
                let missing = length.next_multiple_of(*period) - length;
                let mirrored = (0..missing)
                    .map(|i| samples.narrow(D::Minus1, length - 2 - i, 1))
                    .collect::<candle_core::Result<Vec<_>>>()?;
                let parts: Vec<&Tensor> = [samples].into_iter().chain(&mirrored).collect();
                Tensor::cat(&parts, D::Minus1)?.reshape((batch, 1, (), *period))?
            }
            Self::Scale(halvings) => {
                let plane = samples.unsqueeze(2)?;
                (0..*halvings).try_fold(plane, |x, _| halve(&x))?
            }
            Self::Resolution(magnitudes, scale) => {
                (magnitudes.of(samples)? * *scale)?.unsqueeze(1)?
            }
        })
    }
}

/// Means of 4 neighbours, every second one, with zeros beyond the ends: (B, 1, 1, L) to (B, 1, 1, L / 2 + 1).
fn halve(x: &Tensor) -> Result<Tensor> {
    let weight = Tensor::full(0.25, (1, 1, 1, 4), &Device::Cpu)?;
    let weight = weight.to_dtype(x.dtype())?.to_device(x.device())?;
    let bias = Tensor::zeros(1, x.dtype(), x.device())?;
    let spec = Conv2dSpec {
        stride: (1, 2),
        padding: (0, 2),
        ..Conv2dSpec::default()
    };
    Ok(conv2d(x, &weight, &bias, spec)?)
}

/// All discriminators of a voice with their trained weights.
pub struct Discriminators(Vec<(Arc<View>, Vec<Layer>)>);

impl Discriminators {
    /// Reads or creates the weights.
    ///
    /// # Errors
    ///
    /// Returns an error if a weight is missing or has another shape.
    pub fn new(config: &DiscriminatorsConfig, vb: &VarBuilder) -> Result<Self> {
        let mut all = Vec::new();
        let mut add = |name: String, view: View, shapes: Vec<Shape>| -> Result<()> {
            let spectral = matches!(view, View::Scale(0));
            let inputs = [1].into_iter().chain(shapes.iter().map(|s| s.output));
            let layers = inputs
                .zip(&shapes)
                .enumerate()
                .map(|(i, (input, &shape))| Layer::new(input, shape, spectral, &vb.pp(&name).pp(i)))
                .collect::<Result<_>>()?;
            all.push((view.into(), layers));
            Ok(())
        };
        for &period in &config.periods {
            let shapes = Shape::by_period(config.period_width);
            add(format!("period-{period}"), View::Period(period), shapes)?;
        }
        for halvings in 0..config.scales {
            let shapes = Shape::by_scale(config.scale_width);
            add(format!("scale-{halvings}"), View::Scale(halvings), shapes)?;
        }
        for &n_fft in &config.resolutions {
            let shapes = Shape::by_resolution(config.resolution_width);
            let view = View::resolution(n_fft, vb)?;
            add(format!("resolution-{n_fft}"), view, shapes)?;
        }
        Ok(Self(all))
    }

    /// Spectral norms by the name of their layer.
    fn norms(&mut self) -> impl Iterator<Item = (String, &Tensor, &mut SpectralNorm)> {
        let layers = self.0.iter_mut().enumerate().flat_map(|(i, (_, layers))| {
            let layers = layers.iter_mut().enumerate();
            layers.map(move |(j, layer)| (format!("{i}.{j}"), layer))
        });
        layers.filter_map(|(name, layer)| match &mut layer.weight {
            Weight::Spectral { weight, norm } => Some((name, &*weight, norm)),
            Weight::Normed { .. } => None,
        })
    }
}

impl Critic for Discriminators {
    type Judge = Judges;

    fn iterate(&mut self) -> Result<()> {
        for (_, weight, norm) in self.norms() {
            norm.iterate(weight)?;
        }
        Ok(())
    }

    fn judge(&self) -> Result<Judges> {
        let judge = |(view, layers): &(Arc<View>, Vec<Layer>)| {
            let layers = layers.iter().map(Layer::normalised);
            Ok((view.clone(), layers.collect::<Result<_>>()?))
        };
        self.0.iter().map(judge).collect::<Result<_>>().map(Judges)
    }

    /// The singular vectors of spectral norm.
    fn state(&self) -> HashMap<String, Tensor> {
        let layers = self.0.iter().enumerate().flat_map(|(i, (_, layers))| {
            let layers = layers.iter().enumerate();
            layers.map(move |(j, layer)| (format!("{i}.{j}"), layer))
        });
        let mut state = HashMap::new();
        for (name, layer) in layers {
            if let Weight::Spectral { norm, .. } = &layer.weight {
                norm.save(&name, &mut state);
            }
        }
        state
    }

    fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        for (name, _, norm) in self.norms() {
            norm.restore(&name, state)?;
        }
        Ok(())
    }
}

/// A convolution at one step.
struct NormalisedLayer {
    weight: Tensor,
    bias: Tensor,
    shape: Shape,
}

impl NormalisedLayer {
    fn forward(&self, x: &Tensor, output_slope: Option<f64>) -> Result<Tensor> {
        let Shape {
            stride,
            padding,
            groups,
            ..
        } = self.shape;
        let spec = Conv2dSpec {
            stride,
            padding,
            output_slope,
            ..Conv2dSpec::default()
        };
        if groups == 1 {
            return Ok(conv2d(x, &self.weight, &self.bias, spec)?);
        }
        let parts = [&self.weight, &self.bias].map(|tensor| tensor.chunk(groups, 0));
        let [weights, biases] = parts;
        let outputs = x
            .chunk(groups, 1)?
            .iter()
            .zip(weights?.iter().zip(&biases?))
            .map(|(x, (weight, bias))| conv2d(x, weight, bias, spec))
            .collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&outputs, 1)?)
    }
}

/// The weight (O, I, H, W) of a convolution that equals one in groups (O, I / groups, H, W): zero between groups.
fn dense(weight: &Tensor, groups: usize) -> Result<Tensor> {
    let (output, input, height, width) = weight.dims4()?;
    let blocks = weight.reshape((groups, output / groups, 1, input * height * width))?;
    let diagonal = Tensor::eye(groups, weight.dtype(), weight.device())?;
    let diagonal = diagonal.reshape((groups, 1, groups, 1))?;
    Ok(blocks
        .broadcast_mul(&diagonal)?
        .reshape((output, groups * input, height, width))?)
}

/// All discriminators at one step.
pub struct Judges(Vec<(Arc<View>, Vec<NormalisedLayer>)>);

impl Judge for Judges {
    fn frozen(&self) -> Self {
        let detach = |layer: &NormalisedLayer| NormalisedLayer {
            weight: layer.weight.detach(),
            bias: layer.bias.detach(),
            shape: layer.shape,
        };
        let judges = self.0.iter();
        Self(
            judges
                .map(|(view, layers)| (view.clone(), layers.iter().map(detach).collect()))
                .collect(),
        )
    }

    /// Evaluates samples (B, 1, L). The features are the outputs of all layers after their LeakyReLU, and the scores.
    fn look(&self, samples: &Tensor) -> Result<Vec<Verdict>> {
        let verdict = |(view, layers): &(Arc<View>, Vec<NormalisedLayer>)| {
            let mut x = view.of(samples)?;
            let mut features = Vec::with_capacity(layers.len());
            for (i, layer) in layers.iter().enumerate() {
                let slope = (i + 1 < layers.len()).then_some(LEAKY_SLOPE);
                x = layer.forward(&x, slope)?;
                features.push(x.clone());
            }
            Ok(Verdict {
                features,
                scores: x,
            })
        };
        self.0.iter().map(verdict).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::{discriminator_loss, feature_matching, generator_loss};
    use crate::parameters::Parameters;
    use crate::wave::{digest, wave};
    use candle_core::{DType, Var};
    use vocoder::conv::conv2d_composed;

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        let tolerance = 1e-8 * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() < tolerance,
            "{found}, expected {expected}"
        );
    }

    fn config() -> DiscriminatorsConfig {
        DiscriminatorsConfig {
            periods: vec![2, 3],
            period_width: 1.0 / 32.0,
            scales: 2,
            scale_width: 1.0 / 8.0,
            resolutions: vec![512],
            resolution_width: 1.0 / 8.0,
        }
    }

    /// In f64, its weights given by [`wave`].
    fn discriminators() -> Result<(Discriminators, Parameters)> {
        let parameters = Parameters::new(1);
        let backend = Box::new(parameters.clone());
        let vb = VarBuilder::from_backend(backend, DType::F64, Device::Cpu);
        Discriminators::new(&config(), &vb)?;
        for (name, var) in parameters.vars() {
            let [_, layer, part] = name.split('.').collect::<Vec<_>>()[..] else {
                anyhow::bail!("{name}: expected three parts");
            };
            let phase: f64 = layer.parse()?;
            let value = match part {
                "bias" => wave(var.dims(), phase + 0.5)?,
                "weight_g" => ((wave(var.dims(), phase + 0.25)? * 0.5)? + 1.0)?,
                _ => wave(var.dims(), phase)?,
            };
            var.set(&value)?;
        }
        Ok((Discriminators::new(&config(), &vb)?, parameters))
    }

    // `wave` and `digest` as in spectral_norm.rs, `magnitudes` as in spectra.rs; after that:
    // def fill(conv, phase):
    //     # weight norm starts as the weight itself: g = |v|
    //     conv.weight.data = wave(*conv.weight.shape, phase=phase)
    //     conv.bias.data = wave(*conv.bias.shape, phase=phase + 0.5)
    // def normed(conv, phase, spectral):
    //     fill(conv, phase)
    //     if spectral:
    //         w = conv.weight.detach().flatten(1)
    //         p = spectral_norm(conv).parametrizations.weight[0]
    //         p._v.fill_(w.shape[1] ** -0.5)
    //         p._power_method(w, 15)
    //         return conv
    //     g = 1 + 0.5 * wave(conv.weight.shape[0], *[1] * (conv.weight.dim() - 1), phase=phase + 0.25)
    //     conv = weight_norm(conv)
    //     conv.weight_g.data = g
    //     return conv
    // class Period(nn.Module):
    //     def __init__(self, period, w):
    //         super().__init__()
    //         self.period = period
    //         c = [1] + [int(x * w) for x in (32, 128, 512, 1024, 1024)]
    //         self.convs = nn.ModuleList(
    //             [nn.Conv2d(c[i], c[i + 1], (5, 1), (3 if i < 4 else 1, 1), (2, 0)) for i in range(5)]
    //             + [nn.Conv2d(c[-1], 1, (3, 1), 1, (1, 0))]
    //         )
    //         for i, conv in enumerate(self.convs): normed(conv, float(i), False)
    //     def forward(self, x):
    //         if x.shape[2] % self.period:
    //             x = F.pad(x, (0, self.period - x.shape[2] % self.period), "reflect")
    //         return chain(self.convs, x.view(x.shape[0], 1, -1, self.period))
    // class Scale(nn.Module):
    //     def __init__(self, halvings, w):
    //         super().__init__()
    //         self.halvings = halvings
    //         c = [1] + [int(x * w) for x in (128, 128, 256, 512, 1024, 1024, 1024)]
    //         k, s, g = (15, 41, 41, 41, 41, 41, 5), (1, 2, 2, 4, 4, 1, 1), (1, 4, 16, 16, 16, 16, 1)
    //         self.convs = nn.ModuleList(
    //             [nn.Conv1d(c[i], c[i + 1], k[i], s[i], k[i] // 2, groups=g[i]) for i in range(7)]
    //             + [nn.Conv1d(c[-1], 1, 3, 1, 1)]
    //         )
    //         for i, conv in enumerate(self.convs): normed(conv, float(i), halvings == 0)
    //         self.eval()
    //     def forward(self, x):
    //         for _ in range(self.halvings): x = F.avg_pool1d(x, 4, 2, padding=2)
    //         return chain(self.convs, x)
    // class Resolution(nn.Module):
    //     def __init__(self, n_fft, w):
    //         super().__init__()
    //         self.n_fft = n_fft
    //         c = int(32 * w)
    //         self.convs = nn.ModuleList(
    //             [nn.Conv2d(1, c, (3, 9), 1, (1, 4))]
    //             + [nn.Conv2d(c, c, (3, 9), (1, 2), (1, 4)) for _ in range(3)]
    //             + [nn.Conv2d(c, c, 3, 1, 1), nn.Conv2d(c, 1, 3, 1, 1)]
    //         )
    //         for i, conv in enumerate(self.convs): normed(conv, float(i), False)
    //     def forward(self, x):
    //         return chain(self.convs, magnitudes(x, self.n_fft).unsqueeze(1) / (0.375 * self.n_fft) ** 0.5)
    // def chain(convs, x):
    //     features = []
    //     for i, conv in enumerate(convs):
    //         x = conv(x)
    //         if i + 1 < len(convs): x = F.leaky_relu(x, 0.1)
    //         features.append(x)
    //     return features
    // ds = [Period(2, 1/32), Period(3, 1/32), Scale(0, 1/8), Scale(1, 1/8), Resolution(512, 1/8)]
    // real = wave(2, 1, 1000, phase=0.1)
    // fake = wave(2, 1, 1000, phase=0.2).requires_grad_()
    // gen = mat = dis = 0
    // for d in ds:
    //     r, f = d(real), d(fake)
    //     print(type(d).__name__, list(r[-1].shape), [digest(x) for x in r])
    //     mat = mat + sum((a.detach() - b).abs().mean() for a, b in zip(r, f))
    //     gen = gen + (f[-1] - 1).square().mean()
    //     f = d(fake.detach())
    //     dis = dis + (r[-1] - 1).square().mean() + f[-1].square().mean()
    // print(gen.item(), mat.item(), dis.item())
    // (g,) = torch.autograd.grad(gen + 2 * mat, fake)
    // print("fake gradient", digest(g))
    // dis.backward()
    // for d in ds:
    //     c = d.convs[1]
    //     w = c.parametrizations.weight.original if hasattr(c, "parametrizations") else c.weight_v
    //     print([digest(w.grad), digest(c.bias.grad)])
    #[test]
    fn verdicts_losses_and_gradients_equal_pytorchs() -> Result<()> {
        let (discriminators, parameters) = discriminators()?;
        let judge = discriminators.judge()?;
        let real = judge.look(&wave(&[2, 1, 1000], 0.1)?)?;
        let expected: [&[f64]; 5] = [
            &[
                18.758145587641657,
                27.027354110596548,
                7.4280426264022665,
                5.65529624400185,
                13.786987964958616,
                -3.960503148544945,
            ],
            &[
                16.358797376846965,
                42.669065876360065,
                28.23595276836226,
                1.5665372492780012,
                -6.489838562151643,
                -1.950165652509028,
            ],
            &[
                130.7558725851308,
                11.69455866832243,
                73.20988458492504,
                13.746062074423339,
                -20.934245222602108,
                -12.39906580353111,
                -17.008298726226897,
                3.5192465036749168,
            ],
            &[
                -6.892644413597637,
                33.48385053104142,
                14.48172171730451,
                -22.455485837162122,
                57.417103598907644,
                9.982768761848082,
                -1.6684894035333198,
                0.909746222898108,
            ],
            &[
                -8.888445048015619,
                113.11025551755571,
                -31.512701175668354,
                30.06411783452174,
                7.582345526464129,
                3.0858260927723755,
            ],
        ];
        assert_eq!(real.len(), expected.len());
        for (verdict, expected) in real.iter().zip(expected) {
            assert_eq!(verdict.features.len(), expected.len());
            for (features, &expected) in verdict.features.iter().zip(expected) {
                assert_close(digest(features)?, expected);
            }
        }

        let generated = Var::from_tensor(&wave(&[2, 1, 1000], 0.2)?)?;
        let sum = |terms: Vec<Result<Tensor>>| -> Result<Tensor> {
            let terms = terms.into_iter().collect::<Result<Vec<_>>>()?;
            Ok(Tensor::stack(&terms, 0)?.sum_all()?)
        };
        let frozen = judge.frozen().look(&generated)?;
        let generator = sum(frozen.iter().map(generator_loss).collect())?;
        let pairs = real.iter().zip(&frozen);
        let matching = sum(pairs.map(|(r, f)| feature_matching(r, f)).collect())?;
        assert_close(generator.to_scalar()?, 9.082364424183787);
        assert_close(matching.to_scalar()?, 0.6160427556571346);
        let gradients = (generator + (matching * 2.0)?)?.backward()?;
        let gradient = gradients.get(&generated).unwrap();
        assert_close(digest(gradient)?, 6.627708943236797);
        for (name, var) in parameters.vars() {
            assert!(gradients.get(&var).is_none(), "{name}");
        }

        let detached = judge.look(&generated.detach())?;
        let pairs = real.iter().zip(&detached);
        let loss = sum(pairs.map(|(r, f)| discriminator_loss(r, f)).collect())?;
        assert_close(loss.to_scalar()?, 12.651463935407508);
        let gradients = loss.backward()?;
        assert!(gradients.get(&generated).is_none());
        for (name, weight, bias) in [
            ("period-2.1", -0.3863889730221161, -0.20391459637268328),
            ("period-3.1", 0.2023818489325297, -0.296334194505076),
            ("scale-0.1", 0.0011817402685345311, 0.004898203300755808),
            ("scale-1.1", 0.11054720769485656, 0.12043462158524679),
            (
                "resolution-512.1",
                -0.06625966910848757,
                -0.035270830523127336,
            ),
        ] {
            let part = if name == "scale-0.1" {
                "weight"
            } else {
                "weight_v"
            };
            for (part, expected) in [(part, weight), ("bias", bias)] {
                let var = &parameters.vars()[&format!("{name}.{part}")];
                assert_close(digest(gradients.get(var).unwrap())?, expected);
            }
        }
        Ok(())
    }

    #[test]
    fn one_dense_convolution_equals_its_groups() -> Result<()> {
        let layer = NormalisedLayer {
            weight: wave(&[8, 3, 1, 5], 1.0)?,
            bias: wave(&[8], 2.0)?,
            shape: Shape {
                groups: 4,
                stride: (1, 2),
                ..Shape::new(8, (1, 5))
            },
        };
        let whole = NormalisedLayer {
            weight: dense(&layer.weight, 4)?,
            bias: layer.bias.clone(),
            shape: Shape {
                groups: 1,
                ..layer.shape
            },
        };
        let x = Var::from_tensor(&wave(&[2, 12, 1, 20], 3.0)?)?;
        let outputs = [&layer, &whole].map(|layer| layer.forward(&x, Some(LEAKY_SLOPE)));
        let [groups, whole] = outputs;
        let (groups, whole) = (groups?, whole?);
        assert_close(digest(&(&groups - &whole)?)?, 0.0);
        assert!(digest(&whole)?.abs() > 0.1);
        let gradients =
            [groups, whole].map(|y| digest(y.sqr()?.sum_all()?.backward()?.get(&x).unwrap()));
        let [groups, whole] = gradients;
        assert_close(groups?, whole?);
        Ok(())
    }

    /// What a GPU computes in another way, for every kind of layer.
    #[test]
    fn layers_composed_for_a_gpu_equal_those_of_the_cpu() -> Result<()> {
        for (shapes, plane) in [
            (Shape::by_period(1.0 / 32.0), (200, 3)),
            (Shape::by_scale(1.0 / 8.0), (1, 90)),
            (Shape::by_resolution(1.0 / 8.0), (7, 65)),
        ] {
            let mut input = 1;
            for shape in shapes {
                let weight = [
                    shape.output,
                    input / shape.groups,
                    shape.kernel.0,
                    shape.kernel.1,
                ];
                let weight = Var::from_tensor(&wave(&weight, 1.0)?)?;
                let bias = wave(&[shape.output], 2.0)?;
                let x = Var::from_tensor(&wave(&[2, input, plane.0, plane.1], 3.0)?)?;
                let layer = NormalisedLayer {
                    weight: weight.as_tensor().clone(),
                    bias: bias.clone(),
                    shape,
                };
                let cpu = layer.forward(&x, Some(LEAKY_SLOPE))?;
                let spec = Conv2dSpec {
                    stride: shape.stride,
                    padding: shape.padding,
                    output_slope: Some(LEAKY_SLOPE),
                    ..Conv2dSpec::default()
                };
                let gpu = conv2d_composed(&x, &dense(&weight, shape.groups)?, &bias, spec)?;
                assert_eq!(cpu.dims(), gpu.dims());
                assert_close(digest(&(&cpu - &gpu)?)?, 0.0);
                let [cpu, gpu] = [cpu, gpu].map(|y| y.sqr()?.sum_all()?.backward());
                let (cpu, gpu) = (cpu?, gpu?);
                for var in [&x, &weight] {
                    let [cpu, gpu] = [&cpu, &gpu].map(|g| digest(g.get(var).unwrap()));
                    assert_close(gpu?, cpu?);
                }
                input = shape.output;
            }
        }
        Ok(())
    }

    #[test]
    fn singular_vectors_are_restored() -> Result<()> {
        let (mut discriminators, _) = discriminators()?;
        let saved = discriminators.state();
        // Eight layers of the first scale.
        assert_eq!(saved.len(), 16);
        discriminators.iterate()?;
        let changed = discriminators.state();
        assert_ne!(digest(&changed["left/2.3"])?, digest(&saved["left/2.3"])?);
        discriminators.restore(&saved)?;
        for (name, vector) in discriminators.state() {
            assert_eq!(digest(&vector)?, digest(&saved[&name])?, "{name}");
        }
        assert!(discriminators.restore(&HashMap::new()).is_err());
        Ok(())
    }

    #[test]
    fn what_cannot_look_is_refused() {
        assert!(config().check(8192).is_ok());
        for wrong in [
            DiscriminatorsConfig {
                periods: vec![0],
                ..config()
            },
            DiscriminatorsConfig {
                resolutions: vec![16_384],
                ..config()
            },
            DiscriminatorsConfig {
                scale_width: 0.3,
                ..config()
            },
            DiscriminatorsConfig {
                period_width: f64::NAN,
                ..config()
            },
            DiscriminatorsConfig {
                periods: Vec::new(),
                scales: 0,
                resolutions: Vec::new(),
                ..config()
            },
        ] {
            assert!(wrong.check(8192).is_err(), "{wrong:?}");
        }
    }
}
