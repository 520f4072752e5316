//! The Griffin-Lim voice: sound from a mel spectrogram alone, with reconstructed phases.
//!
//! - Whole clips: [`GriffinLim`], the fast variant of N. Perraudin, P. Balazs and P. L. Søndergaard, "A Fast Griffin-Lim
//!   Algorithm", WASPAA 2013.
//! - Streams: [`GriffinLimStream`], RTISI-LA of X. Zhu, G. T. Beauregard and L. L. Wyse, "Real-Time Signal Estimation
//!   from Modified Short-Time Fourier Transform Magnitude Spectra", IEEE TASLP 15(5), 2007, with the momentum of the
//!   former. One change: the sound must match the mel, but only loosely the magnitudes predicted from it.
//!
//! A mel gives the level of each band, not of each bin. The smooth prediction spreads each band over its bins as evenly
//! as possible, which few sounds match. Therefore the stream keeps a frame's own magnitudes, scales them band by band
//! to match the mel, and moves them towards the prediction by a tenth. With a frame of look-ahead, its spectra and its
//! mel are closer to those of music than the result of 100 Griffin-Lim iterations over the whole clip
//! (`docs/architecture.md`).
//!
//! A frame may also start from another sound, with [`GriffinLimStream::push_with`]: in the plugin, from the spectrum
//! that the guided voice has for the same frame.
//!
//! Both return `hop_length` samples per mel frame, mono, at the mel spectrogram's sample rate.

use std::collections::VecDeque;
use std::f32::consts::TAU;

use realfft::num_complex::Complex32;

use crate::error::{Error, Result, check_length};
use crate::magnitudes::{MagnitudeNetwork, MagnitudeState};
use crate::mel::{LogMel, MEL_FLOOR, MelConfig, MelFilterBank};
use crate::spectrum::Spectrum;
use crate::stft::{FrameTransform, OverlapAdd, add, magnitude_of};
use crate::vectorized;

/// Default number of iterations, enough for most music; the paper's figures level off there.
pub const DEFAULT_ITERATIONS: usize = 32;

/// Momentum of fast Griffin-Lim, as recommended in the paper.
const MOMENTUM: f32 = 0.99;

/// Momentum of the stream. On twenty excerpts of music, it came closer to the mel than 0.5 and 0.9.
const STREAM_MOMENTUM: f32 = 0.7;

/// Default look-ahead of the stream, in frames: all that overlap the current frame if the hop is a quarter of the
/// analysis window.
const LOOK_AHEAD_FRAMES: usize = 3;

/// Iterations of the stream over its open frames per new frame. On twenty excerpts of music, twice as many gained
/// little.
const STREAM_ITERATIONS: usize = 16;

/// Weight of the magnitudes predicted from the mel in a frame of the stream; the rest are the frame's own, scaled.
/// Without the prediction, tones and noise stay where the random initial phases put them.
const GUESS_SHARE: f32 = 0.1;

/// Largest gain of a band per iteration.
const SCALE_LIMIT: f32 = 3.0;

/// Iterations while the newest frame started from a sound that fits. On 24 pairs of music, four times as many moved
/// strokes and tones away from where that sound has them.
const STARTED_ITERATIONS: usize = 4;

/// Weight of the magnitudes of the sound that a frame started from, instead of [`GUESS_SHARE`]: it knows more than a
/// prediction.
const STARTED_GUESS_SHARE: f32 = 0.2;

/// Largest gain of a band of the sound that a frame starts from.
const START_LIMIT: f32 = 10.0;

/// Share of the mel of a band that the sound to start from must have to be used alone.
const COVERED: f32 = 0.5;

/// Partial sums of frames are divided by the sum of the squared windows so far, but at least by this (with all frames
/// it is 1.5, if the hop is a quarter of the analysis window). Below, the edge of the newest frame would dominate. On
/// twenty excerpts of music, 0.5 brought streams with 1 and 3 frames of look-ahead closer to the mel than no limit, by
/// 23 and 10 %.
const LEAST_POWER: f32 = 0.5;

