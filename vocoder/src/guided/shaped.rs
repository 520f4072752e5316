//! A guided voice for the factors timbre, pitch and variation: the sound of one source, whole, shaped to the decoded mel.
//!
//! The fine structure of a spectrum, its partials with their phases, is that of the source that the pitch chooses. Each mel band
//! gets the gain that brings it to the decoded mel. Nothing is separated, so nothing waits for a median filter. A gain cannot make
//! partials that the source does not have: a flute does not become as rich as a violin.
//!
//! The loudness of the output follows the source of the variation.

use std::collections::VecDeque;

use realfft::num_complex::Complex32;

use super::bands::{BandToBin, Bands};
use super::grid::FrameGrid;
use super::levels::ShapedLevels;
use super::shift::PitchShift;
use super::{GuidedConfig, MEL_OFFSET, check_sources, share};
use crate::error::{Result, check_length};
use crate::mel::{LogMel, MelFilterBank};
use crate::spectrum::multiply;
use crate::stft::{FrameTransform, OverlapAdd, SampleBuffer};
use crate::vectorized;

/// Largest gain of a mel band, as a factor: 30 dB. Instruments differ by more than the parts that the other guided voice filters.
/// With 6 (16 dB), conversions were further from the truth; with 60, they were hardly nearer than with 20.
pub const SHAPED_GAIN_LIMIT: f32 = 31.6;

/// The controls of one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShapedControls {
    /// Source of the fine structure: 0 is the main input, 1 the sidechain, anything between a mix.
    pub pitch: f32,
    /// Source of the loudness: 0 is the main input, 1 the sidechain.
    pub variation: f32,
    /// Pitch shift in semitones. The decoded mel must be transposed already.
    pub transpose_semitones: i32,
}

/// A decoded frame and its controls.
struct DecodedFrame {
    log_mel: Vec<f32>,
    controls: ShapedControls,
}

/// The voice as a stream; finish the stream to process a whole clip. The output is the same, bit for bit, however audio and mel
/// frames are split into pushes.
///
/// Push the sources as they arrive and decoded mel frames as the model returns them; [`pull`](Self::pull) returns the final
/// samples. Output sample `n` is aligned with input sample `n`.
pub struct ShapedVoice {
    channels: usize,
    grid: FrameGrid,
    sources: [Vec<SampleBuffer>; 2],
    pushed_samples: usize,
    transform: FrameTransform,
    mixer: Mixer,
    /// Decoded frames that were not played yet.
    pending: VecDeque<DecodedFrame>,
    /// The latest frame taken from `pending`.
    current: Option<DecodedFrame>,
    frames: usize,
    /// The product of analysis and synthesis window, in its non-zero range: the middle of a frame.
    window: Vec<f32>,
    output: OverlapAdd,
}

impl ShapedVoice {
    /// Creates a voice at the beginning of a clip. It does not use the settings of the separation.
    ///
    /// # Errors
    ///
    /// If a setting is out of range; the error names it.
    pub fn new(config: &GuidedConfig) -> Result<Self> {
        config.validate()?;
        let grid = FrameGrid::new(config);
        let (transform, window) =
            FrameTransform::keeping(grid.n_fft, config.window, grid.kept_samples);
        let source = || {
            let channels = 0..config.channels;
            channels.map(|_| SampleBuffer::default()).collect()
        };
        Ok(Self {
            channels: config.channels,
            sources: [source(), source()],
            pushed_samples: 0,
            transform,
            mixer: Mixer::new(config, grid.n_fft),
            pending: VecDeque::new(),
            current: None,
            frames: 0,
            window,
            output: OverlapAdd::new(config.channels),
            grid,
        })
    }

    /// Latency of this voice alone, if decoded mel frames were available at once: the largest lag of the final output behind the
    /// input, in samples. It is the analysis window from its centre on, and half the synthesis window.
    pub fn latency_samples(&self) -> usize {
        self.grid.after_centre_samples + self.grid.kept_samples / 2 - 1
    }

