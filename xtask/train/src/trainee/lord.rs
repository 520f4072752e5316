//! Training of content and instrument codes, their generator and their encoders ([`crate::lord`]).

mod judging;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use candle_core::{Device, Tensor};
use candle_nn::{Init, VarBuilder};
use model_runtime::lord::{ClassEncoder, ContentEncoder, Generator};
use rand::seq::SliceRandom;
use serde_json::{Value, json};

use super::{Report, Trainee};
use crate::adversary::{Adversary, AdversaryConfig};
use crate::batches::random;
use crate::checkpoint::CheckpointHeader;
use crate::discriminator::Discriminator;
use crate::lord::classifier::{self, Classifier, Lessons};
use crate::lord::confusion::Confusion;
use crate::lord::export;
use crate::lord::loss::{self, Reconstruction};
use crate::lord::material::{ClipSet, LordMaterial};
use crate::noise::normal;
use crate::optim::Adam;
use crate::parameters::Parameters;
use crate::pca::Principal;
use crate::recipe::lord::{ContentCodes, LordRecipe, Noise};
use crate::weights::Weights;

/// Bounds of the codes at the start.
const FIRST_CODES: Init = Init::Uniform {
    lo: -0.05,
    up: 0.05,
};

/// Prefixes of the optimisers in the state of a run.
const GENERATOR: &str = export::GENERATOR;
const ENCODERS: &str = export::ENCODERS;
const CODES: &str = export::CODES;

/// Codes and networks in training.
pub struct LordTrainee {
    recipe: LordRecipe,
    device: Device,
    material: LordMaterial,
    mels: Mels,
    classifier: Classifier,
    classifier_state: HashMap<String, Tensor>,
    generator: Generator,
    content_encoder: ContentEncoder,
    class_encoder: ClassEncoder,
    codes: Codes,
    generator_parameters: Parameters,
    encoder_parameters: Parameters,
    optimisers: Optimisers,
    adversary: Option<Adversary<Discriminator>>,
    confusion: Option<Confusion>,
    next_batch: u64,
}

/// Standardised mels of the clips, (clips, `n_mels`, 1, frames), on the device.
struct Mels {
    training: Tensor,
    validation: Tensor,
    unseen: Tensor,
}

/// The codes that are optimised.
struct Codes {
    /// Of each clip, (clips, channels, 1, frames), if there is a table.
    content: Option<Tensor>,
    /// Logarithms of the variances of their noise, if it is not fixed.
    log_variance: Option<Tensor>,
    /// Of each instrument, (instruments, `class_size`).
    classes: Tensor,
}

struct Optimisers {
    /// The generator's. In the second stage it starts anew.
    generator: Adam,
    encoders: Adam,
    codes: Adam,
}

impl Codes {
    fn new(recipe: &LordRecipe, clips: usize, vb: &VarBuilder) -> Result<Self> {
        let lord = &recipe.lord;
        let shape = (clips, lord.content_channels, 1, lord.content_frames);
        let is_table = recipe.codes.content == ContentCodes::Table;
        let table = |name: &str, init| vb.get_with_hints(shape, name, init);
        let content = is_table.then(|| table("content", FIRST_CODES));
        let has_variance = is_table && recipe.codes.noise == Noise::Kl;
        let log_variance = has_variance.then(|| table("log_variance", Init::Const(0.0)));
        let classes = (recipe.clips.programs.len(), lord.class_size);
        Ok(Self {
            content: content.transpose()?,
            log_variance: log_variance.transpose()?,
            classes: vb.get_with_hints(classes, "classes", FIRST_CODES)?,
        })
    }
}

