//! The HiFi-GAN generator: Kong, Kim and Bae, "HiFi-GAN: Generative Adversarial Networks for Efficient and High
//! Fidelity Speech Synthesis", NeurIPS 2020. A convolution widens the mel. Stages of a transposed convolution and a
//! multi-receptive-field fusion upsample it to the sample rate, and a last convolution outputs the sound.
//!
//! A generator may get a *template* in addition to the mel: a rough version of the sound, which it corrects (the idea
//! of Xu, Zhao and Guo, "RefineGAN: Universally Generating Waveform Better than Ground Truth with Highly Accurate Pitch
//! and Intensity Responses", 2021). The template is an input of every stage, and the output of the last convolution
//! weights its bands, sample by sample. A generator without a template cannot sustain a steady chord: if the mel frame
//! repeats, the convolutions have no time reference, so their output repeats with every frame, 43 times per second.
//! Weights train faster than an added signal, and they keep silence silent.
//!
//! Shapes: B batch, M mel bands, T frames, H hop length.

use std::f64::consts::PI;
use std::sync::{Arc, OnceLock};

use candle_core::{D, DType, Device, Error, Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::conv::{PadMode, exactly};
use crate::layers::{Block, Conv, ConvConfig, Stack, TimeUpsample, TimeUpsampleConfig};
use crate::plan::{Builder, Plan, Run, Signal};
use crate::simd::Isa;

/// Slope of every LeakyReLU except the last.
const LEAKY_SLOPE: f64 = 0.1;
/// Slope of the LeakyReLU before the last convolution: PyTorch's default, as in the published code.
const LAST_LEAKY_SLOPE: f64 = 0.01;
/// Kernel of the first and the last convolution, and of those that feed the template into the stages.
const OUTER_KERNEL: usize = 7;
/// Look-ahead of the first convolution of a causal generator with a template. These frames are available, because the
/// template needs them.
const TEMPLATE_LOOK_AHEAD_FRAMES: usize = 2;
/// Limit of the log-mels, up and down (nepers), so that no input overflows. Log-mels of sound are well within it.
const MEL_LIMIT: f64 = 100.0;

/// Frames per step of a whole clip: few enough for the signals between the layers to stay in the cache.
const STEP_FRAMES: usize = 8;

/// The kind of residual block in the multi-receptive-field fusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResBlock {
    /// Every dilated convolution is followed by an undilated one, inside one skip connection.
    #[serde(rename = "1")]
    Type1,
    /// One dilated convolution per skip connection.
    #[serde(rename = "2")]
    Type2,
}

