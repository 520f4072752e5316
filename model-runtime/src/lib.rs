#![doc = include_str!("../README.md")]
//!
//! # Live inputs
//!
//! A [`Model`] holds a [`Network`] that separates music into factors and decodes a mix of them.
//! [`RemixStream`] remixes live inputs with it, at a constant latency:
//!
//! ```
//! use model_runtime::worker::WindowProcessor;
//! use model_runtime::{LatencyMode, Model, RemixStream, StreamSettings, Voice, Window};
//!
//! let settings = StreamSettings {
//!     sample_rate_hz: 48_000,
//!     voice: Voice::Guided,
//!     mode: LatencyMode::Default,
//! };
//! let model = Model::built_in()?;
//! let mut stream = RemixStream::new(&model, settings)?;
//! println!("{} samples of latency", stream.latency_samples());
//!
//! // 1024 samples of both inputs; controls every 256 samples.
//! let mut window = Window::new(1024, 256);
//! let (mut left, mut right) = (vec![0.0; 1024], vec![0.0; 1024]);
//! for _ in 0..3 {
//!     window.main[0].fill(0.1);
//!     window.sidechain[1].fill(0.1);
//!     stream.process(&window, [&mut left, &mut right])?;
//!     window.stream_position_samples += 1024;
//! }
//! # Ok::<(), model_runtime::worker::ProcessorError>(())
//! ```
//!
//! In a plugin, [`exchange`] connects the audio thread with a [`worker`] thread that runs the stream.

mod analysis;
mod architecture;
mod audio;
mod blend;
mod classic;
mod clip_stream;
mod controls;
pub mod credit;
mod crossover;
pub mod delay;
mod error;
pub mod exchange;
mod factor;
pub mod freeze;
mod gate;
pub mod geometry;
pub mod hard;
mod knobs;
pub mod latent;
pub mod lord;
mod mixing;
pub mod model_file;
mod network;
pub mod pitch_aligned;
mod pitch_axis;
mod planned;
mod presence;
mod remixer;
mod resample;
mod rest;
pub mod sample;
pub mod scope;
mod sketch;
pub mod status;
mod stream;
pub mod tensors;
pub mod timbre;
pub mod translation;
pub mod transport;
mod voice;
mod window;
pub mod worker;

pub use architecture::Architecture;
pub use audio::AudioClip;
pub use classic::ClassicStream;
pub use controls::{Controls, FactorControls};
pub use error::{Error, Result};
pub use factor::{Factor, FactorLayout, FactorMap, Transposition};
pub use geometry::LatencyMode;
pub use model_file::Model;
pub use network::{Network, StreamDecoder, StreamEncoder};
pub use planned::{PlanCell, Planned};
pub use remixer::{ClipRemixer, RemixSettings, Remixer};
pub use resample::{Resampler, resample};
pub use stream::{RemixStream, StreamSettings};
pub use voice::Voice;
pub use window::Window;
