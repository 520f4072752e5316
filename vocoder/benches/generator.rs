//! The HiFi-GAN generators, mono and stereo, as whole clips and in steps, with one thread. Throughput is samples per
//! channel: 22,050 samples per second are real time. `ISA=avx2` forces vector instructions, likewise any that the processor
//! has.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vocoder::generated::{GeneratedVoice, template_stream};
use vocoder::generator::{Generator, GeneratorConfig, GeneratorState};
use vocoder::magnitudes::{MagnitudeNetwork, MagnitudesConfig};
use vocoder::simd::Isa;
use vocoder::{LogMel, MelConfig};

const CLIP_FRAMES: usize = 64;

fn benches(criterion: &mut Criterion) {
    for (name, config) in [
        ("V1", GeneratorConfig::v1()),
        ("V2", GeneratorConfig::v2()),
        ("V3", GeneratorConfig::v3()),
        ("music", music()),
    ] {
        bench(criterion, name, config).expect("the shapes fit");
    }
}

/// The generator of the recipe `vocoder-music.toml`.
fn music() -> GeneratorConfig {
    GeneratorConfig {
        causal: true,
        template: true,
        ..GeneratorConfig::v2()
    }
}

fn generator(config: GeneratorConfig) -> Result<Generator> {
    with_random_weights(|vb| Generator::new(config.clone(), false, &vb))
}

/// The network of the recipe `magnitudes-music.toml`.
fn magnitudes(mel: &MelConfig) -> Result<MagnitudeNetwork> {
    let config = MagnitudesConfig { channels: 256 };
    with_random_weights(|vb| MagnitudeNetwork::new(&config, mel, &vb))
}

/// A network with random weights, stored as those of a model file.
fn with_random_weights<T>(build: impl Fn(VarBuilder) -> Result<T>) -> Result<T> {
    let (dtype, device) = (DType::F32, Device::Cpu);
    let weights = VarMap::new();
    build(VarBuilder::from_varmap(&weights, dtype, &device))?;
    let tensors = weights
        .data()
        .lock()
        .expect("nobody else uses the weights")
        .iter()
        .map(|(name, var)| (name.clone(), var.as_detached_tensor()))
        .collect();
    build(VarBuilder::from_tensors(tensors, dtype, &device))
}

fn bench(criterion: &mut Criterion, name: &str, config: GeneratorConfig) -> Result<()> {
    let hop_length = config.hop_length();
    let generator = generator(config)?;
    for (layout, batch) in [("mono", 1), ("stereo", 2)] {
        let mel = Tensor::randn(0f32, 1., (batch, 128, CLIP_FRAMES), &Device::Cpu)?;
        let samples = CLIP_FRAMES * hop_length;
        let template = Tensor::randn(0f32, 0.1, (batch, 1, samples), &Device::Cpu)?;
        let template = generator.config().template.then_some(template);
        let mut group = criterion.benchmark_group(format!("{name}, {layout}"));
        group.sample_size(10);
        group.throughput(Throughput::Elements(samples as u64));
        group.bench_function("whole clip", |bencher| {
            bencher.iter(|| generator.forward(&mel, template.as_ref()));
        });
        for frames in [1, 2, 4, 16] {
            let mel = mel.narrow(2, 0, frames)?;
            let mut state = GeneratorState::default();
            let template = template.as_ref();
            let template = template.map(|t| t.narrow(2, 0, frames * hop_length));
            let template = template.transpose()?;
            let mut step = || generator.step(&mut state, Some(&mel), template.as_ref());
            while step()?.is_none() {}
            group.throughput(Throughput::Elements((frames * hop_length) as u64));
            group.bench_function(format!("steps of {frames} frames"), |bencher| {
                bencher.iter(&mut step);
            });
        }
        group.finish();
    }
    Ok(())
}

/// The whole generated voice, and its template alone.
fn generated(criterion: &mut Criterion) {
    let mel = MelConfig::default();
    let generator = generator(music()).expect("the shapes fit");
    let magnitudes = magnitudes(&mel).expect("the shapes fit");
    let mut template = template_stream(&mel, Some(&magnitudes)).expect("the default is valid");
    let mut voice =
        GeneratedVoice::new(&generator, Some(&magnitudes), &mel).expect("the default is valid");
    let mut group = criterion.benchmark_group("music with its template, mono");
    group.sample_size(10);
    for frames in [1, 2, 4, 16] {
        let values = (0..frames * mel.n_mels).map(|n| -4.5 + (n as f32 * 0.37).sin());
        let piece = LogMel::from_values(mel.n_mels, values.collect()).expect("whole frames");
        group.throughput(Throughput::Elements((frames * mel.hop_length) as u64));
        let mut samples = Vec::new();
        group.bench_function(format!("steps of {frames} frames"), |bencher| {
            bencher.iter(|| {
                samples.clear();
                voice.push(&piece, &mut samples)
            });
        });
        group.bench_function(
            format!("steps of {frames} frames, template alone"),
            |bencher| {
                bencher.iter(|| {
                    samples.clear();
                    template.push(&piece, &mut samples)
                });
            },
        );
    }
    group.finish();
}

fn force_instructions(_: &mut Criterion) {
    if let Ok(name) = std::env::var("ISA") {
        name.parse::<Isa>().expect("vector instructions").force();
    }
}

criterion_group!(all, force_instructions, benches, generated);
criterion_main!(all);
