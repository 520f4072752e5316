//! Weight norm compared with PyTorch.

mod common;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use common::{max_difference, noise};
use vocoder::layers::{Conv, ConvConfig, fold_weight_norm};

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
