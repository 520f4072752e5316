//! The percussive part in short windows.
//!
//! The windows of the model are 93 ms long. A mask that changes from one to the next spreads a stroke over all of its
//! window. So strokes are separated once more, in windows of half this length, two per mel frame. Short windows tell times
//! apart, but tones less well from strokes, and long ones the reverse. So the short mask is multiplied by the root of the long
//! one.
//!
//! One short frame lies at the centre of each mel frame, and one between it and the mel frame before. Short frames end no
//! later than long ones, so they add no latency.

use realfft::num_complex::Complex32;

use super::GuidedConfig;
use super::grid::FrameGrid;
use super::levels::{loudness, loudness_weights};
use crate::error::Result;
use crate::hpss::HpssConfig;
use crate::separated::{SeparatedFrame, Separation, Source};
use crate::stft::{FrameTransform, OverlapAdd};
use crate::vectorized;
use crate::window::AnalysisWindow;

/// Short frames per mel frame.
const FRAMES_PER_HOP: usize = 2;
/// Two masks leave less of a stroke than one. With this factor, rhythm is as clear as with one.
const STROKE_GAIN: f32 = 1.25;

/// What the bins of short frames are multiplied by, for each source, in addition to the short masks.
#[derive(Clone)]
pub(super) struct StrokeGains {
    main: Vec<f32>,
    sidechain: Vec<f32>,
    /// Whether all are 0.
    silent: bool,
}

impl StrokeGains {
    /// Gains for short frames of half of `n_fft` samples.
    pub(super) fn new(n_fft: usize) -> Self {
        let n_bins = short_bins(n_fft);
        Self {
            main: vec![0.0; n_bins],
            sidechain: vec![0.0; n_bins],
            silent: true,
        }
    }

    /// No strokes are played in short windows.
    pub(super) fn silence(&mut self) {
        self.main.fill(0.0);
        self.sidechain.fill(0.0);
        self.silent = true;
    }

    /// Sets the gains from the percussive mask of the long frame and the gain of each source, and from a gain for each long
    /// bin.
    pub(super) fn set(&mut self, sources: [(&[f32], f32); 2], gain: impl Fn(usize) -> f32) {
        self.silent = false;
        let gains = [&mut self.main, &mut self.sidechain];
        for (gains, (mask, source_gain)) in gains.into_iter().zip(sources) {
            let last = mask.len() - 1;
            for (index, value) in gains.iter_mut().enumerate() {
                // Every short bin is at the frequency of every second long one, and twice as wide.
                let bin = FRAMES_PER_HOP * index;
                let (below, above) = (bin.abs_diff(1), last - (last - bin).abs_diff(1));
                let share = 0.5 * mask[bin] + 0.25 * (mask[below] + mask[above]);
                *value = STROKE_GAIN * source_gain * share.sqrt() * gain(bin);
            }
        }
    }

    /// The mean of two frames.
    fn set_between(&mut self, a: &Self, b: &Self) {
        for (gains, (a, b)) in [
            (&mut self.main, (&a.main, &b.main)),
            (&mut self.sidechain, (&a.sidechain, &b.sidechain)),
        ] {
            for (gain, (a, b)) in gains.iter_mut().zip(a.iter().zip(b)) {
                *gain = 0.5 * (a + b);
            }
        }
        self.silent = a.silent && b.silent;
    }
}

fn short_bins(n_fft: usize) -> usize {
    n_fft / FRAMES_PER_HOP / 2 + 1
}

/// Separates and plays the strokes of both sources.
pub(super) struct Strokes {
    main: Separation,
    sidechain: Separation,
    transform: FrameTransform,
    analysed_frames: usize,
    synthesis: Synthesis,
}

/// The second half: converts separated frames to sound.
struct Synthesis {
    /// The product of analysis and synthesis window, in its non-zero range: the middle of a frame.
    window: Vec<f32>,
    /// Gains of the latest mel frame, and of the one before.
    gains: [StrokeGains; 2],
    between: StrokeGains,
    frames: usize,
    /// Loudness weights of the bins, on the scale of the long frames.
    loudness_weights: Vec<f32>,
    /// Loudness of the frames played for the latest mel frame.
    loudness: f64,
    /// Channel by channel.
    spectra: Vec<Complex32>,
    output: OverlapAdd,
}

impl Strokes {
    /// # Errors
    ///
    /// If a setting of the separation is out of range; the error names it.
    pub(super) fn new(config: &GuidedConfig, grid: &FrameGrid) -> Result<Self> {
        let n_fft = grid.n_fft / FRAMES_PER_HOP;
        let n_bins = short_bins(grid.n_fft);
        // The median filters reach as far as those for long windows.
        let hpss = HpssConfig {
            median_frames: FRAMES_PER_HOP * (config.median_frames / 2) * 2 + 1,
            look_ahead_frames: config.look_ahead_frames.map(|n| FRAMES_PER_HOP * n),
            median_bins: (config.median_bins / FRAMES_PER_HOP + 1) | 1,
            margin_harmonic: config.margin_harmonic,
            margin_percussive: config.margin_percussive,
        };
        let separation = || Separation::new(config.channels, n_bins, &hpss);
        // A frame of half the length has a quarter of the energy.
        let scale = (FRAMES_PER_HOP * FRAMES_PER_HOP) as f32 / FRAMES_PER_HOP as f32;
        let loudness_weights = loudness_weights(f64::from(config.sample_rate_hz), n_fft)
            .map(|weight| scale * weight)
            .collect();
        let (transform, window) =
            FrameTransform::keeping(n_fft, AnalysisWindow::Symmetric, grid.kept_stroke_samples);
        Ok(Self {
            main: separation()?,
            sidechain: separation()?,
            transform,
            analysed_frames: 0,
            synthesis: Synthesis {
                window,
                gains: [(); 2].map(|()| StrokeGains::new(grid.n_fft)),
                between: StrokeGains::new(grid.n_fft),
                frames: 0,
                loudness_weights,
                loudness: 0.0,
                spectra: vec![Complex32::default(); config.channels * n_bins],
                output: OverlapAdd::new(config.channels),
            },
        })
    }