    /// Distance from the first output sample of a frame to the frame's centre.
    pub fn synthesis_reach_samples(&self) -> usize {
        self.grid.kept_samples / 2
    }

    /// Takes the next samples of both sources, one slice per channel, all of the same length.
    ///
    /// # Errors
    ///
    /// If the number of channels or a length differs; nothing is taken then.
    pub fn push_audio(&mut self, main: &[&[f32]], sidechain: &[&[f32]]) -> Result<()> {
        self.pushed_samples += check_sources(self.channels, main, sidechain)?;
        for (source, channels) in self.sources.iter_mut().zip([main, sidechain]) {
            for (input, samples) in source.iter_mut().zip(channels) {
                input.push(samples);
            }
        }
        self.advance();
        Ok(())
    }

    /// Takes the next decoded mel frames, with the controls of each.
    ///
    /// # Errors
    ///
    /// If the number of mel bands or a length differs; nothing is taken then.
    pub fn push_mel(&mut self, decoded: &LogMel, controls: &[ShapedControls]) -> Result<()> {
        check_length("mel bands", self.mixer.n_mels(), decoded.n_mels())?;
        check_length("frames of controls", decoded.frames(), controls.len())?;
        for (frame, controls) in controls.iter().enumerate() {
            self.pending.push_back(DecodedFrame {
                log_mel: decoded.frame(frame).to_vec(),
                controls: ShapedControls {
                    pitch: share(controls.pitch),
                    variation: share(controls.variation),
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
        check_length("channels of the output", self.channels, out.len())?;
        let end = self.grid.kept_start(self.frames).max(0) as usize;
        self.output.pull(end, out);
        Ok(())
    }

    /// Ends the clip: appends the remaining samples, so that the output is as long as the input, and resets for the next clip.
    ///
    /// Audio after the last mel frame uses that frame; without any mel frame, the rest is silent.
    ///
    /// # Errors
    ///
    /// If the number of channels differs.
    pub fn finish(&mut self, out: &mut [Vec<f32>]) -> Result<()> {
        check_length("channels of the output", self.channels, out.len())?;
        if self.current.is_some() || !self.pending.is_empty() {
            while self.grid.centre(self.frames) < self.pushed_samples {
                self.add_frame();
            }
        }
        self.output.pull(self.pushed_samples, out);
        self.reset();
        Ok(())
    }

    /// Resets to sample 0 and frame 0.
    pub fn reset(&mut self) {
        self.sources
            .iter_mut()
            .flatten()
            .for_each(SampleBuffer::clear);
        self.pushed_samples = 0;
        self.mixer.reset();
        self.pending.clear();
        self.current = None;
        self.frames = 0;
        self.output.reset();
    }

    /// Plays all frames whose audio and mel are available.
    fn advance(&mut self) {
        while !self.pending.is_empty() && self.grid.end(self.frames) <= self.pushed_samples {
            self.add_frame();
        }
    }

    /// Plays the next frame, with the next decoded frame, or with the last one if there is none.
    fn add_frame(&mut self) {
        let frame = self.frames;
        let hop_samples = match frame {
            0 => 0,
            frame => self.grid.centre(frame) - self.grid.centre(frame - 1),
        };
        self.frames += 1;
        if let Some(next) = self.pending.pop_front() {
            self.current = Some(next);
        }
        let Some(decoded) = &self.current else { return };
        let start = self.grid.start(frame);
        let n_bins = self.mixer.bin_gains.len();
        for (source, spectra) in self.sources.iter().zip(&mut self.mixer.sources) {
            for (input, spectrum) in source.iter().zip(spectra.chunks_exact_mut(n_bins)) {
                self.transform.forward_at(input, start, spectrum);
            }
        }
        let mixture = self.mixer.mix(decoded, hop_samples);
        let skipped = self.grid.skipped_samples();
        let start = start + skipped as isize;
        self.output.add_window(start, &self.window);
        for (channel, spectrum) in mixture.chunks_exact_mut(n_bins).enumerate() {
            let samples = &self.transform.inverse(spectrum)[skipped..][..self.window.len()];
            self.output.add(start, channel, samples);
        }
        // Frames at the end of the clip mirror samples from as far back as two frames before the last.
        let needed = self.grid.start(frame.saturating_sub(1));
        for input in self.sources.iter_mut().flatten() {
            input.discard_before(needed);
        }
    }
}

/// Spectra and gains of the current frame.
struct Mixer {
    bands: Bands,
    band_to_bin: BandToBin,
    gain_limit: f32,
    levels: ShapedLevels,
    shift: PitchShift,
    /// Main input and sidechain, channel by channel.
    sources: [Vec<Complex32>; 2],
    /// Channel by channel.
    mixture: Vec<Complex32>,
    /// With a neighbour for the top band.
    band_gains: Vec<f32>,
    bin_gains: Vec<f32>,
}

impl Mixer {
    fn new(config: &GuidedConfig, n_fft: usize) -> Self {
        let sample_rate_hz = f64::from(config.sample_rate_hz);
        let filter_bank = MelFilterBank::for_analysis(&config.mel, sample_rate_hz, n_fft);
        let n_bins = filter_bank.n_bins();
        let spectra = || vec![Complex32::default(); config.channels * n_bins];
        Self {
            band_to_bin: BandToBin::new(&filter_bank),
            gain_limit: config.gain_limit,
            levels: ShapedLevels::new(
                sample_rate_hz,
                n_fft,
                config.mel.hop_seconds(),
                config.channels,
            ),
            shift: PitchShift::new(n_fft, config.channels),
            sources: [spectra(), spectra()],
            mixture: spectra(),
            band_gains: vec![0.0; config.mel.n_mels + 1],
            bin_gains: vec![0.0; n_bins],
            bands: Bands::new(filter_bank, config.mel.n_fft as f32 / n_fft as f32),
        }
    }

    fn n_mels(&self) -> usize {
        self.band_gains.len() - 1
    }

    fn reset(&mut self) {
        self.levels.reset();
        self.shift.reset();
    }

    /// Computes the spectra of the output frame from those of the sources, channel by channel. The frame before began
    /// `hop_samples` earlier.
    fn mix(&mut self, decoded: &DecodedFrame, hop_samples: usize) -> &mut [Complex32] {
        let ShapedControls {
            pitch,
            variation,
            transpose_semitones,
        } = decoded.controls;
        let [main, sidechain] = &self.sources;
        let gains = self.levels.next_frame([main, sidechain], variation);
        let (main_gain, sidechain_gain) = ((1.0 - pitch) * gains.main, pitch * gains.sidechain);
        vectorized!({
            let bins = main.iter().zip(sidechain);
            for (mixture, (main, sidechain)) in self.mixture.iter_mut().zip(bins) {
                *mixture = main * main_gain + sidechain * sidechain_gain;
            }
        });
        match transpose_semitones {
            0 => self.shift.reset(),
            semitones => {
                let shifted = self.shift.shift(&self.mixture, semitones, hop_samples);
                self.mixture.copy_from_slice(shifted);
            }
        }
        self.set_gains(&decoded.log_mel);
        multiply(&mut self.mixture, &self.bin_gains);
        let gain = self.levels.output_gain(&self.mixture);
        vectorized!(for bin in &mut self.mixture {
            *bin *= gain;
        });
        &mut self.mixture
    }

    fn set_gains(&mut self, log_mel: &[f32]) {
        let n_mels = log_mel.len();
        self.bands.of(&self.mixture, &mut self.band_gains[..n_mels]);
        for (gain, log_mel) in self.band_gains.iter_mut().zip(log_mel) {
            *gain = (log_mel.exp() / (*gain + MEL_OFFSET))
                .max(0.0)
                .min(self.gain_limit);
        }
        self.band_gains[n_mels] = self.band_gains[n_mels - 1];
        self.band_to_bin
            .spread(&self.band_gains, &mut self.bin_gains);
    }
}
