//! The model that decodes the mels that a voice is trained on (`--from`).

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::Tensor;
use model_runtime::{Model, Network};
use vocoder::MelConfig;
use vocoder::magnitudes::MagnitudeNetwork;

/// The networks of a model.
#[derive(Clone)]
pub struct Reconstructor {
    network: Arc<dyn Network>,
    magnitudes: Option<MagnitudeNetwork>,
}

impl Reconstructor {
    /// Reads the networks of a model file, which has to work on the mel spectrogram of the recipe.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is not a model, or its mel spectrogram is another.
    pub fn load(path: &Path, mel: &MelConfig) -> Result<Self> {
        let model = Model::load(path)?;
        let found = &model.header().mel;
        ensure!(
            found == mel,
            "--from {}: expected a model for {mel:?}, found one for {found:?}",
            path.display()
        );
        Ok(Self {
            network: Arc::clone(model.network()),
            magnitudes: model.magnitudes().cloned(),
        })
    }

    /// The network that predicts the magnitudes of templates, if the model has one.
    pub fn magnitudes(&self) -> Option<&MagnitudeNetwork> {
        self.magnitudes.as_ref()
    }

    /// Frames of context that the network needs on either side of a frame.
    pub fn context_frames(&self) -> usize {
        self.network.look_ahead_frames()
    }

    /// Encodes log-mels (B, 1, n_mels, T) and decodes the means of the latents.
    ///
    /// # Errors
    ///
    /// Returns an error if the shape does not match the network.
    pub fn reconstruct(&self, mel: &Tensor) -> Result<Tensor> {
        let latents = self.network.encode(mel)?;
        Ok(self.network.decode(&latents.means())?)
    }
}
