//! LORD for music (Halfon; after Gabbay and Hoshen, "Demystifying Inter-Class Disentanglement", ICLR 2020): content and instrument of
//! a clip. The networks are in [`model_runtime::lord`].
//!
//! First stage: each clip has a content code and each instrument a code, and both are optimised together with the generator. Noise
//! on the content and a decay of its values make it cheaper to leave to the instrument's code what all its clips have in common.
//! Second stage: encoders learn to give both codes at once, and the generator goes on with them. What the content encoder still tells
//! of the instrument is trained away ([`confusion`]).

pub mod classifier;
pub mod confusion;
pub mod conversions;
pub mod export;
pub mod loss;
pub mod material;
pub mod pictures;
pub mod probe;
#[cfg(test)]
mod tests;
