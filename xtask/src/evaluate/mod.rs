//! How well a remix carries the harmony of one track and the rhythm of another.
//!
//! - [`margins`]: what is measured;
//! - [`pairs`]: which pieces of music it is measured on;
//! - [`baselines`]: remixes without a network, to compare with;
//! - [`score`]: means over all pairs, and their table.

pub mod baselines;
mod chroma;
pub mod margins;
pub mod pairs;
pub mod score;
mod stft;
#[cfg(test)]
mod test_signal;
