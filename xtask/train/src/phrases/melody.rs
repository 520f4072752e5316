//! Random melodies.

use std::ops::RangeInclusive;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::midi::arrange::{Arrangement, Clock, Message, NOTE_OFF, NOTE_ON, PROGRAM};

/// Lengths of notes, in seconds.
const NOTE_SECONDS: RangeInclusive<f64> = 0.1..=2.0;
/// Length of the usual note of a melody, in seconds, drawn evenly on a logarithmic scale.
const BASE_SECONDS: RangeInclusive<f64> = 0.15..=0.8;
/// Lengths of notes as multiples of the usual one.
const LENGTHS: [f64; 6] = [0.5, 1.0, 1.0, 1.0, 2.0, 3.0];
/// Share of a note's time that it sounds.
const SOUNDING: RangeInclusive<f64> = 0.5..=1.0;
/// Share of the places for notes that are rests.
const REST_SHARE: f64 = 0.12;
/// Steps from note to note, up or down, in semitones.
const STEPS: [i32; 9] = [0, 1, 2, 2, 3, 4, 5, 7, 12];
/// Notes above the lowest one of a chord, in semitones.
const CHORDS: [&[i32]; 6] = [&[7], &[12], &[4, 7], &[3, 7], &[5, 9], &[4, 7, 12]];
/// Velocity of a melody, and of its notes around it.
const VELOCITY: RangeInclusive<i32> = 50..=110;
const VELOCITY_JITTER: RangeInclusive<i32> = -12..=12;

/// A note of a melody.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Note {
    /// Start in seconds.
    pub start_s: f64,
    /// End in seconds.
    pub end_s: f64,
    /// MIDI key.
    pub key: u8,
    /// MIDI velocity, 1 to 127.
    pub velocity: u8,
}

/// Draws a melody of `seconds`: a random walk within `keys`, with rests, in one of many tempos. `chord_share` is the share of the
/// notes that are chords.
pub fn draw(
    keys: &RangeInclusive<u8>,
    seconds: f64,
    chord_share: f64,
    random: &mut StdRng,
) -> Vec<Note> {
    let (lowest, highest) = (i32::from(*keys.start()), i32::from(*keys.end()));
    let base_s = {
        let (short, long) = (BASE_SECONDS.start().ln(), BASE_SECONDS.end().ln());
        random.random_range(short..=long).exp()
    };
    let sounding = random.random_range(SOUNDING);
    let velocity = random.random_range(VELOCITY);
    let mut key = random.random_range(lowest..=highest);
    let mut notes = Vec::new();
    let mut start_s = random.random_range(0.0..=base_s);
    while start_s < seconds {
        let length = base_s * LENGTHS.choose(random).copied().unwrap_or(1.0);
        let length = length.clamp(*NOTE_SECONDS.start(), *NOTE_SECONDS.end());
        let step = STEPS.choose(random).copied().unwrap_or_default();
        let step = if random.random_bool(0.5) { step } else { -step };
        key = reflected(key + step, lowest, highest);
        let chord = match random.random_bool(chord_share) {
            true => CHORDS.choose(random).copied().unwrap_or_default(),
            false => &[],
        };
        if !random.random_bool(REST_SHARE) {
            let jitter = random.random_range(VELOCITY_JITTER);
            let keys = [0].iter().chain(chord).map(|above| key + above);
            notes.extend(keys.filter(|key| *key <= highest).map(|key| Note {
                start_s,
                end_s: start_s + (sounding * length).max(*NOTE_SECONDS.start()),
                key: key as u8,
                velocity: (velocity + jitter).clamp(1, 127) as u8,
            }));
        }
        start_s += length;
    }
    notes
}

/// Brings a key back into the range.
fn reflected(key: i32, lowest: i32, highest: i32) -> i32 {
    let key = if key < lowest { 2 * lowest - key } else { key };
    let key = if key > highest {
        2 * highest - key
    } else {
        key
    };
    key.clamp(lowest, highest)
}

/// What a program plays.
pub fn arrangement(program: u8, notes: &[Note]) -> Arrangement {
    let message = |time_s, command, data1, data2| Message {
        time_s,
        channel: 0,
        command,
        data1,
        data2,
    };
    let mut messages = Vec::new();
    for note in notes {
        messages.push(message(note.start_s, NOTE_ON, note.key, note.velocity));
        messages.push(message(note.end_s, NOTE_OFF, note.key, 0));
    }
    // A key that is struck again as it ends must end before: the command of an end is the smaller one.
    messages.sort_by(|a: &Message, b| {
        a.time_s
            .total_cmp(&b.time_s)
            .then(a.command.cmp(&b.command))
    });
    messages.insert(0, message(0.0, PROGRAM, program, 0));
    Arrangement {
        pitched: messages,
        drums: Vec::new(),
        drum_level_db: 0.0,
        semitones: vec![0],
        clock: Clock {
            start_s: 0.0,
            tempo_factor: 1.0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn melodies_stay_in_their_range_and_differ() {
        let keys = 60..=72;
        let mut random = StdRng::seed_from_u64(1);
        let melodies: Vec<_> = (0..50)
            .map(|_| draw(&keys, 6.0, 0.2, &mut random))
            .collect();
        let mut chords = 0;
        for notes in &melodies {
            assert!(!notes.is_empty());
            for note in notes {
                assert!(keys.contains(&note.key) && (0.0..6.0).contains(&note.start_s));
                let seconds = note.end_s - note.start_s;
                assert!((0.09..=2.01).contains(&seconds), "{seconds}");
            }
            let starts = notes.windows(2);
            chords += starts
                .filter(|pair| pair[0].start_s == pair[1].start_s)
                .count();
        }
        assert!(chords > 50, "{chords}");
        assert_ne!(melodies[0], melodies[1]);
        let again = draw(&keys, 6.0, 0.2, &mut StdRng::seed_from_u64(1));
        assert_eq!(again, melodies[0]);
        let line = draw(&keys, 6.0, 0.0, &mut random);
        assert!(
            line.windows(2)
                .all(|pair| pair[0].end_s <= pair[1].start_s + 1e-9)
        );
    }

    #[test]
    fn a_key_that_is_struck_again_ends_before() {
        let note = |start_s, end_s| Note {
            start_s,
            end_s,
            key: 60,
            velocity: 80,
        };
        let messages = arrangement(40, &[note(0.0, 0.5), note(0.5, 1.0)]).pitched;
        let commands: Vec<u8> = messages.iter().map(|message| message.command).collect();
        assert_eq!(commands, [PROGRAM, NOTE_ON, NOTE_OFF, NOTE_ON, NOTE_OFF]);
        assert_eq!(messages[0].data1, 40);
    }
}
