//! Test tensors from a formula and a checksum of tensors, for comparison with PyTorch.

use candle_core::{Device, Result, Tensor};

/// `sin(0.37 i^2 + phase)` at element `i`, in f64.
pub fn wave(shape: &[usize], phase: f64) -> Result<Tensor> {
    let values = (0..shape.iter().product::<usize>())
        .map(|i| (0.37 * i as f64 * i as f64 + phase).sin())
        .collect::<Vec<_>>();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// The product of a tensor with a wave of its shape, summed.
pub fn digest(tensor: &Tensor) -> Result<f64> {
    (tensor * wave(tensor.dims(), 9.0)?)?.sum_all()?.to_scalar()
}
