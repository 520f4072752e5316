//! Whether a method cares about the levels of its inputs: margins of the same pairs at several offsets between main and
//! sidechain.

use std::fmt;

use anyhow::{Context, Result, ensure};
use graft_material::report::{Check, Measured, Row, Table};
use model_runtime::AudioClip;
use serde::{Deserialize, Serialize};

use crate::loudness::{GATE_LUFS, lufs};
use crate::margins::{FeatureExtractor, Margins};
use crate::method::Method;
use crate::pairs::Pair;
use crate::parallel;
use crate::sources::Sources;

/// Loudness of the main input less that of the sidechain, in LU.
pub const OFFSETS_DB: [i32; 7] = [-18, -12, -6, 0, 6, 12, 18];

/// Loudness of the louder of both inputs.
const LOUDER_LUFS: f32 = -20.0;

/// The levels of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Those that the files have.
    AsFiles,
    /// The louder input at -20 LUFS, the other one so much softer that the main input is this many LU louder than the
    /// sidechain; at 0, both are equally loud.
    Offset(i32),
}

impl Level {
    /// All levels that are measured.
    pub fn all() -> Vec<Self> {
        let offsets = OFFSETS_DB.into_iter().map(Self::Offset);
        [Self::AsFiles].into_iter().chain(offsets).collect()
    }

    /// Gains of main and sidechain in dB, by the loudness that they have in their files.
    fn gains_db(self, [main_lufs, sidechain_lufs]: [f32; 2]) -> [f32; 2] {
        match self {
            Self::AsFiles => [0.0; 2],
            Self::Offset(offset_db) => {
                let offset_db = offset_db as f32;
                [
                    LOUDER_LUFS + offset_db.min(0.0) - main_lufs,
                    LOUDER_LUFS - offset_db.max(0.0) - sidechain_lufs,
                ]
            }
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsFiles => f.write_str("as the files"),
            Self::Offset(0) => f.write_str("0 dB"),
            Self::Offset(offset_db) => write!(f, "{offset_db:+} dB"),
        }
    }
}

/// Margins of one method at every level, for every pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelScores {
    /// One list for each of [`Level::all`], with one value for each pair.
    pub margins: Vec<Vec<Margins>>,
}

/// Pairs at the levels of their files, with their loudness and features.
pub struct Levels<'a> {
    pairs: Vec<(&'a Pair, Sources, [f32; 2])>,
}

impl<'a> Levels<'a> {
    /// Measures the pairs.
    ///
    /// # Errors
    ///
    /// Returns an error if a clip is silent or cannot be analysed; the error names it.
    pub fn new(pairs: &'a [Pair]) -> Result<Self> {
        let measured = parallel::map(
            "Analysing pairs",
            pairs,
            FeatureExtractor::new,
            |extractor, pair| {
                let loudness = [&pair.main, &pair.sidechain].map(|excerpt| {
                    let loudness = lufs(&excerpt.clip)?;
                    ensure!(
                        loudness > GATE_LUFS,
                        "expected sound louder than {GATE_LUFS} LUFS, found silence in {excerpt}"
                    );
                    Ok(loudness)
                });
                let [main, sidechain] = loudness;
                Ok((Sources::new(extractor, pair)?, [main?, sidechain?]))
            },
        )?;
        let pairs = pairs.iter().zip(measured);
        Ok(Self {
            pairs: pairs
                .map(|(pair, (sources, loudness))| (pair, sources, loudness))
                .collect(),
        })
    }

    /// Scores of the sources by themselves, by name: the same at all levels, and the ceilings of harmony and rhythm.
    pub fn ceilings(&self) -> Vec<(String, LevelScores)> {
        let ceilings: Vec<_> = self
            .pairs
            .iter()
            .map(|(_, sources, _)| sources.ceilings())
            .collect();
        let names = ceilings
            .first()
            .map(|ceilings| ceilings.map(|(name, _)| name));
        let named = names.into_iter().flatten().enumerate();
        named
            .map(|(index, name)| {
                let alone: Vec<Margins> = ceilings.iter().map(|pair| pair[index].1).collect();
                let margins = vec![alone; Level::all().len()];
                (name.to_owned(), LevelScores { margins })
            })
            .collect()
    }

