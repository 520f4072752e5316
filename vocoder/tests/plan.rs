//! Plans compared with the layers that they were compiled from, on every instruction set of this processor.

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use common::{max_difference, noise};
use vocoder::conv::{Conv2dSpec, PadMode};
use vocoder::layers::{Block, Conv, ConvConfig, Stack, TimeUpsample, TimeUpsampleConfig, Upsample};
use vocoder::plan::{Builder, Plan, Run};
use vocoder::simd::Isa;

const FRAMES: usize = 41;

fn conv(config: ConvConfig, seed: u32) -> Result<Conv> {
    let (h, w) = config.kernel;
    let weight = noise(&[config.output, config.input, h, w], seed, DType::F32)?;
    let bias = noise(&[config.output], seed + 1, DType::F32)?;
    Ok(Conv::from_tensors((weight * 0.5)?, bias, config))
}

fn upsample(input: usize, output: usize, stride: usize) -> Result<Upsample> {
    let weight = noise(&[input, output, stride, 3], 50, DType::F32)?;
    let tensors = HashMap::from([
        ("weight".to_string(), weight),
        ("bias".to_string(), noise(&[output], 51, DType::F32)?),
    ]);
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    Upsample::new(input, output, stride, false, &vb)
}

/// A tensor (B, C, H, T) as (batch, frame, row, channel).
fn frames_of(x: &Tensor) -> Result<Vec<f32>> {
    x.permute((0, 3, 2, 1))?.flatten_all()?.to_vec1()
}

/// Runs a plan with one input and one output in steps of the given sizes, in turn, up to the end. Returns the frames by
/// batch element, and how many there were before the end.
fn in_steps(plan: &Arc<Plan>, x: &Tensor, sizes: &[usize]) -> Result<(Vec<Vec<f32>>, usize)> {
    let (batch, _, _, total) = x.dims4()?;
    let mut run = Run::new(plan, batch);
    let mut out = vec![Vec::new(); batch];
    let mut take = |run: &mut Run| {
        let mut values = Vec::new();
        let frames = run.take(0, &mut values);
        let len = values.len() / batch;
        for (b, out) in out.iter_mut().enumerate() {
            out.extend_from_slice(&values[b * len..][..len]);
        }
        frames
    };
    let (mut at, mut before_end) = (0, 0);
    for size in sizes.iter().cycle() {
        let size = (*size).min(total - at);
        if size == 0 {
            break;
        }
        run.push(0, &frames_of(&x.narrow(3, at, size)?)?);
        run.step();
        before_end += take(&mut run);
        at += size;
    }
    run.finish();
    take(&mut run);
    Ok((out, before_end))
}

fn assert_close(name: &str, found: &[f32], expected: &[f32]) -> Result<()> {
    let tensor = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
    let largest = expected
        .iter()
        .fold(1.0f32, |most, value| most.max(value.abs()));
    let difference = max_difference(&tensor(found)?, &tensor(expected)?)?;
    assert!(
        difference < 1e-5 * f64::from(largest),
        "{name}: off by {difference} of {largest}"
    );
    Ok(())
}

/// Asserts that the plan of a stack returns the frames of `forward`, as soon as their look-ahead has arrived, and the same
/// bits for all steps.
fn assert_equals_forward(name: &str, stack: &Stack, x: &Tensor) -> Result<()> {
    let (_, channels, rows, total) = x.dims4()?;
    let expected = frames_of(&stack.forward(x)?)?;
    for isa in Isa::available() {
        let mut builder = Builder::new(isa);
        let input = builder.input(rows, channels);
        let output = builder.stack(input, stack)?;
        builder.output(output);
        let plan = builder.build();
        let whole = |x: &Tensor| -> Result<Vec<f32>> {
            Ok(Run::whole(&plan, x.dim(0)?, &[&frames_of(x)?], 16).remove(0))
        };
        // A clip leaves nothing behind for the next one.
        whole(&x.affine(3.0, 1.0)?)?;
        let whole = whole(x)?;
        assert_close(&format!("{name}, {isa:?}"), &whole, &expected)?;
        for sizes in [&[1][..], &[2], &[7], &[total], &[1, 4, 2, 9], &[16, 1, 1]] {
            let name = format!("{name} in steps of {sizes:?}, {isa:?}");
            let (stepped, before_end) = in_steps(&plan, x, sizes)?;
            assert_eq!(before_end, total - stack.look_ahead_frames(), "{name}");
            assert_eq!(stepped.concat(), whole, "{name}");
        }
    }
    Ok(())
}

fn time_conv(kernel: usize, dilation: usize, mode: PadMode) -> ConvConfig {
    let same = ConvConfig::same(2, 2, (3, kernel));
    ConvConfig {
        spec: Conv2dSpec {
            dilation: (1, dilation),
            ..same.spec
        },
        ..same
    }
    .padded((1, (kernel - 1) * dilation / 2))
    .pad_mode(mode)
}

#[test]
fn convolutions_equal_their_layers() -> Result<()> {
    let x = noise(&[2, 2, 4, FRAMES], 1, DType::F32)?;
    for mode in [PadMode::Zero, PadMode::Replicate, PadMode::Reflect] {
        for kernel in [1, 3, 5, 7] {
            for dilation in [1, 2, 3] {
                let config = time_conv(kernel, dilation, mode);
                let name = format!("kernel {kernel}, dilation {dilation}, {mode:?}");
                let alone = Stack::new(vec![Block::Conv(conv(config, 10)?)]);
                assert_eq!(alone.look_ahead_frames(), (kernel - 1) * dilation / 2);
                assert_equals_forward(&name, &alone, &x)?;
                let residual = Block::Residual(vec![conv(config, 20)?, conv(config, 30)?]);
                let stack = Stack::new(vec![residual, Block::Conv(conv(config.linear(), 40)?)]);
                assert_equals_forward(&format!("stack of {name}"), &stack, &x)?;
            }
        }
    }
    Ok(())
}

