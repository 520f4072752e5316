//! Measures of remixes: harmony by chroma, rhythm by onset strength, both on mono audio at 22,050 Hz.
//!
//! The *harmony margin* of a remix is its chroma similarity to the track that harmony is to come from,
//! minus that to the other track; the *rhythm margin* is its onset correlation with the track that
//! rhythm is to come from, minus that with the other track. Both are 0 for a remix that has as much
//! of the one as of the other. Frames are compared with those at the same time, without any lag, so
//! a remix that is out of time loses by it.

use anyhow::{Result, ensure};
use graft_material::audio_file;
use graft_material::loudness::TARGET_RMS_DBFS;
use model_runtime::AudioClip;
use serde::{Deserialize, Serialize};
use vocoder::{LogMel, MelConfig, MelFilterBank, MelSpectrogram};

use crate::chroma::{ChromaCqt, PITCH_CLASSES};
use crate::stft::Stft;

/// Rate at which clips are compared.
pub const SAMPLE_RATE_HZ: u32 = 22_050;

/// Samples from one frame to the next.
pub const HOP_LENGTH: usize = 512;
const ONSET_N_FFT: usize = 2048;

/// Chords change more slowly than onsets: their frames are 93 ms apart, so many frames of the mel.
pub const CHROMA_FRAMES: usize = 4;

/// The compared features of a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Strength of the pitch classes from C to B, one array for each 93 ms.
    pub chroma: Vec<[f32; PITCH_CLASSES]>,
    /// Onset strength, one value per frame.
    pub onset_strength: Vec<f32>,
    /// Log-mel spectrogram of the kind that the networks work on.
    pub log_mel: LogMel,
    /// RMS level, in dB relative to full scale.
    pub level_db: f32,
    /// Centroid of the mean mel spectrum, in octaves above 1 Hz.
    pub centroid_octaves: f32,
}

/// Computes [`Features`].
pub struct FeatureExtractor {
    chroma: ChromaCqt,
    onset_stft: Stft,
    mel_filters: MelFilterBank,
    mel: MelSpectrogram,
}

impl FeatureExtractor {
    /// Prepares windows, transforms and filters.
    ///
    /// # Errors
    ///
    /// Returns an error if the filters cannot be made.
    pub fn new() -> Result<Self> {
        let mel = MelConfig {
            sample_rate_hz: SAMPLE_RATE_HZ,
            ..MelConfig::default()
        };
        Ok(Self {
            chroma: ChromaCqt::new(SAMPLE_RATE_HZ, CHROMA_FRAMES * HOP_LENGTH)?,
            onset_stft: Stft::new(ONSET_N_FFT, HOP_LENGTH),
            mel_filters: MelFilterBank::new(&mel)?,
            mel: MelSpectrogram::new(&mel)?,
        })
    }

    /// The features of a clip, mixed to mono and resampled.
    ///
    /// # Errors
    ///
    /// Returns an error if the clip cannot be resampled.
    pub fn extract(&mut self, clip: &AudioClip) -> Result<Features> {
        let mono = audio_file::mono(clip);
        let samples = audio_file::resample(&mono, clip.sample_rate_hz, SAMPLE_RATE_HZ)?;
        let log_mel = self.mel.log_mel(&samples);
        Ok(Features {
            chroma: self.chroma.analyse(&samples)?,
            onset_strength: self.onset_strength(&samples)?,
            level_db: level_db(&samples),
            centroid_octaves: centroid_octaves(&log_mel),
            log_mel,
        })
    }

    /// `librosa.onset.onset_strength(y=samples, sr=22050, hop_length=512, center=False)`: the rise of
    /// each mel band in dB from the frame before, averaged over all bands.
    ///
    /// # Errors
    ///
    /// Returns an error if a Fourier transform fails.
    pub fn onset_strength(&self, samples: &[f32]) -> Result<Vec<f32>> {
        const MIN_POWER: f32 = 1e-10;

        let n_mels = self.mel_filters.n_mels();
        let spectra = self.onset_stft.analyse(samples)?;
        let frames = spectra.chunks_exact(self.onset_stft.n_bins());
        let mut levels_db = vec![0.0; frames.len() * n_mels];
        for (spectrum, levels) in frames.zip(levels_db.chunks_exact_mut(n_mels)) {
            let power: Vec<f32> = spectrum.iter().map(|bin| bin.norm_sqr()).collect();
            self.mel_filters.apply(&power, levels);
            for level in levels {
                *level = 10.0 * level.max(MIN_POWER).log10();
            }
        }
        Ok(mean_rises_db(&mut levels_db, n_mels))
    }
}

