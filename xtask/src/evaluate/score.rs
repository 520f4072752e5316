//! Means of [`Margins`] over all pairs, and their table.

use std::fmt;

use anyhow::{Context, Result};
use model_runtime::AudioClip;

use super::margins::{FeatureExtractor, Features, Margins, mel_distance};
use super::pairs::Pair;
use crate::progress;

/// A mean and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Mean of all values.
    pub mean: f32,
    /// Standard error of that mean; 0 for a single value.
    pub standard_error: f32,
}

impl Estimate {
    /// Of some values.
    pub fn of(values: impl ExactSizeIterator<Item = f32> + Clone) -> Self {
        let count = values.len().max(1) as f32;
        let mean = values.clone().sum::<f32>() / count;
        let squares: f32 = values.map(|value| (value - mean).powi(2)).sum();
        Self {
            mean,
            standard_error: (squares / (count - 1.0).max(1.0) / count).sqrt(),
        }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ± {:.3}", self.mean, self.standard_error)
    }
}

/// What one way to remix reaches over all pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// [`Margins::harmony`].
    pub harmony_margin: Estimate,
    /// [`Margins::rhythm`].
    pub rhythm_margin: Estimate,
    /// [`Margins::harmony_similarity`].
    pub harmony_similarity: Estimate,
    /// [`Margins::rhythm_correlation`].
    pub rhythm_correlation: Estimate,
}

impl Score {
    fn of(margins: &[Margins]) -> Self {
        let estimate = |value: fn(&Margins) -> f32| Estimate::of(margins.iter().map(value));
        Self {
            harmony_margin: estimate(|margins| margins.harmony),
            rhythm_margin: estimate(|margins| margins.rhythm),
            harmony_similarity: estimate(|margins| margins.harmony_similarity),
            rhythm_correlation: estimate(|margins| margins.rhythm_correlation),
        }
    }
}

/// Pairs with the features of their sources, ready to score any number of ways to remix.
pub struct Scorer<'a> {
    extractor: FeatureExtractor,
    sources: Vec<(&'a Pair, Features, Features)>,
}

