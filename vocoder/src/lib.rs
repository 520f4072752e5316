//! Placeholder.
/// a
pub mod conv;
/// a
pub mod layers;
