//! Translates recordings: their content, played by another instrument, with a [`LordModel`].
//!
//! ```text
//! recording -> mono -> log-mel -> clips -> content -> generator -> clips -> log-mel -> level -> voice
//!                                                         ^
//!                                           code of the instrument
//! ```
//!
//! Recordings of any length and rate are read and written in steps, in constant memory. Clips overlap by half, and what the
//! generator makes of them is crossfaded. Second by second, it is at most as loud as the recording.

mod clips;
mod level;
mod voice;

use candle_core::Tensor;
use vocoder::{AnalysisWindow, LogMel};

use crate::analysis::Analysis;
use crate::error::{Error, Result};
use crate::lord::LordModel;
use crate::model_file::Model;
use crate::resample::Resampler;
use crate::tensors::{to_log_mels, to_tensor};
use clips::{Cutter, Joiner, LastClip};
use level::LevelLimit;
use voice::{Generated, Sound, guided};

/// Clips whose mean amplitude is further below that of the loudest, as a factor, count as silent: 30 dB.
const SILENCE: f32 = 31.6;

/// The code of an instrument, (1, `class_size`).
pub type InstrumentCode = Tensor;

/// A recording that is read in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordingSettings {
    /// Its sample rate.
    pub sample_rate_hz: u32,
    /// Number of channels: 1 or 2.
    pub channels: usize,
    /// Gain that brings it to the level of the recordings that the model was trained with.
    pub gain: f32,
}

/// Turns the translated log-mel into sound.
#[derive(Clone, Copy)]
pub enum TranslationVoice<'a> {
    /// The recording itself, band by band at the level of the translated log-mel: its partials and their phases, its stereo image,
    /// its loudness over time. It cannot make partials that the recording does not have.
    Guided,
    /// The generator of this model, from the translated log-mel alone, the same on all channels.
    Generated(&'a Model),
}

/// The translation of one clip (`n_mels` bands of as many frames as the model's clips), in nepers.
///
/// # Errors
///
/// If a shape does not fit.
pub fn translate_clip(model: &LordModel, class: &InstrumentCode, clip: &LogMel) -> Result<LogMel> {
    let content = model.encode_content(&of_clip(clip)?)?;
    let made = model.generate(&content, class)?.unsqueeze(1)?;
    Ok(to_log_mels(&made)?.remove(0))
}

/// A clip as (1, `n_mels`, frames).
fn of_clip(clip: &LogMel) -> Result<Tensor> {
    Ok(to_tensor(std::slice::from_ref(clip))?.squeeze(1)?)
}

/// Translates a whole log-mel of any length, in nepers, at the level of the training.
///
/// # Errors
///
/// If a shape does not fit.
pub fn translate_mel(
    model: &LordModel,
    class: &InstrumentCode,
    log_mel: &LogMel,
) -> Result<LogMel> {
    let mut frames = Frames::new(model, class);
    let mut translated = LogMel::new(log_mel.n_mels());
    frames.push(log_mel, &mut translated)?;
    frames.finish(&mut translated)?;
    Ok(translated)
}

/// Translates log-mel frames in steps.
struct Frames {
    model: LordModel,
    class: InstrumentCode,
    cutter: Cutter,
    joiner: Joiner,
}

impl Frames {
    fn new(model: &LordModel, class: &InstrumentCode) -> Self {
        Self {
            cutter: Cutter::new(model.frames(), model.header().mel.n_mels),
            joiner: Joiner::new(model.frames()),
            model: model.clone(),
            class: class.clone(),
        }
    }

    fn push(&mut self, frames: &LogMel, out: &mut LogMel) -> Result<()> {
        for clip in self.cutter.push(frames) {
            let made = translate_clip(&self.model, &self.class, &clip)?;
            self.joiner.push(made, out);
        }
        Ok(())
    }

    fn finish(self, out: &mut LogMel) -> Result<()> {
        let last = match self.cutter.finish() {
            Some(last) => Some(LastClip {
                log_mel: translate_clip(&self.model, &self.class, &last.log_mel)?,
                ..last
            }),
            None => None,
        };
        self.joiner.finish(last, out);
        Ok(())
    }
}

