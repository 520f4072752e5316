//! Shared code of the command line, the trainer and the evaluation: audio files, plots, atomic file writing, caches
//! and reports.

pub mod arguments;
pub mod audio_cache;
pub mod audio_file;
pub mod audio_writer;
pub mod editor_packages;
pub mod estimate;
pub mod exit;
pub mod folder;
pub mod loudness;
pub mod mac_bundle;
pub mod plot;
pub mod png;
pub mod progress;
pub mod rate;
pub mod report;
pub mod testing;
pub mod whole_file;
pub mod workspace;
