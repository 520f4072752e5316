//! The tables of Tanaka et al. (APSIPA 2022): what each latent of single notes tells about instrument and pitch.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use graft_train::notes::{Note, NoteSet, NotesMaterial};
use graft_train::perturbation::spectra::Analysis;
use graft_train::recipe::tanaka::TanakaRecipe;
use graft_train::tanaka::batches::NoteAnalysis;
use graft_train::tanaka::network::Tanaka;
use graft_train::tanaka::pictures;
use graft_train::trainee::tanaka::trained;
use model_runtime::{Factor, FactorMap};

use crate::evaluate_notes::{FigureTable, grouped, picture};
use crate::neighbours::Neighbours;

/// Notes that the network hears at once.
const BATCH: usize = 64;

/// The order of the columns.
const FACTORS: [Factor; 3] = [Factor::Timbre, Factor::Variation, Factor::Pitch];

/// Columns of a row: the mean square; instrument, then pitch, from each factor.
const COLUMNS: [&str; 7] = [
    "MSE",
    "instrument from timbre",
    "from variation",
    "from pitch",
    "pitch from timbre",
    "from variation",
    "from pitch",
];

/// Figures of a row; none for what a network lacks.
type Figures = [Option<f64>; COLUMNS.len()];

/// The published rows of Tables II and III.
const PUBLISHED: [(&str, Figures); 5] = [
    (
        "published: three factors, pitched notes",
        published([0.553, 0.974, 0.340, 0.395, 0.107, 0.024, 0.751]),
    ),
    (
        "published: the same with percussion",
        published([0.549, 0.962, 0.324, 0.416, 0.145, 0.054, 0.777]),
    ),
    (
        "published: three factors, conditional, pitched notes",
        published([0.553, 0.981, 0.334, 0.476, 0.096, 0.024, 0.770]),
    ),
    (
        "published: timbre and pitch only",
        published([0.596, 0.958, NONE, 0.454, 0.051, NONE, 0.766]),
    ),
    (
        "published: variation (local timbre) and pitch only",
        published([0.557, NONE, 0.659, 0.445, NONE, 0.066, 0.813]),
    ),
];

/// No published figure.
const NONE: f64 = -1.0;

const fn published(values: [f64; COLUMNS.len()]) -> Figures {
    let mut figures = [None; COLUMNS.len()];
    let mut index = 0;
    while index < values.len() {
        if values[index] >= 0.0 {
            figures[index] = Some(values[index]);
        }
        index += 1;
    }
    figures
}

/// A run to evaluate.
pub struct TanakaRun {
    recipe: TanakaRecipe,
    steps: u64,
    network: Tanaka,
}

