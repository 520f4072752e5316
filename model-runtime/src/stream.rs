//! The remix in steps: what the worker runs for the plugin.
//!
//! ```text
//! main, sidechain at the host's rate -> resample -> log-mel -> encode -> mix -> decode -> voice -> remix at the host's rate
//! ```
//!
//! Every layer keeps its past, so that every frame is computed once and the stream equals [`crate::Remixer`] in the same
//! [`LatencyMode`] wherever that does not feel the ends of the clip. The network runs on groups of frames that lie on an
//! absolute grid, so that the output is the same, bit for bit, wherever windows end.
//!
//! A window may begin a new stream: the old one is ended as a clip would be, and the new one follows it in the output
//! without a gap. Where the sidechain is silent for so long that it counts as missing, nothing of the remix is heard, and the
//! stream rests; it begins anew with the sidechain's first sound.

use std::mem;
use std::sync::Arc;

use candle_core::{D, Tensor};
use vocoder::griffin_lim::GriffinLimStream;
use vocoder::guided::GuidedVoice;
use vocoder::{LogMel, MelConfig};

use crate::analysis::Analysis;
use crate::blend::Blend;
use crate::clip_stream::{ClipStream, Head};
use crate::error::{Error, Result};
use crate::freeze::{FreezeStore, Freezer, Part};
use crate::geometry::{LatencyMode, StreamLatency};
use crate::model_file::Model;
use crate::network::{DecoderState, EncoderState, Network};
use crate::packet::{Controls, Window};
use crate::remixer::{
    Voice, frame_controls, guided_config, limited_network, mix, to_log_mels, to_tensor, transpose,
};
use crate::resample::Resampler;
use crate::scope::{Lane, Scope, ScopeWriter};
use crate::worker::{ProcessorError, WindowProcessor};

/// What a [`RemixStream`] is made for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamSettings {
    /// The host's sample rate.
    pub sample_rate_hz: u32,
    /// What makes the sound.
    pub voice: Voice,
    /// How far ahead network and voice look.
    pub mode: LatencyMode,
}

/// Worker thread: remixes two stereo streams, window by window.
pub struct RemixStream {
    mel: MelConfig,
    network: Network,
    /// Largest transposition that the model was trained for.
    most_semitones: i32,
    settings: StreamSettings,
    head: Head,
    /// One for each channel that the model hears: all of main's, then the sidechain's.
    analyses: Vec<Analysis>,
    /// For each of them, frames that wait until their group is complete.
    waiting: Vec<LogMel>,
    encoder: EncoderState,
    decoder: DecoderState,
    freeze_store: Arc<FreezeStore>,
    scope: ScopeWriter,
    harmony_freezer: Freezer,
    rhythm_freezer: Freezer,
    harmony_frames: usize,
    rhythm_frames: usize,
    decoded_frames: usize,
    voice: VoiceStream,
    /// Frames that the encoder was given.
    taken_frames: usize,
}

impl RemixStream {
    /// A stream at its beginning.
    ///
    /// # Errors
    ///
    /// When a setting is out of range.
    pub fn new(model: &Model, settings: StreamSettings) -> Result<Self> {
        let mel = model.header().mel.clone();
        let network = limited_network(model, settings.mode)?;
        let voice = VoiceStream::new(&settings, model)?;
        let resampler = Resampler::new(settings.sample_rate_hz, mel.sample_rate_hz)?;
        let analyses = (0..2 * voice.channels())
            .map(|_| Analysis::new(&mel, &resampler))
            .collect::<Result<Vec<_>>>()?;
        let hop_samples = mel.hop_length as f64 * f64::from(settings.sample_rate_hz)
            / f64::from(mel.sample_rate_hz);
        let mut stream = Self {
            // Until the latency is known.
            head: Head::new(hop_samples, 0, settings.sample_rate_hz),
            encoder: network.encoder_state(),
            decoder: network.decoder_state(),
            freeze_store: Arc::default(),
            scope: ScopeWriter::default(),
            harmony_freezer: Freezer::new(Part::Harmony),
            rhythm_freezer: Freezer::new(Part::Rhythm),
            harmony_frames: 0,
            rhythm_frames: 0,
            decoded_frames: 0,
            taken_frames: 0,
            waiting: vec![LogMel::new(mel.n_mels); analyses.len()],
            analyses,
            voice,
            mel,
            network,
            most_semitones: model.header().max_shift_semitones as i32,
            settings,
        };
        stream.head = Head::new(
            hop_samples,
            stream.latency().total_samples(),
            settings.sample_rate_hz,
        );
        stream.restart();
        Ok(stream)
    }

