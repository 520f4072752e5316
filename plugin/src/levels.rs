//! Audio thread: what the parameters set: levels, each with its ramp, and the controls of the remix.

use model_runtime::{Controls, Factor};
use nice_plug::prelude::BoolParam;

use crate::choices::FreezeLength;
use crate::engines::Engine;
use crate::params::GraftParams;
use crate::ramp::Ramp;

/// Generates [`Levels`] and [`Ramps`] from a table.
macro_rules! levels {
    ($($name:ident: $target:expr;)+) => {
        /// Values of these parameters at a sample; switches are 0 or 1.
        #[derive(Clone, Copy, Default)]
        pub struct Levels {
            $(pub $name: f32,)+
        }

        impl Levels {
            /// The current values of the parameters, as targets of the ramps.
            pub fn targets(params: &GraftParams) -> Self {
                let target = |target: fn(&GraftParams) -> f32| target(params);
                Self {
                    $($name: target($target),)+
                }
            }
        }

        /// The ramps of [`Levels`].
        pub struct Ramps {
            $($name: Ramp,)+
        }

        impl Ramps {
            /// Creates ramps at 0.
            pub fn new(sample_rate_hz: f32) -> Self {
                Self {
                    $($name: Ramp::new(sample_rate_hz),)+
                }
            }

            /// Jumps to the current values of the parameters.
            pub fn settle(&mut self, params: &GraftParams) {
                let targets = Levels::targets(params);
                $(self.$name.settle(targets.$name);)+
            }

            /// Whether all ramps have reached their last targets.
            pub fn are_settled(&self) -> bool {
                true $(&& self.$name.is_settled())+
            }

            /// Moves all ramps towards their targets by one sample.
            pub fn next(&mut self, targets: &Levels) -> Levels {
                Levels {
                    $($name: self.$name.next(targets.$name),)+
                }
            }
        }
    };
}

levels! {
    main_gain: |params| params.main_gain.value();
    sidechain_gain: |params| params.sidechain_gain.value();
    mix: |params| params.mix.value();
    output_gain: |params| params.output_gain.value();
    harmony: |params| params.harmony.value();
    rhythm: |params| params.rhythm.value();
    link: |params| switched(&params.link);
    timbre: |params| params.timbre.value();
    pitch: |params| params.pitch.value();
    variation: |params| params.variation.value();
    bypass: |params| switched(&params.bypass);
}

fn switched(switch: &BoolParam) -> f32 {
    f32::from(u8::from(switch.value()))
}

impl Levels {
    /// Sets the controls that change per sample: the source of each factor.
    pub fn set_factors(&self, controls: &mut Controls) {
        controls[Factor::Harmony].share = self.harmony;
        controls[Factor::Rhythm].share = self.rhythm * (1.0 - self.link) + self.harmony * self.link;
        controls[Factor::Timbre].share = self.timbre;
        controls[Factor::Pitch].share = self.pitch;
        controls[Factor::Variation].share = self.variation;
    }
}

/// The controls that change per block. The engine has to know nothing of frozen factors that are not its own.
pub fn block_controls(params: &GraftParams, engine: Engine) -> Controls {
    let mut controls = Controls {
        generated: params.voice.value(),
        air: params.air.value(),
        transpose_semitones: params.transpose.value(),
        ..Controls::default()
    };
    let length = params.freeze_length.value();
    for (factor, freeze, length) in [
        (Factor::Harmony, &params.freeze_harmony, length),
        (Factor::Rhythm, &params.freeze_rhythm, length),
        // A colour hardly moves.
        (Factor::Timbre, &params.freeze_timbre, FreezeLength::One),
    ] {
        let is_frozen = freeze.value() && engine.factors().contains(&factor);
        controls[factor].loop_beats = is_frozen.then(|| length.beats());
    }
    controls
}
