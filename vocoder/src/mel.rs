//! Log-mel spectrograms of whole clips and streams, equal bit for bit.

use std::ops::Range;

use realfft::num_complex::Complex64;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::stft::{FrameTransform, SampleBuffer};
use crate::window::AnalysisWindow;

/// Lower limit of the mel magnitudes before the logarithm.
pub const MEL_FLOOR: f32 = 1e-5;

/// Settings of a mel spectrogram; the default is that of HARD (see the [crate's documentation](crate)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelConfig {
    /// Sample rate of the analysed audio.
    pub sample_rate_hz: u32,
    /// Length of the analysis window and of the Fourier transform, in samples.
    pub n_fft: usize,
    /// Distance between frames, in samples.
    pub hop_length: usize,
    /// Number of mel bands.
    pub n_mels: usize,
    /// Lower edge of the lowest band.
    pub f_min_hz: f32,
    /// Upper edge of the highest band.
    pub f_max_hz: f32,
}

impl Default for MelConfig {
    fn default() -> Self {
        Self {
            sample_rate_hz: 22_050,
            n_fft: 2048,
            hop_length: 512,
            n_mels: 128,
            f_min_hz: 0.0,
            f_max_hz: 11_025.0,
        }
    }
}

impl MelConfig {
    /// Checks that the settings are valid and consistent.
    ///
    /// # Errors
    ///
    /// If a setting is out of range; the error names the first one.
    pub fn validate(&self) -> Result<()> {
        if !(1_000..=768_000).contains(&self.sample_rate_hz) {
            return Err(Error::setting(
                "sample_rate_hz",
                "1000 to 768000",
                self.sample_rate_hz,
            ));
        }
        if !(16..=65_536).contains(&self.n_fft) || !self.n_fft.is_multiple_of(2) {
            let expected = "an even number from 16 to 65536";
            return Err(Error::setting("n_fft", expected, self.n_fft));
        }
        if !(1..=self.n_fft).contains(&self.hop_length) || !self.hop_length.is_multiple_of(2) {
            let expected = format!("an even number up to n_fft = {}", self.n_fft);
            return Err(Error::setting("hop_length", expected, self.hop_length));
        }
        if !(1..=4096).contains(&self.n_mels) {
            return Err(Error::setting("n_mels", "1 to 4096", self.n_mels));
        }
        let nyquist_hz = self.sample_rate_hz as f32 / 2.0;
        if !(self.f_max_hz > 0.0 && self.f_max_hz <= nyquist_hz) {
            let expected = format!("above 0, up to half the sample rate, {nyquist_hz}");
            return Err(Error::setting("f_max_hz", expected, self.f_max_hz));
        }
        if !(self.f_min_hz >= 0.0 && self.f_min_hz < self.f_max_hz) {
            let expected = format!("0 or more, below f_max_hz = {}", self.f_max_hz);
            return Err(Error::setting("f_min_hz", expected, self.f_min_hz));
        }
        Ok(())
    }

    /// Time between frames.
    pub fn hop_seconds(&self) -> f64 {
        self.hop_length as f64 / f64::from(self.sample_rate_hz)
    }

    /// Bins of the Fourier transform, from 0 Hz to the Nyquist frequency.
    pub fn n_bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Samples of reflection at both ends of a clip.
    pub fn padding_samples(&self) -> usize {
        (self.n_fft - self.hop_length) / 2
    }

    /// From the first sample of a frame's hop to the end of its window, in samples. The hop is centred on the centre of the
    /// frame, whatever the window.
    pub fn analysis_samples(&self, window: AnalysisWindow) -> usize {
        self.hop_length / 2 + window.after_centre_samples(self.n_fft)
    }

    /// Frames of a clip of `samples` samples.
    pub fn frames(&self, samples: usize) -> usize {
        samples / self.hop_length
    }

    /// Centre of a band, in hertz. Fractional bands are interpolated on Slaney's scale.
    #[must_use]
    pub fn band_centre_hz(&self, band: f64) -> f64 {
        let (lowest, step) = self.band_grid_mels();
        mel_to_hz(lowest + band * step)
    }

    /// The fractional band whose centre is at `hz`; below 0 or above `n_mels - 1` outside the outermost centres.
    #[must_use]
    pub fn band_at_hz(&self, hz: f64) -> f64 {
        let (lowest, step) = self.band_grid_mels();
        (hz_to_mel(hz) - lowest) / step
    }

