//! The error type of this crate.

/// An error while setting up or running a voice or an analysis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("{setting}: expected {expected}, found {found}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// The valid range.
        expected: String,
        /// The given value.
        found: String,
    },
    /// Two inputs that belong together have different sizes.
    #[error("{what}: expected a length of {expected}, found {found}")]
    Length {
        /// Name of the input.
        what: &'static str,
        /// The expected length.
        expected: usize,
        /// The given length.
        found: usize,
    },
    /// The computation of a network failed.
    #[error("the network computation failed")]
    Network(#[from] candle_core::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn setting(
        setting: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Setting {
            setting,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

/// Returns an error unless `found` is the expected length.
pub(crate) fn check_length(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        Ok(())
    } else {
        Err(Error::Length {
            what,
            expected,
            found,
        })
    }
}
