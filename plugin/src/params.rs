//! The plugin's parameters: one row each, with its definition for the host and its appearance in the editor.

use std::sync::Arc;

use model_runtime::freeze::{FreezeStore, FrozenLatents};
use model_runtime::{Factor, LatencyMode};
use nice_plug::params::persist::PersistentField;
use nice_plug::prelude::*;

use crate::choices::{FreezeLength, Latency, WindowLength};
use crate::control::{Control, Group, Origin, SetBy, Shown, Tint, Widget};
use crate::editor_size::EditorScale;
use crate::engines::Engine;
use crate::models::ModelChoice;

/// Largest transposition, up or down, in the host's range. It is fixed; the limit of a model is in its header.
const HOST_SEMITONES: i32 = 8;

/// Radius of the main knobs.
const LARGE: f32 = 30.0;
/// Radius of the other knobs.
const SMALL: f32 = 21.0;

/// Generates [`GraftParams`] and [`ParamId`] from a table.
macro_rules! parameters {
    ($($(#[$doc:meta])+ $id:ident, $field:ident, $key:tt: $kind:ty = $new:expr => $shown:expr;)+) => {
        /// All parameters and saved state.
        #[derive(Params)]
        pub struct GraftParams {
            /// Scale of the editor's window.
            #[persist = "editor-scale"]
            pub editor_scale: EditorScale,
            /// The frozen loops.
            #[persist = "frozen"]
            pub frozen: Frozen,
            /// The model.
            #[persist = "model"]
            pub model: ModelChoice,
            $($(#[$doc])+ #[id = $key] pub $field: $kind,)+
        }

        impl Default for GraftParams {
            fn default() -> Self {
                Self {
                    editor_scale: EditorScale::default(),
                    frozen: Frozen::default(),
                    model: ModelChoice::default(),
                    $($field: $new,)+
                }
            }
        }

        /// Identifies a parameter in the editor.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ParamId {
            $($(#[$doc])+ $id,)+
        }

        impl ParamId {
            /// All parameters, in the host's order.
            pub const ALL: &[Self] = &[$(Self::$id),+];

            /// The parameter with this id.
            pub fn of(self, params: &GraftParams) -> &dyn Control {
                match self {
                    $(Self::$id => &params.$field,)+
                }
            }

            /// Its appearance in the editor.
            pub fn shown(self) -> Shown {
                match self {
                    $(Self::$id => $shown,)+
                }
            }
        }
    };
}

// Ids and order are stored in sessions and automation: do not change them.
parameters! {
    /// Source of the harmony: 0 main input, 1 sidechain.
    Harmony, harmony, "harmony": FloatParam = amount("Harmony", 0.0) => Shown {
        name: "Harmony",
        help: "source of chords and notes. 0 is the main input, 1 the sidechain.",
        group: Group::Remix,
        widget: knob([48.0, 86.0], LARGE, Origin::Zero, Tint::Sources),
        set_by: SetBy::Presets,
    };
    /// Source of the rhythm: 0 main input, 1 sidechain.
    Rhythm, rhythm, "rhythm": FloatParam = amount("Rhythm", 1.0) => Shown {
        name: "Rhythm",
        help: "source of the rhythm. 0 is the main input, 1 the sidechain.",
        group: Group::Remix,
        widget: knob([134.0, 86.0], LARGE, Origin::Zero, Tint::Sources),
        set_by: SetBy::Presets,
    };
    /// Whether Rhythm follows Harmony.
    Link, link, "link": BoolParam = BoolParam::new("Link", false) => Shown {
        name: "Link",
        help: "Rhythm follows Harmony, so that one knob morphs from one track to the other.",
        group: Group::Remix,
        widget: switch([67.0, 146.0], [48.0, 24.0], Tint::Remix),
        set_by: SetBy::Presets,
    };
    /// Transposition of the harmony, in semitones.
    Transpose, transpose, "transpose": IntParam = semitones("Transpose") => Shown {
        name: "Transpose",
        help: "shifts the harmony by semitones; with Timbre and Envelope the notes, while the colour stays.",
        group: Group::Remix,
        widget: knob([218.0, 86.0], LARGE, Origin::Default, Tint::Remix),
        set_by: SetBy::Presets,
    };
    /// Whether the harmony is frozen.
    FreezeHarmony, freeze_harmony, "freeze-harmony": BoolParam = BoolParam::new("Freeze Harmony", false) => Shown {
        name: "Harmony",
        help: "loops the last beats of the harmony.",
        group: Group::Freeze,
        widget: switch([12.0, 36.0], [92.0, 26.0], Tint::Remix),
        set_by: SetBy::Presets,
    };
    /// Whether the rhythm is frozen.
    FreezeRhythm, freeze_rhythm, "freeze-rhythm": BoolParam = BoolParam::new("Freeze Rhythm", false) => Shown {
        name: "Rhythm",
        help: "loops the last beats of the rhythm.",
        group: Group::Freeze,
        widget: switch([12.0, 70.0], [92.0, 26.0], Tint::Remix),
        set_by: SetBy::Presets,
    };
    /// Length of a frozen loop.
    FreezeLength, freeze_length, "freeze-length": EnumParam<FreezeLength> = EnumParam::new("Freeze Length", FreezeLength::Four) => Shown {
        name: "Length in beats",
        help: "length of the frozen loop, in beats.",
        group: Group::Freeze,
        widget: choice(110.8, 127.0, FreezeLength::words),
        set_by: SetBy::Presets,
    };
    /// Blend of guided voice, 0, and generated voice, 1.
    Voice, voice, "voice": FloatParam = amount("Voice", 0.0) => Shown {
        name: "Voice",
        help: "0 filters the sound of the inputs, 1 uses the model’s own voice.",
        group: Group::Remix,
        widget: knob([284.0, 66.0], SMALL, Origin::Zero, Tint::Voice),
        set_by: SetBy::Comparing,
    };
    /// Level of the inputs above the highest frequency of the generator.
    Air, air, "air": FloatParam = amount("Air", 1.0) => Shown {
        name: "Air",
        help: "level of the inputs above 11 kHz, where the model’s voice ends.",
        group: Group::Remix,
        widget: knob([284.0, 146.0], SMALL, Origin::Zero, Tint::Voice),
        set_by: SetBy::Comparing,
    };
    /// Grid on which windows end.
    Window, window, "window": EnumParam<WindowLength> = EnumParam::new("Window", WindowLength::OneBeat) => Shown {
        name: "Window in beats",
        help: "processing grid, in beats. Inaudible; the latency does not change.",
        group: Group::Processing,
        widget: choice(30.0, 44.0, WindowLength::words),
        set_by: SetBy::Comparing,
    };
    /// How much look-ahead the remix uses. Takes effect when the host restarts the plugin.
    Latency, latency, "latency": EnumParam<Latency> = latency(LatencyMode::Default) => Shown {
        name: "Latency",
        help: "Live has the lowest latency, Full the best sound. Takes effect when the host restarts the plugin.",
        group: Group::Processing,
        widget: choice(73.0, 87.0, Latency::variants),
        set_by: SetBy::Nothing,
    };
    /// The engine. Takes effect when the host restarts the plugin.
    Engine, engine, "engine": EnumParam<Engine> = EnumParam::new("Engine", Engine::Network).non_automatable() => Shown {
        name: "Engine",
        help: Engine::HELP,
        group: Group::Processing,
        widget: choice(116.0, 130.0, Engine::variants),
        set_by: SetBy::Nothing,
    };
    /// Gain of the main input.
    MainGain, main_gain, "main-gain": FloatParam = gain("Main Gain") => Shown {
        name: "Main",
        help: "gain of the main input.",
        group: Group::Levels,
        widget: knob([40.0, 136.0], SMALL, Origin::Default, Tint::Main),
        set_by: SetBy::Comparing,
    };
    /// Gain of the sidechain.
    SidechainGain, sidechain_gain, "sidechain-gain": FloatParam = gain("Sidechain Gain") => Shown {
        name: "Sidechain",
        help: "gain of the sidechain.",
        group: Group::Levels,
        widget: knob([108.0, 136.0], SMALL, Origin::Default, Tint::Sidechain),
        set_by: SetBy::Comparing,
    };
    /// Mix of the delayed main input, 0, and the remix, 1.
    Mix, mix, "mix": FloatParam = amount("Mix", 1.0) => Shown {
        name: "Mix",
        help: "0 is the dry main input, 1 the remix. Both are time-aligned.",
        group: Group::Levels,
        widget: knob([176.0, 136.0], SMALL, Origin::Zero, Tint::Remix),
        set_by: SetBy::Presets,
    };
    /// Gain of the output.
    OutputGain, output_gain, "output-gain": FloatParam = gain("Output Gain") => Shown {
        name: "Output",
        help: "output gain.",
        group: Group::Levels,
        widget: knob([244.0, 136.0], SMALL, Origin::Default, Tint::Remix),
        set_by: SetBy::Comparing,
    };
    /// Whether the delayed main input passes unprocessed.
    Bypass, bypass, "bypass": BoolParam = BoolParam::new("Bypass", false).make_bypass() => Shown {
        name: "Bypass",
        help: "passes the main input unprocessed, delayed by the reported latency.",
        group: Group::Toolbar,
        widget: switch([872.0, 13.0], [76.0, 26.0], Tint::Warning),
        set_by: SetBy::Nothing,
    };
    /// Source of the colour: 0 main input, 1 sidechain.
    Timbre, timbre, "timbre": FloatParam = amount("Timbre", 1.0) => Shown {
        name: "Timbre",
        help: "source of the colour, a mean over two seconds of sound. 0 is the main input, 1 the sidechain.",
        group: Group::Remix,
        widget: knob([48.0, 86.0], LARGE, Origin::Zero, Tint::Sources),
        set_by: SetBy::Presets,
    };
    /// Source of the fine structure: 0 main input, 1 sidechain.
    Pitch, pitch, "pitch": FloatParam = amount("Pitch", 0.0) => Shown {
        name: "Pitch",
        help: "source of the notes. 0 is the main input, 1 the sidechain; in between, both play.",
        group: Group::Remix,
        widget: knob([134.0, 86.0], LARGE, Origin::Zero, Tint::Sources),
        set_by: SetBy::Presets,
    };
    /// Source of level and colour over time: 0 main input, 1 sidechain.
    Variation, variation, "variation": FloatParam = amount("Variation", 0.0) => Shown {
        name: "Variation",
        help: "source of the articulation: level and colour over time. 0 is the main input, 1 the sidechain.",
        group: Group::Remix,
        widget: knob([284.0, 86.0], SMALL, Origin::Zero, Tint::Sources),
        set_by: SetBy::Presets,
    };
    /// Whether the colour is frozen.
    FreezeTimbre, freeze_timbre, "freeze-timbre": BoolParam = BoolParam::new("Freeze Timbre", false) => Shown {
        name: "Timbre",
        help: "keeps the present colour, also without a sidechain and in the saved session.",
        group: Group::Freeze,
        widget: switch([12.0, 36.0], [92.0, 26.0], Tint::Remix),
        set_by: SetBy::Presets,
    };
}

impl ParamId {
    /// Whether the parameter has an effect with this engine. The editor hides the others.
    pub fn is_of(self, engine: Engine) -> bool {
        let has = |factor| engine.factors().contains(&factor);
        match self {
            Self::Harmony | Self::Link => has(Factor::Harmony),
            Self::Rhythm => has(Factor::Rhythm),
            Self::FreezeHarmony
            | Self::FreezeRhythm
            | Self::FreezeLength
            | Self::Voice
            | Self::Air => engine == Engine::Network,
            Self::Transpose => !matches!(engine, Engine::Split | Engine::Morph),
            Self::Timbre | Self::FreezeTimbre => has(Factor::Timbre),
            Self::Pitch => has(Factor::Pitch),
            Self::Variation => has(Factor::Variation),
            _ => true,
        }
    }
}

impl GraftParams {
    /// The parameters with another default of the latency mode.
    pub(crate) fn in_mode(mode: LatencyMode) -> Self {
        Self {
            latency: latency(mode),
            ..Self::default()
        }
    }
}

fn amount(name: &str, default: f32) -> FloatParam {
    FloatParam::new(name, default, FloatRange::Linear { min: 0.0, max: 1.0 })
        .with_value_to_string(formatters::v2s_f32_rounded(2))
}

/// A gain of -60 to 12 dB, shown in dB.
fn gain(name: &str) -> FloatParam {
    let (min_db, max_db) = (-60.0, 12.0);
    let range = FloatRange::Skewed {
        min: util::db_to_gain(min_db),
        max: util::db_to_gain(max_db),
        factor: FloatRange::gain_skew_factor(min_db, max_db),
    };
    FloatParam::new(name, 1.0, range)
        .with_unit(" dB")
        .with_value_to_string(formatters::v2s_f32_gain_to_db(1))
        .with_string_to_value(formatters::s2v_f32_gain_to_db())
}

fn latency(default: LatencyMode) -> EnumParam<Latency> {
    EnumParam::new("Latency", Latency(default)).non_automatable()
}

fn semitones(name: &str) -> IntParam {
    let range = IntRange::Linear {
        min: -HOST_SEMITONES,
        max: HOST_SEMITONES,
    };
    IntParam::new(name, 0, range).with_unit(" st")
}

const fn knob(center: [f32; 2], radius: f32, origin: Origin, tint: Tint) -> Widget {
    Widget::Knob {
        center,
        radius,
        origin,
        tint,
    }
}

const fn switch(corner: [f32; 2], size: [f32; 2], tint: Tint) -> Widget {
    Widget::Switch { corner, size, tint }
}

const fn choice(name_top: f32, top: f32, words: fn() -> &'static [&'static str]) -> Widget {
    Widget::Choice {
        name_top,
        top,
        words,
    }
}

/// The frozen latents, saved with the plugin's state.
#[derive(Default)]
pub struct Frozen(pub Arc<FreezeStore>);

impl PersistentField<'_, FrozenLatents> for Frozen {
    fn set(&self, latents: FrozenLatents) {
        self.0.set(latents);
    }

    fn map<F, R>(&self, f: F) -> R
    where
        F: Fn(&FrozenLatents) -> R,
    {
        f(&self.0.get())
    }
}

#[cfg(test)]
mod tests {
    use model_runtime::Model;

    use super::*;

    #[test]
    fn every_choice_has_a_word_for_each_value() {
        let params = GraftParams::default();
        for id in ParamId::ALL {
            if let Widget::Choice { words, .. } = id.shown().widget {
                let steps = id.of(&params).steps();
                assert_eq!(steps, Some(words().len() - 1), "{id:?}");
            }
        }
    }

    #[test]
    fn the_built_in_models_can_do_all_transpositions() {
        for model in [Model::built_in(), Model::built_in_timbre()] {
            let most = model.unwrap().header().max_shift_semitones;
            assert!(most >= HOST_SEMITONES as u32, "{most}");
        }
    }
}
