//! The remix in steps: what the worker runs for the plugin.
//!
//! ```text
//! main, sidechain at the host's rate -> resample -> log-mel -> encode -> mix -> decode -> voice -> remix at the host's rate
//! ```
//!
//! Every layer keeps its past and has its full reach, so that the stream equals [`crate::Remixer`] wherever that does not
//! feel the ends of the clip. Every frame is computed once.

use std::collections::VecDeque;
use std::mem;
use std::slice;
use std::sync::Arc;

use candle_core::D;
use vocoder::generator::{Generator, GeneratorState};
use vocoder::griffin_lim::GriffinLimStream;
use vocoder::guided::{GuidedConfig, GuidedVoice};
use vocoder::{LogMel, MelConfig, MelStream};

use crate::error::{Error, Result};
use crate::model_file::Model;
use crate::network::{DecoderState, EncoderState};
use crate::packet::{Controls, Window};
use crate::remixer::{Voice, check_transpose, mix, to_log_mels, to_tensor, transpose};
use crate::resample::Resampler;
use crate::worker::{ProcessorError, WindowProcessor};

/// Samples that rounding to whole samples may add.
const ROUNDING_SAMPLES: usize = 2;

/// What a [`RemixStream`] is made for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamSettings {
    /// The host's sample rate.
    pub sample_rate_hz: u32,
    /// What makes the sound.
    pub voice: Voice,
    /// Transposition of the harmony, within the model's trained range.
    pub transpose_semitones: i32,
}

/// Worker thread: remixes two stereo streams, window by window.
pub struct RemixStream {
    model: Arc<Model>,
    settings: StreamSettings,
    latency_samples: usize,
    /// One for each channel that the model hears: all of main's, then the sidechain's.
    analyses: Vec<Analysis>,
    encoder: EncoderState,
    decoder: DecoderState,
    knobs: Knobs,
    harmony_frames: usize,
    rhythm_frames: usize,
    decoded_frames: usize,
    voice: VoiceStream,
    pushed_samples: usize,
    output: [Vec<f32>; 2],
}

impl RemixStream {
    /// A stream at its beginning.
    ///
    /// # Errors
    ///
    /// When a setting is out of range, or the voice not in the model.
    pub fn new(model: Arc<Model>, settings: StreamSettings) -> Result<Self> {
        check_transpose(&model, settings.transpose_semitones)?;
        let mel = model.header().mel.clone();
        let voice = VoiceStream::new(&settings, &model)?;
        let analyses = (0..2 * voice.channels())
            .map(|_| Analysis::new(&mel, settings.sample_rate_hz))
            .collect::<Result<Vec<_>>>()?;
        let network = model.network();
        let mut stream = Self {
            encoder: network.encoder_state(),
            decoder: network.decoder_state(),
            knobs: Knobs::new(&mel, settings.sample_rate_hz),
            harmony_frames: 0,
            rhythm_frames: 0,
            decoded_frames: 0,
            latency_samples: 0,
            pushed_samples: 0,
            output: [Vec::new(), Vec::new()],
            analyses,
            voice,
            model,
            settings,
        };
        stream.latency_samples = stream.latency().total_samples();
        stream.restart();
        Ok(stream)
    }

    /// The terms of the stream's latency.
    #[must_use]
    pub fn latency(&self) -> StreamLatency {
        let mel = &self.model.header().mel;
        let network = self.model.network();
        let to_host = |model_samples: usize| {
            let ratio = f64::from(self.settings.sample_rate_hz) / f64::from(mel.sample_rate_hz);
            (model_samples as f64 * ratio).ceil() as usize
        };
        let frames = |frames: usize| to_host(frames * mel.hop_length);
        StreamLatency {
            resampling_samples: self.analyses[0].resampler.latency_samples()
                + to_host(self.voice.resampling_latency_samples()),
            analysis_samples: to_host(mel.n_fft - mel.padding_samples()),
            network_samples: frames(network.look_ahead_frames()),
            voice_samples: to_host(self.voice.look_ahead_samples(mel)),
        }
    }

