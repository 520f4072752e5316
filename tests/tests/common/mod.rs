//! Helpers for several tests.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use clack_host::prelude::PluginEntry;
use graft::models::ModelFile;
use graft_tests::{Plugin, Rendered};
use model_runtime::model_file::{Card, FORMAT, Header, to_bytes};
use model_runtime::pitch_aligned::PitchAlignedConfig;
use model_runtime::{Architecture, Model};
use serde_json::Value;
use vocoder::MelConfig;
use vocoder::generator::{Generator, GeneratorConfig};
use vocoder::magnitudes::MagnitudeNetwork;

/// Length of the prefix that nice-plug adds to a CLAP state.
pub const STATE_PREFIX_BYTES: usize = 8;

/// The plugin linked into the test, so that its code uses the test's allocator.
pub fn linked_plugin() -> Plugin {
    // SAFETY: the entry point is that of the plugin in this program.
    let entry = unsafe { PluginEntry::load_from_raw(&graft::clap_entry, c"") };
    Plugin::from_entry(entry.unwrap()).unwrap()
}

pub fn assert_same(a: &Rendered, b: &Rendered, what: &str) {
    assert_eq!(a.channels.len(), b.channels.len(), "{what}");
    for (a, b) in a.aligned().iter().zip(&b.aligned()) {
        let differs = a
            .iter()
            .zip(b)
            .position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(differs, None, "{what}");
    }
}

/// Random weights for a model with this header.
pub fn untrained(header: &Header) -> HashMap<String, Tensor> {
    let vars = VarMap::new();
    let builder = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let network = builder.pp("network");
    header
        .architecture
        .build(&header.mel, false, &network)
        .unwrap();
    if let Some(config) = header.generator.clone() {
        Generator::new(config, false, &builder.pp("generator")).unwrap();
    }
    if let Some(config) = &header.magnitudes {
        MagnitudeNetwork::new(config, &header.mel, &builder.pp("magnitudes")).unwrap();
    }
    let vars = vars.data().lock().unwrap();
    vars.iter()
        .map(|(name, var)| (name.clone(), var.as_detached_tensor()))
        .collect()
}

/// Writes a model of a narrow, untrained network with an equally narrow voice; each call writes a different one.
pub fn write_small_model(path: &Path) -> ModelFile {
    let header = Header {
        format: FORMAT,
        architecture: Architecture::PitchAligned(PitchAlignedConfig {
            harmony_channels: 4,
            harmony_latents: 1,
            pool_frames: 4,
            rhythm_channels: 2,
            rhythm_latents: 2,
            rhythm_planes: 2,
            decoder_channels: 4,
            // The mel of an untrained network has energy at all frequencies. At the level of music, its bursts would
            // look like clicks.
            mel_mean: -6.5,
            mel_deviation: 2.2,
        }),
        mel: MelConfig::default(),
        max_shift_semitones: 8,
        generator: Some(GeneratorConfig {
            upsample_initial_channel: 16,
            resblock_kernel_sizes: vec![3],
            resblock_dilation_sizes: vec![vec![1, 3]],
            causal: true,
            template: true,
            ..GeneratorConfig::v3()
        }),
        magnitudes: None,
        card: Card::default(),
    };
    let mut tensors = untrained(&header);
    for (name, tensor) in &mut tensors {
        // An untrained voice outputs noise, which a test for clicks would find.
        if name.starts_with("generator.conv_post") {
            *tensor = (&*tensor * 0.02).unwrap();
        }
    }
    let bytes = to_bytes(&header, &tensors).unwrap();
    fs::write(path, &bytes).unwrap();
    ModelFile {
        path: path.to_owned(),
        sha256: Model::from_bytes(&bytes).unwrap().sha256().to_owned(),
    }
}

/// A state of the plugin that names a model file.
pub fn with_model(state: &[u8], file: Option<&ModelFile>) -> Vec<u8> {
    with_field(state, "model", &serde_json::to_string(&file).unwrap())
}

/// A state with one field replaced.
pub fn with_field(state: &[u8], name: &str, text: &str) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(&state[STATE_PREFIX_BYTES..]).unwrap();
    json["fields"][name] = text.into();
    let json = serde_json::to_vec(&json).unwrap();
    let length = (json.len() as u64).to_le_bytes();
    [&length[..], &json].concat()
}

/// The parameters of a state that determine the latency.
pub fn latency_parameters(state: &[u8]) -> String {
    let json: Value = serde_json::from_slice(&state[STATE_PREFIX_BYTES..]).unwrap();
    let parameters = ["latency", "engine"].map(|id| &json["params"][id]);
    assert!(parameters.iter().all(|value| !value.is_null()), "{json}");
    format!("{parameters:?}")
}

/// The model file that a state names.
pub fn model_of(state: &[u8]) -> Option<ModelFile> {
    let json: Value = serde_json::from_slice(&state[STATE_PREFIX_BYTES..]).unwrap();
    let field = json["fields"]["model"].as_str().expect("a text");
    serde_json::from_str(field).unwrap()
}

/// How often this thread slept.
#[cfg(target_os = "linux")]
pub fn sleeps() -> i64 {
    // SAFETY: all zeros are a valid value, and the call writes to it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
        usage.ru_nvcsw
    }
}

/// How often this thread slept is not known here.
#[cfg(not(target_os = "linux"))]
pub fn sleeps() -> i64 {
    0
}
