//! Batches of notes: what the encoders hear, and what the decoder shall make.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

use super::network::Inputs;
use crate::batches::{MakeBatch, random};
use crate::notes::{Note, NoteSet};
use crate::perturbation::effects::Effect;
use crate::perturbation::lifter::Lifter;
use crate::perturbation::spectra::{Analysis, Spectra};

/// Perturbations of the notes that the encoders hear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Perturbation {
    /// Largest pitch shift of the notes whose envelopes are heard, in semitones up or down.
    pub max_shift_semitones: u32,
    /// Number of different random effects on the notes whose fine structures are heard.
    pub effects: usize,
}

impl Perturbation {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// Returns an error if one is out of range.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.max_shift_semitones <= 12 && self.effects <= Effect::ALL.len(),
            "perturbation: expected at most 12 semitones and {} effects, found {} and {}",
            Effect::ALL.len(),
            self.max_shift_semitones,
            self.effects
        );
        Ok(())
    }
}

/// What is changed in one note.
#[derive(Clone, Debug, Default, PartialEq)]
struct Change {
    semitones: i32,
    effects: Vec<Effect>,
}

impl Change {
    fn draw(settings: &Perturbation, random: &mut impl Rng) -> Self {
        let most = settings.max_shift_semitones as i32;
        Self {
            semitones: random.random_range(-most..=most),
            effects: Effect::ALL
                .choose_multiple(random, settings.effects)
                .copied()
                .collect(),
        }
    }
}

/// Spectra of notes, with the time first: (T, B, any).
#[derive(Clone, Debug, PartialEq)]
pub struct NoteBatch {
    /// Number of notes.
    pub size: usize,
    /// Log spectra.
    pub target: Vec<f32>,
    /// Cepstral coefficients of the envelopes that are heard.
    pub cepstra: Vec<f32>,
    /// Fine structures that are heard.
    pub fine: Vec<f32>,
    /// 1 where a note sounds, 0 behind its end.
    pub mask: Vec<f32>,
    /// Natural logarithm of each note's mean magnitude. It is not part of the spectra and passes by the network.
    pub levels: Vec<f32>,
}

impl NoteBatch {
    /// The tensors on a device: what the encoders hear, and the target (T, B, F).
    ///
    /// # Errors
    ///
    /// Returns an error if the device fails.
    pub fn tensors(&self, device: &Device) -> Result<(Inputs, Tensor)> {
        let frames = self.mask.len() / self.size;
        let tensor = |values: &[f32]| {
            Tensor::from_slice(
                values,
                (frames, self.size, values.len() / self.mask.len()),
                device,
            )
        };
        let inputs = Inputs {
            cepstra: tensor(&self.cepstra)?,
            fine: tensor(&self.fine)?,
            mask: tensor(&self.mask)?,
        };
        Ok((inputs, tensor(&self.target)?))
    }
}

/// Makes batches of notes.
#[derive(Clone)]
pub struct NoteAnalysis {
    settings: Analysis,
    lifter: Arc<Lifter>,
    spectra: Spectra,
}

impl NoteAnalysis {
    /// Batches with these spectra.
    ///
    /// # Errors
    ///
    /// Returns an error if the settings are not valid.
    pub fn new(settings: &Analysis) -> Result<Self> {
        settings.check()?;
        Ok(Self {
            lifter: Arc::new(Lifter::new(settings.n_fft, settings.cut)?),
            spectra: Spectra::new(settings.clone()),
            settings: settings.clone(),
        })
    }

    /// Notes as they are.
    ///
    /// # Errors
    ///
    /// Returns an error if a transform fails.
    pub fn plain(&mut self, notes: &[&Note]) -> Result<NoteBatch> {
        let notes: Vec<_> = notes
            .iter()
            .map(|note| (*note, Change::default()))
            .collect();
        self.batch(&notes)
    }

    fn batch(&mut self, notes: &[(&Note, Change)]) -> Result<NoteBatch> {
        let (bins, cut) = (self.settings.bins(), self.settings.cut);
        let (frames, size) = (self.settings.frames, notes.len());
        let mut batch = NoteBatch {
            size,
            target: vec![0.0; frames * size * bins],
            cepstra: vec![0.0; frames * size * cut],
            fine: vec![0.0; frames * size * bins],
            mask: vec![0.0; frames * size],
            levels: Vec::with_capacity(size),
        };
        for (index, (note, change)) in notes.iter().enumerate() {
            let samples = note.pcm.floats();
            // A window reaches beyond the last frame.
            let heard = self.settings.samples() + self.settings.n_fft;
            let samples = &samples[..samples.len().min(heard)];
            let mut target = self.spectra.magnitudes(samples, 0)?;
            let sounding = self.spectra.sounding_frames(&target);
            batch
                .levels
                .push(self.spectra.normalise(&mut target, sounding));

            // Each is normalised by itself, so that none tells the level of another.
            let mut envelope = match change.semitones {
                0 => target.clone(),
                semitones => {
                    let mut shifted = self.spectra.magnitudes(samples, semitones)?;
                    self.spectra.normalise(&mut shifted, sounding);
                    shifted
                }
            };
            envelope = self.lifter.cepstra(&envelope);
            let fine = if change.effects.is_empty() {
                self.lifter.fine_structures(&target)
            } else {
                let mut samples = samples.to_vec();
                for effect in &change.effects {
                    effect.apply(&mut samples, self.settings.sample_rate_hz);
                }
                let mut magnitudes = self.spectra.magnitudes(&samples, 0)?;
                self.spectra.normalise(&mut magnitudes, sounding);
                self.lifter.fine_structures(&magnitudes)
            };
            place(&mut batch.target, &target, index, size, bins);
            place(&mut batch.cepstra, &envelope, index, size, cut);
            place(&mut batch.fine, &fine, index, size, bins);
            for frame in 0..sounding {
                batch.mask[frame * size + index] = 1.0;
            }
        }
        Ok(batch)
    }
}

/// Writes the rows of one note between those of the others.
fn place(batch: &mut [f32], rows: &[f32], index: usize, size: usize, width: usize) {
    for (frame, row) in rows.chunks_exact(width).enumerate() {
        batch[(frame * size + index) * width..][..width].copy_from_slice(row);
    }
}

/// Draws perturbed notes for training.
#[derive(Clone)]
pub struct NoteSampler {
    notes: Arc<NoteSet>,
    analysis: NoteAnalysis,
    perturbation: Perturbation,
    batch: usize,
    seed: u64,
}

impl NoteSampler {
    /// Batches of `batch` notes.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no notes, or the settings are not valid.
    pub fn new(
        notes: Arc<NoteSet>,
        analysis: &Analysis,
        perturbation: &Perturbation,
        batch: usize,
        seed: u64,
    ) -> Result<Self> {
        ensure!(
            !notes.notes.is_empty(),
            "expected notes to train on, found none"
        );
        Ok(Self {
            notes,
            analysis: NoteAnalysis::new(analysis)?,
            perturbation: perturbation.clone(),
            batch,
            seed,
        })
    }
}

impl MakeBatch for NoteSampler {
    type Batch = NoteBatch;

    fn batch(&mut self, index: u64) -> Result<NoteBatch> {
        let mut random = random(self.seed, index);
        let notes = &self.notes.notes;
        let drawn: Vec<(&Note, Change)> = (0..self.batch)
            .map(|_| {
                let note = &notes[random.random_range(0..notes.len())];
                (note, Change::draw(&self.perturbation, &mut random))
            })
            .collect();
        self.analysis.batch(&drawn)
    }
}
