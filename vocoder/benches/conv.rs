//! Convolutions in the shapes of training and streaming, with one thread. Throughput counts multiplications and
//! additions: read "Gelem/s" as GFLOP/s.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vocoder::conv::{Conv2dSpec, conv_transpose2d, conv2d};
use vocoder::layers::{Conv, ConvConfig};
use vocoder::plan::{Builder, Run};
use vocoder::simd::Isa;

struct Shape {
    name: &'static str,
    input: [usize; 4],
    weight: [usize; 4],
    stride: (usize, usize),
    padding: (usize, usize),
    transposed: bool,
}

/// A convolution of `input` with `weight`.
fn conv(
    name: &'static str,
    input: [usize; 4],
    weight: [usize; 4],
    stride: (usize, usize),
    padding: (usize, usize),
) -> Shape {
    Shape {
        name,
        input,
        weight,
        stride,
        padding,
        transposed: false,
    }
}

/// A 3x3 convolution of a batch of 8 with 128 frames, as in training.
fn training(name: &'static str, channels: usize, rows: usize) -> Shape {
    let (input, weight) = ([8, channels, rows, 128], [channels, channels, 3, 3]);
    conv(name, input, weight, (1, 1), (1, 1))
}

/// A 3x3 convolution of a few frames and the two past frames that a stream keeps.
fn streaming(name: &'static str, channels: usize, rows: usize, frames: usize) -> Shape {
    let (input, weight) = ([1, channels, rows, frames + 2], [channels, channels, 3, 3]);
    conv(name, input, weight, (1, 1), (1, 0))
}

/// A convolution along time.
fn along_time(name: &'static str, channels: usize, samples: usize, kernel: usize) -> Shape {
    let (input, weight) = ([1, channels, 1, samples], [channels, channels, 1, kernel]);
    conv(name, input, weight, (1, 1), (0, kernel / 2))
}

fn shapes() -> Vec<Shape> {
    vec![
        training("training, 24 channels x 128 rows", 24, 128),
        training("training, 48 channels x 128 rows", 48, 128),
        training("training, 96 channels x 32 rows", 96, 32),
        training("training, 256 channels x 8 rows", 256, 8),
        conv(
            "training, 1 to 24 channels (5,3) by (2,1)",
            [8, 1, 176, 128],
            [24, 1, 5, 3],
            (2, 1),
            (2, 1),
        ),
        conv(
            "training, 24 to 48 channels (4,3) by (4,1)",
            [8, 24, 128, 128],
            [48, 24, 4, 3],
            (4, 1),
            (0, 1),
        ),
        streaming("4 frames, 24 channels x 128 rows", 24, 128, 4),
        streaming("16 frames, 24 channels x 128 rows", 24, 128, 16),
        streaming("4 frames, 256 channels x 2 rows", 256, 2, 4),
        streaming("16 frames, 256 channels x 2 rows", 256, 2, 16),
        along_time("along time, 32 channels, kernel 11", 32, 8192, 11),
        along_time("along time, 128 channels, kernel 7", 128, 2048, 7),
        along_time("along time, 512 channels, kernel 3", 512, 128, 3),
        Shape {
            transposed: true,
            ..conv(
                "along time, 256 to 128 channels, transposed 16 by 8",
                [1, 256, 1, 512],
                [256, 128, 1, 16],
                (1, 8),
                (0, 4),
            )
        },
    ]
}

fn benches(criterion: &mut Criterion) {
    for shape in shapes() {
        bench(criterion, &shape).expect("the shapes fit");
    }
}

fn bench(criterion: &mut Criterion, shape: &Shape) -> Result<()> {
    let random = |dims: &[usize]| Var::randn(0f32, 1., dims, &Device::Cpu);
    let (input, weight) = (random(&shape.input)?, random(&shape.weight)?);
    let bias = Var::zeros(
        shape.weight[usize::from(shape.transposed)],
        DType::F32,
        &Device::Cpu,
    )?;
    let spec = Conv2dSpec {
        stride: shape.stride,
        padding: shape.padding,
        output_slope: Some(0.2),
        ..Conv2dSpec::default()
    };
    let run = |input: &Tensor, weight: &Tensor, bias: &Tensor| {
        if shape.transposed {
            conv_transpose2d(input, weight, bias, spec)
        } else {
            conv2d(input, weight, bias, spec)
        }
    };
    let positions = if shape.transposed {
        input.elem_count() / shape.input[1]
    } else {
        let output = run(&input, &weight, &bias)?;
        output.elem_count() / shape.weight[0]
    };
    let flops = 2 * (positions * weight.elem_count()) as u64;

    let mut group = criterion.benchmark_group(shape.name);
    group.throughput(Throughput::Elements(flops));
    let (x, w, b) = (input.detach(), weight.detach(), bias.detach());
    group.bench_function("forward", |bencher| {
        bencher.iter(|| run(&x, &w, &b).expect("the shapes fit"));
    });
    group.throughput(Throughput::Elements(3 * flops));
    group.bench_function("forward and gradients", |bencher| {
        bencher.iter(|| {
            let output = run(&input, &weight, &bias)?;
            output.backward()
        });
    });
    group.finish();
    Ok(())
}

/// A 3x3 convolution of a batch of two in a plan, on every instruction set of this processor, in steps of a few frames.
fn plans(criterion: &mut Criterion) {
    for (channels, rows, frames) in [(36, 128, 4), (64, 32, 16), (256, 2, 4), (256, 2, 16)] {
        let name = format!("plan, {frames} frames, {channels} channels x {rows} rows");
        let mut group = criterion.benchmark_group(name);
        let weights = VarMap::new();
        let vb = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
        let config = ConvConfig::same(channels, channels, (3, 3));
        let layer = Conv::new(config, &vb).expect("the name is new");
        for isa in Isa::available() {
            let mut builder = Builder::new(isa);
            let input = builder.input(rows, channels);
            let output = builder.conv(input, &layer, &[]).expect("the layer fits");
            builder.output(output);
            let mut run = Run::new(&builder.build(), 2);
            let values = vec![0.5; 2 * frames * rows * channels];
            let mut out = Vec::new();
            let flops = 2 * 2 * frames * rows * 9 * channels * channels;
            group.throughput(Throughput::Elements(flops as u64));
            group.bench_function(format!("{isa:?}"), |bencher| {
                bencher.iter(|| {
                    run.push(0, &values);
                    run.step();
                    out.clear();
                    run.take(0, &mut out)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(all, benches, plans);
criterion_main!(all);
