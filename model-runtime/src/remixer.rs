//! Remixes whole clips: the reference for the streams.

use std::sync::Arc;

use vocoder::griffin_lim::{self, GriffinLim};
use vocoder::guided::GuidedVoice;
use vocoder::{LogMel, MelSpectrogram};

use crate::audio::{AudioClip, mono};
use crate::blend::Blend;
use crate::controls::Controls;
use crate::error::{Error, Result};
use crate::factor::{Factor, FactorMap};
use crate::geometry::LatencyMode;
use crate::mixing::{mix, transpose};
use crate::model_file::Model;
use crate::resample::resample;
use crate::tensors::{to_log_mels, to_tensor};
use crate::voice::{Voice, frame_controls, guided_config};

/// Settings for the remix of two clips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RemixSettings {
    /// The knobs, constant for the whole clip. The transposition must be within the model's trained range.
    pub controls: Controls,
    /// The voice.
    pub voice: Voice,
    /// The look-ahead of network and voice.
    pub mode: LatencyMode,
}

impl Default for RemixSettings {
    /// Harmony of the main input, rhythm of the sidechain, full look-ahead.
    fn default() -> Self {
        Self {
            controls: Controls {
                air: 1.0,
                ..Controls::default().with_share(Factor::Rhythm, 1.0)
            },
            voice: Voice::default(),
            mode: LatencyMode::Full,
        }
    }
}

/// Remixes whole clips.
#[derive(Clone, Debug)]
pub struct Remixer {
    model: Arc<Model>,
}

impl Remixer {
    /// Creates a remixer for this model.
    #[must_use]
    pub fn new(model: Arc<Model>) -> Self {
        Self { model }
    }

    /// Remixes `main` with `sidechain`, each mono or stereo, at any sample rate. The result has the rate, channels and
    /// length of `main`. A shorter sidechain is padded with silence.
    ///
    /// # Errors
    ///
    /// If a clip has no channels or more than two, channels of different lengths, or samples that are not finite; if a
    /// knob is outside 0 to 1 or the transposition outside the model's range; if the generated voice is requested but
    /// the model has no generator or the mode does not support it.
    pub fn remix(
        &self,
        main: &AudioClip,
        sidechain: &AudioClip,
        settings: &RemixSettings,
    ) -> Result<AudioClip> {
        check_clip("main", main)?;
        check_clip("sidechain", sidechain)?;
        let controls = &settings.controls;
        let shares = Factor::ALL.map(|factor| (factor.name(), controls[factor].share));
        let others = [("voice", controls.generated), ("air", controls.air)];
        for (name, value) in shares.into_iter().chain(others) {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::input(name, "0 to 1", value));
            }
        }
        check_transpose(&self.model, settings.controls.transpose_semitones)?;
        let sidechain = fit(sidechain, main)?;
        let samples = main.channels[0].len();
        let mut channels = match settings.voice {
            Voice::Guided => {
                let sources = [mono(&main.channels), mono(&sidechain)];
                let decoded = self.decode(&sources, main.sample_rate_hz, settings)?;
                self.guided(main, &sidechain, &decoded[0], settings)?
            }
            Voice::GriffinLim => {
                let sources = [main.channels.as_slice(), &sidechain].concat();
                let mut voice =
                    GriffinLim::new(&self.model.header().mel, griffin_lim::DEFAULT_ITERATIONS)?;
                self.decode(&sources, main.sample_rate_hz, settings)?
                    .iter()
                    .map(|mel| self.to_rate(&voice.samples(mel)?, main.sample_rate_hz))
                    .collect::<Result<Vec<_>>>()?
            }
        };
        for channel in &mut channels {
            channel.resize(samples, 0.0);
        }
        Ok(AudioClip {
            sample_rate_hz: main.sample_rate_hz,
            channels,
        })
    }

    /// The decoded log-mels of the remix, one per channel of the remix. `sources` holds the channels of the main input,
    /// then as many of the sidechain.
    fn decode(
        &self,
        sources: &[Vec<f32>],
        sample_rate_hz: u32,
        settings: &RemixSettings,
    ) -> Result<Vec<LogMel>> {
        let mel = &self.model.header().mel;
        let mut analysis = MelSpectrogram::new(mel)?;
        let mels = sources
            .iter()
            .map(|source| {
                Ok(analysis.log_mel(&resample(source, sample_rate_hz, mel.sample_rate_hz)?))
            })
            .collect::<Result<Vec<_>>>()?;
        if mels[0].frames() == 0 {
            return Ok(vec![LogMel::new(mel.n_mels); sources.len() / 2]);
        }
        let network = self.model.limited_network(settings.mode)?;
        let latents = network.encode(&to_tensor(&mels)?)?;
        let controls = &settings.controls;
        let mixed: FactorMap<_> = latents.try_map(|factor, latent| {
            let mixed = mix(&latent.mean, |_| controls[factor].share)?;
            transpose(&*network, factor, &mixed, |_| controls.transpose_semitones)
        })?;
        to_log_mels(&network.decode(&mixed)?)
    }

    fn guided(
        &self,
        main: &AudioClip,
        sidechain: &[Vec<f32>],
        decoded: &LogMel,
        settings: &RemixSettings,
    ) -> Result<Vec<Vec<f32>>> {
        let mel = &self.model.header().mel;
        let channels = main.channels.len();
        let config = guided_config(mel, main.sample_rate_hz, channels, settings.mode);
        let mut voice = GuidedVoice::new(&config)?;
        let mut out = vec![Vec::new(); main.channels.len()];
        voice.push_mel(
            decoded,
            &vec![frame_controls(&settings.controls); decoded.frames()],
        )?;
        voice.push_audio(&as_slices(&main.channels), &as_slices(sidechain))?;
        voice.finish(&mut out)?;
        if settings.controls.generated == 0.0 {
            return Ok(out);
        }
        if !settings.mode.has_generated_voice() {
            let generated = settings.controls.generated;
            return Err(Error::input("voice", "0 in the mode Live", generated));
        }
        let generator = self.model.generator()?;
        let mut blend = Blend::new(
            generator,
            self.model.magnitudes(),
            mel,
            main.sample_rate_hz,
            channels,
        )?;
        let mut blended = vec![Vec::new(); channels];
        blend.push_mel(decoded, &vec![settings.controls; decoded.frames()])?;
        blend.push_guided(&mut out);
        blend.finish(&mut blended);
        Ok(blended)
    }

    fn to_rate(&self, samples: &[f32], sample_rate_hz: u32) -> Result<Vec<f32>> {
        resample(
            samples,
            self.model.header().mel.sample_rate_hz,
            sample_rate_hz,
        )
    }
}

