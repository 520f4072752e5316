//! Restart requests that are on their way.
//!
//! On Linux, nice-plug passes requests of VST3 plugins on from a thread of its own, which all instances share. That thread
//! ends, and later takes the host down, if it comes to a request of an instance that is gone. Therefore an instance waits
//! for its requests when it is deactivated.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use nice_plug::plugin::TaskExecutor;
use nice_plug::prelude::AsyncExecutor;

use crate::Graft;

/// Longest wait. The host may have restarted the plugin from that very thread, which then comes to nothing else.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// How long the thread may take to let go of the instance after its last task.
const LET_GO: Duration = Duration::from_millis(5);

/// The restart requests of an instance.
pub struct Requests {
    /// Present once nice-plug has provided it.
    executor: Option<AsyncExecutor<Graft>>,
    arrived: Sender<()>,
    arrivals: Receiver<()>,
    is_pending: bool,
}

impl Default for Requests {
    fn default() -> Self {
        let (arrived, arrivals) = channel();
        Self {
            executor: None,
            arrived,
            arrivals,
            is_pending: false,
        }
    }
}

impl Requests {
    /// What nice-plug runs on its thread after a request.
    pub fn task(&self) -> TaskExecutor<Graft> {
        let arrived = self.arrived.clone();
        Box::new(move |()| {
            // If the other end is gone, nobody waits.
            let _gone = arrived.send(());
        })
    }

    /// Keeps nice-plug's way to that thread.
    pub fn set_executor(&mut self, executor: AsyncExecutor<Graft>) {
        self.executor = Some(executor);
    }

    /// Audio thread: notes a request.
    pub fn note(&mut self) {
        self.is_pending = true;
    }

    /// Main thread: waits until the requests so far have reached the host.
    pub fn wait(&mut self) {
        if let Some(executor) = self.executor.as_ref().filter(|_| self.is_pending) {
            // Those that were waited for in vain.
            while self.arrivals.try_recv().is_ok() {}
            executor.execute_background(());
            // The thread takes its tasks in order.
            let _timeout = self.arrivals.recv_timeout(LONGEST_WAIT);
            thread::sleep(LET_GO);
            self.is_pending = false;
        }
    }
}
