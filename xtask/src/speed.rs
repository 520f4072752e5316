//! How fast audio was made.

use std::fmt::{self, Display};

/// How long some audio took.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Duration of the audio.
    pub audio_seconds: f64,
    /// Time that it took to make.
    pub wall_seconds: f64,
}

impl Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} s of audio in {:.1} s, real-time factor {:.3}",
            self.audio_seconds,
            self.wall_seconds,
            self.wall_seconds / self.audio_seconds
        )
    }
}
