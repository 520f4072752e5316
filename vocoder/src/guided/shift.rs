//! Pitch-shifts a stream of spectra.
//!
//! J. Laroche and M. Dolson, "New phase-vocoder techniques for pitch-shifting, harmonizing and other exotic effects",
//! WASPAA 1999: every peak moves to its new frequency together with the bins around it, and its phase advances with the
//! new frequency.

use std::f32::consts::TAU;

use realfft::num_complex::Complex32;

/// Shifts spectra, frame by frame.
pub(crate) struct PitchShift {
    n_fft: usize,
    /// Energy of a bin over all channels.
    energy: Vec<f32>,
    /// Phase rotation of each bin of the last output frame, in radians.
    turns: Vec<f32>,
    next_turns: Vec<f32>,
    /// Channel by channel.
    shifted: Vec<Complex32>,
}

/// The bins that move with a peak.
struct Region {
    first: usize,
    peak: usize,
    /// The bin after the last one.
    end: usize,
}

impl PitchShift {
    pub(crate) fn new(n_fft: usize, channels: usize) -> Self {
        let n_bins = n_fft / 2 + 1;
        Self {
            n_fft,
            energy: vec![0.0; n_bins],
            turns: vec![0.0; n_bins],
            next_turns: vec![0.0; n_bins],
            shifted: vec![Complex32::default(); channels * n_bins],
        }
    }

    /// Resets the phases.
    pub(crate) fn reset(&mut self) {
        self.turns.fill(0.0);
    }

    /// Shifts `spectra`, channel by channel, by `semitones`. The frame before began `hop_samples` earlier.
    pub(crate) fn shift(
        &mut self,
        spectra: &[Complex32],
        semitones: i32,
        hop_samples: usize,
    ) -> &[Complex32] {
        let n_bins = self.energy.len();
        self.energy.fill(0.0);
        for spectrum in spectra.chunks_exact(n_bins) {
            for (energy, bin) in self.energy.iter_mut().zip(spectrum) {
                *energy += bin.norm_sqr();
            }
        }
        self.shifted.fill(Complex32::default());
        self.next_turns.copy_from_slice(&self.turns);
        let stretch = (semitones as f32 / 12.0).exp2() - 1.0;
        let mut next = self.region(0);
        while let Some(region) = next {
            let shift = self.frequency_bins(region.peak) * stretch;
            let whole = shift.round() as isize;
            let destination = |bin: usize| {
                let bin = bin.checked_add_signed(whole)?;
                (bin < n_bins).then_some(bin)
            };
            if let Some(peak) = destination(region.peak) {
                let step = TAU * shift * hop_samples as f32 / self.n_fft as f32;
                let turn = (self.turns[peak] + step).rem_euclid(TAU);
                let factor = Complex32::from_polar(1.0, turn);
                for bin in region.first..region.end {
                    let Some(to) = destination(bin) else { continue };
                    self.next_turns[to] = turn;
                    for channel in (0..spectra.len()).step_by(n_bins) {
                        self.shifted[channel + to] += spectra[channel + bin] * factor;
                    }
                }
            }
            next = self.region(region.end);
        }
        std::mem::swap(&mut self.turns, &mut self.next_turns);
        &self.shifted
    }

    /// The region that begins at bin `first`. It contains one peak and ends halfway to the next.
    fn region(&self, first: usize) -> Option<Region> {
        let peak = self.peak_from(first)?;
        let next = self.peak_from(peak + 1);
        let end = next.map_or(self.energy.len(), |next| (peak + next) / 2 + 1);
        Some(Region { first, peak, end })
    }

    /// The first bin from `first` on with more energy than the two bins on either side.
    fn peak_from(&self, first: usize) -> Option<usize> {
        let energy = |bin: usize| self.energy.get(bin).copied().unwrap_or(0.0);
        (first.max(1)..self.energy.len()).find(|&bin| {
            let (here, below) = (energy(bin), bin.checked_sub(2).map_or(0.0, energy));
            here > 0.0
                && here > energy(bin - 1)
                && here > below
                && here >= energy(bin + 1)
                && here >= energy(bin + 2)
        })
    }

    /// Frequency of a peak in bins: the vertex of the parabola through the logarithms around it.
    fn frequency_bins(&self, peak: usize) -> f32 {
        let log = |bin: usize| {
            let energy = self.energy.get(bin).copied().unwrap_or(0.0);
            energy.max(f32::MIN_POSITIVE).ln()
        };
        let (below, here, above) = (log(peak - 1), log(peak), log(peak + 1));
        let curvature = below - 2.0 * here + above;
        let offset = if curvature < 0.0 {
            0.5 * (below - above) / curvature
        } else {
            0.0
        };
        peak as f32 + offset.clamp(-0.5, 0.5)
    }
}
