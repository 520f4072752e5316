//! Blends the guided voice with the generated voice, as set by the knob Voice.
//!
//! ```text
//! guided -> crossover -> low middle, low side, high
//! decoded mel -> generator -> resampler -> generated
//!
//! out = (cos(v) low middle + sin(v) gain generated) / sqrt(1 + 2 r cos(v) sin(v)) + low side + (1 - v + v air) high
//! ```
//!
//! The template of the generated voice has the phases of the inputs, as the guided voice has, so both voices correlate, and
//! their sum is louder than that of independent sounds. `r` is their mean correlation, [`VOICES_CORRELATION`].
//!
//! The generator returns one channel, from the mel of the mono sum, and nothing above the model's highest frequency. It
//! replaces the low band of the mid channel. The stereo image and the frequencies above come from the guided voice. The
//! gain is that with which the guided voice sets the loudness of its output. The template of a generator starts from the
//! spectra of the guided voice, frame by frame.

use std::collections::VecDeque;
use std::f32::consts::FRAC_PI_2;

use vocoder::generated::GeneratedVoice;
use vocoder::generator::Generator;
use vocoder::guided::share;
use vocoder::magnitudes::MagnitudeNetwork;
use vocoder::{LogMel, MelConfig, Spectrum};

use crate::controls::Controls;
use crate::crossover::Crossover;
use crate::error::Result;
use crate::resample::Resampler;

/// Warm-up: frames that the generator gets before the first audible frame after it was inaudible, in addition to its
/// lag.
const WARM_UP_FRAMES: usize = 8;

/// Correlation of the two voices: without it, halfway between them a remix is on average 2.0 LU louder than with either, over
/// 24 pairs of excerpts.
const VOICES_CORRELATION: f32 = 0.6;

/// Both voices in steps, for one or two channels.
pub(crate) struct Blend {
    generated: GeneratedMiddle,
    crossovers: Vec<Crossover>,
    /// Host samples per frame.
    hop_samples: f64,
    /// Decoded frames that wait for the spectra of the guided voice, in the pieces in which they came, as rounding depends
    /// on them. Each with whether the generated voice is heard.
    waiting: VecDeque<(LogMel, bool)>,
    /// Spectra of the first of them.
    spectra: Vec<Spectrum>,
    /// The band of each channel that waits for the generator.
    low: Vec<Vec<f32>>,
    high: Vec<Vec<f32>>,
    /// Samples that wait for the guided voice.
    middle: Vec<f32>,
    /// Gain of the generated voice at the samples that wait.
    gains: Vec<f32>,
    /// The knobs at the end of each unfinished frame, starting with frame `first_frame - 1`.
    shares: VecDeque<Shares>,
    first_frame: usize,
    blended_samples: usize,
}

/// The blend at one point in time.
#[derive(Clone, Copy, Default)]
struct Shares {
    voice: f32,
    air: f32,
}

impl Blend {
    /// Creates a blend for this many channels at `host_hz`.
    ///
    /// # Errors
    ///
    /// If the rate is 0.
    pub(crate) fn new(
        generator: &Generator,
        magnitudes: Option<&MagnitudeNetwork>,
        mel: &MelConfig,
        host_hz: u32,
        channels: usize,
    ) -> Result<Self> {
        let crossovers = (0..channels).map(|_| Crossover::new(host_hz, mel.sample_rate_hz));
        let mut blend = Self {
            generated: GeneratedMiddle::new(generator, magnitudes, mel, host_hz)?,
            crossovers: crossovers.collect::<Result<_>>()?,
            hop_samples: mel.hop_length as f64 * f64::from(host_hz) / f64::from(mel.sample_rate_hz),
            waiting: VecDeque::new(),
            spectra: Vec::new(),
            low: vec![Vec::new(); channels],
            high: vec![Vec::new(); channels],
            middle: Vec::new(),
            gains: Vec::new(),
            shares: VecDeque::new(),
            first_frame: 0,
            blended_samples: 0,
        };
        blend.reset();
        Ok(blend)
    }