impl LordTrainee {
    /// Creates codes and networks of a recipe, at random or as in a checkpoint. At the start of a run, trains the classifier.
    ///
    /// # Errors
    ///
    /// Returns an error if the checkpoint does not match the recipe, or the classifier cannot be trained.
    pub fn new(
        recipe: LordRecipe,
        header: &CheckpointHeader,
        weights: &Weights,
        material: LordMaterial,
        device: Device,
    ) -> Result<Self> {
        let standardised = |set: &ClipSet| -> Result<Tensor> {
            let deviation = recipe.mel_deviation;
            let mels = set
                .log_mels
                .affine(1.0 / deviation, -recipe.mel_mean / deviation)?;
            Ok(mels.to_device(&device)?)
        };
        let mels = Mels {
            training: standardised(&material.training)?,
            validation: standardised(&material.validation)?,
            unseen: standardised(&material.unseen)?,
        };
        let classifier_state = match weights.checkpoint() {
            Some(state) => classifier::state(state),
            None => {
                let lessons = Lessons {
                    set: &material.training,
                    mels: &mels.training,
                    mel: &recipe.mel,
                };
                classifier::train(&recipe.classifier, &lessons, recipe.seed)?
            }
        };
        let classifier = Classifier::restore(
            &recipe.classifier,
            recipe.lord.n_mels,
            recipe.clips.programs.len(),
            &classifier_state,
            &device,
        )?;
        if weights.checkpoint().is_none() {
            describe(&material, &mels, &classifier)?;
        }

        let [generator_parameters, encoder_parameters, code_parameters] =
            [(); 3].map(|()| Parameters::new(recipe.seed));
        let generator_builder = generator_parameters.builder(&device);
        let encoder_builder = encoder_parameters.builder(&device);
        // Amortised from the start, the content encoder is trained as the generator is.
        let content_builder = match recipe.codes.content {
            ContentCodes::Table => &encoder_builder,
            ContentCodes::Encoder => &generator_builder,
        };
        let lord = &recipe.lord;
        let generator = Generator::new(lord, &generator_builder.pp("generator"))?;
        let content_encoder = ContentEncoder::new(lord, &content_builder.pp("content_encoder"))?;
        let class_encoder = ClassEncoder::new(lord, &encoder_builder.pp("class_encoder"))?;
        let code_builder = code_parameters.builder(&device);
        let codes = Codes::new(&recipe, material.training.len(), &code_builder)?;

        let (first, second) = (recipe.stage_1.adam(), recipe.stage_2.adam());
        let first_steps = header.step.min(recipe.stage_1.steps);
        let second_steps = header.step - first_steps;
        let (config, steps) = match second_steps {
            0 => (first, first_steps),
            _ => (second, second_steps),
        };
        let mut optimisers = Optimisers {
            generator: Adam::new(&generator_parameters, config)?,
            encoders: Adam::new(&encoder_parameters, second)?,
            codes: Adam::new(&code_parameters, first)?,
        };
        if let Some(state) = weights.checkpoint() {
            let Optimisers {
                generator,
                encoders,
                codes,
            } = &mut optimisers;
            generator.restore(&export::part(state, GENERATOR), steps)?;
            encoders.restore(&export::part(state, ENCODERS), second_steps)?;
            codes.restore(&export::part(state, CODES), first_steps)?;
        }
        let adversary = (recipe.stage_2.adversary > 0.0).then(|| {
            let config = AdversaryConfig {
                weight: recipe.stage_2.adversary,
                feature_matching: 0.0,
                start_step: recipe.stage_1.steps + recipe.stage_2.adversary_start,
                relative_rate: recipe.stage_2.adversary_rate,
            };
            let channels = recipe.stage_2.adversary_channels;
            let critic = |builder: &VarBuilder| Discriminator::new(channels, builder);
            let state = weights.checkpoint();
            Adversary::new(config, second, recipe.seed, &device, critic, state)
        });
        let confusion = (recipe.stage_2.confusion > 0.0).then(|| {
            let instruments = recipe.clips.programs.len();
            let state = weights.checkpoint();
            Confusion::new(lord, instruments, second, recipe.seed, &device, state)
        });
        Ok(Self {
            adversary: adversary.transpose()?,
            confusion: confusion.transpose()?,
            next_batch: header.step,
            recipe,
            device,
            material,
            mels,
            classifier,
            classifier_state,
            generator,
            content_encoder,
            class_encoder,
            codes,
            generator_parameters,
            encoder_parameters,
            optimisers,
        })
    }

