//! HARD encoder and decoder, and the remix that they make, whole or in steps.

pub mod credit;
pub mod delay;
pub mod packet;
pub mod status;
pub mod worker;
