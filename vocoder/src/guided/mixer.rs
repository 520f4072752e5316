//! Mixes the sources' parts, and computes the gains that match the mixture's mel to the decoded one.

use realfft::num_complex::Complex32;

use super::shift::PitchShift;
use super::{FrameControls, GuidedConfig};
use crate::mel::MelFilterBank;
use crate::separated::SeparatedFrame;
use crate::stft::magnitude_of;

/// Added to the mixture's mel before the division, to avoid amplifying near silence.
const MEL_OFFSET: f32 = 1e-4;

/// The model's output for one frame.
pub(super) struct DecodedFrame {
    pub(super) log_mel: Vec<f32>,
    pub(super) controls: FrameControls,
}

/// Spectra and gains of the current frame.
pub(super) struct Mixer {
    filter_bank: MelFilterBank,
    band_to_bin: BandToBin,
    /// Scales magnitudes of the host-rate transform to those of the model's transform.
    magnitude_scale: f32,
    gain_limit: f32,
    main_weights: Weights,
    sidechain_weights: Weights,
    /// The transposed parts, if the transposition is not 0; channel by channel.
    tonal: Vec<Complex32>,
    shift: PitchShift,
    /// Channel by channel.
    mixture: Vec<Complex32>,
    /// Magnitude of the mixture's mono sum, which is the input of the model. With the mean magnitude of the channels
    /// instead, a wide stereo track resynthesised from its own mel has an error of -19 dB instead of -39 dB.
    magnitude: Vec<f32>,
    band_gains: Vec<f32>,
    bin_gains: Vec<f32>,
}

impl Mixer {
    pub(super) fn new(config: &GuidedConfig, n_fft: usize) -> Self {
        let sample_rate_hz = f64::from(config.sample_rate_hz);
        let filter_bank = MelFilterBank::for_analysis(&config.mel, sample_rate_hz, n_fft);
        let n_bins = filter_bank.n_bins();
        Self {
            band_to_bin: BandToBin::new(&filter_bank),
            magnitude_scale: config.mel.n_fft as f32 / n_fft as f32,
            gain_limit: config.gain_limit,
            main_weights: Weights::new(n_bins),
            sidechain_weights: Weights::new(n_bins),
            tonal: vec![Complex32::default(); config.channels * n_bins],
            shift: PitchShift::new(n_fft, config.channels),
            mixture: vec![Complex32::default(); config.channels * n_bins],
            magnitude: vec![0.0; n_bins],
            band_gains: vec![0.0; config.mel.n_mels + 1],
            bin_gains: vec![0.0; n_bins],
            filter_bank,
        }
    }

    /// Resets the state.
    pub(super) fn reset(&mut self) {
        self.shift.reset();
    }

    /// Computes the spectra of the output frame, channel by channel. The frame before began `hop_samples` earlier.
    pub(super) fn mix(
        &mut self,
        decoded: &DecodedFrame,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
        hop_samples: usize,
    ) -> &mut [Complex32] {
        let FrameControls {
            harmony,
            rhythm,
            transpose_semitones,
        } = decoded.controls;
        self.main_weights.set(main, 1.0 - harmony, 1.0 - rhythm);
        self.sidechain_weights.set(sidechain, harmony, rhythm);
        let (mains, sides) = (&self.main_weights, &self.sidechain_weights);
        let n_bins = self.bin_gains.len();
        let sources = (main.spectra, sidechain.spectra);
        if transpose_semitones == 0 {
            self.shift.reset();
            weigh(&mut self.mixture, sources, (&mains.all, &sides.all));
        } else {
            weigh(&mut self.tonal, sources, (&mains.tonal, &sides.tonal));
            weigh(&mut self.mixture, sources, (&mains.rest, &sides.rest));
            let shifted = self
                .shift
                .shift(&self.tonal, transpose_semitones, hop_samples);
            for (mixture, shifted) in self.mixture.iter_mut().zip(shifted) {
                *mixture += shifted;
            }
        }
        self.set_gains(&decoded.log_mel);
        for mixture in self.mixture.chunks_exact_mut(n_bins) {
            for (bin, gain) in mixture.iter_mut().zip(&self.bin_gains) {
                *bin *= gain;
            }
        }
        &mut self.mixture
    }

