//! Remixes without a network: by swapping harmonic and percussive parts, by spectral morphing, or by an exchange of spectral
//! envelopes. They are the baselines of the evaluation (Wu, DAFx 2023, table 2), and an option for machines too slow for a
//! network.
//!
//! A *frame* is an analysis window of about 46 ms at the audio's own rate; four of them overlap. With low-delay windows, only
//! the middle of a frame is used for the output, and the median filter along time leans to the past.

mod envelope;
mod timbre;

use std::collections::VecDeque;

use realfft::num_complex::Complex32;

use crate::error::{Error, Result, check_length};
use crate::guided::{FrameControls, share};
use crate::hpss::HpssConfig;
use crate::separated::{SeparatedFrame, Source};
use crate::stft::{FrameTransform, OverlapAdd, magnitude_of};
use crate::window::AnalysisWindow;

use envelope::Envelope;
use timbre::Timbre;

pub use timbre::COLOUR_BANDS;

/// Longest frame.
const FRAME_SECONDS: f64 = 0.0465;
/// Number of overlapping frames. Methods without look-ahead have more with low-delay windows: the shorter the hop, the less they
/// are late.
const OVERLAP: usize = 4;
const LOW_DELAY_OVERLAP: usize = 8;
/// Quefrency of the cut of morphed envelopes. Slower variation over frequency belongs to the envelope, faster variation to the
/// partials of tones above about 500 Hz.
const MORPHING_CUT_SECONDS: f64 = 0.002;
/// Length of the median filters, in frames along time and in bins along frequency.
const MEDIAN_FRAMES: usize = 13;
const MEDIAN_BINS: usize = 31;
/// Look-ahead of the median filter along time with low-delay windows. A filter that leans to the past tells strokes from tones
/// as well as one that does not: a tone has a past, a stroke does not.
const LOW_DELAY_LOOK_AHEAD_FRAMES: usize = 1;

/// How two spectra are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The harmonic part of one source with the percussive part of the other (D. Fitzgerald, "Harmonic/Percussive
    /// Separation Using Median Filtering", DAFx 2010). With both knobs on one source, the output is that source.
    Separation,
    /// Cross-synthesis as in IRCAM's ASAP: the spectrum of the harmony source, with its phases, is multiplied by the
    /// magnitudes of the rhythm source. The product then gets the spectral envelope of the rhythm source.
    Morphing,
    /// Cross-synthesis by spectral envelopes, like a vocoder: the fine structure of one source with the colour, that is the
    /// smooth envelope averaged over two seconds, of another, and level and colour over time of either. The loudness follows the
    /// source of the variation. With all knobs at the main input, the output is that input.
    ///
    /// The envelope is the "true envelope" of Roebel and Rodet (DAFx 2005). Of two colours, levels or deviations, the knobs
    /// between their ends take the geometric mean; of two fine structures the sum, because a product would sound neither note.
    /// Transposition shifts the fine structure (Laroche and Dolson, WASPAA 1999) and leaves the envelope.
    Timbre,
}

/// Decides which colour is played, for [`Method::Timbre`]. A colour has [`COLOUR_BANDS`] values.
pub trait Palette: Send {
    /// Takes the colour of the next frame, unless the source that the knob chooses was not heard yet. Returns the colour to play
    /// in its place, if any.
    fn colour(&mut self, is_frozen: bool, live: Option<&[f32]>) -> Option<&[f32]>;
}

/// A remix without a network, as a stream. The output is the same, bit for bit, however the audio is split into pushes.
/// Output sample `n` is aligned with input sample `n`.
pub struct ClassicRemix {
    grid: Grid,
    transform: FrameTransform,
    sources: [Source; 2],
    synthesis: Synthesis,
    pushed_samples: usize,
}

