//! Recipes for timbre, pitch and variation of single notes ([`crate::tanaka`]).

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::optimiser::Optimiser;
use crate::notes::NotesConfig;
use crate::perturbation::spectra::Analysis;
use crate::tanaka::batches::Perturbation;
use crate::tanaka::loss::TanakaLoss;
use crate::tanaka::network::TanakaConfig;

/// A recipe for a network of single notes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TanakaRecipe {
    /// Name of the trained network.
    pub name: String,
    /// Seed of all random numbers of the training.
    pub seed: u64,
    /// Notes per step.
    pub batch: usize,
    /// Kind and sizes of the network.
    pub tanaka: TanakaConfig,
    /// The spectrograms.
    pub analysis: Analysis,
    /// The notes.
    pub notes: NotesConfig,
    /// Perturbations of the notes that the encoders hear.
    pub perturbation: Perturbation,
    /// The loss.
    pub loss: TanakaLoss,
    /// Settings of the optimiser.
    pub optimiser: Optimiser,
}

impl TanakaRecipe {
    /// Checks that the recipe can be trained.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first setting that is out of range.
    pub fn check(&self) -> Result<()> {
        self.tanaka.check()?;
        self.analysis.check()?;
        self.perturbation.check()?;
        ensure!(
            self.optimiser.average_decay.is_some(),
            "the averaged weights are evaluated: expected optimiser.average_decay, found none"
        );
        ensure!(self.batch > 0, "batch must be at least 1, found 0");
        let TanakaLoss {
            variance,
            beta,
            cycle_steps,
        } = self.loss;
        ensure!(
            variance > 0.0 && beta >= 0.0 && cycle_steps > 0,
            "loss: expected variance and cycle_steps above 0 and beta of at least 0, found {variance}, {cycle_steps} and {beta}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recipe;
    use super::super::notes::NotesRecipe;
    use super::*;
    use crate::tanaka::network::PitchEncoder;

    fn parse(text: &str) -> Result<TanakaRecipe> {
        match Recipe::parse(text)? {
            Recipe::Notes(NotesRecipe::Tanaka(recipe)) => Ok(recipe),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn recipes_are_those_of_the_paper_and_smaller_ones() {
        let full = parse(include_str!("../../../recipes/tanaka.toml")).unwrap();
        let conditional = parse(include_str!("../../../recipes/tanaka-conditional.toml")).unwrap();
        let mut expected = full.clone();
        expected.name = "tanaka-conditional".into();
        expected.tanaka.pitch_encoder = PitchEncoder::Conditional;
        assert_eq!(conditional, expected);

        let text = include_str!("../../../recipes/tanaka-small.toml");
        let small = parse(text).unwrap();
        let quefrency = |recipe: &TanakaRecipe| {
            recipe.analysis.cut as f64 / f64::from(recipe.analysis.sample_rate_hz)
        };
        assert_eq!(quefrency(&small), quefrency(&full));
        let without_variation = parse(include_str!(
            "../../../recipes/tanaka-small-timbre-pitch.toml"
        ))
        .unwrap();
        let mut expected = small.clone();
        expected.name = "tanaka-small-timbre-pitch".into();
        expected.tanaka.variation_latents = 0;
        assert_eq!(without_variation, expected);
        let without_timbre = parse(include_str!(
            "../../../recipes/tanaka-small-variation-pitch.toml"
        ))
        .unwrap();
        let mut expected = small;
        expected.name = "tanaka-small-variation-pitch".into();
        expected.tanaka.timbre_latents = 0;
        assert_eq!(without_timbre, expected);

        for (found, changed) in [
            ("effects = 2", "effects = 10"),
            ("pitch_latents = 16", "pitch_latents = 0"),
            ("cycle_steps = 400", "cycle_steps = 0"),
            ("average_decay = 0.99\n", ""),
            ("cut = 50", "cut = 2000"),
        ] {
            assert!(text.contains(found), "{found}");
            assert!(parse(&text.replace(found, changed)).is_err(), "{changed}");
        }
    }
}
