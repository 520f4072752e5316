//! The remix of whole clips: the reference for everything that runs in steps.

use std::sync::Arc;

use candle_core::{D, Device, Tensor};
use serde::{Deserialize, Serialize};
use vocoder::griffin_lim::{self, GriffinLim};
use vocoder::guided::{FrameControls, GuidedConfig, GuidedVoice};
use vocoder::{LogMel, MelSpectrogram};

use crate::audio::AudioClip;
use crate::blend::Blend;
use crate::error::{Error, Result};
use crate::geometry::LatencyMode;
use crate::model_file::Model;
use crate::network::Network;
use crate::packet::Controls;
use crate::resample::resample;

/// What turns the decoded mel into sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Voice {
    /// The sources' own sound, shaped to the decoded mel, at the host's rate; with the model's HiFi-GAN generator beside it or in
    /// its place, as [`Controls::voice`] says.
    #[default]
    Guided,
    /// Phase reconstruction, from the decoded mel alone.
    GriffinLim,
}

/// How two clips are remixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RemixSettings {
    /// The knobs, for the whole clip; the transposition within the model's trained range.
    pub controls: Controls,
    /// What makes the sound.
    pub voice: Voice,
    /// How far ahead network and voice look.
    pub mode: LatencyMode,
}

impl Default for RemixSettings {
    /// Main's harmony with the sidechain's rhythm, with the model's full reach.
    fn default() -> Self {
        Self {
            controls: Controls {
                harmony: 0.0,
                rhythm: 1.0,
                air: 1.0,
                ..Controls::default()
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
    /// A remixer with this model.
    #[must_use]
    pub fn new(model: Arc<Model>) -> Self {
        Self { model }
    }

    /// Remixes `main` with `sidechain`, each mono or stereo at any rate. The result has the rate, channels and length of
    /// `main`; a shorter sidechain is followed by silence.
    ///
    /// # Errors
    ///
    /// When a clip has no or more than two channels, unequal channels, or samples that are not finite; when a knob is
    /// outside 0 to 1, the transposition outside the model's range, or the generator, if it is to be heard, not in the
    /// model or the mode.
    pub fn remix(
        &self,
        main: &AudioClip,
        sidechain: &AudioClip,
        settings: &RemixSettings,
    ) -> Result<AudioClip> {
        check_clip("main", main)?;
        check_clip("sidechain", sidechain)?;
        for (name, value) in [
            ("harmony", settings.controls.harmony),
            ("rhythm", settings.controls.rhythm),
            ("voice", settings.controls.voice),
            ("air", settings.controls.air),
        ] {
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

    /// The decoded log-mels of the remix, one for each channel of the remix. `sources` holds the channels of main, then as
    /// many of the sidechain.
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
        let network = limited_network(&self.model, settings.mode)?;
        let latents = network.encode(&to_tensor(&mels)?)?;
        let Controls {
            harmony,
            rhythm,
            transpose_semitones,
            ..
        } = settings.controls;
        let harmony = mix(&latents.harmony.mean, |_| harmony)?;
        let rhythm = mix(&latents.rhythm.mean, |_| rhythm)?;
        let harmony = transpose(&network, &harmony, |_| transpose_semitones)?;
        to_log_mels(&network.decode(&harmony, &rhythm)?)
    }

    fn guided(
        &self,
        main: &AudioClip,
        sidechain: &[Vec<f32>],
        decoded: &LogMel,
        settings: &RemixSettings,
    ) -> Result<Vec<Vec<f32>>> {
        let channels = main.channels.len();
        let config = guided_config(main.sample_rate_hz, channels, settings.mode);
        let mut voice = GuidedVoice::new(&config)?;
        let mut out = vec![Vec::new(); main.channels.len()];
        voice.push_mel(
            decoded,
            &vec![frame_controls(&settings.controls); decoded.frames()],
        )?;
        voice.push_audio(&as_slices(&main.channels), &as_slices(sidechain))?;
        voice.finish(&mut out)?;
        if settings.controls.voice == 0.0 {
            return Ok(out);
        }
        if !settings.mode.has_generated_voice() {
            let voice = settings.controls.voice;
            return Err(Error::input("voice", "0 in the mode Live", voice));
        }
        let generator = self.model.generator()?;
        let mel = &self.model.header().mel;
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

/// The model's network as a mode limits it.
pub(crate) fn limited_network(model: &Model, mode: LatencyMode) -> Result<Network> {
    Ok(match mode.network_look_ahead_frames() {
        Some(frames) => model.network().with_look_ahead(frames)?,
        None => model.network().clone(),
    })
}

/// The guided voice as a mode limits it.
pub(crate) fn guided_config(
    sample_rate_hz: u32,
    channels: usize,
    mode: LatencyMode,
) -> GuidedConfig {
    GuidedConfig {
        median_frames: mode.median_frames(),
        synthesis_hops: mode.synthesis_hops(),
        ..GuidedConfig::new(sample_rate_hz, channels)
    }
}

/// What the guided voice needs of the controls.
pub(crate) fn frame_controls(controls: &Controls) -> FrameControls {
    FrameControls {
        harmony: controls.harmony,
        rhythm: controls.rhythm,
        transpose_semitones: controls.transpose_semitones,
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

/// Refuses a transposition that the model was not trained for.
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

/// The sidechain with the rate, number of channels and length of main.
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

/// The mean of all channels.
pub(crate) fn mono(channels: &[Vec<f32>]) -> Vec<f32> {
    match channels {
        [left, right] => left.iter().zip(right).map(|(l, r)| 0.5 * (l + r)).collect(),
        channels => channels[0].clone(),
    }
}

/// Log-mels of the same length as one tensor (B, 1, n_mels, T).
pub(crate) fn to_tensor(mels: &[LogMel]) -> Result<Tensor> {
    let (frames, n_mels) = (mels[0].frames(), mels[0].n_mels());
    let values = mels
        .iter()
        .flat_map(LogMel::values)
        .copied()
        .collect::<Vec<_>>();
    let by_frame = Tensor::from_vec(values, (mels.len(), 1, frames, n_mels), &Device::Cpu)?;
    Ok(by_frame.transpose(2, 3)?.contiguous()?)
}

/// The batch elements of a tensor (B, 1, n_mels, T).
pub(crate) fn to_log_mels(mels: &Tensor) -> Result<Vec<LogMel>> {
    let (batch, _, n_mels, _) = mels.dims4()?;
    let by_frame = mels.transpose(2, 3)?.contiguous()?;
    (0..batch)
        .map(|b| {
            Ok(LogMel::from_values(
                n_mels,
                by_frame.get(b)?.flatten_all()?.to_vec1()?,
            )?)
        })
        .collect()
}

/// Mixes latents (2B, C, H, T), main's before the sidechain's, to (B, C, H, T); `share(t)` is the sidechain's at latent
/// frame `t`.
pub(crate) fn mix(latents: &Tensor, share: impl Fn(usize) -> f32) -> Result<Tensor> {
    let frames = latents.dim(D::Minus1)?;
    let shares = (0..frames).map(share).collect::<Vec<_>>();
    let halves = latents.chunk(2, 0)?;
    let share = Tensor::from_vec(shares, (1, 1, 1, frames), latents.device())?;
    let difference = (&halves[1] - &halves[0])?;
    Ok((&halves[0] + difference.broadcast_mul(&share)?)?)
}

/// Transposes all batch elements of a harmony latent (B, C, H, T); `semitones(t)` is for latent frame `t`.
pub(crate) fn transpose(
    network: &Network,
    harmony: &Tensor,
    semitones: impl Fn(usize) -> i32,
) -> Result<Tensor> {
    let (batch, frames) = (harmony.dim(0)?, harmony.dim(D::Minus1)?);
    let mut runs = Vec::new();
    let mut start = 0;
    while start < frames {
        let here = semitones(start);
        let end = (start..frames)
            .find(|&frame| semitones(frame) != here)
            .unwrap_or(frames);
        let run = harmony.narrow(D::Minus1, start, end - start)?;
        runs.push(network.rotate(&run.contiguous()?, &vec![here; batch])?);
        start = end;
    }
    Ok(Tensor::cat(&runs, D::Minus1)?)
}
