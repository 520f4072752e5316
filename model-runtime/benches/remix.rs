//! Cost of the networks and of the whole remix, per second of audio: 10 ms are a real-time factor of 0.01. Run with
//! `cargo bench -p model-runtime`. `ISA=avx2` forces vector instructions, likewise any that the processor has.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use common::{log_mel, music, stereo};
use criterion::{Criterion, criterion_group, criterion_main};
use model_runtime::hard::{HardConfig, HardDecoder};
use model_runtime::worker::WindowProcessor;
use model_runtime::{
    Architecture, Controls, Factor, FactorMap, LatencyMode, Model, Network, RemixSettings,
    RemixStream, Remixer, StreamDecoder, StreamEncoder, StreamSettings, Voice, Window,
};
use no_denormals::no_denormals;
use vocoder::MelConfig;
use vocoder::simd::Isa;

/// Mel frames in a second, a multiple of the four that a step takes.
const FRAMES: usize = 44;

fn networks(c: &mut Criterion) {
    let mel = log_mel(FRAMES);
    let pair = Tensor::cat(&[&mel, &mel], 0).unwrap();
    let built_in = Model::built_in().unwrap();
    let hard = as_in_a_file(&Architecture::Hard(HardConfig {
        channels: 32,
        latents: 64,
        decoder: HardDecoder::Published,
    }));
    for (name, network) in [("pitch-aligned", built_in.network()), ("hard", &hard)] {
        let latents = network.encode(&mel).unwrap().means();
        let mut group = c.benchmark_group(name);
        group.sample_size(10);
        group.bench_function("encode two clips of 1 s", |b| {
            b.iter(|| network.encode(black_box(&pair)).unwrap())
        });
        group.bench_function("decode 1 s", |b| {
            b.iter(|| network.decode(black_box(&latents)).unwrap());
        });
        // In the middle of a stream, where each step yields as many frames as it takes.
        let (mut encoder, mut decoder) = (network.encoder().unwrap(), network.decoder().unwrap());
        let mut second = || steps(&mut *encoder, &mut *decoder, &pair);
        (0..3).for_each(|_| {
            second();
        });
        assert_eq!(second(), FRAMES);
        group.bench_function("encode two and decode, 1 s in steps of 4 frames", |b| {
            b.iter(&mut second);
        });
        group.finish();
    }
}

