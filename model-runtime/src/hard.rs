//! HARD as published: Yiming Wu, "Self-Supervised Disentanglement of Harmonic and Rhythmic Features in Music Audio
//! Signals", DAFx 2023.
//!
//! Legend of shapes: B batch, C channels, T mel frames. With the published width of 32 channels and 128 mel bands, the
//! encoder leaves 2 frequency positions, and each latent has 64 channels: 128 values a frame.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;
use vocoder::conv::PadMode;
use vocoder::layers::{Block, Conv, ConvConfig, FrameQueue, Stack, StackState, Upsample};

use crate::latent::{Latent, Latents};

/// Down- and upsampling stages.
const STAGES: usize = 3;
/// Factor of each stage along the mel bands.
const FACTOR: usize = 4;

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardConfig {
    /// Channels of the first layer (32 as published); each of three stages doubles them.
    pub channels: usize,
    /// Channels of each latent (64 as published).
    pub latents: usize,
}

/// Encoder and decoder.
#[derive(Clone, Debug)]
pub struct Hard {
    trunk: Stack,
    harmony: Stack,
    rhythm: Stack,
    decoder: Stack,
}

impl Hard {
    /// Reads or creates the weights, split by weight norm if `norm` holds.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape, or the mel bands cannot be divided.
    pub fn new(config: &HardConfig, mel: &MelConfig, norm: bool, vb: &VarBuilder) -> Result<Self> {
        let positions = FACTOR.pow(STAGES as u32);
        if !mel.n_mels.is_multiple_of(positions) || mel.n_mels / positions < 2 {
            candle_core::bail!(
                "HARD expects a multiple of {positions} mel bands, at least {}, found {}",
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
            let down = same(channels, channels, (FACTOR, 3))
                .strided((FACTOR, 1))
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
        let mut blocks = vec![conv(
            same(2 * config.latents, channels, (3, 3)).linear(),
            dv.pp("first"),
        )?];
        for stage in 0..STAGES {
            let vb = dv.pp(format!("stage{stage}"));
            blocks.push(residual(channels, vb.pp("residual"))?);
            let up = Upsample::new(channels, channels / 2, FACTOR, norm, &vb.pp("up"))?;
            blocks.push(Block::Upsample(up));
            channels /= 2;
        }
        let last = same(channels, 1, (1, 1)).linear().weight_norm(false);
        blocks.push(conv(last, dv.pp("last"))?);

        Ok(Self {
            trunk,
            harmony: branch(vb.pp("harmony"))?,
            rhythm: branch(vb.pp("rhythm"))?,
            decoder: Stack::new(blocks),
        })
    }

    /// Log-mel (B, 1, n_mels, T) to two latents (B, latents, n_mels / 64, T).
    ///
    /// # Errors
    /// If the shape is another.
    pub fn encode(&self, mel: &Tensor) -> Result<Latents> {
        let x = self.trunk.forward(mel)?;
        Ok(Latents {
            harmony: Latent::from_raw(&self.harmony.forward(&x)?)?,
            rhythm: Latent::from_raw(&self.rhythm.forward(&x)?)?,
        })
    }

    /// Two latents (B, latents, n_mels / 64, T) to log-mel (B, 1, n_mels, T).
    ///
    /// # Errors
    /// If the shapes are others.
    pub fn decode(&self, harmony: &Tensor, rhythm: &Tensor) -> Result<Tensor> {
        self.decoder.forward(&Tensor::cat(&[harmony, rhythm], 1)?)
    }

    /// Mel frames that must be known after a frame before it is encoded and decoded.
    #[must_use]
    pub fn look_ahead_frames(&self) -> usize {
        self.trunk.look_ahead_frames()
            + self.harmony.look_ahead_frames()
            + self.decoder.look_ahead_frames()
    }

    /// As [`crate::Network::with_look_ahead`].
    ///
    /// # Errors
    /// If the weights cannot be folded.
    pub fn with_look_ahead(&self, frames: usize) -> Result<Self> {
        let trunk = self.trunk.with_look_ahead(frames)?;
        let left = frames - trunk.look_ahead_frames();
        let harmony = self.harmony.with_look_ahead(left)?;
        let left = left - harmony.look_ahead_frames();
        Ok(Self {
            rhythm: self.rhythm.with_look_ahead(harmony.look_ahead_frames())?,
            decoder: self.decoder.with_look_ahead(left)?,
            trunk,
            harmony,
        })
    }

    /// Takes the next log-mel frames (B, 1, n_mels, n) and gives the latent means that they complete.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn encode_step(
        &self,
        state: &mut EncoderState,
        mel: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(x) = self.trunk.step(&mut state.trunk, mel)? else {
            return Ok((None, None));
        };
        let mean = |branch: &Stack, state: &mut StackState| -> Result<Option<Tensor>> {
            let raw = branch.step(state, &x)?;
            raw.map(|raw| Latent::from_raw(&raw).map(|latent| latent.mean))
                .transpose()
        };
        Ok((
            mean(&self.harmony, &mut state.harmony)?,
            mean(&self.rhythm, &mut state.rhythm)?,
        ))
    }

    /// Takes the next latent frames and gives the log-mel frames (B, 1, n_mels, t) that they complete.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn decode_step(
        &self,
        state: &mut DecoderState,
        harmony: Option<&Tensor>,
        rhythm: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        if let Some(harmony) = harmony {
            state.harmony.push(harmony)?;
        }
        if let Some(rhythm) = rhythm {
            state.rhythm.push(rhythm)?;
        }
        let frames = state.harmony.frames().min(state.rhythm.frames());
        if frames == 0 {
            return Ok(None);
        }
        let latents = [state.harmony.take(frames)?, state.rhythm.take(frames)?];
        self.decoder
            .step(&mut state.decoder, &Tensor::cat(&latents, 1)?)
    }
}

/// What [`Hard::encode_step`] remembers.
#[derive(Clone, Debug, Default)]
pub struct EncoderState {
    trunk: StackState,
    harmony: StackState,
    rhythm: StackState,
}

/// What [`Hard::decode_step`] remembers.
#[derive(Clone, Debug, Default)]
pub struct DecoderState {
    harmony: FrameQueue,
    rhythm: FrameQueue,
    decoder: StackState,
}
