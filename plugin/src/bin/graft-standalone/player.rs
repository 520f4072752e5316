//! Graft as the program plays it: with files as inputs, or those of the audio device.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use graft::Graft;
use graft::standalone::beats::{BeatClock, Taps};
use graft::standalone::round_trip::Probe;
use model_runtime::LatencyMode;
use nice_plug::context::process::SendEventError;
use nice_plug::prelude::*;

use crate::clip::Clip;

/// What the program plays, and what its threads share.
pub struct Session {
    /// Main input and sidechain; none for the input of the audio device.
    pub clips: [Option<Clip>; 2],
    /// The latency mode at the start.
    pub mode: LatencyMode,
    /// The tapped tempo.
    pub taps: Arc<Taps>,
    /// The measurement of the round trip.
    pub probe: Option<Arc<Probe>>,
    /// Graft's latency, from the activation on.
    pub latency_samples: Arc<AtomicU32>,
}

/// Tempo if the audio backend reports none.
const FALLBACK_TEMPO_BPM: f64 = 120.0;

/// Set before nice-plug creates the plugin.
static SESSION: OnceLock<Session> = OnceLock::new();

/// Sets what the [`Player`] plays.
///
/// # Panics
///
/// If called twice.
pub fn start(session: Session) {
    assert!(SESSION.set(session).is_ok(), "one session");
}

/// [`Graft`] with the inputs of the [`Session`].
pub struct Player {
    session: &'static Session,
    graft: Graft,
    /// At the sample rate of the audio device; none for its input.
    clips: [Option<[Vec<f32>; 2]>; 2],
    clips_position_samples: usize,
    clock: BeatClock,
}

impl Default for Player {
    fn default() -> Self {
        let session = SESSION.get().expect("the session is set at the start");
        Self {
            session,
            graft: Graft::in_mode(session.mode),
            clips: [None, None],
            clips_position_samples: 0,
            clock: BeatClock::new(Arc::clone(&session.taps)),
        }
    }
}

impl Plugin for Player {
    const NAME: &'static str = Graft::NAME;
    const VENDOR: &'static str = Graft::VENDOR;
    const URL: &'static str = Graft::URL;
    const EMAIL: &'static str = Graft::EMAIL;
    const VERSION: &'static str = Graft::VERSION;
    const AUDIO_IO_LAYOUTS: &'static [AudioIOLayout] = Graft::AUDIO_IO_LAYOUTS;
    const SAMPLE_ACCURATE_AUTOMATION: bool = Graft::SAMPLE_ACCURATE_AUTOMATION;

    type Editor = <Graft as Plugin>::Editor;
    type SysExMessage = ();
    type BackgroundTask = ();

    fn params(&self) -> Arc<dyn Params> {
        self.graft.params()
    }

    fn editor(&mut self, _executor: AsyncExecutor<Self>) -> Option<Self::Editor> {
        let nothing: Arc<dyn Fn(()) + Send + Sync> = Arc::new(|()| ());
        self.graft
            .editor(AsyncExecutor::new(Arc::clone(&nothing), nothing))
    }

    fn activate(
        &mut self,
        layout: &AudioIOLayout,
        buffers: &BufferConfig,
        context: &mut impl ActivateContext<Self>,
    ) -> bool {
        let rate_hz = buffers.sample_rate.round() as u32;
        for (at_rate, clip) in self.clips.iter_mut().zip(&self.session.clips) {
            *at_rate = match clip.as_ref().map(|clip| clip.at_rate(rate_hz)).transpose() {
                Ok(clip) => clip,
                Err(error) => {
                    eprintln!("error: {error}");
                    return false;
                }
            };
        }
        let mut context = Activating {
            context,
            latency_samples: &self.session.latency_samples,
        };
        self.graft.activate(layout, buffers, &mut context)
    }

    fn deactivate(&mut self) {
        self.graft.deactivate();
    }

    fn reset(&mut self) {
        self.clips_position_samples = 0;
        self.clock = BeatClock::new(Arc::clone(&self.session.taps));
        self.graft.reset();
    }

