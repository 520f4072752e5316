//! What the parameter Engine chooses between, and how each of them makes its remix.

use std::sync::Arc;

use model_runtime::freeze::FreezeStore;
use model_runtime::scope::Scope;
use model_runtime::worker::{ProcessorError, WindowProcessor};
use model_runtime::{ClassicStream, LatencyMode, Model, RemixStream, StreamSettings, Voice};
use nice_plug::prelude::Enum;
use vocoder::classic::Method;

/// What makes the remix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum Engine {
    /// The network of the model.
    #[id = "network"]
    Network,
    /// [`Method::Separation`]: harmonic parts with percussive parts.
    #[id = "split"]
    Split,
    /// [`Method::Morphing`]: spectra multiplied.
    #[id = "morph"]
    Morph,
}

/// What there is to know of an engine.
struct Facts {
    /// Whether it can wait for more of the future, and makes latents to look at.
    is_network: bool,
    processor: fn(Parts) -> Result<Box<dyn WindowProcessor>, ProcessorError>,
}

/// What a processor is made of.
pub struct Parts<'a> {
    /// The model to play.
    pub model: &'a Model,
    /// The host's sample rate.
    pub sample_rate_hz: u32,
    /// How much of the future to wait for.
    pub mode: LatencyMode,
    /// Keeps what is frozen.
    pub frozen: Arc<FreezeStore>,
    /// Shows what the processor hears and makes.
    pub scope: Arc<Scope>,
}

impl Engine {
    /// The tooltip of the parameter, which names them.
    pub const HELP: &'static str = "the network, or Split or Morph, which use very little CPU. Takes effect when \
                                    the host restarts the plugin.";

    const fn facts(self) -> Facts {
        match self {
            Self::Network => Facts {
                is_network: true,
                processor: network,
            },
            Self::Split => Facts {
                is_network: false,
                processor: |parts| classic(Method::Separation, parts),
            },
            Self::Morph => Facts {
                is_network: false,
                processor: |parts| classic(Method::Morphing, parts),
            },
        }
    }

    /// The latency mode where the user wants `wanted`: only the network has a choice, the others look no further ahead than they
    /// must.
    pub fn mode(self, wanted: LatencyMode) -> LatencyMode {
        match self.facts().is_network {
            true => wanted,
            false => LatencyMode::Live,
        }
    }

    /// Whether it has latents to look at.
    pub fn has_latents(self) -> bool {
        self.facts().is_network
    }

    /// Mel frames a second, as they are shown.
    pub fn frames_hz(model: &Model) -> f64 {
        let mel = &model.header().mel;
        f64::from(mel.sample_rate_hz) / mel.hop_length as f64
    }

    /// Makes the processor that a worker runs at the host's rate.
    ///
    /// # Errors
    ///
    /// When the model cannot be used.
    pub fn processor(self, parts: Parts) -> Result<Box<dyn WindowProcessor>, ProcessorError> {
        (self.facts().processor)(parts)
    }
}

fn network(parts: Parts) -> Result<Box<dyn WindowProcessor>, ProcessorError> {
    let settings = StreamSettings {
        sample_rate_hz: parts.sample_rate_hz,
        voice: Voice::Guided,
        mode: parts.mode,
    };
    let stream = RemixStream::new(parts.model, settings)?;
    let stream = stream.with_freeze_store(parts.frozen);
    Ok(Box::new(stream.with_scope(parts.scope)))
}

fn classic(method: Method, parts: Parts) -> Result<Box<dyn WindowProcessor>, ProcessorError> {
    let stream = ClassicStream::new(method, parts.sample_rate_hz)?;
    Ok(Box::new(stream.with_scope(parts.scope)?))
}
