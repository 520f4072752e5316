//! Mixes the sources' parts, and computes the gains that match the mixture's mel to the decoded one.

use realfft::num_complex::Complex32;

use super::assignment::Assignment;
use super::bands::{BandToBin, Bands};
use super::levels::{Levels, SourceGains};
use super::shift::PitchShift;
use super::strokes::StrokeGains;
use super::{FrameControls, GuidedConfig, MEL_OFFSET};
use crate::mel::MelFilterBank;
use crate::separated::SeparatedFrame;
use crate::spectrum::{Conversion, Spectrum, multiply};
use crate::vectorized;

/// Distance between the two knobs from which on all strokes are played in short windows.
const FULL_DISTANCE: f32 = 0.5;
/// Largest gain of a band that counts for the loudness of a voice that matches the mel.
const REST_LIMIT: f32 = 10.0;

/// The model's output for one frame.
pub(super) struct DecodedFrame {
    pub(super) log_mel: Vec<f32>,
    pub(super) controls: FrameControls,
}

/// Spectra and gains of the current frame.
pub(super) struct Mixer {
    bands: Bands,
    band_to_bin: BandToBin,
    gain_limit: f32,
    levels: Levels,
    main_weights: Weights,
    sidechain_weights: Weights,
    assignment: Assignment,
    /// All parts but the percussive ones, if they are treated apart from those; channel by channel.
    tonal: Vec<Complex32>,
    /// The percussive parts, then; channel by channel.
    strokes: Vec<Complex32>,
    stroke_gains: StrokeGains,
    shift: PitchShift,
    /// Channel by channel.
    mixture: Vec<Complex32>,
    band_gains: Vec<f32>,
    bin_gains: Vec<f32>,
    /// What these gains leave between the mixture and the decoded mel.
    rest_band_gains: Vec<f32>,
    rest_bin_gains: Vec<f32>,
    /// Level of each band in the mixture before its gain, and in a source.
    mixture_mel: Vec<f32>,
    source_mel: Vec<f32>,
    output_gain: f32,
    passed_gain: f32,
    conversion: Conversion,
    /// The frames that were not taken yet, if anybody takes them.
    spectra: Option<Vec<Spectrum>>,
}

impl Mixer {
    pub(super) fn new(config: &GuidedConfig, n_fft: usize) -> Self {
        let sample_rate_hz = f64::from(config.sample_rate_hz);
        let filter_bank = MelFilterBank::for_analysis(&config.mel, sample_rate_hz, n_fft);
        let n_bins = filter_bank.n_bins();
        Self {
            band_to_bin: BandToBin::new(&filter_bank),
            gain_limit: config.gain_limit,
            levels: Levels::new(
                sample_rate_hz,
                n_fft,
                config.mel.hop_seconds(),
                config.channels,
            ),
            main_weights: Weights::new(n_bins),
            sidechain_weights: Weights::new(n_bins),
            assignment: Assignment::new(config, &filter_bank),
            tonal: vec![Complex32::default(); config.channels * n_bins],
            strokes: vec![Complex32::default(); config.channels * n_bins],
            stroke_gains: StrokeGains::new(n_fft),
            shift: PitchShift::new(n_fft, config.channels),
            mixture: vec![Complex32::default(); config.channels * n_bins],
            band_gains: vec![0.0; config.mel.n_mels + 1],
            bin_gains: vec![0.0; n_bins],
            rest_band_gains: vec![0.0; config.mel.n_mels + 1],
            rest_bin_gains: vec![0.0; n_bins],
            mixture_mel: vec![0.0; config.mel.n_mels],
            source_mel: vec![0.0; config.mel.n_mels],
            output_gain: 1.0,
            passed_gain: 1.0,
            conversion: Conversion::new(&config.mel, sample_rate_hz, n_fft),
            spectra: None,
            bands: Bands::new(filter_bank, config.mel.n_fft as f32 / n_fft as f32),
        }
    }

    /// Resets the state, except for kept spectra.
    pub(super) fn reset(&mut self) {
        self.levels.reset();
        self.shift.reset();
    }

    /// Keeps the spectra of the coming frames.
    pub(super) fn keep_spectra(&mut self) {
        self.spectra = Some(Vec::new());
    }

    /// The kept spectra of the frames since the last call: the mean of all channels, before the gain for the loudness.
    pub(super) fn take_spectra(&mut self) -> Vec<Spectrum> {
        let spectra = self.spectra.as_mut();
        spectra.map(std::mem::take).unwrap_or_default()
    }

