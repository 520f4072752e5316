//! Training of the HiFi-GAN voice (Kong, Kim and Bae, "HiFi-GAN: Generative Adversarial Networks for Efficient and High
//! Fidelity Speech Synthesis", NeurIPS 2020).

pub mod discriminators;
pub mod preview;
pub mod recipe;
pub mod segments;
pub mod spectra;

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use model_runtime::{Model, Network};
use serde::Serialize;
use serde_json::json;
use vocoder::MelConfig;
use vocoder::generator::Generator;

use super::Weights;
use super::adversary::{Adversary, AdversaryConfig};
use super::batches::{BatchStream, MakeBatch};
use super::checkpoint::Header;
use super::dataset::Partition;
use super::optim::Adam;
use super::parameters::Parameters;
use super::run::{Report, Trainee};
use discriminators::Discriminators;
use preview::VoicePreview;
use recipe::{Segments, VoiceRecipe};
use segments::{SegmentBatch, SegmentSampler};
use spectra::{LogMels, StftLoss};

/// Segments in the validation set, and their length.
const VALIDATION_SEGMENTS: usize = 16;
const VALIDATION_FRAMES: usize = 64;

/// What a voice is trained on.
pub struct VoiceMaterial {
    /// The music.
    pub parts: Partition,
    /// Whose decoded mels the voice hears, instead of those of the music.
    pub decoder: Option<Decoder>,
}

/// A generator in training.
pub struct VoiceTrainee {
    recipe: VoiceRecipe,
    device: Device,
    generator: Generator,
    optimiser: Adam,
    adversary: Option<Adversary<Discriminators>>,
    decoder: Option<Decoder>,
    log_mels: LogMels,
    stft: StftLoss,
    batches: BatchStream<SegmentBatch>,
    validation: Vec<(Tensor, Tensor)>,
    preview: VoicePreview,
}

/// Figures of a step or a validation, weighted by nothing.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    /// Mean absolute difference of log-mels, nepers.
    mel_l1: f32,
    /// Multi-resolution STFT loss.
    stft: f32,
}

