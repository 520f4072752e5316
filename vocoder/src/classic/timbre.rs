//! Plays the notes of one source with the colour of another.
//!
//! The spectrum of each source is split in three, whose logarithms add up: a *fine structure*, which is the spectrum divided by
//! its smooth envelope; a *colour*, which is the running mean of that envelope; and what is left of the envelope, its fast
//! *deviation* from the colour. The level is kept apart. Every part of the output may come from either source.
//!
//! Envelopes are computed on bands of [`BAND_HZ`], whatever the sample rate, so that a colour of one rate fits another.

use realfft::num_complex::Complex32;

use super::Palette;
use super::envelope::Envelope;
use crate::guided::levels::{loudness, loudness_weights};
use crate::guided::mixer::weigh;
use crate::guided::shift::PitchShift;
use crate::guided::{FrameControls, share};
use crate::separated::SeparatedFrame;
use crate::spectrum::multiply;
use crate::stft::magnitude_of;
use crate::vectorized;

/// Number of values of a colour: the logarithms of an envelope at the multiples of 93.75 Hz up to 24 kHz. Colours differ by
/// their shapes alone; their levels have no meaning.
pub const COLOUR_BANDS: usize = CEPSTRUM / 2 + 1;

/// Values of the symmetric spectrum of a colour.
const CEPSTRUM: usize = 512;
const HIGHEST_HZ: u32 = 24_000;
const BAND_HZ: f64 = HIGHEST_HZ as f64 / (COLOUR_BANDS - 1) as f64;

/// Quefrency of the envelope's cut: variation over more than 435 Hz is colour, finer variation the partials of notes.
const CUT_SECONDS: f64 = 0.0023;
/// Magnitudes this far below the largest of their frame count as that. In nepers: 90 dB.
const DEPTH: f32 = 10.4;
/// The lowest partial is the first one less than this below the largest magnitude. In nepers: 20 dB.
const PARTIAL_DEPTH: f32 = 2.3;
/// Lower limit of the magnitudes.
const FLOOR: f32 = 1e-6;

/// Time over which the colour of a source is averaged, silence left out.
const COLOUR_SECONDS: f64 = 2.0;
/// Frames below -72 dB relative to full scale have no colour.
const LEAST_RMS: f64 = 2.5e-4;
/// Added to levels whose geometric mean is taken: -90 dB relative to full scale.
const FLOOR_RMS: f64 = 3.16e-5;
/// Largest gain of a band against the frame's level, in nepers: 30 dB. More would raise the noise between and above the partials.
const BAND_LIMIT: f32 = 3.45;
/// Largest gain of the level: 30 dB. More would raise the noise of a silent source.
const LEVEL_LIMIT: f64 = 31.6;

/// The spectra of frames with the notes, colour and articulation of either source.
pub(super) struct Timbre {
    main: Parts,
    sidechain: Parts,
    /// The mixed colour, then the one to play.
    colour: Vec<f32>,
    /// Logarithmic gains of both sources' bands.
    gains: [Vec<f32>; 2],
    /// The envelope to play, for transposed notes.
    target: Vec<f32>,
    /// Of the bins of main, and of those of the sidechain.
    bin_gains: [Vec<f32>; 2],
    to_bins: ToBins,
    weights: Vec<f32>,
    /// Loudness of [`FLOOR_RMS`].
    floor: f64,
    hop_samples: usize,
    shift: PitchShift,
    palette: Option<Box<dyn Palette>>,
}

impl Timbre {
    pub(super) fn new(
        sample_rate_hz: u32,
        n_fft: usize,
        hop_samples: usize,
        channels: usize,
    ) -> Self {
        let rate_hz = f64::from(sample_rate_hz);
        let parts = || Parts::new(rate_hz, n_fft, hop_samples, channels);
        let bands = || vec![0.0; COLOUR_BANDS];
        let bins = || vec![0.0; n_fft / 2 + 1];
        Self {
            main: parts(),
            sidechain: parts(),
            colour: bands(),
            gains: [bands(), bands()],
            target: bands(),
            bin_gains: [bins(), bins()],
            to_bins: ToBins::new(rate_hz, n_fft),
            weights: loudness_weights(rate_hz, n_fft).collect(),
            floor: FLOOR_RMS.powi(2) * energy_of_full_scale(n_fft, channels),
            hop_samples,
            shift: PitchShift::new(n_fft, channels),
            palette: None,
        }
    }

