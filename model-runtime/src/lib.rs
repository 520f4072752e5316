//! HARD encoder and decoder, and the remix that they make, whole or in steps.

mod audio;
pub mod credit;
pub mod delay;
pub mod hard;
pub mod latent;
pub mod network;
pub mod packet;
pub mod pitch_aligned;
pub mod status;
pub mod worker;

pub use audio::AudioClip;
pub use network::{Architecture, Network};
pub use packet::Controls;
