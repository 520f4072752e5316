//! A small classifier of instruments and pitch classes. Its features stand in for those of the published perceptual loss, whose
//! weights (VGG16 and an audio classifier) cannot be had.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use model_runtime::lord::LordConfig;
use rand::Rng;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;
use vocoder::conv::PadMode;
use vocoder::layers::{Conv, ConvConfig};

use super::material::ClipSet;
use crate::batches::random;
use crate::luo::loss::cross_entropy;
use crate::optim::{Adam, AdamConfig};
use crate::parameters::Parameters;

/// Convolutions of stride 2.
const LAYERS: usize = 4;

/// Bands, and frames, of the mel in one of the last features.
const REACH: usize = 1 << LAYERS;

const PITCH_CLASSES: usize = 12;

/// Prefix of the classifier's weights in the state of a run.
const PREFIX: &str = "classifier/";

/// The classifier and its training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Channels of the first layer. The second has twice as many, the others four times.
    pub channels: usize,
    /// Steps of its training, before the first step of the run.
    pub steps: u64,
    /// Clips per step.
    pub batch: usize,
    /// Learning rate.
    pub learning_rate: f64,
}

impl ClassifierConfig {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// Returns an error that names the setting.
    pub fn check(&self, lord: &LordConfig) -> Result<()> {
        ensure!(
            self.channels > 0 && self.batch > 0 && self.learning_rate > 0.0,
            "classifier: expected channels, batch and learning_rate above 0, found {}, {} and {}",
            self.channels,
            self.batch,
            self.learning_rate
        );
        ensure!(
            lord.n_mels.is_multiple_of(REACH) && lord.frames.is_multiple_of(REACH),
            "the classifier expects multiples of {REACH} bands and frames, found {} and {}",
            lord.n_mels,
            lord.frames
        );
        Ok(())
    }
}

/// The network.
pub struct Classifier {
    layers: Vec<Conv>,
    instrument: Conv,
    pitch: Conv,
}

/// What it says of clips.
struct Opinion {
    /// Logits (B, instruments).
    instrument: Tensor,
    /// Logits (B, [`PITCH_CLASSES`], T / [`REACH`]).
    pitch: Tensor,
}

impl Classifier {
    /// Reads or creates the weights.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor is missing or has another shape.
    pub fn new(
        config: &ClassifierConfig,
        n_mels: usize,
        instruments: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let width = |layer: usize| config.channels << layer.min(2);
        let layers = (0..LAYERS).map(|layer| {
            let input = if layer == 0 { 1 } else { width(layer - 1) };
            let config = ConvConfig::same(input, width(layer), (3, 3))
                .strided((2, 2))
                .pad_mode(PadMode::Zero);
            Conv::new(config, &vb.pp("layers").pp(layer))
        });
        let last = width(LAYERS - 1);
        let instrument = ConvConfig::same(last, instruments, (1, 1)).linear();
        let pitch = ConvConfig::same(last * n_mels / REACH, PITCH_CLASSES, (1, 1)).linear();
        Ok(Self {
            layers: layers.collect::<candle_core::Result<_>>()?,
            instrument: Conv::new(instrument, &vb.pp("instrument"))?,
            pitch: Conv::new(pitch, &vb.pp("pitch"))?,
        })
    }

    /// The classifier in the state of a run.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor is missing or has another shape.
    pub fn restore(
        config: &ClassifierConfig,
        n_mels: usize,
        instruments: usize,
        state: &HashMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let own = state.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix(PREFIX)?.to_owned(), tensor.clone()))
        });
        let vb = VarBuilder::from_tensors(own.collect(), DType::F32, device);
        Self::new(config, n_mels, instruments, &vb)
    }

    /// The outputs of all layers for mels (B, `n_mels`, 1, T).
    ///
    /// # Errors
    ///
    /// Returns an error if the shape does not fit.
    pub fn features(&self, mel: &Tensor) -> Result<Vec<Tensor>> {
        let (batch, bands, _, frames) = mel.dims4()?;
        let mut features: Vec<Tensor> = Vec::with_capacity(LAYERS);
        let plane = mel.reshape((batch, 1, bands, frames))?;
        for layer in &self.layers {
            features.push(layer.forward(features.last().unwrap_or(&plane))?);
        }
        Ok(features)
    }

    /// The most likely instrument of each of some mels (B, `n_mels`, 1, T).
    ///
    /// # Errors
    ///
    /// Returns an error if the shape does not fit.
    pub fn instruments(&self, mel: &Tensor) -> Result<Vec<u32>> {
        Ok(self.opinion(mel)?.instrument.argmax(1)?.to_vec1()?)
    }

    fn opinion(&self, mel: &Tensor) -> Result<Opinion> {
        let last = self.features(mel)?.pop().context("there are layers")?;
        let (batch, channels, bands, frames) = last.dims4()?;
        let mean = last
            .reshape((batch, channels, bands * frames))?
            .mean(D::Minus1)?;
        let mean = mean.reshape((batch, channels, 1, 1))?;
        let columns = last.reshape((batch, channels * bands, 1, frames))?;
        Ok(Opinion {
            instrument: self.instrument.forward(&mean)?.flatten_from(1)?,
            pitch: self.pitch.forward(&columns)?.squeeze(2)?,
        })
    }

    /// The cross-entropies of instruments (B) and of sounding pitch classes (B, [`PITCH_CLASSES`], T / [`REACH`]).
    pub(super) fn loss(
        &self,
        mel: &Tensor,
        instruments: &Tensor,
        pitches: &Tensor,
    ) -> Result<Tensor> {
        let opinion = self.opinion(mel)?;
        let instrument = cross_entropy(&opinion.instrument, instruments, None)?;
        Ok((instrument + binary_cross_entropy(&opinion.pitch, pitches)?)?)
    }
}

