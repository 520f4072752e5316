//! Songs with known chords and onsets: POP909, rendered with a General MIDI sound font.

use std::path::PathBuf;

use anyhow::Result;
use graft_material::{progress, workspace};
use graft_train::midi::arrange::{Arrangement, NOTE_OFF, NOTE_ON};
use graft_train::midi::{self, MidiSettings};
use vocoder::{LogMel, MelConfig, MelSpectrogram};

use crate::chords::{self, CLASSES, Segment};
use crate::margins::{FeatureExtractor, HOP_LENGTH, SAMPLE_RATE_HZ};
use crate::onsets;
use crate::probe::IGNORED;

/// Mel frames that a chord label is for: 93 ms. All features are averaged over as many, so that all are compared at one rate.
pub const CHORD_FRAMES: usize = 4;

/// Notes that begin within this time of another are one onset.
const ONE_ONSET_S: f64 = 0.03;

/// A pitched note.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Note {
    /// Start, in seconds.
    pub start_s: f64,
    /// End, in seconds.
    pub end_s: f64,
    /// Its MIDI number.
    pub key: u8,
}

/// A clip of a song with its annotations.
#[derive(Debug, Clone, PartialEq)]
pub struct Song {
    /// File and clip.
    pub name: String,
    /// Input of the networks; a multiple of [`CHORD_FRAMES`] frames.
    pub log_mel: LogMel,
    /// Class of each [`CHORD_FRAMES`] frames, or [`IGNORED`].
    pub chords: Vec<u32>,
    /// Onsets as the spectral-flux detector finds them in the sound.
    pub detected_s: Vec<f64>,
    /// Onsets of the notes and drums.
    pub struck_s: Vec<f64>,
    /// The notes.
    pub notes: Vec<Note>,
}

/// Renders `count` clips of songs with chord annotations below `folders`, of different songs as far as there are enough, with
/// instruments, tempos and drums drawn anew for each; from the cache where they were rendered before.
///
/// # Errors
///
/// Returns an error if there is no sound font, or a file cannot be read.
pub fn load(folders: &[PathBuf], count: usize, seconds: f64, seed: u64) -> Result<Vec<Song>> {
    let settings = MidiSettings {
        clips: count,
        seconds,
        transpositions: 1,
        max_shift_semitones: 0,
        swaps: false,
        seed,
    };
    let cache = workspace::root().join("target/cache/midi");
    let clips = midi::load_annotated(folders, &settings, &cache, SAMPLE_RATE_HZ)?;
    let mut mel = MelSpectrogram::new(&MelConfig::default())?;
    let extractor = FeatureExtractor::new()?;
    let bar = progress::bar("Analysing songs", clips.len() as u64);
    let songs = clips.into_iter().map(|clip| {
        let mut log_mel = mel.log_mel(&clip.samples);
        let log_mel = log_mel.take_first(log_mel.frames() / CHORD_FRAMES * CHORD_FRAMES);
        let segments = chords::parse(&clip.chords)?;
        let detected = onsets::detect(&extractor.onset_strength(&clip.samples)?);
        bar.inc(1);
        Ok(Song {
            name: clip.name,
            chords: chord_labels(
                &segments,
                &clip.arrangement,
                log_mel.frames() / CHORD_FRAMES,
            ),
            detected_s: detected.into_iter().map(onset_s).collect(),
            struck_s: struck_s(&clip.arrangement, seconds),
            notes: notes(&clip.arrangement, seconds),
            log_mel,
        })
    });
    let songs = songs.collect();
    bar.finish_and_clear();
    songs
}

/// When a frame of the onset envelope is, whose frames are centred at multiples of the hop.
fn onset_s(frame: usize) -> f64 {
    (frame * HOP_LENGTH) as f64 / f64::from(SAMPLE_RATE_HZ)
}

/// Middle of a mel frame.
pub fn mel_frame_s(frame: f64) -> f64 {
    (frame + 0.5) * HOP_LENGTH as f64 / f64::from(SAMPLE_RATE_HZ)
}

/// The mel frame whose middle is nearest to a time.
pub fn mel_frame(time_s: f64) -> usize {
    (time_s * f64::from(SAMPLE_RATE_HZ) / HOP_LENGTH as f64) as usize
}

