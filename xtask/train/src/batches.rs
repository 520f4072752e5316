//! Batches made on background threads, in order.

use std::collections::VecDeque;
use std::thread;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, bounded};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Least number of batches that are prepared ahead.
const QUEUE_BATCHES: usize = 4;

/// Largest number of threads that make batches: each holds up to two of them.
const MAX_THREADS: usize = 32;

/// A source of batches.
pub trait MakeBatch: Clone + Send + 'static {
    /// Training data for one step.
    type Batch: Send;

    /// The batch with this index. It must depend only on the index and constant settings, so that a resumed run gets
    /// the same batches.
    ///
    /// # Errors
    ///
    /// Returns an error if the batch cannot be made.
    fn batch(&mut self, index: u64) -> Result<Self::Batch>;

    /// Makes batches from `first_index` on, with threads on all CPU cores but the one that the steps need. The threads
    /// end when the stream is dropped.
    fn stream(self, first_index: u64) -> BatchStream<Self::Batch> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        self.stream_from(first_index, (cores - 1).clamp(1, MAX_THREADS))
    }

    /// Each of `threads` makes every `threads`th batch.
    fn stream_from(self, first_index: u64, threads: usize) -> BatchStream<Self::Batch> {
        let batches = (0..threads).map(|thread| {
            let (sender, batches) = bounded(QUEUE_BATCHES.div_ceil(threads));
            let mut maker = self.clone();
            thread::spawn(move || {
                for index in (first_index + thread as u64..).step_by(threads) {
                    if sender.send(maker.batch(index)).is_err() {
                        // The stream was dropped.
                        break;
                    }
                }
            });
            batches
        });
        BatchStream {
            batches: batches.collect(),
        }
    }
}

/// Random numbers for the batch with this index.
pub fn random(seed: u64, index: u64) -> StdRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&index.to_le_bytes());
    StdRng::from_seed(bytes)
}

/// Batches in order, from background threads.
pub struct BatchStream<B> {
    /// One receiver per thread; the next batch comes from the first.
    batches: VecDeque<Receiver<Result<B>>>,
}

impl<B> BatchStream<B> {
    /// Waits for the next batch.
    ///
    /// # Errors
    ///
    /// Returns an error if the batch could not be made.
    pub fn next_batch(&mut self) -> Result<B> {
        self.batches.rotate_left(1);
        let last = self.batches.back().context("some thread makes batches")?;
        last.recv()
            .context("a thread that makes batches has ended")?
    }
}