/// Translates a recording in steps. The translation has its rate, channels and length, and is in time with it.
pub struct Translator {
    input: Input,
    frames: Frames,
    level: LevelLimit,
    sound: Sound,
    taken_samples: usize,
    given_samples: usize,
}

impl Translator {
    /// Begins a recording; `class` is the code of the target.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, or the voice needs another mel spectrogram than the model has, or a generator that its model
    /// lacks.
    pub fn new(
        model: &LordModel,
        class: &InstrumentCode,
        voice: TranslationVoice,
        recording: RecordingSettings,
    ) -> Result<Self> {
        let mel = &model.header().mel;
        let input = Input::new(model, recording)?;
        let sound = match voice {
            TranslationVoice::Guided => Sound::Guided(Box::new(guided(mel, recording)?)),
            TranslationVoice::Generated(with) => {
                Sound::Generated(Box::new(Generated::new(mel, with, recording)?))
            }
        };
        Ok(Self {
            input,
            frames: Frames::new(model, class),
            level: LevelLimit::new(mel),
            sound,
            taken_samples: 0,
            given_samples: 0,
        })
    }

    /// Takes the next samples, one slice per channel, and appends the finished ones to `out`, one vector per channel.
    ///
    /// # Errors
    ///
    /// If the number of channels or a length differs, or a sample is not finite; or if the networks fail.
    pub fn push(&mut self, recording: &[&[f32]], out: &mut [Vec<f32>]) -> Result<()> {
        let mut translated = self.input.no_frames();
        let frames = self.input.push(recording)?;
        self.frames.push(&frames, &mut translated)?;
        self.taken_samples += recording[0].len();
        self.sound.push_recording(recording)?;
        let mut levelled = self.input.no_frames();
        self.level.push_recorded(&frames);
        self.level.push(&translated, &mut levelled);
        self.sound.push_mel(&levelled)?;
        let samples = |out: &[Vec<f32>]| out.first().map_or(0, Vec::len);
        let before = samples(out);
        self.sound.pull(out)?;
        self.given_samples += samples(out) - before;
        Ok(())
    }

    /// Ends the recording and appends the remaining samples, so that there are as many as were taken.
    ///
    /// # Errors
    ///
    /// If the recording was shorter than a frame of the log-mel, or the networks fail.
    pub fn finish(mut self, out: &mut [Vec<f32>]) -> Result<()> {
        let mut translated = self.input.no_frames();
        let frames = self.input.finish();
        self.frames.push(&frames, &mut translated)?;
        self.frames.finish(&mut translated)?;
        self.input.check_length()?;
        let mut levelled = self.input.no_frames();
        self.level.push_recorded(&frames);
        self.level.push(&translated, &mut levelled);
        self.level.finish(&mut levelled);
        self.sound.push_mel(&levelled)?;
        self.sound
            .finish(out, self.taken_samples - self.given_samples)
    }
}

/// The log-mel of a recording in steps, at the level of the training.
struct Input {
    analysis: Analysis,
    n_mels: usize,
    recording: RecordingSettings,
    frames: usize,
    frame_seconds: f64,
}

impl Input {
    fn new(model: &LordModel, recording: RecordingSettings) -> Result<Self> {
        if !(1..=2).contains(&recording.channels) {
            let found = recording.channels;
            return Err(Error::input("recording", "one or two channels", found));
        }
        if !(recording.gain.is_finite() && recording.gain > 0.0) {
            let found = recording.gain;
            return Err(Error::input("gain", "a number above 0", found));
        }
        let mel = &model.header().mel;
        let resampler = Resampler::new(recording.sample_rate_hz, mel.sample_rate_hz)?;
        Ok(Self {
            analysis: Analysis::new(mel, AnalysisWindow::Symmetric, &resampler)?,
            n_mels: mel.n_mels,
            recording,
            frames: 0,
            frame_seconds: mel.hop_seconds(),
        })
    }

    fn no_frames(&self) -> LogMel {
        LogMel::new(self.n_mels)
    }

