//! `cargo xtask remix`: two audio files in, their remix out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use graft_material::audio_file::{self, WavFormat};
use graft_material::{arguments, plot, progress};
use model_runtime::{
    AudioClip, Controls, Factor, LatencyMode, Model, RemixSettings, Remixer, Voice,
};

use crate::bundle;
use crate::host::{self, HostSettings};
use crate::speed::Speed;

/// Remix two audio files: the harmony of one with the rhythm of the other
///
/// Reads WAV, FLAC, Ogg Vorbis and MP3, mono or stereo, at any sample rate, and writes a 32-bit WAV
/// of MAIN's length. A SIDECHAIN shorter than MAIN is followed by silence, a longer one is cut.
///
/// Example: cargo xtask remix song.ogg drums.wav -o remix.wav
#[derive(Args)]
pub struct Remix {
    /// Audio file that Graft would sit on; by default it gives the harmony
    main: PathBuf,
    /// Audio file on the sidechain; by default it gives the rhythm
    sidechain: PathBuf,
    /// WAV file to write
    #[arg(short, long, value_name = "OUT.wav")]
    output: PathBuf,
    /// Where the harmony comes from: 0 = MAIN, 1 = SIDECHAIN, or in between
    #[arg(long, default_value_t = 0.0, value_parser = share, allow_negative_numbers = true)]
    harmony: f32,
    /// Where the rhythm comes from: 0 = MAIN, 1 = SIDECHAIN, or in between
    #[arg(long, default_value_t = 1.0, value_parser = share, allow_negative_numbers = true)]
    rhythm: f32,
    /// Model file to use instead of the built-in one
    #[arg(long, conflicts_with = "host")]
    model: Option<PathBuf>,
    /// What turns the remixed spectrogram into sound
    #[arg(long, value_enum, default_value_t = SoundSource::Guided)]
    voice: SoundSource,
    /// Semitones to shift the harmony by
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    transpose: i32,
    /// How much of the future the remix waits for, in the plugin and without it
    #[arg(long, value_parser = arguments::latency(), default_value = "full")]
    latency: LatencyMode,
    /// Remix only the first S seconds of MAIN
    #[arg(long, value_name = "S", value_parser = above_zero, allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// Also draw the spectrograms of MAIN, SIDECHAIN and the remix
    #[arg(long, value_name = "OUT.png")]
    plot: Option<PathBuf>,
    /// Run the plugin itself, the CLAP, in a host without a window; the latency that it reports is
    /// taken off, so that the remix lines up with MAIN
    #[arg(long)]
    host: bool,
    /// Samples in each block of the host
    #[arg(long, value_name = "N", default_value_t = 512, requires = "host",
          value_parser = clap::value_parser!(u32).range(1..=65536))]
    block: u32,
    /// Sample rate of the host and the remix, in Hz; by default MAIN's
    #[arg(long, value_name = "HZ", requires = "host",
          value_parser = clap::value_parser!(u32).range(8_000..=192_000))]
    rate: Option<u32>,
    /// Tell the plugin that the host renders offline
    #[arg(long, requires = "host")]
    offline: bool,
}

/// What makes the sound, by its name on the command line: an end of the knob Voice, or a voice that the plugin does not have.
#[derive(Clone, Copy, ValueEnum)]
enum SoundSource {
    /// Filters the sound of both inputs; needs no training
    Guided,
    /// The model's HiFi-GAN generator makes it anew; not with the latency live
    HifiGan,
    /// Finds phases for the spectrogram; mono and metallic, a reference
    GriffinLim,
}

impl SoundSource {
    /// The voice of a whole clip.
    fn voice(self) -> Voice {
        match self {
            // The plugin's, which its knob turns from the one to the other.
            Self::Guided | Self::HifiGan => Voice::Guided,
            Self::GriffinLim => Voice::GriffinLim,
        }
    }

    /// Where the knob Voice stands.
    fn knob(self) -> f32 {
        f32::from(matches!(self, Self::HifiGan))
    }
}

impl Remix {
    /// Reads, remixes, writes, and says how long it took.
    pub fn run(self) -> Result<()> {
        check_output(&self.output, "wav")?;
        if let Some(plot) = &self.plot {
            check_output(plot, "png")?;
        }
        ensure!(
            !(self.host && matches!(self.voice, SoundSource::GriffinLim)),
            "--voice: expected guided or hifi-gan, which the plugin has, found griffin-lim"
        );
        ensure!(
            self.latency.has_generated_voice() || !matches!(self.voice, SoundSource::HifiGan),
            "--voice: expected guided, or griffin-lim without --host, with --latency live, found hifi-gan"
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
        // First what can fail for reasons of its own, such as a clip too short for a picture.
        if let Some(path) = &self.plot {
            plot::plot_remix(path, [&main, &sidechain, &remix])?;
            println!("{}", path.display());
        }
        audio_file::write_wav(&self.output, &remix, WavFormat::Float32)?;
        println!("{}", self.output.display());
        Ok(())
    }

    /// The whole clips at once, without the plugin.
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

    /// Block by block, through the plugin.
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
        println!("latency {}, taken off", rendered.latency());
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

/// Reads a clip that Graft can take.
fn read(path: &Path) -> Result<AudioClip> {
    let clip = audio_file::read(path)?;
    ensure!(
        matches!(clip.channels.len(), 1 | 2),
        "cannot remix {}: expected 1 or 2 channels, found {}",
        path.display(),
        clip.channels.len()
    );
    Ok(clip)
}

/// Cuts the clip, or follows it with silence, to last `seconds`.
fn set_length(clip: &mut AudioClip, seconds: f64) {
    let samples = (seconds * f64::from(clip.sample_rate_hz)).round() as usize;
    for channel in &mut clip.channels {
        channel.resize(samples, 0.0);
    }
}

/// Finds out before the work whether the result can be written.
fn check_output(path: &Path, extension: &str) -> Result<()> {
    ensure!(
        path.extension()
            .is_some_and(|found| found.eq_ignore_ascii_case(extension)),
        "cannot write {}: expected a name that ends in .{extension}",
        path.display()
    );
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    ensure!(
        folder.is_none_or(Path::is_dir),
        "cannot write {}: there is no such folder",
        path.display()
    );
    ensure!(
        !path.is_dir(),
        "cannot write {}: it is a folder",
        path.display()
    );
    Ok(())
}

/// A share of the sidechain, from 0 to 1.
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