    pub(super) fn set_palette(&mut self, palette: Box<dyn Palette>) {
        self.palette = Some(palette);
    }

    /// Forgets the colours of both sources.
    pub(super) fn reset(&mut self) {
        self.main.mean.reset();
        self.sidechain.mean.reset();
        self.shift.reset();
    }

    /// Computes the spectra of the next frame, channel by channel.
    pub(super) fn mix(
        &mut self,
        controls: &FrameControls,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
        mixed: &mut [Complex32],
    ) {
        let knobs = [controls.timbre, controls.pitch, controls.variation].map(share);
        let [timbre, pitch, variation] = knobs;
        self.main.analyse(main.spectra, &self.weights);
        self.sidechain.analyse(sidechain.spectra, &self.weights);
        self.set_colour(timbre, controls.is_frozen);
        self.set_gains(variation);
        let levels = self.levels(pitch);
        let spectra = (main.spectra, sidechain.spectra);
        match controls.transpose_semitones {
            0 => {
                self.shift.reset();
                for ((bins, gains), level) in self.bin_gains.iter_mut().zip(&self.gains).zip(levels)
                {
                    let gains = gains.iter().map(|gain| gain.min(BAND_LIMIT));
                    self.to_bins.spread(gains, level, bins);
                }
                let [mains, sidechains] = &self.bin_gains;
                weigh(mixed, spectra, (mains, sidechains));
            }
            semitones => {
                let sources = [&self.main.shape, &self.sidechain.shape];
                for ((bins, shape), level) in self.bin_gains.iter_mut().zip(sources).zip(levels) {
                    let flat = shape.iter().map(|shape| -shape);
                    self.to_bins.spread(flat, level, bins);
                }
                let [mains, sidechains] = &self.bin_gains;
                weigh(mixed, spectra, (mains, sidechains));
                let shifted = self.shift.shift(mixed, semitones, self.hop_samples);
                mixed.copy_from_slice(shifted);
                let [bins, _] = &mut self.bin_gains;
                let limits = sources[0]
                    .iter()
                    .zip(sources[1])
                    .map(|(main, sidechain)| (1.0 - pitch) * main + pitch * sidechain + BAND_LIMIT);
                let target = self.target.iter().zip(limits);
                let target = target.map(|(target, limit)| target.min(limit));
                self.to_bins.spread(target, 1.0, bins);
                multiply(mixed, bins);
            }
        }
        let gain = self.level_gain(mixed, levels, variation);
        vectorized!({
            for bin in mixed.iter_mut() {
                *bin *= gain;
            }
        });
    }

    /// Sets the colour to play.
    fn set_colour(&mut self, timbre: f32, is_frozen: bool) {
        let [main, sidechain] = [&self.main, &self.sidechain].map(|source| source.mean.get());
        // A source that was not heard yet has no colour; then the other one's plays.
        match main.or(sidechain).zip(sidechain.or(main)) {
            Some((main, sidechain)) => {
                let pairs = main.iter().zip(sidechain);
                for (colour, (main, sidechain)) in self.colour.iter_mut().zip(pairs) {
                    *colour = main + timbre * (sidechain - main);
                }
            }
            None => self.colour.fill(0.0),
        }
        let is_wanted = (timbre == 1.0 || main.is_some()) && (timbre == 0.0 || sidechain.is_some());
        if let Some(palette) = &mut self.palette {
            let live = is_wanted.then_some(&*self.colour);
            let other = palette.colour(is_frozen, live);
            if let Some(other) = other.filter(|other| other.len() == COLOUR_BANDS) {
                self.colour.copy_from_slice(other);
            }
        }
    }