    /// The instruments of some clips.
    fn programs(&self, clips: &[u32]) -> Result<Tensor> {
        let set = &self.material.training;
        let programs = clips
            .iter()
            .map(|clip| set.program_of(*clip as usize) as u32);
        Ok(Tensor::new(programs.collect::<Vec<_>>(), &self.device)?)
    }

    /// Content codes with noise, and what their decay costs.
    fn noisy(&self, content: &Tensor, places: &Tensor, step: u64) -> Result<[Tensor; 2]> {
        let mut random = random(self.recipe.seed ^ 1, step);
        let noise = normal(content.elem_count(), &mut random);
        let noise = Tensor::from_vec(noise, content.shape(), &self.device)?;
        Ok(match &self.codes.log_variance {
            Some(table) => {
                let log_variance = table.index_select(places, 0)?;
                let deviation = (&log_variance * 0.5)?.exp()?;
                let noisy = (content + (noise * deviation)?)?;
                [noisy, loss::divergence(content, &log_variance)?]
            }
            None => [(content + noise)?, loss::decay(content)?],
        })
    }

    fn first_stage(&mut self, step: u64, clips: &[u32]) -> Result<Report> {
        let places = Tensor::new(clips, &self.device)?;
        let target = self.mels.training.index_select(&places, 0)?;
        let classes = self.codes.classes.index_select(&self.programs(clips)?, 0)?;
        let content = match &self.codes.content {
            Some(table) => table.index_select(&places, 0)?,
            None => self.encode_content(&target, step + 1)?,
        };
        let [content, decay] = self.noisy(&content, &places, step)?;
        let generated = self.generator.forward(&content, &classes)?;
        let parts = Reconstruction::of(&self.classifier, &generated, &target)?;
        let decayed = (&decay * self.recipe.codes.decay)?;
        let total = (parts.total(&self.recipe.loss)? + decayed)?;
        let gradients = total.backward()?;
        let mut figures = self.figures(&parts, &[("loss", &total), ("decay", &decay)])?;
        let [generator_rate, code_rate] = self.recipe.stage_1.rates(step);
        let optimisers = &mut self.optimisers;
        let norm = optimisers.generator.step(&gradients, generator_rate)?;
        let code_norm = optimisers.codes.step(&gradients, code_rate)?;
        let line = format!(
            "1: mel {:.3} features {:.3} decay {:.1}",
            number(&figures, "reconstruction"),
            number(&figures, "features"),
            number(&figures, "decay")
        );
        figures["gradient_norm"] = json!(norm);
        figures["code_gradient_norm"] = json!(code_norm);
        figures["learning_rate"] = json!(generator_rate);
        Ok(Report { line, figures })
    }

    /// Content codes of standardised mels, as the encoder gives them after `step` steps.
    fn encode_content(&self, mels: &Tensor, step: u64) -> Result<Tensor> {
        let encoder = &self.content_encoder;
        let confined_after = self.recipe.confined_after();
        Ok(match confined_after.is_some_and(|after| step > after) {
            true => encoder.forward(mels)?,
            false => encoder.forward_whole(mels)?,
        })
    }

    /// Confines the content codes to the directions in which those of the training clips vary most.
    fn confine_codes(&mut self) -> Result<()> {
        let Some(rank) = self.recipe.lord.content_rank else {
            return Ok(());
        };
        let clips: Vec<u32> = (0..self.material.training.len() as u32).collect();
        let codes = self.in_parts(&clips, |places| {
            let mels = self.mels.training.index_select(places, 0)?;
            Ok(self.content_encoder.forward_whole(&mels)?)
        })?;
        let principal = Principal::of(&codes.flatten_from(1)?, rank)?;
        let Optimisers {
            generator,
            encoders,
            ..
        } = &mut self.optimisers;
        // Amortised from the start, the content encoder is trained as the generator is.
        for (parameters, optimiser) in [
            (&self.encoder_parameters, encoders),
            (&self.generator_parameters, generator),
        ] {
            let vars = parameters.vars();
            for (name, tensor) in [("mean", &principal.mean), ("basis", &principal.directions)] {
                if let Some(var) = vars.get(&format!("content_encoder.subspace.{name}")) {
                    var.set(tensor)?;
                }
            }
            optimiser.take_over()?;
        }
        Ok(())
    }

