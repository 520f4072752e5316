//! A model in one safetensors file: network, optional HiFi-GAN generator and magnitude network, and a card.
//!
//! Tensors are stored as 16-bit floats with weight norm folded, and computed with as f32; files with 32-bit floats load
//! too. Tensors of the network are named `network.*`, those of the generator `generator.*`, those of the magnitude
//! network `magnitudes.*`. The metadata holds one JSON document, [`Header`],
//! under the key [`HEADER_KEY`]. Loading rejects unknown fields and missing, unexpected, misshapen or non-finite
//! tensors.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vocoder::MelConfig;
use vocoder::generator::{Generator, GeneratorConfig};
use vocoder::magnitudes::{MagnitudeNetwork, MagnitudesConfig};

use crate::architecture::Architecture;
use crate::error::{Error, Result};
use crate::geometry::LatencyMode;
use crate::lord;
use crate::network::Network;

/// Key of the [`Header`] in the file's metadata.
pub const HEADER_KEY: &str = "graft-model";

/// The supported version of the format.
pub const FORMAT: u32 = 1;

/// Kinds of model files, by the keys of their headers: what they are for.
const KINDS: [(&str, &str); 2] = [
    (
        HEADER_KEY,
        "a model that remixes, for the plugin and cargo xtask remix",
    ),
    (
        lord::HEADER_KEY,
        "a model of instruments, for cargo xtask translate",
    ),
];

/// Minimum length of the analysis window, in hops: the guided voice overlaps this many windows.
const LEAST_HOPS: usize = 4;

/// Description of a model, stored in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the file format, [`FORMAT`].
    pub format: u32,
    /// The network.
    pub architecture: Architecture,
    /// The mel spectrogram of the network's input and output.
    pub mel: MelConfig,
    /// Largest transposition, up or down, that the model was trained for.
    pub max_shift_semitones: u32,
    /// The generator, if the model has one.
    pub generator: Option<GeneratorConfig>,
    /// The magnitude network, if the model has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub magnitudes: Option<MagnitudesConfig>,
    /// The model card.
    pub card: Card,
}

/// Information for the user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Licence of the weights.
    pub licence: String,
    /// Description of the training data.
    pub data: String,
    /// Number of training steps.
    pub steps: u64,
    /// Training time, in hours.
    pub train_hours: f64,
    /// Measured figures.
    pub figures: Vec<Figure>,
}

/// A measured figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// What was measured, with the unit.
    pub name: String,
    /// The value.
    pub value: f64,
}

/// A loaded model, ready to run.
#[derive(Debug)]
pub struct Model {
    header: Header,
    sha256: String,
    network: Arc<dyn Network>,
    /// The network with the look-ahead of each mode, from its first use on.
    limited: [OnceLock<Arc<dyn Network>>; LatencyMode::ALL.len()],
    generator: Option<Generator>,
    magnitudes: Option<MagnitudeNetwork>,
}

impl Model {
    /// The built-in model of harmony and rhythm. All callers share one copy of the weights.
    ///
    /// # Errors
    ///
    /// If the built-in file is damaged.
    pub fn built_in() -> Result<Arc<Self>> {
        static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
        Self::shared(&MODEL, graft_model::HARMONY_AND_RHYTHM)
    }

    /// The built-in model of timbre, pitch and variation. All callers share one copy of the weights.
    ///
    /// # Errors
    ///
    /// If the built-in file is damaged.
    pub fn built_in_timbre() -> Result<Arc<Self>> {
        static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
        Self::shared(&MODEL, graft_model::TIMBRE)
    }

    fn shared(model: &OnceLock<Arc<Self>>, bytes: &[u8]) -> Result<Arc<Self>> {
        if let Some(model) = model.get() {
            return Ok(Arc::clone(model));
        }
        let read = Arc::new(Self::from_bytes(bytes)?);
        Ok(Arc::clone(model.get_or_init(|| read)))
    }

    /// Reads and checks a model file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not a model that this version supports. The message says what was expected and
    /// what was found.
    pub fn load(path: &Path) -> Result<Self> {
        of_file(path, Self::from_bytes)
    }

