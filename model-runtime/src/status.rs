//! Status of a running exchange, for display in an editor.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Counters that all threads may read and write, and the last fault, which only the worker, the main thread and the
/// editor touch.
#[derive(Debug, Default)]
pub struct Status {
    late_windows: AtomicU64,
    faults: AtomicU64,
    real_time_factor_bits: AtomicU32,
    last_fault: Mutex<Option<String>>,
}

impl Status {
    /// Any thread: windows that were late and replaced by the main input.
    pub fn late_windows(&self) -> u64 {
        self.late_windows.load(Ordering::Relaxed)
    }

    /// Any thread: windows whose processing failed.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Any thread: the worker's time per window relative to the window's duration, averaged over about ten windows.
    pub fn real_time_factor(&self) -> f32 {
        f32::from_bits(self.real_time_factor_bits.load(Ordering::Relaxed))
    }

    /// Editor: the last fault.
    pub fn last_fault(&self) -> Option<String> {
        self.last_fault.lock().clone()
    }

    /// Worker or main thread: records and logs a fault.
    pub fn report_fault(&self, fault: String) {
        log::error!("{fault}");
        self.faults.fetch_add(1, Ordering::Relaxed);
        *self.last_fault.lock() = Some(fault);
    }

    /// Audio thread.
    pub(crate) fn count_late_window(&self) {
        self.late_windows.fetch_add(1, Ordering::Relaxed);
    }

    /// Worker.
    pub(crate) fn set_real_time_factor(&self, factor: f32) {
        self.real_time_factor_bits
            .store(factor.to_bits(), Ordering::Relaxed);
    }
}
