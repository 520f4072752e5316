//! Writes WAV files with hound.

use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use model_runtime::AudioClip;

use crate::whole_file::{self, PartFile};

/// How samples are stored in a WAV file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WavFormat {
    /// 32-bit floating point: keeps every sample unchanged.
    Float32,
    /// 16-bit integers: samples are clipped at full scale and rounded.
    Pcm16,
}

/// Writes a clip as a WAV file, atomically.
///
/// # Errors
///
/// Returns an error if the clip has no channels or channels of different lengths, or the file cannot be written.
pub fn write_wav(path: &Path, clip: &AudioClip, format: WavFormat) -> Result<()> {
    whole_file::write_with(path, |part| write_samples(part, clip, format))
}

fn write_samples(part: &mut PartFile, clip: &AudioClip, format: WavFormat) -> Result<()> {
    let samples = clip.channels.first().map(Vec::len);
    let samples = samples.context("expected at least one channel, found none")?;
    for channel in &clip.channels {
        ensure!(
            channel.len() == samples,
            "all channels must have {samples} samples, found one with {}",
            channel.len()
        );
    }
    let (bits_per_sample, sample_format) = match format {
        WavFormat::Float32 => (32, hound::SampleFormat::Float),
        WavFormat::Pcm16 => (16, hound::SampleFormat::Int),
    };
    let spec = hound::WavSpec {
        channels: u16::try_from(clip.channels.len()).context("too many channels for WAV")?,
        sample_rate: clip.sample_rate_hz,
        bits_per_sample,
        sample_format,
    };
    let mut writer = hound::WavWriter::new(BufWriter::new(part), spec)?;
    for index in 0..samples {
        for channel in &clip.channels {
            match format {
                WavFormat::Float32 => writer.write_sample(channel[index])?,
                WavFormat::Pcm16 => writer.write_sample(to_pcm16(channel[index]))?,
            }
        }
    }
    writer.finalize()?;
    Ok(())
}

/// Converts a sample to 16 bits. Clips at full scale; NaN becomes 0.
fn to_pcm16(sample: f32) -> i16 {
    (sample * 32768.0).round() as i16
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audio_file::read;
    use crate::testing::TestFolder;

    fn sine(frequency_hz: f64, rate_hz: u32, samples: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * frequency_hz / f64::from(rate_hz);
        (0..samples)
            .map(|n| (0.5 * (step * n as f64).sin()) as f32)
            .collect()
    }

    #[test]
    fn wav_is_read_as_it_was_written() {
        let folder = TestFolder::new("wav");
        let path = folder.path().join("stereo.wav");
        let clip = AudioClip {
            sample_rate_hz: 48_000,
            channels: vec![sine(440.0, 48_000, 1000), sine(300.0, 48_000, 1000)],
        };
        write_wav(&path, &clip, WavFormat::Float32).unwrap();
        assert_eq!(read(&path).unwrap(), clip);

        write_wav(&path, &clip, WavFormat::Pcm16).unwrap();
        let rounded = read(&path).unwrap();
        for (rounded, exact) in rounded
            .channels
            .iter()
            .flatten()
            .zip(clip.channels.iter().flatten())
        {
            assert!((rounded - exact).abs() <= 0.5 / 32768.0);
        }
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "temporary file left over"
        );
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = TestFolder::new("failed_write");
        let clip = AudioClip {
            sample_rate_hz: 44_100,
            channels: vec![vec![0.0; 10], vec![0.0; 9]],
        };
        let path = folder.path().join("uneven.wav");
        assert!(write_wav(&path, &clip, WavFormat::Float32).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