fn as_slices(channels: &[Vec<f32>]) -> Vec<&[f32]> {
    channels.iter().map(Vec::as_slice).collect()
}

fn check_clip(what: &'static str, clip: &AudioClip) -> Result<()> {
    let found = clip.channels.len();
    if !(1..=2).contains(&found) {
        return Err(Error::input(
            what,
            "one or two channels",
            format!("{found}"),
        ));
    }
    let lengths = clip.channels.iter().map(Vec::len).collect::<Vec<_>>();
    if lengths.iter().any(|&length| length != lengths[0]) {
        return Err(Error::input(
            what,
            "channels of the same length",
            format!("{lengths:?}"),
        ));
    }
    if clip
        .channels
        .iter()
        .flatten()
        .any(|sample| !sample.is_finite())
    {
        return Err(Error::input(what, "finite samples", "NaN or infinity"));
    }
    Ok(())
}

/// Rejects a transposition that the model was not trained for.
fn check_transpose(model: &Model, semitones: i32) -> Result<()> {
    let most = model.header().max_shift_semitones;
    if semitones.unsigned_abs() > most {
        return Err(Error::input(
            "transpose",
            format!("-{most} to {most} semitones"),
            semitones,
        ));
    }
    Ok(())
}

/// Converts the sidechain to the rate, number of channels and length of the main input.
fn fit(sidechain: &AudioClip, main: &AudioClip) -> Result<Vec<Vec<f32>>> {
    let channels = match (sidechain.channels.as_slice(), main.channels.len()) {
        ([channel], 2) => vec![channel.clone(), channel.clone()],
        (channels @ [_, _], 1) => vec![mono(channels)],
        (channels, _) => channels.to_vec(),
    };
    channels
        .iter()
        .map(|channel| {
            let mut channel = resample(channel, sidechain.sample_rate_hz, main.sample_rate_hz)?;
            channel.resize(main.channels[0].len(), 0.0);
            Ok(channel)
        })
        .collect()
}
