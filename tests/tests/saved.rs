//! What earlier versions saved loads unchanged: sessions, presets, parameters and model files, in a folder for each version
//! (`tests/data/README.md`).

mod common;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::f64::consts::TAU;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use common::{STATE_PREFIX_BYTES, assert_same, model_of, untrained, with_field, with_model};
use graft::models::ModelFile;
use graft_tests::{Activation, Parameter, Plugin, RenderJob, Session, Song, built_library};
use model_runtime::hard::{HardConfig, HardDecoder};
use model_runtime::model_file::{Card, FORMAT, Figure, Header, to_bytes};
use model_runtime::pitch_aligned::PitchAlignedConfig;
use model_runtime::{Architecture, Factor, Model};
use serde_json::{Value, json};
use test_signals::Noise;
use vocoder::MelConfig;
use vocoder::generator::GeneratorConfig;
use vocoder::magnitudes::MagnitudesConfig;

const RATE_HZ: u32 = 44_100;

/// Frames of the mel that models are tried on.
const FRAMES: usize = 16;

/// Of many numbers, every thirteenth is kept: what a layer does wrong shows in all.
const KEPT: usize = 13;

/// Where the model of a session was that is gone.
const MISSING: &str = "/var/tmp/Graft models/mine.safetensors";

/// Tempo of the session with frozen latents.
const FROZEN_BPM: f64 = 130.0;

fn plugin() -> Plugin {
    Plugin::load(&built_library().unwrap()).unwrap()
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// The folders of all versions, with the numbers that each version wrote.
fn versions() -> Vec<(PathBuf, Value)> {
    let folders = fs::read_dir(data()).unwrap();
    let folders = folders.map(|entry| entry.unwrap().path());
    let versions: Vec<_> = folders
        .filter(|path| path.is_dir())
        .map(|path| {
            let text = fs::read(path.join("expected.json")).unwrap();
            let expected = serde_json::from_slice(&text).unwrap();
            (path, expected)
        })
        .collect();
    assert!(!versions.is_empty());
    versions
}

fn object(value: &Value) -> &serde_json::Map<String, Value> {
    value.as_object().expect("an object")
}

/// Names of the files with this extension in a folder, in order.
fn names(folder: &Path, extension: &str) -> Vec<String> {
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut names: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Checks that everything expected is found; a later version may have more. Systems differ in the last digit of a number.
fn assert_kept(found: &Value, expected: &Value, what: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            for (key, expected) in expected {
                let found = found.get(key).unwrap_or(&Value::Null);
                assert_kept(found, expected, &format!("{what}: {key}"));
            }
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert_kept(found, expected, &format!("{what}: {index}"));
            }
        }
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            let difference = (found - expected).abs();
            assert!(
                difference <= 1e-6 * expected.abs(),
                "{what}: expected {expected}, found {found}"
            );
        }
        _ => assert_eq!(found, expected, "{what}"),
    }
}

/// What a version keeps of the parameters, by name.
fn described(parameters: &[Parameter]) -> Value {
    let described = parameters.iter().map(|parameter| {
        let described = json!({
            "id": parameter.id,
            "min": parameter.min,
            "max": parameter.max,
            "default": parameter.default,
            "stepped": parameter.is_stepped,
            "automatable": parameter.is_automatable,
            "text": parameter.text,
        });
        (parameter.name.clone(), described)
    });
    Value::Object(described.collect())
}

/// Each parameter's value, as a number and as text.
fn values(parameters: &[Parameter]) -> Value {
    let values = parameters.iter().map(|parameter| {
        let shown = json!([parameter.value, parameter.text]);
        (parameter.name.clone(), shown)
    });
    Value::Object(values.collect())
}

fn activation() -> Activation {
    Activation {
        sample_rate_hz: RATE_HZ,
        max_block_samples: 512,
        offline: true,
    }
}

