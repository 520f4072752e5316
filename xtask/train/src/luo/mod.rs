//! Pitch and timbre of a single frame (Luo et al., "Unsupervised Disentanglement of Pitch and Timbre for Isolated Musical
//! Instrument Sounds", ISMIR 2020): [`frames`] of notes, the [`network`], its [`loss`]es and their [`objective`], and what judges it: [`clusters`], [`classifier`]s.

pub mod classifier;
pub mod clusters;
pub mod frames;
pub mod loss;
pub mod network;
pub mod objective;
mod tanh;

#[cfg(test)]
mod tests;