    fn second_stage(&mut self, step: u64, clips: &[u32]) -> Result<Report> {
        let own_step = step - self.recipe.stage_1.steps;
        if own_step == 0 {
            let config = self.recipe.stage_2.adam();
            self.optimisers.generator = Adam::new(&self.generator_parameters, config)?;
        }
        if self.recipe.confined_after() == Some(step) {
            self.confine_codes()?;
        }
        let settings = &self.recipe.stage_2;
        let places = Tensor::new(clips, &self.device)?;
        let target = self.mels.training.index_select(&places, 0)?;
        let content = self.encode_content(&target, step + 1)?;
        let class = self.class_encoder.forward(&target)?;
        let [noisy, decay] = match settings.noise {
            true => self.noisy(&content, &places, step)?,
            false => [content.clone(), loss::decay(&content)?],
        };
        let generated = self.generator.forward(&noisy, &class)?;
        let parts = Reconstruction::of(&self.classifier, &generated, &target)?;

        let rows = |table: &Tensor, places: &Tensor| table.detach().index_select(places, 0);
        let programs = self.programs(clips)?;
        let known = rows(&self.codes.classes, &programs)?;
        let class_distance = loss::mean_square(&class, &known)?;
        let content_distance = match &self.codes.content {
            Some(table) => loss::mean_square(&content, &rows(table, &places)?)?,
            None => class_distance.zeros_like()?,
        };
        let mut total = parts.total(&self.recipe.loss)?;
        total = (total + (&content_distance * settings.content)?)?;
        total = (total + (&class_distance * settings.class)?)?;
        if settings.noise {
            total = (total + (&decay * self.recipe.codes.decay)?)?;
        }
        let mut confusion = self.confusion.as_mut();
        confusion = confusion.filter(|_| own_step >= settings.confusion_start);
        let certainty = match &confusion {
            Some(confusion) => confusion.loss(&content)?,
            None => class_distance.zeros_like()?,
        };
        total = (total + (&certainty * settings.confusion)?)?;
        let plane = |mel: &Tensor| mel.transpose(1, 2)?.contiguous();
        let mut adversary = self.adversary.as_mut().filter(|a| a.takes_part(step));
        let trial = match &mut adversary {
            Some(adversary) => Some(adversary.judge(&plane(&target)?, &plane(&generated)?)?),
            None => None,
        };
        if let Some(trial) = &trial {
            total = (total + &trial.loss)?;
        }
        let gradients = total.backward()?;
        let rate = settings.rate(own_step);
        let norm = self.optimisers.generator.step(&gradients, rate)?;
        self.optimisers.encoders.step(&gradients, rate)?;
        let adversarial = match (adversary, &trial) {
            (Some(adversary), Some(trial)) => Some(adversary.step(trial, rate)?),
            _ => None,
        };
        let missed = match confusion {
            Some(confusion) => {
                let rate = rate * settings.confusion_rate;
                confusion.step(&content, &programs, rate)?
            }
            None => certainty.zeros_like()?,
        };
        let others = [
            ("loss", &total),
            ("decay", &decay),
            ("content", &content_distance),
            ("class", &class_distance),
            ("confusion", &certainty),
            ("confusion_classifier", &missed),
        ];
        let mut figures = self.figures(&parts, &others)?;
        let line = format!(
            "2: mel {:.3} features {:.3} content {:.3} class {:.4} confusion {:.3}",
            number(&figures, "reconstruction"),
            number(&figures, "features"),
            number(&figures, "content"),
            number(&figures, "class"),
            number(&figures, "confusion")
        );
        figures["gradient_norm"] = json!(norm);
        figures["learning_rate"] = json!(rate);
        if let Some(adversarial) = adversarial {
            figures["adversarial"] = json!(adversarial);
        }
        Ok(Report { line, figures })
    }

