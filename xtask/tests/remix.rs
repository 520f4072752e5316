//! `cargo xtask remix` as a user runs it: as a program.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use graft_material::audio_file;
use graft_material::audio_writer::{WavFormat, write_wav};
use graft_material::testing::TestFolder;
use model_runtime::AudioClip;

const RATE_HZ: u32 = 22_050;

/// A chord with a beat every `beat_samples`, and silence between the beats.
fn beats(samples: usize, beat_samples: usize, frequency_hz: f32) -> Vec<f32> {
    let sample = |n: usize| {
        let seconds = n as f32 / RATE_HZ as f32;
        let since_beat = (n % beat_samples) as f32 / beat_samples as f32;
        let phase = std::f32::consts::TAU * frequency_hz * seconds;
        0.3 * (phase.sin() + (1.5 * phase).sin()) * (1.0 - since_beat).powi(4)
    };
    (0..samples).map(sample).collect()
}

fn clip(seconds: f64, channels: usize) -> AudioClip {
    let samples = (seconds * f64::from(RATE_HZ)) as usize;
    AudioClip {
        sample_rate_hz: RATE_HZ,
        channels: vec![beats(samples, 22_050, 220.0); channels],
    }
}

fn sidechain(seconds: f64) -> AudioClip {
    let samples = (seconds * f64::from(RATE_HZ)) as usize;
    AudioClip {
        sample_rate_hz: RATE_HZ,
        channels: vec![beats(samples, 5000, 90.0)],
    }
}

/// A folder with `main.wav`, mono, and `sidechain.wav`.
struct Files(TestFolder);

impl Files {
    fn new(name: &str) -> Self {
        let files = Self(TestFolder::new(&format!("remix_{name}")));
        files.write("main.wav", &clip(1.0, 1));
        files.write("sidechain.wav", &sidechain(1.0));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, clip: &AudioClip) {
        write_wav(&self.path(name), clip, WavFormat::Pcm16).unwrap();
    }

