//! The device that trains a network.

use std::fmt::{self, Display};
use std::str::FromStr;

use anyhow::{Context, Result};
use candle_core::Device;

/// A device by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// `cpu`
    Cpu,
    /// `cuda` (the first GPU) or `cuda:N`
    Cuda(usize),
}

impl DeviceName {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// Returns an error if this build or this machine does not support the device.
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
        "this build has no CUDA support; \"cargo xtask train --device cuda\" builds the trainer with \"--features cuda\", which needs the CUDA toolkit"
    )
}

/// Enables TF32 for f32 matrix products (operands rounded to 11 bits), as is usual in training. Keeps freed memory
/// for the next step; by default, CUDA returns it to the system at every synchronisation.
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
        // SAFETY: the device belongs to a live context, the pool to the device, and the value of this attribute is a
        // u64.
        unsafe {
            let pool = result::device::get_default_mem_pool(context.cu_device())?;
            result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold_bytes).cast())?;
        }
    }
    Ok(device)
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
