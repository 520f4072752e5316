//! The built-in models of Graft, for `model_runtime::Model`. A package of its own, because the licence of the first is not that of
//! the code.

/// The model of harmony and rhythm: safetensors, described in its card, `graft.md`.
pub const HARMONY_AND_RHYTHM: &[u8] = include_bytes!("graft.safetensors");

/// The model of timbre, pitch and variation, described in its card, `timbre.md`.
pub const TIMBRE: &[u8] = include_bytes!("timbre.safetensors");
