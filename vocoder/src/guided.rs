//! The guided voice: filters the sound of the sources so that its mel matches the decoded mel.
//!
//! Both sources are split into a harmonic and a percussive part ([`crate::hpss`]). The parts are mixed as set by the
//! two knobs, and the mixture is weighted in time and frequency so that its mel spectrogram matches the one that the
//! model decoded. The phases of the sources are kept. The voice works at any sample rate, in mono or stereo. Its frames
//! are aligned in time with the model's mel frames, its masks and gains are common to both channels, and the gain above
//! the model's highest band is that of this band.
//!
//! The levels of the sources make no difference to what is heard of them: running gains bring both to the same level
//! before they are mixed. The output then gets the loudness that the mixture would have without these gains.
//!
//! Shapes: a frame has `n_bins` bins of the host-rate transform; spectra are kept per source and channel.

mod assignment;
mod bands;
mod grid;
pub(crate) mod levels;
pub(crate) mod mixer;
mod shaped;
pub(crate) mod shift;
mod strokes;

use std::collections::VecDeque;

use crate::error::{Error, Result, check_length};
use crate::hpss::HpssConfig;
use crate::mel::{LogMel, MelConfig};
use crate::separated::{SeparatedFrame, Source};
use crate::spectrum::Spectrum;
use crate::stft::{FrameTransform, OverlapAdd};
use crate::window::AnalysisWindow;

use grid::FrameGrid;
use mixer::{DecodedFrame, Mixer};
pub use shaped::{SHAPED_GAIN_LIMIT, ShapedControls, ShapedVoice};
use strokes::Strokes;

/// Added to a mel before the division by it, to avoid amplifying near silence.
const MEL_OFFSET: f32 = 1e-4;

/// Settings of a [`GuidedVoice`].
#[derive(Clone, Debug, PartialEq)]
pub struct GuidedConfig {
    /// Sample rate of the audio, in and out.
    pub sample_rate_hz: u32,
    /// Channels of both sources and of the output: 1 or 2.
    pub channels: usize,
    /// The mel spectrogram that the model decodes.
    pub mel: MelConfig,
    /// Length of the separation's median filter along time, in mel frames; odd.
    pub median_frames: usize,
    /// How many of its frames follow the one that is played, at most half of them; half of them without this.
    pub look_ahead_frames: Option<usize>,
    /// Length of the separation's median filter along frequency, in bins; odd.
    pub median_bins: usize,
    /// Factor by which a bin's harmonic estimate must exceed the percussive one to count as harmonic (Driedger et al.,
    /// 2014).
    pub margin_harmonic: f32,
    /// Factor by which a bin's percussive estimate must exceed the harmonic one to count as percussive. The residual,
    /// which is neither, plays to the extent that both knobs select the same input.
    pub margin_percussive: f32,
    /// Largest gain of a mel band, as a factor.
    pub gain_limit: f32,
    /// Length of the synthesis window in hops, at least 2. With as many hops as the analysis window has, both windows
    /// are equal; the latency includes half of the synthesis window.
    pub synthesis_hops: usize,
    /// Window of the analysis. One that is not symmetric must reach at least half a synthesis window beyond the centre.
    pub window: AnalysisWindow,
}

impl GuidedConfig {
    /// The default settings for this mel spectrogram, and audio of this rate and number of channels.
    pub fn new(mel: MelConfig, sample_rate_hz: u32, channels: usize) -> Self {
        Self {
            sample_rate_hz,
            channels,
            mel,
            median_frames: 11,
            look_ahead_frames: None,
            median_bins: 31,
            margin_harmonic: 6.0,
            margin_percussive: 2.0,
            gain_limit: 6.0,
            synthesis_hops: 4,
            window: AnalysisWindow::Symmetric,
        }
    }

    fn validate(&self) -> Result<()> {
        self.mel.validate()?;
        if !(8_000..=768_000).contains(&self.sample_rate_hz) {
            let expected = "8000 to 768000";
            return Err(Error::setting(
                "sample_rate_hz",
                expected,
                self.sample_rate_hz,
            ));
        }
        if !(1..=2).contains(&self.channels) {
            return Err(Error::setting("channels", "1 or 2", self.channels));
        }
        if self.mel.n_fft < 2 * self.mel.hop_length {
            let expected = format!("at most half of n_fft = {}", self.mel.n_fft);
            return Err(Error::setting("hop_length", expected, self.mel.hop_length));
        }
        let most_hops = match self.window {
            AnalysisWindow::Symmetric => self.mel.n_fft / self.mel.hop_length,
            window => window.most_kept_samples(self.mel.n_fft) / self.mel.hop_length,
        };
        if !(2..=most_hops).contains(&self.synthesis_hops) {
            return Err(Error::setting(
                "synthesis_hops",
                format!("2 to {most_hops}"),
                self.synthesis_hops,
            ));
        }
        if !(0.0..=1e6).contains(&self.gain_limit) {
            return Err(Error::setting("gain_limit", "0 to 1e6", self.gain_limit));
        }
        Ok(())
    }
}

