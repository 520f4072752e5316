//! What a network decodes, before any voice.

use std::slice;
use std::sync::Arc;

use anyhow::{Context, Result};
use model_runtime::tensors::{to_log_mels, to_tensor};
use model_runtime::{AudioClip, Factor, FactorMap, LatencyMode, Model, Network};
use vocoder::{LogMel, MelConfig, MelSpectrogram};

use graft_material::audio_file;

/// Decodes one factor of a clip with all others of another clip.
pub struct MelDecoder {
    network: Arc<dyn Network>,
    mode: LatencyMode,
}

impl MelDecoder {
    /// A decoder with the analysis window and the look-ahead that the network of `model` has in `mode`.
    ///
    /// # Errors
    ///
    /// Returns an error if the network cannot be limited to it.
    pub fn new(model: &Model, mode: LatencyMode) -> Result<Self> {
        let network = model.limited_network(mode)?;
        Ok(Self { network, mode })
    }

    /// The log-mel that is decoded from a factor of the second clip and everything else of the first, all latents at their means.
    ///
    /// # Errors
    ///
    /// Returns an error if a clip is shorter than the network needs.
    pub fn decode(&self, own: &AudioClip, other: &AudioClip, factor: Factor) -> Result<LogMel> {
        let encode = |clip: &AudioClip| -> Result<FactorMap<candle_core::Tensor>> {
            let config = MelConfig::default();
            let mono = audio_file::mono(clip);
            let samples = audio_file::resample(&mono, clip.sample_rate_hz, config.sample_rate_hz)?;
            let window = self.mode.analysis_window(&config);
            let log_mel = MelSpectrogram::with_window(&config, window)?.log_mel(&samples);
            Ok(self
                .network
                .encode(&to_tensor(slice::from_ref(&log_mel))?)?
                .means())
        };
        let (mut latents, mut other) = (encode(own)?, encode(other)?);
        if let Some(latent) = other.remove(factor) {
            latents.insert(factor, latent);
        }
        let decoded = to_log_mels(&self.network.decode(&latents)?)?;
        decoded.into_iter().next().context("one decoded mel")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::margins::{FeatureExtractor, mel_distance};
    use crate::mel_features::of_mel;
    use crate::method::Remixed;
    use crate::pairs::{Excerpt, Pair};
    use crate::sources::Sources;
    use crate::test_signal::struck;

    #[test]
    fn the_decoded_mel_has_the_harmony_of_one_and_the_rhythm_of_the_other() {
        let excerpt = |hz: f32, beat_samples: usize| Excerpt {
            clip: struck(hz, beat_samples),
            ..Excerpt::silent(&hz.to_string())
        };
        let pair = Pair {
            main: excerpt(440.0, 5000),
            sidechain: excerpt(622.3, 8000),
        };
        let (a, b) = (&pair.main.clip, &pair.sidechain.clip);
        let mut extractor = FeatureExtractor::new().unwrap();
        let sources = Sources::new(&mut extractor, &pair).unwrap();
        let model = Model::built_in().unwrap();
        for mode in [LatencyMode::Full, LatencyMode::Live] {
            let decoder = MelDecoder::new(&model, mode).unwrap();
            let remix = Remixed::Mel(decoder.decode(a, b, Factor::Rhythm).unwrap());
            let (_, margins) = sources.compare(&mut extractor, &remix).unwrap();
            assert!(
                margins.harmony > 0.1 && margins.rhythm > 0.3,
                "{mode:?}: {margins:?}"
            );
            let same = of_mel(
                &decoder.decode(a, a, Factor::Rhythm).unwrap(),
                &sources.main,
            );
            let same = mel_distance(&same, &sources.main).unwrap();
            let other = mel_distance(&sources.sidechain, &sources.main).unwrap();
            assert!(same < 0.5 * other, "{mode:?}: {same} {other}");
        }
    }
}