    pub(super) fn reset(&mut self) {
        self.main.reset();
        self.sidechain.reset();
        self.analysed_frames = 0;
        self.synthesis.frames = 0;
        self.synthesis.loudness = 0.0;
        self.synthesis.output.reset();
    }

    /// Takes the gains of the next mel frame, whose short frames are played next.
    pub(super) fn set_gains(&mut self, gains: &StrokeGains) {
        let [latest, before] = &mut self.synthesis.gains;
        std::mem::swap(latest, before);
        latest.clone_from(gains);
        if self.synthesis.frames == 0 {
            before.clone_from(gains);
        }
        self.synthesis.loudness = 0.0;
    }

    /// Loudness of the short frames that were played for the latest mel frame.
    pub(super) fn loudness(&self) -> f64 {
        self.synthesis.loudness
    }

    /// Analyses the short frames of the next mel frame of both sources, and plays those whose separation becomes
    /// complete: the short frames of the mel frame whose separation becomes complete.
    pub(super) fn advance(&mut self, grid: &FrameGrid, main: &Source, sidechain: &Source) {
        for _ in 0..FRAMES_PER_HOP {
            self.analyse(grid, main, sidechain);
        }
    }

    /// Plays the short frames of one more mel frame, after the audio ended. At most the short frames of `mel_frames`
    /// are analysed.
    pub(super) fn drain(
        &mut self,
        grid: &FrameGrid,
        main: &Source,
        sidechain: &Source,
        mel_frames: usize,
    ) {
        let played = self.synthesis.frames + FRAMES_PER_HOP;
        while self.synthesis.frames < played {
            if self.analysed_frames < FRAMES_PER_HOP * mel_frames {
                self.analyse(grid, main, sidechain);
            } else if let (Some(main), Some(sidechain)) =
                (self.main.drain(), self.sidechain.drain())
            {
                self.synthesis
                    .add_frame(grid, &main, &sidechain, &mut self.transform);
            } else {
                break;
            }
        }
    }

    fn analyse(&mut self, grid: &FrameGrid, main: &Source, sidechain: &Source) {
        let start = grid.stroke_start(self.analysed_frames);
        self.analysed_frames += 1;
        let main = self.main.analyse(&main.input, start, &mut self.transform);
        let sidechain = self
            .sidechain
            .analyse(&sidechain.input, start, &mut self.transform);
        if let (Some(main), Some(sidechain)) = (main, sidechain) {
            self.synthesis
                .add_frame(grid, &main, &sidechain, &mut self.transform);
        }
    }

    /// Adds the samples before number `end` to the last ones of `out`.
    pub(super) fn pull_onto(&mut self, end: usize, out: &mut [Vec<f32>]) {
        self.synthesis.output.pull_onto(end, out);
    }
}

impl Synthesis {
    fn add_frame(
        &mut self,
        grid: &FrameGrid,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
        transform: &mut FrameTransform,
    ) {
        let skipped = (transform.window().len() - self.window.len()) / 2;
        let start = grid.stroke_start(self.frames) + skipped as isize;
        let [latest, before] = &self.gains;
        let gains = match self.frames.is_multiple_of(FRAMES_PER_HOP) {
            true => {
                self.between.set_between(before, latest);
                &self.between
            }
            false => latest,
        };
        self.frames += 1;
        self.output.add_window(start, &self.window);
        if gains.silent {
            return;
        }
        let n_bins = gains.main.len();
        let sources = main
            .spectra
            .chunks_exact(n_bins)
            .zip(sidechain.spectra.chunks_exact(n_bins));
        let spectra = self.spectra.chunks_exact_mut(n_bins);
        for (channel, (spectrum, (mains, sidechains))) in spectra.zip(sources).enumerate() {
            let masks = main.percussive.iter().zip(sidechain.percussive);
            let gains = gains.main.iter().zip(&gains.sidechain);
            let bins = mains.iter().zip(sidechains).zip(masks).zip(gains);
            vectorized!({
                for (bin, (((main, sidechain), masks), gains)) in spectrum.iter_mut().zip(bins) {
                    *bin = main * (gains.0 * masks.0) + sidechain * (gains.1 * masks.1);
                }
            });
            self.loudness += loudness(spectrum, &self.loudness_weights);
            let frame = &transform.inverse(spectrum)[skipped..][..self.window.len()];
            self.output.add(start, channel, frame);
        }
    }
}
