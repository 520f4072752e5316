//! The loss of one step, and the figures that tell early whether a run is worth its hours.

use anyhow::Result;
use candle_core::{Device, Tensor};
use model_runtime::Network;
use model_runtime::latent::Latent;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::sampler::Batch;

/// Distance between decoded and true log-mel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reconstruction {
    /// Mean absolute difference, as the paper has it.
    L1,
    /// Huber with a threshold of one neper, as the paper's public code has it.
    Huber,
}

/// Weights of the losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Kind of the reconstruction loss; its weight is one.
    pub reconstruction: Reconstruction,
    /// Weight of the harmony latent's divergence from the standard normal, per element.
    pub kl_harmony: f64,
    /// The same for the rhythm latent.
    pub kl_rhythm: f64,
    /// Weight of the cycle consistency: the harmony of one crop and the rhythm of the next are decoded together, and
    /// the latents of the result should be those that went in. Squared distance over the latents' variance.
    #[serde(default)]
    pub cycle: f64,
}

/// A batch on the device: log-mels (B, 1, n_mels, T).
pub struct Views {
    /// The crops as they are.
    pub target: Tensor,
    harmony: Tensor,
    rhythm: Tensor,
    harmony_shift: Vec<i32>,
}

impl Views {
    /// Copies a batch to the device.
    pub fn new(batch: Batch, device: &Device) -> Result<Self> {
        let n_mels = batch.target.len() / (batch.size * batch.frames);
        let shape = (batch.size, 1, n_mels, batch.frames);
        let same = batch.harmony_view == batch.rhythm_view;
        let harmony = Tensor::from_vec(batch.harmony_view, shape, device)?;
        let rhythm = match same {
            true => harmony.clone(),
            false => Tensor::from_vec(batch.rhythm_view, shape, device)?,
        };
        Ok(Self {
            target: Tensor::from_vec(batch.target, shape, device)?,
            harmony,
            rhythm,
            harmony_shift: batch.harmony_shift,
        })
    }

    fn back(&self) -> Vec<i32> {
        self.harmony_shift.iter().map(|n| -n).collect()
    }
}

/// The parts of a training loss.
pub struct StepLoss {
    /// What is minimised.
    pub total: Tensor,
    /// The decoded log-mel (B, 1, n_mels, T).
    pub decoded: Tensor,
    reconstruction: Tensor,
    kl_harmony: Tensor,
    kl_rhythm: Tensor,
    /// Of harmony and rhythm, if it is minimised.
    cycle: Option<[Tensor; 2]>,
}

impl StepLoss {
    /// Reads its parts, weighted by nothing. Best when the backward pass is under way: a GPU is waited for.
    pub fn figures(&self) -> Result<StepFigures> {
        let parts = [&self.reconstruction, &self.kl_harmony, &self.kl_rhythm];
        let parts: Vec<&Tensor> = parts
            .into_iter()
            .chain(self.cycle.iter().flatten())
            .collect();
        let parts = Tensor::stack(&parts, 0)?.to_vec1()?;
        let part = |i: usize| parts.get(i).copied().unwrap_or(0.0);
        Ok(StepFigures {
            reconstruction: part(0),
            kl_harmony: part(1),
            kl_rhythm: part(2),
            cycle_harmony: part(3),
            cycle_rhythm: part(4),
        })
    }
}

/// Figures of one training step.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepFigures {
    /// Reconstruction loss.
    pub reconstruction: f32,
    /// Divergence of the harmony latent, nats an element.
    pub kl_harmony: f32,
    /// Divergence of the rhythm latent, nats an element.
    pub kl_rhythm: f32,
    /// Squared distance of a swap's harmony latent to the one that went in, over its variance; 0 if not minimised.
    pub cycle_harmony: f32,
    /// The same for the rhythm latent.
    pub cycle_rhythm: f32,
}

/// The network that a step trains.
pub struct Networks<'a> {
    /// With the trained weights.
    pub trained: &'a Network,
    /// The same weights out of the gradients' reach, to judge swaps by: the encoder must not learn to find its own
    /// latents in a poor remix. Needed if there is a weight on the cycle consistency.
    pub frozen: Option<&'a Network>,
}

