//! Signals and small networks for the tests.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod whole;

use std::collections::HashMap;
use std::f32::consts::TAU;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};
use model_runtime::hard::{HardConfig, HardDecoder};
use model_runtime::lord::{self, EncoderConfig, LordConfig, LordHeader, LordModel};
use model_runtime::model_file::{Card, FORMAT, Header, to_bytes};
use model_runtime::pitch_aligned::PitchAlignedConfig;
use model_runtime::timbre::TimbreConfig;
use model_runtime::{Architecture, AudioClip, Model, Network};
use test_signals::Noise;
use vocoder::{MelConfig, MelSpectrogram};

/// A chord that changes every half second, with decaying noise bursts on another grid; `seed` chooses both.
pub fn music(rate: u32, seconds: f32, seed: u32) -> Vec<f32> {
    let mut noise = Noise::new(12_345 + seed);
    (0..(rate as f32 * seconds) as usize)
        .map(|n| {
            let time = n as f32 / rate as f32;
            let chord = (time * 2.0) as u32 * 3 + seed * 2;
            let tones: f32 = [0, 4, 7]
                .map(|step| {
                    let note = 48 + (chord % 12) + step;
                    let hz = 440.0 * ((note as f32 - 69.0) / 12.0).exp2();
                    (TAU * (hz * time).fract()).sin()
                        + 0.4 * (TAU * (2.0 * hz * time).fract()).sin()
                })
                .iter()
                .sum();
            let beat = 0.2 + 0.05 * seed as f32;
            let burst = (-(time % beat) * 40.0).exp() * 2.0 * noise.sample();
            0.08 * tones + 0.3 * burst
        })
        .collect()
}

/// A stereo clip whose right channel is a delayed, quieter left.
pub fn stereo(rate: u32, left: &[f32]) -> AudioClip {
    let right = (0..left.len())
        .map(|n| if n < 20 { 0.0 } else { 0.7 * left[n - 20] })
        .collect();
    AudioClip {
        sample_rate_hz: rate,
        channels: vec![left.to_vec(), right],
    }
}

/// A log-mel (1, 1, 128, frames) of [`music`].
pub fn log_mel(frames: usize) -> Tensor {
    let samples = music(22_050, frames as f32 * 512.0 / 22_050.0 + 0.1, 1);
    let mel = MelSpectrogram::new(&MelConfig::default())
        .unwrap()
        .log_mel(&samples[..frames * 512]);
    Tensor::from_vec(mel.values().to_vec(), (1, 1, frames, 128), &Device::Cpu)
        .unwrap()
        .transpose(2, 3)
        .unwrap()
        .contiguous()
        .unwrap()
}

/// Makes weights on request as at the start of a training, but always the same.
#[derive(Clone, Default)]
struct Untrained(Arc<Mutex<HashMap<String, Tensor>>>);

impl Untrained {
    fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, Device::Cpu)
    }
}

impl SimpleBackend for Untrained {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        _: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let seed = name.bytes().fold(1u32, |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        });
        let mut noise = Noise::new(seed);
        let mut value = || match init {
            Init::Const(value) => value as f32,
            Init::Uniform { lo, up } => (lo + (up - lo) * f64::from(noise.sample() + 0.5)) as f32,
            other => panic!("{name}: expected a constant or uniform start, found {other:?}"),
        };
        let values: Vec<f32> = (0..shape.elem_count()).map(|_| value()).collect();
        let tensor = Tensor::from_vec(values, shape, device)?;
        let mut tensors = self.0.lock().unwrap();
        tensors.insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name}: expected a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// An untrained network.
pub fn network(architecture: &Architecture) -> Arc<dyn Network> {
    let builder = Untrained::default().builder();
    let mel = MelConfig::default();
    architecture.build(&mel, true, &builder).unwrap()
}

