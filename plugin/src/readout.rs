//! Data that the running plugin provides to the editor.

use std::sync::Arc;

use model_runtime::scope::Scope;
use model_runtime::status::Status;
use parking_lot::Mutex;

use crate::meters::Meters;
use crate::setup::Activation;

/// Data that the running plugin provides to the editor.
#[derive(Default)]
pub struct Readout {
    /// Status of the exchange with the worker.
    pub status: Arc<Status>,
    /// Levels of inputs and output.
    pub meters: Arc<Meters>,
    /// Inputs, latents and output of the worker.
    pub scope: Arc<Scope>,
    activation: Mutex<Option<Activation>>,
}

impl Readout {
    /// Main thread: records that the host activated the plugin.
    pub fn set_activation(&self, activation: Activation) {
        *self.activation.lock() = Some(activation);
    }

    /// Main thread and editor: the last activation; none before the first.
    pub fn activation(&self) -> Option<Activation> {
        *self.activation.lock()
    }
}
