//! The beat grid of the program: a steady tempo, which may be tapped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A pause after which taps count anew.
const LONGEST_INTERVAL: Duration = Duration::from_secs(2);

/// Taps that determine the tempo.
const TAPS: usize = 8;

/// Measures a tempo from taps.
#[derive(Default)]
pub struct TapTempo {
    taps: Vec<Instant>,
}

impl TapTempo {
    /// Takes a tap. Returns the tempo in BPM from the second tap on.
    pub fn tap(&mut self, now: Instant) -> Option<f32> {
        let pause = self.taps.last().map(|&last| now - last);
        if pause.is_some_and(|pause| pause > LONGEST_INTERVAL) {
            self.taps.clear();
        }
        if self.taps.len() == TAPS {
            self.taps.remove(0);
        }
        self.taps.push(now);
        let seconds = (now - self.taps[0]).as_secs_f64();
        let intervals = (self.taps.len() - 1) as f64;
        (seconds > 0.0).then(|| (60.0 * intervals / seconds) as f32)
    }
}

/// Hands taps to the audio thread.
#[derive(Default)]
pub struct Taps {
    /// Samples played so far.
    played_samples: AtomicU64,
    /// The latest tap: the tempo in BPM as the bits of an `f32`, and the lower half of the samples played before it. 0
    /// before the first.
    latest: AtomicU64,
}

impl Taps {
    /// Publishes a tempo; a beat is now.
    pub fn publish(&self, tempo_bpm: f32) {
        let played = self.played_samples.load(Ordering::Relaxed);
        let packed = u64::from(tempo_bpm.to_bits()) << 32 | (played & 0xffff_ffff);
        self.latest.store(packed, Ordering::Relaxed);
    }
}

/// Counts beats on the audio thread.
pub struct BeatClock {
    taps: Arc<Taps>,
    taken: u64,
    tempo_bpm: Option<f64>,
    position_samples: u64,
    position_beats: f64,
}

/// A position on the beat grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// Tempo.
    pub tempo_bpm: f64,
    /// In quarter notes.
    pub beats: f64,
    /// In samples.
    pub samples: u64,
}

impl BeatClock {
    /// Creates a clock at beat 0.
    pub fn new(taps: Arc<Taps>) -> Self {
        Self {
            taps,
            taken: 0,
            tempo_bpm: None,
            position_samples: 0,
            position_beats: 0.0,
        }
    }

    /// Audio thread: returns the position at the start of a block, and goes on to its end. The tempo is the tapped one or
    /// else `tempo_bpm`. A tap moves the grid by at most half a beat, so that the nearest beat falls on the tap.
    pub fn advance(&mut self, block_samples: usize, tempo_bpm: f64, rate_hz: f64) -> Position {
        let latest = self.taps.latest.load(Ordering::Relaxed);
        if latest != self.taken {
            self.taken = latest;
            let tempo_bpm = f64::from(f32::from_bits((latest >> 32) as u32));
            self.tempo_bpm = Some(tempo_bpm);
            let samples_since = (self.position_samples as u32).wrapping_sub(latest as u32);
            let beats_since = f64::from(samples_since) * tempo_bpm / 60.0 / rate_hz;
            self.position_beats = beats_since + (self.position_beats - beats_since).round();
        }
        let position = Position {
            tempo_bpm: self.tempo_bpm.unwrap_or(tempo_bpm),
            beats: self.position_beats,
            samples: self.position_samples,
        };
        self.position_samples += block_samples as u64;
        self.position_beats += block_samples as f64 * position.tempo_bpm / 60.0 / rate_hz;
        let played = &self.taps.played_samples;
        played.store(self.position_samples, Ordering::Relaxed);
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: f64 = 48_000.0;

    #[test]
    fn taps_give_their_tempo_and_a_pause_begins_anew() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut tempo = TapTempo::default();
        assert_eq!(tempo.tap(at(0.0)), None);
        for beat in 1..20 {
            let bpm = tempo.tap(at(0.4 * f64::from(beat)));
            assert!((bpm.unwrap() - 150.0).abs() < 0.01, "{bpm:?}");
        }
        assert_eq!(tempo.tap(at(20.0)), None);
        assert!((tempo.tap(at(21.0)).unwrap() - 60.0).abs() < 0.01);
    }

    #[test]
    fn beats_go_on_steadily_and_fall_on_taps() {
        let taps = Arc::new(Taps::default());
        let mut clock = BeatClock::new(Arc::clone(&taps));
        for block in 0..1000 {
            let position = clock.advance(64, 120.0, RATE_HZ);
            let expected = f64::from(block) * 64.0 / 24_000.0;
            assert!((position.beats - expected).abs() < 1e-9, "{position:?}");
        }
        let tap_samples = 64_000;
        taps.publish(90.0);
        let before = clock.position_beats;
        let position = clock.advance(64, 120.0, RATE_HZ);
        assert_eq!((position.tempo_bpm, position.samples), (90.0, tap_samples));
        assert!(
            (position.beats - position.beats.round()).abs() < 1e-9,
            "{position:?}"
        );
        assert!((position.beats - before).abs() <= 0.5, "{position:?}");
        let next = clock.advance(64, 120.0, RATE_HZ);
        assert!((next.beats - position.beats - 64.0 * 1.5 / RATE_HZ).abs() < 1e-9);
    }
}
