//! HARD as published: Yiming Wu, "Self-Supervised Disentanglement of Harmonic and Rhythmic Features in Music Audio
//! Signals", DAFx 2023.
//!
//! Shapes: B batch, C channels, T mel frames. With the published width of 32 channels and 128 mel bands, the encoder
//! leaves 2 frequency positions, and each latent has 64 channels: 128 values per frame.

use std::ops::RangeInclusive;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;
use vocoder::conv::PadMode;
use vocoder::layers::{Block, Conv, ConvConfig, FrameQueue, Stack, StackState, Upsample};

use crate::factor::{Factor, FactorLayout, FactorMap, Transposition};
use crate::latent::{Latent, Latents};
use crate::network::{Network, NetworkConfig, StreamDecoder, StreamEncoder};

/// Down- and upsampling stages.
const STAGES: usize = 3;
/// Factor by which each stage divides or multiplies the mel bands.
const STRIDE: usize = 4;

/// Both latents have one frame for each mel frame.
const FACTORS: [FactorLayout; 2] = [
    FactorLayout {
        factor: Factor::Harmony,
        pool_frames: 1,
        transposition: Transposition::RollChannels,
    },
    FactorLayout {
        factor: Factor::Rhythm,
        pool_frames: 1,
        transposition: Transposition::None,
    },
];

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardConfig {
    /// Channels of the first layer (32 as published). Each of the three stages doubles them.
    pub channels: usize,
    /// Channels of each latent (64 as published).
    pub latents: usize,
    /// The decoder. Model files from before it could be chosen do not name it.
    #[serde(default, skip_serializing_if = "HardDecoder::is_linear")]
    pub decoder: HardDecoder,
}

/// The decoder of HARD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HardDecoder {
    /// That of older model files: a stage upsamples with one linear layer, which halves the channels.
    #[default]
    Linear,
    /// That of the public code: a convolution with an activation halves the channels before.
    Published,
}

impl HardDecoder {
    fn is_linear(&self) -> bool {
        *self == Self::Linear
    }
}

/// Encoder and decoder.
#[derive(Clone, Debug)]
pub struct Hard {
    trunk: Stack,
    branches: FactorMap<Stack>,
    decoder: Stack,
}

impl HardConfig {
    /// Frequency positions of the latents.
    pub fn positions(&self, mel: &MelConfig) -> usize {
        mel.n_mels / STRIDE.pow(STAGES as u32)
    }
}

impl NetworkConfig for HardConfig {
    fn sizes(&self) -> Vec<(&'static str, usize, RangeInclusive<usize>)> {
        vec![
            ("channels", self.channels, 1..=256),
            ("latents", self.latents, 1..=1024),
        ]
    }

    fn build(
        &self,
        mel: &MelConfig,
        weight_norm: bool,
        vb: &VarBuilder,
    ) -> Result<Arc<dyn Network>> {
        Ok(Arc::new(Hard::new(self, mel, weight_norm, vb)?))
    }
}

impl Hard {
    /// Reads or creates the weights, split by weight norm if `norm` is true.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape, or the mel bands cannot be divided.
    pub fn new(config: &HardConfig, mel: &MelConfig, norm: bool, vb: &VarBuilder) -> Result<Self> {
        let positions = STRIDE.pow(STAGES as u32);
        if !mel.n_mels.is_multiple_of(positions) || mel.n_mels / positions < 2 {
            candle_core::bail!(
                "HARD needs mel bands in multiples of {positions}, at least {}, found {}",
                2 * positions,
                mel.n_mels
            );
        }
        let same = |input, output, kernel| {
            ConvConfig::same(input, output, kernel)
                .pad_mode(PadMode::Reflect)
                .weight_norm(norm)
        };
        let conv = |config: ConvConfig, vb: VarBuilder| Conv::new(config, &vb).map(Block::Conv);
        let residual =
            |channels, vb: VarBuilder| Block::residual(same(channels, channels, (3, 3)), &vb);

        let tv = vb.pp("trunk");
        let mut channels = config.channels;
        let mut blocks = vec![conv(same(1, channels, (3, 3)), tv.pp("first"))?];
        for stage in 0..STAGES {
            let vb = tv.pp(format!("stage{stage}"));
            blocks.push(conv(same(channels, 2 * channels, (3, 3)), vb.pp("widen"))?);
            channels *= 2;
            let down = same(channels, channels, (STRIDE, 3))
                .strided((STRIDE, 1))
                .padded((0, 1));
            blocks.push(conv(down.linear(), vb.pp("down"))?);
            blocks.push(residual(channels, vb.pp("residual"))?);
        }
        blocks.push(conv(
            same(channels, 2 * config.latents, (1, 1)).linear(),
            tv.pp("last"),
        )?);
        let trunk = Stack::new(blocks);

        let branch = |vb: VarBuilder| -> Result<Stack> {
            let width = 2 * config.latents;
            Ok(Stack::new(vec![
                residual(width, vb.pp("0"))?,
                residual(width, vb.pp("1"))?,
                conv(same(width, 2 * config.latents, (1, 1)).linear(), vb.pp("2"))?,
            ]))
        };

        let dv = vb.pp("decoder");
        let first = same(2 * config.latents, channels, (3, 3));
        let first = match config.decoder {
            HardDecoder::Linear => first.linear(),
            // The public code has a transposed convolution of unit stride here: the same with a flipped kernel.
            HardDecoder::Published => first.pad_mode(PadMode::Zero),
        };
        let mut blocks = vec![conv(first, dv.pp("first"))?];
        for stage in 0..STAGES {
            let vb = dv.pp(format!("stage{stage}"));
            blocks.push(residual(channels, vb.pp("residual"))?);
            let narrow = channels / 2;
            if config.decoder == HardDecoder::Published {
                blocks.push(conv(same(channels, narrow, (3, 3)), vb.pp("narrow"))?);
                channels = narrow;
            }
            let up = Upsample::new(channels, narrow, STRIDE, norm, &vb.pp("up"))?;
            blocks.push(Block::Upsample(up));
            channels = narrow;
        }
        let last = same(channels, 1, (1, 1)).linear().weight_norm(false);
        blocks.push(conv(last, dv.pp("last"))?);

        Ok(Self {
            trunk,
            branches: FACTORS
                .iter()
                .map(|layout| Ok((layout.factor, branch(vb.pp(layout.factor.name()))?)))
                .collect::<Result<_>>()?,
            decoder: Stack::new(blocks),
        })
    }
}