/// Encodes the shifted views, draws both latents, rotates the harmony back, decodes, and compares with the unshifted
/// mel. The draw depends on `seed` alone.
pub fn step_loss(
    networks: &Networks,
    views: &Views,
    weights: &Loss,
    seed: u64,
) -> Result<StepLoss> {
    let network = networks.trained;
    let mut rng = StdRng::seed_from_u64(seed);
    let (harmony, rhythm) = network.encode_views(&views.harmony, &views.rhythm)?;
    let drawn_harmony = network.rotate(&draw(&harmony, &mut rng)?, &views.back())?;
    let decoded = network.decode(&drawn_harmony, &draw(&rhythm, &mut rng)?)?;
    let reconstruction = match weights.reconstruction {
        Reconstruction::L1 => (&decoded - &views.target)?.abs()?.mean_all()?,
        Reconstruction::Huber => candle_nn::loss::huber(&decoded, &views.target, 1.0)?,
    };
    let (kl_harmony, kl_rhythm) = (harmony.kl()?, rhythm.kl()?);
    let mut total = ((&reconstruction + (&kl_harmony * weights.kl_harmony)?)?
        + (&kl_rhythm * weights.kl_rhythm)?)?;
    let mut cycle = None;
    if let Some(frozen) = networks.frozen {
        let harmony = network.rotate(&harmony.mean, &views.back())?.detach();
        let rhythm = next_in_batch(&rhythm.mean.detach())?;
        let swap = frozen.encode(&network.decode(&harmony, &rhythm)?)?;
        let drifts = [
            drift(&swap.harmony.mean, &harmony)?,
            drift(&swap.rhythm.mean, &rhythm)?,
        ];
        total = (total + ((&drifts[0] + &drifts[1])? * weights.cycle)?)?;
        cycle = Some(drifts);
    }
    Ok(StepLoss {
        total,
        decoded,
        reconstruction,
        kl_harmony,
        kl_rhythm,
        cycle,
    })
}

/// Each batch element in the place of the one before it.
fn next_in_batch(x: &Tensor) -> Result<Tensor> {
    let batch = x.dim(0)?;
    let rest = x.narrow(0, 1, batch - 1)?;
    Ok(Tensor::cat(&[&rest, &x.narrow(0, 0, 1)?], 0)?)
}

/// A draw from a latent with normal noise by Box and Muller.
fn draw(latent: &Latent, rng: &mut StdRng) -> Result<Tensor> {
    let count = latent.mean.elem_count();
    let mut noise = Vec::with_capacity(count + 1);
    while noise.len() < count {
        let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * rng.random::<f32>()).sin_cos();
        noise.extend([radius * cos, radius * sin]);
    }
    noise.truncate(count);
    let noise = Tensor::from_vec(noise, latent.mean.shape(), latent.mean.device())?;
    Ok(latent.sample(&noise)?)
}

/// Figures on crops that are never trained on, from the latents' means.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Validation {
    /// Mean absolute difference of the reconstruction's log-mel, nepers.
    pub mel_l1: f32,
    /// The same with the harmony latent set to zero: how much the decoder listens to it.
    pub mel_l1_without_harmony: f32,
    /// Squared distance of the shifted clip's harmony latent, rotated back, to the clip's own, over its variance.
    pub harmony_drift_rotated: f32,
    /// The same, not rotated back: above the rotated one if the latent follows pitch.
    pub harmony_drift: f32,
    /// The same for the rhythm latent: small if it ignores pitch.
    pub rhythm_drift: f32,
    /// Divergence of the harmony latent, nats an element.
    pub kl_harmony: f32,
    /// Divergence of the rhythm latent, nats an element.
    pub kl_rhythm: f32,
}

