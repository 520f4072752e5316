//! Speed of rendering.

use std::fmt::{self, Display};

/// Duration of a rendering and of the audio that it produced.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Duration of the audio.
    pub audio_seconds: f64,
    /// Time that rendering took.
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
