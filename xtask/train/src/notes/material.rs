//! What a recipe on notes trains on.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{NoteParts, NoteSet, NotesConfig, read_folder};

/// Rendered notes to train on, and recorded ones.
pub struct NotesMaterial {
    /// The rendered notes.
    pub parts: NoteParts,
    /// Recorded notes by the names of their folders, for figures; they are never trained on.
    pub recorded: Vec<(String, NoteSet)>,
}

impl NotesMaterial {
    /// Renders the notes of a recipe and reads folders of recorded notes.
    ///
    /// # Errors
    ///
    /// As [`NotesConfig::render`] and [`read_folder`].
    pub fn load(config: &NotesConfig, folders: &[PathBuf], sample_rate_hz: u32) -> Result<Self> {
        let read = |folder: &PathBuf| {
            let set = read_folder(folder, sample_rate_hz, config.seconds)?;
            Ok((name(folder), set))
        };
        // First, as rendering takes longer than finding out that a folder cannot be used.
        let recorded = folders.iter().map(read).collect::<Result<_>>()?;
        Ok(Self {
            parts: config.render(sample_rate_hz)?,
            recorded,
        })
    }
}

/// Name of a folder in figures.
fn name(folder: &Path) -> String {
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = full.file_name().unwrap_or(full.as_os_str());
    name.to_string_lossy().into_owned()
}
