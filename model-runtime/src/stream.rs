//! Remixes streams in steps. The plugin runs this on the worker.
//!
//! ```text
//! main, sidechain at the host's rate -> resample -> log-mel -> encode -> mix -> decode -> voice -> remix at the host's rate
//! ```
//!
//! Every layer keeps the past frames that it needs, so each frame is computed once, in constant memory. The remix equals
//! that of the same network on the whole clip at once, up to both ends. The network runs on groups of
//! frames on an absolute grid, so the output is the same, bit for bit, wherever windows end. [`crate::ClipRemixer`] runs
//! clips on this stream.
//!
//! A window may begin a new stream. The old stream then ends like a clip, and the output continues with the new one
//! without a gap. When the remix has not been due for a while because the sidechain is missing, the stream rests; it
//! restarts when the remix is due again.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use vocoder::{LogMel, MelConfig};

use crate::analysis::Analysis;
use crate::clip_stream::{ClipStream, StreamState};
use crate::controls::Controls;
use crate::error::Result;
use crate::factor::{FactorLayout, FactorMap, Transposition};
use crate::freeze::{FreezeStore, Freezer};
use crate::geometry::{LatencyMode, StreamLatency};
use crate::knobs::Knobs;
use crate::mixing::{mix, transpose};
use crate::model_file::Model;
use crate::network::{Network, StreamDecoder, StreamEncoder};
use crate::resample::Resampler;
use crate::scope::{Lane, Scope, ScopeWriter};
use crate::tensors::{to_log_mels, to_tensor};
use crate::voice::{Decoded, Voice, VoiceStream};
use crate::window::Window;

/// Length of a mel that is encoded for the shapes of its latents.
const PROBE_FRAMES: usize = 16;

/// Settings of a [`RemixStream`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamSettings {
    /// The host's sample rate.
    pub sample_rate_hz: u32,
    /// The voice.
    pub voice: Voice,
    /// The look-ahead of network and voice.
    pub mode: LatencyMode,
}

/// Worker thread: remixes two streams, window by window.
pub struct RemixStream {
    mel: MelConfig,
    network: Arc<dyn Network>,
    /// Largest transposition that the model was trained for.
    most_semitones: i32,
    settings: StreamSettings,
    channels: usize,
    state: StreamState,
    /// One per analysed channel: all channels of the main input, then those of the sidechain.
    analyses: Vec<Analysis>,
    /// For each of them, the frames of the incomplete group.
    waiting: Vec<LogMel>,
    encoder: Box<dyn StreamEncoder>,
    decoder: Box<dyn StreamDecoder>,
    freeze_store: Arc<FreezeStore>,
    scope: ScopeWriter,
    factors: FactorMap<FactorStream>,
    /// Mel frames per frame of the transposed latent.
    transposed_frames: usize,
    decoded_frames: usize,
    voice: VoiceStream,
    /// Frames that were passed to the encoder.
    taken_frames: usize,
}

