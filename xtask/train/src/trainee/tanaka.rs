//! Training of the network for timbre, pitch and variation of single notes ([`crate::tanaka`]).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use model_runtime::FactorMap;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::{Report, Trainee};
use crate::batches::{BatchStream, MakeBatch};
use crate::checkpoint::CheckpointHeader;
use crate::loss::draw;
use crate::notes::{Note, NoteParts};
use crate::optim::Adam;
use crate::parameters::Parameters;
use crate::preview;
use crate::recipe::tanaka::TanakaRecipe;
use crate::tanaka::batches::{NoteAnalysis, NoteBatch, NoteSampler};
use crate::tanaka::loss::Parts;
use crate::tanaka::network::Tanaka;
use crate::tanaka::pictures;
use crate::weights::Weights;

/// Largest number of notes in the validation set.
const VALIDATION_NOTES: usize = 256;

/// Prefix of the averaged weights in the state of a run.
const AVERAGE: &str = "average/";

/// A network in training.
pub struct TanakaTrainee {
    recipe: TanakaRecipe,
    device: Device,
    network: Tanaka,
    optimiser: Adam,
    batches: BatchStream<NoteBatch>,
    validation: Vec<NoteBatch>,
    preview: [Note; 2],
}

/// Figures of a step or a validation.
struct Figures {
    loss: f32,
    mean_square: f32,
    kl: FactorMap<f32>,
}

impl Figures {
    fn line(&self) -> String {
        let mut line = format!("loss {:.0} square {:.3} kl", self.loss, self.mean_square);
        for (factor, kl) in self.kl.iter() {
            line += &format!(" {factor} {kl:.1}");
        }
        line
    }

    fn to_json(&self) -> Value {
        let mut figures = json!({ "loss": self.loss, "mean_square": self.mean_square });
        for (factor, kl) in self.kl.iter() {
            figures[format!("kl_{factor}")] = json!(kl);
        }
        figures
    }
}

impl TanakaTrainee {
    /// Creates the network of a recipe with random weights or those of a checkpoint. The next step is the one after
    /// `header.step` steps.
    ///
    /// # Errors
    ///
    /// Returns an error if weights or notes do not match the recipe.
    pub fn new(
        recipe: TanakaRecipe,
        header: &CheckpointHeader,
        weights: &Weights,
        parts: NoteParts,
        device: Device,
    ) -> Result<Self> {
        let parameters = Parameters::new(recipe.seed);
        let builder = parameters.builder(&device);
        let network = Tanaka::new(&recipe.tanaka, &recipe.analysis, &builder)?;
        let mut optimiser = Adam::new(&parameters, recipe.optimiser.adam())?;
        if let Weights::Checkpoint(state) = weights {
            optimiser.restore(state, header.step)?;
        }
        let sampler = NoteSampler::new(
            Arc::new(parts.training),
            &recipe.analysis,
            &recipe.perturbation,
            recipe.batch,
            recipe.seed,
        )?;
        let validation = spread(&parts.validation.notes, VALIDATION_NOTES);
        let mut analysis = NoteAnalysis::new(&recipe.analysis)?;
        let batches = validation.chunks(recipe.batch);
        Ok(Self {
            preview: pictures::pair(&parts.validation.notes)?.map(Note::clone),
            validation: batches
                .map(|notes| analysis.plain(notes))
                .collect::<Result<_>>()?,
            batches: sampler.stream(header.total_steps()),
            recipe,
            device,
            network,
            optimiser,
        })
    }

    fn averaged(&self) -> Result<Tanaka> {
        network(&self.recipe, self.optimiser.averages()?, &self.device)
    }
}

/// The network of a run with its averaged weights.
///
/// # Errors
///
/// Returns an error if the state of the run does not match its recipe.
pub fn trained(
    recipe: &TanakaRecipe,
    state: &HashMap<String, Tensor>,
    device: &Device,
) -> Result<Tanaka> {
    let averages = state.iter().filter_map(|(name, tensor)| {
        Some((name.strip_prefix(AVERAGE)?.to_owned(), tensor.clone()))
    });
    network(recipe, averages.collect(), device).context("the weights do not match the recipe")
}

