//! The parameters as the editor sees them, whatever their type: values are normalised, from 0 to 1.

use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;

use crate::params::GraftParams;

/// A parameter's name in the editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamId {
    /// [`GraftParams::harmony`].
    Harmony,
    /// [`GraftParams::rhythm`].
    Rhythm,
    /// [`GraftParams::link`].
    Link,
    /// [`GraftParams::transpose`].
    Transpose,
    /// [`GraftParams::freeze_harmony`].
    FreezeHarmony,
    /// [`GraftParams::freeze_rhythm`].
    FreezeRhythm,
    /// [`GraftParams::freeze_length`].
    FreezeLength,
    /// [`GraftParams::voice`].
    Voice,
    /// [`GraftParams::air`].
    Air,
    /// [`GraftParams::window`].
    Window,
    /// [`GraftParams::latency`].
    Latency,
    /// [`GraftParams::engine`].
    Engine,
    /// [`GraftParams::main_gain`].
    MainGain,
    /// [`GraftParams::sidechain_gain`].
    SidechainGain,
    /// [`GraftParams::mix`].
    Mix,
    /// [`GraftParams::output_gain`].
    OutputGain,
    /// [`GraftParams::bypass`].
    Bypass,
}

impl ParamId {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Harmony,
        Self::Rhythm,
        Self::Link,
        Self::Transpose,
        Self::FreezeHarmony,
        Self::FreezeRhythm,
        Self::FreezeLength,
        Self::Voice,
        Self::Air,
        Self::Window,
        Self::Latency,
        Self::Engine,
        Self::MainGain,
        Self::SidechainGain,
        Self::Mix,
        Self::OutputGain,
        Self::Bypass,
    ];

    /// The parameter of this name.
    pub fn of(self, params: &GraftParams) -> &dyn Control {
        match self {
            Self::Harmony => &params.harmony,
            Self::Rhythm => &params.rhythm,
            Self::Link => &params.link,
            Self::Transpose => &params.transpose,
            Self::FreezeHarmony => &params.freeze_harmony,
            Self::FreezeRhythm => &params.freeze_rhythm,
            Self::FreezeLength => &params.freeze_length,
            Self::Voice => &params.voice,
            Self::Air => &params.air,
            Self::Window => &params.window,
            Self::Latency => &params.latency,
            Self::Engine => &params.engine,
            Self::MainGain => &params.main_gain,
            Self::SidechainGain => &params.sidechain_gain,
            Self::Mix => &params.mix,
            Self::OutputGain => &params.output_gain,
            Self::Bypass => &params.bypass,
        }
    }
}

/// A parameter of any type.
pub trait Control {
    /// Its name.
    fn label(&self) -> &str;
    /// Where it is, modulation not counted.
    fn value(&self) -> f32;
    /// Where it is at first.
    fn default_value(&self) -> f32;
    /// The nearest value that it can take.
    fn snap(&self, value: f32) -> f32;
    /// A small step up or down from a value; a tenth of that where it is to be fine and can be.
    fn step(&self, from: f32, up: bool, fine: bool) -> f32;
    /// A value as the user reads it, with its unit.
    fn text(&self, value: f32) -> String;
    /// What the user typed as a value, if it is one.
    fn parse(&self, text: &str) -> Option<f32>;
    /// Tells the host that the user takes hold of it.
    fn begin(&self, setter: &ParamSetter);
    /// Moves it.
    fn set(&self, setter: &ParamSetter, value: f32);
    /// Tells the host that the user lets go of it.
    fn end(&self, setter: &ParamSetter);
}

impl<P: Param> Control for P {
    fn label(&self) -> &str {
        self.name()
    }

    fn value(&self) -> f32 {
        self.unmodulated_normalized_value()
    }

    fn default_value(&self) -> f32 {
        self.default_normalized_value()
    }

    fn snap(&self, value: f32) -> f32 {
        self.preview_normalized(self.preview_plain(value.clamp(0.0, 1.0)))
    }

    fn step(&self, from: f32, up: bool, fine: bool) -> f32 {
        match up {
            true => self.next_normalized_step(from, fine),
            false => self.previous_normalized_step(from, fine),
        }
    }

    fn text(&self, value: f32) -> String {
        self.normalized_value_to_string(value, true)
    }

    fn parse(&self, text: &str) -> Option<f32> {
        let value = self.string_to_normalized_value(text.trim())?;
        value.is_finite().then(|| self.snap(value))
    }

    fn begin(&self, setter: &ParamSetter) {
        setter.begin_set_parameter(self);
    }

    fn set(&self, setter: &ParamSetter, value: f32) {
        setter.set_parameter_normalized(self, value);
    }

    fn end(&self, setter: &ParamSetter) {
        setter.end_set_parameter(self);
    }
}