    /// Remixes every pair at every level, with a progress bar.
    ///
    /// # Errors
    ///
    /// Returns an error if a pair cannot be remixed; the error names it.
    pub fn measure(&self, method: &Method) -> Result<LevelScores> {
        let levels = Level::all();
        let items: Vec<(Level, usize)> = levels
            .iter()
            .flat_map(|&level| (0..self.pairs.len()).map(move |pair| (level, pair)))
            .collect();
        let margins = parallel::map(
            "Remixing at all levels",
            &items,
            FeatureExtractor::new,
            |extractor, &(level, index)| {
                let (pair, sources, loudness) = &self.pairs[index];
                let [main, sidechain] = level.gains_db(*loudness);
                let main = amplified(&pair.main.clip, main);
                let sidechain = amplified(&pair.sidechain.clip, sidechain);
                let remix = method.remix(&main, &sidechain).with_context(|| {
                    format!(
                        "cannot remix {} with {}, {level}",
                        pair.main, pair.sidechain
                    )
                })?;
                Ok(sources.compare(extractor, &remix)?.1)
            },
        )?;
        Ok(LevelScores {
            margins: margins
                .chunks(self.pairs.len())
                .map(<[Margins]>::to_vec)
                .collect(),
        })
    }
}

fn amplified(clip: &AudioClip, gain_db: f32) -> AudioClip {
    let gain = 10f32.powf(gain_db / 20.0);
    let amplify = |channel: &Vec<f32>| channel.iter().map(|sample| gain * sample).collect();
    AudioClip {
        sample_rate_hz: clip.sample_rate_hz,
        channels: clip.channels.iter().map(amplify).collect(),
    }
}

