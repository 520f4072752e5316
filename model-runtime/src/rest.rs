//! Detects when a stream can rest: long enough after the remix has last played. The main input plays then. Until the
//! remix is due again, the stream computes nothing.

use crate::window::Window;

/// A stream rests when the remix has not been due for the latency plus this time: by then the audio thread plays the main
/// input. It is longer than a crossfade and the longest window, at whose start the rest begins.
const REST_AFTER_SECONDS: f64 = 0.1;

/// What the stream does with a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Process all of it.
    Play,
    /// Rest for the first `idle_samples`, then begin a clip with the remaining samples, if any.
    Rest { idle_samples: usize },
}

/// Tracks for how long the remix has not been due.
#[derive(Debug)]
pub(crate) struct Rest {
    after_samples: usize,
    asleep: bool,
    /// Samples without the remix at the end of the input so far.
    idle_samples: usize,
}

impl Rest {
    /// Creates the tracker, resting, for a stream with this latency.
    pub(crate) fn new(latency_samples: usize, sample_rate_hz: u32) -> Self {
        let after_samples = REST_AFTER_SECONDS * f64::from(sample_rate_hz);
        Self {
            after_samples: latency_samples + after_samples as usize,
            asleep: true,
            idle_samples: 0,
        }
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Returns to rest.
    pub(crate) fn reset(&mut self) {
        self.asleep = true;
        self.idle_samples = 0;
    }

    /// Takes the next window. The result depends on where the remix is due, not on where the window ends.
    pub(crate) fn listen(&mut self, window: &Window) -> Step {
        let samples = window.samples();
        let first = window.remixed.iter().position(|&remixed| remixed);
        let leading = first.unwrap_or(samples);
        let idle_samples = self.idle_samples + leading;
        let rests = self.asleep || idle_samples >= self.after_samples;
        self.asleep = rests && leading == samples;
        let last = window.remixed.iter().rposition(|&remixed| remixed);
        self.idle_samples = last.map_or(idle_samples, |last| samples - 1 - last);
        match rests {
            true => Step::Rest {
                idle_samples: leading,
            },
            false => Step::Play,
        }
    }
}
