//! A model file from the state of a run.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use model_runtime::lord::{self, LordHeader};
use model_runtime::model_file::Card;

use super::material::instruments;
use crate::recipe::lord::LordRecipe;

/// Prefixes of the optimisers in the state of a run.
pub(crate) const GENERATOR: &str = "generator/";
pub(crate) const ENCODERS: &str = "encoders/";
pub(crate) const CODES: &str = "codes/";

/// Prefix of the weights in the state of an optimiser.
const WEIGHT: &str = "weight/";

/// The tensors whose names begin with `prefix`, without it.
pub(crate) fn part(state: &HashMap<String, Tensor>, prefix: &str) -> HashMap<String, Tensor> {
    let own = state
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())));
    own.collect()
}

/// The model file of a run after `step` steps.
///
/// # Errors
///
/// Returns an error if the run has not begun its second stage or not confined its codes yet, or its state does not match the recipe.
pub fn model_bytes(
    recipe: &LordRecipe,
    step: u64,
    state: &HashMap<String, Tensor>,
    card: Card,
) -> Result<Vec<u8>> {
    ensure!(
        step > recipe.stage_1.steps,
        "the encoders are trained in the second stage: expected more than {} steps, found {step}",
        recipe.stage_1.steps
    );
    if let Some(steps) = recipe.confined_after() {
        ensure!(
            step > steps,
            "the content codes are confined in the second stage: expected more than {steps} steps, found {step}"
        );
    }
    let mut tensors = part(state, &format!("{GENERATOR}{WEIGHT}"));
    tensors.extend(part(state, &format!("{ENCODERS}{WEIGHT}")));
    let classes = state.get(&format!("{CODES}{WEIGHT}classes"));
    let classes = classes.context("expected the codes of the instruments, found none")?;
    tensors.insert("classes".to_owned(), classes.clone());
    let programs = instruments(&recipe.clips)?;
    let header = LordHeader {
        format: lord::FORMAT,
        lord: recipe.lord.clone(),
        mel: recipe.mel.clone(),
        mel_mean: recipe.mel_mean,
        mel_deviation: recipe.mel_deviation,
        instruments: programs
            .iter()
            .map(|program| program.name.to_owned())
            .collect(),
        card,
    };
    Ok(lord::to_bytes(&header, &tensors)?)
}
