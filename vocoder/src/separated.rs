//! Splits the spectra of a source into harmonic and percussive parts, as a stream.

use realfft::num_complex::Complex32;

use crate::error::Result;
use crate::hpss::{HpssConfig, HpssStream};
use crate::stft::{FrameTransform, SampleBuffer, magnitude_of};
use crate::vectorized;

/// A frame of one source whose masks are known.
pub(crate) struct SeparatedFrame<'a> {
    /// Channel by channel.
    pub(crate) spectra: &'a [Complex32],
    pub(crate) harmonic: &'a [f32],
    pub(crate) percussive: &'a [f32],
    /// [`HpssStream::steady_shares`].
    pub(crate) steady_shares: &'a [f32],
}

/// One of the two inputs: its samples, and their separation.
pub(crate) struct Source {
    /// Per channel.
    pub(crate) input: Vec<SampleBuffer>,
    separation: Separation,
}

impl Source {
    /// Creates a source with this many channels at its beginning.
    ///
    /// # Errors
    ///
    /// If a setting is out of range; the error names it.
    pub(crate) fn new(channels: usize, n_bins: usize, hpss: &HpssConfig) -> Result<Self> {
        Ok(Self {
            input: (0..channels).map(|_| SampleBuffer::default()).collect(),
            separation: Separation::new(channels, n_bins, hpss)?,
        })
    }

    /// Also computes the steady shares of its frames, which are empty otherwise.
    pub(crate) fn with_steady_shares(mut self) -> Self {
        self.separation.hpss = self.separation.hpss.with_steady_shares();
        self
    }

    /// Resets the source.
    pub(crate) fn reset(&mut self) {
        self.input.iter_mut().for_each(SampleBuffer::clear);
        self.separation.reset();
    }

    /// Lag of the masks, in frames.
    pub(crate) fn delay_frames(&self) -> usize {
        self.separation.hpss.delay_frames()
    }

    /// Number of frames that were analysed.
    pub(crate) fn analysed_frames(&self) -> usize {
        self.separation.analysed_frames
    }

    /// Transforms the frame that starts at `start`. Returns the frame whose masks become complete.
    pub(crate) fn analyse(
        &mut self,
        start: isize,
        transform: &mut FrameTransform,
    ) -> Option<SeparatedFrame<'_>> {
        self.separation.analyse(&self.input, start, transform)
    }

    /// Returns the remaining frames after the last frame was analysed.
    pub(crate) fn drain(&mut self) -> Option<SeparatedFrame<'_>> {
        self.separation.drain()
    }
}

/// The latest spectra of an input, and their separation.
pub(crate) struct Separation {
    hpss: HpssStream,
    /// Spectra of the frames that the separation still needs, at position `frame % spectra.len()`; channel by channel.
    spectra: Vec<Vec<Complex32>>,
    analysed_frames: usize,
    separated_frames: usize,
    magnitude: Vec<f32>,
}

impl Separation {
    /// Creates the separation of an input with this many channels.
    ///
    /// # Errors
    ///
    /// If a setting is out of range; the error names it.
    pub(crate) fn new(channels: usize, n_bins: usize, hpss: &HpssConfig) -> Result<Self> {
        let hpss = HpssStream::new(n_bins, hpss)?;
        let spectra = vec![Complex32::default(); channels * n_bins];
        Ok(Self {
            spectra: vec![spectra; hpss.delay_frames() + 1],
            hpss,
            analysed_frames: 0,
            separated_frames: 0,
            magnitude: vec![0.0; n_bins],
        })
    }

    /// Resets the separation.
    pub(crate) fn reset(&mut self) {
        self.hpss.reset();
        self.analysed_frames = 0;
        self.separated_frames = 0;
    }

    /// Transforms the frame of `input`, per channel, that starts at `start`. Returns the frame whose masks become
    /// complete.
    pub(crate) fn analyse(
        &mut self,
        input: &[SampleBuffer],
        start: isize,
        transform: &mut FrameTransform,
    ) -> Option<SeparatedFrame<'_>> {
        let slot = self.analysed_frames % self.spectra.len();
        let n_bins = self.magnitude.len();
        self.magnitude.fill(0.0);
        let share = 1.0 / input.len() as f32;
        let spectra = self.spectra[slot].chunks_exact_mut(n_bins);
        for (input, spectrum) in input.iter().zip(spectra) {
            transform.forward_at(input, start, spectrum);
            vectorized!({
                for (magnitude, bin) in self.magnitude.iter_mut().zip(&*spectrum) {
                    *magnitude += share * magnitude_of(bin);
                }
            });
        }
        self.analysed_frames += 1;
        self.hpss.push(&self.magnitude)?;
        Some(self.separated())
    }

    /// Returns the remaining frames after the last frame was analysed.
    pub(crate) fn drain(&mut self) -> Option<SeparatedFrame<'_>> {
        self.hpss.drain()?;
        Some(self.separated())
    }

    /// Combines new masks with the spectra of their frame.
    fn separated(&mut self) -> SeparatedFrame<'_> {
        let slot = self.separated_frames % self.spectra.len();
        self.separated_frames += 1;
        let masks = self.hpss.masks();
        SeparatedFrame {
            spectra: &self.spectra[slot],
            harmonic: masks.harmonic,
            percussive: masks.percussive,
            steady_shares: self.hpss.steady_shares(),
        }
    }
}