/// Positions of the frames.
#[derive(Clone, Copy)]
struct Grid {
    n_fft: usize,
    hop_samples: usize,
    /// From the centre of a frame to its end.
    after_centre_samples: usize,
    /// Length of the part of a frame, around its centre, that is used for the output.
    kept_samples: usize,
}

impl Grid {
    fn centre(self, frame: usize) -> usize {
        frame * self.hop_samples + self.hop_samples / 2
    }

    /// First sample of a frame; negative for the first frames.
    fn start(self, frame: usize) -> isize {
        self.end(frame) - self.n_fft as isize
    }

    /// The sample after the last one of a frame.
    fn end(self, frame: usize) -> isize {
        (self.centre(frame) + self.after_centre_samples) as isize
    }

    /// First output sample of a frame; negative for the first frames.
    fn kept_start(self, frame: usize) -> isize {
        self.centre(frame) as isize - (self.kept_samples / 2) as isize
    }
}

/// Converts separated frames to sound.
struct Synthesis {
    grid: Grid,
    mixer: Mixer,
    /// Controls of the frames that were analysed but not played.
    controls: VecDeque<FrameControls>,
    /// Number of frames that were played.
    frames: usize,
    /// The product of analysis and synthesis window in the part of a frame that is used.
    window: Vec<f32>,
    output: OverlapAdd,
}

impl Synthesis {
    fn play(
        &mut self,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
        transform: &mut FrameTransform,
    ) {
        let controls = self.controls.pop_front().unwrap_or_default();
        let start = self.grid.kept_start(self.frames);
        let skipped = (start - self.grid.start(self.frames)) as usize;
        self.frames += 1;
        let n_bins = self.mixer.n_bins;
        let spectra = self.mixer.mix(&controls, main, sidechain);
        self.output.add_window(start, &self.window);
        for (channel, spectrum) in spectra.chunks_exact_mut(n_bins).enumerate() {
            let frame = &transform.inverse(spectrum)[skipped..][..self.window.len()];
            self.output.add(start, channel, frame);
        }
    }
}

impl ClassicRemix {
    /// Creates a remix at its beginning, for sources and an output of 1 or 2 channels. Low-delay windows have a lower latency;
    /// what it costs is small.
    ///
    /// # Errors
    ///
    /// If the rate or the number of channels is out of range.
    pub fn new(
        method: Method,
        window: AnalysisWindow,
        sample_rate_hz: u32,
        channels: usize,
    ) -> Result<Self> {
        if !(8_000..=768_000).contains(&sample_rate_hz) {
            let expected = "8000 to 768000";
            return Err(Error::setting("sample_rate_hz", expected, sample_rate_hz));
        }
        if !(1..=2).contains(&channels) {
            return Err(Error::setting("channels", "1 or 2", channels));
        }
        let longest = (FRAME_SECONDS * f64::from(sample_rate_hz)) as usize;
        let n_fft = 1 << longest.ilog2();
        let n_bins = n_fft / 2 + 1;
        let overlap = match (method, window) {
            (Method::Morphing | Method::Timbre, AnalysisWindow::LowDelay) => LOW_DELAY_OVERLAP,
            _ => OVERLAP,
        };
        let hop_samples = n_fft / overlap;
        let grid = Grid {
            n_fft,
            hop_samples,
            after_centre_samples: window.after_centre_samples(n_fft),
            kept_samples: match window {
                AnalysisWindow::Symmetric => n_fft,
                AnalysisWindow::LowDelay => 2 * hop_samples,
            },
        };
        let (transform, window_product) = FrameTransform::keeping(n_fft, window, grid.kept_samples);
        let hpss = match method {
            Method::Separation => HpssConfig {
                median_frames: MEDIAN_FRAMES,
                look_ahead_frames: match window {
                    AnalysisWindow::Symmetric => None,
                    AnalysisWindow::LowDelay => Some(LOW_DELAY_LOOK_AHEAD_FRAMES),
                },
                median_bins: MEDIAN_BINS,
                ..HpssConfig::default()
            },
            Method::Morphing | Method::Timbre => HpssConfig {
                median_frames: 1,
                median_bins: 1,
                ..HpssConfig::default()
            },
        };
        let mixer = Mixer {
            method,
            n_bins,
            channels,
            mixed: vec![Complex32::default(); channels * n_bins],
            magnitude: vec![0.0; n_bins],
            largest: vec![0.0; n_bins],
            wanted: Envelope::new(n_fft, sample_rate_hz, MORPHING_CUT_SECONDS),
            found: Envelope::new(n_fft, sample_rate_hz, MORPHING_CUT_SECONDS),
            timbre: Timbre::new(sample_rate_hz, n_fft, hop_samples, channels),
        };
        let sources = [
            Source::new(channels, n_bins, &hpss)?,
            Source::new(channels, n_bins, &hpss)?,
        ];
        Ok(Self {
            grid,
            sources,
            synthesis: Synthesis {
                grid,
                mixer,
                controls: VecDeque::new(),
                frames: 0,
                window: window_product,
                output: OverlapAdd::new(channels),
            },
            transform,
            pushed_samples: 0,
        })
    }