    /// Largest lag of the blended samples behind the guided voice, in samples at the host's rate and at the model's
    /// rate.
    pub(crate) fn crossover_latency_samples(&self) -> (usize, usize) {
        self.crossovers[0].latency_samples()
    }

    /// Largest lag of the blended samples behind the decoded frames, in samples at the model's rate.
    pub(crate) fn generator_latency_samples(&self) -> usize {
        self.generated.voice.look_ahead_samples() + self.generated.resampler.latency_samples()
    }

    /// Takes the next decoded frames of the mono sum, with the knobs at each frame.
    pub(crate) fn push_mel(&mut self, decoded: &LogMel, controls: &[Controls]) {
        let mut is_heard = Vec::with_capacity(controls.len());
        for controls in controls {
            let before = self.shares.back().copied().unwrap_or_default();
            let shares = Shares {
                voice: share(controls.generated),
                air: share(controls.air),
            };
            // Before its first frame, a clip uses the knobs of that frame.
            if self.shares.is_empty() {
                self.shares.push_back(shares);
            }
            self.shares.push_back(shares);
            is_heard.push(shares.voice > 0.0 || before.voice > 0.0);
        }
        let mut rest = decoded.clone();
        for run in is_heard.chunk_by(|a, b| a == b) {
            let frames = rest.take_first(run.len());
            self.waiting.push_back((frames, run[0]));
        }
    }

    /// Takes the spectra of the next frames of the guided voice, and generates the sound of complete pieces.
    ///
    /// # Errors
    ///
    /// If the decoded frames do not fit the generator.
    pub(crate) fn push_spectra(&mut self, spectra: Vec<Spectrum>) -> Result<()> {
        self.spectra.extend(spectra);
        while let Some((frames, is_heard)) = self
            .waiting
            .pop_front_if(|(frames, _)| frames.frames() <= self.spectra.len())
        {
            let rest = self.spectra.split_off(frames.frames());
            let spectra = std::mem::replace(&mut self.spectra, rest);
            self.generated
                .push(frames, spectra, is_heard, &mut self.middle)?;
        }
        Ok(())
    }

    /// Takes the next samples of the guided voice and clears the buffers. `gains` are its output gains at these samples.
    pub(crate) fn push_guided(&mut self, guided: &mut [Vec<f32>], gains: &[f32]) {
        self.gains.extend(gains);
        let parts = self.low.iter_mut().zip(&mut self.high);
        for ((crossover, guided), (low, high)) in self.crossovers.iter_mut().zip(guided).zip(parts)
        {
            crossover.push(guided, low, high);
            guided.clear();
        }
    }

    /// Appends all complete samples to `out`.
    pub(crate) fn pull(&mut self, out: &mut [Vec<f32>]) {
        self.blend(self.low[0].len().min(self.middle.len()), out);
    }

    /// Ends the clip: appends the remaining samples of the guided voice and resets. The generated voice ends with the last
    /// whole frame.
    ///
    /// # Errors
    ///
    /// If the generator fails.
    pub(crate) fn finish(&mut self, out: &mut [Vec<f32>]) -> Result<()> {
        self.generated.finish(&mut self.middle)?;
        let parts = self.low.iter_mut().zip(&mut self.high);
        for (crossover, (low, high)) in self.crossovers.iter_mut().zip(parts) {
            crossover.finish(low, high);
        }
        let samples = self.low[0].len();
        self.middle.resize(samples, 0.0);
        self.blend(samples, out);
        self.reset();
        Ok(())
    }

