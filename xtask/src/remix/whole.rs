//! Remixing of whole files through the plugin.

use std::path::PathBuf;

use anyhow::Result;
use graft_material::audio_file::{self, Recording};
use graft_material::plot;
use model_runtime::{AudioClip, Controls, LatencyMode};

use super::batch::Job;
use super::messages::Messages;
use super::sidechain;
use super::steps;
use crate::host::{self, HostSettings};

/// What the remixes of all main inputs have in common.
pub struct WholeSettings {
    /// The plugin.
    pub clap: PathBuf,
    /// The sidechain and its file.
    pub sidechain: (PathBuf, Recording),
    /// Sample rate of the host, if it differs from that of the main input.
    pub sample_rate_hz: Option<u32>,
    /// Samples in each block.
    pub block_samples: usize,
    /// Whether the host runs in offline mode.
    pub offline: bool,
    /// Knobs.
    pub controls: Controls,
    /// Latency mode.
    pub mode: LatencyMode,
    /// Whether a sidechain that is shorter than the main input begins again.
    pub loops: bool,
    /// Seconds of the main input to remix at most.
    pub seconds: Option<f64>,
    /// Picture of both inputs and the remix.
    pub plot: Option<PathBuf>,
}

/// Remixes a file. Calls `on_progress` with the share that is done. Returns the duration of the remix in seconds.
///
/// # Errors
///
/// Returns an error if a file cannot be read or written, or the plugin fails.
pub fn remix(
    job: &Job,
    settings: &WholeSettings,
    messages: &Messages,
    on_progress: &(dyn Fn(f64) + Sync),
) -> Result<f64> {
    let main = audio_file::read(&job.main)?;
    messages.warnings(&job.main, &main.warnings);
    let mut main = main.clip;
    let (sidechain_path, recording) = &settings.sidechain;
    messages.warnings(sidechain_path, &recording.warnings);
    let mut sidechain = recording.clip.clone();
    if let Some(seconds) = settings.seconds {
        shorten(&mut main, seconds);
    }
    let seconds = audio_file::seconds(&main);
    if let Some(seconds) = sidechain::fit_length(&mut sidechain, seconds, settings.loops) {
        messages.note(steps::loop_line(seconds));
    }

    let host = HostSettings {
        sample_rate_hz: settings.sample_rate_hz.unwrap_or(main.sample_rate_hz),
        block_samples: settings.block_samples,
        offline: settings.offline,
        controls: settings.controls,
        mode: settings.mode,
    };
    let rendered = host::remix(&settings.clap, &main, &sidechain, &host, on_progress)?;
    messages.note(format_args!("latency {}, compensated", rendered.latency()));

    let remix = &rendered.clip;
    // The picture first: it can fail by itself, for example if the clip is too short.
    if let Some(path) = &settings.plot {
        plot::plot_remix(path, [&main, &sidechain, remix])?;
        messages.result(path.display());
    }
    let samples = remix.channels[0].len() as u64;
    let (rate_hz, channels) = (remix.sample_rate_hz, remix.channels.len());
    let mut writing = job.output.start(rate_hz, channels, Some(samples))?;
    writing.push(&remix.channels)?;
    writing.finish(messages)?;
    Ok(audio_file::seconds(remix))
}

/// Cuts the clip to `seconds`, if it is longer, but leaves a sample.
fn shorten(clip: &mut AudioClip, seconds: f64) {
    let samples = steps::samples_in(seconds, clip.sample_rate_hz) as usize;
    for channel in &mut clip.channels {
        channel.truncate(samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_are_cut_but_not_extended() {
        let mut clip = AudioClip {
            sample_rate_hz: 1000,
            channels: vec![vec![1.0; 3]; 2],
        };
        shorten(&mut clip, 0.005);
        assert_eq!(clip.channels[1], [1.0, 1.0, 1.0]);
        shorten(&mut clip, 0.002);
        assert_eq!(clip.channels[1], [1.0, 1.0]);
        shorten(&mut clip, 1e-9);
        assert_eq!(clip.channels[1], [1.0]);
    }
}
