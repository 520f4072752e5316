//! The user's model files in the plugin: saved with the session, replaced during playback, and missing.

mod common;

use std::f32::consts::TAU;
use std::fs;
use std::path::{Path, PathBuf};

use common::{assert_same, model_of, with_model, write_small_model};
use graft::models::ModelFile;
use graft_tests::{Activation, Block, Plugin, RenderJob, Session, built_library};

const RATE_HZ: u32 = 44_100;

fn plugin() -> Plugin {
    Plugin::load(&built_library().unwrap()).unwrap()
}

/// An empty folder with a name that is not ASCII.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("Für Übung 模型 {test}"));
    let _none = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn tones(hz: [f32; 2], samples: usize) -> Vec<Vec<f32>> {
    hz.map(|hz| {
        let tone = |n: usize| (TAU * (hz * n as f32 / RATE_HZ as f32).fract()).sin();
        (0..samples).map(|n| 0.3 * tone(n)).collect()
    })
    .into()
}

fn job(state: Option<Vec<u8>>) -> RenderJob {
    let samples = RATE_HZ as usize;
    RenderJob {
        sample_rate_hz: RATE_HZ,
        blocks: vec![256],
        main: tones([220.0, 221.0], samples),
        sidechain: Some(tones([330.0, 331.0], samples)),
        state,
        ..RenderJob::default()
    }
}

#[test]
fn a_session_keeps_its_model() {
    let plugin = plugin();
    let built_in = plugin.render(&job(None)).unwrap();
    assert_eq!(model_of(&built_in.state), None);
    let folder = folder("keeps");
    let file = write_small_model(&folder.join("mine.safetensors"));
    let state = with_model(&built_in.state, Some(&file));
    let mine = plugin.render(&job(Some(state))).unwrap();
    assert!(mine.aligned() != built_in.aligned());
    assert_eq!(model_of(&mine.state), Some(file));
    let again = plugin.render(&job(Some(mine.state.clone()))).unwrap();
    assert_same(&mine, &again, "a second trip");
    let back = with_model(&mine.state, None);
    let back = plugin.render(&job(Some(back))).unwrap();
    assert_same(&built_in, &back, "the built-in model again");
}

#[test]
fn a_models_own_voice_is_heard_at_any_block_size_and_at_one_latency() {
    let plugin = plugin();
    let file = write_small_model(&folder("voice").join("mine.safetensors"));
    let state = with_model(&plugin.render(&job(None)).unwrap().state, Some(&file));
    let render = |voice: f64, block: usize| {
        let job = RenderJob {
            blocks: vec![block],
            parameters: vec![("Voice".to_owned(), voice)],
            ..job(Some(state.clone()))
        };
        plugin.render(&job).unwrap()
    };
    let [guided, half, generated] = [0.0, 0.5, 1.0].map(|voice| render(voice, 256));
    assert!(guided.aligned() != half.aligned() && half.aligned() != generated.aligned());
    assert_eq!(guided.latency_samples, generated.latency_samples);
    assert_same(&half, &render(0.5, 1000), "longer blocks");
}

#[test]
fn a_model_that_is_missing_or_none_leaves_the_built_in_one_and_stays_the_sessions_choice() {
    let plugin = plugin();
    let built_in = plugin.render(&job(None)).unwrap();
    let folder = folder("missing");
    let text = folder.join("text.safetensors");
    fs::write(&text, "not a model").unwrap();
    for path in [folder.join("gone.safetensors"), text] {
        let file = ModelFile {
            path,
            sha256: "0".repeat(64),
        };
        let state = with_model(&built_in.state, Some(&file));
        let rendered = plugin.render(&job(Some(state))).unwrap();
        assert_same(&built_in, &rendered, "without the file");
        assert_eq!(model_of(&rendered.state), Some(file));
    }
}

#[test]
fn a_model_is_replaced_while_it_plays() {
    /// An audible step between samples, as the second difference; that of the inputs is a tenth of it.
    const CLICK: f32 = 0.01;
    let folder = folder("replaced");
    let file = write_small_model(&folder.join("other.safetensors"));
    let plugin = plugin();
    let activation = Activation {
        sample_rate_hz: RATE_HZ,
        max_block_samples: 512,
        offline: true,
    };
    let mut session = Session::new(&plugin).unwrap();
    session.activate(&activation).unwrap();
    let samples = 6 * RATE_HZ as usize;
    let (main, sidechain) = (tones([220.0; 2], samples), tones([110.0; 2], samples));
    let (mut played, mut restarts) = (Vec::new(), Vec::new());
    for start in (0..samples - 512).step_by(512) {
        let block = Block {
            main: [0, 1].map(|channel| &main[channel][start..start + 512]),
            sidechain: [0, 1].map(|channel| &sidechain[channel][start..start + 512]),
            events: &[],
            transport: None,
        };
        let out = session.process(&block, |process| process()).unwrap();
        played.extend_from_slice(&out[0]);
        if start / 512 == 120 {
            let state = with_model(&session.save_state().unwrap(), Some(&file));
            session.load_state(&state).unwrap();
        }
        if session.wants_restart() {
            restarts.push(start / 512);
            session.deactivate();
            session.activate(&activation).unwrap();
        }
    }
    assert!(
        matches!(restarts[..], [block] if (120..400).contains(&block)),
        "{restarts:?}"
    );
    let step = |three: &[f32]| (three[2] - 2.0 * three[1] + three[0]).abs();
    let largest = played[1000..].windows(3).map(step).fold(0.0, f32::max);
    assert!(largest < CLICK, "{largest}");
    let last_second = &played[samples - RATE_HZ as usize..samples - 512];
    let peak = last_second
        .iter()
        .fold(0.0, |peak: f32, x| peak.max(x.abs()));
    assert!(peak > 1e-4, "{peak}");
}