    /// Resets to frame 0.
    pub(crate) fn reset(&mut self) {
        self.generated.reset();
        self.crossovers.iter_mut().for_each(Crossover::reset);
        for waiting in self.low.iter_mut().chain(&mut self.high) {
            waiting.clear();
        }
        self.waiting.clear();
        self.spectra.clear();
        self.middle.clear();
        self.gains.clear();
        self.shares.clear();
        (self.first_frame, self.blended_samples) = (0, 0);
    }

    fn blend(&mut self, samples: usize, out: &mut [Vec<f32>]) {
        let channels = self.low.len();
        for i in 0..samples {
            let Shares { voice, air } = self.next_shares();
            let middle = self.low.iter().map(|low| low[i]).sum::<f32>() / channels as f32;
            let (guided, generated) = voice_gains(voice);
            let replaced = (guided - 1.0) * middle + generated * self.gains[i] * self.middle[i];
            let high_gain = 1.0 - voice + voice * air;
            for (out, (low, high)) in out.iter_mut().zip(self.low.iter().zip(&self.high)) {
                out.push(low[i] + replaced + high_gain * high[i]);
            }
        }
        for waiting in self.low.iter_mut().chain(&mut self.high) {
            waiting.drain(..samples);
        }
        self.middle.drain(..samples);
        self.gains.drain(..samples);
    }

    /// The knobs at the next sample, interpolated linearly between frames.
    fn next_shares(&mut self) -> Shares {
        let place = self.blended_samples as f64 / self.hop_samples;
        self.blended_samples += 1;
        while self.shares.len() > 2 && place >= (self.first_frame + 1) as f64 {
            self.shares.pop_front();
            self.first_frame += 1;
        }
        match (self.shares.front(), self.shares.get(1)) {
            (Some(from), Some(to)) => {
                let way = (place - self.first_frame as f64).clamp(0.0, 1.0) as f32;
                let between = |from: f32, to: f32| match from == to {
                    true => to,
                    false => from + way * (to - from),
                };
                Shares {
                    voice: between(from.voice, to.voice),
                    air: between(from.air, to.air),
                }
            }
            _ => Shares::default(),
        }
    }
}

/// Gains of the guided and of the generated voice: those of sounds of this correlation that add up to constant power.
fn voice_gains(voice: f32) -> (f32, f32) {
    // Exact at both ends of the knob.
    if voice == 0.0 {
        return (1.0, 0.0);
    }
    if voice == 1.0 {
        return (0.0, 1.0);
    }
    let (generated, guided) = (FRAC_PI_2 * voice).sin_cos();
    let power = 1.0 + 2.0 * VOICES_CORRELATION * guided * generated;
    (guided / power.sqrt(), generated / power.sqrt())
}

/// Output of the generator at the host's rate. While inaudible, the generator idles and the output is silence.
struct GeneratedMiddle {
    voice: GeneratedVoice,
    hop_length: usize,
    resampler: Resampler,
    /// The last frames, for the warm-up.
    recent: LogMel,
    recent_spectra: VecDeque<Spectrum>,
    rests: bool,
    /// Frames for which the generator still runs after it became inaudible, to complete its audible samples.
    tail_frames: usize,
    taken_frames: usize,
    /// Samples at the model's rate that were returned.
    given_samples: usize,
    /// Number of the generator's next sample; less than `given_samples` during the warm-up.
    next_sample: usize,
}

impl GeneratedMiddle {
    fn new(
        generator: &Generator,
        magnitudes: Option<&MagnitudeNetwork>,
        mel: &MelConfig,
        host_hz: u32,
    ) -> Result<Self> {
        Ok(Self {
            voice: GeneratedVoice::new(generator, magnitudes, mel)?,
            hop_length: mel.hop_length,
            resampler: Resampler::new(mel.sample_rate_hz, host_hz)?,
            recent: LogMel::new(mel.n_mels),
            recent_spectra: VecDeque::new(),
            rests: true,
            tail_frames: 0,
            taken_frames: 0,
            given_samples: 0,
            next_sample: 0,
        })
    }

