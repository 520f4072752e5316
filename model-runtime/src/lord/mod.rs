//! LORD for music (Halfon; after Gabbay and Hoshen, "Demystifying Inter-Class Disentanglement", ICLR 2020): the content of one
//! recording, played by another instrument.
//!
//! A clip of fixed length is a content code, which has a time axis, and the code of an instrument. The networks normalise over the
//! whole clip, so they run offline only, and not in the plugin.
//!
//! A model is one safetensors file. Its metadata holds a JSON document, [`LordHeader`], under the key [`HEADER_KEY`]; its tensors
//! are `generator.*`, `content_encoder.*`, `class_encoder.*` and `classes`, the codes of the instruments, as 16-bit floats.

mod config;
mod encoders;
mod generator;
mod layers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;

pub use config::{EncoderConfig, LordConfig};
pub use encoders::{ClassEncoder, ContentEncoder};
pub use generator::Generator;

use crate::error::{Error, Result};
use crate::model_file::{self, Card, root_cause};
use crate::pitch_axis::validate_standard;

/// Key of the [`LordHeader`] in the file's metadata.
pub const HEADER_KEY: &str = "graft-lord";

/// The supported version of the format.
pub const FORMAT: u32 = 1;

/// Most instruments of a model.
const MOST_INSTRUMENTS: usize = 4096;

/// Description of a model, stored in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LordHeader {
    /// Version of the file format, [`FORMAT`].
    pub format: u32,
    /// Sizes of the networks.
    pub lord: LordConfig,
    /// The mel spectrogram of their input and output.
    pub mel: MelConfig,
    /// Mean of the training data's log-mel, in nepers.
    pub mel_mean: f64,
    /// Standard deviation of the training data's log-mel, in nepers.
    pub mel_deviation: f64,
    /// Names of the instruments, in the order of their codes.
    pub instruments: Vec<String>,
    /// The model card.
    pub card: Card,
}

/// A loaded model, ready to run.
#[derive(Clone, Debug)]
pub struct LordModel {
    header: LordHeader,
    generator: Generator,
    content_encoder: ContentEncoder,
    class_encoder: ClassEncoder,
    /// (instruments, `class_size`).
    classes: Tensor,
}

impl LordHeader {
    fn validate(&self) -> Result<()> {
        if self.format != FORMAT {
            let found = self.format;
            return Err(Error::Model(format!(
                "expected file format {FORMAT}, found {found}"
            )));
        }
        self.mel.validate()?;
        self.lord.validate(&self.mel)?;
        validate_standard(self.mel_mean, self.mel_deviation).map_err(Error::Model)?;
        let count = self.instruments.len();
        if !(1..=MOST_INSTRUMENTS).contains(&count) {
            return Err(Error::Model(format!(
                "instruments: expected 1 to {MOST_INSTRUMENTS}, found {count}"
            )));
        }
        let mut names = BTreeSet::new();
        match self.instruments.iter().find(|name| !names.insert(*name)) {
            Some(name) => Err(Error::Model(format!(
                "instruments: expected each name once, found \"{name}\" twice"
            ))),
            None => Ok(()),
        }
    }
}

impl LordModel {
    /// Reads and checks a model file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not a model that this version supports. The message says what was expected and what was
    /// found.
    pub fn load(path: &Path) -> Result<Self> {
        model_file::of_file(path, Self::from_bytes)
    }

