//! Training of the network for pitch and timbre of a frame ([`crate::luo`]).

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use graft_material::plot::{self, HeatPanel};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde_json::json;

use super::{Report, Trainee};
use crate::batches::random;
use crate::checkpoint::CheckpointHeader;
use crate::luo::clusters::assigned_accuracy;
use crate::luo::frames::NoteFrames;
use crate::luo::network::{LuoNetwork, Mode};
use crate::luo::objective::{Distribution, Objective, Sampling, SecondView, Views, objective};
use crate::noise;
use crate::notes::NotesMaterial;
use crate::optim::Adam;
use crate::parameters::Parameters;
use crate::preview;
use crate::recipe::luo::LuoRecipe;
use crate::weights::Weights;

/// Prefixes of tensors in checkpoints.
const STATISTICS: &str = "statistics/";
const BEST_WEIGHTS: &str = "best/weight/";
const BEST_STATISTICS: &str = "best/statistics/";
/// Step and validation loss of the best weights.
const BEST: &str = "best";

/// Most notes in a preview.
const PREVIEW_NOTES: usize = 12;
/// Timbres in a preview.
const PREVIEW_TIMBRES: usize = 4;

/// The network in training.
pub struct LuoTrainee {
    recipe: LuoRecipe,
    device: Device,
    model: Trained,
    optimiser: Adam,
    training: NoteFrames,
    validation: NoteFrames,
    /// Frames of recorded notes by the name of their folder.
    recorded: Vec<(String, NoteFrames)>,
    instruments: Vec<String>,
    next_batch: u64,
    best: Option<Best>,
}

/// A network with its tensors.
struct Trained {
    parameters: Parameters,
    statistics: Parameters,
    network: LuoNetwork,
}

impl Trained {
    fn new(recipe: &LuoRecipe, device: &Device) -> Result<Self> {
        let parameters = Parameters::new(recipe.frames.seed);
        let statistics = Parameters::new(recipe.frames.seed);
        let network = LuoNetwork::new(
            &recipe.luo,
            recipe.mel.n_mels,
            &parameters,
            &statistics,
            device,
        )?;
        Ok(Self {
            parameters,
            statistics,
            network,
        })
    }
}

/// The weights with the least validation loss.
struct Best {
    step: u64,
    loss: f64,
    /// Weights and statistics, by their names in checkpoints.
    tensors: HashMap<String, Tensor>,
}

impl Best {
    fn read(state: &HashMap<String, Tensor>) -> Result<Option<Self>> {
        let Some(best) = state.get(BEST) else {
            return Ok(None);
        };
        let [step, loss] = best.to_vec1::<f64>()?[..] else {
            anyhow::bail!("expected the step and loss of the best weights, found {best}");
        };
        let tensors = state.iter();
        let tensors = tensors.filter(|(name, _)| {
            name.starts_with(BEST_WEIGHTS) || name.starts_with(BEST_STATISTICS)
        });
        Ok(Some(Self {
            step: step as u64,
            loss,
            tensors: tensors
                .map(|(name, tensor)| (name.clone(), tensor.clone()))
                .collect(),
        }))
    }

    fn network(&self, recipe: &LuoRecipe, device: &Device) -> Result<LuoNetwork> {
        let model = Trained::new(recipe, device)?;
        model.parameters.set(&of(&self.tensors, BEST_WEIGHTS))?;
        model.statistics.set(&of(&self.tensors, BEST_STATISTICS))?;
        Ok(model.network)
    }
}

/// The tensors whose names begin with `prefix`, by the rest of their names.
fn of(tensors: &HashMap<String, Tensor>, prefix: &str) -> HashMap<String, Tensor> {
    let named = |(name, tensor): (&String, &Tensor)| {
        Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
    };
    tensors.iter().filter_map(named).collect()
}