    /// Centre of the lowest band and distance between centres, in Slaney mels.
    fn band_grid_mels(&self) -> (f64, f64) {
        let (low, high) = (
            hz_to_mel(self.f_min_hz.into()),
            hz_to_mel(self.f_max_hz.into()),
        );
        let step = (high - low) / (self.n_mels + 1) as f64;
        (low + step, step)
    }
}

/// A log-mel spectrogram: frames of `n_mels` values, stored frame by frame.
#[derive(Clone, Debug, PartialEq)]
pub struct LogMel {
    n_mels: usize,
    values: Vec<f32>,
}

impl LogMel {
    /// Removes the first frames and returns them.
    ///
    /// # Panics
    ///
    /// If there are fewer than `frames`.
    pub fn take_first(&mut self, frames: usize) -> Self {
        Self {
            n_mels: self.n_mels,
            values: self.values.drain(..frames * self.n_mels).collect(),
        }
    }

    /// A spectrogram without frames.
    pub fn new(n_mels: usize) -> Self {
        Self {
            n_mels,
            values: Vec::new(),
        }
    }

    /// Creates a spectrogram from `values[frame * n_mels + mel]`.
    ///
    /// # Errors
    ///
    /// If the values do not fill whole frames.
    pub fn from_values(n_mels: usize, values: Vec<f32>) -> Result<Self> {
        if n_mels == 0 || !values.len().is_multiple_of(n_mels) {
            let expected = format!("a whole number of frames of {n_mels} values");
            let found = format!("{} values", values.len());
            return Err(Error::setting("log-mel spectrogram", expected, found));
        }
        Ok(Self { n_mels, values })
    }

    /// Values per frame.
    pub fn n_mels(&self) -> usize {
        self.n_mels
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.values.len().checked_div(self.n_mels).unwrap_or(0)
    }

    /// The `n_mels` values of one frame.
    ///
    /// # Panics
    ///
    /// If there is no such frame.
    pub fn frame(&self, index: usize) -> &[f32] {
        &self.values[index * self.n_mels..][..self.n_mels]
    }

    /// All values, `values[frame * n_mels + mel]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Appends one frame.
    ///
    /// # Panics
    ///
    /// If `frame` does not hold `n_mels` values.
    pub fn push_frame(&mut self, frame: &[f32]) {
        assert_eq!(frame.len(), self.n_mels, "values of a log-mel frame");
        self.values.extend_from_slice(frame);
    }

    /// Appends all frames of `other`.
    ///
    /// # Panics
    ///
    /// If `other` has a different number of mel bands.
    pub fn extend(&mut self, other: &LogMel) {
        assert_eq!(other.n_mels, self.n_mels, "mel bands");
        self.values.extend_from_slice(&other.values);
    }
}

/// Triangular filters on Slaney's mel scale with Slaney's area norm, as in `librosa.filters.mel`.
///
/// M. Slaney, "Auditory Toolbox", Interval Research Technical Report 1998-010.
#[derive(Clone, Debug)]
pub struct MelFilterBank {
    n_bins: usize,
    filters: Vec<Filter>,
}

/// One triangle: weights of consecutive bins.
#[derive(Clone, Debug)]
struct Filter {
    first_bin: usize,
    weights: Vec<f32>,
}

