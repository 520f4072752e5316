//! `cargo xtask import-hifigan`: imports a published HiFi-GAN checkpoint as the voice of a model.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Tensor, pickle};
use clap::Args;
use graft_material::whole_file;
use serde::Deserialize;
use vocoder::MelConfig;
use vocoder::generator::{GeneratorConfig, ResBlock};

use crate::assemble::{BaseModel, fold};

/// Import a HiFi-GAN generator trained with PyTorch into a model file.
///
/// Reads checkpoints of the published code (github.com/jik876/hifi-gan), with or without weight norm. They must use
/// Graft's mel: 22,050 Hz, transforms of 2048 samples, a hop of 512, 128 bands from 0 to 11,025 Hz.
#[derive(Args)]
pub struct ImportHifigan {
    /// Checkpoint of the generator.
    #[arg(value_name = "CHECKPOINT.pth")]
    checkpoint: PathBuf,
    /// Configuration of the generator.
    #[arg(value_name = "CONFIG.json")]
    config: PathBuf,
    /// Model to add the generator to. Replaces the generator that it has.
    #[arg(long, alias = "network", value_name = "MODEL.safetensors")]
    into: PathBuf,
    /// Model file to write.
    #[arg(short, long, value_name = "MODEL.safetensors")]
    output: PathBuf,
    /// Licence of all weights in the new file, network and voice.
    #[arg(long)]
    licence: Option<String>,
}

/// The fields of a published configuration that are used here.
#[derive(Deserialize)]
struct PublishedConfig {
    resblock: ResBlock,
    upsample_rates: Vec<usize>,
    upsample_kernel_sizes: Vec<usize>,
    upsample_initial_channel: usize,
    resblock_kernel_sizes: Vec<usize>,
    resblock_dilation_sizes: Vec<Vec<usize>>,
    num_mels: usize,
    n_fft: usize,
    hop_size: usize,
    win_size: usize,
    sampling_rate: u32,
    fmin: f32,
    fmax: Option<f32>,
}

impl PublishedConfig {
    /// The configuration of the generator, if it uses Graft's mel.
    fn generator(self) -> Result<GeneratorConfig> {
        let found = MelConfig {
            sample_rate_hz: self.sampling_rate,
            n_fft: self.n_fft,
            hop_length: self.hop_size,
            n_mels: self.num_mels,
            f_min_hz: self.fmin,
            f_max_hz: self.fmax.unwrap_or(self.sampling_rate as f32 / 2.0),
        };
        let expected = MelConfig::default();
        ensure!(
            found == expected && self.win_size == expected.n_fft,
            "the generator uses another mel: expected {expected:?} with a window of {} samples, found {found:?} with a \
             window of {}",
            expected.n_fft,
            self.win_size
        );
        Ok(GeneratorConfig {
            n_mels: self.num_mels,
            upsample_rates: self.upsample_rates,
            upsample_kernel_sizes: self.upsample_kernel_sizes,
            upsample_initial_channel: self.upsample_initial_channel,
            resblock: self.resblock,
            resblock_kernel_sizes: self.resblock_kernel_sizes,
            resblock_dilation_sizes: self.resblock_dilation_sizes,
            causal: false,
            template: false,
        })
    }
}

impl ImportHifigan {
    /// Writes the model file. On an error, writes nothing.
    pub fn run(&self) -> Result<()> {
        let describe = || format!("cannot use {}", self.config.display());
        let text = fs::read_to_string(&self.config).with_context(describe)?;
        let config: PublishedConfig = serde_json::from_str(&text).with_context(describe)?;
        let config = config.generator().with_context(describe)?;
        let weights = read_weights(&self.checkpoint)
            .with_context(|| format!("cannot use {}", self.checkpoint.display()))?;
        let mut base = BaseModel::load(&self.into)?;
        if let Some(licence) = &self.licence {
            base.header.card.licence.clone_from(licence);
        }
        let bytes = base
            .with_generator(&config, &weights)
            .with_context(|| format!("cannot use {}", self.checkpoint.display()))?;
        whole_file::write(&self.output, &bytes)?;
        println!(
            "{}: {:.1} MB",
            self.output.display(),
            bytes.len() as f64 / 1e6
        );
        Ok(())
    }
}