    /// The terms of the stream's latency.
    #[must_use]
    pub fn latency(&self) -> StreamLatency {
        let mel = &self.mel;
        let to_host = |model_samples: usize| {
            let ratio = f64::from(self.settings.sample_rate_hz) / f64::from(mel.sample_rate_hz);
            (model_samples as f64 * ratio).ceil() as usize
        };
        let network_frames = self.network.look_ahead_frames();
        StreamLatency {
            resampling_samples: self.analyses[0].resampler.latency_samples()
                + to_host(self.voice.resampling_latency_samples()),
            analysis_samples: to_host(mel.n_fft - mel.padding_samples()),
            grouping_samples: to_host((self.settings.mode.group_frames() - 1) * mel.hop_length),
            network_samples: to_host(network_frames * mel.hop_length),
            voice_samples: match &self.voice {
                VoiceStream::Guided(guided) => {
                    // A hop begins half a hop before its centre. The separation looks ahead while the network does.
                    let separation_frames = guided
                        .voice
                        .look_ahead_frames()
                        .saturating_sub(network_frames);
                    let guided_samples = guided.voice.synthesis_reach_samples()
                        + to_host(separation_frames * mel.hop_length)
                        - to_host(mel.hop_length / 2);
                    guided.blend.as_ref().map_or(guided_samples, |blend| {
                        let (down_samples, up_samples) = blend.crossover_latency_samples();
                        let generated_samples = to_host(blend.generator_latency_samples());
                        generated_samples.max(guided_samples + down_samples + to_host(up_samples))
                    })
                }
                VoiceStream::GriffinLim(channels) => {
                    to_host(channels[0].voice.look_ahead_frames() * mel.hop_length)
                }
            },
        }
    }

    /// Has what is frozen kept in `store`, from which it can be saved and to which it can be loaded.
    #[must_use]
    pub fn with_freeze_store(mut self, store: Arc<FreezeStore>) -> Self {
        self.freeze_store = store;
        self
    }

    /// Has what is heard and made written into `scope` while it is watched.
    #[must_use]
    pub fn with_scope(mut self, scope: Arc<Scope>) -> Self {
        self.scope = ScopeWriter::new(scope);
        self
    }

    /// Remixes the complete groups among the frames that wait, and hands the decoded frames before number `end` to the voice.
    fn remix_groups(&mut self, end: usize) -> Result<()> {
        let group_frames = self.settings.mode.group_frames();
        while self.waiting[0].frames() >= group_frames {
            let group = self
                .waiting
                .iter_mut()
                .map(|waiting| waiting.take_first(group_frames))
                .collect::<Vec<_>>();
            self.show_inputs(&group, end);
            self.taken_frames += group_frames;
            if let Some(mut decoded) = self.remix(&group)? {
                let first = self.decoded_frames - decoded.controls.len();
                decoded.truncate(end.saturating_sub(first));
                self.scope.remix(first, &decoded.mels[0]);
                self.voice.push_mels(decoded)?;
            }
        }
        Ok(())
    }

    /// Shows a group of the inputs' frames, but for those from number `end` on.
    fn show_inputs(&mut self, group: &[LogMel], end: usize) {
        let first = self.taken_frames;
        let frames = end.saturating_sub(first).min(group[0].frames());
        let sources = [&group[0], &group[self.voice.channels()]];
        let knobs = &self.head.knobs;
        self.scope.inputs(first..first + frames, sources, |frame| {
            knobs.beat_at(frame as f64)
        });
    }

