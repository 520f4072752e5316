//! HARD encoder and decoder, and the remix they make, whole or in steps.

mod audio;
pub mod hard;
pub mod latent;
pub mod network;
pub mod pitch_aligned;

pub use audio::AudioClip;
pub use network::{Architecture, Network};
