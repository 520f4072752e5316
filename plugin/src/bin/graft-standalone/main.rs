//! Graft without a DAW: plays two files, or a live input and a file, through the plugin. Without a sound card it runs
//! silently.

mod clip;
mod options;
mod player;

use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser as _;
use graft::standalone::beats::{TapTempo, Taps};
use graft::standalone::round_trip::{self, Probe};
use nice_plug::prelude::nice_export_standalone_with_args;

use clip::Clip;
use options::{AudioSystem, Options};
use player::{Player, Session};

/// How often the program looks whether the measurement is done.
const POLL: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays until the window is closed. Returns whether that went well; if not, nice-plug has said why.
fn run(options: &Options) -> Result<bool, String> {
    let [main, sidechain] = options.files()?;
    let audio_system = AudioSystem::find(options)?;
    let read = |file: Option<PathBuf>| file.as_deref().map(Clip::read).transpose();
    let session = Session {
        clips: [read(main)?, read(sidechain)?],
        mode: options.mode(),
        taps: Arc::default(),
        probe: options.measure.then(Probe::default).map(Arc::new),
        latency_samples: Arc::default(),
    };
    listen_for_taps(Arc::clone(&session.taps));
    if let Some(probe) = session.probe.clone() {
        report_round_trip(probe, &session, audio_system.rate_hz);
    }
    player::start(session);
    let arguments = audio_system.arguments(options);
    Ok(nice_export_standalone_with_args::<Player, _>(arguments))
}

/// Starts a thread on which every line of the standard input is a tap on the beat.
fn listen_for_taps(taps: Arc<Taps>) {
    eprintln!("Press Enter on each beat to tap the tempo.");
    std::thread::spawn(move || {
        let mut tempo = TapTempo::default();
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Some(bpm) = tempo.tap(Instant::now()) {
                taps.publish(bpm);
                eprintln!("{bpm:.1} BPM");
            }
        }
    });
}

/// Starts a thread that reports the round trip when it is measured.
fn report_round_trip(probe: Arc<Probe>, session: &Session, rate_hz: u32) {
    let graft_samples = Arc::clone(&session.latency_samples);
    std::thread::spawn(move || {
        while !probe.is_done() {
            std::thread::sleep(POLL);
        }
        let graft_samples = graft_samples.load(Ordering::Relaxed);
        eprintln!(
            "{}",
            round_trip::report(probe.round_trip_samples(), graft_samples, rate_hz)
        );
    });
}