    /// Log-mel frames of all sources to decoded frames, one log-mel for each channel of the remix, and the knobs at them.
    fn remix(&mut self, mels: &[LogMel]) -> Result<Option<Decoded>> {
        let network = &self.network;
        let pool = network.pool_frames();
        let most = self.most_semitones;
        let knobs = &self.head.knobs;
        // The transposition of a pooled frame is that in its middle.
        let semitones = |pooled: usize| {
            let middle = knobs.at(pooled * pool + pool / 2);
            middle.transpose_semitones.clamp(-most, most)
        };
        let (harmony, rhythm) = network.encode_step(&mut self.encoder, &to_tensor(mels)?)?;
        let harmony = harmony
            .map(|latent| -> Result<_> {
                let first = self.harmony_frames;
                self.harmony_frames += latent.dim(D::Minus1)?;
                // Each pooled frame takes the mean of its frames' knobs.
                let frames = |frame: usize| (first + frame) * pool..(first + frame + 1) * pool;
                let share = |frame: usize| {
                    let knobs = frames(frame).map(|frame| knobs.at(frame).harmony);
                    knobs.sum::<f32>() / pool as f32
                };
                let middle = |frame: usize| {
                    let middle = frames(frame).start as f64 + pool as f64 / 2.0;
                    (
                        knobs.beats_at(middle),
                        knobs.at(middle as usize).harmony_loop_beats,
                    )
                };
                let mixed = mix(&latent, share)?;
                let freezer = &mut self.harmony_freezer;
                let mixed = freeze(&mixed, freezer, &self.freeze_store, middle)?;
                self.scope.latent(Lane::Harmony, first, pool, &mixed)?;
                transpose(network, &mixed, |frame| semitones(first + frame))
            })
            .transpose()?;
        let rhythm = rhythm
            .map(|latent| -> Result<_> {
                let first = self.rhythm_frames;
                self.rhythm_frames += latent.dim(D::Minus1)?;
                let mixed = mix(&latent, |frame| knobs.at(first + frame).rhythm)?;
                let middle = |frame: usize| {
                    let frame = first + frame;
                    (
                        knobs.beats_at(frame as f64 + 0.5),
                        knobs.at(frame).rhythm_loop_beats,
                    )
                };
                let mixed = freeze(&mixed, &mut self.rhythm_freezer, &self.freeze_store, middle)?;
                self.scope.latent(Lane::Rhythm, first, 1, &mixed)?;
                Ok::<_, Error>(mixed)
            })
            .transpose()?;
        let Some(decoded) =
            network.decode_step(&mut self.decoder, harmony.as_ref(), rhythm.as_ref())?
        else {
            return Ok(None);
        };
        let mels = to_log_mels(&decoded)?;
        let first = self.decoded_frames;
        self.decoded_frames += mels[0].frames();
        let controls = (first..self.decoded_frames)
            .map(|frame| Controls {
                // The pitch of the sources moves with that of the latent.
                transpose_semitones: semitones(frame / pool),
                ..knobs.at(frame)
            })
            .collect();
        let needed = (self.decoded_frames / pool * pool).min(self.harmony_frames * pool);
        self.head.knobs.forget_before(needed);
        Ok(Some(Decoded { mels, controls }))
    }
}

impl ClipStream for RemixStream {
    fn head(&mut self) -> &mut Head {
        &mut self.head
    }

    fn begin_clip(&mut self, position_samples: u64) {
        self.encoder = self.network.encoder_state();
        self.decoder = self.network.decoder_state();
        self.waiting.fill(LogMel::new(self.mel.n_mels));
        self.analyses.iter_mut().for_each(Analysis::reset);
        self.head.knobs.begin_clip(position_samples);
        self.scope.begin_clip();
        self.voice.reset();
        self.harmony_freezer.begin();
        self.rhythm_freezer.begin();
        (self.harmony_frames, self.rhythm_frames, self.decoded_frames) = (0, 0, 0);
        self.taken_frames = 0;
    }