/// What a session has in it once a state is loaded. Checks that its latency, which may differ between versions, is that of
/// its settings.
fn loaded(plugin: &Plugin, state: &[u8]) -> Value {
    let mut session = Session::new(plugin).unwrap();
    session.load_state(state).unwrap();
    let latency_samples = session.activate(&activation()).unwrap();
    session.deactivate();
    let saved = session.save_state().unwrap();
    let parameters = session.parameters().unwrap();

    let mut by_hand = Session::new(plugin).unwrap();
    for parameter in &parameters {
        if ["Latency", "Engine"].contains(&parameter.name.as_str()) {
            by_hand
                .set_parameter(&parameter.name, parameter.value)
                .unwrap();
        }
    }
    assert_eq!(latency_samples, by_hand.activate(&activation()).unwrap());
    by_hand.deactivate();
    json!({
        "values": values(&parameters),
        "fields": fields(&saved),
    })
}

/// What a state holds besides parameters: the texts in it are JSON themselves.
fn fields(state: &[u8]) -> Value {
    let json: Value = serde_json::from_slice(&state[STATE_PREFIX_BYTES..]).unwrap();
    let fields = object(&json["fields"]).iter().map(|(name, text)| {
        let text = text.as_str().expect("a text");
        (name.clone(), serde_json::from_str(text).unwrap())
    });
    Value::Object(fields.collect())
}

/// A preset as a CLAP state: the component's part of the file, with its length before it.
fn preset_state(file: &[u8]) -> Vec<u8> {
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    let list = number(40);
    assert!(file.starts_with(b"VST3") && file[list..].starts_with(b"List"));
    let (start, length) = (number(list + 12), number(list + 20));
    let state = &file[start..start + length];
    [&(state.len() as u64).to_le_bytes()[..], state].concat()
}

/// The values of all parameters of a new instance that is given a preset.
fn preset_values(plugin: &Plugin, file: &[u8]) -> Value {
    let mut session = Session::new(plugin).unwrap();
    session.load_state(&preset_state(file)).unwrap();
    values(&session.parameters().unwrap())
}

/// Numbers that look random, from -1 to 1.
fn noise(seed: u32) -> impl Iterator<Item = f32> {
    let mut noise = Noise::new(seed);
    std::iter::repeat_with(move || 2.0 * noise.sample())
}

/// Chords and bursts of noise.
fn job(state: Option<Vec<u8>>, seconds: f64) -> RenderJob {
    let samples = (seconds * f64::from(RATE_HZ)) as usize;
    let chord = |n: usize| {
        let time = n as f64 / f64::from(RATE_HZ);
        let tones = [220.0, 277.2, 329.6].map(|hz| (TAU * hz * time).sin());
        (0.2 * tones.iter().sum::<f64>()) as f32
    };
    let bursts = noise(1).zip(0..samples);
    let bursts = bursts.map(|(x, n)| if n % 11_025 < 2000 { 0.5 * x } else { 0.0 });
    RenderJob {
        sample_rate_hz: RATE_HZ,
        offline: true,
        main: vec![(0..samples).map(chord).collect(); 2],
        sidechain: Some(vec![bursts.collect(); 2]),
        transport: Some(Song::steady(FROZEN_BPM, samples)),
        state,
        ..RenderJob::default()
    }
}

/// Every [`KEPT`]th number of a tensor, or all if there are few.
fn kept(tensor: &Tensor) -> Vec<f32> {
    let all = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let step = if all.len() > 100 { KEPT } else { 1 };
    all.into_iter().step_by(step).collect()
}

/// What a model makes of a mel.
fn figures(model: &Model) -> BTreeMap<&'static str, Vec<f32>> {
    let n_mels = model.header().mel.n_mels;
    let value = |n: usize| {
        let (frame, band) = (n % FRAMES, n / FRAMES);
        let wave = (0.7 * frame as f64 + 0.13 * band as f64).sin() + (0.05 * (n * n) as f64).sin();
        (-5.0 + 1.2 * wave) as f32
    };
    let mel: Vec<f32> = (0..n_mels * FRAMES).map(value).collect();
    let mel = Tensor::from_vec(mel, (1, 1, n_mels, FRAMES), &Device::Cpu).unwrap();
    let network = model.network();
    let latents = network.encode(&mel).unwrap();
    let means = latents.means();
    let up = means
        .try_map(|factor, mean| network.transpose(factor, mean, &[3]))
        .unwrap();
    let mut figures = BTreeMap::from([
        ("harmony", kept(&means[Factor::Harmony])),
        ("rhythm", kept(&means[Factor::Rhythm])),
        ("decoded", kept(&network.decode(&means).unwrap())),
        ("transposed", kept(&network.decode(&up).unwrap())),
    ]);
    let mel = mel.squeeze(1).unwrap();
    if let Ok(generator) = model.generator() {
        let samples = FRAMES * model.header().mel.hop_length;
        let template: Vec<f32> = noise(2).take(samples).map(|x| 0.1 * x).collect();
        let template = Tensor::from_vec(template, (1, 1, samples), &Device::Cpu).unwrap();
        let made = generator.forward(&mel, Some(&template)).unwrap();
        figures.insert("generated", kept(&made));
    }
    if let Some(magnitudes) = model.magnitudes() {
        figures.insert("magnitudes", kept(&magnitudes.forward(&mel).unwrap()));
    }
    figures
}

