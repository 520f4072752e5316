//! Measures of pitch and timbre of a frame (Luo et al., ISMIR 2020): linear probes of the timbre, clustering of the pitch, Fréchet
//! distances of decoded frames and the diversity of their pitches.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use candle_nn::ops;
use graft_material::progress;
use graft_train::luo::classifier::{FrameClassifier, accuracy, linear_probe};
use graft_train::luo::clusters::{assigned_accuracy, majority_accuracy};
use graft_train::luo::frames::NoteFrames;
use graft_train::luo::loss::one_hot;
use graft_train::luo::network::{LuoNetwork, Mode};
use graft_train::noise;
use graft_train::notes::{NoteSet, NotesMaterial};
use graft_train::recipe::luo::LuoRecipe;
use graft_train::trainee::luo::{best_network, draw_swaps};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::evaluate_notes::{FigureTable, grouped, picture};
use crate::frechet::sample_distance;

/// Seed of classifiers and random timbres.
const SEED: u64 = 1;

/// Random clusterings for the figures of chance.
const CHANCE_DRAWS: usize = 20;

/// Figures as published, in percent but for the distances and the diversity: pitch and instrument from the timbre, ACC, PM, FID of
/// reconstructions and of random timbres, CDS.
const PUBLISHED: [(&str, [f64; 7]); 3] = [
    (
        "supervised, published",
        [8.8, 87.7, 95.1, 96.0, 21.8, 23.8, 24.3],
    ),
    (
        "M0 (pairs alone), published",
        [16.4, 86.4, 78.5, 80.2, 23.9, 26.4, 11.5],
    ),
    (
        "M6 (all losses), published",
        [14.6, 86.4, 79.9, 80.9, 13.8, 19.2, 13.5],
    ),
];

/// A run to evaluate.
pub struct LuoRun {
    recipe: LuoRecipe,
    steps: u64,
    network: LuoNetwork,
}

impl LuoRun {
    /// The best weights of a run of `steps` steps, from the tensors of its checkpoint.
    ///
    /// # Errors
    ///
    /// As [`best_network`].
    pub fn new(recipe: &LuoRecipe, steps: u64, tensors: &HashMap<String, Tensor>) -> Result<Self> {
        Ok(Self {
            network: best_network(recipe, tensors)?,
            recipe: recipe.clone(),
            steps,
        })
    }
}

/// Notes with their frames and labels.
struct Notes {
    frames: NoteFrames,
    /// (notes, bands)
    rows: Tensor,
    pitches: Vec<u32>,
    instruments: Vec<u32>,
}

impl Notes {
    fn new(set: &NoteSet, recipe: &LuoRecipe) -> Result<Self> {
        let frames = NoteFrames::new(set, &recipe.mel, recipe.frames.at_seconds, &[], |label| {
            recipe.luo.pitch(label.key).is_some()
        })?;
        let pitch = |key| recipe.luo.pitch(key).unwrap_or_default() as u32;
        let shape = (frames.len(), frames.bands);
        Ok(Self {
            rows: Tensor::from_vec(frames.values.clone(), shape, &Device::Cpu)?,
            pitches: frames.labels.iter().map(|label| pitch(label.key)).collect(),
            instruments: frames
                .labels
                .iter()
                .map(|label| label.instrument as u32)
                .collect(),
            frames,
        })
    }

    fn len(&self) -> usize {
        self.pitches.len()
    }

    /// Those of the notes for whose index `keep` says so.
    fn chosen(&self, encoded: &Tensor, keep: impl Fn(usize) -> bool) -> Result<Chosen> {
        let notes: Vec<u32> = (0..self.len())
            .filter(|&note| keep(note))
            .map(|note| note as u32)
            .collect();
        let of = |labels: &[u32]| notes.iter().map(|&note| labels[note as usize]).collect();
        Ok(Chosen {
            pitches: of(&self.pitches),
            instruments: of(&self.instruments),
            timbres: encoded.index_select(&Tensor::new(notes, &Device::Cpu)?, 0)?,
        })
    }
}

