//! The networks behind one interface: encode, rotate, decode.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;

use crate::hard::{self, Hard, HardConfig};
use crate::latent::{Latent, Latents, roll_channels, shift_notes};
use crate::pitch_aligned::{self, PitchAligned, PitchAlignedConfig};

/// Which network, and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Architecture {
    /// HARD as published.
    Hard(HardConfig),
    /// The network that Graft ships.
    PitchAligned(PitchAlignedConfig),
}

/// An encoder and decoder of log-mel spectrograms (B, 1, n_mels, T) with a harmony and a rhythm latent.
#[derive(Clone, Debug)]
pub enum Network {
    /// HARD as published.
    Hard(Hard),
    /// The network that Graft ships.
    PitchAligned(PitchAligned),
}

/// What [`Network::encode_step`] remembers.
#[derive(Clone, Debug)]
pub enum EncoderState {
    /// Of [`Network::Hard`].
    Hard(hard::EncoderState),
    /// Of [`Network::PitchAligned`].
    PitchAligned(pitch_aligned::EncoderState),
}

/// What [`Network::decode_step`] remembers.
#[derive(Clone, Debug)]
pub enum DecoderState {
    /// Of [`Network::Hard`].
    Hard(hard::DecoderState),
    /// Of [`Network::PitchAligned`].
    PitchAligned(pitch_aligned::DecoderState),
}

impl Architecture {
    /// Refuses sizes that no sensible model has, so that a hostile file cannot ask for any amount of memory.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let limits: &[(&str, usize, usize)] = match self {
            Self::Hard(c) => &[("channels", c.channels, 256), ("latents", c.latents, 1024)],
            Self::PitchAligned(c) => &[
                ("harmony_channels", c.harmony_channels, 1024),
                ("harmony_latents", c.harmony_latents, 1024),
                ("pool_frames", c.pool_frames, 64),
                ("rhythm_channels", c.rhythm_channels, 256),
                ("rhythm_latents", c.rhythm_latents, 1024),
                ("rhythm_planes", c.rhythm_planes, 256),
                ("decoder_channels", c.decoder_channels, 1024),
            ],
        };
        for &(name, found, most) in limits {
            if !(1..=most).contains(&found) {
                return Err(format!("{name}: expected 1 to {most}, found {found}"));
            }
        }
        if let Self::PitchAligned(c) = self
            && !(c.mel_mean.is_finite() && c.mel_deviation.is_finite() && c.mel_deviation > 0.0)
        {
            return Err(format!(
                "mel_mean and mel_deviation: expected finite numbers, the second above 0, found {} and {}",
                c.mel_mean, c.mel_deviation
            ));
        }
        Ok(())
    }
}

