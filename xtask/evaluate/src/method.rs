//! Ways to remix.

use anyhow::Result;
use model_runtime::AudioClip;

/// Makes a remix of a source of harmony and a source of rhythm.
type Remix<'a> = dyn Fn(&AudioClip, &AudioClip) -> Result<AudioClip> + Sync + 'a;

/// A way to remix.
pub struct Method<'a> {
    /// Its name in the tables.
    pub name: String,
    /// Whether it is there to compare with, and makes nothing to listen to.
    pub is_reference: bool,
    /// Whether A with A should give A back.
    pub reconstructs: bool,
    remix: Box<Remix<'a>>,
}

impl<'a> Method<'a> {
    /// A method that makes remixes to listen to and is not asked for reconstructions.
    pub fn new(
        name: &str,
        remix: impl Fn(&AudioClip, &AudioClip) -> Result<AudioClip> + Sync + 'a,
    ) -> Self {
        Self {
            name: name.to_owned(),
            is_reference: false,
            reconstructs: false,
            remix: Box::new(remix),
        }
    }

    /// The same, to compare with alone.
    pub fn for_reference(mut self) -> Self {
        self.is_reference = true;
        self
    }

    /// The same, asked for reconstructions too.
    pub fn reconstructing(mut self) -> Self {
        self.reconstructs = true;
        self
    }

    /// The remix of a source of harmony and a source of rhythm.
    ///
    /// # Errors
    ///
    /// When they cannot be remixed.
    pub fn remix(&self, harmony: &AudioClip, rhythm: &AudioClip) -> Result<AudioClip> {
        (self.remix)(harmony, rhythm)
    }
}
