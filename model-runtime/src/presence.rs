//! Tells whether the sidechain sounds, from its level. A host fills an unused sidechain with zeros, but a muted track may
//! still bring dither or the noise of a preamplifier.

use crate::delay::Delay;
use crate::sample::finite_or_zero;

/// The level is the RMS over this time.
const LEVEL_SECONDS: f64 = 0.05;

/// Below this level, the sidechain stops to sound: power of -90 dBFS.
const SILENT_POWER: f64 = 1e-9;

/// Above this level, it sounds again: power of -84 dBFS. Between the two it stays as it is.
const SOUND_POWER: f64 = 3.981e-9;

/// Steps per unit of power. Powers are whole numbers, so that their running sum is exact: after loud music, rounding
/// errors of a sum of floats would be louder than silence. The smallest power is -132 dBFS. Powers above -36 dBFS count
/// as this level, but a single such sample is enough for the sidechain to sound.
const POWER_STEPS: f32 = (1_u64 << 44) as f32;

/// Audio thread: detects at each sample whether the sidechain sounds.
///
/// The louder channel counts. Values that are not finite count as zero. The result depends on the samples alone, not on
/// blocks or windows.
#[derive(Debug)]
pub(crate) struct Presence {
    /// The powers of left and right in the time of [`LEVEL_SECONDS`].
    powers: Delay<[u32; 2]>,
    /// Their sums.
    sums: [u64; 2],
    silent_sum: u64,
    sound_sum: u64,
    sounds: bool,
}

impl Presence {
    /// Creates a detector after silence. Allocates; all other methods are real-time safe.
    pub(crate) fn new(sample_rate_hz: u32) -> Self {
        let samples = (LEVEL_SECONDS * f64::from(sample_rate_hz)).round().max(1.0);
        let sum = |power: f64| (samples * power * f64::from(POWER_STEPS)) as u64;
        Self {
            powers: Delay::new(samples as usize),
            sums: [0; 2],
            silent_sum: sum(SILENT_POWER),
            sound_sum: sum(SOUND_POWER),
            sounds: false,
        }
    }

    /// How long it takes to notice that a loud sound has ended.
    pub(crate) fn level_samples(&self) -> usize {
        self.powers.samples()
    }

    /// Forgets the input so far, in constant time.
    pub(crate) fn reset(&mut self) {
        self.powers.reset();
        self.sums = [0; 2];
        self.sounds = false;
    }

    /// Takes the next sample, and returns whether the sidechain sounds there.
    pub(crate) fn next(&mut self, sidechain: [f32; 2]) -> bool {
        let powers = sidechain.map(power_steps);
        let oldest = self.powers.push(powers);
        for ((sum, power), oldest) in self.sums.iter_mut().zip(powers).zip(oldest) {
            *sum = *sum + u64::from(power) - u64::from(oldest);
        }
        let loudest = self.sums[0].max(self.sums[1]);
        self.sounds = match self.sounds {
            true => loudest >= self.silent_sum,
            false => loudest > self.sound_sum,
        };
        self.sounds
    }
}

/// The power of a sample in steps. The conversion saturates.
fn power_steps(sample: f32) -> u32 {
    let sample = finite_or_zero(sample);
    (sample * sample * POWER_STEPS) as u32
}

#[cfg(test)]
mod tests {
    use test_signals::Noise;

    use super::*;

    const RATES_HZ: [u32; 4] = [8000, 44_100, 96_000, 384_000];

    /// White noise with an RMS level in dBFS.
    fn noise(seed: u32, level_db: f32) -> impl Iterator<Item = f32> {
        let mut noise = Noise::new(seed);
        let gain = 12f32.sqrt() * 10f32.powf(level_db / 20.0);
        std::iter::repeat_with(move || gain * noise.sample())
    }

    /// Plays `seconds` of a mono signal on both sides. Returns at how many samples it sounds, and how many there are.
    fn play(
        presence: &mut Presence,
        rate_hz: u32,
        seconds: f32,
        signal: impl Iterator<Item = f32>,
    ) -> (usize, usize) {
        let samples = (seconds * rate_hz as f32) as usize;
        let sounding = signal.take(samples).filter(|&x| presence.next([x; 2]));
        (sounding.count(), samples)
    }