    /// Reads and checks the contents of a model file.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (header, weights) = open::<Header>(bytes, HEADER_KEY)?;
        if header.format != FORMAT {
            return Err(Error::Model(format!(
                "expected file format {FORMAT}, found {}",
                header.format
            )));
        }
        header.mel.validate()?;
        if header.mel.n_fft < LEAST_HOPS * header.mel.hop_length {
            return Err(Error::Model(format!(
                "expected a mel whose n_fft is at least {LEAST_HOPS} hop lengths, found {} and {}",
                header.mel.n_fft, header.mel.hop_length
            )));
        }
        header.architecture.validate().map_err(Error::Model)?;

        let builder = weights.builder();
        let network = header
            .architecture
            .build(&header.mel, false, &builder.pp("network"))
            .map_err(|error| Error::Model(root_cause(&error)))?;
        let generator = header
            .generator
            .clone()
            .map(|config| load_generator(config, &header.mel, &builder.pp("generator")))
            .transpose()?;
        let magnitudes = header
            .magnitudes
            .as_ref()
            .map(|config| load_magnitudes(config, &header.mel, &builder.pp("magnitudes")))
            .transpose()?;
        weights.expect_all_used()?;
        let sha256 = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            header,
            sha256,
            network,
            limited: Default::default(),
            generator,
            magnitudes,
        })
    }

    /// The description stored in the file.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// SHA-256 of the file, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The HiFi-GAN generator.
    ///
    /// # Errors
    ///
    /// If the model has none.
    pub fn generator(&self) -> Result<&Generator> {
        self.generator
            .as_ref()
            .ok_or_else(|| Error::input("voice", "a model with a HiFi-GAN generator", "none in it"))
    }

    /// The network that predicts magnitudes from mels, if the model has one.
    #[must_use]
    pub fn magnitudes(&self) -> Option<&MagnitudeNetwork> {
        self.magnitudes.as_ref()
    }

    /// The encoder and decoder.
    #[must_use]
    pub fn network(&self) -> &Arc<dyn Network> {
        &self.network
    }

    /// The encoder and decoder with the look-ahead of a mode. All callers share one copy of the weights.
    ///
    /// # Errors
    ///
    /// If the weights cannot be folded.
    pub fn limited_network(&self, mode: LatencyMode) -> Result<Arc<dyn Network>> {
        let Some(frames) = mode.network_look_ahead_frames(self.network.factors()) else {
            return Ok(Arc::clone(&self.network));
        };
        let cell = &self.limited[mode as usize];
        if let Some(network) = cell.get() {
            return Ok(Arc::clone(network));
        }
        let network = self.network.with_look_ahead(frames)?;
        Ok(Arc::clone(cell.get_or_init(|| network)))
    }
}

fn load_generator(
    config: GeneratorConfig,
    mel: &MelConfig,
    builder: &VarBuilder,
) -> Result<Generator> {
    config.validate()?;
    if (config.n_mels, config.hop_length()) != (mel.n_mels, mel.hop_length) {
        return Err(Error::Model(format!(
            "expected a generator for {} bands and a hop of {} samples, found {} and {}",
            mel.n_mels,
            mel.hop_length,
            config.n_mels,
            config.hop_length()
        )));
    }
    Generator::new(config, false, builder).map_err(|error| Error::Model(root_cause(&error)))
}

fn load_magnitudes(
    config: &MagnitudesConfig,
    mel: &MelConfig,
    builder: &VarBuilder,
) -> Result<MagnitudeNetwork> {
    config.validate()?;
    MagnitudeNetwork::new(config, mel, builder).map_err(|error| Error::Model(root_cause(&error)))
}

/// Serialises a model file, with 16-bit weights. Tensor names carry the prefix of their part, such as `network.`.
///
/// # Errors
///
/// If [`Model::from_bytes`] would reject the tensors and the header, such as weights beyond the range of 16-bit floats.
pub fn to_bytes(header: &Header, tensors: &HashMap<String, Tensor>) -> Result<Vec<u8>> {
    let bytes = serialise(HEADER_KEY, header, tensors)?;
    Model::from_bytes(&bytes)?;
    Ok(bytes)
}

