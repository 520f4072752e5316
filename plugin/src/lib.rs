//! Graft: a CLAP and VST3 plugin that remixes two tracks in real time.
//!
//! This file contains the plugin's lifecycle and connects its parts; [`signal_path`] runs on the audio thread.

use std::num::NonZeroU32;
use std::sync::Arc;

use model_runtime::LatencyMode;
use model_runtime::transport::Transport;
use nice_plug::prelude::*;

mod choices;
mod control;
pub mod editor;
mod editor_size;
pub mod engines;
mod levels;
pub mod meters;
pub mod models;
pub mod params;
mod ramp;
mod readout;
mod requests;
mod restart_fade;
pub mod setup;
pub mod signal_path;
#[cfg(any(test, feature = "standalone"))]
pub mod standalone;
mod vst3;

use editor::GraftEditor;
use engines::{Engine, Parts};
use meters::Metering;
use params::GraftParams;
use readout::Readout;
use requests::Requests;
use restart_fade::LastSound;
use setup::{Activation, Setup};
use signal_path::SignalPath;

/// The plugin.
#[derive(Default)]
pub struct Graft {
    params: Arc<GraftParams>,
    readout: Arc<Readout>,
    /// Present while the plugin is active.
    path: Option<SignalPath>,
    /// What was played last, of this path and those before it.
    last_sound: Option<LastSound>,
    requests: Requests,
    metering: Metering,
}

impl Graft {
    /// Creates a plugin that starts in this latency mode.
    #[must_use]
    pub fn in_mode(mode: LatencyMode) -> Self {
        Self {
            params: Arc::new(GraftParams::in_mode(mode)),
            ..Self::default()
        }
    }

    /// Joins the worker.
    fn end_path(&mut self) {
        if let Some(path) = self.path.take() {
            self.last_sound = path.last_sound().or(self.last_sound);
        }
    }
}

const fn layout(
    name: &'static str,
    main_channels: u32,
    sidechain_channels: &'static [NonZeroU32],
) -> AudioIOLayout {
    AudioIOLayout {
        main_input_channels: NonZeroU32::new(main_channels),
        main_output_channels: NonZeroU32::new(main_channels),
        aux_input_ports: sidechain_channels,
        aux_output_ports: &[],
        names: PortNames {
            layout: Some(name),
            aux_inputs: &["Sidechain"],
            ..PortNames::const_default()
        },
    }
}

const MONO: &[NonZeroU32] = &[new_nonzero_u32(1)];
const STEREO: &[NonZeroU32] = &[new_nonzero_u32(2)];

