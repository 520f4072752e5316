//! Remixes of pairs of clips, and their measurements.

use std::path::Path;

use anyhow::{Context, Result};
use graft_material::audio_writer::{self, WavFormat};
use graft_material::plot::{self, MelPanel};
use model_runtime::AudioClip;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;

use crate::classifier::Classifier;
use crate::frechet::ClipFeatures;
use crate::margins::{FeatureExtractor, Features, Margins, mel_distance};
use crate::method::{Method, Remixed};
use crate::pairs::Pair;
use crate::parallel;
use crate::sounds::{SoundScore, SoundSources};
use crate::sources::Sources;
use crate::strokes::StrokeAnalysis;

/// Pairs whose sounds are kept for listening.
pub const EXAMPLES: usize = 4;

/// Measurements of the remix of one pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairScore {
    /// Margins relative to its sources.
    pub margins: Margins,
    /// Level relative to the mean level of its sources.
    pub level_db: f32,
    /// Spectral centroid relative to the mean of its sources.
    pub brightness_octaves: f32,
    /// Mel distance of A to A remixed with A, in nepers.
    pub reconstruction: Option<f32>,
    /// What only sounds have.
    pub sound: Option<SoundScore>,
    /// Features for the Fréchet distance.
    pub features: ClipFeatures,
}

/// Pairs with the features of their sources.
pub struct Remixes<'a> {
    classifier: &'a Classifier,
    /// Folder for sounds and pictures.
    folder: &'a Path,
    strokes: StrokeAnalysis,
    sources: Vec<(&'a Pair, Sources, SoundSources)>,
}

impl<'a> Remixes<'a> {
    /// Analyses the sources of all pairs.
    ///
    /// # Errors
    ///
    /// Returns an error if a source cannot be analysed.
    pub fn new(pairs: &'a [Pair], classifier: &'a Classifier, folder: &'a Path) -> Result<Self> {
        let strokes = StrokeAnalysis::new()?;
        let sources = parallel::map(
            "Analysing pairs",
            pairs,
            FeatureExtractor::new,
            |extractor, pair| {
                let sound = SoundSources::new(&strokes, pair)?;
                Ok((Sources::new(extractor, pair)?, sound))
            },
        )?;
        let sources = pairs.iter().zip(sources);
        Ok(Self {
            classifier,
            folder,
            strokes,
            sources: sources
                .map(|(pair, (sources, sound))| (pair, sources, sound))
                .collect(),
        })
    }

    /// Writes the sounds and spectrograms of the sources of the first [`EXAMPLES`] pairs.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be written.
    pub fn write_sources(&self) -> Result<()> {
        for (index, (pair, sources, _)) in self.sources.iter().take(EXAMPLES).enumerate() {
            self.write(index, "A", &pair.main.clip, &sources.main)?;
            self.write(index, "B", &pair.sidechain.clip, &sources.sidechain)?;
        }
        Ok(())
    }

    /// Remixes every pair, with a progress bar, and measures the remixes; those of the first [`EXAMPLES`] pairs are written as
    /// sound and picture.
    ///
    /// # Errors
    ///
    /// Returns an error if a pair cannot be remixed; the error names it.
    pub fn measure(&self, method: &Method) -> Result<Vec<PairScore>> {
        let indices: Vec<usize> = (0..self.sources.len()).collect();
        parallel::map(
            "Remixing",
            &indices,
            FeatureExtractor::new,
            |extractor, &index| self.measure_pair(method, extractor, index),
        )
    }

    fn measure_pair(
        &self,
        method: &Method,
        extractor: &mut FeatureExtractor,
        index: usize,
    ) -> Result<PairScore> {
        let (pair, sources, sound_sources) = &self.sources[index];
        let (a, b) = (&pair.main.clip, &pair.sidechain.clip);
        let remix = |b: &AudioClip| {
            method.remix(a, b).with_context(|| {
                format!(
                    "cannot remix {} with {}",
                    pair.main.name, pair.sidechain.name
                )
            })
        };
        let remixed = remix(b)?;
        let (features, margins) = sources.compare(extractor, &remixed)?;
        let reconstruction = match method.reconstructs {
            true => {
                let (features, _) = sources.compare(extractor, &remix(a)?)?;
                Some(mel_distance(&features, &sources.main)?)
            }
            false => None,
        };
        let sound = match &remixed {
            Remixed::Sound(clip) => {
                if index < EXAMPLES && !method.is_reference {
                    self.write(index, &method.name, clip, &features)?;
                }
                Some(sound_sources.compare(&self.strokes, clip)?)
            }
            Remixed::Mel(_) => None,
        };
        let beside = |value: fn(&Features) -> f32| {
            value(&features) - 0.5 * (value(&sources.main) + value(&sources.sidechain))
        };
        Ok(PairScore {
            margins,
            level_db: beside(|features| features.level_db),
            brightness_octaves: beside(|features| features.centroid_octaves),
            reconstruction,
            sound,
            features: self.classifier.features(&features.levelled_mel())?,
        })
    }

