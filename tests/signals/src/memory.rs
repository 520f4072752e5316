//! Counts the memory that a test program has in use.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static USED_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The system allocator, with a count of the bytes in use.
pub struct MeasuringAllocator;

// SAFETY: forwards everything to the system allocator; counting does not allocate.
unsafe impl GlobalAlloc for MeasuringAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK_BYTES.fetch_max(used, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes in use, if the program's allocator is [`MeasuringAllocator`].
pub fn used_bytes() -> usize {
    USED_BYTES.load(Ordering::Relaxed)
}

/// The most bytes that were in use at a time while all threads did `work`, and its result.
pub fn peak_bytes<T>(work: impl FnOnce() -> T) -> (usize, T) {
    PEAK_BYTES.store(used_bytes(), Ordering::Relaxed);
    let result = work();
    (PEAK_BYTES.load(Ordering::Relaxed), result)
}
