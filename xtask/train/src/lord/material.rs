//! Clips: the same melodies, played by several programs of a sound font in one register. So a translation has a true counterpart.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use vocoder::{MelConfig, MelSpectrogram};

use crate::midi::render_all;
use crate::notes::programs::{PROGRAMS, Program};
use crate::phrases::melody::{self, Note};

/// Least number of notes in a clip.
const LEAST_NOTES: usize = 3;

/// Seeds of the melodies for training and for validation differ by this.
const VALIDATION_SEED: u64 = 1 << 32;

/// Settings of the clips.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipSettings {
    /// Seed of the melodies.
    pub seed: u64,
    /// Numbers of the programs to train on, from 0: the instruments.
    pub programs: Vec<u8>,
    /// Numbers of the programs that are heard in no training.
    pub held_out_programs: Vec<u8>,
    /// Melodies to train on. Each is a clip of each program.
    pub melodies: usize,
    /// Melodies for the validation.
    pub validation_melodies: usize,
    /// Lowest and highest key of the melodies, which all programs must have.
    pub keys: [u8; 2],
    /// Keys that are played in the validation only.
    pub held_out_keys: Vec<u8>,
    /// Share of the notes that are chords.
    pub chord_share: f64,
}

/// Melodies, each played by all programs of a list.
#[derive(Clone, Debug)]
pub struct ClipSet {
    /// The instruments.
    pub programs: Vec<&'static Program>,
    /// What is played.
    pub melodies: Vec<Vec<Note>>,
    /// Log-mels in nepers (melodies * programs, `n_mels`, 1, frames), melody after melody, on the CPU.
    pub log_mels: Tensor,
}

/// All clips.
#[derive(Clone, Debug)]
pub struct LordMaterial {
    /// The clips to train on.
    pub training: ClipSet,
    /// Other melodies by the same programs.
    pub validation: ClipSet,
    /// The melodies of the validation by the programs that are held out.
    pub unseen: ClipSet,
}

impl ClipSettings {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// Returns an error that names the setting.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.programs.len() >= 2 && !self.held_out_programs.is_empty(),
            "clips: expected two programs and a held-out one at least, found {:?} and {:?}",
            self.programs,
            self.held_out_programs
        );
        ensure!(
            self.melodies >= 2 && self.validation_melodies >= 2,
            "clips: expected two melodies of each kind at least, found {} and {}",
            self.melodies,
            self.validation_melodies
        );
        ensure!(
            (0.0..=1.0).contains(&self.chord_share),
            "clips.chord_share must be between 0 and 1, found {}",
            self.chord_share
        );
        let [lowest, highest] = self.keys;
        let all = (lowest..=highest).filter(|key| !self.held_out_keys.contains(key));
        ensure!(
            all.count() >= 2,
            "clips.keys: expected two keys that are not held out at least, found {:?} without {:?}",
            self.keys,
            self.held_out_keys
        );
        let both = self.programs.iter().chain(&self.held_out_programs);
        let mut seen = [false; 256];
        for number in both {
            let program = find(*number)?;
            ensure!(
                !std::mem::replace(&mut seen[usize::from(*number)], true),
                "clips: expected each program once, found {number} twice"
            );
            ensure!(
                program.lowest_key <= lowest && highest <= program.highest_key,
                "clips.keys: expected keys of all programs, found {lowest} to {highest}, but {} has {} to {}",
                program.name,
                program.lowest_key,
                program.highest_key
            );
        }
        Ok(())
    }

    /// The melodies with this seed, without the keys that are held out if it is `training`.
    fn draw(&self, seed: u64, count: usize, seconds: f64, training: bool) -> Vec<Vec<Note>> {
        let [lowest, highest] = self.keys;
        let mut random = StdRng::seed_from_u64(self.seed ^ seed);
        let mut melodies = Vec::with_capacity(count);
        while melodies.len() < count {
            let mut notes =
                melody::draw(&(lowest..=highest), seconds, self.chord_share, &mut random);
            notes.retain(|note| !(training && self.held_out_keys.contains(&note.key)));
            if notes.len() >= LEAST_NOTES {
                melodies.push(notes);
            }
        }
        melodies
    }
}

fn find(number: u8) -> Result<&'static Program> {
    let program = PROGRAMS.iter().find(|program| program.number == number);
    program.with_context(|| format!("clips: expected programs from 0 to 127, found {number}"))
}

/// The instruments of a recipe, in the order of their codes.
///
/// # Errors
///
/// Returns an error if there is no such program.
pub fn instruments(settings: &ClipSettings) -> Result<Vec<&'static Program>> {
    settings
        .programs
        .iter()
        .map(|number| find(*number))
        .collect()
}

impl LordMaterial {
    /// Renders all clips of `frames` frames, or reads them from the cache.
    ///
    /// # Errors
    ///
    /// Returns an error if the system has no sound font, a program is silent, or a file cannot be read or written.
    pub fn load(
        settings: &ClipSettings,
        mel: &MelConfig,
        frames: usize,
        cache_folder: &Path,
    ) -> Result<Self> {
        settings.check()?;
        let seconds = frames as f64 * mel.hop_seconds();
        let trained = settings.draw(0, settings.melodies, seconds, true);
        let validated = settings.draw(
            VALIDATION_SEED,
            settings.validation_melodies,
            seconds,
            false,
        );
        let held_out = settings
            .held_out_programs
            .iter()
            .map(|number| find(*number));
        let set =
            |programs, melodies| ClipSet::render(programs, melodies, mel, frames, cache_folder);
        Ok(Self {
            training: set(instruments(settings)?, trained)?,
            validation: set(instruments(settings)?, validated.clone())?,
            unseen: set(held_out.collect::<Result<_>>()?, validated)?,
        })
    }
}

