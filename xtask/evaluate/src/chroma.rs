//! Chroma from a constant-Q transform, as `librosa.feature.chroma_cqt(y, sr=22050, tuning=0)`.
//!
//! J. C. Brown, "Calculation of a Constant Q Spectral Transform" (1991), computed in the frequency domain
//! (J. C. Brown and M. S. Puckette, 1992): seven octaves from C1 on, 36 bins an octave, whose
//! magnitudes are added up over the octaves, three bins to a pitch class. librosa works on
//! decimated copies of the signal; the numbers agree to some thousandths of the frame's maximum.

use std::f64::consts::TAU;
use std::sync::Arc;

use anyhow::Result;
use realfft::num_complex::Complex32;
use realfft::{RealFftPlanner, RealToComplex};

/// Number of pitch classes.
pub const PITCH_CLASSES: usize = 12;

const C1_HZ: f64 = 32.703_195_662_574_83;
const OCTAVES: usize = 7;
const BINS_PER_CLASS: usize = 3;
const BINS_PER_OCTAVE: usize = BINS_PER_CLASS * PITCH_CLASSES;

/// Parts of a kernel's spectrum below this share of its maximum are left out.
const KERNEL_FLOOR: f32 = 1e-3;

/// Analyses clips of one sample rate.
pub struct ChromaCqt {
    hop_length: usize,
    fft: Arc<dyn RealToComplex<f32>>,
    kernels: Vec<Kernel>,
}

/// One bin of the constant-Q transform.
struct Kernel {
    class: usize,
    first_bin: usize,
    /// Conjugated spectrum of windowed tone from `first_bin` on.
    spectrum: Vec<Complex32>,
}

impl ChromaCqt {
    /// Prepares kernels for clips at `sample_rate_hz`, with a frame every `hop_length` samples.
    ///
    /// # Errors
    ///
    /// Returns an error if a Fourier transform fails.
    pub fn new(sample_rate_hz: u32, hop_length: usize) -> Result<Self> {
        let ratio = 2f64.powf(2.0 / BINS_PER_OCTAVE as f64);
        let quality = (ratio + 1.0) / (ratio - 1.0);
        let window_samples = |hz: f64| quality * f64::from(sample_rate_hz) / hz;
        let n_fft = (window_samples(C1_HZ) as usize + 1).next_power_of_two();
        let fft = RealFftPlanner::new().plan_fft_forward(n_fft);
        let kernels = (0..OCTAVES * BINS_PER_OCTAVE)
            .map(|bin| {
                let hz = C1_HZ * 2f64.powf(bin as f64 / BINS_PER_OCTAVE as f64);
                let radians_per_sample = TAU * hz / f64::from(sample_rate_hz);
                // A pitch class takes the bin at its pitch and those on both sides.
                let class = (bin + BINS_PER_CLASS / 2) / BINS_PER_CLASS % PITCH_CLASSES;
                Kernel::new(class, radians_per_sample, window_samples(hz), &*fft)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            hop_length,
            fft,
            kernels,
        })
    }

    /// Chroma of the `samples.len() / hop_length + 1` frames of a clip, from C to B. Frame `i` is centred at
    /// sample `i * hop_length`; beyond its ends, the clip is silent.
    ///
    /// # Errors
    ///
    /// Returns an error if a Fourier transform fails.
    pub fn analyse(&self, samples: &[f32]) -> Result<Vec<[f32; PITCH_CLASSES]>> {
        let mut frame = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let half = frame.len() / 2;
        (0..=samples.len() / self.hop_length)
            .map(|index| {
                let centre = index * self.hop_length;
                let (start, end) = (
                    centre.saturating_sub(half),
                    (centre + half).min(samples.len()),
                );
                let offset = start + half - centre;
                frame.fill(0.0);
                frame[offset..offset + end - start].copy_from_slice(&samples[start..end]);
                self.fft
                    .process_with_scratch(&mut frame, &mut spectrum, &mut scratch)?;
                let mut chroma = [0.0; PITCH_CLASSES];
                for kernel in &self.kernels {
                    chroma[kernel.class] += kernel.magnitude(&spectrum);
                }
                Ok(chroma)
            })
            .collect()
    }
}

