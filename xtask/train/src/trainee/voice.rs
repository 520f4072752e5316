//! Training of the HiFi-GAN voice (Kong, Kim and Bae, "HiFi-GAN: Generative Adversarial Networks for Efficient and High
//! Fidelity Speech Synthesis", NeurIPS 2020).

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use model_runtime::tensors::to_tensor;
use serde::Serialize;
use serde_json::json;
use vocoder::LogMel;
use vocoder::generated::whole_template;
use vocoder::generator::{Generator, GeneratorConfig};

use super::{Report, Trainee};
use crate::adversary::Adversary;
use crate::batches::{BatchStream, MakeBatch};
use crate::checkpoint::CheckpointHeader;
use crate::optim::Adam;
use crate::parameters::Parameters;
use crate::recipe::voice::VoiceRecipe;
use crate::voice::discriminators::Discriminators;
use crate::voice::preview::VoicePreview;
use crate::voice::reconstructor::Reconstructor;
use crate::voice::segments::{Heard, SegmentBatch, SegmentSampler, Segments, VoiceMaterial};
use crate::voice::spectra::{LogMels, StftLoss};
use crate::weights::Weights;

/// Segments in the validation set, and their length.
const VALIDATION_SEGMENTS: usize = 16;
const VALIDATION_FRAMES: usize = 64;

/// A generator in training.
pub struct VoiceTrainee {
    recipe: VoiceRecipe,
    device: Device,
    generator: Generator,
    optimiser: Adam,
    adversary: Option<Adversary<Discriminators>>,
    heard: Heard,
    log_mels: LogMels,
    stft: StftLoss,
    batches: BatchStream<SegmentBatch>,
    validation: Vec<Segment>,
    preview: VoicePreview,
}

/// Unweighted losses of a step or a validation.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    /// Mean absolute difference of log-mels, nepers.
    mel_l1: f32,
    /// Multi-resolution STFT loss.
    stft: f32,
}

impl VoiceTrainee {
    /// Creates the generator of a recipe with random or given weights. The next step is the one after `header.step`
    /// steps.
    ///
    /// # Errors
    ///
    /// Returns an error if weights or training data do not match the recipe.
    pub fn new(
        recipe: VoiceRecipe,
        header: &CheckpointHeader,
        weights: &Weights,
        material: VoiceMaterial,
        device: Device,
    ) -> Result<Self> {
        let mel = recipe.mel.clone();
        let parameters = Parameters::new(recipe.segments.seed);
        let config = recipe.generator.clone();
        let generator = Generator::new(config, true, &parameters.builder(&device))?;
        match weights {
            Weights::Model(weights) => parameters.set(weights)?,
            Weights::Random if recipe.generator.template => {
                begin_as_template(&parameters, &recipe.generator)?;
            }
            _ => {}
        }
        let mut optimiser = Adam::new(&parameters, recipe.optimiser.adam())?;
        if let Weights::Checkpoint(state) = weights {
            optimiser.restore(state, header.step)?;
        }
        let adversary = recipe.adversarial.as_ref().map(|settings| {
            Adversary::new(
                settings.config(&recipe.optimiser),
                recipe.optimiser.adam(),
                recipe.segments.seed,
                &device,
                |builder| Discriminators::new(&settings.discriminators, builder),
                weights.checkpoint(),
            )
        });
        let adversary = adversary.transpose()?;
        let heard = heard(&recipe, material.reconstructor);
        let parts = &material.parts;
        let settings = Segments {
            gain_nepers: 0.0,
            decoded_share: 1.0,
            frames: VALIDATION_FRAMES,
            ..recipe.segments.clone()
        };
        let mut sampler = SegmentSampler::new(&parts.validation, &mel, settings, heard.clone())?;
        let count = VALIDATION_SEGMENTS.div_ceil(recipe.segments.batch) as u64;
        let validation = (0..count)
            .map(|index| Segment::new(sampler.batch(index)?, mel.n_mels, &device))
            .collect::<Result<_>>()?;
        let settings = recipe.segments.clone();
        let sampler = SegmentSampler::new(&parts.training, &mel, settings, heard.clone())?;
        Ok(Self {
            batches: sampler.stream(header.total_steps()),
            log_mels: LogMels::new(&mel, DType::F32, &device)?,
            stft: StftLoss::new(DType::F32, &device)?,
            preview: VoicePreview::new(&parts.validation, &mel)?,
            recipe,
            device,
            generator,
            optimiser,
            adversary,
            heard,
            validation,
        })
    }