impl RemixStream {
    /// Creates a stereo stream at its beginning.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn new(model: &Model, settings: StreamSettings) -> Result<Self> {
        Self::with_channels(model, settings, 2)
    }

    /// Creates a stream at its beginning that remixes the first one or two channels of its windows.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub(crate) fn with_channels(
        model: &Model,
        settings: StreamSettings,
        channels: usize,
    ) -> Result<Self> {
        let mel = model.header().mel.clone();
        let network = model.limited_network(settings.mode)?;
        let voice = VoiceStream::new(settings, model, network.look_ahead_frames(), channels)?;
        let window = settings.mode.analysis_window(&mel);
        let resampler = Resampler::new(settings.sample_rate_hz, mel.sample_rate_hz)?;
        let analyses = (0..2 * voice.channels())
            .map(|_| Analysis::new(&mel, window, &resampler))
            .collect::<Result<Vec<_>>>()?;
        let hop_samples = mel.hop_length as f64 * f64::from(settings.sample_rate_hz)
            / f64::from(mel.sample_rate_hz);
        let mut stream = Self {
            // The latency is not known yet.
            state: StreamState::new(hop_samples, 0, settings.sample_rate_hz, channels),
            encoder: network.encoder()?,
            decoder: network.decoder()?,
            freeze_store: Arc::default(),
            scope: ScopeWriter::default(),
            transposed_frames: transposed_frames(network.factors()),
            factors: network
                .factors()
                .iter()
                .map(|layout| (layout.factor, FactorStream::new(*layout)))
                .collect(),
            decoded_frames: 0,
            taken_frames: 0,
            waiting: vec![LogMel::new(mel.n_mels); analyses.len()],
            analyses,
            voice,
            mel,
            network,
            most_semitones: model.header().max_shift_semitones as i32,
            settings,
            channels,
        };
        stream.state = StreamState::new(
            hop_samples,
            stream.latency().total_samples(),
            settings.sample_rate_hz,
            channels,
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
            analysis_samples: to_host(
                mel.analysis_samples(self.settings.mode.analysis_window(mel)),
            ),
            grouping_samples: to_host((self.settings.mode.group_frames() - 1) * mel.hop_length),
            network_samples: to_host(network_frames * mel.hop_length),
            voice_samples: self.voice.latency_samples(mel, network_frames, to_host),
        }
    }

    /// Keeps the frozen loops in `store`, so that they can be saved and loaded.
    ///
    /// # Errors
    ///
    /// If the network fails.
    pub fn with_freeze_store(mut self, store: Arc<FreezeStore>) -> Result<Self> {
        store.begin(self.latent_widths()?);
        self.freeze_store = store;
        Ok(self)
    }

    /// Values per frame of the latent of each factor.
    fn latent_widths(&self) -> Result<FactorMap<usize>> {
        let shape = (1, 1, self.mel.n_mels, PROBE_FRAMES);
        let latents = self
            .network
            .encode(&Tensor::zeros(shape, DType::F32, &Device::Cpu)?)?;
        latents.means().try_map(|_, latent| {
            let (_, channels, height, _) = latent.dims4()?;
            Ok(self.voice.channels() * channels * height)
        })
    }

    /// Writes inputs, latents and output to `scope` while the editor watches.
    #[must_use]
    pub fn with_scope(mut self, scope: Arc<Scope>) -> Self {
        self.scope = ScopeWriter::new(scope);
        self
    }

    /// Remixes the complete groups of waiting frames.
    fn remix_groups(&mut self) -> Result<()> {
        let group_frames = self.settings.mode.group_frames();
        while self.waiting[0].frames() >= group_frames {
            let group = self.take_waiting(group_frames)?;
            let encoded = self.encoder.step(&group)?;
            let latents = self.mix(&encoded)?;
            if let Some(decoded) = self.decoder.step(&latents)? {
                self.voice_frames(&decoded)?;
            }
        }
        Ok(())
    }

    /// Remixes the rest of the waiting frames and ends the clip.
    fn remix_rest(&mut self) -> Result<()> {
        self.remix_groups()?;
        let rest = match self.waiting[0].frames() {
            0 => None,
            frames => Some(self.take_waiting(frames)?),
        };
        let encoded = self.encoder.finish(rest.as_ref())?;
        let latents = self.mix(&encoded)?;
        match self.decoder.finish(&latents)? {
            Some(decoded) => self.voice_frames(&decoded),
            None => Ok(()),
        }
    }

    /// The next waiting frames of all sources, which are shown: (sources, 1, n_mels, frames).
    fn take_waiting(&mut self, frames: usize) -> Result<Tensor> {
        let waiting = self.waiting.iter_mut();
        let group = waiting
            .map(|waiting| waiting.take_first(frames))
            .collect::<Vec<_>>();
        let first = self.taken_frames;
        self.taken_frames += frames;
        let sources = [&group[0], &group[self.voice.channels()]];
        let knobs = &self.state.knobs;
        self.scope
            .inputs(first..self.taken_frames, sources, |frame| {
                knobs.beat_at(frame as f64)
            });
        to_tensor(&group)
    }

    /// Mixes, freezes and transposes the next latents of all sources.
    fn mix(&mut self, encoded: &FactorMap<Tensor>) -> Result<FactorMap<Tensor>> {
        encoded.try_map(|factor, latent| {
            let stream = &mut self.factors[factor];
            let pool = stream.layout.pool_frames;
            let (first, mixed) = stream.mix(latent, &self.state.knobs, &self.freeze_store)?;
            let lane = Lane::Latent(factor);
            self.scope.latent(lane, first, pool, &mixed)?;
            transpose(&*self.network, factor, &mixed, |frame| {
                semitones(&self.state.knobs, self.most_semitones, pool, first + frame)
            })
        })
    }

    /// Passes decoded frames to the voice, with their knobs.
    fn voice_frames(&mut self, decoded: &Tensor) -> Result<()> {
        let mels = to_log_mels(decoded)?;
        let first = self.decoded_frames;
        self.decoded_frames += mels[0].frames();
        let pool = self.transposed_frames;
        let knobs = &self.state.knobs;
        let controls = (first..self.decoded_frames)
            .map(|frame| Controls {
                // The guided voice shifts the pitch of the inputs as the latent is shifted.
                transpose_semitones: semitones(knobs, self.most_semitones, pool, frame / pool),
                ..knobs.at(frame)
            })
            .collect();
        // Each factor reads the knobs of whole latent frames. The voice reads those of the frames of the transposed
        // latent.
        let encoded_frames = self.factors.values().map(FactorStream::mel_frames);
        let needed = encoded_frames.fold(self.decoded_frames / pool * pool, usize::min);
        self.state.knobs.forget_before(needed);
        self.scope.remix(first, &mels[0]);
        self.voice.push_mels(Decoded { mels, controls })
    }
}

