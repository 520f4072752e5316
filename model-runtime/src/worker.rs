//! The worker thread: remixes the windows that the audio thread sends.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::packet::{Packet, Window, WorkerPort};

/// After the latency and this much more of silence in both inputs, the processor is left alone.
const SILENCE_SECONDS: f32 = 1.0;

/// Shortest and longest sleep of an idle worker. The audio thread does not wake it, so the longest
/// one is taken from the compute allowance.
const MIN_SLEEP: Duration = Duration::from_micros(100);
const MAX_SLEEP: Duration = Duration::from_millis(5);

/// Weight of the newest window in the average real-time factor.
const REAL_TIME_FACTOR_WEIGHT: f32 = 0.1;

/// What went wrong in a window, in words for the user.
pub type ProcessorError = Box<dyn std::error::Error + Send + Sync>;

/// Worker thread: turns windows of both inputs into windows of the remix.
pub trait WindowProcessor: Send {
    /// How many samples the output lags behind the input. Constant.
    fn latency_samples(&self) -> usize;

    /// Forgets the past: the next window starts `position_samples` into the stream, with silence
    /// before it.
    fn reset(&mut self, position_samples: u64);

    /// Writes the next `window.samples()` samples of left and right into `remix`.
    ///
    /// # Errors
    ///
    /// When there is no output for this window. The main input is heard instead, and
    /// [`Self::reset`] is called before the next window.
    fn process(&mut self, window: &Window, remix: [&mut [f32]; 2]) -> Result<(), ProcessorError>;
}

/// The thread that runs a [`WindowProcessor`]. Dropping it ends and joins the thread.
#[derive(Debug)]
pub struct Worker {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system has no thread to give.
    pub fn spawn(port: WorkerPort, processor: Box<dyn WindowProcessor>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut session = Session::new(port, processor);
        let thread = thread::Builder::new()
            .name("graft-worker".to_owned())
            .spawn(move || {
                let mut sleep = MIN_SLEEP;
                while !stopped.load(Ordering::Acquire) {
                    if session.step() {
                        sleep = MIN_SLEEP;
                    } else {
                        thread::park_timeout(sleep);
                        sleep = (sleep * 2).min(MAX_SLEEP);
                    }
                }
            })?;
        Ok(Self {
            thread: Some(thread),
            stop,
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic outside the processor has nothing left to tell: the port is closed.
            let _ended = thread.join();
        }
    }
}

/// Worker thread: the stream that the processor is in.
pub(crate) struct Session {
    port: WorkerPort,
    processor: Box<dyn WindowProcessor>,
    /// Generation and sequence of the packet that would continue the stream.
    expected: Option<(u64, u64)>,
    /// First sequence whose remix rests on nothing but input since the last restart.
    usable_from: u64,
    silent_windows: u64,
    asleep: bool,
    real_time_factor: f32,
}

impl Session {
    pub(crate) fn new(port: WorkerPort, processor: Box<dyn WindowProcessor>) -> Self {
        Self {
            port,
            processor,
            expected: None,
            usable_from: 0,
            silent_windows: 0,
            asleep: false,
            real_time_factor: 0.0,
        }
    }

    /// Remixes the next window, if there is one, and says whether there was.
    pub(crate) fn step(&mut self) -> bool {
        let Some(mut packet) = self.port.receive() else {
            return false;
        };
        let began = Instant::now();
        packet.usable = match self.remix(&mut packet) {
            Ok(()) => packet.sequence >= self.usable_from,
            Err(fault) => {
                self.expected = None;
                self.port.status().report_fault(fault);
                false
            }
        };
        self.measure(began.elapsed());
        self.port.send(packet);
        true
    }

    fn remix(&mut self, packet: &mut Packet) -> Result<(), String> {
        if self.expected != Some((packet.generation, packet.sequence)) {
            self.restart(packet)?;
        }
        self.expected = Some((packet.generation, packet.sequence + 1));

        if packet.window.is_silent() {
            self.silent_windows += 1;
        } else {
            self.silent_windows = 0;
        }
        if self.asleep || self.silent_windows > self.windows_until_sleep() {
            self.asleep = self.silent_windows > 0;
            if self.asleep {
                packet
                    .remix
                    .iter_mut()
                    .for_each(|channel| channel.fill(0.0));
                return Ok(());
            }
            self.reset_processor(packet)?;
        }

        let window = &packet.window;
        let [left, right] = &mut packet.remix;
        let processor = &mut self.processor;
        guarded(|| processor.process(window, [&mut left[..], &mut right[..]]))?
            .map_err(|error| error.to_string())?;
        match packet
            .remix
            .iter()
            .flatten()
            .all(|sample| sample.is_finite())
        {
            true => Ok(()),
            false => Err("the remix held samples that are not finite".to_owned()),
        }
    }

    /// Begins a stream at `packet`: a new one, or the rest of one that was broken.
    fn restart(&mut self, packet: &Packet) -> Result<(), String> {
        // At the start of a stream there is silence before the packet, as the processor assumes.
        let new_stream = packet.sequence == 0;
        self.usable_from = match new_stream {
            true => 0,
            false => packet.sequence + self.latency_windows(),
        };
        self.asleep = new_stream;
        self.silent_windows = 0;
        self.reset_processor(packet)
    }

    fn reset_processor(&mut self, packet: &Packet) -> Result<(), String> {
        let position_samples = packet.sequence * self.port.geometry().window_samples as u64;
        let processor = &mut self.processor;
        guarded(|| processor.reset(position_samples))
    }

    fn latency_windows(&self) -> u64 {
        let geometry = self.port.geometry();
        geometry
            .processor_latency_samples
            .div_ceil(geometry.window_samples) as u64
    }

    fn windows_until_sleep(&self) -> u64 {
        let geometry = self.port.geometry();
        let windows_per_second = geometry.sample_rate_hz / geometry.window_samples as f32;
        self.latency_windows() + (SILENCE_SECONDS * windows_per_second).ceil() as u64
    }

    fn measure(&mut self, elapsed: Duration) {
        let geometry = self.port.geometry();
        let window_seconds = geometry.window_samples as f32 / geometry.sample_rate_hz;
        let factor = elapsed.as_secs_f32() / window_seconds;
        self.real_time_factor += REAL_TIME_FACTOR_WEIGHT * (factor - self.real_time_factor);
        self.port
            .status()
            .set_real_time_factor(self.real_time_factor);
    }
}

/// Runs a processor's code; a panic in it becomes an error.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // The processor is reset before it is used again, so no broken state is relied on.
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| panic_text(&*panic))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the remix panicked: {}", text.unwrap_or("no message"))
}
