//! `cargo xtask export`: a model file from a training run.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::Tensor;
use clap::Args;
use model_runtime::model_file::{self, Card, Figure, Header};
use vocoder::MelConfig;
use vocoder::layers::fold_weight_norm;

use crate::train::checkpoint;
use crate::whole_file;

/// Make a model file of a training run.
///
/// The averaged weights of the newest checkpoint are written, with a card that says what they are.
#[derive(Args)]
pub struct Export {
    /// Folder of the run.
    run: PathBuf,
    /// The model file to write.
    #[arg(short, long, value_name = "MODEL.safetensors")]
    output: PathBuf,
    /// Licence of the weights. That of the music decides.
    #[arg(long, default_value = "not stated")]
    licence: String,
    /// What the model was trained on, in words.
    #[arg(long, default_value = "not stated")]
    data: String,
    /// Version of the model.
    #[arg(long, default_value = "1")]
    model_version: String,
    /// A measured figure for the card, such as one from `cargo xtask evaluate`; may be given several times.
    #[arg(long = "figure", value_name = "NAME=VALUE", value_parser = figure)]
    figures: Vec<Figure>,
}

fn figure(text: &str) -> Result<Figure, String> {
    let (name, value) = text.rsplit_once('=').ok_or("expected NAME=VALUE")?;
    let value = value
        .parse()
        .map_err(|_| format!("expected a number, found {value}"))?;
    Ok(Figure {
        name: name.to_owned(),
        value,
    })
}

impl Export {
    /// Writes the file, or nothing.
    pub fn run(&self) -> Result<()> {
        let (run, tensors) = checkpoint::load(&self.run)?;
        let averages = tensors
            .into_iter()
            .filter_map(|(name, tensor)| {
                name.strip_prefix("average/")
                    .map(|name| (name.to_owned(), tensor))
            })
            .collect::<HashMap<_, _>>();
        let card = Card {
            version: self.model_version.clone(),
            licence: self.licence.clone(),
            data: self.data.clone(),
            figures: self.figures.clone(),
            ..card(&run)
        };
        let steps = card.steps;
        let bytes = model_bytes(&run, &averages, card)?;
        whole_file::write(&self.output, &bytes)?;
        println!(
            "{}: {steps} steps, {:.1} MB",
            self.output.display(),
            bytes.len() as f64 / 1e6
        );
        Ok(())
    }
}

/// What a run says of itself.
pub fn card(run: &checkpoint::Header) -> Card {
    Card {
        name: run.recipe.name.clone(),
        version: String::new(),
        licence: String::new(),
        data: String::new(),
        steps: run.total_steps(),
        train_hours: (run.total_hours() * 100.0).round() / 100.0,
        figures: Vec::new(),
    }
}

/// The model file of a run's averaged weights.
///
/// # Errors
///
/// When the weights do not make a model.
pub fn model_bytes(
    run: &checkpoint::Header,
    averages: &HashMap<String, Tensor>,
    card: Card,
) -> Result<Vec<u8>> {
    let weights = fold(averages)?
        .into_iter()
        .map(|(name, tensor)| (format!("network.{name}"), tensor))
        .collect();
    let header = Header {
        format: model_file::FORMAT,
        architecture: run.recipe.network.clone(),
        mel: MelConfig::default(),
        max_shift_semitones: run.recipe.crops.max_shift_semitones,
        generator: None,
        card,
    };
    Ok(model_file::to_bytes(&header, &weights)?)
}

/// Replaces each pair of weight norm (`weight_g`, `weight_v`) by the plain `weight`.
fn fold(tensors: &HashMap<String, Tensor>) -> Result<HashMap<String, Tensor>> {
    let mut folded = HashMap::new();
    for (name, tensor) in tensors {
        if let Some(layer) = name.strip_suffix("weight_g") {
            let direction = tensors
                .get(&format!("{layer}weight_v"))
                .with_context(|| format!("expected a tensor \"{layer}weight_v\", found none"))?;
            folded.insert(
                format!("{layer}weight"),
                fold_weight_norm(tensor, direction)?,
            );
        } else if !name.ends_with("weight_v") {
            folded.insert(name.clone(), tensor.clone());
        }
    }
    Ok(folded)
}
