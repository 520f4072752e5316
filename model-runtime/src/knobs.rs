//! Maps the controls that the audio thread read to the frames of the remix.

use std::collections::VecDeque;

use crate::controls::Controls;
use crate::transport::Beat;
use crate::window::Window;

/// The controls for the frames that have not been played yet.
pub(crate) struct Knobs {
    /// Host samples between frame centres.
    hop_samples: f64,
    interval_samples: usize,
    readings: VecDeque<Controls>,
    /// Number of the first stored reading. Reading `n` was taken `n` intervals after the last jump.
    first_reading: usize,
    /// Start of frame 0, in samples after the last jump.
    clip_position_samples: u64,
}

impl Knobs {
    /// Creates an empty store for frames that are `hop_samples` apart. The first frame is centred at half a hop.
    pub(crate) fn new(hop_samples: f64) -> Self {
        Self {
            hop_samples,
            interval_samples: 1,
            readings: VecDeque::new(),
            first_reading: 0,
            clip_position_samples: 0,
        }
    }

    /// The next window begins a stream.
    pub(crate) fn begin_stream(&mut self) {
        self.readings.clear();
        self.first_reading = 0;
    }

    /// Sets the start of frame 0, in samples after the last jump.
    pub(crate) fn begin_clip(&mut self, position_samples: u64) {
        self.clip_position_samples = position_samples;
    }

    /// Takes the controls of the next window.
    pub(crate) fn read(&mut self, window: &Window) {
        self.interval_samples = window.control_interval_samples;
        if self.readings.is_empty() {
            let interval = self.interval_samples as u64;
            self.first_reading = window.stream_position_samples.div_ceil(interval) as usize;
        }
        self.readings.extend(&window.controls);
    }

    /// The last reading before the centre of a frame, or the nearest one.
    pub(crate) fn at(&self, frame: usize) -> Controls {
        let centre = (frame as f64 + 0.5) * self.hop_samples + self.clip_position_samples as f64;
        let reading = centre as usize / self.interval_samples;
        let index = reading.saturating_sub(self.first_reading);
        self.readings
            .get(index)
            .or(self.readings.back())
            .copied()
            .unwrap_or_default()
    }

    /// Converts a position in frames to quarter notes.
    pub(crate) fn beats_at(&self, frames: f64) -> f64 {
        self.beat_at(frames).position_beats
    }

    /// Converts a position in frames to a position on the beat grid.
    pub(crate) fn beat_at(&self, frames: f64) -> Beat {
        let place = frames * self.hop_samples + self.clip_position_samples as f64;
        let reading = (place as usize / self.interval_samples).max(self.first_reading);
        let index = (reading - self.first_reading).min(self.readings.len().saturating_sub(1));
        let beat = self.readings.get(index).map_or(Beat::default(), |r| r.beat);
        let read_at = (self.first_reading + index) * self.interval_samples;
        Beat {
            position_beats: beat.position_beats + (place - read_at as f64) * beat.beats_per_sample,
            ..beat
        }
    }

    /// Drops readings before a frame, but keeps the newest.
    pub(crate) fn forget_before(&mut self, frame: usize) {
        let start = frame as f64 * self.hop_samples + self.clip_position_samples as f64;
        self.forget_before_sample(start as u64);
    }

    /// Drops readings before a sample, counted from the last jump, but keeps the newest.
    pub(crate) fn forget_before_sample(&mut self, sample: u64) {
        let reading = sample as usize / self.interval_samples;
        while self.first_reading < reading && self.readings.len() > 1 {
            self.readings.pop_front();
            self.first_reading += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_of_a_long_rest_are_forgotten() {
        let mut knobs = Knobs::new(512.0);
        for index in 0..100 {
            let mut window = Window::new(1024, 256);
            window.stream_position_samples = index * 1024;
            knobs.read(&window);
            knobs.forget_before_sample((index + 1) * 1024);
        }
        assert_eq!(knobs.readings.len(), 1);
        assert_eq!(knobs.first_reading, 399);
    }
}