/// Sizes of a generator, under their published names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorConfig {
    /// Mel bands.
    pub n_mels: usize,
    /// Upsampling factor of each stage. Their product is the hop length.
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
    /// Whether the convolutions use only the past, for streams with low latency. Published generators look ahead as far
    /// as back: a quarter of a second.
    #[serde(default)]
    pub causal: bool,
    /// Whether the generator corrects a template instead of generating the sound from the mel alone.
    #[serde(default)]
    pub template: bool,
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
            template: false,
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

    /// Samples per frame.
    #[must_use]
    pub fn hop_length(&self) -> usize {
        self.upsample_rates.iter().product()
    }

    /// Checks that the configuration is valid.
    ///
    /// # Errors
    /// If a list is empty or the lists differ in length, a size is zero or too large, or the channels cannot be halved
    /// at every stage.
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
            "for each rate, a multiple of it with the same parity",
            format!("{kernels:?} for rates {rates:?}"),
        )?;
        let channels = self.upsample_initial_channel;
        check(
            fits(channels) && channels.is_multiple_of(1 << rates.len()),
            "upsample_initial_channel",
            "up to 4096 and divisible by two at every stage",
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

/// Mean and standard deviation of log-mels of music (nepers), and the level of music. They normalise the inputs of a
/// generator with a template to a mean of about 0 and a deviation of about 1.
pub(crate) const MEL_MEAN: f64 = -4.5;
pub(crate) const MEL_DEVIATION: f64 = 2.2;
const TEMPLATE_LEVEL: f64 = 0.2;
/// Number of bands of the template, all of the same width.
const TEMPLATE_BANDS: usize = 16;
/// Reach of a band's filter, up and down, in samples.
const BAND_REACH: usize = 2 * TEMPLATE_BANDS - 1;

/// The filters that split a template into [`TEMPLATE_BANDS`] bands that add up to it: cosine-modulated Hann windows
/// with linear phase. The cosines of all bands cancel except at the middle of the window.
fn template_bands(device: &Device, dtype: DType) -> Result<Conv> {
    let bands = TEMPLATE_BANDS as f64;
    let tap = |band: usize, tap: usize| {
        let place = tap as f64 - BAND_REACH as f64;
        let window = (PI * place / (4.0 * bands)).cos().powi(2);
        window / bands * (PI * (band as f64 + 0.5) * place / bands).cos()
    };
    let kernel = 2 * BAND_REACH + 1;
    let taps: Vec<f64> = (0..TEMPLATE_BANDS)
        .flat_map(|band| (0..kernel).map(move |n| tap(band, n)))
        .collect();
    let weight = Tensor::from_vec(taps, (TEMPLATE_BANDS, 1, 1, kernel), device)?;
    let bias = Tensor::zeros(TEMPLATE_BANDS, dtype, device)?;
    let mut config = time_conv((1, TEMPLATE_BANDS, kernel), 1, LEAKY_SLOPE, false);
    config.spec.input_slope = None;
    Ok(Conv::from_tensors(weight.to_dtype(dtype)?, bias, config))
}

/// Weights each band of a template, `bands` (B, bands, 1, n), by one plus its `corrections` (B, bands, 1, n). Returns
/// samples (B, 1, n).
fn correct(corrections: &Tensor, bands: &Tensor) -> Result<Tensor> {
    let weighted = (bands + (bands * corrections)?)?.sum_keepdim(1)?;
    weighted.squeeze(D::Minus2)?.clamp(-1.0, 1.0)
}

/// A transposed convolution, followed by the mean of its residual blocks.
#[derive(Clone, Debug)]
struct Stage {
    upsample: TimeUpsample,
    template: Option<TemplateInput>,
    blocks: Vec<Stack>,
}

/// Feeds the template into a stage: a convolution that takes the samples of one position as channels.
#[derive(Clone, Debug)]
struct TemplateInput {
    /// Samples per position of the stage's output.
    block_samples: usize,
    conv: Conv,
}

impl TemplateInput {
    fn new(
        block_samples: usize,
        channels: usize,
        causal: bool,
        norm: bool,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let shape = (block_samples, channels, OUTER_KERNEL);
        let mut config = time_conv(shape, 1, LEAKY_SLOPE, causal).weight_norm(norm);
        config.spec.input_slope = None;
        Ok(Self {
            block_samples,
            conv: Conv::new(config, vb)?,
        })
    }

    /// Samples (B, 1, L) to (B, C, 1, L / block).
    fn forward(&self, template: &Tensor) -> Result<Tensor> {
        self.conv.forward(&self.fold(template)?)
    }

    /// The layer that takes single samples: its stride is a position. Its weights include the template's level.
    fn on_samples(&self) -> Result<Conv> {
        let block = self.block_samples;
        let config = self.conv.config();
        let taps = config.kernel.1 * block;
        let weight = self.conv.weight()?.permute((0, 2, 3, 1))?;
        let weight = weight.reshape((config.output, 1, 1, taps))?;
        let weight = (weight / TEMPLATE_LEVEL)?;
        let mut samples = ConvConfig {
            input: 1,
            kernel: (1, taps),
            ..*config
        };
        samples.spec.stride = (1, block);
        samples.spec.padding = (0, config.spec.padding.1 * block);
        Ok(Conv::from_tensors(
            weight,
            self.conv.bias().clone(),
            samples,
        ))
    }

    fn fold(&self, samples: &Tensor) -> Result<Tensor> {
        let (batch, _, length) = samples.dims3()?;
        let blocks = (batch, length / self.block_samples, self.block_samples);
        samples
            .reshape(blocks)?
            .transpose(1, 2)?
            .affine(1.0 / TEMPLATE_LEVEL, 0.0)?
            .contiguous()?
            .unsqueeze(2)
    }

    /// Lag of the completed positions behind the frames.
    fn lag(&self, template_lag_samples: usize) -> usize {
        template_lag_samples.div_ceil(self.block_samples) + self.conv.look_ahead_frames()
    }
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
                causal: config.causal,
                weight_norm: norm,
            },
            &vb.pp(format!("ups.{index}")),
        )?;
        let template = config.template.then(|| {
            let block_samples = config.upsample_rates[index + 1..].iter().product();
            let vb = vb.pp(format!("templates.{index}"));
            TemplateInput::new(block_samples, channels, config.causal, norm, &vb)
        });
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
        Ok(Self {
            upsample,
            template: template.transpose()?,
            blocks,
        })
    }

    fn forward(&self, x: &Tensor, template: Option<&Tensor>) -> Result<Tensor> {
        let mut x = self.upsample.forward(x)?;
        if let (Some(input), Some(template)) = (&self.template, template) {
            x = (x + input.forward(template)?)?;
        }
        mean(self.blocks.iter().map(|block| block.forward(&x)))
    }

    /// Adds the stage to a plan. `template` is the signal of single samples.
    fn compile(&self, plan: &mut Builder, x: Signal, template: Option<Signal>) -> Result<Signal> {
        let template = match (&self.template, template) {
            (Some(input), Some(samples)) => Some(plan.conv(samples, &input.on_samples()?, &[])?),
            _ => None,
        };
        let x = plan.time_upsample(x, &self.upsample, template)?;
        let mut sum = None;
        for block in &self.blocks {
            sum = Some(plan.stack_onto(x, block, sum)?);
        }
        match sum {
            Some(sum) => Ok(Builder::affine(sum, 1.0 / self.blocks.len() as f64, 0.0)),
            None => bail!("a stage expects at least one residual block, found none"),
        }
    }

    /// The look-ahead after this stage, in positions of its output, given the look-ahead before it.
    fn look_ahead(&self, before: usize, template_lag_samples: usize) -> usize {
        let blocks = self.blocks.iter().map(Stack::look_ahead_frames).max();
        let upsampled = before * self.upsample.rate() + self.upsample.padding();
        let template = self.template.as_ref();
        let template = template.map_or(0, |input| input.lag(template_lag_samples));
        upsampled.max(template) + blocks.unwrap_or(0)
    }
}

