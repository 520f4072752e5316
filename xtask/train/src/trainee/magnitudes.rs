//! Training of the network that predicts magnitudes from mels ([`vocoder::magnitudes`]).

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use serde_json::json;
use vocoder::generated::{template_stream, whole_template};
use vocoder::magnitudes::MagnitudeNetwork;
use vocoder::{LogMel, MelConfig};

use super::{Report, Trainee};
use crate::batches::{BatchStream, MakeBatch};
use crate::checkpoint::CheckpointHeader;
use crate::optim::Adam;
use crate::parameters::Parameters;
use crate::recipe::magnitudes::{EDGE_FRAMES, MagnitudesRecipe};
use crate::voice::preview::VoicePreview;
use crate::voice::reconstructor::Reconstructor;
use crate::voice::segments::{Heard, SegmentBatch, SegmentSampler, Segments, VoiceMaterial};
use crate::voice::spectra::Magnitudes;
use crate::weights::Weights;

/// Segments in the validation set.
const VALIDATION_SEGMENTS: usize = 32;

/// Added to magnitudes before their logarithms are compared: 114 dB below a tone at full scale.
const MAGNITUDE_FLOOR: f64 = 1e-3;

/// A magnitude network in training.
pub struct MagnitudesTrainee {
    recipe: MagnitudesRecipe,
    device: Device,
    network: MagnitudeNetwork,
    optimiser: Adam,
    heard: Heard,
    spectra: Magnitudes,
    batches: BatchStream<SegmentBatch>,
    validation: Vec<SegmentBatch>,
    preview: VoicePreview,
}

impl MagnitudesTrainee {
    /// Creates the network of a recipe with random or given weights. The next step is the one after `header.step`
    /// steps.
    ///
    /// # Errors
    ///
    /// Returns an error if weights or training data do not match the recipe.
    pub fn new(
        recipe: MagnitudesRecipe,
        header: &CheckpointHeader,
        weights: &Weights,
        material: VoiceMaterial,
        device: Device,
    ) -> Result<Self> {
        let mel = recipe.mel.clone();
        let parameters = Parameters::new(recipe.segments.seed);
        let network =
            MagnitudeNetwork::new(&recipe.magnitudes, &mel, &parameters.builder(&device))?;
        if let Weights::Model(weights) = weights {
            parameters.set(weights)?;
        }
        let mut optimiser = Adam::new(&parameters, recipe.optimiser.adam())?;
        if let Weights::Checkpoint(state) = weights {
            optimiser.restore(state, header.step)?;
        }
        let heard = heard(material.reconstructor);
        let parts = &material.parts;
        let sampler = |tracks, settings| SegmentSampler::new(tracks, &mel, settings, heard.clone());
        let settings = Segments {
            gain_nepers: 0.0,
            decoded_share: 1.0,
            ..recipe.segments.clone()
        };
        let mut validation = sampler(&parts.validation, settings)?;
        let count = VALIDATION_SEGMENTS.div_ceil(recipe.segments.batch) as u64;
        Ok(Self {
            validation: (0..count)
                .map(|index| validation.batch(index))
                .collect::<Result<_>>()?,
            batches: sampler(&parts.training, recipe.segments.clone())?
                .stream(header.total_steps()),
            spectra: Magnitudes::new(mel.n_fft, DType::F32, &device)?,
            preview: VoicePreview::new(&parts.validation, &mel)?,
            recipe,
            device,
            network,
            optimiser,
            heard,
        })
    }

    /// Frames of the longest crop that is drawn from a track.
    pub fn crop_frames(recipe: &MagnitudesRecipe, reconstructor: Option<Reconstructor>) -> usize {
        heard(reconstructor).crop_frames(recipe.segments.frames)
    }

    /// The network with its averaged weights.
    fn averaged(&self, device: &Device) -> Result<MagnitudeNetwork> {
        let builder = VarBuilder::from_tensors(self.optimiser.averages()?, DType::F32, device);
        Ok(MagnitudeNetwork::new(
            &self.recipe.magnitudes,
            &self.recipe.mel,
            &builder,
        )?)
    }
}

fn heard(reconstructor: Option<Reconstructor>) -> Heard {
    Heard {
        reconstructor,
        template: false,
    }
}

