//! The generated voice: sound from a mel spectrogram alone, by a HiFi-GAN [`Generator`], for whole clips and as a stream.
//!
//! ```text
//! log-mel -+----------------------------> generator -> samples
//!          +-> Griffin-Lim -> template -^
//! ```
//!
//! For a generator that corrects a template, a short Griffin-Lim makes it: it has steady tones and the levels that the mel asks
//! for, but its strokes have little grain. One frame of look-ahead is nearly as good as three, and with none it is clearly
//! worse. `docs/architecture.md` has figures.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::generator::{Generator, GeneratorState};
use crate::griffin_lim::GriffinLimStream;
use crate::magnitudes::MagnitudeNetwork;
use crate::mel::{LogMel, MelConfig};

/// Of the template.
const LOOK_AHEAD_FRAMES: usize = 1;

/// Frames before a frame after which the template no longer depends on where it began, as far as one hears.
pub const TEMPLATE_CONTEXT_FRAMES: usize = 6;

/// Makes templates of log-mel frames, from magnitudes guessed by a network if there is one.
///
/// # Errors
///
/// When `mel` is not [valid](MelConfig::validate).
pub fn template_stream(
    mel: &MelConfig,
    magnitudes: Option<&MagnitudeNetwork>,
) -> Result<GriffinLimStream> {
    let stream = GriffinLimStream::with_look_ahead(mel, LOOK_AHEAD_FRAMES, mel.hop_length / 2)?;
    Ok(stream.with_network(magnitudes))
}

/// The template of a whole clip, from a stream at its beginning; the stream starts again afterwards.
///
/// # Errors
///
/// When `log_mel` has another number of bands than the stream.
pub fn whole_template(stream: &mut GriffinLimStream, log_mel: &LogMel) -> Result<Vec<f32>> {
    let mut samples = Vec::new();
    stream.push(log_mel, &mut samples)?;
    stream.finish(&mut samples);
    Ok(samples)
}

/// A generator with what it needs to play: mel frames in, samples out, [`look_ahead_samples`](Self::look_ahead_samples) later.
/// Output does not depend on how the mel frames are cut into pushes, but for rounding.
pub struct GeneratedVoice {
    generator: Generator,
    state: GeneratorState,
    template: Option<GriffinLimStream>,
}

impl GeneratedVoice {
    /// A voice at the beginning of a clip, for mel spectrograms of `mel`. The magnitudes of its template, if it has one, are
    /// guessed by the network, if there is one.
    ///
    /// # Errors
    ///
    /// When `mel` is not [valid](MelConfig::validate).
    pub fn new(
        generator: &Generator,
        magnitudes: Option<&MagnitudeNetwork>,
        mel: &MelConfig,
    ) -> Result<Self> {
        let has_template = generator.config().template;
        let template = || template_stream(mel, magnitudes);
        Ok(Self {
            generator: generator.clone(),
            state: GeneratorState::default(),
            template: has_template.then(template).transpose()?,
        })
    }

    /// Samples by which the voice lags the frames that it has been given.
    #[must_use]
    pub fn look_ahead_samples(&self) -> usize {
        let template = self.template.as_ref();
        let lag = template.map_or(0, GriffinLimStream::lag_samples);
        self.generator.look_ahead_samples(lag)
    }

    /// Takes the next frames and appends the samples that they complete to `out`.
    ///
    /// # Errors
    ///
    /// When `log_mel` has another number of bands than the generator.
    pub fn push(&mut self, log_mel: &LogMel, out: &mut Vec<f32>) -> candle_core::Result<()> {
        if log_mel.frames() == 0 {
            return Ok(());
        }
        let mut samples = Vec::new();
        if let Some(template) = &mut self.template {
            template
                .push(log_mel, &mut samples)
                .map_err(candle_core::Error::wrap)?;
        }
        let mel = to_tensor(log_mel)?;
        let template = (!samples.is_empty())
            .then(|| to_samples(samples))
            .transpose()?;
        let made = self
            .generator
            .step(&mut self.state, Some(&mel), template.as_ref())?;
        if let Some(made) = made {
            out.extend(made.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    }

    /// Forgets everything pushed so far.
    pub fn reset(&mut self) {
        self.state = GeneratorState::default();
        if let Some(template) = &mut self.template {
            template.reset();
        }
    }

    /// A whole clip: as many samples as its frames stand for. Whatever was pushed before is forgotten.
    ///
    /// # Errors
    ///
    /// When `log_mel` has another number of bands than the generator.
    pub fn samples(&mut self, log_mel: &LogMel) -> candle_core::Result<Vec<f32>> {
        self.reset();
        let template = match &mut self.template {
            Some(stream) => {
                let samples = whole_template(stream, log_mel).map_err(candle_core::Error::wrap)?;
                Some(to_samples(samples)?)
            }
            None => None,
        };
        let made = self
            .generator
            .forward(&to_tensor(log_mel)?, template.as_ref())?;
        made.flatten_all()?.to_vec1()
    }
}

/// Frames as (1, n_mels, frames).
fn to_tensor(mel: &LogMel) -> candle_core::Result<Tensor> {
    let by_frame = Tensor::from_slice(mel.values(), (1, mel.frames(), mel.n_mels()), &Device::Cpu)?;
    by_frame.transpose(1, 2)?.contiguous()
}

/// Samples as (1, 1, L).
fn to_samples(samples: Vec<f32>) -> candle_core::Result<Tensor> {
    Tensor::from_vec(samples, (1, 1, ()), &Device::Cpu)
}