impl MelFilterBank {
    /// Creates the filters for `config`.
    ///
    /// # Errors
    ///
    /// If `config` is not [valid](MelConfig::validate).
    pub fn new(config: &MelConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self::for_analysis(
            config,
            f64::from(config.sample_rate_hz),
            config.n_fft,
        ))
    }

    /// The bands of `config` on the bins of another analysis: `n_fft` samples at `sample_rate_hz`.
    pub(crate) fn for_analysis(config: &MelConfig, sample_rate_hz: f64, n_fft: usize) -> Self {
        let n_bins = n_fft / 2 + 1;
        let bin_hz = sample_rate_hz / n_fft as f64;
        let mel_min = hz_to_mel(f64::from(config.f_min_hz));
        let mel_max = hz_to_mel(f64::from(config.f_max_hz));
        let edges_hz: Vec<f64> = (0..config.n_mels + 2)
            .map(|i| i as f64 / (config.n_mels + 1) as f64)
            .map(|position| mel_to_hz(mel_min + (mel_max - mel_min) * position))
            .collect();
        let filters = edges_hz
            .windows(3)
            .map(|edge_hz| Filter::triangle([edge_hz[0], edge_hz[1], edge_hz[2]], bin_hz, n_bins))
            .collect();
        Self { n_bins, filters }
    }

    /// Number of mel bands.
    pub fn n_mels(&self) -> usize {
        self.filters.len()
    }

    /// Number of bins of the Fourier transform.
    pub fn n_bins(&self) -> usize {
        self.n_bins
    }

    /// Sums the weighted magnitudes (`n_bins` values) of every band into `mel` (`n_mels` values).
    ///
    /// # Panics
    ///
    /// If a slice has the wrong length.
    pub fn apply(&self, magnitude: &[f32], mel: &mut [f32]) {
        assert_eq!(magnitude.len(), self.n_bins, "magnitude bins");
        assert_eq!(mel.len(), self.filters.len(), "mel bands");
        for (value, (bins, weights)) in mel.iter_mut().zip(self.bands()) {
            *value = magnitude[bins]
                .iter()
                .zip(weights)
                .map(|(magnitude, weight)| magnitude * weight)
                .sum();
        }
    }

    /// The transpose of [`Self::apply`]: adds the weighted values of all bands (`n_mels` values) to their bins
    /// (`n_bins` values).
    pub(crate) fn apply_transposed(&self, mel: &[f32], bins: &mut [f32]) {
        bins.fill(0.0);
        for (value, (range, weights)) in mel.iter().zip(self.bands()) {
            for (bin, weight) in bins[range].iter_mut().zip(weights) {
                *bin += value * weight;
            }
        }
    }

    /// The bins of every band and their weights.
    pub(crate) fn bands(&self) -> impl Iterator<Item = (Range<usize>, &[f32])> {
        self.filters.iter().map(|filter| {
            let bins = filter.first_bin..filter.first_bin + filter.weights.len();
            (bins, filter.weights.as_slice())
        })
    }
}

impl Filter {
    fn triangle([low_hz, peak_hz, high_hz]: [f64; 3], bin_hz: f64, n_bins: usize) -> Self {
        let area_norm = 2.0 / (high_hz - low_hz);
        let weight = |bin: usize| {
            let hz = bin as f64 * bin_hz;
            let rising = (hz - low_hz) / (peak_hz - low_hz);
            let falling = (high_hz - hz) / (high_hz - peak_hz);
            (rising.min(falling).max(0.0) * area_norm) as f32
        };
        let first_bin = (0..n_bins).find(|&bin| weight(bin) > 0.0).unwrap_or(0);
        let weights = (first_bin..n_bins)
            .map(weight)
            .take_while(|&weight| weight > 0.0)
            .collect();
        Self { first_bin, weights }
    }
}

/// Slaney's scale: linear up to 1 kHz, then logarithmic.
const LINEAR_HZ_PER_MEL: f64 = 200.0 / 3.0;
const LOG_START_HZ: f64 = 1000.0;
const LOG_START_MEL: f64 = LOG_START_HZ / LINEAR_HZ_PER_MEL;

/// Natural logarithm of the frequency ratio of one mel above [`LOG_START_HZ`].
fn log_step() -> f64 {
    6.4f64.ln() / 27.0
}

fn hz_to_mel(hz: f64) -> f64 {
    if hz < LOG_START_HZ {
        hz / LINEAR_HZ_PER_MEL
    } else {
        LOG_START_MEL + (hz / LOG_START_HZ).ln() / log_step()
    }
}

fn mel_to_hz(mel: f64) -> f64 {
    if mel < LOG_START_MEL {
        mel * LINEAR_HZ_PER_MEL
    } else {
        LOG_START_HZ * ((mel - LOG_START_MEL) * log_step()).exp()
    }
}

/// Log-mel spectrograms of whole clips.
///
/// Samples that are not finite or above 1e6 count as silence, so the values are always finite.
pub struct MelSpectrogram {
    stream: MelStream,
}

impl MelSpectrogram {
    /// Prepares transform and filters, with a Hann window.
    ///
    /// # Errors
    ///
    /// If `config` is not [valid](MelConfig::validate).
    pub fn new(config: &MelConfig) -> Result<Self> {
        Self::with_window(config, AnalysisWindow::Symmetric)
    }

