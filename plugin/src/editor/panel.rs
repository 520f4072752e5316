//! Changes of parameters: each is a gesture that begins and ends once for the host.

use egui::Pos2;
use nice_plug::context::gui::ParamSetter;

use super::history::{Change, History};
use crate::control::Control;
use crate::params::GraftParams;
use crate::params::ParamId;

/// Gestures in progress, and past ones.
#[derive(Default)]
pub struct Gestures {
    held: Vec<Held>,
    finished: Vec<Change>,
    /// The undo history.
    pub history: History,
    /// A request for a box to type values in.
    typing: Option<Typing>,
}

/// Parameters whose values the user wants to type.
pub struct Typing {
    /// The parameters.
    pub ids: Vec<ParamId>,
    /// Where the user clicked.
    pub at: Pos2,
}

impl Gestures {
    /// No gesture in progress, with the given history.
    pub fn with_history(history: History) -> Self {
        Self {
            history,
            ..Self::default()
        }
    }
}

/// A parameter in a gesture.
struct Held {
    id: ParamId,
    before: f32,
    /// The value before snapping.
    raw: f32,
    value: f32,
}

/// Access to the parameters during one frame.
pub struct Panel<'a> {
    /// The parameters.
    pub params: &'a GraftParams,
    /// Sends changes to the host.
    pub setter: ParamSetter<'a>,
    /// The gestures in progress.
    pub gestures: &'a mut Gestures,
    /// The time of the frame.
    pub now_seconds: f64,
}

impl Panel<'_> {
    /// The parameter with this id.
    pub fn control(&self, id: ParamId) -> &dyn Control {
        id.of(self.params)
    }

    /// The normalised value: that of the gesture in progress, else that of the host.
    pub fn value(&self, id: ParamId) -> f32 {
        self.held(id)
            .map_or_else(|| self.control(id).value(), |held| held.value)
    }

    /// The value as text.
    pub fn text(&self, id: ParamId) -> String {
        self.control(id).text(self.value(id))
    }

    /// Whether a switch is on.
    pub fn is_on(&self, id: ParamId) -> bool {
        self.value(id) >= 0.5
    }

    /// Whether the user holds the parameter.
    pub fn is_held(&self, id: ParamId) -> bool {
        self.held(id).is_some()
    }

    fn held(&self, id: ParamId) -> Option<&Held> {
        self.gestures.held.iter().find(|held| held.id == id)
    }

    /// Begins a gesture.
    pub fn begin(&mut self, id: ParamId) {
        if self.is_held(id) {
            return;
        }
        let value = self.control(id).value();
        self.control(id).begin(&self.setter);
        self.gestures.held.push(Held {
            id,
            before: value,
            raw: value,
            value,
        });
    }

    /// Moves a held parameter to `value`.
    pub fn drag_to(&mut self, id: ParamId, value: f32) {
        let raw = value.clamp(0.0, 1.0);
        let snapped = self.control(id).snap(raw);
        let Some(held) = self.gestures.held.iter_mut().find(|held| held.id == id) else {
            return;
        };
        held.raw = raw;
        if held.value != snapped {
            held.value = snapped;
            id.of(self.params).set(&self.setter, snapped);
        }
    }

    /// Moves a held parameter by `change`.
    pub fn drag_by(&mut self, id: ParamId, change: f32) {
        if let Some(raw) = self.held(id).map(|held| held.raw) {
            self.drag_to(id, raw + change);
        }
    }

    /// Ends a gesture.
    pub fn end(&mut self, id: ParamId) {
        let Some(index) = self.gestures.held.iter().position(|held| held.id == id) else {
            return;
        };
        self.control(id).end(&self.setter);
        let held = self.gestures.held.remove(index);
        self.gestures.finished.push(Change {
            id,
            before: held.before,
            after: held.value,
        });
        if self.gestures.held.is_empty() {
            let changes = std::mem::take(&mut self.gestures.finished);
            self.gestures.history.push(changes, self.now_seconds);
        }
    }

    /// Sets a parameter, as one gesture.
    pub fn set(&mut self, id: ParamId, value: f32) {
        self.set_all(&[(id, value)]);
    }

    /// Sets several parameters as one undo step. Leaves unchanged values alone.
    pub fn set_all(&mut self, values: &[(ParamId, f32)]) {
        let moves = |&&(id, value): &&(ParamId, f32)| {
            let control = self.control(id);
            control.snap(value) != control.value()
        };
        let values: Vec<_> = values.iter().filter(moves).copied().collect();
        for &(id, _) in &values {
            self.begin(id);
        }
        for &(id, value) in &values {
            self.drag_to(id, value);
        }
        for &(id, _) in &values {
            self.end(id);
        }
    }

    /// Resets a parameter to its default.
    pub fn reset(&mut self, id: ParamId) {
        self.set(id, self.control(id).default_value());
    }

    /// Toggles a switch.
    pub fn toggle(&mut self, id: ParamId) {
        let value = if self.is_on(id) { 0.0 } else { 1.0 };
        self.set(id, value);
    }

    /// Sets parameters without recording them in the history.
    pub fn restore(&mut self, values: &[(ParamId, f32)]) {
        for &(id, value) in values {
            let control = id.of(self.params);
            control.begin(&self.setter);
            control.set(&self.setter, value);
            control.end(&self.setter);
        }
    }

    /// Requests a box at a position for typing the values of these parameters.
    pub fn type_values(&mut self, ids: &[ParamId], at: Pos2) {
        self.gestures.typing = Some(Typing {
            ids: ids.to_vec(),
            at,
        });
    }

    /// Takes the request made since the last call.
    pub fn take_typing(&mut self) -> Option<Typing> {
        self.gestures.typing.take()
    }

    /// Ends all gestures.
    pub fn end_all(&mut self) {
        while let Some(held) = self.gestures.held.first() {
            self.end(held.id);
        }
    }
}
