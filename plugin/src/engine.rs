//! What runs on the audio thread: gains, the exchange with the worker, and the mix of its output.

use std::sync::Arc;

use model_runtime::credit::SystemClock;
use model_runtime::delay::Delay;
use model_runtime::packet::{
    AudioPort, Controls, Geometry, GeometryError, Input, exchange, finite_or_zero,
};
use model_runtime::status::Status;
use model_runtime::worker::{WindowProcessor, Worker};

use crate::params::GraftParams;

/// One latent frame, in seconds: the hop of the mel spectrogram.
const LATENT_FRAME_SECONDS: f64 = 512.0 / 22_050.0;
/// The harmony latent averages over four frames, so that is the shortest window without waste.
const LATENT_FRAMES_PER_WINDOW: f64 = 4.0;
/// The knobs are noted a few times per latent frame, so that each frame finds one close by.
const CONTROLS_PER_LATENT_FRAME: f64 = 4.0;

const SWITCH_SECONDS: f32 = 0.02;

/// What an engine is made for.
#[derive(Clone, Debug)]
pub struct Config {
    /// The host's sample rate.
    pub sample_rate_hz: f32,
    /// The longest block that the host will ask for.
    pub max_block_samples: usize,
    /// Whether to wait for late windows as long as it takes.
    pub patient: bool,
}

impl Config {
    /// Length of the worker's windows, in samples at the host's rate.
    pub fn window_samples(&self) -> usize {
        self.samples(LATENT_FRAME_SECONDS * LATENT_FRAMES_PER_WINDOW)
    }

    fn geometry(&self, processor_latency_samples: usize) -> Geometry {
        let window_samples = self.window_samples();
        Geometry {
            sample_rate_hz: self.sample_rate_hz,
            window_samples,
            control_interval_samples: self
                .samples(LATENT_FRAME_SECONDS / CONTROLS_PER_LATENT_FRAME),
            processor_latency_samples,
            compute_allowance_samples: Geometry::live_allowance_samples(
                window_samples,
                self.max_block_samples,
            ),
        }
    }

    fn samples(&self, seconds: f64) -> usize {
        (seconds * f64::from(self.sample_rate_hz)).round() as usize
    }
}

/// Audio thread: everything between the host's buffers, but the parameters.
pub struct Engine {
    port: AudioPort<SystemClock>,
    /// Joined when the engine is dropped, which happens off the audio thread.
    _worker: Option<Worker>,
    link: Switch,
    bypass: Switch,
    /// What is to happen to a sample when it comes out, so that automation lands where it was drawn.
    pending: Delay<Finish>,
}

/// Audio thread: how one sample is finished.
#[derive(Clone, Copy, Default)]
struct Finish {
    unprocessed: [f32; 2],
    dry_gain: f32,
    remix_gain: f32,
    bypass: f32,
}

impl Engine {
    /// Makes the exchange and starts the worker. Without a processor the main input passes.
    ///
    /// # Errors
    ///
    /// When the host's sample rate is of no use.
    pub fn new(
        config: &Config,
        processor: Option<Box<dyn WindowProcessor>>,
        status: Arc<Status>,
    ) -> Result<Self, GeometryError> {
        let geometry = config.geometry(processor.as_ref().map_or(0, |p| p.latency_samples()));
        let (mut port, worker_port) =
            exchange(&geometry, SystemClock::default(), Arc::clone(&status))?;
        port.set_patient(config.patient);
        let spawn = |processor| match Worker::spawn(worker_port, processor) {
            Ok(worker) => Some(worker),
            Err(error) => {
                status.report_fault(format!("no thread for the worker: {error}"));
                None
            }
        };
        Ok(Self {
            port,
            _worker: processor.and_then(spawn),
            link: Switch::new(config.sample_rate_hz),
            bypass: Switch::new(config.sample_rate_hz),
            pending: Delay::new(geometry.latency_samples()),
        })
    }

    /// Delay of the whole plugin. Constant.
    pub fn latency_samples(&self) -> u32 {
        self.pending.samples() as u32
    }

    /// Starts over with silence and settled parameters.
    pub fn reset(&mut self, params: &GraftParams) {
        self.port.reset();
        self.pending.reset();
        self.link.settle(params.link.value());
        self.bypass.settle(params.bypass.value());
    }

    /// Processes a block in place: one or two channels, and up to two of sidechain. A sidechain
    /// channel that is missing or too short counts as silence.
    pub fn process(
        &mut self,
        params: &GraftParams,
        main: &mut [&mut [f32]],
        sidechain: &[&mut [f32]],
    ) {
        let Some(block_samples) = main.first().map(|channel| channel.len()) else {
            return;
        };
        self.port.begin_block(block_samples);
        let sidechain_sample = |channel: &[f32], i: usize| channel.get(i).copied().unwrap_or(0.0);
        for i in 0..block_samples {
            let sidechain = match sidechain {
                [left, right, ..] => [sidechain_sample(left, i), sidechain_sample(right, i)],
                [mono] => [sidechain_sample(mono, i); 2],
                [] => [0.0; 2],
            };
            match main {
                [left, right, ..] => {
                    [left[i], right[i]] = self.sample(params, [left[i], right[i]], sidechain);
                }
                [mono] => {
                    let [left, right] = self.sample(params, [mono[i]; 2], sidechain);
                    mono[i] = 0.5 * (left + right);
                }
                [] => {}
            }
        }
    }

    fn sample(&mut self, params: &GraftParams, main: [f32; 2], sidechain: [f32; 2]) -> [f32; 2] {
        let main = main.map(finite_or_zero);
        let main_gain = params.main_gain.smoothed.next();
        let sidechain_gain = params.sidechain_gain.smoothed.next();
        let mix = params.mix.smoothed.next();
        let output_gain = params.output_gain.smoothed.next();
        let harmony = params.harmony.smoothed.next();
        let rhythm = params.rhythm.smoothed.next();
        let link = self.link.next(params.link.value());

        let output = self.port.process(Input {
            main: main.map(|sample| sample * main_gain),
            sidechain: sidechain.map(|sample| sample * sidechain_gain),
            controls: Controls {
                harmony,
                rhythm: rhythm * (1.0 - link) + harmony * link,
            },
        });
        let finish = self.pending.push(Finish {
            unprocessed: main,
            dry_gain: (1.0 - mix) * output_gain,
            remix_gain: mix * output_gain,
            bypass: self.bypass.next(params.bypass.value()),
        });
        [0, 1].map(|channel| {
            let mixed =
                output.dry[channel] * finish.dry_gain + output.remix[channel] * finish.remix_gain;
            mixed * (1.0 - finish.bypass) + finish.unprocessed[channel] * finish.bypass
        })
    }
}

/// Audio thread: an on/off parameter that moves in a short ramp.
struct Switch {
    position: f32,
    step: f32,
}

impl Switch {
    fn new(sample_rate_hz: f32) -> Self {
        Self {
            position: 0.0,
            step: 1.0 / (SWITCH_SECONDS * sample_rate_hz),
        }
    }

    fn settle(&mut self, on: bool) {
        self.position = f32::from(u8::from(on));
    }

    fn next(&mut self, on: bool) -> f32 {
        let step = if on { self.step } else { -self.step };
        self.position = (self.position + step).clamp(0.0, 1.0);
        self.position
    }
}
