//! Renders audio through the plugin.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clack_extensions::latency::PluginLatency;
use clack_extensions::render::{PluginRender, RenderMode};
use clack_host::events::Pckn;
use clack_host::events::event_types::ParamValueEvent;
use clack_host::prelude::*;
use clack_host::process::StartedPluginAudioProcessor;

use crate::plugin::{Headless, Instance, Plugin};
use crate::song::Song;

/// Settings of a render.
#[derive(Clone, Debug)]
pub struct RenderJob {
    /// Sample rate of all audio.
    pub sample_rate_hz: u32,
    /// Block lengths in samples, used in turn.
    pub blocks: Vec<usize>,
    /// The longest block that the host announces; by default, the longest of `blocks`.
    pub max_block_samples: Option<usize>,
    /// Whether the host renders offline.
    pub offline: bool,
    /// The main input: one or two channels of equal length.
    pub main: Vec<Vec<f32>>,
    /// The sidechain: one or two channels, cut or zero-padded to the length of the main input. Without it, the host
    /// offers a sidechain without channels.
    pub sidechain: Option<Vec<Vec<f32>>>,
    /// Parameters set before the plugin is activated, as in [`Self::parameters`].
    pub before_activation: Vec<(String, f64)>,
    /// Parameters from the first sample on, by name: gains in dB, switches 0 or 1.
    pub parameters: Vec<(String, f64)>,
    /// The host's transport, if it has one.
    pub transport: Option<Song>,
    /// Parameter changes in the course of the render, in order of time.
    pub automation: Vec<Automation>,
    /// A state to load first.
    pub state: Option<Vec<u8>>,
}

impl Default for RenderJob {
    fn default() -> Self {
        Self {
            sample_rate_hz: 44_100,
            blocks: vec![512],
            max_block_samples: None,
            offline: false,
            main: Vec::new(),
            sidechain: None,
            before_activation: Vec::new(),
            parameters: Vec::new(),
            transport: None,
            automation: Vec::new(),
            state: None,
        }
    }
}

/// A change of a parameter.
#[derive(Clone, Debug)]
pub struct Automation {
    /// Its position in samples.
    pub position_samples: usize,
    /// Name of the parameter.
    pub parameter: String,
    /// Its new value, as in [`RenderJob::parameters`].
    pub value: f64,
}

/// The plugin's output.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// As many channels as the main input, longer than it by `latency_samples`.
    pub channels: Vec<Vec<f32>>,
    /// The latency that the plugin reported.
    pub latency_samples: usize,
    /// Duration of the processing.
    pub wall_seconds: f64,
    /// The plugin's state afterwards.
    pub state: Vec<u8>,
    /// How many times the plugin requested a restart.
    pub restart_requests: usize,
}

impl Rendered {
    /// The output with its latency compensated: aligned with the main input, and as long.
    pub fn aligned(&self) -> Vec<Vec<f32>> {
        let after_latency = |channel: &Vec<f32>| channel[self.latency_samples..].to_vec();
        self.channels.iter().map(after_latency).collect()
    }
}

impl Plugin {
    /// Renders a job through a new instance, followed by silence until all of it is out.
    ///
    /// # Errors
    ///
    /// If the job is inconsistent, or the plugin rejects any part of it.
    pub fn render(&self, job: &RenderJob) -> Result<Rendered> {
        self.render_with(job, |_, process| process())
    }

