//! The engines: the values of the parameter Engine, and their processors.

use std::sync::Arc;

use model_runtime::freeze::FreezeStore;
use model_runtime::scope::Scope;
use model_runtime::worker::{ProcessorError, WindowProcessor};
use model_runtime::{
    ClassicStream, Factor, LatencyMode, Model, RemixStream, StreamSettings, Voice,
};
use nice_plug::prelude::Enum;
use vocoder::classic::Method;

/// An engine makes the remix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum Engine {
    /// The network of the model.
    #[id = "network"]
    Network,
    /// [`Method::Separation`]: the harmonic part of one input with the percussive part of the other.
    #[id = "split"]
    Split,
    /// [`Method::Morphing`]: the product of the spectra.
    #[id = "morph"]
    Morph,
    /// The network of a model of timbre: the notes of one input with the colour of the other.
    #[id = "timbre"]
    Timbre,
    /// [`Method::Timbre`]: the same without a network, by the spectral envelope.
    #[id = "envelope"]
    Envelope,
}

/// Properties of an engine.
struct Facts {
    /// Whether it uses a model's network: then all latency modes differ, and it has latents.
    is_network: bool,
    /// What it takes from either input.
    factors: &'static [Factor],
    processor: fn(Parts) -> Result<Box<dyn WindowProcessor>, ProcessorError>,
}

/// The inputs of [`Engine::processor`].
pub struct Parts<'a> {
    /// The model to use.
    pub model: &'a Model,
    /// The host's sample rate.
    pub sample_rate_hz: u32,
    /// The latency mode.
    pub mode: LatencyMode,
    /// Stores the frozen loops.
    pub frozen: Arc<FreezeStore>,
    /// Receives inputs, latents and output for display.
    pub scope: Arc<Scope>,
}

/// Two pieces of music.
const MUSIC: &[Factor] = &[Factor::Harmony, Factor::Rhythm];
/// An instrument that plays, and the sound of another.
const INSTRUMENT: &[Factor] = &[Factor::Timbre, Factor::Pitch, Factor::Variation];

impl Engine {
    /// The tooltip of the parameter.
    pub const HELP: &'static str = "Network remixes two tracks, Timbre plays the notes of one with the colour of the other. Split, \
                                    Morph and Envelope do so without a network, with less CPU and latency. Takes effect when \
                                    the host restarts the plugin.";

    /// The engines that use a model's network.
    pub const WITH_NETWORK: [Self; 2] = [Self::Network, Self::Timbre];

    const fn facts(self) -> Facts {
        match self {
            Self::Network => Facts {
                is_network: true,
                factors: MUSIC,
                processor: network,
            },
            Self::Split => Facts {
                is_network: false,
                factors: MUSIC,
                processor: |parts| classic(Method::Separation, parts),
            },
            Self::Morph => Facts {
                is_network: false,
                factors: MUSIC,
                processor: |parts| classic(Method::Morphing, parts),
            },
            Self::Timbre => Facts {
                is_network: true,
                factors: INSTRUMENT,
                processor: network,
            },
            Self::Envelope => Facts {
                is_network: false,
                factors: INSTRUMENT,
                processor: envelope,
            },
        }
    }

    /// The mode to use if the user wants `wanted`: a network supports all modes, the other engines sound the same in Default
    /// and Full.
    pub fn mode(self, wanted: LatencyMode) -> LatencyMode {
        match (self.facts().is_network, wanted) {
            (false, LatencyMode::Full) => LatencyMode::Default,
            _ => wanted,
        }
    }

    /// The mode by which windows and compute allowance are measured: the engines without a network need little time in any.
    pub fn exchange_mode(self, mode: LatencyMode) -> LatencyMode {
        match self.facts().is_network {
            true => mode,
            false => LatencyMode::Live,
        }
    }

    /// What it takes from either input. The parameters of other factors have no effect.
    pub fn factors(self) -> &'static [Factor] {
        self.facts().factors
    }

    /// The built-in model of its factors.
    ///
    /// # Errors
    ///
    /// If the file is damaged.
    pub fn built_in_model(self) -> model_runtime::Result<Arc<Model>> {
        match self.factors() == INSTRUMENT {
            true => Model::built_in_timbre(),
            false => Model::built_in(),
        }
    }

    /// Whether a model takes apart what the knobs of this engine put together.
    pub fn fits(self, model: &Model) -> bool {
        let layouts = model.network().factors().iter();
        layouts
            .map(|layout| layout.factor)
            .eq(self.factors().iter().copied())
    }

    /// Whether it has latents to display.
    pub fn has_latents(self) -> bool {
        self.facts().is_network
    }

    /// Displayed mel frames per second.
    pub fn frames_hz(model: &Model) -> f64 {
        let mel = &model.header().mel;
        f64::from(mel.sample_rate_hz) / mel.hop_length as f64
    }

    /// Creates the processor for the worker, at the host's rate.
    ///
    /// # Errors
    ///
    /// If the model cannot be used.
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
    let stream = stream.with_freeze_store(parts.frozen)?;
    Ok(Box::new(stream.with_scope(parts.scope)))
}

fn envelope(parts: Parts) -> Result<Box<dyn WindowProcessor>, ProcessorError> {
    let stream = ClassicStream::new(Method::Timbre, parts.mode, parts.sample_rate_hz)?;
    let stream = stream.with_freeze_store(parts.frozen);
    Ok(Box::new(stream.with_scope(parts.scope)?))
}

fn classic(method: Method, parts: Parts) -> Result<Box<dyn WindowProcessor>, ProcessorError> {
    let stream = ClassicStream::new(method, parts.mode, parts.sample_rate_hz)?;
    Ok(Box::new(stream.with_scope(parts.scope)?))
}
