//! The voices, in steps: they turn the decoded mel into sound.

use std::mem;

use serde::{Deserialize, Serialize};
use vocoder::griffin_lim::GriffinLimStream;
use vocoder::guided::{
    FrameControls, GuidedConfig, GuidedVoice, SHAPED_GAIN_LIMIT, ShapedControls, ShapedVoice,
};
use vocoder::{LogMel, MelConfig};

use crate::blend::Blend;
use crate::controls::Controls;
use crate::error::Result;
use crate::factor::Factor;
use crate::geometry::LatencyMode;
use crate::model_file::Model;
use crate::resample::Resampler;
use crate::stream::StreamSettings;

/// Turns the decoded mel into sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Voice {
    /// Filters the inputs to match the decoded mel, at the host's rate. Blended with the model's HiFi-GAN generator as
    /// set by [`Controls::generated`], unless the model has the factor pitch.
    #[default]
    Guided,
    /// Reconstructs phases, from the decoded mel alone.
    GriffinLim,
}

/// The configuration of the guided voice for a mode.
pub(crate) fn guided_config(
    mel: &MelConfig,
    sample_rate_hz: u32,
    channels: usize,
    mode: LatencyMode,
    network_frames: usize,
) -> GuidedConfig {
    GuidedConfig {
        window: mode.analysis_window(mel),
        median_frames: mode.median_frames(),
        look_ahead_frames: Some(mode.median_look_ahead_frames(network_frames)),
        synthesis_hops: mode.synthesis_hops(),
        ..GuidedConfig::new(mel.clone(), sample_rate_hz, channels)
    }
}

/// The controls of a frame of the guided voice, or of a remix without a network.
pub(crate) fn frame_controls(controls: &Controls) -> FrameControls {
    FrameControls {
        harmony: controls[Factor::Harmony].share,
        rhythm: controls[Factor::Rhythm].share,
        timbre: controls[Factor::Timbre].share,
        pitch: controls[Factor::Pitch].share,
        variation: controls[Factor::Variation].share,
        is_frozen: (controls.factors.iter()).any(|factor| factor.loop_beats.is_some()),
        transpose_semitones: controls.transpose_semitones,
    }
}

/// The controls that the voice of a model with the factor pitch uses.
fn shaped_controls(controls: &Controls) -> ShapedControls {
    ShapedControls {
        pitch: controls[Factor::Pitch].share,
        variation: controls[Factor::Variation].share,
        transpose_semitones: controls.transpose_semitones,
    }
}

/// Decoded frames on their way to the voice.
pub(crate) struct Decoded {
    /// One per channel.
    pub(crate) mels: Vec<LogMel>,
    /// The knobs at each frame.
    pub(crate) controls: Vec<Controls>,
}

/// A voice in steps, at the host's rate.
pub(crate) enum VoiceStream {
    Guided(Box<GuidedStream>),
    /// The guided voice of a model with the factor pitch.
    Shaped(Box<ShapedVoice>),
    GriffinLim(Vec<GriffinLimChannel>),
}

/// The guided voice, blended with the generated one if the model has a generator.
pub(crate) struct GuidedStream {
    voice: GuidedVoice,
    blend: Option<Blend>,
    /// Output of the guided voice, input of the blend, one per channel.
    guided: Vec<Vec<f32>>,
}

impl GuidedStream {
    fn pull(&mut self, output: &mut [Vec<f32>]) -> Result<()> {
        match &mut self.blend {
            None => self.voice.pull(output)?,
            Some(blend) => {
                blend.push_spectra(self.voice.take_spectra())?;
                self.voice.pull(&mut self.guided)?;
                blend.push_guided(&mut self.guided, self.voice.output_gains());
                blend.pull(output);
            }
        }
        Ok(())
    }

    fn finish(&mut self, output: &mut [Vec<f32>]) -> Result<()> {
        match &mut self.blend {
            None => self.voice.finish(output)?,
            Some(blend) => {
                self.voice.finish(&mut self.guided)?;
                blend.push_spectra(self.voice.take_spectra())?;
                blend.push_guided(&mut self.guided, self.voice.output_gains());
                blend.finish(output)?;
            }
        }
        Ok(())
    }
}

/// One channel of the Griffin-Lim voice.
pub(crate) struct GriffinLimChannel {
    voice: GriffinLimStream,
    resampler: Resampler,
    samples: Vec<f32>,
}

