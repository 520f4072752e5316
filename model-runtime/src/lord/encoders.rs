//! The encoders of AdaIN-VC: content with instance norm, which takes the instrument away, and instrument without, averaged over time.

use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;

use super::config::{EncoderConfig, LordConfig};
use super::layers::{Dense, TimeConv, TimeConvConfig, average_frames, instance_norm};

/// Slope of the LeakyReLU, that of PyTorch.
const LEAKY_SLOPE: f64 = 0.01;

/// Reads the content code of a clip.
#[derive(Clone, Debug)]
pub struct ContentEncoder {
    bank: Bank,
    blocks: Vec<Block>,
    last: TimeConv,
    subspace: Option<Subspace>,
}

/// Reads the code of the instrument of a clip.
#[derive(Clone, Debug)]
pub struct ClassEncoder {
    bank: Bank,
    blocks: Vec<Block>,
    dense: Vec<[Dense; 2]>,
    last: Dense,
}

/// The space that content codes are projected to. It has no gradients.
#[derive(Clone, Debug)]
struct Subspace {
    /// Of the codes, (1, values of a code).
    mean: Tensor,
    /// Orthonormal directions, (rank, values of a code).
    basis: Tensor,
}

/// Convolutions with kernels of all lengths, side by side, and one that mixes them with the input.
#[derive(Clone, Debug)]
struct Bank {
    convs: Vec<TimeConv>,
    mix: TimeConv,
    norm: Norm,
}

/// A residual block.
#[derive(Clone, Debug)]
struct Block {
    convs: [TimeConv; 2],
    stride: usize,
    norm: Norm,
}

/// What comes between a convolution and its LeakyReLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Norm {
    Instance,
    None,
}

impl Norm {
    /// A layer whose LeakyReLU is its own, if nothing comes between.
    fn conv(self, config: TimeConvConfig, vb: &VarBuilder) -> Result<TimeConv> {
        let slope = (self == Self::None).then_some(LEAKY_SLOPE);
        TimeConv::new(TimeConvConfig { slope, ..config }, vb)
    }

    /// The output of such a layer with norm and LeakyReLU.
    fn activated(self, y: Tensor) -> Result<Tensor> {
        match self {
            Self::Instance => candle_nn::ops::leaky_relu(&instance_norm(&y)?, LEAKY_SLOPE),
            Self::None => Ok(y),
        }
    }
}

