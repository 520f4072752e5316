//! Enum parameters as the host sees them. Their ids are stored in sessions; `words` are the short labels.

use model_runtime::LatencyMode;
use nice_plug::prelude::Enum;

/// Length of a frozen loop.
#[derive(Clone, Copy, Debug, PartialEq, Enum)]
pub enum FreezeLength {
    /// One beat.
    #[id = "1"]
    #[name = "1 beat"]
    One,
    /// Two beats.
    #[id = "2"]
    #[name = "2 beats"]
    Two,
    /// Four beats.
    #[id = "4"]
    #[name = "4 beats"]
    Four,
    /// Eight beats.
    #[id = "8"]
    #[name = "8 beats"]
    Eight,
}

impl FreezeLength {
    /// The length in quarter notes.
    pub fn beats(self) -> f64 {
        match self {
            Self::One => 1.0,
            Self::Two => 2.0,
            Self::Four => 4.0,
            Self::Eight => 8.0,
        }
    }

    /// Labels: numbers of beats.
    pub fn words() -> &'static [&'static str] {
        &["1", "2", "4", "8"]
    }
}

/// The grid on which the worker's windows end.
#[derive(Clone, Copy, Debug, PartialEq, Enum)]
pub enum WindowLength {
    /// On quarters of a beat.
    #[id = "quarter"]
    #[name = "1/4 beat"]
    QuarterBeat,
    /// On halves of a beat.
    #[id = "half"]
    #[name = "1/2 beat"]
    HalfBeat,
    /// On beats.
    #[id = "one"]
    #[name = "1 beat"]
    OneBeat,
    /// On every second beat.
    #[id = "two"]
    #[name = "2 beats"]
    TwoBeats,
    /// Anywhere.
    #[id = "free"]
    Free,
}

impl WindowLength {
    /// Grid spacing in quarter notes; none if windows run free.
    pub fn beats(self) -> Option<f64> {
        match self {
            Self::QuarterBeat => Some(0.25),
            Self::HalfBeat => Some(0.5),
            Self::OneBeat => Some(1.0),
            Self::TwoBeats => Some(2.0),
            Self::Free => None,
        }
    }

    /// Labels: numbers of beats.
    pub fn words() -> &'static [&'static str] {
        &["¼", "½", "1", "2", "Free"]
    }
}

/// [`LatencyMode`] as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency(pub LatencyMode);

impl Enum for Latency {
    fn variants() -> &'static [&'static str] {
        const NAMES: [&str; LatencyMode::ALL.len()] = ["Live", "Default", "Full"];
        &NAMES
    }

    fn ids() -> Option<&'static [&'static str]> {
        const IDS: [&str; LatencyMode::ALL.len()] = ["live", "default", "full"];
        Some(&IDS)
    }

    fn to_index(self) -> usize {
        let mut modes = LatencyMode::ALL.iter();
        modes.position(|mode| *mode == self.0).unwrap_or_default()
    }

    fn from_index(index: usize) -> Self {
        let mode = LatencyMode::ALL.get(index);
        Self(mode.copied().unwrap_or(LatencyMode::ALL[0]))
    }
}
