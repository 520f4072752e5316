//! The checkpoint of a run: one safetensors file, replaced atomically.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use graft_material::whole_file;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::recipe::Recipe;

/// Key of the JSON header in the file's metadata.
const HEADER: &str = "graft-checkpoint";

/// Metadata of a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointHeader {
    /// The recipe of the run.
    pub recipe: Recipe,
    /// The model that the run started from, if it did not start from random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Steps taken.
    pub step: u64,
    /// Training time over all calls.
    pub train_seconds: f64,
}

impl CheckpointHeader {
    /// The header of a new run.
    pub fn new(recipe: Recipe, origin: Option<Origin>) -> Self {
        Self {
            recipe,
            origin,
            step: 0,
            train_seconds: 0.0,
        }
    }

    /// Training steps of the weights, including those of the origin.
    pub fn total_steps(&self) -> u64 {
        self.step + self.origin.as_ref().map_or(0, |origin| origin.steps)
    }

    /// Training hours of the weights, including those of the origin.
    pub fn total_hours(&self) -> f64 {
        self.train_seconds / 3600.0
            + self
                .origin
                .as_ref()
                .map_or(0.0, |origin| origin.train_hours)
    }
}

/// An exported model that a run started from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// SHA-256 of the model file.
    pub sha256: String,
    /// Training steps of that model.
    pub steps: u64,
    /// Training time of that model, in hours.
    pub train_hours: f64,
}

/// Path of a run's newest checkpoint.
pub fn path(run: &Path) -> PathBuf {
    run.join("checkpoint.safetensors")
}

/// Writes a new file and then replaces the old one with it, so that a complete checkpoint exists at any time.
pub fn save(
    run: &Path,
    header: &CheckpointHeader,
    tensors: &HashMap<String, Tensor>,
) -> Result<()> {
    let metadata = HashMap::from([(HEADER.to_owned(), serde_json::to_string(header)?)]);
    let bytes = safetensors::serialize(tensors, Some(metadata))?;
    whole_file::write(&path(run), &bytes)
}

/// Reads a run's newest checkpoint.
pub fn load(run: &Path) -> Result<(CheckpointHeader, HashMap<String, Tensor>)> {
    let path = path(run);
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let context = || format!("{} is not a training checkpoint", path.display());
    let (_, metadata) = SafeTensors::read_metadata(&bytes).with_context(context)?;
    let header = metadata
        .metadata()
        .as_ref()
        .and_then(|m| m.get(HEADER))
        .with_context(context)?;
    let header = serde_json::from_str(header).with_context(context)?;
    let tensors =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).with_context(context)?;
    Ok((header, tensors))
}
