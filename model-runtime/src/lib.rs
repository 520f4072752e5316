//! HARD encoder and decoder, and the remix they make, whole or in steps.

mod audio;

pub use audio::AudioClip;