    /// The same, with another analysis window.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_window(config: &MelConfig, window: AnalysisWindow) -> Result<Self> {
        Ok(Self {
            stream: MelStream::with_window(config, window)?,
        })
    }

    /// The [`MelConfig::frames`] frames of a whole clip, mono at the configured rate.
    ///
    /// Clips shorter than the padding are reflected repeatedly, as in `numpy.pad`.
    pub fn log_mel(&mut self, samples: &[f32]) -> LogMel {
        let mut mel = LogMel::new(self.stream.config.n_mels);
        self.stream.push(samples, &mut mel);
        self.stream.finish(&mut mel);
        mel
    }
}

/// Log-mel spectrogram of a stream that is pushed in pieces of any size.
///
/// Returns the values of [`MelSpectrogram::log_mel`], bit for bit. A frame is returned as soon as its last sample was
/// pushed: frame `i` after `i * hop_length` samples and the [`MelConfig::analysis_samples`] of its window.
pub struct MelStream {
    config: MelConfig,
    analysis_samples: usize,
    filter_bank: MelFilterBank,
    /// In `f64`: in `f32`, rounding errors of loud bins would affect quiet bands.
    transform: FrameTransform<f64>,
    input: SampleBuffer,
    next_frame: usize,
    spectrum: Vec<Complex64>,
    magnitude: Vec<f32>,
    mel: Vec<f32>,
}

impl MelStream {
    /// Creates a stream at its beginning.
    ///
    /// # Errors
    ///
    /// If `config` is not [valid](MelConfig::validate).
    pub fn new(config: &MelConfig) -> Result<Self> {
        Self::with_window(config, AnalysisWindow::Symmetric)
    }

    /// The same, with another analysis window.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_window(config: &MelConfig, window: AnalysisWindow) -> Result<Self> {
        let filter_bank = MelFilterBank::new(config)?;
        Ok(Self {
            analysis_samples: config.analysis_samples(window),
            transform: FrameTransform::with_window(config.n_fft, window),
            input: SampleBuffer::default(),
            next_frame: 0,
            spectrum: vec![Complex64::default(); config.n_bins()],
            magnitude: vec![0.0; config.n_bins()],
            mel: vec![0.0; config.n_mels],
            filter_bank,
            config: config.clone(),
        })
    }

    /// Takes mono samples at the configured rate and appends the completed frames to `out`.
    ///
    /// # Panics
    ///
    /// If `out` has a different number of mel bands.
    pub fn push(&mut self, samples: &[f32], out: &mut LogMel) {
        self.input.push(samples);
        while self.frame_end(self.next_frame) <= self.input.end() {
            self.append_frame(out);
        }
        self.input.discard_before(self.frame_start(self.next_frame));
    }

    /// Ends the clip: appends the frames that reach into the reflection at its end, and resets for the next clip.
    ///
    /// # Panics
    ///
    /// If `out` has a different number of mel bands.
    pub fn finish(&mut self, out: &mut LogMel) {
        while self.next_frame < self.config.frames(self.input.end()) {
            self.append_frame(out);
        }
        self.reset();
    }

    /// Resets the stream.
    pub fn reset(&mut self) {
        self.input.clear();
        self.next_frame = 0;
    }

    /// Number of the first sample of a frame; negative in the padding.
    fn frame_start(&self, frame: usize) -> isize {
        self.frame_end(frame) as isize - self.config.n_fft as isize
    }

    /// Number of samples after which a frame is complete.
    fn frame_end(&self, frame: usize) -> usize {
        frame * self.config.hop_length + self.analysis_samples
    }

    fn append_frame(&mut self, out: &mut LogMel) {
        let start = self.frame_start(self.next_frame);
        self.transform
            .forward_at(&self.input, start, &mut self.spectrum);
        for (magnitude, bin) in self.magnitude.iter_mut().zip(&self.spectrum) {
            *magnitude = bin.norm_sqr().sqrt() as f32;
        }
        self.filter_bank.apply(&self.magnitude, &mut self.mel);
        for value in &mut self.mel {
            *value = value.max(MEL_FLOOR).ln();
        }
        out.push_frame(&self.mel);
        self.next_frame += 1;
    }
}
