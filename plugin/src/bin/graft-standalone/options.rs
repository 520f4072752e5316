//! The command line, and what it means for nice-plug's audio backends.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use model_runtime::LatencyMode;

/// Graft without a DAW
///
/// Plays two WAV files in a loop, as main input and sidechain; without files, the demo that is installed with the program.
/// With --live, the main input is that of the audio device, and the file is the sidechain; use headphones, or the output
/// may come back through the input. Press Enter on each beat to tap the tempo.
#[derive(Parser)]
#[command(name = "graft-standalone", version)]
pub struct Options {
    /// WAV files: main input and sidechain, or with --live the sidechain
    files: Vec<PathBuf>,
    /// Take the main input from the audio device
    #[arg(long)]
    live: bool,
    /// Take the sidechain from JACK as well: from the ports sidechain_input_1 and sidechain_input_2
    #[arg(long, requires = "live")]
    sidechain_input: bool,
    /// Measure the round trip through the audio device: after 3 s, plays noise for a tenth of a second and listens for it
    #[arg(long, requires = "live")]
    pub measure: bool,
    /// Latency mode [default: live with --live]
    #[arg(long)]
    latency: Option<Mode>,
    /// Tempo in BPM [default: 120, or that of the demo]
    #[arg(long, value_name = "BPM")]
    tempo: Option<f32>,
    /// Audio system: auto, jack, alsa, core-audio, wasapi or dummy; auto prefers JACK
    #[arg(long, default_value = AUTO)]
    backend: String,
    /// Input device or, with JACK, the ports to connect, separated by a comma; an unknown name lists the devices
    #[arg(long, value_name = "DEVICE", requires = "live")]
    input: Option<String>,
    /// Output device; an unknown name lists the devices
    #[arg(long, value_name = "DEVICE")]
    output: Option<String>,
    /// Sample rate in Hz; JACK has its own
    #[arg(long, value_name = "HZ", default_value_t = 48_000)]
    rate: u32,
    /// Samples in each block; JACK has its own
    #[arg(long, value_name = "SAMPLES", default_value_t = 256)]
    block: u32,
}

const AUTO: &str = "auto";
const JACK: &str = "jack";

/// JACK's names of the first inputs of the audio device.
const JACK_INPUTS: &str = "system:capture_1,system:capture_2";

/// Name of the input device that the system prefers.
const DEFAULT_DEVICE: &str = "Default Audio Device";

/// Between input and output stream of a device, in blocks: one that arrives, one that is played.
const DEVICE_BLOCKS: f32 = 2.0;
/// And what the device may be late.
const DEVICE_JITTER_SECONDS: f32 = 0.004;

const TWO_FILES: &str = "two WAV files (main input and sidechain)";
const ONE_FILE: &str = "a WAV file for the sidechain, or --sidechain-input";

/// Tempo of the demo.
const DEMO_BPM: f32 = 130.0;
/// Tempo of unknown files.
const USUAL_BPM: f32 = 120.0;

/// The files of the demo, main input and sidechain, if they are installed with this program: in `share/` beside the folder
/// of the program.
fn demo() -> [Option<PathBuf>; 2] {
    let program = std::env::current_exe().ok();
    let prefix = program
        .as_deref()
        .and_then(Path::parent)
        .and_then(Path::parent);
    ["harmony.wav", "rhythm.wav"].map(|name| {
        let file = prefix?.join("share/graft/demo").join(name);
        file.is_file().then_some(file)
    })
}

/// [`LatencyMode`] on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Live,
    Default,
    Full,
}

impl Options {
    /// The files of the main input and the sidechain; none where the input is that of the audio device.
    pub fn files(&self) -> Result<[Option<PathBuf>; 2], String> {
        let [demo_main, demo_sidechain] = demo();
        let (files, expected) = match (self.live, self.sidechain_input, &self.files[..]) {
            (false, _, []) => ([demo_main, demo_sidechain], TWO_FILES),
            (false, _, [main, sidechain]) => {
                ([Some(main.clone()), Some(sidechain.clone())], TWO_FILES)
            }
            (true, false, []) => ([None, demo_sidechain], ONE_FILE),
            (true, false, [sidechain]) => ([None, Some(sidechain.clone())], ONE_FILE),
            (true, true, []) => return Ok([None, None]),
            (live, sidechain_input, files) => {
                let expected = match (live, sidechain_input) {
                    (false, _) => TWO_FILES,
                    (true, false) => ONE_FILE,
                    (true, true) => "no file with --sidechain-input",
                };
                return Err(format!("expected {expected}, found {}", files.len()));
            }
        };
        match files[1] {
            Some(_) => Ok(files),
            None => Err(format!("expected {expected}, found none")),
        }
    }

