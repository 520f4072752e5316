//! Remixes clips on the stream that the plugin runs.

use std::f32::consts::PI;
use std::sync::Arc;

use crate::audio::{AudioClip, mono};
use crate::clip_stream::ClipStream;
use crate::controls::Controls;
use crate::delay::Delay;
use crate::error::{Error, Result};
use crate::factor::Factor;
use crate::gate::Gate;
use crate::geometry::{Geometry, GeometrySettings, LatencyMode};
use crate::model_file::Model;
use crate::resample::resample;
use crate::stream::{RemixStream, StreamSettings};
use crate::voice::Voice;
use crate::window::Window;
use crate::worker::WindowProcessor;

/// Length of a step. Shorter than the time from the end of the crossfade to a rest ([`crate::rest`]).
const STEP_SECONDS: f64 = 0.05;

/// Settings for the remix of two clips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RemixSettings {
    /// The knobs, constant for the whole clip. The transposition must be within the model's trained range. Freezing has no
    /// effect.
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

/// Remixes clips that are in memory.
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
    /// length of `main`. A shorter sidechain is padded with silence. See [`ClipRemixer`], which does the work.
    ///
    /// # Errors
    ///
    /// If a clip has no channels or more than two, or channels of different lengths; if [`ClipRemixer`] refuses the
    /// settings or a sample.
    pub fn remix(
        &self,
        main: &AudioClip,
        sidechain: &AudioClip,
        settings: &RemixSettings,
    ) -> Result<AudioClip> {
        check_clip("main", main)?;
        check_clip("sidechain", sidechain)?;
        let channels = main.channels.len();
        let mut remixer = ClipRemixer::new(&self.model, main.sample_rate_hz, channels, settings)?;
        let sidechain = fit(sidechain, main)?;
        let mut out = vec![Vec::with_capacity(main.channels[0].len()); channels];
        remixer.push(&as_slices(&main.channels), &as_slices(&sidechain), &mut out)?;
        remixer.finish(&mut out)?;
        Ok(AudioClip {
            sample_rate_hz: main.sample_rate_hz,
            channels: out,
        })
    }
}

/// Remixes a clip in steps, in constant memory. The remix is that of the plugin in the same [`LatencyMode`], aligned with
/// the main input. A clip may have any length.
///
/// While the sidechain is missing, the main input plays, as in the plugin: before the first sound of the sidechain, and
/// when it was silent for two seconds, until its next sound.
///
/// ```
/// use model_runtime::{ClipRemixer, Model, RemixSettings};
///
/// let model = Model::built_in()?;
/// let mut remixer = ClipRemixer::new(&model, 44_100, 1, &RemixSettings::default())?;
/// let mut remix = vec![Vec::new()];
/// // The blocks of two files, for example.
/// for _ in 0..3 {
///     remixer.push(&[&[0.1; 1000]], &[&[0.2; 1000]], &mut remix)?;
/// }
/// remixer.finish(&mut remix)?;
/// assert_eq!(remix[0].len(), 3000);
/// # model_runtime::Result::Ok(())
/// ```
pub struct ClipRemixer {
    stream: RemixStream,
    controls: Controls,
    channels: usize,
    step_samples: usize,
    /// The next step. Mono is on both channels.
    window: Window,
    /// The stream's output for it, one per channel.
    remix: Vec<Vec<f32>>,
    /// Tells where the remix plays.
    gate: Gate,
    fade: Fade,
    /// Delays the main input by the latency of the stream.
    dry: Delay<Dry>,
    /// Samples to drop before the first one of the remix.
    early_samples: usize,
}

/// A sample of the main input, with the gain of the remix.
#[derive(Clone, Copy, Debug, Default)]
struct Dry {
    main: [f32; 2],
    remix_gain: f32,
}

