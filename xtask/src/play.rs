//! `cargo xtask play`: plays through Graft as a standalone program.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use graft_material::audio_file;
use graft_material::audio_writer::{self, WavFormat};
use graft_material::workspace;

/// Play two files through Graft, without a DAW, or play live
///
/// Plays MAIN and SIDECHAIN in a loop; without files, the demo loops. With --live, the main input is that of the audio
/// device, and the file is the sidechain. Options of the program follow after `--`: audio system, devices, sample rate,
/// block size, latency mode, tempo, measurement of the round trip; `cargo xtask play -- --help` lists them. Close the
/// window or press Ctrl-C to stop. On Linux, the build needs the packages pkg-config, libasound2-dev and
/// libjack-jackd2-dev.
///
/// Examples: cargo xtask play song.ogg drums.wav -- --tempo 120
///           cargo xtask play --live drums.wav -- --block 64 --measure
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Play {
    /// Files: main input and sidechain, or with --live the sidechain
    files: Vec<PathBuf>,
    /// Take the main input from the audio device
    #[arg(long)]
    live: bool,
    /// Take the sidechain from JACK as well, instead of a file
    #[arg(long, requires = "live", conflicts_with = "files")]
    sidechain_input: bool,
    /// Options of the program
    #[arg(last = true)]
    options: Vec<String>,
}

/// Tempo of the demo loops.
const DEMO_BPM: &str = "130";

impl Play {
    /// Builds the program, starts it with the files as WAV, and waits until it exits.
    pub fn run(self) -> Result<()> {
        let demo = |name: &str| workspace::root().join("assets/demo").join(name);
        let mut options = self.options.clone();
        let is_demo = self.files.is_empty() && !self.sidechain_input;
        if is_demo && !options.iter().any(|option| option.starts_with("--tempo")) {
            options.extend(["--tempo".into(), DEMO_BPM.into()]);
        }
        let files = match (self.live, self.sidechain_input, &self.files[..]) {
            (false, _, []) => vec![demo("harmony.ogg"), demo("rhythm.ogg")],
            (true, false, []) => vec![demo("rhythm.ogg")],
            (false, _, [_, _]) | (true, _, [] | [_]) => self.files.clone(),
            (live, _, files) => {
                let expected = if live {
                    "at most one file"
                } else {
                    "two files"
                };
                bail!("expected {expected}, found {}", files.len())
            }
        };
        let folder = workspace::target()?.join("play");
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let names = if self.live {
            &["sidechain.wav"][..]
        } else {
            &["main.wav", "sidechain.wav"]
        };
        let mut clips = Vec::new();
        for (file, name) in files.iter().zip(names) {
            let recording = audio_file::read(file)?;
            for warning in &recording.warnings {
                eprintln!("warning: {}: {warning}", file.display());
            }
            let wav = folder.join(name);
            audio_writer::write_wav(&wav, &recording.clip, WavFormat::Pcm16)?;
            clips.push(wav);
        }
        let status = workspace::cargo()
            .args(["run", "--release", "--bin", "graft-standalone"])
            .args(["--features", "graft/standalone", "--"])
            .args(self.live.then_some("--live"))
            .args(self.sidechain_input.then_some("--sidechain-input"))
            .args(options)
            .args(clips)
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "graft-standalone ended with {status}");
        Ok(())
    }
}
