//! Timbre, pitch and variation of single notes (Tanaka et al., "Unsupervised Disentanglement of Timbral, Pitch, and Variation Features
//! From Musical Instrument Sounds With Random Perturbation", APSIPA 2022).
//!
//! Two encoders hear the spectral envelope of a note that was shifted in pitch, a third one hears the fine structure of the note
//! behind two random effects ([`crate::perturbation`]); the decoder makes the unchanged spectrogram. So the pitch must come from
//! the third, and the colour from the first two, of which one has a single vector for the whole note.

pub mod batches;
pub mod loss;
pub mod network;
pub mod pictures;

#[cfg(test)]
mod tests;