/// The chord in the middle of each label's frames.
fn chord_labels(segments: &[Segment], arrangement: &Arrangement, labels: usize) -> Vec<u32> {
    let at = |clip_s: f64| {
        let segment = segments.iter().find(|segment| {
            let [start_s, end_s] =
                [segment.start_s, segment.end_s].map(|s| arrangement.clock.clip_s(s));
            (start_s..end_s).contains(&clip_s)
        });
        segment.and_then(|segment| segment.class).unwrap_or(IGNORED)
    };
    let middle = (CHORD_FRAMES - 1) as f64 / 2.0;
    (0..labels)
        .map(|label| at(mel_frame_s((label * CHORD_FRAMES) as f64 + middle)))
        .inspect(|&label| debug_assert!(label == IGNORED || (label as usize) < CLASSES))
        .collect()
}

/// When notes and drums are struck within the clip, those at the same time once.
fn struck_s(arrangement: &Arrangement, seconds: f64) -> Vec<f64> {
    let messages = arrangement.pitched.iter().chain(&arrangement.drums);
    let mut times_s: Vec<f64> = messages
        .filter(|message| message.command == NOTE_ON && message.time_s < seconds)
        .map(|message| message.time_s)
        .collect();
    times_s.sort_by(f64::total_cmp);
    let mut onsets: Vec<f64> = Vec::new();
    for time_s in times_s {
        if onsets.last().is_none_or(|last| time_s - last > ONE_ONSET_S) {
            onsets.push(time_s);
        }
    }
    onsets
}

fn notes(arrangement: &Arrangement, seconds: f64) -> Vec<Note> {
    let mut notes = Vec::new();
    for (index, strike) in arrangement.pitched.iter().enumerate() {
        if strike.command != NOTE_ON || strike.time_s >= seconds {
            continue;
        }
        let release = arrangement.pitched[index..].iter().find(|message| {
            let same_key = (message.channel, message.data1) == (strike.channel, strike.data1);
            message.command == NOTE_OFF && same_key && message.time_s > strike.time_s
        });
        notes.push(Note {
            start_s: strike.time_s,
            end_s: release.map_or(seconds, |message| message.time_s.min(seconds)),
            key: strike.data1,
        });
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_train::midi::arrange::{Clock, Message};

    fn arrangement() -> Arrangement {
        let message = |time_s, command, data1| Message {
            time_s,
            channel: 0,
            command,
            data1,
            data2: 90,
        };
        Arrangement {
            pitched: vec![
                message(0.0, NOTE_ON, 60),
                message(0.01, NOTE_ON, 64),
                message(0.5, NOTE_OFF, 60),
                message(1.0, NOTE_ON, 60),
                message(3.0, NOTE_OFF, 60),
                message(3.0, NOTE_ON, 67),
            ],
            drums: vec![message(0.75, NOTE_ON, 36)],
            drum_level_db: 0.0,
            semitones: vec![0],
            clock: Clock {
                start_s: 10.0,
                tempo_factor: 2.0,
            },
        }
    }

    #[test]
    fn notes_and_onsets_are_those_that_are_played() {
        let arrangement = arrangement();
        assert_eq!(struck_s(&arrangement, 2.0), [0.0, 0.75, 1.0]);
        let found: Vec<(f64, f64, u8)> = notes(&arrangement, 2.0)
            .iter()
            .map(|note| (note.start_s, note.end_s, note.key))
            .collect();
        assert_eq!(found, [(0.0, 0.5, 60), (0.01, 2.0, 64), (1.0, 2.0, 60)]);
    }

    #[test]
    fn chords_follow_the_clip_at_its_tempo() {
        // At twice the tempo from 10 s on, the change at 11 s is heard after 0.5 s: in label 5.
        let segments = chords::parse("8 11 C:maj\n11 12 G:sus4\n12 13 A:min\n").unwrap();
        let labels = chord_labels(&segments, &arrangement(), 20);
        assert_eq!(labels[..5], [0; 5]);
        assert_eq!(labels[6..10], [IGNORED; 4]);
        assert_eq!(labels[11..16], [21; 5]);
        assert_eq!(
            labels[17], IGNORED,
            "nothing is known beyond the last chord"
        );
    }
}
