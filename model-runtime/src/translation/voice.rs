//! The voices of translations.

use vocoder::generated::GeneratedVoice;
use vocoder::guided::{GuidedConfig, SHAPED_GAIN_LIMIT, ShapedControls, ShapedVoice};
use vocoder::{LogMel, MelConfig};

use super::RecordingSettings;
use crate::error::{Error, Result};
use crate::model_file::Model;
use crate::resample::Resampler;

/// A voice in steps.
pub(super) enum Sound {
    Guided(Box<Guided>),
    Generated(Box<Generated>),
}

impl Sound {
    pub(super) fn push_recording(&mut self, recording: &[&[f32]]) -> Result<()> {
        match self {
            // Its second source has no share.
            Self::Guided(guided) => Ok(guided.voice.push_audio(recording, recording)?),
            Self::Generated(_) => Ok(()),
        }
    }

    /// Takes frames at the level of the training.
    pub(super) fn push_mel(&mut self, translated: &LogMel) -> Result<()> {
        match self {
            Self::Guided(guided) => guided.push_mel(translated),
            Self::Generated(generated) => {
                let voice = &mut generated.voice;
                Ok(voice.push(translated, &mut generated.samples)?)
            }
        }
    }

    pub(super) fn pull(&mut self, out: &mut [Vec<f32>]) -> Result<()> {
        match self {
            Self::Guided(guided) => Ok(guided.voice.pull(out)?),
            Self::Generated(generated) => {
                generated.pull(false, usize::MAX, out);
                Ok(())
            }
        }
    }

    /// Ends the recording and appends the last samples.
    pub(super) fn finish(&mut self, out: &mut [Vec<f32>], samples: usize) -> Result<()> {
        match self {
            Self::Guided(guided) => Ok(guided.voice.finish(out)?),
            Self::Generated(generated) => {
                generated.voice.finish(&mut generated.samples)?;
                generated.pull(true, samples, out);
                Ok(())
            }
        }
    }
}

/// The recording, shaped to the log-mel.
pub(super) struct Guided {
    voice: ShapedVoice,
    /// Level of the training above that of the recording, in nepers.
    level: f32,
}

/// Begins a recording.
pub(super) fn guided(mel: &MelConfig, recording: RecordingSettings) -> Result<Guided> {
    let config = GuidedConfig {
        gain_limit: SHAPED_GAIN_LIMIT,
        ..GuidedConfig::new(mel.clone(), recording.sample_rate_hz, recording.channels)
    };
    Ok(Guided {
        voice: ShapedVoice::new(&config)?,
        level: recording.gain.ln(),
    })
}

impl Guided {
    fn push_mel(&mut self, translated: &LogMel) -> Result<()> {
        let values = translated.values().iter().map(|value| value - self.level);
        let levelled = LogMel::from_values(translated.n_mels(), values.collect())?;
        let controls = vec![ShapedControls::default(); levelled.frames()];
        Ok(self.voice.push_mel(&levelled, &controls)?)
    }
}

/// The sound that a HiFi-GAN generator makes of the log-mel.
pub(super) struct Generated {
    voice: GeneratedVoice,
    /// Its output so far, which was not resampled yet.
    samples: Vec<f32>,
    resampler: Resampler,
    /// From the level of the training to that of the recording.
    gain: f32,
}

impl Generated {
    pub(super) fn new(
        mel: &MelConfig,
        model: &Model,
        recording: RecordingSettings,
    ) -> Result<Self> {
        let expected = &model.header().mel;
        if mel != expected {
            return Err(Error::input(
                "the generated voice",
                format!("a model with its log-mel, {expected:?}"),
                format!("{mel:?}"),
            ));
        }
        Ok(Self {
            voice: GeneratedVoice::new(model.generator()?, model.magnitudes(), mel)?,
            samples: Vec::new(),
            resampler: Resampler::new(mel.sample_rate_hz, recording.sample_rate_hz)?,
            gain: recording.gain.recip(),
        })
    }

    /// Appends what is ready to all channels; at the end so many samples.
    fn pull(&mut self, is_end: bool, samples: usize, out: &mut [Vec<f32>]) {
        let gain = self.gain;
        self.samples.iter_mut().for_each(|sample| *sample *= gain);
        let mut ready = Vec::new();
        self.resampler.push(&self.samples, &mut ready);
        self.samples.clear();
        if is_end {
            self.resampler.finish(&mut ready);
            // A frame that is not whole has no sound.
            ready.resize(samples, 0.0);
        }
        for channel in out {
            channel.extend_from_slice(&ready);
        }
    }
}
