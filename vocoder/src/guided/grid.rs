//! Frames on the host's time axis.

use super::GuidedConfig;

/// Positions of the model's mel frames on the host's time axis.
///
/// If a hop is not a whole number of samples, it alternates between the two nearest ones, so frames never drift.
#[derive(Clone, Debug)]
pub(super) struct FrameGrid {
    sample_rate_hz: u64,
    mel_rate_hz: u64,
    hop_length: u64,
    /// Length of analysis window and transform.
    pub(super) n_fft: usize,
    /// From the centre of a frame to its end.
    pub(super) after_centre_samples: usize,
    /// Length of the part of a frame, around its centre, that is used for the output.
    pub(super) kept_samples: usize,
    /// The same for strokes, which have frames of half this length, two per hop. No longer than that their output is
    /// final when that of the long frames is.
    pub(super) kept_stroke_samples: usize,
}

impl FrameGrid {
    pub(super) fn new(config: &GuidedConfig) -> Self {
        let (rate, mel_rate) = (config.sample_rate_hz, config.mel.sample_rate_hz);
        let duration = |samples: usize| samples as f64 * f64::from(rate) / f64::from(mel_rate);
        let n_fft = fft_length_near(duration(config.mel.n_fft));
        let synthesis = config.synthesis_hops * config.mel.hop_length;
        let kept_samples = if synthesis < config.mel.n_fft {
            (duration(synthesis) / 2.0).round() as usize * 2
        } else {
            n_fft
        };
        let half_hop = (duration(config.mel.hop_length) / 2.0).ceil() as usize;
        let kept_stroke_samples = match kept_samples == n_fft {
            true => n_fft / 2,
            false => 2 * (kept_samples / 4).min(kept_samples / 2 - half_hop),
        };
        Self {
            sample_rate_hz: u64::from(rate),
            mel_rate_hz: u64::from(mel_rate),
            hop_length: config.mel.hop_length as u64,
            n_fft,
            after_centre_samples: config.window.after_centre_samples(n_fft),
            kept_samples,
            kept_stroke_samples,
        }
    }

    /// The sample nearest to the centre of mel frame `frame`, at `(frame + 1/2) * hop_length` model samples.
    pub(super) fn centre(&self, frame: usize) -> usize {
        self.stroke_centre(2 * frame + 1)
    }

    /// The sample nearest to the centre of short frame `frame`, at `frame / 2 * hop_length` model samples. Odd ones are at
    /// the centres of mel frames.
    fn stroke_centre(&self, frame: usize) -> usize {
        let model_half_samples = frame as u64 * self.hop_length;
        let numerator = model_half_samples * self.sample_rate_hz + self.mel_rate_hz;
        (numerator / (2 * self.mel_rate_hz)) as usize
    }

    /// First sample of a frame; negative for the first frames.
    pub(super) fn start(&self, frame: usize) -> isize {
        self.end(frame) as isize - self.n_fft as isize
    }

    /// First sample of a short frame; negative for the first frames.
    pub(super) fn stroke_start(&self, frame: usize) -> isize {
        self.stroke_centre(frame) as isize - (self.n_fft / 4) as isize
    }

    /// First output sample of a frame; negative for the first frames.
    pub(super) fn kept_start(&self, frame: usize) -> isize {
        self.centre(frame) as isize - (self.kept_samples / 2) as isize
    }

    /// Distance from the first sample of a frame to its first output sample.
    pub(super) fn skipped_samples(&self) -> usize {
        self.n_fft - self.after_centre_samples - self.kept_samples / 2
    }

    /// Number of samples after which a frame is complete.
    pub(super) fn end(&self, frame: usize) -> usize {
        self.centre(frame) + self.after_centre_samples
    }

    /// Length of `frames` hops in samples, rounded up.
    pub(super) fn hops_in_samples(&self, frames: usize) -> usize {
        let numerator = frames as u64 * self.hop_length * self.sample_rate_hz;
        numerator.div_ceil(self.mel_rate_hz) as usize
    }

    /// The last frame that contributes to output sample `sample`.
    pub(super) fn last_frame_at(&self, sample: usize) -> usize {
        let half_hops = 2 * (sample + self.kept_samples / 2) as u64 * self.mel_rate_hz
            / (self.hop_length * self.sample_rate_hz);
        let about = (half_hops / 2) as usize;
        let reaches = |frame: &usize| self.kept_start(*frame) <= sample as isize;
        (about.saturating_sub(1)..=about + 1)
            .rev()
            .find(reaches)
            .unwrap_or(0)
    }
}

/// The length nearest to `target` that is a multiple of 4 with no prime factor above 5, which makes the transform fast.
fn fft_length_near(target: f64) -> usize {
    let smooth = |length: &usize| {
        let mut rest = *length;
        for factor in [2, 3, 5] {
            while rest.is_multiple_of(factor) {
                rest /= factor;
            }
        }
        rest == 1
    };
    let distance = |length: &usize| (*length as f64 - target).abs();
    (4..2 * target as usize + 8)
        .step_by(4)
        .filter(smooth)
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
        .unwrap_or(4)
}