    /// The figures of a step, with one transfer from the device.
    fn figures(&self, parts: &Reconstruction, others: &[(&str, &Tensor)]) -> Result<Value> {
        let own = [
            ("reconstruction", &parts.mel),
            ("l1", &parts.l1),
            ("features", &parts.features),
            ("frobenius", &parts.frobenius),
        ];
        let all: Vec<_> = own.iter().chain(others).collect();
        let tensors: Vec<&Tensor> = all.iter().map(|(_, tensor)| *tensor).collect();
        let numbers: Vec<f32> = Tensor::stack(&tensors, 0)?.to_vec1()?;
        let named = all.iter().zip(numbers).map(|((name, _), number)| {
            // In nepers, as that of other recipes.
            let scale = if *name == "reconstruction" {
                self.recipe.mel_deviation
            } else {
                1.0
            };
            ((*name).to_owned(), json!(f64::from(number) * scale))
        });
        Ok(json!({ "train": named.collect::<serde_json::Map<_, _>>() }))
    }
}

/// Prints what a recipe may have to be changed for.
fn describe(material: &LordMaterial, mels: &Mels, classifier: &Classifier) -> Result<()> {
    let all = material.training.log_mels.flatten_all()?;
    let mean: f32 = all.mean_all()?.to_scalar()?;
    let variance: f32 = (all - f64::from(mean))?.sqr()?.mean_all()?.to_scalar()?;
    let deviation = variance.sqrt();
    println!("Clips: log-mels of mean {mean:.2} and deviation {deviation:.2} nepers");
    let (set, heard) = (
        &material.validation,
        classifier.instruments(&mels.validation)?,
    );
    let own = (0..set.len()).map(|clip| set.program_of(clip) as u32);
    let hits = heard.iter().zip(own).filter(|(a, b)| *a == b).count();
    let share = 100.0 * hits as f64 / set.len() as f64;
    println!("Classifier: finds {share:.0} % of the instruments of other melodies");
    Ok(())
}

fn number(figures: &Value, name: &str) -> f64 {
    figures["train"][name].as_f64().unwrap_or(f64::NAN)
}

impl Trainee for LordTrainee {
    /// Places of training clips.
    type Batch = Vec<u32>;

    fn next_batch(&mut self) -> Result<Vec<u32>> {
        let index = self.next_batch;
        self.next_batch += 1;
        let (clips, size) = (self.material.training.len(), self.recipe.batch);
        let steps = (clips / size).max(1) as u64;
        let mut order: Vec<u32> = (0..clips as u32).collect();
        order.shuffle(&mut random(self.recipe.seed, index / steps));
        let start = (index % steps) as usize * size;
        Ok((start..start + size)
            .map(|place| order[place % clips])
            .collect())
    }

    fn step(&mut self, header: &CheckpointHeader, batch: Vec<u32>) -> Result<Report> {
        match header.step < self.recipe.stage_1.steps {
            true => self.first_stage(header.step, &batch),
            false => self.second_stage(header.step, &batch),
        }
    }

    fn validate(&mut self, header: &CheckpointHeader) -> Result<Report> {
        self.judge(header.step)
    }

    fn preview(&self, header: &CheckpointHeader, run: &Path) -> Result<()> {
        self.draw(header.step, run)
    }

    fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = self.classifier_state.clone();
        let Optimisers {
            generator,
            encoders,
            codes,
        } = &self.optimisers;
        for (prefix, optimiser) in [(GENERATOR, generator), (ENCODERS, encoders), (CODES, codes)] {
            let own = optimiser.state()?.into_iter();
            state.extend(own.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
        }
        if let Some(adversary) = &self.adversary {
            state.extend(adversary.state()?);
        }
        if let Some(confusion) = &self.confusion {
            state.extend(confusion.state()?);
        }
        Ok(state)
    }

    fn end(&self, header: &CheckpointHeader) -> Option<String> {
        let steps = self.recipe.steps();
        (header.step >= steps).then(|| format!("both stages are done after {steps} steps"))
    }
}