/// Upper limit of mel values; no sound exceeds it.
const MAGNITUDE_LIMIT: f32 = 1e6;

/// Estimates the magnitudes of the Fourier transform from log-mel frames.
///
/// Solves the non-negative least-squares problem `filter_bank * magnitude = mel` by multiplicative updates (D. D. Lee
/// and H. S. Seung, "Algorithms for Non-Negative Matrix Factorization", NIPS 2000), which stay non-negative and never
/// increase the error. They start from the smooth solution, which spreads every band over its bins.
pub struct MelInverse {
    filter_bank: MelFilterBank,
    /// Sum of every band's weights.
    band_weights: Vec<f32>,
    /// Sum of every bin's weights.
    bin_weights: Vec<f32>,
    mel: Vec<f32>,
    estimated_mel: Vec<f32>,
    numerator: Vec<f32>,
    denominator: Vec<f32>,
}

impl MelInverse {
    /// Multiplicative updates per frame.
    const UPDATES: usize = 30;

    /// Prepares the inverse for frames of `config`.
    ///
    /// # Errors
    ///
    /// If `config` is not [valid](MelConfig::validate).
    pub fn new(config: &MelConfig) -> Result<Self> {
        let filter_bank = MelFilterBank::new(config)?;
        let (n_bins, n_mels) = (filter_bank.n_bins(), filter_bank.n_mels());
        let mut bin_weights = vec![0.0; n_bins];
        filter_bank.apply_transposed(&vec![1.0; n_mels], &mut bin_weights);
        let mut band_weights = vec![0.0; n_mels];
        filter_bank.apply(&vec![1.0; n_bins], &mut band_weights);
        Ok(Self {
            filter_bank,
            band_weights,
            bin_weights,
            mel: vec![0.0; n_mels],
            estimated_mel: vec![0.0; n_mels],
            numerator: vec![0.0; n_bins],
            denominator: vec![0.0; n_bins],
        })
    }

    /// Estimates `magnitude` (`n_fft / 2 + 1` bins) from one log-mel frame (`n_mels` values).
    ///
    /// # Panics
    ///
    /// If a slice has the wrong length.
    pub fn magnitude(&mut self, log_mel: &[f32], magnitude: &mut [f32]) {
        from_log(log_mel, &mut self.mel);
        let levels = self.mel.iter().zip(&self.band_weights);
        for (level, (mel, weight)) in self.estimated_mel.iter_mut().zip(levels) {
            *level = ratio(*mel, *weight);
        }
        self.filter_bank
            .apply_transposed(&self.estimated_mel, magnitude);
        for (magnitude, weight) in magnitude.iter_mut().zip(&self.bin_weights) {
            *magnitude = ratio(*magnitude, *weight);
        }

        self.filter_bank
            .apply_transposed(&self.mel, &mut self.numerator);
        for _ in 0..Self::UPDATES {
            self.filter_bank.apply(magnitude, &mut self.estimated_mel);
            self.filter_bank
                .apply_transposed(&self.estimated_mel, &mut self.denominator);
            let factors = self.numerator.iter().zip(&self.denominator);
            for (magnitude, (numerator, denominator)) in magnitude.iter_mut().zip(factors) {
                *magnitude *= ratio(*numerator, *denominator);
            }
        }
    }

    /// Scales the bins of `magnitude` to match the mel of one log-mel frame more closely: each bin by the mean ratio of
    /// its bands, at most by `limit`.
    ///
    /// # Panics
    ///
    /// If a slice has the wrong length.
    fn scale(&mut self, log_mel: &[f32], magnitude: &mut [f32], limit: f32) {
        from_log(log_mel, &mut self.mel);
        self.filter_bank.apply(magnitude, &mut self.estimated_mel);
        for (mel, estimated) in self.mel.iter_mut().zip(&self.estimated_mel) {
            *mel = ratio(*mel, *estimated).min(limit);
        }
        self.filter_bank
            .apply_transposed(&self.mel, &mut self.numerator);
        vectorized!({
            let factors = self.numerator.iter().zip(&self.bin_weights);
            for (magnitude, (numerator, weight)) in magnitude.iter_mut().zip(factors) {
                *magnitude *= ratio(*numerator, *weight);
            }
        });
    }

