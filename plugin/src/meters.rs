//! Level metering: measured on the audio thread, read by the editor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How fast displayed peaks fall.
const FALL_DB_PER_SECOND: f32 = 24.0;

/// Time constant of the loudness measurement.
const LOUDNESS_SECONDS: f32 = 2.0;

/// Blocks with a mean square below this (-60 dB) do not count for the loudness.
const REST_MEAN_SQUARE: f32 = 1e-6;

/// Peaks below this (-80 dB) count as silence.
const SILENCE: f32 = 1e-4;

/// Any thread: a number written by one thread and read by others.
#[derive(Debug, Default)]
struct Figure(AtomicU32);

impl Figure {
    fn set(&self, value: f32) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Any thread: the level of one stereo signal.
#[derive(Debug, Default)]
pub struct Level {
    peaks: [Figure; 2],
    mean_square: Figure,
}

impl Level {
    /// The decaying peaks of left and right.
    pub fn peaks(&self) -> [f32; 2] {
        [self.peaks[0].get(), self.peaks[1].get()]
    }

    /// The mean square over the last seconds with sound; 0 before the first sound.
    pub fn mean_square(&self) -> f32 {
        self.mean_square.get()
    }
}

/// Any thread: all levels of a plugin.
#[derive(Debug, Default)]
pub struct Meters {
    /// The main input, before its gain.
    pub main: Level,
    /// The sidechain, before its gain.
    pub sidechain: Level,
    /// The output.
    pub output: Level,
    has_sidechain: AtomicBool,
    blocks: AtomicU32,
    changed: AtomicBool,
}

impl Meters {
    /// Any thread, including the audio thread: asks an open editor to refresh.
    pub fn ask_to_look(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Editor: whether a refresh was requested since the last call.
    pub fn take_asked(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// Whether the host provides a sidechain.
    pub fn has_sidechain(&self) -> bool {
        self.has_sidechain.load(Ordering::Relaxed)
    }

    /// Number of processed blocks. It stops when the host sends no audio.
    pub fn blocks(&self) -> u32 {
        self.blocks.load(Ordering::Relaxed)
    }
}

/// Editor: detects when the host sends no audio.
#[derive(Debug, Default)]
pub struct Pulse {
    blocks: u32,
    last_seconds: f64,
}

impl Pulse {
    /// Time since the last block in seconds, as far as polling shows.
    pub fn pause_seconds(&mut self, meters: &Meters, now_seconds: f64) -> f64 {
        if meters.blocks() != self.blocks {
            self.blocks = meters.blocks();
            self.last_seconds = now_seconds;
        }
        now_seconds - self.last_seconds
    }
}

/// Audio thread: measures one signal.
#[derive(Debug, Default)]
struct Probe {
    peaks: [f32; 2],
    mean_square: f32,
}

impl Probe {
    /// Measures a block of one or two channels. Returns whether the peaks changed.
    fn measure(&mut self, level: &Level, channels: &[&mut [f32]], seconds: f32) -> bool {
        let fall = 10_f32.powf(-FALL_DB_PER_SECOND / 20.0 * seconds);
        let before = self.peaks;
        let mut mean_square = 0.0;
        for (side, peak) in self.peaks.iter_mut().enumerate() {
            let channel = channels.get(side.min(channels.len().saturating_sub(1)));
            let channel = channel.map_or(&[][..], |channel| channel);
            let loudest = channel.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
            let energy = channel.iter().map(|x| x * x).sum::<f32>();
            *peak = loudest.max(*peak * fall);
            if !(SILENCE..f32::INFINITY).contains(peak) {
                *peak = 0.0;
            }
            level.peaks[side].set(*peak);
            mean_square += 0.5 * energy / channel.len().max(1) as f32;
        }
        if (REST_MEAN_SQUARE..f32::INFINITY).contains(&mean_square) {
            let weight = match self.mean_square {
                0.0 => 1.0,
                _ => (seconds / LOUDNESS_SECONDS).min(1.0),
            };
            self.mean_square += weight * (mean_square - self.mean_square);
            level.mean_square.set(self.mean_square);
        }
        self.peaks != before
    }
}

/// Audio thread: measures inputs and output. Only writes atomics.
#[derive(Debug, Default)]
pub struct Metering {
    meters: Arc<Meters>,
    sample_rate_hz: f32,
    main: Probe,
    sidechain: Probe,
    output: Probe,
    blocks: u32,
    changed: bool,
}

impl Metering {
    /// Writes to `meters`, at this sample rate.
    pub fn new(meters: Arc<Meters>, sample_rate_hz: f32) -> Self {
        Self {
            meters,
            sample_rate_hz,
            ..Self::default()
        }
    }

    /// Measures the inputs, before a block is processed in place.
    pub fn input(&mut self, main: &[&mut [f32]], sidechain: &[&mut [f32]]) {
        let seconds = self.seconds(main);
        let meters = &self.meters;
        self.blocks = self.blocks.wrapping_add(1);
        meters.blocks.store(self.blocks, Ordering::Relaxed);
        meters
            .has_sidechain
            .store(!sidechain.is_empty(), Ordering::Relaxed);
        self.changed = self.main.measure(&meters.main, main, seconds);
        self.changed |= self
            .sidechain
            .measure(&meters.sidechain, sidechain, seconds);
    }

    /// Measures the output, after the block was processed.
    pub fn output(&mut self, main: &[&mut [f32]]) {
        let seconds = self.seconds(main);
        self.changed |= self.output.measure(&self.meters.output, main, seconds);
        if self.changed {
            self.meters.ask_to_look();
        }
    }

    fn seconds(&self, main: &[&mut [f32]]) -> f32 {
        let samples = main.first().map_or(0, |channel| channel.len());
        samples as f32 / self.sample_rate_hz.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: f32 = 48_000.0;

    /// Measures `blocks` blocks of 480 samples that alternate between `loud` and `-loud`.
    fn play(metering: &mut Metering, blocks: usize, loud: f32) {
        for _ in 0..blocks {
            let mut left: Vec<f32> = (0..480).map(|n| [loud, -loud][n % 2]).collect();
            let mut right = left.iter().map(|x| 0.5 * x).collect::<Vec<_>>();
            metering.input(&[&mut left, &mut right], &[]);
            metering.output(&[&mut left]);
        }
    }

    #[test]
    fn a_pause_is_noticed() {
        let meters = Arc::new(Meters::default());
        let mut metering = Metering::new(Arc::clone(&meters), RATE_HZ);
        let mut pulse = Pulse::default();
        play(&mut metering, 1, 0.8);
        assert_eq!(pulse.pause_seconds(&meters, 5.0), 0.0);
        assert_eq!(pulse.pause_seconds(&meters, 5.5), 0.5);
        play(&mut metering, 1, 0.8);
        assert_eq!(pulse.pause_seconds(&meters, 6.0), 0.0);
    }

    #[test]
    fn peaks_rise_at_once_and_fall_steadily() {
        let meters = Arc::new(Meters::default());
        let mut metering = Metering::new(Arc::clone(&meters), RATE_HZ);
        play(&mut metering, 1, 0.8);
        assert_eq!(meters.main.peaks(), [0.8, 0.4]);
        assert_eq!(
            meters.output.peaks(),
            [0.8; 2],
            "mono counts for both sides"
        );
        assert_eq!(meters.sidechain.peaks(), [0.0; 2]);
        play(&mut metering, 100, 0.0);
        let fallen_db = 20.0 * (meters.main.peaks()[0] / 0.8).log10();
        assert!((fallen_db + FALL_DB_PER_SECOND).abs() < 0.01, "{fallen_db}");
        play(&mut metering, 500, 0.0);
        assert_eq!(meters.main.peaks(), [0.0; 2]);
    }

    #[test]
    fn the_loudness_ignores_rests() {
        let meters = Arc::new(Meters::default());
        let mut metering = Metering::new(Arc::clone(&meters), RATE_HZ);
        play(&mut metering, 300, 0.4);
        let loudness = meters.main.mean_square();
        assert!((loudness - 0.5 * (0.16 + 0.04)).abs() < 1e-4, "{loudness}");
        play(&mut metering, 1000, 0.0);
        assert_eq!(meters.main.mean_square(), loudness);
    }

    #[test]
    fn what_is_not_finite_is_not_shown() {
        let meters = Arc::new(Meters::default());
        let mut metering = Metering::new(Arc::clone(&meters), RATE_HZ);
        play(&mut metering, 1, f32::INFINITY);
        play(&mut metering, 1, f32::NAN);
        play(&mut metering, 1, 0.5);
        assert_eq!(meters.main.peaks(), [0.5, 0.25]);
        assert!(meters.main.mean_square() > 0.0);
    }
}
