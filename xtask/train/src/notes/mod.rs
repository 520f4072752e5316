//! Isolated notes as material: rendered with a General MIDI sound font, or recorded, in a folder with a table.
//!
//! Training notes are rendered only: of each instrument, whole keys are kept back, and of the instruments, some. Neighbouring
//! instruments and keys of a sound font share recordings, so that figures on them are better than on other instruments.
//! Recorded notes are for figures, too, and are never trained on.

mod cache;
mod folder;
mod material;
pub mod programs;
mod rendering;

use std::path::Path;

use anyhow::{Result, ensure};
use graft_material::audio_cache::Pcm;
use graft_material::workspace;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::batches::random;
use crate::midi::render::find_sound_font;
use programs::PROGRAMS;
use rendering::{Player, Workshop};

pub use folder::read_folder;
pub use material::NotesMaterial;

/// What a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoteLabel {
    /// Index into [`NoteSet::instruments`].
    pub instrument: usize,
    /// MIDI key, with 69 for A4. Drums have one for each drum.
    pub key: u8,
    /// MIDI velocity, from 1; 0 for recorded notes, whose velocity is unknown.
    pub velocity: u8,
}

/// A note.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// What it is.
    pub label: NoteLabel,
    /// The samples. They begin at the onset and are padded with silence to the length of the set's notes.
    pub pcm: Pcm,
}

/// Notes of one length and sample rate.
#[derive(Clone, Debug, PartialEq)]
pub struct NoteSet {
    /// Names of the instruments.
    pub instruments: Vec<String>,
    /// Sample rate of the notes.
    pub sample_rate_hz: u32,
    /// The notes.
    pub notes: Vec<Note>,
}

/// Rendered notes in parts, with the same instruments at the same indices: those that are trained on first.
#[derive(Clone, Debug, PartialEq)]
pub struct NoteParts {
    /// Notes to train on.
    pub training: NoteSet,
    /// Other keys of the same instruments, for figures during training and for the choice of weights.
    pub validation: NoteSet,
    /// Still other keys of the same instruments, for figures at the end.
    pub unseen_keys: NoteSet,
    /// Notes of other instruments.
    pub unseen_programs: NoteSet,
}

/// Table `[notes]` of a recipe: which notes are rendered, and how they are parted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotesConfig {
    /// Seed of the choice of keys.
    pub seed: u64,
    /// General MIDI programs to train on, numbered from 0. Each plays its natural range.
    pub programs: Vec<u8>,
    /// Programs that are not trained on.
    #[serde(default)]
    pub held_out_programs: Vec<u8>,
    /// Distance of keys in semitones.
    #[serde(default = "semitone")]
    pub key_step: u8,
    /// Share of the keys of each instrument that are kept for validation.
    pub validation_keys_share: f64,
    /// Share of the keys of each instrument that are kept for figures at the end.
    pub unseen_keys_share: f64,
    /// MIDI velocities of each key.
    pub velocities: Vec<u8>,
    /// Length of a note. It is held for all of it.
    pub seconds: f64,
    /// Whether the drums of the standard kit are trained on as one more instrument.
    #[serde(default)]
    pub drums: bool,
}

fn semitone() -> u8 {
    1
}

/// Longest note of a recipe, in seconds.
const MAX_SECONDS: f64 = 30.0;

impl NotesConfig {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first setting that is out of range.
    pub fn check(&self) -> Result<()> {
        ensure!(
            !self.programs.is_empty(),
            "notes.programs must name at least one program, found none"
        );
        let mut seen = [false; PROGRAMS.len()];
        for &number in self.programs.iter().chain(&self.held_out_programs) {
            let place = seen.get_mut(usize::from(number));
            let Some(place) = place else {
                anyhow::bail!("notes: programs must be between 0 and 127, found {number}");
            };
            ensure!(!*place, "notes: program {number} is named twice");
            *place = true;
        }
        ensure!(
            self.key_step > 0,
            "notes.key_step must be at least 1, found 0"
        );
        let shares = [self.validation_keys_share, self.unseen_keys_share];
        ensure!(
            shares.iter().all(|share| *share >= 0.0) && shares.iter().sum::<f64>() < 1.0,
            "notes: the shares of keys must be at least 0 and below 1 together, found {shares:?}"
        );
        ensure!(
            !self.velocities.is_empty() && self.velocities.iter().all(|v| (1..128).contains(v)),
            "notes.velocities must be between 1 and 127, found {:?}",
            self.velocities
        );
        ensure!(
            self.seconds > 0.0 && self.seconds <= MAX_SECONDS,
            "notes.seconds must be above 0 and at most {MAX_SECONDS}, found {}",
            self.seconds
        );
        Ok(())
    }