impl VoiceTrainee {
    /// The generator of a recipe, from random or given weights, ready for the step after those of `header`.
    ///
    /// # Errors
    ///
    /// When weights or material do not fit the recipe.
    pub fn new(
        recipe: VoiceRecipe,
        header: &Header,
        weights: &Weights,
        material: VoiceMaterial,
        device: Device,
    ) -> Result<Self> {
        let mel = MelConfig::default();
        let parameters = Parameters::new(recipe.segments.seed);
        let config = recipe.generator.clone();
        let generator = Generator::new(config, true, &parameters.builder(&device))?;
        if let Weights::Model(weights) = weights {
            parameters.set(weights)?;
        }
        let mut optimiser = Adam::new(&parameters, recipe.optimiser.adam())?;
        if let Weights::Checkpoint(state) = weights {
            optimiser.restore(state, header.step)?;
        }
        let adversary = adversary(&recipe, weights, &device)?;
        let decoder = material.decoder;

        let context_frames = decoder.as_ref().map_or(0, Decoder::context_frames);
        let parts = &material.parts;
        let settings = Segments {
            gain_nepers: 0.0,
            frames: VALIDATION_FRAMES,
            ..recipe.segments.clone()
        };
        let mut sampler = SegmentSampler::new(&parts.validation, &mel, settings, context_frames)?;
        let count = VALIDATION_SEGMENTS.div_ceil(recipe.segments.batch) as u64;
        let validation = (0..count)
            .map(|index| to_device(sampler.batch(index)?, decoder.as_ref(), &device))
            .collect::<Result<_>>()?;
        let settings = recipe.segments.clone();
        let sampler = SegmentSampler::new(&parts.training, &mel, settings, context_frames)?;
        Ok(Self {
            batches: sampler.stream(header.total_steps()),
            log_mels: LogMels::new(&mel, DType::F32, &device)?,
            stft: StftLoss::new(DType::F32, &device)?,
            preview: VoicePreview::new(&parts.validation)?,
            recipe,
            device,
            generator,
            optimiser,
            adversary,
            decoder,
            validation,
        })
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

impl Trainee for VoiceTrainee {
    type Batch = SegmentBatch;

    fn next_batch(&mut self) -> Result<SegmentBatch> {
        self.batches.next_batch()
    }

    fn step(&mut self, header: &Header, batch: SegmentBatch) -> Result<Report> {
        let (mel, real) = to_device(batch, self.decoder.as_ref(), &self.device)?;
        let generated = self.generator.forward(&mel)?;
        let mel_l1 = self.log_mels.distance(&generated, &real)?;
        let weights = &self.recipe.loss;
        let mut total = (&mel_l1 * weights.mel)?;
        let mut parts = vec![mel_l1];
        if weights.stft > 0.0 {
            let stft = self.stft.distance(&generated, &real)?;
            total = (total + (&stft * weights.stft)?)?;
            parts.push(stft);
        }
        let mut adversary = self.adversary.as_mut();
        adversary = adversary.filter(|adversary| adversary.takes_part(header.step));
        let trial = match &mut adversary {
            Some(adversary) => Some(adversary.judge(&real, &generated)?),
            None => None,
        };
        if let Some(trial) = &trial {
            total = (total + &trial.loss)?;
        }
        let gradients = total.backward()?;
        // Read with the backward pass under way: a GPU is waited for.
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

    fn validate(&self, _: &Header) -> Result<Report> {
        let generator = self.averaged()?;
        let (mut mel_l1, mut stft) = (0.0, 0.0);
        for (mel, real) in &self.validation {
            let generated = generator.forward(mel)?.detach();
            mel_l1 += self
                .log_mels
                .distance(&generated, real)?
                .to_scalar::<f32>()?;
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

    fn preview(&self, header: &Header, run: &Path) -> Result<()> {
        let generator = self.averaged()?;
        let voice = |mel: &Tensor| -> Result<Tensor> {
            let mel = mel.to_device(&self.device)?;
            let mel = match &self.decoder {
                Some(decoder) => decoder.decode(&mel)?,
                None => mel,
            };
            Ok(generator.forward(&mel)?.detach().to_device(&Device::Cpu)?)
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

/// The discriminators of a recipe, if it has any.
fn adversary(
    recipe: &VoiceRecipe,
    weights: &Weights,
    device: &Device,
) -> Result<Option<Adversary<Discriminators>>> {
    let Some(settings) = &recipe.adversarial else {
        return Ok(None);
    };
    let config = AdversaryConfig {
        weight: settings.weight,
        feature_matching: settings.feature_matching,
        start_step: settings.start_step,
        relative_rate: settings.learning_rate / recipe.optimiser.learning_rate,
    };
    let parameters = Parameters::new(recipe.segments.seed);
    let builder = parameters.builder(device);
    let critic = Discriminators::new(&settings.discriminators, &builder)?;
    let optimiser = recipe.optimiser.adam();
    Adversary::new(config, optimiser, critic, &parameters, weights.checkpoint()).map(Some)
}

/// The mel that the generator hears (B, n_mels, frames), and the samples that it should make of it (B, 1, L).
fn to_device(
    batch: SegmentBatch,
    decoder: Option<&Decoder>,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    let size = batch.size;
    let n_mels = MelConfig::default().n_mels;
    let mel = Tensor::from_vec(batch.mel, (size, n_mels, ()), device)?;
    let mel = match decoder {
        Some(decoder) => decoder.decode_middle(&mel)?,
        None => mel,
    };
    Ok((mel, Tensor::from_vec(batch.samples, (size, 1, ()), device)?))
}

/// The network of a model on the training device.
pub struct Decoder(Network);

impl Decoder {
    /// Reads the network of a model file.
    ///
    /// # Errors
    ///
    /// When it is not a model.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let header = Model::load(path)?.header().clone();
        let builder = VarBuilder::from_tensors(
            candle_core::safetensors::load(path, device)?,
            DType::F32,
            device,
        );
        let builder = builder.pp("network");
        let network = Network::new(&header.architecture, &header.mel, false, &builder)?;
        Ok(Self(network))
    }

    /// Frames that must be known on either side of a frame.
    fn context_frames(&self) -> usize {
        self.0.look_ahead_frames()
    }

    /// Log-mels (B, n_mels, T) encoded, and decoded from the means of the latents.
    fn decode(&self, mel: &Tensor) -> Result<Tensor> {
        let latents = self.0.encode(&mel.unsqueeze(1)?)?;
        let decoded = self.0.decode(&latents.harmony.mean, &latents.rhythm.mean)?;
        Ok(decoded.squeeze(1)?.detach())
    }

    /// The same without the context on either side.
    fn decode_middle(&self, mel: &Tensor) -> Result<Tensor> {
        let context = self.context_frames();
        let frames = mel.dim(2)? - 2 * context;
        Ok(self.decode(mel)?.narrow(2, context, frames)?.contiguous()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::optim::AdamConfig;
    use vocoder::MelSpectrogram;
    use vocoder::generator::{GeneratorConfig, ResBlock};

    #[test]
    fn a_generator_learns_one_segment_by_heart() -> Result<()> {
        let device = Device::Cpu;
        let samples: Vec<f32> = (0..16 * 512)
            .map(|n| 0.3 * (n as f32 * 0.06).sin() * (-(n % 4096) as f32 / 1500.0).exp())
            .collect();
        let config = MelConfig::default();
        let mel = MelSpectrogram::new(&config)?.log_mel(&samples);
        let mel = preview::to_tensor(&mel)?;
        let real = Tensor::from_vec(samples, (1, 1, 16 * 512), &device)?;

        let parameters = Parameters::new(1);
        let small = GeneratorConfig {
            upsample_initial_channel: 32,
            resblock: ResBlock::Type2,
            resblock_kernel_sizes: vec![3],
            resblock_dilation_sizes: vec![vec![1, 3]],
            causal: true,
            ..GeneratorConfig::v3()
        };
        let generator = Generator::new(small, true, &parameters.builder(&device))?;
        let config = AdamConfig {
            rectified: false,
            weight_decay: 0.01,
            betas: (0.8, 0.99),
            clip_norm: 1e9,
            average_decay: None,
        };
        let mut optimiser = Adam::new(&parameters, config)?;
        let log_mels = LogMels::new(&MelConfig::default(), DType::F32, &device)?;
        let mut distances = Vec::new();
        for _ in 0..80 {
            let distance = log_mels.distance(&generator.forward(&mel)?, &real)?;
            distances.push(distance.to_scalar::<f32>()?);
            optimiser.step(&(distance * 45.0)?.backward()?, 5e-3)?;
        }
        let (first, last) = (distances[0], distances[distances.len() - 1]);
        assert!(last < 0.4 * first, "{distances:?}");
        Ok(())
    }
}
