//! A headless CLAP host: loads the built plugin and renders audio through it.
//!
//! ```no_run
//! use graft_tests::{Plugin, RenderJob};
//!
//! let plugin = Plugin::load("target/bundled/Graft.clap".as_ref())?;
//! let rendered = plugin.render(&RenderJob {
//!     main: vec![vec![0.0; 44_100]; 2],
//!     sidechain: Some(vec![vec![0.0; 44_100]; 2]),
//!     parameters: vec![("Harmony".to_owned(), 0.5)],
//!     ..RenderJob::default()
//! })?;
//! println!("{} samples of latency", rendered.latency_samples);
//! # anyhow::Ok(())
//! ```

mod allocations;
#[cfg(target_os = "linux")]
mod desktop;
mod plugin;
mod render;
mod session;
mod song;
mod vst3;

pub use allocations::{CountingAllocator, allocations};
#[cfg(target_os = "linux")]
pub use desktop::{Button, Desktop, HostWindow, Screenshot};
pub use plugin::{Parameter, Plugin, built_library};
pub use render::{Automation, RenderJob, Rendered};
pub use session::{Activation, Block, ParameterEvent, Session};
pub use song::{Song, Stretch};
pub use vst3::Vst3Session;