    fn push(&mut self, channels: &[&[f32]]) -> Result<LogMel> {
        if channels.len() != self.recording.channels {
            let expected = format!("{} channels", self.recording.channels);
            return Err(Error::input("recording", expected, channels.len()));
        }
        let samples = channels[0].len();
        let mut amplified = Vec::with_capacity(channels.len());
        for channel in channels {
            if channel.len() != samples {
                let expected = format!("{samples} samples on each channel");
                return Err(Error::input("recording", expected, channel.len()));
            }
            if !channel.iter().all(|sample| sample.is_finite()) {
                return Err(Error::input(
                    "recording",
                    "finite samples",
                    "NaN or infinity",
                ));
            }
            let gain = self.recording.gain;
            let samples = channel.iter().map(|sample| sample * gain);
            amplified.push(samples.collect::<Vec<_>>());
        }
        let amplified: Vec<&[f32]> = amplified.iter().map(Vec::as_slice).collect();
        let mut frames = self.no_frames();
        self.analysis.push(&amplified, None, &mut frames);
        self.frames += frames.frames();
        Ok(frames)
    }

    fn finish(&mut self) -> LogMel {
        let mut frames = self.no_frames();
        self.analysis.finish(&mut frames);
        self.frames += frames.frames();
        frames
    }

    fn check_length(&self) -> Result<()> {
        match self.frames {
            0 => Err(Error::input(
                "recording",
                format!("at least {:.0} ms", 1e3 * self.frame_seconds),
                "a shorter one",
            )),
            _ => Ok(()),
        }
    }
}

/// Finds the code of an instrument from a recording of it: the mean of the codes of the clips that are not silent, by the class
/// encoder.
pub struct ClassListener {
    model: LordModel,
    input: Input,
    cutter: Cutter,
    /// Mean amplitude and code of each clip.
    heard: Vec<(f32, Vec<f32>)>,
}

impl ClassListener {
    /// Begins a recording.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn new(model: &LordModel, recording: RecordingSettings) -> Result<Self> {
        Ok(Self {
            input: Input::new(model, recording)?,
            cutter: Cutter::new(model.frames(), model.header().mel.n_mels),
            heard: Vec::new(),
            model: model.clone(),
        })
    }

    /// Takes the next samples, one slice per channel.
    ///
    /// # Errors
    ///
    /// As [`Translator::push`].
    pub fn push(&mut self, recording: &[&[f32]]) -> Result<()> {
        let frames = self.input.push(recording)?;
        let clips = self.cutter.push(&frames);
        clips.iter().try_for_each(|clip| self.hear(clip))
    }

    /// Ends the recording and returns the code.
    ///
    /// # Errors
    ///
    /// As [`Translator::finish`].
    pub fn finish(mut self) -> Result<InstrumentCode> {
        let frames = self.input.finish();
        self.input.check_length()?;
        for clip in self.cutter.push(&frames) {
            self.hear(&clip)?;
        }
        let n_mels = self.input.n_mels;
        let empty = Cutter::new(self.model.frames(), n_mels);
        if let Some(last) = std::mem::replace(&mut self.cutter, empty).finish() {
            self.hear(&last.log_mel)?;
        }
        let loudest = self.heard.iter().map(|(amplitude, _)| *amplitude);
        let least = loudest.fold(0.0, f32::max) / SILENCE;
        let sounding = self
            .heard
            .iter()
            .filter(|(amplitude, _)| *amplitude >= least);
        let codes: Vec<&[f32]> = sounding.map(|(_, code)| code.as_slice()).collect();
        let (count, device) = (codes.len(), &candle_core::Device::Cpu);
        let codes = Tensor::from_vec(codes.concat(), (count, ()), device)?;
        Ok(codes.mean_keepdim(0)?)
    }

    fn hear(&mut self, clip: &LogMel) -> Result<()> {
        let values = clip.values();
        let amplitude = values.iter().map(|value| value.exp()).sum::<f32>() / values.len() as f32;
        let code = self.model.encode_class(&of_clip(clip)?)?;
        self.heard.push((amplitude, code.flatten_all()?.to_vec1()?));
        Ok(())
    }
}