    /// Sets the gains that give both sources the colour, and the deviation that `variation` chooses. A source that was not heard
    /// yet stays as it is.
    fn set_gains(&mut self, variation: f32) {
        let [mains, sidechains] = &mut self.gains;
        let [main, sidechain] = [&self.main, &self.sidechain].map(|source| source.mean.get());
        let deviation = |parts: &Parts, colour: Option<&[f32]>, band: usize| {
            colour.map_or(0.0, |colour| parts.shape[band] - colour[band])
        };
        for band in 0..COLOUR_BANDS {
            let main_deviation = deviation(&self.main, main, band);
            let sidechain_deviation = deviation(&self.sidechain, sidechain, band);
            let other_deviation = variation * (sidechain_deviation - main_deviation);
            let target = self.colour[band] + main_deviation + other_deviation;
            // A difference of colours, so that it is zero with all knobs at zero, and main stays as it is.
            mains[band] = main.map_or(0.0, |main| self.colour[band] - main[band] + other_deviation);
            sidechains[band] = sidechain.map_or(0.0, |_| target - self.sidechain.shape[band]);
            self.target[band] = target;
        }
    }

    /// Factors that bring both sources to one level and blend them.
    fn levels(&self, pitch: f32) -> [f32; 2] {
        let ratio = self.sidechain.level - self.main.level;
        let ratio = ratio.clamp(-BAND_LIMIT, BAND_LIMIT);
        [
            (1.0 - pitch) * (pitch * ratio).exp(),
            pitch * ((pitch - 1.0) * ratio).exp(),
        ]
    }

    /// The gain that brings the frame to the loudness of the source that `variation` chooses.
    fn level_gain(&self, mixed: &[Complex32], levels: [f32; 2], variation: f32) -> f32 {
        let (main, sidechain) = (self.main.loudness, self.sidechain.loudness);
        let found = loudness(mixed, &self.weights);
        // A geometric mean with silence would be silence.
        let (floor, variation) = (self.floor, f64::from(variation));
        let wanted =
            (main + floor).powf(1.0 - variation) * (sidechain + floor).powf(variation) - floor;
        let [main_share, sidechain_share] = levels.map(|level| f64::from(level).powi(2));
        let unshaped = main_share * main + sidechain_share * sidechain;
        let wanted = wanted.clamp(0.0, LEVEL_LIMIT.powi(2) * unshaped);
        match found > 0.0 {
            true => (wanted / found).sqrt() as f32,
            false => 1.0,
        }
    }
}

/// Energy of a frame whose samples have a mean square of 1: Parseval, with the mean square 3/8 of the Hann window, and half of
/// the bins.
fn energy_of_full_scale(n_fft: usize, channels: usize) -> f64 {
    3.0 / 16.0 * (n_fft * n_fft * channels) as f64
}

/// One source's current frame, without its fine structure, and its colour.
struct Parts {
    channels: usize,
    /// Number of the first bin of each band; bins above the last band belong to it.
    first_bins: Vec<usize>,
    magnitude: Vec<f32>,
    bands: Vec<f32>,
    envelope: Envelope,
    /// Logarithms of the envelope, without the level.
    shape: Vec<f32>,
    /// Logarithm of the level.
    level: f32,
    loudness: f64,
    /// Loudness from which on a frame counts.
    least_loudness: f64,
    mean: Mean,
}

impl Parts {
    fn new(sample_rate_hz: f64, n_fft: usize, hop_samples: usize, channels: usize) -> Self {
        let n_bins = n_fft / 2 + 1;
        let band = |bin: usize| (bin as f64 * sample_rate_hz / n_fft as f64 / BAND_HZ).round();
        let band = |bin: usize| (band(bin) as usize).min(COLOUR_BANDS - 1);
        let is_first = |bin: &usize| *bin == 0 || band(*bin) > band(*bin - 1);
        Self {
            channels,
            first_bins: (0..n_bins).filter(is_first).collect(),
            magnitude: vec![0.0; n_bins],
            bands: vec![0.0; COLOUR_BANDS],
            envelope: Envelope::new(CEPSTRUM, 2 * HIGHEST_HZ, CUT_SECONDS),
            shape: vec![0.0; COLOUR_BANDS],
            level: 0.0,
            loudness: 0.0,
            least_loudness: LEAST_RMS.powi(2) * energy_of_full_scale(n_fft, channels),
            mean: Mean::new(hop_samples as f64 / sample_rate_hz),
        }
    }