impl Network {
    /// Reads or creates the weights; `weight_norm` splits those of HARD for training.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(
        architecture: &Architecture,
        mel: &MelConfig,
        weight_norm: bool,
        vb: &VarBuilder,
    ) -> candle_core::Result<Self> {
        match architecture {
            Architecture::Hard(config) => Hard::new(config, mel, weight_norm, vb).map(Self::Hard),
            Architecture::PitchAligned(config) => {
                PitchAligned::new(config, mel, vb).map(Self::PitchAligned)
            }
        }
    }

    /// Mel frames for each frame of the harmony latent.
    #[must_use]
    pub fn pool_frames(&self) -> usize {
        match self {
            Self::Hard(_) => 1,
            Self::PitchAligned(network) => network.config().pool_frames,
        }
    }

    /// Both latents of a log-mel (B, 1, n_mels, T).
    ///
    /// # Errors
    /// If the shape is another.
    pub fn encode(&self, mel: &Tensor) -> candle_core::Result<Latents> {
        match self {
            Self::Hard(network) => network.encode(mel),
            Self::PitchAligned(network) => network.encode(mel),
        }
    }

    /// Harmony of one log-mel and rhythm of another of the same shape, for training on two views. A tensor that is handed
    /// over as both is encoded once.
    ///
    /// # Errors
    /// If a shape is another.
    pub fn encode_views(
        &self,
        harmony: &Tensor,
        rhythm: &Tensor,
    ) -> candle_core::Result<(Latent, Latent)> {
        match self {
            _ if harmony.id() == rhythm.id() => {
                let latents = self.encode(harmony)?;
                Ok((latents.harmony, latents.rhythm))
            }
            Self::Hard(network) => Ok((
                network.encode(harmony)?.harmony,
                network.encode(rhythm)?.rhythm,
            )),
            Self::PitchAligned(network) => Ok((
                network.encode_harmony(harmony)?,
                network.encode_rhythm(rhythm)?,
            )),
        }
    }

    /// Transposes each batch element of a harmony latent by its number of semitones.
    ///
    /// # Errors
    /// If there is not one number for each batch element.
    pub fn rotate(&self, harmony: &Tensor, semitones: &[i32]) -> candle_core::Result<Tensor> {
        match self {
            Self::Hard(_) => roll_channels(harmony, semitones),
            Self::PitchAligned(_) => shift_notes(harmony, semitones),
        }
    }

    /// Log-mel (B, 1, n_mels, T) from both latents.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn decode(&self, harmony: &Tensor, rhythm: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Hard(network) => network.decode(harmony, rhythm),
            Self::PitchAligned(network) => network.decode(harmony, rhythm),
        }
    }

    /// A fresh state for [`Self::encode_step`].
    #[must_use]
    pub fn encoder_state(&self) -> EncoderState {
        match self {
            Self::Hard(_) => EncoderState::Hard(Default::default()),
            Self::PitchAligned(_) => EncoderState::PitchAligned(Default::default()),
        }
    }

    /// A fresh state for [`Self::decode_step`].
    #[must_use]
    pub fn decoder_state(&self) -> DecoderState {
        match self {
            Self::Hard(_) => DecoderState::Hard(Default::default()),
            Self::PitchAligned(_) => DecoderState::PitchAligned(Default::default()),
        }
    }

    /// Takes the next log-mel frames (B, 1, n_mels, n) and gives the means of the harmony and rhythm latents that they
    /// complete.
    ///
    /// # Errors
    /// If the shape is another, or the state belongs to another network.
    pub fn encode_step(
        &self,
        state: &mut EncoderState,
        mel: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        match (self, state) {
            (Self::Hard(network), EncoderState::Hard(state)) => network.encode_step(state, mel),
            (Self::PitchAligned(network), EncoderState::PitchAligned(state)) => {
                network.encode_step(state, mel)
            }
            _ => candle_core::bail!("encoder state of another network"),
        }
    }

    /// Takes the next latent frames and gives the log-mel frames (B, 1, n_mels, t) that they complete.
    ///
    /// # Errors
    /// If the shapes do not fit, or the state belongs to another network.
    pub fn decode_step(
        &self,
        state: &mut DecoderState,
        harmony: Option<&Tensor>,
        rhythm: Option<&Tensor>,
    ) -> candle_core::Result<Option<Tensor>> {
        match (self, state) {
            (Self::Hard(network), DecoderState::Hard(state)) => {
                network.decode_step(state, harmony, rhythm)
            }
            (Self::PitchAligned(network), DecoderState::PitchAligned(state)) => {
                network.decode_step(state, harmony, rhythm)
            }
            _ => candle_core::bail!("decoder state of another network"),
        }
    }

    /// Mel frames that must be known after a frame before it is encoded and decoded.
    #[must_use]
    pub fn look_ahead_frames(&self) -> usize {
        match self {
            Self::Hard(network) => network.look_ahead_frames(),
            Self::PitchAligned(network) => network.look_ahead_frames(),
        }
    }

    /// The same network for a stream that waits for no more than `frames`: layers beyond that take the newest frame for
    /// all that come after. It shares the weights, and gradients reach them. Harmony averaged over several frames needs
    /// all of them, whatever `frames` says.
    ///
    /// # Errors
    /// If the weights cannot be folded.
    pub fn with_look_ahead(&self, frames: usize) -> candle_core::Result<Self> {
        match self {
            Self::Hard(network) => network.with_look_ahead(frames).map(Self::Hard),
            Self::PitchAligned(network) => network.with_look_ahead(frames).map(Self::PitchAligned),
        }
    }
}
