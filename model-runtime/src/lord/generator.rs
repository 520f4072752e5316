//! The generator of AdaIN-VC (Chou et al., Interspeech 2019), which LORD for music takes over: content decides what sounds when, and
//! the code of the instrument sets mean and deviation of each channel.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::config::LordConfig;
use super::layers::{
    Dense, TimeConv, TimeConvConfig, instance_norm, repeat_frames, shuffle_into_frames,
};

/// Makes a clip from a content code and the code of an instrument.
#[derive(Clone, Debug)]
pub struct Generator {
    first: TimeConv,
    blocks: Vec<Block>,
    last: TimeConv,
}

/// A residual block that makes `up` frames of one.
#[derive(Clone, Debug)]
struct Block {
    convs: [TimeConv; 2],
    /// Mean and deviation of the channels after each convolution.
    styles: [Dense; 2],
    up: usize,
}

impl Generator {
    /// Reads or creates the weights.
    ///
    /// # Errors
    ///
    /// If a tensor is missing or has another shape.
    pub fn new(config: &LordConfig, vb: &VarBuilder) -> Result<Self> {
        let width = config.channels;
        let first = TimeConvConfig::new(config.content_channels, width, 1);
        let last = TimeConvConfig::new(width, config.n_mels, 1);
        let blocks = config.ups.iter().enumerate();
        let blocks = blocks.map(|(index, up)| Block::new(config, *up, &vb.pp("blocks").pp(index)));
        Ok(Self {
            first: TimeConv::new(first, &vb.pp("first"))?,
            blocks: blocks.collect::<Result<_>>()?,
            last: TimeConv::new(last, &vb.pp("last"))?,
        })
    }

    /// Content (B, `content_channels`, 1, `content_frames`) and codes of instruments (B, `class_size`) to standardised log-mels
    /// (B, `n_mels`, 1, `frames`).
    ///
    /// # Errors
    ///
    /// If a shape does not fit.
    pub fn forward(&self, content: &Tensor, class: &Tensor) -> Result<Tensor> {
        let first = instance_norm(&self.first.forward(content)?)?.relu()?;
        let mut blocks = self.blocks.iter();
        let hidden = blocks.try_fold(first, |x, block| block.forward(&x, class))?;
        self.last.forward(&hidden)
    }
}

impl Block {
    fn new(config: &LordConfig, up: usize, vb: &VarBuilder) -> Result<Self> {
        let (width, kernel) = (config.channels, config.kernel);
        let first = TimeConvConfig::new(width, width, kernel);
        let second = TimeConvConfig::new(width, width * up, kernel);
        let style =
            |index: usize| Dense::new(config.class_size, 2 * width, &vb.pp("styles").pp(index));
        Ok(Self {
            convs: [
                TimeConv::new(first, &vb.pp("convs").pp(0))?,
                TimeConv::new(second, &vb.pp("convs").pp(1))?,
            ],
            styles: [style(0)?, style(1)?],
            up,
        })
    }

    fn forward(&self, x: &Tensor, class: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.convs;
        let y = self.styled(&first.forward(x)?, 0, class)?;
        let y = shuffle_into_frames(&second.forward(&y)?, self.up)?;
        self.styled(&y, 1, class)? + repeat_frames(x, self.up)?
    }

    /// Adaptive instance norm (Huang and Belongie, 2017) and ReLU.
    fn styled(&self, x: &Tensor, site: usize, class: &Tensor) -> Result<Tensor> {
        let style = self.styles[site].forward(class)?;
        let (batch, channels, _, _) = x.dims4()?;
        let half = |start: usize| {
            let half = style.narrow(1, start, channels)?.contiguous()?;
            half.reshape((batch, channels, 1, 1))
        };
        let (mean, deviation) = (half(0)?, half(channels)?);
        instance_norm(x)?
            .broadcast_mul(&deviation)?
            .broadcast_add(&mean)?
            .relu()
    }
}
