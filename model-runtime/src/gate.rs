//! Decides at each sample which of the two plays: the remix, or the main input because there is nothing to remix it with.

use std::sync::Arc;

use crate::controls::Controls;
use crate::factor::Factor;
use crate::freeze::FreezeStore;
use crate::presence::Presence;

/// A sidechain that is silent for this long counts as missing. Hosts fill an unused sidechain with zeros, so silence is
/// the only sign; shorter silences are part of the music.
pub(crate) const SIDECHAIN_HOLD_SECONDS: f64 = 2.0;

/// Audio thread: whether the remix plays.
///
/// It plays while the sidechain sounds, and for two seconds after it. A frozen factor keeps it playing: a freeze that is
/// on while the remix plays goes on without a sidechain, and so does one with a loop from a session. A freeze that begins
/// without a sidechain and without a loop has nothing to play. All of this depends on the samples and on their controls,
/// not on blocks or windows, nor on the worker; only a session that is loaded during playback takes effect at the next
/// block.
#[derive(Debug)]
pub(crate) struct Gate {
    presence: Presence,
    /// Samples since the sidechain sounded.
    silent_samples: u64,
    hold_samples: u64,
    /// None if frozen factors make no difference.
    loops: Option<Arc<FreezeStore>>,
    /// Number of the load of which `holds` knows.
    loads: Option<u64>,
    /// For each factor, whether it is frozen.
    frozen: [bool; Factor::COUNT],
    /// For each factor, whether the remix plays without a sidechain as long as the factor is frozen.
    holds: [bool; Factor::COUNT],
}

impl Gate {
    /// Creates a gate without frozen factors, after silence. Allocates; all other methods are real-time safe.
    pub(crate) fn new(sample_rate_hz: u32) -> Self {
        let presence = Presence::new(sample_rate_hz);
        let hold_samples = (SIDECHAIN_HOLD_SECONDS * f64::from(sample_rate_hz)) as usize;
        Self {
            silent_samples: u64::MAX,
            // The time includes that which it takes to notice the end of the sound.
            hold_samples: (hold_samples + 1 - presence.level_samples()) as u64,
            presence,
            loops: None,
            loads: None,
            frozen: [false; Factor::COUNT],
            holds: [false; Factor::COUNT],
        }
    }

    /// Lets frozen factors keep the remix playing. Their loops are in `loops`.
    pub(crate) fn set_loops(&mut self, loops: Arc<FreezeStore>) {
        self.loops = Some(loops);
    }

    /// Forgets the input so far. What is frozen stays so.
    pub(crate) fn reset(&mut self) {
        self.presence.reset();
        self.silent_samples = u64::MAX;
    }

    /// Looks for loops that were loaded. To be called at the start of each block.
    pub(crate) fn begin_block(&mut self) {
        let Some(loops) = &self.loops else { return };
        let loaded = loops.loaded();
        if self.loads != Some(loaded.loads) {
            self.loads = Some(loaded.loads);
            self.holds = loaded.factors;
        }
    }

    /// Sets the controls of the next samples.
    pub(crate) fn set_controls(&mut self, controls: &Controls) {
        if self.loops.is_none() {
            return;
        }
        for factor in Factor::ALL {
            let is_frozen = controls[factor].loop_beats.is_some();
            let was_frozen = std::mem::replace(&mut self.frozen[factor as usize], is_frozen);
            if was_frozen && !is_frozen {
                self.holds[factor as usize] = false;
            }
        }
    }

    /// Takes the next sample, and returns whether the remix plays there.
    pub(crate) fn next(&mut self, sidechain: [f32; 2]) -> bool {
        self.silent_samples = match self.presence.next(sidechain) {
            true => 0,
            false => self.silent_samples.saturating_add(1),
        };
        let is_present = self.silent_samples < self.hold_samples;
        match self.frozen.contains(&true) {
            true => self.plays_frozen(is_present),
            false => is_present,
        }
    }

    /// Whether the remix plays while a factor is frozen.
    fn plays_frozen(&mut self, is_present: bool) -> bool {
        let pairs = || self.frozen.iter().zip(&self.holds);
        let plays = is_present || pairs().any(|(frozen, holds)| *frozen && *holds);
        for (holds, frozen) in self.holds.iter_mut().zip(self.frozen) {
            *holds |= plays && frozen;
        }
        plays
    }
}
