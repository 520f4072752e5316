//! Batches made on threads of their own, in order.

use std::collections::VecDeque;
use std::thread;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, bounded};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Batches that wait ready-made for the network, at the least.
const QUEUE_BATCHES: usize = 4;

/// Most threads that make batches.
const MAX_THREADS: usize = 8;

/// What makes batches.
pub trait MakeBatch: Clone + Send + 'static {
    /// Training material for one step.
    type Batch: Send;

    /// The batch with this index, which depends on nothing else that changes: a resumed run sees what it would have seen.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    fn batch(&mut self, index: u64) -> Result<Self::Batch>;

    /// Makes batches from `first_index` on, on half the machine's cores, by threads that end when the stream is dropped.
    fn stream(self, first_index: u64) -> BatchStream<Self::Batch> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        self.stream_from(first_index, (cores / 2).clamp(1, MAX_THREADS))
    }

    /// Each of `threads` makes every `threads`th batch.
    fn stream_from(self, first_index: u64, threads: usize) -> BatchStream<Self::Batch> {
        let batches = (0..threads).map(|thread| {
            let (sender, batches) = bounded(QUEUE_BATCHES.div_ceil(threads));
            let mut maker = self.clone();
            thread::spawn(move || {
                for index in (first_index + thread as u64..).step_by(threads) {
                    if sender.send(maker.batch(index)).is_err() {
                        // Nobody waits for batches any more.
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

/// Batches in order, from threads of their own.
pub struct BatchStream<B> {
    /// One thread's each, the one whose turn it is in front.
    batches: VecDeque<Receiver<Result<B>>>,
}

impl<B> BatchStream<B> {
    /// Waits for the next batch.
    ///
    /// # Errors
    ///
    /// When it could not be made.
    pub fn next_batch(&mut self) -> Result<B> {
        self.batches.rotate_left(1);
        let last = self.batches.back().context("some thread makes batches")?;
        last.recv()
            .context("a thread that makes batches has ended")?
    }
}
