//! Training of the networks.

pub mod audio_cache;
pub mod dataset;
pub mod sampler;
pub mod shifted_mel;
