//! Cache of decoded tracks on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::audio_file::{self, Recording};
use crate::loudness::loudness_gain;
use crate::whole_file;

/// First bytes of a cache file. The last one is the version of the format and of the normalisation.
const MAGIC: [u8; 8] = *b"graftpc1";

/// Mono samples of one track in 16 bits, with their level.
#[derive(Debug, Clone, PartialEq)]
pub struct Pcm {
    /// The samples, scaled to the full range of 16 bits.
    pub samples: Vec<i16>,
    /// Factor from `samples` to audio at [`TARGET_RMS_DBFS`](crate::loudness::TARGET_RMS_DBFS).
    pub level: f32,
}

impl Pcm {
    /// Normalises `samples` (mono, full scale -1 to 1) in loudness: the RMS over all blocks of 0.4 s
    /// that are louder than -50 dBFS becomes [`TARGET_RMS_DBFS`](crate::loudness::TARGET_RMS_DBFS). Pauses do not count.
    ///
    /// # Errors
    ///
    /// Returns an error if the whole track is below -50 dBFS.
    pub fn normalised(samples: &[f32], sample_rate_hz: u32) -> Result<Self> {
        Ok(Self::amplified(
            samples,
            loudness_gain(samples, sample_rate_hz)?,
        ))
    }

    /// Stores `samples` times `gain`.
    pub fn amplified(samples: &[f32], gain: f32) -> Self {
        let peak = samples
            .iter()
            .fold(f32::EPSILON, |peak, sample| peak.max(sample.abs()));
        let to_full_scale = f32::from(i16::MAX) / peak;
        Self {
            samples: samples
                .iter()
                .map(|sample| (sample * to_full_scale).round() as i16)
                .collect(),
            level: gain / to_full_scale,
        }
    }

    /// The samples times their level.
    pub fn floats(&self) -> Vec<f32> {
        let samples = self.samples.iter();
        samples
            .map(|&sample| f32::from(sample) * self.level)
            .collect()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let rest = bytes
            .strip_prefix(&MAGIC)
            .context("cache file of another version")?;
        let (level, samples) = rest.split_first_chunk().context("incomplete cache file")?;
        let (samples, odd) = samples.as_chunks();
        ensure!(odd.is_empty(), "incomplete cache file");
        Ok(Self {
            level: f32::from_le_bytes(*level),
            samples: samples
                .iter()
                .map(|sample| i16::from_le_bytes(*sample))
                .collect(),
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + 2 * self.samples.len());
        bytes.extend(MAGIC);
        bytes.extend(self.level.to_le_bytes());
        bytes.extend(self.samples.iter().flat_map(|sample| sample.to_le_bytes()));
        bytes
    }
}

/// Why a track could not be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The audio file cannot be used; others may be.
    Track(anyhow::Error),
    /// The cache cannot be written, whatever the file.
    Cache(anyhow::Error),
}

/// A folder of decoded tracks. Each file is named after a hash of the path, size and modification time of its source,
/// and the sample rate.
pub struct AudioCache {
    folder: PathBuf,
    sample_rate_hz: u32,
}

