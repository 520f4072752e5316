//! `cargo xtask translate` as a user runs it: as a program.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use graft_material::audio_file::{self, Recording};
use graft_material::audio_writer::{WavFormat, write_wav};
use graft_material::testing::{TestFolder, small_instruments};
use model_runtime::AudioClip;

/// Notes with pauses between them.
fn melody(rate_hz: u32, samples: usize, channels: usize, amplitude: f32) -> AudioClip {
    let sample = |n: usize| {
        let seconds = n as f32 / rate_hz as f32;
        let note = (seconds / 0.4) as u32;
        let hz = 220.0 * 2f32.powf((note * 5 % 12) as f32 / 12.0);
        let decay = (-4.0 * (seconds % 0.4)).exp();
        let partial = |k: f32| (std::f32::consts::TAU * k * hz * seconds).sin() / k;
        amplitude * decay * (partial(1.0) + partial(2.0) + partial(3.0))
    };
    AudioClip {
        sample_rate_hz: rate_hz,
        channels: vec![(0..samples).map(sample).collect(); channels],
    }
}

/// A folder with a model of two instruments, `m.safetensors`, and a melody of two seconds, `in.wav`.
struct Files(TestFolder);

impl Files {
    fn new(name: &str) -> Self {
        let files = Self(TestFolder::new(&format!("translate_{name}")));
        let model = small_instruments(&["Violin", "Acoustic Grand Piano"]);
        fs::write(files.path("m.safetensors"), model).unwrap();
        files.write("in.wav", &melody(22_050, 44_100, 1, 0.2));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, clip: &AudioClip) {
        write_wav(&self.path(name), clip, WavFormat::Float32).unwrap();
    }

    fn read(&self, name: &str) -> AudioClip {
        let Recording { clip, warnings } = audio_file::read(&self.path(name)).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        clip
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("translate").args(arguments);
        command.current_dir(self.0.path()).output().unwrap()
    }

