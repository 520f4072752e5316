//! The Griffin-Lim voice: sound from a mel spectrogram alone, by finding phases that fit its magnitudes.
//!
//! - Whole clips: [`GriffinLim`], the fast variant of N. Perraudin, P. Balazs and P. L. Søndergaard, "A Fast Griffin-Lim
//!   Algorithm", WASPAA 2013.
//! - Streams: [`GriffinLimStream`], RTISI-LA of X. Zhu, G. T. Beauregard and L. L. Wyse, "Real-Time Signal Estimation from
//!   Modified Short-Time Fourier Transform Magnitude Spectra", IEEE TASLP 15(5), 2007, with the momentum of the former, and
//!   with one change: it holds the sound to the mel, and only loosely to the magnitudes that one guesses from the mel.
//!
//! A mel says how loud each band is, not how loud each bin is. The guess spreads a band over its bins as smoothly as it can,
//! and few sounds have such spectra. So the stream lets a frame keep its own magnitudes, scaled band by band until the
//! mel is right, and draws them towards the guess by a tenth. With a frame of look-ahead its spectra and its mel are closer to those
//! of music than what 100 passes of Griffin-Lim over the whole clip find (`docs/architecture.md`).
//!
//! Both give `hop_length` samples per mel frame, mono, at the mel spectrogram's sample rate.

use std::collections::VecDeque;
use std::f32::consts::TAU;

use realfft::num_complex::Complex32;

use crate::error::{Error, Result, check_length};
use crate::magnitudes::{MagnitudeNetwork, MagnitudeState};
use crate::mel::{LogMel, MEL_FLOOR, MelConfig, MelFilterBank};
use crate::stft::{FrameTransform, OverlapAdd, magnitude_of};

/// Passes over the clip that are enough for most music; the paper's figures level off there.
pub const DEFAULT_ITERATIONS: usize = 32;

/// Of fast Griffin-Lim; the paper's advice.
const MOMENTUM: f32 = 0.99;

/// The same in the stream: on twenty excerpts of music it came closer to the mel than 0.5 and 0.9.
const STREAM_MOMENTUM: f32 = 0.7;

/// Future frames that the voice's stream takes into account: all that overlap the frame at hand when the hop is a quarter of
/// the window.
const LOOK_AHEAD_FRAMES: usize = 3;

/// Passes of the stream over its open frames for each new one. On twenty excerpts of music, twice as many gained little.
const STREAM_ITERATIONS: usize = 16;

/// How much of a frame's magnitudes in the stream is what one guesses from the mel; the rest are the frame's own,
/// scaled. Without the guess, tones and noise come where chance put them first.
const GUESS_SHARE: f32 = 0.1;

/// The most by which a pass raises a band.
const SCALE_LIMIT: f32 = 3.0;

/// Partial sums of frames are divided by the window power that is there, but by no less than this (where all frames are, it is
/// 1.5 for a hop of a quarter of the window): beyond, the edge of the newest frame would drown the rest. On twenty excerpts of
/// music, 0.5 brought streams with 1 and 3 frames of look-ahead closer to the mel than no limit did, by 23 and 10 %.
const LEAST_POWER: f32 = 0.5;

/// Mel values beyond this are no sound.
const MAGNITUDE_LIMIT: f32 = 1e6;

/// From log-mel frames back to magnitudes of the Fourier transform.
///
/// Solves the non-negative least-squares problem `filter_bank * magnitude = mel` by multiplicative updates (D. D. Lee and
/// H. S. Seung, "Algorithms for Non-Negative Matrix Factorization", NIPS 2000), which stay non-negative and never increase the
/// error; they start from the smooth solution that spreads every band over its bins.
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

    /// Prepares for frames of `config`.
    ///
    /// # Errors
    ///
    /// When `config` is not [valid](MelConfig::validate).
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
    /// When a slice has another length.
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

    /// Brings `magnitude` closer to the mel of one log-mel frame: scales each bin by what its bands lack, raising none
    /// more than `limit` times.
    ///
    /// # Panics
    ///
    /// When a slice has another length.
    fn scale(&mut self, log_mel: &[f32], magnitude: &mut [f32], limit: f32) {
        from_log(log_mel, &mut self.mel);
        self.filter_bank.apply(magnitude, &mut self.estimated_mel);
        for (mel, estimated) in self.mel.iter_mut().zip(&self.estimated_mel) {
            *mel = ratio(*mel, *estimated).min(limit);
        }
        self.filter_bank
            .apply_transposed(&self.mel, &mut self.numerator);
        let factors = self.numerator.iter().zip(&self.bin_weights);
        for (magnitude, (numerator, weight)) in magnitude.iter_mut().zip(factors) {
            *magnitude *= ratio(*numerator, *weight);
        }
    }
}

