//! The demo: two loops from `assets/`, remixed by the plugin.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use graft_material::audio_file;
use graft_material::audio_writer::{self, WavFormat};
use graft_material::{plot, progress, workspace};
use model_runtime::{LatencyMode, RemixSettings};

use crate::host::{self, HostSettings};

/// Steps of the progress bar.
const PROGRESS_STEPS: u64 = 1000;

/// Output of [`render`].
pub struct Demo {
    /// The remix, a WAV file.
    pub audio: PathBuf,
    /// The spectrograms of the loops and the remix, a PNG file.
    pub picture: PathBuf,
    /// The latency that the plugin reported and its speed, as text.
    pub figures: [String; 2],
}

/// Remixes the demo loops with the plugin in the file `clap`, into `folder`.
///
/// # Errors
///
/// Returns an error if the plugin cannot be loaded or a file cannot be written.
pub fn render(clap: &Path, folder: &Path) -> Result<Demo> {
    let loops = workspace::root().join("assets/demo");
    let main = audio_file::read(&loops.join("harmony.ogg"))?.clip;
    let sidechain = audio_file::read(&loops.join("rhythm.ogg"))?.clip;
    let settings = HostSettings {
        sample_rate_hz: main.sample_rate_hz,
        block_samples: 512,
        offline: true,
        controls: RemixSettings::default().controls,
        mode: LatencyMode::Full,
    };
    let bar = progress::bar("Remixing in the plugin", PROGRESS_STEPS);
    let rendered = host::remix(clap, &main, &sidechain, &settings, &|share| {
        bar.set_position((share * PROGRESS_STEPS as f64) as u64);
    })?;
    bar.finish_and_clear();

    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let audio = folder.join("remix.wav");
    audio_writer::write_wav(&audio, &rendered.clip, WavFormat::Pcm16)?;
    let picture = folder.join("remix.png");
    plot::plot_remix(&picture, [&main, &sidechain, &rendered.clip])?;
    Ok(Demo {
        audio,
        picture,
        figures: [rendered.latency(), rendered.speed().to_string()],
    })
}
