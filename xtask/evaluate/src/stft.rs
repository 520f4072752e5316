//! Centred short-time Fourier transforms, as `librosa.stft` and `librosa.istft` make them.

use std::sync::Arc;

use anyhow::{Result, ensure};
use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// Analysis and synthesis with a periodic Hann window of the transform's length. Frame `i` is centred
/// at sample `i * hop_length`; beyond its ends, a clip is silent.
pub struct Stft {
    hop_length: usize,
    window: Vec<f32>,
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
}

impl Stft {
    /// Transforms of `n_fft` samples, `hop_length` samples apart.
    pub fn new(n_fft: usize, hop_length: usize) -> Self {
        let mut planner = RealFftPlanner::new();
        let step = std::f64::consts::TAU / n_fft as f64;
        Self {
            hop_length,
            window: (0..n_fft)
                .map(|n| (0.5 - 0.5 * (step * n as f64).cos()) as f32)
                .collect(),
            forward: planner.plan_fft_forward(n_fft),
            inverse: planner.plan_fft_inverse(n_fft),
        }
    }

    /// Number of bins of a spectrum.
    pub fn n_bins(&self) -> usize {
        self.window.len() / 2 + 1
    }

    /// The `samples.len() / hop_length + 1` spectra of a clip, frame after frame.
    ///
    /// # Errors
    ///
    /// Returns an error if a Fourier transform fails.
    pub fn analyse(&self, samples: &[f32]) -> Result<Vec<Complex32>> {
        let frames = samples.len() / self.hop_length + 1;
        let mut spectra = vec![Complex32::default(); frames * self.n_bins()];
        let mut frame = self.forward.make_input_vec();
        for (index, spectrum) in spectra.chunks_exact_mut(self.n_bins()).enumerate() {
            for (offset, (value, window)) in frame.iter_mut().zip(&self.window).enumerate() {
                let sample = self
                    .sample_index(index, offset)
                    .and_then(|n| samples.get(n));
                *value = sample.unwrap_or(&0.0) * window;
            }
            self.forward.process(&mut frame, spectrum)?;
        }
        Ok(spectra)
    }

    /// The clip of `length` samples whose spectra come closest to `spectra` (D. Griffin and J. Lim,
    /// "Signal Estimation from Modified Short-Time Fourier Transform", 1984).
    ///
    /// # Errors
    ///
    /// Returns an error if `spectra` does not hold whole frames, or a Fourier transform fails.
    pub fn synthesise(&self, spectra: &[Complex32], length: usize) -> Result<Vec<f32>> {
        let n_bins = self.n_bins();
        ensure!(
            spectra.len().is_multiple_of(n_bins),
            "expected spectra of {n_bins} bins, found {} bins in all",
            spectra.len()
        );
        let mut samples = vec![0.0; length];
        let mut weights = vec![0.0f32; length];
        let mut spectrum = self.inverse.make_input_vec();
        let mut frame = self.inverse.make_output_vec();
        let scale = 1.0 / self.window.len() as f32;
        for (index, bins) in spectra.chunks_exact(n_bins).enumerate() {
            spectrum.copy_from_slice(bins);
            // A real signal has real first and last bins.
            spectrum[0].im = 0.0;
            spectrum[n_bins - 1].im = 0.0;
            self.inverse.process(&mut spectrum, &mut frame)?;
            for (offset, (value, window)) in frame.iter().zip(&self.window).enumerate() {
                if let Some(n) = self.sample_index(index, offset).filter(|&n| n < length) {
                    samples[n] += value * window * scale;
                    weights[n] += window * window;
                }
            }
        }
        for (sample, weight) in samples.iter_mut().zip(&weights) {
            *sample /= weight.max(1e-6);
        }
        Ok(samples)
    }

    /// The sample of the clip that is at `offset` in a frame, unless it lies before the beginning.
    fn sample_index(&self, frame: usize, offset: usize) -> Option<usize> {
        (frame * self.hop_length + offset).checked_sub(self.window.len() / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthesis_undoes_analysis() {
        let samples: Vec<f32> = (0..5000)
            .map(|n| (n as f32 * n as f32 * 1e-4).sin())
            .collect();
        let stft = Stft::new(512, 128);
        let spectra = stft.analyse(&samples).unwrap();
        assert_eq!(spectra.len(), (5000 / 128 + 1) * stft.n_bins());
        let back = stft.synthesise(&spectra, samples.len()).unwrap();
        for (n, (back, sample)) in back.iter().zip(&samples).enumerate() {
            assert!((back - sample).abs() < 1e-4, "sample {n}: {back} {sample}");
        }
        assert!(stft.synthesise(&spectra[1..], 5000).is_err());
    }
}
