//! What steers the remix at one point in time.

use std::ops::{Index, IndexMut};

use crate::factor::Factor;
use crate::transport::Beat;

/// What steers the remix at one point in time. Shares are 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Controls {
    /// Of each factor, in the order of [`Factor::ALL`].
    pub factors: [FactorControls; Factor::COUNT],
    /// Share of the generated voice: 0 for the sources' own sound, 1 for that of the model's generator. Ignored without a
    /// generator and in the mode Live.
    pub generated: f32,
    /// How much of the sources is heard above the highest frequency of the generator.
    pub air: f32,
    /// Transposition of the factors that have a pitch.
    pub transpose_semitones: i32,
    /// The place on the beat grid. Written by the audio port.
    pub beat: Beat,
}

/// What steers one factor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FactorControls {
    /// Where the factor comes from: 0 for main, 1 for the sidechain.
    pub share: f32,
    /// Length of the loop that is played if the factor is frozen, in quarter notes.
    pub loop_beats: Option<f64>,
}

impl Controls {
    /// The same controls, with a factor taken to `share` from the sidechain.
    #[must_use]
    pub fn with_share(mut self, factor: Factor, share: f32) -> Self {
        self[factor].share = share;
        self
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
