//! Matches the levels of the sources, and the loudness of the output.
//!
//! Everything here moves by frames, in constant memory, and starts afresh when the voice is reset.

mod shaped;

pub(super) use shaped::ShapedLevels;

use realfft::num_complex::Complex32;

use super::FrameControls;
use crate::separated::SeparatedFrame;
use crate::simd::sum;
use crate::vectorized;

/// Time over which levels are averaged.
const AVERAGING_SECONDS: f64 = 3.0;
/// Time over which the loudness is averaged, to correct it. With more, remixes are further off their target, as the ratio
/// of mel and target changes from bar to bar; with less, the gain moves within a beat, and rhythm suffers.
const CORRECTION_SECONDS: f64 = 1.0;
/// The output's gain starts at that of the decoded mel, as if this much time had passed at this gain.
const SETTLING_SECONDS: f64 = 0.3;
/// A source is brought up or down by at most 30 dB. Otherwise the noise of a silent source would become audible.
const MATCH_LIMIT: f64 = 31.6;
/// Sources below -72 dB relative to full scale have no level.
const LEAST_RMS: f64 = 2.5e-4;
/// Limit of the correction of the output's loudness, up and down: 12 dB.
const CORRECTION_LIMIT: f64 = 4.0;
/// Share of the loudness of frames that is lost where they overlap if they are masked, so that they differ from the frames of
/// their sum. Mean over remixes.
const OVERLAP_LOSS: f64 = 0.09;
/// A frame of the output far below this share of the target's energy is a pause in the decoded mel, not a wrong level, and
/// asks for no correction.
const PAUSE_SHARE: f64 = 0.01;

/// What running levels need to know of the frames that they are levels of.
struct Framing {
    /// Share of the past that is kept from frame to frame.
    keep: f64,
    /// The same for the correction.
    keep_corrected: f64,
    settling_frames: f64,
    /// Factor from the energy of a frame to the mean square of its samples.
    mean_square: f64,
    /// Loudness weights of the bins.
    weights: Vec<f32>,
}

impl Framing {
    /// For frames of `n_fft` samples at `sample_rate_hz`, `hop_seconds` apart, in so many channels.
    fn new(sample_rate_hz: f64, n_fft: usize, hop_seconds: f64, channels: usize) -> Self {
        Self {
            keep: (-hop_seconds / AVERAGING_SECONDS).exp(),
            keep_corrected: (-hop_seconds / CORRECTION_SECONDS).exp(),
            settling_frames: SETTLING_SECONDS / hop_seconds,
            mean_square: mean_square(n_fft, channels),
            weights: loudness_weights(sample_rate_hz, n_fft).collect(),
        }
    }
}

/// Running levels of both sources and of the output.
pub(super) struct Levels {
    framing: Framing,
    main: SourceLevel,
    sidechain: SourceLevel,
    correction: Correction,
    /// The same for a voice that matches the mel without a limit.
    matched_correction: Correction,
    strokes: StrokeLevel,
    /// Loudness of the current frame of the mixture as it is without the match: the target.
    target: f64,
    /// Gain that brings the matched mixture to the loudness of the one without the match.
    unmatched: f64,
}

/// Gains of the sources of the current frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SourceGains {
    pub(super) main: f32,
    pub(super) sidechain: f32,
}