    /// Renders the notes with the sound font of this system, or reads them from the cache of the project. Keys that the sound
    /// font lacks are left out.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is out of range, the system has no sound font, an instrument is silent, or a file cannot
    /// be read or written.
    pub fn render(&self, sample_rate_hz: u32) -> Result<NoteParts> {
        self.check()?;
        let sound_font = find_sound_font()?;
        self.render_with(&sound_font, &workspace::cache("notes"), sample_rate_hz)
    }

    /// As [`Self::render`], with a sound font and a cache folder.
    pub(crate) fn render_with(
        &self,
        sound_font: &Path,
        cache_folder: &Path,
        sample_rate_hz: u32,
    ) -> Result<NoteParts> {
        let players = self.players();
        let workshop = Workshop {
            sound_font,
            cache_folder,
            config: self,
            sample_rate_hz,
        };
        let rendered = workshop.notes(&players)?;
        let empty = NoteSet {
            instruments: players.iter().map(|player| player.name()).collect(),
            sample_rate_hz,
            notes: Vec::new(),
        };
        let mut parts = NoteParts {
            training: empty.clone(),
            validation: empty.clone(),
            unseen_keys: empty.clone(),
            unseen_programs: empty,
        };
        for (instrument, (player, pcm)) in players.iter().zip(rendered).enumerate() {
            let keys = player.keys(self.key_step).into_iter();
            let labels = keys.flat_map(|key| {
                let label = move |&velocity: &u8| NoteLabel {
                    instrument,
                    key,
                    velocity,
                };
                self.velocities.iter().map(label)
            });
            // Some sound fonts do not play the whole range.
            let notes = labels.zip(pcm).filter(|(_, pcm)| pcm.level > 0.0);
            let notes: Vec<Note> = notes.map(|(label, pcm)| Note { label, pcm }).collect();
            let mut keys: Vec<u8> = notes.iter().map(|note| note.label.key).collect();
            keys.dedup();
            ensure!(
                !keys.is_empty(),
                "{} is silent at all keys in {}",
                player.name(),
                sound_font.display()
            );
            let [validation, unseen] = self.kept_keys(player, &keys);
            for note in notes {
                let key = &note.label.key;
                let set = if instrument >= self.seen_instruments() {
                    &mut parts.unseen_programs
                } else if validation.contains(key) {
                    &mut parts.validation
                } else if unseen.contains(key) {
                    &mut parts.unseen_keys
                } else {
                    &mut parts.training
                };
                set.notes.push(note);
            }
        }
        Ok(parts)
    }

    /// Number of instruments that are trained on; they have the lowest indices.
    pub fn seen_instruments(&self) -> usize {
        self.programs.len() + usize::from(self.drums)
    }

    fn players(&self) -> Vec<Player> {
        let programs = |numbers: &[u8]| -> Vec<Player> {
            numbers.iter().map(|&n| Player::Program(n)).collect()
        };
        let mut players = programs(&self.programs);
        players.extend(self.drums.then_some(Player::Drums));
        players.extend(programs(&self.held_out_programs));
        players
    }

    /// Keys of an instrument that are kept for validation, and those for figures at the end. A share above 0 keeps at
    /// least one key.
    fn kept_keys(&self, player: &Player, keys: &[u8]) -> [Vec<u8>; 2] {
        let mut shuffled = keys.to_vec();
        shuffled.shuffle(&mut random(self.seed, player.number().into()));
        let count = |share: f64| match share > 0.0 {
            true => ((share * keys.len() as f64).round() as usize).max(1),
            false => 0,
        };
        let mut shuffled = shuffled.into_iter();
        let mut take = |share| shuffled.by_ref().take(count(share)).collect();
        [
            take(self.validation_keys_share),
            take(self.unseen_keys_share),
        ]
    }
}

impl NoteSet {
    /// Number of samples of each note.
    pub fn note_samples(&self) -> usize {
        self.notes.first().map_or(0, |note| note.pcm.samples.len())
    }
}

/// Samples from the onset on: from where they come within 60 dB of their peak. Cut or padded with silence to `length`.
fn from_onset(samples: &[f32], length: usize) -> Vec<f32> {
    const ONSET: f32 = 1e-3;
    let peak = peak(samples);
    let onset = samples.iter().position(|x| x.abs() >= ONSET * peak);
    let heard = &samples[onset.unwrap_or(0)..];
    let mut note = heard[..heard.len().min(length)].to_vec();
    note.resize(length, 0.0);
    note
}