impl ClipRemixer {
    /// Creates a remixer at the beginning of a clip with one or two channels.
    ///
    /// # Errors
    ///
    /// If the number of channels or the rate is out of range; if a knob is outside 0 to 1 or the transposition outside
    /// the model's range; if the generated voice is requested but the model has no generator or the mode does not
    /// support it.
    pub fn new(
        model: &Model,
        sample_rate_hz: u32,
        channels: usize,
        settings: &RemixSettings,
    ) -> Result<Self> {
        if !(1..=2).contains(&channels) {
            return Err(Error::input("clip", "one or two channels", channels));
        }
        check_settings(model, settings)?;
        let stream_settings = StreamSettings {
            sample_rate_hz,
            voice: settings.voice,
            mode: settings.mode,
        };
        let stream = RemixStream::with_channels(model, stream_settings, channels)?;
        let step_samples = ((STEP_SECONDS * f64::from(sample_rate_hz)) as usize).max(1);
        let latency_samples = stream.latency_samples();
        // The length of the crossfades does not depend on the host's blocks.
        let geometry = Geometry::new(&GeometrySettings {
            mode: settings.mode,
            frame_seconds: model.header().mel.hop_seconds(),
            sample_rate_hz: sample_rate_hz as f32,
            max_block_samples: 1,
            processor_latency_samples: latency_samples,
        });
        let mut window = Window::new(step_samples, step_samples);
        window.begin(0);
        let mut controls = settings.controls;
        for factor in &mut controls.factors {
            factor.loop_beats = None;
        }
        Ok(Self {
            controls,
            channels,
            step_samples,
            window,
            remix: vec![Vec::new(); channels],
            gate: Gate::new(sample_rate_hz),
            fade: Fade::new(geometry.fade_samples()),
            dry: Delay::new(latency_samples),
            early_samples: latency_samples,
            stream,
        })
    }

    /// Takes the next samples of both inputs, one slice per channel, all of the same length and at the same sample rate.
    /// Appends the finished samples of the remix to `out`, one vector per channel. The lengths of the pushes do not
    /// change the remix.
    ///
    /// # Errors
    ///
    /// If the number of channels or a length differs, or a sample is not finite; nothing is taken then. If the network
    /// fails.
    pub fn push(
        &mut self,
        main: &[&[f32]],
        sidechain: &[&[f32]],
        out: &mut [Vec<f32>],
    ) -> Result<()> {
        let samples = main.first().map_or(0, |channel| channel.len());
        for (what, source) in [("main", main), ("sidechain", sidechain)] {
            self.check_channels(what, source.len())?;
            for channel in source {
                check_samples(what, channel, samples)?;
            }
        }
        self.check_channels("remix", out.len())?;
        let mut taken = 0;
        while taken < samples {
            let end = samples.min(taken + self.step_samples - self.window.samples());
            for (kept, source) in [
                (&mut self.window.main, main),
                (&mut self.window.sidechain, sidechain),
            ] {
                // Mono is on both channels.
                for (kept, channel) in kept.iter_mut().zip(source.iter().cycle()) {
                    kept.extend_from_slice(&channel[taken..end]);
                }
            }
            taken = end;
            if self.window.samples() == self.step_samples {
                self.remix_window(out)?;
            }
        }
        Ok(())
    }

    /// Ends the clip: appends the remaining samples, so that the remix is as long as the inputs.
    ///
    /// # Errors
    ///
    /// If the number of channels differs, or the network fails.
    pub fn finish(mut self, out: &mut [Vec<f32>]) -> Result<()> {
        self.check_channels("remix", out.len())?;
        if self.window.samples() > 0 {
            self.remix_window(out)?;
        }
        self.stream.finish()?;
        let latency_samples = self.dry.samples();
        self.hand_out(latency_samples)?;
        for sample in 0..latency_samples {
            self.play(sample, Dry::default(), out);
        }
        Ok(())
    }

