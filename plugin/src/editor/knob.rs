//! Knobs, and their handling of drag, wheel and keys.

use std::f32::consts::PI;

use egui::{
    Align2, Color32, CursorIcon, EventFilter, Id, Key, MouseWheelUnit, Pos2, Rect, Response, Sense,
    Stroke, Ui, Vec2, pos2, vec2,
};

use super::panel::Panel;
use super::theme;
use crate::params::ParamId;

/// Pointer distance for the full range of a knob, in points.
const TRAVEL: f32 = 170.0;
/// Distance on a trackpad that counts as a notch of a wheel, in points.
const NOTCH: f32 = 16.0;
/// Factor of the fine control with Shift.
pub const FINE: f32 = 0.1;

/// Ends of the track, in radians from the right, clockwise.
const FROM: f32 = 0.75 * PI;
const TO: f32 = 2.25 * PI;

/// Appearance of a knob.
pub struct Look<'a> {
    /// The label above it.
    pub name: &'a str,
    /// Its centre.
    pub center: Pos2,
    /// Radius of its track.
    pub radius: f32,
    /// Colour of its value.
    pub color: Color32,
    /// Where its track starts to fill.
    pub origin: f32,
    /// The displayed value if another parameter controls it.
    pub held_at: Option<f32>,
    /// Its tooltip.
    pub help: &'a str,
}

/// The end of all tooltips of knobs.
const HINT: &str = "Drag to change, Shift-drag for fine control, double-click to reset, right-click to type a value.";

/// Shows a knob with its label above and its value below.
pub fn knob(ui: &Ui, panel: &mut Panel, id: ParamId, look: &Look) -> Response {
    let Look { center, radius, .. } = *look;
    let rect = Rect::from_center_size(center, vec2(2.0 * radius + 12.0, 2.0 * radius + 34.0));
    let response = ui.interact(rect, Id::unique(("knob", id)), Sense::click_and_drag());
    turn(ui, panel, id, &response);
    if response.hovered() || response.dragged() {
        ui.ctx().set_cursor_icon(CursorIcon::ResizeVertical);
    }
    paint(ui, panel, id, look, &response);
    response.on_hover_text(format!("{} {HINT}", look.help))
}

/// Changes a parameter by drag, wheel, keys and clicks.
fn turn(ui: &Ui, panel: &mut Panel, id: ParamId, response: &Response) {
    if response.drag_started_by(egui::PointerButton::Primary) {
        panel.begin(id);
    }
    // The pointer may move and release in the same frame.
    if (response.dragged() || response.drag_stopped()) && panel.is_held(id) {
        let fine = if ui.input(|i| i.modifiers.shift) {
            FINE
        } else {
            1.0
        };
        let delta = moved(ui, response);
        panel.drag_by(id, fine * (delta.x - delta.y) / TRAVEL);
    }
    if response.drag_stopped() {
        panel.end(id);
    }
    if response.double_clicked() {
        panel.reset(id);
    }
    if response.secondary_clicked() {
        panel.type_values(&[id], response.rect.center_bottom());
    }
    if response.hovered() {
        wheel(ui, panel, id);
    }
    if response.has_focus() {
        keys(ui, panel, response.id, [id, id]);
    }
}

/// How far the pointer dragged a widget since the last frame. egui detects a drag only after a few pixels; these are
/// included.
pub fn moved(ui: &Ui, response: &Response) -> Vec2 {
    match response.drag_started() {
        true => response.total_drag_delta().unwrap_or_default(),
        false => ui.input(|input| input.pointer.delta()),
    }
}

/// Changes a parameter by the mouse wheel: one step per notch.
fn wheel(ui: &Ui, panel: &mut Panel, id: ParamId) {
    let (turned, fine) = ui.input(|input| {
        let notches = input.events.iter().map(|event| match event {
            egui::Event::MouseWheel { unit, delta, .. } => match unit {
                MouseWheelUnit::Point => delta.y / NOTCH,
                _ => delta.y,
            },
            _ => 0.0,
        });
        (notches.sum::<f32>(), input.modifiers.shift)
    });
    if turned == 0.0 || panel.is_held(id) {
        return;
    }
    let kept = Id::unique(("wheel", id));
    let before = ui
        .ctx()
        .data(|data| data.get_temp(kept))
        .unwrap_or_default();
    let (notches, rest) = whole_notches(before, turned);
    ui.ctx().data_mut(|data| data.insert_temp(kept, rest));
    let mut value = panel.value(id);
    for _ in 0..notches.unsigned_abs() {
        value = panel.control(id).step(value, notches > 0, fine);
    }
    panel.set(id, value);
}