/// Some notes as a network hears them.
struct Chosen {
    timbres: Tensor,
    pitches: Vec<u32>,
    instruments: Vec<u32>,
}

/// Shares that linear probes of the timbre get right, in percent.
#[derive(Clone, Copy)]
struct Probes {
    pitch: f64,
    instrument: f64,
}

impl Probes {
    fn fit(training: &Chosen, test: &Chosen, pitches: usize, instruments: usize) -> Result<Self> {
        let probe = |labels: fn(&Chosen) -> &Vec<u32>, classes| {
            let training = (&training.timbres, labels(training).as_slice());
            linear_probe(training, (&test.timbres, labels(test)), classes)
        };
        Ok(Self {
            pitch: 100.0 * probe(|notes| &notes.pitches, pitches)?,
            instrument: 100.0 * probe(|notes| &notes.instruments, instruments)?,
        })
    }

    fn combined(self) -> f64 {
        (self.instrument + 100.0 - self.pitch) / 2.0
    }
}

/// Clusters and classes of the pitch of notes.
fn clustered(notes: &Notes, clusters: &[u32]) -> Vec<(usize, usize)> {
    let items = clusters.iter().zip(&notes.pitches);
    items.map(|(&a, &b)| (a as usize, b as usize)).collect()
}

/// The tables. Writes a picture of swapped frames for each name of runs into `out`, if there is such a folder.
///
/// # Errors
///
/// Returns an error if there are no notes to judge by.
pub fn report(runs: Vec<LuoRun>, material: &NotesMaterial, out: Option<&Path>) -> Result<String> {
    let recipe = runs[0].recipe.clone();
    let parts = &material.parts;
    let training = Notes::new(&parts.training, &recipe)?;
    let unseen_keys = Notes::new(&parts.unseen_keys, &recipe)?;
    ensure!(
        unseen_keys.len() > 1,
        "expected notes of unseen keys (notes.unseen_keys_share), found {}",
        unseen_keys.len()
    );
    let seen = recipe.notes.seen_instruments();
    let judges = Judges::train(&training, seen, recipe.luo.pitches)?;

    let columns = [
        "pitch from timbre, %",
        "instrument from timbre, %",
        "combined, %",
        "ACC, %",
        "PM, %",
        "FID, reconstructed",
        "FID, random timbre",
        "CDS",
    ];
    let mut table = FigureTable::new(&columns);
    let mut others = Others::new(material, &recipe)?;
    for (name, runs) in grouped(runs.into_iter().map(|run| (run.recipe.name.clone(), run))) {
        let mut cells = vec![Vec::new(); columns.len()];
        for run in &runs {
            let figures = figures(run, &training, &unseen_keys, &judges)?;
            for (cell, figure) in cells.iter_mut().zip(figures) {
                cell.push(figure);
            }
        }
        let steps: Vec<String> = runs.iter().map(|run| run.steps.to_string()).collect();
        table.row(format!("{name} ({} steps)", steps.join(", ")), &cells, 1);
        others.add(&name, &runs, &training)?;
        if let (Some(out), Some(run)) = (out, runs.first()) {
            let path = picture(out, &name);
            let instruments = &parts.unseen_keys.instruments;
            draw_swaps(&path, &run.network, &unseen_keys.frames, instruments)?;
        }
    }
    table.row(
        "chance",
        &chance(&training, &unseen_keys, recipe.luo.pitches),
        1,
    );
    for (name, [pitch, instrument, acc, pm, reconstructed, random, cds]) in PUBLISHED {
        let combined = (instrument + 100.0 - pitch) / 2.0;
        let figures = [
            pitch,
            instrument,
            combined,
            acc,
            pm,
            reconstructed,
            random,
            cds,
        ];
        table.row(name, &figures.map(|figure| vec![figure]), 1);
    }
    Ok(format!(
        "# Pitch and timbre of a frame\n\n\
         Ours: {} rendered notes of {seen} General MIDI programs to train on, {} of other keys to judge by; a sound font shares recordings \
         between neighbouring keys. Published: 1885 recorded notes of 12 instruments, a tenth of which, drawn at random, to judge by.\n\n\
         ## Unseen keys of the programs trained on\n\n\
         Linear probes are fitted on the notes trained on. ACC and PM: pitches as clusters, each with a key of its own and with its \
         commonest key. FID: by an instrument classifier with an accuracy of {:.1} % on these notes. CDS: by a pitch classifier with \
         {:.1} %; {} at most. Chance: the commonest class, and random clusters.\n\n{}\n{}",
        training.len(),
        unseen_keys.len(),
        100.0
            * accuracy(
                &judges.instrument.logits(&unseen_keys.rows)?,
                &unseen_keys.instruments
            )?,
        100.0
            * accuracy(
                &judges.pitch.logits(&unseen_keys.rows)?,
                &unseen_keys.pitches
            )?,
        recipe.luo.pitches,
        table.markdown(),
        others.markdown(),
    ))
}