    /// Computes the spectra of the output frame, channel by channel. The frame before began `hop_samples` earlier.
    pub(super) fn mix(
        &mut self,
        decoded: &DecodedFrame,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
        hop_samples: usize,
    ) -> &mut [Complex32] {
        let gains = self.levels.next_frame(main, sidechain, &decoded.controls);
        let FrameControls {
            harmony, rhythm, ..
        } = decoded.controls;
        self.main_weights
            .set(main, gains.main, 1.0 - harmony, 1.0 - rhythm);
        self.sidechain_weights
            .set(sidechain, gains.sidechain, harmony, rhythm);
        let (mains, sides) = (&self.main_weights, &self.sidechain_weights);
        let sources = (main.spectra, sidechain.spectra);
        let transpose_semitones = decoded.controls.transpose_semitones;
        if transpose_semitones == 0 {
            self.shift.reset();
        }
        let apart = transpose_semitones != 0 || harmony != rhythm;
        if apart {
            weigh(&mut self.tonal, sources, (&mains.tonal, &sides.tonal));
            weigh(&mut self.strokes, sources, (&mains.rest, &sides.rest));
            self.assignment.set_parts(
                &self.tonal,
                &self.strokes,
                sources,
                gains,
                &decoded.controls,
                &mut self.bands,
            );
            if transpose_semitones != 0 {
                let shifted = self
                    .shift
                    .shift(&self.tonal, transpose_semitones, hop_samples);
                self.tonal.copy_from_slice(shifted);
            }
            self.assignment.apply(
                &mut self.tonal,
                &mut self.strokes,
                &decoded.controls,
                &mut self.bands,
                &self.band_to_bin,
            );
            vectorized!({
                let parts = self.tonal.iter().zip(&self.strokes);
                for (mixture, (tonal, stroke)) in self.mixture.iter_mut().zip(parts) {
                    *mixture = tonal + stroke;
                }
            });
        } else {
            weigh(&mut self.mixture, sources, (&mains.all, &sides.all));
        }
        self.set_gains(&decoded.log_mel);
        multiply(&mut self.mixture, &self.bin_gains);
        let stroke_share = share_in_short_windows(&decoded.controls);
        if stroke_share > 0.0 {
            multiply(&mut self.strokes, &self.bin_gains);
        }
        let output_gain = self
            .levels
            .output_gain(&self.mixture, &self.strokes, stroke_share);
        self.output_gain = output_gain;
        self.passed_gain = match self.spectra {
            None => output_gain,
            Some(_) => self.keep_spectrum(decoded, sources, gains),
        };
        if stroke_share > 0.0 {
            vectorized!({
                for (mixture, stroke) in self.mixture.iter_mut().zip(&self.strokes) {
                    *mixture = (*mixture - stroke * stroke_share) * output_gain;
                }
            });
            let sources = [
                (main.percussive, gains.main * (1.0 - rhythm)),
                (sidechain.percussive, gains.sidechain * rhythm),
            ];
            let (bin_gains, shares) = (&self.bin_gains, self.assignment.stroke_bin_shares());
            self.stroke_gains.set(sources, |bin| {
                stroke_share * output_gain * bin_gains[bin] * shares[bin]
            });
        } else {
            vectorized!(for bin in &mut self.mixture {
                *bin *= output_gain;
            });
            self.stroke_gains.silence();
        }
        &mut self.mixture
    }

    /// The gains with which the strokes that the spectra of the last frame lack are to be played in short windows.
    pub(super) fn stroke_gains(&self) -> &StrokeGains {
        &self.stroke_gains
    }

    /// Takes the loudness of the strokes that were played with these gains.
    pub(super) fn add_played_strokes(&mut self, loudness: f64) {
        self.levels.add_played_strokes(loudness);
    }

    /// The gain of the last frame, after its mel was matched to the decoded one. If spectra are kept, it is that of a voice
    /// that starts from them and matches the mel without a limit.
    pub(super) fn passed_gain(&self) -> f32 {
        self.passed_gain
    }

    fn set_gains(&mut self, log_mel: &[f32]) {
        let n_mels = log_mel.len();
        self.bands.of(&self.mixture, &mut self.mixture_mel);
        let levels = log_mel.iter().zip(&self.mixture_mel);
        for (gain, (log_mel, mixture)) in self.band_gains.iter_mut().zip(levels) {
            *gain = (log_mel.exp() / (mixture + MEL_OFFSET))
                .max(0.0)
                .min(self.gain_limit);
        }
        self.band_gains[n_mels] = self.band_gains[n_mels - 1];
        self.band_to_bin
            .spread(&self.band_gains, &mut self.bin_gains);
    }

