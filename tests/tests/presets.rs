//! The factory presets as files for VST3 hosts, in `assets/presets`. `GRAFT_WRITE_PRESETS=1` rewrites them.

mod common;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use common::STATE_PREFIX_BYTES;
use graft::editor::presets::{FACTORY, Preset};
use graft_tests::{Plugin, Session, built_library};
use serde_json::Value;

/// The plugin's class in VST3, as text.
const CLASS: &str = "477261667452656D6978506C7567696E";
const HEADER_BYTES: usize = 48;

fn plugin() -> Plugin {
    Plugin::load(&built_library().unwrap()).unwrap()
}

fn path(preset: &Preset) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/presets");
    folder.join(format!("{}.vstpreset", preset.name))
}

fn json(state: &[u8]) -> Value {
    serde_json::from_slice(&state[STATE_PREFIX_BYTES..]).unwrap()
}

/// The key of a parameter in a state.
fn key(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}

/// A VST3 state with only the parameters that the preset sets: gains and the model stay unchanged.
fn state(plugin: &Plugin, preset: &Preset) -> Vec<u8> {
    let mut session = Session::new(plugin).unwrap();
    for (name, word) in preset.words() {
        session.set_parameter_text(&name, &word).unwrap();
    }
    let mut json = json(&session.save_state().unwrap());
    let set: Vec<_> = preset.parameters().iter().map(|name| key(name)).collect();
    let params = json["params"].as_object_mut().unwrap();
    params.retain(|key, _| set.contains(key));
    assert_eq!(params.len(), set.len());
    json["fields"] = Value::Object(Default::default());
    serde_json::to_vec(&json).unwrap()
}

/// A preset file as Steinberg's VST 3 SDK describes it ("Preset Format"): header, the component's state, list of chunks.
fn vst3_preset(state: &[u8]) -> Vec<u8> {
    let list_offset = (HEADER_BYTES + state.len()) as i64;
    let mut file = b"VST3".to_vec();
    file.extend(1_i32.to_le_bytes());
    file.extend(CLASS.as_bytes());
    file.extend(list_offset.to_le_bytes());
    file.extend(state);
    file.extend(b"List");
    file.extend(1_i32.to_le_bytes());
    file.extend(b"Comp");
    file.extend((HEADER_BYTES as i64).to_le_bytes());
    file.extend((state.len() as i64).to_le_bytes());
    file
}

#[test]
fn the_files_are_the_presets_of_the_editor() {
    let plugin = plugin();
    for preset in &FACTORY {
        let wanted = vst3_preset(&state(&plugin, preset));
        if env::var_os("GRAFT_WRITE_PRESETS").is_some() {
            fs::write(path(preset), &wanted).unwrap();
        }
        let found = fs::read(path(preset)).unwrap_or_default();
        assert!(
            found == wanted,
            "{} is not what the plugin makes of it; GRAFT_WRITE_PRESETS=1 writes it",
            path(preset).display()
        );
    }
    let files = fs::read_dir(path(&FACTORY[0]).parent().unwrap()).unwrap();
    assert_eq!(files.count(), FACTORY.len());
}

#[test]
fn a_preset_sets_its_parameters_and_leaves_the_others() {
    let plugin = plugin();
    for preset in &FACTORY {
        let set: Vec<_> = preset.parameters().iter().map(|name| key(name)).collect();
        let mut session = Session::new(&plugin).unwrap();
        session.set_parameter("Main Gain", -7.0).unwrap();
        session.set_parameter("Transpose", 3.0).unwrap();
        session.set_parameter("Mix", 0.3).unwrap();
        let before = json(&session.save_state().unwrap());
        let file = fs::read(path(preset)).unwrap();
        let state = state(&plugin, preset);
        assert!(file[HEADER_BYTES..].starts_with(&state));
        // CLAP states begin with their length.
        let length = (state.len() as u64).to_le_bytes();
        session.load_state(&[&length[..], &state].concat()).unwrap();
        let after = json(&session.save_state().unwrap());
        let wanted: Value = serde_json::from_slice(&state).unwrap();
        assert_eq!(after["fields"], before["fields"]);
        for (key, value) in after["params"].as_object().unwrap() {
            let source = if set.contains(key) { &wanted } else { &before };
            assert_eq!(value, &source["params"][key], "{}: {key}", preset.name);
        }
    }
}
