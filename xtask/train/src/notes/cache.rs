//! Cache of rendered notes on disk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use graft_material::audio_cache::Pcm;
use graft_material::whole_file;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::NotesConfig;
use super::rendering::Player;

/// Version of the renderer and the file format. Files of other versions are not used.
const VERSION: u32 = 1;

/// A folder with one file for each instrument, named after a hash of everything that determines its notes: sound font, keys,
/// velocities, length and sample rate.
pub struct NoteCache {
    folder: PathBuf,
    /// Hash of what all instruments share.
    hash: Sha256,
    key_step: u8,
    velocities: usize,
}

impl NoteCache {
    /// Opens a cache in `folder`, which is created if necessary.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder cannot be created.
    pub fn new(
        folder: &Path,
        sound_font_identity: &[u8],
        config: &NotesConfig,
        sample_rate_hz: u32,
    ) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the cache folder {}", folder.display()))?;
        let hash = Sha256::new()
            .chain_update(VERSION.to_le_bytes())
            .chain_update((sound_font_identity.len() as u64).to_le_bytes())
            .chain_update(sound_font_identity)
            .chain_update(config.seconds.to_le_bytes())
            .chain_update(sample_rate_hz.to_le_bytes())
            .chain_update((config.velocities.len() as u64).to_le_bytes())
            .chain_update(&config.velocities);
        Ok(Self {
            folder: folder.to_owned(),
            hash,
            key_step: config.key_step,
            velocities: config.velocities.len(),
        })
    }

    /// Loads the notes of an instrument, if the cache has a valid file of them.
    pub fn load(&self, player: Player) -> Option<Vec<Pcm>> {
        let bytes = fs::read(self.path(player)).ok()?;
        // On any error, the notes are rendered again.
        let notes = from_bytes(&bytes).ok()?;
        let expected = player.keys(self.key_step).len() * self.velocities;
        (notes.len() == expected).then_some(notes)
    }

    /// Stores the notes of an instrument.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written.
    pub fn store(&self, player: Player, notes: &[Pcm]) -> Result<()> {
        whole_file::write(&self.path(player), &to_bytes(notes)?)
    }

    fn path(&self, player: Player) -> PathBuf {
        let hash = self.hash.clone().chain_update([player.number()]);
        let hash = hash.chain_update(player.keys(self.key_step)).finalize();
        let name: String = hash[..12].iter().map(|b| format!("{b:02x}")).collect();
        self.folder.join(name + ".notes")
    }
}

/// A safetensors file with the `samples` (notes, samples) and `levels` (notes).
fn to_bytes(notes: &[Pcm]) -> Result<Vec<u8>> {
    let length = notes.first().map_or(0, |note| note.samples.len());
    let samples = notes.iter().flat_map(|note| &note.samples);
    let samples: Vec<u8> = samples.flat_map(|sample| sample.to_le_bytes()).collect();
    let levels = notes.iter().flat_map(|note| note.level.to_le_bytes());
    let levels: Vec<u8> = levels.collect();
    let tensors = [
        (
            "levels",
            TensorView::new(Dtype::F32, vec![notes.len()], &levels)?,
        ),
        (
            "samples",
            TensorView::new(Dtype::I16, vec![notes.len(), length], &samples)?,
        ),
    ];
    Ok(safetensors::serialize(tensors, None)?)
}

fn from_bytes(bytes: &[u8]) -> Result<Vec<Pcm>> {
    let tensors = SafeTensors::deserialize(bytes)?;
    let levels = tensors.tensor("levels")?;
    let samples = tensors.tensor("samples")?;
    let [notes, length] = *samples.shape() else {
        anyhow::bail!("expected samples of notes, found {:?}", samples.shape());
    };
    ensure!(
        levels.shape() == [notes] && length > 0,
        "expected a level for each of {notes} notes, found {:?}",
        levels.shape()
    );
    let levels = levels.data().as_chunks().0.iter();
    let notes = samples.data().chunks_exact(2 * length);
    Ok(levels
        .zip(notes)
        .map(|(level, samples)| {
            let samples = samples.as_chunks().0.iter();
            Pcm {
                samples: samples.map(|sample| i16::from_le_bytes(*sample)).collect(),
                level: f32::from_le_bytes(*level),
            }
        })
        .collect())
}
