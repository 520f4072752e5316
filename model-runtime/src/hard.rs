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
use vocoder::layers::{Block, Conv, ConvConfig, Stack, Upsample};

use crate::factor::{Factor, FactorLayout, FactorMap, Transposition};
use crate::latent::{Latent, Latents};
use crate::network::{Network, NetworkConfig};
use crate::planned::{PlanCell, Planned};

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
#[derive(Debug)]
pub struct Hard {
    n_mels: usize,
    latents: usize,
    trunk: Stack,
    branches: FactorMap<Stack>,
    decoder: Stack,
    plan: PlanCell,
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
            n_mels: mel.n_mels,
            latents: config.latents,
            plan: PlanCell::new(trunk.is_trained()),
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

    fn encode_layers(&self, mel: &Tensor) -> Result<Latents> {
        let x = self.trunk.forward(mel)?;
        self.branches
            .try_map(|_, branch| Latent::from_raw(&branch.forward(&x)?))
    }

    fn decode_layers(&self, latents: &FactorMap<Tensor>) -> Result<Tensor> {
        let factors = FACTORS.iter().map(|layout| layout.factor);
        let latents = factors.map(|factor| latents.expect(factor).cloned());
        let joined = Tensor::cat(&latents.collect::<Result<Vec<_>>>()?, 1)?;
        self.decoder.forward(&joined)
    }

    fn compile(&self) -> Result<Planned> {
        let mut encoder = Planned::builder();
        let mel = encoder.input(self.n_mels, 1);
        let x = encoder.stack(mel, &self.trunk)?;
        for branch in self.branches.values() {
            let raw = encoder.stack(x, branch)?;
            encoder.output(raw);
        }

        let mut decoder = Planned::builder();
        let rows = self.n_mels / STRIDE.pow(STAGES as u32);
        let latents = self.branches.map(|_, _| decoder.input(rows, self.latents));
        let joined = decoder.join(&latents.values().copied().collect::<Vec<_>>())?;
        let mel = decoder.stack(joined, &self.decoder)?;
        decoder.output(mel);

        let sizes = self.branches.map(|_, _| (self.latents, rows));
        Ok(Planned::new(encoder, decoder, self.n_mels, &sizes))
    }

    fn plan_cell(&self) -> &PlanCell {
        &self.plan
    }

    fn look_ahead_frames(&self) -> usize {
        self.trunk.look_ahead_frames()
            + branch_look_ahead_frames(&self.branches)
            + self.decoder.look_ahead_frames()
    }

    fn with_look_ahead(&self, frames: usize) -> Result<Arc<dyn Network>> {
        let trunk = self.trunk.with_look_ahead(frames)?;
        let left = frames - trunk.look_ahead_frames();
        let branches = self
            .branches
            .try_map(|_, branch| branch.with_look_ahead(left))?;
        let left = left - branch_look_ahead_frames(&branches);
        Ok(Arc::new(Self {
            n_mels: self.n_mels,
            latents: self.latents,
            trunk,
            branches,
            decoder: self.decoder.with_look_ahead(left)?,
            plan: PlanCell::new(self.plan.is_trained()),
        }))
    }
}

/// Look-ahead of the branches, which is the same for all.
fn branch_look_ahead_frames(branches: &FactorMap<Stack>) -> usize {
    let look_ahead = branches.values().map(Stack::look_ahead_frames);
    look_ahead.max().unwrap_or(0)
}