    fn set_gains(&mut self, log_mel: &[f32]) {
        let n_bins = self.magnitude.len();
        let channels = self.mixture.len() / n_bins;
        let scale = self.magnitude_scale / channels as f32;
        for (bin, magnitude) in self.magnitude.iter_mut().enumerate() {
            let mono: Complex32 = self.mixture[bin..].iter().step_by(n_bins).sum();
            *magnitude = scale * magnitude_of(&mono);
        }
        let n_mels = log_mel.len();
        self.filter_bank
            .apply(&self.magnitude, &mut self.band_gains[..n_mels]);
        for (gain, log_mel) in self.band_gains.iter_mut().zip(log_mel) {
            *gain = (log_mel.exp() / (*gain + MEL_OFFSET))
                .max(0.0)
                .min(self.gain_limit);
        }
        self.band_gains[n_mels] = self.band_gains[n_mels - 1];
        self.band_to_bin
            .spread(&self.band_gains, &mut self.bin_gains);
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

    fn set(&mut self, frame: &SeparatedFrame, harmonic: f32, percussive: f32) {
        let masks = frame.harmonic.iter().zip(frame.percussive);
        for (bin, (harmonic_mask, percussive_mask)) in masks.enumerate() {
            let residual_mask = 1.0 - harmonic_mask - percussive_mask;
            let residual = harmonic * percussive * residual_mask;
            self.tonal[bin] = harmonic * harmonic_mask + residual;
            self.rest[bin] = percussive * percussive_mask;
            self.all[bin] = harmonic * harmonic_mask + self.rest[bin] + residual;
        }
    }
}

/// The sum of both sources' spectra, weighted per bin; channel by channel.
fn weigh(
    mixture: &mut [Complex32],
    (main, sidechain): (&[Complex32], &[Complex32]),
    (main_weights, sidechain_weights): (&[f32], &[f32]),
) {
    let n_bins = main_weights.len();
    let sources = main
        .chunks_exact(n_bins)
        .zip(sidechain.chunks_exact(n_bins));
    for (mixture, (main, sidechain)) in mixture.chunks_exact_mut(n_bins).zip(sources) {
        let weights = main_weights.iter().zip(sidechain_weights);
        let bins = main.iter().zip(sidechain).zip(weights);
        for (mixture, ((main, sidechain), (main_weight, sidechain_weight))) in
            mixture.iter_mut().zip(bins)
        {
            *mixture = main * main_weight + sidechain * sidechain_weight;
        }
    }
}

/// Spreads gains of mel bands to bins, with the normalised transpose of the filter bank.
///
/// No bin is in more than two triangles, so this interpolates between neighbouring bands. Bins in no triangle follow
/// the nearest bin below that is in one, or the first: above the model's range, the top band decides.
struct BandToBin {
    weights: Vec<BinWeight>,
}

/// Filter weights of one bin.
#[derive(Clone, Copy)]
struct BinWeight {
    band: usize,
    of_band: f32,
    of_next_band: f32,
}

impl BandToBin {
    fn new(filter_bank: &MelFilterBank) -> Self {
        let mut covered: Vec<Option<BinWeight>> = vec![None; filter_bank.n_bins()];
        for (band, (bins, weights)) in filter_bank.bands().enumerate() {
            for (bin, &weight) in covered[bins].iter_mut().zip(weights) {
                match bin {
                    Some(bin) => bin.of_next_band = weight,
                    None => {
                        *bin = Some(BinWeight {
                            band,
                            of_band: weight,
                            of_next_band: 0.0,
                        });
                    }
                }
            }
        }
        let first = covered.iter().find_map(|bin| *bin);
        let mut nearest = first.unwrap_or(BinWeight {
            band: 0,
            of_band: 1.0,
            of_next_band: 0.0,
        });
        let weights = covered
            .into_iter()
            .map(|bin| {
                nearest = bin.unwrap_or(nearest);
                let total = nearest.of_band + nearest.of_next_band;
                BinWeight {
                    band: nearest.band,
                    of_band: nearest.of_band / total,
                    of_next_band: nearest.of_next_band / total,
                }
            })
            .collect();
        Self { weights }
    }

    /// `band_gains` has one more value than there are bands: a neighbour for the top band.
    fn spread(&self, band_gains: &[f32], bin_gains: &mut [f32]) {
        for (gain, bin) in bin_gains.iter_mut().zip(&self.weights) {
            *gain =
                bin.of_band * band_gains[bin.band] + bin.of_next_band * band_gains[bin.band + 1];
        }
    }
}