    /// How much of one log-mel frame a sound of these magnitudes covers, for each bin of `coverage`: 1 where its bands
    /// have at least [`COVERED`] of the mel, 0 where they are silent.
    ///
    /// # Panics
    ///
    /// If a slice has the wrong length.
    fn coverage(&mut self, log_mel: &[f32], magnitude: &[f32], coverage: &mut [f32]) {
        from_log(log_mel, &mut self.mel);
        self.filter_bank.apply(magnitude, &mut self.estimated_mel);
        for (mel, covered) in self.mel.iter_mut().zip(&self.estimated_mel) {
            *mel = ratio(*covered, COVERED * *mel).min(1.0);
        }
        self.filter_bank.apply_transposed(&self.mel, coverage);
        for (coverage, weight) in coverage.iter_mut().zip(&self.bin_weights) {
            *coverage = ratio(*coverage, *weight);
        }
    }
}

/// Converts log-mel values to mel values, clamped.
fn from_log(log_mel: &[f32], mel: &mut [f32]) {
    assert_eq!(log_mel.len(), mel.len(), "mel bands");
    for (mel, log_mel) in mel.iter_mut().zip(log_mel) {
        *mel = log_mel.max(MEL_FLOOR.ln()).exp().min(MAGNITUDE_LIMIT);
    }
}

/// `numerator / denominator`, or 0 if the denominator is 0.
#[inline(always)]
fn ratio(numerator: f32, denominator: f32) -> f32 {
    if denominator > f32::MIN_POSITIVE {
        numerator / denominator
    } else {
        0.0
    }
}

/// Griffin-Lim for whole clips.
pub struct GriffinLim {
    mel_config: MelConfig,
    iterations: usize,
    mel_inverse: MelInverse,
    transform: FrameTransform,
}

impl GriffinLim {
    /// Creates the voice for mel spectrograms of `mel_config`, with `iterations` passes over the clip (usually
    /// [`DEFAULT_ITERATIONS`]).
    ///
    /// # Errors
    ///
    /// If `mel_config` is not [valid](MelConfig::validate).
    pub fn new(mel_config: &MelConfig, iterations: usize) -> Result<Self> {
        Ok(Self {
            mel_inverse: MelInverse::new(mel_config)?,
            transform: FrameTransform::new(mel_config.n_fft),
            mel_config: mel_config.clone(),
            iterations,
        })
    }

    /// Returns the `frames * hop_length` samples of a clip. Deterministic.
    ///
    /// # Errors
    ///
    /// If `log_mel` has a different number of mel bands.
    pub fn samples(&mut self, log_mel: &LogMel) -> Result<Vec<f32>> {
        check_length("mel bands", self.mel_config.n_mels, log_mel.n_mels())?;
        let n_bins = self.mel_config.n_bins();
        let mut magnitude = vec![0.0; log_mel.frames() * n_bins];
        for (frame, magnitude) in magnitude.chunks_exact_mut(n_bins).enumerate() {
            self.mel_inverse.magnitude(log_mel.frame(frame), magnitude);
        }
        let mut phases = StartPhases::default();
        let mut spectrum: Vec<Complex32> = magnitude.iter().map(|&m| phases.next() * m).collect();
        let mut previous = vec![Complex32::default(); spectrum.len()];
        for _ in 0..self.iterations {
            let padded = self.inverse(&mut spectrum);
            // `spectrum` becomes consistent; momentum extrapolates it from that of the previous iteration.
            for (frame, spectrum) in spectrum.chunks_exact_mut(n_bins).enumerate() {
                let samples = &padded[frame * self.mel_config.hop_length..];
                self.transform
                    .forward(&samples[..self.mel_config.n_fft], spectrum);
            }
            for ((bin, previous), &magnitude) in
                spectrum.iter_mut().zip(&mut previous).zip(&magnitude)
            {
                let consistent = *bin;
                let accelerated = consistent + (consistent - *previous) * MOMENTUM;
                *previous = consistent;
                *bin = with_magnitude(accelerated, magnitude);
            }
        }
        let mut samples = self.inverse(&mut spectrum);
        samples.drain(..self.mel_config.padding_samples().min(samples.len()));
        samples.truncate(log_mel.frames() * self.mel_config.hop_length);
        Ok(samples)
    }

