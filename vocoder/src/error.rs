//! The one error type of this crate.

/// What can go wrong when a voice or an analysis is set up or fed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside what the code can work with.
    #[error("{setting}: expected {expected}, found {found}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What is possible.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Two pieces of data that belong together have different sizes.
    #[error("{what}: expected a length of {expected}, found {found}")]
    Length {
        /// Which piece of data.
        what: &'static str,
        /// The length that fits.
        expected: usize,
        /// The length given.
        found: usize,
    },
    /// A network could not be run.
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

/// An error unless `found` is the length that fits.
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
