//! What the running plugin leaves for the editor to read.

use std::sync::Arc;

use model_runtime::scope::Scope;
use model_runtime::status::Status;
use parking_lot::Mutex;

use crate::meters::Meters;
use crate::setup::Activation;

/// What the running plugin leaves for the editor to read.
#[derive(Default)]
pub struct Readout {
    /// Of the exchange with the worker.
    pub status: Arc<Status>,
    /// How loud things are.
    pub meters: Arc<Meters>,
    /// What the worker hears and makes.
    pub scope: Arc<Scope>,
    activation: Mutex<Option<Activation>>,
}

impl Readout {
    /// Main thread: the host activated the plugin.
    pub fn set_activation(&self, activation: Activation) {
        *self.activation.lock() = Some(activation);
    }

    /// Main thread and editor: what the host activated the plugin for last; none before the first time.
    pub fn activation(&self) -> Option<Activation> {
        *self.activation.lock()
    }
}