impl TanakaRun {
    /// The averaged weights of a run of `steps` steps, from the tensors of its checkpoint.
    ///
    /// # Errors
    ///
    /// Returns an error if the tensors do not match the recipe.
    pub fn new(
        recipe: &TanakaRecipe,
        steps: u64,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<Self> {
        Ok(Self {
            network: trained(recipe, tensors, &Device::Cpu)?,
            recipe: recipe.clone(),
            steps,
        })
    }

    fn hear(&self, set: &NoteSet) -> Result<Vec<Heard>> {
        let seen = self.recipe.notes.programs.len();
        let drums = self.recipe.notes.drums.then_some(seen);
        hear(&self.network, &self.recipe.analysis, drums, set)
    }

    /// The instruments of recordings are numbered by themselves.
    fn hear_recorded(&self, set: &NoteSet) -> Result<Vec<Heard>> {
        hear(&self.network, &self.recipe.analysis, None, set)
    }
}

/// One note as a network hears it.
struct Heard {
    instrument: usize,
    /// `None` for drums, whose keys are no pitches.
    key: Option<u8>,
    /// Latents; those of frames as the mean over the frames that sound.
    latents: FactorMap<Vec<f32>>,
    /// Mean squared difference of the log magnitudes of decoded and true frames that sound.
    mean_square: f64,
}

/// Notes as a network hears them. The instrument `drums` has no pitch.
fn hear(
    network: &Tanaka,
    analysis: &Analysis,
    drums: Option<usize>,
    set: &NoteSet,
) -> Result<Vec<Heard>> {
    let mut batches = NoteAnalysis::new(analysis)?;
    let mut heard = Vec::with_capacity(set.notes.len());
    for notes in set.notes.chunks(BATCH) {
        let notes: Vec<&Note> = notes.iter().collect();
        let (inputs, target) = batches.plain(&notes)?.tensors(&Device::Cpu)?;
        let (_, values) = network.encode(&inputs, |latent| Ok(latent.mean.clone()))?;
        let decoded = network.decode(&values)?;
        // The mean over the frames that sound: (T, B, C) to (B, C).
        let sounding = inputs.mask.sum(0)?;
        let over_frames = |x: &Tensor| {
            x.broadcast_mul(&inputs.mask)?
                .sum(0)?
                .broadcast_div(&sounding)
        };
        let squares = (decoded - target)?.sqr()?.mean_keepdim(2)?;
        let squares = over_frames(&squares)?.flatten_all()?.to_vec1::<f32>()?;
        let latents = values.try_map(|_, value| match value.rank() {
            2 => value.to_vec2::<f32>(),
            _ => over_frames(value)?.to_vec2(),
        })?;
        heard.extend(notes.iter().enumerate().map(|(index, note)| {
            let instrument = note.label.instrument;
            Heard {
                instrument,
                key: (Some(instrument) != drums).then_some(note.label.key),
                latents: latents.map(|_, latents| latents[index].clone()),
                mean_square: squares[index].into(),
            }
        }));
    }
    Ok(heard)
}

/// Tables II and III, pitch by register, and figures on recorded notes. Writes a picture of swapped spectrograms for each name of
/// runs into `out`, if there is such a folder.
///
/// # Errors
///
/// Returns an error if a network fails, or there are no notes to judge by.
pub fn report(
    runs: Vec<TanakaRun>,
    material: &NotesMaterial,
    out: Option<&Path>,
) -> Result<String> {
    let parts = &material.parts;
    ensure!(
        !parts.training.notes.is_empty() && !parts.unseen_keys.notes.is_empty(),
        "expected notes of unseen keys (notes.unseen_keys_share), found none"
    );
    let limit_key = key_at_the_cut(&runs[0].recipe.analysis);
    let mut tables = Tables::new(limit_key, &material.recorded);
    for (name, runs) in grouped(runs.into_iter().map(|run| (run.recipe.name.clone(), run))) {
        let steps: Vec<String> = runs.iter().map(|run| run.steps.to_string()).collect();
        let title = format!("{name} ({} steps)", steps.join(", "));
        let heard = runs.iter().map(|run| {
            Ok(HeardParts {
                training: run.hear(&parts.training)?,
                unseen_keys: run.hear(&parts.unseen_keys)?,
                unseen_programs: run.hear(&parts.unseen_programs)?,
                recorded: material
                    .recorded
                    .iter()
                    .map(|(_, set)| run.hear_recorded(set))
                    .collect::<Result<_>>()?,
            })
        });
        tables.add(&title, &heard.collect::<Result<Vec<_>>>()?);
        if let (Some(out), Some(run)) = (out, runs.first()) {
            let pair = pictures::pair(&parts.unseen_keys.notes)?;
            let path = picture(out, &name);
            let analysis = &run.recipe.analysis;
            pictures::draw_swaps(&path, &run.network, analysis, pair, &Device::Cpu)?;
        }
    }
    Ok(tables.markdown())
}

/// The key whose period is the cut between envelope and fine structure.
fn key_at_the_cut(analysis: &Analysis) -> u8 {
    let hz = f64::from(analysis.sample_rate_hz) / analysis.cut as f64;
    (69.0 + 12.0 * (hz / 440.0).log2()).round() as u8
}

/// The notes of all parts as one run hears them.
struct HeardParts {
    training: Vec<Heard>,
    unseen_keys: Vec<Heard>,
    unseen_programs: Vec<Heard>,
    recorded: Vec<Vec<Heard>>,
}

/// The tables of a report.
struct Tables {
    limit_key: u8,
    keys: FigureTable,
    programs: FigureTable,
    registers: FigureTable,
    recorded: Vec<(String, FigureTable)>,
}

impl Tables {
    fn new(limit_key: u8, recorded: &[(String, NoteSet)]) -> Self {
        let table = |(name, _): &(String, NoteSet)| (name.clone(), FigureTable::new(&COLUMNS));
        Self {
            limit_key,
            keys: FigureTable::new(&COLUMNS),
            programs: FigureTable::new(&COLUMNS),
            registers: FigureTable::new(&[
                "pitch from timbre",
                "from variation",
                "from pitch",
                "chance",
            ]),
            recorded: recorded.iter().map(table).collect(),
        }
    }

