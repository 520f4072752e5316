//! Arranges a clip of a song with other instruments, tempo and drums.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, index};

use super::groove::{self, Grid};
use super::song::{DRUM_CHANNEL, Note, Song};

/// Range of the random factor on the song's tempo.
const TEMPO_FACTOR: RangeInclusive<f64> = 0.8..=1.25;

/// Least mean number of pitched notes per second of a clip.
const MIN_NOTES_PER_SECOND: f64 = 1.0;

/// Range of the random factor on the velocities of a channel.
const VELOCITY_FACTOR: RangeInclusive<f64> = 0.65..=1.1;
/// Range of the random offset on the velocity of each note, after that factor.
const VELOCITY_JITTER: RangeInclusive<i32> = -8..=8;

/// Loudness of the drums relative to all other instruments, in dB.
const DRUM_LEVEL_DB: RangeInclusive<f32> = -10.0..=2.0;

/// Probability that a song keeps its own drums, if it has any.
const OWN_DRUMS_SHARE: f64 = 0.7;
/// Probability of a drum pattern otherwise.
const GROOVE_SHARE: f64 = 0.8;
/// Length of a drum stroke in a pattern, in sixteenths.
const STROKE_SIXTEENTHS: f64 = 0.5;

/// General MIDI programs, from 0, that can play any part: keys, pitched mallets, organs, guitars, strings, ensembles and
/// voices, brass, reeds, pipes, leads (but for the one in parallel fifths), pads.
const FAMILIES: [RangeInclusive<u8>; 11] = [
    0..=7,
    8..=14,
    16..=22,
    24..=30,
    40..=45,
    48..=54,
    56..=63,
    64..=71,
    72..=79,
    80..=85,
    88..=95,
];
/// Programs for the lowest part.
const BASSES: RangeInclusive<u8> = 32..=39;
/// The lowest part is a bass if its median key is below this one.
const LOW_KEY: u8 = 48;
/// Drum kits: standard, room, power, electronic, TR-808, jazz, brush.
const KITS: [u8; 7] = [0, 8, 16, 24, 25, 32, 40];

/// A MIDI message with its time in a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Time from the start of the clip, in seconds.
    pub time_s: f64,
    /// Channel, 0 to 15.
    pub channel: u8,
    /// Command: note off (0x80), note on (0x90), controller (0xB0), program (0xC0), pitch bend (0xE0).
    pub command: u8,
    /// First data byte.
    pub data1: u8,
    /// Second data byte.
    pub data2: u8,
}

impl Message {
    /// Order of simultaneous messages: controls, then note offs, then note ons.
    fn rank(&self) -> u8 {
        match self.command {
            NOTE_ON => 2,
            NOTE_OFF => 1,
            _ => 0,
        }
    }

    /// Transposes the message if it has a key. A key out of range is moved back by octaves.
    pub fn transposed(&self, semitones: i32) -> Self {
        let mut message = self.clone();
        if matches!(self.command, NOTE_ON | NOTE_OFF) {
            let mut key = i32::from(self.data1) + semitones;
            while key < 0 {
                key += 12;
            }
            while key > 127 {
                key -= 12;
            }
            message.data1 = key as u8;
        }
        message
    }
}

/// Commands for note off and note on.
pub const NOTE_OFF: u8 = 0x80;
/// See [`NOTE_OFF`].
pub const NOTE_ON: u8 = 0x90;
/// Command for a change of the program.
pub const PROGRAM: u8 = 0xC0;

/// All messages of a clip, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrangement {
    /// Messages of the pitched instruments, which are transposed.
    pub pitched: Vec<Message>,
    /// Messages of the drums; empty without drums.
    pub drums: Vec<Message>,
    /// Loudness of the drums relative to all other instruments, in dB.
    pub drum_level_db: f32,
    /// Transpositions in semitones, all different, ascending.
    pub semitones: Vec<i32>,
    /// Conversion from song time to clip time.
    pub clock: Clock,
}

/// Conversion from song time to clip time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    /// Start of the clip in the song, in seconds.
    pub start_s: f64,
    /// Seconds of the song per second of the clip.
    pub tempo_factor: f64,
}

impl Clock {
    /// Converts a time of the song to a time in the clip, both in seconds.
    pub fn clip_s(self, song_s: f64) -> f64 {
        (song_s - self.start_s) / self.tempo_factor
    }
}