/// Reads the header under `key` and the tensors of a model file.
pub(crate) fn open<H: DeserializeOwned>(bytes: &[u8], key: &str) -> Result<(H, Weights)> {
    let damaged = |error: &dyn std::fmt::Display| {
        Error::Model(format!("not a valid safetensors file: {error}"))
    };
    let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error))?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error))?;
    let entry = |key| metadata.metadata().as_ref().and_then(|map| map.get(key));
    let header = entry(key).ok_or_else(|| {
        let of_key = |wanted| KINDS.iter().find(|(other, _)| *other == wanted);
        let found = KINDS.iter().find(|(other, _)| entry(other).is_some());
        Error::Model(match (of_key(key), found) {
            (Some((_, expected)), Some((_, found))) => {
                format!("expected {expected}, found {found}")
            }
            _ => format!("the metadata has no entry \"{key}\""),
        })
    })?;
    let header = serde_json::from_str(header)
        .map_err(|error| Error::Model(format!("invalid metadata: {error}")))?;
    Ok((header, Weights::read(&file)?))
}

/// Writes a header under `key`, and tensors as 16-bit floats.
pub(crate) fn serialise(
    key: &str,
    header: &impl Serialize,
    tensors: &HashMap<String, Tensor>,
) -> Result<Vec<u8>> {
    let json = serde_json::to_string(header)
        .map_err(|error| Error::Model(format!("cannot write the header: {error}")))?;
    let metadata = HashMap::from([(key.to_owned(), json)]);
    let halves = tensors
        .iter()
        .map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F16)?)))
        .collect::<Result<HashMap<_, _>>>()?;
    safetensors::serialize(halves, Some(metadata))
        .map_err(|error| Error::Model(format!("cannot write the tensors: {error}")))
}

/// What `parse` makes of a file; its errors name the file.
pub(crate) fn of_file<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&bytes).map_err(|error| match error {
        Error::Model(why) => Error::Model(format!("{}: {why}", path.display())),
        other => other,
    })
}

/// candle wraps errors in the path of calls; users need the innermost one.
pub(crate) fn root_cause(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. }
        | candle_core::Error::Context { inner, .. }
        | candle_core::Error::WithPath { inner, .. } => root_cause(inner),
        other => other.to_string(),
    }
}

/// The tensors of a file, with a record of those that were read.
#[derive(Clone)]
pub(crate) struct Weights {
    tensors: Arc<HashMap<String, Tensor>>,
    used: Arc<Mutex<BTreeSet<String>>>,
}

impl Weights {
    fn read(file: &SafeTensors) -> Result<Self> {
        let mut tensors = HashMap::new();
        for (name, view) in file.tensors() {
            if !matches!(view.dtype(), Dtype::F16 | Dtype::F32) {
                return Err(Error::Model(format!(
                    "{name}: expected 16-bit or 32-bit floats, found {:?}",
                    view.dtype()
                )));
            }
            let tensor = view.load(&Device::Cpu)?.to_dtype(DType::F32)?;
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::Model(format!(
                    "{name}: expected finite weights, found {value}"
                )));
            }
            tensors.insert(name, tensor);
        }
        Ok(Self {
            tensors: Arc::new(tensors),
            used: Arc::default(),
        })
    }

    pub(crate) fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, Device::Cpu)
    }

    pub(crate) fn expect_all_used(&self) -> Result<()> {
        let used = self
            .used
            .lock()
            .expect("no thread panics while it holds the names");
        match self
            .tensors
            .keys()
            .filter(|name| !used.contains(*name))
            .min()
        {
            Some(name) => Err(Error::Model(format!("unexpected tensor {name}"))),
            None => Ok(()),
        }
    }
}

impl SimpleBackend for Weights {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        _: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, DType::F32, &Device::Cpu)?;
        if tensor.shape() != &shape {
            candle_core::bail!(
                "{name}: expected shape {shape:?}, found {:?}",
                tensor.shape()
            );
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        let Some(tensor) = self.tensors.get(name) else {
            candle_core::bail!("missing tensor {name}");
        };
        self.used
            .lock()
            .expect("no thread panics while it holds the names")
            .insert(name.to_owned());
        Ok(tensor.clone())
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}
