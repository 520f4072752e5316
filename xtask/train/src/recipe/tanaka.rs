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
