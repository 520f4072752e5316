//! Isolated notes.

pub mod programs;