    /// Lets `palette` decide which colours are played.
    #[must_use]
    pub fn with_palette(mut self, palette: Box<dyn Palette>) -> Self {
        self.synthesis.mixer.timbre.set_palette(palette);
        self
    }

    /// Distance between frame centres. The first centre is half a hop after the first sample.
    pub fn hop_samples(&self) -> usize {
        self.grid.hop_samples
    }

    /// Number of frames of this clip whose controls were read.
    pub fn frames(&self) -> usize {
        self.sources[0].analysed_frames()
    }

    /// Largest lag of the final output behind the input, in samples.
    pub fn latency_samples(&self) -> usize {
        let look_ahead = self.sources[0].delay_frames();
        self.grid.after_centre_samples
            + self.grid.kept_samples / 2
            + look_ahead * self.grid.hop_samples
    }

    /// Takes the next samples of both sources, one slice per channel, all of the same length. `controls` returns the
    /// controls of a frame. Appends the final samples to `out`, one vector per channel.
    ///
    /// # Errors
    ///
    /// If the number of channels or a length differs; nothing is taken then.
    pub fn push(
        &mut self,
        sources: [&[&[f32]]; 2],
        controls: impl Fn(usize) -> FrameControls,
        out: &mut [Vec<f32>],
    ) -> Result<()> {
        let samples = sources[0].first().map_or(0, |channel| channel.len());
        check_length(
            "channels of the output",
            self.synthesis.mixer.channels,
            out.len(),
        )?;
        for channels in sources {
            check_length(
                "channels of a source",
                self.synthesis.mixer.channels,
                channels.len(),
            )?;
            for channel in channels {
                check_length("samples of a channel", samples, channel.len())?;
            }
        }
        for (source, channels) in self.sources.iter_mut().zip(sources) {
            for (input, samples) in source.input.iter_mut().zip(channels) {
                input.push(samples);
            }
        }
        self.pushed_samples += samples;
        while self.grid.end(self.sources[0].analysed_frames()) <= self.pushed_samples as isize {
            self.analyse_frame(&controls);
        }
        let end = self.grid.kept_start(self.synthesis.frames).max(0) as usize;
        self.synthesis.output.pull(end, out);
        Ok(())
    }

    /// Ends the clip: appends the remaining samples, so that the output is as long as the input, and resets for the
    /// next clip.
    ///
    /// # Errors
    ///
    /// If the number of channels differs.
    pub fn finish(
        &mut self,
        controls: impl Fn(usize) -> FrameControls,
        out: &mut [Vec<f32>],
    ) -> Result<()> {
        check_length(
            "channels of the output",
            self.synthesis.mixer.channels,
            out.len(),
        )?;
        if self.pushed_samples > 0 {
            while self.grid.centre(self.sources[0].analysed_frames()) < self.pushed_samples {
                self.analyse_frame(&controls);
            }
            let [main, sidechain] = &mut self.sources;
            while let (Some(main), Some(sidechain)) = (main.drain(), sidechain.drain()) {
                self.synthesis.play(&main, &sidechain, &mut self.transform);
            }
        }
        self.synthesis.output.pull(self.pushed_samples, out);
        self.reset();
        Ok(())
    }

