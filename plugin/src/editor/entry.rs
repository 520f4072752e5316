//! A small box next to the clicked widget, for typing values.

use egui::{Area, Frame, Grid, Id, Key, Order, Pos2, Stroke, TextEdit, Ui};

use super::panel::{Panel, Typing};
use super::theme;
use crate::params::ParamId;

const WIDTH: f32 = 76.0;

/// The box, if it is open.
#[derive(Default)]
pub struct Entry(Option<Open>);

struct Open {
    lines: Vec<Line>,
    at: Pos2,
    /// Not shown yet: it needs the focus, and must not close on the click that opened it.
    fresh: bool,
}

struct Line {
    id: ParamId,
    text: String,
    is_refused: bool,
}

impl Entry {
    /// Shows the box, if it is open or requested.
    pub fn show(&mut self, ui: &Ui, panel: &mut Panel) {
        if let Some(typing) = panel.take_typing() {
            self.0 = Some(Open::new(panel, &typing));
        }
        let Some(mut open) = self.0.take() else {
            return;
        };
        let area = Area::new(Id::unique("typed value"))
            .order(Order::Foreground)
            .fixed_pos(open.at)
            .constrain(true)
            .show(ui.ctx(), |ui| {
                Frame::popup(ui.style()).show(ui, |ui| open.show(ui, panel));
            });
        let (enter, escape) = ui.input(|input| {
            (
                input.key_pressed(Key::Enter),
                input.key_pressed(Key::Escape),
            )
        });
        let beside = !open.fresh && area.response.clicked_elsewhere();
        open.fresh = false;
        if escape || beside || (enter && open.take(panel)) {
            return;
        }
        self.0 = Some(open);
    }
}

impl Open {
    fn new(panel: &Panel, typing: &Typing) -> Self {
        let lines = typing.ids.iter().map(|&id| Line {
            id,
            text: panel.text(id),
            is_refused: false,
        });
        Self {
            lines: lines.collect(),
            at: typing.at,
            fresh: true,
        }
    }

    fn show(&mut self, ui: &mut Ui, panel: &Panel) {
        Grid::new("typed values").num_columns(2).show(ui, |ui| {
            for (index, line) in self.lines.iter_mut().enumerate() {
                ui.label(panel.control(line.id).label());
                if line.is_refused {
                    ui.visuals_mut().selection.stroke = Stroke::new(1.5, theme::WARNING);
                }
                let output = TextEdit::singleline(&mut line.text)
                    .desired_width(WIDTH)
                    .show(ui);
                let response = &output.response.response;
                if self.fresh && index == 0 {
                    response.request_focus();
                }
                if response.gained_focus() {
                    select_all(ui, output);
                }
                ui.end_row();
            }
        });
        if self.lines.iter().any(|line| line.is_refused) {
            ui.colored_label(theme::WARNING, "invalid value");
        }
    }

    /// Sets the typed values. Returns whether all of them were valid.
    fn take(&mut self, panel: &mut Panel) -> bool {
        let mut values = Vec::new();
        for line in &mut self.lines {
            let control = panel.control(line.id);
            if line.text == control.text(control.value()) {
                continue;
            }
            let parsed = control.parse(&line.text);
            line.is_refused = parsed.is_none();
            values.extend(parsed.map(|value| (line.id, value)));
        }
        let understood = self.lines.iter().all(|line| !line.is_refused);
        match understood {
            true => panel.set_all(&values),
            // The box stays open for another try.
            false => self.fresh = true,
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