/// Length and transpositions of a clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipShape {
    /// Length of a clip, in seconds.
    pub seconds: f64,
    /// Number of different transpositions, up to `2 * max_shift_semitones + 1`.
    pub transpositions: usize,
    /// Largest transposition in semitones, up or down.
    pub max_shift_semitones: u32,
}

impl Song {
    /// Times at which a clip of `seconds` can start: starts of pitched notes that are followed by enough music, at
    /// any tempo, and by enough notes.
    fn starts_s(&self, seconds: f64) -> Vec<f64> {
        let onsets_s: Vec<f64> = self
            .notes
            .iter()
            .filter(|note| !note.is_drum())
            .map(|note| note.start_s)
            .collect();
        let last_s = self.end_s() - seconds * TEMPO_FACTOR.end();
        let shortest_s = seconds * TEMPO_FACTOR.start();
        let enough = (seconds * MIN_NOTES_PER_SECOND).ceil() as usize;
        onsets_s
            .iter()
            .enumerate()
            .filter(|&(index, &start_s)| {
                let end = onsets_s.partition_point(|&onset_s| onset_s < start_s + shortest_s);
                start_s <= last_s && end - index >= enough
            })
            .map(|(_, &start_s)| start_s)
            .collect()
    }

    /// # Errors
    ///
    /// Returns an error if the song has no clip of `seconds`: it is too short or has too few notes.
    pub fn ensure_long_enough(&self, seconds: f64) -> Result<()> {
        ensure!(
            !self.starts_s(seconds).is_empty(),
            "no passage of {:.1} s has {MIN_NOTES_PER_SECOND} notes per second, in {:.1} s",
            seconds * TEMPO_FACTOR.end(),
            self.end_s()
        );
        Ok(())
    }
}

/// Draws a clip of `song`: its start, tempo, instruments, velocities, drums and transpositions.
///
/// Pitched notes that sound at the start of the clip start there; earlier drum strokes are dropped. Earlier controls
/// are sent at the start. All randomness comes from `random`.
///
/// # Errors
///
/// Returns an error if the song has no clip of this length.
pub fn arrange(song: &Song, shape: ClipShape, random: &mut StdRng) -> Result<Arrangement> {
    let starts_s = song.starts_s(shape.seconds);
    let start_s = *starts_s.choose(random).context("the song is too short")?;
    let clock = Clock {
        start_s,
        tempo_factor: random.random_range(TEMPO_FACTOR),
    };
    let excerpt = Excerpt {
        song,
        clock,
        seconds: shape.seconds,
    };
    let pitched = excerpt.pitched(random);
    let drums = excerpt.drums(random);
    let max_shift = shape.max_shift_semitones as i32;
    let count = 2 * shape.max_shift_semitones as usize + 1;
    let mut semitones: Vec<i32> = index::sample(random, count, shape.transpositions.min(count))
        .into_iter()
        .map(|index| index as i32 - max_shift)
        .collect();
    semitones.sort_unstable();
    Ok(Arrangement {
        pitched,
        drums,
        drum_level_db: random.random_range(DRUM_LEVEL_DB),
        semitones,
        clock,
    })
}

/// A section of a song.
struct Excerpt<'a> {
    song: &'a Song,
    clock: Clock,
    /// Length in clip time.
    seconds: f64,
}

