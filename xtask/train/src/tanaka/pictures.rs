//! The paper's Figure 3: two notes, and spectrograms decoded from latents of both.

use std::path::Path;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use graft_material::plot::{self, HeatPanel};
use model_runtime::{Factor, FactorMap};

use super::batches::NoteAnalysis;
use super::network::Tanaka;
use crate::notes::Note;
use crate::perturbation::spectra::Analysis;

/// What is drawn is this far below the loudest point, in nepers: 80 dB.
const RANGE: f32 = 9.21;

/// Least distance of the keys of both notes, if there are such.
const KEYS_APART: u8 = 5;

/// The first note, and the first of another instrument that is at least five semitones away.
///
/// # Errors
///
/// Returns an error if there are no notes.
pub fn pair(notes: &[Note]) -> Result<[&Note; 2]> {
    let Some(first) = notes.first() else {
        anyhow::bail!("expected notes to preview, found none");
    };
    let other = |note: &&Note| {
        note.label.instrument != first.label.instrument
            && note.label.key.abs_diff(first.label.key) >= KEYS_APART
    };
    let second = notes.iter().find(other).or(notes.last()).unwrap_or(first);
    Ok([first, second])
}

/// Draws both notes, and below them all combinations of their latents, in two columns by the note that the pitch comes from.
///
/// # Errors
///
/// Returns an error if the network fails, or the file cannot be written.
pub fn draw_swaps(
    path: &Path,
    network: &Tanaka,
    analysis: &Analysis,
    notes: [&Note; 2],
    device: &Device,
) -> Result<()> {
    let batch = NoteAnalysis::new(analysis)?.plain(&notes)?;
    let (inputs, target) = batch.tensors(device)?;
    let (_, values) = network.encode(&inputs, |latent| Ok(latent.mean.clone()))?;
    let mut panels = Vec::new();
    let both = ["A", "B"];
    for (note, name) in both.iter().enumerate() {
        panels.push((
            format!("Note {name}"),
            spectrogram(&target, note, batch.levels[note])?,
        ));
    }
    let factors: Vec<Factor> = values.iter().map(|(factor, _)| factor).collect();
    let others: Vec<Factor> = factors
        .into_iter()
        .filter(|factor| *factor != Factor::Pitch)
        .collect();
    for sources in combinations(others.len()) {
        for (pitch, name) in both.iter().enumerate() {
            let mut mixed: FactorMap<Tensor> = FactorMap::default();
            mixed.insert(Factor::Pitch, of_note(&values[Factor::Pitch], pitch)?);
            let mut title = format!("Pitch of {name}");
            for (factor, source) in others.iter().zip(&sources) {
                mixed.insert(*factor, of_note(&values[*factor], *source)?);
                title += &format!(", {factor} of {}", both[*source]);
            }
            // The level goes with what is left of the envelope over time.
            let level = batch.levels[*sources.last().unwrap_or(&pitch)];
            panels.push((title, spectrogram(&network.decode(&mixed)?, 0, level)?));
        }
    }
    let loudest = panels
        .iter()
        .flat_map(|(_, values)| values)
        .copied()
        .fold(f32::MIN, f32::max);
    ensure!(
        loudest.is_finite(),
        "expected finite spectrograms, found {loudest}"
    );
    let panels: Vec<HeatPanel> = panels
        .iter()
        .map(|(title, values)| HeatPanel {
            title,
            y_name: "bin",
            rows: analysis.bins(),
            values,
            range: (loudest - RANGE, loudest),
        })
        .collect();
    let frames_per_second = f64::from(analysis.sample_rate_hz) / analysis.hop_length as f64;
    plot::plot_heat_grid(path, &panels, both.len(), frames_per_second)
}

/// All choices of one of two notes for each of some factors.
fn combinations(factors: usize) -> Vec<Vec<usize>> {
    let choice = |number: usize| (0..factors).map(|bit| number >> bit & 1).collect();
    (0..1 << factors).map(choice).collect()
}

/// The latents of one note, as a batch of one.
fn of_note(values: &Tensor, note: usize) -> Result<Tensor> {
    Ok(values.narrow(values.rank() - 2, note, 1)?.contiguous()?)
}

/// One note of log spectra (T, B, F), frame after frame, at its level.
fn spectrogram(spectra: &Tensor, note: usize, level: f32) -> Result<Vec<f32>> {
    let note = spectra
        .narrow(1, note, 1)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    Ok(note.into_iter().map(|value| value + level).collect())
}
