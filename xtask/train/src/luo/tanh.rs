//! The hyperbolic tangent. On the CPU, candle's takes a quarter of a step.

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};
use vocoder::vectorized;

use crate::activation;

/// The hyperbolic tangent of each value.
///
/// # Errors
///
/// Returns an error if the computation fails.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    match x.device() {
        Device::Cpu if x.dtype() == DType::F32 && x.is_contiguous() => x.apply_op1(Tanh),
        _ => x.tanh(),
    }
}

struct Tanh;

impl CustomOp1 for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let values = storage.as_slice::<f32>()?;
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("expected contiguous values, found {layout:?}");
        };
        let mut result = values[start..end].to_vec();
        vectorized!(replace(&mut result));
        Ok((CpuStorage::F32(result), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some((gradient * result.sqr()?.affine(-1.0, 1.0)?)?))
    }
}

#[inline(always)]
fn replace(values: &mut [f32]) {
    for value in values {
        *value = activation::tanh(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn values_and_gradients_are_those_of_the_standard_library() {
        let values: Vec<f32> = (-4000..=4000).map(|n| n as f32 * 0.004).collect();
        let extremes = [f32::INFINITY, f32::NEG_INFINITY, 0.0, 1e-6];
        let values: Vec<f32> = values.into_iter().chain(extremes).collect();
        let x = Var::new(values.clone(), &Device::Cpu).unwrap();
        let y = tanh(x.as_tensor()).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        let gradient: Vec<f32> = gradients.get(&x).unwrap().to_vec1().unwrap();
        let y: Vec<f32> = y.to_vec1().unwrap();
        for ((x, y), gradient) in values.iter().zip(y).zip(gradient) {
            let expected = f64::from(*x).tanh();
            assert!(
                (f64::from(y) - expected).abs() < 3e-7,
                "{x}: {y}, {expected}"
            );
            let slope = 1.0 - expected * expected;
            assert!(
                (f64::from(gradient) - slope).abs() < 1e-6,
                "{x}: {gradient}, {slope}"
            );
        }
        let nan = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
        assert!(tanh(&nan).unwrap().to_vec1::<f32>().unwrap()[0].is_nan());
        // Others are left to candle.
        let double = Tensor::new(&[[0.5f64, 1.0], [2.0, 3.0]], &Device::Cpu).unwrap();
        let found = tanh(&double.t().unwrap())
            .unwrap()
            .to_vec2::<f64>()
            .unwrap();
        assert_eq!(found[0][1], 2f64.tanh());
    }
}
