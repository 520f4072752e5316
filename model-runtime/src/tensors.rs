//! Converts between log-mels and tensors.

use candle_core::{Device, Tensor};
use vocoder::LogMel;

use crate::error::{Error, Result};

/// Stacks log-mels of the same length into one tensor (B, 1, n_mels, T).
///
/// # Errors
///
/// If there are none, or if their lengths or numbers of bands differ.
pub fn to_tensor(mels: &[LogMel]) -> Result<Tensor> {
    let Some(first) = mels.first() else {
        return Err(Error::input("log-mels", "at least one", 0));
    };
    let (frames, n_mels) = (first.frames(), first.n_mels());
    let values = mels
        .iter()
        .flat_map(LogMel::values)
        .copied()
        .collect::<Vec<_>>();
    let by_frame = Tensor::from_vec(values, (mels.len(), 1, frames, n_mels), &Device::Cpu)?;
    Ok(by_frame.transpose(2, 3)?.contiguous()?)
}

/// Splits a tensor (B, 1, n_mels, T) into its batch elements.
///
/// # Errors
///
/// If the shape does not fit.
pub fn to_log_mels(mels: &Tensor) -> Result<Vec<LogMel>> {
    let (batch, _, n_mels, _) = mels.dims4()?;
    let by_frame = mels.transpose(2, 3)?.contiguous()?;
    (0..batch)
        .map(|b| {
            Ok(LogMel::from_values(
                n_mels,
                by_frame.get(b)?.flatten_all()?.to_vec1()?,
            )?)
        })
        .collect()
}