/// The mean rise over all bands from the frame before, in dB, of `levels_db[frame * n_mels + band]`.
pub fn mean_rises_db(levels_db: &mut [f32], n_mels: usize) -> Vec<f32> {
    /// Bands further below the loudest one of the clip are raised to there.
    const DYNAMIC_RANGE_DB: f32 = 80.0;

    let loudest_db = levels_db.iter().copied().fold(f32::MIN, f32::max);
    for level in levels_db.iter_mut() {
        *level = level.max(loudest_db - DYNAMIC_RANGE_DB);
    }
    let mut strength = vec![0.0];
    let (before, after) = (
        levels_db.chunks_exact(n_mels),
        levels_db.chunks_exact(n_mels).skip(1),
    );
    strength.extend(before.zip(after).map(|(before, after)| {
        let rise = before
            .iter()
            .zip(after)
            .map(|(before, after)| (after - before).max(0.0));
        rise.sum::<f32>() / n_mels as f32
    }));
    strength
}

impl Features {
    /// The log-mel of the clip at [`TARGET_RMS_DBFS`].
    pub fn levelled_mel(&self) -> LogMel {
        let nepers = (TARGET_RMS_DBFS - self.level_db) * std::f32::consts::LN_10 / 20.0;
        let mut levelled = LogMel::new(self.log_mel.n_mels());
        for frame in self.log_mel.values().chunks_exact(self.log_mel.n_mels()) {
            let frame: Vec<f32> = frame.iter().map(|value| value + nepers).collect();
            levelled.push_frame(&frame);
        }
        levelled
    }
}

fn level_db(samples: &[f32]) -> f32 {
    let energy: f32 = samples.iter().map(|sample| sample * sample).sum();
    10.0 * (energy / samples.len().max(1) as f32).max(1e-10).log10()
}

/// Centroid of the mean mel spectrum, in octaves above 1 Hz.
pub fn centroid_octaves(log_mel: &LogMel) -> f32 {
    let config = MelConfig::default();
    let (mut weighted, mut sum) = (0.0, f64::MIN_POSITIVE);
    for frame in log_mel.values().chunks_exact(log_mel.n_mels()) {
        for (band, value) in frame.iter().enumerate() {
            let magnitude = f64::from(value.exp());
            weighted += magnitude * config.band_centre_hz(band as f64);
            sum += magnitude;
        }
    }
    (weighted / sum).max(1.0).log2() as f32
}

/// Mean over all frames of the cosine between the chroma vectors, from 0 to 1; a frame that is silent in
/// either clip counts as 0.
pub fn chroma_similarity(a: &Features, b: &Features) -> f32 {
    let cosine = |(a, b): (&[f32; PITCH_CLASSES], &[f32; PITCH_CLASSES])| {
        let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let norm = (dot(a, a) * dot(b, b)).sqrt();
        if norm > 0.0 { dot(a, b) / norm } else { 0.0 }
    };
    let frames = a.chroma.len().min(b.chroma.len());
    a.chroma.iter().zip(&b.chroma).map(cosine).sum::<f32>() / frames.max(1) as f32
}

/// Pearson's correlation of the onset strengths, from -1 to 1; 0 if either never changes.
pub fn onset_correlation(a: &Features, b: &Features) -> f32 {
    let frames = a.onset_strength.len().min(b.onset_strength.len());
    let centred = |features: &Features| -> Vec<f64> {
        let values = features.onset_strength[..frames]
            .iter()
            .map(|&value| f64::from(value));
        let mean = values.clone().sum::<f64>() / frames.max(1) as f64;
        values.map(|value| value - mean).collect()
    };
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let (a, b) = (centred(a), centred(b));
    let norm = (dot(&a, &a) * dot(&b, &b)).sqrt();
    if norm > 0.0 {
        (dot(&a, &b) / norm) as f32
    } else {
        0.0
    }
}

/// Mean absolute difference of the log-mels, in nepers.
///
/// # Errors
///
/// Returns an error if one clip is longer by more than a frame, or both are shorter than one.
pub fn mel_distance(a: &Features, b: &Features) -> Result<f32> {
    let (a, b) = (&a.log_mel, &b.log_mel);
    ensure!(
        a.frames().abs_diff(b.frames()) <= 1 && a.frames().min(b.frames()) > 0,
        "expected clips of the same length, found {} and {} frames",
        a.frames(),
        b.frames()
    );
    let values = a.values().len().min(b.values().len());
    let pairs = a.values().iter().zip(b.values());
    Ok(pairs.map(|(a, b)| (a - b).abs()).sum::<f32>() / values as f32)
}

/// How a remix relates to its two sources.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Margins {
    /// Chroma similarity to the source of harmony, minus that to the source of rhythm.
    pub harmony: f32,
    /// Onset correlation with the source of rhythm, minus that with the source of harmony.
    pub rhythm: f32,
    /// Chroma similarity to the source of harmony.
    pub harmony_similarity: f32,
    /// Onset correlation with the source of rhythm.
    pub rhythm_correlation: f32,
}

