//! Model files: round trips, and error messages for damaged files.

mod common;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use model_runtime::hard::{HardConfig, HardDecoder};
use model_runtime::lord::LordModel;
use model_runtime::model_file::{Card, FORMAT, HEADER_KEY, Header, to_bytes};
use model_runtime::{Architecture, Error, Factor, Model, Network};
use safetensors::SafeTensors;
use vocoder::MelConfig;

fn header() -> Header {
    Header {
        format: FORMAT,
        architecture: Architecture::Hard(HardConfig {
            channels: 2,
            latents: 3,
            decoder: HardDecoder::Published,
        }),
        mel: MelConfig::default(),
        max_shift_semitones: 7,
        generator: None,
        magnitudes: None,
        card: Card {
            name: "small".to_owned(),
            ..Card::default()
        },
    }
}

fn weights() -> HashMap<String, Tensor> {
    let vars = VarMap::new();
    let builder = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu).pp("network");
    let architecture = header().architecture;
    architecture.build(&header().mel, false, &builder).unwrap();
    let vars = vars.data().lock().unwrap();
    vars.iter()
        .map(|(name, var)| (name.clone(), var.as_detached_tensor()))
        .collect()
}

/// The weights as they are read from a file.
fn rounded(weights: HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let rounded = |tensor: Tensor| tensor.to_dtype(DType::F16)?.to_dtype(DType::F32);
    weights
        .into_iter()
        .map(|(name, tensor)| (name, rounded(tensor).unwrap()))
        .collect()
}

/// The file with another header, without the checks of `to_bytes`.
fn with_header(header: &str, weights: &HashMap<String, Tensor>) -> Vec<u8> {
    let metadata = HashMap::from([(HEADER_KEY.to_owned(), header.to_owned())]);
    safetensors::serialize(weights, Some(metadata)).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    match Model::from_bytes(bytes) {
        Err(error @ (Error::Model(_) | Error::Vocoder(_))) => error.to_string(),
        Err(error) => panic!("an error of another kind: {error}"),
        Ok(_) => panic!("the model was taken"),
    }
}

fn assert_refused(bytes: &[u8], words: &[&str]) {
    let message = refusal(bytes);
    for word in words {
        assert!(message.contains(word), "\"{word}\" is not in: {message}");
    }
}

#[test]
fn a_model_survives_its_file() {
    let weights = rounded(weights());
    let bytes = to_bytes(&header(), &weights).unwrap();
    // A file with 32-bit floats is the same model.
    let json = serde_json::to_string(&header()).unwrap();
    for bytes in [bytes, with_header(&json, &weights)] {
        assert_same_model(&bytes, &weights);
    }
}

fn assert_same_model(bytes: &[u8], weights: &HashMap<String, Tensor>) {
    let model = Model::from_bytes(bytes).unwrap();
    assert_eq!(model.header(), &header());
    assert_eq!(model.sha256().len(), 64);
    let mel = common::log_mel(8);
    let builder = VarBuilder::from_tensors(weights.clone(), DType::F32, &Device::Cpu).pp("network");
    let architecture = header().architecture;
    let network = architecture.build(&header().mel, false, &builder).unwrap();
    let values = |network: &dyn Network| {
        let latents = network.encode(&mel).unwrap().means();
        let mean = &latents[Factor::Harmony];
        mean.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(values(&**model.network()), values(&*network));
}

#[test]
fn a_mel_that_the_network_or_the_voice_cannot_use_is_refused() {
    let refused = |mel: MelConfig, words: &[&str]| {
        let header = Header { mel, ..header() };
        let json = serde_json::to_string(&header).unwrap();
        assert_refused(&with_header(&json, &weights()), words);
    };
    let good = header().mel;
    let bands = MelConfig {
        n_mels: 100,
        ..good.clone()
    };
    refused(bands, &["mel bands in multiples of 64", "found 100"]);
    let hop = MelConfig {
        hop_length: 1024,
        ..good
    };
    refused(hop, &["at least 4 hop lengths", "2048 and 1024"]);
}

#[test]
fn the_built_in_models_are_whole_and_shared() {
    let model = Model::built_in().unwrap();
    assert!(matches!(
        model.header().architecture,
        Architecture::PitchAligned(_)
    ));
    assert!(std::sync::Arc::ptr_eq(&model, &Model::built_in().unwrap()));
    let timbre = Model::built_in_timbre().unwrap();
    assert!(matches!(
        timbre.header().architecture,
        Architecture::Timbre(_)
    ));
    assert!(std::sync::Arc::ptr_eq(
        &timbre,
        &Model::built_in_timbre().unwrap()
    ));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = to_bytes(&header(), &weights()).unwrap();
    for length in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        assert_refused(&bytes[..length], &["not a valid safetensors file"]);
    }
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    assert_refused(b"RIFF....WAVEfmt ", &["safetensors"]);
    assert_refused(&[0xff; 64], &["safetensors"]);
    let bare = safetensors::serialize(weights(), None).unwrap();
    assert_refused(&bare, &["no entry", HEADER_KEY]);
}