impl Plugin for Graft {
    const NAME: &'static str = "Graft";
    const VENDOR: &'static str = "Graft";
    const URL: &'static str = "";
    const EMAIL: &'static str = "";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    // For VST3 hosts, nice-plug compares the sidechain of each layout with the main input that the host asks for. With
    // a mono layout with a mono sidechain, a host that asks for a stereo sidechain would get the mono one. Therefore
    // there is none.
    const AUDIO_IO_LAYOUTS: &'static [AudioIOLayout] = &[
        layout("Stereo", 2, STEREO),
        layout("Stereo, mono sidechain", 2, MONO),
        layout("Mono", 1, STEREO),
    ];

    const SAMPLE_ACCURATE_AUTOMATION: bool = true;

    type Editor = GraftEditor;
    type SysExMessage = ();
    type BackgroundTask = ();

    fn params(&self) -> Arc<dyn Params> {
        Arc::clone(&self.params) as Arc<dyn Params>
    }

    fn task_executor(&mut self) -> TaskExecutor<Self> {
        self.requests.task()
    }

    fn editor(&mut self, async_executor: AsyncExecutor<Self>) -> Option<GraftEditor> {
        self.requests.set_executor(async_executor);
        Some(GraftEditor::new(
            Arc::clone(&self.params),
            Arc::clone(&self.readout),
        ))
    }

    fn activate(
        &mut self,
        _audio_io_layout: &AudioIOLayout,
        buffer_config: &BufferConfig,
        context: &mut impl ActivateContext<Self>,
    ) -> bool {
        self.end_path();
        // Waits for a model that is still loading, so that a render starts with the model of its session.
        let engine = self.params.engine.value();
        let (model, model_version) = self.params.model.0.settled(engine);
        let setup = Setup::with_model(&self.params, model_version);
        let config = signal_path::Config {
            setup,
            // For a new latency, a host restarts the plugin twice: nice-plug can announce it in an activation only, so it
            // requests another one. The sound fades in after the second.
            fade_in: self
                .last_sound
                .is_some_and(|last| last.needs_fade_in(setup)),
            sample_rate_hz: buffer_config.sample_rate,
            max_block_samples: buffer_config.max_buffer_size as usize,
            patient: buffer_config.process_mode == ProcessMode::Offline,
        };
        let frames_hz = model.as_ref().map_or(0.0, |model| Engine::frames_hz(model));
        let status = &self.readout.status;
        let made = model.map_err(Into::into).and_then(|model| {
            setup.engine.processor(Parts {
                model: &model,
                sample_rate_hz: config.sample_rate_hz.round() as u32,
                mode: setup.mode,
                frozen: Arc::clone(&self.params.frozen.0),
                scope: Arc::clone(&self.readout.scope),
            })
        });
        let processor = match made {
            Ok(processor) => Some(processor),
            Err(error) => {
                status.report_fault(error.to_string());
                None
            }
        };
        let path = match SignalPath::new(&config, processor, Arc::clone(status)) {
            Ok(path) => path,
            Err(error) => {
                status.report_fault(error.to_string());
                return false;
            }
        };
        let activation = Activation {
            setup,
            sample_rate_hz: config.sample_rate_hz,
            max_block_samples: buffer_config.max_buffer_size,
            latency_samples: path.latency_samples(),
            latency_terms: path.latency_terms(),
            frames_hz,
        };
        context.set_latency_samples(activation.latency_samples);
        self.readout.set_activation(activation);
        self.metering = Metering::new(Arc::clone(&self.readout.meters), config.sample_rate_hz);
        self.path = Some(path);
        true
    }

    fn deactivate(&mut self) {
        self.end_path();
        self.requests.wait();
    }

    fn reset(&mut self) {
        if let Some(path) = &mut self.path {
            path.reset(&self.params);
        }
    }

    fn process(
        &mut self,
        buffer: &mut Buffer,
        aux: &mut AuxiliaryBuffers,
        context: &mut impl ProcessContext<Self>,
    ) -> ProcessStatus {
        let Some(path) = &mut self.path else {
            return ProcessStatus::Error("process() before activate()");
        };
        let sidechain = aux
            .inputs
            .first()
            .map_or(&[][..], |port| port.as_slice_immutable());
        let transport = transport(context.transport());
        self.metering.input(buffer.as_slice(), sidechain);
        path.process(&self.params, &transport, buffer.as_slice(), sidechain);
        self.metering.output(buffer.as_slice());
        // The standalone program cannot restart the plugin. In VST3, nice-plug passes the request on to the thread of the user
        // interface. On Linux with the window closed, it has a thread of its own for that.
        if context.plugin_api() != PluginApi::Standalone
            && path.restart_is_due(Setup::wanted(&self.params))
        {
            context.request_restart();
            if cfg!(target_os = "linux") && context.plugin_api() == PluginApi::Vst3 {
                self.requests.note();
            }
        }
        ProcessStatus::Tail(path.latency_samples())
    }
}

/// Audio thread: converts the host's transport.
fn transport(host: &nice_plug::prelude::Transport) -> Transport {
    let seconds_to_samples = |seconds: f64| (seconds * f64::from(host.sample_rate)).round() as i64;
    Transport {
        playing: host.playing,
        tempo_bpm: host.tempo,
        position_beats: host.pos_beats,
        // Not nice-plug's estimate from beats and tempo, which would jump with every tempo change.
        position_samples: host
            .pos_samples
            .or(host.pos_seconds.map(seconds_to_samples)),
    }
}

impl ClapPlugin for Graft {
    const CLAP_ID: &'static str = "org.graft.graft";
    const CLAP_DESCRIPTION: Option<&'static str> =
        Some("Remixes two tracks: the harmony of one with the rhythm of the other");
    const CLAP_MANUAL_URL: Option<&'static str> = None;
    const CLAP_SUPPORT_URL: Option<&'static str> = None;
    const CLAP_FEATURES: &'static [ClapFeature] = &[
        ClapFeature::AudioEffect,
        ClapFeature::Stereo,
        ClapFeature::Mono,
        ClapFeature::Custom("remix"),
    ];
}

impl Vst3Plugin for Graft {
    const VST3_CLASS_ID: [u8; 16] = *b"GraftRemixPlugin";
    const VST3_SUBCATEGORIES: &'static [Vst3SubCategory] = &[Vst3SubCategory::Fx];
}

nice_export_clap!(Graft);