    /// Reads and checks the contents of a model file.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (header, weights) = model_file::open::<LordHeader>(bytes, HEADER_KEY)?;
        header.validate()?;
        let model = Self::new(header, &weights.builder())?;
        weights.expect_all_used()?;
        Ok(model)
    }

    /// Reads or creates the weights of a model.
    ///
    /// # Errors
    ///
    /// If a tensor is missing or has another shape.
    pub fn new(header: LordHeader, vb: &VarBuilder) -> Result<Self> {
        let build = || -> candle_core::Result<_> {
            let lord = &header.lord;
            let shape = (header.instruments.len(), lord.class_size);
            Ok((
                Generator::new(lord, &vb.pp("generator"))?,
                ContentEncoder::new(lord, &vb.pp("content_encoder"))?,
                ClassEncoder::new(lord, &vb.pp("class_encoder"))?,
                vb.get(shape, "classes")?,
            ))
        };
        let (generator, content_encoder, class_encoder, classes) =
            build().map_err(|error| Error::Model(root_cause(&error)))?;
        Ok(Self {
            header,
            generator,
            content_encoder,
            class_encoder,
            classes,
        })
    }

    /// The description stored in the file.
    #[must_use]
    pub fn header(&self) -> &LordHeader {
        &self.header
    }

    /// Frames of a clip.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.header.lord.frames
    }

    /// Names of the instruments.
    #[must_use]
    pub fn instruments(&self) -> &[String] {
        &self.header.instruments
    }

    /// The code of an instrument (1, `class_size`), by its place in [`Self::instruments`].
    ///
    /// # Errors
    ///
    /// If there is no such instrument.
    pub fn class_of(&self, instrument: usize) -> Result<Tensor> {
        let count = self.instruments().len();
        if instrument >= count {
            let expected = format!("one from 0 to {}", count - 1);
            return Err(Error::input("instrument", expected, instrument));
        }
        Ok(self.classes.narrow(0, instrument, 1)?)
    }

    /// The codes of the instruments (B, `class_size`) of log-mels in nepers (B, `n_mels`, `frames`).
    ///
    /// # Errors
    ///
    /// If the shape does not fit.
    pub fn encode_class(&self, log_mel: &Tensor) -> Result<Tensor> {
        Ok(self.class_encoder.forward(&self.standardised(log_mel)?)?)
    }

    /// The content codes (B, `content_channels`, `content_frames`) of log-mels in nepers (B, `n_mels`, `frames`).
    ///
    /// # Errors
    ///
    /// If the shape does not fit.
    pub fn encode_content(&self, log_mel: &Tensor) -> Result<Tensor> {
        let content = self.content_encoder.forward(&self.standardised(log_mel)?)?;
        Ok(content.squeeze(2)?)
    }

    /// Log-mels in nepers (B, `n_mels`, `frames`) from content codes (B, `content_channels`, `content_frames`) and codes of
    /// instruments (B, `class_size`). Gradients reach both.
    ///
    /// # Errors
    ///
    /// If a shape does not fit.
    pub fn generate(&self, content: &Tensor, class: &Tensor) -> Result<Tensor> {
        let mel = self.generator.forward(&content.unsqueeze(2)?, class)?;
        let LordHeader {
            mel_mean,
            mel_deviation,
            ..
        } = self.header;
        Ok(mel.squeeze(2)?.affine(mel_deviation, mel_mean)?)
    }

    /// As the networks see it, (B, `n_mels`, 1, `frames`).
    fn standardised(&self, log_mel: &Tensor) -> Result<Tensor> {
        let (_, bands, frames) = log_mel.dims3()?;
        let LordConfig {
            n_mels,
            frames: length,
            ..
        } = self.header.lord;
        if (bands, frames) != (n_mels, length) {
            let expected = format!("{n_mels} bands of {length} frames");
            return Err(Error::input(
                "log-mel",
                expected,
                format!("{bands} of {frames}"),
            ));
        }
        let deviation = self.header.mel_deviation;
        let mel = log_mel.affine(1.0 / deviation, -self.header.mel_mean / deviation)?;
        Ok(mel.unsqueeze(2)?.contiguous()?)
    }
}

/// Serialises a model file, with 16-bit weights. `tensors` are named as in the file.
///
/// # Errors
///
/// If [`LordModel::from_bytes`] would reject the tensors and the header.
pub fn to_bytes(header: &LordHeader, tensors: &HashMap<String, Tensor>) -> Result<Vec<u8>> {
    let bytes = model_file::serialise(HEADER_KEY, header, tensors)?;
    LordModel::from_bytes(&bytes)?;
    Ok(bytes)
}
