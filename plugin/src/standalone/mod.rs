//! Parts of the standalone program that need no audio system, so that tests reach them without one.

pub mod beats;
pub mod round_trip;