/// The whole notches of a wheel and the rest, which counts for the next turn. Wheels of high resolution and trackpads turn
/// by parts of a notch.
fn whole_notches(rest: f32, turned: f32) -> (i32, f32) {
    let notches = (rest + turned).trunc();
    (notches as i32, rest + turned - notches)
}

/// Changes one parameter with the left and right arrow keys, and another (or the same) with up and down. Delete and
/// Backspace reset both.
pub fn keys(ui: &Ui, panel: &mut Panel, focused: Id, [horizontal, vertical]: [ParamId; 2]) {
    let filter = EventFilter {
        horizontal_arrows: true,
        vertical_arrows: true,
        ..EventFilter::default()
    };
    ui.memory_mut(|memory| memory.set_focus_lock_filter(focused, filter));
    let moves = [
        (Key::ArrowRight, horizontal, true),
        (Key::ArrowLeft, horizontal, false),
        (Key::ArrowUp, vertical, true),
        (Key::ArrowDown, vertical, false),
    ];
    for (key, id, up) in moves {
        let (presses, fine) = ui.input(|i| (i.num_presses(key), i.modifiers.shift));
        for _ in 0..presses {
            let value = panel.control(id).step(panel.value(id), up, fine);
            panel.set(id, value);
        }
    }
    // Keyboards of Macs call the backspace key "delete".
    if ui.input(|input| input.key_pressed(Key::Delete) || input.key_pressed(Key::Backspace)) {
        let defaults = [horizontal, vertical].map(|id| (id, panel.control(id).default_value()));
        panel.set_all(&defaults);
    }
}

fn paint(ui: &Ui, panel: &Panel, id: ParamId, look: &Look, response: &Response) {
    let painter = ui.painter();
    let value = look.held_at.unwrap_or_else(|| panel.value(id));
    let ink = if look.held_at.is_some() {
        theme::DIM
    } else {
        theme::TEXT
    };
    let Look { center, radius, .. } = *look;
    let angle = |value: f32| FROM + value * (TO - FROM);
    let arc = |from: f32, to: f32| {
        let steps = (24.0 * (to - from).abs() / PI).ceil().max(1.0) as usize;
        let point = |step: usize| {
            let angle = from + (to - from) * step as f32 / steps as f32;
            center + radius * vec2(angle.cos(), angle.sin())
        };
        (0..=steps).map(point).collect::<Vec<_>>()
    };
    let bright = response.hovered() || response.dragged();
    let body = if bright {
        theme::HOVERED
    } else {
        theme::RAISED
    };
    painter.circle_filled(center, radius - 5.5, body);
    painter.line(arc(FROM, TO), Stroke::new(3.0, theme::LINE));
    painter.line(
        arc(angle(look.origin), angle(value)),
        Stroke::new(3.0, look.color),
    );
    let direction = vec2(angle(value).cos(), angle(value).sin());
    painter.line_segment(
        [
            center + 0.35 * radius * direction,
            center + (radius - 7.0) * direction,
        ],
        Stroke::new(2.0, ink),
    );
    if response.has_focus() {
        painter.circle_stroke(center, radius + 3.5, Stroke::new(1.0, theme::TEXT));
    }
    painter.text(
        pos2(center.x, center.y - radius - 5.0),
        Align2::CENTER_BOTTOM,
        look.name,
        theme::font(theme::SMALL),
        theme::DIM,
    );
    painter.text(
        pos2(center.x, center.y + radius - 1.0),
        Align2::CENTER_TOP,
        panel.control(id).text(value),
        theme::font(theme::NORMAL),
        ink,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_notch_add_up() {
        assert_eq!(whole_notches(0.0, 1.0), (1, 0.0), "a plain wheel");
        assert_eq!(whole_notches(0.0, -2.0), (-2, 0.0));
        let (mut rest, mut total) = (0.0, 0);
        for _ in 0..12 {
            let (notches, left) = whole_notches(rest, -0.25);
            (rest, total) = (left, total + notches);
        }
        assert_eq!((total, rest), (-3, 0.0));
    }
}
