//! Renders the notes of instruments with a sound font.

use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use crossbeam_channel::unbounded;
use graft_material::audio_cache::Pcm;
use graft_material::progress;

use super::cache::NoteCache;
use super::programs::{PROGRAMS, Program};
use super::{NotesConfig, from_onset, peak};
use crate::midi::arrange::{Message, NOTE_ON, PROGRAM};
use crate::midi::render::{Renderer, sound_font_identity};
use crate::midi::song::DRUM_CHANNEL;

/// Rendered beyond the length of a note, for the silence before its onset.
const MARGIN_SECONDS: f64 = 0.25;

/// Drums of General MIDI, from the acoustic bass drum to the open triangle.
const DRUM_KEYS: [u8; 2] = [35, 81];

/// Rendered notes with a lower peak are taken for silence.
const SILENCE: f32 = 1e-5;

/// An instrument of the sound font.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Player {
    /// A program, by its number.
    Program(u8),
    /// The drums of the standard kit.
    Drums,
}

impl Player {
    fn program(self) -> Option<&'static Program> {
        match self {
            Self::Program(number) => PROGRAMS.get(usize::from(number)),
            Self::Drums => None,
        }
    }

    /// A number of its own: that of the program, or the first above all programs.
    pub fn number(self) -> u8 {
        match self {
            Self::Program(number) => number,
            Self::Drums => 128,
        }
    }

    /// The name of the instrument.
    pub fn name(self) -> String {
        let name = self.program().map(|program| program.name);
        name.unwrap_or("drums").to_owned()
    }

    /// Every `step`th key of its range, from the lowest on.
    pub fn keys(self, step: u8) -> Vec<u8> {
        let range = self.program().map(|p| [p.lowest_key, p.highest_key]);
        let [lowest, highest] = range.unwrap_or(DRUM_KEYS);
        (lowest..=highest).step_by(step.into()).collect()
    }

    fn messages(self, key: u8, velocity: u8) -> [Message; 2] {
        let (channel, program) = match self {
            Self::Program(number) => (0, number),
            Self::Drums => (DRUM_CHANNEL, 0),
        };
        let message = |command, data1, data2| Message {
            time_s: 0.0,
            channel,
            command,
            data1,
            data2,
        };
        [
            message(PROGRAM, program, 0),
            message(NOTE_ON, key, velocity),
        ]
    }
}

/// Sound font and cache for all instruments.
pub struct Workshop<'a> {
    pub sound_font: &'a Path,
    pub cache_folder: &'a Path,
    pub config: &'a NotesConfig,
    pub sample_rate_hz: u32,
}

impl Workshop<'_> {
    /// The notes of each instrument, key by key, and velocity by velocity; those that the sound font lacks have a level of 0. What the cache lacks is rendered with one thread
    /// per CPU core.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read or written.
    pub fn notes(&self, players: &[Player]) -> Result<Vec<Vec<Pcm>>> {
        let identity = sound_font_identity(self.sound_font)?;
        let cache = NoteCache::new(
            self.cache_folder,
            &identity,
            self.config,
            self.sample_rate_hz,
        )?;
        let mut notes: Vec<Option<Vec<Pcm>>> =
            players.iter().map(|&player| cache.load(player)).collect();
        let missing: Vec<usize> = (0..players.len())
            .filter(|&index| notes[index].is_none())
            .collect();
        if !missing.is_empty() {
            let renderer = Renderer::new(
                self.sound_font,
                self.config.seconds + MARGIN_SECONDS,
                self.sample_rate_hz,
            )?;
            println!("Notes: rendering {} instruments", missing.len());
            let bar = progress::bar("Rendering notes", missing.len() as u64);
            let threads = thread::available_parallelism().map_or(1, NonZero::get);
            let next = AtomicUsize::new(0);
            thread::scope(|scope| -> Result<()> {
                let (sender, rendered) = unbounded();
                for _ in 0..threads.min(missing.len()) {
                    let (sender, next, missing, renderer) =
                        (sender.clone(), &next, &missing, &renderer);
                    scope.spawn(move || {
                        while let Some(&index) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                            let notes = self.rendered(players[index], renderer);
                            if sender.send((index, notes)).is_err() {
                                // Another instrument failed, and the receiver is gone.
                                break;
                            }
                        }
                    });
                }
                drop(sender);
                for (index, rendered) in rendered {
                    let rendered = rendered?;
                    cache.store(players[index], &rendered)?;
                    notes[index] = Some(rendered);
                    bar.inc(1);
                }
                bar.finish_and_clear();
                Ok(())
            })?;
        }
        let notes: Option<Vec<_>> = notes.into_iter().collect();
        notes.context("all instruments were rendered")
    }

    fn rendered(&self, player: Player, renderer: &Renderer) -> Result<Vec<Pcm>> {
        let length = (self.config.seconds * f64::from(self.sample_rate_hz)).round() as usize;
        let keys = player.keys(self.config.key_step).into_iter();
        let notes = keys.flat_map(|key| self.config.velocities.iter().map(move |&v| (key, v)));
        let notes = notes.map(|(key, velocity)| {
            let samples = renderer.stem(player.messages(key, velocity).into_iter())?;
            if peak(&samples) > SILENCE {
                return Ok(Pcm::amplified(&from_onset(&samples, length), 1.0));
            }
            Ok(Pcm {
                samples: vec![0; length],
                level: 0.0,
            })
        });
        notes.collect()
    }
}
