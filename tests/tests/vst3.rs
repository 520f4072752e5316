//! The plugin in a VST3 host with its window closed.

mod common;

use std::f32::consts::TAU;
use std::ffi::c_void;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::write_small_model;
use graft::models::ModelFile;
use graft_tests::{Activation, Vst3Session};
use parking_lot::Mutex;
use serde_json::Value;

const RATE_HZ: u32 = 44_100;

const ACTIVATION: Activation = Activation {
    sample_rate_hz: RATE_HZ,
    max_block_samples: 512,
    offline: false,
};

/// Held by each test: one of them keeps all cores busy, which others mind.
static ALONE: Mutex<()> = Mutex::new(());

unsafe extern "system" {
    fn GetPluginFactory() -> *mut c_void;
}

fn session() -> Vst3Session {
    // SAFETY: the entry point is that of the plugin in this program.
    unsafe { Vst3Session::new(GetPluginFactory()) }.unwrap()
}

/// The latency modes and engines as a host numbers them.
const LATENCY: [f64; 3] = [0.0, 0.5, 1.0];
const ENGINE: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

fn state(latency: f64, engine: f64) -> Vec<u8> {
    let mut session = session();
    session.set_parameter("Latency", latency).unwrap();
    session.set_parameter("Engine", engine).unwrap();
    session.set_parameter("Mix", 0.0).unwrap();
    session.save_state().unwrap()
}

/// The latency of a new instance that is activated with a state.
fn latency_samples(state: &[u8]) -> usize {
    let mut session = session();
    session.load_state(state).unwrap();
    session.activate(&ACTIVATION).unwrap()
}

fn tone(samples: usize) -> [Vec<f32>; 2] {
    let tone = |n: usize| 0.5 * (TAU * (220.0 * n as f32 / RATE_HZ as f32).fract()).sin();
    let tone: Vec<_> = (0..samples).map(tone).collect();
    [tone.clone(), tone]
}

/// Plays until the plugin requests a restart, or half a second if it does not. Returns the left channel.
fn play(session: &mut Vst3Session) -> Vec<f32> {
    let block = tone(4096);
    let mut played = Vec::new();
    for _ in 0..RATE_HZ as usize / 2 / 4096 {
        let [left, _] = session.process(&block, &block).unwrap();
        played.extend(left);
        // The request comes from another thread.
        thread::sleep(Duration::from_millis(50));
        if session.wants_restart() {
            break;
        }
    }
    played
}

#[test]
fn a_session_that_is_loaded_into_the_active_plugin_applies_with_the_window_closed() {
    let _alone = ALONE.lock();
    let mut session = session();
    session.load_state(&state(LATENCY[1], ENGINE[0])).unwrap();
    let mut latency = session.activate(&ACTIVATION).unwrap();
    let input = tone(RATE_HZ as usize * 2);
    session.process(&input, &input).unwrap();
    for (mode, engine) in [(2, 0), (0, 0), (0, 1), (1, 2), (1, 0)] {
        let state = state(LATENCY[mode], ENGINE[engine]);
        let expected = latency_samples(&state);
        assert_ne!(latency, expected);
        session.load_state(&state).unwrap();
        let what = format!("mode {mode}, engine {engine}");
        let before = play(&mut session);
        assert!(session.wants_restart(), "{what}");
        assert_eq!(before.last(), Some(&0.0), "{what}: no fade-out");
        assert_eq!(session.restart().unwrap(), expected, "{what}");
        // The dry tone comes back after the latency that was reported.
        let [out, _] = session.process(&input, &input).unwrap();
        let heard = out.iter().position(|&x| x != 0.0).unwrap();
        assert!((expected..expected + 4).contains(&heard), "{what}: {heard}");
        // Loaded again, it changes nothing.
        session.load_state(&state).unwrap();
        play(&mut session);
        assert!(!session.wants_restart(), "{what}");
        latency = expected;
    }
}

/// A state that names a model file.
fn with_model(state: &[u8], file: &ModelFile) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(state).unwrap();
    json["fields"]["model"] = serde_json::to_string(&Some(file)).unwrap().into();
    serde_json::to_vec(&json).unwrap()
}

#[test]
fn a_model_that_is_loaded_with_a_session_applies_if_its_file_is_there() {
    let _alone = ALONE.lock();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vst3 models");
    fs::create_dir_all(&folder).unwrap();
    let file = write_small_model(&folder.join("small.safetensors"));
    let missing = ModelFile {
        path: folder.join("missing.safetensors"),
        ..file.clone()
    };
    let default = state(LATENCY[1], ENGINE[0]);
    let mut session = session();
    session.load_state(&default).unwrap();
    session.activate(&ACTIVATION).unwrap();
    for (file, is_new) in [
        (&missing, false),
        (&file, true),
        (&file, false),
        (&missing, false),
    ] {
        session.load_state(&with_model(&default, file)).unwrap();
        play(&mut session);
        assert_eq!(session.wants_restart(), is_new, "{}", file.path.display());
        session.restart().unwrap();
    }
}

#[test]
fn an_instance_may_go_while_its_request_is_on_its_way() {
    let _alone = ALONE.lock();
    let full = state(LATENCY[2], ENGINE[0]);
    let block = tone(512);
    let mut arrived = 0;
    for cycle in 0..200 {
        let mut session = session();
        session.activate(&ACTIVATION).unwrap();
        session.load_state(&full).unwrap();
        // The sound fades out within two blocks.
        for _ in 0..2 + cycle % 2 {
            session.process(&block, &block).unwrap();
        }
        session.deactivate();
        arrived += usize::from(session.wants_restart());
    }
    assert!(arrived >= 100, "{arrived}");
}

#[test]
fn a_session_that_is_loaded_into_the_inactive_plugin_needs_no_restart() {
    let _alone = ALONE.lock();
    let full = state(LATENCY[2], ENGINE[0]);
    let mut session = session();
    session.load_state(&full).unwrap();
    session.activate(&ACTIVATION).unwrap();
    play(&mut session);
    assert!(!session.wants_restart());
}

/// Whether a render has the remix everywhere while all cores are busy.
fn renders_whole(offline: bool) -> bool {
    let activation = Activation {
        offline,
        ..ACTIVATION
    };
    let main = tone(RATE_HZ as usize * 3);
    let mut sidechain = main.clone();
    for channel in &mut sidechain {
        for (n, sample) in channel.iter_mut().enumerate() {
            *sample *= if n % 11_025 < 2000 { 1.0 } else { 0.1 };
        }
    }
    let render = || {
        let mut session = session();
        session.activate(&activation).unwrap();
        session.process(&main, &sidechain).unwrap()
    };
    let calm = render();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..16 * cores {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let starved = render();
        is_over.store(true, Ordering::Relaxed);
        starved == calm
    })
}

#[test]
fn a_declared_render_is_complete_when_the_worker_starves() {
    let _alone = ALONE.lock();
    assert!(renders_whole(true));
}
