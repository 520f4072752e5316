//! The sidechain of a remix, read in steps and fitted to the main input.

use std::path::Path;

use anyhow::Result;
use graft_material::audio_file::{self, AudioReader};
use model_runtime::{AudioClip, Resampler};

/// Samples per channel of a sidechain that stays in memory while it loops. A longer one is read again.
const KEPT_SAMPLES: usize = 1 << 21;

/// Samples of a kept sidechain that are handed on at a time.
const STEP_SAMPLES: usize = 65_536;

/// Reads a sidechain in steps, with the sample rate and the channels of the main input. When the file ends, it begins
/// again or is followed by silence.
///
/// The loop is joined before the sample rate is converted: sample by sample at the rate of the file, so that a loop cut to
/// the beat stays on the beat, and nothing is heard where it begins again.
pub struct Sidechain {
    reader: AudioReader,
    loops: bool,
    resamplers: Vec<Resampler>,
    /// The file, as far as it was read and as long as it is short enough.
    kept: Option<Vec<Vec<f32>>>,
    /// Where the next samples come from.
    source: Source,
    /// Samples that the file has, or had so far.
    samples: u64,
    warnings: Vec<String>,
    /// Samples at the rate of the main input that are not handed out yet.
    ready: Vec<Vec<f32>>,
    block: Vec<Vec<f32>>,
}

enum Source {
    /// The file, for the first time.
    File,
    /// The file, read again.
    FileAgain,
    /// The kept samples, from this one on.
    Kept(usize),
    Silence,
}

impl Sidechain {
    /// Opens the file for a main input with this rate and number of channels.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read.
    pub fn open(path: &Path, sample_rate_hz: u32, channels: usize, loops: bool) -> Result<Self> {
        let reader = AudioReader::open(path)?;
        let resampler = Resampler::new(reader.sample_rate_hz(), sample_rate_hz)?;
        Ok(Self {
            loops,
            resamplers: vec![resampler; channels],
            kept: Some(vec![Vec::new(); channels]),
            source: Source::File,
            samples: 0,
            warnings: Vec::new(),
            ready: vec![Vec::new(); channels],
            block: Vec::new(),
            reader,
        })
    }

    /// Replaces `out` by the next samples, as many per channel as asked for.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read.
    pub fn next(&mut self, samples: usize, out: &mut Vec<Vec<f32>>) -> Result<()> {
        while self.ready[0].len() < samples {
            if matches!(self.source, Source::Silence) {
                let length = samples.max(self.ready[0].len());
                self.ready
                    .iter_mut()
                    .for_each(|ready| ready.resize(length, 0.0));
            } else {
                self.read_more()?;
            }
        }
        out.clear();
        out.extend(
            self.ready
                .iter_mut()
                .map(|ready| ready.drain(..samples).collect()),
        );
        Ok(())
    }

    /// Seconds after which the sidechain began again, if it did.
    pub fn loop_seconds(&self) -> Option<f64> {
        matches!(self.source, Source::FileAgain | Source::Kept(_))
            .then(|| self.samples as f64 / f64::from(self.reader.sample_rate_hz()))
    }

    /// What the reader noticed so far.
    pub fn warnings(&self) -> &[String] {
        match self.source {
            Source::File => self.reader.warnings(),
            _ => &self.warnings,
        }
    }

    fn read_more(&mut self) -> Result<()> {
        match self.source {
            Source::File | Source::FileAgain => {
                if !self.reader.next_block(&mut self.block)? {
                    return self.begin_again();
                }
                let is_first = matches!(self.source, Source::File);
                fit_channels(&mut self.block, self.resamplers.len());
                if is_first {
                    self.keep_block();
                }
                resample(&mut self.resamplers, &self.block, &mut self.ready);
            }
            Source::Kept(start) => {
                let kept = self.kept.as_deref().unwrap_or_default();
                let length = kept.first().map_or(0, Vec::len);
                let end = length.min(start + STEP_SAMPLES);
                let step: Vec<_> = kept.iter().map(|channel| &channel[start..end]).collect();
                resample(&mut self.resamplers, &step, &mut self.ready);
                self.source = Source::Kept(if end == length { 0 } else { end });
            }
            Source::Silence => {}
        }
        Ok(())
    }

    fn keep_block(&mut self) {
        let samples = self.block[0].len();
        self.samples += samples as u64;
        let Some(kept) = &mut self.kept else {
            return;
        };
        if !self.loops || kept[0].len() + samples > KEPT_SAMPLES {
            self.kept = None;
            return;
        }
        for (kept, channel) in kept.iter_mut().zip(&self.block) {
            kept.extend_from_slice(channel);
        }
    }

    /// The file has ended.
    fn begin_again(&mut self) -> Result<()> {
        if matches!(self.source, Source::File) {
            self.warnings = self.reader.warnings().to_vec();
        }
        if !self.loops {
            for (resampler, ready) in self.resamplers.iter_mut().zip(&mut self.ready) {
                resampler.finish(ready);
            }
            self.source = Source::Silence;
        } else if self.kept.is_some() {
            self.source = Source::Kept(0);
        } else {
            self.reader.rewind()?;
            self.source = Source::FileAgain;
        }
        Ok(())
    }
}

/// Appends the samples at the new rate.
fn resample(resamplers: &mut [Resampler], block: &[impl AsRef<[f32]>], ready: &mut [Vec<f32>]) {
    for ((resampler, channel), ready) in resamplers.iter_mut().zip(block).zip(ready) {
        resampler.push(channel.as_ref(), ready);
    }
}

