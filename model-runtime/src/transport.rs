//! Tracks the host's transport, sample by sample, and detects jumps.

/// A position error above this is a jump. Smaller errors are rounding: hosts differ in how they report tempo changes
/// inside a block.
const JUMP_SECONDS: f64 = 0.02;

/// Valid tempos.
const TEMPO_BPM: std::ops::RangeInclusive<f64> = 1.0..=2000.0;

/// Tempo of the internal beat counter, used if the host reports none.
const FREE_TEMPO_BPM: f64 = 120.0;

/// The host's transport at the start of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Transport {
    /// Whether it is rolling.
    pub playing: bool,
    /// The tempo in quarter notes per minute.
    pub tempo_bpm: Option<f64>,
    /// The song position in quarter notes; negative in a count-in.
    pub position_beats: Option<f64>,
    /// The song position in samples.
    pub position_samples: Option<i64>,
}

/// A position on the beat grid.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Beat {
    /// The position in quarter notes.
    pub position_beats: f64,
    /// Quarter notes per sample.
    pub beats_per_sample: f64,
    /// Whether the host reports the beats. Otherwise they are counted from 0 at 120 BPM.
    pub is_host: bool,
}

impl Beat {
    fn after(self, samples: usize) -> Self {
        Self {
            position_beats: self.position_beats + samples as f64 * self.beats_per_sample,
            ..self
        }
    }
}

/// Audio thread: follows the host's transport.
#[derive(Debug)]
pub(crate) struct Timeline {
    sample_rate_hz: f64,
    playing: Option<bool>,
    /// At the first sample of the block.
    beat: Beat,
    block_samples: usize,
    /// Samples of the block that have passed.
    offset: usize,
    position_samples: Option<i64>,
}

impl Timeline {
    pub(crate) fn new(sample_rate_hz: f64) -> Self {
        Self {
            sample_rate_hz,
            playing: None,
            beat: Beat::default(),
            block_samples: 0,
            offset: 0,
            position_samples: None,
        }
    }

    /// Resets: the next block is the first one.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.sample_rate_hz);
    }

    /// Takes the host's transport at the start of a block. Returns whether it started, stopped or jumped there.
    pub(crate) fn begin_block(&mut self, transport: &Transport, block_samples: usize) -> bool {
        let expected_beat = self.beat.after(self.block_samples);
        let expected_samples = self
            .position_samples
            .map(|position| position.saturating_add(self.block_samples as i64));
        self.position_samples = transport.position_samples;
        self.block_samples = block_samples;
        self.offset = 0;

        let tempo = transport.tempo_bpm.filter(|bpm| TEMPO_BPM.contains(bpm));
        let position = transport.position_beats.filter(|beats| beats.is_finite());
        self.beat = match (transport.playing, tempo, position) {
            (true, Some(bpm), Some(position_beats)) => Beat {
                position_beats,
                beats_per_sample: bpm / 60.0 / self.sample_rate_hz,
                is_host: true,
            },
            _ if expected_beat.is_host || self.playing.is_none() => Beat {
                position_beats: 0.0,
                beats_per_sample: FREE_TEMPO_BPM / 60.0 / self.sample_rate_hz,
                is_host: false,
            },
            _ => expected_beat,
        };

        let was_playing = self.playing.replace(transport.playing);
        let off_samples = match (expected_samples, transport.position_samples) {
            (Some(expected), Some(found)) => expected.abs_diff(found) as f64,
            _ => {
                let beats = self.beat.position_beats - expected_beat.position_beats;
                beats.abs() / self.beat.beats_per_sample
            }
        };
        let on_grid = expected_beat.is_host && self.beat.is_host;
        let jumped = on_grid && off_samples > JUMP_SECONDS * self.sample_rate_hz;
        jumped || was_playing.is_some_and(|was| was != transport.playing)
    }

    /// The position of the next sample.
    pub(crate) fn beat(&self) -> Beat {
        self.beat.after(self.offset)
    }

    /// Advances by some samples.
    pub(crate) fn advance(&mut self, samples: usize) {
        self.offset += samples;
    }
}

