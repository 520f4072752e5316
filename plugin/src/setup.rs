//! The setup for which the host activates the plugin, and the requests for a restart with another one.

use model_runtime::LatencyMode;

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
