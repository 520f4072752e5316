//! The parameters as the editor sees them, whatever their type: values are normalised, from 0 to 1.

use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;

/// What the editor shows of a parameter. Places are in points, from the upper left corner of the group.
#[derive(Clone, Copy)]
pub struct Shown {
    /// Its name on the face, where the group says the rest.
    pub name: &'static str,
    /// What it does, for the tooltip.
    pub help: &'static str,
    /// Where it is.
    pub group: Group,
    /// As what.
    pub widget: Widget,
    /// What else sets it.
    pub set_by: SetBy,
}

/// A group on the face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The line above.
    Toolbar,
    /// What the remix is made of.
    Remix,
    /// What is frozen.
    Freeze,
    /// How the remix is made.
    Processing,
    /// How loud it is.
    Levels,
}

/// What a parameter is moved with.
#[derive(Clone, Copy)]
pub enum Widget {
    /// A knob.
    Knob {
        /// Its middle.
        center: [f32; 2],
        /// Of its track.
        radius: f32,
        /// Where the track begins to fill.
        origin: Origin,
        /// Its colour.
        tint: Tint,
    },
    /// A switch.
    Switch {
        /// Its upper left corner.
        corner: [f32; 2],
        /// Width and height.
        size: [f32; 2],
        /// Its colour where it is on.
        tint: Tint,
    },
    /// One of a few words, as wide as the group.
    Choice {
        /// Top of the name.
        name_top: f32,
        /// Top of the words.
        top: f32,
        /// What to choose from.
        words: fn() -> &'static [&'static str],
    },
}

/// Where the track of a knob begins to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// At its left end.
    Zero,
    /// Where the parameter is at first.
    Default,
}

/// The colour of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tint {
    /// Of the main input.
    Main,
    /// Of the sidechain.
    Sidechain,
    /// Of the remix.
    Remix,
    /// From the main input's, at 0, to the sidechain's.
    Sources,
    /// Of the remix, where the model's voice can be heard.
    Voice,
    /// Of what needs attention.
    Warning,
}

/// What sets a parameter, other than its widget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// Presets, and comparing: what the remix is.
    Presets,
    /// Comparing alone: what belongs to the session.
    Comparing,
    /// Nothing: what takes effect with a restart, or silences the rest.
    Nothing,
}

/// A parameter of any type.
pub trait Control {
    /// Its name.
    fn label(&self) -> &str;
    /// Where it is, modulation not counted.
    fn value(&self) -> f32;
    /// Where it is at first.
    fn default_value(&self) -> f32;
    /// Steps from one end to the other, if it has steps.
    fn steps(&self) -> Option<usize>;
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

    fn steps(&self) -> Option<usize> {
        self.step_count()
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