    fn process(
        &mut self,
        buffer: &mut Buffer,
        aux: &mut AuxiliaryBuffers,
        context: &mut impl ProcessContext<Self>,
    ) -> ProcessStatus {
        let samples = buffer.samples();
        let probe = self.session.probe.as_deref();
        let measured = probe.and_then(|probe| probe.record(buffer.as_slice().first()?));
        let transport = self.transport(samples, context.transport());

        let [main, sidechain] = &self.clips;
        let position_samples = self.clips_position_samples;
        fill(buffer, main.as_ref(), position_samples);
        if let Some(input) = aux.inputs.first_mut() {
            fill(input, sidechain.as_ref(), position_samples);
        }
        self.clips_position_samples += samples;

        let mut context = Processing { context, transport };
        let status = self.graft.process(buffer, aux, &mut context);
        if let (Some(probe), Some(start)) = (probe, measured) {
            for output in buffer.as_slice() {
                probe.play(start, output);
            }
        }
        status
    }
}

impl Player {
    /// Audio thread: the transport of a block. That of JACK, if it counts beats and rolls; else one that always rolls.
    fn transport(&mut self, block_samples: usize, given: &Transport) -> Transport {
        let rate_hz = f64::from(given.sample_rate);
        let tempo_bpm = given.tempo.unwrap_or(FALLBACK_TEMPO_BPM);
        let position = self.clock.advance(block_samples, tempo_bpm, rate_hz);
        let mut transport = Transport::new(given.sample_rate);
        transport.playing = true;
        match given.pos_beats {
            Some(beats) if given.playing => {
                transport.tempo = given.tempo;
                transport.pos_beats = Some(beats);
                transport.pos_samples = given.pos_samples;
            }
            _ => {
                transport.tempo = Some(position.tempo_bpm);
                transport.pos_beats = Some(position.beats);
                transport.pos_samples = Some(position.samples as i64);
            }
        }
        transport
    }
}

/// Audio thread: copies a part of a clip, which loops, over the input of the audio device.
fn fill(buffer: &mut Buffer, clip: Option<&[Vec<f32>; 2]>, position_samples: usize) {
    let Some(clip) = clip else { return };
    for (out, clip) in buffer.as_slice().iter_mut().zip(clip) {
        for (index, sample) in out.iter_mut().enumerate() {
            *sample = match clip.len() {
                0 => 0.0,
                samples => clip[(position_samples + index) % samples],
            };
        }
    }
}

/// The host of a [`Player`], as its [`Graft`] sees it.
struct Activating<'a, C> {
    context: &'a mut C,
    latency_samples: &'a AtomicU32,
}

impl<C: ActivateContext<Player>> ActivateContext<Graft> for Activating<'_, C> {
    fn plugin_api(&self) -> PluginApi {
        self.context.plugin_api()
    }

    fn execute(&self, task: ()) {
        self.context.execute(task);
    }

    fn set_latency_samples(&self, samples: u32) {
        self.latency_samples.store(samples, Ordering::Relaxed);
        self.context.set_latency_samples(samples);
    }

    fn set_current_voice_capacity(&self, capacity: u32) {
        self.context.set_current_voice_capacity(capacity);
    }
}

/// The same while processing.
struct Processing<'a, C> {
    context: &'a mut C,
    transport: Transport,
}

impl<C: ProcessContext<Player>> ProcessContext<Graft> for Processing<'_, C> {
    fn plugin_api(&self) -> PluginApi {
        self.context.plugin_api()
    }

    fn execute_background(&self, task: ()) {
        self.context.execute_background(task);
    }

    fn execute_gui(&self, task: ()) {
        self.context.execute_gui(task);
    }

    fn transport(&self) -> &Transport {
        &self.transport
    }

    fn next_event(&mut self) -> Option<PluginNoteEvent<Graft>> {
        self.context.next_event()
    }

    fn try_send_event(
        &mut self,
        event: PluginNoteEvent<Graft>,
    ) -> Result<(), (PluginNoteEvent<Graft>, SendEventError)> {
        self.context.try_send_event(event)
    }

    fn set_latency_samples(&self, samples: u32) {
        self.context.set_latency_samples(samples);
    }

    fn set_current_voice_capacity(&self, capacity: u32) {
        self.context.set_current_voice_capacity(capacity);
    }

    fn request_restart(&self) {
        self.context.request_restart();
    }
}
