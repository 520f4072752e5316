//! The loss of a training step, and the validation figures.

use anyhow::Result;
use candle_core::{Device, Tensor};
use model_runtime::latent::{Latent, Latents};
use model_runtime::{Factor, FactorMap, Network};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::noise;
use crate::pitch_guide::PitchGuide;
use crate::sampler::{Batch, View};

/// Distance between decoded and true log-mel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reconstruction {
    /// Mean absolute difference, as in the paper.
    L1,
    /// Huber loss with a threshold of one neper, as in the paper's public code.
    Huber,
}

/// Weights of the losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Kind of the reconstruction loss; its weight is one.
    pub reconstruction: Reconstruction,
    /// Weight of the harmony latent's divergence from the standard normal, per element; none for a network without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_harmony: Option<f64>,
    /// The same for the rhythm latent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_rhythm: Option<f64>,
    /// The same for the timbre latent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_timbre: Option<f64>,
    /// The same for the pitch latent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_pitch: Option<f64>,
    /// The same for the variation latent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_variation: Option<f64>,
    /// Weight of the cycle consistency: the harmony of one crop and the rhythm of the next are decoded together, and
    /// the result should encode to the same latents. Squared distance divided by the latents' variance.
    #[serde(default)]
    pub cycle: f64,
    /// Weight of the latents' consistency: those of a view, transposed back, should be those of the target. Squared
    /// distance of their means per element, added up over the factors.
    #[serde(default)]
    pub consistency: f64,
    /// For HARD: a pull of the harmony latent to the notes that its encoder hears, at the start; none without this
    /// table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide: Option<Guide>,
}

/// A pull of the harmony latent's mean to [`PitchGuide::pattern`], as squared distance per element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guide {
    /// Weight at the first step. It falls evenly to zero.
    pub weight: f64,
    /// Step from which the weight is zero.
    pub steps: u64,
}

impl Guide {
    /// Weight at a step.
    pub fn weight_at(&self, step: u64) -> f64 {
        self.weight * (1.0 - step as f64 / self.steps as f64).max(0.0)
    }
}

impl Loss {
    /// Weight of a latent's divergence from the standard normal, per element, if it is given.
    pub fn kl(&self, factor: Factor) -> Option<f64> {
        match factor {
            Factor::Harmony => self.kl_harmony,
            Factor::Rhythm => self.kl_rhythm,
            Factor::Timbre => self.kl_timbre,
            Factor::Pitch => self.kl_pitch,
            Factor::Variation => self.kl_variation,
        }
    }
}

/// A batch on the device: log-mels (B, 1, n_mels, T).
pub struct Views {
    /// The target crops, unshifted.
    pub target: Tensor,
    /// Input of each factor's encoder.
    views: FactorMap<Tensor>,
    /// Transposition in semitones that brings each crop of a view to the pitch of the target.
    back_semitones: FactorMap<Vec<i32>>,
}

impl Views {
    /// Copies a batch to the device.
    pub fn new(batch: Batch, device: &Device) -> Result<Self> {
        let n_mels = batch.target.len() / (batch.size * batch.frames);
        let shape = (batch.size, 1, n_mels, batch.frames);
        // Equal views are one tensor, which a network encodes once.
        let mut tensors: Vec<(&[f32], Tensor)> = Vec::new();
        let views = batch.views.try_map(|_, view| -> Result<_> {
            if let Some((_, tensor)) = tensors.iter().find(|(mels, _)| *mels == view.mels) {
                return Ok(tensor.clone());
            }
            let tensor = Tensor::from_slice(&view.mels, shape, device)?;
            tensors.push((&view.mels, tensor.clone()));
            Ok(tensor)
        })?;
        let back = |view: &View| view.shift_semitones.iter().map(|n| -n).collect();
        Ok(Self {
            target: Tensor::from_slice(&batch.target, shape, device)?,
            views,
            back_semitones: batch.views.map(|_, view| back(view)),
        })
    }

