//! The one error type of this crate.

use std::io;
use std::path::PathBuf;

/// What can go wrong when a model is loaded or audio is remixed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or buffer is not a model that this version can use.
    #[error("not a usable model: {0}")]
    Model(String),
    /// Audio or a setting is outside what the code can work with.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// Name of the input.
        what: &'static str,
        /// What is possible.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A voice or analysis refused its settings.
    #[error(transparent)]
    Vocoder(#[from] vocoder::Error),
    /// A network could not be run.
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