impl Bank {
    fn new(n_mels: usize, config: &EncoderConfig, norm: Norm, vb: &VarBuilder) -> Result<Self> {
        let convs = (1..=config.bank).map(|kernel| {
            let conv = TimeConvConfig::new(n_mels, config.bank_channels, kernel);
            Norm::None.conv(conv, &vb.pp("bank").pp(kernel - 1))
        });
        let mixed = config.bank * config.bank_channels + n_mels;
        let mix = TimeConvConfig::new(mixed, config.channels, 1);
        Ok(Self {
            convs: convs.collect::<Result<_>>()?,
            mix: norm.conv(mix, &vb.pp("mix"))?,
            norm,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut all = self
            .convs
            .iter()
            .map(|conv| conv.forward(x))
            .collect::<Result<Vec<_>>>()?;
        all.push(x.clone());
        self.norm
            .activated(self.mix.forward(&Tensor::cat(&all, 1)?)?)
    }
}

impl Block {
    fn all(config: &EncoderConfig, norm: Norm, vb: &VarBuilder) -> Result<Vec<Self>> {
        let conv = TimeConvConfig::new(config.channels, config.channels, config.kernel);
        let blocks = config.strides.iter().enumerate();
        let blocks = blocks.map(|(index, stride)| {
            let vb = vb.pp("blocks").pp(index);
            let strided = TimeConvConfig {
                stride: *stride,
                ..conv
            };
            Ok(Self {
                convs: [norm.conv(conv, &vb.pp(0))?, norm.conv(strided, &vb.pp(1))?],
                stride: *stride,
                norm,
            })
        });
        blocks.collect()
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut convs = self.convs.iter();
        let y = convs.try_fold(x.clone(), |y, conv| self.norm.activated(conv.forward(&y)?))?;
        y + average_frames(x, self.stride)?
    }
}

impl Subspace {
    fn new(config: &LordConfig, rank: usize, vb: &VarBuilder) -> Result<Self> {
        let values = config.content_channels * config.content_frames;
        Ok(Self {
            mean: vb.get((1, values), "mean")?.detach(),
            basis: vb.get((rank, values), "basis")?.detach(),
        })
    }

    /// The nearest codes in the space.
    fn project(&self, content: &Tensor) -> Result<Tensor> {
        let centred = content.flatten_from(1)?.broadcast_sub(&self.mean)?;
        let coordinates = centred.matmul(&self.basis.t()?)?;
        let projected = coordinates.matmul(&self.basis)?;
        projected
            .broadcast_add(&self.mean)?
            .reshape(content.shape())
    }
}

fn through(blocks: &[Block], x: Tensor) -> Result<Tensor> {
    blocks.iter().try_fold(x, |x, block| block.forward(&x))
}

impl ContentEncoder {
    /// Reads or creates the weights.
    ///
    /// # Errors
    ///
    /// If a tensor is missing or has another shape.
    pub fn new(config: &LordConfig, vb: &VarBuilder) -> Result<Self> {
        let encoder = &config.content_encoder;
        let last = TimeConvConfig::new(encoder.channels, config.content_channels, 1);
        Ok(Self {
            bank: Bank::new(config.n_mels, encoder, Norm::Instance, vb)?,
            blocks: Block::all(encoder, Norm::Instance, vb)?,
            last: TimeConv::new(last, &vb.pp("last"))?,
            subspace: match config.content_rank {
                Some(rank) => Some(Subspace::new(config, rank, &vb.pp("subspace"))?),
                None => None,
            },
        })
    }

    /// Standardised log-mels (B, `n_mels`, 1, `frames`) to content (B, `content_channels`, 1, `content_frames`).
    ///
    /// # Errors
    ///
    /// If the shape does not fit.
    pub fn forward(&self, mel: &Tensor) -> Result<Tensor> {
        let content = self.forward_whole(mel)?;
        match &self.subspace {
            Some(subspace) => subspace.project(&content),
            None => Ok(content),
        }
    }

    /// The same without the projection, for a training that has not chosen the space yet.
    ///
    /// # Errors
    ///
    /// If the shape does not fit.
    pub fn forward_whole(&self, mel: &Tensor) -> Result<Tensor> {
        let hidden = through(&self.blocks, self.bank.forward(mel)?)?;
        self.last.forward(&hidden)
    }
}

impl ClassEncoder {
    /// Reads or creates the weights.
    ///
    /// # Errors
    ///
    /// If a tensor is missing or has another shape.
    pub fn new(config: &LordConfig, vb: &VarBuilder) -> Result<Self> {
        let encoder = &config.class_encoder;
        let width = encoder.channels;
        let dense = (0..config.dense_blocks).map(|index| {
            let vb = vb.pp("dense").pp(index);
            Ok([
                Dense::new(width, width, &vb.pp(0))?,
                Dense::new(width, width, &vb.pp(1))?,
            ])
        });
        Ok(Self {
            bank: Bank::new(config.n_mels, encoder, Norm::None, vb)?,
            blocks: Block::all(encoder, Norm::None, vb)?,
            dense: dense.collect::<Result<_>>()?,
            last: Dense::new(width, config.class_size, &vb.pp("last"))?,
        })
    }

    /// Standardised log-mels (B, `n_mels`, 1, `frames`) to codes of instruments (B, `class_size`).
    ///
    /// # Errors
    ///
    /// If the shape does not fit.
    pub fn forward(&self, mel: &Tensor) -> Result<Tensor> {
        let hidden = through(&self.blocks, self.bank.forward(mel)?)?;
        let mut hidden = hidden.mean(D::Minus1)?.squeeze(D::Minus1)?;
        for block in &self.dense {
            let y = block.iter().try_fold(hidden.clone(), |y, dense| {
                candle_nn::ops::leaky_relu(&dense.forward(&y)?, LEAKY_SLOPE)
            })?;
            hidden = (y + hidden)?;
        }
        self.last.forward(&hidden)
    }
}
