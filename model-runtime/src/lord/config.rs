//! Sizes of the networks.

use serde::{Deserialize, Serialize};
use vocoder::MelConfig;

use crate::error::{Error, Result};

/// Sizes of generator and encoders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LordConfig {
    /// Bands of the log-mel.
    pub n_mels: usize,
    /// Frames of a clip: the content frames times all of `ups`.
    pub frames: usize,
    /// Channels of a content code.
    pub content_channels: usize,
    /// Frames of a content code.
    pub content_frames: usize,
    /// Dimensions of the space that the content encoder's codes are projected to, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_rank: Option<usize>,
    /// Values of the code of an instrument.
    pub class_size: usize,
    /// Channels of the generator.
    pub channels: usize,
    /// Kernel of its blocks in frames, odd.
    pub kernel: usize,
    /// Frames that each of its blocks makes of one.
    pub ups: Vec<usize>,
    /// The content encoder. Its strides together are `ups` together.
    pub content_encoder: EncoderConfig,
    /// The class encoder.
    pub class_encoder: EncoderConfig,
    /// Fully connected residual blocks at its end.
    pub dense_blocks: usize,
}

/// Sizes of an encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Largest kernel of the bank of convolutions; there is one of each kernel from 1 on.
    pub bank: usize,
    /// Channels of each of them.
    pub bank_channels: usize,
    /// Channels of the blocks.
    pub channels: usize,
    /// Kernel of the blocks in frames, odd.
    pub kernel: usize,
    /// Stride of each block.
    pub strides: Vec<usize>,
}

/// Upper limit of a number of channels or values.
const MOST_CHANNELS: usize = 4096;
/// Upper limit of a number of frames, or of blocks.
const MOST_FRAMES: usize = 4096;
const MOST_BLOCKS: usize = 64;
const MOST_TAPS: usize = 31;

impl LordConfig {
    /// Rejects sizes that do not fit together, and unreasonable ones, so that a malicious file cannot make a program allocate
    /// unlimited memory.
    ///
    /// # Errors
    ///
    /// If a size is out of range; the message names it.
    pub fn validate(&self, mel: &MelConfig) -> Result<()> {
        expect("n_mels", self.n_mels, mel.n_mels, mel.n_mels)?;
        expect("frames", self.frames, 1, MOST_FRAMES)?;
        expect("content_channels", self.content_channels, 1, MOST_CHANNELS)?;
        if let Some(rank) = self.content_rank {
            let values = self.content_channels * self.content_frames;
            expect("content_rank", rank, 1, values)?;
        }
        expect("class_size", self.class_size, 1, MOST_CHANNELS)?;
        expect("channels", self.channels, 1, MOST_CHANNELS)?;
        expect("dense_blocks", self.dense_blocks, 0, MOST_BLOCKS)?;
        expect_kernel("kernel", self.kernel)?;
        let ups = product("ups", &self.ups)?;
        // Reflection needs as many frames as a kernel reaches, and another.
        let least = self.kernel / 2 + 1;
        expect("content_frames", self.content_frames, least, self.frames)?;
        if self.content_frames * ups != self.frames {
            return Err(Error::Model(format!(
                "expected content_frames times ups to be the {} frames, found {} times {ups}",
                self.frames, self.content_frames
            )));
        }
        let strides = self
            .content_encoder
            .validate("content_encoder", self.frames)?;
        if strides != ups {
            return Err(Error::Model(format!(
                "content_encoder.strides: expected {ups} together, as ups, found {strides}"
            )));
        }
        self.class_encoder.validate("class_encoder", self.frames)?;
        Ok(())
    }
}

impl EncoderConfig {
    /// Checks the sizes and gives all strides together.
    fn validate(&self, name: &str, frames: usize) -> Result<usize> {
        let of = |field: &str| format!("{name}.{field}");
        expect(&of("bank"), self.bank, 1, MOST_TAPS)?;
        expect(&of("bank_channels"), self.bank_channels, 1, MOST_CHANNELS)?;
        expect(&of("channels"), self.channels, 1, MOST_CHANNELS)?;
        expect_kernel(&of("kernel"), self.kernel)?;
        let strides = product(&of("strides"), &self.strides)?;
        let least = self.kernel / 2 + 1;
        if !frames.is_multiple_of(strides) || frames / strides < least {
            return Err(Error::Model(format!(
                "{}: expected a divisor of {frames} frames that leaves {least} of them, found {strides} together",
                of("strides")
            )));
        }
        expect(&of("bank"), self.bank, 1, frames)?;
        Ok(strides)
    }
}

fn expect(name: &str, found: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::Model(format!(
        "{name}: expected {least} to {most}, found {found}"
    )))
}

fn expect_kernel(name: &str, found: usize) -> Result<()> {
    expect(name, found, 1, MOST_TAPS)?;
    match found % 2 {
        1 => Ok(()),
        _ => Err(Error::Model(format!(
            "{name}: expected an odd number, found {found}"
        ))),
    }
}

/// All factors together.
fn product(name: &str, factors: &[usize]) -> Result<usize> {
    expect(&format!("number of {name}"), factors.len(), 1, MOST_BLOCKS)?;
    let mut product = 1;
    for factor in factors {
        expect(name, *factor, 1, MOST_FRAMES)?;
        product *= factor;
        expect(&format!("{name} together"), product, 1, MOST_FRAMES)?;
    }
    Ok(product)
}