    /// Resets the stream.
    pub fn reset(&mut self) {
        self.sources.iter_mut().for_each(Source::reset);
        self.synthesis.controls.clear();
        self.synthesis.mixer.timbre.reset();
        self.synthesis.frames = 0;
        self.synthesis.output.reset();
        self.pushed_samples = 0;
    }

    /// Analyses the next frame of both sources, and plays the frame whose separation becomes complete.
    fn analyse_frame(&mut self, controls: impl Fn(usize) -> FrameControls) {
        let frame = self.sources[0].analysed_frames();
        self.synthesis.controls.push_back(controls(frame));
        let start = self.grid.start(frame);
        let [main, sidechain] = &mut self.sources;
        let main = main.analyse(start, &mut self.transform);
        let sidechain = sidechain.analyse(start, &mut self.transform);
        if let (Some(main), Some(sidechain)) = (main, sidechain) {
            self.synthesis.play(&main, &sidechain, &mut self.transform);
        }
        let next_start = self.grid.start(frame + 1);
        for source in &mut self.sources {
            for input in &mut source.input {
                input.discard_before(next_start);
            }
        }
    }
}

/// The spectra of the current frame, and the buffers to compute them.
struct Mixer {
    method: Method,
    n_bins: usize,
    channels: usize,
    /// Channel by channel.
    mixed: Vec<Complex32>,
    magnitude: Vec<f32>,
    /// Limit of the morphed magnitude per bin: the larger of both sources.
    largest: Vec<f32>,
    /// The target envelope of a morphed frame, and its current envelope.
    wanted: Envelope,
    found: Envelope,
    timbre: Timbre,
}

impl Mixer {
    fn mix(
        &mut self,
        controls: &FrameControls,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
    ) -> &mut [Complex32] {
        let (harmony, rhythm) = (share(controls.harmony), share(controls.rhythm));
        match self.method {
            Method::Separation => self.exchange(harmony, rhythm, main, sidechain),
            Method::Morphing => self.morph(harmony, rhythm, main, sidechain),
            Method::Timbre => self.timbre.mix(controls, main, sidechain, &mut self.mixed),
        }
        &mut self.mixed
    }

    fn exchange(
        &mut self,
        harmony: f32,
        rhythm: f32,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
    ) {
        for (i, mixed) in self.mixed.iter_mut().enumerate() {
            let bin = i % self.n_bins;
            let main_gain =
                (1.0 - harmony) * main.harmonic[bin] + (1.0 - rhythm) * main.percussive[bin];
            let sidechain_gain =
                harmony * sidechain.harmonic[bin] + rhythm * sidechain.percussive[bin];
            *mixed = main.spectra[i] * main_gain + sidechain.spectra[i] * sidechain_gain;
        }
    }

