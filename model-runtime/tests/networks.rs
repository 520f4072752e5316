//! The networks compared with PyTorch. `data/networks.py` computes the reference values.

mod common;

use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor, bail};
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use candle_nn::{Init, VarMap};
use common::{
    log_mel, small_config, small_hard, small_pitch_aligned, small_timbre, small_timbre_config,
};
use model_runtime::hard::{HardConfig, HardDecoder};
use model_runtime::latent::Latent;
use model_runtime::pitch_aligned::PitchAlignedConfig;
use model_runtime::timbre::TimbreConfig;
use model_runtime::{Architecture, Factor, LatencyMode, Model, Network};
use vocoder::MelConfig;

/// `scale * sin(0.7 n + len(name))`, as in the script.
fn formula(name: &str, shape: &Shape, scale: f64) -> Result<Tensor> {
    let values: Vec<f64> = (0..shape.elem_count())
        .map(|n| scale * (0.7 * n as f64 + name.len() as f64).sin())
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

struct Formula;

impl SimpleBackend for Formula {
    fn get(&self, shape: Shape, name: &str, init: Init, _: DType, _: &Device) -> Result<Tensor> {
        // The initial values are bounded by one over the square root of the fan-in.
        let Init::Uniform { up, .. } = init else {
            bail!("{name}: unexpected {init:?}")
        };
        formula(name, &shape, 1.5 * up)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        bail!("{name}: no shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

fn check(name: &str, architecture: &Architecture) {
    let builder = VarBuilder::from_backend(Box::new(Formula), DType::F64, Device::Cpu);
    let mel_config = MelConfig::default();
    let network = architecture.build(&mel_config, false, &builder).unwrap();
    let mel = (formula("input", &(2, 1, 128, 21).into(), 2.0).unwrap() - 4.0).unwrap();
    let latents = network.encode(&mel).unwrap();
    let decoded = network.decode(&latents.means()).unwrap();
    let mut parts = vec![("mel".to_owned(), &decoded)];
    for (factor, latent) in latents.iter() {
        parts.push((factor.name().to_owned(), &latent.mean));
        parts.push((format!("{factor}_spread"), &latent.spread));
    }
    let reference: serde_json::Value =
        serde_json::from_str(include_str!("data/networks.json")).unwrap();
    for (part, actual) in parts {
        let expected = &reference[name][&part];
        let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).unwrap();
        assert_eq!(actual.dims(), shape, "{name} {part}");
        let expected: Vec<f64> = serde_json::from_value(expected["values"].clone()).unwrap();
        let actual = actual.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let stride = actual.len() / 40;
        for (i, expected) in expected.iter().enumerate() {
            let actual = actual[i * stride];
            assert!(
                (actual - expected).abs() < 1e-5,
                "{name} {part} {i}: {actual}, {expected}"
            );
        }
    }
}

#[test]
fn pitch_aligned_equals_pytorch() {
    check(
        "pitch_aligned",
        &Architecture::PitchAligned(PitchAlignedConfig {
            harmony_channels: 6,
            harmony_latents: 2,
            pool_frames: 4,
            rhythm_channels: 4,
            rhythm_latents: 3,
            rhythm_planes: 2,
            decoder_channels: 5,
            mel_mean: -4.5,
            mel_deviation: 2.2,
        }),
    );
}

#[test]
fn hard_equals_pytorch() {
    check(
        "hard",
        &Architecture::Hard(HardConfig {
            channels: 4,
            latents: 12,
            decoder: HardDecoder::Published,
        }),
    );
}

#[test]
fn timbre_equals_pytorch() {
    check(
        "timbre",
        &Architecture::Timbre(TimbreConfig {
            pitch_channels: 6,
            pitch_latents: 2,
            timbre_channels: 2,
            timbre_latents: 5,
            timbre_frames: 8,
            variation_channels: 2,
            variation_latents: 3,
            condition_channels: 7,
            condition_planes: 2,
            decoder_channels: 5,
            mel_mean: -4.5,
            mel_deviation: 2.2,
        }),
    );
}

#[test]
fn hard_as_published_has_about_the_6_7_million_parameters_of_the_paper() {
    let vars = candle_nn::VarMap::new();
    let builder = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let architecture = Architecture::Hard(HardConfig {
        channels: 32,
        latents: 64,
        decoder: HardDecoder::Published,
    });
    let mel = MelConfig::default();
    architecture.build(&mel, false, &builder).unwrap();
    let parameters: usize = vars.all_vars().iter().map(|var| var.elem_count()).sum();
    assert_eq!(parameters, 6_706_209);
}

/// Standard normal divergence: `0.5 (mean^2 + spread^2 - 1 - ln spread^2)`; and `mean + spread * noise`.
#[test]
fn latents_diverge_and_are_drawn_as_gaussians() {
    let tensor = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
    let latent = Latent {
        mean: tensor([1.0, 0.0]),
        spread: tensor([1.0, 2.0]),
    };
    let kl = latent.kl().unwrap().to_scalar::<f32>().unwrap();
    let expected = 0.5 * (0.5 + 0.5 * (4.0 - 1.0 - 4f32.ln()));
    assert!((kl - expected).abs() < 1e-6, "{kl}, {expected}");
    let drawn = latent
        .sample(&tensor([2.0, -1.0]))
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    assert_eq!(drawn, [3.0, -2.0]);
}

#[test]
fn transposition_moves_notes_and_wraps_only_in_hard() {
    let harmony = Tensor::arange(0f32, 88.0, &Device::Cpu).unwrap();
    let notes = harmony.reshape((1, 1, 88, 1)).unwrap();
    let up = small_pitch_aligned(4)
        .transpose(Factor::Harmony, &notes, &[3])
        .unwrap();
    let up = up.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!((&up[..4], up[87]), (&[0.0, 0.0, 0.0, 0.0][..], 84.0));
    let down = small_pitch_aligned(4)
        .transpose(Factor::Harmony, &notes, &[-3])
        .unwrap();
    let down = down.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!((down[0], &down[84..]), (3.0, &[87.0, 0.0, 0.0, 0.0][..]));

    let channels = harmony.reshape((1, 88, 1, 1)).unwrap();
    let rolled = small_hard()
        .transpose(Factor::Harmony, &channels, &[3])
        .unwrap();
    let rolled = rolled.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(
        (&rolled[..4], rolled[87]),
        (&[85.0, 86.0, 87.0, 0.0][..], 84.0)
    );
}

/// Each batch element has its own shift.
#[test]
fn a_batch_is_transposed_element_by_element() {
    let network = small_pitch_aligned(4);
    let mel = log_mel(16);
    let harmony = network.encode(&mel).unwrap()[Factor::Harmony].mean.clone();
    let batch = Tensor::cat(&[&harmony, &harmony], 0).unwrap();
    let transposed = network
        .transpose(Factor::Harmony, &batch, &[5, -2])
        .unwrap();
    for (b, shift) in [5, -2].into_iter().enumerate() {
        let alone = network
            .transpose(Factor::Harmony, &harmony, &[shift])
            .unwrap();
        let difference = (transposed.narrow(0, b, 1).unwrap() - alone)
            .unwrap()
            .abs()
            .unwrap();
        assert_eq!(
            difference.sum_all().unwrap().to_scalar::<f32>().unwrap(),
            0.0
        );
    }
    assert!(network.transpose(Factor::Harmony, &batch, &[5]).is_err());
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let mel = log_mel(16);
    for network in [small_pitch_aligned(4), small_hard(), small_timbre()] {
        let narrow = mel.narrow(2, 0, 100).unwrap().contiguous().unwrap();
        assert!(network.encode(&narrow).is_err());
        let mut latents = network.encode(&mel).unwrap().means();
        let factor = network.factors().last().unwrap().factor;
        let last = latents.remove(factor).unwrap();
        let error = network.decode(&latents).unwrap_err().to_string();
        assert!(
            error.contains(&format!("expected a {factor} latent")),
            "{error}"
        );
        latents.insert(factor, last.narrow(1, 0, 2).unwrap());
        assert!(network.decode(&latents).is_err());
    }
}

/// What a latent cannot see, whatever its weights are.
#[test]
fn timbre_is_slow_and_deaf_to_silence_and_pitch_to_level_and_colour() {
    let network = small_timbre();
    let mean = |factor, mel: &Tensor| network.encode(mel).unwrap()[factor].mean.clone();
    let distance = |a: &Tensor, b: &Tensor| {
        let squares = (a - b).unwrap().sqr().unwrap().sum_all().unwrap();
        squares.to_scalar::<f32>().unwrap().sqrt()
    };
    let mel = log_mel(100);
    let frames = |first, count| mel.narrow(3, first, count).unwrap();
    // The same music at other times.
    let other = Tensor::cat(&[&frames(50, 50), &frames(0, 50)], 3).unwrap();
    let change = |factor, changed: &Tensor| {
        let own = mean(factor, &mel);
        distance(&own, &mean(factor, changed)) / distance(&own, &mean(factor, &other))
    };
    // A tilt of 4 nepers over all bands.
    let tilt = Tensor::arange(0f32, 128.0, &Device::Cpu).unwrap();
    let tilt = (tilt * (4.0 / 128.0)).unwrap();
    let tilted = mel
        .broadcast_add(&tilt.reshape((1, 1, 128, 1)).unwrap())
        .unwrap();
    let [timbre, pitch, variation] =
        [Factor::Timbre, Factor::Pitch, Factor::Variation].map(|factor| change(factor, &tilted));
    println!("tilted: timbre {timbre}, pitch {pitch}, variation {variation}");
    assert!(pitch < 0.15 && timbre.min(variation) > 2.0 * pitch);
    let softer = (&mel - 2.0).unwrap();
    let [pitch, variation] =
        [Factor::Pitch, Factor::Variation].map(|factor| change(factor, &softer));
    assert!(pitch < 1e-3 && variation > 0.05, "{pitch} {variation}");

    // Forty frames of silence after the music.
    let silence = (frames(0, 40).zeros_like().unwrap() - 11.5).unwrap();
    let held = Tensor::cat(&[&frames(0, 45), &silence], 3).unwrap();
    let timbre = mean(Factor::Timbre, &held);
    let at = |frame| timbre.narrow(3, frame, 1).unwrap();
    let (moved, before) = (distance(&at(84), &at(44)), distance(&at(44), &at(4)));
    assert!(moved < 0.05 * before, "{moved} {before}");
}

/// The same network with constant weights, as from a model file.
fn constant(architecture: &Architecture) -> Arc<dyn Network> {
    let (mel, vars) = (MelConfig::default(), VarMap::new());
    let builder = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    architecture.build(&mel, false, &builder).unwrap();
    let vars = vars.data().lock().unwrap();
    let tensors = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.as_detached_tensor()));
    let builder = VarBuilder::from_tensors(tensors.collect(), DType::F32, &Device::Cpu);
    architecture.build(&mel, false, &builder).unwrap()
}

/// Whole clips run compiled; training and gradients use the layers.
#[test]
fn compiled_networks_equal_their_layers() {
    let hard = |decoder| {
        constant(&Architecture::Hard(HardConfig {
            channels: 5,
            latents: 9,
            decoder,
        }))
    };
    let built_in = Arc::clone(Model::built_in().unwrap().network());
    let networks = [
        built_in,
        constant(&Architecture::PitchAligned(small_config(1))),
        constant(&Architecture::Timbre(small_timbre_config())),
        hard(HardDecoder::Published),
        hard(HardDecoder::Linear),
    ];
    for network in networks {
        for mode in LatencyMode::ALL {
            let network = match mode.network_look_ahead_frames(network.factors()) {
                Some(frames) => network.with_look_ahead(frames).unwrap(),
                None => Arc::clone(&network),
            };
            for frames in [2, 3, 21, 70] {
                let mel = log_mel(frames);
                let mel = Tensor::cat(&[&mel, &(&mel - 1.0).unwrap()], 0).unwrap();
                let close = |name: &str, compiled: &Tensor, layers: &Tensor| {
                    assert_eq!(compiled.dims(), layers.dims());
                    let [difference, largest] = [&(compiled - layers).unwrap(), layers].map(|x| {
                        let x = x.abs().unwrap().flatten_all().unwrap();
                        x.max(0).unwrap().to_scalar::<f32>().unwrap()
                    });
                    assert!(
                        difference < 1e-4 * largest.max(1.0),
                        "{name}, {mode:?}, {frames} frames: off by {difference} of {largest}"
                    );
                };
                let (compiled, layers) = (
                    network.encode(&mel).unwrap(),
                    network.encode_layers(&mel).unwrap(),
                );
                for (factor, latent) in compiled.iter() {
                    close(factor.name(), &latent.mean, &layers[factor].mean);
                    close(factor.name(), &latent.spread, &layers[factor].spread);
                }
                let latents = layers.means();
                close(
                    "mel",
                    &network.decode(&latents).unwrap(),
                    &network.decode_layers(&latents).unwrap(),
                );
            }
        }
    }
}
