//! Takes the instrument out of the content codes that the encoder gives: a classifier looks for it, and the encoder is trained to
//! leave it uncertain (domain confusion: Tzeng et al., "Simultaneous Deep Transfer Across Domains and Tasks", ICCV 2015; for
//! music Mor et al., "A Universal Music Translation Network", ICLR 2019).

use std::collections::HashMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use model_runtime::lord::LordConfig;
use vocoder::conv::PadMode;
use vocoder::layers::{Conv, ConvConfig};

use super::loss::certainty;
use crate::luo::loss::cross_entropy;
use crate::optim::{Adam, AdamConfig};
use crate::parameters::Parameters;

/// Prefix of its state in a checkpoint.
const PREFIX: &str = "confusion/";

/// A classifier of the instrument of content codes, in training beside the encoder.
pub struct Confusion {
    hidden: Conv,
    /// Hears the code itself as well, so that nothing that a linear probe finds escapes it.
    instrument: Conv,
    optimiser: Adam,
}

impl Confusion {
    /// Creates the classifier, with weights from the checkpoint or, if it has none, random weights from the seed.
    ///
    /// # Errors
    ///
    /// Returns an error if the checkpoint holds another classifier.
    pub fn new(
        config: &LordConfig,
        instruments: usize,
        adam: AdamConfig,
        seed: u64,
        device: &Device,
        checkpoint: Option<&HashMap<String, Tensor>>,
    ) -> Result<Self> {
        let parameters = Parameters::new(seed);
        let vb = parameters.builder(device);
        let (channels, frames) = (config.content_channels, config.content_frames);
        let hidden = ConvConfig::same(channels, channels, (1, 3)).pad_mode(PadMode::Zero);
        let instrument = ConvConfig::same(2 * channels * frames, instruments, (1, 1)).linear();
        let mut confusion = Self {
            hidden: Conv::new(hidden, &vb.pp("hidden"))?,
            instrument: Conv::new(instrument, &vb.pp("instrument"))?,
            optimiser: Adam::new(&parameters, adam)?,
        };
        let state = checkpoint.into_iter().flatten();
        let own = state.filter_map(|(name, tensor)| {
            Some((name.strip_prefix(PREFIX)?.to_owned(), tensor.clone()))
        });
        let own: HashMap<_, _> = own.collect();
        if let Some(steps) = own.get("steps") {
            let steps = steps.to_scalar::<i64>()? as u64;
            let restored = confusion.optimiser.restore(&own, steps);
            restored.context("the classifier of content codes in the checkpoint")?;
        }
        Ok(confusion)
    }

    /// Logits (B, instruments) of content codes (B, channels, 1, frames), whose scale does not count.
    fn logits(&self, content: &Tensor) -> Result<Tensor> {
        let scale = content.detach().sqr()?.mean_all()?.sqrt()?;
        let content = content.broadcast_div(&(scale + 1e-6)?)?;
        let hidden = self.hidden.forward(&content)?;
        let both = Tensor::cat(&[&content, &hidden], 1)?.flatten_from(1)?;
        let both = both.reshape((both.dim(0)?, both.dim(1)?, 1, 1))?;
        Ok(self.instrument.forward(&both)?.flatten_from(1)?)
    }

    /// How certain the classifier is of the instruments of content codes ([`certainty`]): what the encoder has to reduce.
    ///
    /// # Errors
    ///
    /// Returns an error if the shape does not fit.
    pub fn loss(&self, content: &Tensor) -> Result<Tensor> {
        certainty(&self.logits(content)?)
    }

    /// Trains the classifier on content codes and their instruments. Returns its cross-entropy before.
    ///
    /// # Errors
    ///
    /// Returns an error if its gradients are not finite.
    pub fn step(&mut self, content: &Tensor, instruments: &Tensor, rate: f64) -> Result<Tensor> {
        let loss = cross_entropy(&self.logits(&content.detach())?, instruments, None)?;
        let gradients = loss.backward()?;
        let stepped = self.optimiser.step(&gradients, rate);
        stepped.context("in the classifier of content codes")?;
        Ok(loss)
    }

