//! Detects when a stream can rest. A sidechain that is silent long enough counts as missing, and the main input plays.
//! Until the sidechain's next sound, the stream computes nothing.

use crate::window::Window;

/// A sidechain that is digitally silent for this long counts as missing. Hosts fill an unused sidechain with zeros, so
/// silence is the only sign; shorter silences are part of the music.
pub(crate) const SIDECHAIN_HOLD_SECONDS: f64 = 2.0;

/// A stream rests after the sidechain was silent for the latency plus this time: by then the audio thread plays the
/// main input. The extra tenth of a second is longer than the longest window, at whose start the rest begins.
const REST_AFTER_SECONDS: f64 = SIDECHAIN_HOLD_SECONDS + 0.1;

/// What the stream does with a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Process all of it.
    Play,
    /// Rest for the first `silent_samples`, then begin a clip with the remaining samples, if any.
    Rest { silent_samples: usize },
}

/// Tracks the silence of the sidechain.
#[derive(Debug)]
pub(crate) struct Rest {
    after_samples: usize,
    asleep: bool,
    /// Silent samples of the sidechain at the end of the input so far.
    silent_samples: usize,
}

impl Rest {
    /// Creates the tracker, resting, for a stream with this latency.
    pub(crate) fn new(latency_samples: usize, sample_rate_hz: u32) -> Self {
        let after_samples = REST_AFTER_SECONDS * f64::from(sample_rate_hz);
        Self {
            after_samples: latency_samples + after_samples as usize,
            asleep: true,
            silent_samples: 0,
        }
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Returns to rest.
    pub(crate) fn reset(&mut self) {
        self.asleep = true;
        self.silent_samples = 0;
    }

    /// Handles a jump: forgets the input before it.
    pub(crate) fn begin_stream(&mut self) {
        self.silent_samples = 0;
    }

    /// Takes the next window. The result depends on where the silence ends, not on where the window ends.
    pub(crate) fn listen(&mut self, window: &Window) -> Step {
        let samples = window.samples();
        let leading = leading_silence(window);
        let silent_samples = self.silent_samples + leading;
        let rests = self.asleep || silent_samples >= self.after_samples;
        self.asleep = rests && leading == samples;
        self.silent_samples = match leading < samples {
            true => trailing_silence(window),
            false => silent_samples,
        };
        match rests {
            true => Step::Rest {
                silent_samples: leading,
            },
            false => Step::Play,
        }
    }
}

/// Samples at the start of a window in which the sidechain is silent.
fn leading_silence(window: &Window) -> usize {
    let first_sound = |channel: &Vec<f32>| channel.iter().position(|&sample| sample != 0.0);
    let sounds = window.sidechain.iter().filter_map(first_sound);
    sounds.min().unwrap_or(window.samples())
}

/// Samples at the end of a window in which the sidechain is silent.
fn trailing_silence(window: &Window) -> usize {
    let last_sound = |channel: &Vec<f32>| channel.iter().rposition(|&sample| sample != 0.0);
    let last = window.sidechain.iter().filter_map(last_sound).max();
    last.map_or(window.samples(), |last| window.samples() - 1 - last)
}