    /// As [`Self::render`], with `around` called on the audio thread for each block. Its arguments are the position
    /// after the block and a closure that it must call: the plugin's `process()` and nothing else.
    ///
    /// # Errors
    ///
    /// As [`Self::render`].
    pub fn render_with(
        &self,
        job: &RenderJob,
        around: impl FnMut(usize, &mut dyn FnMut()) + Send,
    ) -> Result<Rendered> {
        let samples = job.validate()?;
        let mut instance = Instance::new(self)?;
        instance.select_layout(job.layout())?;
        if let Some(state) = &job.state {
            instance.load_state(state)?;
        }
        for (name, value) in &job.before_activation {
            instance.set_parameter(name, *value)?;
        }
        let events = job.events(&mut instance)?;
        if job.offline {
            instance
                .extension::<PluginRender>("render")?
                .set(&instance.inner.plugin_handle(), RenderMode::Offline)
                .context("the plugin refuses to render offline")?;
        }
        let configuration = PluginAudioConfiguration {
            sample_rate: f64::from(job.sample_rate_hz),
            min_frames_count: 1,
            max_frames_count: job.longest_block() as u32,
        };
        let processor = instance
            .inner
            .activate(|_, _| (), configuration)
            .context("the plugin cannot be activated")?;
        instance.run_callbacks();
        let latency_samples = instance
            .extension::<PluginLatency>("latency")?
            .get(&instance.inner.plugin_handle()) as usize;

        let began = Instant::now();
        let (processor, channels) = std::thread::scope(|scope| {
            let audio_thread = scope.spawn(|| {
                let mut processor = processor
                    .start_processing()
                    .map_err(|_| anyhow::anyhow!("the plugin cannot start processing"))?;
                let channels = run(
                    &mut processor,
                    job,
                    events,
                    samples + latency_samples,
                    around,
                )?;
                anyhow::Ok((processor.stop_processing(), channels))
            });
            audio_thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let wall_seconds = began.elapsed().as_secs_f64();
        instance.inner.deactivate(processor);
        instance.run_callbacks();
        Ok(Rendered {
            channels,
            latency_samples,
            wall_seconds,
            state: instance.save_state()?,
            restart_requests: instance.restart_requests(),
        })
    }
}

impl RenderJob {
    /// Checks the job and returns the length of the main input.
    fn validate(&self) -> Result<usize> {
        let channels = |name: &str, audio: &[Vec<f32>]| {
            ensure!(
                matches!(audio.len(), 1 | 2),
                "{name}: expected one or two channels, found {}",
                audio.len()
            );
            ensure!(
                audio.iter().all(|channel| channel.len() == audio[0].len()),
                "{name}: the channels differ in length"
            );
            Ok(())
        };
        channels("main input", &self.main)?;
        if let Some(sidechain) = &self.sidechain {
            channels("sidechain", sidechain)?;
        }
        ensure!(
            !self.blocks.is_empty() && !self.blocks.contains(&0),
            "expected blocks of at least one sample, found {:?}",
            self.blocks
        );
        Ok(self.main[0].len())
    }

    fn longest_block(&self) -> usize {
        let longest = self.blocks.iter().copied().max().unwrap_or(1);
        self.max_block_samples.unwrap_or(longest)
    }

    fn layout(&self) -> &'static str {
        match (self.main.len(), self.sidechain.as_ref().map(Vec::len)) {
            (1, _) => "Mono",
            (_, Some(1)) => "Stereo, mono sidechain",
            _ => "Stereo",
        }
    }

    /// Parameters and automation as events with their positions, in order.
    fn events(&self, instance: &mut Instance) -> Result<Vec<(usize, ParamValueEvent)>> {
        let from_the_start = self
            .parameters
            .iter()
            .map(|(name, value)| (0, name, *value));
        let on_the_way = self
            .automation
            .iter()
            .map(|change| (change.position_samples, &change.parameter, change.value));
        from_the_start
            .chain(on_the_way)
            .map(|(position, name, value)| {
                let (id, host_value) = instance.parameter(name, value)?;
                let event = ParamValueEvent::new(0, id, Pckn::match_all(), host_value);
                Ok((position, event))
            })
            .collect()
    }
}

/// Audio thread: processes `samples` samples, block by block.
fn run(
    processor: &mut StartedPluginAudioProcessor<Headless>,
    job: &RenderJob,
    events: Vec<(usize, ParamValueEvent)>,
    samples: usize,
    mut around: impl FnMut(usize, &mut dyn FnMut()),
) -> Result<Vec<Vec<f32>>> {
    let longest = job.longest_block();
    let buffers = |channels: usize| vec![vec![0.0_f32; longest]; channels];
    let sidechain = match (&job.main[..], job.sidechain.as_deref().unwrap_or_default()) {
        // The mono layout has a stereo sidechain.
        ([_], [mono]) => vec![mono.clone(); 2],
        (_, sidechain) => sidechain.to_vec(),
    };
    let mut main_in = buffers(job.main.len());
    let mut sidechain_in = buffers(sidechain.len());
    let mut main_out = buffers(job.main.len());
    let mut output = vec![Vec::with_capacity(samples); job.main.len()];
    let mut in_ports = AudioPorts::with_capacity(main_in.len() + sidechain_in.len(), 2);
    let mut out_ports = AudioPorts::with_capacity(main_out.len(), 1);
    let mut block_events = EventBuffer::with_capacity(events.len());
    let mut events = events.into_iter().peekable();

    let mut position = 0;
    for &length in job.blocks.iter().cycle() {
        if position == samples {
            break;
        }
        let song = job.transport.as_ref();
        let length = length
            .min(samples - position)
            .min(song.map_or(usize::MAX, |song| song.samples_to_jump(position)));
        let transport = song.map(|song| song.at(position, f64::from(job.sample_rate_hz)));
        copy_block(&job.main, position, length, &mut main_in);
        copy_block(&sidechain, position, length, &mut sidechain_in);
        block_events.clear();
        while let Some((at, mut event)) = events.next_if(|(at, _)| *at < position + length) {
            event.set_time((at - position) as u32);
            block_events.push(&event);
        }

        let inputs = in_ports.with_input_buffers([&mut main_in, &mut sidechain_in].map(|port| {
            AudioPortBuffer {
                latency: 0,
                channels: AudioPortBufferType::f32_input_only(
                    port.iter_mut()
                        .map(|channel| InputChannel::variable(&mut channel[..length])),
                ),
            }
        }));
        let mut outputs = out_ports.with_output_buffers([AudioPortBuffer {
            latency: 0,
            channels: AudioPortBufferType::f32_output_only(
                main_out.iter_mut().map(|channel| &mut channel[..length]),
            ),
        }]);
        let in_events = block_events.as_input();
        let mut out_events = OutputEvents::void();
        let mut result = None;
        around(position + length, &mut || {
            let process = processor.process(
                &inputs,
                &mut outputs,
                &in_events,
                &mut out_events,
                Some(position as u64),
                transport.as_ref(),
            );
            result = Some(process);
        });
        result
            .context("the block was not processed")?
            .with_context(|| format!("the plugin failed at sample {position}"))?;
        for (output, block) in output.iter_mut().zip(&main_out) {
            output.extend_from_slice(&block[..length]);
        }
        position += length;
    }
    Ok(output)
}

/// Copies a block of `audio` from `position` on, zero-padded at its end.
fn copy_block(audio: &[Vec<f32>], position: usize, length: usize, block: &mut [Vec<f32>]) {
    for (channel, block) in audio.iter().zip(block) {
        let start = position.min(channel.len());
        let end = (position + length).min(channel.len());
        let (copied, rest) = block[..length].split_at_mut(end - start);
        copied.copy_from_slice(&channel[start..end]);
        rest.fill(0.0);
    }
}
