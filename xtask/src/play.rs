//! `cargo xtask play`: runs Graft as a standalone program.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use graft_material::audio_file;
use graft_material::audio_writer::{self, WavFormat};
use graft_material::workspace;

/// Play two files through Graft, without a DAW
///
/// Plays MAIN and SIDECHAIN in a loop; without files, the demo loops. Close the window or press Ctrl-C to stop. On
/// Linux, the build needs the packages pkg-config, libasound2-dev and libjack-jackd2-dev.
///
/// Example: cargo xtask play song.ogg drums.wav
#[derive(Args)]
pub struct Play {
    /// File for the main input
    #[arg(requires = "sidechain")]
    main: Option<PathBuf>,
    /// File for the sidechain
    sidechain: Option<PathBuf>,
    /// Host tempo in BPM
    #[arg(long, value_name = "BPM", default_value_t = 130.0)]
    tempo: f32,
}

impl Play {
    /// Builds the program, starts it with both files as WAV, and waits until it exits.
    pub fn run(self) -> Result<()> {
        let demo = workspace::root().join("assets/demo");
        let folder = workspace::target()?.join("play");
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let as_wav = |file: Option<PathBuf>, loop_name: &str, name: &str| -> Result<PathBuf> {
            let file = file.unwrap_or_else(|| demo.join(loop_name));
            let recording = audio_file::read(&file)?;
            for warning in &recording.warnings {
                eprintln!("warning: {}: {warning}", file.display());
            }
            let wav = folder.join(name);
            audio_writer::write_wav(&wav, &recording.clip, WavFormat::Pcm16)?;
            Ok(wav)
        };
        let main = as_wav(self.main, "harmony.ogg", "main.wav")?;
        let sidechain = as_wav(self.sidechain, "rhythm.ogg", "sidechain.wav")?;
        let status = workspace::cargo()
            .args(["run", "--release", "--bin", "graft-standalone"])
            .args(["--features", "graft/standalone", "--"])
            .args([&main, &sidechain])
            .arg(format!("--tempo={}", self.tempo))
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "graft-standalone ended with {status}");
        Ok(())
    }
}
