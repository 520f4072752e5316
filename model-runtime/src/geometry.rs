//! All terms of the latency, and the constants that determine them.
//!
//! ```text
//! latency = window + compute allowance                                      between audio thread and worker
//!         + resampling + analysis + grouping + network + voice + rounding   in the remix itself
//! ```
//!
//! All terms are constant while the plugin is active. `docs/latency.md` lists their values.

use serde::{Deserialize, Serialize};
use vocoder::{AnalysisWindow, MelConfig};

use crate::factor::FactorLayout;

/// Allowance for rounding to whole samples.
const ROUNDING_SAMPLES: usize = 2;

/// Length of the crossfades between the remix and the delayed main input.
const FADE_SECONDS: f64 = 0.005;

/// Knob readings per mel frame, so that each frame has one close by.
const CONTROLS_PER_FRAME: f64 = 4.0;

/// In Live: the time for the worker beyond a block, in mel frames: 8.7 ms, of which a crossfade takes up to 2.9. On one core with
/// AVX-512, the slowest window took 1.3 ms, and one that begins a stream 1.8.
const LIVE_WORK_FRAMES: f64 = 0.375;

/// In Live, the compute allowance is a multiple of this, in mel frames, and no more than that, unless a block is longer.
const ALLOWANCE_STEP_FRAMES: f64 = 0.25;
const MOST_LIVE_ALLOWANCE_FRAMES: f64 = 1.0;

/// How much look-ahead the remix uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatencyMode {
    /// The lowest latency that still sounds musical.
    Live,
    /// A compromise, below 0.5 s.
    #[default]
    Default,
    /// Full look-ahead of every layer: equals the remix of the whole clip.
    Full,
}

impl LatencyMode {
    /// All modes, lowest latency first.
    pub const ALL: [Self; 3] = [Self::Live, Self::Default, Self::Full];

    /// Look-ahead in mel frames of a network with these factors; `None` for no limit.
    #[must_use]
    pub fn network_look_ahead_frames(self, factors: &[FactorLayout]) -> Option<usize> {
        match self {
            // What the longest average of frames needs in any case, but not none.
            Self::Live => {
                let longest = factors.iter().map(|layout| layout.pool_frames).max();
                Some(longest.unwrap_or(1).max(2) - 1)
            }
            Self::Default => Some(8),
            Self::Full => None,
        }
    }

    /// Window of the analysis for this mel spectrogram. In Live it has low delay, if the voice's synthesis window fits into it.
    #[must_use]
    pub fn analysis_window(self, mel: &MelConfig) -> AnalysisWindow {
        let low_delay = AnalysisWindow::LowDelay;
        let fits = self.synthesis_hops() * mel.hop_length <= low_delay.most_kept_samples(mel.n_fft);
        match self == Self::Live && fits {
            true => low_delay,
            false => AnalysisWindow::Symmetric,
        }
    }

    /// Length of the guided voice's median filter along time, in frames.
    #[must_use]
    pub fn median_frames(self) -> usize {
        match self {
            Self::Live => 7,
            Self::Default | Self::Full => 11,
        }
    }

    /// How many frames of that filter follow the one that is played, with a network that looks `network_frames` ahead: half of
    /// them, but in Live no more than overlap the look-ahead of the network.
    #[must_use]
    pub fn median_look_ahead_frames(self, network_frames: usize) -> usize {
        let half = self.median_frames() / 2;
        match self {
            Self::Live => half.min(network_frames),
            Self::Default | Self::Full => half,
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

    /// Whether the mode supports the generated voice. In Live it would add a fifth to the latency of the guided voice
    /// as well.
    #[must_use]
    pub fn has_generated_voice(self) -> bool {
        self != Self::Live
    }

    /// Number of mel frames that the network processes at a time. Larger groups are faster, but the first frame waits
    /// for the last.
    #[must_use]
    pub fn group_frames(self) -> usize {
        match self {
            Self::Live => 1,
            Self::Default => 2,
            Self::Full => 4,
        }
    }

    /// Longest window for the worker, in mel frames.
    fn window_frames(self) -> f64 {
        match self {
            Self::Live => 0.25,
            Self::Default | Self::Full => 2.0,
        }
    }

    /// Time that the worker may take per window, in mel frames, if the host's longest block lasts `block_frames`. The load is
    /// uneven: work is due when the last frame of a harmony average arrives, and at the end of a stream the whole look-ahead
    /// of the network is processed at once.
    fn allowance_frames(self, block_frames: f64) -> f64 {
        match self {
            // The worker gets a window at the end of a block. A machine must not matter, so that a bounce has the latency of
            // the session; blocks do, in coarse steps.
            Self::Live => {
                let needed = LIVE_WORK_FRAMES + block_frames;
                ((needed / ALLOWANCE_STEP_FRAMES).ceil() * ALLOWANCE_STEP_FRAMES)
                    .min(MOST_LIVE_ALLOWANCE_FRAMES)
            }
            Self::Default => 4.0,
            Self::Full => 6.0,
        }
    }
}

/// The terms of the latency of the remix itself, in samples at the host's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLatency {
    /// Filters of the input and output resamplers.
    pub resampling_samples: usize,
    /// From the first sample of a hop to the end of its analysis window.
    pub analysis_samples: usize,
    /// From the first frame of a group to the last.
    pub grouping_samples: usize,
    /// Look-ahead of the network: convolutions, average and interpolation.
    pub network_samples: usize,
    /// Look-ahead of the voice.
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

/// The lengths of the exchange between audio thread and worker, in samples at the host's rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// The host's sample rate.
    pub sample_rate_hz: f32,
    /// The longest block of the host.
    pub max_block_samples: usize,
    /// Longest window.
    pub window_samples: usize,
    /// Distance between knob readings.
    pub control_interval_samples: usize,
    /// Latency of the processor.
    pub processor_latency_samples: usize,
    /// How long the worker may take, from the last sample of a window to the first sample of its remix.
    pub compute_allowance_samples: usize,
}

/// The inputs of [`Geometry::new`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeometrySettings {
    /// The latency mode.
    pub mode: LatencyMode,
    /// Time between mel frames.
    pub frame_seconds: f64,
    /// The host's sample rate.
    pub sample_rate_hz: f32,
    /// The longest block of the host.
    pub max_block_samples: usize,
    /// Latency of the processor.
    pub processor_latency_samples: usize,
}

impl Geometry {
    /// The lengths for a mode. If the host's blocks are longer than the mode's compute allowance, the allowance grows
    /// to the block length, because whole windows then arrive and are due within one block.
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
        let block_seconds = settings.max_block_samples as f64 / f64::from(sample_rate_hz);
        let allowance_samples = samples(mode.allowance_frames(block_seconds / frame_seconds));
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

    /// Length of the crossfades. A remix is due this long before its first sample is played.
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

    /// Windows in flight, from the one being filled to the one being played, both included, if all have full length.
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
