//! The built-in model of Graft, for `model_runtime::Model::built_in`. A package of its own, because its licence is not that of
//! the code.

/// The model file: safetensors, described in its card, `graft.md`.
pub const FILE: &[u8] = include_bytes!("graft.safetensors");