    fn restart(&mut self) {
        let network = self.model.network();
        self.encoder = network.encoder_state();
        self.decoder = network.decoder_state();
        self.analyses.iter_mut().for_each(Analysis::reset);
        self.knobs.reset();
        self.voice.reset();
        (self.harmony_frames, self.rhythm_frames, self.decoded_frames) = (0, 0, 0);
        self.pushed_samples = 0;
        for channel in &mut self.output {
            channel.clear();
            channel.resize(self.latency_samples, 0.0);
        }
    }

    fn push(&mut self, window: &Window) -> Result<()> {
        self.knobs.read(window, self.pushed_samples);
        self.pushed_samples += window.samples();
        self.voice.push_audio(window)?;
        let mut mels = Vec::with_capacity(self.analyses.len());
        let channels = self.voice.channels();
        for (i, analysis) in self.analyses.iter_mut().enumerate() {
            let source = if i < channels {
                &window.main
            } else {
                &window.sidechain
            };
            let channel = (channels == 2).then_some(i % 2);
            mels.push(analysis.push(source, channel)?);
        }
        if mels[0].frames() > 0
            && let Some(decoded) = self.remix(&mels)?
        {
            self.voice.push_mels(decoded)?;
        }
        self.voice.pull(&mut self.output)
    }

    /// Log-mel frames of all sources to decoded frames, one log-mel for each channel of the remix, and the knobs at them.
    fn remix(&mut self, mels: &[LogMel]) -> Result<Option<Decoded>> {
        let network = self.model.network();
        let pool = network.pool_frames();
        let knobs = &self.knobs;
        let (harmony, rhythm) = network.encode_step(&mut self.encoder, &to_tensor(mels)?)?;
        let harmony = harmony
            .map(|latent| -> Result<_> {
                let first = self.harmony_frames;
                self.harmony_frames += latent.dim(D::Minus1)?;
                // Each pooled frame takes the mean of its frames' knobs.
                let share = |frame: usize| {
                    let frames = (first + frame) * pool..(first + frame + 1) * pool;
                    frames.map(|frame| knobs.at(frame).harmony).sum::<f32>() / pool as f32
                };
                transpose(
                    network,
                    &mix(&latent, share)?,
                    self.settings.transpose_semitones,
                )
            })
            .transpose()?;
        let rhythm = rhythm
            .map(|latent| -> Result<_> {
                let first = self.rhythm_frames;
                self.rhythm_frames += latent.dim(D::Minus1)?;
                mix(&latent, |frame| knobs.at(first + frame).rhythm)
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
            .map(|frame| knobs.at(frame))
            .collect();
        self.knobs
            .forget_before(self.decoded_frames.min(self.harmony_frames * pool));
        Ok(Some(Decoded { mels, controls }))
    }
}

impl WindowProcessor for RemixStream {
    fn latency_samples(&self) -> usize {
        self.latency_samples
    }

    fn reset(&mut self, _position_samples: u64) {
        self.restart();
    }

    fn process(
        &mut self,
        window: &Window,
        remix: [&mut [f32]; 2],
    ) -> std::result::Result<(), ProcessorError> {
        self.push(window)?;
        let samples = window.samples();
        for (out, ready) in remix.into_iter().zip(&mut self.output) {
            if ready.len() < samples {
                return Err(Box::new(Error::input(
                    "remixed samples",
                    samples,
                    ready.len(),
                )));
            }
            out.copy_from_slice(&ready[..samples]);
            ready.drain(..samples);
        }
        Ok(())
    }
}

/// The terms that make up a stream's latency, in samples at the host's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLatency {
    /// Blocks and filters of the resamplers, in and out.
    pub resampling_samples: usize,
    /// From the first sample of a hop to the end of the analysis frame around it.
    pub analysis_samples: usize,
    /// What the network's convolutions, its average and its interpolation see ahead.
    pub network_samples: usize,
    /// What the voice sees ahead.
    pub voice_samples: usize,
}

impl StreamLatency {
    /// The sum of all terms.
    #[must_use]
    pub fn total_samples(&self) -> usize {
        self.resampling_samples
            + self.analysis_samples
            + self.network_samples
            + self.voice_samples
            + ROUNDING_SAMPLES
    }
}

/// From host samples to log-mel frames, for one channel.
struct Analysis {
    resampler: Resampler,
    mel: MelStream,
    n_mels: usize,
}

impl Analysis {
    fn new(mel: &MelConfig, sample_rate_hz: u32) -> Result<Self> {
        Ok(Self {
            resampler: Resampler::new(sample_rate_hz, mel.sample_rate_hz)?,
            mel: MelStream::new(mel)?,
            n_mels: mel.n_mels,
        })
    }