    /// Transposes a latent of a view to the pitch of the target.
    fn transpose_back(
        &self,
        network: &dyn Network,
        factor: Factor,
        latent: &Tensor,
    ) -> Result<Tensor> {
        Ok(network.transpose(factor, latent, &self.back_semitones[factor])?)
    }
}

/// The parts of a training loss.
pub struct StepLoss {
    /// The loss to minimise.
    pub total: Tensor,
    /// The decoded log-mel (B, 1, n_mels, T).
    pub decoded: Tensor,
    reconstruction: Tensor,
    kl: FactorMap<Tensor>,
    /// Cycle consistency per factor, if it has a weight.
    cycle: Option<FactorMap<Tensor>>,
}

impl StepLoss {
    /// Reads the unweighted parts. Call this after the backward pass has been queued, because reading waits for the
    /// GPU.
    pub fn figures(&self) -> Result<StepFigures> {
        let cycle = self.cycle.iter().flat_map(FactorMap::values);
        let parts = [&self.reconstruction].into_iter().chain(self.kl.values());
        let parts = Tensor::stack(&parts.chain(cycle).collect::<Vec<_>>(), 0)?;
        let mut parts = parts.to_vec1::<f32>()?.into_iter();
        let reconstruction = parts.next().unwrap_or(0.0);
        let kl = self.kl.map(|_, _| parts.next().unwrap_or(0.0));
        Ok(StepFigures {
            reconstruction,
            cycle: kl.map(|_, _| parts.next().unwrap_or(0.0)),
            kl,
        })
    }
}

/// Figures of one training step.
#[derive(Clone, Debug)]
pub struct StepFigures {
    /// Reconstruction loss.
    pub reconstruction: f32,
    /// Divergence of each latent, in nats per element.
    pub kl: FactorMap<f32>,
    /// Squared distance between the latents of a swap and the latents that it was decoded from, divided by their
    /// variance; 0 without a weight.
    pub cycle: FactorMap<f32>,
}

impl StepFigures {
    /// Each figure by name.
    pub fn to_json(&self) -> Value {
        let mut figures = json!({ "reconstruction": self.reconstruction });
        for (name, values) in [("kl", &self.kl), ("cycle", &self.cycle)] {
            for (factor, value) in values.iter() {
                figures[format!("{name}_{factor}")] = json!(value);
            }
        }
        figures
    }
}

/// The network that a step trains.
pub struct Networks<'a> {
    /// With the trained weights.
    pub trained: &'a dyn Network,
    /// The same weights, detached, to encode swaps: the encoder must not learn to recognise its latents in a bad
    /// remix. Needed if the cycle consistency has a weight.
    pub frozen: Option<&'a dyn Network>,
}

/// Encodes the shifted views, samples both latents, rotates the harmony back, decodes, and compares with the
/// unshifted mel. The samples depend only on `seed`. `guide` has the weight of this step.
pub fn step_loss(
    networks: &Networks,
    views: &Views,
    weights: &Loss,
    guide: Option<(&PitchGuide, f64)>,
    seed: u64,
) -> Result<StepLoss> {
    let network = networks.trained;
    let mut rng = StdRng::seed_from_u64(seed);
    let latents = network.encode_views(&views.views)?;
    let drawn = latents.try_map(|factor, latent| {
        views.transpose_back(network, factor, &draw(latent, &mut rng)?)
    })?;
    let decoded = network.decode(&drawn)?;
    let reconstruction = match weights.reconstruction {
        Reconstruction::L1 => (&decoded - &views.target)?.abs()?.mean_all()?,
        Reconstruction::Huber => candle_nn::loss::huber(&decoded, &views.target, 1.0)?,
    };
    let kl = latents.try_map(|_, latent| latent.kl())?;
    let mut total = reconstruction.clone();
    for (factor, kl) in kl.iter() {
        total = (total + (kl * weights.kl(factor).unwrap_or_default())?)?;
    }
    if let Some((guide, weight)) = guide {
        let pattern = guide.pattern(&views.views[Factor::Harmony])?;
        let distance = (&latents[Factor::Harmony].mean - pattern)?.sqr()?;
        total = (total + (distance.mean_all()? * weight)?)?;
    }
    if weights.consistency > 0.0 {
        let own = network.encode(&views.target)?;
        for (factor, latent) in latents.iter() {
            let back = views.transpose_back(network, factor, &latent.mean)?;
            let distance = (back - &own[factor].mean)?.sqr()?.mean_all()?;
            total = (total + (distance * weights.consistency)?)?;
        }
    }
    let mut cycle = None;
    if let Some(frozen) = networks.frozen {
        let drifts = cycle_drifts(network, frozen, views, &latents)?;
        let mut sum = None;
        for drift in drifts.values() {
            sum = Some(match sum {
                Some(sum) => (sum + drift)?,
                None => drift.clone(),
            });
        }
        if let Some(sum) = sum {
            total = (total + (sum * weights.cycle)?)?;
        }
        cycle = Some(drifts);
    }
    Ok(StepLoss {
        total,
        decoded,
        reconstruction,
        kl,
        cycle,
    })
}

