//! Remixing through the plugin, as a DAW would, in the headless host of the system tests.

use std::path::Path;

use anyhow::Result;
use graft_material::{audio_file, rate};
use graft_tests::{Plugin, RenderJob};
use model_runtime::{AudioClip, Controls, Factor, LatencyMode};

use crate::speed::Speed;

/// How the host runs.
pub struct HostSettings {
    /// Sample rate of the session; both inputs are resampled to it.
    pub sample_rate_hz: u32,
    /// Samples in each block.
    pub block_samples: usize,
    /// Whether the host runs in offline mode.
    pub offline: bool,
    /// Values of the parameters.
    pub controls: Controls,
    /// Latency mode of the plugin.
    pub mode: LatencyMode,
}

/// Output of the plugin.
pub struct Rendered {
    /// The remix, with the length of the main input and aligned with it: the latency is compensated.
    pub clip: AudioClip,
    /// The latency that the plugin reported.
    pub latency_samples: usize,
    /// Time that the plugin took.
    pub wall_seconds: f64,
}

impl Rendered {
    /// The latency as text.
    pub fn latency(&self) -> String {
        let milliseconds =
            1000.0 * self.latency_samples as f64 / f64::from(self.clip.sample_rate_hz);
        format!("{} samples ({milliseconds:.0} ms)", self.latency_samples)
    }

    /// Speed of the plugin.
    pub fn speed(&self) -> Speed {
        Speed {
            audio_seconds: audio_file::seconds(&self.clip),
            wall_seconds: self.wall_seconds,
        }
    }
}

/// Renders both inputs through the plugin in the file `clap`. Calls `on_progress` with the share that is done.
///
/// # Errors
///
/// Returns an error if the plugin cannot be loaded, or fails.
pub fn remix(
    clap: &Path,
    main: &AudioClip,
    sidechain: &AudioClip,
    settings: &HostSettings,
    on_progress: &(dyn Fn(f64) + Sync),
) -> Result<Rendered> {
    let job = RenderJob {
        sample_rate_hz: settings.sample_rate_hz,
        blocks: vec![settings.block_samples],
        offline: settings.offline,
        main: at_rate(main, settings.sample_rate_hz)?,
        sidechain: Some(at_rate(sidechain, settings.sample_rate_hz)?),
        parameters: vec![
            (
                "Harmony".into(),
                f64::from(settings.controls[Factor::Harmony].share),
            ),
            (
                "Rhythm".into(),
                f64::from(settings.controls[Factor::Rhythm].share),
            ),
            (
                "Transpose".into(),
                f64::from(settings.controls.transpose_semitones),
            ),
            ("Voice".into(), f64::from(settings.controls.generated)),
            ("Air".into(), f64::from(settings.controls.air)),
        ],
        before_activation: vec![("Latency".into(), latency_step(settings.mode))],
        ..RenderJob::default()
    };
    let samples = job.main[0].len() as f64;
    let rendered = Plugin::load(clap)?.render_with(&job, |position, process| {
        process();
        on_progress((position as f64 / samples).min(1.0));
    })?;
    Ok(Rendered {
        clip: AudioClip {
            sample_rate_hz: settings.sample_rate_hz,
            channels: rendered.aligned(),
        },
        latency_samples: rendered.latency_samples,
        wall_seconds: rendered.wall_seconds,
    })
}

fn at_rate(clip: &AudioClip, sample_rate_hz: u32) -> Result<Vec<Vec<f32>>> {
    clip.channels
        .iter()
        .map(|channel| rate::convert(channel, clip.sample_rate_hz, sample_rate_hz))
        .collect()
}

/// Value of the parameter Latency for a mode: steps count from 0.
pub fn latency_step(mode: LatencyMode) -> f64 {
    let step = LatencyMode::ALL.iter().position(|&other| other == mode);
    step.unwrap_or_default() as f64
}