impl<'a> Scorer<'a> {
    /// Analyses the sources of all pairs.
    ///
    /// # Errors
    ///
    /// When a source cannot be analysed.
    pub fn new(pairs: &'a [Pair]) -> Result<Self> {
        let mut extractor = FeatureExtractor::new()?;
        let sources = pairs
            .iter()
            .map(|pair| {
                let main = extractor.extract(&pair.main.clip)?;
                Ok((pair, main, extractor.extract(&pair.sidechain.clip)?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { extractor, sources })
    }

    /// Mean mel distance of each source of harmony to its remix with itself.
    ///
    /// # Errors
    ///
    /// When a clip cannot be remixed; the error names it.
    pub fn reconstruction(
        &mut self,
        mut remix: impl FnMut(&AudioClip, &AudioClip) -> Result<AudioClip>,
    ) -> Result<Estimate> {
        let bar = progress::bar("Reconstructing", self.sources.len() as u64);
        let mut distances = Vec::with_capacity(self.sources.len());
        for (pair, main, _) in &self.sources {
            let clip = remix(&pair.main.clip, &pair.main.clip)
                .with_context(|| format!("cannot reconstruct {}", pair.main.name))?;
            distances.push(mel_distance(&self.extractor.extract(&clip)?, main)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(Estimate::of(distances.into_iter()))
    }

    /// Remixes every pair, with a progress bar, and compares the results with their sources. `remix` is
    /// given the clips that harmony and rhythm are to come from.
    ///
    /// # Errors
    ///
    /// When a pair cannot be remixed; the error names it.
    pub fn score(
        &mut self,
        mut remix: impl FnMut(&AudioClip, &AudioClip) -> Result<AudioClip>,
    ) -> Result<Score> {
        let bar = progress::bar("Remixing", self.sources.len() as u64);
        let mut margins = Vec::with_capacity(self.sources.len());
        for (pair, main, sidechain) in &self.sources {
            let clip = remix(&pair.main.clip, &pair.sidechain.clip).with_context(|| {
                format!(
                    "cannot remix {} with {}",
                    pair.main.name, pair.sidechain.name
                )
            })?;
            let remix = self.extractor.extract(&clip)?;
            margins.push(Margins::of(&remix, main, sidechain));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(Score::of(&margins))
    }
}

/// Scores by name, shown as a Markdown table of means and their standard errors.
#[derive(Debug, Default, Clone)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
struct Row {
    name: String,
    score: Score,
    reconstruction: Option<Estimate>,
}

impl Table {
    /// Adds a row at the end; `reconstruction` is a mel distance.
    pub fn push(&mut self, name: &str, score: Score, reconstruction: Option<Estimate>) {
        self.rows.push(Row {
            name: name.to_owned(),
            score,
            reconstruction,
        });
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| remix | harmony margin | rhythm margin | chroma similarity to A \
             | onset correlation with B | mel distance, A with A to A |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for Row {
            name,
            score,
            reconstruction,
        } in &self.rows
        {
            let reconstruction = reconstruction.map_or("-".to_owned(), |mean| mean.to_string());
            writeln!(
                f,
                "| {name} | {} | {} | {} | {} | {reconstruction} |",
                score.harmony_margin,
                score.rhythm_margin,
                score.harmony_similarity,
                score.rhythm_correlation
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::pairs::Excerpt;

    #[test]
    fn estimates_carry_their_standard_error() {
        // numpy: x = [1, 2, 4, 9]; mean(x), std(x, ddof=1) / sqrt(4)
        let estimate = Estimate::of([1.0, 2.0, 4.0, 9.0].into_iter());
        assert_eq!(estimate.mean, 4.0);
        assert!((estimate.standard_error - 1.779_513).abs() < 1e-5);
        assert_eq!(Estimate::of([3.0].into_iter()).standard_error, 0.0);
    }

    #[test]
    fn passing_one_source_on_gives_opposite_margins() {
        let excerpt = |hz: f32, beat_samples: usize| Excerpt {
            name: hz.to_string(),
            start_seconds: 0,
            clip: AudioClip {
                sample_rate_hz: 22_050,
                channels: vec![
                    (0..44_100)
                        .map(|n| {
                            let decay = (-((n % beat_samples) as f32) / 2000.0).exp();
                            decay * (std::f32::consts::TAU * hz * n as f32 / 22_050.0).sin()
                        })
                        .collect(),
                ],
            },
        };
        let pairs = [
            Pair {
                main: excerpt(440.0, 5000),
                sidechain: excerpt(554.4, 8000),
            },
            Pair {
                main: excerpt(330.0, 7000),
                sidechain: excerpt(880.0, 4000),
            },
        ];
        let mut scorer = Scorer::new(&pairs).unwrap();
        let main = scorer.score(|main, _| Ok(main.clone())).unwrap();
        let sidechain = scorer.score(|_, sidechain| Ok(sidechain.clone())).unwrap();
        assert!(
            main.harmony_margin.mean > 0.5 && main.rhythm_margin.mean < -0.5,
            "{main:?}"
        );
        assert!((main.harmony_margin.mean + sidechain.harmony_margin.mean).abs() < 1e-5);
        assert!((main.rhythm_margin.mean + sidechain.rhythm_margin.mean).abs() < 1e-5);

        let mut table = Table::default();
        table.push("A", main, None);
        let text = table.to_string();
        assert!(
            text.lines().all(|line| line.matches('|').count() == 7),
            "{text}"
        );
        let copy = scorer.reconstruction(|main, _| Ok(main.clone())).unwrap();
        assert_eq!(copy.mean, 0.0);
        let error = scorer.score(|_, _| anyhow::bail!("no")).unwrap_err();
        assert!(format!("{error:#}").contains("440 with 554.4"));
    }
}