    /// Adds the rows of runs with the same name.
    fn add(&mut self, title: &str, runs: &[HeardParts]) {
        let mut keys = Rows::new(title);
        let mut programs = Rows::new(title);
        let mut recorded: Vec<Rows> = self.recorded.iter().map(|_| Rows::new(title)).collect();
        let limit = self.limit_key;
        let mut low = Vec::new();
        let mut high = Vec::new();
        for run in runs {
            let training: Vec<&Heard> = run.training.iter().collect();
            let unseen: Vec<&Heard> = run.unseen_keys.iter().collect();
            keys.add(&unseen, &training, &training);
            let [fitted, tests] = halves(&run.unseen_programs);
            programs.add(&tests, &fitted, &training);
            low.push(register(&unseen, &training, |key| key < limit));
            high.push(register(&unseen, &training, |key| key >= limit));
            for (rows, notes) in recorded.iter_mut().zip(&run.recorded) {
                let notes: Vec<&Heard> = notes.iter().collect();
                rows.add_left_out(&notes, &training);
            }
        }
        keys.write(&mut self.keys);
        programs.write(&mut self.programs);
        for ((_, table), rows) in self.recorded.iter_mut().zip(&recorded) {
            rows.write(table);
        }
        let names = [format!("below key {limit}"), format!("from key {limit} on")];
        for (name, registers) in names.iter().zip([low, high]) {
            // The same notes for all runs.
            let notes = registers
                .first()
                .map_or(0, |register: &Register| register.notes);
            let figures: Vec<_> = registers.iter().map(|register| register.figures).collect();
            self.registers.row(
                format!("{title}, {name} ({notes} notes)"),
                &cells(&figures),
                3,
            );
        }
    }

    fn markdown(mut self) -> String {
        for (name, figures) in PUBLISHED {
            self.keys.row(name, &cells(&[figures]), 3);
        }
        let mut text = format!(
            "# Timbre, pitch and variation of a note\n\n\
             Shares of notes whose instrument or pitch the five nearest neighbours name, by the latents of one factor (those of frames \
             averaged over the frames that sound), and the mean squared difference of decoded log magnitudes in square nepers per bin. \
             Chance: guessing as often as the neighbours have each class. Drums count as one instrument and have no pitch. Figures of \
             several runs: mean and standard deviation.\n\n\
             Ours: notes of a sound font, judged on keys or programs that were not trained on; neighbouring programs and keys share \
             recordings. Published: 62,704 recorded notes of RWC, of which 15 % were drawn at random to judge by, so that other notes \
             of the same instruments and keys were trained on.\n\n\
             ## Unseen keys of the programs trained on\n\nNeighbours are the notes trained on.\n\n{}\n\
             ## Unseen programs\n\nNeighbours are every other key of these programs for the instrument, and the notes trained on for \
             the pitch.\n\n{}\n\
             ## Pitch by register\n\nUnseen keys. The period of key {} is the cut between envelope and fine structure: higher notes \
             have partials so far apart that the envelope follows them, and timbre and variation hear their pitch.\n\n{}",
            self.keys.markdown(),
            self.programs.markdown(),
            self.limit_key,
            self.registers.markdown(),
        );
        for (name, table) in &self.recorded {
            text += &format!(
                "\n## Recorded notes: {name}\n\nNever trained on. Neighbours are the other recordings for the instrument, and the notes \
                 trained on for the pitch.\n\n{}",
                table.markdown()
            );
        }
        text
    }
}

/// Figures of runs with the same name, and of chance.
struct Rows {
    title: String,
    figures: Vec<Figures>,
    chance: Vec<Figures>,
}

impl Rows {
    fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            figures: Vec::new(),
            chance: Vec::new(),
        }
    }

    /// Adds figures on `tests`, with other notes as neighbours for instruments and for pitches.
    fn add(&mut self, tests: &[&Heard], instruments: &[&Heard], pitches: &[&Heard]) {
        let instrument = |factor| {
            let neighbours = by_instrument(instruments, factor);
            score(tests, factor, instrument_of, |_, latents| {
                neighbours.class(latents)
            })
        };
        let chance = by_instrument(instruments, Factor::Pitch);
        self.add_with(tests, pitches, FACTORS.map(instrument), &chance);
    }

    /// The same with all other tests as neighbours for the instruments.
    fn add_left_out(&mut self, tests: &[&Heard], pitches: &[&Heard]) {
        let instrument = |factor| {
            let neighbours = by_instrument(tests, factor);
            score(tests, factor, instrument_of, |index, latents| {
                neighbours.class_without(latents, Some(index))
            })
        };
        let chance = by_instrument(tests, Factor::Pitch);
        self.add_with(tests, pitches, FACTORS.map(instrument), &chance);
    }

    fn add_with(
        &mut self,
        tests: &[&Heard],
        pitches: &[&Heard],
        instruments: [Option<f64>; FACTORS.len()],
        by_instrument: &Neighbours,
    ) {
        let pitch = |factor| {
            let neighbours = by_pitch(pitches, factor);
            score(tests, factor, pitch_of, |_, latents| {
                neighbours.class(latents)
            })
        };
        let squares = mean(tests.iter().map(|note| note.mean_square));
        let row = |square, [a, b, c]: [_; 3], [d, e, f]: [_; 3]| [square, a, b, c, d, e, f];
        self.figures
            .push(row(squares, instruments, FACTORS.map(pitch)));
        let chance = |neighbours: &Neighbours, class: fn(&Heard) -> Option<usize>| {
            let classes: Vec<usize> = tests.iter().filter_map(|note| class(note)).collect();
            [(!classes.is_empty()).then(|| neighbours.chance(&classes)); FACTORS.len()]
        };
        self.chance.push(row(
            None,
            chance(by_instrument, instrument_of),
            chance(&by_pitch(pitches, Factor::Pitch), pitch_of),
        ));
    }

    fn write(&self, table: &mut FigureTable) {
        table.row(self.title.clone(), &cells(&self.figures), 3);
        // The same for all runs.
        table.row(
            "chance",
            &cells(&self.chance[..self.chance.len().min(1)]),
            3,
        );
    }
}