/// Numbers of channels on both sides of those of a vector and of a tile.
#[test]
fn all_numbers_of_channels_equal_their_layers() -> Result<()> {
    for channels in [
        1, 3, 4, 5, 8, 12, 15, 16, 17, 31, 33, 36, 48, 63, 80, 96, 129, 144,
    ] {
        let x = noise(&[1, 3, 5, 6], 1, DType::F32)?;
        let wide = Block::Conv(conv(ConvConfig::same(3, channels, (3, 3)), 10)?);
        let back = Block::Conv(conv(ConvConfig::same(channels, 3, (3, 3)), 20)?);
        let residual = Block::Residual(vec![conv(ConvConfig::same(3, 3, (3, 3)), 30)?]);
        let stack = Stack::new(vec![wide, back, residual]);
        assert_equals_forward(&format!("{channels} channels"), &stack, &x)?;
    }
    Ok(())
}

#[test]
fn networks_equal_their_layers() -> Result<()> {
    let x = noise(&[2, 1, 8, FRAMES], 1, DType::F32)?;
    let down = ConvConfig::same(3, 4, (4, 3))
        .strided((4, 1))
        .padded((0, 1));
    let tall = ConvConfig::same(2, 2, (5, 3))
        .strided((2, 1))
        .padded((2, 1));
    let stack = Stack::new(vec![
        Block::Conv(conv(ConvConfig::same(1, 3, (3, 3)), 10)?),
        Block::Conv(conv(down, 20)?),
        Block::Residual(vec![
            conv(ConvConfig::same(4, 4, (3, 3)), 30)?,
            conv(ConvConfig::same(4, 4, (3, 3)), 40)?,
        ]),
        Block::Upsample(upsample(4, 2, 4)?),
        Block::Conv(conv(tall, 45)?),
        Block::Flatten,
        Block::Conv(conv(ConvConfig::same(8, 2, (1, 5)), 60)?),
    ]);
    assert_eq!(stack.look_ahead_frames(), 1 + 1 + 2 + 1 + 1 + 2);
    for look_ahead in [0, 1, 2, 3, 4, 5, 6, 7, 8] {
        let limited = stack.with_look_ahead(look_ahead)?;
        assert_equals_forward(&format!("{look_ahead} frames ahead"), &limited, &x)?;
    }
    Ok(())
}

/// A stride in time is an average of whole groups of frames, for example. The last group may repeat the last frame.
#[test]
fn strides_in_time_equal_their_layers() -> Result<()> {
    for frames in [1, 3, 4, 5, 8, 41] {
        let x = noise(&[2, 3, 2, frames], 1, DType::F32)?;
        let config = ConvConfig::same(3, 4, (1, 4))
            .padded((0, 0))
            .strided((1, 4));
        let layer = conv(config, 1)?;
        let whole = x.pad_with_same(3, 0, frames.next_multiple_of(4) - frames)?;
        let expected = frames_of(&layer.forward(&whole)?)?;
        for isa in Isa::available() {
            let mut builder = Builder::new(isa);
            let input = builder.input(2, 3);
            let output = builder.conv(input, &layer, &[])?;
            builder.output(output);
            let plan = builder.build();
            for sizes in [&[1][..], &[3], &[41]] {
                let (stepped, before_end) = in_steps(&plan, &x, sizes)?;
                assert_eq!(before_end, frames / 4);
                assert_close(
                    &format!("{frames} frames in {sizes:?}"),
                    &stepped.concat(),
                    &expected,
                )?;
            }
        }
    }
    Ok(())
}

/// A transposed convolution along time, causal and not, alone and added to another signal.
#[test]
fn upsampling_in_time_equals_its_layer() -> Result<()> {
    for (rate, kernel) in [(2, 4), (4, 8), (8, 16), (2, 6), (3, 3)] {
        for causal in [false, true] {
            let config = TimeUpsampleConfig {
                input: 3,
                output: 2,
                rate,
                kernel,
                input_slope: Some(0.1),
                causal,
                weight_norm: false,
            };
            let tensors = HashMap::from([
                (
                    "weight".to_string(),
                    noise(&[3, 2, 1, kernel], 5, DType::F32)?,
                ),
                ("bias".to_string(), noise(&[2], 6, DType::F32)?),
            ]);
            let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
            let up = TimeUpsample::new(config, &vb)?;
            let before = conv(ConvConfig::same(3, 3, (1, 3)).linear(), 20)?;
            let after = conv(ConvConfig::same(2, 2, (1, 3)).pad_mode(PadMode::Zero), 30)?;
            let x = noise(&[2, 3, 1, 13], 1, DType::F32)?;
            let expected = after.forward(&up.forward(&before.forward(&x)?)?)?;
            let expected = frames_of(&expected)?;
            for isa in Isa::available() {
                let mut builder = Builder::new(isa);
                let input = builder.input(1, 3);
                let y = builder.conv(input, &before, &[])?;
                let y = builder.time_upsample(y, &up, None)?;
                let y = builder.conv(y, &after, &[])?;
                builder.output(y);
                let plan = builder.build();
                for sizes in [&[1][..], &[2], &[5, 1], &[13]] {
                    let (stepped, before_end) = in_steps(&plan, &x, sizes)?;
                    assert_eq!(before_end, (13 - 1) * rate - up.padding() - 1);
                    let name = format!("{config:?} in {sizes:?}");
                    assert_close(&name, &stepped.concat(), &expected)?;
                }
            }
        }
    }
    Ok(())
}