    fn reset(&mut self) {
        self.voice.reset();
        self.resampler.reset();
        self.recent = LogMel::new(self.recent.n_mels());
        self.recent_spectra.clear();
        (self.rests, self.tail_frames) = (true, 0);
        (self.taken_frames, self.given_samples, self.next_sample) = (0, 0, 0);
    }

    /// Takes the next frames, with as many spectra, and appends the completed samples to `out`.
    fn push(
        &mut self,
        mut mel: LogMel,
        spectra: Vec<Spectrum>,
        is_heard: bool,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let mut samples = Vec::new();
        let frames = mel.frames();
        let worked_frames = match (is_heard, self.rests) {
            (true, _) => frames,
            (false, true) => 0,
            (false, false) => frames.min(self.tail_frames),
        };
        if is_heard && self.rests {
            self.warm_up(&mut samples)?;
        }
        self.rests = worked_frames < frames;
        self.tail_frames = match is_heard {
            true => self.look_ahead_frames(),
            false => self.tail_frames - worked_frames,
        };
        self.recent.extend(&mel);
        let most = WARM_UP_FRAMES + self.look_ahead_frames();
        let extra = self.recent.frames().saturating_sub(most);
        self.recent.take_first(extra);
        self.recent_spectra.extend(spectra.iter().cloned());
        self.recent_spectra.drain(..extra);
        self.taken_frames += frames;
        if worked_frames > 0 {
            let worked = mel.take_first(worked_frames);
            self.generate(&worked, &spectra[..worked_frames], &mut samples)?;
        }
        if self.rests {
            let complete = (self.taken_frames * self.hop_length)
                .saturating_sub(self.voice.look_ahead_samples());
            samples.resize(complete - self.given_samples, 0.0);
        }
        self.given_samples += samples.len();
        self.resampler.push(&samples, out);
        Ok(())
    }

    /// Ends the clip: appends the remaining samples.
    fn finish(&mut self, out: &mut Vec<f32>) -> Result<()> {
        let mut samples = Vec::new();
        if !self.rests {
            let mut made = Vec::new();
            self.voice.finish(&mut made)?;
            let given = self.given_samples.saturating_sub(self.next_sample);
            samples.extend(made.iter().skip(given));
        }
        samples.resize(
            self.taken_frames * self.hop_length - self.given_samples,
            0.0,
        );
        self.resampler.push(&samples, out);
        self.resampler.finish(out);
        Ok(())
    }

    /// Starts the generator with the frames before the first audible one.
    fn warm_up(&mut self, samples: &mut Vec<f32>) -> Result<()> {
        self.voice.reset();
        let frames = self.recent.frames();
        self.next_sample = (self.taken_frames - frames) * self.hop_length;
        if frames > 0 {
            let spectra: Vec<_> = self.recent_spectra.iter().cloned().collect();
            self.generate(&self.recent.clone(), &spectra, samples)?;
        }
        Ok(())
    }

    /// Runs the generator and appends the samples that were not returned yet.
    fn generate(
        &mut self,
        mel: &LogMel,
        spectra: &[Spectrum],
        samples: &mut Vec<f32>,
    ) -> Result<()> {
        let mut made = Vec::new();
        self.voice.push_with(mel, Some(spectra), &mut made)?;
        let given = (self.given_samples + samples.len()).saturating_sub(self.next_sample);
        self.next_sample += made.len();
        samples.extend(made.iter().skip(given));
        Ok(())
    }

