//! The network whose decoded mels a voice is trained on.

use std::path::Path;

use anyhow::Result;
use candle_core::Tensor;
use model_runtime::{Model, Network};

/// The network of a model.
#[derive(Clone)]
pub struct Decoder(Network);

impl Decoder {
    /// Reads the network of a model file.
    ///
    /// # Errors
    ///
    /// When it is not a model.
    pub fn load(path: &Path) -> Result<Self> {
        Ok(Self(Model::load(path)?.network().clone()))
    }

    /// Frames that must be known on either side of a frame.
    pub fn context_frames(&self) -> usize {
        self.0.look_ahead_frames()
    }

    /// Log-mels (B, n_mels, T) encoded, and decoded from the means of the latents.
    ///
    /// # Errors
    ///
    /// When they do not fit the network.
    pub fn decode(&self, mel: &Tensor) -> Result<Tensor> {
        let latents = self.0.encode(&mel.unsqueeze(1)?)?;
        let decoded = self.0.decode(&latents.harmony.mean, &latents.rhythm.mean)?;
        Ok(decoded.squeeze(1)?)
    }
}
