//! Log-mels of the inputs and output of a stream without a network, for display in an editor. Computes nothing while no
//! editor watches.

use std::sync::Arc;

use vocoder::{AnalysisWindow, LogMel, MelConfig};

use crate::analysis::Analysis;
use crate::error::Result;
use crate::resample::Resampler;
use crate::scope::{Scope, ScopeWriter};
use crate::transport::Beat;

/// Worker thread: writes the log-mels of a stream to a [`Scope`].
pub(crate) struct Sketch {
    scope: ScopeWriter,
    samples_per_frame: f64,
    heard: Track,
    made: Track,
}

impl Sketch {
    pub(crate) fn new(scope: Arc<Scope>, sample_rate_hz: u32) -> Result<Self> {
        let mel = MelConfig::default();
        let resampler = Resampler::new(sample_rate_hz, mel.sample_rate_hz)?;
        let analysis = || Analysis::new(&mel, AnalysisWindow::Symmetric, &resampler);
        Ok(Self {
            scope: ScopeWriter::new(scope),
            samples_per_frame: mel.hop_length as f64 * f64::from(sample_rate_hz)
                / f64::from(mel.sample_rate_hz),
            heard: Track::new(vec![analysis()?, analysis()?], mel.n_mels),
            made: Track::new(vec![analysis()?], mel.n_mels),
        })
    }

    /// Begins a clip.
    pub(crate) fn begin_clip(&mut self) {
        self.scope.begin_clip();
        self.heard.begin_clip();
        self.made.begin_clip();
    }

    /// Takes the clip's next samples of both inputs. `beat` returns the position at a sample of the clip.
    pub(crate) fn hear(&mut self, sources: [[&[f32]; 2]; 2], beat: impl Fn(f64) -> Beat) {
        if let Some((first, mels)) = self
            .heard
            .push(&sources, &self.scope, self.samples_per_frame)
        {
            let frames = first..first + mels[0].frames();
            let beat = |frame| beat(frame as f64 * self.samples_per_frame);
            self.scope.inputs(frames, [&mels[0], &mels[1]], beat);
        }
    }

    /// Takes the clip's next samples of the remix.
    pub(crate) fn make(&mut self, remix: [&[f32]; 2]) {
        if let Some((first, mels)) = self
            .made
            .push(&[remix], &self.scope, self.samples_per_frame)
        {
            self.scope.remix(first, &mels[0]);
        }
    }
}

/// Stereo signals that are drawn together.
struct Track {
    analyses: Vec<Analysis>,
    n_mels: usize,
    /// Number of samples of the clip so far.
    samples: usize,
    /// Number of the next frame in the clip; none while no editor watches.
    next_frame: Option<usize>,
}

impl Track {
    fn new(analyses: Vec<Analysis>, n_mels: usize) -> Self {
        Self {
            analyses,
            n_mels,
            samples: 0,
            next_frame: None,
        }
    }

    fn begin_clip(&mut self) {
        self.samples = 0;
        self.next_frame = None;
    }

    /// Returns the frames that the samples complete, and the number of the first.
    fn push(
        &mut self,
        sounds: &[[&[f32]; 2]],
        scope: &ScopeWriter,
        samples_per_frame: f64,
    ) -> Option<(usize, Vec<LogMel>)> {
        let position = self.samples;
        self.samples += sounds[0][0].len();
        if !scope.is_watched() {
            self.next_frame = None;
            return None;
        }
        let first = self.next_frame.unwrap_or_else(|| {
            self.analyses.iter_mut().for_each(Analysis::reset);
            (position as f64 / samples_per_frame).round() as usize
        });
        let mels = self
            .analyses
            .iter_mut()
            .zip(sounds)
            .map(|(analysis, sound)| {
                let mut frames = LogMel::new(self.n_mels);
                analysis.push(sound, None, &mut frames);
                frames
            });
        let mels: Vec<_> = mels.collect();
        self.next_frame = Some(first + mels[0].frames());
        Some((first, mels))
    }
}
