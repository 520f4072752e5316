//! The weights that a run starts from.

use std::collections::HashMap;

use candle_core::Tensor;

/// Initial weights of a run.
pub enum Weights {
    /// Random initialisation.
    Random,
    /// The weights of a model file, by name without prefix.
    Model(HashMap<String, Tensor>),
    /// The state in the run's checkpoint.
    Checkpoint(HashMap<String, Tensor>),
}

impl Weights {
    /// The checkpoint state, if the run starts from a checkpoint.
    pub fn checkpoint(&self) -> Option<&HashMap<String, Tensor>> {
        match self {
            Self::Checkpoint(state) => Some(state),
            Self::Random | Self::Model(_) => None,
        }
    }
}
