//! The worker thread: remixes the windows that the audio thread sends.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use no_denormals::no_denormals;
use vocoder::MelConfig;

use crate::exchange::{Packet, WorkerPort};
use crate::freeze::FreezeStore;
use crate::geometry::StreamLatency;
use crate::window::Window;

/// Shortest and longest sleep of a worker that waits for the next window, the longest as a share of the compute allowance,
/// which it is taken from: the audio thread does not wake the worker. Each time that it wakes by itself it disturbs the audio
/// thread, so it sleeps long where windows come slowly, as in real time, and briefly where a render waits for it.
const MIN_SLEEP: Duration = Duration::from_micros(200);
const MAX_SLEEP_SHARE: f64 = 1.0 / 16.0;
/// The first sleep after a window, as a share of the wait for it.
const FIRST_SLEEP_SHARE: u32 = 8;

/// Longest sleep of a worker that got no window for [`IDLE_AFTER`]: the host does not process.
const MAX_IDLE_SLEEP: Duration = Duration::from_millis(15);
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Weight of the newest window in the average real-time factor.
const REAL_TIME_FACTOR_WEIGHT: f32 = 0.1;

/// What went wrong in a window, in words for the user.
pub type ProcessorError = Box<dyn std::error::Error + Send + Sync>;

/// Worker thread: turns windows of both inputs into windows of the remix.
pub trait WindowProcessor: Send {
    /// How many samples the output lags behind the input. Constant.
    fn latency_samples(&self) -> usize;

    /// The terms of that, if they are known one by one, for display. Constant.
    fn latency_terms(&self) -> Option<StreamLatency> {
        None
    }

    /// Time from one frame to the next, by which windows are measured. Constant; by default that of the standard mel
    /// spectrogram.
    fn frame_seconds(&self) -> f64 {
        MelConfig::default().hop_seconds()
    }

    /// The frozen loops that it plays, for [`crate::exchange::AudioPort::set_freeze_store`]; by default none.
    fn freeze_store(&self) -> Option<&Arc<FreezeStore>> {
        None
    }

    /// Forgets the past.
    fn reset(&mut self);

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
                // Very soft input makes denormal numbers, with which processors compute many times slower.
                let work = || {
                    while !stopped.load(Ordering::Acquire) {
                        // A panic outside the processor is a fault of ours; the next window begins afresh all the same.
                        if let Err(fault) = guarded(|| run(&mut session, &stopped)) {
                            session.recover(fault);
                        }
                    }
                };
                // SAFETY: no code on this thread relies on denormal numbers or on the processor's flags. The audio thread
                // runs under the same flags, which the plugin framework sets.
                unsafe { no_denormals(work) };
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

/// Worker thread: remixes until it is told to stop.
///
/// While the host processes, it sleeps instead of parking: on Windows a parked thread wakes at a tick of the system's timer
/// only, which is every 15.6 ms, and a sleeping one on time.
fn run(session: &mut Session, stopped: &AtomicBool) {
    let max_sleep = session.max_sleep();
    let mut sleep = MIN_SLEEP;
    let mut waited = Duration::ZERO;
    while !stopped.load(Ordering::Acquire) {
        if session.step() {
            sleep = (waited / FIRST_SLEEP_SHARE).clamp(MIN_SLEEP, max_sleep);
            waited = Duration::ZERO;
            continue;
        }
        match sleep <= max_sleep {
            true => thread::sleep(sleep),
            // May end early, when the worker is dropped.
            false => thread::park_timeout(sleep),
        }
        waited += sleep;
        let longest = match waited > IDLE_AFTER {
            true => MAX_IDLE_SLEEP.max(max_sleep),
            false => max_sleep,
        };
        sleep = (sleep * 2).min(longest);
    }
}

/// Worker thread: the stream that the processor is in.
pub(crate) struct Session {
    port: WorkerPort,
    processor: Box<dyn WindowProcessor>,
    /// Generation and sequence of the packet that would continue the stream.
    expected: Option<(u64, u64)>,
    /// Number of the first sample whose remix rests on nothing but input since the last restart.
    usable_from: u64,
    real_time_factor: f32,
}

impl Session {
    pub(crate) fn new(port: WorkerPort, processor: Box<dyn WindowProcessor>) -> Self {
        Self {
            port,
            processor,
            expected: None,
            usable_from: 0,
            real_time_factor: 0.0,
        }
    }

