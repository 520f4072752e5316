//! Table 1: how much information about chords and onsets the harmony latents, the rhythm latents and the log-mel
//! contain.
//!
//! Probes are trained on nine tenths of the songs and scored on the rest, several times with other songs, weights and crops. All
//! representations have the same protocol: chords at one label for [`CHORD_FRAMES`] frames, onsets at every frame.

use std::collections::HashMap;
use std::path::Path;
use std::slice;

use anyhow::Result;
use candle_core::{Device, Tensor};
use graft_material::{progress, whole_file};
use model_runtime::tensors::to_tensor;
use model_runtime::{FactorMap, Network};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::chords::CLASSES;
use crate::probe::{Example, IGNORED, Probe, ProbeConfig, likeliest};
use crate::songs::{CHORD_FRAMES, Song, mel_frame, mel_frame_s};
use crate::{onsets, parallel};

/// One song in this many is for evaluation.
const EVALUATION_SHARE: usize = 10;

/// Crops: 6 s for chords, 3 s for onsets.
const CHORD_CROP_LABELS: usize = 64;
const ONSET_CROP_FRAMES: usize = 128;

/// Probabilities from which on a peak can be an onset; the one that is best on training songs counts.
const THRESHOLDS: [f32; 8] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];

/// Training songs on which the threshold is chosen.
const THRESHOLD_SONGS: usize = 20;

/// Training effort of the probes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Effort {
    /// Training steps of a probe.
    pub steps: usize,
    /// Repetitions, each with another split, other weights and other crops.
    pub seeds: usize,
}

/// Features of all songs in one of the compared representations.
pub struct Representation {
    width: usize,
    /// Of each song, frame after frame at the rate of mel frames.
    songs: Vec<Vec<f32>>,
}

impl Representation {
    /// The log-mels themselves.
    pub fn log_mel(songs: &[Song]) -> Self {
        Self {
            width: songs.first().map_or(0, |song| song.log_mel.n_mels()),
            songs: songs
                .iter()
                .map(|song| song.log_mel.values().to_vec())
                .collect(),
        }
    }

