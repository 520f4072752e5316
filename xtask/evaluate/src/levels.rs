//! Whether a method cares about the levels of its inputs: margins and loudness of the same pairs at several offsets between
//! main and sidechain.

use std::fmt;

use anyhow::{Context, Result, ensure};
use graft_material::report::{Check, Measured, Row, Table};
use model_runtime::AudioClip;
use serde::{Deserialize, Serialize};

use crate::baselines;
use crate::loudness::{GATE_LUFS, lufs};
use crate::margins::{FeatureExtractor, Margins, SAMPLE_RATE_HZ};
use crate::method::{Method, Remixed};
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

/// Margins and loudness of one method at every level, for every pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelScores {
    /// One list for each of [`Level::all`], with one value for each pair.
    pub margins: Vec<Vec<Margins>>,
    /// Loudness less that of the harmonic part of A with the percussive part of B, in LU; lists as for the margins. Empty for
    /// methods without sound, and for the sources by themselves.
    pub beside_parts_lu: Vec<Vec<f32>>,
}

/// Pairs at the levels of their files.
pub struct Levels<'a> {
    pairs: Vec<MeasuredPair<'a>>,
}

/// A pair with its features and loudness.
struct MeasuredPair<'a> {
    pair: &'a Pair,
    sources: Sources,
    /// Loudness of main and sidechain, in LUFS.
    lufs: [f32; 2],
    /// The harmonic part of the main input and the percussive part of the sidechain.
    parts: [Vec<f32>; 2],
}

impl MeasuredPair<'_> {
    /// Loudness of the sum of both parts with these gains, in LUFS.
    fn parts_lufs(&self, gains_db: [f32; 2]) -> Result<f32> {
        let [harmonic, percussive] = gains_db.map(amplitude);
        let parts = self.parts[0].iter().zip(&self.parts[1]);
        let sum = parts.map(|(a, b)| harmonic * a + percussive * b).collect();
        lufs(&AudioClip {
            sample_rate_hz: SAMPLE_RATE_HZ,
            channels: vec![sum],
        })
    }
}

impl<'a> Levels<'a> {
    /// Measures the pairs.
    ///
    /// # Errors
    ///
    /// Returns an error if a clip is silent or cannot be analysed; the error names it.
    pub fn new(pairs: &'a [Pair]) -> Result<Self> {
        let pairs: Vec<&'a Pair> = pairs.iter().collect();
        let measured = parallel::map(
            "Analysing pairs",
            &pairs,
            FeatureExtractor::new,
            |extractor, &pair| {
                let loudness = [&pair.main, &pair.sidechain].map(|excerpt| {
                    let loudness = lufs(&excerpt.clip)?;
                    ensure!(
                        loudness > GATE_LUFS,
                        "expected sound louder than {GATE_LUFS} LUFS, found silence in {excerpt}"
                    );
                    Ok(loudness)
                });
                let [main, sidechain] = loudness;
                Ok(MeasuredPair {
                    pair,
                    sources: Sources::new(extractor, pair)?,
                    lufs: [main?, sidechain?],
                    parts: baselines::parts(&pair.main.clip, &pair.sidechain.clip)?,
                })
            },
        )?;
        Ok(Self { pairs: measured })
    }

