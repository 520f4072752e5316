//! The sources of a pair, as remixes are compared with them.

use anyhow::Result;

use crate::baselines::REAL;
use crate::margins::{FeatureExtractor, Features, Margins};
use crate::mel_features::of_mel;
use crate::method::Remixed;
use crate::pairs::Pair;

/// Features of both sources of a pair, of their sounds and of their mels alone.
pub struct Sources {
    /// The sound of the source of harmony.
    pub main: Features,
    /// The sound of the source of rhythm.
    pub sidechain: Features,
    main_mel: Features,
    sidechain_mel: Features,
}

impl Sources {
    /// Analyses a pair.
    ///
    /// # Errors
    ///
    /// Returns an error if a clip cannot be analysed.
    pub fn new(extractor: &mut FeatureExtractor, pair: &Pair) -> Result<Self> {
        let main = extractor.extract(&pair.main.clip)?;
        let sidechain = extractor.extract(&pair.sidechain.clip)?;
        Ok(Self {
            main_mel: of_mel(&main.log_mel, &main),
            sidechain_mel: of_mel(&sidechain.log_mel, &sidechain),
            main,
            sidechain,
        })
    }

    /// Margins of the sources by themselves, by name: what no remix can exceed. The last one is for mels.
    pub fn ceilings(&self) -> [(&'static str, Margins); 3] {
        let of_sounds = |remix| Margins::of(remix, &self.main, &self.sidechain);
        let of_mels = |remix| Margins::of(remix, &self.main_mel, &self.sidechain_mel);
        [
            (REAL, of_sounds(&self.main)),
            ("B alone", of_sounds(&self.sidechain)),
            ("A alone, as a mel", of_mels(&self.main_mel)),
        ]
    }

    /// The features of a remix and how they relate to those of the sources: sounds are compared with sounds, mels with mels.
    ///
    /// # Errors
    ///
    /// Returns an error if the remix cannot be analysed.
    pub fn compare(
        &self,
        extractor: &mut FeatureExtractor,
        remix: &Remixed,
    ) -> Result<(Features, Margins)> {
        Ok(match remix {
            Remixed::Sound(clip) => {
                let features = extractor.extract(clip)?;
                let margins = Margins::of(&features, &self.main, &self.sidechain);
                (features, margins)
            }
            Remixed::Mel(log_mel) => {
                let features = of_mel(log_mel, &self.main);
                let margins = Margins::of(&features, &self.main_mel, &self.sidechain_mel);
                (features, margins)
            }
        })
    }
}