/// The transposition of latent frame `pooled`, of `pool` mel frames: as set at its middle.
fn semitones(knobs: &Knobs, most: i32, pool: usize, pooled: usize) -> i32 {
    let middle = knobs.at(pooled * pool + pool / 2);
    middle.transpose_semitones.clamp(-most, most)
}

impl ClipStream for RemixStream {
    fn state(&self) -> &StreamState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut StreamState {
        &mut self.state
    }

    fn frame_seconds(&self) -> f64 {
        self.mel.hop_seconds()
    }

    fn latency_terms(&self) -> Option<StreamLatency> {
        Some(self.latency())
    }

    fn freeze_store(&self) -> Option<&Arc<FreezeStore>> {
        Some(&self.freeze_store)
    }

    fn begin_clip(&mut self, position_samples: u64) {
        self.encoder.reset();
        self.decoder.reset();
        self.waiting.fill(LogMel::new(self.mel.n_mels));
        self.analyses.iter_mut().for_each(Analysis::reset);
        self.state.knobs.begin_clip(position_samples);
        self.scope.begin_clip();
        self.voice.reset();
        self.factors
            .iter_mut()
            .for_each(|(_, factor)| factor.begin());
        (self.taken_frames, self.decoded_frames) = (0, 0);
    }

    fn finish_clip(&mut self) -> Result<()> {
        for (analysis, waiting) in self.analyses.iter_mut().zip(&mut self.waiting) {
            analysis.finish(waiting);
        }
        if self.taken_frames + self.waiting[0].frames() > 0 {
            self.remix_rest()?;
        }
        self.voice.finish(&mut self.state.output)?;
        for channel in &mut self.state.output {
            channel.resize(self.state.latency_samples, 0.0);
        }
        Ok(())
    }

    fn take(&mut self, window: &Window, first: usize) -> Result<()> {
        let [main, sidechain] = [&window.main, &window.sidechain].map(|source| {
            let channels = source[..self.channels].iter();
            channels
                .map(|channel| &channel[first..])
                .collect::<Vec<_>>()
        });
        self.voice.push_audio(&main, &sidechain)?;
        let channels = self.voice.channels();
        let analyses = self.analyses.iter_mut().zip(&mut self.waiting);
        for (i, (analysis, waiting)) in analyses.enumerate() {
            let source = if i < channels { &main } else { &sidechain };
            let channel = (channels == 2).then_some(i % 2);
            analysis.push(source, channel, waiting);
        }
        self.remix_groups()?;
        self.voice.pull(&mut self.state.output)
    }
}

/// Mel frames per frame of the transposed latent; 1 if no latent is transposed.
fn transposed_frames(factors: &[FactorLayout]) -> usize {
    let has_pitch = |layout: &&FactorLayout| layout.transposition != Transposition::None;
    let transposed = factors.iter().find(has_pitch);
    transposed.map_or(1, |layout| layout.pool_frames)
}

/// The latent of one factor on its way from the encoder to the decoder.
struct FactorStream {
    layout: FactorLayout,
    freezer: Freezer,
    /// Latent frames of the clip so far.
    frames: usize,
}

impl FactorStream {
    fn new(layout: FactorLayout) -> Self {
        Self {
            layout,
            freezer: Freezer::new(layout.factor),
            frames: 0,
        }
    }

    /// Begins a clip.
    fn begin(&mut self) {
        self.freezer.begin();
        self.frames = 0;
    }

    /// Number of mel frames of the clip that were encoded.
    fn mel_frames(&self) -> usize {
        self.frames * self.layout.pool_frames
    }

    /// Mixes and freezes the next latents (2B, C, H, T), main input first. Returns the number of the first frame, and
    /// the frames (B, C, H, T).
    fn mix(
        &mut self,
        latents: &Tensor,
        knobs: &Knobs,
        freeze_store: &FreezeStore,
    ) -> Result<(usize, Tensor)> {
        let FactorLayout {
            factor,
            pool_frames: pool,
            ..
        } = self.layout;
        let first = self.frames;
        self.frames += latents.dim(D::Minus1)?;
        let mel_frames = |frame: usize| (first + frame) * pool..(first + frame + 1) * pool;
        // A latent frame uses the mean of the knobs at its mel frames.
        let share = |frame: usize| {
            let shares = mel_frames(frame).map(|frame| knobs.at(frame)[factor].share);
            shares.sum::<f32>() / pool as f32
        };
        let middle = |frame: usize| {
            let middle = mel_frames(frame).start as f64 + pool as f64 / 2.0;
            let loop_beats = knobs.at(middle as usize)[factor].loop_beats;
            (knobs.beats_at(middle), loop_beats)
        };
        let mixed = mix(latents, share)?;
        Ok((first, self.freezer.play(mixed, middle, freeze_store)?))
    }
}