    /// The inverse transform of all frames, including the padding. Overwrites `spectrum`.
    fn inverse(&mut self, spectrum: &mut [Complex32]) -> Vec<f32> {
        let mut sum = OverlapAdd::new(1);
        let power: Vec<f32> = self.transform.window().iter().map(|w| w * w).collect();
        let mut end = 0;
        for (frame, spectrum) in spectrum
            .chunks_exact_mut(self.mel_config.n_bins())
            .enumerate()
        {
            let start = frame * self.mel_config.hop_length;
            end = start + self.mel_config.n_fft;
            sum.add(start as isize, 0, self.transform.inverse(spectrum));
            sum.add_window(start as isize, &power);
        }
        let mut samples = [Vec::new()];
        sum.pull(end, &mut samples);
        let [samples] = samples;
        samples
    }
}

/// Griffin-Lim for streams (RTISI-LA): takes mel frames and returns samples,
/// [`look_ahead_frames`](Self::look_ahead_frames) later.
///
/// Played frames are final. The frames after them, up to the look-ahead, are re-estimated together with every new
/// frame. Partial sums of frames are divided by the sum of the squared windows so far, so that the newest frame, which
/// lacks its later neighbours, does not appear to fade. The output does not depend on how the mel frames are split into
/// pushes.
pub struct GriffinLimStream {
    mel_config: MelConfig,
    mel_inverse: MelInverse,
    /// Predicts the magnitudes, instead of `mel_inverse` alone.
    network: Option<(MagnitudeNetwork, MagnitudeState)>,
    transform: FrameTransform,
    phases: StartPhases,
    /// Sum of the played frames from the start of the first open frame on, and sum of their squared windows.
    played: Vec<f32>,
    played_power: Vec<f32>,
    /// Frames that were not played yet, oldest first.
    open: VecDeque<OpenFrame>,
    look_ahead_frames: usize,
    /// How many of the first samples of `played` were already returned: those that the next frame hardly changes.
    early_samples: usize,
    /// Samples of the padding before the clip that remain to be dropped.
    padding_samples: usize,
    segment: Vec<f32>,
    segment_power: Vec<f32>,
    spectrum: Vec<Complex32>,
    magnitude: Vec<f32>,
    coverage: Vec<f32>,
}

/// A frame that is not final.
struct OpenFrame {
    log_mel: Vec<f32>,
    /// The magnitudes predicted from its mel.
    guess: Vec<f32>,
    /// Whether it started from a sound that covers most of it.
    is_started: bool,
    /// The spectrum of the sound in the last iteration.
    spectrum: Vec<Complex32>,
    /// The current estimate, windowed.
    samples: Vec<f32>,
}

impl GriffinLimStream {
    /// Creates a stream at its beginning, for mel spectrograms of `mel_config`, with a look-ahead of all frames that
    /// overlap the current one.
    ///
    /// # Errors
    ///
    /// If `mel_config` is not [valid](MelConfig::validate).
    pub fn new(mel_config: &MelConfig) -> Result<Self> {
        Self::with_look_ahead(mel_config, LOOK_AHEAD_FRAMES, 0)
    }