#[test]
fn a_wrong_shape_names_the_tensor_and_both_shapes() {
    let mut weights = weights();
    let name = "network.trunk.first.bias";
    weights.insert(
        name.to_owned(),
        Tensor::zeros(5, DType::F32, &Device::Cpu).unwrap(),
    );
    let bytes = with_header(&serde_json::to_string(&header()).unwrap(), &weights);
    assert_refused(&bytes, &[name, "expected shape [2]", "found [5]"]);
}

#[test]
fn missing_and_superfluous_tensors_are_named() {
    let json = serde_json::to_string(&header()).unwrap();
    let mut weights = weights();
    let extra = weights.remove("network.decoder.last.bias").unwrap();
    assert_refused(
        &with_header(&json, &weights),
        &["missing tensor network.decoder.last.bias"],
    );
    weights.insert("network.decoder.last.bias".to_owned(), extra.clone());
    weights.insert("network.surprise".to_owned(), extra);
    assert_refused(
        &with_header(&json, &weights),
        &["unexpected tensor network.surprise"],
    );
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let json = serde_json::to_string(&header()).unwrap();
    let name = "network.trunk.first.bias";
    for value in [f32::NAN, f32::INFINITY] {
        let mut weights = weights();
        weights.insert(
            name.to_owned(),
            Tensor::new(&[0.0, value], &Device::Cpu).unwrap(),
        );
        assert_refused(&with_header(&json, &weights), &[name, "finite"]);
    }
}

#[test]
fn weights_beyond_the_range_of_16_bits_are_not_written() {
    let mut weights = weights();
    let name = "network.trunk.first.bias";
    weights.insert(
        name.to_owned(),
        Tensor::new(&[0.0, 1e6_f32], &Device::Cpu).unwrap(),
    );
    let error = to_bytes(&header(), &weights).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("finite"), "{error}");
}

#[test]
fn weights_of_another_type_are_refused() {
    let mut weights = weights();
    let name = "network.trunk.first.bias";
    let double = weights[name].to_dtype(DType::F64).unwrap();
    weights.insert(name.to_owned(), double);
    let bytes = with_header(&serde_json::to_string(&header()).unwrap(), &weights);
    assert_refused(&bytes, &[name, "32-bit", "F64"]);
}

#[test]
fn unknown_or_senseless_header_fields_are_refused() {
    let weights = weights();
    let change = |path: &str, value: serde_json::Value| {
        let mut json = serde_json::to_value(header()).unwrap();
        let (object, key) = path.rsplit_once('/').unwrap();
        json.pointer_mut(object).unwrap()[key] = value;
        with_header(&json.to_string(), &weights)
    };
    assert_refused(&change("/surprise", 1.into()), &["surprise"]);
    assert_refused(&change("/card/surprise", 1.into()), &["surprise"]);
    assert_refused(&change("/architecture/surprise", 1.into()), &["surprise"]);
    assert_refused(
        &change("/architecture/kind", "vae".into()),
        &["vae", "pitch-aligned"],
    );
    assert_refused(
        &change("/format", 99.into()),
        &["expected file format 1", "99"],
    );
    assert_refused(
        &change("/architecture/channels", 0.into()),
        &["channels", "expected 1 to"],
    );
    assert_refused(
        &change("/architecture/channels", 1_000_000_000.into()),
        &["channels"],
    );
    assert_refused(&change("/mel/n_mels", 80.into()), &["80", "128"]);
}

#[test]
fn a_missing_file_is_named() {
    let error = Model::load(std::path::Path::new("no/such model é.safetensors")).unwrap_err();
    assert!(
        error.to_string().contains("no/such model é.safetensors"),
        "{error}"
    );
}

#[test]
fn a_damaged_file_is_named() {
    let path =
        std::env::temp_dir().join(format!("graft damaged {}.safetensors", std::process::id()));
    std::fs::write(&path, b"damaged").unwrap();
    let error = Model::load(&path).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error}"
    );
}

#[test]
fn a_model_of_another_kind_is_refused_by_what_it_is_for() {
    let remixes = "a model that remixes, for the plugin and cargo xtask remix";
    let instruments = "a model of instruments, for cargo xtask translate";
    let bytes = to_bytes(&header(), &weights()).unwrap();
    let error = LordModel::from_bytes(&bytes).unwrap_err().to_string();
    assert!(
        error.contains(&format!("expected {instruments}, found {remixes}")),
        "{error}"
    );
    let path =
        std::env::temp_dir().join(format!("graft of kind {}.safetensors", std::process::id()));
    std::fs::write(&path, common::small_lord_file()).unwrap();
    let error = Model::load(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    let expected = format!(
        "{}: expected {remixes}, found {instruments}",
        path.display()
    );
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn tensors_keep_their_names() {
    let bytes = to_bytes(&header(), &weights()).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.names().iter().all(|name| name.starts_with("network.")));
}
