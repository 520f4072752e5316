//! Switches, and choices between a few words.

use std::ops::Range;

use egui::{Align2, Color32, Id, Rect, Response, Sense, Stroke, StrokeKind, Ui, pos2, vec2};

use super::panel::Panel;
use super::theme;
use crate::params::ParamId;

/// Appearance of a switch or choice.
#[derive(Clone, Copy)]
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

/// Least space around a word in a row, in pixels.
const LEAST_PADDING: f32 = 12.0;
/// Space between two rows of words.
const ROW_GAP: f32 = 3.0;

/// Words to choose from, for a stepped parameter: a row at `look.rect`, and further ones below for words that do not fit.
pub fn choice(ui: &Ui, panel: &mut Panel, id: ParamId, words: &[&str], look: &Look) {
    let last = (words.len() - 1) as f32;
    let chosen = (panel.value(id) * last).round() as usize;
    let width = |word: &str| {
        let font = theme::font(theme::NORMAL);
        let galley = ui
            .painter()
            .layout_no_wrap(word.to_owned(), font, theme::TEXT);
        galley.size().x
    };
    let widths: Vec<f32> = words.iter().map(|word| width(word)).collect();
    let mut row = look.rect;
    for words_of_row in rows(&widths, row.width()) {
        let all_words: f32 = widths[words_of_row.clone()].iter().sum();
        let padding = (row.width() - all_words) / words_of_row.len() as f32;
        ui.painter().rect(
            row,
            4.0,
            theme::RAISED,
            Stroke::new(1.0, theme::LINE),
            StrokeKind::Inside,
        );
        let mut left = row.left();
        for index in words_of_row {
            let right = left + widths[index] + padding;
            let rect = Rect::from_min_max(pos2(left, row.top()), pos2(right, row.bottom()));
            left = right;
            let look = Look {
                rect,
                text: words[index],
                ..*look
            };
            if word(
                ui,
                Id::unique(("choice", id, index)),
                index == chosen,
                &look,
            ) {
                panel.set(id, index as f32 / last);
            }
        }
        row = row.translate(vec2(0.0, row.height() + ROW_GAP));
    }
}

/// Splits words into as few rows as they fit in.
fn rows(widths: &[f32], row_width: f32) -> Vec<Range<usize>> {
    let mut rows = Vec::new();
    let (mut start, mut taken) = (0, 0.0);
    for (index, width) in widths.iter().enumerate() {
        if index > start && taken + width + LEAST_PADDING > row_width {
            rows.push(start..index);
            (start, taken) = (index, 0.0);
        }
        taken += width + LEAST_PADDING;
    }
    rows.push(start..widths.len());
    rows
}

/// A word of a choice. Returns whether it was clicked.
fn word(ui: &Ui, id: Id, is_chosen: bool, look: &Look) -> bool {
    let response = ui
        .interact(look.rect, id, Sense::click())
        .on_hover_text(look.help);
    let painter = ui.painter();
    if is_chosen {
        painter.rect(
            look.rect,
            4.0,
            theme::blend(theme::RAISED, look.color, 0.16),
            Stroke::new(1.0, look.color),
            StrokeKind::Inside,
        );
    }
    if response.has_focus() {
        painter.rect_stroke(
            look.rect,
            4.0,
            Stroke::new(1.0, theme::TEXT),
            StrokeKind::Inside,
        );
    }
    let color = match is_chosen || response.hovered() {
        true => theme::TEXT,
        false => theme::DIM,
    };
    painter.text(
        look.rect.center(),
        Align2::CENTER_CENTER,
        look.text,
        theme::font(theme::NORMAL),
        color,
    );
    response.clicked()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_do_not_fit_get_a_row_of_their_own() {
        let one = 50.0 + LEAST_PADDING;
        assert_eq!(rows(&[50.0; 5], 5.0 * one), vec![0..5]);
        assert_eq!(rows(&[50.0; 5], 5.0 * one - 1.0), [0..4, 4..5]);
        assert_eq!(rows(&[50.0; 5], 3.0 * one), [0..3, 3..5]);
        // A word that is too long for any row has one, too.
        assert_eq!(rows(&[300.0, 50.0], 100.0), [0..1, 1..2]);
    }
}