    /// Remixes the window and begins the next one.
    fn remix_window(&mut self, out: &mut [Vec<f32>]) -> Result<()> {
        let samples = self.window.samples();
        // One reading of the knobs per window.
        self.window.controls.push(self.controls);
        let [left, right] = &self.window.sidechain;
        let sidechain = left.iter().zip(right).map(|(&left, &right)| [left, right]);
        let remixed = sidechain.map(|sidechain| self.gate.next(sidechain));
        self.window.remixed.extend(remixed);
        ClipStream::push(&mut self.stream, &self.window)?;
        self.hand_out(samples)?;
        for sample in 0..samples {
            let dry = Dry {
                main: self.window.main.each_ref().map(|channel| channel[sample]),
                remix_gain: self.fade.next(self.window.remixed[sample]),
            };
            self.play(sample, dry, out);
        }
        let next = self.window.stream_position_samples + samples as u64;
        self.window.begin(next);
        Ok(())
    }

    /// Moves the next samples of the stream's output to the remix of the window.
    fn hand_out(&mut self, samples: usize) -> Result<()> {
        for channel in &mut self.remix {
            channel.resize(samples, 0.0);
        }
        let remix = self.remix.iter_mut().map(Vec::as_mut_slice);
        self.stream.state_mut().hand_out(remix)
    }

    /// Takes the next sample of the dry path, and appends the blend of remix and delayed main input at this sample of the
    /// window.
    fn play(&mut self, sample: usize, dry: Dry, out: &mut [Vec<f32>]) {
        let Dry { main, remix_gain } = self.dry.push(dry);
        if self.early_samples > 0 {
            self.early_samples -= 1;
            return;
        }
        for ((out, remix), main) in out.iter_mut().zip(&self.remix).zip(main) {
            out.push(remix[sample] * remix_gain + main * (1.0 - remix_gain));
        }
    }

    fn check_channels(&self, what: &'static str, found: usize) -> Result<()> {
        match found == self.channels {
            true => Ok(()),
            false => {
                let expected = ["one channel", "two channels"][self.channels - 1];
                Err(Error::input(what, expected, found))
            }
        }
    }
}

/// The crossfade between remix and main input, as in [`crate::exchange::AudioPort`].
struct Fade {
    /// Raised cosine from 0 to 1.
    gains: Vec<f32>,
    /// Index into it; none before the first sample.
    step: Option<usize>,
}

impl Fade {
    fn new(samples: usize) -> Self {
        Self {
            gains: (0..=samples)
                .map(|step| 0.5 - 0.5 * (PI * step as f32 / samples as f32).cos())
                .collect(),
            step: None,
        }
    }

    /// The gain of the remix at the next sample. A clip begins without a fade.
    fn next(&mut self, remixed: bool) -> f32 {
        let last = self.gains.len() - 1;
        let step = match (self.step, remixed) {
            (None, true) => last,
            (None, false) => 0,
            (Some(step), true) => last.min(step + 1),
            (Some(step), false) => step.saturating_sub(1),
        };
        self.step = Some(step);
        self.gains[step]
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
    Ok(())
}

/// Rejects a channel of another length and samples that are not finite.
fn check_samples(what: &'static str, channel: &[f32], samples: usize) -> Result<()> {
    if channel.len() != samples {
        let expected = format!("{samples} samples on each channel");
        return Err(Error::input(what, expected, channel.len()));
    }
    if !channel.iter().all(|sample| sample.is_finite()) {
        return Err(Error::input(what, "finite samples", "NaN or infinity"));
    }
    Ok(())
}

/// Rejects settings that the model does not support.
fn check_settings(model: &Model, settings: &RemixSettings) -> Result<()> {
    let controls = &settings.controls;
    let shares = Factor::ALL.map(|factor| (factor.name(), controls[factor].share));
    let others = [("voice", controls.generated), ("air", controls.air)];
    for (name, value) in shares.into_iter().chain(others) {
        if !(0.0..=1.0).contains(&value) {
            return Err(Error::input(name, "0 to 1", value));
        }
    }
    check_transpose(model, controls.transpose_semitones)?;
    if settings.voice == Voice::Guided && controls.generated > 0.0 {
        if !settings.mode.has_generated_voice() {
            let generated = controls.generated;
            return Err(Error::input("voice", "0 in the mode Live", generated));
        }
        model.generator()?;
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