    /// The tempo in BPM.
    fn tempo_bpm(&self) -> f32 {
        let is_demo = self.files.is_empty() && !self.sidechain_input;
        let usual = if is_demo { DEMO_BPM } else { USUAL_BPM };
        self.tempo.unwrap_or(usual)
    }

    /// The latency mode.
    pub fn mode(&self) -> LatencyMode {
        match (self.latency, self.live) {
            (Some(Mode::Live), _) | (None, true) => LatencyMode::Live,
            (Some(Mode::Default), _) | (None, false) => LatencyMode::Default,
            (Some(Mode::Full), _) => LatencyMode::Full,
        }
    }
}

/// Where the sound goes.
pub struct AudioSystem {
    /// Whether it is JACK.
    is_jack: bool,
    /// Sample rate.
    pub rate_hz: u32,
    /// Samples in each block.
    block_samples: u32,
}

impl AudioSystem {
    /// Finds out whether JACK runs, and its sample rate and block size: nice-plug would assume those of the options.
    pub fn find(options: &Options) -> Result<Self, String> {
        let server = match &*options.backend {
            AUTO | JACK => {
                jack::Client::new("graft-query", jack::ClientOptions::NO_START_SERVER).ok()
            }
            _ => None,
        };
        match server {
            Some((client, _)) => Ok(Self {
                is_jack: true,
                rate_hz: client.sample_rate(),
                block_samples: client.buffer_size(),
            }),
            None if options.backend == JACK || options.sidechain_input => {
                Err("expected a running JACK server, found none".into())
            }
            None => Ok(Self {
                is_jack: false,
                rate_hz: options.rate,
                block_samples: options.block,
            }),
        }
    }

    /// The arguments for nice-plug, with the name of the program.
    pub fn arguments(&self, options: &Options) -> Vec<String> {
        let backend = if self.is_jack { JACK } else { &options.backend };
        let mut arguments = vec![
            "graft-standalone".into(),
            format!("--backend={backend}"),
            format!("--sample-rate={}", self.rate_hz),
            format!("--period-size={}", self.block_samples),
            format!("--tempo={}", options.tempo_bpm()),
        ];
        if let Some(device) = &options.output {
            arguments.push(format!("--output-device={device}"));
        }
        if options.live {
            let (option, usual) = match self.is_jack {
                true => ("connect-jack-inputs", JACK_INPUTS),
                false => ("input-device", DEFAULT_DEVICE),
            };
            let input = options.input.as_deref().unwrap_or(usual);
            arguments.push(format!("--{option}={input}"));
            let blocks_seconds = DEVICE_BLOCKS * self.block_samples as f32 / self.rate_hz as f32;
            let latency_seconds = blocks_seconds + DEVICE_JITTER_SECONDS;
            arguments.push(format!("--input-latency={latency_seconds}"));
            arguments.push(format!("--input-capacity={}", 4.0 * latency_seconds));
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn options(arguments: &[&str]) -> Options {
        Options::parse_from(std::iter::once(&"graft-standalone").chain(arguments))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn files_go_where_no_live_input_is() {
        let files = |arguments: &[&str]| options(arguments).files();
        let [a, b] = ["a.wav", "b.wav"].map(|name| Some(PathBuf::from(name)));
        assert_eq!(files(&["a.wav", "b.wav"]), Ok([a, b.clone()]));
        assert_eq!(files(&["--live", "b.wav"]), Ok([None, b]));
        assert_eq!(files(&["--live", "--sidechain-input"]), Ok([None, None]));
        for wrong in [
            &["a.wav"][..],
            &["--live"],
            &["--live", "a.wav", "b.wav"],
            &["--live", "--sidechain-input", "b.wav"],
        ] {
            let error = files(wrong).expect_err("the wrong number of files");
            assert!(error.contains("found"), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn a_live_input_gets_the_mode_live_and_a_device() {
        let device = AudioSystem {
            is_jack: false,
            rate_hz: 48_000,
            block_samples: 64,
        };
        let live = options(&["--live", "b.wav"]);
        assert_eq!(live.mode(), LatencyMode::Live);
        let arguments = device.arguments(&live).join(" ");
        assert!(
            arguments.contains("--input-device=Default Audio Device"),
            "{arguments}"
        );

        let files = options(&["a.wav", "b.wav"]);
        assert_eq!(files.mode(), LatencyMode::Default);
        assert!(!device.arguments(&files).join(" ").contains("--input"));
    }
}
