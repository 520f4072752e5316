//! What only sounds have, and spectrograms have not: strokes in short windows, and loudness.

use anyhow::Result;
use graft_material::report::{Measured, Row, Table};
use model_runtime::AudioClip;
use serde::{Deserialize, Serialize};

use crate::baselines::{mono, separated};
use crate::loudness::lufs;
use crate::pairs::Pair;
use crate::strokes::{Attacks, StrokeAnalysis, Strokes};

/// How the sound of a remix compares with those of its sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SoundScore {
    /// Its strokes.
    pub attacks: Attacks,
    /// Its integrated loudness, in LUFS.
    pub lufs: f32,
    /// That loudness less the loudness of the source of harmony, in LU.
    pub beside_main_lu: f32,
    /// That loudness less the loudness of the source of rhythm, in LU.
    pub beside_sidechain_lu: f32,
    /// That loudness less the loudness of the harmonic part of the one with the percussive part of the other, in LU.
    pub beside_parts_lu: f32,
}

/// The sounds of a pair, as remixes are compared with them.
pub struct SoundSources {
    main: Strokes,
    sidechain: Strokes,
    main_lufs: f32,
    sidechain_lufs: f32,
    parts_lufs: f32,
}

impl SoundSources {
    /// Analyses a pair.
    ///
    /// # Errors
    ///
    /// Returns an error if a clip cannot be analysed.
    pub fn new(analysis: &StrokeAnalysis, pair: &Pair) -> Result<Self> {
        let (main, sidechain) = (&pair.main.clip, &pair.sidechain.clip);
        Ok(Self {
            main: analysis.analyse(&mono(main)?)?,
            sidechain: analysis.analyse(&mono(sidechain)?)?,
            main_lufs: lufs(main)?,
            sidechain_lufs: lufs(sidechain)?,
            parts_lufs: lufs(&separated(main, sidechain)?)?,
        })
    }

    /// Compares a remix with the pair.
    ///
    /// # Errors
    ///
    /// Returns an error if the remix cannot be analysed.
    pub fn compare(&self, analysis: &StrokeAnalysis, remix: &AudioClip) -> Result<SoundScore> {
        let lufs = lufs(remix)?;
        let strokes = analysis.analyse(&mono(remix)?)?;
        Ok(SoundScore {
            attacks: strokes.compare(&self.main, &self.sidechain),
            lufs,
            beside_main_lu: lufs - self.main_lufs,
            beside_sidechain_lu: lufs - self.sidechain_lufs,
            beside_parts_lu: lufs - self.parts_lufs,
        })
    }
}

/// Means over all pairs, by method.
pub fn table(scores: &[(&str, Vec<SoundScore>)]) -> Table {
    /// Name and value of a column.
    type Column = (&'static str, fn(&SoundScore) -> Option<f32>);
    const COLUMNS: [Column; 7] = [
        ("rise time beside B's, ms", |score| {
            score.attacks.rise_beside_ms
        }),
        ("flux at B's strokes, share of B's", |score| {
            score.attacks.sharpness
        }),
        ("flux at A's strokes, share of A's", |score| {
            score.attacks.residual
        }),
        ("loudness, LUFS", |score| Some(score.lufs)),
        ("beside A, LU", |score| Some(score.beside_main_lu)),
        ("beside B, LU", |score| Some(score.beside_sidechain_lu)),
        ("beside harmonic A + percussive B, LU", |score| {
            Some(score.beside_parts_lu)
        }),
    ];
    let cell = |scores: &[SoundScore], value: fn(&SoundScore) -> Option<f32>| {
        let values: Vec<f32> = scores.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| Measured::mean(values.into_iter()))
    };
    Table {
        title: "Strokes and loudness".to_owned(),
        note: "The same pairs; means with 95 % intervals. Rise time: from 10 to 90 % of the amplitude, at B's strokes, less B's own; above 0: \
               smeared. Flux: rises in windows of 23 ms, above those away from all strokes; at B's strokes, 1 is as sharp as B; at those \
               strokes of A that B does not have, 0 is nothing left and 1 as much as in A. Loudness: integrated (BS.1770), of mono clips."
            .to_owned(),
        columns: COLUMNS.map(|(name, _)| name.to_owned()).to_vec(),
        rows: scores
            .iter()
            .map(|(name, scores)| Row {
                name: (*name).to_owned(),
                cells: COLUMNS.iter().map(|(_, value)| cell(scores, *value)).collect(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::Excerpt;
    use crate::test_signal::struck;

    #[test]
    fn a_source_is_like_itself_and_gain_is_loudness() {
        let excerpt = |hz: f32, beat_samples: usize| Excerpt {
            clip: struck(hz, beat_samples),
            ..Excerpt::silent(&hz.to_string())
        };
        let pair = Pair {
            main: excerpt(440.0, 9000),
            sidechain: excerpt(1000.0, 11_000),
        };
        let analysis = StrokeAnalysis::new().unwrap();
        let sources = SoundSources::new(&analysis, &pair).unwrap();
        let compare = |clip: &AudioClip| sources.compare(&analysis, clip).unwrap();
        let (a, b) = (compare(&pair.main.clip), compare(&pair.sidechain.clip));
        assert_eq!((a.beside_main_lu, b.beside_sidechain_lu), (0.0, 0.0));
        assert_eq!(
            (b.attacks.rise_beside_ms, b.attacks.sharpness),
            (Some(0.0), Some(1.0))
        );
        assert_eq!(a.attacks.residual, Some(1.0));
        let mut half = pair.main.clip.clone();
        half.channels[0]
            .iter_mut()
            .for_each(|sample| *sample *= 0.5);
        let half = compare(&half);
        assert!((half.beside_main_lu + 6.02).abs() < 0.01, "{half:?}");
        assert!((half.beside_parts_lu - a.beside_parts_lu + 6.02).abs() < 0.01);
        let parts = compare(&separated(&pair.main.clip, &pair.sidechain.clip).unwrap());
        assert!(parts.beside_parts_lu.abs() < 1e-4, "{parts:?}");

        let table = table(&[("B", vec![b.clone(), b]), ("none", Vec::new())]);
        let sharpness = "flux at B's strokes, share of B's";
        assert_eq!(table.cell("B", sharpness).unwrap().value, 1.0);
        assert_eq!(table.cell("none", sharpness), None);
    }
}