/// Mel values from log-mel values, within bounds.
fn from_log(log_mel: &[f32], mel: &mut [f32]) {
    assert_eq!(log_mel.len(), mel.len(), "mel bands");
    for (mel, log_mel) in mel.iter_mut().zip(log_mel) {
        *mel = log_mel.max(MEL_FLOOR.ln()).exp().min(MAGNITUDE_LIMIT);
    }
}

/// `numerator / denominator`, or 0 where there is nothing to divide by.
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
    /// For mel spectrograms of `mel_config`, with `iterations` passes over the clip ([`DEFAULT_ITERATIONS`] as a rule).
    ///
    /// # Errors
    ///
    /// When `mel_config` is not [valid](MelConfig::validate).
    pub fn new(mel_config: &MelConfig, iterations: usize) -> Result<Self> {
        Ok(Self {
            mel_inverse: MelInverse::new(mel_config)?,
            transform: FrameTransform::new(mel_config.n_fft),
            mel_config: mel_config.clone(),
            iterations,
        })
    }

    /// The `frames * hop_length` samples of a clip; always the same for the same mel.
    ///
    /// # Errors
    ///
    /// When `log_mel` has another number of mel bands.
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
            // `spectrum` becomes that of a sound; momentum carries it on from the one of the pass before.
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

    /// The sound of all frames, padding included; `spectrum` is overwritten.
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

/// Griffin-Lim for streams (RTISI-LA): mel frames in, samples out, [`look_ahead_frames`](Self::look_ahead_frames) later.
///
/// Frames once played stay as they are; the frames after them, up to the look-ahead, are estimated together anew with every
/// frame that comes in. Partial sums of frames are divided by the window power that is there, so that the newest frame, which
/// lacks its later neighbours, is not taken for a fading one. Output does not depend on how the mel frames are cut into
/// pushes.
pub struct GriffinLimStream {
    mel_config: MelConfig,
    mel_inverse: MelInverse,
    /// Makes the guess at the magnitudes, instead of `mel_inverse` alone.
    network: Option<(MagnitudeNetwork, MagnitudeState)>,
    transform: FrameTransform,
    phases: StartPhases,
    /// Sum of the played frames from the start of the first open one on, and of their squared windows.
    played: Vec<f32>,
    played_power: Vec<f32>,
    /// Frames not played yet, the oldest first.
    open: VecDeque<OpenFrame>,
    look_ahead_frames: usize,
    /// How many of the first samples of `played` were given already: those that the frame after them hardly changes.
    early_samples: usize,
    /// Samples of the padding before the clip that are still to be dropped.
    padding_samples: usize,
    segment: Vec<f32>,
    segment_power: Vec<f32>,
    spectrum: Vec<Complex32>,
    magnitude: Vec<f32>,
}

/// A frame whose sound may still change.
struct OpenFrame {
    log_mel: Vec<f32>,
    /// The magnitudes that one guesses from it.
    guess: Vec<f32>,
    /// The spectrum of the sound at the last pass.
    spectrum: Vec<Complex32>,
    /// The present estimate, windowed.
    samples: Vec<f32>,
}

impl GriffinLimStream {
    /// A stream at its beginning, for mel spectrograms of `mel_config`, which takes all frames into account that overlap the
    /// one at hand.
    ///
    /// # Errors
    ///
    /// When `mel_config` is not [valid](MelConfig::validate).
    pub fn new(mel_config: &MelConfig) -> Result<Self> {
        Self::with_look_ahead(mel_config, LOOK_AHEAD_FRAMES, 0)
    }

