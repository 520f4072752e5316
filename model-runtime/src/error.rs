//! The error type of this crate.

use std::io;
use std::path::PathBuf;

/// An error while loading a model or remixing audio.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file or buffer is not a model that this version supports.
    #[error("not a usable model: {0}")]
    Model(String),
    /// Audio or a setting is out of range.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// Name of the input.
        what: &'static str,
        /// The valid range.
        expected: String,
        /// The given value.
        found: String,
    },
    /// A voice or analysis rejected its settings.
    #[error(transparent)]
    Vocoder(#[from] vocoder::Error),
    /// The computation of a network failed.
    #[error("the network computation failed")]
    Network(#[from] candle_core::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn input(what: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self::Input {
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}
