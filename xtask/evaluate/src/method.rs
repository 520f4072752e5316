//! The remix methods that are compared.

use anyhow::Result;
use model_runtime::AudioClip;
use vocoder::LogMel;

/// What a method makes of two clips.
pub enum Remixed {
    /// A sound.
    Sound(AudioClip),
    /// Only a spectrogram.
    Mel(LogMel),
}

/// Remixes a source of harmony with a source of rhythm.
type Remix<'a> = dyn Fn(&AudioClip, &AudioClip) -> Result<Remixed> + Sync + 'a;

/// A remix method.
pub struct Method<'a> {
    /// Its name in the tables.
    pub name: String,
    /// Whether it serves only as a reference, without examples to listen to.
    pub is_reference: bool,
    /// Whether the remix of A with A should reconstruct A.
    pub reconstructs: bool,
    remix: Box<Remix<'a>>,
}

impl<'a> Method<'a> {
    /// A method with examples to listen to and without reconstructions.
    pub fn new(
        name: &str,
        remix: impl Fn(&AudioClip, &AudioClip) -> Result<AudioClip> + Sync + 'a,
    ) -> Self {
        Self {
            name: name.to_owned(),
            is_reference: false,
            reconstructs: false,
            remix: Box::new(move |a, b| Ok(Remixed::Sound(remix(a, b)?))),
        }
    }

    /// A method that makes a spectrogram without sound, for reference.
    pub fn of_mels(
        name: &str,
        remix: impl Fn(&AudioClip, &AudioClip) -> Result<LogMel> + Sync + 'a,
    ) -> Self {
        Self {
            name: name.to_owned(),
            is_reference: true,
            reconstructs: false,
            remix: Box::new(move |a, b| Ok(Remixed::Mel(remix(a, b)?))),
        }
    }

    /// Makes the method a reference, without examples to listen to.
    pub fn for_reference(mut self) -> Self {
        self.is_reference = true;
        self
    }

    /// Also measures reconstructions of A from A with A.
    pub fn reconstructing(mut self) -> Self {
        self.reconstructs = true;
        self
    }

    /// Remixes a source of harmony with a source of rhythm.
    ///
    /// # Errors
    ///
    /// Returns an error if they cannot be remixed.
    pub fn remix(&self, harmony: &AudioClip, rhythm: &AudioClip) -> Result<Remixed> {
        (self.remix)(harmony, rhythm)
    }
}
