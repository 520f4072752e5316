//! The weights that a run starts from.

use std::collections::HashMap;

use candle_core::Tensor;

/// What a run starts from.
pub enum Weights {
    /// Random numbers.
    Random,
    /// The weights of a model file, by their names without prefix.
    Model(HashMap<String, Tensor>),
    /// The state in its checkpoint.
    Checkpoint(HashMap<String, Tensor>),
}

impl Weights {
    /// The state in a checkpoint, if they come from there.
    pub fn checkpoint(&self) -> Option<&HashMap<String, Tensor>> {
        match self {
            Self::Checkpoint(state) => Some(state),
            Self::Random | Self::Model(_) => None,
        }
    }
}