    /// Keeps the mixture's spectrum, and returns the gain of a voice that starts from it and matches the decoded mel.
    fn keep_spectrum(
        &mut self,
        decoded: &DecodedFrame,
        sources: (&[Complex32], &[Complex32]),
        gains: SourceGains,
    ) -> f32 {
        let mut spectrum = self.conversion.middle(&self.mixture, self.bin_gains.len());
        let mut log_mel = decoded.log_mel.clone();
        if !decoded.controls.is_frozen {
            let limit = self.log_mel_limit(sources, gains);
            let levels = log_mel.iter_mut().zip(&limit);
            levels.for_each(|(level, limit)| *level = level.min(*limit));
            spectrum = spectrum.with_log_mel_limit(limit);
        }
        self.spectra.get_or_insert_default().push(spectrum);
        self.set_rest_of_gains(&log_mel);
        self.levels
            .matched_gain(&self.mixture, &self.rest_bin_gains)
    }

    /// How loud each band may be, as a log-mel, for a voice that can make more than the inputs hold: the limit of a band's
    /// gain, times the loudest of both inputs and the mixture there. Without it, a network that errs makes a burst.
    fn log_mel_limit(
        &mut self,
        sources: (&[Complex32], &[Complex32]),
        gains: SourceGains,
    ) -> Vec<f32> {
        let mut limit = self.mixture_mel.clone();
        for (spectra, gain) in [(sources.0, gains.main), (sources.1, gains.sidechain)] {
            self.bands.of(spectra, &mut self.source_mel);
            let levels = limit.iter_mut().zip(&self.source_mel);
            levels.for_each(|(limit, level)| *limit = limit.max(gain * level));
        }
        for limit in &mut limit {
            *limit = (self.gain_limit * (*limit + MEL_OFFSET)).ln();
        }
        limit
    }

    /// Sets the gains to what the limited ones leave between the mixture and the decoded mel.
    fn set_rest_of_gains(&mut self, log_mel: &[f32]) {
        let n_mels = log_mel.len();
        let gains = &mut self.rest_band_gains;
        self.bands.of(&self.mixture, &mut gains[..n_mels]);
        for (gain, log_mel) in gains.iter_mut().zip(log_mel) {
            let rest = log_mel.exp() / gain.max(f32::MIN_POSITIVE);
            *gain = rest.clamp(0.0, REST_LIMIT);
        }
        gains[n_mels] = gains[n_mels - 1];
        self.band_to_bin.spread(gains, &mut self.rest_bin_gains);
    }
}

/// The share of the strokes that is played in short windows. The nearer both knobs are to each other, the less: with both at
/// one source, nothing is separated, and the source stays whole.
fn share_in_short_windows(controls: &FrameControls) -> f32 {
    match controls.transpose_semitones {
        0 => ((controls.harmony - controls.rhythm).abs() / FULL_DISTANCE).min(1.0),
        _ => 1.0,
    }
}

/// Gain of each bin of a source.
struct Weights {
    all: Vec<f32>,
    /// The share of `all` that is pitched or at least not percussive.
    tonal: Vec<f32>,
    /// The percussive share of `all`.
    rest: Vec<f32>,
}

impl Weights {
    fn new(n_bins: usize) -> Self {
        let zeros = || vec![0.0; n_bins];
        Self {
            all: zeros(),
            tonal: zeros(),
            rest: zeros(),
        }
    }

    fn set(&mut self, frame: &SeparatedFrame, gain: f32, harmonic: f32, percussive: f32) {
        let masks = frame.harmonic.iter().zip(frame.percussive);
        let parts = self.tonal.iter_mut().zip(&mut self.rest);
        let weights = self.all.iter_mut().zip(parts);
        vectorized!({
            for ((all, (tonal, rest)), (harmonic_mask, percussive_mask)) in weights.zip(masks) {
                let residual_mask = 1.0 - harmonic_mask - percussive_mask;
                let residual = harmonic * percussive * residual_mask;
                *tonal = gain * (harmonic * harmonic_mask + residual);
                *rest = gain * percussive * percussive_mask;
                *all = *tonal + *rest;
            }
        });
    }
}

/// The sum of both sources' spectra, weighted per bin; channel by channel.
pub(crate) fn weigh(
    mixture: &mut [Complex32],
    (main, sidechain): (&[Complex32], &[Complex32]),
    (main_weights, sidechain_weights): (&[f32], &[f32]),
) {
    let n_bins = main_weights.len();
    let sources = main
        .chunks_exact(n_bins)
        .zip(sidechain.chunks_exact(n_bins));
    vectorized!({
        for (mixture, (main, sidechain)) in mixture.chunks_exact_mut(n_bins).zip(sources) {
            let weights = main_weights.iter().zip(sidechain_weights);
            let bins = main.iter().zip(sidechain).zip(weights);
            for (mixture, ((main, sidechain), (main_weight, sidechain_weight))) in
                mixture.iter_mut().zip(bins)
            {
                *mixture = main * main_weight + sidechain * sidechain_weight;
            }
        }
    });
}