    /// As [`Self::new`], with fewer frames of look-ahead, and with samples returned `early_samples` before they are
    /// final. With half a hop, they lack the first eighth of an analysis window: 1.4 % of the total power.
    ///
    /// # Errors
    ///
    /// If `mel_config` is not [valid](MelConfig::validate), or `early_samples` exceeds a hop or the padding.
    pub fn with_look_ahead(
        mel_config: &MelConfig,
        look_ahead_frames: usize,
        early_samples: usize,
    ) -> Result<Self> {
        let most = mel_config.hop_length.min(mel_config.padding_samples());
        if early_samples > most {
            let expected = format!("at most {most}");
            return Err(Error::setting("early_samples", expected, early_samples));
        }
        let n_fft = mel_config.n_fft;
        Ok(Self {
            mel_inverse: MelInverse::new(mel_config)?,
            network: None,
            transform: FrameTransform::new(n_fft),
            phases: StartPhases::default(),
            played: vec![0.0; n_fft],
            played_power: vec![0.0; n_fft],
            open: VecDeque::new(),
            look_ahead_frames,
            early_samples,
            padding_samples: mel_config.padding_samples() - early_samples,
            segment: vec![0.0; n_fft],
            segment_power: vec![0.0; n_fft],
            spectrum: vec![Complex32::default(); mel_config.n_bins()],
            magnitude: vec![0.0; mel_config.n_bins()],
            coverage: vec![0.0; mel_config.n_bins()],
            mel_config: mel_config.clone(),
        })
    }

    /// Uses a network to predict the magnitudes, if there is one. The stream must be at its beginning.
    #[must_use]
    pub fn with_network(mut self, network: Option<&MagnitudeNetwork>) -> Self {
        self.network = network.map(|network| (network.clone(), MagnitudeState::default()));
        self
    }

    /// Look-ahead: mel frames needed after the one being played.
    pub fn look_ahead_frames(&self) -> usize {
        self.look_ahead_frames
    }

    /// Lag of the stream behind its input frames, in samples.
    pub fn lag_samples(&self) -> usize {
        self.look_ahead_frames * self.mel_config.hop_length + self.mel_config.padding_samples()
            - self.early_samples
    }

    /// Takes mel frames and appends the samples that become final to `out`: after `f` frames, the samples before `f *
    /// hop_length - lag_samples`.
    ///
    /// # Errors
    ///
    /// If `log_mel` has a different number of mel bands (nothing is taken then), or if the network fails.
    pub fn push(&mut self, log_mel: &LogMel, out: &mut Vec<f32>) -> Result<()> {
        self.push_with(log_mel, None, out)
    }

    /// As [`Self::push`], with a sound that each frame starts from, if there is one: one spectrum for each frame.
    ///
    /// The phases and the distribution within bands of this sound are kept where it has enough level in a band, so
    /// strokes are where they are in that sound, and tones have its frequencies. Elsewhere, and if it is silent, frames
    /// start as they do without it.
    ///
    /// # Errors
    ///
    /// As [`Self::push`], and if there is another number of spectra.
    pub fn push_with(
        &mut self,
        log_mel: &LogMel,
        starts: Option<&[Spectrum]>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        if let Some(starts) = starts {
            check_length("spectra to start from", log_mel.frames(), starts.len())?;
        }
        check_length("mel bands", self.mel_config.n_mels, log_mel.n_mels())?;
        let n_bins = self.mel_config.n_bins();
        for frame in 0..log_mel.frames() {
            let log_mel = log_mel.frame(frame);
            let guess = match &mut self.network {
                Some((network, state)) => {
                    let mut guess = network.step(state, log_mel)?;
                    self.mel_inverse.scale(log_mel, &mut guess, f32::INFINITY);
                    guess
                }
                None => {
                    let mut guess = vec![0.0; n_bins];
                    self.mel_inverse.magnitude(log_mel, &mut guess);
                    guess
                }
            };
            let newest = self.open.len();
            self.open.push_back(OpenFrame {
                log_mel: log_mel.to_vec(),
                guess,
                is_started: false,
                spectrum: vec![Complex32::default(); n_bins],
                samples: vec![0.0; self.mel_config.n_fft],
            });
            match starts {
                Some(starts) => self.start(&starts[frame]),
                None => self.estimate(newest, newest),
            }
            if self.open.len() > self.look_ahead_frames {
                self.play(out);
            }
        }
        Ok(())
    }

