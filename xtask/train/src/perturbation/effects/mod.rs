//! The nine effects that disturb a sound's colour, at the default settings of pedalboard (Spotify), which Tanaka et al. used.
//!
//! All are written from publications, or are textbook filters. The settings that no publication gives, such as the range of a
//! modulation, were fitted to what pedalboard plays; `tests` compares both.

mod bitcrush;
mod chorus;
mod codec;
mod distortion;
mod ladder;
mod one_pole;
mod phaser;
mod resample;
mod reverb;

#[cfg(test)]
mod tests;

/// An effect on mono sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Mix with the sound from a delay line whose length swings.
    Chorus,
    /// Hyperbolic tangent of the amplified sound.
    Distortion,
    /// Mix with the sound behind six all-pass filters whose frequency swings.
    Phaser,
    /// Two of four poles of a Moog ladder at 200 Hz.
    LadderFilter,
    /// One pole at 50 Hz.
    HighpassFilter,
    /// One pole at 50 Hz.
    LowpassFilter,
    /// Freeverb.
    Reverb,
    /// The full-rate speech codec of GSM, in floating point.
    GsmFullRateCompressor,
    /// Rounding to 8 bits.
    Bitcrush,
}

impl Effect {
    /// All effects.
    pub const ALL: [Self; 9] = [
        Self::Chorus,
        Self::Distortion,
        Self::Phaser,
        Self::LadderFilter,
        Self::HighpassFilter,
        Self::LowpassFilter,
        Self::Reverb,
        Self::GsmFullRateCompressor,
        Self::Bitcrush,
    ];

    /// Replaces `samples` (full scale -1 to 1) by what the effect makes of them, starting from silence.
    pub fn apply(self, samples: &mut [f32], sample_rate_hz: u32) {
        let rate_hz = f64::from(sample_rate_hz);
        match self {
            Self::Chorus => chorus::apply(samples, rate_hz),
            Self::Distortion => distortion::apply(samples),
            Self::Phaser => phaser::apply(samples, rate_hz),
            Self::LadderFilter => ladder::apply(samples, rate_hz),
            Self::HighpassFilter => one_pole::high_pass(samples, rate_hz),
            Self::LowpassFilter => one_pole::low_pass(samples, rate_hz),
            Self::Reverb => reverb::apply(samples, sample_rate_hz),
            Self::GsmFullRateCompressor => codec::apply(samples, sample_rate_hz),
            Self::Bitcrush => bitcrush::apply(samples),
        }
    }
}
