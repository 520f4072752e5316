//! Where a network is trained.

use std::fmt::{self, Display};
use std::str::FromStr;

use anyhow::{Context, Result};
use candle_core::Device;

/// A device by the name that it has on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// `cpu`
    Cpu,
    /// `cuda` (the first GPU) or `cuda:N`
    Cuda(usize),
}

impl DeviceName {
    /// Makes the device ready.
    ///
    /// # Errors
    ///
    /// When this build or this machine cannot use the device.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => open_cuda(number).with_context(|| format!("cannot use {self}")),
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: usize) -> Result<Device> {
    anyhow::bail!(
        "this build knows no GPU; \"cargo xtask train --device cuda\" builds with \"--features cuda\", which needs the CUDA toolkit"
    )
}

/// Products of f32 matrices may round their factors to 11 bits (TF32), as is usual in training. Memory that is freed is
/// kept for the next step, which by default CUDA hands back to the system whenever it is waited for.
#[cfg(feature = "cuda")]
fn open_cuda(number: usize) -> Result<Device> {
    use candle_core::cuda::cudarc::driver::{result, sys::CUmemPool_attribute};

    candle_core::cuda::set_gemm_reduced_precision_f32(true);
    let device = Device::new_cuda(number)?;
    let stream = device.as_cuda_device()?.cuda_stream();
    let context = stream.context();
    if context.has_async_alloc() {
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let mut threshold_bytes = u64::MAX;
        // SAFETY: the device is that of a living context, the pool is its own, and this attribute's value is a u64.
        unsafe {
            let pool = result::device::get_default_mem_pool(context.cu_device())?;
            result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold_bytes).cast())?;
        }
    }
    Ok(device)
}

/// Runs some matrix products without rounding their factors, whatever the device is set to.
pub fn exactly<T>(products: impl FnOnce() -> T) -> T {
    use candle_core::cuda::{gemm_reduced_precision_f32, set_gemm_reduced_precision_f32};

    let rounded = gemm_reduced_precision_f32();
    set_gemm_reduced_precision_f32(false);
    let result = products();
    set_gemm_reduced_precision_f32(rounded);
    result
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let number = match (name, name.strip_prefix("cuda:")) {
            ("cpu", _) => return Ok(Self::Cpu),
            ("cuda", _) => Some(0),
            (_, number) => number.and_then(|number| number.parse().ok()),
        };
        let unknown = || format!("expected cpu, cuda or cuda:N, found \"{name}\"");
        number.map(Self::Cuda).ok_or_else(unknown)
    }
}

impl Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for (name, device) in [
            ("cpu", DeviceName::Cpu),
            ("cuda", DeviceName::Cuda(0)),
            ("cuda:3", DeviceName::Cuda(3)),
        ] {
            assert_eq!(name.parse(), Ok(device));
        }
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            let error = name.parse::<DeviceName>().unwrap_err();
            assert!(error.contains("expected cpu, cuda or cuda:N"), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_how_to_get_it() {
        let error = format!("{:#}", DeviceName::Cuda(0).open().unwrap_err());
        assert!(error.contains("--features cuda"), "{error}");
    }
}