/// Copies of variables on the CPU, with `prefix` before their names.
fn copies(parameters: &Parameters, prefix: &str) -> Result<Vec<(String, Tensor)>> {
    let vars = parameters.vars().into_iter();
    vars.map(|(name, var)| {
        let copy = var.as_detached_tensor().copy()?;
        Ok((format!("{prefix}{name}"), copy.to_device(&Device::Cpu)?))
    })
    .collect()
}

/// The network with the best weights of a run, from the tensors of its checkpoint, on the CPU.
///
/// # Errors
///
/// Returns an error if the run has not been validated yet, or its tensors do not match the recipe.
pub fn best_network(recipe: &LuoRecipe, state: &HashMap<String, Tensor>) -> Result<LuoNetwork> {
    let best = Best::read(state)?.context("the run has no weights with a validation loss yet")?;
    best.network(recipe, &Device::Cpu)
}

/// Training data of one step: frames of both views, pitches and transpositions.
pub struct LuoBatch {
    first: Vec<f32>,
    second: Vec<f32>,
    labels: Vec<u32>,
    shifts: Vec<i32>,
}

impl LuoTrainee {
    /// Creates the network of a recipe with random weights or those of a checkpoint. The next step is the one after
    /// `header.step` steps.
    ///
    /// # Errors
    ///
    /// Returns an error if weights or notes do not match the recipe.
    pub fn new(
        recipe: LuoRecipe,
        header: &CheckpointHeader,
        weights: &Weights,
        material: NotesMaterial,
        device: Device,
    ) -> Result<Self> {
        let frames = |set, shifts| {
            NoteFrames::new(
                set,
                &recipe.mel,
                recipe.frames.at_seconds,
                shifts,
                |label| recipe.luo.pitch(label.key).is_some(),
            )
        };
        let parts = &material.parts;
        let training = frames(&parts.training, &recipe.frames.shifts)?;
        let validation = frames(&parts.validation, &recipe.frames.shifts)?;
        for (part, notes) in [("training", &training), ("validation", &validation)] {
            ensure!(
                notes.len() > 1,
                "expected notes for {part} between the keys {} and {}, found {}",
                recipe.luo.lowest_key,
                usize::from(recipe.luo.lowest_key) + recipe.luo.pitches - 1,
                notes.len()
            );
        }
        let recorded = material.recorded.iter();
        let recorded = recorded.map(|(name, set)| Ok((name.clone(), frames(set, &[])?)));
        let recorded = recorded.collect::<Result<Vec<_>>>()?;
        let model = Trained::new(&recipe, &device)?;
        let mut optimiser = Adam::new(&model.parameters, recipe.optimiser.adam())?;
        let mut best = None;
        if let Weights::Checkpoint(state) = weights {
            optimiser.restore(state, header.step * updates_per_step(&recipe))?;
            model.statistics.set(&of(state, STATISTICS))?;
            best = Best::read(state)?;
        }
        Ok(Self {
            instruments: parts.training.instruments.clone(),
            next_batch: header.step,
            recipe,
            device,
            model,
            optimiser,
            training,
            validation,
            recorded,
            best,
        })
    }

    /// Steps in which each note is taken about once.
    fn epoch_steps(&self) -> u64 {
        (self.training.len() / self.recipe.frames.batch).max(1) as u64
    }

    /// Some views of notes on the device.
    fn views(&self, batch: LuoBatch) -> Result<Views> {
        let (count, device) = (batch.labels.len(), &self.device);
        let shape = (count, self.training.bands);
        let second = match batch.shifts.is_empty() {
            true => None,
            false => Some(SecondView {
                frames: Tensor::from_vec(batch.second, shape, device)?,
                shifts: batch.shifts,
            }),
        };
        Ok(Views {
            first: Tensor::from_vec(batch.first, shape, device)?,
            labels: Tensor::from_vec(batch.labels, count, device)?,
            second,
        })
    }

