//! The audio-thread processing: gains, the exchange with the worker, and the mix.

use std::ops::Range;
use std::sync::Arc;

use model_runtime::Controls;
use model_runtime::credit::SystemClock;
use model_runtime::delay::Delay;
use model_runtime::exchange::{AudioPort, exchange};
use model_runtime::geometry::{Geometry, GeometryError, GeometrySettings};
use model_runtime::sample::{Input, Output, finite_or_zero, normal_or_zero};
use model_runtime::status::Status;
use model_runtime::transport::Transport;
use model_runtime::worker::{WindowProcessor, Worker};
use vocoder::MelConfig;

use crate::engines::Engine;
use crate::levels::{Levels, Ramps, block_controls};
use crate::params::GraftParams;
use crate::restart_fade::{LastSound, RestartFade};
use crate::setup::{LatencyTerms, Setup};

/// Number of samples that are processed together while no parameter moves.
const RUN_SAMPLES: usize = 64;

/// Settings of a signal path.
#[derive(Clone, Debug)]
pub struct Config {
    /// Engine, mode and model version.
    pub setup: Setup,
    /// The host's sample rate.
    pub sample_rate_hz: f32,
    /// The longest block of the host.
    pub max_block_samples: usize,
    /// Whether to wait for late windows without limit.
    pub patient: bool,
    /// Whether to fade in, after a restart with another setup or a fade-out.
    pub fade_in: bool,
}

/// Audio thread: all processing between the host's buffers.
pub struct SignalPath {
    port: AudioPort<SystemClock>,
    engine: Engine,
    /// Joined when the path is dropped, off the audio thread.
    _worker: Option<Worker>,
    ramps: Ramps,
    latency_terms: LatencyTerms,
    /// How to finish each sample when it is played, delayed so that automation is aligned with the audio.
    pending: Delay<Finish>,
    restart: RestartFade,
}

/// Audio thread: how one sample is finished.
#[derive(Clone, Copy, Default)]
struct Finish {
    unprocessed: [f32; 2],
    dry_gain: f32,
    remix_gain: f32,
    bypass: f32,
}

impl SignalPath {
    /// Creates the exchange and starts the worker. Without a processor, the main input passes through.
    ///
    /// # Errors
    ///
    /// If the host's sample rate is not supported.
    pub fn new(
        config: &Config,
        processor: Option<Box<dyn WindowProcessor>>,
        status: Arc<Status>,
    ) -> Result<Self, GeometryError> {
        let (frame_seconds, processor_latency_samples) = match &processor {
            Some(processor) => (processor.frame_seconds(), processor.latency_samples()),
            None => (MelConfig::default().hop_seconds(), 0),
        };
        let settings = GeometrySettings {
            mode: config.setup.engine.exchange_mode(config.setup.mode),
            frame_seconds,
            sample_rate_hz: config.sample_rate_hz,
            max_block_samples: config.max_block_samples,
            processor_latency_samples,
        };
        let geometry = Geometry::new(&settings);
        let terms = processor.as_ref().and_then(|it| it.latency_terms());
        let (mut port, worker_port) =
            exchange(&geometry, SystemClock::default(), Arc::clone(&status))?;
        port.set_patient(config.patient);
        if let Some(store) = processor.as_ref().and_then(|it| it.freeze_store()) {
            port.set_freeze_store(Arc::clone(store));
        }
        let spawn = |processor| match Worker::spawn(worker_port, processor) {
            Ok(worker) => Some(worker),
            Err(error) => {
                status.report_fault(format!("cannot start the worker thread: {error}"));
                None
            }
        };
        Ok(Self {
            port,
            engine: config.setup.engine,
            _worker: processor.and_then(spawn),
            ramps: Ramps::new(config.sample_rate_hz),
            latency_terms: LatencyTerms::new(&settings, terms),
            pending: Delay::new(geometry.latency_samples()),
            restart: RestartFade::new(config.setup, config.sample_rate_hz, config.fade_in),
        })
    }

    /// Whether to request a restart from the host now, because `wanted` differs from the path's setup: once, after the
    /// sound has faded out. Call this after each block.
    pub fn restart_is_due(&mut self, wanted: Setup) -> bool {
        self.restart.is_due(wanted)
    }