    /// Scores of the sources by themselves, by name: the same at all levels, and the ceilings of harmony and rhythm.
    pub fn ceilings(&self) -> Vec<(String, LevelScores)> {
        let ceilings: Vec<_> = self
            .pairs
            .iter()
            .map(|pair| pair.sources.ceilings())
            .collect();
        let names = ceilings
            .first()
            .map(|ceilings| ceilings.map(|(name, _)| name));
        let named = names.into_iter().flatten().enumerate();
        named
            .map(|(index, name)| {
                let alone: Vec<Margins> = ceilings.iter().map(|pair| pair[index].1).collect();
                let scores = LevelScores {
                    margins: vec![alone; Level::all().len()],
                    beside_parts_lu: Vec::new(),
                };
                (name.to_owned(), scores)
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
        let measured = parallel::map(
            "Remixing at all levels",
            &items,
            FeatureExtractor::new,
            |extractor, &(level, index)| {
                let measured = &self.pairs[index];
                let pair = measured.pair;
                let gains_db = level.gains_db(measured.lufs);
                let main = amplified(&pair.main.clip, gains_db[0]);
                let sidechain = amplified(&pair.sidechain.clip, gains_db[1]);
                let remix = method.remix(&main, &sidechain).with_context(|| {
                    format!(
                        "cannot remix {} with {}, {level}",
                        pair.main, pair.sidechain
                    )
                })?;
                let beside_parts_lu = match &remix {
                    Remixed::Sound(clip) => Some(lufs(clip)? - measured.parts_lufs(gains_db)?),
                    Remixed::Mel(_) => None,
                };
                let (_, margins) = measured.sources.compare(extractor, &remix)?;
                Ok((margins, beside_parts_lu))
            },
        )?;
        let by_level = measured.chunks(self.pairs.len());
        let margins = |pairs: &[(Margins, _)]| pairs.iter().map(|(margins, _)| *margins).collect();
        let loudness =
            |pairs: &[(_, Option<f32>)]| pairs.iter().map(|(_, loudness)| *loudness).collect();
        Ok(LevelScores {
            margins: by_level.clone().map(margins).collect(),
            // None if one of them is None, as all are then.
            beside_parts_lu: by_level
                .map(loudness)
                .collect::<Option<_>>()
                .unwrap_or_default(),
        })
    }
}

fn amplified(clip: &AudioClip, gain_db: f32) -> AudioClip {
    let gain = amplitude(gain_db);
    let amplify = |channel: &Vec<f32>| channel.iter().map(|sample| gain * sample).collect();
    AudioClip {
        sample_rate_hz: clip.sample_rate_hz,
        channels: clip.channels.iter().map(amplify).collect(),
    }
}

fn amplitude(gain_db: f32) -> f32 {
    10f32.powf(gain_db / 20.0)
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

    /// The loudness less that of its target at one of [`Level::all`], for every pair; or its distance from it.
    fn loudness(&self, level: usize, is_absolute: bool) -> Option<Vec<f32>> {
        let values = self.beside_parts_lu.get(level)?.iter();
        Some(match is_absolute {
            true => values.map(|value| value.abs()).collect(),
            false => values.copied().collect(),
        })
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

/// One table for each figure, and two for the loudness: means at all levels, by method.
pub fn tables(scores: &[(String, LevelScores)]) -> Vec<Table> {
    let margins = MARGINS.into_iter().chain([ONSET_CORRELATION]);
    let margins = margins.map(|figure| {
        let note = format!(
            "Loudness of the main input less that of the sidechain: as their files have it, and at offsets, the louder input at \
             {LOUDER_LUFS} LUFS. Means with 95 % intervals. The sources by themselves are ceilings of sounds. Mels are compared with \
             mels, whose chromas differ less than those of sounds: the decoded mel shows how much the network has left for a voice."
        );
        table(figure.0, note, scores, |scores, level| {
            Some(scores.values(level, figure))
        })
    });
    let loudness = [
        ("loudness beside its target, LU", false),
        ("distance of the loudness from its target, LU", true),
    ];
    let loudness = loudness.map(|(name, is_absolute)| {
        let note = "Integrated loudness (BS.1770) of the remix less that of its target, which is the sum of the harmonic part of A and the \
                    percussive part of B at these levels. Means with 95 % intervals over the pairs; of the distance, means of absolute \
                    values."
            .to_owned();
        table(name, note, scores, |scores, level| {
            scores.loudness(level, is_absolute)
        })
    });
    margins.chain(loudness).collect()
}

/// Means at all levels, of those methods that have values.
fn table(
    name: &str,
    note: String,
    scores: &[(String, LevelScores)],
    values: impl Fn(&LevelScores, usize) -> Option<Vec<f32>>,
) -> Table {
    let levels = Level::all();
    let row = |(name, scores): &(String, LevelScores)| {
        let cells: Option<_> = (0..levels.len())
            .map(|level| Some(Some(Measured::mean(values(scores, level)?.into_iter()))))
            .collect();
        Some(Row {
            name: name.clone(),
            cells: cells?,
        })
    };
    Table {
        title: format!("Levels: {name}"),
        note,
        columns: levels
            .iter()
            .map(|level| format!("{name}, {level}"))
            .collect(),
        rows: scores.iter().filter_map(row).collect(),
    }
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

/// Largest mean distance of the loudness from its target, in LU.
const TOLERATED_DISTANCE_LU: f64 = 0.5;

/// Whether remixes are as loud as they should be. None for a method without sound.
pub fn loudness_check(name: &str, scores: &LevelScores) -> Option<Check> {
    let distances = Level::all().into_iter().enumerate().map(|(index, level)| {
        let distances = scores.loudness(index, true)?.into_iter();
        Some((Measured::mean(distances).value, level))
    });
    let distances: Vec<_> = distances.collect::<Option<_>>()?;
    let largest = distances.iter().max_by(|a, b| a.0.total_cmp(&b.0));
    let (distance, level) = largest.expect("there are levels");
    Some(Check {
        name: format!(
            "{name}: at all levels the loudness is within {TOLERATED_DISTANCE_LU} LU of its target on average"
        ),
        found: format!("at most {distance:.2} LU, {level}"),
        holds: *distance <= TOLERATED_DISTANCE_LU,
    })
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
        let [harmony, rhythm, ..] = &tables(&scores)[..] else {
            panic!("expected two margins");
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

    #[test]
    fn loudness_is_measured_against_the_parts_at_their_levels() {
        let pairs = [pair(), pair()];
        let levels = Levels::new(&pairs).unwrap();
        let louder = |gain_db: f32| {
            let method = Method::new("parts", move |a, b| {
                Ok(amplified(&baselines::separated(a, b)?, gain_db))
            });
            levels.measure(&method).unwrap()
        };
        let main = Method::new("A", |a, _| Ok(a.clone()));
        let mel = Method::of_mels("mel", |a, _| {
            Ok(FeatureExtractor::new()?.extract(a)?.log_mel)
        });
        let scores = [
            ("parts".to_owned(), louder(0.0)),
            ("louder".to_owned(), louder(0.6)),
            ("A".to_owned(), levels.measure(&main).unwrap()),
            ("mel".to_owned(), levels.measure(&mel).unwrap()),
        ];
        let [.., beside, distance] = &tables(&scores)[..] else {
            panic!("expected two tables of loudness");
        };
        let value = |table: &Table, row, level: Level| {
            let (_, figure) = table.title.split_once(": ").unwrap();
            Some(table.cell(row, &format!("{figure}, {level}"))?.value)
        };
        for level in Level::all() {
            for (row, expected) in [("parts", 0.0), ("louder", 0.6)] {
                for table in [beside, distance] {
                    let found = value(table, row, level).unwrap();
                    assert!((found - expected).abs() < 0.02, "{row}, {level}: {found}");
                }
            }
            assert_eq!(value(beside, "mel", level), None);
        }
        // The softer the main input is, the further it is below the parts.
        let beside = |level| value(beside, "A", level).unwrap();
        assert!(
            beside(Level::Offset(-18)) < -6.0,
            "{}",
            beside(Level::Offset(-18))
        );
        assert!(beside(Level::Offset(-18)) < beside(Level::Offset(-6)) - 6.0);
        let at_18_db = value(distance, "A", Level::Offset(-18)).unwrap();
        assert_eq!(at_18_db, -beside(Level::Offset(-18)));

        let holds = scores
            .iter()
            .map(|(name, scores)| Some(loudness_check(name, scores)?.holds));
        let expected = [Some(true), Some(false), Some(false), None];
        assert_eq!(holds.collect::<Vec<_>>(), expected);
    }
}
