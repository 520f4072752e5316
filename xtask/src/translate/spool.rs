//! Sound that waits on disk until its loudness is known.

use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};
use graft_material::whole_file::PartFile;

use super::level::Meter;

/// Samples per channel that are read at a time.
const BLOCK_SAMPLES: usize = 16_384;

/// A temporary file of samples, interleaved, as 32-bit floats.
pub struct Spool {
    file: BufWriter<PartFile>,
    meter: Meter,
    channels: usize,
    samples: u64,
}

/// A spool that is complete.
pub struct Spooled {
    file: BufReader<PartFile>,
    channels: usize,
    samples: u64,
    /// Integrated loudness.
    pub lufs: f64,
    /// The largest amplitude.
    pub peak: f32,
}

impl Spool {
    /// Creates the file beside the place of the output.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be written.
    pub fn create(output: &Path, sample_rate_hz: u32, channels: usize) -> Result<Self> {
        let file = PartFile::create(output);
        let file = file.with_context(|| format!("cannot write {}", output.display()))?;
        Ok(Self {
            file: BufWriter::new(file),
            meter: Meter::new(sample_rate_hz, channels)?,
            channels,
            samples: 0,
        })
    }

    /// Takes the next samples, one vector per channel, and clears these.
    ///
    /// # Errors
    ///
    /// Returns an error if the disk is full.
    pub fn push(&mut self, channels: &mut [Vec<f32>]) -> Result<()> {
        self.meter.push(channels)?;
        for place in 0..channels[0].len() {
            for channel in channels.iter() {
                let bytes = channel[place].to_le_bytes();
                self.file.write_all(&bytes).context(DISK)?;
            }
        }
        self.samples += channels[0].len() as u64;
        channels.iter_mut().for_each(Vec::clear);
        Ok(())
    }

    /// Ends the sound.
    ///
    /// # Errors
    ///
    /// Returns an error if the disk is full.
    pub fn finish(self) -> Result<Spooled> {
        let (lufs, peak) = self.meter.finish()?;
        let mut file = self.file.into_inner().context(DISK)?;
        file.seek(SeekFrom::Start(0)).context(DISK)?;
        Ok(Spooled {
            file: BufReader::new(file),
            channels: self.channels,
            samples: self.samples,
            lufs,
            peak,
        })
    }
}

const DISK: &str = "cannot use a temporary file beside the output";

impl Spooled {
    /// Hands the samples on, times a gain, block by block. The file is removed afterwards.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, and those of `take`.
    pub fn read(
        mut self,
        gain: f32,
        mut take: impl FnMut(&[Vec<f32>]) -> Result<()>,
    ) -> Result<()> {
        let mut left = self.samples;
        while left > 0 {
            let samples = left.min(BLOCK_SAMPLES as u64) as usize;
            let mut bytes = vec![0; 4 * samples * self.channels];
            self.file.read_exact(&mut bytes).context(DISK)?;
            let mut block = vec![Vec::with_capacity(samples); self.channels];
            for (index, bytes) in bytes.chunks_exact(4).enumerate() {
                let sample = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
                block[index % self.channels].push(gain * sample);
            }
            take(&block)?;
            left -= samples as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::testing::TestFolder;

    #[test]
    fn what_is_spooled_comes_back_amplified_and_the_file_goes() {
        let folder = TestFolder::new("spool");
        let mut spool = Spool::create(&folder.path().join("x.wav"), 48_000, 2).unwrap();
        let left: Vec<f32> = (0..40_000).map(|n| 0.5 * (0.1 * n as f32).sin()).collect();
        let right: Vec<f32> = left.iter().map(|sample| 0.5 - sample).collect();
        for piece in [0..1, 1..30_000, 30_000..40_000] {
            let mut piece = [left[piece.clone()].to_vec(), right[piece].to_vec()];
            spool.push(&mut piece).unwrap();
            assert!(piece[1].is_empty());
        }
        let spooled = spool.finish().unwrap();
        assert!((spooled.peak - 1.0).abs() < 1e-3 && spooled.lufs.is_finite());
        let mut read = vec![Vec::new(); 2];
        let take = |block: &[Vec<f32>]| {
            for (all, block) in read.iter_mut().zip(block) {
                all.extend_from_slice(block);
            }
            Ok(())
        };
        spooled.read(2.0, take).unwrap();
        let doubled = |samples: &[f32]| samples.iter().map(|x| 2.0 * x).collect::<Vec<_>>();
        assert_eq!(read, [doubled(&left), doubled(&right)]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
