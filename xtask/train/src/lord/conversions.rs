//! Translations of clips, compared with the true clip of the other instrument.

use anyhow::Result;
use candle_core::{D, Tensor};
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::classifier::Classifier;
use super::material::ClipSet;

/// Pairs of clips of one melody, by two instruments.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    /// Clips that are translated.
    pub sources: Vec<u32>,
    /// The instruments that they are translated to.
    pub instruments: Vec<u32>,
    /// The same melodies by these instruments.
    pub truths: Vec<u32>,
}

impl Pairs {
    /// Draws `count` pairs from a clip of `sources` to one of `targets`, which play the same melodies.
    pub fn draw(sources: &ClipSet, targets: &ClipSet, count: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pairs = Self {
            sources: Vec::new(),
            instruments: Vec::new(),
            truths: Vec::new(),
        };
        while pairs.sources.len() < count {
            let melody = random.random_range(0..sources.melodies.len());
            let from = random.random_range(0..sources.programs.len());
            let to = random.random_range(0..targets.programs.len());
            if sources.programs[from].number != targets.programs[to].number {
                pairs.sources.push(sources.clip(melody, from) as u32);
                pairs.instruments.push(to as u32);
                pairs.truths.push(targets.clip(melody, to) as u32);
            }
        }
        pairs
    }
}

/// Figures of translations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Mean absolute difference to the true clips, in nepers.
    pub mel_l1: f32,
    /// The same of the clips before.
    pub mel_l1_before: f32,
    /// Share of the pairs that came nearer.
    pub nearer: f32,
    /// Share that the classifier takes for the target.
    pub recognised: f32,
}

impl Figures {
    /// Compares standardised mels (pairs, `n_mels`, 1, T): the translations, the sources and the true clips.
    ///
    /// # Errors
    ///
    /// Returns an error if the shapes differ.
    pub fn of(
        translated: &Tensor,
        [sources, truths]: [&Tensor; 2],
        pairs: &Pairs,
        classifier: &Classifier,
        mel_deviation: f64,
    ) -> Result<Self> {
        let distances = |mels: &Tensor| -> Result<Vec<f32>> {
            let means = (mels - truths)?.abs()?.flatten_from(1)?.mean(D::Minus1)?;
            Ok((means * mel_deviation)?.to_vec1()?)
        };
        let (after, before) = (distances(translated)?, distances(sources)?);
        let count = after.len() as f32;
        let nearer = after.iter().zip(&before).filter(|(a, b)| a < b).count();
        let heard = classifier.instruments(translated)?;
        let hits = heard.iter().zip(&pairs.instruments).filter(|(a, b)| a == b);
        Ok(Self {
            mel_l1: after.iter().sum::<f32>() / count,
            mel_l1_before: before.iter().sum::<f32>() / count,
            nearer: nearer as f32 / count,
            recognised: hits.count() as f32 / count,
        })
    }

    /// Each figure by name.
    pub fn to_json(self) -> Value {
        json!({
            "mel_l1": self.mel_l1, "mel_l1_before": self.mel_l1_before, "nearer": self.nearer, "recognised": self.recognised,
        })
    }

    /// For the terminal.
    pub fn line(self) -> String {
        format!(
            "{:.3} for {:.3}, nearer {:.0} %, recognised {:.0} %",
            self.mel_l1,
            self.mel_l1_before,
            100.0 * self.nearer,
            100.0 * self.recognised
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::programs::PROGRAMS;
    use candle_core::{DType, Device};

    #[test]
    fn pairs_are_clips_of_one_melody_by_two_instruments() {
        let set = |numbers: &[usize]| ClipSet {
            programs: numbers.iter().map(|number| &PROGRAMS[*number]).collect(),
            melodies: vec![Vec::new(); 3],
            log_mels: Tensor::zeros((1, 1, 1, 1), DType::F32, &Device::Cpu).unwrap(),
        };
        let (sources, targets) = (set(&[0, 40]), set(&[40, 73, 0]));
        let pairs = Pairs::draw(&sources, &targets, 50, 1);
        assert_eq!(pairs.sources.len(), 50);
        for ((source, to), truth) in pairs
            .sources
            .iter()
            .zip(&pairs.instruments)
            .zip(&pairs.truths)
        {
            let (source, to, truth) = (*source as usize, *to as usize, *truth as usize);
            assert_eq!(sources.melody_of(source), targets.melody_of(truth));
            assert_eq!(targets.program_of(truth), to);
            let from = sources.programs[sources.program_of(source)];
            assert_ne!(from.number, targets.programs[to].number);
        }
    }
}