    /// Notes of `frames`, each with the view that `choose` says, counted from 0 after the untransposed one.
    fn batch(
        &self,
        frames: &NoteFrames,
        notes: impl Iterator<Item = usize>,
        mut choose: impl FnMut(usize) -> usize,
    ) -> LuoBatch {
        let mut batch = LuoBatch {
            first: Vec::new(),
            second: Vec::new(),
            labels: Vec::new(),
            shifts: Vec::new(),
        };
        for note in notes {
            batch.first.extend(frames.view(note, 0));
            let pitch = self.recipe.luo.pitch(frames.labels[note].key);
            batch.labels.push(pitch.unwrap_or_default() as u32);
            if frames.views > 1 {
                let shift = choose(note);
                batch.second.extend(frames.view(note, 1 + shift));
                batch.shifts.push(self.recipe.frames.shifts[shift]);
            }
        }
        batch
    }

    /// The losses of all notes of a set, without samples.
    fn losses(&self, frames: &NoteFrames) -> Result<Objective> {
        let shifts = self.recipe.frames.shifts.len().max(1);
        let batch = self.batch(frames, 0..frames.len(), |note| note % shifts);
        let views = self.views(batch)?;
        objective(
            &self.model.network,
            &views,
            &self.recipe.loss,
            None,
            Mode::Inference,
        )
    }

    /// The share of notes in the cluster of their pitch.
    fn pitch_accuracy(&self, frames: &NoteFrames) -> Result<f64> {
        let batch = self.batch(frames, 0..frames.len(), |_| 0);
        let views = self.views(batch)?;
        let encoded = self.model.network.encode(&views.first, Mode::Inference)?;
        let clusters = encoded.logits.argmax(1)?.to_vec1::<u32>()?;
        let pitches = views.labels.to_vec1::<u32>()?;
        let items = clusters.into_iter().zip(pitches);
        let items: Vec<(usize, usize)> = items.map(|(a, b)| (a as usize, b as usize)).collect();
        Ok(assigned_accuracy(&items, self.recipe.luo.pitches))
    }

    /// Keeps the current weights.
    fn keep(&mut self, step: u64, loss: f64) -> Result<()> {
        let mut tensors = HashMap::new();
        tensors.extend(copies(&self.model.parameters, BEST_WEIGHTS)?);
        tensors.extend(copies(&self.model.statistics, BEST_STATISTICS)?);
        self.best = Some(Best {
            step,
            loss,
            tensors,
        });
        Ok(())
    }
}

/// Steps of the optimiser in a step of training.
fn updates_per_step(recipe: &LuoRecipe) -> u64 {
    if recipe.loss.l3 > 0.0 { 2 } else { 1 }
}

impl Trainee for LuoTrainee {
    type Batch = LuoBatch;

    fn next_batch(&mut self) -> Result<LuoBatch> {
        let (step, frames) = (self.next_batch, &self.recipe.frames);
        self.next_batch += 1;
        let (epoch, place) = (step / self.epoch_steps(), step % self.epoch_steps());
        let mut notes: Vec<usize> = (0..self.training.len()).collect();
        notes.shuffle(&mut random(frames.seed, epoch));
        let notes = notes
            .into_iter()
            .skip(place as usize * frames.batch)
            .take(frames.batch);
        let mut random = random(!frames.seed, step);
        let shifts: Vec<usize> = (0..frames.shifts.len()).collect();
        let choose = |_| shifts.choose(&mut random).copied().unwrap_or_default();
        Ok(self.batch(&self.training, notes, choose))
    }

