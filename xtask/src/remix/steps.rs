//! Remixing from file to file in steps, in constant memory.

use std::path::Path;

use anyhow::Result;
use graft_material::audio_file::AudioReader;
use graft_material::plot;
use model_runtime::{AudioClip, ClipRemixer, Model, RemixSettings};

use super::batch::Job;
use super::messages::Messages;
use super::sidechain::Sidechain;

/// What the remixes of all main inputs have in common.
pub struct StepSettings<'a> {
    /// The model.
    pub model: &'a Model,
    /// Knobs, voice and mode.
    pub remix: RemixSettings,
    /// File of the sidechain.
    pub sidechain: &'a Path,
    /// Whether a sidechain that is shorter than the main input begins again.
    pub loops: bool,
    /// Seconds of the main input to remix at most.
    pub seconds: Option<f64>,
    /// Picture of both inputs and the remix. It needs all of them in memory.
    pub plot: Option<&'a Path>,
}

/// Remixes a file. Calls `on_progress` with the share that is done. Returns the duration of the remix in seconds.
///
/// # Errors
///
/// Returns an error if a file cannot be read or written, or the model refuses the settings.
pub fn remix(
    job: &Job,
    settings: &StepSettings,
    messages: &Messages,
    on_progress: &(dyn Fn(f64) + Sync),
) -> Result<f64> {
    let mut main = AudioReader::open(&job.main)?;
    let (rate_hz, channels) = (main.sample_rate_hz(), main.channels());
    let mut sidechain = Sidechain::open(settings.sidechain, rate_hz, channels, settings.loops)?;
    let mut remixer = ClipRemixer::new(settings.model, rate_hz, channels, &settings.remix)?;

    let most_samples = settings
        .seconds
        .map_or(u64::MAX, |seconds| samples_in(seconds, rate_hz));
    let expected = main
        .expected_samples()
        .map(|samples| samples.min(most_samples));
    let mut writer = job.output.start(rate_hz, channels, expected)?;
    let mut shown = settings
        .plot
        .map(|path| Shown::new(path, rate_hz, channels));

    let mut done_samples = 0;
    let (mut block, mut sidechain_block) = (Vec::new(), Vec::new());
    let mut remixed = vec![Vec::new(); channels];
    while done_samples < most_samples && main.next_block(&mut block)? {
        let samples = (block[0].len() as u64).min(most_samples - done_samples) as usize;
        block
            .iter_mut()
            .for_each(|channel| channel.truncate(samples));
        sidechain.next(samples, &mut sidechain_block)?;
        remixer.push(&slices(&block), &slices(&sidechain_block), &mut remixed)?;
        writer.push(&remixed)?;
        if let Some(shown) = &mut shown {
            shown.add([&block, &sidechain_block, &remixed]);
        }
        remixed.iter_mut().for_each(Vec::clear);
        done_samples += samples as u64;
        if let Some(expected) = expected {
            on_progress(done_samples as f64 / expected.max(done_samples) as f64);
        }
    }
    remixer.finish(&mut remixed)?;
    writer.push(&remixed)?;

    messages.warnings(&job.main, main.warnings());
    messages.warnings(settings.sidechain, sidechain.warnings());
    if let Some(seconds) = sidechain.loop_seconds() {
        messages.note(loop_line(seconds));
    }
    // The picture first: it can fail by itself, for example if the clip is too short.
    if let Some(mut shown) = shown {
        shown.add([&[], &[], &remixed]);
        messages.result(shown.draw()?);
    }
    writer.finish(messages)?;
    Ok(done_samples as f64 / f64::from(rate_hz))
}

/// Samples in so many seconds, at least one.
pub fn samples_in(seconds: f64, sample_rate_hz: u32) -> u64 {
    ((seconds * f64::from(sample_rate_hz)).round() as u64).max(1)
}

/// Tells that the sidechain begins again.
pub fn loop_line(seconds: f64) -> String {
    format!("sidechain loops every {seconds:.1} s")
}

/// The clips of a picture.
struct Shown<'a> {
    path: &'a Path,
    /// Main input, sidechain and remix.
    clips: [AudioClip; 3],
}

impl<'a> Shown<'a> {
    fn new(path: &'a Path, sample_rate_hz: u32, channels: usize) -> Self {
        let clip = AudioClip {
            sample_rate_hz,
            channels: vec![Vec::new(); channels],
        };
        Self {
            path,
            clips: [clip.clone(), clip.clone(), clip],
        }
    }

    fn add(&mut self, blocks: [&[Vec<f32>]; 3]) {
        for (clip, block) in self.clips.iter_mut().zip(blocks) {
            for (channel, block) in clip.channels.iter_mut().zip(block) {
                channel.extend_from_slice(block);
            }
        }
    }

    /// Writes the picture. Returns its path, to be shown.
    fn draw(&self) -> Result<std::path::Display<'a>> {
        plot::plot_remix(self.path, self.clips.each_ref())?;
        Ok(self.path.display())
    }
}

fn slices(channels: &[Vec<f32>]) -> Vec<&[f32]> {
    channels.iter().map(Vec::as_slice).collect()
}