impl Kernel {
    /// A tone in a Hann window of `window_samples`, in the middle of a frame of `fft`.
    fn new(
        class: usize,
        radians_per_sample: f64,
        window_samples: f64,
        fft: &dyn RealToComplex<f32>,
    ) -> Result<Self> {
        let n_fft = fft.len();
        let first = (-window_samples / 2.0).floor() as i64;
        let length = (window_samples / 2.0 - first as f64).ceil() as usize;
        // The area of the window is half its length; the root of the length is librosa's scale.
        let scale = window_samples.sqrt() / (0.5 * length as f64) / n_fft as f64;
        let part = |wave: fn(f64) -> f64| -> Result<Vec<Complex32>> {
            let mut frame = fft.make_input_vec();
            let mut spectrum = fft.make_output_vec();
            for n in 0..length {
                let window = 0.5 - 0.5 * (TAU * n as f64 / length as f64).cos();
                let sample = first + n as i64;
                let index = (n_fft as i64 / 2 + sample) as usize;
                frame[index] = (scale * window * wave(radians_per_sample * sample as f64)) as f32;
            }
            fft.process(&mut frame, &mut spectrum)?;
            Ok(spectrum)
        };
        let (real, imaginary) = (part(f64::cos)?, part(f64::sin)?);
        let spectrum: Vec<Complex32> = real
            .iter()
            .zip(&imaginary)
            .map(|(real, imaginary)| (real + imaginary * Complex32::i()).conj())
            .collect();
        let peak = spectrum.iter().map(|bin| bin.norm()).fold(0.0, f32::max);
        let matters = |bin: &Complex32| bin.norm() > KERNEL_FLOOR * peak;
        let first_bin = spectrum.iter().position(matters).unwrap_or(0);
        let last_bin = spectrum.iter().rposition(matters).unwrap_or(0);
        Ok(Self {
            class,
            first_bin,
            spectrum: spectrum[first_bin..=last_bin].to_vec(),
        })
    }

    /// How much of the tone is in a frame with this spectrum.
    fn magnitude(&self, spectrum: &[Complex32]) -> f32 {
        let bins = &spectrum[self.first_bin..self.first_bin + self.spectrum.len()];
        let sum: Complex32 = bins.iter().zip(&self.spectrum).map(|(a, b)| a * b).sum();
        sum.norm()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_signal::plucks;

    // Python, with `x` made as in `plucks` (librosa 0.11.0):
    //   c = librosa.feature.chroma_cqt(y=x, sr=22050, tuning=0.0)
    //   for f in (8, 20, 36): print(c[:, f])
    #[test]
    fn it_is_the_chroma_of_librosa() {
        let expected = [
            (
                8,
                [
                    1.0, 0.0584, 0.0447, 0.0457, 0.0958, 0.0446, 0.0388, 0.1653, 0.0443, 0.0417,
                    0.0398, 0.0538,
                ],
            ),
            (
                20,
                [
                    0.4229, 0.0586, 0.1825, 0.0564, 0.0707, 0.0534, 0.0504, 1.0, 0.0576, 0.0411,
                    0.0381, 0.0956,
                ],
            ),
            (
                36,
                [
                    0.0511, 0.0183, 0.0219, 0.0287, 1.0, 0.026, 0.0131, 0.0433, 0.0685, 0.0114,
                    0.0109, 0.1385,
                ],
            ),
        ];
        let clip = plucks();
        let chroma = ChromaCqt::new(clip.sample_rate_hz, 512).unwrap();
        let chroma = chroma.analyse(&clip.channels[0]).unwrap();
        assert_eq!(chroma.len(), 44);
        for (frame, expected) in expected {
            let maximum = chroma[frame].iter().copied().fold(0.0, f32::max);
            for (class, (found, expected)) in chroma[frame].iter().zip(expected).enumerate() {
                let found = found / maximum;
                assert!(
                    (found - expected).abs() < 3e-3,
                    "{frame} {class}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn every_pitch_class_is_where_it_belongs() {
        let chroma = ChromaCqt::new(22_050, 512).unwrap();
        for class in 0..PITCH_CLASSES {
            let radians = TAU * C1_HZ * 8.0 * 2f64.powf(class as f64 / 12.0) / 22_050.0;
            let tone: Vec<f32> = (0..22_050)
                .map(|n| (radians * f64::from(n)).sin() as f32)
                .collect();
            let frame = chroma.analyse(&tone).unwrap()[20];
            let loudest = (0..PITCH_CLASSES).max_by(|&a, &b| frame[a].total_cmp(&frame[b]));
            assert_eq!(loudest, Some(class));
        }
    }
}
