//! `cargo xtask remix`: remixes two audio files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use graft_material::audio_file;
use graft_material::audio_writer::{self, WavFormat};
use graft_material::{arguments, plot, progress};
use model_runtime::{
    AudioClip, Controls, Factor, LatencyMode, Model, RemixSettings, Remixer, Voice,
};

use crate::bundle;
use crate::host::{self, HostSettings};
use crate::speed::Speed;

/// Remix two audio files: the harmony of one with the rhythm of the other
///
/// Reads WAV, FLAC, Ogg Vorbis and MP3, mono or stereo, at any sample rate. Writes a 32-bit WAV with the length of
/// MAIN. SIDECHAIN is padded with silence or cut to that length.
///
/// Example: cargo xtask remix song.ogg drums.wav -o remix.wav
#[derive(Args)]
pub struct Remix {
    /// Main input; source of the harmony by default
    main: PathBuf,
    /// Sidechain; source of the rhythm by default
    sidechain: PathBuf,
    /// WAV file to write
    #[arg(short, long, value_name = "OUT.wav")]
    output: PathBuf,
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
    /// Write a picture of the spectrograms of MAIN, SIDECHAIN and the remix
    #[arg(long, value_name = "OUT.png")]
    plot: Option<PathBuf>,
    /// Render with the CLAP plugin in a headless host. Its reported latency is compensated, so that the remix is
    /// aligned with MAIN
    #[arg(long)]
    host: bool,
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
    /// Reads both files, writes their remix and prints how long it took.
    pub fn run(self) -> Result<()> {
        check_output(&self.output, "wav")?;
        if let Some(plot) = &self.plot {
            check_output(plot, "png")?;
        }
        ensure!(
            !(self.host && matches!(self.voice, SoundSource::GriffinLim)),
            "--voice griffin-lim does not work with --host: the plugin has only guided and hifi-gan"
        );
        ensure!(
            self.latency.has_generated_voice() || !matches!(self.voice, SoundSource::HifiGan),
            "--voice hifi-gan does not work with --latency live"
        );
        let mut main = read(&self.main)?;
        let mut sidechain = read(&self.sidechain)?;
        let seconds = self
            .seconds
            .unwrap_or(f64::INFINITY)
            .min(audio_file::seconds(&main));
        set_length(&mut main, seconds);
        set_length(&mut sidechain, seconds);

        let remix = if self.host {
            self.in_host(&main, &sidechain)?
        } else {
            self.whole(&main, &sidechain)?
        };
        // The picture first: it can fail by itself, for example if the clip is too short.
        if let Some(path) = &self.plot {
            plot::plot_remix(path, [&main, &sidechain, &remix])?;
            println!("{}", path.display());
        }
        audio_writer::write_wav(&self.output, &remix, WavFormat::Float32)?;
        println!("{}", self.output.display());
        Ok(())
    }

    /// Remixes the whole clips at once, without the plugin.
    fn whole(&self, main: &AudioClip, sidechain: &AudioClip) -> Result<AudioClip> {
        let start = Instant::now();
        let model = match &self.model {
            Some(path) => Arc::new(Model::load(path)?),
            None => Model::built_in()?,
        };
        let settings = RemixSettings {
            controls: self.controls(),
            voice: self.voice.voice(),
            mode: self.latency,
        };
        let spinner = progress::spinner("Remixing");
        let remix = Remixer::new(model).remix(main, sidechain, &settings)?;
        spinner.finish_and_clear();
        let speed = Speed {
            audio_seconds: audio_file::seconds(&remix),
            wall_seconds: start.elapsed().as_secs_f64(),
        };
        println!("{speed}");
        Ok(remix)
    }

    /// Remixes block by block, with the plugin.
    fn in_host(&self, main: &AudioClip, sidechain: &AudioClip) -> Result<AudioClip> {
        let bundles = bundle::release()?;
        let settings = HostSettings {
            sample_rate_hz: self.rate.unwrap_or(main.sample_rate_hz),
            block_samples: self.block as usize,
            offline: self.offline,
            controls: self.controls(),
            mode: self.latency,
        };
        let rendered = host::remix(&bundles.clap, main, sidechain, &settings)?;
        println!("latency {}, compensated", rendered.latency());
        println!("{}", rendered.speed());
        Ok(rendered.clip)
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

/// Reads a mono or stereo clip.
fn read(path: &Path) -> Result<AudioClip> {
    let clip = audio_file::read(path)?.clip;
    ensure!(
        matches!(clip.channels.len(), 1 | 2),
        "cannot remix {}: expected 1 or 2 channels, found {}",
        path.display(),
        clip.channels.len()
    );
    Ok(clip)
}

/// Cuts the clip to `seconds` or pads it with silence.
fn set_length(clip: &mut AudioClip, seconds: f64) {
    let samples = (seconds * f64::from(clip.sample_rate_hz)).round() as usize;
    for channel in &mut clip.channels {
        channel.resize(samples, 0.0);
    }
}

/// Checks before the remix starts whether the output can be written.
fn check_output(path: &Path, extension: &str) -> Result<()> {
    ensure!(
        path.extension()
            .is_some_and(|found| found.eq_ignore_ascii_case(extension)),
        "cannot write {}: the name must end in .{extension}",
        path.display()
    );
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    ensure!(
        folder.is_none_or(Path::is_dir),
        "cannot write {}: the folder does not exist",
        path.display()
    );
    ensure!(
        !path.is_dir(),
        "cannot write {}: it is a folder",
        path.display()
    );
    Ok(())
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

    #[test]
    fn clips_are_cut_or_padded_to_a_length() {
        let mut clip = AudioClip {
            sample_rate_hz: 1000,
            channels: vec![vec![1.0; 3]; 2],
        };
        set_length(&mut clip, 0.005);
        assert_eq!(clip.channels[1], [1.0, 1.0, 1.0, 0.0, 0.0]);
        set_length(&mut clip, 0.002);
        assert_eq!(clip.channels[1], [1.0, 1.0]);
    }

    #[test]
    fn outputs_that_cannot_be_written_are_refused_first() {
        assert!(check_output(Path::new("remix.wav"), "wav").is_ok());
        assert!(check_output(Path::new("remix.WAV"), "wav").is_ok());
        for path in ["remix.mp3", "remix", "no/such/folder/remix.wav"] {
            assert!(check_output(Path::new(path), "wav").is_err(), "{path}");
        }
    }
}