impl Levels {
    /// Creates running levels for frames of `n_fft` samples at `sample_rate_hz`, `hop_seconds` apart, in so many
    /// channels.
    pub(super) fn new(
        sample_rate_hz: f64,
        n_fft: usize,
        hop_seconds: f64,
        channels: usize,
    ) -> Self {
        Self {
            framing: Framing::new(sample_rate_hz, n_fft, hop_seconds, channels),
            main: SourceLevel::default(),
            sidechain: SourceLevel::default(),
            correction: Correction::default(),
            matched_correction: Correction::default(),
            strokes: StrokeLevel::default(),
            target: 0.0,
            unmatched: 1.0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.main = SourceLevel::default();
        self.sidechain = SourceLevel::default();
        self.correction = Correction::default();
        self.matched_correction = Correction::default();
        self.strokes = StrokeLevel::default();
    }

    /// Takes the next frame. Returns the gains that bring both sources to the level at which the network works: that of
    /// the source of the rhythm. At a Rhythm of 0 the main input's is 1, at a Rhythm of 1 the sidechain's.
    pub(super) fn next_frame(
        &mut self,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
        controls: &FrameControls,
    ) -> SourceGains {
        let (harmony, rhythm) = (controls.harmony, controls.rhythm);
        for (level, frame) in [(&mut self.main, main), (&mut self.sidechain, sidechain)] {
            let energies = energies(frame, &self.framing.weights);
            level.next_frame(energies, self.framing.keep);
        }
        self.target = self.loudness_of_mixture(main, sidechain, controls);

        let [main_gain, sidechain_gain] = match_gains(
            [&self.main, &self.sidechain]
                .map(|level| (level.energy() * self.framing.mean_square).sqrt()),
            rhythm.into(),
        );

        let main_loudness = self.main.parts.weighted(1.0 - harmony, 1.0 - rhythm);
        let sidechain_loudness = self.sidechain.parts.weighted(harmony, rhythm);
        let unmatched = main_loudness + sidechain_loudness;
        let matched =
            main_gain.powi(2) * main_loudness + sidechain_gain.powi(2) * sidechain_loudness;
        self.unmatched = ratio_or_one(unmatched, matched).sqrt();
        SourceGains {
            main: main_gain as f32,
            sidechain: sidechain_gain as f32,
        }
    }

    /// The gain of the output's current frame: it brings the loudness to that of the mixture without the match. A share of
    /// `strokes`, which are part of the mixture, is played in short windows.
    pub(super) fn output_gain(
        &mut self,
        mixture: &[Complex32],
        strokes: &[Complex32],
        share: f32,
    ) -> f32 {
        let mut found = loudness(mixture, &self.framing.weights);
        let mut taken = 0.0;
        if share > 0.0 {
            let share = f64::from(share);
            let strokes = loudness(strokes, &self.framing.weights);
            found += share * (self.strokes.kept() - 1.0) * strokes;
            taken = share * share * strokes;
            found *= 1.0 - OVERLAP_LOSS * share;
        }
        let found = found.max(0.0) * self.unmatched.powi(2);
        self.correction
            .next_frame(self.target, found, self.framing.keep_corrected);
        let gain = self.unmatched * self.correction.gain(self.framing.settling_frames);
        self.strokes
            .next_frame(gain * gain * taken, self.framing.keep);
        gain as f32
    }

    /// Takes the loudness of the strokes that were played in short windows for the current frame.
    pub(super) fn add_played_strokes(&mut self, loudness: f64) {
        self.strokes.played += loudness;
    }

    /// The gain of the current frame for a voice whose spectra are these, with each bin times its gain.
    pub(super) fn matched_gain(&mut self, spectra: &[Complex32], bin_gains: &[f32]) -> f32 {
        let mut energy = 0.0;
        for spectrum in spectra.chunks_exact(self.framing.weights.len()) {
            let factors = [self.framing.weights.as_slice(), bin_gains];
            energy += vectorized!(sum(spectrum, factors, |bin, [weight, gain]| {
                weight * gain * gain * bin.norm_sqr()
            }));
        }
        let found = f64::from(energy) * self.unmatched.powi(2);
        self.matched_correction
            .next_frame(self.target, found, self.framing.keep_corrected);
        (self.unmatched * self.matched_correction.gain(self.framing.settling_frames)) as f32
    }

    /// Loudness of the harmonic and percussive parts, weighted by the knobs. With both knobs at one source, this is the
    /// loudness of that source.
    fn loudness_of_mixture(
        &self,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
        controls: &FrameControls,
    ) -> f64 {
        let (harmony, rhythm) = (controls.harmony, controls.rhythm);
        let n_bins = self.framing.weights.len();
        let channels = main
            .spectra
            .chunks_exact(n_bins)
            .zip(sidechain.spectra.chunks_exact(n_bins));
        let mut loudness = 0.0;
        for (mains, sidechains) in channels {
            let bins = mains.iter().zip(sidechains).zip(&self.framing.weights);
            let shares = main.steady_shares.iter().zip(sidechain.steady_shares);
            let mut sum = 0.0;
            for (((main, sidechain), weight), (main_share, sidechain_share)) in bins.zip(shares) {
                let main_gain = (1.0 - harmony) * main_share + (1.0 - rhythm) * (1.0 - main_share);
                let sidechain_gain = harmony * sidechain_share + rhythm * (1.0 - sidechain_share);
                sum += weight * (main * main_gain + sidechain * sidechain_gain).norm_sqr();
            }
            loudness += f64::from(sum);
        }
        loudness
    }
}

/// Factor from the energy of a frame of `n_fft` samples to the mean square of these samples.
fn mean_square(n_fft: usize, channels: usize) -> f64 {
    // Parseval, with the mean square 3/8 of the Hann window, and half of the bins.
    let energy_of_full_scale = 3.0 / 16.0 * (n_fft * n_fft * channels) as f64;
    energy_of_full_scale.recip()
}

/// The gains that bring both sources, with these root mean squares, to a level between them: at a share of 0 that of the main
/// input, at 1 that of the sidechain.
fn match_gains([main_rms, sidechain_rms]: [f64; 2], share: f64) -> [f64; 2] {
    let ratio = match main_rms.min(sidechain_rms) >= LEAST_RMS {
        true => (sidechain_rms / main_rms).clamp(MATCH_LIMIT.recip(), MATCH_LIMIT),
        // A source that was never heard, such as that of a frozen loop, has no level to match.
        false => 1.0,
    };
    [ratio.powf(share), ratio.powf(share - 1.0)]
}

/// Running level of one source.
#[derive(Default)]
struct SourceLevel {
    /// Sums over the past, weighted by the amplitudes of the frames, so that pauses do not count and a loud passage
    /// counts at once.
    weighted_energy: f64,
    weight: f64,
    parts: Parts,
}

impl SourceLevel {
    fn next_frame(&mut self, (energy, parts): (f64, Parts), keep: f64) {
        let amplitude = energy.sqrt();
        self.weighted_energy = keep * self.weighted_energy + amplitude * energy;
        self.weight = keep * self.weight + amplitude;
        self.parts = Parts {
            harmonic: keep * self.parts.harmonic + parts.harmonic,
            percussive: keep * self.parts.percussive + parts.percussive,
            product: keep * self.parts.product + parts.product,
        };
    }