/// The controls of one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FrameControls {
    /// Source of the harmony: 0 is the main input, 1 the sidechain.
    pub harmony: f32,
    /// Source of the rhythm: 0 is the main input, 1 the sidechain.
    pub rhythm: f32,
    /// Source of the colour for [`Method::Timbre`](crate::classic::Method::Timbre): 0 is the main input, 1 the sidechain. Like
    /// the next two, of no effect on other methods and voices.
    pub timbre: f32,
    /// Source of the fine structure.
    pub pitch: f32,
    /// Source of level and colour over time.
    pub variation: f32,
    /// Whether a factor is frozen, so that the decoded mel, or the colour, has what the sources may not have.
    pub is_frozen: bool,
    /// Pitch shift of all parts except the percussive one, in semitones. The decoded mel must be transposed already.
    pub transpose_semitones: i32,
}

/// The guided voice as a stream; finish the stream to process a whole clip. The output is the same, bit for bit,
/// however audio and mel frames are split into pushes.
///
/// Push the sources as they arrive and decoded mel frames as the model returns them; [`pull`](Self::pull) returns the
/// final samples. Output sample `n` is aligned with input sample `n`.
pub struct GuidedVoice {
    config: GuidedConfig,
    grid: FrameGrid,
    main: Source,
    sidechain: Source,
    transform: FrameTransform,
    synthesis: Synthesis,
    strokes: Strokes,
    pushed_samples: usize,
    output_gains: Vec<f32>,
}

/// The second half of the voice: converts separated frames to sound.
struct Synthesis {
    mixer: Mixer,
    /// Decoded frames that were not played yet.
    pending: VecDeque<DecodedFrame>,
    /// The latest frame taken from `pending`.
    current: Option<DecodedFrame>,
    frames: usize,
    /// The product of analysis and synthesis window, in its non-zero range: the middle of a frame.
    window: Vec<f32>,
    output: OverlapAdd,
    /// The gains of the frames, overlapped like the output.
    gains: OverlapAdd,
    gain_frame: Vec<f32>,
}

impl Synthesis {
    /// Plays the next frame, with the next decoded frame, or with the last one if there is none.
    fn add_frame(
        &mut self,
        grid: &FrameGrid,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
        transform: &mut FrameTransform,
    ) {
        let start = grid.start(self.frames);
        let hop_samples = match self.frames {
            0 => 0,
            frame => grid.centre(frame) - grid.centre(frame - 1),
        };
        self.frames += 1;
        if let Some(next) = self.pending.pop_front() {
            self.current = Some(next);
        }
        let Some(decoded) = &self.current else { return };
        let spectra = self.mixer.mix(decoded, main, sidechain, hop_samples);
        let n_bins = spectra.len() / self.output.channels();
        let skipped = grid.skipped_samples();
        let start = start + skipped as isize;
        self.output.add_window(start, &self.window);
        for (channel, spectrum) in spectra.chunks_exact_mut(n_bins).enumerate() {
            let frame = &transform.inverse(spectrum)[skipped..][..self.window.len()];
            self.output.add(start, channel, frame);
        }
        let gain = self.mixer.passed_gain();
        let weighted = self.window.iter().map(|weight| gain * weight);
        self.gain_frame.clear();
        self.gain_frame.extend(weighted);
        self.gains.add_window(start, &self.window);
        self.gains.add(start, 0, &self.gain_frame);
    }

    fn pull(&mut self, end: usize, out: &mut [Vec<f32>], gains: &mut Vec<f32>) {
        self.output.pull(end, out);
        gains.clear();
        self.gains.pull(end, std::slice::from_mut(gains));
    }
}

impl GuidedVoice {
    /// Creates a voice at the beginning of a clip.
    ///
    /// # Errors
    ///
    /// If a setting is out of range; the error names it.
    pub fn new(config: &GuidedConfig) -> Result<Self> {
        config.validate()?;
        let grid = FrameGrid::new(config);
        let n_bins = grid.n_fft / 2 + 1;
        let hpss = HpssConfig {
            median_frames: config.median_frames,
            look_ahead_frames: config.look_ahead_frames,
            median_bins: config.median_bins,
            margin_harmonic: config.margin_harmonic,
            margin_percussive: config.margin_percussive,
        };
        let source = || Source::new(config.channels, n_bins, &hpss).map(Source::with_steady_shares);
        let (transform, window) =
            FrameTransform::keeping(grid.n_fft, config.window, grid.kept_samples);
        Ok(Self {
            main: source()?,
            sidechain: source()?,
            synthesis: Synthesis {
                mixer: Mixer::new(config, grid.n_fft),
                pending: VecDeque::new(),
                current: None,
                frames: 0,
                window,
                output: OverlapAdd::new(config.channels),
                gains: OverlapAdd::new(1),
                gain_frame: Vec::new(),
            },
            strokes: Strokes::new(config, &grid)?,
            transform,
            grid,
            pushed_samples: 0,
            output_gains: Vec::new(),
            config: config.clone(),
        })
    }