    /// The means of each factor's latent; a latent frame that stands for several mel frames is repeated for each of them.
    ///
    /// # Errors
    ///
    /// Returns an error if the network fails.
    pub fn latents(network: &dyn Network, songs: &[Song]) -> Result<FactorMap<Self>> {
        let bar = progress::bar("Encoding songs", songs.len() as u64);
        let empty = || Self {
            width: 0,
            songs: Vec::new(),
        };
        let layouts = network.factors().iter();
        let mut representations: FactorMap<Self> =
            layouts.map(|layout| (layout.factor, empty())).collect();
        for song in songs {
            let latents = network.encode(&to_tensor(slice::from_ref(&song.log_mel))?)?;
            for (factor, representation) in representations.iter_mut() {
                let (width, values) = frames_first(&latents[factor].mean, song.log_mel.frames())?;
                representation.width = width;
                representation.songs.push(values);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(representations)
    }

    fn chord_example(&self, index: usize, song: &Song) -> Example {
        let groups = self.songs[index].chunks_exact(self.width * CHORD_FRAMES);
        let mean = |group: &[f32], feature: usize| -> f32 {
            let values = group.iter().skip(feature).step_by(self.width);
            values.sum::<f32>() / CHORD_FRAMES as f32
        };
        Example {
            width: self.width,
            features: groups
                .flat_map(|group| (0..self.width).map(move |feature| mean(group, feature)))
                .collect(),
            labels: song.chords.clone(),
        }
    }

    fn onset_example(&self, index: usize, song: &Song, onsets_s: &[f64]) -> Example {
        let mut labels = vec![0; song.log_mel.frames()];
        for &onset_s in onsets_s {
            if let Some(label) = labels.get_mut(mel_frame(onset_s)) {
                *label = 1;
            }
        }
        Example {
            width: self.width,
            features: self.songs[index].clone(),
            labels,
        }
    }
}

/// Writes the inputs and labels of a representation's chord probe as safetensors, for other programs: `features`
/// (songs, labels, width) and `chords` (songs, labels), with 255 for labels that do not count. All songs are as long
/// as the shortest.
///
/// # Errors
///
/// Returns an error if the file cannot be written.
pub fn write_chord_examples(
    path: &Path,
    representation: &Representation,
    songs: &[Song],
) -> Result<()> {
    let labels = songs
        .iter()
        .map(|song| song.chords.len())
        .min()
        .unwrap_or(0);
    let (mut features, mut chords) = (Vec::new(), Vec::new());
    for (index, song) in songs.iter().enumerate() {
        let example = representation.chord_example(index, song);
        features.extend_from_slice(&example.features[..labels * example.width]);
        chords.extend(
            example.labels[..labels]
                .iter()
                .map(|&label| label.min(255) as u8),
        );
    }
    let tensors = HashMap::from([
        (
            "features",
            Tensor::from_vec(
                features,
                (songs.len(), labels, representation.width),
                &Device::Cpu,
            )?,
        ),
        (
            "chords",
            Tensor::from_vec(chords, (songs.len(), labels), &Device::Cpu)?,
        ),
    ]);
    whole_file::write(path, &safetensors::serialize(&tensors, None)?)
}

/// A latent (1, C, H, P) as rows of C * H values, one for each of `frames` frames, and their width.
pub fn frames_first(latent: &Tensor, frames: usize) -> Result<(usize, Vec<f32>)> {
    let (_, channels, height, latent_frames) = latent.dims4()?;
    let width = channels * height;
    let rows = latent
        .reshape((width, latent_frames))?
        .t()?
        .contiguous()?
        .to_vec2::<f32>()?;
    let each = frames.div_ceil(latent_frames);
    let rows = (0..frames).flat_map(|frame| rows[frame / each].iter().copied());
    Ok((width, rows.collect()))
}

/// Scores of the probes of one representation; one value per seed, from 0 to 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Share of frames with the right chord.
    pub chords: Vec<f64>,
    /// F-measure of onsets that a spectral-flux detector finds in the sound.
    pub detected_onsets: Vec<f64>,
    /// F-measure of the onsets of the notes and drums.
    pub struck_onsets: Vec<f64>,
    /// Frames of all evaluation songs by true and by predicted chord.
    pub confusion: Vec<Vec<u32>>,
}

/// One probe to train.
enum Task {
    Chords,
    Detected,
    Struck,
}

/// What a probe reached.
enum Score {
    Chords(Vec<Vec<u32>>),
    Detected(f64),
    Struck(f64),
}

/// Trains and scores the probes of one representation, on as many threads as there are processors.
///
/// # Errors
///
/// Returns an error if there are too few songs.
pub fn measure(representation: &Representation, songs: &[Song], effort: Effort) -> Result<Scores> {
    let tasks: Vec<(Task, u64)> = (0..effort.seeds as u64)
        .flat_map(|seed| [Task::Chords, Task::Detected, Task::Struck].map(|task| (task, seed)))
        .collect();
    let done = parallel::map(
        "Training probes",
        &tasks,
        || Ok(()),
        |(), (task, seed)| probe(representation, songs, task, effort.steps, *seed),
    )?;
    let mut scores = Scores {
        confusion: vec![vec![0; CLASSES]; CLASSES],
        ..Scores::default()
    };
    for score in done {
        match score {
            Score::Chords(confusion) => {
                scores.chords.push(diagonal_share(&confusion));
                let cells = scores.confusion.iter_mut().flatten();
                cells
                    .zip(confusion.iter().flatten())
                    .for_each(|(sum, count)| *sum += count);
            }
            Score::Detected(f) => scores.detected_onsets.push(f),
            Score::Struck(f) => scores.struck_onsets.push(f),
        }
    }
    Ok(scores)
}

/// Scores without any input: always the most frequent chord of the training songs, and an onset in every second
/// frame.
pub fn without_listening(songs: &[Song], effort: Effort) -> Scores {
    let mut scores = Scores::default();
    for seed in 0..effort.seeds as u64 {
        let (evaluation, training) = split(songs.len(), seed);
        let count = |songs_of: &[usize], class: u32| -> usize {
            let labels = songs_of.iter().flat_map(|&index| &songs[index].chords);
            labels.filter(|label| **label == class).count()
        };
        let commonest = (0..CLASSES as u32)
            .max_by_key(|&class| count(&training, class))
            .unwrap_or(0);
        let all: usize = (0..CLASSES as u32)
            .map(|class| count(&evaluation, class))
            .sum();
        scores
            .chords
            .push(count(&evaluation, commonest) as f64 / all.max(1) as f64);
        let everywhere = |truth: fn(&Song) -> &[f64]| {
            let scores = evaluation.iter().map(|&index| {
                let song = &songs[index];
                let frames = (0..song.log_mel.frames()).step_by(2);
                let estimate: Vec<f64> = frames.map(|frame| mel_frame_s(frame as f64)).collect();
                onsets::f_measure(truth(song), &estimate)
            });
            scores.sum::<f64>() / evaluation.len().max(1) as f64
        };
        scores
            .detected_onsets
            .push(everywhere(|song| &song.detected_s));
        scores.struck_onsets.push(everywhere(|song| &song.struck_s));
    }
    scores
}

/// Indices of the songs to evaluate on and to train on.
fn split(songs: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..songs).collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    let training = order.split_off(songs.div_ceil(EVALUATION_SHARE));
    (order, training)
}