    fn energy(&self) -> f64 {
        match self.weight > 0.0 {
            true => self.weighted_energy / self.weight,
            false => 0.0,
        }
    }
}

/// Loudness of a source's parts, which add up to the source.
#[derive(Clone, Copy, Default)]
struct Parts {
    harmonic: f64,
    percussive: f64,
    /// Of the harmonic with the percussive amplitude, bin by bin.
    product: f64,
}

impl Parts {
    /// Loudness of the sum of the parts with these gains.
    fn weighted(&self, harmonic: f32, percussive: f32) -> f64 {
        let (harmonic, percussive) = (f64::from(harmonic), f64::from(percussive));
        harmonic.powi(2) * self.harmonic
            + percussive.powi(2) * self.percussive
            + 2.0 * harmonic * percussive * self.product
    }
}

/// Energy of a frame, and loudness of its parts.
fn energies(frame: &SeparatedFrame, weights: &[f32]) -> (f64, Parts) {
    let mut energy = 0.0;
    let mut parts = Parts::default();
    for spectrum in frame.spectra.chunks_exact(weights.len()) {
        let part = (spectrum, weights, frame.steady_shares);
        energy += f64::from(vectorized!(sum(spectrum, [], |bin, []| bin.norm_sqr())));
        parts.harmonic += part_loudness(part, |share| share * share);
        parts.percussive += part_loudness(part, |share| (1.0 - share) * (1.0 - share));
        parts.product += part_loudness(part, |share| share * (1.0 - share));
    }
    (energy, parts)
}

/// Loudness of a spectrum, given with the weights and the harmonic shares of its bins, times a factor from the share.
fn part_loudness(
    (spectrum, weights, shares): (&[Complex32], &[f32], &[f32]),
    factor: impl Fn(f32) -> f32,
) -> f64 {
    let loudness = vectorized!(sum(spectrum, [weights, shares], |bin, [weight, share]| {
        weight * bin.norm_sqr() * factor(share)
    }));
    loudness.into()
}

/// Slow correction of the output's loudness.
#[derive(Default)]
struct Correction {
    wanted: f64,
    found: f64,
    frames: f64,
    /// What is left of the start, from 1 down.
    start: Option<f64>,
}

impl Correction {
    fn next_frame(&mut self, wanted: f64, found: f64, keep: f64) {
        if found <= 0.0 {
            return;
        }
        let pause = (PAUSE_SHARE * wanted / found).powi(2);
        let wanted = (wanted + pause * found) / (1.0 + pause);
        self.wanted = keep * self.wanted + wanted;
        self.found = keep * self.found + found;
        self.frames = keep * self.frames + 1.0;
        self.start = Some(self.start.map_or(1.0, |start| keep * start));
    }

