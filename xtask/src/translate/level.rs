//! Levels of recordings and of their translations.

use std::path::Path;

use anyhow::{Context, Result};
use ebur128::{EbuR128, Mode};
use graft_material::audio_file::AudioReader;
use graft_material::loudness::{self, GatedRms};

/// Silence that a meter hears at the end, so that a recording shorter than its blocks has a loudness too.
const TAIL_SECONDS: f64 = 0.4;

/// What a first pass over a recording finds.
pub struct Survey {
    /// Samples per channel.
    pub samples: u64,
    /// Gain that brings the recording to the level of the training.
    pub training_gain: f32,
    /// Integrated loudness.
    pub lufs: f64,
    /// The largest amplitude.
    pub peak: f32,
}

impl Survey {
    /// Reads a recording to its end.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file, if it cannot be read or is silent.
    pub fn take(reader: &mut AudioReader, path: &Path) -> Result<Self> {
        let rate_hz = reader.sample_rate_hz();
        let mut meter = Meter::new(rate_hz, reader.channels())?;
        let mut rms = GatedRms::new(rate_hz);
        let mut samples = 0;
        let mut block = Vec::new();
        let mut mono = Vec::new();
        while reader.next_block(&mut block)? {
            meter.push(&block)?;
            samples += block[0].len() as u64;
            mono.clear();
            let scale = 1.0 / block.len() as f32;
            mono.extend((0..block[0].len()).map(|place| {
                let sum: f32 = block.iter().map(|channel| channel[place]).sum();
                scale * sum
            }));
            rms.push(&mono);
        }
        let training_gain = loudness::gain_of_rms(rms.finish())
            .with_context(|| format!("cannot use {}", path.display()))?;
        let (lufs, peak) = meter.finish()?;
        Ok(Self {
            samples,
            training_gain,
            lufs,
            peak,
        })
    }
}

/// Measures integrated loudness (ITU-R BS.1770) and peak in steps.
pub struct Meter {
    meter: EbuR128,
    channels: usize,
    tail_samples: usize,
    peak: f32,
}

impl Meter {
    /// Begins a recording.
    ///
    /// # Errors
    ///
    /// Returns an error if the rate cannot be measured.
    pub fn new(sample_rate_hz: u32, channels: usize) -> Result<Self> {
        let meter = EbuR128::new(channels as u32, sample_rate_hz, Mode::I)
            .with_context(|| format!("cannot measure the loudness at {sample_rate_hz} Hz"))?;
        Ok(Self {
            meter,
            channels,
            tail_samples: (TAIL_SECONDS * f64::from(sample_rate_hz)) as usize,
            peak: 0.0,
        })
    }

    /// Takes the next samples, one vector per channel.
    ///
    /// # Errors
    ///
    /// Returns an error if the channels differ in length.
    pub fn push(&mut self, channels: &[Vec<f32>]) -> Result<()> {
        let planes: Vec<&[f32]> = channels.iter().map(Vec::as_slice).collect();
        let add = self.meter.add_frames_planar_f32(&planes);
        add.context("cannot measure the loudness")?;
        let samples = channels.iter().flatten();
        self.peak = samples.fold(self.peak, |peak, sample| peak.max(sample.abs()));
        Ok(())
    }

    /// Ends the recording. Returns its loudness in LUFS, below 0 without end if it has none, and its peak.
    ///
    /// # Errors
    ///
    /// Returns an error if the meter fails.
    pub fn finish(mut self) -> Result<(f64, f32)> {
        self.push(&vec![vec![0.0; self.tail_samples]; self.channels])?;
        let lufs = self.meter.loudness_global();
        Ok((lufs.context("cannot measure the loudness")?, self.peak))
    }
}

/// The gain from one loudness to another; 1 if either is none.
pub fn gain(wanted_lufs: f64, found_lufs: f64) -> f32 {
    match wanted_lufs - found_lufs {
        difference if difference.is_finite() => 10f64.powf(difference / 20.0) as f32,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gain_is_a_difference_of_loudness_also_of_a_short_sound() {
        for samples in [2000, 48_000] {
            let lufs = |amplitude: f32| {
                let mut meter = Meter::new(48_000, 1).unwrap();
                let tone = (0..samples).map(|n| amplitude * (0.13 * n as f32).sin());
                meter.push(&[tone.collect()]).unwrap();
                meter.finish().unwrap()
            };
            let ((loud, peak), (soft, _)) = (lufs(0.8), lufs(0.1));
            assert!((gain(loud, soft) - 8.0).abs() < 0.01, "{loud} {soft}");
            assert!((peak - 0.8).abs() < 0.01);
        }
        let silence = Meter::new(48_000, 2).unwrap().finish().unwrap();
        assert_eq!(gain(-20.0, silence.0), 1.0);
    }
}
