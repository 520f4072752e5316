//! Audio thread: fades out the old setup and fades in the new one, around the restart by the host.

use crate::ramp::Ramp;
use crate::setup::{Restart, Setup, Wish};

/// Longest silence after a restart request, because a host may refuse it.
const RESTART_SECONDS: f32 = 0.5;

/// Audio thread: the gain around a restart.
pub struct RestartFade {
    /// The setup in force.
    setup: Setup,
    restart: Restart,
    gain: Ramp,
    /// Remaining samples of silence.
    silent_samples: usize,
    longest_samples: usize,
    fades_in: bool,
    has_played: bool,
}

/// What was played last before a restart.
#[derive(Clone, Copy, Debug)]
pub struct LastSound {
    setup: Setup,
    is_silent: bool,
}

impl LastSound {
    /// Whether the sound has to fade in after a restart with this setup.
    pub fn needs_fade_in(&self, next: Setup) -> bool {
        self.is_silent || self.setup != next
    }
}

impl RestartFade {
    /// Starts with sound, unless `fades_in` says that the sound faded out before the restart.
    pub fn new(setup: Setup, sample_rate_hz: f32, fades_in: bool) -> Self {
        let mut gain = Ramp::new(sample_rate_hz);
        gain.settle(1.0);
        Self {
            setup,
            restart: Restart::default(),
            gain,
            silent_samples: 0,
            longest_samples: (RESTART_SECONDS * sample_rate_hz) as usize,
            fades_in,
            has_played: false,
        }
    }

    /// Resets; the first sound comes after `latency_samples`.
    pub fn reset(&mut self, latency_samples: usize) {
        if self.fades_in && !self.has_played {
            self.gain.settle(0.0);
            self.silent_samples = latency_samples;
        }
    }

    /// What was played last; none if nothing was.
    pub fn last_sound(&self) -> Option<LastSound> {
        self.has_played.then(|| LastSound {
            setup: self.setup,
            is_silent: self.gain.value() == 0.0,
        })
    }

    /// The gain of the next sample.
    pub fn next(&mut self) -> f32 {
        self.has_played = true;
        let silent = self.silent_samples > 0;
        self.silent_samples = self.silent_samples.saturating_sub(1);
        self.gain.next(if silent { 0.0 } else { 1.0 })
    }

    /// Whether to request a restart from the host now: once per setup, after the sound has faded out.
    pub fn is_due(&mut self, wanted: Setup) -> bool {
        match self.restart.note(self.setup, wanted) {
            Wish::Same => {}
            Wish::New => self.silent_samples = self.longest_samples,
            Wish::Withdrawn => self.silent_samples = 0,
        }
        self.restart.take_due(self.gain.value() == 0.0)
    }
}