/// Distances between the latents of a swap, encoded by the `frozen` network, and the latents that it was decoded
/// from. The first factor comes from each crop itself, the others from the next crop.
fn cycle_drifts(
    network: &dyn Network,
    frozen: &dyn Network,
    views: &Views,
    latents: &Latents,
) -> Result<FactorMap<Tensor>> {
    let own = network.factors()[0].factor;
    let swapped = latents.try_map(|factor, latent| -> Result<_> {
        let mean = views
            .transpose_back(network, factor, &latent.mean)?
            .detach();
        match factor == own {
            true => Ok(mean),
            false => next_in_batch(&mean),
        }
    })?;
    let found = frozen.encode(&network.decode(&swapped)?)?;
    found.try_map(|factor, latent| drift(&latent.mean, &swapped[factor]))
}

/// Rotates the batch by one element.
fn next_in_batch(x: &Tensor) -> Result<Tensor> {
    let batch = x.dim(0)?;
    let rest = x.narrow(0, 1, batch - 1)?;
    Ok(Tensor::cat(&[&rest, &x.narrow(0, 0, 1)?], 0)?)
}

/// Samples a latent with normal noise (Box and Muller).
pub(crate) fn draw(latent: &Latent, rng: &mut StdRng) -> Result<Tensor> {
    let noise = noise::normal(latent.mean.elem_count(), rng);
    let noise = Tensor::from_vec(noise, latent.mean.shape(), latent.mean.device())?;
    Ok(latent.sample(&noise)?)
}

/// Figures on validation crops, from the latents' means.
#[derive(Clone, Debug)]
pub struct Validation {
    /// Mean absolute difference of the reconstruction's log-mel, nepers.
    pub mel_l1: f32,
    /// Figures of each factor.
    pub factors: FactorMap<FactorValidation>,
}

/// Figures of one factor on validation crops.
#[derive(Clone, Copy, Debug, Default)]
pub struct FactorValidation {
    /// Reconstruction as in [`Validation::mel_l1`] with this latent set to zero: shows how much the decoder uses it.
    pub mel_l1_without: f32,
    /// Squared distance between the shifted clip's latent, transposed back, and the latent of the unshifted clip,
    /// divided by its variance.
    pub drift_transposed: f32,
    /// The same without transposing back: larger if the latent encodes pitch, equal if it does not.
    pub drift: f32,
    /// Divergence of the latent, in nats per element.
    pub kl: f32,
}

impl Validation {
    /// Each figure by name.
    pub fn to_json(&self) -> Value {
        let mut figures = json!({ "mel_l1": self.mel_l1 });
        for (factor, v) in self.factors.iter() {
            figures[format!("mel_l1_without_{factor}")] = json!(v.mel_l1_without);
            figures[format!("{factor}_drift_rotated")] = json!(v.drift_transposed);
            figures[format!("{factor}_drift")] = json!(v.drift);
            figures[format!("kl_{factor}")] = json!(v.kl);
        }
        figures
    }
}