/// Mean absolute difference of the logarithms of predicted and true magnitudes, in nepers.
fn distance(
    network: &MagnitudeNetwork,
    spectra: &Magnitudes,
    batch: SegmentBatch,
    mel: &MelConfig,
    device: &Device,
) -> Result<Tensor> {
    let log_mel = Tensor::from_vec(batch.mel, (batch.size, mel.n_mels, ()), device)?;
    let real = Tensor::from_vec(batch.samples, (batch.size, 1, ()), device)?;
    // Start at the first mel frame that lies completely within the samples.
    let start = EDGE_FRAMES * mel.hop_length - mel.padding_samples();
    let real = real.narrow(2, start, real.dim(2)? - start)?.contiguous()?;
    let real = spectra.of(&real)?.transpose(1, 2)?;
    let guessed = network.forward(&log_mel)?;
    let guessed = guessed.narrow(2, EDGE_FRAMES, real.dim(2)?)?;
    let log = |magnitudes: Tensor| (magnitudes + MAGNITUDE_FLOOR)?.log();
    Ok((log(guessed)? - log(real)?)?.abs()?.mean_all()?)
}

impl Trainee for MagnitudesTrainee {
    type Batch = SegmentBatch;

    fn next_batch(&mut self) -> Result<SegmentBatch> {
        self.batches.next_batch()
    }

    fn step(&mut self, header: &CheckpointHeader, batch: SegmentBatch) -> Result<Report> {
        let distance = distance(
            &self.network,
            &self.spectra,
            batch,
            &self.recipe.mel,
            &self.device,
        )?;
        let gradients = distance.backward()?;
        let distance = distance.to_scalar::<f32>()?;
        let learning_rate = self.recipe.optimiser.learning_rate(header.step);
        let norm = self.optimiser.step(&gradients, learning_rate)?;
        Ok(Report {
            line: format!("magnitudes {distance:.3}"),
            figures: json!({
                "train": { "magnitude_l1": distance },
                "gradient_norm": norm,
                "learning_rate": learning_rate,
            }),
        })
    }

    fn validate(&mut self, _: &CheckpointHeader) -> Result<Report> {
        let network = self.averaged(&self.device)?;
        let distances = self.validation.iter().map(|batch| {
            let distance = distance(
                &network,
                &self.spectra,
                batch.clone(),
                &self.recipe.mel,
                &self.device,
            )?;
            Ok(distance.to_scalar::<f32>()?)
        });
        let distance = distances.sum::<Result<f32>>()? / self.validation.len() as f32;
        Ok(Report {
            line: format!("magnitude L1 {distance:.3}"),
            figures: json!({ "validation": { "magnitude_l1": distance } }),
        })
    }

    fn preview(&self, header: &CheckpointHeader, run: &Path) -> Result<()> {
        // Streams compute on the CPU.
        let network = self.averaged(&Device::Cpu)?;
        let mel = &self.recipe.mel;
        let voice = |log_mel: &LogMel| -> Result<Vec<f32>> {
            let heard = self.heard.whole(log_mel)?;
            Ok(whole_template(
                &mut template_stream(mel, Some(&network))?,
                &heard,
            )?)
        };
        self.preview.write(run, header.step, voice)
    }

    fn state(&self) -> Result<HashMap<String, Tensor>> {
        self.optimiser.state()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vocoder::MelSpectrogram;
    use vocoder::magnitudes::MagnitudesConfig;

    /// The spectrum of an impulse is flat, so that the smooth magnitudes of its mel are the true ones, frame for frame.
    #[test]
    fn frames_are_compared_with_their_own() -> Result<()> {
        let device = Device::Cpu;
        let mel = MelConfig::default();
        let spectra = Magnitudes::new(mel.n_fft, DType::F32, &device)?;
        let zeros = VarBuilder::zeros(DType::F32, &device);
        let network = MagnitudeNetwork::new(&MagnitudesConfig { channels: 1 }, &mel, &zeros)?;
        let impulse = |place: usize| {
            let mut samples = vec![0.0; 16 * 512];
            samples[place] = 0.9;
            samples
        };
        let log_mel = MelSpectrogram::new(&mel)?.log_mel(&impulse(3700));
        let by_band = (0..mel.n_mels).flat_map(|band| (0..16).map(move |frame| (frame, band)));
        let distances = [3700, 3700 + 256].map(|place| {
            let batch = SegmentBatch {
                mel: by_band.clone().map(|(t, m)| log_mel.frame(t)[m]).collect(),
                samples: impulse(place),
                template: None,
                size: 1,
            };
            let distance = distance(&network, &spectra, batch, &mel, &device).unwrap();
            distance.to_scalar::<f32>().unwrap()
        });
        // What the mel cannot tell of silence is left over.
        assert!(distances[0] < 0.1 && distances[1] > 0.3, "{distances:?}");
        Ok(())
    }
}
