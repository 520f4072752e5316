//! Switches, and choices between a few words.

use egui::{Align2, Color32, Id, Rect, Response, Sense, Stroke, StrokeKind, Ui, pos2};

use super::panel::Panel;
use super::theme;
use crate::params::ParamId;

/// Appearance of a switch.
pub struct Look<'a> {
    /// Its position and size.
    pub rect: Rect,
    /// Its text.
    pub text: &'a str,
    /// Its colour when on.
    pub color: Color32,
    /// Its tooltip.
    pub help: &'a str,
}

/// A button that shows whether it is on.
pub fn button(ui: &Ui, id: Id, is_on: bool, look: &Look) -> Response {
    let response = ui.interact(look.rect, id, Sense::click());
    let painter = ui.painter();
    let fill = match (is_on, response.hovered()) {
        (true, _) => theme::blend(theme::RAISED, look.color, 0.16),
        (false, true) => theme::HOVERED,
        (false, false) => theme::RAISED,
    };
    let outline = match (response.has_focus(), is_on) {
        (true, _) => theme::TEXT,
        (false, true) => look.color,
        (false, false) => theme::LINE,
    };
    painter.rect(
        look.rect,
        4.0,
        fill,
        Stroke::new(1.0, outline),
        StrokeKind::Inside,
    );
    painter.text(
        look.rect.center(),
        Align2::CENTER_CENTER,
        look.text,
        theme::font(theme::NORMAL),
        if is_on { theme::TEXT } else { theme::DIM },
    );
    match look.help {
        "" => response,
        help => response.on_hover_text(help),
    }
}

/// A button for an action that may be unavailable. Returns whether it was clicked.
pub fn action(ui: &Ui, id: Id, is_possible: bool, look: &Look) -> bool {
    let response = button(ui, id, false, look);
    if is_possible {
        ui.painter().text(
            look.rect.center(),
            Align2::CENTER_CENTER,
            look.text,
            theme::font(theme::NORMAL),
            theme::TEXT,
        );
    }
    is_possible && response.clicked()
}

/// A switch for a parameter.
pub fn switch(ui: &Ui, panel: &mut Panel, id: ParamId, look: &Look) {
    if button(ui, Id::unique(("switch", id)), panel.is_on(id), look).clicked() {
        panel.toggle(id);
    }
}

/// A row of words to choose from, for a stepped parameter.
pub fn choice(ui: &Ui, panel: &mut Panel, id: ParamId, words: &[&str], look: &Look) {
    let last = (words.len() - 1) as f32;
    let chosen = (panel.value(id) * last).round() as usize;
    let painter = ui.painter();
    let widths = words.iter().map(|word| {
        let font = theme::font(theme::NORMAL);
        let galley = painter.layout_no_wrap((*word).to_owned(), font, theme::TEXT);
        galley.size().x
    });
    let widths: Vec<f32> = widths.collect();
    let padding = (look.rect.width() - widths.iter().sum::<f32>()) / words.len() as f32;
    let mut left = look.rect.left();
    painter.rect(
        look.rect,
        4.0,
        theme::RAISED,
        Stroke::new(1.0, theme::LINE),
        StrokeKind::Inside,
    );
    for (index, word) in words.iter().enumerate() {
        let right = left + widths[index] + padding;
        let rect = Rect::from_min_max(pos2(left, look.rect.top()), pos2(right, look.rect.bottom()));
        left = right;
        let response = ui
            .interact(rect, Id::unique(("choice", id, index)), Sense::click())
            .on_hover_text(look.help);
        if response.clicked() {
            panel.set(id, index as f32 / last);
        }
        let is_chosen = index == chosen;
        if is_chosen {
            painter.rect(
                rect,
                4.0,
                theme::blend(theme::RAISED, look.color, 0.16),
                Stroke::new(1.0, look.color),
                StrokeKind::Inside,
            );
        }
        if response.has_focus() {
            painter.rect_stroke(rect, 4.0, Stroke::new(1.0, theme::TEXT), StrokeKind::Inside);
        }
        let color = match (is_chosen, response.hovered()) {
            (true, _) | (_, true) => theme::TEXT,
            _ => theme::DIM,
        };
        painter.text(
            rect.center(),
            Align2::CENTER_CENTER,
            word,
            theme::font(theme::NORMAL),
            color,
        );
    }
}
