//! Helpers for the tests.

use candle_core::{DType, Device, Result, Tensor};

/// Pseudo-random numbers in -1..1, which the Python scripts in `tests/data` generate in the same way.
pub fn noise(shape: &[usize], seed: u32, dtype: DType) -> Result<Tensor> {
    let values = (0..shape.iter().product::<usize>() as u32)
        .map(|i| {
            let mut h = i
                .wrapping_mul(2_654_435_761)
                .wrapping_add(seed.wrapping_mul(40503));
            h = (h ^ (h >> 15)).wrapping_mul(2_246_822_519);
            h = (h ^ (h >> 13)).wrapping_mul(3_266_489_917);
            f64::from(h ^ (h >> 16)) / 2_147_483_648.0 - 1.0
        })
        .collect::<Vec<_>>();
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)
}

/// Largest difference between two tensors of one shape.
pub fn max_difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    assert_eq!(a.dims(), b.dims());
    (a - b)?
        .abs()?
        .flatten_all()?
        .max(0)?
        .to_dtype(DType::F64)?
        .to_scalar()
}