impl VoiceStream {
    /// Creates a voice at the beginning of a clip, with this many channels, for a network that looks `network_frames` ahead.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub(crate) fn new(
        settings: StreamSettings,
        model: &Model,
        network_frames: usize,
        channels: usize,
    ) -> Result<Self> {
        let StreamSettings {
            sample_rate_hz: host_hz,
            voice,
            mode,
        } = settings;
        let mel = &model.header().mel;
        let has_pitch = |model: &Model| {
            let mut factors = model.network().factors().iter();
            factors.any(|layout| layout.factor == Factor::Pitch)
        };
        match voice {
            Voice::Guided if has_pitch(model) => {
                let config = GuidedConfig {
                    gain_limit: SHAPED_GAIN_LIMIT,
                    ..guided_config(mel, host_hz, channels, mode, network_frames)
                };
                Ok(Self::Shaped(Box::new(ShapedVoice::new(&config)?)))
            }
            Voice::Guided => {
                let config = guided_config(mel, host_hz, channels, mode, network_frames);
                let blend = match model.header().generator {
                    Some(_) if mode.has_generated_voice() => {
                        let magnitudes = model.magnitudes();
                        let generator = model.generator()?;
                        Some(Blend::new(generator, magnitudes, mel, host_hz, channels)?)
                    }
                    _ => None,
                };
                let mut voice = GuidedVoice::new(&config)?;
                if blend.is_some() {
                    voice = voice.with_spectra();
                }
                Ok(Self::Guided(Box::new(GuidedStream {
                    voice,
                    blend,
                    guided: vec![Vec::new(); channels],
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
                let channels = (0..channels).map(|_| channel());
                Ok(Self::GriffinLim(channels.collect::<Result<_>>()?))
            }
        }
    }

    /// Number of channels of each source to analyse. The guided voice keeps the stereo image of the sources itself.
    pub(crate) fn channels(&self) -> usize {
        match self {
            Self::Guided(_) | Self::Shaped(_) => 1,
            Self::GriffinLim(channels) => channels.len(),
        }
    }

    /// Look-ahead of the voice, in host samples, in addition to a network that looks `network_frames` ahead. `to_host`
    /// converts from the model's samples.
    pub(crate) fn latency_samples(
        &self,
        mel: &MelConfig,
        network_frames: usize,
        to_host: impl Fn(usize) -> usize,
    ) -> usize {
        match self {
            Self::Guided(guided) => {
                // A hop begins half a hop before its centre. The look-ahead of the separation overlaps that of the
                // network.
                let separation_frames = guided
                    .voice
                    .look_ahead_frames()
                    .saturating_sub(network_frames);
                let guided_samples = guided.voice.synthesis_reach_samples()
                    + to_host(separation_frames * mel.hop_length)
                    - to_host(mel.hop_length / 2);
                guided.blend.as_ref().map_or(guided_samples, |blend| {
                    let (down_samples, up_samples) = blend.crossover_latency_samples();
                    // Its frames also wait for those of the guided voice, whose analysis windows are about as long.
                    let waiting_frames =
                        (guided.voice.look_ahead_frames() + 1).saturating_sub(network_frames);
                    let generated_samples = to_host(
                        blend.generator_latency_samples() + waiting_frames * mel.hop_length,
                    );
                    generated_samples.max(guided_samples + down_samples + to_host(up_samples))
                })
            }
            Self::Shaped(voice) => voice.synthesis_reach_samples() - to_host(mel.hop_length / 2),
            Self::GriffinLim(channels) => to_host(channels[0].voice.lag_samples()),
        }
    }

    pub(crate) fn resampling_latency_samples(&self) -> usize {
        match self {
            Self::Guided(_) | Self::Shaped(_) => 0,
            Self::GriffinLim(channels) => channels[0].resampler.latency_samples(),
        }
    }

    pub(crate) fn reset(&mut self) {
        match self {
            Self::Guided(guided) => {
                guided.voice.reset();
                if let Some(blend) = &mut guided.blend {
                    blend.reset();
                }
            }
            Self::Shaped(voice) => voice.reset(),
            Self::GriffinLim(channels) => {
                for channel in channels {
                    channel.voice.reset();
                    channel.resampler.reset();
                    channel.samples.clear();
                }
            }
        }
    }

    /// Takes the next samples of both sources, one slice per channel.
    pub(crate) fn push_audio(&mut self, main: &[&[f32]], sidechain: &[&[f32]]) -> Result<()> {
        match self {
            Self::Guided(guided) => guided.voice.push_audio(main, sidechain)?,
            Self::Shaped(voice) => voice.push_audio(main, sidechain)?,
            Self::GriffinLim(_) => {}
        }
        Ok(())
    }

    /// Ends the clip: appends the remaining samples. The rest of a clip that is no whole frame has no sound from
    /// Griffin-Lim, which uses mels alone.
    pub(crate) fn finish(&mut self, output: &mut [Vec<f32>]) -> Result<()> {
        match self {
            Self::Guided(guided) => guided.finish(output),
            Self::Shaped(voice) => Ok(voice.finish(output)?),
            Self::GriffinLim(channels) => {
                for (channel, output) in channels.iter_mut().zip(output) {
                    channel.voice.finish(&mut channel.samples);
                    channel
                        .resampler
                        .push(&mem::take(&mut channel.samples), output);
                    channel.resampler.finish(output);
                }
                Ok(())
            }
        }
    }

    pub(crate) fn push_mels(&mut self, decoded: Decoded) -> Result<()> {
        match self {
            Self::Guided(guided) => {
                let mel = &decoded.mels[0];
                let controls = decoded.controls.iter().map(frame_controls);
                guided.voice.push_mel(mel, &controls.collect::<Vec<_>>())?;
                if let Some(blend) = &mut guided.blend {
                    blend.push_mel(mel, &decoded.controls);
                    blend.push_spectra(guided.voice.take_spectra())?;
                }
            }
            Self::Shaped(voice) => {
                let controls = decoded.controls.iter().map(shaped_controls);
                voice.push_mel(&decoded.mels[0], &controls.collect::<Vec<_>>())?;
            }
            Self::GriffinLim(channels) => {
                for (channel, mel) in channels.iter_mut().zip(&decoded.mels) {
                    channel.voice.push(mel, &mut channel.samples)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn pull(&mut self, output: &mut [Vec<f32>]) -> Result<()> {
        match self {
            Self::Guided(guided) => guided.pull(output),
            Self::Shaped(voice) => Ok(voice.pull(output)?),
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
