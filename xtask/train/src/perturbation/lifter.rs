//! The real cepstrum of a log spectrum, and the spectrum's parts below and above a quefrency.

use std::f64::consts::TAU;

use anyhow::{Result, ensure};

use crate::product::add_product;

/// Separates log spectra into envelope and fine structure. Both add up to the spectrum.
#[derive(Clone, Debug)]
pub struct Lifter {
    bins: usize,
    cut: usize,
    /// From a log spectrum to its first cepstral coefficients, (bins, cut).
    analysis: Vec<f32>,
    /// Back, (cut, bins).
    synthesis: Vec<f32>,
}

impl Lifter {
    /// A lifter for spectra of transforms of `n_fft` samples. The envelope has the cepstral coefficients below `cut`.
    ///
    /// # Errors
    ///
    /// Returns an error if `n_fft` is not even, or `cut` is not from 1 to half of it.
    pub fn new(n_fft: usize, cut: usize) -> Result<Self> {
        ensure!(
            n_fft.is_multiple_of(2) && (1..=n_fft / 2).contains(&cut),
            "expected an even transform and a cut from 1 to half of it, found {n_fft} and {cut}"
        );
        let bins = n_fft / 2 + 1;
        // All but the first and the last bin and coefficient stand for two of a symmetric sequence.
        let twice = |index: usize| {
            if index.is_multiple_of(n_fft / 2) {
                1.0
            } else {
                2.0
            }
        };
        let cosine = |bin: usize, quefrency: usize| {
            // The remainder keeps the argument small and so the cosine exact.
            (TAU * (bin * quefrency % n_fft) as f64 / n_fft as f64).cos()
        };
        let analysis = (0..bins).flat_map(|bin| {
            (0..cut).map(move |n| (twice(bin) * cosine(bin, n) / n_fft as f64) as f32)
        });
        let synthesis =
            (0..cut).flat_map(|n| (0..bins).map(move |bin| (twice(n) * cosine(bin, n)) as f32));
        Ok(Self {
            bins,
            cut,
            analysis: analysis.collect(),
            synthesis: synthesis.collect(),
        })
    }

    /// Bins of a spectrum.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// Coefficients of an envelope.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// The cepstral coefficients below the cut, `(frames, cut)`, of log spectra `(frames, bins)`.
    pub fn cepstra(&self, spectra: &[f32]) -> Vec<f32> {
        let frames = spectra.len() / self.bins;
        let mut cepstra = vec![0.0; frames * self.cut];
        add_product(
            (frames, self.cut, self.bins),
            &mut cepstra,
            (spectra, false),
            (&self.analysis, false),
        );
        cepstra
    }

    /// The envelopes with these cepstral coefficients, `(frames, bins)`.
    pub fn envelopes(&self, cepstra: &[f32]) -> Vec<f32> {
        let frames = cepstra.len() / self.cut;
        let mut envelopes = vec![0.0; frames * self.bins];
        add_product(
            (frames, self.bins, self.cut),
            &mut envelopes,
            (cepstra, false),
            (&self.synthesis, false),
        );
        envelopes
    }

    /// What log spectra have beyond their envelopes, `(frames, bins)`.
    pub fn fine_structures(&self, spectra: &[f32]) -> Vec<f32> {
        let mut fine = self.envelopes(&self.cepstra(spectra));
        for (fine, value) in fine.iter_mut().zip(spectra) {
            *fine = value - *fine;
        }
        fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wave::wave;
    use candle_core::DType;

    fn values(count: usize, phase: f64) -> Vec<f32> {
        let wave = wave(&[count], phase).unwrap().to_dtype(DType::F32).unwrap();
        wave.to_vec1().unwrap()
    }

    fn digest(found: &[f32]) -> f64 {
        let waves = values(found.len(), 9.0);
        let products = found.iter().zip(waves);
        products.map(|(a, b)| f64::from(*a) * f64::from(b)).sum()
    }

    /// By PyTorch:
    ///
    /// ```python
    /// import torch
    /// def wave(n, phase):
    ///     i = torch.arange(n).double()
    ///     return torch.sin(0.37 * i * i + phase)
    /// s = wave(3 * 33, 0.5).reshape(3, 33)
    /// c = torch.fft.irfft(s.to(torch.complex128), n=64)
    /// kept = c.clone(); kept[:, 7:-6] = 0
    /// envelope = torch.fft.rfft(kept).real
    /// for t in [c[:, :7], envelope, s - envelope]:
    ///     t = t.flatten(); print((t * wave(len(t), 9.0)).sum().item())
    /// ```
    #[test]
    fn parts_are_those_of_pytorch() {
        let spectra = values(3 * 33, 0.5);
        let lifter = Lifter::new(64, 7).unwrap();
        let cepstra = lifter.cepstra(&spectra);
        let envelopes = lifter.envelopes(&cepstra);
        let fine = lifter.fine_structures(&spectra);
        for (found, expected) in [(&cepstra, CEPSTRA), (&envelopes, ENVELOPES), (&fine, FINE)] {
            let found = digest(found);
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    const CEPSTRA: f64 = 0.21483802014388542;
    const ENVELOPES: f64 = -6.181532130372402;
    const FINE: f64 = -19.56863035718924;

    #[test]
    fn the_parts_are_complementary_and_final() {
        let spectra = values(2 * 1025, 0.1);
        let lifter = Lifter::new(2048, 50).unwrap();
        let envelopes = lifter.envelopes(&lifter.cepstra(&spectra));
        let fine = lifter.fine_structures(&spectra);
        for ((envelope, fine), value) in envelopes.iter().zip(&fine).zip(&spectra) {
            assert!((envelope + fine - value).abs() < 1e-5);
        }
        // An envelope has no fine structure, and a fine structure no envelope.
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert!(largest(&lifter.fine_structures(&envelopes)) < 1e-4);
        assert!(largest(&lifter.cepstra(&fine)) < 1e-5 && largest(&fine) > 0.5);
    }

    #[test]
    fn ripples_belong_to_one_part_by_their_quefrency() {
        let lifter = Lifter::new(2048, 50).unwrap();
        for (quefrency, is_envelope) in [(0, true), (49, true), (50, false), (400, false)] {
            let ripple = |bin: usize| (TAU * (bin * quefrency) as f64 / 2048.0).cos() as f32;
            let spectrum: Vec<f32> = (0..1025).map(ripple).collect();
            let fine = lifter.fine_structures(&spectrum);
            for (fine, value) in fine.iter().zip(&spectrum) {
                let expected = if is_envelope { 0.0 } else { *value };
                assert!((fine - expected).abs() < 1e-4, "{quefrency}: {fine}");
            }
        }
        assert!(Lifter::new(2047, 50).is_err() && Lifter::new(64, 33).is_err());
    }
}
