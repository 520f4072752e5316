//! The parameters as the editor sees them, whatever their type. Values are normalised to 0 to 1.

use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;

/// How the editor shows a parameter. Positions are in points, from the upper left corner of the group.
#[derive(Clone, Copy)]
pub struct Shown {
    /// Short label on the face; the group provides the context.
    pub name: &'static str,
    /// Tooltip text, without the name.
    pub help: &'static str,
    /// The group that contains it.
    pub group: Group,
    /// The widget.
    pub widget: Widget,
    /// What may set it, apart from its widget.
    pub set_by: SetBy,
}

/// A group on the face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The toolbar.
    Toolbar,
    /// Controls of the remix.
    Remix,
    /// Controls for freezing.
    Freeze,
    /// Latency, window and engine.
    Processing,
    /// Gains and mix.
    Levels,
}

/// The widget of a parameter.
#[derive(Clone, Copy)]
pub enum Widget {
    /// A knob.
    Knob {
        /// Its centre.
        center: [f32; 2],
        /// Radius of its track.
        radius: f32,
        /// Where its track starts to fill.
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
        /// Its colour when on.
        tint: Tint,
    },
    /// A choice between a few words, as wide as the group.
    Choice {
        /// Top of the name.
        name_top: f32,
        /// Top of the words.
        top: f32,
        /// The words.
        words: fn() -> &'static [&'static str],
    },
}

/// Where the track of a knob starts to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// At its left end.
    Zero,
    /// At the default value.
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
    /// Blends from the main input's colour at 0 to the sidechain's at 1.
    Sources,
    /// As the remix; dimmed while the model's voice has no effect.
    Voice,
    /// A warning colour.
    Warning,
}

/// What may set a parameter, apart from its widget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// Presets and the A/B comparison: what defines the remix.
    Presets,
    /// Only the A/B comparison: what belongs to the session.
    Comparing,
    /// Nothing: what needs a restart, or bypasses everything.
    Nothing,
}

/// A parameter of any type.
pub trait Control {
    /// Its name.
    fn label(&self) -> &str;
    /// Its value, without modulation.
    fn value(&self) -> f32;
    /// Its default value.
    fn default_value(&self) -> f32;
    /// Number of steps of its range, if it is stepped.
    fn steps(&self) -> Option<usize>;
    /// The nearest valid value.
    fn snap(&self, value: f32) -> f32;
    /// The value one small step up or down; a tenth of that if `fine` and possible.
    fn step(&self, from: f32, up: bool, fine: bool) -> f32;
    /// A value as text, with its unit.
    fn text(&self, value: f32) -> String;
    /// Parses a value that the user typed.
    fn parse(&self, text: &str) -> Option<f32>;
    /// Begins a gesture in the host.
    fn begin(&self, setter: &ParamSetter);
    /// Sets the value.
    fn set(&self, setter: &ParamSetter, value: f32);
    /// Ends the gesture in the host.
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
