//! Harmonic shares as a long median filter along time would find them, without its look-ahead.

use std::collections::VecDeque;

/// Frames between the two estimates that are combined. With a median of 11 frames, both together see 21.
const APART_FRAMES: usize = 10;

/// How much of each bin is harmonic, without a margin: the percussive share is the rest.
///
/// A short median filter takes every note for a tone that fills half of it. So the harmonic estimate of a frame is the
/// geometric mean of its own and that of an earlier frame: only what was there at both times counts in full.
pub(super) struct Steady {
    /// Harmonic estimates of the latest frames, oldest first.
    estimates: VecDeque<Vec<f32>>,
    shares: Vec<f32>,
}

impl Steady {
    pub(super) fn new(n_bins: usize) -> Self {
        Self {
            estimates: VecDeque::with_capacity(APART_FRAMES + 1),
            shares: vec![0.0; n_bins],
        }
    }

    pub(super) fn reset(&mut self) {
        self.estimates.clear();
    }

    /// Takes the harmonic and percussive estimates of the next frame: magnitudes by bin.
    pub(super) fn next(&mut self, harmonic: &[f32], percussive: &[f32]) {
        let is_full = self.estimates.len() > APART_FRAMES;
        let mut latest = match is_full {
            true => self.estimates.pop_front().unwrap_or_default(),
            false => Vec::with_capacity(harmonic.len()),
        };
        latest.clear();
        latest.extend_from_slice(harmonic);
        self.estimates.push_back(latest);
        // At the beginning of a clip, the first frame.
        let earlier = &self.estimates[0];
        let estimates = harmonic.iter().zip(earlier).zip(percussive);
        for (share, ((harmonic, earlier), percussive)) in self.shares.iter_mut().zip(estimates) {
            let harmonic = harmonic * earlier;
            let both = harmonic + percussive * percussive;
            *share = if both > 0.0 { harmonic / both } else { 0.5 };
        }
    }

    /// The shares of the latest frame.
    pub(super) fn shares(&self) -> &[f32] {
        &self.shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_note_counts_less_than_a_long_one() {
        let mut steady = Steady::new(3);
        // A tone throughout, a note of 8 frames, and noise.
        let shares: Vec<Vec<f32>> = (0..60)
            .map(|frame| {
                let note = if (30..38).contains(&frame) { 4.0 } else { 0.01 };
                steady.next(&[4.0, note, 1.0], &[1.0; 3]);
                steady.shares().to_vec()
            })
            .collect();
        for shares in &shares {
            assert!(
                (shares[0] - 16.0 / 17.0).abs() < 1e-6 && shares[2] == 0.5,
                "{shares:?}"
            );
        }
        for shares in &shares[30..38] {
            assert!(shares[1] < 0.05, "{shares:?}");
        }
        // The first frame has no past, and a new clip none of the last one.
        steady.reset();
        steady.next(&[0.0, 4.0, 0.0], &[0.0, 1.0, 1.0]);
        assert_eq!(steady.shares(), [0.5, 16.0 / 17.0, 0.0]);
    }
}