/// Reads the generator's plain weights, with the names and shapes of [`vocoder::generator`].
fn read_weights(path: &Path) -> Result<HashMap<String, Tensor>> {
    // The published code saves the weights under this key; other files have them at the top level.
    let tensors = match pickle::read_all_with_key(path, Some("generator")) {
        Ok(tensors) if !tensors.is_empty() => tensors,
        _ => pickle::read_all(path)?,
    };
    ensure!(!tensors.is_empty(), "the checkpoint contains no generator");
    let mut weights = HashMap::new();
    for (name, tensor) in tensors {
        // Names of magnitude and direction in PyTorch's newer weight norm.
        let name = name
            .replace("parametrizations.weight.original0", "weight_g")
            .replace("parametrizations.weight.original1", "weight_v");
        let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
        let tensor = match tensor.rank() {
            1 => tensor,
            3 => tensor.unsqueeze(2)?,
            _ => bail!(
                "{name}: expected a bias or the weight of a 1-D convolution, found shape {:?}",
                tensor.shape()
            ),
        };
        weights.insert(name, tensor);
    }
    fold(&weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::testing::TestFolder;
    use graft_material::workspace;
    use model_runtime::Model;
    use model_runtime::tensors::to_tensor;
    use vocoder::LogMel;

    const CONFIG: &str = r#"{
        "resblock": "2", "num_gpus": 0, "batch_size": 16, "learning_rate": 0.0002,
        "upsample_rates": [8, 8, 8], "upsample_kernel_sizes": [16, 16, 16], "upsample_initial_channel": 8,
        "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 2]],
        "num_mels": 128, "n_fft": 2048, "hop_size": 512, "win_size": 2048,
        "sampling_rate": 22050, "fmin": 0, "fmax": null
    }"#;

    fn task(folder: &TestFolder, config: &str) -> ImportHifigan {
        fs::write(folder.path().join("config.json"), config).unwrap();
        fs::write(folder.path().join("tiny.pth"), TINY).unwrap();
        ImportHifigan {
            checkpoint: folder.path().join("tiny.pth"),
            config: folder.path().join("config.json"),
            into: workspace::root().join("assets/graft.safetensors"),
            output: folder.path().join("model.safetensors"),
            licence: None,
        }
    }

    const TINY: &[u8] = include_bytes!("../tests/data/hifigan-tiny.pth");

    // Made by tests/data/hifigan_tiny.py, which also printed the samples.
    #[test]
    fn an_imported_generator_sounds_as_in_pytorch() {
        let folder = TestFolder::new("import");
        task(&folder, CONFIG).run().unwrap();
        let model = Model::load(&folder.path().join("model.safetensors")).unwrap();
        let mut mel = LogMel::new(128);
        for frame in 0..4 {
            let values = (0..128).map(|band| (0.37 * (frame * 128 + band) as f32).sin() - 1.0);
            mel.push_frame(&values.collect::<Vec<_>>());
        }
        let samples = model
            .generator()
            .unwrap()
            .forward(&to_tensor(&[mel]).unwrap().squeeze(1).unwrap(), None);
        let samples: Vec<f32> = samples.unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(samples.len(), 4 * 512);
        for (n, expected) in [
            (0, 0.1801073),
            (251, 0.8701741),
            (502, 0.0710727),
            (753, 0.698548),
            (1004, 0.8183922),
            (1255, 0.1546198),
            (1506, 0.9960493),
            (1757, 0.3027057),
            (2008, 0.5991415),
        ] {
            assert!(
                (samples[n] - expected).abs() < 1e-5,
                "{n}: {}, {expected}",
                samples[n]
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let folder = TestFolder::new("import-errors");
        let error = |config: &str| format!("{:#}", task(&folder, config).run().unwrap_err());
        let published = CONFIG.replace("\"num_mels\": 128", "\"num_mels\": 80");
        let text = error(&published);
        assert!(
            text.contains("n_mels: 128") && text.contains("n_mels: 80"),
            "{text}"
        );
        let text = error(&CONFIG.replace("null", "8000"));
        assert!(text.contains("f_max_hz: 8000.0"), "{text}");
        let text = error(&CONFIG.replace(
            "\"upsample_initial_channel\": 8",
            "\"upsample_initial_channel\": 16",
        ));
        assert!(text.contains("expected shape"), "{text}");
        let text = error("{}");
        assert!(text.contains("resblock"), "{text}");
        let broken = task(&folder, CONFIG);
        fs::write(&broken.checkpoint, b"no pickle").unwrap();
        assert!(format!("{:#}", broken.run().unwrap_err()).contains("tiny.pth"));
        assert!(!broken.output.exists());
    }
}
