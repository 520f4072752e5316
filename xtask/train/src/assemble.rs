//! Assembles model files from trained parts.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use model_runtime::Model;
use model_runtime::model_file::{self, Card, Figure, Header};
use vocoder::generator::GeneratorConfig;
use vocoder::layers::fold_weight_norm;
use vocoder::magnitudes::MagnitudesConfig;

use crate::checkpoint::{self, Origin};
use crate::recipe::Recipe;
use crate::recipe::network::NetworkRecipe;

/// Name of the voice in model cards. The training time of parts other than the network is stored in the figures of a
/// card; `steps` and `train_hours` are those of the network.
pub const VOICE: &str = "voice";
/// Name of the magnitude network in model cards.
pub const MAGNITUDES: &str = "magnitudes";

/// The model card of a network's run.
pub fn card(run: &checkpoint::CheckpointHeader) -> Card {
    Card {
        name: run.recipe.name().to_owned(),
        version: String::new(),
        licence: String::new(),
        data: String::new(),
        steps: run.total_steps(),
        train_hours: rounded_hours(run),
        figures: Vec::new(),
    }
}

/// Names of the figures for the training steps and hours of a part.
fn part_figures(part: &str) -> [String; 2] {
    ["steps", "hours"].map(|unit| format!("{part}: training {unit}"))
}

/// The card of a network's run that takes the place of a model's network: figures on the training of the other parts stay.
pub fn network_card(model: &Card, run: &checkpoint::CheckpointHeader) -> Card {
    let kept = [VOICE, MAGNITUDES].map(part_figures).concat();
    let mut figures = model.figures.clone();
    figures.retain(|figure| kept.contains(&figure.name));
    Card {
        figures,
        ..card(run)
    }
}

/// The model's card after adding the part that a run trained.
pub fn part_card(model: &Card, part: &str, run: &checkpoint::CheckpointHeader) -> Card {
    let names = part_figures(part);
    let mut figures = model.figures.clone();
    figures.retain(|figure| !names.contains(&figure.name));
    let values = [run.total_steps() as f64, rounded_hours(run)];
    let trained = names.into_iter().zip(values);
    figures.extend(trained.map(|(name, value)| Figure { name, value }));
    Card {
        figures,
        ..model.clone()
    }
}

fn rounded_hours(run: &checkpoint::CheckpointHeader) -> f64 {
    (run.total_hours() * 100.0).round() / 100.0
}

/// Training time, from the model's card, of the part that a recipe trains.
pub fn origin(model: &Model, recipe: &Recipe) -> Origin {
    let card = &model.header().card;
    let figure = |name: &str| {
        let figure = card.figures.iter().find(|figure| figure.name == name);
        figure.map_or(0.0, |figure| figure.value)
    };
    let of_part = |part| {
        let [steps, hours] = part_figures(part).map(|name| figure(&name));
        (steps as u64, hours)
    };
    let (steps, train_hours) = match recipe {
        Recipe::Network(_) => (card.steps, card.train_hours),
        Recipe::Voice(_) => of_part(VOICE),
        Recipe::Magnitudes(_) => of_part(MAGNITUDES),
        // No part of a model file.
        Recipe::Notes(_) | Recipe::Lord(_) => (0, 0.0),
    };
    Origin {
        sha256: model.sha256().to_owned(),
        steps,
        train_hours,
    }
}

/// The model file of a network's averaged weights.
///
/// # Errors
///
/// Returns an error if the weights do not form a valid model.
pub fn network_bytes(
    recipe: &NetworkRecipe,
    averages: &HashMap<String, Tensor>,
    card: Card,
) -> Result<Vec<u8>> {
    let header = Header {
        format: model_file::FORMAT,
        architecture: recipe.network.clone(),
        mel: recipe.mel.clone(),
        max_shift_semitones: recipe.crops.max_shift_semitones,
        generator: None,
        magnitudes: None,
        card,
    };
    let base = BaseModel {
        header,
        tensors: HashMap::new(),
    };
    base.with_network(recipe, averages)
}

/// A model to which a part is added.
pub struct BaseModel {
    /// Header of the model file.
    pub header: Header,
    tensors: HashMap<String, Tensor>,
}

impl BaseModel {
    /// Reads a model file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is not a model.
    pub fn load(path: &Path) -> Result<Self> {
        Ok(Self {
            header: Model::load(path)?.header().clone(),
            tensors: candle_core::safetensors::load(path, &Device::Cpu)?,
        })
    }

    /// The model file with a network's averaged weights.
    ///
    /// # Errors
    ///
    /// Returns an error if the model's other parts read other mels, or if the weights do not match.
    pub fn with_network(
        mut self,
        recipe: &NetworkRecipe,
        averages: &HashMap<String, Tensor>,
    ) -> Result<Vec<u8>> {
        ensure!(
            self.header.mel == recipe.mel,
            "expected a model for the mels of the recipe, {:?}, found one for {:?}",
            recipe.mel,
            self.header.mel
        );
        self.header.architecture = recipe.network.clone();
        self.header.max_shift_semitones = recipe.crops.max_shift_semitones;
        self.with_part("network.", &fold(averages)?)
    }

    /// The model file with a generator of plain weights.
    ///
    /// # Errors
    ///
    /// Returns an error if the weights do not match.
    pub fn with_generator(
        mut self,
        config: &GeneratorConfig,
        weights: &HashMap<String, Tensor>,
    ) -> Result<Vec<u8>> {
        self.header.generator = Some(config.clone());
        self.with_part("generator.", weights)
    }

    /// The model file with a magnitude network.
    ///
    /// # Errors
    ///
    /// Returns an error if the weights do not match.
    pub fn with_magnitudes(
        mut self,
        config: &MagnitudesConfig,
        weights: &HashMap<String, Tensor>,
    ) -> Result<Vec<u8>> {
        self.header.magnitudes = Some(config.clone());
        self.with_part("magnitudes.", weights)
    }

    fn with_part(mut self, prefix: &str, weights: &HashMap<String, Tensor>) -> Result<Vec<u8>> {
        self.tensors.retain(|name, _| !name.starts_with(prefix));
        let weights = weights.iter();
        self.tensors
            .extend(weights.map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())));
        Ok(model_file::to_bytes(&self.header, &self.tensors)?)
    }
}

/// Replaces each pair of weight norm (`weight_g`, `weight_v`) by the plain `weight`.
pub fn fold(tensors: &HashMap<String, Tensor>) -> Result<HashMap<String, Tensor>> {
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