    #[test]
    fn the_level_decides_with_a_hysteresis() {
        for rate_hz in RATES_HZ {
            let presence = &mut Presence::new(rate_hz);
            for (level_db, expected) in [
                (-120.0, false),
                (-92.0, false),
                (-86.0, false),
                (-82.0, true),
                (-88.0, true),
                (-92.0, false),
                (-86.0, false),
                (-70.0, true),
                (-120.0, false),
                (0.0, true),
            ] {
                let what = format!("{level_db} dBFS at {rate_hz} Hz");
                // The level of before counts for a while.
                play(presence, rate_hz, 0.1, noise(1, level_db));
                let (sounding, samples) = play(presence, rate_hz, 0.5, noise(2, level_db));
                assert_eq!(sounding, if expected { samples } else { 0 }, "{what}");
            }
        }
    }

    #[test]
    fn a_muted_track_with_the_dither_of_16_bits_is_silent() {
        let mut presence = Presence::new(44_100);
        play(&mut presence, 44_100, 0.1, noise(1, -20.0));
        play(&mut presence, 44_100, 0.05, std::iter::repeat(0.0));
        let mut random = Noise::new(3);
        let dither =
            std::iter::repeat_with(|| (random.sample() + random.sample()).round() / 32_768.0);
        let (sounding, samples) = play(&mut presence, 44_100, 2.0, dither);
        assert_eq!((sounding, samples), (0, 88_200));
    }

    #[test]
    fn silence_is_heard_after_long_loud_music() {
        for rate_hz in RATES_HZ {
            // Louder than full scale as well.
            for level_db in [6.0, -20.0, -40.0, -60.0] {
                let mut presence = Presence::new(rate_hz);
                let seconds = 5e6 / rate_hz as f32;
                let music = noise(1, level_db);
                play(&mut presence, rate_hz, 0.01, noise(4, level_db));
                let (sounding, samples) = play(&mut presence, rate_hz, seconds, music);
                assert_eq!(sounding, samples);
                play(&mut presence, rate_hz, 0.05, noise(2, -100.0));
                let (sounding, _) = play(&mut presence, rate_hz, 0.5, noise(3, -100.0));
                assert_eq!(sounding, 0, "after {level_db} dBFS at {rate_hz} Hz");
            }
        }
    }

    #[test]
    fn the_first_audible_sample_sounds_and_silence_is_noticed_after_the_time_of_the_level() {
        for rate_hz in RATES_HZ {
            let mut presence = Presence::new(rate_hz);
            let level_samples = presence.level_samples();
            assert_eq!(level_samples, rate_hz as usize / 20);
            for first in [0.02, -1.0, f32::MAX] {
                assert!(presence.next([0.0, first]), "{first} at {rate_hz} Hz");
                let sounding = (0..2 * level_samples).filter(|_| presence.next([0.0; 2]));
                assert_eq!(sounding.count(), level_samples - 1);
            }
        }
    }

    #[test]
    fn either_channel_counts_and_two_are_no_louder_than_one() {
        for level_db in [-83.0, -85.0] {
            let alone = |side: usize| {
                let mut presence = Presence::new(48_000);
                let mut signal = noise(1, level_db).take(9600).map(|x| {
                    let mut sample = [0.0; 2];
                    sample[side] = x;
                    presence.next(sample)
                });
                signal.any(|sounds| sounds)
            };
            let mut presence = Presence::new(48_000);
            let mut pairs = noise(1, level_db).zip(noise(2, level_db)).take(9600);
            let both = pairs.any(|(left, right)| presence.next([left, right]));
            assert_eq!([alone(0), alone(1), both], [level_db > -84.0; 3]);
        }
    }

    #[test]
    fn what_is_not_finite_is_silent_and_a_reset_forgets() {
        let mut presence = Presence::new(48_000);
        for sample in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!presence.next([sample; 2]));
        }
        assert!(presence.next([0.5; 2]));
        presence.reset();
        assert!(!(0..4800).any(|_| presence.next([0.0; 2])));
    }
}
