//! Log-mel analysis of audio at the host's rate, in steps.

use vocoder::{AnalysisWindow, LogMel, MelConfig, MelStream};

use crate::error::Result;
use crate::resample::Resampler;

/// Computes log-mel frames from host samples, for one channel.
pub(crate) struct Analysis {
    pub(crate) resampler: Resampler,
    mel: MelStream,
}

impl Analysis {
    pub(crate) fn new(
        mel: &MelConfig,
        window: AnalysisWindow,
        resampler: &Resampler,
    ) -> Result<Self> {
        Ok(Self {
            resampler: resampler.clone(),
            mel: MelStream::with_window(mel, window)?,
        })
    }

    /// Takes the next samples of one channel of a source, or of the mean of all, and appends the completed frames to
    /// `frames`.
    pub(crate) fn push(&mut self, source: &[&[f32]], channel: Option<usize>, frames: &mut LogMel) {
        let mut samples = Vec::new();
        match channel {
            Some(channel) => self.resampler.push(source[channel], &mut samples),
            None => match source {
                [left, right] => self.resampler.push(&mean(left, right), &mut samples),
                channels => self.resampler.push(channels[0], &mut samples),
            },
        }
        self.mel.push(&samples, frames);
    }

    /// Ends the clip and appends its last frames.
    pub(crate) fn finish(&mut self, frames: &mut LogMel) {
        let mut samples = Vec::new();
        self.resampler.finish(&mut samples);
        self.mel.push(&samples, frames);
        self.mel.finish(frames);
    }

    pub(crate) fn reset(&mut self) {
        self.resampler.reset();
        self.mel.reset();
    }
}

fn mean(left: &[f32], right: &[f32]) -> Vec<f32> {
    left.iter().zip(right).map(|(l, r)| 0.5 * (l + r)).collect()
}