/// Figures of some runs by column.
fn cells<const N: usize>(runs: &[[Option<f64>; N]]) -> Vec<Vec<f64>> {
    let column = |index: usize| runs.iter().filter_map(|figures| figures[index]).collect();
    (0..N).map(column).collect()
}

/// Pitch in a register.
struct Register {
    /// From timbre, variation and pitch, and chance.
    figures: [Option<f64>; 4],
    notes: usize,
}

fn register(tests: &[&Heard], training: &[&Heard], is_in: impl Fn(u8) -> bool) -> Register {
    let tests = tests.iter().filter(|note| note.key.is_some_and(&is_in));
    let tests: Vec<&Heard> = tests.copied().collect();
    let mut rows = Rows::new("");
    rows.add(&tests, training, training);
    let [_, _, _, _, timbre, variation, pitch] = rows.figures[0];
    Register {
        figures: [timbre, variation, pitch, rows.chance[0][4]],
        notes: tests.len(),
    }
}

/// Notes with every other key of each instrument, and the others.
fn halves(notes: &[Heard]) -> [Vec<&Heard>; 2] {
    let mut halves = [Vec::new(), Vec::new()];
    for note in notes {
        halves[place_of_key(note, notes) % 2].push(note);
    }
    halves
}

/// How many lower keys of its instrument there are.
fn place_of_key(note: &Heard, notes: &[Heard]) -> usize {
    let same = notes
        .iter()
        .filter(|other| other.instrument == note.instrument);
    let lower = same
        .filter_map(|other| other.key)
        .filter(|key| Some(*key) < note.key);
    lower.collect::<BTreeSet<u8>>().len()
}

fn instrument_of(note: &Heard) -> Option<usize> {
    Some(note.instrument)
}

fn pitch_of(note: &Heard) -> Option<usize> {
    note.key.map(usize::from)
}

fn by_instrument<'a>(notes: &[&'a Heard], factor: Factor) -> Neighbours<'a> {
    neighbours(notes, factor, instrument_of)
}

fn by_pitch<'a>(notes: &[&'a Heard], factor: Factor) -> Neighbours<'a> {
    neighbours(notes, factor, pitch_of)
}

/// Latents of one factor with their classes, of the notes that have both.
fn neighbours<'a>(
    notes: &[&'a Heard],
    factor: Factor,
    class: impl Fn(&Heard) -> Option<usize>,
) -> Neighbours<'a> {
    Neighbours::new(notes.iter().filter_map(|note| {
        let latents = note.latents.get(factor)?;
        Some((latents.as_slice(), class(note)?))
    }))
}

/// The share of notes whose class is found. `None` without the factor, without neighbours or without notes.
fn score(
    tests: &[&Heard],
    factor: Factor,
    class: impl Fn(&Heard) -> Option<usize>,
    find: impl Fn(usize, &[f32]) -> Option<usize>,
) -> Option<f64> {
    mean(tests.iter().enumerate().filter_map(|(index, note)| {
        let class = class(note)?;
        let found = find(index, note.latents.get(factor)?)?;
        Some(if found == class { 1.0 } else { 0.0 })
    }))
}

