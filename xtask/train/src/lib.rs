//! Training of the networks, the HiFi-GAN voice and the magnitude network, and export of the result.

pub mod adversary;
pub mod assemble;
pub mod batches;
pub mod checkpoint;
pub mod critic;
mod csv_table;
pub mod curves;
pub mod dataset;
pub mod device;
pub mod discriminator;
pub mod equaliser;
pub mod export;
pub mod gru;
pub mod import_hifigan;
pub mod loss;
pub mod luo;
pub mod midi;
pub mod noise;
pub mod notes;
pub mod optim;
pub mod parameters;
pub mod perturbation;
pub mod pitch_guide;
pub mod preview;
mod product;
pub mod recipe;
pub mod run;
pub mod sampler;
pub mod shifted_mel;
pub mod spectral_norm;
pub mod tanaka;
pub mod train;
pub mod trainee;
pub mod voice;
#[cfg(test)]
mod wave;
pub mod weights;