    fn step(&mut self, header: &CheckpointHeader, batch: LuoBatch) -> Result<Report> {
        let views = self.views(batch)?;
        let epoch = header.step / self.epoch_steps();
        let noise_seed = self.recipe.frames.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ header.step;
        let mut random = StdRng::seed_from_u64(noise_seed);
        let sampling = Sampling {
            temperature: self.recipe.temperature.at(epoch),
            draw: &mut |distribution, count| match distribution {
                Distribution::Normal => noise::normal(count, &mut random),
                Distribution::Gumbel => noise::gumbel(count, &mut random),
            },
        };
        let objective = objective(
            &self.model.network,
            &views,
            &self.recipe.loss,
            Some(sampling),
            Mode::Training,
        )?;
        let gradients = objective.total.backward()?;
        let cycle = objective.cycle.as_ref();
        let cycle = cycle.map(Tensor::backward).transpose()?;
        let figures = objective.figures()?;
        let learning_rate = self.recipe.optimiser.learning_rate(header.step);
        let norm = self.optimiser.step(&gradients, learning_rate)?;
        if let Some(gradients) = &cycle {
            self.optimiser.step(gradients, learning_rate)?;
        }
        Ok(Report {
            line: format!(
                "loss {:.3} squared distance {:.3}",
                figures["loss"], figures["squared_distance"]
            ),
            figures: json!({
                "train": figures,
                "epoch": epoch,
                "gradient_norm": norm,
                "learning_rate": learning_rate,
            }),
        })
    }

    fn validate(&mut self, header: &CheckpointHeader) -> Result<Report> {
        let figures = self.losses(&self.validation)?.figures()?;
        let accuracy = self.pitch_accuracy(&self.validation)?;
        let loss = f64::from(figures["loss"]);
        if self.best.as_ref().is_none_or(|best| loss < best.loss) {
            self.keep(header.step, loss)?;
        }
        let mut line = format!(
            "loss {loss:.3}, squared distance {:.3}, pitch accuracy {accuracy:.3}",
            figures["squared_distance"]
        );
        let mut validation = json!(figures);
        validation["pitch_accuracy"] = json!(accuracy);
        let mut recorded = json!({});
        for (name, frames) in &self.recorded {
            let distance = self.losses(frames)?.figures()?["squared_distance"];
            let accuracy = self.pitch_accuracy(frames)?;
            line +=
                &format!("; {name}: squared distance {distance:.3}, pitch accuracy {accuracy:.3}");
            recorded[name] = json!({ "squared_distance": distance, "pitch_accuracy": accuracy });
        }
        Ok(Report {
            line,
            figures: json!({ "validation": validation, "recorded": recorded }),
        })
    }

    fn preview(&self, header: &CheckpointHeader, run: &Path) -> Result<()> {
        let best = self
            .best
            .as_ref()
            .context("a preview follows a validation")?;
        let network = best.network(&self.recipe, &Device::Cpu)?;
        let path = preview::folder(run)?.join(format!("step-{:06}.png", header.step));
        draw_swaps(&path, &network, &self.validation, &self.instruments)
    }

    fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = self.optimiser.state()?;
        state.extend(copies(&self.model.statistics, STATISTICS)?);
        if let Some(best) = &self.best {
            state.extend(best.tensors.clone());
            let numbers = [best.step as f64, best.loss];
            state.insert(BEST.to_owned(), Tensor::new(&numbers, &Device::Cpu)?);
        }
        Ok(state)
    }

    fn end(&self, header: &CheckpointHeader) -> Option<String> {
        let best = self.best.as_ref()?;
        let epochs = (header.step - best.step) / self.epoch_steps();
        (epochs >= self.recipe.patience_epochs).then(|| {
            format!(
                "the validation loss was not better than that of step {}, {:.3}, for {epochs} epochs",
                best.step, best.loss
            )
        })
    }
}