    fn finish_clip(&mut self) -> Result<()> {
        for (analysis, waiting) in self.analyses.iter_mut().zip(&mut self.waiting) {
            analysis.finish(waiting);
        }
        let group_frames = self.settings.mode.group_frames();
        let frames = self.taken_frames + self.waiting[0].frames();
        // Beyond the end, the last frame goes on for as long as the network looks ahead.
        let beyond = self.network.look_ahead_frames();
        let wanted = (frames + beyond).next_multiple_of(group_frames);
        for waiting in &mut self.waiting {
            waiting.repeat_last(wanted - frames);
        }
        self.remix_groups(frames)?;
        self.voice.finish(&mut self.head.output)?;
        for channel in &mut self.head.output {
            channel.resize(self.head.latency_samples, 0.0);
        }
        Ok(())
    }

    fn take(&mut self, window: &Window, first: usize) -> Result<()> {
        fn rest(source: &[Vec<f32>; 2], first: usize) -> [&[f32]; 2] {
            source.each_ref().map(|channel| &channel[first..])
        }
        let (main, sidechain) = (rest(&window.main, first), rest(&window.sidechain, first));
        self.voice.push_audio(main, sidechain)?;
        let channels = self.voice.channels();
        let analyses = self.analyses.iter_mut().zip(&mut self.waiting);
        for (i, (analysis, waiting)) in analyses.enumerate() {
            let source = if i < channels { main } else { sidechain };
            let channel = (channels == 2).then_some(i % 2);
            analysis.push(source, channel, waiting);
        }
        self.remix_groups(usize::MAX)?;
        self.voice.pull(&mut self.head.output)
    }
}

impl WindowProcessor for RemixStream {
    fn latency_samples(&self) -> usize {
        self.head.latency_samples
    }

    fn reset(&mut self) {
        self.restart();
    }

    fn process(
        &mut self,
        window: &Window,
        remix: [&mut [f32]; 2],
    ) -> std::result::Result<(), ProcessorError> {
        self.push(window)?;
        Ok(self.head.hand_out(remix)?)
    }
}

/// Decoded frames on their way to the voice.
struct Decoded {
    /// One for each channel.
    mels: Vec<LogMel>,
    /// The knobs at each frame.
    controls: Vec<Controls>,
}

impl Decoded {
    /// Drops all frames from number `frames` on.
    fn truncate(&mut self, frames: usize) {
        if frames < self.controls.len() {
            self.controls.truncate(frames);
            for mel in &mut self.mels {
                *mel = mel.take_first(frames);
            }
        }
    }
}

/// Passes the frames of a latent (B, C, H, T) through `freezer`; `middle(t)` is the place of frame `t` in beats and the
/// length of the loop if it is frozen.
fn freeze(
    latent: &Tensor,
    freezer: &mut Freezer,
    store: &FreezeStore,
    middle: impl Fn(usize) -> (f64, Option<f64>),
) -> Result<Tensor> {
    let (batch, channels, height, frames) = latent.dims4()?;
    let width = batch * channels * height;
    let by_frame = latent.reshape((width, frames))?.t()?.contiguous()?;
    let mut played = Vec::with_capacity(width * frames);
    for (frame, live) in by_frame.to_vec2::<f32>()?.into_iter().enumerate() {
        let (beats, loop_beats) = middle(frame);
        played.extend(freezer.frame(live, beats, loop_beats, store));
    }
    let played = Tensor::from_vec(played, (frames, width), latent.device())?;
    Ok(played
        .t()?
        .contiguous()?
        .reshape((batch, channels, height, frames))?)
}

/// A voice in steps, at the host's rate.
enum VoiceStream {
    Guided(Box<GuidedStream>),
    GriffinLim(Vec<GriffinLimChannel>),
}

/// The guided voice, with the generated one where the model has it.
struct GuidedStream {
    voice: GuidedVoice,
    blend: Option<Blend>,
    /// What the guided voice gives to the blend.
    guided: [Vec<f32>; 2],
}

impl GuidedStream {
    fn pull(&mut self, output: &mut [Vec<f32>; 2]) -> Result<()> {
        match &mut self.blend {
            None => self.voice.pull(output)?,
            Some(blend) => {
                self.voice.pull(&mut self.guided)?;
                blend.push_guided(&mut self.guided);
                blend.pull(output);
            }
        }
        Ok(())
    }