fn peak(samples: &[f32]) -> f32 {
    samples.iter().fold(0.0, |peak, x| peak.max(x.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::midi::tiny_sound_font;
    use graft_material::testing::TestFolder;
    use std::collections::BTreeSet;
    use std::fs;

    fn config() -> NotesConfig {
        NotesConfig {
            seed: 3,
            programs: vec![40, 0],
            held_out_programs: vec![73],
            key_step: 4,
            validation_keys_share: 0.1,
            unseen_keys_share: 0.3,
            velocities: vec![50, 100],
            seconds: 0.25,
            drums: true,
        }
    }

    fn sound_font(folder: &TestFolder) -> std::path::PathBuf {
        let path = folder.path().join("tiny.sf2");
        fs::write(&path, tiny_sound_font::bytes()).unwrap();
        path
    }

    fn keys(set: &NoteSet, instrument: usize) -> BTreeSet<u8> {
        let notes = set.notes.iter();
        let own = notes.filter(|note| note.label.instrument == instrument);
        own.map(|note| note.label.key).collect()
    }

    #[test]
    fn parts_have_keys_and_programs_of_their_own_and_come_from_the_cache() {
        let folder = TestFolder::new("notes");
        let (font, cache) = (sound_font(&folder), folder.path().join("cache"));
        let render = |config: &NotesConfig| config.render_with(&font, &cache, 22_050).unwrap();
        let parts = render(&config());
        let names = ["Violin", "Acoustic Grand Piano", "drums", "Flute"];
        assert_eq!(parts.training.instruments, names);
        let sets = [&parts.training, &parts.validation, &parts.unseen_keys];
        for (instrument, range) in [(0, 55..=96), (1, 21..=108), (2, 35..=81)] {
            let of_sets = sets.map(|set| keys(set, instrument));
            let all: BTreeSet<u8> = range.step_by(4).collect();
            assert_eq!(
                of_sets.iter().flatten().copied().collect::<BTreeSet<u8>>(),
                all
            );
            let counts = of_sets.map(|keys| keys.len());
            let share = |share: f64| (share * all.len() as f64).round() as usize;
            assert_eq!(
                counts.iter().sum::<usize>(),
                all.len(),
                "a key is in two parts"
            );
            assert_eq!(counts[1..], [share(0.1), share(0.3)]);
        }
        assert!(sets.iter().all(|set| keys(set, 3).is_empty()));
        assert_eq!(keys(&parts.unseen_programs, 3).len(), 10);
        assert_eq!(parts.unseen_programs.notes.len(), 20);
        assert_eq!(config().seen_instruments(), 3);

        // Files of the cache are used while everything that determines them is the same.
        let files = || fs::read_dir(&cache).unwrap().count();
        assert_eq!(files(), 4);
        assert_eq!(render(&config()), parts);
        assert_eq!(files(), 4);
        let louder = NotesConfig {
            velocities: vec![60, 100],
            ..config()
        };
        assert_ne!(render(&louder), parts);
        assert_eq!(files(), 8);
        for file in fs::read_dir(&cache).unwrap() {
            fs::write(file.unwrap().path(), "damaged").unwrap();
        }
        assert_eq!(render(&config()), parts);
    }

    #[test]
    fn notes_begin_at_once_at_their_pitch_and_get_louder_with_velocity() {
        let folder = TestFolder::new("note-pitch");
        let font = sound_font(&folder);
        let parts = config().render_with(&font, folder.path(), 22_050).unwrap();
        for note in &parts.unseen_programs.notes {
            let samples = note.pcm.floats();
            assert_eq!(samples.len(), 5513);
            assert!(
                peak(&samples[..100]) > 0.1 * peak(&samples),
                "{:?}",
                note.label
            );
            let signs = samples
                .windows(2)
                .filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0);
            let hz = signs.count() as f64 / 0.25;
            let semitones = f64::from(note.label.key) - 69.0;
            let expected = tiny_sound_font::SINE_HZ * (semitones / 12.0).exp2();
            assert!((hz - expected).abs() < 5.0, "{:?}: {hz} Hz", note.label);
        }
        let loudness: Vec<f32> = parts.unseen_programs.notes[..2]
            .iter()
            .map(|note| peak(&note.pcm.floats()))
            .collect();
        assert!(loudness[1] > 1.5 * loudness[0], "{loudness:?}");
    }

    #[test]
    fn silence_before_the_onset_is_cut() {
        let samples = [0.0, 1e-4, -0.0009, 0.001, 0.5, -1.0];
        assert_eq!(from_onset(&samples, 4), [0.001, 0.5, -1.0, 0.0]);
        assert_eq!(from_onset(&samples, 2), [0.001, 0.5]);
        assert_eq!(from_onset(&[], 2), [0.0, 0.0]);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        config().check().unwrap();
        type Change = fn(&mut NotesConfig);
        let changes: [(Change, &str); 7] = [
            (|c| c.programs.clear(), "at least one program"),
            (|c| c.programs.push(128), "found 128"),
            (|c| c.held_out_programs.push(40), "40 is named twice"),
            (|c| c.key_step = 0, "key_step"),
            (|c| c.unseen_keys_share = 0.9, "below 1 together"),
            (|c| c.velocities.push(0), "velocities"),
            (|c| c.seconds = f64::NAN, "seconds"),
        ];
        for (change, expected) in changes {
            let mut config = config();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