    /// Everything in a folder, in order.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("remix").args(arguments);
        command.current_dir(self.0.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that succeeds.
    fn remix(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        output
    }

    /// Runs a command that fails, and returns its message.
    fn error(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        stderr(&output)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Format tag, channels and bits of a WAV file.
fn wav_format(bytes: &[u8]) -> [u16; 3] {
    let fmt = bytes.windows(4).position(|id| id == b"fmt ").unwrap() + 8;
    [0, 2, 14].map(|field| u16::from_le_bytes([bytes[fmt + field], bytes[fmt + field + 1]]))
}

#[test]
fn every_format_has_the_length_of_main_and_mono_is_plain() {
    let files = Files::new("formats");
    for (format, name, expected) in [
        ("wav-float", "x.wav", Some([3, 1, 32])),
        ("wav16", "x.wav", Some([1, 1, 16])),
        ("wav24", "x.wav", Some([1, 1, 24])),
        ("flac16", "x.flac", None),
        ("flac24", "x.flac", None),
    ] {
        let arguments = ["main.wav", "sidechain.wav", "-o", name, "--format", format];
        let output = files.remix(&arguments);
        assert!(
            String::from_utf8(output.stdout).unwrap().starts_with(name),
            "{format}"
        );
        let recording = audio_file::read(&files.path(name)).unwrap();
        assert!(recording.warnings.is_empty(), "{:?}", recording.warnings);
        assert_eq!(recording.clip.channels.len(), 1, "{format}");
        assert_eq!(recording.clip.channels[0].len(), RATE_HZ as usize);
        let bytes = fs::read(files.path(name)).unwrap();
        match expected {
            Some(expected) => assert_eq!(wav_format(&bytes), expected, "{format}"),
            None => assert_eq!(&bytes[..4], b"fLaC", "{format}"),
        }
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_any_work() {
    let files = Files::new("refused");
    let before = fs::read(files.path("main.wav")).unwrap();
    let long = format!("{}.wav", "n".repeat(300));
    // Windows calls it a wrong name.
    let too_long = if cfg!(windows) { &long } else { "too long" };
    fs::create_dir(files.path("a")).unwrap();
    fs::create_dir(files.path("b")).unwrap();
    fs::copy(files.path("main.wav"), files.path("a/x.wav")).unwrap();
    fs::copy(files.path("main.wav"), files.path("b/x.flac")).unwrap();
    let names = files.names(".");
    let pair = ["main.wav", "sidechain.wav"];
    for (arguments, reasons) in [
        (vec!["-o", "main.wav"], vec!["it is the input main.wav"]),
        (
            vec!["-o", "./a/../sidechain.wav"],
            vec!["it is the input sidechain.wav"],
        ),
        (vec!["--out-dir", "."], vec!["it is the input main.wav"]),
        (vec!["-o", &long], vec![&long, too_long]),
        (vec!["-o", "no/such/x.wav"], vec!["folder does not exist"]),
        (vec!["-o", "x.mp3"], vec![".wav or .flac"]),
        (
            vec!["-o", "x.flac", "--format", "wav16"],
            vec!["x.flac", "end in .wav"],
        ),
        (
            vec!["-o", "x.wav", "--plot", "x.jpg"],
            vec!["x.jpg", "end in .png"],
        ),
        (
            vec!["-o", "-", "--format", "flac16"],
            vec!["-o - writes WAV"],
        ),
        (
            vec!["-o", "x.wav", "--host", "--plugin", "gone.clap"],
            vec!["no plugin at", "gone.clap"],
        ),
    ] {
        let message = files.error(&[&pair[..], &arguments].concat());
        for reason in reasons {
            assert!(message.contains(reason), "{arguments:?}: {message}");
        }
    }
    let message = files.error(&["a", "b", "sidechain.wav", "--out-dir", "new"]);
    for main in [Path::new("a").join("x.wav"), Path::new("b").join("x.flac")] {
        let main = main.display().to_string();
        assert!(message.contains(&main), "{message}");
    }
    let message = files.error(&["a", "sidechain.wav", "-o", "x.wav"]);
    assert!(message.contains("--out-dir"), "{message}");
    assert_eq!(fs::read(files.path("main.wav")).unwrap(), before);
    assert_eq!(files.names("."), names);
}

#[cfg(unix)]
#[test]
fn links_to_inputs_are_refused_and_links_to_outputs_followed() {
    use std::os::unix::fs::symlink;
    let files = Files::new("links");
    symlink("main.wav", files.path("soft.wav")).unwrap();
    fs::hard_link(files.path("main.wav"), files.path("hard.wav")).unwrap();
    symlink("main.wav", files.path("picture.png")).unwrap();
    for output in [
        vec!["-o", "soft.wav"],
        vec!["-o", "hard.wav"],
        vec!["-o", "x.wav", "--plot", "picture.png"],
    ] {
        let message = files.error(&[&["main.wav", "sidechain.wav"], &output[..]].concat());
        assert!(message.contains("it is the input main.wav"), "{message}");
    }

    fs::create_dir(files.path("elsewhere")).unwrap();
    symlink("elsewhere/target.wav", files.path("link.wav")).unwrap();
    files.remix(&["main.wav", "sidechain.wav", "-o", "link.wav"]);
    assert!(files.path("link.wav").is_symlink());
    assert_eq!(files.names("elsewhere"), ["target.wav"]);
}

#[test]
fn standard_output_carries_the_remix_and_nothing_else() {
    let files = Files::new("stdout");
    files.remix(&["main.wav", "sidechain.wav", "-o", "file.wav"]);
    let output = files.remix(&["main.wav", "sidechain.wav", "-o", "-"]);
    assert!(stderr(&output).contains("real-time factor"));
    // A pipe has no sizes: the riff's, the fact chunk's and the samples'.
    assert_eq!(output.stdout[4..8], [0xff; 4]);
    let start = output.stdout.len() - 4 * RATE_HZ as usize;
    assert_eq!(output.stdout[start - 8..start], *b"data\xff\xff\xff\xff");
    let file = fs::read(files.path("file.wav")).unwrap();
    assert!(output.stdout[start..] == file[file.len() - 4 * RATE_HZ as usize..]);
}

#[test]
fn a_closed_pipe_ends_the_command_with_a_plain_message() {
    let files = Files::new("closed");
    files.write("long.wav", &clip(10.0, 2));
    let mut command = files.command(&["long.wav", "sidechain.wav", "-o", "-"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_exact(&mut [0; 100]).unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let message = stderr(&output);
    assert!(message.contains("standard output"), "{message}");
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn a_batch_goes_on_after_a_file_that_fails() {
    let files = Files::new("batch");
    fs::create_dir(files.path("songs")).unwrap();
    for name in ["songs/a.wav", "songs/c.wav", "songs/.hidden.wav"] {
        files.write(name, &clip(0.5, 1));
    }
    fs::write(files.path("songs/b.wav"), b"not audio").unwrap();
    fs::write(files.path("songs/notes.txt"), b"text").unwrap();
    let arguments = ["songs", "main.wav", "sidechain.wav", "--out-dir", "out"];
    let output = files.run(&arguments);
    assert!(!output.status.success());
    let message = stderr(&output);
    let lines: Vec<_> = message.lines().collect();
    let b = Path::new("songs").join("b.wav").display().to_string();
    assert!(
        lines[0].starts_with(&format!("error: cannot remix {b}")),
        "{message}"
    );
    let last = lines.last().unwrap();
    assert_eq!(*last, format!("error: 1 of 4 files failed: {b}"));
    assert_eq!(files.names("out"), ["a.wav", "c.wav", "main.wav"]);
    for name in ["out/a.wav", "out/c.wav"] {
        let remix = audio_file::read(&files.path(name)).unwrap().clip;
        assert_eq!(remix.channels[0].len(), RATE_HZ as usize / 2);
    }
}

#[test]
fn clipped_samples_are_counted() {
    let files = Files::new("clipped");
    // Without a sidechain, the main input plays unchanged.
    let mut silence = sidechain(1.0);
    silence.channels[0].fill(0.0);
    files.write("silence.wav", &silence);
    let mut loud = clip(1.0, 1);
    for sample in &mut loud.channels[0] {
        *sample *= 4.0;
    }
    write_wav(&files.path("loud.wav"), &loud, WavFormat::Float32).unwrap();
    let clipped = loud.channels[0].iter().filter(|sample| sample.abs() > 1.0);
    let warning = format!("warning: x.wav: clipped {} samples", clipped.count());
    for (format, expected) in [("wav16", true), ("wav24", true), ("wav-float", false)] {
        let arguments = ["loud.wav", "silence.wav", "-o", "x.wav", "--format", format];
        let message = stderr(&files.remix(&arguments));
        assert_eq!(message.contains(&warning), expected, "{format}: {message}");
    }
}

#[test]
fn a_short_sidechain_loops_unless_told_otherwise() {
    let files = Files::new("loop");
    files.write("long.wav", &clip(9.0, 1));
    let mut looped = sidechain(1.0);
    let once = looped.channels[0].clone();
    looped.channels[0] = once.iter().copied().cycle().take(9 * once.len()).collect();
    files.write("looped.wav", &looped);

    let output = files.remix(&["long.wav", "sidechain.wav", "-o", "x.wav"]);
    let message = stderr(&output);
    assert!(message.contains("sidechain loops every 1.0 s"), "{message}");
    let output = files.remix(&["long.wav", "looped.wav", "-o", "expected.wav"]);
    assert!(!stderr(&output).contains("loops"));
    let read = |name: &str| audio_file::read(&files.path(name)).unwrap().clip;
    assert!(read("x.wav") == read("expected.wav"));

    let output = files.remix(&["long.wav", "sidechain.wav", "-o", "y.wav", "--no-loop"]);
    assert!(!stderr(&output).contains("loops"));
    let (main, remix) = (read("long.wav"), read("y.wav"));
    let last_second = 8 * RATE_HZ as usize..;
    assert!(
        main.channels[0][last_second.clone()] == remix.channels[0][last_second],
        "where the sidechain is missing, the main input plays"
    );
}

/// Commands that are ended by a signal.
#[cfg(unix)]
mod ended {
    use std::ffi::OsStr;
    use std::time::{Duration, Instant};

    use super::*;

    fn is_part(name: &str) -> bool {
        name.starts_with(".part-")
    }

    /// Kills a batch when two of its files are finished.
    fn kill_half_way(files: &Files, signal: &str) {
        let arguments = ["songs", "sidechain.wav", "--out-dir", "out"];
        let mut command = files.command(&arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let start = Instant::now();
        let is_half_way = || {
            let names = files.path("out").is_dir().then(|| files.names("out"));
            let (parts, finished): (Vec<_>, Vec<_>) = names
                .unwrap_or_default()
                .into_iter()
                .partition(|name| is_part(name));
            finished.len() >= 2 && !parts.is_empty()
        };
        while !is_half_way() {
            assert!(start.elapsed() < Duration::from_secs(60));
            assert!(child.try_wait().unwrap().is_none(), "too early to be done");
            std::thread::sleep(Duration::from_millis(2));
        }
        let id = child.id().to_string();
        let killed = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(killed.success());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_killed_batch_leaves_whole_files() {
        let files = Files::new("kill");
        fs::create_dir(files.path("songs")).unwrap();
        let song = clip(3.0, 2);
        for number in 0..8 {
            files.write(&format!("songs/{number}.wav"), &song);
        }
        for signal in ["-TERM", "-INT", "-KILL"] {
            let _ = fs::remove_dir_all(files.path("out"));
            kill_half_way(&files, signal);
            let names = files.names("out");
            let (parts, finished): (Vec<_>, Vec<_>) = names.iter().partition(|name| is_part(name));
            assert_eq!(parts.len(), usize::from(signal == "-KILL"), "{signal}");
            assert!(finished.len() < 8, "{signal}: too late");
            for name in finished {
                let path = files.path("out").join(name);
                assert_eq!(path.extension(), Some(OsStr::new("wav")));
                let recording = audio_file::read(&path).unwrap();
                assert_eq!(recording.warnings, [""; 0]);
                assert_eq!(recording.clip.channels[0].len(), song.channels[0].len());
            }
        }
        // What SIGKILL left is removed by the next run.
        files.remix(&["songs", "sidechain.wav", "--out-dir", "out"]);
        let expected: Vec<_> = (0..8).map(|number| format!("{number}.wav")).collect();
        assert_eq!(files.names("out"), expected);
    }
}