fn probe(
    representation: &Representation,
    songs: &[Song],
    task: &Task,
    steps: usize,
    seed: u64,
) -> Result<Score> {
    let (evaluation, training) = split(songs.len(), seed);
    let config = |classes, crop_frames| ProbeConfig {
        classes,
        crop_frames,
        steps,
        seed,
    };
    let train = |examples: &dyn Fn(usize) -> Example, config: ProbeConfig| {
        let examples: Vec<Example> = training.iter().map(|&index| examples(index)).collect();
        Probe::train(&examples.iter().collect::<Vec<_>>(), &config)
    };
    let onset_score = |truth: fn(&Song) -> &[f64]| -> Result<f64> {
        let example =
            |index: usize| representation.onset_example(index, &songs[index], truth(&songs[index]));
        let probe = train(&example, config(2, ONSET_CROP_FRAMES))?;
        let found = |of: &[usize]| -> Result<Vec<(usize, Vec<f32>)>> {
            let found = of.iter().map(|&index| {
                let rows = probe.probabilities(&example(index))?;
                Ok((index, rows.iter().map(|row| row[1]).collect()))
            });
            found.collect()
        };
        let score = |found: &[(usize, Vec<f32>)], threshold: f32| -> f64 {
            let scores = found.iter().map(|(index, probabilities)| {
                let peaks = onsets::peaks(probabilities, threshold).into_iter();
                let estimate: Vec<f64> = peaks.map(|frame| mel_frame_s(frame as f64)).collect();
                onsets::f_measure(truth(&songs[*index]), &estimate)
            });
            scores.sum::<f64>() / found.len().max(1) as f64
        };
        let known = found(&training[..training.len().min(THRESHOLD_SONGS)])?;
        let best = THRESHOLDS
            .into_iter()
            .max_by(|&a, &b| score(&known, a).total_cmp(&score(&known, b)))
            .expect("there are thresholds");
        Ok(score(&found(&evaluation)?, best))
    };
    Ok(match task {
        Task::Chords => {
            let example = |index: usize| representation.chord_example(index, &songs[index]);
            let probe = train(&example, config(CLASSES, CHORD_CROP_LABELS))?;
            let mut confusion = vec![vec![0; CLASSES]; CLASSES];
            for &index in &evaluation {
                let rows = probe.probabilities(&example(index))?;
                for (row, &label) in rows.iter().zip(&songs[index].chords) {
                    if label != IGNORED {
                        confusion[label as usize][likeliest(row)] += 1;
                    }
                }
            }
            Score::Chords(confusion)
        }
        Task::Detected => Score::Detected(onset_score(|song| &song.detected_s)?),
        Task::Struck => Score::Struck(onset_score(|song| &song.struck_s)?),
    })
}