    /// Takes the next frame.
    fn analyse(&mut self, spectra: &[Complex32], weights: &[f32]) {
        self.loudness = loudness(spectra, weights);
        self.magnitude.fill(0.0);
        let share = 1.0 / self.channels as f32;
        for spectrum in spectra.chunks_exact(self.magnitude.len()) {
            vectorized!({
                for (magnitude, bin) in self.magnitude.iter_mut().zip(spectrum) {
                    *magnitude += share * magnitude_of(bin);
                }
            });
        }
        let ends = self.first_bins.iter().skip(1).copied();
        let ends = ends.chain([self.magnitude.len()]);
        let mut largest = 0.0_f32;
        for ((peak, &first), end) in self.bands.iter_mut().zip(&self.first_bins).zip(ends) {
            let bins = self.magnitude[first..end].iter();
            *peak = bins.fold(FLOOR, |peak, &magnitude| peak.max(magnitude));
            largest = largest.max(*peak);
        }
        let bands = self.first_bins.len();
        let largest = largest.ln();
        for band in &mut self.bands[..bands] {
            *band = band.ln().max(largest - DEPTH);
        }
        // Below the lowest partial and above what the sample rate can carry, a sound does not tell its colour: the envelope is
        // flat. Otherwise a high note would take the basses from everything that gets its colour.
        let is_partial = |band: &f32| *band >= largest - PARTIAL_DEPTH;
        let lowest = self.bands[..bands].iter().position(is_partial).unwrap_or(0);
        let lowest_peak = self.bands[lowest].max(self.bands[(lowest + 1).min(bands - 1)]);
        self.bands[..=lowest].fill(lowest_peak);
        let last = self.bands[bands - 1];
        self.bands[bands..].fill(last);
        let envelope = self.envelope.over_peaks(&self.bands);
        let power: f32 = envelope.iter().map(|log| (2.0 * log).exp()).sum();
        self.level = 0.5 * (power / COLOUR_BANDS as f32).ln();
        for (shape, log) in self.shape.iter_mut().zip(envelope) {
            *shape = log - self.level;
        }
        if self.loudness > self.least_loudness {
            // Louder frames count more, but a soft passage after a loud one takes over in time.
            self.mean.push(&self.shape, self.loudness.powf(0.25) as f32);
        }
    }
}

/// The colour of a source: the running mean of its shapes. It starts with the first frame.
struct Mean {
    /// Share of the past that is kept from frame to frame.
    keep: f32,
    weight: f32,
    mean: Vec<f32>,
}

impl Mean {
    fn new(hop_seconds: f64) -> Self {
        Self {
            keep: (-hop_seconds / COLOUR_SECONDS).exp() as f32,
            weight: 0.0,
            mean: vec![0.0; COLOUR_BANDS],
        }
    }

    fn reset(&mut self) {
        self.weight = 0.0;
    }

    /// The mean, if anything was heard.
    fn get(&self) -> Option<&[f32]> {
        (self.weight > 0.0).then_some(&self.mean)
    }

    fn push(&mut self, shape: &[f32], weight: f32) {
        if self.weight == 0.0 {
            self.mean.copy_from_slice(shape);
        }
        self.weight = self.keep * self.weight + weight;
        let part = weight / self.weight;
        for (mean, shape) in self.mean.iter_mut().zip(shape) {
            *mean += part * (shape - *mean);
        }
    }
}

/// The place of each bin on the bands.
struct ToBins {
    /// The band below, and the distance from it in bands.
    places: Vec<(usize, f32)>,
    /// Gains of the bands.
    gains: Vec<f32>,
}

impl ToBins {
    fn new(sample_rate_hz: f64, n_fft: usize) -> Self {
        let place = |bin: usize| {
            let band = bin as f64 * sample_rate_hz / n_fft as f64 / BAND_HZ;
            let below = (band as usize).min(COLOUR_BANDS - 2);
            (below, (band - below as f64).min(1.0) as f32)
        };
        Self {
            places: (0..=n_fft / 2).map(place).collect(),
            gains: vec![0.0; COLOUR_BANDS],
        }
    }

