//! Standalone Graft: loops two files into the main input and the sidechain, to try Graft without a DAW. Without a sound
//! card it runs silently.
//!
//! ```text
//! graft-standalone main.wav sidechain.wav [audio options, see --help]
//! ```

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use graft::Graft;
use nice_plug::context::process::SendEventError;
use nice_plug::prelude::*;

/// The files, read before the audio system creates the plugin.
static CLIPS: OnceLock<[Clip; 2]> = OnceLock::new();

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let is_file = |argument: &&OsString| !argument.as_encoded_bytes().starts_with(b"-");
    let files: Vec<_> = arguments.iter().skip(1).take_while(is_file).collect();
    match files[..] {
        [] => {}
        [main, sidechain] => match (Clip::read(main.as_ref()), Clip::read(sidechain.as_ref())) {
            (Ok(main), Ok(sidechain)) => {
                CLIPS.get_or_init(|| [main, sidechain]);
            }
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        },
        _ => {
            eprintln!(
                "error: expected two WAV files (main input and sidechain), found {}",
                files.len()
            );
            return ExitCode::FAILURE;
        }
    }
    let others = arguments
        .iter()
        .take(1)
        .chain(arguments.iter().skip(1 + files.len()));
    let others = others.map(|argument| argument.to_string_lossy().into_owned());
    match nice_export_standalone_with_args::<Looper, _>(others) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A file in memory.
#[derive(Default)]
struct Clip {
    channels: [Vec<f32>; 2],
    sample_rate_hz: u32,
}

impl Clip {
    /// Reads a WAV file with one or two channels.
    fn read(path: &Path) -> Result<Self, String> {
        let in_words = |error: hound::Error| format!("cannot read {}: {error}", path.display());
        let mut file = hound::WavReader::open(path).map_err(in_words)?;
        let format = file.spec();
        let samples: Result<Vec<f32>, _> = match format.sample_format {
            hound::SampleFormat::Float => file.samples::<f32>().collect(),
            hound::SampleFormat::Int => {
                let largest = 2.0_f32.powi(i32::from(format.bits_per_sample) - 1);
                let samples = file.samples::<i32>();
                samples.map(|x| x.map(|x| x as f32 / largest)).collect()
            }
        };
        let samples = samples.map_err(in_words)?;
        let width = usize::from(format.channels);
        let channel = |index: usize| {
            let channel = samples.iter().skip(index.min(width - 1)).step_by(width);
            channel.copied().collect()
        };
        match width {
            1 | 2 => Ok(Self {
                channels: [channel(0), channel(1)],
                sample_rate_hz: format.sample_rate,
            }),
            _ => Err(format!(
                "{}: expected one or two channels, found {width}",
                path.display()
            )),
        }
    }

    fn at_rate(&self, sample_rate_hz: u32) -> model_runtime::Result<[Vec<f32>; 2]> {
        let [left, right] = &self.channels;
        let resample =
            |channel| model_runtime::resample(channel, self.sample_rate_hz, sample_rate_hz);
        Ok([resample(left)?, resample(right)?])
    }
}

/// [`Graft`] with the files as inputs, in place of those of the sound card.
#[derive(Default)]
struct Looper {
    graft: Graft,
    /// At the sample rate of the sound card.
    clips: [[Vec<f32>; 2]; 2],
    position_samples: usize,
}

impl Plugin for Looper {
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
        if let Some([main, sidechain]) = CLIPS.get() {
            let rate_hz = buffers.sample_rate.round() as u32;
            match (main.at_rate(rate_hz), sidechain.at_rate(rate_hz)) {
                (Ok(main), Ok(sidechain)) => self.clips = [main, sidechain],
                (Err(error), _) | (_, Err(error)) => {
                    eprintln!("error: {error}");
                    return false;
                }
            }
        }
        self.graft
            .activate(layout, buffers, &mut Activating(context))
    }

    fn deactivate(&mut self) {
        self.graft.deactivate();
    }

    fn reset(&mut self) {
        self.position_samples = 0;
        self.graft.reset();
    }

    fn process(
        &mut self,
        buffer: &mut Buffer,
        aux: &mut AuxiliaryBuffers,
        context: &mut impl ProcessContext<Self>,
    ) -> ProcessStatus {
        let [main, sidechain] = &self.clips;
        fill(buffer, main, self.position_samples);
        if let Some(input) = aux.inputs.first_mut() {
            fill(input, sidechain, self.position_samples);
        }
        self.position_samples += buffer.samples();
        self.graft
            .process(buffer, aux, &mut Processing::new(context))
    }
}

/// Audio thread: copies a part of a clip, which loops.
fn fill(buffer: &mut Buffer, clip: &[Vec<f32>; 2], position_samples: usize) {
    for (out, clip) in buffer.as_slice().iter_mut().zip(clip) {
        for (index, sample) in out.iter_mut().enumerate() {
            *sample = match clip.len() {
                0 => 0.0,
                samples => clip[(position_samples + index) % samples],
            };
        }
    }
}

/// The host of a [`Looper`], as its [`Graft`] sees it.
struct Activating<'a, C>(&'a mut C);

impl<C: ActivateContext<Looper>> ActivateContext<Graft> for Activating<'_, C> {
    fn plugin_api(&self) -> PluginApi {
        self.0.plugin_api()
    }

    fn execute(&self, task: ()) {
        self.0.execute(task);
    }

    fn set_latency_samples(&self, samples: u32) {
        self.0.set_latency_samples(samples);
    }

    fn set_current_voice_capacity(&self, capacity: u32) {
        self.0.set_current_voice_capacity(capacity);
    }
}

/// The same while processing. nice-plug's standalone program counts samples, but not beats.
struct Processing<'a, C> {
    context: &'a mut C,
    transport: Transport,
}

impl<'a, C: ProcessContext<Looper>> Processing<'a, C> {
    fn new(context: &'a mut C) -> Self {
        let given = context.transport();
        let mut transport = Transport::new(given.sample_rate);
        transport.playing = given.playing;
        transport.tempo = given.tempo;
        transport.pos_samples = given.pos_samples;
        transport.pos_beats = given.pos_beats();
        Self { context, transport }
    }
}

impl<C: ProcessContext<Looper>> ProcessContext<Graft> for Processing<'_, C> {
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