/// Classifiers trained on the notes that the networks trained on.
struct Judges {
    instrument: FrameClassifier,
    pitch: FrameClassifier,
}

impl Judges {
    fn train(training: &Notes, instruments: usize, pitches: usize) -> Result<Self> {
        let bar = progress::bar("Training classifiers", 2);
        let train = |labels, classes| {
            let classifier = FrameClassifier::train(&training.rows, labels, classes, SEED);
            bar.inc(1);
            classifier
        };
        let judges = Self {
            instrument: train(&training.instruments, instruments)?,
            pitch: train(&training.pitches, pitches)?,
        };
        bar.finish_and_clear();
        Ok(judges)
    }
}

/// The figures of a run on notes of unseen keys, in the order of the table's columns.
fn figures(run: &LuoRun, training: &Notes, test: &Notes, judges: &Judges) -> Result<[f64; 8]> {
    let (network, sizes) = (&run.network, &run.recipe.luo);
    let heard = network.encode(&training.rows, Mode::Inference)?;
    let encoded = network.encode(&test.rows, Mode::Inference)?;
    let probes = Probes::fit(
        &training.chosen(&heard.mean, |_| true)?,
        &test.chosen(&encoded.mean, |_| true)?,
        sizes.pitches,
        run.recipe.notes.seen_instruments(),
    )?;
    let likeliest = encoded.logits.argmax(1)?;
    let items = clustered(test, &likeliest.to_vec1()?);
    let pitches = one_hot(&likeliest, sizes.pitches)?;
    let features = |rows: &Tensor| -> Result<Vec<Vec<f32>>> {
        Ok(judges.instrument.features(rows)?.to_vec2()?)
    };
    let real = features(&test.rows)?;
    let reconstructed = network.decode(&encoded.mean, &pitches, Mode::Inference)?;
    let mut random = StdRng::seed_from_u64(SEED);
    let noise = noise::normal(encoded.mean.elem_count(), &mut random);
    let noise = Tensor::from_vec(noise, encoded.mean.shape(), &Device::Cpu)?;
    let drawn = network.decode(&noise, &pitches, Mode::Inference)?;
    Ok([
        probes.pitch,
        probes.instrument,
        probes.combined(),
        100.0 * assigned_accuracy(&items, sizes.pitches),
        100.0 * majority_accuracy(&items, sizes.pitches),
        sample_distance(&real, &features(&reconstructed)?)?,
        sample_distance(&real, &features(&drawn)?)?,
        diversity(network, &encoded.mean, sizes.pitches, &judges.pitch)?,
    ])
}