    /// Longest sleep while the host processes.
    fn max_sleep(&self) -> Duration {
        let geometry = self.port.geometry();
        let allowance_seconds =
            geometry.compute_allowance_samples as f64 / f64::from(geometry.sample_rate_hz);
        Duration::from_secs_f64(MAX_SLEEP_SHARE * allowance_seconds).max(MIN_SLEEP)
    }

    /// Remixes the next window, if there is one, and says whether there was.
    pub(crate) fn step(&mut self) -> bool {
        let Some(mut packet) = self.port.receive() else {
            return false;
        };
        let began = Instant::now();
        packet.usable = match self.remix(&mut packet) {
            Ok(()) => packet.start >= self.usable_from,
            Err(fault) => {
                self.recover(fault);
                false
            }
        };
        self.measure(began.elapsed(), packet.window.samples());
        self.port.send(packet);
        true
    }

    /// Notes a fault; the next window begins afresh.
    fn recover(&mut self, fault: String) {
        self.expected = None;
        self.port.status().report_fault(fault);
    }

    fn remix(&mut self, packet: &mut Packet) -> Result<(), String> {
        if self.expected != Some((packet.generation, packet.sequence)) {
            self.restart(packet)?;
        }
        self.expected = Some((packet.generation, packet.sequence + 1));
        for channel in &mut packet.remix {
            channel.resize(packet.window.samples(), 0.0);
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
        self.usable_from = match packet.sequence {
            0 => 0,
            _ => packet.start + self.port.geometry().processor_latency_samples as u64,
        };
        let processor = &mut self.processor;
        guarded(|| processor.reset())
    }

    fn measure(&mut self, elapsed: Duration, samples: usize) {
        let window_seconds = samples as f32 / self.port.geometry().sample_rate_hz;
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

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::mpsc;

    use super::*;
    use crate::credit::SystemClock;
    use crate::exchange::exchange;
    use crate::geometry::{Geometry, GeometrySettings, LatencyMode};
    use crate::sample::{Input, Output};
    use crate::status::Status;
    use crate::transport::Transport;

    /// Tells whether half of the smallest normal number is zero.
    struct Probe(mpsc::Sender<bool>);

    impl WindowProcessor for Probe {
        fn latency_samples(&self) -> usize {
            0
        }

        fn reset(&mut self) {}

        fn process(&mut self, _: &Window, _: [&mut [f32]; 2]) -> Result<(), ProcessorError> {
            let half = black_box(f32::MIN_POSITIVE) * black_box(0.5);
            Ok(self.0.send(half == 0.0)?)
        }
    }

    #[test]
    fn the_worker_flushes_denormal_numbers_to_zero() {
        let geometry = Geometry::new(&GeometrySettings {
            mode: LatencyMode::Live,
            frame_seconds: 0.02,
            sample_rate_hz: 8000.0,
            max_block_samples: 256,
            processor_latency_samples: 0,
        });
        let (mut audio, port) = exchange(
            &geometry,
            SystemClock::default(),
            Arc::new(Status::default()),
        )
        .unwrap();
        let (sender, flushed) = mpsc::channel();
        let _worker = Worker::spawn(port, Box::new(Probe(sender))).unwrap();
        let inputs = [Input::default(); 256];
        audio.begin_block(inputs.len(), &Transport::default());
        audio.process(&inputs, &Default::default(), &mut [Output::default(); 256]);
        assert!(flushed.recv_timeout(Duration::from_secs(10)).unwrap());
    }
}