/// Mean figures over some batches.
pub fn validate(network: &dyn Network, batches: &[Views]) -> Result<Validation> {
    let share = 1.0 / batches.len() as f32;
    let layouts = network.factors().iter();
    let mut mean = Validation {
        mel_l1: 0.0,
        factors: layouts
            .map(|layout| (layout.factor, FactorValidation::default()))
            .collect(),
    };
    for views in batches {
        let own = network.encode(&views.target)?;
        let means = own.means();
        let shifted = network.encode_views(&views.views)?;
        let l1 = |latents: &FactorMap<Tensor>| -> Result<f32> {
            let decoded = network.decode(latents)?;
            Ok((decoded - &views.target)?.abs()?.mean_all()?.to_scalar()?)
        };
        let drift =
            |of: &Tensor, from: &Tensor| -> Result<f32> { Ok(drift(of, from)?.to_scalar()?) };
        mean.mel_l1 += share * l1(&means)?;
        for (factor, figures) in mean.factors.iter_mut() {
            let (own, shifted) = (&own[factor], &shifted[factor].mean);
            let back = views.transpose_back(network, factor, shifted)?;
            let mut without = means.clone();
            without.insert(factor, own.mean.zeros_like()?);
            figures.mel_l1_without += share * l1(&without)?;
            figures.drift_transposed += share * drift(&back, &own.mean)?;
            figures.drift += share * drift(shifted, &own.mean)?;
            figures.kl += share * own.kl()?.to_scalar::<f32>()?;
        }
    }
    Ok(mean)
}

/// Mean absolute difference between the targets and what is decoded from the views, nepers: that of a conversion, if the views
/// are different sounds.
pub fn converted_l1(network: &dyn Network, batches: &[Views]) -> Result<f32> {
    let mut sum = 0.0;
    let mut size = 0;
    for views in batches {
        let latents = network.encode_views(&views.views)?;
        let means = latents
            .try_map(|factor, latent| views.transpose_back(network, factor, &latent.mean))?;
        let difference = (network.decode(&means)? - &views.target)?.abs()?;
        let crops = views.target.dim(0)?;
        sum += crops as f32 * difference.mean_all()?.to_scalar::<f32>()?;
        size += crops;
    }
    Ok(sum / size as f32)
}

