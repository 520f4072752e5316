//! Factory presets and A/B comparison.

use super::panel::Panel;
use crate::control::SetBy;
use crate::params::GraftParams;
use crate::params::ParamId::{
    self, FreezeHarmony, FreezeLength, FreezeRhythm, Harmony, Link, Mix, Rhythm, Transpose,
};

/// A named setting.
pub struct Preset {
    /// The name.
    pub name: &'static str,
    /// Its tooltip.
    pub help: &'static str,
    /// Parameter values as text. All other parameters with [`SetBy::Presets`] are reset to their defaults.
    values: &'static [(ParamId, &'static str)],
}

/// The parameters that presets set.
fn reset() -> impl Iterator<Item = ParamId> {
    let all = ParamId::ALL.iter().copied();
    all.filter(|id| id.shown().set_by == SetBy::Presets)
}

/// The factory presets.
pub const FACTORY: [Preset; 9] = [
    Preset {
        name: "Swap the groove",
        help: "Chords of the main input, rhythm of the sidechain. The default.",
        values: &[],
    },
    Preset {
        name: "Swap the chords",
        help: "Chords of the sidechain, rhythm of the main input.",
        values: &[(Harmony, "1"), (Rhythm, "0")],
    },
    Preset {
        name: "Borrow some groove",
        help: "Rhythm halfway between main input and sidechain.",
        values: &[(Rhythm, "0.5")],
    },
    Preset {
        name: "Groove beneath the song",
        help: "The dry main input and the remix, in equal parts.",
        values: &[(Mix, "0.5")],
    },
    Preset {
        name: "Morph with one knob",
        help: "Harmony and Rhythm linked: turn Harmony to morph from one track to the other.",
        values: &[(Link, "on"), (Harmony, "0.5")],
    },
    Preset {
        name: "Freeze the groove",
        help: "Loops the last four beats of the rhythm.",
        values: &[(FreezeRhythm, "on")],
    },
    Preset {
        name: "Freeze the chord",
        help: "Holds the last beat of the harmony; the sidechain’s rhythm continues.",
        values: &[(FreezeHarmony, "on"), (FreezeLength, "1 beat")],
    },
    Preset {
        name: "A fifth up",
        help: "The harmony, seven semitones up.",
        values: &[(Transpose, "7")],
    },
    Preset {
        name: "A fourth down",
        help: "The harmony, five semitones down.",
        values: &[(Transpose, "-5")],
    },
];

impl Preset {
    /// The differences from a new instance: parameter names, and values as text.
    pub fn words(&self) -> Vec<(String, &'static str)> {
        let params = GraftParams::default();
        let values = self.values.iter();
        values
            .map(|(id, word)| (id.of(&params).label().to_owned(), *word))
            .collect()
    }

    /// Names of the parameters that presets set.
    pub fn parameters() -> Vec<String> {
        let params = GraftParams::default();
        let names = reset().map(|id| id.of(&params).label().to_owned());
        names.collect()
    }

    /// Applies the preset as one undo step.
    pub(super) fn apply(&self, panel: &mut Panel) {
        let values = reset().map(|id| {
            let control = panel.control(id);
            let word = self.values.iter().find(|(other, _)| *other == id);
            let value = word.and_then(|(_, word)| control.parse(word));
            (id, value.unwrap_or_else(|| control.default_value()))
        });
        let values: Vec<_> = values.collect();
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
                assert!(reset().any(|other| other == *id), "{}: {id:?}", preset.name);
                let control = id.of(&params);
                let value = control.parse(word);
                let is_new = value.is_some_and(|value| value != control.default_value());
                assert!(is_new, "{}: {id:?} to {word}: {value:?}", preset.name);
            }
        }
    }
}