    fn morph(
        &mut self,
        harmony: f32,
        rhythm: f32,
        main: &SeparatedFrame,
        sidechain: &SeparatedFrame,
    ) {
        let n_bins = self.n_bins;
        for (channel, mixed) in self.mixed.chunks_exact_mut(n_bins).enumerate() {
            let main = &main.spectra[channel * n_bins..][..n_bins];
            let sidechain = &sidechain.spectra[channel * n_bins..][..n_bins];
            let blend = |bin: usize, knob: f32| main[bin] * (1.0 - knob) + sidechain[bin] * knob;
            for (bin, magnitude) in self.magnitude.iter_mut().enumerate() {
                *magnitude = magnitude_of(&blend(bin, rhythm));
            }
            let wanted = self.wanted.of(&self.magnitude);
            for (bin, mixed) in mixed.iter_mut().enumerate() {
                let tonal = blend(bin, harmony);
                self.largest[bin] = magnitude_of(&tonal).max(self.magnitude[bin]);
                *mixed = tonal * self.magnitude[bin];
                self.magnitude[bin] = magnitude_of(mixed);
            }
            let found = self.found.of(&self.magnitude);
            for (bin, mixed) in mixed.iter_mut().enumerate() {
                // Between isolated partials both envelopes are almost zero, and their ratio is meaningless.
                let most = self.largest[bin] / self.magnitude[bin].max(f32::MIN_POSITIVE);
                *mixed *= (wanted[bin] / found[bin]).min(most);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: u32 = 44_100;
    const WINDOWS: [AnalysisWindow; 2] = [AnalysisWindow::Symmetric, AnalysisWindow::LowDelay];

    fn noise(seed: u32, samples: usize) -> Vec<f32> {
        let noise = test_signals::noise(seed, samples);
        noise.into_iter().map(|sample| 0.2 * sample).collect()
    }

    fn tone(hz: f32, samples: usize) -> Vec<f32> {
        let sample = |n: usize| (std::f32::consts::TAU * hz * n as f32 / RATE_HZ as f32).sin();
        (0..samples).map(|n| 0.3 * sample(n)).collect()
    }

    fn clicks(every: usize, samples: usize) -> Vec<f32> {
        let click = |n: usize| if n % every == every / 2 { 0.9 } else { 0.0 };
        (0..samples).map(click).collect()
    }

    fn remix(
        (method, window): (Method, AnalysisWindow),
        a: &[f32],
        b: &[f32],
        knobs: [f32; 2],
        cut: usize,
    ) -> Vec<f32> {
        let mut remix = ClassicRemix::new(method, window, RATE_HZ, 1).unwrap();
        let mut out = [Vec::new()];
        let controls = |_: usize| FrameControls {
            harmony: knobs[0],
            rhythm: knobs[1],
            timbre: knobs[0],
            pitch: knobs[1],
            variation: knobs[1],
            ..FrameControls::default()
        };
        for (a, b) in a.chunks(cut).zip(b.chunks(cut)) {
            let before = out[0].len();
            remix.push([&[a], &[b]], controls, &mut out).unwrap();
            assert!(out[0].len() >= before);
        }
        assert!(out[0].len() + remix.latency_samples() >= a.len());
        remix.finish(controls, &mut out).unwrap();
        let [out] = out;
        assert_eq!(out.len(), a.len());
        out
    }

    fn all() -> impl Iterator<Item = (Method, AnalysisWindow)> {
        let methods = [Method::Separation, Method::Morphing, Method::Timbre];
        methods
            .into_iter()
            .flat_map(|method| WINDOWS.map(|window| (method, window)))
    }

    fn energy(samples: &[f32]) -> f32 {
        samples.iter().map(|x| x * x).sum()
    }

    #[test]
    fn the_output_does_not_depend_on_the_cuts() {
        let (a, b) = (noise(1, 20_000), noise(2, 20_000));
        for (method, window) in all() {
            let whole = remix((method, window), &a, &b, [0.2, 0.9], 20_000);
            for cut in [1, 64, 777] {
                assert!(
                    remix((method, window), &a, &b, [0.2, 0.9], cut) == whole,
                    "{method:?}, {window:?}, {cut}"
                );
            }
        }
    }

    #[test]
    fn low_delay_windows_are_less_than_half_as_late_and_the_lag_is_the_stated_one() {
        for method in [Method::Separation, Method::Morphing, Method::Timbre] {
            let [long, short] = WINDOWS.map(|window| {
                let mut remix = ClassicRemix::new(method, window, RATE_HZ, 1).unwrap();
                let mut out = [Vec::new()];
                let mut most_behind = 0;
                for pushed in 1..20_000 {
                    let none = |_: usize| FrameControls::default();
                    remix.push([&[&[0.1]], &[&[0.1]]], none, &mut out).unwrap();
                    most_behind = most_behind.max(pushed - out[0].len());
                }
                // The newest sample itself is not late.
                assert_eq!(most_behind + 1, remix.latency_samples());
                remix.latency_samples()
            });
            assert!(2 * short < long, "{method:?}: {short} {long}");
        }
    }

    #[test]
    fn separation_and_timbre_with_all_knobs_on_one_source_are_that_source() {
        for (method, window) in all().filter(|(method, _)| *method != Method::Morphing) {
            let (a, b) = (noise(1, 20_000), clicks(4000, 20_000));
            for (knob, source) in [(0.0, &a), (1.0, &b)] {
                let out = remix((method, window), &a, &b, [knob, knob], 512);
                let error: Vec<f32> = out.iter().zip(source).map(|(x, y)| x - y).collect();
                assert!(
                    energy(&error) < 1e-9 * energy(source),
                    "{method:?}, {knob}: {}",
                    energy(&error)
                );
            }
        }
    }

    #[test]
    fn separation_keeps_the_tone_of_one_and_the_clicks_of_the_other() {
        for window in WINDOWS {
            let (a, b) = (tone(440.0, 40_000), clicks(8000, 40_000));
            let sources = energy(&a) + energy(&b);
            let kept = energy(&remix(
                (Method::Separation, window),
                &a,
                &b,
                [0.0, 1.0],
                512,
            ));
            let swapped = energy(&remix(
                (Method::Separation, window),
                &a,
                &b,
                [1.0, 0.0],
                512,
            ));
            assert!(kept > 0.9 * sources, "{kept} of {sources}");
            assert!(swapped < 0.03 * sources, "{swapped} of {sources}");
        }
    }

    #[test]
    fn morphing_sounds_the_tone_where_the_other_sounds() {
        for window in WINDOWS {
            let samples = 60_000;
            let a = tone(440.0, samples);
            // Noise in the second half only.
            let mut b = noise(3, samples);
            b[..samples / 2].fill(0.0);
            let out = remix((Method::Morphing, window), &a, &b, [0.0, 1.0], 512);
            let (silent, loud) = (&out[4000..samples / 2 - 4000], &out[samples / 2 + 4000..]);
            assert!(energy(silent) < 1e-4 * energy(loud));
            let partial = |hz: f32| {
                let turn = |n: usize| std::f32::consts::TAU * hz * n as f32 / RATE_HZ as f32;
                let pairs = || loud.iter().enumerate();
                let re: f32 = pairs().map(|(n, x)| x * turn(n).cos()).sum();
                let im: f32 = pairs().map(|(n, x)| x * turn(n).sin()).sum();
                re.hypot(im)
            };
            assert!(partial(440.0) > 20.0 * partial(700.0));
        }
    }

    #[test]
    fn morphed_tones_are_not_much_louder_than_both_together() {
        for window in WINDOWS {
            let (a, b) = (tone(440.0, 40_000), tone(1234.5, 40_000));
            let out = remix((Method::Morphing, window), &a, &b, [0.0, 1.0], 512);
            let peak = out.iter().fold(0.0, |peak: f32, x| peak.max(x.abs()));
            assert!(peak < 1.2, "{peak}");
        }
    }

    #[test]
    fn silence_and_extremes_do_no_harm() {
        for (method, window) in all() {
            for [a, b] in [[0.0, 0.0], [1e6, 1e-30], [0.0, 1.0], [f32::NAN, 1.0]] {
                let out = remix((method, window), &[a; 9000], &[b; 9000], [0.0, 1.0], 512);
                assert!(out.iter().all(|x| x.is_finite()), "{method:?}, {a}, {b}");
            }
        }
    }
}
