//! Cache of rendered clips on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use graft_material::audio_cache::Pcm;
use graft_material::whole_file;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::arrange::{Arrangement, Message};

/// Version of the renderer and the file format. Files of other versions are not used.
const VERSION: u32 = 1;

/// The rendered stems of an arrangement.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// Transpositions in semitones, ascending, each with its pitched stem.
    pub pitched: Vec<(i32, Pcm)>,
    /// The drums, if any.
    pub drums: Option<Pcm>,
}

/// A folder of clips. Each file is named after a hash of everything that determines the clip: messages, sound font,
/// length and sample rate.
pub struct ClipCache {
    folder: PathBuf,
    /// Hash of the properties that all clips share.
    hash: Sha256,
}

impl ClipCache {
    /// Opens a cache in `folder`, which is created if necessary, for clips of one length, sample rate and sound font.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder cannot be created.
    pub fn new(
        folder: &Path,
        sound_font_identity: &[u8],
        seconds: f64,
        sample_rate_hz: u32,
    ) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the cache folder {}", folder.display()))?;
        let hash = Sha256::new()
            .chain_update(VERSION.to_le_bytes())
            .chain_update(seconds.to_le_bytes())
            .chain_update(sample_rate_hz.to_le_bytes())
            .chain_update((sound_font_identity.len() as u64).to_le_bytes())
            .chain_update(sound_font_identity);
        Ok(Self {
            folder: folder.to_owned(),
            hash,
        })
    }

    /// Loads the clip of an arrangement, if the cache has a valid one.
    pub fn load(&self, arrangement: &Arrangement) -> Option<Clip> {
        let bytes = fs::read(self.path(arrangement)).ok()?;
        // On any error, the clip is rendered again.
        Clip::from_bytes(&bytes).ok()
    }

    /// Stores the clip of an arrangement.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written.
    pub fn store(&self, arrangement: &Arrangement, clip: &Clip) -> Result<()> {
        whole_file::write(&self.path(arrangement), &clip.to_bytes()?)
    }

    fn path(&self, arrangement: &Arrangement) -> PathBuf {
        let mut hash = self.hash.clone();
        for messages in [&arrangement.pitched, &arrangement.drums] {
            hash.update((messages.len() as u64).to_le_bytes());
            for message in messages {
                let Message {
                    time_s,
                    channel,
                    command,
                    data1,
                    data2,
                } = message;
                hash.update(time_s.to_le_bytes());
                hash.update([*channel, *command, *data1, *data2]);
            }
        }
        hash.update(arrangement.drum_level_db.to_le_bytes());
        for semitones in &arrangement.semitones {
            hash.update(semitones.to_le_bytes());
        }
        let name: String = hash.finalize()[..12]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.folder.join(name + ".clip")
    }
}

impl Clip {
    /// A safetensors file with `semitones`, and the `samples` and `level` of each stem (transpositions, then drums,
    /// if any).
    fn to_bytes(&self) -> Result<Vec<u8>> {
        let stems: Vec<&Pcm> = self
            .pitched
            .iter()
            .map(|(_, pcm)| pcm)
            .chain(&self.drums)
            .collect();
        let length = stems.first().map_or(0, |stem| stem.samples.len());
        let semitones: Vec<u8> = self
            .pitched
            .iter()
            .flat_map(|(semitones, _)| semitones.to_le_bytes())
            .collect();
        let levels: Vec<u8> = stems
            .iter()
            .flat_map(|stem| stem.level.to_le_bytes())
            .collect();
        let samples: Vec<u8> = stems
            .iter()
            .flat_map(|stem| &stem.samples)
            .flat_map(|sample| sample.to_le_bytes())
            .collect();
        let tensors = BTreeMap::from([
            (
                "semitones",
                TensorView::new(Dtype::I32, vec![self.pitched.len()], &semitones)?,
            ),
            (
                "levels",
                TensorView::new(Dtype::F32, vec![stems.len()], &levels)?,
            ),
            (
                "samples",
                TensorView::new(Dtype::I16, vec![stems.len(), length], &samples)?,
            ),
        ]);
        Ok(safetensors::serialize(tensors, None)?)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes)?;
        let semitones = tensors.tensor("semitones")?.data();
        let levels = tensors.tensor("levels")?.data();
        let samples = tensors.tensor("samples")?;
        let [stems, length] = *samples.shape() else {
            anyhow::bail!("expected samples of stems, found {:?}", samples.shape());
        };
        let semitones = semitones
            .as_chunks()
            .0
            .iter()
            .copied()
            .map(i32::from_le_bytes);
        ensure!(
            levels.len() == 4 * stems && (semitones.len()..=semitones.len() + 1).contains(&stems),
            "expected a stem for each transposition and one for drums, found {stems}"
        );
        let mut stems = (levels.as_chunks().0.iter().copied())
            .map(f32::from_le_bytes)
            .zip(samples.data().chunks_exact((2 * length).max(1)))
            .map(|(level, samples)| Pcm {
                samples: (samples.as_chunks().0.iter().copied())
                    .map(i16::from_le_bytes)
                    .collect(),
                level,
            });
        Ok(Self {
            pitched: semitones.zip(&mut stems).collect(),
            drums: stems.next(),
        })
    }
}
