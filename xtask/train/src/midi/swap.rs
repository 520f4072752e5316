//! True swaps: the chords of one clip, struck when another clip strikes.

use std::collections::BTreeMap;

use super::arrange::{Arrangement, Message, NOTE_OFF, NOTE_ON, add_note, in_order};

/// Notes that start within this time are one stroke, in seconds.
const STROKE_S: f64 = 0.03;
/// Shortest time that a note of a chord must go on after a stroke to be struck, in seconds.
const LEAST_SOUNDING_S: f64 = 0.05;
/// Controller number of the sustain pedal.
const SUSTAIN: u8 = 64;

/// A note in clip time.
struct Note {
    start_s: f64,
    end_s: f64,
    channel: u8,
    key: u8,
    velocity: u8,
}

/// All notes that start together.
struct Stroke {
    start_s: f64,
    /// The next stroke, or the end of the last note that sounds.
    end_s: f64,
    /// Of the loudest note.
    velocity: u8,
}

/// The notes of `harmony`, at their pitches and with their instruments, at the strokes of `rhythm`, with its velocities
/// and its drums.
///
/// A note is struck at every stroke during which it sounds in `harmony`. It sounds while both clips do: to the end of
/// the stroke, or to its own end.
pub fn swap(harmony: &Arrangement, rhythm: &Arrangement) -> Arrangement {
    let chords = notes(&harmony.pitched);
    let is_control = |message: &&Message| {
        let pedal = message.command == 0xB0 && message.data1 == SUSTAIN;
        !matches!(message.command, NOTE_ON | NOTE_OFF) && !pedal
    };
    let mut pitched: Vec<Message> = harmony.pitched.iter().filter(is_control).cloned().collect();
    for stroke in strokes(&notes(&rhythm.pitched)) {
        for note in &chords {
            let sounds = note.start_s <= stroke.start_s + STROKE_S
                && note.end_s >= stroke.start_s + LEAST_SOUNDING_S;
            if sounds {
                let times = (stroke.start_s, stroke.end_s.min(note.end_s));
                add_note(&mut pitched, note.channel, note.key, stroke.velocity, times);
            }
        }
    }
    Arrangement {
        pitched: in_order(pitched),
        drums: rhythm.drums.clone(),
        drum_level_db: rhythm.drum_level_db,
        semitones: harmony.semitones.clone(),
        clock: harmony.clock,
    }
}

/// The notes of messages in order, by their starts.
fn notes(messages: &[Message]) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    let mut sounding = BTreeMap::new();
    for message in messages {
        let key = (message.channel, message.data1);
        match message.command {
            NOTE_ON => {
                sounding.insert(key, notes.len());
                notes.push(Note {
                    start_s: message.time_s,
                    end_s: message.time_s,
                    channel: message.channel,
                    key: message.data1,
                    velocity: message.data2,
                });
            }
            NOTE_OFF => {
                if let Some(note) = sounding.remove(&key) {
                    notes[note].end_s = message.time_s;
                }
            }
            _ => {}
        }
    }
    notes
}

/// The strokes of notes in order.
fn strokes(notes: &[Note]) -> Vec<Stroke> {
    let mut strokes: Vec<Stroke> = Vec::new();
    let mut end_s = 0.0;
    for note in notes {
        end_s = note.end_s.max(end_s);
        match strokes.last_mut() {
            Some(last) if note.start_s <= last.start_s + STROKE_S => {
                last.end_s = end_s;
                last.velocity = last.velocity.max(note.velocity);
            }
            last => {
                if let Some(last) = last {
                    last.end_s = last.end_s.min(note.start_s);
                }
                strokes.push(Stroke {
                    start_s: note.start_s,
                    end_s,
                    velocity: note.velocity,
                });
            }
        }
    }
    strokes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::midi::arrange::Clock;

    const PEDAL: (u8, u8) = (0xB0, SUSTAIN);

    /// Notes of start, end, key and velocity on channel 2, after a program and a pedal.
    fn arrangement(program: u8, notes: &[(f64, f64, u8, u8)], drum: u8) -> Arrangement {
        let message = |time_s, command, data1, data2| Message {
            time_s,
            channel: 2,
            command,
            data1,
            data2,
        };
        let mut pitched = vec![
            message(0.0, 0xC0, program, 0),
            message(0.0, PEDAL.0, PEDAL.1, 127),
        ];
        for &(start_s, end_s, key, velocity) in notes {
            add_note(&mut pitched, 2, key, velocity, (start_s, end_s));
        }
        Arrangement {
            pitched: in_order(pitched),
            drums: vec![message(0.25, NOTE_ON, drum, 90)],
            drum_level_db: -f32::from(drum),
            semitones: vec![-i32::from(drum), 0],
            clock: Clock {
                start_s: f64::from(drum),
                tempo_factor: 1.0,
            },
        }
    }

    #[test]
    fn the_chords_of_one_sound_at_the_strokes_of_the_other() {
        // A chord of two notes, and another from 2 s on.
        let harmony = [(0.0, 2.0, 60, 70), (0.01, 2.0, 64, 70), (2.0, 4.0, 65, 70)];
        // Two strokes in the first chord, the second with a bass beside it, one across the change, silence, one more.
        let rhythm = [
            (0.5, 0.7, 80, 100),
            (1.0, 1.5, 40, 50),
            (1.02, 1.1, 82, 60),
            (1.9, 2.4, 81, 90),
            (3.0, 3.25, 80, 40),
        ];
        let (harmony, rhythm) = (arrangement(19, &harmony, 35), arrangement(5, &rhythm, 40));
        let swapped = swap(&harmony, &rhythm);
        let found: Vec<(f64, f64, u8, u8)> = notes(&swapped.pitched)
            .iter()
            .map(|note| (note.start_s, note.end_s, note.key, note.velocity))
            .collect();
        let expected = [
            (0.5, 0.7, 60, 100),
            (0.5, 0.7, 64, 100),
            (1.0, 1.5, 60, 60),
            (1.0, 1.5, 64, 60),
            (1.9, 2.0, 60, 90),
            (1.9, 2.0, 64, 90),
            (3.0, 3.25, 65, 40),
        ];
        assert_eq!(found, expected);
        assert!(swapped.pitched.is_sorted_by(|a, b| a.time_s <= b.time_s));

        let controls: Vec<(u8, u8)> = (swapped.pitched.iter())
            .filter(|message| !matches!(message.command, NOTE_ON | NOTE_OFF))
            .map(|message| (message.command, message.data1))
            .collect();
        assert_eq!(controls, [(0xC0, 19)], "the pedal would hide the strokes");
        assert_eq!(swapped.semitones, harmony.semitones);
        assert_eq!(swapped.drums, rhythm.drums);
        assert_eq!(swapped.drum_level_db, rhythm.drum_level_db);
    }

    #[test]
    fn a_long_note_holds_the_chord_between_shorter_ones() {
        let harmony = arrangement(0, &[(0.0, 4.0, 60, 70)], 35);
        let rhythm = [(0.0, 3.0, 40, 90), (0.5, 0.6, 70, 80), (1.0, 1.1, 70, 80)];
        let swapped = swap(&harmony, &arrangement(0, &rhythm, 35));
        let times: Vec<(f64, f64)> = notes(&swapped.pitched)
            .iter()
            .map(|note| (note.start_s, note.end_s))
            .collect();
        assert_eq!(times, [(0.0, 0.5), (0.5, 1.0), (1.0, 3.0)]);
    }
}