impl Margins {
    /// Compares `remix` with the sources of its harmony and of its rhythm.
    pub fn of(remix: &Features, harmony_source: &Features, rhythm_source: &Features) -> Self {
        let harmony_similarity = chroma_similarity(remix, harmony_source);
        let rhythm_correlation = onset_correlation(remix, rhythm_source);
        Self {
            harmony: harmony_similarity - chroma_similarity(remix, rhythm_source),
            rhythm: rhythm_correlation - onset_correlation(remix, harmony_source),
            harmony_similarity,
            rhythm_correlation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_signal::plucks;

    fn features(clip: &AudioClip) -> Features {
        FeatureExtractor::new().unwrap().extract(clip).unwrap()
    }

    // Python, with `x` made as in `plucks` (librosa 0.11.0):
    //   librosa.onset.onset_strength(y=x, sr=22050, hop_length=512, center=False)
    #[test]
    fn onset_strength_is_that_of_librosa() {
        let expected = [
            0.0, 0.0, 0.0, 22.61234, 11.23917, 0.37565, 0.0002, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
            21.47029, 6.44933, 0.19307, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.51968, 19.98166,
            3.9566, 0.14287, 0.0, 0.08689, 0.1353, 0.00411, 0.16517, 0.03396, 0.16015, 0.0,
            0.04936, 0.0, 0.01926, 0.05663, 0.0, 0.06204, 10.82877, 6.01822,
        ];
        let found = features(&plucks()).onset_strength;
        assert_eq!(found.len(), expected.len());
        for (frame, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() < 1e-3,
                "frame {frame}: {found} {expected}"
            );
        }
    }

    #[test]
    fn margins_tell_the_sources_apart() {
        let a = plucks();
        let mut b = a.clone();
        // The same notes a tritone higher by rate, and in reverse.
        b.sample_rate_hz = 31_183;
        b.channels[0].reverse();
        let length = b.channels[0].len();
        let mut a = a;
        a.channels[0].truncate(length * 22_050 / 31_183);
        let (a, b) = (features(&a), features(&b));
        let of_a = Margins::of(&a, &a, &b);
        let of_b = Margins::of(&b, &a, &b);
        assert!(
            (of_a.harmony_similarity - 1.0).abs() < 0.1 && of_a.harmony > 0.3,
            "{of_a:?}"
        );
        assert!(of_a.rhythm < -0.5 && of_b.rhythm > 0.5, "{of_a:?} {of_b:?}");
        assert_eq!(of_b.rhythm_correlation, 1.0);
        assert!(of_b.harmony < -0.3, "{of_b:?}");
    }

    #[test]
    fn mel_distance_is_the_change_of_level() {
        let a = plucks();
        let mut b = a.clone();
        b.channels[0].iter_mut().for_each(|sample| *sample *= 2.0);
        let (a, b) = (features(&a), features(&b));
        assert_eq!(mel_distance(&a, &a).unwrap(), 0.0);
        let distance = mel_distance(&a, &b).unwrap();
        // Bands in silence stay at the floor.
        assert!(distance > 0.4 && distance <= 2f32.ln() + 1e-3, "{distance}");
        let short = AudioClip {
            sample_rate_hz: SAMPLE_RATE_HZ,
            channels: vec![vec![0.0; 5000]],
        };
        assert!(mel_distance(&a, &features(&short)).is_err());
    }

    #[test]
    fn level_and_centroid_follow_gain_and_pitch() {
        let tone = |hz: f32, gain: f32| AudioClip {
            sample_rate_hz: SAMPLE_RATE_HZ,
            channels: vec![
                (0..22_050)
                    .map(|n| gain * (std::f32::consts::TAU * hz * n as f32 / 22_050.0).sin())
                    .collect(),
            ],
        };
        let (low, high) = (features(&tone(500.0, 0.1)), features(&tone(2000.0, 0.2)));
        assert!((low.level_db + 23.01).abs() < 0.01, "{}", low.level_db);
        assert!((high.level_db - low.level_db - 6.02).abs() < 0.01);
        let octaves = high.centroid_octaves - low.centroid_octaves;
        assert!((1.7..2.1).contains(&octaves), "{octaves}");
        let loudest = |mel: &LogMel| mel.values().iter().copied().fold(f32::MIN, f32::max);
        let raised = loudest(&low.levelled_mel()) - loudest(&low.log_mel);
        assert!(
            (raised - 3.01 / 20.0 * std::f32::consts::LN_10).abs() < 1e-2,
            "{raised}"
        );
    }

    #[test]
    fn silence_is_like_nothing() {
        let silence = AudioClip {
            sample_rate_hz: SAMPLE_RATE_HZ,
            channels: vec![vec![0.0; 22_050]],
        };
        let (a, silence) = (features(&plucks()), features(&silence));
        assert_eq!(chroma_similarity(&a, &silence), 0.0);
        assert_eq!(onset_correlation(&a, &silence), 0.0);
    }
}
