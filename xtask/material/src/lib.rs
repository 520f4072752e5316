//! What the command line, the trainer and the judge share: sound files in and out, pictures, files that are whole or not there,
//! caches, figures.

pub mod arguments;
pub mod audio_cache;
pub mod audio_file;
pub mod estimate;
pub mod loudness;
pub mod plot;
pub mod png;
pub mod progress;
pub mod rate;
pub mod report;
pub mod testing;
pub mod whole_file;
pub mod workspace;
