//! Parts of the training of a HiFi-GAN voice (Kong, Kim and Bae, "HiFi-GAN: Generative Adversarial Networks for
//! Efficient and High Fidelity Speech Synthesis", NeurIPS 2020), and of its magnitude network.

pub mod discriminators;
pub mod preview;
pub mod reconstructor;
pub mod segments;
pub mod spectra;