/// Makes a stereo block mono or a mono block stereo, if the main input is.
fn fit_channels(block: &mut Vec<Vec<f32>>, channels: usize) {
    match (block.as_mut_slice(), channels) {
        ([left, right], 1) => {
            for (left, right) in left.iter_mut().zip(right) {
                *left = 0.5 * (*left + *right);
            }
            block.truncate(1);
        }
        ([mono], 2) => {
            let mono = mono.clone();
            block.push(mono);
        }
        _ => {}
    }
}

/// Gives a whole sidechain this length. Returns after how many seconds it begins again, if it does.
pub fn fit_length(clip: &mut AudioClip, seconds: f64, loops: bool) -> Option<f64> {
    let samples = (seconds * f64::from(clip.sample_rate_hz)).round() as usize;
    let clip_seconds = audio_file::seconds(clip);
    let begins_again = loops && samples > clip.channels[0].len();
    for channel in &mut clip.channels {
        if begins_again {
            let looped = channel.iter().copied().cycle();
            *channel = looped.take(samples).collect();
        } else {
            channel.resize(samples, 0.0);
        }
    }
    begins_again.then_some(clip_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::audio_writer::{WavFormat, write_wav};
    use graft_material::testing::TestFolder;

    fn sine(hz: f64, rate_hz: u32, samples: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * hz / f64::from(rate_hz);
        (0..samples)
            .map(|n| (0.5 * (step * n as f64).sin()) as f32)
            .collect()
    }

    /// A file of this sine on both channels, and what is read of it in uneven steps.
    fn read(rate_hz: u32, file_samples: usize, to_hz: u32, loops: bool) -> (Vec<f32>, Option<f64>) {
        let folder = TestFolder::new(&format!("sidechain_{rate_hz}_{file_samples}_{loops}"));
        let path = folder.path().join("sine.wav");
        let clip = AudioClip {
            sample_rate_hz: rate_hz,
            channels: vec![sine(441.0, rate_hz, file_samples); 2],
        };
        write_wav(&path, &clip, WavFormat::Float32).unwrap();
        let mut sidechain = Sidechain::open(&path, to_hz, 1, loops).unwrap();
        let (mut all, mut out) = (Vec::new(), Vec::new());
        let mut step = 1;
        while all.len() < to_hz as usize {
            sidechain.next(step, &mut out).unwrap();
            assert_eq!((out.len(), out[0].len()), (1, step));
            all.extend_from_slice(&out[0]);
            step = step * 5 % 4099;
        }
        (all, sidechain.loop_seconds())
    }

    #[test]
    fn a_loop_of_whole_periods_is_a_sine_without_end() {
        // Periods of 100 and of 500/3 samples.
        for (rate_hz, file_samples, to_hz) in [
            (44_100, 1000, 44_100),
            (44_100, 100, 48_000),
            (44_100, 3000, 22_050),
            (73_500, 500, 48_000),
        ] {
            let (found, loop_seconds) = read(rate_hz, file_samples, to_hz, true);
            let expected = sine(441.0, to_hz, found.len());
            // The sine begins suddenly, and so the filter rings there.
            for n in 500..found.len() {
                let difference = (found[n] - expected[n]).abs();
                assert!(difference < 1e-3, "{rate_hz} to {to_hz} Hz, sample {n}");
            }
            let expected = file_samples as f64 / f64::from(rate_hz);
            assert_eq!(loop_seconds, Some(expected));
        }
    }

    #[test]
    fn without_a_loop_silence_follows() {
        for to_hz in [44_100, 48_000] {
            let (found, loop_seconds) = read(44_100, 4410, to_hz, false);
            let end = to_hz as usize / 10;
            assert!(
                found[end - 300..end]
                    .iter()
                    .any(|sample| sample.abs() > 0.4)
            );
            assert!(found[end..].iter().all(|&sample| sample == 0.0));
            assert_eq!(loop_seconds, None);
        }
    }

    #[test]
    fn a_file_that_is_not_kept_is_read_again() {
        let (kept, _) = read(44_100, 10_000, 48_000, true);
        let folder = TestFolder::new("not_kept");
        let path = folder.path().join("sine.wav");
        let clip = AudioClip {
            sample_rate_hz: 44_100,
            channels: vec![sine(441.0, 44_100, 10_000); 2],
        };
        write_wav(&path, &clip, WavFormat::Float32).unwrap();
        let mut sidechain = Sidechain::open(&path, 48_000, 1, true).unwrap();
        sidechain.kept = None;
        let mut out = Vec::new();
        sidechain.next(kept.len(), &mut out).unwrap();
        assert!(out[0] == kept);
        assert!(matches!(sidechain.source, Source::FileAgain));
    }

    #[test]
    fn whole_clips_loop_or_are_followed_by_silence() {
        let clip = AudioClip {
            sample_rate_hz: 1000,
            channels: vec![vec![1.0, 2.0, 3.0]; 2],
        };
        for (seconds, loops, expected, begins_again) in [
            (0.005, true, vec![1.0, 2.0, 3.0, 1.0, 2.0], Some(0.003)),
            (0.005, false, vec![1.0, 2.0, 3.0, 0.0, 0.0], None),
            (0.002, true, vec![1.0, 2.0], None),
            (0.003, true, vec![1.0, 2.0, 3.0], None),
        ] {
            let mut clip = clip.clone();
            assert_eq!(fit_length(&mut clip, seconds, loops), begins_again);
            assert_eq!(clip.channels[1], expected);
        }
    }
}
