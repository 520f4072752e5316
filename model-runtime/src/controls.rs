//! The parameters of the remix at one point in time.

use std::ops::{Index, IndexMut};

use crate::factor::Factor;
use crate::transport::Beat;

/// The parameters of the remix at one point in time. Shares range from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Controls {
    /// One entry per factor, in the order of [`Factor::ALL`].
    pub factors: [FactorControls; Factor::COUNT],
    /// Share of the generated voice: 0 for the guided voice, 1 for the model's generator. Ignored without a generator
    /// and in the mode Live.
    pub generated: f32,
    /// Level of the inputs above the highest frequency of the generator.
    pub air: f32,
    /// Transposition, in semitones, of the factors that have a pitch.
    pub transpose_semitones: i32,
    /// Position on the beat grid. Set by the audio port.
    pub beat: Beat,
}

/// The parameters of one factor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FactorControls {
    /// Source of the factor: 0 is the main input, 1 the sidechain.
    pub share: f32,
    /// Length of the loop if the factor is frozen, in quarter notes.
    pub loop_beats: Option<f64>,
}

impl Controls {
    /// The same controls, with `share` for one factor.
    #[must_use]
    pub fn with_share(mut self, factor: Factor, share: f32) -> Self {
        self[factor].share = share;
        self
    }

    /// Freezes no factor.
    pub(crate) fn unfreeze(&mut self) {
        for factor in &mut self.factors {
            factor.loop_beats = None;
        }
    }
}

impl Index<Factor> for Controls {
    type Output = FactorControls;

    fn index(&self, factor: Factor) -> &FactorControls {
        &self.factors[factor as usize]
    }
}

impl IndexMut<Factor> for Controls {
    fn index_mut(&mut self, factor: Factor) -> &mut FactorControls {
        &mut self.factors[factor as usize]
    }
}