/// Where a window that begins at `beat` ends, on the grid of `length_beats`: at the next multiple of its largest
/// power-of-two division that is at most `limit_samples` long. `None` if windows run free: if the host reports no
/// beats, or if the whole length is less than a quarter of the limit.
pub(crate) fn window_end_beats(
    beat: Beat,
    length_beats: Option<f64>,
    limit_samples: usize,
) -> Option<f64> {
    let mut division = length_beats.filter(|_| beat.is_host)?;
    // Both ends fall on whole samples, so a window may be one sample longer than its beats.
    let limit_beats = (limit_samples - 1) as f64 * beat.beats_per_sample;
    if 4.0 * division < limit_beats {
        return None;
    }
    while division > limit_beats {
        division /= 2.0;
    }
    let next = ((beat.position_beats / division).floor() + 1.0) * division;
    // If rounding put the start of a window just before a line, the window ends at the line after it.
    let half_sample = 0.5 * beat.beats_per_sample;
    let at_once = next - beat.position_beats < half_sample;
    Some(if at_once { next + division } else { next })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: f64 = 48_000.0;

    fn rolling(beats: f64, bpm: f64) -> Transport {
        Transport {
            playing: true,
            tempo_bpm: Some(bpm),
            position_beats: Some(beats),
            position_samples: None,
        }
    }

    fn beat(position_beats: f64, bpm: f64) -> Beat {
        Beat {
            position_beats,
            beats_per_sample: bpm / 60.0 / RATE_HZ,
            is_host: true,
        }
    }

    #[test]
    fn the_largest_division_that_fits_ends_the_window() {
        // 120 BPM: a beat is 24,000 samples.
        for (length, limit, at, end) in [
            (1.0, 24_001, 0.0, 1.0),
            (1.0, 24_000, 0.0, 0.5),
            (1.0, 3_001, 0.0, 0.125),
            (2.0, 3_001, 0.2, 0.25),
            (0.25, 2_000, 4.1, 4.125),
            (1.0, 24_001, -0.5, 0.0),
            (1.0, 24_001, -1.0, 0.0),
            (0.25, 6_001, 0.249_999_999, 0.5),
        ] {
            let found = window_end_beats(beat(at, 120.0), Some(length), limit);
            assert_eq!(found, Some(end), "{length} beats, {limit} samples, at {at}");
        }
    }

    #[test]
    fn windows_run_free_without_a_grid_and_where_it_is_much_too_fine() {
        assert_eq!(window_end_beats(beat(0.0, 120.0), None, 2000), None);
        let free = Beat {
            is_host: false,
            ..beat(0.0, 120.0)
        };
        assert_eq!(window_end_beats(free, Some(1.0), 2000), None);
        assert_eq!(window_end_beats(beat(0.0, 1999.0), Some(0.25), 8000), None);
    }

    #[test]
    fn starts_stops_and_jumps_are_found_and_tempo_changes_are_none() {
        let mut timeline = Timeline::new(RATE_HZ);
        assert!(!timeline.begin_block(&rolling(0.0, 120.0), 24_000));
        assert!(!timeline.begin_block(&rolling(1.0, 90.0), 32_000));
        assert!(
            !timeline.begin_block(&rolling(2.01, 120.0), 24_000),
            "rounding"
        );
        assert!(
            timeline.begin_block(&rolling(3.51, 120.0), 24_000),
            "forward"
        );
        assert!(timeline.begin_block(&rolling(-2.0, 120.0), 24_000), "back");
        assert!(!timeline.begin_block(&rolling(-1.0, 120.0), 24_000));
        let stopped = Transport {
            playing: false,
            ..rolling(0.0, 120.0)
        };
        assert!(timeline.begin_block(&stopped, 100), "stop");
        assert!(!timeline.begin_block(&stopped, 100));
        assert!(timeline.begin_block(&rolling(0.0, 120.0), 100), "start");
    }

    #[test]
    fn samples_decide_where_the_host_gives_them() {
        let at = |samples, beats| Transport {
            position_samples: Some(samples),
            ..rolling(beats, 120.0)
        };
        let mut timeline = Timeline::new(RATE_HZ);
        assert!(!timeline.begin_block(&at(0, 0.0), 24_000));
        // A tempo ramp moved the beats, not the samples.
        assert!(!timeline.begin_block(&at(24_000, 1.4), 24_000));
        assert!(timeline.begin_block(&at(0, 2.4), 24_000));
    }

    #[test]
    fn nonsense_from_the_host_is_no_tempo() {
        let mut timeline = Timeline::new(RATE_HZ);
        for (beats, bpm) in [
            (f64::NAN, 120.0),
            (0.0, f64::INFINITY),
            (0.0, 0.0),
            (0.0, -5.0),
        ] {
            timeline.begin_block(&rolling(beats, bpm), 64);
            assert!(!timeline.beat().is_host && timeline.beat().position_beats.is_finite());
        }
    }

    #[test]
    fn beats_are_counted_while_the_host_has_none() {
        let mut timeline = Timeline::new(RATE_HZ);
        for _ in 0..4 {
            timeline.begin_block(&Transport::default(), 6_000);
            timeline.advance(6_000);
        }
        assert!((timeline.beat().position_beats - 1.0).abs() < 1e-9);
    }
}