impl ClipSet {
    fn render(
        programs: Vec<&'static Program>,
        melodies: Vec<Vec<Note>>,
        mel: &MelConfig,
        frames: usize,
        cache_folder: &Path,
    ) -> Result<Self> {
        let arrangements = melodies.iter().flat_map(|notes| {
            programs.iter().map(|program| {
                let name = format!("{} for a clip", program.name);
                (name, melody::arrangement(program.number, notes))
            })
        });
        let seconds = frames as f64 * mel.hop_seconds();
        let rendered = render_all(
            arrangements.collect(),
            seconds,
            cache_folder,
            mel.sample_rate_hz,
        )?;
        let mut spectrogram = MelSpectrogram::new(mel)?;
        let mut values = Vec::with_capacity(rendered.len() * mel.n_mels * frames);
        for (clip, pcm) in rendered.into_iter().enumerate() {
            let program = programs[clip % programs.len()];
            let pcm = pcm.with_context(|| {
                format!(
                    "expected sound of every program, found only silence of {}",
                    program.name
                )
            })?;
            let samples: Vec<f32> = pcm
                .samples
                .iter()
                .map(|&sample| f32::from(sample) * pcm.level)
                .collect();
            let log_mel = spectrogram.log_mel(&samples);
            ensure!(
                log_mel.frames() >= frames,
                "expected clips of {frames} frames, found {}",
                log_mel.frames()
            );
            for band in 0..mel.n_mels {
                values.extend((0..frames).map(|frame| log_mel.frame(frame)[band]));
            }
        }
        let count = melodies.len() * programs.len();
        Ok(Self {
            log_mels: Tensor::from_vec(values, (count, mel.n_mels, 1, frames), &Device::Cpu)?,
            programs,
            melodies,
        })
    }

    /// Number of clips.
    pub fn len(&self) -> usize {
        self.melodies.len() * self.programs.len()
    }

    /// Whether there are no clips.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of a clip.
    pub fn clip(&self, melody: usize, program: usize) -> usize {
        melody * self.programs.len() + program
    }

    /// The melody of a clip.
    pub fn melody_of(&self, clip: usize) -> usize {
        clip / self.programs.len()
    }

    /// The place of a clip's program in the list.
    pub fn program_of(&self, clip: usize) -> usize {
        clip % self.programs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ClipSettings {
        ClipSettings {
            seed: 1,
            programs: vec![0, 40],
            held_out_programs: vec![73],
            melodies: 40,
            validation_melodies: 10,
            keys: [60, 76],
            held_out_keys: vec![63, 70],
            chord_share: 0.2,
        }
    }

    #[test]
    fn keys_that_are_held_out_are_heard_in_the_validation_only() {
        let settings = settings();
        let held_out = |melodies: &[Vec<Note>]| {
            let notes = melodies.iter().flatten();
            let held_out = notes.filter(|note| settings.held_out_keys.contains(&note.key));
            held_out.count()
        };
        let training = settings.draw(0, 40, 3.0, true);
        let validation = settings.draw(VALIDATION_SEED, 40, 3.0, false);
        assert_eq!((training.len(), held_out(&training)), (40, 0));
        assert!(held_out(&validation) > 20, "{}", held_out(&validation));
        for notes in training.iter().chain(&validation) {
            assert!(notes.len() >= LEAST_NOTES);
            assert!(notes.iter().all(|note| (60..=76).contains(&note.key)));
        }
        assert!(!training.contains(&validation[0]));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        settings().check().unwrap();
        let reason = |change: fn(&mut ClipSettings)| {
            let mut settings = settings();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        for (found, expected) in [
            (reason(|s| s.programs = vec![0]), "two programs"),
            (reason(|s| s.programs.push(0)), "found 0 twice"),
            (reason(|s| s.held_out_programs.push(0)), "found 0 twice"),
            (reason(|s| s.programs.push(128)), "found 128"),
            (reason(|s| s.keys = [50, 60]), "Violin has 55 to 96"),
            (reason(|s| s.melodies = 1), "two melodies"),
            (reason(|s| s.chord_share = 2.0), "chord_share"),
            (reason(|s| s.held_out_keys = (60..76).collect()), "two keys"),
        ] {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn clips_are_numbered_melody_after_melody() {
        let set = ClipSet {
            programs: instruments(&settings()).unwrap(),
            melodies: vec![Vec::new(); 3],
            log_mels: Tensor::zeros((6, 4, 1, 4), candle_core::DType::F32, &Device::Cpu).unwrap(),
        };
        assert_eq!(set.len(), 6);
        for clip in 0..set.len() {
            assert_eq!(set.clip(set.melody_of(clip), set.program_of(clip)), clip);
        }
        assert_eq!([set.melody_of(3), set.program_of(3)], [1, 1]);
    }
}
