//! Notes and controls of a standard MIDI file, with their times.

use std::collections::HashMap;

use anyhow::{Result, bail, ensure};
use midly::{Format, MetaMessage, MidiMessage, Smf, Timing, TrackEventKind};

/// The drum channel, counted from 0.
pub const DRUM_CHANNEL: u8 = 9;

/// Tempos are clamped to this range, in microseconds per beat: 10 to 1000 BPM.
const TEMPO_RANGE_MICROSECONDS: (u32, u32) = (60_000, 6_000_000);

/// First program of the effects and unpitched percussion, whose keys are not pitches.
const FIRST_EFFECT_PROGRAM: u8 = 112;

/// Controllers that a [`Song`] keeps: modulation, data entry, volume, expression, sustain pedal, parameter numbers,
/// and the reset of all of these. Programs, banks and panning are dropped: the arrangement sets its own programs.
const CONTROLLERS: [u8; 11] = [1, 6, 7, 11, 38, 64, 98, 99, 100, 101, 121];

/// One note of a [`Song`].
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Start, in ticks.
    pub start_tick: u64,
    /// Start, in seconds.
    pub start_s: f64,
    /// End, in seconds.
    pub end_s: f64,
    /// Channel, 0 to 15.
    pub channel: u8,
    /// Key: pitch or drum, 0 to 127.
    pub key: u8,
    /// Velocity, 1 to 127.
    pub velocity: u8,
}

impl Note {
    /// Whether the note is a drum stroke.
    pub fn is_drum(&self) -> bool {
        self.channel == DRUM_CHANNEL
    }
}

/// A controller (command 0xB0) or pitch bend (0xE0) of a [`Song`].
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// Time, in seconds.
    pub time_s: f64,
    /// Channel, 0 to 15.
    pub channel: u8,
    /// The kind of message.
    pub command: u8,
    /// First data byte.
    pub data1: u8,
    /// Second data byte.
    pub data2: u8,
}

/// A piece of music as notes in time.
#[derive(Debug, Clone, PartialEq)]
pub struct Song {
    /// All notes except those of effect programs, by start.
    pub notes: Vec<Note>,
    /// All controls, in order.
    pub controls: Vec<Control>,
    /// Ticks per beat.
    pub ticks_per_beat: f64,
    /// Converts ticks to seconds.
    pub tempo: TempoMap,
    /// Changes of metre, in order: tick, and sixteenths per bar from there on.
    pub bars: Vec<(u64, u32)>,
}

impl Song {
    /// Reads a standard MIDI file of one track or of simultaneous tracks.
    ///
    /// # Errors
    ///
    /// Returns an error if `bytes` is not such a file, it uses SMPTE time, or it has no pitched notes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let smf = Smf::parse(bytes)?;
        let Timing::Metrical(ticks_per_beat) = smf.header.timing else {
            bail!("expected time in ticks per beat, found film frames (SMPTE)");
        };
        let ticks_per_beat = f64::from(ticks_per_beat.as_int());
        ensure!(
            ticks_per_beat > 0.0,
            "expected at least one tick per beat, found 0"
        );
        ensure!(
            smf.header.format != Format::Sequential,
            "expected simultaneous tracks (format 0 or 1), found tracks in sequence (format 2)"
        );

        let mut events = Vec::new();
        for track in &smf.tracks {
            let mut tick = 0;
            for event in track {
                tick += u64::from(event.delta.as_int());
                events.push((tick, event.kind));
            }
        }
        // A stable sort keeps the order of simultaneous events of a track.
        events.sort_by_key(|(tick, _)| *tick);

