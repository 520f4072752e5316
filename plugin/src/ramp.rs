//! Audio thread: short ramps that prevent clicks.

/// Duration of a ramp.
const RAMP_SECONDS: f32 = 0.02;

/// Audio thread: follows the value of a parameter with a short ramp, whether automation, the editor or a loaded state
/// changes it.
pub struct Ramp {
    length_samples: u32,
    value: f32,
    target: f32,
    step: f32,
    samples_left: u32,
}

impl Ramp {
    /// Creates a ramp at 0.
    pub fn new(sample_rate_hz: f32) -> Self {
        Self {
            length_samples: ((RAMP_SECONDS * sample_rate_hz) as u32).max(1),
            value: 0.0,
            target: 0.0,
            step: 0.0,
            samples_left: 0,
        }
    }

    /// Jumps to a value.
    pub fn settle(&mut self, value: f32) {
        self.value = value;
        self.target = value;
        self.samples_left = 0;
    }

    /// The current value.
    pub fn value(&self) -> f32 {
        self.value
    }

    /// Whether it has reached its last target.
    pub fn is_settled(&self) -> bool {
        self.samples_left == 0
    }

    /// Moves towards `target` by one sample.
    pub fn next(&mut self, target: f32) -> f32 {
        if target != self.target {
            self.target = target;
            self.step = (target - self.value) / self.length_samples as f32;
            self.samples_left = self.length_samples;
        }
        match self.samples_left {
            0 => {}
            1 => {
                self.value = self.target;
                self.samples_left = 0;
            }
            _ => {
                self.value += self.step;
                self.samples_left -= 1;
            }
        }
        self.value
    }
}