/// Mean figures over some batches.
pub fn validate(network: &Network, batches: &[Views]) -> Result<Validation> {
    let mut sum = Validation::default();
    for views in batches {
        let own = network.encode(&views.target)?;
        let (harmony, rhythm) = network.encode_views(&views.harmony, &views.rhythm)?;
        let l1 = |harmony: &Tensor| -> Result<f32> {
            let decoded = network.decode(harmony, &own.rhythm.mean)?;
            Ok((decoded - &views.target)?.abs()?.mean_all()?.to_scalar()?)
        };
        let back = network.rotate(&harmony.mean, &views.back())?;
        sum.mel_l1 += l1(&own.harmony.mean)?;
        sum.mel_l1_without_harmony += l1(&own.harmony.mean.zeros_like()?)?;
        let drift =
            |of: &Tensor, from: &Tensor| -> Result<f32> { Ok(drift(of, from)?.to_scalar()?) };
        sum.harmony_drift_rotated += drift(&back, &own.harmony.mean)?;
        sum.harmony_drift += drift(&harmony.mean, &own.harmony.mean)?;
        sum.rhythm_drift += drift(&rhythm.mean, &own.rhythm.mean)?;
        sum.kl_harmony += own.harmony.kl()?.to_scalar::<f32>()?;
        sum.kl_rhythm += own.rhythm.kl()?.to_scalar::<f32>()?;
    }
    let n = batches.len() as f32;
    Ok(Validation {
        mel_l1: sum.mel_l1 / n,
        mel_l1_without_harmony: sum.mel_l1_without_harmony / n,
        harmony_drift_rotated: sum.harmony_drift_rotated / n,
        harmony_drift: sum.harmony_drift / n,
        rhythm_drift: sum.rhythm_drift / n,
        kl_harmony: sum.kl_harmony / n,
        kl_rhythm: sum.kl_rhythm / n,
    })
}