/// Name of a figure and how to read it.
pub type Figure = (&'static str, fn(&Margins) -> f32);

/// Both margins.
pub const MARGINS: [Figure; 2] = [
    ("harmony margin", |margins| margins.harmony),
    ("rhythm margin", |margins| margins.rhythm),
];

/// The part of the rhythm margin that does not depend on how much the rhythms of both sources have in common.
const ONSET_CORRELATION: Figure = ("onset correlation with B", |margins| {
    margins.rhythm_correlation
});

impl LevelScores {
    /// One figure at one of [`Level::all`], for every pair.
    pub fn values(&self, level: usize, (_, figure): Figure) -> Vec<f32> {
        self.margins[level].iter().map(figure).collect()
    }

    /// The largest mean loss of a margin against 0 dB, and where it is.
    fn largest_loss(&self, margin: Figure) -> (f64, Level) {
        let levels = Level::all();
        let matched = levels.iter().position(|&level| level == Level::Offset(0));
        let matched = self.values(matched.expect("0 dB is an offset"), margin);
        let losses = levels.into_iter().enumerate().map(|(index, level)| {
            let values = self.values(index, margin);
            let losses = matched
                .iter()
                .zip(&values)
                .map(|(matched, value)| matched - value);
            (
                Measured::mean(losses.collect::<Vec<_>>().into_iter()).value,
                level,
            )
        });
        losses
            .filter(|(_, level)| *level != Level::AsFiles)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .expect("there are offsets")
    }
}

/// One table for each figure: means at all levels, by method.
pub fn tables(scores: &[(String, LevelScores)]) -> Vec<Table> {
    let levels = Level::all();
    let table = |figure: Figure| Table {
        title: format!("Levels: {}", figure.0),
        note: format!(
            "Loudness of the main input less that of the sidechain: as their files have it, and at offsets, the louder input at \
             {LOUDER_LUFS} LUFS. Means with 95 % intervals. The sources by themselves are ceilings of sounds. Mels are compared with \
             mels, whose chromas differ less than those of sounds: the decoded mel shows how much the network has left for a voice."
        ),
        columns: levels
            .iter()
            .map(|level| format!("{}, {level}", figure.0))
            .collect(),
        rows: scores
            .iter()
            .map(|(name, scores)| Row {
                name: name.clone(),
                cells: (0..levels.len())
                    .map(|level| Some(Measured::mean(scores.values(level, figure).into_iter())))
                    .collect(),
            })
            .collect(),
    };
    let figures = MARGINS.into_iter().chain([ONSET_CORRELATION]);
    figures.map(table).collect()
}

/// By how much a margin may be lower at an offset than at 0 dB.
const TOLERATED_LOSS: f64 = 0.02;

/// Whether a voice is proof against levels.
pub fn check(name: &str, scores: &LevelScores) -> Check {
    let losses = MARGINS.map(|margin| (margin.0, scores.largest_loss(margin)));
    let found = losses.map(|(name, (loss, level))| format!("{name} {loss:.3} at {level}"));
    Check {
        name: format!(
            "{name}: no offset of levels loses more than {TOLERATED_LOSS} of either margin"
        ),
        found: found.join(", "),
        holds: losses.iter().all(|(_, (loss, _))| *loss <= TOLERATED_LOSS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::Excerpt;
    use crate::test_signal::struck;

    fn pair() -> Pair {
        let excerpt = |hz: f32, beat_samples: usize, gain_db: f32| Excerpt {
            clip: amplified(&struck(hz, beat_samples), gain_db),
            ..Excerpt::silent(&hz.to_string())
        };
        Pair {
            main: excerpt(440.0, 5000, -20.0),
            sidechain: excerpt(622.3, 8000, 0.0),
        }
    }

    #[test]
    fn offsets_are_differences_of_loudness_and_the_louder_input_is_at_the_reference() {
        let pair = pair();
        let loudness = [&pair.main, &pair.sidechain].map(|excerpt| lufs(&excerpt.clip).unwrap());
        for level in Level::all() {
            let gains = level.gains_db(loudness);
            let main = lufs(&amplified(&pair.main.clip, gains[0])).unwrap();
            let sidechain = lufs(&amplified(&pair.sidechain.clip, gains[1])).unwrap();
            match level {
                Level::AsFiles => assert_eq!([main, sidechain], loudness),
                Level::Offset(offset_db) => {
                    assert!((main - sidechain - offset_db as f32).abs() < 0.1, "{level}");
                    assert!((main.max(sidechain) - LOUDER_LUFS).abs() < 0.1, "{level}");
                }
            }
        }
        let names: Vec<String> = Level::all().iter().map(Level::to_string).collect();
        assert_eq!(names[..2], ["as the files", "-18 dB"]);
        assert_eq!(names[4..6], ["0 dB", "+6 dB"]);
    }

    #[test]
    fn what_depends_on_levels_is_told_from_what_does_not() {
        let pairs = [pair(), pair()];
        let levels = Levels::new(&pairs).unwrap();
        let sum = |a: &AudioClip, b: &AudioClip| AudioClip {
            channels: vec![
                a.channels[0]
                    .iter()
                    .zip(&b.channels[0])
                    .map(|(a, b)| a + b)
                    .collect(),
            ],
            ..a.clone()
        };
        let sum = levels
            .measure(&Method::new("sum", move |a, b| Ok(sum(a, b))))
            .unwrap();
        let main = levels
            .measure(&Method::new("A", |a, _| Ok(a.clone())))
            .unwrap();
        let scores = [("sum".to_owned(), sum), ("A".to_owned(), main)];
        let [harmony, rhythm, _] = &tables(&scores)[..] else {
            panic!("expected three tables");
        };
        let value = |table: &Table, row, level| {
            let (_, figure) = table.title.split_once(": ").unwrap();
            table
                .cell(row, &format!("{figure}, {level}"))
                .unwrap()
                .value
        };
        assert!(value(harmony, "sum", "-18 dB") < -0.1);
        assert!(value(harmony, "sum", "+18 dB") > 0.1);
        assert!(value(rhythm, "sum", "-18 dB") > value(rhythm, "sum", "+18 dB"));
        // In its file, the main input is 20 dB softer.
        assert!(value(harmony, "sum", "as the files") < -0.1);
        let ceilings = levels.ceilings();
        let (name, alone) = &ceilings[0];
        assert_eq!(name, "A alone");
        for level in 0..Level::all().len() {
            for margin in MARGINS {
                let (found, expected) = (
                    scores[1].1.values(level, margin),
                    alone.values(level, margin),
                );
                assert!(
                    (found[0] - expected[0]).abs() < 1e-3,
                    "{found:?} {expected:?}"
                );
            }
        }
        assert!(check("A", &scores[1].1).holds);
        let fails = check("sum", &scores[0].1);
        assert!(
            !fails.holds && fails.found.contains("at -18 dB"),
            "{fails:?}"
        );
    }
}
