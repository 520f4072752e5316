//! Every term of the latency, and what decides it, in one place.
//!
//! ```text
//! latency = window + compute allowance                                      between audio thread and worker
//!         + resampling + analysis + grouping + network + voice + rounding   in the remix itself
//! ```
//!
//! All terms are constant while the plugin is active. `docs/latency.md` has their values.

use serde::{Deserialize, Serialize};

/// Samples that rounding to whole samples may add.
const ROUNDING_SAMPLES: usize = 2;

/// Length of the fades between the remix and the delayed main input.
const FADE_SECONDS: f64 = 0.005;

/// The knobs are noted a few times for each mel frame, so that each frame finds one close by.
const CONTROLS_PER_FRAME: f64 = 4.0;

/// How much of the future the remix may wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatencyMode {
    /// As low as the model stays musical.
    Live,
    /// A compromise, below half a second.
    #[default]
    Default,
    /// Every layer gets its full reach: the remix of the whole clip.
    Full,
}

impl LatencyMode {
    /// All modes, the fastest first.
    pub const ALL: [Self; 3] = [Self::Live, Self::Default, Self::Full];

    /// How many mel frames the network looks ahead; `None` for all that it can.
    #[must_use]
    pub fn network_look_ahead_frames(self) -> Option<usize> {
        match self {
            // The harmony's average over four frames needs three of them, whatever else is left out.
            Self::Live => Some(3),
            Self::Default => Some(8),
            Self::Full => None,
        }
    }

    /// Length of the median filter along time in the guided voice's separation. Half of it is look-ahead, hidden behind the
    /// network's.
    #[must_use]
    pub fn median_frames(self) -> usize {
        match self {
            Self::Live => 7,
            Self::Default | Self::Full => 11,
        }
    }

    /// Length of the guided voice's synthesis window, in hops.
    #[must_use]
    pub fn synthesis_hops(self) -> usize {
        match self {
            Self::Live => 2,
            Self::Default | Self::Full => 4,
        }
    }

    /// Whether a model's generated voice can be heard. In Live it would delay the guided voice, too, by a fifth of the latency.
    #[must_use]
    pub fn has_generated_voice(self) -> bool {
        self != Self::Live
    }

    /// How many mel frames the network takes at a time. More are faster, but the first of them waits for the last.
    #[must_use]
    pub fn group_frames(self) -> usize {
        match self {
            Self::Live => 1,
            Self::Default => 2,
            Self::Full => 4,
        }
    }

    /// Longest window that the worker gets, in mel frames.
    fn window_frames(self) -> f64 {
        match self {
            Self::Live => 0.5,
            Self::Default | Self::Full => 2.0,
        }
    }

    /// What the worker may take for a window, in mel frames. Work comes in bursts, when the last of the frames that the
    /// harmony is averaged over is there; at the end of a stream, all that the network looks ahead is one.
    fn allowance_frames(self) -> f64 {
        match self {
            Self::Live => 1.0,
            Self::Default => 4.0,
            Self::Full => 6.0,
        }
    }
}

/// The terms of the remix's own latency, in samples at the host's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLatency {
    /// Filters of the resamplers, in and out.
    pub resampling_samples: usize,
    /// From the first sample of a hop to the end of the analysis frame around it.
    pub analysis_samples: usize,
    /// From the first frame of a group to the last.
    pub grouping_samples: usize,
    /// What the network's convolutions, its average and its interpolation see ahead.
    pub network_samples: usize,
    /// What the voice sees ahead.
    pub voice_samples: usize,
}

impl StreamLatency {
    /// The sum of all terms.
    #[must_use]
    pub fn total_samples(&self) -> usize {
        self.resampling_samples
            + self.analysis_samples
            + self.grouping_samples
            + self.network_samples
            + self.voice_samples
            + ROUNDING_SAMPLES
    }
}

/// The lengths that the exchange between audio thread and worker is made of, in samples at the host's rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// The host's sample rate.
    pub sample_rate_hz: f32,
    /// The longest block of the host.
    pub max_block_samples: usize,
    /// Longest window.
    pub window_samples: usize,
    /// Distance of the knob readings.
    pub control_interval_samples: usize,
    /// How far the processor's output lags behind its input.
    pub processor_latency_samples: usize,
    /// How long the worker may take from the last sample of a window to the first of its remix.
    pub compute_allowance_samples: usize,
}

/// What a [`Geometry`] is made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeometrySettings {
    /// How much of the future the remix may wait for.
    pub mode: LatencyMode,
    /// Time from one mel frame to the next.
    pub frame_seconds: f64,
    /// The host's sample rate.
    pub sample_rate_hz: f32,
    /// The longest block of the host.
    pub max_block_samples: usize,
    /// How far the processor's output lags behind its input.
    pub processor_latency_samples: usize,
}

impl Geometry {
    /// The lengths for a mode. A host with blocks longer than the mode's allowance gets that much more time, because in such a
    /// block whole windows come and fall due at once.
    #[must_use]
    pub fn new(settings: &GeometrySettings) -> Self {
        let &GeometrySettings {
            mode,
            sample_rate_hz,
            frame_seconds,
            ..
        } = settings;
        let samples =
            |frames: f64| (frames * frame_seconds * f64::from(sample_rate_hz)).round() as usize;
        let allowance_samples = samples(mode.allowance_frames());
        Self {
            sample_rate_hz,
            max_block_samples: settings.max_block_samples,
            window_samples: samples(mode.window_frames()),
            control_interval_samples: samples(1.0 / CONTROLS_PER_FRAME).max(1),
            processor_latency_samples: settings.processor_latency_samples,
            compute_allowance_samples: allowance_samples.max(settings.max_block_samples),
        }
    }

    /// The delay from input to output: window + compute allowance + processor latency.
    #[must_use]
    pub fn latency_samples(&self) -> usize {
        self.window_samples + self.compute_allowance_samples + self.processor_latency_samples
    }

    /// Duration of the host's longest block.
    pub(crate) fn max_block_seconds(&self) -> f64 {
        self.max_block_samples as f64 / f64::from(self.sample_rate_hz)
    }

    /// Length of the fades; a result is due by that much before its first sample is played.
    pub(crate) fn fade_samples(&self) -> usize {
        let wanted = (FADE_SECONDS * f64::from(self.sample_rate_hz)) as usize;
        wanted.clamp(1, (self.window_samples / 2).max(1))
    }

    pub(crate) fn validate(&self) -> Result<(), GeometryError> {
        let at_least = |term, found, expected| match found < expected {
            true => Err(GeometryError {
                term,
                expected,
                found,
            }),
            false => Ok(()),
        };
        at_least("sample rate in Hz", self.sample_rate_hz as usize, 1)?;
        at_least("window", self.window_samples, 2)?;
        at_least("control interval", self.control_interval_samples, 1)?;
        at_least(
            "compute allowance",
            self.compute_allowance_samples,
            self.fade_samples(),
        )
    }

    /// Windows between the one that is being filled and the one that is being played, both counted, if all are of full
    /// length.
    pub(crate) fn windows_in_use(&self) -> usize {
        2 + self.compute_allowance_samples.div_ceil(self.window_samples)
    }
}

/// A term of a [`Geometry`] is too short.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{term}: expected at least {expected}, found {found}")]
pub struct GeometryError {
    term: &'static str,
    expected: usize,
    found: usize,
}