/// Whether a plan can run on a tensor: it is on the CPU, and no gradient goes through it.
fn can_run(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu) && x.dtype() == DType::F32 && !x.track_op()
}

/// The batch size, and the samples (B, 1, n) as the frames of a plan.
fn samples(x: &Tensor) -> Result<(usize, Vec<f32>)> {
    let (batch, _, _) = x.dims3()?;
    Ok((batch, x.flatten_all()?.to_vec1()?))
}

fn mean(parts: impl ExactSizeIterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let count = parts.len();
    let sum = parts.reduce(|sum, part| sum? + part?);
    match sum {
        Some(sum) => sum? / count as f64,
        None => bail!("a stage expects at least one residual block, found none"),
    }
}

/// A length-preserving, zero-padded 1-D convolution of shape (in, out, kernel), with LeakyReLU on its input.
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

/// Converts log-mel frames to samples, for whole clips and in steps.
#[derive(Clone, Debug)]
pub struct Generator {
    config: GeneratorConfig,
    first: Conv,
    stages: Vec<Stage>,
    last: Conv,
    template_bands: Option<Conv>,
    /// The compiled generator, if its weights are constant.
    plan: Arc<OnceLock<Arc<Plan>>>,
}

/// State of a [`Generator`] between steps.
#[derive(Clone, Debug, Default)]
pub struct GeneratorState {
    run: Option<Run>,
    samples: Vec<f32>,
}

