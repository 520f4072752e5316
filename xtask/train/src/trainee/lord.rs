//! Training of content and instrument codes, their generator and their encoders ([`crate::lord`]).

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
use crate::lord::conversions::{Figures, Pairs};
use crate::lord::export;
use crate::lord::loss::{self, Reconstruction};
use crate::lord::material::{ClipSet, LordMaterial};
use crate::lord::pictures::{self, Row};
use crate::lord::probe::{self, Labelled};
use crate::noise::normal;
use crate::optim::Adam;
use crate::parameters::Parameters;
use crate::preview;
use crate::recipe::lord::{ContentCodes, LordRecipe, Noise};
use crate::weights::Weights;

/// Bounds of the codes at the start.
const FIRST_CODES: Init = Init::Uniform {
    lo: -0.05,
    up: 0.05,
};

/// Pairs of clips in a validation.
const VALIDATION_PAIRS: usize = 128;

/// Most codes that a probe is fitted to, and tested with.
const PROBE_CODES: usize = 1024;

/// Instruments, and clips, in a preview.
const PREVIEW_INSTRUMENTS: usize = 4;

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

/// Clips for a figure, and where their content codes come from.
struct Judged<'a> {
    set: &'a ClipSet,
    mels: &'a Tensor,
    content: Content<'a>,
}