fn diagonal_share(confusion: &[Vec<u32>]) -> f64 {
    let right: u32 = confusion
        .iter()
        .enumerate()
        .map(|(class, row)| row[class])
        .sum();
    let all: u32 = confusion.iter().flatten().sum();
    f64::from(right) / f64::from(all.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;
    use vocoder::LogMel;

    /// Twenty songs of 300 frames. The bands 0 to 24 say the chord of each stretch of 20 labels faintly, band 30 rises at onsets,
    /// and all else is noise.
    fn songs() -> Vec<Song> {
        let mut random = StdRng::seed_from_u64(3);
        (0..20)
            .map(|index| {
                let frames = 300;
                let blocks: Vec<u32> = (0..4).map(|_| random.random_range(0..3)).collect();
                let chords: Vec<u32> = (0..frames / CHORD_FRAMES)
                    .map(|label| blocks[label / 20])
                    .collect();
                let struck: Vec<usize> = (0..frames)
                    .step_by(25)
                    .map(|frame| frame + random.random_range(0..9))
                    .collect();
                let mut log_mel = LogMel::new(32);
                for frame in 0..frames {
                    let mut bands: Vec<f32> =
                        (0..32).map(|_| random.random_range(-0.2..0.2)).collect();
                    bands[chords[frame / CHORD_FRAMES] as usize] += 1.0;
                    bands[30] += if struck.contains(&frame) { 2.0 } else { 0.0 };
                    log_mel.push_frame(&bands);
                }
                let struck_s: Vec<f64> = struck
                    .iter()
                    .map(|&frame| mel_frame_s(frame as f64))
                    .collect();
                Song {
                    name: index.to_string(),
                    log_mel,
                    chords,
                    detected_s: struck_s.clone(),
                    struck_s,
                    notes: Vec::new(),
                }
            })
            .collect()
    }

    #[test]
    fn what_a_representation_lacks_is_not_found_in_it() {
        let songs = songs();
        let full = Representation::log_mel(&songs);
        let keep = |bands: std::ops::Range<usize>| Representation {
            width: bands.len(),
            songs: full
                .songs
                .iter()
                .map(|song| {
                    song.chunks_exact(32)
                        .flat_map(|frame| frame[bands.clone()].to_vec())
                        .collect()
                })
                .collect(),
        };
        let effort = Effort {
            steps: 50,
            seeds: 1,
        };
        let [harmony, rhythm] = [keep(0..25), keep(25..32)]
            .map(|representation| measure(&representation, &songs, effort).unwrap());
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert_eq!(
            (harmony.chords.len(), harmony.confusion.len()),
            (1, CLASSES)
        );
        assert!(mean(&harmony.chords) > 0.9, "{harmony:?}");
        assert!(
            mean(&rhythm.struck_onsets) > 0.9 && mean(&rhythm.detected_onsets) > 0.9,
            "{rhythm:?}"
        );
        // One of three chords.
        assert!(mean(&rhythm.chords) < 0.6, "{rhythm:?}");
        assert!(mean(&harmony.struck_onsets) < 0.6, "{harmony:?}");
        let deaf = without_listening(&songs, effort);
        assert!(
            mean(&deaf.chords) < 0.6 && mean(&deaf.struck_onsets) < 0.6,
            "{deaf:?}"
        );
    }

    #[test]
    fn songs_are_for_training_or_for_evaluation() {
        let (evaluation, training) = split(95, 4);
        assert_eq!((evaluation.len(), training.len()), (10, 85));
        assert!(evaluation.iter().all(|index| !training.contains(index)));
        assert_ne!(split(95, 5).0, evaluation);
    }

    #[test]
    fn a_latent_for_several_frames_stands_in_each() {
        let latent =
            Tensor::from_vec(vec![1f32, 2.0, 3.0, 4.0], (1, 2, 1, 2), &Device::Cpu).unwrap();
        let (width, values) = frames_first(&latent, 4).unwrap();
        assert_eq!(width, 2);
        assert_eq!(values, [1.0, 3.0, 1.0, 3.0, 2.0, 4.0, 2.0, 4.0]);
    }
}