/// How many pitches the network can tell a decoder to play (conditional diversity score): all timbres are decoded with each pitch,
/// and a classifier says what it hears. The exponential of the mean divergence of what it hears for a pitch from what it hears for all.
fn diversity(
    network: &LuoNetwork,
    timbres: &Tensor,
    pitches: usize,
    classifier: &FrameClassifier,
) -> Result<f64> {
    let heard = (0..pitches as u32)
        .map(|pitch| {
            let pitch = Tensor::full(pitch, timbres.dim(0)?, &Device::Cpu)?;
            let pitch = one_hot(&pitch, pitches)?;
            let decoded = network.decode(timbres, &pitch, Mode::Inference)?;
            let probabilities = ops::softmax(&classifier.logits(&decoded)?, 1)?;
            Ok(probabilities.mean(0)?.to_vec1()?)
        })
        .collect::<Result<Vec<Vec<f32>>>>()?;
    Ok(exp_mean_divergence(&heard))
}

/// The exponential of the mean divergence of each distribution from their mean.
fn exp_mean_divergence(distributions: &[Vec<f32>]) -> f64 {
    let count = distributions.len() as f64;
    let classes = distributions.first().map_or(0, Vec::len);
    let mut mean = vec![0.0; classes];
    for distribution in distributions {
        for (mean, &p) in mean.iter_mut().zip(distribution) {
            *mean += f64::from(p) / count;
        }
    }
    let divergence = |distribution: &Vec<f32>| -> f64 {
        let terms = distribution.iter().zip(&mean);
        let terms = terms.filter(|(p, _)| **p > 0.0);
        terms
            .map(|(&p, mean)| f64::from(p) * (f64::from(p) / mean).ln())
            .sum()
    };
    (distributions.iter().map(divergence).sum::<f64>() / count).exp()
}

/// Figures of networks that know nothing.
fn chance(training: &Notes, test: &Notes, pitches: usize) -> [Vec<f64>; 8] {
    let pitch = 100.0 * commonest(&training.pitches, &test.pitches);
    let instrument = 100.0 * commonest(&training.instruments, &test.instruments);
    let mut random = StdRng::seed_from_u64(SEED);
    let draws: Vec<Vec<(usize, usize)>> = (0..CHANCE_DRAWS)
        .map(|_| {
            let clusters = (0..test.len()).map(|_| random.random_range(0..pitches as u32));
            clustered(test, &clusters.collect::<Vec<_>>())
        })
        .collect();
    let mean = |accuracy: fn(&[(usize, usize)], usize) -> f64| {
        let sum: f64 = draws.iter().map(|items| accuracy(items, pitches)).sum();
        vec![100.0 * sum / CHANCE_DRAWS as f64]
    };
    [
        vec![pitch],
        vec![instrument],
        vec![(instrument + 100.0 - pitch) / 2.0],
        mean(assigned_accuracy),
        mean(majority_accuracy),
        vec![],
        vec![],
        vec![1.0],
    ]
}

/// Share of `test` that has the commonest class of `training`.
fn commonest(training: &[u32], test: &[u32]) -> f64 {
    let count = |of: &[u32], class: u32| of.iter().filter(|&&other| other == class).count();
    let common = training
        .iter()
        .copied()
        .max_by_key(|&class| count(training, class));
    let right = common.map_or(0, |class| count(test, class));
    right as f64 / test.len().max(1) as f64
}

/// Figures on notes of other programs and on recorded notes.
struct Others {
    sets: Vec<(String, Notes, usize)>,
    pitches: usize,
    table: FigureTable,
}

impl Others {
    fn new(material: &NotesMaterial, recipe: &LuoRecipe) -> Result<Self> {
        let programs = &material.parts.unseen_programs;
        let rendered = [("unseen programs".to_owned(), programs)];
        let recorded = material.recorded.iter();
        let recorded = recorded.map(|(name, set)| (format!("recorded: {name}"), set));
        let sets = rendered.into_iter().chain(recorded).map(|(name, set)| {
            let instruments = set.instruments.len();
            Ok((name, Notes::new(set, recipe)?, instruments))
        });
        let sets = sets.collect::<Result<Vec<_>>>()?.into_iter();
        let columns = [
            "notes",
            "pitch from timbre, %",
            "instrument from timbre, %",
            "chance, %",
            "ACC, %",
            "PM, %",
            "squared distance",
        ];
        Ok(Self {
            // Half of the notes are to fit probes on.
            sets: sets.filter(|(_, notes, _)| notes.len() > 3).collect(),
            pitches: recipe.luo.pitches,
            table: FigureTable::new(&columns),
        })
    }