/// Mean squared distance divided by the variance, a scalar.
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

    /// Views for harmony, shifted as told, and for rhythm.
    fn views(harmony: Vec<f32>, rhythm: Vec<f32>, told: Vec<i32>) -> FactorMap<View> {
        let rhythm = View {
            mels: rhythm,
            shift_semitones: vec![-2; told.len()],
        };
        let harmony = View {
            mels: harmony,
            shift_semitones: told,
        };
        [(Factor::Harmony, harmony), (Factor::Rhythm, rhythm)]
            .into_iter()
            .collect()
    }

    /// Reconstruction loss of the built-in model for a crop shifted by `heard` and said to be shifted by `told`, and
    /// the distance of its latents from those of the unshifted crop.
    fn losses(heard: i32, told: i32) -> [f32; 2] {
        let batch = Batch {
            target: crop(0),
            views: views(crop(heard), crop(-2), vec![told]),
            size: 1,
            frames: FRAMES,
        };
        let weights = Loss {
            reconstruction: Reconstruction::L1,
            kl_harmony: Some(0.0),
            kl_rhythm: Some(0.0),
            kl_timbre: None,
            kl_pitch: None,
            kl_variation: None,
            cycle: 0.0,
            consistency: 1.0,
            guide: None,
        };
        let views = Views::new(batch, &Device::Cpu).unwrap();
        let model = Model::built_in().unwrap();
        let networks = Networks {
            trained: &**model.network(),
            frozen: None,
        };
        let loss = step_loss(&networks, &views, &weights, None, 1).unwrap();
        let reconstruction = loss.figures().unwrap().reconstruction;
        let total = loss.total.to_scalar::<f32>().unwrap();
        [reconstruction, total - reconstruction]
    }

    #[test]
    fn the_guide_lets_go() {
        let guide = Guide {
            weight: 2.0,
            steps: 100,
        };
        let weights = [0, 25, 100, 1000].map(|step| guide.weight_at(step));
        assert_eq!(weights, [2.0, 1.5, 0.0, 0.0]);
    }

    #[test]
    fn the_loss_rises_when_the_rotation_has_the_wrong_sign() {
        for shift in [-5, 4] {
            let (right, wrong) = (losses(shift, shift), losses(shift, -shift));
            for (right, wrong) in right.into_iter().zip(wrong) {
                assert!(
                    wrong > 1.2 * right,
                    "{shift}: {right} with the right sign, {wrong} with the wrong one"
                );
            }
        }
    }

    /// Gradients of the loss by parameter, with weights on cycle consistency and consistency.
    fn gradients(
        parameters: &Parameters,
        [cycle, consistency]: [f64; 2],
    ) -> BTreeMap<String, Vec<f32>> {
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
        let trained = architecture.build(&mel, true, &builder).unwrap();
        let weights = parameters.vars().into_iter();
        let weights = weights
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect();
        let builder = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
        let frozen = architecture.build(&mel, true, &builder).unwrap();
        let batch = Batch {
            target: [crop(0), crop(2)].concat(),
            views: views(
                [crop(1), crop(5)].concat(),
                [crop(-2), crop(0)].concat(),
                vec![1, 3],
            ),
            size: 2,
            frames: FRAMES,
        };
        let weights = Loss {
            reconstruction: Reconstruction::L1,
            kl_harmony: Some(0.01),
            kl_rhythm: Some(0.01),
            kl_timbre: None,
            kl_pitch: None,
            kl_variation: None,
            cycle,
            consistency,
            guide: None,
        };
        let networks = Networks {
            trained: &*trained,
            frozen: Some(&*frozen),
        };
        let views = Views::new(batch, &Device::Cpu).unwrap();
        let loss = step_loss(&networks, &views, &weights, None, 1).unwrap();
        let figures = loss.figures().unwrap();
        assert!(figures.cycle.values().all(|&drift| drift > 0.0));
        let gradients = loss.total.backward().unwrap();
        let values = |var: &Var| {
            let gradient = gradients.get(var).unwrap();
            gradient.flatten_all().unwrap().to_vec1().unwrap()
        };
        let vars = parameters.vars().into_iter();
        vars.map(|(name, var)| (name, values(&var))).collect()
    }

    /// Change of the gradients of the encoder and the decoder by such weights.
    fn changes(weights: [f64; 2]) -> [f32; 2] {
        let parameters = Parameters::new(1);
        let (without, with) = (
            gradients(&parameters, [0.0; 2]),
            gradients(&parameters, weights),
        );
        ["encoder", "mel_decoder"].map(|part| {
            let (mut distance, mut size) = (0.0, 0.0);
            for (name, gradient) in without.iter().filter(|(name, _)| name.contains(part)) {
                let pairs = gradient.iter().zip(&with[name]);
                distance += pairs.map(|(a, b)| (a - b).abs()).sum::<f32>();
                size += gradient.iter().map(|a| a.abs()).sum::<f32>();
            }
            distance / size
        })
    }

    #[test]
    fn the_cycle_teaches_the_decoder_alone() {
        let [encoder, decoder] = changes([1.0, 0.0]);
        assert!(encoder < 1e-5, "{encoder}");
        assert!(decoder > 1e-2, "{decoder}");
    }

    #[test]
    fn the_consistency_teaches_the_encoder_alone() {
        let [encoder, decoder] = changes([0.0, 1.0]);
        assert!(encoder > 1e-2, "{encoder}");
        assert!(decoder < 1e-5, "{decoder}");
    }
}