/// The sizes of a narrow pitch-aligned network.
pub fn small_config(pool_frames: usize) -> PitchAlignedConfig {
    PitchAlignedConfig {
        harmony_channels: 6,
        harmony_latents: 2,
        pool_frames,
        rhythm_channels: 4,
        rhythm_latents: 3,
        rhythm_planes: 2,
        decoder_channels: 5,
        mel_mean: -4.5,
        mel_deviation: 2.2,
    }
}

/// A narrow pitch-aligned network.
pub fn small_pitch_aligned(pool_frames: usize) -> Arc<dyn Network> {
    network(&Architecture::PitchAligned(small_config(pool_frames)))
}

/// The sizes of a narrow network for timbre.
pub fn small_timbre_config() -> TimbreConfig {
    TimbreConfig {
        pitch_channels: 6,
        pitch_latents: 2,
        timbre_channels: 3,
        timbre_latents: 5,
        timbre_frames: 86,
        variation_channels: 2,
        variation_latents: 3,
        condition_channels: 7,
        condition_planes: 2,
        decoder_channels: 5,
        mel_mean: -4.5,
        mel_deviation: 2.2,
    }
}

/// A narrow network for timbre.
pub fn small_timbre() -> Arc<dyn Network> {
    network(&Architecture::Timbre(small_timbre_config()))
}

/// An untrained model of a narrow network for timbre.
pub fn small_timbre_model() -> Arc<Model> {
    let architecture = Architecture::Timbre(small_timbre_config());
    untrained_model(architecture, MelConfig::default())
}

/// An untrained model of a narrow pitch-aligned network on this mel spectrogram.
pub fn small_model(mel: MelConfig) -> Arc<Model> {
    small_model_averaging(4, mel)
}

/// The same, with a harmony latent that averages so many frames.
pub fn small_model_averaging(pool_frames: usize, mel: MelConfig) -> Arc<Model> {
    let architecture = Architecture::PitchAligned(small_config(pool_frames));
    untrained_model(architecture, mel)
}

fn untrained_model(architecture: Architecture, mel: MelConfig) -> Arc<Model> {
    let weights = Untrained::default();
    let builder = weights.builder().pp("network");
    architecture.build(&mel, false, &builder).unwrap();
    let header = Header {
        format: FORMAT,
        architecture,
        mel,
        max_shift_semitones: 8,
        generator: None,
        magnitudes: None,
        card: Card::default(),
    };
    let bytes = to_bytes(&header, &weights.0.lock().unwrap()).unwrap();
    Arc::new(Model::from_bytes(&bytes).unwrap())
}

/// A narrow HARD.
pub fn small_hard() -> Arc<dyn Network> {
    network(&Architecture::Hard(HardConfig {
        channels: 4,
        latents: 12,
        decoder: HardDecoder::Published,
    }))
}

/// Energy of the difference over that of the reference, in dB.
pub fn error_db(actual: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let energy = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = energy(&mut actual.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
    10.0 * (difference / energy(&mut expected.iter().map(|&v| f64::from(v)))).log10()
}

/// An untrained model of two instruments, with clips of 32 frames. Always the same.
pub fn small_lord() -> LordModel {
    LordModel::from_bytes(&small_lord_file()).unwrap()
}

/// Its file.
pub fn small_lord_file() -> Vec<u8> {
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
        instruments: ["Flute", "Violin"].map(str::to_owned).to_vec(),
        card: Card::default(),
    };
    let vars = VarMap::new();
    let builder = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    LordModel::new(header.clone(), &builder).unwrap();
    let vars = vars.data().lock().unwrap();
    let mut names: Vec<&String> = vars.keys().collect();
    names.sort();
    let mut noise = Noise::new(1);
    let tensors = names.into_iter().map(|name| {
        let shape = vars[name].dims();
        let values = vars[name].elem_count();
        let inputs = values / shape[0].min(values);
        let scale = (12.0 / inputs as f32).sqrt();
        let values = (0..values).map(|_| scale * noise.sample()).collect();
        (
            name.clone(),
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap(),
        )
    });
    lord::to_bytes(&header, &tensors.collect()).unwrap()
}