impl AudioCache {
    /// Opens a cache of tracks at `sample_rate_hz` in `folder`, which is created if necessary.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder cannot be created.
    pub fn new(folder: &Path, sample_rate_hz: u32) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the cache folder {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            sample_rate_hz,
        })
    }

    /// Loads the track of an audio file from the cache, or decodes the file and stores the track. `warn` gets what is
    /// noticed while decoding.
    ///
    /// # Errors
    ///
    /// Returns [`LoadError::Track`] if the file cannot be read or is silent, and [`LoadError::Cache`] if the track cannot
    /// be stored, e.g. because the disk is full. The cache is then unchanged.
    pub fn load(&self, path: &Path, warn: impl FnMut(&str)) -> Result<Pcm, LoadError> {
        let cached = self
            .folder
            .join(self.file_name(path).map_err(LoadError::Track)?);
        // On any error, the track is decoded again.
        if let Some(pcm) = fs::read(&cached)
            .ok()
            .and_then(|bytes| Pcm::from_bytes(&bytes).ok())
        {
            return Ok(pcm);
        }
        let pcm = self.decode(path, warn).map_err(LoadError::Track)?;
        self.store(&cached, &pcm).map_err(LoadError::Cache)?;
        Ok(pcm)
    }

    fn decode(&self, path: &Path, warn: impl FnMut(&str)) -> Result<Pcm> {
        let Recording { clip, warnings } = audio_file::read(path)?;
        warnings.iter().map(String::as_str).for_each(warn);
        let mono = audio_file::mono(&clip);
        let mono = audio_file::resample(&mono, clip.sample_rate_hz, self.sample_rate_hz)?;
        Pcm::normalised(&mono, self.sample_rate_hz)
            .with_context(|| format!("cannot use {}", path.display()))
    }

    fn store(&self, cached: &Path, pcm: &Pcm) -> Result<()> {
        whole_file::write(cached, &pcm.to_bytes()).with_context(|| {
            let bytes_per_minute = 60 * size_of::<i16>() * self.sample_rate_hz as usize;
            format!(
                "cannot store decoded audio in the cache folder {}, which takes {:.1} MB for each minute of music: free \
                 space on its disk, or replace the folder by a link to a folder on another disk",
                self.folder.display(),
                bytes_per_minute as f64 / 1e6
            )
        })
    }

    fn file_name(&self, path: &Path) -> Result<String> {
        let describe = || format!("cannot read audio from {}", path.display());
        let metadata = fs::metadata(path).with_context(describe)?;
        let modified = metadata.modified().with_context(describe)?;
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(
            path.canonicalize()
                .with_context(describe)?
                .as_os_str()
                .as_encoded_bytes(),
        );
        hash.update(metadata.len().to_le_bytes());
        hash.update(modified.as_nanos().to_le_bytes());
        hash.update(self.sample_rate_hz.to_le_bytes());
        let name: String = hash.finalize()[..12]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(name + ".pcm")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio_writer::{WavFormat, write_wav};
    use crate::testing::TestFolder;
    use model_runtime::AudioClip;

    const RATE_HZ: u32 = 22_050;

    fn write_sine(path: &Path, hz: f32) {
        let sine = |n: i32| 0.5 * (std::f32::consts::TAU * hz * n as f32 / 44_100.0).sin();
        let clip = AudioClip {
            sample_rate_hz: 44_100,
            channels: vec![(0..44_100).map(sine).collect(); 2],
        };
        write_wav(path, &clip, WavFormat::Pcm16).unwrap();
    }

    #[test]
    fn a_second_run_reads_the_cache_and_a_changed_file_anew() {
        let folder = TestFolder::new("cache");
        let path = folder.path().join("a.wav");
        write_sine(&path, 200.0);
        let cache = AudioCache::new(&folder.path().join("cache"), RATE_HZ).unwrap();
        let first = cache.load(&path, |_| {}).unwrap();
        let cached: Vec<_> = fs::read_dir(folder.path().join("cache"))
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(cached.len(), 1);
        assert_eq!(cache.load(&path, |_| {}).unwrap(), first);

        // A cached track is used while its source is unchanged ...
        let mut other = first.clone();
        other.samples[0] = 123;
        fs::write(cached[0].path(), other.to_bytes()).unwrap();
        assert_eq!(cache.load(&path, |_| {}).unwrap(), other);
        // ... unless the cached track is damaged or its source has changed.
        fs::write(cached[0].path(), b"damaged").unwrap();
        assert_eq!(cache.load(&path, |_| {}).unwrap(), first);
        write_sine(&path, 400.0);
        assert_ne!(cache.load(&path, |_| {}).unwrap(), first);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_not_blamed_on_the_track() {
        let folder = TestFolder::new("cache-full");
        let path = folder.path().join("a.wav");
        write_sine(&path, 200.0);
        let cache_folder = folder.path().join("cache");
        let cache = AudioCache::new(&cache_folder, RATE_HZ).unwrap();
        // As on a full disk, every write fails.
        fs::remove_dir(&cache_folder).unwrap();
        fs::write(&cache_folder, "").unwrap();
        let Err(LoadError::Cache(error)) = cache.load(&path, |_| {}) else {
            panic!("expected an error of the cache");
        };
        let error = format!("{error:#}");
        assert!(error.contains("cache folder") && error.contains("free space"));
        assert!(error.contains(".pcm: "), "{error}");

        fs::write(&path, "no audio").unwrap();
        assert!(matches!(
            cache.load(&path, |_| {}),
            Err(LoadError::Track(_))
        ));
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            cache.load(&path, |_| {}),
            Err(LoadError::Track(_))
        ));
    }

    #[test]
    fn pauses_do_not_count_for_loudness() {
        let sine = |n: i32| 0.3 * (n as f32 * 0.1).sin();
        let mut samples: Vec<f32> = (0..10 * 8820).map(sine).collect();
        let without_pause = Pcm::normalised(&samples, RATE_HZ).unwrap();
        samples.extend([0.0; 20 * 8820]);
        let with_pause = Pcm::normalised(&samples, RATE_HZ).unwrap();
        assert_eq!(with_pause.level, without_pause.level);
        assert!(
            Pcm::normalised(&[0.001; 44_100], RATE_HZ).is_err(),
            "silence was taken"
        );
        assert!(Pcm::normalised(&[], RATE_HZ).is_err(), "nothing was taken");
    }
}
