//! The HiFi-GAN generator: Kong, Kim and Bae, "HiFi-GAN: Generative Adversarial Networks for Efficient and High
//! Fidelity Speech Synthesis", NeurIPS 2020. A convolution widens the mel, stages of a transposed convolution and a
//! multi-receptive-field fusion bring it to the sample rate, and a last convolution makes it sound.
//!
//! Legend of shapes: B batch, M mel bands, T frames.

use candle_core::{D, Error, Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::conv::PadMode;
use crate::layers::{
    Block, Conv, ConvConfig, FrameQueue, Past, Stack, StackState, TimeUpsample, TimeUpsampleConfig,
    TimeUpsampleState,
};

/// Slope of every LeakyReLU but the last.
const LEAKY_SLOPE: f64 = 0.1;
/// Slope of the LeakyReLU before the last convolution: the published code leaves it at PyTorch's default.
const LAST_LEAKY_SLOPE: f64 = 0.01;
/// Kernel of the first and the last convolution.
const OUTER_KERNEL: usize = 7;
/// Log-mels are held within this (nepers), so that no input overflows. That of sound is well inside.
const MEL_LIMIT: f64 = 100.0;

/// Which residual block the multi-receptive-field fusion is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResBlock {
    /// Every dilated convolution is followed by an undilated one, inside one skip connection.
    #[serde(rename = "1")]
    Type1,
    /// One dilated convolution a skip connection.
    #[serde(rename = "2")]
    Type2,
}

/// Sizes of a generator, under their published names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorConfig {
    /// Mel bands.
    pub n_mels: usize,
    /// How many times longer each stage makes the signal. Their product is the hop length.
    pub upsample_rates: Vec<usize>,
    /// Kernel of each stage's transposed convolution: a multiple of its rate, of the same parity.
    pub upsample_kernel_sizes: Vec<usize>,
    /// Channels before the first stage; each stage halves them.
    pub upsample_initial_channel: usize,
    /// Kind of residual block.
    pub resblock: ResBlock,
    /// Kernels of the residual blocks that each stage averages, odd.
    pub resblock_kernel_sizes: Vec<usize>,
    /// Dilations inside each of these blocks.
    pub resblock_dilation_sizes: Vec<Vec<usize>>,
    /// Whether the convolutions see the past alone, for streams that cannot wait. Published generators see as far ahead as
    /// back, which is a quarter of a second.
    #[serde(default)]
    pub causal: bool,
}

impl GeneratorConfig {
    /// V1, the largest, for 128 mels and a hop of 512.
    #[must_use]
    pub fn v1() -> Self {
        Self {
            n_mels: 128,
            upsample_rates: vec![8, 8, 4, 2],
            upsample_kernel_sizes: vec![16, 16, 8, 4],
            upsample_initial_channel: 512,
            resblock: ResBlock::Type1,
            resblock_kernel_sizes: vec![3, 7, 11],
            resblock_dilation_sizes: vec![vec![1, 3, 5]; 3],
            causal: false,
        }
    }

    /// V2: V1 with a quarter of its channels.
    #[must_use]
    pub fn v2() -> Self {
        Self {
            upsample_initial_channel: 128,
            ..Self::v1()
        }
    }

    /// V3: fewer layers, for slow machines.
    #[must_use]
    pub fn v3() -> Self {
        Self {
            upsample_initial_channel: 256,
            resblock: ResBlock::Type2,
            resblock_kernel_sizes: vec![3, 5, 7],
            resblock_dilation_sizes: vec![vec![1, 2], vec![2, 6], vec![3, 12]],
            ..Self::v1()
        }
    }

    /// Samples that one frame becomes.
    #[must_use]
    pub fn hop_length(&self) -> usize {
        self.upsample_rates.iter().product()
    }

    /// Checks that a generator can be built so.
    ///
    /// # Errors
    /// If a list is empty or longer than its partner, a size is zero or too large, or the channels do not halve.
    pub fn validate(&self) -> crate::Result<()> {
        let check = |holds: bool, setting: &'static str, expected: &str, found: String| {
            if holds {
                Ok(())
            } else {
                Err(crate::Error::setting(setting, expected, found))
            }
        };
        const LARGEST: usize = 4096;
        let fits = |size: usize| (1..=LARGEST).contains(&size);
        let (rates, kernels) = (&self.upsample_rates, &self.upsample_kernel_sizes);
        check(
            fits(self.n_mels),
            "n_mels",
            "1 to 4096",
            self.n_mels.to_string(),
        )?;
        check(
            (1..=8).contains(&rates.len()) && rates.iter().all(|&rate| (1..=64).contains(&rate)),
            "upsample_rates",
            "1 to 8 rates from 1 to 64",
            format!("{rates:?}"),
        )?;
        check(
            kernels.len() == rates.len()
                && kernels.iter().zip(rates).all(|(&kernel, &rate)| {
                    fits(kernel) && kernel % rate == 0 && (kernel - rate) % 2 == 0
                }),
            "upsample_kernel_sizes",
            "a multiple of each rate, of the same parity",
            format!("{kernels:?} for rates {rates:?}"),
        )?;
        let channels = self.upsample_initial_channel;
        check(
            fits(channels) && channels.is_multiple_of(1 << rates.len()),
            "upsample_initial_channel",
            "a number up to 4096 that halves at every stage",
            format!("{channels} with {} stages", rates.len()),
        )?;
        let (kernels, dilations) = (&self.resblock_kernel_sizes, &self.resblock_dilation_sizes);
        check(
            (1..=8).contains(&kernels.len()) && kernels.iter().all(|&k| k % 2 == 1 && k <= 63),
            "resblock_kernel_sizes",
            "1 to 8 odd kernels up to 63",
            format!("{kernels:?}"),
        )?;
        check(
            dilations.len() == kernels.len()
                && dilations.iter().all(|d| {
                    (1..=8).contains(&d.len()) && d.iter().all(|&d| (1..=64).contains(&d))
                }),
            "resblock_dilation_sizes",
            "1 to 8 dilations from 1 to 64 for each kernel",
            format!("{dilations:?} for kernels {kernels:?}"),
        )
    }
}

