//! The interface between the training loop and the trained parts.

#[cfg(test)]
mod devices;
pub mod lord;
pub mod luo;
pub mod magnitudes;
pub mod network;
pub mod tanaka;
pub mod voice;

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use candle_core::Tensor;
use serde_json::Value;

use crate::checkpoint::CheckpointHeader;

/// A part of a model in training, with its training data.
pub trait Trainee {
    /// Training data for one step.
    type Batch;

    /// Waits for the next batch.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be made.
    fn next_batch(&mut self) -> Result<Self::Batch>;

    /// Trains one step, the one after `header.step` steps.
    ///
    /// # Errors
    ///
    /// Returns an error if the gradients are not finite, or the computation fails.
    fn step(&mut self, header: &CheckpointHeader, batch: Self::Batch) -> Result<Report>;

    /// Validates the averaged weights, or the current ones where the best are kept, on validation material.
    ///
    /// # Errors
    ///
    /// Returns an error if the computation fails.
    fn validate(&mut self, header: &CheckpointHeader) -> Result<Report>;

    /// Writes pictures and sounds from the averaged or best weights to the run folder.
    ///
    /// # Errors
    ///
    /// Returns an error if they cannot be made or written.
    fn preview(&self, header: &CheckpointHeader, run: &Path) -> Result<()>;

    /// The tensors that resuming needs, by name.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor cannot be copied.
    fn state(&self) -> Result<HashMap<String, Tensor>>;

    /// Why training should not go on, if so.
    fn end(&self, _header: &CheckpointHeader) -> Option<String> {
        None
    }
}

/// Result of a step or a validation.
pub struct Report {
    /// A line for the terminal.
    pub line: String,
    /// A JSON object for `metrics.jsonl`.
    pub figures: Value,
}
