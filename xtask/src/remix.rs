//! `cargo xtask remix`: remixes audio files.

mod batch;
pub mod format;
mod inputs;
pub mod messages;
pub mod output;
pub mod outputs;
mod sidechain;
mod steps;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use graft_material::audio_file::{self, AudioReader};
use graft_material::{arguments, whole_file};
use model_runtime::{ClipRemixer, Controls, Factor, LatencyMode, Model, RemixSettings, Voice};

use crate::bundle;
use batch::Job;
use format::FormatName;
use output::Output;
use steps::StepSettings;
use whole::WholeSettings;

/// Remix audio files: the harmony of one with the rhythm of the other
///
/// Reads WAV, AIFF, CAF, FLAC, Ogg Vorbis, MP3, AAC and ALAC at any sample rate, and writes WAV or FLAC, with the length of
/// MAIN. A SIDECHAIN that is shorter is looped (cut it to whole bars), or followed by silence with --no-loop; one that is
/// longer is cut.
///
/// With --out-dir, remixes several files with the same SIDECHAIN. MAIN may then be a folder: all audio files in it, without
/// hidden ones and folders below. If a file fails, the others are still remixed, and the exit status is not 0.
///
/// Existing outputs are replaced, each when its remix is complete. If the command is stopped, finished files are whole and
/// the others as they were.
///
/// Examples:
///   cargo xtask remix song.ogg drums.wav -o remix.wav
///   cargo xtask remix songs/ drums.wav --out-dir remixes --format flac16
#[derive(Args)]
#[command(
    verbatim_doc_comment,
    override_usage = "cargo xtask remix [OPTIONS] <MAIN> <SIDECHAIN> -o <OUT>\n       \
                      cargo xtask remix [OPTIONS] <MAIN>... <SIDECHAIN> --out-dir <DIR>"
)]
pub struct Remix {
    /// Main input, source of the harmony by default; then the sidechain, source of the rhythm by default
    #[arg(required = true, num_args = 2.., value_names = ["MAIN", "SIDECHAIN"])]
    files: Vec<PathBuf>,
    /// File to write, WAV or FLAC; "-" writes WAV to standard output
    #[arg(short, long, value_name = "OUT", required_unless_present = "out_dir")]
    output: Option<PathBuf>,
    /// Folder to write the remixes to, each named after its MAIN; created if missing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "plot"])]
    out_dir: Option<PathBuf>,
    /// Format of the output [default: by the extension, 32-bit WAV or 24-bit FLAC]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Let silence follow a SIDECHAIN that is shorter than MAIN. When it is missing for 2 s, MAIN plays unchanged
    #[arg(long)]
    no_loop: bool,
    /// Source of the harmony: 0 = MAIN, 1 = SIDECHAIN, or in between
    #[arg(long, default_value_t = 0.0, value_parser = share, allow_negative_numbers = true)]
    harmony: f32,
    /// Source of the rhythm: 0 = MAIN, 1 = SIDECHAIN, or in between
    #[arg(long, default_value_t = 1.0, value_parser = share, allow_negative_numbers = true)]
    rhythm: f32,
    /// Model file to use instead of the built-in one
    #[arg(long, conflicts_with = "host")]
    model: Option<PathBuf>,
    /// Voice: turns the remixed spectrogram into sound
    #[arg(long, value_enum, default_value_t = SoundSource::Guided)]
    voice: SoundSource,
    /// Semitones to shift the harmony by
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    transpose: i32,
    /// Latency mode: how much look-ahead the remix uses, with or without --host
    #[arg(long, value_parser = arguments::latency(), default_value = "full")]
    latency: LatencyMode,
    /// Remix only the first S seconds of MAIN
    #[arg(long, value_name = "S", value_parser = above_zero, allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// Write a picture of the spectrograms of MAIN, SIDECHAIN and the remix. Needs all three in memory
    #[arg(long, value_name = "OUT.png")]
    plot: Option<PathBuf>,
    /// Render with the CLAP plugin in a headless host, with both files in memory. Its reported latency is compensated, so
    /// that the remix is aligned with MAIN
    #[arg(long)]
    host: bool,
    /// Installed plugin (CLAP) for the host; without it, the plugin is built
    #[arg(long, value_name = "FILE", requires = "host")]
    plugin: Option<PathBuf>,
    /// Block size of the host, in samples
    #[arg(long, value_name = "N", default_value_t = 512, requires = "host",
          value_parser = clap::value_parser!(u32).range(1..=65536))]
    block: u32,
    /// Sample rate of the host and the remix, in Hz [default: that of MAIN]
    #[arg(long, value_name = "HZ", requires = "host",
          value_parser = clap::value_parser!(u32).range(8_000..=192_000))]
    rate: Option<u32>,
    /// Run the host in offline mode
    #[arg(long, requires = "host")]
    offline: bool,
}

/// Voices by their names on the command line: either end of the knob Voice, or Griffin-Lim, which the plugin does not
/// have.
#[derive(Clone, Copy, ValueEnum)]
enum SoundSource {
    /// Filters the sound of both inputs
    Guided,
    /// The model's HiFi-GAN generator; not with --latency live
    HifiGan,
    /// Reconstructs phases from the spectrogram; mono and metallic, for reference
    GriffinLim,
}

impl SoundSource {
    /// Voice for the remix of a whole clip.
    fn voice(self) -> Voice {
        match self {
            // The plugin blends these two with the knob Voice.
            Self::Guided | Self::HifiGan => Voice::Guided,
            Self::GriffinLim => Voice::GriffinLim,
        }
    }