    /// What was played last; none if nothing was.
    pub fn last_sound(&self) -> Option<LastSound> {
        self.restart.last_sound()
    }

    /// Latency of the whole plugin, in samples. Constant.
    pub fn latency_samples(&self) -> u32 {
        self.pending.samples() as u32
    }

    /// What the latency is made of. Constant.
    pub fn latency_terms(&self) -> LatencyTerms {
        self.latency_terms
    }

    /// Resets to silence and settled parameters.
    pub fn reset(&mut self, params: &GraftParams) {
        self.port.reset();
        self.pending.reset();
        self.ramps.settle(params);
        self.restart.reset(self.pending.samples());
    }

    /// Processes a block in place, with one or two channels and up to two sidechain channels. `transport` is the host's
    /// transport at the start of the block. A sidechain channel that is missing or too short counts as silence.
    pub fn process(
        &mut self,
        params: &GraftParams,
        transport: &Transport,
        main: &mut [&mut [f32]],
        sidechain: &[&mut [f32]],
    ) {
        let Some(block_samples) = main.first().map(|channel| channel.len()) else {
            return;
        };
        self.port.set_window_beats(params.window.value().beats());
        self.port.begin_block(block_samples, transport);
        // Constant within the block: nice-plug splits blocks at parameter changes.
        let targets = Levels::targets(params);
        let mut controls = block_controls(params, self.engine);
        let mut levels = Levels::default();
        let mut are_settled = false;
        let mut start = 0;
        while start < block_samples {
            if !are_settled {
                levels = self.ramps.next(&targets);
                are_settled = self.ramps.are_settled();
                levels.set_factors(&mut controls);
            }
            let samples = match are_settled {
                true => RUN_SAMPLES.min(block_samples - start),
                false => 1,
            };
            self.run(&levels, &controls, start..start + samples, main, sidechain);
            start += samples;
        }
    }

    /// Processes up to [`RUN_SAMPLES`] samples of a block, in which no level changes.
    fn run(
        &mut self,
        levels: &Levels,
        controls: &Controls,
        run: Range<usize>,
        main: &mut [&mut [f32]],
        sidechain: &[&mut [f32]],
    ) {
        let mut unprocessed = [[0.0; 2]; RUN_SAMPLES];
        let mut inputs = [Input::default(); RUN_SAMPLES];
        let mut outputs = [Output::default(); RUN_SAMPLES];
        let inputs = &mut inputs[..run.len()];
        let outputs = &mut outputs[..run.len()];
        for side in 0..2 {
            let channel = &main[side.min(main.len() - 1)][run.clone()];
            for ((input, unprocessed), sample) in
                inputs.iter_mut().zip(&mut unprocessed).zip(channel)
            {
                unprocessed[side] = finite_or_zero(*sample);
                input.main[side] = levels.main_gain * unprocessed[side];
            }
            let channel = sidechain.get(side).or(sidechain.first());
            let channel = channel.and_then(|channel| channel.get(run.start..));
            for (input, sample) in inputs.iter_mut().zip(channel.unwrap_or(&[])) {
                input.sidechain[side] = levels.sidechain_gain * sample;
            }
        }
        self.port.process(inputs, controls, outputs);
        for ((i, output), unprocessed) in run.zip(outputs).zip(unprocessed) {
            let finish = self.pending.push(Finish {
                unprocessed,
                dry_gain: (1.0 - levels.mix) * levels.output_gain,
                remix_gain: levels.mix * levels.output_gain,
                bypass: levels.bypass,
            });
            let gain = self.restart.next();
            let [left, right] = [0, 1].map(|side| {
                let mixed =
                    output.dry[side] * finish.dry_gain + output.remix[side] * finish.remix_gain;
                let bypassed =
                    mixed * (1.0 - finish.bypass) + finish.unprocessed[side] * finish.bypass;
                normal_or_zero(gain * bypassed)
            });
            match main {
                [first, second, ..] => (first[i], second[i]) = (left, right),
                [mono] => mono[i] = 0.5 * (left + right),
                [] => {}
            }
        }
    }
}
