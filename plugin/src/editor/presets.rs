//! Factory presets and A/B comparison.

use nice_plug::prelude::Param;

use super::panel::Panel;
use crate::control::SetBy;
use crate::engines::Engine;
use crate::params::GraftParams;
use crate::params::ParamId::{
    self, FreezeHarmony, FreezeLength, FreezeRhythm, Harmony, Link, Mix, Rhythm, Timbre, Transpose,
    Variation,
};

/// A named setting.
pub struct Preset {
    /// The name.
    pub name: &'static str,
    /// Its tooltip.
    pub help: &'static str,
    /// The engine that it is made for.
    engine: Engine,
    /// Parameter values as text. All other parameters with [`SetBy::Presets`] that the engine has are reset to their defaults.
    values: &'static [(ParamId, &'static str)],
}

/// The parameters of an engine that presets set.
fn reset(engine: Engine) -> impl Iterator<Item = ParamId> {
    let all = ParamId::ALL.iter().copied();
    all.filter(move |id| id.shown().set_by == SetBy::Presets && id.is_of(engine))
}

/// The factory presets.
pub const FACTORY: [Preset; 12] = [
    Preset {
        name: "Swap the groove",
        help: "Chords of the main input, rhythm of the sidechain. The default.",
        engine: Engine::Network,
        values: &[],
    },
    Preset {
        name: "Swap the chords",
        help: "Chords of the sidechain, rhythm of the main input.",
        engine: Engine::Network,
        values: &[(Harmony, "1"), (Rhythm, "0")],
    },
    Preset {
        name: "Borrow some groove",
        help: "Rhythm halfway between main input and sidechain.",
        engine: Engine::Network,
        values: &[(Rhythm, "0.5")],
    },
    Preset {
        name: "Groove beneath the song",
        help: "The dry main input and the remix, in equal parts.",
        engine: Engine::Network,
        values: &[(Mix, "0.5")],
    },
    Preset {
        name: "Morph with one knob",
        help: "Harmony and Rhythm linked: turn Harmony to morph from one track to the other.",
        engine: Engine::Network,
        values: &[(Link, "on"), (Harmony, "0.5")],
    },
    Preset {
        name: "Freeze the groove",
        help: "Loops the last four beats of the rhythm.",
        engine: Engine::Network,
        values: &[(FreezeRhythm, "on")],
    },
    Preset {
        name: "Freeze the chord",
        help: "Holds the last beat of the harmony; the sidechain’s rhythm continues.",
        engine: Engine::Network,
        values: &[(FreezeHarmony, "on"), (FreezeLength, "1 beat")],
    },
    Preset {
        name: "A fifth up",
        help: "The harmony, seven semitones up.",
        engine: Engine::Network,
        values: &[(Transpose, "7")],
    },
    Preset {
        name: "A fourth down",
        help: "The harmony, five semitones down.",
        engine: Engine::Network,
        values: &[(Transpose, "-5")],
    },
    Preset {
        name: "Piano speaks like a trumpet",
        help: "Engine Timbre. The notes of main, spoken by the sidechain: its colour and its articulation.",
        engine: Engine::Timbre,
        values: &[(Variation, "1")],
    },
    Preset {
        name: "One-shot to instrument",
        help: "Engine Timbre. Main plays on, with the colour of the sidechain. Freeze Timbre keeps it.",
        engine: Engine::Timbre,
        values: &[],
    },
    Preset {
        name: "Plucked pad",
        help: "Engine Timbre. Notes and colour of main, plucked by the sidechain.",
        engine: Engine::Timbre,
        values: &[(Timbre, "0"), (Variation, "1")],
    },
];

impl Preset {
    /// The differences from a new instance: parameter names, and values as text.
    pub fn words(&self) -> Vec<(String, String)> {
        let params = GraftParams::default();
        let values = self.values.iter();
        let words = values.map(|&(id, word)| (id, word.to_owned()));
        let engine = self.chosen_engine().map(|word| (ParamId::Engine, word));
        words
            .chain(engine)
            .map(|(id, word)| (id.of(&params).label().to_owned(), word))
            .collect()
    }

    /// Names of the parameters that it sets.
    pub fn parameters(&self) -> Vec<String> {
        let params = GraftParams::default();
        let engine = self.chosen_engine().map(|_| ParamId::Engine);
        let names = reset(self.engine).chain(engine);
        names.map(|id| id.of(&params).label().to_owned()).collect()
    }

    /// The engine, as text, if a file of the preset has to choose it. Presets of the default engine suit others as well.
    fn chosen_engine(&self) -> Option<String> {
        let params = GraftParams::default();
        let is_default = self.engine.factors() == params.engine.value().factors();
        (!is_default).then(|| {
            params
                .engine
                .normalized_value_to_string(params.engine.preview_normalized(self.engine), true)
        })
    }

    /// Applies the preset as one undo step. Changes the engine if the one in use has other parameters.
    pub(super) fn apply(&self, panel: &mut Panel) {
        let mut values = Vec::new();
        for id in reset(self.engine) {
            let control = panel.control(id);
            let word = self.values.iter().find(|(other, _)| *other == id);
            let value = word.and_then(|(_, word)| control.parse(word));
            values.push((id, value.unwrap_or_else(|| control.default_value())));
        }
        let engine = &panel.params.engine;
        if engine.value().factors() != self.engine.factors() {
            values.push((ParamId::Engine, engine.preview_normalized(self.engine)));
        }
        panel.set_all(&values);
    }
}

/// The A/B comparison of two settings.
#[derive(Default)]
pub(super) struct Compare {
    is_b: bool,
    /// The inactive setting, once there is one.
    other: Option<Vec<(ParamId, f32)>>,
}

impl Compare {
    /// Whether setting B is active.
    pub fn is_b(&self) -> bool {
        self.is_b
    }

    /// Switches to the other setting. The first time, both are the same.
    pub fn switch(&mut self, panel: &mut Panel) {
        let now = values(panel);
        if let Some(other) = self.other.replace(now) {
            panel.set_all(&other);
        }
        self.is_b = !self.is_b;
    }

    /// Copies the current setting to the other one.
    pub fn copy(&mut self, panel: &Panel) {
        self.other = Some(values(panel));
    }
}

/// The values of all parameters that take part in the comparison.
fn values(panel: &Panel) -> Vec<(ParamId, f32)> {
    let compared = ParamId::ALL.iter().copied();
    let compared = compared.filter(|id| id.shown().set_by != SetBy::Nothing);
    compared.map(|id| (id, panel.value(id))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_understand_every_preset() {
        let params = GraftParams::default();
        for preset in &FACTORY {
            for (id, word) in preset.values {
                assert!(
                    reset(preset.engine).any(|other| other == *id),
                    "{}: {id:?}",
                    preset.name
                );
                let control = id.of(&params);
                let value = control.parse(word);
                let is_new = value.is_some_and(|value| value != control.default_value());
                assert!(is_new, "{}: {id:?} to {word}: {value:?}", preset.name);
            }
        }
    }
}