/// Mean squared distance over the variance, a scalar.
fn drift(of: &Tensor, from: &Tensor) -> Result<Tensor> {
    let variance = from.broadcast_sub(&from.mean_all()?)?.sqr()?.mean_all()?;
    let distance = (of - from)?.sqr()?.mean_all()?;
    Ok((distance / variance)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::parameters::Parameters;
    use crate::shifted_mel::{Layer, ShiftedMel};
    use candle_core::{DType, Var};
    use candle_nn::VarBuilder;
    use graft_material::audio_cache::Pcm;
    use model_runtime::pitch_aligned::PitchAlignedConfig;
    use model_runtime::{Architecture, Model};
    use vocoder::MelConfig;

    const FRAMES: usize = 64;

    /// A chord that changes twice a second, as a crop shifted by `semitones`.
    fn crop(semitones: i32) -> Vec<f32> {
        let samples: Vec<f32> = (0..3 * 22_050)
            .map(|n| {
                let time = f64::from(n) / 22_050.0;
                let root = 50.0 + 2.0 * (2.0 * time).floor();
                let tone = |step: f64| {
                    let hz = 440.0 * ((root + step - 69.0) / 12.0).exp2();
                    (1..=4)
                        .map(|k| {
                            (std::f64::consts::TAU * hz * f64::from(k) * time).sin() / f64::from(k)
                        })
                        .sum::<f64>()
                };
                (0.1 * (tone(0.0) + tone(4.0) + tone(7.0)) * (-4.0 * (time % 0.5)).exp()) as f32
            })
            .collect();
        let pcm = Pcm::normalised(&samples, 22_050).unwrap();
        let mut mel = vec![0.0; 128 * FRAMES];
        let layer = Layer {
            pcm: &pcm,
            start_samples: 4096,
            semitones: f64::from(semitones),
            gain: 1.0,
            equaliser: None,
        };
        ShiftedMel::new(&MelConfig::default())
            .unwrap()
            .log_mel(&[layer], &mut mel)
            .unwrap();
        mel
    }

    /// Reconstruction loss of the built-in model for a crop shifted by `heard` and said to be shifted by `told`.
    fn reconstruction(heard: i32, told: i32) -> f32 {
        let batch = Batch {
            target: crop(0),
            harmony_view: crop(heard),
            rhythm_view: crop(-2),
            harmony_shift: vec![told],
            rhythm_shift: vec![-2],
            size: 1,
            frames: FRAMES,
        };
        let weights = Loss {
            reconstruction: Reconstruction::L1,
            kl_harmony: 0.0,
            kl_rhythm: 0.0,
            cycle: 0.0,
        };
        let views = Views::new(batch, &Device::Cpu).unwrap();
        let model = Model::built_in().unwrap();
        let networks = Networks {
            trained: model.network(),
            frozen: None,
        };
        step_loss(&networks, &views, &weights, 1)
            .unwrap()
            .figures()
            .unwrap()
            .reconstruction
    }

    #[test]
    fn the_loss_rises_when_the_rotation_has_the_wrong_sign() {
        for shift in [-5, 4] {
            let (right, wrong) = (reconstruction(shift, shift), reconstruction(shift, -shift));
            assert!(
                wrong > 1.2 * right,
                "{shift}: {right} with the right sign, {wrong} with the wrong one"
            );
        }
    }

    /// Gradients of the loss by parameter, with a weight on the cycle consistency.
    fn gradients(parameters: &Parameters, cycle: f64) -> BTreeMap<String, Vec<f32>> {
        let architecture = Architecture::PitchAligned(PitchAlignedConfig {
            harmony_channels: 3,
            harmony_latents: 1,
            pool_frames: 4,
            rhythm_channels: 2,
            rhythm_latents: 2,
            rhythm_planes: 2,
            decoder_channels: 3,
            mel_mean: -4.5,
            mel_deviation: 2.2,
        });
        let mel = MelConfig::default();
        let builder = parameters.builder(&Device::Cpu);
        let trained = Network::new(&architecture, &mel, true, &builder).unwrap();
        let weights = parameters.vars().into_iter();
        let weights = weights
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect();
        let builder = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
        let frozen = Network::new(&architecture, &mel, true, &builder).unwrap();
        let batch = Batch {
            target: [crop(0), crop(2)].concat(),
            harmony_view: [crop(1), crop(5)].concat(),
            rhythm_view: [crop(-2), crop(0)].concat(),
            harmony_shift: vec![1, 3],
            rhythm_shift: vec![-2, -2],
            size: 2,
            frames: FRAMES,
        };
        let weights = Loss {
            reconstruction: Reconstruction::L1,
            kl_harmony: 0.01,
            kl_rhythm: 0.01,
            cycle,
        };
        let networks = Networks {
            trained: &trained,
            frozen: Some(&frozen),
        };
        let views = Views::new(batch, &Device::Cpu).unwrap();
        let loss = step_loss(&networks, &views, &weights, 1).unwrap();
        let figures = loss.figures().unwrap();
        assert!(figures.cycle_harmony > 0.0 && figures.cycle_rhythm > 0.0);
        let gradients = loss.total.backward().unwrap();
        let values = |var: &Var| {
            let gradient = gradients.get(var).unwrap();
            gradient.flatten_all().unwrap().to_vec1().unwrap()
        };
        let vars = parameters.vars().into_iter();
        vars.map(|(name, var)| (name, values(&var))).collect()
    }

    #[test]
    fn the_cycle_teaches_the_decoder_alone() {
        let parameters = Parameters::new(1);
        let (without, with) = (gradients(&parameters, 0.0), gradients(&parameters, 1.0));
        let changed = |part: &str| -> f32 {
            let (mut distance, mut size) = (0.0, 0.0);
            for (name, gradient) in without.iter().filter(|(name, _)| name.contains(part)) {
                let pairs = gradient.iter().zip(&with[name]);
                distance += pairs.map(|(a, b)| (a - b).abs()).sum::<f32>();
                size += gradient.iter().map(|a| a.abs()).sum::<f32>();
            }
            distance / size
        };
        assert!(changed("encoder") < 1e-5, "{}", changed("encoder"));
        assert!(changed("mel_decoder") > 1e-2, "{}", changed("mel_decoder"));
    }
}
