//! Between log-mels and tensors.

use anyhow::Result;
use candle_core::{Device, Tensor};
use vocoder::LogMel;

/// Log-mels of the same length as one tensor (B, 1, n_mels, T).
///
/// # Errors
///
/// When their lengths or numbers of bands differ.
pub fn to_tensor(mels: &[LogMel]) -> Result<Tensor> {
    let (frames, n_mels) = (mels[0].frames(), mels[0].n_mels());
    let values = mels.iter().flat_map(LogMel::values).copied().collect();
    let shape = (mels.len(), 1, frames, n_mels);
    let by_frame = Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu)?;
    Ok(by_frame.transpose(2, 3)?.contiguous()?)
}

/// The batch elements of a tensor (B, 1, n_mels, T).
///
/// # Errors
///
/// When the shape is another.
pub fn to_log_mels(mels: &Tensor) -> Result<Vec<LogMel>> {
    let (batch, _, n_mels, _) = mels.dims4()?;
    let by_frame = mels.transpose(2, 3)?.contiguous()?;
    (0..batch)
        .map(|b| {
            let values = by_frame.get(b)?.flatten_all()?.to_vec1()?;
            Ok(LogMel::from_values(n_mels, values)?)
        })
        .collect()
}