    fn gain(&self, settling_frames: f64) -> f64 {
        let Some(start) = self.start else { return 1.0 };
        let power_limit = CORRECTION_LIMIT.powi(2);
        let power = (self.wanted / self.found).clamp(power_limit.recip(), power_limit);
        // In decibels, so that a gain far below 1 is reached as soon as one far above.
        let heard = self.frames / (self.frames + settling_frames * start);
        power.powf(0.5 * heard)
    }
}

/// How much of the loudness of strokes is left in short windows.
#[derive(Default)]
struct StrokeLevel {
    /// In the long windows that they were taken out of.
    taken: f64,
    played: f64,
}

impl StrokeLevel {
    fn next_frame(&mut self, taken: f64, keep: f64) {
        self.taken = keep * self.taken + taken;
        self.played *= keep;
    }

    fn kept(&self) -> f64 {
        ratio_or_one(self.played, self.taken)
    }
}

fn ratio_or_one(a: f64, b: f64) -> f64 {
    if a > 0.0 && b > 0.0 { a / b } else { 1.0 }
}

/// Loudness of `spectra`, channel by channel.
pub(crate) fn loudness(spectra: &[Complex32], weights: &[f32]) -> f64 {
    let mut loudness = 0.0;
    for spectrum in spectra.chunks_exact(weights.len()) {
        loudness += vectorized!(sum(spectrum, [weights], |bin, [weight]| {
            weight * bin.norm_sqr()
        }));
    }
    loudness.into()
}

/// Loudness weights of the bins of frames of `n_fft` samples.
pub(crate) fn loudness_weights(sample_rate_hz: f64, n_fft: usize) -> impl Iterator<Item = f32> {
    let bin_hz = sample_rate_hz / n_fft as f64;
    (0..=n_fft / 2).map(move |bin| loudness_weight(bin as f64 * bin_hz) as f32)
}

/// Power gain at `hz` of the weighting for loudness (ITU-R BS.1770): a high-pass at 38 Hz, and 4 dB more above 1.7 kHz.
fn loudness_weight(hz: f64) -> f64 {
    const SHELF_HZ: f64 = 1681.97;
    const SHELF_Q: f64 = 0.7072;
    /// Amplitude gain above the shelf, and the factor of its middle term.
    const SHELF_GAIN: f64 = 1.58486;
    const SHELF_MIDDLE: f64 = 1.25872;
    const HIGH_PASS_HZ: f64 = 38.135;
    const HIGH_PASS_Q: f64 = 0.5003;
    // |n0 + n1 s + n2 s^2|^2 / |1 + s / q + s^2|^2 at s = i f / f0.
    let section = |f0: f64, q: f64, [n0, n1, n2]: [f64; 3]| {
        let f = hz / f0;
        let square = |even: f64, odd: f64| even.powi(2) + (odd * f).powi(2);
        square(n0 - n2 * f * f, n1) / square(1.0 - f * f, q.recip())
    };
    let shelf = [1.0, SHELF_MIDDLE / SHELF_Q, SHELF_GAIN];
    section(SHELF_HZ, SHELF_Q, shelf) * section(HIGH_PASS_HZ, HIGH_PASS_Q, [0.0, 0.0, 1.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loudness_weighting_is_that_of_the_standard() {
        // Digital filters of BS.1770 at 48 kHz: -0.69 + 0.69 dB at 997 Hz, +4 dB at the top, -6 dB near 35 Hz.
        let db = |hz: f64| 10.0 * loudness_weight(hz).log10();
        assert!((db(997.0) - 0.69).abs() < 0.05, "{}", db(997.0));
        assert!((db(10_000.0) - 4.0).abs() < 0.1, "{}", db(10_000.0));
        assert!((db(38.0) + 6.0).abs() < 0.1, "{}", db(38.0));
        assert_eq!(loudness_weight(0.0), 0.0);
    }

    #[test]
    fn a_level_moves_slowly_and_holds_in_pauses() {
        let keep = (-512.0_f64 / 22_050.0 / AVERAGING_SECONDS).exp();
        let mut level = SourceLevel::default();
        let mut frames = |energy: f64, frames: usize| -> (f64, f64) {
            let mut steepest_db = 0.0_f64;
            for _ in 0..frames {
                let before = level.energy();
                level.next_frame((energy, Parts::default()), keep);
                if before > 0.0 {
                    let step_db = 10.0 * (level.energy() / before).log10();
                    steepest_db = steepest_db.max(step_db.abs());
                }
            }
            (level.energy(), steepest_db)
        };
        frames(1e-9, 430);
        // An entry counts at once; without the weighting, the level would be 13 dB too low after four frames.
        assert!(frames(1.0, 4).0 > 0.9);
        frames(1.0, 430);
        let (held, _) = frames(1e-6, 215);
        assert!(held > 0.98, "{held}");
        frames(1.0, 430);
        let (softer, falling_db) = frames(1.0 / 16.0, 860);
        assert!(
            (softer * 16.0 - 1.0).abs() < 0.1 && falling_db < 0.3,
            "{softer}, {falling_db} dB"
        );
        let (louder, rising_db) = frames(1.0, 430);
        assert!(
            (louder - 1.0).abs() < 0.1 && rising_db < 2.0,
            "{louder}, {rising_db} dB"
        );
    }

    /// The gain after each frame for these loudnesses, wanted and found.
    fn gains_db(frames: impl Iterator<Item = (f64, f64)>) -> Vec<f64> {
        let hop_seconds = 512.0 / 22_050.0;
        let keep = (-hop_seconds / CORRECTION_SECONDS).exp();
        let mut correction = Correction::default();
        frames
            .map(|(wanted, found)| {
                correction.next_frame(wanted, found, keep);
                20.0 * correction.gain(SETTLING_SECONDS / hop_seconds).log10()
            })
            .collect()
    }

    #[test]
    fn a_correction_is_the_same_up_and_down_sooner_at_the_start_and_slow_later() {
        let wrong_db = 10.0;
        let ratio = 10f64.powf(wrong_db / 10.0);
        let (up, down): (Vec<f64>, Vec<f64>) = (
            gains_db((0..430).map(|_| (ratio, 1.0))),
            gains_db((0..430).map(|_| (1.0, ratio))),
        );
        for (up, down) in up.iter().zip(&down) {
            assert!((up + down).abs() < 0.05, "{up} {down}");
            assert!((0.0..wrong_db + 0.01).contains(up), "{up}");
        }
        // Within a second, it has most of the way behind it.
        assert!(up[0] < 1.0 && up[43] > 8.0, "{} {}", up[0], up[43]);
        assert!((up[429] - wrong_db).abs() < 0.1, "{}", up[429]);
        for ratio in [ratio, ratio.recip()] {
            let wrong_db = 10.0 * ratio.log10();
            let later = (0..645).map(|frame| (if frame < 215 { 1.0 } else { ratio }, 1.0));
            let later = gains_db(later);
            let steps = later.windows(2).map(|pair| (pair[1] - pair[0]).abs());
            let steepest = steps.fold(0.0, f64::max);
            assert!(steepest < 0.9, "{steepest} dB from frame to frame");
            assert!((later[644] - wrong_db).abs() < 0.1, "{}", later[644]);
        }
        // A target that ends pulls the output down, to the limit.
        let ended = gains_db((0..860).map(|frame| (f64::from(u8::from(frame < 43)), 1.0)));
        assert!((ended[859] + 12.04).abs() < 0.1, "{}", ended[859]);
    }
}
