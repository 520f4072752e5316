//! Decides at each sample which of the two plays: the remix, or the main input because there is nothing to remix it with.

use crate::presence::Presence;

/// A sidechain that is silent for this long counts as missing. Hosts fill an unused sidechain with zeros, so silence is
/// the only sign; shorter silences are part of the music.
pub(crate) const SIDECHAIN_HOLD_SECONDS: f64 = 2.0;

/// Audio thread: whether the remix plays.
///
/// It plays while the sidechain sounds, and for two seconds after it. This depends on the samples alone, not on blocks or
/// windows.
#[derive(Debug)]
pub(crate) struct Gate {
    presence: Presence,
    /// Samples since the sidechain sounded.
    silent_samples: u64,
    hold_samples: u64,
}

impl Gate {
    /// Creates a gate after silence. Allocates; all other methods are real-time safe.
    pub(crate) fn new(sample_rate_hz: u32) -> Self {
        let presence = Presence::new(sample_rate_hz);
        let hold_samples = (SIDECHAIN_HOLD_SECONDS * f64::from(sample_rate_hz)) as usize;
        Self {
            silent_samples: u64::MAX,
            // The time includes that which it takes to notice the end of the sound.
            hold_samples: (hold_samples + 1 - presence.level_samples()) as u64,
            presence,
        }
    }

    /// Forgets the input so far.
    pub(crate) fn reset(&mut self) {
        self.presence.reset();
        self.silent_samples = u64::MAX;
    }

    /// Takes the next sample, and returns whether the remix plays there.
    pub(crate) fn next(&mut self, sidechain: [f32; 2]) -> bool {
        self.silent_samples = match self.presence.next(sidechain) {
            true => 0,
            false => self.silent_samples.saturating_add(1),
        };
        self.silent_samples < self.hold_samples
    }
}