    /// Ends the clip: appends the rest of its `frames * hop_length` samples and resets for the next clip.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        while !self.open.is_empty() {
            self.play(out);
        }
        self.output(self.mel_config.padding_samples() - self.early_samples, out);
        self.reset();
    }

    /// Resets the stream.
    pub fn reset(&mut self) {
        self.phases = StartPhases::default();
        if let Some((_, state)) = &mut self.network {
            *state = MagnitudeState::default();
        }
        self.played.fill(0.0);
        self.played_power.fill(0.0);
        self.open.clear();
        self.padding_samples = self.mel_config.padding_samples() - self.early_samples;
    }

    /// Refines all open frames, then closes the oldest one and appends the samples before the next. Starts with the
    /// newest frame: on music, that came 2 to 6 % closer to the mel than the reverse order.
    fn play(&mut self, out: &mut Vec<f32>) {
        let is_started = self.open.back().is_some_and(|newest| newest.is_started);
        let iterations = if is_started {
            STARTED_ITERATIONS
        } else {
            STREAM_ITERATIONS
        };
        for _ in 0..iterations {
            for index in (0..self.open.len()).rev() {
                self.estimate(index, self.open.len());
            }
        }
        let Some(frame) = self.open.pop_front() else {
            return;
        };
        add(&mut self.played, &frame.samples);
        for (power, weight) in self.played_power.iter_mut().zip(self.transform.window()) {
            *power += weight * weight;
        }
        let hop_length = self.mel_config.hop_length;
        self.output(hop_length, out);
        for sum in [&mut self.played, &mut self.played_power] {
            sum.drain(..hop_length);
            sum.resize(self.mel_config.n_fft, 0.0);
        }
    }

    /// Starts the newest frame from the sound of another voice: its phases, and how it divides the level of a band over
    /// its bins. As far as it does not cover the mel, the frame starts as it would without.
    fn start(&mut self, start: &Spectrum) {
        let newest = self.open.len() - 1;
        self.estimate_spectrum(newest, newest);
        let frame = &mut self.open[newest];
        for (magnitude, bin) in self.magnitude.iter_mut().zip(start.bins()) {
            *magnitude = magnitude_of(bin);
        }
        self.mel_inverse
            .coverage(&frame.log_mel, &self.magnitude, &mut self.coverage);
        self.mel_inverse
            .scale(&frame.log_mel, &mut self.magnitude, START_LIMIT);
        let covered: f32 = self.coverage.iter().sum();
        frame.is_started = covered > 0.5 * self.coverage.len() as f32;
        let starts = start.bins().iter().zip(&self.magnitude).zip(&self.coverage);
        let bins = self.spectrum.iter_mut().zip(&mut frame.spectrum);
        for (((bin, previous), guess), ((start, &magnitude), &share)) in
            bins.zip(&mut frame.guess).zip(starts)
        {
            let start = with_magnitude(*start, magnitude);
            *bin += (start - *bin) * share;
            *previous += (start - *previous) * share;
            *guess += (magnitude - *guess) * share;
        }
        self.synthesise(newest);
    }

    /// Estimates the open frame at `index` from the sound of the played and the first `neighbours` open frames.
    fn estimate(&mut self, index: usize, neighbours: usize) {
        self.estimate_spectrum(index, neighbours);
        self.synthesise(index);
    }

    /// The first half of an estimate: its spectrum.
    fn estimate_spectrum(&mut self, index: usize, neighbours: usize) {
        vectorized!(self.sum_frames(index, neighbours));
        self.transform.forward(&self.segment, &mut self.spectrum);
        vectorized!(self.accelerate(index));
        let frame = &mut self.open[index];
        self.mel_inverse
            .scale(&frame.log_mel, &mut self.magnitude, SCALE_LIMIT);
        vectorized!(self.set_magnitudes(index));
    }

    /// Sums the sound of the played and the first `neighbours` open frames at the open frame at `index`.
    #[inline(always)]
    fn sum_frames(&mut self, index: usize, neighbours: usize) {
        let hop_length = self.mel_config.hop_length;
        let offset = (index * hop_length).min(self.played.len());
        self.segment.fill(0.0);
        self.segment_power.fill(0.0);
        add(&mut self.segment, &self.played[offset..]);
        add(&mut self.segment_power, &self.played_power[offset..]);
        for (other, frame) in self.open.iter().take(neighbours).enumerate() {
            let shift = (index.abs_diff(other) * hop_length).min(frame.samples.len());
            let later = if other > index { shift } else { 0 };
            let earlier = shift - later;
            add(&mut self.segment[later..], &frame.samples[earlier..]);
            let window = &self.transform.window()[earlier..];
            for (power, weight) in self.segment_power[later..].iter_mut().zip(window) {
                *power += weight * weight;
            }
        }
        for (sample, &power) in self.segment.iter_mut().zip(&self.segment_power) {
            *sample /= power.max(LEAST_POWER);
        }
    }

    /// Adds momentum to the spectrum, and computes its magnitudes.
    #[inline(always)]
    fn accelerate(&mut self, index: usize) {
        let frame = &mut self.open[index];
        for (bin, previous) in self.spectrum.iter_mut().zip(&mut frame.spectrum) {
            let consistent = *bin;
            *bin += (consistent - *previous) * STREAM_MOMENTUM;
            *previous = consistent;
        }
        for (magnitude, bin) in self.magnitude.iter_mut().zip(&self.spectrum) {
            *magnitude = magnitude_of(bin);
        }
    }

    /// Moves the scaled magnitudes towards the guess, and gives them to the spectrum.
    #[inline(always)]
    fn set_magnitudes(&mut self, index: usize) {
        let frame = &self.open[index];
        let magnitudes = self.magnitude.iter().zip(&frame.guess);
        let guess_share = if frame.is_started {
            STARTED_GUESS_SHARE
        } else {
            GUESS_SHARE
        };
        for bin in &mut self.spectrum {
            if *bin == Complex32::default() {
                *bin = self.phases.next();
            }
        }
        for (bin, (own, guess)) in self.spectrum.iter_mut().zip(magnitudes) {
            *bin = with_magnitude(*bin, own + (guess - own) * guess_share);
        }
    }

    /// The second half of an estimate: its samples. Overwrites the spectrum.
    fn synthesise(&mut self, index: usize) {
        let samples = self.transform.inverse(&mut self.spectrum);
        self.open[index].samples.copy_from_slice(samples);
    }

    /// Appends the next `samples` played samples, without the padding.
    fn output(&mut self, samples: usize, out: &mut Vec<f32>) {
        let dropped = self.padding_samples.min(samples);
        self.padding_samples -= dropped;
        let played = self.played.iter().zip(&self.played_power);
        out.extend(
            played
                .skip(self.early_samples)
                .take(samples)
                .skip(dropped)
                .map(|(&sum, &power)| ratio(sum, power)),
        );
    }
}

/// `direction`, scaled to this magnitude.
#[inline(always)]
fn with_magnitude(direction: Complex32, magnitude: f32) -> Complex32 {
    direction * ratio(magnitude, magnitude_of(&direction))
}

/// Initial phases: pseudo-random and deterministic (xorshift; G. Marsaglia, 2003).
struct StartPhases {
    state: u32,
}

impl Default for StartPhases {
    fn default() -> Self {
        Self { state: 0x9E37_79B9 }
    }
}

impl StartPhases {
    /// A number of magnitude 1.
    fn next(&mut self) -> Complex32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        Complex32::cis(self.state as f32 / u32::MAX as f32 * TAU)
    }
}
