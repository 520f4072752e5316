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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::{NoteLabel, NoteSet};
    use crate::recipe::Recipe;
    use crate::recipe::notes::NotesRecipe;
    use graft_material::audio_cache::Pcm;
    use graft_material::testing::TestFolder;
    use vocoder::conv::as_on_a_gpu;

    const RECIPE: &str = r#"
        name = "tiny"
        seed = 1
        batch = 4
        [tanaka]
        pitch_encoder = "independent"
        hidden = 6
        timbre_latents = 2
        variation_latents = 2
        pitch_latents = 3
        log_mean = -4.0
        log_deviation = 2.0
        [analysis]
        sample_rate_hz = 22050
        n_fft = 512
        hop_length = 256
        frames = 12
        cut = 12
        [notes]
        seed = 1
        programs = [0]
        validation_keys_share = 0.1
        unseen_keys_share = 0.1
        velocities = [100]
        seconds = 0.2
        [perturbation]
        max_shift_semitones = 7
        effects = 2
        [loss]
        variance = 0.5
        beta = 1.0
        cycle_steps = 10
        [optimiser]
        learning_rate = 1e-2
        half_life_steps = 100
        learning_rate_floor = 1e-3
        betas = [0.9, 0.999]
        clip_norm = 1e5
        average_decay = 0.9
        checkpoint_steps = 5
        validation_steps = 10
    "#;

    /// Tones of two colours.
    fn parts() -> NoteParts {
        let note = |instrument: usize, key: u8| {
            let hz = 440.0 * ((f64::from(key) - 69.0) / 12.0).exp2();
            let sample = |n: i32| {
                let phase = std::f64::consts::TAU * hz * f64::from(n) / 22_050.0;
                let partial = |k: i32| {
                    (phase * f64::from(k)).sin() / f64::from(k).powi(1 + instrument as i32)
                };
                0.2 * (1..9).map(partial).sum::<f64>() as f32
            };
            let samples: Vec<f32> = (0..4410).map(sample).collect();
            Note {
                label: NoteLabel {
                    instrument,
                    key,
                    velocity: 100,
                },
                pcm: Pcm::amplified(&samples, 1.0),
            }
        };
        let set = |keys: &[u8]| NoteSet {
            instruments: vec!["bright".into(), "dark".into()],
            sample_rate_hz: 22_050,
            notes: keys
                .iter()
                .flat_map(|key| [note(0, *key), note(1, *key)])
                .collect(),
        };
        NoteParts {
            training: set(&[60, 62, 65]),
            validation: set(&[61, 70]),
            unseen_keys: set(&[63]),
            unseen_programs: set(&[]),
        }
    }

    fn trainee(step: u64, weights: &Weights) -> (TanakaTrainee, CheckpointHeader) {
        let recipe = Recipe::parse(RECIPE).unwrap();
        let mut header = CheckpointHeader::new(recipe.clone(), None);
        header.step = step;
        let Recipe::Notes(NotesRecipe::Tanaka(recipe)) = recipe else {
            panic!("expected a recipe for notes");
        };
        let trainee = TanakaTrainee::new(recipe, &header, weights, parts(), Device::Cpu).unwrap();
        (trainee, header)
    }

    /// The losses of some steps.
    fn train((trainee, header): &mut (TanakaTrainee, CheckpointHeader), steps: u64) -> Vec<f64> {
        (0..steps)
            .map(|_| {
                let batch = trainee.next_batch().unwrap();
                let report = trainee.step(header, batch).unwrap();
                header.step += 1;
                report.figures["train"]["loss"].as_f64().unwrap()
            })
            .collect()
    }

    #[test]
    fn a_resumed_run_goes_on_as_if_it_had_not_stopped() {
        let whole = train(&mut trainee(0, &Weights::Random), 6);
        let mut first = trainee(0, &Weights::Random);
        let begun = train(&mut first, 3);
        let state = first.0.state().unwrap();
        let resumed = train(&mut trainee(3, &Weights::Checkpoint(state.clone())), 3);
        assert_eq!([begun, resumed].concat(), whole);

        // The weights of the state are those that are validated, too.
        let figures = |report: Report| {
            report.figures["validation"]["mean_square"]
                .as_f64()
                .unwrap()
        };
        let expected = figures(first.0.validate(&first.1).unwrap());
        let network = trained(&first.0.recipe, &state, &Device::Cpu).unwrap();
        let (inputs, target) = first.0.validation[0].tensors(&Device::Cpu).unwrap();
        let parts =
            Parts::of(&network, &inputs, &target, |latent| Ok(latent.mean.clone())).unwrap();
        let found = f64::from(parts.mean_square.to_scalar::<f32>().unwrap());
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
    }

    #[test]
    fn steps_with_the_operations_of_a_gpu_are_those_of_the_cpu() {
        let found = as_on_a_gpu(|| train(&mut trainee(0, &Weights::Random), 4));
        let expected = train(&mut trainee(0, &Weights::Random), 4);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
        }
    }

    #[test]
    fn a_preview_shows_two_notes_and_their_swaps() {
        let folder = TestFolder::new("tanaka-preview");
        let (trainee, header) = trainee(0, &Weights::Random);
        trainee.preview(&header, folder.path()).unwrap();
        assert!(folder.path().join("previews/step-000000.png").exists());
    }
}
