//! A common trait for all networks: encode, transpose and decode, for whole clips or in steps.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use vocoder::MelConfig;

use crate::factor::{Factor, FactorLayout, FactorMap, Transposition};
use crate::latent::{Latent, Latents, roll_channels, shift_notes};
use crate::planned::{PlanCell, Planned};

/// An encoder and decoder of log-mel spectrograms (B, 1, n_mels, T), with one latent per factor.
pub trait Network: Debug + Send + Sync {
    /// The factors and the layouts of their latents, in the order of [`Factor::ALL`].
    fn factors(&self) -> &[FactorLayout];

    /// The latent of one factor of a log-mel (B, 1, n_mels, T), by the layers themselves, so that gradients reach the
    /// weights and the mel.
    ///
    /// # Errors
    ///
    /// If the shape does not fit, or the network does not have the factor.
    fn encode_factor(&self, factor: Factor, mel: &Tensor) -> Result<Latent>;

    /// All latents of a log-mel, as [`Self::encode_factor`].
    ///
    /// # Errors
    ///
    /// If the shape does not fit.
    fn encode_layers(&self, mel: &Tensor) -> Result<Latents> {
        let factors = self.factors().iter().map(|layout| layout.factor);
        factors
            .map(|factor| Ok((factor, self.encode_factor(factor, mel)?)))
            .collect()
    }

    /// The log-mel decoded from the latents of all factors, by the layers themselves.
    ///
    /// # Errors
    ///
    /// If a latent is missing or its shape does not fit.
    fn decode_layers(&self, latents: &FactorMap<Tensor>) -> Result<Tensor>;

    /// The network compiled for the CPU, with the weights of this moment.
    ///
    /// # Errors
    ///
    /// If a layer cannot be compiled.
    fn compile(&self) -> Result<Planned>;

    /// Where the compiled network is kept.
    fn plan_cell(&self) -> &PlanCell;

    /// All latents of a log-mel (B, 1, n_mels, T). Runs the compiled network if it can: on the CPU, when no gradient is
    /// needed.
    ///
    /// # Errors
    ///
    /// If the shape does not fit.
    fn encode(&self, mel: &Tensor) -> Result<Latents> {
        if self.plan_cell().is_trained() || !Planned::runs_on(mel) {
            return self.encode_layers(mel);
        }
        self.plan_cell().get(|| self.compile())?.encode(mel)
    }

    /// The log-mel (B, 1, n_mels, T) decoded from the latents of all factors. As [`Self::encode`].
    ///
    /// # Errors
    ///
    /// If a latent is missing or its shape does not fit.
    fn decode(&self, latents: &FactorMap<Tensor>) -> Result<Tensor> {
        if self.plan_cell().is_trained() || !latents.values().all(Planned::runs_on) {
            return self.decode_layers(latents);
        }
        self.plan_cell().get(|| self.compile())?.decode(latents)
    }

    /// Creates an encoder for a new stream.
    ///
    /// # Errors
    ///
    /// If a layer cannot be compiled.
    fn encoder(&self) -> Result<Box<dyn StreamEncoder>> {
        let planned = self.plan_cell().get(|| self.compile())?;
        Ok(planned.stream_encoder())
    }

    /// Creates a decoder for a new stream.
    ///
    /// # Errors
    ///
    /// If a layer cannot be compiled.
    fn decoder(&self) -> Result<Box<dyn StreamDecoder>> {
        let planned = self.plan_cell().get(|| self.compile())?;
        Ok(planned.stream_decoder())
    }

    /// Look-ahead: mel frames after a frame that its encoding and decoding need.
    fn look_ahead_frames(&self) -> usize;

    /// The same network with a look-ahead of at most `frames`: layers beyond the limit repeat the newest frame in place
    /// of the following ones. Shares the weights, including their gradients. A latent that averages several frames
    /// always needs all of them.
    ///
    /// # Errors
    ///
    /// If the weights cannot be folded.
    fn with_look_ahead(&self, frames: usize) -> Result<Arc<dyn Network>>;

    /// The latent of each factor from its own log-mel, for training on several views. All log-mels have the same shape.
    /// If all factors share one tensor, it is encoded once.
    ///
    /// # Errors
    ///
    /// If a view is missing or its shape does not fit.
    fn encode_views(&self, views: &FactorMap<Tensor>) -> Result<Latents> {
        let factors = || self.factors().iter().map(|layout| layout.factor);
        let first = views.expect(self.factors()[0].factor)?;
        let is_first = |factor| {
            views
                .get(factor)
                .is_some_and(|view| view.id() == first.id())
        };
        if factors().all(is_first) {
            return self.encode_layers(first);
        }
        factors()
            .map(|factor| Ok((factor, self.encode_factor(factor, views.expect(factor)?)?)))
            .collect()
    }

    /// The layout of the latent of a factor.
    ///
    /// # Errors
    ///
    /// If the network does not have the factor.
    fn layout(&self, factor: Factor) -> Result<FactorLayout> {
        match self.factors().iter().find(|layout| layout.factor == factor) {
            Some(layout) => Ok(*layout),
            None => candle_core::bail!("expected a network with the factor {factor}"),
        }
    }

    /// Transposes each batch element of a factor's latent by its own number of semitones, if the factor has a pitch.
    ///
    /// # Errors
    ///
    /// If the number of shifts is not the batch size, or the network does not have the factor.
    fn transpose(&self, factor: Factor, latent: &Tensor, semitones: &[i32]) -> Result<Tensor> {
        match self.layout(factor)?.transposition {
            Transposition::None => Ok(latent.clone()),
            Transposition::ShiftNotes => shift_notes(latent, semitones),
            Transposition::RollChannels => roll_channels(latent, semitones),
        }
    }
}

/// The encoder of a network in steps. It keeps the past frames that the next step needs.
pub trait StreamEncoder: Send {
    /// Takes the next log-mel frames (B, 1, n_mels, n) and returns the means of the latent frames that they complete.
    ///
    /// # Errors
    ///
    /// If the shape does not fit.
    fn step(&mut self, mel: &Tensor) -> Result<FactorMap<Tensor>>;

    /// Ends the stream as a clip ends: takes the last frames, if there are more, and returns the means of all remaining
    /// latent frames.
    ///
    /// # Errors
    ///
    /// If the shape does not fit.
    fn finish(&mut self, mel: Option<&Tensor>) -> Result<FactorMap<Tensor>>;

    /// Forgets the stream and begins a new one.
    fn reset(&mut self);
}

/// The decoder of a network in steps. It keeps the past frames that the next step needs.
pub trait StreamDecoder: Send {
    /// Takes the next frames of some latents and returns the log-mel frames (B, 1, n_mels, t) that they complete.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit.
    fn step(&mut self, latents: &FactorMap<Tensor>) -> Result<Option<Tensor>>;

    /// Ends the stream as a clip ends: takes the last frames of some latents and returns all remaining log-mel frames.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit.
    fn finish(&mut self, latents: &FactorMap<Tensor>) -> Result<Option<Tensor>>;

    /// Forgets the stream and begins a new one.
    fn reset(&mut self);
}

/// The sizes of one kind of network.
pub(crate) trait NetworkConfig {
    /// Sizes by name, each with its valid range.
    fn sizes(&self) -> Vec<(&'static str, usize, RangeInclusive<usize>)>;

    /// Checks the values that are not sizes.
    fn validate_values(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    /// Reads or creates the weights.
    fn build(
        &self,
        mel: &MelConfig,
        weight_norm: bool,
        vb: &VarBuilder,
    ) -> Result<Arc<dyn Network>>;
}
