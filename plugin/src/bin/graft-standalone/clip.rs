//! WAV files in memory.

use std::path::Path;

/// A file in memory.
pub struct Clip {
    channels: [Vec<f32>; 2],
    sample_rate_hz: u32,
}

impl Clip {
    /// Reads a WAV file with one or two channels.
    pub fn read(path: &Path) -> Result<Self, String> {
        let in_words = |error: hound::Error| format!("cannot read {}: {error}", path.display());
        let mut file = hound::WavReader::open(path).map_err(in_words)?;
        let format = file.spec();
        let samples: Result<Vec<f32>, _> = match format.sample_format {
            hound::SampleFormat::Float => file.samples::<f32>().collect(),
            hound::SampleFormat::Int => {
                let largest = 2.0_f32.powi(i32::from(format.bits_per_sample) - 1);
                let samples = file.samples::<i32>();
                samples.map(|x| x.map(|x| x as f32 / largest)).collect()
            }
        };
        let samples = samples.map_err(in_words)?;
        let width = usize::from(format.channels);
        let channel = |index: usize| {
            let channel = samples.iter().skip(index.min(width - 1)).step_by(width);
            channel.copied().collect()
        };
        match width {
            1 | 2 => Ok(Self {
                channels: [channel(0), channel(1)],
                sample_rate_hz: format.sample_rate,
            }),
            _ => Err(format!(
                "{}: expected one or two channels, found {width}",
                path.display()
            )),
        }
    }

    /// The channels at another rate.
    pub fn at_rate(&self, sample_rate_hz: u32) -> model_runtime::Result<[Vec<f32>; 2]> {
        let [left, right] = &self.channels;
        let resample =
            |channel| model_runtime::resample(channel, self.sample_rate_hz, sample_rate_hz);
        Ok([resample(left)?, resample(right)?])
    }
}
