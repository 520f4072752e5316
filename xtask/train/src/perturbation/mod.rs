//! Changes of a single sound that leave one of its properties alone (Tanaka et al., "Unsupervised Disentanglement of Timbral, Pitch, and
//! Variation Features From Musical Instrument Sounds With Random Perturbation", APSIPA 2022): spectra of the shifted sound keep its
//! envelope ([`spectra`]), effects keep its pitch ([`effects`]), and a lifter separates both in a spectrum ([`lifter`]).

pub mod effects;
pub mod lifter;
pub mod spectra;