    /// Keeps the spectra of its frames, for [`take_spectra`](Self::take_spectra).
    #[must_use]
    pub fn with_spectra(mut self) -> Self {
        self.synthesis.mixer.keep_spectra();
        self
    }

    /// The spectra of the frames that were played since the last call, one for each decoded frame in order, and at the
    /// end of a clip one for each frame of audio after them: the mean of all channels, matched to the decoded mel. A
    /// frame is played when its mel and its audio are there, with the look-ahead. Empty unless the voice was made
    /// [`with_spectra`](Self::with_spectra).
    pub fn take_spectra(&mut self) -> Vec<Spectrum> {
        self.synthesis.mixer.take_spectra()
    }

    /// Look-ahead of the separation, in mel frames after the one being played.
    pub fn look_ahead_frames(&self) -> usize {
        let half = self.config.median_frames / 2;
        self.config.look_ahead_frames.unwrap_or(half)
    }

    /// Latency of this voice alone, if decoded mel frames were available at once: the largest lag of the final output
    /// behind the input, in samples. It is the analysis window from its centre on, half the synthesis window, and the
    /// look-ahead.
    pub fn latency_samples(&self) -> usize {
        self.grid.after_centre_samples + self.grid.kept_samples / 2 - 1
            + self.grid.hops_in_samples(self.look_ahead_frames())
    }

    /// Distance from the first output sample of a frame to the frame's centre.
    pub fn synthesis_reach_samples(&self) -> usize {
        self.grid.kept_samples / 2
    }

    /// How many input samples must be pushed before the first `output_samples` samples are final.
    pub fn samples_needed(&self, output_samples: usize) -> usize {
        let last_frame = self.frames_needed(output_samples).checked_sub(1);
        last_frame.map_or(0, |frame| self.grid.end(frame + self.look_ahead_frames()))
    }

    /// How many mel frames must be pushed before the first `output_samples` samples are final.
    pub fn frames_needed(&self, output_samples: usize) -> usize {
        let last_sample = output_samples.checked_sub(1);
        last_sample.map_or(0, |sample| self.grid.last_frame_at(sample) + 1)
    }

    /// Takes the next samples of both sources, one slice per channel, all of the same length.
    ///
    /// # Errors
    ///
    /// If the number of channels or a length differs; nothing is taken then.
    pub fn push_audio(&mut self, main: &[&[f32]], sidechain: &[&[f32]]) -> Result<()> {
        let samples = check_sources(self.config.channels, main, sidechain)?;
        for (source, channels) in [(&mut self.main, main), (&mut self.sidechain, sidechain)] {
            for (input, samples) in source.input.iter_mut().zip(channels) {
                input.push(samples);
            }
        }
        self.pushed_samples += samples;
        self.advance();
        Ok(())
    }

    /// Takes the next decoded mel frames, with the controls of each.
    ///
    /// # Errors
    ///
    /// If the number of mel bands or a length differs; nothing is taken then.
    pub fn push_mel(&mut self, decoded: &LogMel, controls: &[FrameControls]) -> Result<()> {
        check_length("mel bands", self.config.mel.n_mels, decoded.n_mels())?;
        check_length("frames of controls", decoded.frames(), controls.len())?;
        for (frame, controls) in controls.iter().enumerate() {
            self.synthesis.pending.push_back(DecodedFrame {
                log_mel: decoded.frame(frame).to_vec(),
                controls: FrameControls {
                    harmony: share(controls.harmony),
                    rhythm: share(controls.rhythm),
                    ..*controls
                },
            });
        }
        self.advance();
        Ok(())
    }

    /// Appends all new final samples to `out`, one vector per channel.
    ///
    /// # Errors
    ///
    /// If the number of channels differs.
    pub fn pull(&mut self, out: &mut [Vec<f32>]) -> Result<()> {
        check_length("channels of the output", self.config.channels, out.len())?;
        let end = self.grid.kept_start(self.synthesis.frames).max(0) as usize;
        self.pull_before(end, out);
        Ok(())
    }

    fn pull_before(&mut self, end: usize, out: &mut [Vec<f32>]) {
        self.synthesis.pull(end, out, &mut self.output_gains);
        self.strokes.pull_onto(end, out);
    }

