//! Typing values: a small box beside what was clicked.

use egui::{Area, Frame, Grid, Id, Key, Order, Pos2, Stroke, TextEdit, Ui};

use super::control::ParamId;
use super::panel::Panel;
use super::theme;

const WIDTH: f32 = 76.0;

/// The box, where it is open.
#[derive(Default)]
pub struct Entry(Option<Open>);

struct Open {
    lines: Vec<Line>,
    at: Pos2,
    /// Not shown yet: it is to take the focus, and the click that opened it is not one beside it.
    fresh: bool,
}

struct Line {
    id: ParamId,
    text: String,
    is_refused: bool,
}

impl Panel<'_> {
    /// Opens a box at a place, in which the values of these parameters can be typed.
    pub fn type_values(&mut self, ids: &[ParamId], at: Pos2) {
        let lines = ids.iter().map(|&id| Line {
            id,
            text: self.text(id),
            is_refused: false,
        });
        self.entry.0 = Some(Open {
            lines: lines.collect(),
            at,
            fresh: true,
        });
    }

    /// Shows the box, if it is open.
    pub fn show_entry(&mut self, ui: &Ui) {
        let Some(mut open) = self.entry.0.take() else {
            return;
        };
        let area = Area::new(Id::unique("typed value"))
            .order(Order::Foreground)
            .fixed_pos(open.at)
            .constrain(true)
            .show(ui.ctx(), |ui| {
                Frame::popup(ui.style()).show(ui, |ui| self.lines(ui, &mut open));
            });
        let (enter, escape) = ui.input(|input| {
            (
                input.key_pressed(Key::Enter),
                input.key_pressed(Key::Escape),
            )
        });
        let beside = !open.fresh && area.response.clicked_elsewhere();
        open.fresh = false;
        if escape || beside || (enter && self.take(&mut open)) {
            return;
        }
        self.entry.0 = Some(open);
    }

    fn lines(&mut self, ui: &mut Ui, open: &mut Open) {
        Grid::new("typed values").num_columns(2).show(ui, |ui| {
            for (index, line) in open.lines.iter_mut().enumerate() {
                ui.label(self.control(line.id).label());
                if line.is_refused {
                    ui.visuals_mut().selection.stroke = Stroke::new(1.5, theme::WARNING);
                }
                let output = TextEdit::singleline(&mut line.text)
                    .desired_width(WIDTH)
                    .show(ui);
                let response = &output.response.response;
                if open.fresh && index == 0 {
                    response.request_focus();
                }
                if response.gained_focus() {
                    select_all(ui, output);
                }
                ui.end_row();
            }
        });
        if open.lines.iter().any(|line| line.is_refused) {
            ui.colored_label(theme::WARNING, "not a value");
        }
    }

    /// Sets what was typed; says whether all of it was understood.
    fn take(&mut self, open: &mut Open) -> bool {
        let mut values = Vec::new();
        for line in &mut open.lines {
            let control = self.control(line.id);
            if line.text == control.text(control.value()) {
                continue;
            }
            let parsed = control.parse(&line.text);
            line.is_refused = parsed.is_none();
            values.extend(parsed.map(|value| (line.id, value)));
        }
        let understood = open.lines.iter().all(|line| !line.is_refused);
        match understood {
            true => self.set_all(&values),
            // The box stays for another try.
            false => open.fresh = true,
        }
        understood
    }
}

fn select_all(ui: &Ui, mut output: egui::text_edit::TextEditOutput) {
    use egui::text::{CCursor, CCursorRange};
    let end = output.galley.end();
    let range = CCursorRange::two(CCursor::default(), end);
    output.state.cursor.set_char_range(Some(range));
    output.state.store(ui.ctx(), output.response.response.id);
}