/// `None` without values.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value;
        count += 1.0;
    }
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A note whose timbre tells the instrument, whose pitch tells the key, and whose variation tells neither.
    fn heard(instrument: usize, key: u8, noise: f32) -> Heard {
        Heard {
            instrument,
            key: (instrument < 3).then_some(key),
            latents: [
                (Factor::Timbre, vec![instrument as f32, 0.1 * noise]),
                (
                    Factor::Variation,
                    vec![(7.0 * noise * f32::from(key)).sin()],
                ),
                (Factor::Pitch, vec![f32::from(key), 0.1 * noise]),
            ]
            .into_iter()
            .collect(),
            mean_square: 0.5,
        }
    }

    fn notes(velocities: std::ops::Range<usize>) -> Vec<Heard> {
        let labels = (0..4).flat_map(|instrument| (40..50).map(move |key| (instrument, key)));
        let of_label = |(instrument, key): (usize, u8)| {
            velocities
                .clone()
                .map(move |v| heard(instrument, key, (v as f32 * 1.3).sin()))
        };
        labels.flat_map(of_label).collect()
    }

    #[test]
    fn latents_tell_what_is_in_them_and_nothing_else() {
        let (training, tests) = (notes(0..3), notes(3..4));
        let (training, tests): (Vec<&Heard>, Vec<&Heard>) =
            (training.iter().collect(), tests.iter().collect());
        let mut rows = Rows::new("net");
        rows.add(&tests, &training, &training);
        let [
            square,
            by_timbre,
            by_variation,
            by_pitch,
            timbre,
            variation,
            pitch,
        ] = rows.figures[0].map(Option::unwrap);
        assert_eq!((square, by_timbre, pitch), (0.5, 1.0, 1.0));
        assert!(by_pitch < 0.6 && by_variation < 0.6 && timbre < 0.35 && variation < 0.35);
        let chance = [rows.chance[0][1], rows.chance[0][4]].map(Option::unwrap);
        assert!((chance[0] - 0.25).abs() < 1e-9 && (chance[1] - 0.1).abs() < 1e-9);
        // The high notes alone.
        let high = register(&tests, &training, |key| key >= 45);
        let [_, _, pitch, chance] = high.figures;
        assert_eq!((pitch, high.notes), (Some(1.0), 15));
        assert!((chance.unwrap() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn recordings_are_their_own_neighbours_but_not_themselves() {
        let (training, recorded) = (notes(0..3), notes(5..6));
        let training: Vec<&Heard> = training.iter().collect();
        let recorded: Vec<&Heard> = recorded.iter().collect();
        let mut rows = Rows::new("net");
        rows.add_left_out(&recorded, &training);
        assert_eq!(rows.figures[0][1], Some(1.0));
        // One note of each instrument: its neighbours are others.
        rows.add_left_out(&[recorded[0], recorded[10], recorded[20]], &training);
        assert_eq!(rows.figures[1][1], Some(0.0));
    }

    #[test]
    fn a_latent_that_a_network_lacks_has_no_figures() {
        let mut training = notes(0..2);
        for note in &mut training {
            note.latents.remove(Factor::Timbre);
        }
        let training: Vec<&Heard> = training.iter().collect();
        let mut rows = Rows::new("net");
        rows.add(&training, &training, &training);
        assert!(rows.figures[0][1].is_none() && rows.figures[0][4].is_none());
        assert!(rows.figures[0][2].is_some());
    }

    #[test]
    fn halves_have_every_other_key() {
        let notes = notes(0..2);
        let [even, odd] = halves(&notes);
        let keys =
            |half: &[&Heard]| -> BTreeSet<u8> { half.iter().filter_map(|n| n.key).collect() };
        assert_eq!(keys(&even), BTreeSet::from([40, 42, 44, 46, 48]));
        assert_eq!(keys(&odd), BTreeSet::from([41, 43, 45, 47, 49]));
    }

    #[test]
    fn the_cut_is_at_the_published_pitch() {
        let analysis = Analysis {
            sample_rate_hz: 22_050,
            n_fft: 2048,
            hop_length: 512,
            frames: 64,
            cut: 50,
        };
        // 441 Hz.
        assert_eq!(key_at_the_cut(&analysis), 69);
    }
}