impl Generator {
    /// Reads or creates the weights, by their published names: `conv_pre`, `ups.N`, `resblocks.N.convs1.M` and so on,
    /// and `templates.N` if there is a template. Each has `weight` and `bias`, or `weight_g`, `weight_v` and `bias` if
    /// `weight_norm` is true (training); the `conv_post` of a generator with a template has no weight norm. A weight
    /// has the published shape with a height of one before the kernel's length: (out, in, 1, kernel), and (in, out, 1,
    /// kernel) in `ups`.
    ///
    /// # Errors
    /// If the configuration is not valid, or a tensor is missing or has another shape.
    pub fn new(config: GeneratorConfig, weight_norm: bool, vb: &VarBuilder) -> Result<Self> {
        config.validate().map_err(Error::wrap)?;
        let channels = config.upsample_initial_channel;
        let shape = (config.n_mels, channels, OUTER_KERNEL);
        let mut first = time_conv(shape, 1, LEAKY_SLOPE, config.causal);
        first.spec.input_slope = None;
        if config.causal && config.template {
            first = first.padded((0, OUTER_KERNEL - 1 - TEMPLATE_LOOK_AHEAD_FRAMES));
        }
        let stages = (0..config.upsample_rates.len())
            .map(|index| Stage::new(&config, index, weight_norm, vb))
            .collect::<Result<Vec<_>>>()?;
        let outputs = if config.template { TEMPLATE_BANDS } else { 1 };
        let shape = (channels >> stages.len(), outputs, OUTER_KERNEL);
        let template_bands = config
            .template
            .then(|| template_bands(vb.device(), vb.dtype()));
        let last = time_conv(shape, 1, LAST_LEAKY_SLOPE, config.causal);
        // Corrections start at zero, and weight norm cannot leave zero: its direction has no gradient there.
        let norm_last = weight_norm && !config.template;
        Ok(Self {
            first: Conv::new(first.weight_norm(weight_norm), &vb.pp("conv_pre"))?,
            stages,
            last: Conv::new(last.weight_norm(norm_last), &vb.pp("conv_post"))?,
            template_bands: template_bands.transpose()?,
            plan: Arc::default(),
            config,
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &GeneratorConfig {
        &self.config
    }

    /// Converts a whole clip: log-mel (B, M, T) and, if the generator corrects one, the template (B, 1, T * H) to
    /// samples (B, 1, T * H) in -1..1.
    ///
    /// # Errors
    /// If the input does not fit, or the template is missing or unexpected.
    pub fn forward(&self, mel: &Tensor, template: Option<&Tensor>) -> Result<Tensor> {
        self.check_template(template)?;
        let inputs = || [Some(mel), template].into_iter().flatten();
        if !self.first.is_trained() && inputs().all(can_run) {
            return self.run_whole(mel, template);
        }
        let mut x = self.first.forward(&self.input(mel)?)?;
        for stage in &self.stages {
            x = stage.forward(&x, template)?;
        }
        let x = self.last.forward(&x)?;
        match (&self.template_bands, template) {
            (Some(bands), Some(template)) => {
                // Rounded on a GPU, the bands would add up to the template and audible noise.
                let bands = exactly(|| bands.forward(&template.unsqueeze(2)?))?;
                correct(&x, &bands)
            }
            _ => x.squeeze(D::Minus2)?.tanh(),
        }
    }

    /// Takes the next frames (B, M, t) and the next samples (B, 1, n) of the template, if any, and returns the
    /// completed samples (B, 1, m), if any. In total, T frames yield `T * H - look_ahead_samples` samples, equal to the
    /// first ones of [`Self::forward`].
    ///
    /// # Errors
    /// If the input does not fit, the batch size changes, or a template is unexpected.
    pub fn step(
        &self,
        state: &mut GeneratorState,
        mel: Option<&Tensor>,
        template: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        if template.is_some() {
            self.check_template(template)?;
        }
        self.push(state, mel, template)?;
        self.take(state, Run::step)
    }

    /// Ends the stream: takes the rest of the template (B, 1, n), if any, and returns the remaining samples (B, 1, m), if
    /// any. In total, T frames and T * H samples of the template yield T * H samples, equal to those of
    /// [`Self::forward`]. Resets the state.
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn finish(
        &self,
        state: &mut GeneratorState,
        template: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        self.push(state, None, template)?;
        let samples = self.take(state, Run::finish)?;
        state.run.iter_mut().for_each(Run::reset);
        Ok(samples)
    }

    /// Appends to the inputs of a stream, which begins with the first ones.
    fn push(
        &self,
        state: &mut GeneratorState,
        mel: Option<&Tensor>,
        template: Option<&Tensor>,
    ) -> Result<()> {
        let mel = mel.map(|mel| self.mel_frames(mel)).transpose()?;
        let template = template.map(samples).transpose()?;
        for (input, values) in [mel, template].into_iter().enumerate() {
            let Some((batch, values)) = values else {
                continue;
            };
            let run = match &mut state.run {
                Some(run) => run,
                None => state.run.insert(Run::new(&self.plan()?, batch)),
            };
            if run.batch() != batch {
                bail!("expected a batch of {}, found {batch}", run.batch());
            }
            run.push(input, &values);
        }
        Ok(())
    }

    /// Runs a stream and returns its new samples (B, 1, m), if any.
    fn take(&self, state: &mut GeneratorState, work: impl Fn(&mut Run)) -> Result<Option<Tensor>> {
        let Some(run) = &mut state.run else {
            return Ok(None);
        };
        work(run);
        state.samples.clear();
        match run.take(0, &mut state.samples) {
            0 => Ok(None),
            _ => self.limited(&state.samples, run.batch()).map(Some),
        }
    }

    fn run_whole(&self, mel: &Tensor, template: Option<&Tensor>) -> Result<Tensor> {
        let (batch, mel) = self.mel_frames(mel)?;
        let template = template.map(samples).transpose()?;
        let expected = mel.len() / self.config.n_mels * self.config.hop_length();
        if let Some((_, template)) = &template
            && template.len() != expected
        {
            bail!(
                "expected a template of {expected} samples, found {}",
                template.len()
            );
        }
        let template = template.as_ref().map(|(_, samples)| samples.as_slice());
        let inputs: Vec<&[f32]> = [mel.as_slice()].into_iter().chain(template).collect();
        let made = Run::whole(&self.plan()?, batch, &inputs, STEP_FRAMES);
        self.limited(&made[0], batch)
    }

    /// Samples in -1..1 as (B, 1, n).
    fn limited(&self, samples: &[f32], batch: usize) -> Result<Tensor> {
        let limit = |sample: &f32| match self.config.template {
            true => sample.clamp(-1.0, 1.0),
            false => sample.tanh(),
        };
        let samples: Vec<f32> = samples.iter().map(limit).collect();
        Tensor::from_vec(samples, (batch, 1, ()), &Device::Cpu)
    }

    /// The batch size, and a mel (B, M, T) as the frames (B, T, M) of a plan, as in [`Self::input`].
    fn mel_frames(&self, mel: &Tensor) -> Result<(usize, Vec<f32>)> {
        let input = self.input(mel)?.squeeze(2)?;
        let frames = input.transpose(1, 2)?.flatten_all()?.to_vec1()?;
        Ok((mel.dim(0)?, frames))
    }

    /// The compiled generator.
    fn plan(&self) -> Result<Arc<Plan>> {
        if let Some(plan) = self.plan.get() {
            return Ok(Arc::clone(plan));
        }
        let plan = self.compile()?;
        Ok(match self.first.is_trained() {
            true => plan,
            false => Arc::clone(self.plan.get_or_init(|| plan)),
        })
    }

    fn compile(&self) -> Result<Arc<Plan>> {
        let mut plan = Builder::new(Isa::best());
        let mel = plan.input(1, self.config.n_mels);
        let template = self.config.template.then(|| plan.input(1, 1));
        let mut x = plan.conv(mel, &self.first, &[])?;
        for stage in &self.stages {
            x = stage.compile(&mut plan, x, template)?;
        }
        let mut x = plan.conv(x, &self.last, &[])?;
        if let (Some(template), Some(bands)) = (template, &self.template_bands) {
            let bands = plan.conv(template, bands, &[])?;
            x = plan.weighted_sum(x, bands)?;
        }
        plan.output(x);
        Ok(plan.build())
    }

    /// Lag of a stream behind its input frames, in samples: sample n needs the frames up to the one that contains
    /// sample `n + look_ahead_samples`. `template_lag_samples` is the lag of the template, if there is one.
    #[must_use]
    pub fn look_ahead_samples(&self, template_lag_samples: usize) -> usize {
        let first = self.first.look_ahead_frames();
        let stages = self.stages.iter().fold(first, |before, stage| {
            stage.look_ahead(before, template_lag_samples)
        });
        let corrections = stages + self.last.look_ahead_frames();
        match &self.template_bands {
            Some(bands) => corrections.max(template_lag_samples + bands.look_ahead_frames()),
            None => corrections,
        }
    }

    fn check_template(&self, template: Option<&Tensor>) -> Result<()> {
        let name = |is_there| if is_there { "a template" } else { "none" };
        if template.is_some() != self.config.template {
            bail!(
                "the generator expects {} beside the mel, found {}",
                name(self.config.template),
                name(template.is_some())
            );
        }
        Ok(())
    }

    /// Mel (B, M, T) as a plane of height one (B, M, 1, T), clamped.
    fn input(&self, mel: &Tensor) -> Result<Tensor> {
        let (_, n_mels, _) = mel.dims3()?;
        if n_mels != self.config.n_mels {
            bail!(
                "the generator expects {} mel bands, found {n_mels}",
                self.config.n_mels
            );
        }
        let mel = mel.clamp(-MEL_LIMIT, MEL_LIMIT)?.unsqueeze(2)?;
        match self.config.template {
            true => mel.affine(1.0 / MEL_DEVIATION, -MEL_MEAN / MEL_DEVIATION),
            false => Ok(mel),
        }
    }
}