    /// Converts logarithmic gains of bands to gains of bins, times `factor`.
    fn spread(&mut self, logs: impl Iterator<Item = f32>, factor: f32, bins: &mut [f32]) {
        for (gain, log) in self.gains.iter_mut().zip(logs) {
            *gain = log.exp();
        }
        for (bin, &(below, distance)) in bins.iter_mut().zip(&self.places) {
            let (low, high) = (self.gains[below], self.gains[below + 1]);
            *bin = factor * (low + distance * (high - low));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::classic::{ClassicRemix, Method};
    use crate::window::AnalysisWindow;

    const RATE_HZ: u32 = 44_100;
    const SECOND: usize = RATE_HZ as usize;

    /// Equal partials up to 6 kHz.
    fn bright(hz: f32, samples: usize) -> Vec<f32> {
        partials(RATE_HZ, hz, samples, |_| 0.02)
    }

    /// Partials up to 6 kHz that fall by 8.7 dB per kHz.
    fn dark(hz: f32, samples: usize) -> Vec<f32> {
        partials(RATE_HZ, hz, samples, |hz| 0.1 * (-hz / 1000.0).exp())
    }

    fn partials(rate_hz: u32, hz: f32, samples: usize, amplitude: impl Fn(f32) -> f32) -> Vec<f32> {
        let count = (6000.0 / hz) as usize;
        let sample = |n: usize| {
            let partial = |k: usize| {
                let hz = k as f32 * hz;
                // Phases that are not all zero, so that the sound is no train of pulses.
                let turns = (f64::from(hz) * n as f64 / f64::from(rate_hz)).fract() as f32;
                amplitude(hz) * (TAU * (turns + (k * k) as f32 / count as f32)).sin()
            };
            (1..=count).map(partial).sum()
        };
        (0..samples).map(sample).collect()
    }

    /// Level of a frequency in a sound, in dB.
    fn level_db(sound: &[f32], rate_hz: u32, hz: f32) -> f32 {
        let length = sound.len() as f64;
        let sum = |part: fn(f64) -> f64| -> f64 {
            let term = |(n, x): (usize, &f32)| {
                let window = 0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / length).cos();
                let angle = std::f64::consts::TAU * f64::from(hz) * n as f64 / f64::from(rate_hz);
                window * f64::from(*x) * part(angle)
            };
            sound.iter().enumerate().map(term).sum()
        };
        (20.0 * (sum(f64::cos).hypot(sum(f64::sin)) / length).log10()) as f32
    }

    /// How much the sound falls from one partial to another, in dB.
    fn fall_db(sound: &[f32], [from_hz, to_hz]: [f32; 2]) -> f32 {
        level_db(sound, RATE_HZ, from_hz) - level_db(sound, RATE_HZ, to_hz)
    }

    fn energy(samples: &[f32]) -> f32 {
        samples.iter().map(|x| x * x).sum()
    }

    fn timbre() -> ClassicRemix {
        ClassicRemix::new(Method::Timbre, AnalysisWindow::LowDelay, RATE_HZ, 1).unwrap()
    }

    const COLOUR: FrameControls = FrameControls {
        timbre: 1.0,
        harmony: 0.0,
        rhythm: 0.0,
        pitch: 0.0,
        variation: 0.0,
        is_frozen: false,
        transpose_semitones: 0,
    };

    fn play(
        remix: &mut ClassicRemix,
        main: &[f32],
        sidechain: &[f32],
        controls: FrameControls,
    ) -> Vec<f32> {
        let mut out = [Vec::new()];
        let controls = |_: usize| controls;
        remix
            .push([&[main], &[sidechain]], controls, &mut out)
            .unwrap();
        remix.finish(controls, &mut out).unwrap();
        let [out] = out;
        assert_eq!(out.len(), main.len());
        out
    }

    #[test]
    fn it_plays_the_notes_of_one_with_the_colour_of_the_other() {
        let (main, sidechain) = (bright(200.0, 2 * SECOND), dark(310.0, 2 * SECOND));
        let out = play(&mut timbre(), &main, &sidechain, COLOUR);
        let out = &out[SECOND..];
        // From 600 to 3000 Hz: 21 dB in the sidechain, none in main.
        let fall = fall_db(out, [600.0, 3000.0]);
        assert!((fall - 20.8).abs() < 2.5, "{fall}");
        let foreign = level_db(out, RATE_HZ, 310.0) - level_db(out, RATE_HZ, 400.0);
        assert!(foreign < -40.0, "{foreign}");
        let swapped = FrameControls {
            pitch: 1.0,
            timbre: 0.0,
            ..COLOUR
        };
        let out = play(&mut timbre(), &main, &sidechain, swapped);
        let out = &out[SECOND..];
        let fall = fall_db(out, [620.0, 3100.0]);
        assert!(fall.abs() < 2.5, "{fall}");
        let half = FrameControls {
            timbre: 0.5,
            ..COLOUR
        };
        let out = play(&mut timbre(), &main, &sidechain, half);
        let fall = fall_db(&out[SECOND..], [600.0, 3000.0]);
        assert!((fall - 10.4).abs() < 1.5, "{fall}");
    }

    #[test]
    fn the_loudness_follows_the_variation() {
        let main = bright(200.0, 2 * SECOND);
        let is_on = |n: usize| n % 16_384 < 8192;
        let loud = dark(310.0, 2 * SECOND).into_iter().enumerate();
        let sidechain: Vec<f32> = loud
            .map(|(n, x)| if is_on(n) { 3.0 * x } else { 0.0 })
            .collect();
        let out = play(&mut timbre(), &main, &sidechain, COLOUR);
        let level = |sound: &[f32]| 10.0 * (energy(sound) / energy(&main)).log10();
        // A dark sound needs more energy to be as loud.
        assert!((0.0..4.0).contains(&level(&out)), "{}", level(&out));
        let plucked = FrameControls {
            variation: 1.0,
            ..COLOUR
        };
        let out = play(&mut timbre(), &main, &sidechain, plucked);
        let total = |on: bool| -> f32 {
            let samples = out.iter().enumerate().skip(SECOND / 2);
            let middle = |n: usize| (2048..6144).contains(&(n % 8192));
            samples
                .filter(|(n, _)| is_on(*n) == on && middle(*n))
                .map(|(_, x)| x * x)
                .sum()
        };
        assert!(total(false) < 1e-6 * total(true), "{}", total(false));
        let from_sidechain = 10.0 * (energy(&out) / energy(&sidechain)).log10();
        assert!(from_sidechain.abs() < 2.0, "{from_sidechain}");
    }

    #[test]
    fn a_change_of_colour_is_variation_and_the_colour_its_mean() {
        let main = bright(200.0, 3 * SECOND);
        let (bright, dark) = (bright(310.0, 3 * SECOND), dark(310.0, 3 * SECOND));
        let is_dark = |n: usize| n % 16_384 < 8192;
        let sidechain: Vec<f32> = (0..3 * SECOND)
            .map(|n| if is_dark(n) { dark[n] } else { bright[n] })
            .collect();
        let falls = |controls: FrameControls| {
            let out = play(&mut timbre(), &main, &sidechain, controls);
            let start = 6 * 16_384;
            [0, 8192].map(|from| fall_db(&out[start + from..][1024..7168], [600.0, 3000.0]))
        };
        let [in_dark, in_bright] = falls(COLOUR);
        assert!((in_dark - in_bright).abs() < 4.0, "{in_dark} {in_bright}");
        assert!((6.0..15.0).contains(&in_dark), "{in_dark}");
        let moving = FrameControls {
            timbre: 0.0,
            variation: 1.0,
            ..COLOUR
        };
        let [in_dark, in_bright] = falls(moving);
        assert!(in_dark - in_bright > 16.0, "{in_dark} {in_bright}");
        assert!((in_dark + in_bright).abs() < 10.0, "{in_dark} {in_bright}");
    }

    #[test]
    fn silence_has_no_colour_and_a_jump_forgets_it() {
        let main = bright(200.0, 6 * SECOND);
        let mut sidechain = dark(310.0, 6 * SECOND);
        sidechain[2 * SECOND..].fill(0.0);
        let mut remix = timbre();
        let out = play(&mut remix, &main, &sidechain, COLOUR);
        for from in [1, 5] {
            let fall = fall_db(&out[from * SECOND..][..SECOND], [600.0, 3000.0]);
            assert!((fall - 20.8).abs() < 2.5, "{from}: {fall}");
        }
        let (next_main, next_sidechain) = (dark(200.0, SECOND), bright(310.0, SECOND));
        let after = play(&mut remix, &next_main, &next_sidechain, COLOUR);
        assert!(after == play(&mut timbre(), &next_main, &next_sidechain, COLOUR));
    }

    #[test]
    fn a_source_that_was_not_heard_has_no_colour() {
        let main = bright(200.0, SECOND);
        let out = play(&mut timbre(), &main, &vec![0.0; SECOND], COLOUR);
        let error: Vec<f32> = out.iter().zip(&main).map(|(x, y)| x - y).collect();
        assert!(energy(&error) < 1e-9 * energy(&main), "{}", energy(&error));
    }

    #[test]
    fn transposition_moves_the_partials_and_leaves_the_envelope() {
        let main = dark(200.0, 2 * SECOND);
        let fifth_up = FrameControls {
            timbre: 0.0,
            transpose_semitones: 7,
            ..COLOUR
        };
        let out = play(&mut timbre(), &main, &main, fifth_up);
        let out = &out[SECOND..];
        let fifth_hz = 200.0 * (7.0_f32 / 12.0).exp2();
        let old = level_db(out, RATE_HZ, 400.0) - level_db(out, RATE_HZ, 2.0 * fifth_hz);
        assert!(old < -20.0, "{old}");
        // Partials that take their levels along would fall by 13.9 dB.
        let fall = fall_db(out, [2.0 * fifth_hz, 10.0 * fifth_hz]);
        assert!((fall - 20.8).abs() < 2.5, "{fall}");
    }

    /// Keeps the first live colour, and plays it when the colour is frozen.
    struct Keep(Arc<Mutex<Option<Vec<f32>>>>, Option<Vec<f32>>);

    impl Palette for Keep {
        fn colour(&mut self, is_frozen: bool, live: Option<&[f32]>) -> Option<&[f32]> {
            let mut kept = self.0.lock().unwrap();
            if let (None, Some(live)) = (&*kept, live) {
                *kept = Some(live.to_vec());
            }
            self.1 = kept.clone();
            self.1.as_deref().filter(|_| is_frozen)
        }
    }

    #[test]
    fn a_frozen_colour_plays_without_a_sidechain_and_at_another_rate() {
        let kept = Arc::default();
        let palette = || Box::new(Keep(Arc::clone(&kept), None));
        let (main, sidechain) = (bright(200.0, SECOND), dark(310.0, SECOND));
        play(
            &mut timbre().with_palette(palette()),
            &main,
            &sidechain,
            COLOUR,
        );
        for rate_hz in [22_050, 48_000, 96_000] {
            let main = partials(rate_hz, 200.0, 2 * rate_hz as usize, |_| 0.02);
            let silence = vec![0.0; main.len()];
            let frozen = FrameControls {
                is_frozen: true,
                ..COLOUR
            };
            let window = AnalysisWindow::Symmetric;
            let remix = ClassicRemix::new(Method::Timbre, window, rate_hz, 1).unwrap();
            let mut remix = remix.with_palette(palette());
            let out = play(&mut remix, &main, &silence, frozen);
            let out = &out[rate_hz as usize..];
            let fall = level_db(out, rate_hz, 600.0) - level_db(out, rate_hz, 3000.0);
            assert!((fall - 20.8).abs() < 2.5, "{rate_hz}: {fall}");
        }
    }

    #[test]
    fn a_high_note_does_not_take_the_basses() {
        let main = bright(100.0, 2 * SECOND);
        let out = play(&mut timbre(), &main, &dark(1000.0, 2 * SECOND), COLOUR);
        let fall = fall_db(&out[SECOND..], [200.0, 1000.0]);
        assert!(fall.abs() < 6.0, "{fall}");
    }

    #[test]
    fn the_gains_have_limits() {
        // A tone has nothing but noise where the other source is bright.
        let hiss: Vec<f32> = test_signals::noise(1, 2 * SECOND);
        let tone = (0..2 * SECOND).map(|n| {
            let turns = 440.0 * n as f32 / RATE_HZ as f32;
            0.3 * (TAU * turns.fract()).sin() + 1e-5 * hiss[n]
        });
        let tone: Vec<f32> = tone.collect();
        let out = play(&mut timbre(), &tone, &hiss, COLOUR);
        let out = &out[SECOND..];
        let noise: f32 = (0..40)
            .map(|k| level_db(out, RATE_HZ, 5000.0 + 100.0 * k as f32))
            .fold(f32::MIN, f32::max);
        let heard = level_db(out, RATE_HZ, 440.0) - noise;
        assert!(heard > 50.0, "{heard}");
    }
}