    /// Position of the knob Voice.
    fn knob(self) -> f32 {
        f32::from(matches!(self, Self::HifiGan))
    }
}

impl Remix {
    /// Reads the files, writes their remixes and prints how long it took.
    pub fn run(self) -> Result<()> {
        ensure!(
            !(self.host && matches!(self.voice, SoundSource::GriffinLim)),
            "--voice griffin-lim does not work with --host: the plugin has only guided and hifi-gan"
        );
        ensure!(
            self.latency.has_generated_voice() || !matches!(self.voice, SoundSource::HifiGan),
            "--voice hifi-gan does not work with --latency live"
        );
        let (sidechain, mains) = self
            .files
            .split_last()
            .context("expected MAIN and SIDECHAIN")?;
        let jobs = self.jobs(mains)?;
        self.check_outputs(&jobs, sidechain)?;
        whole_file::remove_parts_on_interrupt()?;
        match self.host {
            true => self.in_host(&jobs, sidechain),
            false => self.in_steps(&jobs, sidechain),
        }
    }

    /// The main inputs, with the outputs of their remixes.
    fn jobs(&self, mains: &[PathBuf]) -> Result<Vec<Job>> {
        if let Some(folder) = &self.out_dir {
            let mains = mains.iter().map(|main| inputs::expand(main));
            let mains = mains.collect::<Result<Vec<_>>>()?.concat();
            let format = format::without_file(self.format);
            let files = outputs::in_folder(folder, &mains, format.extension())?;
            let job = |(main, file)| Job {
                main,
                output: Output::File(file, format),
            };
            return Ok(mains.into_iter().zip(files).map(job).collect());
        }
        let ([main], Some(output)) = (mains, &self.output) else {
            bail!(
                "expected one MAIN with -o, found {}: use --out-dir for several",
                mains.len()
            );
        };
        ensure!(
            !main.is_dir(),
            "expected a file as MAIN with -o, found the folder {}: use --out-dir",
            main.display()
        );
        let output = if output == Path::new("-") {
            Output::stdout(format::without_file(self.format))?
        } else {
            Output::File(output.clone(), format::of_file(self.format, output)?)
        };
        let main = main.clone();
        Ok(vec![Job { main, output }])
    }

    /// Checks before any work whether the outputs can be written.
    fn check_outputs(&self, jobs: &[Job], sidechain: &Path) -> Result<()> {
        let files = jobs
            .iter()
            .filter_map(|job| Some((job.output.path()?, job.main.as_path())));
        let mut written: Vec<_> = files.collect();
        if let Some(plot) = &self.plot {
            format::check_extension(plot, "png")?;
            written.push((plot, &jobs[0].main));
        }
        let mut read: Vec<&Path> = jobs.iter().map(|job| job.main.as_path()).collect();
        read.push(sidechain);
        read.extend(self.model.as_deref());
        outputs::check_distinct(&written, &read)?;
        if let Some(folder) = &self.out_dir {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create the folder {}", folder.display()))?;
        }
        written
            .into_iter()
            .try_for_each(|(file, _)| outputs::check_writable(file))
    }

    /// Remixes step by step, without the plugin.
    fn in_steps(&self, jobs: &[Job], sidechain: &Path) -> Result<()> {
        let model = match &self.model {
            Some(path) => Arc::new(Model::load(path)?),
            None => Model::built_in()?,
        };
        let settings = StepSettings {
            model: &model,
            remix: RemixSettings {
                controls: self.controls(),
                voice: self.voice.voice(),
                mode: self.latency,
            },
            sidechain,
            loops: !self.no_loop,
            seconds: self.seconds,
            plot: self.plot.as_deref(),
        };
        // What every file would fail with fails here.
        let rate_hz = AudioReader::open(sidechain)?.sample_rate_hz();
        ClipRemixer::new(&model, rate_hz, 1, &settings.remix)?;
        batch::run(jobs, |job, messages, on_progress| {
            steps::remix(job, &settings, messages, on_progress)
        })
    }

    /// Remixes block by block, with the plugin.
    fn in_host(&self, jobs: &[Job], sidechain: &Path) -> Result<()> {
        let settings = WholeSettings {
            sidechain: (sidechain.to_path_buf(), audio_file::read(sidechain)?),
            clap: match &self.plugin {
                Some(file) => file.clone(),
                None => bundle::release()?.clap,
            },
            sample_rate_hz: self.rate,
            block_samples: self.block as usize,
            offline: self.offline,
            controls: self.controls(),
            mode: self.latency,
            loops: !self.no_loop,
            seconds: self.seconds,
            plot: self.plot.clone(),
        };
        batch::run(jobs, |job, messages, on_progress| {
            whole::remix(job, &settings, messages, on_progress)
        })
    }

    fn controls(&self) -> Controls {
        Controls {
            generated: self.voice.knob(),
            air: 1.0,
            transpose_semitones: self.transpose,
            ..Controls::default()
                .with_share(Factor::Harmony, self.harmony)
                .with_share(Factor::Rhythm, self.rhythm)
        }
    }
}

/// Parses a share of the sidechain, from 0 to 1.
fn share(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 (MAIN) to 1 (SIDECHAIN)".into()),
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 => Ok(seconds),
        _ => Err("expected a number of seconds above 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_outside_0_to_1_are_refused() {
        for (text, expected) in [("0", Some(0.0)), ("0.25", Some(0.25)), ("1", Some(1.0))] {
            assert_eq!(share(text).ok(), expected);
        }
        for text in ["1.5", "-0.1", "NaN", "much", ""] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