/// Latents have the shape (B, latents, n_mels / 64, T).
impl Network for Hard {
    fn factors(&self) -> &[FactorLayout] {
        &FACTORS
    }

    fn encode_factor(&self, factor: Factor, mel: &Tensor) -> Result<Latent> {
        self.layout(factor)?;
        let x = self.trunk.forward(mel)?;
        Latent::from_raw(&self.branches[factor].forward(&x)?)
    }

    fn encode(&self, mel: &Tensor) -> Result<Latents> {
        let x = self.trunk.forward(mel)?;
        self.branches
            .try_map(|_, branch| Latent::from_raw(&branch.forward(&x)?))
    }

    fn decode(&self, latents: &FactorMap<Tensor>) -> Result<Tensor> {
        self.decoder
            .forward(&joined(|factor| latents.expect(factor).cloned())?)
    }

    fn encoder(&self) -> Box<dyn StreamEncoder> {
        Box::new(Encoder {
            network: self.clone(),
            trunk: StackState::default(),
            branches: self.branches.map(|_, _| StackState::default()),
        })
    }

    fn decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(Decoder {
            decoder: self.decoder.clone(),
            latents: self.branches.map(|_, _| FrameQueue::default()),
            state: StackState::default(),
        })
    }

    fn look_ahead_frames(&self) -> usize {
        self.trunk.look_ahead_frames()
            + self.branch_look_ahead_frames()
            + self.decoder.look_ahead_frames()
    }

    fn with_look_ahead(&self, frames: usize) -> Result<Arc<dyn Network>> {
        let trunk = self.trunk.with_look_ahead(frames)?;
        let left = frames - trunk.look_ahead_frames();
        let branches = self
            .branches
            .try_map(|_, branch| branch.with_look_ahead(left))?;
        let limited = Self {
            trunk,
            branches,
            decoder: self.decoder.clone(),
        };
        let left = left - limited.branch_look_ahead_frames();
        Ok(Arc::new(Self {
            decoder: self.decoder.with_look_ahead(left)?,
            ..limited
        }))
    }
}

impl Hard {
    /// Look-ahead of the branches, which is the same for all.
    fn branch_look_ahead_frames(&self) -> usize {
        let look_ahead = self.branches.values().map(Stack::look_ahead_frames);
        look_ahead.max().unwrap_or(0)
    }
}

/// All latents concatenated along the channels: (B, 2 latents, H, T).
fn joined(latent: impl FnMut(Factor) -> Result<Tensor>) -> Result<Tensor> {
    let factors = FACTORS.iter().map(|layout| layout.factor);
    let latents = factors.map(latent).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&latents, 1)
}

struct Encoder {
    network: Hard,
    trunk: StackState,
    branches: FactorMap<StackState>,
}

impl StreamEncoder for Encoder {
    fn step(&mut self, mel: &Tensor) -> Result<FactorMap<Tensor>> {
        let mut means = FactorMap::default();
        let Some(x) = self.network.trunk.step(&mut self.trunk, mel)? else {
            return Ok(means);
        };
        for (factor, state) in self.branches.iter_mut() {
            if let Some(raw) = self.network.branches[factor].step(state, &x)? {
                means.insert(factor, Latent::from_raw(&raw)?.mean);
            }
        }
        Ok(means)
    }

    fn finish(&mut self, mel: Option<&Tensor>) -> Result<FactorMap<Tensor>> {
        let mut means = FactorMap::default();
        let x = self.network.trunk.finish(&mut self.trunk, mel)?;
        for (factor, state) in self.branches.iter_mut() {
            if let Some(raw) = self.network.branches[factor].finish(state, x.as_ref())? {
                means.insert(factor, Latent::from_raw(&raw)?.mean);
            }
        }
        Ok(means)
    }
}

struct Decoder {
    decoder: Stack,
    latents: FactorMap<FrameQueue>,
    state: StackState,
}

impl Decoder {
    /// Takes the next frames of some latents and returns those that are there of all, joined.
    fn join(&mut self, latents: &FactorMap<Tensor>) -> Result<Option<Tensor>> {
        for (factor, latent) in latents.iter() {
            match self.latents.get_mut(factor) {
                Some(queue) => queue.push(latent)?,
                None => candle_core::bail!("expected no {factor} latent, found one"),
            }
        }
        match self.latents.values().map(FrameQueue::frames).min() {
            Some(frames @ 1..) => joined(|factor| self.latents[factor].take(frames)).map(Some),
            _ => Ok(None),
        }
    }
}

impl StreamDecoder for Decoder {
    fn step(&mut self, latents: &FactorMap<Tensor>) -> Result<Option<Tensor>> {
        match self.join(latents)? {
            Some(latents) => self.decoder.step(&mut self.state, &latents),
            None => Ok(None),
        }
    }

    fn finish(&mut self, latents: &FactorMap<Tensor>) -> Result<Option<Tensor>> {
        let latents = self.join(latents)?;
        self.decoder.finish(&mut self.state, latents.as_ref())
    }
}