impl Excerpt<'_> {
    /// Whether `note` sounds in the clip.
    fn sounds(&self, note: &Note) -> bool {
        self.clock.clip_s(note.end_s) > 0.0 && self.clock.clip_s(note.start_s) < self.seconds
    }

    fn pitched(&self, random: &mut StdRng) -> Vec<Message> {
        let mut channels: BTreeMap<u8, Vec<&Note>> = BTreeMap::new();
        for note in &self.song.notes {
            if !note.is_drum() && self.sounds(note) {
                channels.entry(note.channel).or_default().push(note);
            }
        }
        let bass = channels
            .iter()
            .map(|(channel, notes)| (middle_key(notes), *channel))
            .min()
            .filter(|(key, _)| *key < LOW_KEY)
            .map(|(_, channel)| channel);
        let mut messages = Vec::new();
        for (channel, notes) in channels {
            let family = if bass == Some(channel) {
                BASSES
            } else {
                FAMILIES.choose(random).expect("there are families").clone()
            };
            let program = random.random_range(family);
            self.add_channel(channel, program, &notes, random, &mut messages);
        }
        in_order(messages)
    }

    /// Messages of the song's drums, of a pattern, or none.
    fn drums(&self, random: &mut StdRng) -> Vec<Message> {
        let own: Vec<&Note> = self
            .song
            .notes
            .iter()
            .filter(|note| {
                note.is_drum() && self.sounds(note) && note.start_s >= self.clock.start_s
            })
            .collect();
        let enough = own.len() as f64 >= self.seconds * MIN_NOTES_PER_SECOND;
        let kit = *KITS.choose(random).expect("there are kits");
        let mut messages = Vec::new();
        if enough && random.random_bool(OWN_DRUMS_SHARE) {
            self.add_channel(DRUM_CHANNEL, kit, &own, random, &mut messages);
        } else if random.random_bool(GROOVE_SHARE) {
            messages.push(program(DRUM_CHANNEL, kit));
            self.add_groove(random, &mut messages);
        }
        in_order(messages)
    }

    /// Messages of one channel: program, controls, notes.
    fn add_channel(
        &self,
        channel: u8,
        program_number: u8,
        notes: &[&Note],
        random: &mut StdRng,
        messages: &mut Vec<Message>,
    ) {
        messages.push(program(channel, program_number));
        for control in &self.song.controls {
            let time_s = self.clock.clip_s(control.time_s).max(0.0);
            if control.channel == channel && time_s < self.seconds {
                messages.push(Message {
                    time_s,
                    channel,
                    command: control.command,
                    data1: control.data1,
                    data2: control.data2,
                });
            }
        }
        let factor = random.random_range(VELOCITY_FACTOR);
        for note in notes {
            let velocity = humanised(note.velocity, factor, random);
            let start_s = self.clock.clip_s(note.start_s).max(0.0);
            let end_s = self.clock.clip_s(note.end_s);
            add_note(messages, channel, note.key, velocity, (start_s, end_s));
        }
    }

    fn add_groove(&self, random: &mut StdRng, messages: &mut Vec<Message>) {
        let notes: Vec<&Note> = self
            .song
            .notes
            .iter()
            .filter(|note| {
                !note.is_drum() && note.start_s >= self.clock.start_s && self.sounds(note)
            })
            .collect();
        let Some(first) = notes.first() else {
            return;
        };
        let grid = Grid::find(self.song, &notes);
        let factor = random.random_range(VELOCITY_FACTOR);
        for stroke in groove::strokes(grid, first.start_tick as f64, random) {
            let start_s = self
                .clock
                .clip_s(self.song.tempo.seconds(stroke.tick))
                .max(0.0);
            if start_s >= self.seconds {
                break;
            }
            let end_tick = stroke.tick + STROKE_SIXTEENTHS * self.song.ticks_per_beat / 4.0;
            let end_s = self.clock.clip_s(self.song.tempo.seconds(end_tick));
            let velocity = humanised(stroke.velocity, factor, random);
            add_note(
                messages,
                DRUM_CHANNEL,
                stroke.key,
                velocity,
                (start_s, end_s),
            );
        }
    }
}

fn middle_key(notes: &[&Note]) -> u8 {
    let mut keys: Vec<u8> = notes.iter().map(|note| note.key).collect();
    keys.sort_unstable();
    keys[keys.len() / 2]
}

fn humanised(velocity: u8, factor: f64, random: &mut StdRng) -> u8 {
    let velocity = (f64::from(velocity) * factor).round() as i32;
    (velocity + random.random_range(VELOCITY_JITTER)).clamp(1, 127) as u8
}

fn program(channel: u8, number: u8) -> Message {
    Message {
        time_s: 0.0,
        channel,
        command: PROGRAM,
        data1: number,
        data2: 0,
    }
}

/// Adds a note that sounds between two times in the clip, in seconds.
pub fn add_note(
    messages: &mut Vec<Message>,
    channel: u8,
    key: u8,
    velocity: u8,
    (start_s, end_s): (f64, f64),
) {
    for (time_s, command, data2) in [(start_s, NOTE_ON, velocity), (end_s, NOTE_OFF, 0)] {
        messages.push(Message {
            time_s,
            channel,
            command,
            data1: key,
            data2,
        });
    }
}

/// Sorts messages by time and rank (stable).
pub fn in_order(mut messages: Vec<Message>) -> Vec<Message> {
    messages.sort_by(|a, b| (a.time_s.total_cmp(&b.time_s)).then_with(|| a.rank().cmp(&b.rank())));
    messages
}