    /// Runs a command that succeeds, with the model. Returns what it prints.
    fn translate(&self, arguments: &[&str]) -> String {
        let output = self.run(&[arguments, &["--model", "m.safetensors"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout.clone()).unwrap() + &stderr(&output)
    }

    /// Runs a command that fails, with the model. Returns its message.
    fn error(&self, arguments: &[&str]) -> String {
        let output = self.run(&[arguments, &["--model", "m.safetensors"]].concat());
        assert!(!output.status.success(), "{arguments:?}");
        stderr(&output)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn level_db(clip: &AudioClip) -> f32 {
    let mono = audio_file::mono(clip);
    let energy: f32 = mono.iter().map(|sample| sample * sample).sum();
    10.0 * (energy / mono.len() as f32).log10()
}

#[test]
fn a_translation_has_rate_channels_length_and_level_of_the_recording() {
    let files = Files::new("whole");
    for (rate_hz, samples, channels, voice) in [
        (22_050, 1000, 1, "guided"),
        (44_100, 100_001, 2, "guided"),
        (96_000, 50_000, 1, "guided"),
        (48_000, 60_000, 2, "generated"),
    ] {
        let input = melody(rate_hz, samples, channels, 0.1);
        files.write("in.wav", &input);
        for target in [["--to", "violin"], ["--like", "in.wav"]] {
            let said = files
                .translate(&[&["in.wav", "-o", "out.wav", "--voice", voice][..], &target].concat());
            assert!(said.starts_with("out.wav"), "{said}");
            let output = files.read("out.wav");
            assert_eq!(output.sample_rate_hz, rate_hz);
            assert_eq!(output.channels.len(), channels);
            assert_eq!(output.channels[0].len(), samples, "{rate_hz} Hz, {voice}");
            assert_ne!(output.channels[0], input.channels[0]);
            // Loudness counts frequencies in another way than the level does.
            let difference = level_db(&output) - level_db(&input);
            assert!(
                difference.abs() < 5.0,
                "{rate_hz} Hz, {voice}: {difference} dB"
            );
        }
    }
    let names = ["in.wav", "m.safetensors", "out.wav"];
    assert_eq!(files.names(), names);
    files.translate(&["in.wav", "--to", "Violin", "-o", "out.flac"]);
    assert!(
        fs::read(files.path("out.flac"))
            .unwrap()
            .starts_with(b"fLaC")
    );
}

#[test]
fn a_louder_recording_gives_a_louder_translation_up_to_full_scale() {
    let files = Files::new("level");
    let mut outputs = Vec::new();
    for amplitude in [0.02, 0.04, 0.5] {
        files.write("in.wav", &melody(22_050, 66_150, 1, amplitude));
        let said = files.translate(&["in.wav", "--to", "Violin", "-o", "out.wav"]);
        outputs.push((files.read("out.wav"), said));
    }
    let [(soft, _), (loud, _), (loudest, _)] = &outputs[..] else {
        unreachable!("there are three");
    };
    let difference = level_db(loud) - level_db(soft);
    assert!((difference - 6.02).abs() < 0.1, "{difference} dB");
    for ((output, said), amplitude) in outputs.iter().zip([0.02, 0.04, 0.5]) {
        let peak = |clip: &AudioClip| {
            clip.channels[0]
                .iter()
                .fold(0f32, |peak, x| peak.max(x.abs()))
        };
        let input = peak(&melody(22_050, 66_150, 1, amplitude));
        assert!(
            peak(output) <= input.max(1.0) + 1e-4,
            "{} {said}",
            peak(output)
        );
        let is_softer = said.contains("softer than in.wav, so that nothing clips");
        assert_eq!(is_softer, peak(output) > 0.99 * input.max(1.0), "{said}");
    }
    assert!(level_db(loudest) > level_db(loud));
}

#[test]
fn a_list_names_the_instruments() {
    let files = Files::new("list");
    assert_eq!(
        files.translate(&["--list"]),
        "Violin\nAcoustic Grand Piano\n"
    );
}

#[test]
fn what_cannot_be_translated_is_refused_with_a_reason() {
    let files = Files::new("refused");
    let silence = AudioClip {
        sample_rate_hz: 22_050,
        channels: vec![vec![1e-4; 22_050]],
    };
    files.write("silence.wav", &silence);
    files.write("short.wav", &melody(22_050, 400, 1, 0.5));
    let empty = AudioClip {
        channels: vec![Vec::new()],
        ..silence
    };
    files.write("empty.wav", &empty);
    fs::write(files.path("text.wav"), "no sound").unwrap();
    fs::create_dir(files.path("folder")).unwrap();
    fs::create_dir(files.path("folder.wav")).unwrap();
    let before = files.names();

    let to = ["--to", "violin", "-o", "out.wav"];
    let of = |input| [&[input][..], &to].concat();
    let cases: [(Vec<&str>, &[&str]); 15] = [
        (
            vec!["in.wav", "--to", "Vioin", "-o", "out.wav"],
            &[
                "\"Vioin\"",
                "nearest is \"Violin\"",
                "--list",
                "m.safetensors",
            ],
        ),
        (
            vec!["in.wav", "--to", "piano", "-o", "out.wav"],
            &["\"Acoustic Grand Piano\""],
        ),
        (
            vec!["in.wav", "-o", "out.wav"],
            &["--to INSTRUMENT", "--like FILE"],
        ),
        (
            vec![
                "in.wav", "--to", "violin", "--like", "in.wav", "-o", "out.wav",
            ],
            &["--to", "--like", "cannot be used"],
        ),
        (vec!["--to", "violin", "-o", "out.wav"], &["INPUT"]),
        (vec!["in.wav", "--to", "violin"], &["--output"]),
        (of("silence.wav"), &["silence.wav", "silent"]),
        (of("short.wav"), &["short.wav", "at least 23 ms"]),
        (of("empty.wav"), &["empty.wav", "no samples"]),
        (of("text.wav"), &["text.wav"]),
        (of("missing.wav"), &["missing.wav"]),
        (
            of("folder"),
            &["expected a recording, found the folder folder"],
        ),
        (
            vec!["in.wav", "--like", "silence.wav", "-o", "out.wav"],
            &["silence.wav", "silent"],
        ),
        (
            vec!["in.wav", "--to", "violin", "-o", "folder.wav"],
            &["folder.wav", "it is a folder"],
        ),
        (
            vec!["in.wav", "--to", "violin", "-o", "out.mp3"],
            &["out.mp3", ".wav or .flac"],
        ),
    ];
    for (arguments, words) in cases {
        let message = files.error(&arguments);
        for word in words {
            assert!(message.contains(word), "{arguments:?}: {message}");
        }
    }
    let message = files.error(&["in.wav", "--to", "violin", "-o", "in.wav"]);
    assert!(message.contains("it is the input in.wav"), "{message}");
    let message = files.error(&[
        "in.wav",
        "--like",
        "in.wav",
        "-o",
        "m.safetensors.wav",
        "--list",
    ]);
    assert!(message.contains("--list"), "{message}");
    assert_eq!(files.names(), before);
}

#[test]
fn a_model_of_the_plugin_is_refused_by_what_it_is_for() {
    let files = Files::new("kind");
    let built_in = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/graft.safetensors");
    let to = ["in.wav", "--to", "violin", "-o", "out.wav", "--model"];
    let message = stderr(&files.run(&[&to[..], &[built_in]].concat()));
    for words in [
        "graft.safetensors",
        "expected a model of instruments",
        "for the plugin",
    ] {
        assert!(message.contains(words), "{message}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args([
            "remix",
            "in.wav",
            "in.wav",
            "-o",
            "out.wav",
            "--model",
            "m.safetensors",
        ])
        .current_dir(files.0.path())
        .output()
        .unwrap();
    let message = stderr(&output);
    for words in [
        "m.safetensors",
        "found a model of instruments, for cargo xtask translate",
    ] {
        assert!(message.contains(words), "{message}");
    }
}
