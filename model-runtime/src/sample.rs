//! Single samples of inputs and output, and their sanitising.

/// Audio thread: one sample of both inputs. Values that are not finite count as zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input {
    /// The main input, left and right.
    pub main: [f32; 2],
    /// The sidechain, left and right; zeros when it is missing.
    pub sidechain: [f32; 2],
}

/// Audio thread: one output sample, [`crate::geometry::Geometry::latency_samples`] after its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    /// The main input, delayed.
    pub dry: [f32; 2],
    /// The remix; equal to `dry` while the remix is late, or the sidechain is missing and no frozen loop plays.
    pub remix: [f32; 2],
}

/// Audio thread: replaces NaN and infinity by zero.
pub fn finite_or_zero(sample: f32) -> f32 {
    if sample.is_finite() { sample } else { 0.0 }
}

/// Audio thread: replaces NaN, infinity and denormal numbers by zero.
pub fn normal_or_zero(sample: f32) -> f32 {
    if sample.is_normal() { sample } else { 0.0 }
}
