//! The host's transport.

use clack_host::events::event_types::{TransportEvent, TransportFlags};
use clack_host::events::{EventFlags, EventHeader};
use clack_host::utils::BeatTime;

/// The position of the transport at each sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Song {
    /// Consecutive sections. The transport is stopped after the last one.
    pub stretches: Vec<Stretch>,
}

/// A part of a [`Song`] without a jump.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    /// Length in samples.
    pub samples: usize,
    /// Whether the transport rolls.
    pub playing: bool,
    /// The song position at its start, in quarter notes.
    pub start_beats: f64,
    /// The tempo at its start; it changes linearly in time.
    pub start_bpm: f64,
    /// The tempo at its end.
    pub end_bpm: f64,
}

impl Stretch {
    /// Song position in quarter notes, and tempo, at a sample of the stretch.
    fn at(&self, sample: usize, sample_rate_hz: f64) -> (f64, f64) {
        let share = sample as f64 / self.samples as f64;
        let bpm = self.start_bpm + share * (self.end_bpm - self.start_bpm);
        if !self.playing {
            return (self.start_beats, bpm);
        }
        let mean_bpm = 0.5 * (self.start_bpm + bpm);
        let seconds = sample as f64 / sample_rate_hz;
        (self.start_beats + seconds * mean_bpm / 60.0, bpm)
    }
}

impl Song {
    /// A song with a constant tempo from the first beat to the end.
    pub fn steady(bpm: f64, samples: usize) -> Self {
        Self {
            stretches: vec![Stretch {
                samples,
                playing: true,
                start_beats: 0.0,
                start_bpm: bpm,
                end_bpm: bpm,
            }],
        }
    }

    /// Number of samples from a sample to the next stretch.
    pub fn samples_to_jump(&self, sample: usize) -> usize {
        let mut start = 0;
        for stretch in &self.stretches {
            start += stretch.samples;
            if start > sample {
                return start - sample;
            }
        }
        usize::MAX
    }

    /// The transport that the host reports at a sample.
    pub fn at(&self, sample: usize, sample_rate_hz: f64) -> TransportEvent {
        let mut start = 0;
        let found = self.stretches.iter().find(|stretch| {
            start += stretch.samples;
            start > sample
        });
        let (playing, (beats, tempo)) = match found {
            Some(stretch) => {
                let offset = sample - (start - stretch.samples);
                (stretch.playing, stretch.at(offset, sample_rate_hz))
            }
            None => (false, (0.0, 120.0)),
        };
        let mut flags = TransportFlags::HAS_TEMPO | TransportFlags::HAS_BEATS_TIMELINE;
        if playing {
            flags |= TransportFlags::IS_PLAYING;
        }
        let zero = BeatTime::from_float(0.0);
        TransportEvent {
            header: EventHeader::new_core(0, EventFlags::empty()),
            flags,
            song_pos_beats: BeatTime::from_float(beats),
            song_pos_seconds: zero,
            tempo,
            tempo_inc: 0.0,
            loop_start_beats: zero,
            loop_end_beats: zero,
            loop_start_seconds: zero,
            loop_end_seconds: zero,
            bar_start: zero,
            bar_number: 0,
            time_signature_numerator: 4,
            time_signature_denominator: 4,
        }
    }
}
