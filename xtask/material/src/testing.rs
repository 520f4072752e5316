//! Helpers for tests.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use model_runtime::lord::{self, EncoderConfig, LordConfig, LordHeader, LordModel};
use model_runtime::model_file::Card;
use vocoder::MelConfig;

use crate::report::{
    self, Check, Example, JudgedModel, Measured, Picture, Report, Row, Sound, Table,
};

/// A fresh, empty folder for one test, removed with everything in it when this value is dropped.
pub struct TestFolder(PathBuf);

impl TestFolder {
    /// Creates the folder. `name` must differ between the tests of one run.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("graft-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        Self(path)
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A report with one table of one row and two columns.
pub fn small_report(value: f64) -> Report {
    Report {
        version: report::VERSION,
        protocol: "A test.".into(),
        seconds: 61,
        models: vec![JudgedModel {
            name: "graft".into(),
            sha256: "00".into(),
            steps: 7,
        }],
        tables: vec![Table {
            title: "Table".into(),
            note: "A note.".into(),
            columns: vec!["first".into(), "second".into()],
            rows: vec![Row {
                name: "graft, guided voice".into(),
                cells: vec![
                    Some(Measured {
                        value,
                        low: value - 0.1,
                        high: value + 0.1,
                    }),
                    None,
                ],
            }],
        }],
        checks: vec![Check {
            name: "it holds".into(),
            found: "<it>".into(),
            holds: false,
        }],
        pictures: vec![Picture {
            file: "a.png".into(),
            caption: "A picture".into(),
        }],
        examples: vec![Example {
            name: "One / Two".into(),
            sounds: vec![Sound {
                name: "A".into(),
                sound: "a.wav".into(),
                picture: "a.png".into(),
            }],
        }],
    }
}

/// The file of an untrained model of these instruments, with clips of 32 frames. Always the same.
pub fn small_instruments(instruments: &[&str]) -> Vec<u8> {
    let encoder = |bank| EncoderConfig {
        bank,
        bank_channels: 4,
        channels: 8,
        kernel: 3,
        strides: vec![2, 2],
    };
    let mel = MelConfig::default();
    let header = LordHeader {
        format: lord::FORMAT,
        lord: LordConfig {
            n_mels: mel.n_mels,
            frames: 32,
            content_channels: 4,
            content_frames: 8,
            content_rank: None,
            class_size: 6,
            channels: 8,
            kernel: 3,
            ups: vec![2, 1, 2],
            content_encoder: encoder(3),
            class_encoder: encoder(2),
            dense_blocks: 1,
        },
        mel,
        mel_mean: -6.0,
        mel_deviation: 2.5,
        instruments: instruments.iter().map(|&name| name.to_owned()).collect(),
        card: Card::default(),
    };
    let vars = VarMap::new();
    let builder = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    LordModel::new(header.clone(), &builder).expect("the sizes fit together");
    let vars = vars.data().lock().expect("nothing else uses them");
    let weights = vars.iter().map(|(name, var)| {
        let seed = name.bytes().fold(1u32, |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        });
        let shape = var.dims();
        let inputs = var.elem_count() / shape[0];
        let scale = (12.0 / inputs as f32).sqrt();
        let values = uniform(seed).take(var.elem_count());
        let values: Vec<f32> = values.map(|value| scale * value).collect();
        let weights = Tensor::from_vec(values, shape, &Device::Cpu);
        (name.clone(), weights.expect("as many values as before"))
    });
    lord::to_bytes(&header, &weights.collect()).expect("the model is valid")
}

/// Pseudo-random numbers from -0.5 to 0.5, of a linear congruential generator.
fn uniform(seed: u32) -> impl Iterator<Item = f32> {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    std::iter::successors(Some(seed), next).map(|state| state as f32 / u32::MAX as f32 - 0.5)
}