    /// The gain from the level of the decoded mel to that of the output, for each sample of the last
    /// [`pull`](Self::pull) or [`finish`](Self::finish). If spectra are [kept](Self::with_spectra), it is
    /// the gain for a voice that starts from them: it matches the mel without a limit for the gain of a band, so it needs
    /// a lower gain to be as loud.
    pub fn output_gains(&self) -> &[f32] {
        &self.output_gains
    }

    /// Ends the clip: appends the remaining samples, so that the output is as long as the input, and resets for the
    /// next clip.
    ///
    /// Audio after the last mel frame uses that frame; without any mel frame, the rest is silent.
    ///
    /// # Errors
    ///
    /// If the number of channels differs.
    pub fn finish(&mut self, out: &mut [Vec<f32>]) -> Result<()> {
        check_length("channels of the output", self.config.channels, out.len())?;
        if self.synthesis.current.is_some() || !self.synthesis.pending.is_empty() {
            while self.grid.centre(self.main.analysed_frames()) < self.pushed_samples {
                self.analyse_frame();
            }
            // One more, as strokes also have a frame between the last centre and the next.
            let mel_frames = self.main.analysed_frames() + 1;
            while let (Some(main), Some(sidechain)) = (self.main.drain(), self.sidechain.drain()) {
                self.synthesis
                    .add_frame(&self.grid, &main, &sidechain, &mut self.transform);
                self.strokes.set_gains(self.synthesis.mixer.stroke_gains());
                self.strokes
                    .drain(&self.grid, &self.main, &self.sidechain, mel_frames);
                let loudness = self.strokes.loudness();
                self.synthesis.mixer.add_played_strokes(loudness);
            }
            self.strokes
                .drain(&self.grid, &self.main, &self.sidechain, mel_frames);
        }
        let end = self.pushed_samples;
        self.pull_before(end, out);
        self.restart();
        Ok(())
    }

    /// Resets to sample 0 and frame 0.
    pub fn reset(&mut self) {
        self.restart();
        self.take_spectra();
    }

    /// [`Self::reset`], without what can still be taken.
    fn restart(&mut self) {
        self.main.reset();
        self.sidechain.reset();
        self.synthesis.pending.clear();
        self.synthesis.current = None;
        self.synthesis.frames = 0;
        self.synthesis.mixer.reset();
        self.synthesis.output.reset();
        self.synthesis.gains.reset();
        self.strokes.reset();
        self.pushed_samples = 0;
    }

    /// Plays all frames whose audio and mel are available. Audio waits as samples, not as spectra, until its mel frames
    /// arrive.
    fn advance(&mut self) {
        while !self.synthesis.pending.is_empty()
            && self.grid.end(self.main.analysed_frames()) <= self.pushed_samples
        {
            self.analyse_frame();
        }
    }

    /// Analyses the next frame of both sources, and plays the frame whose separation becomes complete.
    fn analyse_frame(&mut self) {
        let frame = self.main.analysed_frames();
        let start = self.grid.start(frame);
        let main = self.main.analyse(start, &mut self.transform);
        let sidechain = self.sidechain.analyse(start, &mut self.transform);
        if let (Some(main), Some(sidechain)) = (main, sidechain) {
            self.synthesis
                .add_frame(&self.grid, &main, &sidechain, &mut self.transform);
            self.strokes.set_gains(self.synthesis.mixer.stroke_gains());
        }
        self.strokes
            .advance(&self.grid, &self.main, &self.sidechain);
        let loudness = self.strokes.loudness();
        self.synthesis.mixer.add_played_strokes(loudness);
        // Frames at the end of the clip mirror samples from as far back as two frames before the last.
        let needed = self.grid.start(frame.saturating_sub(1));
        for source in [&mut self.main, &mut self.sidechain] {
            for input in &mut source.input {
                input.discard_before(needed);
            }
        }
    }
}

/// The number of new samples of both sources, one slice per channel.
///
/// # Errors
///
/// If the number of channels or a length differs.
fn check_sources(channels: usize, main: &[&[f32]], sidechain: &[&[f32]]) -> Result<usize> {
    let samples = main.first().map_or(0, |channel| channel.len());
    for (what, source) in [
        ("channels of the main source", main),
        ("channels of the sidechain", sidechain),
    ] {
        check_length(what, channels, source.len())?;
        for channel in source {
            check_length("samples of a channel", samples, channel.len())?;
        }
    }
    Ok(samples)
}

/// Clamps a knob's value to a share; NaN counts as 0, the main input.
#[must_use]
pub fn share(knob: f32) -> f32 {
    if knob.is_nan() {
        0.0
    } else {
        knob.clamp(0.0, 1.0)
    }
}