#[derive(Clone, Copy)]
enum Content<'a> {
    Table(&'a Tensor),
    Encoder,
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
            None => self.content_encoder.forward(&target)?,
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

    fn second_stage(&mut self, step: u64, clips: &[u32]) -> Result<Report> {
        let own_step = step - self.recipe.stage_1.steps;
        if own_step == 0 {
            let config = self.recipe.stage_2.adam();
            self.optimisers.generator = Adam::new(&self.generator_parameters, config)?;
        }
        let settings = &self.recipe.stage_2;
        let places = Tensor::new(clips, &self.device)?;
        let target = self.mels.training.index_select(&places, 0)?;
        let content = self.content_encoder.forward(&target)?;
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

    /// Whether the encoders give the content codes after `step` steps.
    fn encodes(&self, step: u64) -> bool {
        step > self.recipe.stage_1.steps || self.codes.content.is_none()
    }

    /// Content codes of some clips, without gradients.
    fn content(&self, judged: &Judged, clips: &[u32]) -> Result<Tensor> {
        self.in_parts(clips, |places| match judged.content {
            Content::Table(table) => Ok(table.index_select(places, 0)?),
            Content::Encoder => {
                let mels = judged.mels.index_select(places, 0)?;
                Ok(self.content_encoder.forward(&mels)?)
            }
        })
    }

    /// Runs `work` on as many clips at a time as a step has, and joins the results, detached.
    fn in_parts(&self, clips: &[u32], work: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let parts = clips.chunks(self.recipe.batch).map(|clips| {
            let places = Tensor::new(clips, &self.device)?;
            Ok(work(&places)?.detach())
        });
        Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// Generates clips from content codes with the codes of instruments.
    fn generate(&self, content: &Tensor, instruments: &[u32]) -> Result<Tensor> {
        let instruments = Tensor::new(instruments, &self.device)?;
        let rows: Vec<u32> = (0..content.dim(0)? as u32).collect();
        self.in_parts(&rows, |rows| {
            let classes = instruments.index_select(rows, 0)?;
            let classes = self.codes.classes.index_select(&classes, 0)?;
            Ok(self
                .generator
                .forward(&content.index_select(rows, 0)?, &classes)?)
        })
    }

    /// Translates the sources of `pairs` to their instruments.
    fn translate(&self, judged: &Judged, truths: &Tensor, pairs: &Pairs) -> Result<Figures> {
        let content = self.content(judged, &pairs.sources)?;
        let translated = self.generate(&content, &pairs.instruments)?;
        let rows = |mels: &Tensor, clips: &[u32]| -> Result<Tensor> {
            Ok(mels.index_select(&Tensor::new(clips, &self.device)?, 0)?)
        };
        let before = rows(judged.mels, &pairs.sources)?;
        let truths = rows(truths, &pairs.truths)?;
        Figures::of(
            &translated,
            [&before, &truths],
            pairs,
            &self.classifier,
            self.recipe.mel_deviation,
        )
    }

    /// Mean absolute difference of the clips and what is generated from their own codes, in nepers.
    fn reconstruction(&self, judged: &Judged, clips: &[u32]) -> Result<f64> {
        let content = self.content(judged, clips)?;
        let own = clips
            .iter()
            .map(|clip| judged.set.program_of(*clip as usize) as u32);
        let generated = self.generate(&content, &own.collect::<Vec<_>>())?;
        let target = judged
            .mels
            .index_select(&Tensor::new(clips, &self.device)?, 0)?;
        let mean: f32 = (generated - target)?.abs()?.mean_all()?.to_scalar()?;
        Ok(f64::from(mean) * self.recipe.mel_deviation)
    }

    /// Codes of the clips of some melodies, for a probe.
    fn labelled(&self, judged: &Judged, melodies: impl Iterator<Item = usize>) -> Result<Labelled> {
        let set = judged.set;
        let clips = melodies.flat_map(|melody| (0..set.programs.len()).map(move |p| (melody, p)));
        let clips = clips.map(|(melody, program)| set.clip(melody, program) as u32);
        let clips: Vec<u32> = clips.take(PROBE_CODES).collect();
        let programs = clips.iter().map(|clip| set.program_of(*clip as usize));
        Ok(Labelled {
            rows: self.content(judged, &clips)?.flatten_from(1)?.to_vec2()?,
            classes: programs.collect(),
        })
    }

    fn judged<'a>(&'a self, step: u64) -> [Judged<'a>; 2] {
        let (material, mels) = (&self.material, &self.mels);
        let content = match &self.codes.content {
            Some(table) if !self.encodes(step) => Content::Table(table),
            _ => Content::Encoder,
        };
        let training = Judged {
            set: &material.training,
            mels: &mels.training,
            content,
        };
        let test = match content {
            // There are no codes of other clips yet.
            Content::Table(_) => Judged { ..training },
            Content::Encoder => Judged {
                set: &material.validation,
                mels: &mels.validation,
                content,
            },
        };
        [training, test]
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
        let [training, test] = self.judged(header.step);
        let seed = self.recipe.seed;
        let pairs = Pairs::draw(test.set, test.set, VALIDATION_PAIRS, seed);
        let mel_l1 = self.reconstruction(&test, &pairs.sources)?;
        let converted = self.translate(&test, test.mels, &pairs)?;
        let melodies = training.set.melodies.len();
        let (fitted, tested) = match test.content {
            // Melodies apart, of the same table.
            Content::Table(_) => (
                self.labelled(&training, (0..melodies).step_by(2))?,
                self.labelled(&training, (1..melodies).step_by(2))?,
            ),
            Content::Encoder => (
                self.labelled(&training, 0..melodies)?,
                self.labelled(&test, 0..test.set.melodies.len())?,
            ),
        };
        let classes = training.set.programs.len();
        let code_probe = probe::accuracy(&fitted, &tested, classes)?;
        let frames = self.recipe.lord.content_frames;
        let pooled_probe =
            probe::accuracy(&fitted.pooled(frames), &tested.pooled(frames), classes)?;
        let mut figures = json!({
            "mel_l1": mel_l1, "converted": converted.to_json(), "probe": code_probe, "pooled_probe": pooled_probe,
            "chance": 1.0 / classes as f64,
        });
        let mut line = format!(
            "mel L1 {mel_l1:.3}; converted {}; probe {code_probe:.3} pooled {pooled_probe:.3} chance {:.3}",
            converted.line(),
            1.0 / classes as f64
        );
        if let Content::Encoder = test.content {
            let unseen = Judged {
                set: &self.material.unseen,
                mels: &self.mels.unseen,
                content: Content::Encoder,
            };
            let pairs = Pairs::draw(unseen.set, test.set, VALIDATION_PAIRS, seed);
            let converted = self.translate(&unseen, test.mels, &pairs)?;
            line += &format!("; from unseen {}", converted.line());
            figures["converted_from_unseen"] = converted.to_json();
        }
        Ok(Report {
            line,
            figures: json!({ "validation": figures }),
        })
    }

    fn preview(&self, header: &CheckpointHeader, run: &Path) -> Result<()> {
        let path = preview::folder(run)?.join(format!("step-{:06}.png", header.step));
        let [_, test] = self.judged(header.step);
        let count = PREVIEW_INSTRUMENTS.min(test.set.programs.len());
        // From all over the list.
        let all: Vec<u32> = (0..count)
            .map(|n| (n * test.set.programs.len() / count) as u32)
            .collect();
        let melodies = test.set.melodies.len();
        let clips = all.iter().enumerate();
        let clips = clips.map(|(n, program)| test.set.clip(n % melodies, *program as usize) as u32);
        let clips: Vec<u32> = clips.collect();
        let content = self.content(&test, &clips)?;
        let name = |program: u32| test.set.programs[program as usize].name;
        let log_mel = |mels: &Tensor, place: usize| -> Result<Tensor> {
            let mel = mels.get(place)?.squeeze(1)?.to_device(&Device::Cpu)?;
            Ok(mel.affine(self.recipe.mel_deviation, self.recipe.mel_mean)?)
        };
        let mut rows = Vec::new();
        for (n, (program, clip)) in all.iter().zip(&clips).enumerate() {
            let content = content.narrow(0, n, 1)?;
            let translations = all.iter().map(|target| {
                let translated = self.generate(&content, &[*target])?;
                Ok((name(*target), log_mel(&translated, 0)?))
            });
            rows.push(Row {
                source: name(*program),
                log_mel: log_mel(test.mels, *clip as usize)?,
                translations: translations.collect::<Result<_>>()?,
            });
        }
        pictures::draw(&path, &rows, &self.recipe.mel)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint;
    use crate::lord::export::model_bytes;
    use crate::notes::programs::PROGRAMS;
    use crate::phrases::melody::Note;
    use crate::recipe::Recipe;
    use graft_material::testing::TestFolder;
    use model_runtime::lord::LordModel;
    use model_runtime::model_file::Card;
    use vocoder::conv::as_on_a_gpu;

    /// Its adversary begins in the second stage, which has 4 steps after 3.
    const RECIPE: &str = r#"
        name = "tiny"
        seed = 1
        batch = 4
        mel_mean = -6.0
        mel_deviation = 2.0
        [lord]
        n_mels = 64
        frames = 64
        content_channels = 3
        content_frames = 8
        class_size = 4
        channels = 6
        kernel = 3
        ups = [2, 4]
        dense_blocks = 1
        [lord.content_encoder]
        bank = 2
        bank_channels = 2
        channels = 5
        kernel = 3
        strides = [4, 2]
        [lord.class_encoder]
        bank = 2
        bank_channels = 2
        channels = 4
        kernel = 3
        strides = [4]
        [mel]
        sample_rate_hz = 22050
        n_fft = 2048
        hop_length = 512
        n_mels = 64
        f_min_hz = 0.0
        f_max_hz = 11025.0
        [clips]
        seed = 1
        programs = [0, 40]
        held_out_programs = [73]
        melodies = 3
        validation_melodies = 2
        keys = [60, 72]
        held_out_keys = []
        chord_share = 0.0
        [codes]
        content = "table"
        noise = "fixed"
        decay = 1e-3
        [classifier]
        channels = 2
        steps = 2
        batch = 4
        learning_rate = 1e-2
        [loss]
        l1 = 1.0
        features = 1.0
        frobenius = 0.1
        [stage_1]
        steps = 3
        generator_rate = 1e-2
        code_rate = 1e-1
        rate_floor = 1e-4
        betas = [0.5, 0.999]
        [stage_2]
        steps = 4
        rate = 1e-2
        rate_floor = 1e-4
        betas = [0.9, 0.999]
        content = 1.0
        class = 1.0
        adversary = 0.1
        adversary_channels = 1
        adversary_start = 1
        adversary_rate = 1.0
        confusion = 0.5
        confusion_start = 1
        confusion_rate = 2.0
        noise = false
        [intervals]
        checkpoint_steps = 5
        validation_steps = 10
    "#;

    /// Two colours of a band that moves with the melody.
    fn set(programs: &[usize], melodies: usize) -> ClipSet {
        let mut values = Vec::new();
        for melody in 0..melodies {
            for program in programs {
                for band in 0..64 {
                    values.extend((0..64).map(|frame| {
                        let partial = (frame / 8 * (melody + 2) + 5) % 12 + 4;
                        let colour = 1.0 + *program as f32 / 40.0;
                        let level = -2.0 - colour * band as f32 / 10.0;
                        if band % partial < 2 { level } else { -9.0 }
                    }));
                }
            }
        }
        let note = Note {
            start_s: 0.1,
            end_s: 0.9,
            key: 60,
            velocity: 90,
        };
        let shape = (melodies * programs.len(), 64, 1, 64);
        ClipSet {
            programs: programs.iter().map(|number| &PROGRAMS[*number]).collect(),
            melodies: vec![vec![note]; melodies],
            log_mels: Tensor::from_vec(values, shape, &Device::Cpu).unwrap(),
        }
    }

    fn trainee(recipe: &str, step: u64, weights: &Weights) -> (LordTrainee, CheckpointHeader) {
        let recipe = Recipe::parse(recipe).unwrap();
        let mut header = CheckpointHeader::new(recipe.clone(), None);
        header.step = step;
        let Recipe::Lord(recipe) = recipe else {
            panic!("expected a recipe for clips");
        };
        let material = LordMaterial {
            training: set(&[0, 40], 3),
            validation: set(&[0, 40], 2),
            unseen: set(&[73], 2),
        };
        let trainee = LordTrainee::new(*recipe, &header, weights, material, Device::Cpu);
        (trainee.unwrap(), header)
    }

    /// The losses of some steps.
    fn train((trainee, header): &mut (LordTrainee, CheckpointHeader), steps: u64) -> Vec<f64> {
        (0..steps)
            .map(|_| {
                let batch = trainee.next_batch().unwrap();
                let report = trainee.step(header, batch).unwrap();
                header.step += 1;
                report.figures["train"]["loss"].as_f64().unwrap()
            })
            .collect()
    }

    /// The recipes of all ablations.
    fn recipes() -> [String; 6] {
        let [content, noise, decay] = ["content = \"table\"", "noise = \"fixed\"", "decay = 1e-3"];
        [
            RECIPE.replace("noise = false", "noise = true"),
            RECIPE.replace("confusion = 0.5", "confusion = 0.0"),
            RECIPE.to_owned(),
            RECIPE.replace(content, "content = \"encoder\""),
            RECIPE.replace(noise, "noise = \"kl\""),
            RECIPE.replace(decay, "decay = 0.0"),
        ]
    }

    #[test]
    fn a_resumed_run_goes_on_as_if_it_had_not_stopped_in_either_stage() {
        let mut losses = Vec::new();
        for recipe in recipes() {
            let whole = train(&mut trainee(&recipe, 0, &Weights::Random), 7);
            for stop in [2, 3, 4, 6] {
                let mut first = trainee(&recipe, 0, &Weights::Random);
                let begun = train(&mut first, stop);
                // Through a file, as in a run.
                let folder = TestFolder::new("lord-resume");
                checkpoint::save(folder.path(), &first.1, &first.0.state().unwrap()).unwrap();
                let (header, state) = checkpoint::load(folder.path()).unwrap();
                assert_eq!(header.step, stop);
                let resumed = &mut trainee(&recipe, stop, &Weights::Checkpoint(state));
                assert_eq!([begun, train(resumed, 7 - stop)].concat(), whole, "{stop}");
            }
            losses.push(whole);
        }
        // Each ablation is one.
        for (n, own) in losses.iter().enumerate() {
            assert!(losses[..n].iter().all(|other| other != own), "{n}");
        }
    }

    #[test]
    fn steps_with_the_operations_of_a_gpu_are_those_of_the_cpu() {
        let found = as_on_a_gpu(|| train(&mut trainee(RECIPE, 0, &Weights::Random), 6));
        let expected = train(&mut trainee(RECIPE, 0, &Weights::Random), 6);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
        }
    }

    #[test]
    fn both_stages_learn_and_end() {
        let recipe = RECIPE
            .replace("steps = 3", "steps = 150")
            .replace("steps = 4", "steps = 150")
            .replace("decay = 1e-3", "decay = 1e-4");
        let mut run = trainee(&recipe, 0, &Weights::Random);
        let l1 = |run: &mut (LordTrainee, CheckpointHeader)| {
            let figures = run.0.validate(&run.1).unwrap().figures;
            figures["validation"]["mel_l1"].as_f64().unwrap()
        };
        let first = l1(&mut run);
        train(&mut run, 150);
        let second = l1(&mut run);
        assert!(second < 0.5 * first, "{first} {second}");
        assert!(run.0.end(&run.1).is_none());
        let losses = train(&mut run, 150);
        let sum = |losses: &[f64]| losses.iter().sum::<f64>();
        let (begun, done) = (sum(&losses[..10]), sum(&losses[140..]));
        assert!(done < 0.7 * begun, "{begun} {done}");
        assert!(run.0.end(&run.1).is_some());
        let third = run.0.validate(&run.1).unwrap().figures;
        assert!(third["validation"]["converted_from_unseen"]["mel_l1"].is_number());
    }

    #[test]
    fn an_exported_model_translates_as_the_run_does() {
        let mut run = trainee(RECIPE, 0, &Weights::Random);
        train(&mut run, 3);
        let bytes = |run: &(LordTrainee, CheckpointHeader)| {
            let state = run.0.state().unwrap();
            model_bytes(&run.0.recipe, run.1.step, &state, Card::default())
        };
        let error = bytes(&run).unwrap_err().to_string();
        assert!(
            error.contains("expected more than 3 steps, found 3"),
            "{error}"
        );
        train(&mut run, 2);
        let model = LordModel::from_bytes(&bytes(&run).unwrap()).unwrap();
        assert_eq!(model.instruments(), ["Acoustic Grand Piano", "Violin"]);

        let trainee = &run.0;
        let [_, test] = trainee.judged(run.1.step);
        let content = trainee.content(&test, &[2]).unwrap();
        let mel = trainee
            .generate(&content, &[1])
            .unwrap()
            .squeeze(2)
            .unwrap();
        let expected = mel.affine(2.0, -6.0).unwrap();
        let log_mel = test
            .set
            .log_mels
            .narrow(0, 2, 1)
            .unwrap()
            .squeeze(2)
            .unwrap();
        let content = model.encode_content(&log_mel).unwrap();
        let found = model
            .generate(&content, &model.class_of(1).unwrap())
            .unwrap();
        let values = |mel: &Tensor| mel.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (found, expected) in values(&found).iter().zip(values(&expected)) {
            // 16-bit weights.
            assert!((found - expected).abs() < 0.05, "{found}, {expected}");
        }
    }

    #[test]
    fn each_epoch_has_every_clip_once() {
        let recipe = RECIPE.replace("batch = 4", "batch = 3");
        let (mut trainee, _) = trainee(&recipe, 0, &Weights::Random);
        let mut epoch = || -> Vec<u32> {
            let batches = (0..2).flat_map(|_| trainee.next_batch().unwrap());
            batches.collect()
        };
        let (first, second) = (epoch(), epoch());
        assert_ne!(first, second);
        for mut epoch in [first, second] {
            epoch.sort_unstable();
            assert_eq!(epoch, [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn a_preview_shows_translations_in_either_stage() {
        let folder = TestFolder::new("lord-preview");
        for step in [0, 4] {
            let (trainee, header) = trainee(RECIPE, step, &state_after(step));
            trainee.preview(&header, folder.path()).unwrap();
            let name = format!("previews/step-{step:06}.png");
            assert!(folder.path().join(name).exists());
        }
    }

    fn state_after(step: u64) -> Weights {
        let mut run = trainee(RECIPE, 0, &Weights::Random);
        train(&mut run, step);
        Weights::Checkpoint(run.0.state().unwrap())
    }
}
