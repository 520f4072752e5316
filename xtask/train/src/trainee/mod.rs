//! What a run trains.

pub mod magnitudes;
pub mod network;
pub mod voice;

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use candle_core::Tensor;
use serde_json::Value;

use crate::checkpoint::Header;

/// What a run trains, with the material that it is trained on.
pub trait Trainee {
    /// Material for one step.
    type Batch;

    /// Waits for the material of the next step.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    fn next_batch(&mut self) -> Result<Self::Batch>;

    /// One step more than `header` counts.
    ///
    /// # Errors
    ///
    /// When the gradients are not finite, or the computation fails.
    fn step(&mut self, header: &Header, batch: Self::Batch) -> Result<Report>;

    /// How the averaged weights do on music that is never trained on.
    ///
    /// # Errors
    ///
    /// When the computation fails.
    fn validate(&self, header: &Header) -> Result<Report>;

    /// Pictures and sounds of the averaged weights, for the folder of the run.
    ///
    /// # Errors
    ///
    /// When they cannot be made or written.
    fn preview(&self, header: &Header, run: &Path) -> Result<()>;

    /// Everything that a resumed run needs, by name.
    ///
    /// # Errors
    ///
    /// When a tensor cannot be copied.
    fn state(&self) -> Result<HashMap<String, Tensor>>;
}

/// How a step or a validation went.
pub struct Report {
    /// For the terminal.
    pub line: String,
    /// For `metrics.jsonl`: an object.
    pub figures: Value,
}