/// An untrained network, with constant weights and no weight norm, as those of a model file.
fn as_in_a_file(architecture: &Architecture) -> Arc<dyn Network> {
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

/// Takes a mel in steps and returns the number of decoded frames.
fn steps(encoder: &mut dyn StreamEncoder, decoder: &mut dyn StreamDecoder, mel: &Tensor) -> usize {
    let mut frames = 0;
    for start in (0..mel.dim(D::Minus1).unwrap()).step_by(4) {
        let step = mel.narrow(D::Minus1, start, 4).unwrap();
        let both = encoder.step(&step.contiguous().unwrap()).unwrap();
        let first: FactorMap<Tensor> = both.map(|_, latent| latent.narrow(0, 0, 1).unwrap());
        let decoded = decoder.step(&first).unwrap();
        frames += decoded.map_or(0, |mel| mel.dim(D::Minus1).unwrap());
    }
    frames
}

fn pipeline(c: &mut Criterion) {
    let rate = 44_100;
    let (main, sidechain) = (
        stereo(rate, &music(rate, 5.0, 1)),
        stereo(rate, &music(rate, 5.0, 2)),
    );
    let mut group = c.benchmark_group("remix, stereo, 44.1 kHz");
    group.sample_size(10);
    let remixer = Remixer::new(Model::built_in().unwrap());
    group.bench_function("clip of 5 s", |b| {
        b.iter(|| {
            remixer
                .remix(&main, &sidechain, &RemixSettings::default())
                .unwrap()
        });
    });
    for mode in LatencyMode::ALL {
        for voice in [0.0, 1.0] {
            let settings = StreamSettings {
                sample_rate_hz: rate,
                voice: Voice::Guided,
                mode,
            };
            let mut stream = RemixStream::new(&Model::built_in().unwrap(), settings).unwrap();
            let mut window = window(&main.channels, &sidechain.channels, voice);
            let (mut left, mut right) = (vec![0.0; window.samples()], vec![0.0; window.samples()]);
            let name = format!("one window of 93 ms, {mode:?}, Voice at {voice}");
            group.bench_function(name, |b| {
                b.iter(|| {
                    stream.process(&window, [&mut left, &mut right]).unwrap();
                    window.stream_position_samples += window.samples() as u64;
                });
            });
        }
    }
    group.finish();
}

fn window(main: &[Vec<f32>], sidechain: &[Vec<f32>], voice: f32) -> Window {
    let mut window = Window::new(4096, 256);
    window.controls.fill(Controls {
        generated: voice,
        ..Controls::default().with_share(Factor::Rhythm, 1.0)
    });
    for channel in 0..2 {
        window.main[channel].copy_from_slice(&main[channel][..4096]);
        window.sidechain[channel].copy_from_slice(&sidechain[channel][..4096]);
    }
    window
}

/// From the activation of an instance to the end of its first window: the first instance loads the model, compiles its
/// networks and packs their weights; the others share them.
fn start(c: &mut Criterion) {
    let rate = 44_100;
    let clip = stereo(rate, &music(rate, 1.0, 1));
    let settings = StreamSettings {
        sample_rate_hz: rate,
        voice: Voice::Guided,
        mode: LatencyMode::Default,
    };
    let first_window = |model: &Model| {
        let mut stream = RemixStream::new(model, settings).unwrap();
        let window = window(&clip.channels, &clip.channels, 1.0);
        let (mut left, mut right) = (vec![0.0; window.samples()], vec![0.0; window.samples()]);
        stream.process(&window, [&mut left, &mut right]).unwrap();
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/graft.safetensors");
    let mut group = c.benchmark_group("from activation to the first window");
    group.sample_size(10);
    group.bench_function("first instance", |b| {
        b.iter(|| first_window(&Model::load(&file).unwrap()));
    });
    let model = Model::load(&file).unwrap();
    first_window(&model);
    group.bench_function("further instance", |b| b.iter(|| first_window(&model)));
    group.finish();
}

/// Input so soft that products of it are denormal numbers, with and without the processor flags that the worker sets.
fn denormals(c: &mut Criterion) {
    let rate = 44_100;
    let soft = |seed| {
        let samples = music(rate, 1.0, seed);
        stereo(rate, &samples.iter().map(|x| 1e-20 * x).collect::<Vec<_>>())
    };
    let (main, sidechain) = (soft(1), soft(2));
    let settings = StreamSettings {
        sample_rate_hz: rate,
        voice: Voice::Guided,
        mode: LatencyMode::Default,
    };
    let mut group = c.benchmark_group("one window of 93 ms at -400 dB");
    group.sample_size(20);
    for voice in [0.0, 1.0] {
        for flushed in [false, true] {
            let mut stream = RemixStream::new(&Model::built_in().unwrap(), settings).unwrap();
            let mut window = window(&main.channels, &sidechain.channels, voice);
            let (mut left, mut right) = (vec![0.0; window.samples()], vec![0.0; window.samples()]);
            let mut step = || {
                stream.process(&window, [&mut left, &mut right]).unwrap();
                window.stream_position_samples += window.samples() as u64;
            };
            let name = format!("Voice at {voice}, flushed to zero: {flushed}");
            group.bench_function(name, |b| match flushed {
                // SAFETY: as in the worker.
                true => unsafe { no_denormals(|| b.iter(&mut step)) },
                false => b.iter(&mut step),
            });
        }
    }
    group.finish();
}

fn force_instructions(_: &mut Criterion) {
    if let Ok(name) = std::env::var("ISA") {
        name.parse::<Isa>().unwrap().force();
    }
}

criterion_group!(
    benches,
    force_instructions,
    networks,
    pipeline,
    start,
    denormals
);
criterion_main!(benches);