    /// Frames of the longest crop that is drawn from a track.
    pub fn crop_frames(recipe: &VoiceRecipe, reconstructor: Option<Reconstructor>) -> usize {
        let frames = recipe.segments.frames.max(VALIDATION_FRAMES);
        heard(recipe, reconstructor).crop_frames(frames)
    }

    /// The generator with its averaged weights.
    fn averaged(&self) -> Result<Generator> {
        let averages = self.optimiser.averages()?;
        let builder = VarBuilder::from_tensors(averages, DType::F32, &self.device);
        Ok(Generator::new(
            self.recipe.generator.clone(),
            true,
            &builder,
        )?)
    }
}

fn heard(recipe: &VoiceRecipe, reconstructor: Option<Reconstructor>) -> Heard {
    Heard {
        reconstructor,
        template: recipe.generator.template,
    }
}

impl Trainee for VoiceTrainee {
    type Batch = SegmentBatch;

    fn next_batch(&mut self) -> Result<SegmentBatch> {
        self.batches.next_batch()
    }

    fn step(&mut self, header: &CheckpointHeader, batch: SegmentBatch) -> Result<Report> {
        let segment = Segment::new(batch, self.recipe.mel.n_mels, &self.device)?;
        let real = &segment.real;
        let generated = segment.generated_by(&self.generator)?;
        let mel_l1 = self.log_mels.distance(&generated, real)?;
        let weights = &self.recipe.loss;
        let mut total = (&mel_l1 * weights.mel)?;
        let mut parts = vec![mel_l1];
        if weights.stft > 0.0 {
            let stft = self.stft.distance(&generated, real)?;
            total = (total + (&stft * weights.stft)?)?;
            parts.push(stft);
        }
        let mut adversary = self.adversary.as_mut();
        adversary = adversary.filter(|adversary| adversary.takes_part(header.step));
        let trial = match &mut adversary {
            Some(adversary) => Some(adversary.judge(real, &generated)?),
            None => None,
        };
        if let Some(trial) = &trial {
            total = (total + &trial.loss)?;
        }
        let gradients = total.backward()?;
        // Read the losses after the backward pass has been queued, because reading waits for the GPU.
        let parts: Vec<f32> = Tensor::stack(&parts, 0)?.to_vec1()?;
        let figures = Figures {
            mel_l1: parts[0],
            stft: parts.get(1).copied().unwrap_or(0.0),
        };
        let learning_rate = self.recipe.optimiser.learning_rate(header.step);
        let norm = self.optimiser.step(&gradients, learning_rate)?;
        drop(gradients);
        let mut line = format!("mel {:.3} STFT {:.3}", figures.mel_l1, figures.stft);
        let mut report = json!({
            "train": figures, "gradient_norm": norm, "learning_rate": learning_rate,
        });
        if let (Some(adversary), Some(trial)) = (adversary, &trial) {
            let figures = adversary.step(trial, learning_rate)?;
            line += &format!(
                " adversarial {:.2} features {:.2} discriminator {:.2}",
                figures.generator, figures.feature_matching, figures.discriminator
            );
            report["adversarial"] = json!(figures);
        }
        Ok(Report {
            line,
            figures: report,
        })
    }

    fn validate(&mut self, _: &CheckpointHeader) -> Result<Report> {
        let generator = self.averaged()?;
        let (mut mel_l1, mut stft) = (0.0, 0.0);
        for segment in &self.validation {
            let generated = segment.generated_by(&generator)?.detach();
            let real = &segment.real;
            let distance = self.log_mels.distance(&generated, real)?;
            mel_l1 += distance.to_scalar::<f32>()?;
            stft += self.stft.distance(&generated, real)?.to_scalar::<f32>()?;
        }
        let batches = self.validation.len() as f32;
        let figures = Figures {
            mel_l1: mel_l1 / batches,
            stft: stft / batches,
        };
        Ok(Report {
            line: format!(
                "mel L1 {:.3}, STFT distance {:.3}",
                figures.mel_l1, figures.stft
            ),
            figures: json!({ "validation": figures }),
        })
    }

    fn preview(&self, header: &CheckpointHeader, run: &Path) -> Result<()> {
        let generator = self.averaged()?;
        let config = &self.recipe.mel;
        let voice = |mel: &LogMel| -> Result<Vec<f32>> {
            let mel = self.heard.whole(mel)?;
            let template = if self.heard.template {
                let samples = whole_template(&mut self.heard.template_stream(config)?, &mel)?;
                Some(Tensor::from_vec(samples, (1, 1, ()), &self.device)?)
            } else {
                None
            };
            let mel = to_tensor(&[mel])?.squeeze(1)?.to_device(&self.device)?;
            let made = generator.forward(&mel, template.as_ref())?;
            Ok(made.flatten_all()?.to_vec1()?)
        };
        self.preview.write(run, header.step, voice)
    }

    fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = self.optimiser.state()?;
        if let Some(adversary) = &self.adversary {
            state.extend(adversary.state()?);
        }
        Ok(state)
    }
}

/// Initialises a generator so that it returns its template unchanged. With random output weights, it would first have
/// to unlearn what it adds. Also scales the weights of the transposed convolutions: the usual initialisation
/// attenuates the signal by `sqrt(3 * rate)` in each. After four of them almost only biases remain, and nothing is
/// learnt for a thousand steps.
fn begin_as_template(parameters: &Parameters, config: &GeneratorConfig) -> Result<()> {
    for (name, var) in parameters.vars() {
        let rate = name.strip_prefix("ups.").and_then(|name| {
            let (stage, _) = name.split_once(".weight_g")?;
            config.upsample_rates.get(stage.parse::<usize>().ok()?)
        });
        let gain = match rate {
            Some(&rate) => (3.0 * rate as f64).sqrt(),
            None if name.starts_with("conv_post.") => 0.0,
            None => continue,
        };
        var.set(&(var.as_tensor() * gain)?)?;
    }
    Ok(())
}

/// A batch of segments on the training device.
struct Segment {
    /// Inputs of the generator: mel (B, n_mels, frames) and template (B, 1, L).
    mel: Tensor,
    template: Option<Tensor>,
    /// Target samples (B, 1, L).
    real: Tensor,
}

impl Segment {
    fn new(batch: SegmentBatch, n_mels: usize, device: &Device) -> Result<Self> {
        let size = batch.size;
        let samples = |samples| Tensor::from_vec(samples, (size, 1, ()), device);
        Ok(Self {
            mel: Tensor::from_vec(batch.mel, (size, n_mels, ()), device)?,
            template: batch.template.map(samples).transpose()?,
            real: samples(batch.samples)?,
        })
    }

    fn generated_by(&self, generator: &Generator) -> candle_core::Result<Tensor> {
        generator.forward(&self.mel, self.template.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::AdamConfig;
    use vocoder::MelConfig;
    use vocoder::MelSpectrogram;
    use vocoder::generator::ResBlock;

    #[test]
    fn a_generator_learns_one_segment_by_heart() -> Result<()> {
        let device = Device::Cpu;
        let samples: Vec<f32> = (0..16 * 512)
            .map(|n| 0.3 * (n as f32 * 0.06).sin() * (-(n % 4096) as f32 / 1500.0).exp())
            .collect();
        let config = MelConfig::default();
        let mel = MelSpectrogram::new(&config)?.log_mel(&samples);
        let mel = to_tensor(&[mel])?.squeeze(1)?;
        let real = Tensor::from_vec(samples, (1, 1, 16 * 512), &device)?;
        // A template that is correct except for its level.
        let template = (&real * 0.3)?;
        let log_mels = LogMels::new(&MelConfig::default(), DType::F32, &device)?;

        for has_template in [false, true] {
            let small = GeneratorConfig {
                upsample_initial_channel: 32,
                resblock: ResBlock::Type2,
                resblock_kernel_sizes: vec![3],
                resblock_dilation_sizes: vec![vec![1, 3]],
                causal: true,
                template: has_template,
                ..GeneratorConfig::v3()
            };
            let template = has_template.then_some(&template);
            let parameters = Parameters::new(1);
            let generator = Generator::new(small.clone(), true, &parameters.builder(&device))?;
            if has_template {
                begin_as_template(&parameters, &small)?;
            }
            let config = AdamConfig {
                rectified: false,
                weight_decay: 0.01,
                betas: (0.8, 0.99),
                clip_norm: 1e9,
                amsgrad: false,
                average_decay: None,
            };
            let mut optimiser = Adam::new(&parameters, config)?;
            let mut distances = Vec::new();
            for _ in 0..80 {
                let distance = log_mels.distance(&generator.forward(&mel, template)?, &real)?;
                distances.push(distance.to_scalar::<f32>()?);
                optimiser.step(&(distance * 45.0)?.backward()?, 5e-3)?;
            }
            let (first, last) = (distances[0], distances[distances.len() - 1]);
            assert!(
                last < 0.5 * first,
                "template: {has_template}, {distances:?}"
            );
            if let Some(template) = template {
                let untrained = log_mels.distance(template, &real)?.to_scalar::<f32>()?;
                assert!((first - untrained).abs() < 1e-3, "{first}, {untrained}");
            }
        }
        Ok(())
    }
}
