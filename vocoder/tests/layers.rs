//! Stepped layers compared with whole clips, and weight norm with PyTorch.

mod common;

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use common::{max_difference, noise};
use vocoder::conv::{Conv2dSpec, PadMode};
use vocoder::layers::{Block, Conv, ConvConfig, Stack, StackState, Upsample, fold_weight_norm};

const FRAMES: usize = 41;

fn conv(config: ConvConfig, seed: u32) -> Result<Conv> {
    let (h, w) = config.kernel;
    let weight = noise(&[config.output, config.input, h, w], seed, DType::F64)?;
    let bias = noise(&[config.output], seed + 1, DType::F64)?;
    Ok(Conv::from_tensors((weight * 0.5)?, bias, config))
}

fn upsample(input: usize, output: usize, stride: usize) -> Result<Upsample> {
    let tensors = HashMap::from([
        (
            "weight".to_string(),
            noise(&[input, output, stride, 3], 50, DType::F64)?,
        ),
        ("bias".to_string(), noise(&[output], 51, DType::F64)?),
    ]);
    let vb = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
    Upsample::new(input, output, stride, false, &vb)
}

/// Steps through `x` in parts of the given sizes, in turn, and joins the outputs.
fn in_steps(stack: &Stack, x: &Tensor, sizes: &[usize]) -> Result<Tensor> {
    let (mut state, mut parts, mut at) = (StackState::default(), Vec::new(), 0);
    for size in sizes.iter().cycle() {
        let size = (*size).min(x.dim(D::Minus1)? - at);
        if size == 0 {
            break;
        }
        parts.extend(stack.step(&mut state, &x.narrow(D::Minus1, at, size)?)?);
        at += size;
    }
    Tensor::cat(&parts, D::Minus1)
}

/// Asserts that the stream returns all frames except those whose look-ahead has not arrived, equal to those of
/// `forward`.
fn assert_steps_equal_forward(name: &str, stack: &Stack, x: &Tensor) -> Result<()> {
    let whole = stack.forward(x)?;
    let frames = x.dim(D::Minus1)? - stack.look_ahead_frames();
    for sizes in [&[1][..], &[2], &[7], &[FRAMES], &[1, 4, 2, 9], &[16, 1, 1]] {
        let stream = in_steps(stack, x, sizes)?;
        assert_eq!(
            stream.dim(D::Minus1)?,
            frames,
            "{name} in steps of {sizes:?}"
        );
        let difference = max_difference(&stream, &whole.narrow(D::Minus1, 0, frames)?)?;
        assert!(
            difference < 1e-12,
            "{name} in steps of {sizes:?} off by {difference}"
        );
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
fn stepped_convolutions_equal_whole_clips() -> Result<()> {
    let x = noise(&[2, 2, 4, FRAMES], 1, DType::F64)?;
    for mode in [PadMode::Zero, PadMode::Replicate, PadMode::Reflect] {
        for kernel in [1, 3, 5, 7] {
            for dilation in [1, 2, 3] {
                let config = time_conv(kernel, dilation, mode);
                let name = format!("kernel {kernel}, dilation {dilation}, {mode:?}");
                let alone = Stack::new(vec![Block::Conv(conv(config, 10)?)]);
                assert_eq!(alone.look_ahead_frames(), (kernel - 1) * dilation / 2);
                assert_steps_equal_forward(&name, &alone, &x)?;
                let residual = Block::Residual(vec![conv(config, 20)?, conv(config, 30)?]);
                let stack = Stack::new(vec![residual, Block::Conv(conv(config.linear(), 40)?)]);
                assert_steps_equal_forward(&format!("stack of {name}"), &stack, &x)?;
            }
        }
    }
    Ok(())
}

#[test]
fn stepped_networks_equal_whole_clips() -> Result<()> {
    let x = noise(&[1, 1, 8, FRAMES], 1, DType::F64)?;
    let down = ConvConfig::same(3, 4, (4, 3))
        .strided((4, 1))
        .padded((0, 1));
    let stack = Stack::new(vec![
        Block::Conv(conv(ConvConfig::same(1, 3, (3, 3)), 10)?),
        Block::Conv(conv(down, 20)?),
        Block::Residual(vec![
            conv(ConvConfig::same(4, 4, (3, 3)), 30)?,
            conv(ConvConfig::same(4, 4, (3, 3)), 40)?,
        ]),
        Block::Upsample(upsample(4, 2, 4)?),
        Block::Flatten,
        Block::Conv(conv(ConvConfig::same(16, 2, (1, 5)), 60)?),
    ]);
    assert_eq!(stack.look_ahead_frames(), 1 + 1 + 2 + 1 + 2);
    assert_eq!(stack.forward(&x)?.dims(), [1, 2, 1, FRAMES]);
    assert_steps_equal_forward("network", &stack, &x)
}

#[test]
fn steps_refuse_a_stride_in_time() -> Result<()> {
    let config = time_conv(3, 1, PadMode::Zero).strided((1, 2));
    let stack = Stack::new(vec![Block::Conv(conv(config, 1)?)]);
    let x = noise(&[1, 2, 4, 8], 1, DType::F64)?;
    assert!(stack.step(&mut StackState::default(), &x).is_err());
    Ok(())
}

#[test]
fn weight_norm_equals_pytorchs() -> Result<()> {
    // conv = torch.nn.utils.weight_norm(torch.nn.Conv2d(2, 2, (1, 2)).double())
    // conv.weight_v.data = noise((2, 2, 1, 2), 1)  # of data/conv.py
    // conv.weight_g.data = noise((2, 1, 1, 1), 2)
    // conv(torch.zeros(1, 2, 1, 2).double()); conv.weight.flatten().tolist()
    let expected = [
        -0.0071245904,
        0.0039178636,
        -0.0074394888,
        -0.0056818689,
        -0.405038182,
        0.3455195302,
        0.3790386177,
        -0.5667974454,
    ];
    let (direction, magnitude) = (
        noise(&[2, 2, 1, 2], 1, DType::F64)?,
        noise(&[2, 1, 1, 1], 2, DType::F64)?,
    );
    let folded = fold_weight_norm(&magnitude, &direction)?;
    let expected = Tensor::from_vec(expected.to_vec(), (2, 2, 1, 2), &Device::Cpu)?;
    assert!(max_difference(&folded, &expected)? < 1e-9);

    // The layer gives the same result whether it folds its weight itself or reads it folded.
    let config = ConvConfig::same(2, 2, (1, 2)).padded((0, 0));
    let layer = |tensors: &[(&str, &Tensor)], norm: bool| -> Result<Conv> {
        let tensors = tensors
            .iter()
            .map(|&(name, tensor)| (name.to_string(), tensor.clone()))
            .collect();
        let vb = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
        Conv::new(config.weight_norm(norm), &vb)
    };
    let bias = noise(&[2], 3, DType::F64)?;
    let split = layer(
        &[
            ("weight_g", &magnitude),
            ("weight_v", &direction),
            ("bias", &bias),
        ],
        true,
    )?;
    let plain = layer(&[("weight", &folded), ("bias", &bias)], false)?;
    let x = noise(&[1, 2, 3, 4], 4, DType::F64)?;
    assert!(max_difference(&split.forward(&x)?, &plain.forward(&x)?)? < 1e-12);
    Ok(())
}