    /// The tensors that resuming needs, by name.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor cannot be copied.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = self.optimiser.state()?;
        let steps = Tensor::new(self.optimiser.steps() as i64, &Device::Cpu)?;
        state.insert("steps".to_owned(), steps);
        let named = state.into_iter();
        Ok(named
            .map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use model_runtime::lord::EncoderConfig;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use crate::noise::normal;

    const CHANNELS: usize = 3;
    const FRAMES: usize = 4;
    const INSTRUMENTS: usize = 5;

    fn confusion() -> Confusion {
        let encoder = EncoderConfig {
            bank: 1,
            bank_channels: 1,
            channels: 1,
            kernel: 1,
            strides: vec![1],
        };
        let config = LordConfig {
            n_mels: 16,
            frames: FRAMES,
            content_channels: CHANNELS,
            content_frames: FRAMES,
            content_rank: None,
            class_size: 1,
            channels: 1,
            kernel: 1,
            ups: vec![1],
            dense_blocks: 0,
            content_encoder: encoder.clone(),
            class_encoder: encoder,
        };
        let adam = AdamConfig {
            rectified: false,
            weight_decay: 0.0,
            betas: (0.5, 0.999),
            clip_norm: f64::INFINITY,
            amsgrad: false,
            average_decay: None,
        };
        Confusion::new(&config, INSTRUMENTS, adam, 1, &Device::Cpu, None).unwrap()
    }

    /// What a mark of the codes sounds like.
    #[derive(Clone, Copy, Debug)]
    enum Mark {
        /// One value tells the instrument.
        Value,
        /// The scale of all values tells the instrument.
        Scale,
        /// One value tells something else.
        Other,
    }

    /// The share that an encoder, which begins with marked codes, leaves of their marks.
    fn left(mark: Mark) -> f32 {
        const ALONE: usize = 300;
        let mut confusion = confusion();
        let mut random = StdRng::seed_from_u64(7);
        let share = Var::new(&[1.0f32], &Device::Cpu).unwrap();
        for step in 0..900 {
            let classes: Vec<u32> = (0..40).map(|n| n % INSTRUMENTS as u32).collect();
            let size = CHANNELS * FRAMES;
            let plain = normal(classes.len() * size, &mut random);
            let others: Vec<usize> = classes
                .iter()
                .map(|_| random.random_range(0..INSTRUMENTS))
                .collect();
            let marks = plain.iter().enumerate().map(|(place, value)| {
                let clip = place / size;
                let class = classes[clip] as usize;
                let single = |class: usize| 4.0 * f32::from(u8::from(place % size == 2 * class));
                match mark {
                    Mark::Value => single(class),
                    Mark::Scale => value * class as f32,
                    Mark::Other => single(others[clip]),
                }
            });
            let shape = (classes.len(), CHANNELS, 1, FRAMES);
            let marks = Tensor::from_iter(marks, &Device::Cpu).unwrap();
            let marks = marks.reshape(shape).unwrap();
            let plain = Tensor::from_vec(plain, shape, &Device::Cpu).unwrap();
            let content = (plain + marks.broadcast_mul(&share).unwrap()).unwrap();
            if step >= ALONE {
                let gradients = confusion.loss(&content).unwrap().backward().unwrap();
                let slope = gradients.get(&share).unwrap();
                let next = (share.as_tensor() - (slope * 0.1).unwrap()).unwrap();
                share.set(&next).unwrap();
            }
            let classes = Tensor::new(classes, &Device::Cpu).unwrap();
            confusion.step(&content, &classes, 2e-3).unwrap();
        }
        share.to_vec1::<f32>().unwrap()[0].abs()
    }

    #[test]
    fn an_encoder_loses_what_tells_the_instrument_and_nothing_else() {
        for mark in [Mark::Value, Mark::Scale] {
            assert!(left(mark) < 0.3, "{mark:?}: {}", left(mark));
        }
        assert!(left(Mark::Other) > 0.7, "{}", left(Mark::Other));
    }
}