    fn write(&self, pair: usize, name: &str, clip: &AudioClip, features: &Features) -> Result<()> {
        let base = self.folder.join(file_name(pair, name));
        audio_writer::write_wav(&base.with_extension("wav"), clip, WavFormat::Pcm16)?;
        let panel = MelPanel {
            title: name,
            log_mel: &features.log_mel,
        };
        plot::plot_log_mels(&base.with_extension("png"), &[panel], &MelConfig::default())
    }
}

/// File of a sound or its picture, without the extension.
pub fn file_name(pair: usize, name: &str) -> String {
    let mut slug = String::new();
    for character in name.chars() {
        match character.is_ascii_alphanumeric() {
            true => slug.push(character.to_ascii_lowercase()),
            false if slug.ends_with('-') => {}
            false => slug.push('-'),
        }
    }
    format!("pair-{}-{}", pair + 1, slug.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::Excerpt;
    use crate::test_signal::struck;
    use graft_material::audio_cache::Pcm;
    use graft_material::testing::TestFolder;
    use graft_train::dataset::Track;
    use model_runtime::{Controls, Factor, Model, RemixSettings, Remixer};
    use std::sync::Arc;

    fn excerpt(hz: f32, beat_samples: usize) -> Excerpt {
        Excerpt {
            clip: struck(hz, beat_samples),
            ..Excerpt::silent(&hz.to_string())
        }
    }

    fn classifier() -> Classifier {
        let track = |artist: &str, hz: f32| {
            let samples = struck(hz, 5000).channels[0].repeat(4);
            let pcm = Pcm::normalised(&samples, 22_050).unwrap();
            Arc::new(Track {
                path: artist.into(),
                artist: artist.into(),
                pcm,
            })
        };
        Classifier::train(&[track("a", 440.0), track("b", 900.0)], 2, 1).unwrap()
    }

    #[test]
    fn margins_show_which_source_is_which() {
        let pairs = [
            Pair {
                main: excerpt(440.0, 5000),
                sidechain: excerpt(554.4, 8000),
            },
            Pair {
                main: excerpt(330.0, 7000),
                sidechain: excerpt(466.2, 4000),
            },
        ];
        let folder = TestFolder::new("remixes");
        let classifier = classifier();
        let remixes = Remixes::new(&pairs, &classifier, folder.path()).unwrap();
        remixes.write_sources().unwrap();
        let main = remixes
            .measure(&Method::new("A", |a, _| Ok(a.clone())).reconstructing())
            .unwrap();
        let sidechain = remixes
            .measure(&Method::new("B", |_, b| Ok(b.clone())))
            .unwrap();
        for (main, sidechain) in main.iter().zip(&sidechain) {
            assert!(
                main.margins.harmony > 0.3 && main.margins.rhythm < -0.5,
                "{main:?}"
            );
            assert!((main.margins.harmony + sidechain.margins.harmony).abs() < 1e-5);
            assert!((main.margins.rhythm + sidechain.margins.rhythm).abs() < 1e-5);
            assert!((main.level_db + sidechain.level_db).abs() < 1e-4);
            assert_eq!(
                (main.reconstruction, sidechain.reconstruction),
                (Some(0.0), None)
            );
        }
        assert!(
            folder.path().join("pair-2-b.wav").exists()
                && folder.path().join("pair-1-a.png").exists()
        );
        let error = remixes
            .measure(&Method::new("none", |_, _| anyhow::bail!("no")))
            .unwrap_err();
        assert!(format!("{error:#}").contains("440 with 554.4"));

        // The built-in model has the harmony of the one and the rhythm of the other; with its knobs swapped, it is swapped.
        let remixer = Remixer::new(Model::built_in().unwrap());
        let with = |harmony: f32, rhythm: f32| {
            let settings = RemixSettings {
                controls: Controls::default()
                    .with_share(Factor::Harmony, harmony)
                    .with_share(Factor::Rhythm, rhythm),
                ..RemixSettings::default()
            };
            let remixer = &remixer;
            Method::new("model", move |a, b| Ok(remixer.remix(a, b, &settings)?))
        };
        for score in remixes.measure(&with(0.0, 1.0)).unwrap() {
            assert!(
                score.margins.harmony > 0.1 && score.margins.rhythm > 0.3,
                "{:?}",
                score.margins
            );
        }
        for score in remixes.measure(&with(1.0, 0.0)).unwrap() {
            assert!(
                score.margins.harmony < -0.1 && score.margins.rhythm < -0.3,
                "{:?}",
                score.margins
            );
        }
    }

    #[test]
    fn files_have_plain_names() {
        assert_eq!(
            file_name(0, "HPSS: harmonic A + percussive B"),
            "pair-1-hpss-harmonic-a-percussive-b"
        );
        assert_eq!(
            file_name(3, "graft, guided voice"),
            "pair-4-graft-guided-voice"
        );
    }
}