    fn finish(&mut self, output: &mut [Vec<f32>; 2]) -> Result<()> {
        match &mut self.blend {
            None => self.voice.finish(output)?,
            Some(blend) => {
                self.voice.finish(&mut self.guided)?;
                blend.push_guided(&mut self.guided);
                blend.finish(output);
            }
        }
        Ok(())
    }
}

/// One channel of the Griffin-Lim voice.
struct GriffinLimChannel {
    voice: GriffinLimStream,
    resampler: Resampler,
    samples: Vec<f32>,
}

impl VoiceStream {
    fn new(settings: &StreamSettings, model: &Model) -> Result<Self> {
        let mel = &model.header().mel;
        let host_hz = settings.sample_rate_hz;
        match settings.voice {
            Voice::Guided => {
                let config = guided_config(host_hz, 2, settings.mode);
                let blend = match model.header().generator {
                    Some(_) if settings.mode.has_generated_voice() => {
                        let magnitudes = model.magnitudes();
                        Some(Blend::new(model.generator()?, magnitudes, mel, host_hz, 2)?)
                    }
                    _ => None,
                };
                Ok(Self::Guided(Box::new(GuidedStream {
                    voice: GuidedVoice::new(&config)?,
                    blend,
                    guided: Default::default(),
                })))
            }
            Voice::GriffinLim => {
                let resampler = Resampler::new(mel.sample_rate_hz, host_hz)?;
                let channel = || -> Result<_> {
                    Ok(GriffinLimChannel {
                        voice: GriffinLimStream::new(mel)?.with_network(model.magnitudes()),
                        resampler: resampler.clone(),
                        samples: Vec::new(),
                    })
                };
                Ok(Self::GriffinLim(vec![channel()?, channel()?]))
            }
        }
    }

    /// Channels of each source that the model hears: the guided voice keeps the stereo image of the sources itself.
    fn channels(&self) -> usize {
        match self {
            Self::Guided(_) => 1,
            Self::GriffinLim(channels) => channels.len(),
        }
    }

    fn resampling_latency_samples(&self) -> usize {
        match self {
            Self::Guided(_) => 0,
            Self::GriffinLim(channels) => channels[0].resampler.latency_samples(),
        }
    }

    fn reset(&mut self) {
        match self {
            Self::Guided(guided) => {
                guided.voice.reset();
                if let Some(blend) = &mut guided.blend {
                    blend.reset();
                }
            }
            Self::GriffinLim(channels) => {
                for channel in channels {
                    channel.voice.reset();
                    channel.resampler.reset();
                    channel.samples.clear();
                }
            }
        }
    }

    /// Left and right of both sources.
    fn push_audio(&mut self, main: [&[f32]; 2], sidechain: [&[f32]; 2]) -> Result<()> {
        if let Self::Guided(guided) = self {
            guided.voice.push_audio(&main, &sidechain)?;
        }
        Ok(())
    }

    /// Ends the clip. Griffin-Lim, which makes its sound from mels alone, breaks off where it is.
    fn finish(&mut self, output: &mut [Vec<f32>; 2]) -> Result<()> {
        match self {
            Self::Guided(guided) => guided.finish(output),
            Self::GriffinLim(_) => self.pull(output),
        }
    }

    fn push_mels(&mut self, decoded: Decoded) -> Result<()> {
        match self {
            Self::Guided(guided) => {
                let mel = &decoded.mels[0];
                let controls = decoded.controls.iter().map(frame_controls);
                guided.voice.push_mel(mel, &controls.collect::<Vec<_>>())?;
                if let Some(blend) = &mut guided.blend {
                    blend.push_mel(mel, &decoded.controls)?;
                }
            }
            Self::GriffinLim(channels) => {
                for (channel, mel) in channels.iter_mut().zip(&decoded.mels) {
                    channel.voice.push(mel, &mut channel.samples)?;
                }
            }
        }
        Ok(())
    }

    fn pull(&mut self, output: &mut [Vec<f32>; 2]) -> Result<()> {
        match self {
            Self::Guided(guided) => guided.pull(output),
            Self::GriffinLim(channels) => {
                for (channel, output) in channels.iter_mut().zip(output) {
                    channel
                        .resampler
                        .push(&mem::take(&mut channel.samples), output);
                }
                Ok(())
            }
        }
    }
}
