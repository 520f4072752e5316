//! The generated voice: sound from a mel spectrogram, with a HiFi-GAN [`Generator`], for whole clips and as a stream.
//!
//! ```text
//! log-mel -+----------------------------> generator -> samples
//!          +-> Griffin-Lim -> template -^
//! ```
//!
//! If the generator corrects a template, a short Griffin-Lim makes it. From the mel alone, the template has steady tones
//! and the levels of the mel, but little detail in transients. From a sound to start with, it has the strokes of that
//! sound and the frequencies of its tones. One frame of look-ahead is nearly as good as three; without look-ahead it
//! is clearly worse. `docs/architecture.md` has figures.

use candle_core::{Device, Tensor};

use crate::error::{Result, check_length};
use crate::generator::{Generator, GeneratorState};
use crate::griffin_lim::GriffinLimStream;
use crate::magnitudes::MagnitudeNetwork;
use crate::mel::{LogMel, MelConfig};
use crate::spectrum::{Spectrum, limited};

/// Look-ahead of the template.
const LOOK_AHEAD_FRAMES: usize = 1;

/// Most frames at a time. The memory of the generator grows with them, and the end of a clip may bring many.
const PIECE_FRAMES: usize = 8;

/// Number of earlier frames after which the start of the template has no audible effect.
pub const TEMPLATE_CONTEXT_FRAMES: usize = 6;

/// Creates the stream that makes templates from log-mel frames, with magnitudes predicted by a network if there is one.
///
/// # Errors
///
/// If `mel` is not [valid](MelConfig::validate).
pub fn template_stream(
    mel: &MelConfig,
    magnitudes: Option<&MagnitudeNetwork>,
) -> Result<GriffinLimStream> {
    let stream = GriffinLimStream::with_look_ahead(mel, LOOK_AHEAD_FRAMES, mel.hop_length / 2)?;
    Ok(stream.with_network(magnitudes))
}

/// The template of a whole clip, from a stream at its beginning. Resets the stream afterwards.
///
/// # Errors
///
/// If `log_mel` has a different number of bands than the stream.
pub fn whole_template(stream: &mut GriffinLimStream, log_mel: &LogMel) -> Result<Vec<f32>> {
    let mut samples = Vec::new();
    stream.push(log_mel, &mut samples)?;
    stream.finish(&mut samples);
    Ok(samples)
}

/// A generator and its template: takes mel frames and returns samples, with a lag of
/// [`look_ahead_samples`](Self::look_ahead_samples). Except for rounding, the output does not depend on how the mel
/// frames are split into pushes.
pub struct GeneratedVoice {
    generator: Generator,
    state: GeneratorState,
    template: Option<GriffinLimStream>,
}

impl GeneratedVoice {
    /// Creates a voice at the beginning of a clip, for mel spectrograms of `mel`. If there is a network, it predicts
    /// the magnitudes for the template.
    ///
    /// # Errors
    ///
    /// If `mel` is not [valid](MelConfig::validate).
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

    /// Lag of the voice behind its input frames, in samples.
    #[must_use]
    pub fn look_ahead_samples(&self) -> usize {
        let template = self.template.as_ref();
        let lag = template.map_or(0, GriffinLimStream::lag_samples);
        self.generator.look_ahead_samples(lag)
    }

    /// Takes the next frames and appends the completed samples to `out`.
    ///
    /// # Errors
    ///
    /// If `log_mel` has a different number of bands than the generator.
    pub fn push(&mut self, log_mel: &LogMel, out: &mut Vec<f32>) -> candle_core::Result<()> {
        self.push_with(log_mel, None, out)
    }

    /// As [`Self::push`], with a sound that the template starts from, if there is one and a template: one spectrum for
    /// each frame. Spectra may limit the bands of their frames.
    ///
    /// # Errors
    ///
    /// As [`Self::push`], and if there is another number of spectra.
    pub fn push_with(
        &mut self,
        log_mel: &LogMel,
        starts: Option<&[Spectrum]>,
        out: &mut Vec<f32>,
    ) -> candle_core::Result<()> {
        let starts_frames = starts.map_or(log_mel.frames(), <[_]>::len);
        check_length("spectra to start from", log_mel.frames(), starts_frames)
            .map_err(candle_core::Error::wrap)?;
        let mut rest = match starts {
            Some(starts) => limited(log_mel, starts),
            None => log_mel.clone(),
        };
        for first in (0..log_mel.frames()).step_by(PIECE_FRAMES) {
            let piece = rest.take_first(PIECE_FRAMES.min(rest.frames()));
            let starts = starts.map(|starts| &starts[first..][..piece.frames()]);
            self.push_piece(&piece, starts, out)?;
        }
        Ok(())
    }

    fn push_piece(
        &mut self,
        log_mel: &LogMel,
        starts: Option<&[Spectrum]>,
        out: &mut Vec<f32>,
    ) -> candle_core::Result<()> {
        let mut samples = Vec::new();
        if let Some(template) = &mut self.template {
            template
                .push_with(log_mel, starts, &mut samples)
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

    /// Ends the clip: appends the remaining samples, so that there are as many as the frames cover, and resets.
    ///
    /// # Errors
    ///
    /// If the generator fails.
    pub fn finish(&mut self, out: &mut Vec<f32>) -> candle_core::Result<()> {
        let mut samples = Vec::new();
        if let Some(template) = &mut self.template {
            template.finish(&mut samples);
        }
        let template = (!samples.is_empty())
            .then(|| to_samples(samples))
            .transpose()?;
        let made = self.generator.finish(&mut self.state, template.as_ref())?;
        if let Some(made) = made {
            out.extend(made.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    }

    /// Resets the voice.
    pub fn reset(&mut self) {
        self.state = GeneratorState::default();
        if let Some(template) = &mut self.template {
            template.reset();
        }
    }

    /// Converts a whole clip. Returns as many samples as its frames cover. Resets the voice first.
    ///
    /// # Errors
    ///
    /// If `log_mel` has a different number of bands than the generator.
    pub fn samples(&mut self, log_mel: &LogMel) -> candle_core::Result<Vec<f32>> {
        self.samples_with(log_mel, None)
    }

    /// As [`Self::samples`], with a sound to start from as in [`Self::push_with`].
    ///
    /// # Errors
    ///
    /// As [`Self::push_with`].
    pub fn samples_with(
        &mut self,
        log_mel: &LogMel,
        starts: Option<&[Spectrum]>,
    ) -> candle_core::Result<Vec<f32>> {
        self.reset();
        let log_mel = &match starts {
            Some(starts) => limited(log_mel, starts),
            None => log_mel.clone(),
        };
        let template = match &mut self.template {
            Some(stream) => {
                let mut samples = Vec::new();
                stream
                    .push_with(log_mel, starts, &mut samples)
                    .map_err(candle_core::Error::wrap)?;
                stream.finish(&mut samples);
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
