//! What the plugin is activated for, and when the host has to restart it for something else.

use model_runtime::LatencyMode;
use nice_plug::context::PluginApi;

use crate::engines::Engine;
use crate::params::GraftParams;

/// What stays the same while the plugin is active: to change it, the host has to restart the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What makes the remix.
    pub engine: Engine,
    /// How much of the future the remix waits for.
    pub mode: LatencyMode,
    /// [`crate::models::ModelStore::version`] of the model.
    pub model_version: u64,
}

impl Setup {
    /// Any thread, the audio thread too: the setup that the parameters ask for.
    pub fn wanted(params: &GraftParams) -> Self {
        Self::with_model(params, params.model.0.version())
    }

    /// The same with another version of the model.
    pub fn with_model(params: &GraftParams, model_version: u64) -> Self {
        let engine = params.engine.value();
        Self {
            engine,
            mode: engine.mode(params.latency.value().0),
            model_version,
        }
    }
}

/// What the host activated the plugin for, and what it was told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    /// The setup in force.
    pub setup: Setup,
    /// The host's sample rate.
    pub sample_rate_hz: f32,
    /// The latency of the plugin.
    pub latency_samples: u32,
    /// Mel frames a second; 0 where nothing makes any.
    pub frames_hz: f64,
}

impl Activation {
    /// The latency in seconds.
    pub fn latency_seconds(&self) -> f64 {
        f64::from(self.latency_samples) / f64::from(self.sample_rate_hz)
    }
}

/// Who asks the host for a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The audio thread, once the sound has faded out.
    AudioThread,
    /// An open editor.
    Editor,
}

impl Asker {
    /// Who asks the host of an API. CLAP hosts take the request from any thread; in VST3 it would go through nice-plug's
    /// background thread, and the standalone program cannot restart the plugin.
    pub fn of(api: PluginApi) -> Option<Self> {
        match api {
            PluginApi::Clap => Some(Self::AudioThread),
            PluginApi::Vst3 => Some(Self::Editor),
            PluginApi::Standalone => None,
        }
    }
}

/// How the setup that is wanted compares with the one in force since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// As before.
    Same,
    /// Another setup is wanted.
    New,
    /// The setup in force will do again.
    Withdrawn,
}

/// Asks once for each setup that is wanted in place of the one in force.
#[derive(Debug, Default)]
pub struct Restart {
    wanted: Option<Setup>,
    asked: bool,
}

impl Restart {
    /// Notes which setup is in force and which is wanted.
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

    /// Whether to ask the host now, where `is_ready` says that it may be asked.
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