    /// Takes one channel of a source, or the mean of both.
    fn push(&mut self, source: &[Vec<f32>; 2], channel: Option<usize>) -> Result<LogMel> {
        let mut samples = Vec::new();
        match channel {
            Some(channel) => self.resampler.push(&source[channel], &mut samples)?,
            None => self
                .resampler
                .push(&crate::remixer::mono(source), &mut samples)?,
        }
        let mut frames = LogMel::new(self.n_mels);
        self.mel.push(&samples, &mut frames);
        Ok(frames)
    }

    fn reset(&mut self) {
        self.resampler.reset();
        self.mel.reset();
    }
}

/// The knobs at each mel frame that is not yet decoded.
struct Knobs {
    /// Host samples from one frame's centre to the next.
    hop_samples: f64,
    frames: VecDeque<Controls>,
    first_frame: usize,
}

impl Knobs {
    fn new(mel: &MelConfig, sample_rate_hz: u32) -> Self {
        let ratio = f64::from(sample_rate_hz) / f64::from(mel.sample_rate_hz);
        Self {
            hop_samples: mel.hop_length as f64 * ratio,
            frames: VecDeque::new(),
            first_frame: 0,
        }
    }

    fn reset(&mut self) {
        self.frames.clear();
        self.first_frame = 0;
    }

    /// Notes the knobs at the frames whose centres lie in a window that begins at `position_samples`.
    fn read(&mut self, window: &Window, position_samples: usize) {
        loop {
            let frame = self.first_frame + self.frames.len();
            let centre = ((frame as f64 + 0.5) * self.hop_samples) as usize;
            if centre >= position_samples + window.samples() {
                break;
            }
            let index = centre.saturating_sub(position_samples) / window.control_interval_samples;
            let controls = window.controls.get(index).or(window.controls.last());
            self.frames.push_back(controls.copied().unwrap_or_default());
        }
    }

    /// The knobs at a frame; the newest known ones beyond it.
    fn at(&self, frame: usize) -> Controls {
        let index = frame.saturating_sub(self.first_frame);
        self.frames
            .get(index)
            .or(self.frames.back())
            .copied()
            .unwrap_or_default()
    }

    /// Drops frames, but keeps the newest.
    fn forget_before(&mut self, frame: usize) {
        while self.first_frame < frame && self.frames.len() > 1 {
            self.frames.pop_front();
            self.first_frame += 1;
        }
    }
}

/// Decoded frames on their way to the voice.
struct Decoded {
    /// One for each channel.
    mels: Vec<LogMel>,
    /// The knobs at each frame.
    controls: Vec<Controls>,
}

/// A voice in steps, at the host's rate.
enum VoiceStream {
    Guided(Box<GuidedVoice>),
    Generated(Vec<GeneratedChannel>),
}

/// One channel of a voice that makes its sound from the decoded mel alone.
struct GeneratedChannel {
    voice: GeneratedVoice,
    resampler: Resampler,
    samples: Vec<f32>,
}

/// What makes the sound of a [`GeneratedChannel`].
enum GeneratedVoice {
    GriffinLim(Box<GriffinLimStream>),
    HifiGan(Box<(Generator, GeneratorState)>),
}

impl GeneratedVoice {
    fn look_ahead_samples(&self, mel: &MelConfig) -> usize {
        match self {
            Self::GriffinLim(voice) => voice.look_ahead_frames() * mel.hop_length,
            Self::HifiGan(voice) => voice.0.look_ahead_frames() * mel.hop_length,
        }
    }