/// Writes what this version saves.
fn write(folder: &Path) {
    let plugin = plugin();
    for part in ["sessions", "presets", "models"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    let models: HashMap<_, _> = headers()
        .into_iter()
        .map(|(name, header)| {
            let bytes = to_bytes(&header, &weights(&header)).unwrap();
            let path = folder.join("models").join(name);
            fs::write(path.with_extension("safetensors"), &bytes).unwrap();
            (name, bytes)
        })
        .collect();
    for (name, state) in sessions(&plugin, &models["pitch-aligned"]) {
        let path = folder.join("sessions").join(name);
        fs::write(path.with_extension("state"), state).unwrap();
    }
    let presets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/presets");
    for name in names(&presets, "vstpreset") {
        let file = format!("{name}.vstpreset");
        fs::copy(presets.join(&file), folder.join("presets").join(&file)).unwrap();
    }
    let expected = json!({
        "parameters": described(&plugin.parameters().unwrap()),
        "sessions": read_all(folder, "sessions", "state", |state| loaded(&plugin, state)),
        "presets": read_all(folder, "presets", "vstpreset", |file| preset_values(&plugin, file)),
        "models": read_all(folder, "models", "safetensors", |bytes| {
            let model = Model::from_bytes(bytes).unwrap();
            json!({ "sha256": model.sha256(), "header": model.header(), "figures": figures(&model) })
        }),
    });
    fs::write(folder.join("expected.json"), expected.to_string()).unwrap();
}

/// What is read of each file of a kind, by name.
fn read_all(folder: &Path, part: &str, extension: &str, read: impl Fn(&[u8]) -> Value) -> Value {
    let folder = folder.join(part);
    let read = |name: String| {
        let bytes = fs::read(folder.join(format!("{name}.{extension}"))).unwrap();
        (name, read(&bytes))
    };
    Value::Object(names(&folder, extension).into_iter().map(read).collect())
}

/// Models of all kinds, as narrow as they can be.
fn headers() -> [(&'static str, Header); 3] {
    let header = |name: &str, architecture| Header {
        format: FORMAT,
        architecture,
        mel: MelConfig::default(),
        max_shift_semitones: 7,
        generator: None,
        magnitudes: None,
        card: Card {
            name: name.to_owned(),
            version: "3".to_owned(),
            licence: "CC0".to_owned(),
            data: "none: these weights are noise".to_owned(),
            steps: 1,
            train_hours: 0.5,
            figures: vec![Figure {
                name: "harmony margin".to_owned(),
                value: 0.25,
            }],
        },
    };
    let pitch_aligned = Architecture::PitchAligned(PitchAlignedConfig {
        harmony_channels: 4,
        harmony_latents: 1,
        pool_frames: 4,
        rhythm_channels: 2,
        rhythm_latents: 2,
        rhythm_planes: 2,
        decoder_channels: 4,
        mel_mean: -5.0,
        mel_deviation: 2.2,
    });
    let hard = Architecture::Hard(HardConfig {
        channels: 2,
        latents: 4,
        decoder: HardDecoder::Published,
    });
    let voice = Header {
        generator: Some(GeneratorConfig {
            upsample_initial_channel: 16,
            resblock_kernel_sizes: vec![3],
            resblock_dilation_sizes: vec![vec![1, 3]],
            causal: true,
            template: true,
            ..GeneratorConfig::v3()
        }),
        magnitudes: Some(MagnitudesConfig { channels: 8 }),
        ..header("pitch-aligned with a voice", pitch_aligned.clone())
    };
    [
        ("pitch-aligned", header("pitch-aligned", pitch_aligned)),
        ("hard", header("hard", hard)),
        ("voice", voice),
    ]
}

/// Weights that are the same each time.
fn weights(header: &Header) -> HashMap<String, Tensor> {
    let shapes: BTreeMap<_, _> = untrained(header).into_iter().collect();
    let mut noise = noise(3);
    let mut weights = HashMap::new();
    for (name, tensor) in shapes {
        let inputs: usize = tensor.dims().iter().skip(1).product();
        let gain = 1.0 / (inputs as f32).sqrt();
        let values: Vec<_> = (&mut noise)
            .take(tensor.elem_count())
            .map(|x| gain * x)
            .collect();
        let weight = Tensor::from_vec(values, tensor.shape(), &Device::Cpu);
        weights.insert(name, weight.unwrap());
    }
    weights
}

/// Sessions of all kinds, by name.
fn sessions(plugin: &Plugin, model: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let saved = |settings: &[(&str, f64)]| {
        let mut session = Session::new(plugin).unwrap();
        for (name, value) in settings {
            session.set_parameter(name, *value).unwrap();
        }
        session.save_state().unwrap()
    };
    // The size of the window is not a parameter.
    let scaled = |state: &[u8]| {
        let mut session = Session::new(plugin).unwrap();
        session
            .load_state(&with_field(state, "editor-scale", "1.25"))
            .unwrap();
        session.save_state().unwrap()
    };
    let all_moved = [
        ("Harmony", 0.25),
        ("Rhythm", 0.625),
        ("Link", 1.0),
        ("Transpose", -3.0),
        ("Freeze Harmony", 1.0),
        ("Freeze Rhythm", 1.0),
        ("Freeze Length", 3.0),
        ("Voice", 0.5),
        ("Air", 0.75),
        ("Window", 3.0),
        ("Latency", 2.0),
        ("Engine", 2.0),
        ("Main Gain", -3.0),
        ("Sidechain Gain", 4.5),
        ("Mix", 0.5),
        ("Output Gain", -12.0),
        ("Bypass", 1.0),
        ("Timbre", 0.25),
        ("Pitch", 0.75),
        ("Variation", 0.5),
        ("Freeze Timbre", 1.0),
    ];
    let frozen = RenderJob {
        parameters: [
            ("Freeze Length", 0.0),
            ("Freeze Harmony", 1.0),
            ("Freeze Rhythm", 1.0),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        ..job(None, 2.0)
    };
    // The file is there when the session is saved.
    let missing = Path::new(MISSING);
    fs::create_dir_all(missing.parent().unwrap()).unwrap();
    fs::write(missing, model).unwrap();
    let mut session = Session::new(plugin).unwrap();
    let file = ModelFile {
        path: missing.to_owned(),
        sha256: Model::from_bytes(model).unwrap().sha256().to_owned(),
    };
    let state = with_model(&session.save_state().unwrap(), Some(&file));
    session.load_state(&state).unwrap();
    session.activate(&activation()).unwrap();
    session.deactivate();
    let with_missing_model = session.save_state().unwrap();
    fs::remove_dir_all(missing.parent().unwrap()).unwrap();
    vec![
        ("default", saved(&[])),
        ("all-moved", scaled(&saved(&all_moved))),
        ("live", saved(&[("Latency", 0.0)])),
        ("split", saved(&[("Engine", 1.0), ("Harmony", 1.0)])),
        ("morph", saved(&[("Engine", 2.0), ("Mix", 0.75)])),
        ("frozen", plugin.render(&frozen).unwrap().state),
        ("missing-model", with_missing_model),
    ]
}

#[test]
#[ignore = "writes the folder GRAFT_WRITE_SAVED of tests/data: what this version saves"]
fn write_what_this_version_saves() {
    let version = env::var_os("GRAFT_WRITE_SAVED").expect("the name of the version");
    write(&data().join(version));
}

#[test]
fn sessions_of_earlier_versions_are_as_they_were_saved() {
    let plugin = plugin();
    for (folder, expected) in versions() {
        let found = read_all(&folder, "sessions", "state", |state| loaded(&plugin, state));
        assert_kept(&found, &expected["sessions"], &folder.display().to_string());
        let names = names(&folder.join("sessions"), "state");
        assert_eq!(names.len(), object(&expected["sessions"]).len());
    }
}

#[test]
fn frozen_latents_of_earlier_versions_are_played() {
    let plugin = plugin();
    for (folder, _) in versions() {
        let state = fs::read(folder.join("sessions/frozen.state")).unwrap();
        let frozen = &fields(&state)["frozen"];
        for (part, frames) in [("harmony", 5), ("rhythm", 20)] {
            assert_eq!(frozen[part]["frames"], frames);
        }
        let played = plugin.render(&job(Some(state), 2.0)).unwrap();
        // A loop that does not fit the network would be captured anew.
        assert_eq!(&fields(&played.state)["frozen"], frozen);
        let live = plugin.render(&job(None, 2.0)).unwrap();
        assert!(played.aligned() != live.aligned());
    }
}

#[test]
fn a_model_that_an_earlier_version_chose_is_played_where_it_is_found() {
    let plugin = plugin();
    let built_in = plugin.render(&job(None, 0.5)).unwrap();
    for (folder, _) in versions() {
        let state = fs::read(folder.join("sessions/missing-model.state")).unwrap();
        let missing = model_of(&state).unwrap();
        assert_eq!(missing.path, Path::new(MISSING));
        let played = plugin.render(&job(Some(state.clone()), 0.5)).unwrap();
        assert_same(&played, &built_in, "without the file");
        let file = ModelFile {
            path: folder.join("models/pitch-aligned.safetensors"),
            sha256: missing.sha256,
        };
        let state = with_model(&state, Some(&file));
        let played = plugin.render(&job(Some(state), 0.5)).unwrap();
        assert!(played.aligned() != built_in.aligned());
        assert_eq!(model_of(&played.state), Some(file));
    }
}

#[test]
fn parameters_of_earlier_versions_are_there() {
    let parameters = plugin().parameters().unwrap();
    let found = described(&parameters);
    for (folder, mut expected) in versions() {
        let what = folder.display().to_string();
        // A choice that cannot be automated is saved by the names of its values, so new ones may follow the old ones.
        let choices = parameters
            .iter()
            .filter(|p| p.is_stepped && !p.is_automatable);
        for choice in choices {
            if let Some(max) = expected["parameters"].pointer_mut(&format!("/{}/max", choice.name))
            {
                assert!(max.as_f64() <= Some(choice.max), "{what}: {}", choice.name);
                *max = json!(choice.max);
            }
        }
        assert_kept(&found, &expected["parameters"], &what);
    }
}

#[test]
fn presets_of_earlier_versions_set_what_they_set() {
    let plugin = plugin();
    for (folder, expected) in versions() {
        let found = read_all(&folder, "presets", "vstpreset", |file| {
            preset_values(&plugin, file)
        });
        assert_kept(&found, &expected["presets"], &folder.display().to_string());
    }
}

#[test]
fn model_files_of_earlier_versions_give_the_same_numbers() {
    for (folder, expected) in versions() {
        for (name, expected) in object(&expected["models"]) {
            let path = folder.join(format!("models/{name}.safetensors"));
            let model = Model::load(&path).unwrap();
            assert_eq!(model.sha256(), expected["sha256"]);
            assert_eq!(
                serde_json::to_value(model.header()).unwrap(),
                expected["header"]
            );
            let figures = figures(&model);
            for (what, expected) in object(&expected["figures"]) {
                let expected: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
                let found = &figures[what.as_str()];
                assert_eq!(found.len(), expected.len());
                let peak = expected.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
                let pairs = found.iter().zip(&expected);
                let largest = pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
                println!("{name}: {what}: {largest:.1e} of {peak:.3}");
                assert!(
                    peak > 1e-3 && largest <= 1e-5 * peak,
                    "{name}: {what}: {largest}"
                );
            }
        }
    }
}
