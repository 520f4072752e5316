//! HARD encoder and decoder, and the remix that they make, whole or in steps.

mod analysis;
mod audio;
mod classic;
mod clip_stream;
pub mod credit;
pub mod delay;
mod error;
pub mod freeze;
pub mod geometry;
pub mod hard;
mod knobs;
pub mod latent;
pub mod model_file;
pub mod network;
pub mod packet;
pub mod pitch_aligned;
mod remixer;
mod resample;
mod rest;
pub mod scope;
mod sketch;
pub mod status;
mod stream;
pub mod transport;
pub mod worker;

pub use audio::AudioClip;
pub use classic::ClassicStream;
pub use error::{Error, Result};
pub use geometry::LatencyMode;
pub use model_file::Model;
pub use network::{Architecture, Network};
pub use packet::Controls;
pub use remixer::{RemixSettings, Remixer, Voice};
pub use resample::{Resampler, resample};
pub use stream::{RemixStream, StreamSettings};