/// Draws frames of one note of each instrument, their reconstructions, and frames with the timbre of some and the pitch of each.
///
/// # Errors
///
/// Returns an error if there are no notes, or the file cannot be written.
pub fn draw_swaps(
    path: &Path,
    network: &LuoNetwork,
    frames: &NoteFrames,
    instruments: &[String],
) -> Result<()> {
    // The middle one of each instrument.
    let notes = (0..instruments.len()).filter_map(|instrument| {
        let labels = frames.labels.iter().enumerate();
        let own = labels.filter(|(_, label)| label.instrument == instrument);
        let own: Vec<usize> = own.map(|(note, _)| note).collect();
        own.get(own.len() / 2).copied()
    });
    let notes: Vec<usize> = notes.take(PREVIEW_NOTES).collect();
    let count = notes.len();
    let values: Vec<f32> = notes
        .iter()
        .flat_map(|&note| frames.view(note, 0))
        .copied()
        .collect();
    let original = Tensor::from_vec(values.clone(), (count, frames.bands), &Device::Cpu)?;
    let encoded = network.encode(&original, Mode::Inference)?;
    let likeliest = encoded.logits.argmax(1)?;
    let pitches = crate::luo::loss::one_hot(&likeliest, encoded.logits.dim(1)?)?;
    let decode = |timbres: &Tensor| -> Result<Vec<f32>> {
        let decoded = network.decode(timbres, &pitches, Mode::Inference)?;
        Ok(decoded.flatten_all()?.to_vec1()?)
    };
    let mut rows = vec![
        ("Notes".to_owned(), values),
        ("Reconstructed".to_owned(), decode(&encoded.mean)?),
    ];
    for index in (0..count).step_by(count.div_ceil(PREVIEW_TIMBRES).max(1)) {
        let timbre = encoded.mean.narrow(0, index, 1)?;
        let name = &instruments[frames.labels[notes[index]].instrument];
        let timbres = timbre.repeat((count, 1))?;
        rows.push((
            format!("Timbre of {name}, pitch of each"),
            decode(&timbres)?,
        ));
    }
    let panels: Vec<HeatPanel> = rows
        .iter()
        .map(|(title, values)| HeatPanel {
            title,
            y_name: "mel band",
            rows: frames.bands,
            values,
            range: (-1.0, 1.0),
        })
        .collect();
    plot::plot_columns(path, &panels, "note", 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint;
    use crate::midi::tiny_sound_font;
    use crate::recipe::Recipe;
    use crate::recipe::notes::NotesRecipe;
    use crate::run::{Run, Until};
    use graft_material::testing::TestFolder;
    use std::fs;

    const RECIPE: &str = r#"
        name = "tiny"
        patience_epochs = 1000
        [luo]
        latents = 2
        pitches = 24
        lowest_key = 60
        hidden = 16
        cepstra = 10
        [mel]
        sample_rate_hz = 22050
        n_fft = 2048
        hop_length = 256
        n_mels = 64
        f_min_hz = 20
        f_max_hz = 11000
        [notes]
        seed = 1
        programs = [40, 73]
        validation_keys_share = 0.2
        unseen_keys_share = 0.1
        velocities = [60, 100]
        seconds = 0.3
        [frames]
        seed = 1
        batch = 16
        at_seconds = 0.2
        shifts = [-2, -1, 0, 1]
        [loss]
        reconstruction = 10
        kl_timbre = 1
        kl_pitch = 1
        l1 = 1
        l2 = 1
        l3 = 1
        l4 = 1
        labels = 0
        [temperature]
        floor = 0.5
        decay = 0.1
        [optimiser]
        learning_rate = 1e-2
        half_life_steps = 1e9
        learning_rate_floor = 1e-2
        betas = [0.9, 0.999]
        amsgrad = true
        clip_norm = 1e9
        checkpoint_steps = 5
        validation_steps = 10
    "#;

    /// Trains the recipe in a run of this name, from its checkpoint if there is one.
    fn train(folder: &TestFolder, run: &str, text: &str, steps: u64) -> Result<()> {
        let font = folder.path().join("tiny.sf2");
        fs::write(&font, tiny_sound_font::bytes())?;
        let run = folder.path().join(run);
        fs::create_dir_all(&run)?;
        let recipe = Recipe::parse(text)?;
        let (header, weights) = match checkpoint::path(&run).exists() {
            true => {
                let (header, tensors) = checkpoint::load(&run)?;
                (header, Weights::Checkpoint(tensors))
            }
            false => (CheckpointHeader::new(recipe.clone(), None), Weights::Random),
        };
        let Recipe::Notes(NotesRecipe::Luo(settings)) = recipe else {
            panic!("expected a recipe for pitch and timbre of a frame");
        };
        let parts = settings.notes.render_with(&font, folder.path(), 22_050)?;
        let material = NotesMaterial {
            recorded: vec![("recorded".to_owned(), parts.unseen_keys.clone())],
            parts,
        };
        let trainee = LuoTrainee::new(settings, &header, &weights, material, Device::Cpu)?;
        Run::new(&run, header, trainee)?.train(Until::Step(steps))
    }

    fn figures(folder: &TestFolder, run: &str, pointer: &str) -> Vec<f64> {
        let path = folder.path().join(run).join("metrics.jsonl");
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let figures = lines.filter_map(|line: serde_json::Value| line.pointer(pointer)?.as_f64());
        figures.collect()
    }

    #[test]
    fn a_run_learns_resumes_and_keeps_its_best_weights() {
        let folder = TestFolder::new("luo");
        train(&folder, "unbroken", RECIPE, 40).unwrap();
        train(&folder, "broken", RECIPE, 20).unwrap();
        train(&folder, "broken", RECIPE, 40).unwrap();
        let losses = |run| figures(&folder, run, "/train/loss");
        let learnt = losses("unbroken");
        assert_eq!(learnt, losses("broken"));
        assert!(learnt[3] < 0.7 * learnt[0], "{learnt:?}");
        assert_eq!(
            figures(&folder, "unbroken", "/recorded/recorded/squared_distance").len(),
            4
        );

        let run = folder.path().join("unbroken");
        assert!(run.join("losses.png").exists() && run.join("previews/step-000040.png").exists());
        let (header, tensors) = checkpoint::load(&run).unwrap();
        let Recipe::Notes(NotesRecipe::Luo(recipe)) = header.recipe else {
            panic!("the checkpoint has another recipe");
        };
        let best = Best::read(&tensors).unwrap().unwrap();
        let validated = figures(&folder, "unbroken", "/validation/loss");
        let least = validated.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(
            (best.loss - least).abs() < 1e-6,
            "{} {validated:?}",
            best.loss
        );
        let rows = Tensor::zeros((3, 64), candle_core::DType::F32, &Device::Cpu).unwrap();
        let network = best_network(&recipe, &tensors).unwrap();
        let encoded = network.encode(&rows, Mode::Inference).unwrap();
        assert_eq!(encoded.logits.dims(), [3, 24]);
    }

    #[test]
    fn a_run_ends_when_it_does_not_get_better() {
        let folder = TestFolder::new("luo-patience");
        // Weights that do not change.
        let recipe = RECIPE
            .replace("patience_epochs = 1000", "patience_epochs = 2")
            .replace("learning_rate = 1e-2", "learning_rate = 1e-30")
            .replace("learning_rate_floor = 1e-2", "learning_rate_floor = 0")
            .replace("validation_steps = 10", "validation_steps = 1");
        train(&folder, "run", &recipe, 1000).unwrap();
        let (header, _) = checkpoint::load(&folder.path().join("run")).unwrap();
        assert!(header.step < 100, "{}", header.step);
    }

    #[test]
    fn a_single_view_trains_with_labels() {
        let folder = TestFolder::new("luo-labels");
        let single = ["l1", "l2", "l3", "l4"]
            .iter()
            .fold(RECIPE.to_owned(), |text, name| {
                text.replace(&format!("{name} = 1"), &format!("{name} = 0"))
            });
        let single = single.replace("shifts = [-2, -1, 0, 1]", "shifts = []");
        let supervised = single.replace("labels = 0", "labels = 10");
        train(&folder, "supervised", &supervised, 60).unwrap();
        let accuracy = figures(&folder, "supervised", "/validation/pitch_accuracy");
        let loss = figures(&folder, "supervised", "/train/labels");
        assert!(loss.last().unwrap() < &(0.5 * loss[0]), "{loss:?}");
        assert!(!accuracy.is_empty());
        // Two views are needed to compare them.
        let error = Recipe::parse(&single.replace("l2 = 0", "l2 = 1")).unwrap_err();
        assert!(error.to_string().contains("two views"), "{error}");
    }
}