fn network(
    recipe: &TanakaRecipe,
    weights: HashMap<String, Tensor>,
    device: &Device,
) -> Result<Tanaka> {
    let builder = VarBuilder::from_tensors(weights, DType::F32, device);
    Tanaka::new(&recipe.tanaka, &recipe.analysis, &builder)
}

/// At most `count` notes, from all over the set.
fn spread(notes: &[Note], count: usize) -> Vec<&Note> {
    let count = count.min(notes.len());
    (0..count)
        .map(|index| &notes[index * notes.len() / count])
        .collect()
}

impl Trainee for TanakaTrainee {
    type Batch = NoteBatch;

    fn next_batch(&mut self) -> Result<NoteBatch> {
        self.batches.next_batch()
    }

    fn step(&mut self, header: &CheckpointHeader, batch: NoteBatch) -> Result<Report> {
        let recipe = &self.recipe;
        let (inputs, target) = batch.tensors(&self.device)?;
        let noise_seed = recipe.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ header.total_steps();
        let mut random = StdRng::seed_from_u64(noise_seed);
        let parts = Parts::of(&self.network, &inputs, &target, |latent| {
            draw(latent, &mut random)
        })?;
        let beta = recipe.loss.beta_at(header.step);
        let total = parts.total(&recipe.loss, beta)?;
        let gradients = total.backward()?;
        let figures = figures(&parts, &total)?;
        let learning_rate = recipe.optimiser.learning_rate(header.step);
        let norm = self.optimiser.step(&gradients, learning_rate)?;
        Ok(Report {
            line: figures.line(),
            figures: json!({
                "train": figures.to_json(), "beta": beta, "gradient_norm": norm, "learning_rate": learning_rate,
            }),
        })
    }

    fn validate(&mut self, _: &CheckpointHeader) -> Result<Report> {
        let network = self.averaged()?;
        let mut sum: Option<(f32, Figures)> = None;
        for batch in &self.validation {
            let (inputs, target) = batch.tensors(&self.device)?;
            let parts = Parts::of(&network, &inputs, &target, |latent| Ok(latent.mean.clone()))?;
            let total = parts.total(&self.recipe.loss, self.recipe.loss.beta)?;
            let found = figures(&parts, &total)?;
            let notes = batch.size as f32;
            sum = Some(match sum {
                None => (notes, scaled(&found, notes)),
                Some((count, figures)) => (count + notes, added(&figures, &scaled(&found, notes))),
            });
        }
        let (count, figures) = sum.context("expected notes for validation, found none")?;
        let figures = scaled(&figures, 1.0 / count);
        Ok(Report {
            line: figures.line(),
            figures: json!({ "validation": figures.to_json() }),
        })
    }

    fn preview(&self, header: &CheckpointHeader, run: &Path) -> Result<()> {
        let picture = preview::folder(run)?.join(format!("step-{:06}.png", header.step));
        let notes = [&self.preview[0], &self.preview[1]];
        let network = self.averaged()?;
        pictures::draw_swaps(
            &picture,
            &network,
            &self.recipe.analysis,
            notes,
            &self.device,
        )
    }

    fn state(&self) -> Result<HashMap<String, Tensor>> {
        self.optimiser.state()
    }
}

fn figures(parts: &Parts, total: &Tensor) -> Result<Figures> {
    let scalars = [total, &parts.mean_square]
        .into_iter()
        .chain(parts.kl.values());
    // One transfer from the device.
    let numbers: Vec<f32> = Tensor::stack(&scalars.collect::<Vec<_>>(), 0)?.to_vec1()?;
    let mut kl = numbers[2..].iter();
    Ok(Figures {
        loss: numbers[0],
        mean_square: numbers[1],
        kl: parts.kl.map(|_, _| kl.next().copied().unwrap_or(f32::NAN)),
    })
}

fn scaled(figures: &Figures, factor: f32) -> Figures {
    Figures {
        loss: factor * figures.loss,
        mean_square: factor * figures.mean_square,
        kl: figures.kl.map(|_, kl| factor * kl),
    }
}

fn added(a: &Figures, b: &Figures) -> Figures {
    Figures {
        loss: a.loss + b.loss,
        mean_square: a.mean_square + b.mean_square,
        kl: a.kl.map(|factor, kl| kl + b.kl[factor]),
    }
}
