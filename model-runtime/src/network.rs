//! The networks behind one trait: encode each factor, transpose, decode; whole clips or in steps.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use vocoder::MelConfig;

use crate::factor::{Factor, FactorLayout, FactorMap, Transposition};
use crate::latent::{Latent, Latents, roll_channels, shift_notes};

/// An encoder and decoder of log-mel spectrograms (B, 1, n_mels, T) with one latent for each of its factors.
pub trait Network: Debug + Send + Sync {
    /// The factors and how their latents are laid out, in the order of [`Factor::ALL`].
    fn factors(&self) -> &[FactorLayout];

    /// The latent of one factor of a log-mel (B, 1, n_mels, T).
    ///
    /// # Errors
    ///
    /// If the shape is another, or the network does not have the factor.
    fn encode_factor(&self, factor: Factor, mel: &Tensor) -> Result<Latent>;

    /// All latents of a log-mel (B, 1, n_mels, T).
    ///
    /// # Errors
    ///
    /// If the shape is another.
    fn encode(&self, mel: &Tensor) -> Result<Latents> {
        let factors = self.factors().iter().map(|layout| layout.factor);
        factors
            .map(|factor| Ok((factor, self.encode_factor(factor, mel)?)))
            .collect()
    }

    /// Log-mel (B, 1, n_mels, T) from the latents of all factors.
    ///
    /// # Errors
    ///
    /// If a latent is missing or its shape does not fit.
    fn decode(&self, latents: &FactorMap<Tensor>) -> Result<Tensor>;

    /// An encoder at the beginning of a stream.
    fn encoder(&self) -> Box<dyn StreamEncoder>;

    /// A decoder at the beginning of a stream.
    fn decoder(&self) -> Box<dyn StreamDecoder>;

    /// Mel frames that must be known after a frame before it is encoded and decoded.
    fn look_ahead_frames(&self) -> usize;

    /// The same network for a stream that waits for no more than `frames`: layers beyond that take the newest frame for
    /// all that come after. It shares the weights, and gradients reach them. A latent that averages several frames needs
    /// all of them, whatever `frames` says.
    ///
    /// # Errors
    ///
    /// If the weights cannot be folded.
    fn with_look_ahead(&self, frames: usize) -> Result<Arc<dyn Network>>;

    /// Each factor's latent of its own log-mel, all of the same shape, for training on several views. If all factors share
    /// one tensor, it is encoded once.
    ///
    /// # Errors
    ///
    /// If a view is missing or has another shape.
    fn encode_views(&self, views: &FactorMap<Tensor>) -> Result<Latents> {
        let factors = || self.factors().iter().map(|layout| layout.factor);
        let first = views.expect(self.factors()[0].factor)?;
        let is_first = |factor| {
            views
                .get(factor)
                .is_some_and(|view| view.id() == first.id())
        };
        if factors().all(is_first) {
            return self.encode(first);
        }
        factors()
            .map(|factor| Ok((factor, self.encode_factor(factor, views.expect(factor)?)?)))
            .collect()
    }

    /// How the latent of a factor is laid out.
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

    /// Transposes each batch element of a factor's latent by its number of semitones, if the factor has a pitch.
    ///
    /// # Errors
    ///
    /// If there is not one number for each batch element, or the network does not have the factor.
    fn transpose(&self, factor: Factor, latent: &Tensor, semitones: &[i32]) -> Result<Tensor> {
        match self.layout(factor)?.transposition {
            Transposition::None => Ok(latent.clone()),
            Transposition::ShiftNotes => shift_notes(latent, semitones),
            Transposition::RollChannels => roll_channels(latent, semitones),
        }
    }
}

/// The encoder of a network in steps. It keeps the past that the next step needs.
pub trait StreamEncoder: Send {
    /// Takes the next log-mel frames (B, 1, n_mels, n) and returns the means of the latents that they complete.
    ///
    /// # Errors
    ///
    /// If the shape is another.
    fn step(&mut self, mel: &Tensor) -> Result<FactorMap<Tensor>>;
}

/// The decoder of a network in steps. It keeps the past that the next step needs.
pub trait StreamDecoder: Send {
    /// Takes the next frames of some latents and returns the log-mel frames (B, 1, n_mels, t) that they complete.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit.
    fn step(&mut self, latents: &FactorMap<Tensor>) -> Result<Option<Tensor>>;
}

/// The sizes of one kind of network.
pub(crate) trait NetworkConfig {
    /// Sizes by name, with the range that a sensible model has.
    fn sizes(&self) -> Vec<(&'static str, usize, RangeInclusive<usize>)>;

    /// Checks what is no size.
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