    /// Frames that must follow a frame before all of its samples are complete.
    fn look_ahead_frames(&self) -> usize {
        self.voice.look_ahead_samples().div_ceil(self.hop_length)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::{VarBuilder, VarMap};
    use vocoder::generator::GeneratorConfig;

    use super::*;
    use test_signals::noise;

    fn blend(host_hz: u32) -> Blend {
        let config = GeneratorConfig {
            upsample_initial_channel: 16,
            causal: true,
            ..GeneratorConfig::v2()
        };
        let weights = VarMap::new();
        let builder = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
        let generator = Generator::new(config, false, &builder).unwrap();
        Blend::new(&generator, None, &MelConfig::default(), host_hz, 2).unwrap()
    }

    /// With the network bypassed, an ideal generator returns the low band of the mid channel; low and high band then
    /// add up to the input.
    #[test]
    fn a_perfect_generator_leaves_the_sound_as_it_was() {
        let knobs = [Controls {
            generated: 1.0,
            air: 1.0,
            ..Controls::default()
        }; 40];
        for host_hz in [44_100, 48_000] {
            let mut blend = blend(host_hz);
            let frames = LogMel::from_values(128, vec![-5.0; 40 * 128]).unwrap();
            blend.push_mel(&frames, &knobs);
            let input = [noise(1, 30_000), noise(2, 30_000)];
            let middle: Vec<f32> = (0..30_000)
                .map(|i| 0.5 * (input[0][i] + input[1][i]))
                .collect();
            let mut resampled = Vec::new();
            let mut resampler = Resampler::new(host_hz, 22_050).unwrap();
            resampler.push(&middle, &mut resampled);
            blend
                .generated
                .resampler
                .push(&resampled, &mut blend.middle);
            blend.push_guided(&mut input.clone(), &[1.0; 30_000]);
            let mut out = [Vec::new(), Vec::new()];
            blend.pull(&mut out);
            assert!(out[0].len() > 29_000);
            for (out, input) in out.iter().zip(&input) {
                let error: f64 = out
                    .iter()
                    .zip(input)
                    .map(|(o, i)| f64::from(o - i).powi(2))
                    .sum();
                let energy: f64 = input.iter().map(|i| f64::from(*i).powi(2)).sum();
                let error_db = 10.0 * (error / energy).log10();
                assert!(error_db < -80.0, "{host_hz} Hz: {error_db:.1} dB");
            }
        }
    }

    #[test]
    fn voices_of_the_expected_correlation_are_as_loud_at_all_positions_of_the_knob() {
        let [shared, own] = [noise(1, 100_000), noise(2, 100_000)];
        let share = VOICES_CORRELATION;
        let correlated: Vec<f32> = shared
            .iter()
            .zip(&own)
            .map(|(shared, own)| share * shared + (1.0 - share * share).sqrt() * own)
            .collect();
        let power_at = |voice: f32| {
            let (guided, generated) = voice_gains(voice);
            let mixed = shared.iter().zip(&correlated);
            let powers = mixed.map(|(a, b)| f64::from(guided * a + generated * b).powi(2));
            powers.sum::<f64>()
        };
        let guided = power_at(0.0);
        for step in 1..=10 {
            let voice = step as f32 / 10.0;
            let change_db = 10.0 * (power_at(voice) / guided).log10();
            assert!(change_db.abs() < 0.1, "Voice {voice}: {change_db:.2} dB");
        }
    }

    #[test]
    fn without_air_nothing_is_above_what_the_generator_can_make() {
        let knobs = [Controls {
            generated: 1.0,
            ..Controls::default()
        }; 40];
        let mut blend = blend(48_000);
        let frames = LogMel::from_values(128, vec![-5.0; 40 * 128]).unwrap();
        blend.push_mel(&frames, &knobs);
        let hiss = |n: usize| (n as f32 * std::f32::consts::TAU * 15_000.0 / 48_000.0).sin();
        let input: Vec<f32> = (0..30_000).map(hiss).collect();
        blend.middle = vec![0.0; 30_000];
        blend.push_guided(&mut [input.clone(), input], &[1.0; 30_000]);
        let mut out = [Vec::new(), Vec::new()];
        blend.pull(&mut out);
        let loudest = out[0][500..]
            .iter()
            .fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(loudest < 1e-4, "{loudest}");
    }
}