/// A transposed convolution and the residual blocks whose mean follows it.
#[derive(Clone, Debug)]
struct Stage {
    upsample: TimeUpsample,
    blocks: Vec<Stack>,
}

#[derive(Clone, Debug, Default)]
struct StageState {
    upsample: TimeUpsampleState,
    blocks: Vec<(StackState, FrameQueue)>,
}

impl Stage {
    fn new(config: &GeneratorConfig, index: usize, norm: bool, vb: &VarBuilder) -> Result<Self> {
        let input = config.upsample_initial_channel >> index;
        let channels = input / 2;
        let upsample = TimeUpsample::new(
            TimeUpsampleConfig {
                input,
                output: channels,
                rate: config.upsample_rates[index],
                kernel: config.upsample_kernel_sizes[index],
                input_slope: Some(LEAKY_SLOPE),
                weight_norm: norm,
            },
            &vb.pp(format!("ups.{index}")),
        )?;
        let kernels = &config.resblock_kernel_sizes;
        let blocks = kernels
            .iter()
            .zip(&config.resblock_dilation_sizes)
            .enumerate()
            .map(|(i, (&kernel, dilations))| {
                let vb = vb.pp(format!("resblocks.{}", index * kernels.len() + i));
                let conv = |list: &str, i: usize, dilation: usize| {
                    let shape = (channels, channels, kernel);
                    let config = time_conv(shape, dilation, LEAKY_SLOPE, config.causal);
                    Conv::new(config.weight_norm(norm), &vb.pp(list).pp(i))
                };
                let skips = dilations.iter().enumerate().map(|(i, &dilation)| {
                    Ok(Block::Residual(match config.resblock {
                        ResBlock::Type1 => {
                            vec![conv("convs1", i, dilation)?, conv("convs2", i, 1)?]
                        }
                        ResBlock::Type2 => vec![conv("convs", i, dilation)?],
                    }))
                });
                Ok(Stack::new(skips.collect::<Result<_>>()?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { upsample, blocks })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.upsample.forward(x)?;
        mean(self.blocks.iter().map(|block| block.forward(&x)))
    }

    fn step(&self, state: &mut StageState, x: &Tensor) -> Result<Option<Tensor>> {
        let Some(x) = self.upsample.step(&mut state.upsample, x)? else {
            return Ok(None);
        };
        state
            .blocks
            .resize_with(self.blocks.len(), Default::default);
        for (block, (state, queue)) in self.blocks.iter().zip(&mut state.blocks) {
            if let Some(y) = block.step(state, &x)? {
                queue.push(&y)?;
            }
        }
        let ready = state.blocks.iter().map(|(_, queue)| queue.frames()).min();
        match ready {
            None | Some(0) => Ok(None),
            Some(ready) => {
                mean(state.blocks.iter_mut().map(|(_, queue)| queue.take(ready))).map(Some)
            }
        }
    }

    /// Given the look-ahead before this stage, that behind it, in positions of its output.
    fn look_ahead(&self, before: usize) -> usize {
        let blocks = self.blocks.iter().map(Stack::look_ahead_frames).max();
        before * self.upsample.rate() + self.upsample.padding() + blocks.unwrap_or(0)
    }
}

fn mean(parts: impl ExactSizeIterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let count = parts.len();
    let sum = parts.reduce(|sum, part| sum? + part?);
    match sum {
        Some(sum) => sum? / count as f64,
        None => bail!("a stage expects at least one residual block, found none"),
    }
}

/// A 1-D convolution of shape (in, out, kernel) that keeps the length, zero-padded, with LeakyReLU on its input.
fn time_conv(
    (input, output, kernel): (usize, usize, usize),
    dilation: usize,
    slope: f64,
    causal: bool,
) -> ConvConfig {
    let reach = (kernel - 1) * dilation;
    let before = if causal { reach } else { reach / 2 };
    let mut config = ConvConfig::same(input, output, (1, kernel))
        .linear()
        .pad_mode(PadMode::Zero)
        .padded((0, before));
    config.spec.dilation = (1, dilation);
    config.spec.input_slope = Some(slope);
    config
}

/// Log-mel frames to samples, for whole clips and in steps.
#[derive(Clone, Debug)]
pub struct Generator {
    config: GeneratorConfig,
    first: Conv,
    stages: Vec<Stage>,
    last: Conv,
}

/// What a [`Generator`] remembers between steps.
#[derive(Clone, Debug, Default)]
pub struct GeneratorState {
    first: Past,
    stages: Vec<StageState>,
    last: Past,
}

impl Generator {
    /// Reads or creates the weights, by their published names: `conv_pre`, `ups.N`, `resblocks.N.convs1.M` and so on,
    /// each with `weight` and `bias`, or with `weight_g`, `weight_v` and `bias` if `weight_norm` holds (training).
    /// A weight has the published shape with a height of one before the kernel's length: (out, in, 1, kernel), and
    /// (in, out, 1, kernel) in `ups`.
    ///
    /// # Errors
    /// If the configuration is not valid, or a tensor is missing or has another shape.
    pub fn new(config: GeneratorConfig, weight_norm: bool, vb: &VarBuilder) -> Result<Self> {
        config.validate().map_err(Error::wrap)?;
        let channels = config.upsample_initial_channel;
        let shape = (config.n_mels, channels, OUTER_KERNEL);
        let mut first = time_conv(shape, 1, LEAKY_SLOPE, config.causal);
        first.spec.input_slope = None;
        let stages = (0..config.upsample_rates.len())
            .map(|index| Stage::new(&config, index, weight_norm, vb))
            .collect::<Result<Vec<_>>>()?;
        let shape = (channels >> stages.len(), 1, OUTER_KERNEL);
        let last = time_conv(shape, 1, LAST_LEAKY_SLOPE, config.causal);
        Ok(Self {
            first: Conv::new(first.weight_norm(weight_norm), &vb.pp("conv_pre"))?,
            stages,
            last: Conv::new(last.weight_norm(weight_norm), &vb.pp("conv_post"))?,
            config,
        })
    }

    /// Sizes.
    #[must_use]
    pub fn config(&self) -> &GeneratorConfig {
        &self.config
    }

    /// A whole clip: log-mel (B, M, T) to samples (B, 1, T * hop length) in -1..1.
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn forward(&self, mel: &Tensor) -> Result<Tensor> {
        let mut x = self.first.forward(&self.input(mel)?)?;
        for stage in &self.stages {
            x = stage.forward(&x)?;
        }
        output(&self.last.forward(&x)?)
    }

    /// Takes the next frames (B, M, T) and gives the samples (B, 1, n) that they complete, if any. In all, T frames give
    /// `T * hop_length - look_ahead_samples` samples, equal to the first ones of [`Self::forward`].
    ///
    /// # Errors
    /// If the input does not fit, or has another batch size than before.
    pub fn step(&self, state: &mut GeneratorState, mel: &Tensor) -> Result<Option<Tensor>> {
        state
            .stages
            .resize_with(self.stages.len(), StageState::default);
        let Some(mut x) = self.first.step(&mut state.first, &self.input(mel)?)? else {
            return Ok(None);
        };
        for (stage, state) in self.stages.iter().zip(&mut state.stages) {
            match stage.step(state, &x)? {
                Some(y) => x = y,
                None => return Ok(None),
            }
        }
        let samples = self.last.step(&mut state.last, &x)?;
        samples.map(|x| output(&x)).transpose()
    }

    /// Samples by which a stream lags the frames that it has been given: sample n needs the frames up to the one that
    /// holds sample `n + look_ahead_samples`.
    #[must_use]
    pub fn look_ahead_samples(&self) -> usize {
        let first = self.first.look_ahead_frames();
        self.stages
            .iter()
            .fold(first, |before, stage| stage.look_ahead(before))
            + self.last.look_ahead_frames()
    }

    /// Frames that must follow a frame before all of its samples are complete.
    #[must_use]
    pub fn look_ahead_frames(&self) -> usize {
        self.look_ahead_samples().div_ceil(self.config.hop_length())
    }

    /// Mel (B, M, T) as a plane of height one (B, M, 1, T), within bounds.
    fn input(&self, mel: &Tensor) -> Result<Tensor> {
        let (_, n_mels, _) = mel.dims3()?;
        if n_mels != self.config.n_mels {
            bail!(
                "the generator expects {} mel bands, found {n_mels}",
                self.config.n_mels
            );
        }
        mel.clamp(-MEL_LIMIT, MEL_LIMIT)?.unsqueeze(2)
    }
}

/// (B, 1, 1, n) to samples (B, 1, n).
fn output(x: &Tensor) -> Result<Tensor> {
    x.squeeze(D::Minus2)?.tanh()
}
