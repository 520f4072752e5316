//! The setup for which the host activates the plugin, and the requests for a restart with another one.

use model_runtime::LatencyMode;
use model_runtime::geometry::{Geometry, GeometrySettings, StreamLatency};

use crate::engines::Engine;
use crate::params::GraftParams;

/// Settings that are constant while the plugin is active. To change them, the host has to restart the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The engine.
    pub engine: Engine,
    /// The latency mode.
    pub mode: LatencyMode,
    /// [`crate::models::ModelStore::version`] of the model.
    pub model_version: u64,
}

impl Setup {
    /// Any thread, including the audio thread: the setup that the parameters ask for.
    pub fn wanted(params: &GraftParams) -> Self {
        Self::with_model(params, params.model.0.version())
    }

    /// The setup that the parameters ask for, with another version of the model.
    pub fn with_model(params: &GraftParams, model_version: u64) -> Self {
        let engine = params.engine.value();
        Self {
            engine,
            mode: engine.mode(params.latency.value().0),
            model_version,
        }
    }
}

/// The terms of the latency, for display.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyTerms {
    /// Name and samples of each term.
    pub terms: [(&'static str, usize); 5],
    /// How much lower the latency would be with blocks of [`Self::SHORT_BLOCK_SAMPLES`].
    pub short_block_gain_samples: usize,
}

impl LatencyTerms {
    /// A short block of a host.
    pub const SHORT_BLOCK_SAMPLES: usize = 64;

    /// The terms of this exchange, and of a processor if they are known one by one.
    pub fn new(settings: &GeometrySettings, processor: Option<StreamLatency>) -> Self {
        let geometry = Geometry::new(settings);
        let short = Geometry::new(&GeometrySettings {
            max_block_samples: settings.max_block_samples.min(Self::SHORT_BLOCK_SAMPLES),
            ..*settings
        });
        let [analysis, network, voice] = match processor {
            Some(terms) => [
                terms.analysis_samples,
                terms.grouping_samples + terms.network_samples,
                terms.voice_samples,
            ],
            None => [settings.processor_latency_samples, 0, 0],
        };
        let filters = settings.processor_latency_samples - analysis - network - voice;
        Self {
            terms: [
                ("analysis", analysis),
                ("network", network),
                ("voice", voice),
                ("filters", filters),
                (
                    "buffers",
                    geometry.window_samples + geometry.compute_allowance_samples,
                ),
            ],
            short_block_gain_samples: geometry.latency_samples() - short.latency_samples(),
        }
    }
}

/// The setup of an activation, and the latency reported to the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    /// The setup in force.
    pub setup: Setup,
    /// The host's sample rate.
    pub sample_rate_hz: f32,
    /// The host's longest block.
    pub max_block_samples: u32,
    /// The latency of the plugin.
    pub latency_samples: u32,
    /// What it is made of.
    pub latency_terms: LatencyTerms,
    /// Mel frames per second; 0 if there are none.
    pub frames_hz: f64,
}

impl Activation {
    /// The latency in seconds.
    pub fn latency_seconds(&self) -> f64 {
        f64::from(self.latency_samples) / f64::from(self.sample_rate_hz)
    }
}

/// How the wanted setup changed since the last call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No change.
    Same,
    /// Another setup than that in force is wanted.
    New,
    /// The setup in force is wanted again.
    Withdrawn,
}

/// Requests a restart once per wanted setup.
#[derive(Debug, Default)]
pub struct Restart {
    wanted: Option<Setup>,
    asked: bool,
}

impl Restart {
    /// Records the setup in force and the wanted one.
    pub fn note(&mut self, in_force: Setup, wanted: Setup) -> Wish {
        let wanted = (wanted != in_force).then_some(wanted);
        if wanted == self.wanted {
            return Wish::Same;
        }
        self.wanted = wanted;
        self.asked = false;
        match wanted {
            Some(_) => Wish::New,
            None => Wish::Withdrawn,
        }
    }

    /// Whether to request a restart now; `is_ready` says whether a request is allowed yet.
    pub fn take_due(&mut self, is_ready: bool) -> bool {
        let due = self.wanted.is_some() && !self.asked && is_ready;
        self.asked |= due;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_add_up_to_the_latency_and_say_what_a_short_block_saves() {
        let stream = StreamLatency {
            resampling_samples: 140,
            analysis_samples: 1883,
            grouping_samples: 10,
            network_samples: 1115,
            voice_samples: 557,
        };
        let settings = |max_block_samples| GeometrySettings {
            mode: LatencyMode::Live,
            frame_seconds: 512.0 / 22_050.0,
            sample_rate_hz: 48_000.0,
            max_block_samples,
            processor_latency_samples: stream.total_samples(),
        };
        let latency =
            |max_block_samples| Geometry::new(&settings(max_block_samples)).latency_samples();
        for processor in [Some(stream), None] {
            for block in [64, 300, 1024] {
                let found = LatencyTerms::new(&settings(block), processor);
                let sum: usize = found.terms.iter().map(|(_, samples)| samples).sum();
                assert_eq!(sum, latency(block));
                assert_eq!(found.short_block_gain_samples, latency(block) - latency(64));
            }
        }
        assert!(latency(1024) > latency(64));
    }

    #[test]
    fn a_restart_is_asked_for_once_for_each_setup() {
        let of = |model_version| Setup {
            engine: Engine::Network,
            mode: LatencyMode::Default,
            model_version,
        };
        let mut restart = Restart::default();
        assert_eq!(restart.note(of(0), of(0)), Wish::Same);
        assert!(!restart.take_due(true), "nothing else is wanted");
        assert_eq!(restart.note(of(0), of(1)), Wish::New);
        assert!(!restart.take_due(false), "not ready yet");
        assert!(restart.take_due(true));
        assert_eq!(restart.note(of(0), of(1)), Wish::Same);
        assert!(!restart.take_due(true), "asked already");
        assert_eq!(restart.note(of(0), of(2)), Wish::New);
        assert!(restart.take_due(true));
        assert_eq!(restart.note(of(0), of(0)), Wish::Withdrawn);
        assert!(!restart.take_due(true));
        assert_eq!(restart.note(of(0), of(2)), Wish::New, "wanted again");
        assert!(restart.take_due(true));
        assert_eq!(restart.note(of(2), of(2)), Wish::Withdrawn, "granted");
    }
}