    fn push(&mut self, mel: &LogMel, out: &mut Vec<f32>) -> Result<()> {
        match self {
            Self::GriffinLim(voice) => voice.push(mel, out)?,
            Self::HifiGan(voice) => {
                let (generator, state) = voice.as_mut();
                let mel = to_tensor(slice::from_ref(mel))?.squeeze(1)?;
                if let Some(samples) = generator.step(state, &mel)? {
                    out.extend(samples.flatten_all()?.to_vec1::<f32>()?);
                }
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        match self {
            Self::GriffinLim(voice) => voice.reset(),
            Self::HifiGan(voice) => voice.1 = GeneratorState::default(),
        }
    }
}

impl VoiceStream {
    fn new(settings: &StreamSettings, model: &Model) -> Result<Self> {
        let mel = &model.header().mel;
        match settings.voice {
            Voice::Guided => {
                let config = GuidedConfig::new(settings.sample_rate_hz, 2);
                Ok(Self::Guided(Box::new(GuidedVoice::new(&config)?)))
            }
            Voice::GriffinLim => Self::generated(settings, mel, || {
                Ok(GeneratedVoice::GriffinLim(Box::new(GriffinLimStream::new(
                    mel,
                )?)))
            }),
            Voice::HifiGan => {
                let generator = model.generator()?;
                Self::generated(settings, mel, || {
                    Ok(GeneratedVoice::HifiGan(Box::new((
                        generator.clone(),
                        GeneratorState::default(),
                    ))))
                })
            }
        }
    }

    fn generated(
        settings: &StreamSettings,
        mel: &MelConfig,
        voice: impl Fn() -> Result<GeneratedVoice>,
    ) -> Result<Self> {
        let channel = || -> Result<_> {
            Ok(GeneratedChannel {
                voice: voice()?,
                resampler: Resampler::new(mel.sample_rate_hz, settings.sample_rate_hz)?,
                samples: Vec::new(),
            })
        };
        Ok(Self::Generated(vec![channel()?, channel()?]))
    }

    /// Channels of each source that the model hears: the guided voice keeps the stereo image of the sources itself.
    fn channels(&self) -> usize {
        match self {
            Self::Guided(_) => 1,
            Self::Generated(channels) => channels.len(),
        }
    }

    /// From a sample to the end of the last hop that it depends on, in samples of the mel.
    fn look_ahead_samples(&self, mel: &MelConfig) -> usize {
        match self {
            Self::Guided(_) => mel.padding_samples(),
            Self::Generated(channels) => channels[0].voice.look_ahead_samples(mel),
        }
    }

    fn resampling_latency_samples(&self) -> usize {
        match self {
            Self::Guided(_) => 0,
            Self::Generated(channels) => channels[0].resampler.latency_samples(),
        }
    }

    fn reset(&mut self) {
        match self {
            Self::Guided(voice) => voice.reset(),
            Self::Generated(channels) => {
                for channel in channels {
                    channel.voice.reset();
                    channel.resampler.reset();
                    channel.samples.clear();
                }
            }
        }
    }

    fn push_audio(&mut self, window: &Window) -> Result<()> {
        if let Self::Guided(voice) = self {
            voice.push_audio(
                &window.main.each_ref().map(Vec::as_slice),
                &window.sidechain.each_ref().map(Vec::as_slice),
            )?;
        }
        Ok(())
    }

    fn push_mels(&mut self, decoded: Decoded) -> Result<()> {
        match self {
            Self::Guided(voice) => {
                let harmony = decoded
                    .controls
                    .iter()
                    .map(|c| c.harmony)
                    .collect::<Vec<_>>();
                let rhythm = decoded
                    .controls
                    .iter()
                    .map(|c| c.rhythm)
                    .collect::<Vec<_>>();
                voice.push_mel(&decoded.mels[0], &harmony, &rhythm)?;
            }
            Self::Generated(channels) => {
                for (channel, mel) in channels.iter_mut().zip(&decoded.mels) {
                    channel.voice.push(mel, &mut channel.samples)?;
                }
            }
        }
        Ok(())
    }

    fn pull(&mut self, output: &mut [Vec<f32>; 2]) -> Result<()> {
        match self {
            Self::Guided(voice) => voice.pull(output)?,
            Self::Generated(channels) => {
                for (channel, output) in channels.iter_mut().zip(output) {
                    channel
                        .resampler
                        .push(&mem::take(&mut channel.samples), output)?;
                }
            }
        }
        Ok(())
    }
}
