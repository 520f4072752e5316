//! What the editor shows of the running plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use model_runtime::scope::Scope;
use model_runtime::status::Status;
use parking_lot::Mutex;

use crate::engine::Setup;
use crate::meters::Meters;

/// What the running plugin leaves for the editor to read.
#[derive(Default)]
pub struct Readout {
    /// Of the exchange with the worker.
    pub status: Arc<Status>,
    /// How loud things are.
    pub meters: Arc<Meters>,
    /// What the worker hears and makes.
    pub scope: Arc<Scope>,
    latency_samples: AtomicU32,
    sample_rate_hz_bits: AtomicU32,
    /// The setup in force.
    setup: Mutex<Option<Setup>>,
}

impl Readout {
    /// Main thread: notes the setup in force and the latency that was reported to the host.
    pub fn set_latency(&self, setup: Setup, latency_samples: u32, sample_rate_hz: f32) {
        *self.setup.lock() = Some(setup);
        self.latency_samples
            .store(latency_samples, Ordering::Relaxed);
        self.sample_rate_hz_bits
            .store(sample_rate_hz.to_bits(), Ordering::Relaxed);
    }

    /// The setup in force, once the host has activated the plugin.
    pub fn setup(&self) -> Option<Setup> {
        *self.setup.lock()
    }

    /// The latency in samples, and the sample rate in Hz; `None` as long as the host has not activated the plugin.
    pub fn latency(&self) -> Option<(u32, f32)> {
        let rate_hz = f32::from_bits(self.sample_rate_hz_bits.load(Ordering::Relaxed));
        let samples = self.latency_samples.load(Ordering::Relaxed);
        (rate_hz > 0.0).then_some((samples, rate_hz))
    }
}