    /// The same with fewer frames of look-ahead, and with samples given away by `early_samples` before they are final. With half a
    /// hop, what they lack is the first eighth of a window, 1.4 % of the power of all.
    ///
    /// # Errors
    ///
    /// When `mel_config` is not [valid](MelConfig::validate), or `early_samples` exceeds a hop or the padding.
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
            mel_config: mel_config.clone(),
        })
    }

    /// The same with magnitudes guessed by a network, if there is one. The stream has to be at its beginning.
    #[must_use]
    pub fn with_network(mut self, network: Option<&MagnitudeNetwork>) -> Self {
        self.network = network.map(|network| (network.clone(), MagnitudeState::default()));
        self
    }

    /// Mel frames after the one being played that must be there first.
    pub fn look_ahead_frames(&self) -> usize {
        self.look_ahead_frames
    }

    /// Samples by which the stream lags the frames that it has been given.
    pub fn lag_samples(&self) -> usize {
        self.look_ahead_frames * self.mel_config.hop_length + self.mel_config.padding_samples()
            - self.early_samples
    }

    /// Takes mel frames and appends the samples that they make final to `out`: after `f` frames, the samples before
    /// `f * hop_length - lag_samples`.
    ///
    /// # Errors
    ///
    /// When `log_mel` has another number of mel bands; nothing is taken then. When the network fails.
    pub fn push(&mut self, log_mel: &LogMel, out: &mut Vec<f32>) -> Result<()> {
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
                spectrum: vec![Complex32::default(); n_bins],
                samples: vec![0.0; self.mel_config.n_fft],
            });
            self.estimate(newest, newest);
            if self.open.len() > self.look_ahead_frames {
                self.play(out);
            }
        }
        Ok(())
    }

    /// Ends the clip: appends the rest of its `frames * hop_length` samples and starts again for another one.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        while !self.open.is_empty() {
            self.play(out);
        }
        self.output(self.mel_config.padding_samples() - self.early_samples, out);
        self.reset();
    }

    /// Forgets everything pushed so far.
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

    /// Refines all open frames, then closes the oldest one and appends the samples before the next. The newest goes first: on
    /// music that came 2 to 6 % closer to the mel than the other way round.
    fn play(&mut self, out: &mut Vec<f32>) {
        for _ in 0..STREAM_ITERATIONS {
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

    /// Estimates the open frame at `index` from the sound of the played and the first `neighbours` open frames.
    fn estimate(&mut self, index: usize, neighbours: usize) {
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
        self.transform.forward(&self.segment, &mut self.spectrum);
        let frame = &mut self.open[index];
        for (bin, previous) in self.spectrum.iter_mut().zip(&mut frame.spectrum) {
            let consistent = *bin;
            *bin += (consistent - *previous) * STREAM_MOMENTUM;
            *previous = consistent;
        }
        for (magnitude, bin) in self.magnitude.iter_mut().zip(&self.spectrum) {
            *magnitude = magnitude_of(bin);
        }
        self.mel_inverse
            .scale(&frame.log_mel, &mut self.magnitude, SCALE_LIMIT);
        let magnitudes = self.magnitude.iter().zip(&frame.guess);
        for (bin, (own, guess)) in self.spectrum.iter_mut().zip(magnitudes) {
            let direction = if *bin == Complex32::default() {
                self.phases.next()
            } else {
                *bin
            };
            *bin = with_magnitude(direction, own + (guess - own) * GUESS_SHARE);
        }
        let samples = self.transform.inverse(&mut self.spectrum);
        frame.samples.copy_from_slice(samples);
    }

    /// Appends the next `samples` played samples, less the padding.
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

/// Adds as many terms as both slices have.
fn add(sums: &mut [f32], terms: &[f32]) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum += term;
    }
}

/// `direction`, brought to this magnitude.
fn with_magnitude(direction: Complex32, magnitude: f32) -> Complex32 {
    direction * ratio(magnitude, magnitude_of(&direction))
}

/// Phases to start from: spread at random, but the same every time (xorshift; G. Marsaglia, 2003).
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