/// Of logits and probabilities, on average.
fn binary_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let missed = (logits.relu()? - (logits * targets)?)?;
    Ok((missed + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?.mean_all()?)
}

/// Which pitch classes sound in each [`REACH`] frames of a clip of `frames` frames, for every melody: (melodies, 12, frames /
/// [`REACH`]).
fn pitch_classes(set: &ClipSet, mel: &MelConfig, frames: usize) -> Vec<f32> {
    let columns = frames / REACH;
    let column = |seconds: f64| (seconds / (mel.hop_seconds() * REACH as f64)) as usize;
    let mut all = Vec::with_capacity(set.melodies.len() * PITCH_CLASSES * columns);
    for notes in &set.melodies {
        let mut own = vec![0.0; PITCH_CLASSES * columns];
        for note in notes {
            let class = usize::from(note.key) % PITCH_CLASSES;
            let end = column(note.end_s).min(columns - 1);
            for place in column(note.start_s)..=end {
                own[class * columns + place] = 1.0;
            }
        }
        all.extend(own);
    }
    all
}

/// The classifier's part of the state of a run.
pub fn state(state: &HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let own = state.iter().filter(|(name, _)| name.starts_with(PREFIX));
    own.map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect()
}

/// What the classifier is trained and judged with.
pub struct Lessons<'a> {
    /// The clips.
    pub set: &'a ClipSet,
    /// Their standardised mels on the device.
    pub mels: &'a Tensor,
    /// The mel spectrogram.
    pub mel: &'a MelConfig,
}

impl Lessons<'_> {
    /// Mels, instruments and pitch classes of some clips.
    fn batch(&self, clips: &[u32], pitches: &[f32]) -> Result<[Tensor; 3]> {
        let device = self.mels.device();
        let places = Tensor::new(clips, device)?;
        let columns = self.mels.dim(3)? / REACH;
        let size = PITCH_CLASSES * columns;
        let of_clip = |clip: &u32| {
            let start = self.set.melody_of(*clip as usize) * size;
            pitches[start..start + size].iter().copied()
        };
        let pitches: Vec<f32> = clips.iter().flat_map(of_clip).collect();
        let programs = clips
            .iter()
            .map(|clip| self.set.program_of(*clip as usize) as u32);
        Ok([
            self.mels.index_select(&places, 0)?,
            Tensor::new(programs.collect::<Vec<u32>>(), device)?,
            Tensor::from_vec(pitches, (clips.len(), PITCH_CLASSES, columns), device)?,
        ])
    }
}

/// Trains a classifier and gives its weights as in the state of a run.
///
/// # Errors
///
/// Returns an error if the gradients are not finite.
pub fn train(
    config: &ClassifierConfig,
    lessons: &Lessons,
    seed: u64,
) -> Result<HashMap<String, Tensor>> {
    let parameters = Parameters::new(seed);
    let (n_mels, device) = (lessons.mel.n_mels, lessons.mels.device());
    let programs = lessons.set.programs.len();
    let classifier = Classifier::new(config, n_mels, programs, &parameters.builder(device))?;
    let adam = AdamConfig {
        rectified: true,
        weight_decay: 0.0,
        betas: (0.9, 0.99),
        clip_norm: 5.0,
        amsgrad: false,
        average_decay: None,
    };
    let mut optimiser = Adam::new(&parameters, adam)?;
    let pitches = pitch_classes(lessons.set, lessons.mel, lessons.mels.dim(3)?);
    for step in 0..config.steps {
        let mut random = random(seed, step);
        let clips = (0..config.batch).map(|_| random.random_range(0..lessons.set.len() as u32));
        let [mels, instruments, pitches] = lessons.batch(&clips.collect::<Vec<_>>(), &pitches)?;
        let gradients = classifier.loss(&mels, &instruments, &pitches)?.backward()?;
        optimiser.step(&gradients, config.learning_rate)?;
    }
    let vars = parameters.vars().into_iter();
    Ok(vars
        .map(|(name, var)| (format!("{PREFIX}{name}"), var.as_detached_tensor()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::programs::PROGRAMS;
    use crate::phrases::melody::Note;

    #[test]
    fn pitch_classes_are_those_of_the_notes_that_sound() {
        let mel = MelConfig::default();
        let column_s = mel.hop_seconds() * REACH as f64;
        let note = Note {
            start_s: 1.5 * column_s,
            end_s: 2.5 * column_s,
            key: 61,
            velocity: 80,
        };
        let set = ClipSet {
            programs: vec![&PROGRAMS[0]],
            melodies: vec![vec![note]],
            log_mels: Tensor::zeros((1, 128, 1, 64), DType::F32, &Device::Cpu).unwrap(),
        };
        let found = pitch_classes(&set, &mel, 64);
        let expected: Vec<f32> = (0..48)
            .map(|n| f32::from(u8::from(n == 5 || n == 6)))
            .collect();
        assert_eq!(found, expected);
    }
}