    fn add(&mut self, name: &str, runs: &[LuoRun], training: &Notes) -> Result<()> {
        let trained = ("training keys".to_owned(), training, None);
        let others = self.sets.iter();
        let others = others.map(|(set, notes, count)| (set.clone(), notes, Some(*count)));
        for (set, notes, instruments) in [trained].into_iter().chain(others) {
            let mut cells = vec![Vec::new(); 7];
            cells[0].push(notes.len() as f64);
            for run in runs {
                let encoded = run.network.encode(&notes.rows, Mode::Inference)?;
                let likeliest = encoded.logits.argmax(1)?;
                let items = clustered(notes, &likeliest.to_vec1()?);
                if let Some(instruments) = instruments {
                    // Fitted on every other key, so that no key is in both halves.
                    let fitted = |note: usize| notes.pitches[note] % 2 == 0;
                    let fit = notes.chosen(&encoded.mean, fitted)?;
                    let test = notes.chosen(&encoded.mean, |note| !fitted(note))?;
                    // A small folder may have no key for one half.
                    if !fit.instruments.is_empty() && !test.instruments.is_empty() {
                        let instrument = linear_probe(
                            (&fit.timbres, &fit.instruments),
                            (&test.timbres, &test.instruments),
                            instruments,
                        )?;
                        cells[2].push(100.0 * instrument);
                        let common = commonest(&fit.instruments, &test.instruments);
                        cells[3] = vec![100.0 * common];
                    }
                    // The pitch is fitted on the notes trained on: the halves have no keys in common.
                    let heard = run.network.encode(&training.rows, Mode::Inference)?;
                    let pitch = linear_probe(
                        (&heard.mean, &training.pitches),
                        (&encoded.mean, &notes.pitches),
                        self.pitches,
                    )?;
                    cells[1].push(100.0 * pitch);
                }
                cells[4].push(100.0 * assigned_accuracy(&items, self.pitches));
                cells[5].push(100.0 * majority_accuracy(&items, self.pitches));
                let pitches = one_hot(&likeliest, self.pitches)?;
                let decoded = run
                    .network
                    .decode(&encoded.mean, &pitches, Mode::Inference)?;
                let distance = (decoded - &notes.rows)?.sqr()?.sum(1)?.mean_all()?;
                cells[6].push(distance.to_scalar::<f32>()?.into());
            }
            self.table.row(format!("{name}, {set}"), &cells, 1);
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        format!(
            "## Other notes\n\nOf unseen programs and recorded notes, which were never trained on, the instrument is probed with every \
             other key for fitting, beside the share of the commonest instrument (chance). The squared distance of a frame to its \
             reconstruction is the sum over its bands.\n\n{}",
            self.table.markdown()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::audio_cache::Pcm;
    use graft_material::testing::TestFolder;
    use graft_train::checkpoint::CheckpointHeader;
    use graft_train::notes::{Note, NoteLabel, NoteParts};
    use graft_train::recipe::Recipe;
    use graft_train::recipe::notes::NotesRecipe;
    use graft_train::trainee::Trainee;
    use graft_train::trainee::luo::LuoTrainee;
    use graft_train::weights::Weights;

    /// Notes of two instruments, with one partial and with four.
    fn notes(keys: impl Iterator<Item = u8> + Clone) -> NoteSet {
        let of = |instrument: usize| {
            keys.clone().map(move |key| {
                let hz = 440.0 * ((f64::from(key) - 69.0) / 12.0).exp2();
                let sample = |n: u32| {
                    let phase = std::f64::consts::TAU * hz * f64::from(n) / 22_050.0;
                    let partials = 1..=1 + 3 * instrument as u32;
                    let sum: f64 = partials.map(|k| (phase * f64::from(k)).sin()).sum();
                    (0.1 * sum) as f32
                };
                Note {
                    label: NoteLabel {
                        instrument,
                        key,
                        velocity: 100,
                    },
                    pcm: Pcm::amplified(&(0..6615).map(sample).collect::<Vec<_>>(), 1.0),
                }
            })
        };
        NoteSet {
            instruments: vec!["flute".to_owned(), "violin".to_owned()],
            sample_rate_hz: 22_050,
            notes: of(0).chain(of(1)).collect(),
        }
    }

    #[test]
    fn a_report_has_figures_of_runs_beside_chance_and_published_ones() {
        let text = include_str!("../../recipes/luo.toml")
            .replace("pitches = 82", "pitches = 24")
            .replace("lowest_key = 24", "lowest_key = 60")
            .replace("hidden = 512", "hidden = 32")
            .replace("batch = 256", "batch = 16");
        let programs = text.lines().find(|line| line.starts_with("programs"));
        let text = text.replace(programs.unwrap(), "programs = [40, 73]");
        let Recipe::Notes(NotesRecipe::Luo(recipe)) = toml_recipe(&text) else {
            panic!("expected a recipe for pitch and timbre of a frame");
        };
        let material = || NotesMaterial {
            parts: NoteParts {
                training: notes((60..84).step_by(2)),
                validation: notes(61..63),
                unseen_keys: notes((65..81).step_by(2)),
                unseen_programs: notes(70..76),
            },
            // All in one half of the keys.
            recorded: vec![("mine".to_owned(), notes([62, 64].into_iter()))],
        };
        let mut header = CheckpointHeader::new(toml_recipe(&text), None);
        let weights = Weights::Random;
        let device = Device::Cpu;
        let mut trainee =
            LuoTrainee::new(recipe.clone(), &header, &weights, material(), device).unwrap();
        let mut runs = Vec::new();
        for step in 0..4 {
            header.step = step;
            let batch = trainee.next_batch().unwrap();
            trainee.step(&header, batch).unwrap();
            if step % 2 == 1 {
                trainee.validate(&header).unwrap();
                let state = trainee.state().unwrap();
                runs.push(LuoRun::new(&recipe, step, &state).unwrap());
            }
        }
        let folder = TestFolder::new("luo-report");
        let report = report(runs, &material(), Some(folder.path())).unwrap();
        let rows: Vec<&str> = report
            .lines()
            .filter(|line| line.starts_with("| "))
            .collect();
        for name in [
            "| luo (1, 3 steps) |",
            "| chance |",
            "| M6 (all losses), published | 14.6 | 86.4 | 85.9 |",
            "| luo, training keys | 24.0 |",
            "| luo, unseen programs | 12.0 |",
            "| luo, recorded: mine | 4.0 |",
        ] {
            assert!(
                rows.iter().any(|row| row.starts_with(name)),
                "{name}: {report}"
            );
        }
        let own = rows.iter().find(|row| row.starts_with("| luo (")).unwrap();
        assert_eq!(own.matches('±').count(), 8, "{own}");
        assert!(folder.path().join("luo.png").exists());
    }

    fn toml_recipe(text: &str) -> Recipe {
        let folder = TestFolder::new("luo-recipe");
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        Recipe::load(&path).unwrap()
    }

    #[test]
    fn diversity_is_the_number_of_distinct_distributions() {
        let distinct = |count: usize| -> Vec<Vec<f32>> {
            let one = |i: usize| {
                (0..8)
                    .map(|j| f32::from(u8::from(i % count == j)))
                    .collect()
            };
            (0..8).map(one).collect()
        };
        for count in [1, 2, 4, 8] {
            let found = exp_mean_divergence(&distinct(count));
            assert!((found - count as f64).abs() < 1e-9, "{count}: {found}");
        }
    }

    #[test]
    fn the_commonest_class_is_that_of_the_training_notes() {
        assert_eq!(commonest(&[1, 2, 2], &[1, 1, 1, 2]), 0.25);
        assert_eq!(commonest(&[], &[1]), 0.0);
    }
}