        let mut tempos = Vec::new();
        let mut bars = vec![(0, 16)];
        for (tick, kind) in &events {
            match kind {
                TrackEventKind::Meta(MetaMessage::Tempo(tempo)) => {
                    tempos.push((*tick, tempo.as_int()));
                }
                TrackEventKind::Meta(MetaMessage::TimeSignature(beats, unit, ..)) => {
                    let sixteenths = (u32::from(*beats) * 16).checked_shr(u32::from(*unit));
                    bars.push((*tick, bar_sixteenths(sixteenths.unwrap_or(0))));
                }
                _ => {}
            }
        }
        let tempo = TempoMap::new(&tempos, ticks_per_beat);
        let mut song = Self {
            notes: Vec::new(),
            controls: Vec::new(),
            ticks_per_beat,
            tempo,
            bars,
        };
        song.add_messages(&events);
        ensure!(
            song.notes.iter().any(|note| !note.is_drum()),
            "no pitched notes found"
        );
        Ok(song)
    }

    fn add_messages(&mut self, events: &[(u64, TrackEventKind)]) {
        let mut programs = [0; 16];
        let mut sounding: HashMap<(u8, u8), usize> = HashMap::new();
        let mut time_s = 0.0;
        for (tick, kind) in events {
            let TrackEventKind::Midi { channel, message } = kind else {
                continue;
            };
            let channel = channel.as_int();
            time_s = self.tempo.seconds(*tick as f64);
            let mut control = |command, data1, data2| {
                self.controls.push(Control {
                    time_s,
                    channel,
                    command,
                    data1,
                    data2,
                });
            };
            match message {
                MidiMessage::NoteOn { key, vel } => {
                    let (key, velocity) = (key.as_int(), vel.as_int());
                    if let Some(earlier) = sounding.remove(&(channel, key)) {
                        self.notes[earlier].end_s = time_s;
                    }
                    let is_effect = programs[usize::from(channel)] >= FIRST_EFFECT_PROGRAM;
                    if velocity > 0 && (channel == DRUM_CHANNEL || !is_effect) {
                        sounding.insert((channel, key), self.notes.len());
                        self.notes.push(Note {
                            start_tick: *tick,
                            start_s: time_s,
                            end_s: f64::INFINITY,
                            channel,
                            key,
                            velocity,
                        });
                    }
                }
                MidiMessage::NoteOff { key, .. } => {
                    if let Some(note) = sounding.remove(&(channel, key.as_int())) {
                        self.notes[note].end_s = time_s;
                    }
                }
                MidiMessage::ProgramChange { program } => {
                    programs[usize::from(channel)] = program.as_int();
                }
                MidiMessage::Controller { controller, value }
                    if CONTROLLERS.contains(&controller.as_int()) =>
                {
                    control(0xB0, controller.as_int(), value.as_int());
                }
                MidiMessage::PitchBend { bend } => {
                    let value = bend.0.as_int();
                    control(0xE0, (value & 0x7F) as u8, (value >> 7) as u8);
                }
                _ => {}
            }
        }
        // A note without a note off lasts to the end.
        for note in sounding.into_values() {
            self.notes[note].end_s = time_s;
        }
    }

    /// End of the last pitched note, in seconds.
    pub fn end_s(&self) -> f64 {
        let pitched = self.notes.iter().filter(|note| !note.is_drum());
        pitched.fold(0.0, |end, note| note.end_s.max(end))
    }
}

/// Distinguishes only triple metre from all others, because many files have wrong time signatures.
fn bar_sixteenths(signature_sixteenths: u32) -> u32 {
    match signature_sixteenths {
        12 | 24 => 12,
        _ => 16,
    }
}

/// Conversion from ticks to seconds, with all tempo changes.
#[derive(Debug, Clone, PartialEq)]
pub struct TempoMap {
    /// First tick, its time in seconds, and seconds per tick from there on; in order, the first at tick 0.
    spans: Vec<(f64, f64, f64)>,
}

impl TempoMap {
    /// Creates a map from tempo changes in order: tick, and microseconds per beat from there on. The initial tempo is
    /// 120 BPM, as the standard requires.
    fn new(changes: &[(u64, u32)], ticks_per_beat: f64) -> Self {
        let (shortest, longest) = TEMPO_RANGE_MICROSECONDS;
        let mut spans = vec![(0.0, 0.0, 0.5 / ticks_per_beat)];
        for &(tick, microseconds) in changes {
            let tick = tick as f64;
            let beat_s = f64::from(microseconds.clamp(shortest, longest)) * 1e-6;
            let (first, time_s, tick_s) = spans[spans.len() - 1];
            spans.push((
                tick,
                time_s + (tick - first) * tick_s,
                beat_s / ticks_per_beat,
            ));
        }
        Self { spans }
    }

    /// Time of `tick`, in seconds.
    pub fn seconds(&self, tick: f64) -> f64 {
        let later = self.spans.partition_point(|(first, ..)| *first <= tick);
        let (first, time_s, tick_s) = self.spans[later.max(1) - 1];
        time_s + (tick - first) * tick_s
    }
}
