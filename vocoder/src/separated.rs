//! A source whose spectra are split into harmonic and percussive parts while it comes in.

use realfft::num_complex::Complex32;

use crate::error::Result;
use crate::hpss::{HpssConfig, HpssMasks, HpssStream};
use crate::stft::{FrameTransform, SampleBuffer, magnitude_of};

/// A frame of one source whose masks are known.
pub(crate) struct SeparatedFrame<'a> {
    /// Channels one after the other.
    pub(crate) spectra: &'a [Complex32],
    pub(crate) harmonic: &'a [f32],
    pub(crate) percussive: &'a [f32],
}

/// One of the two inputs: its samples, its latest spectra and its separation.
pub(crate) struct Source {
    /// Per channel.
    pub(crate) input: Vec<SampleBuffer>,
    hpss: HpssStream,
    /// Spectra of the frames that the separation still holds, at position `frame % spectra.len()`; channels one after the
    /// other.
    spectra: Vec<Vec<Complex32>>,
    /// Frames that went in.
    pub(crate) analysed_frames: usize,
    separated_frames: usize,
    magnitude: Vec<f32>,
}

impl Source {
    /// A source of so many channels at its beginning.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range.
    pub(crate) fn new(channels: usize, n_bins: usize, hpss: &HpssConfig) -> Result<Self> {
        let hpss = HpssStream::new(n_bins, hpss)?;
        let spectra = vec![Complex32::default(); channels * n_bins];
        Ok(Self {
            input: (0..channels).map(|_| SampleBuffer::default()).collect(),
            spectra: vec![spectra; hpss.delay_frames() + 1],
            hpss,
            analysed_frames: 0,
            separated_frames: 0,
            magnitude: vec![0.0; n_bins],
        })
    }

    /// Starts over.
    pub(crate) fn reset(&mut self) {
        self.input.iter_mut().for_each(SampleBuffer::clear);
        self.hpss.reset();
        self.analysed_frames = 0;
        self.separated_frames = 0;
    }

    /// Transforms the frame that starts at `start`; gives the one whose masks that completes.
    pub(crate) fn analyse(
        &mut self,
        start: isize,
        transform: &mut FrameTransform,
    ) -> Option<SeparatedFrame<'_>> {
        let slot = self.analysed_frames % self.spectra.len();
        let n_bins = self.magnitude.len();
        self.magnitude.fill(0.0);
        let share = 1.0 / self.input.len() as f32;
        for (input, spectrum) in self
            .input
            .iter()
            .zip(self.spectra[slot].chunks_exact_mut(n_bins))
        {
            transform.forward_at(input, start, spectrum);
            for (magnitude, bin) in self.magnitude.iter_mut().zip(&*spectrum) {
                *magnitude += share * magnitude_of(bin);
            }
        }
        self.analysed_frames += 1;
        let masks = self.hpss.push(&self.magnitude)?;
        Some(separated(masks, &self.spectra, &mut self.separated_frames))
    }

    /// After the last frame was analysed: the frames whose masks had waited for more.
    pub(crate) fn drain(&mut self) -> Option<SeparatedFrame<'_>> {
        let masks = self.hpss.drain()?;
        Some(separated(masks, &self.spectra, &mut self.separated_frames))
    }
}

/// Puts the masks that became known beside the spectra of their frame.
fn separated<'a>(
    masks: HpssMasks<&'a [f32]>,
    spectra: &'a [Vec<Complex32>],
    separated_frames: &mut usize,
) -> SeparatedFrame<'a> {
    let slot = *separated_frames % spectra.len();
    *separated_frames += 1;
    SeparatedFrame {
        spectra: &spectra[slot],
        harmonic: masks.harmonic,
        percussive: masks.percussive,
    }
}
