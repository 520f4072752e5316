//! The toolbar: presets, A/B comparison and undo.

use egui::{Id, Popup, Pos2, Rect, Ui, pos2, vec2};

use super::buttons::{Look, action, button};
use super::panel::Panel;
use super::presets::{Compare, FACTORY};
use super::theme;

const TOP: f32 = 13.0;
const HEIGHT: f32 = 26.0;

/// State that is kept while the editor is closed.
#[derive(Default)]
pub struct Toolbar {
    compare: Compare,
    preset: Option<&'static str>,
}

impl Toolbar {
    /// Shows presets, A/B comparison and undo.
    pub fn show(&mut self, ui: &Ui, origin: Pos2, panel: &mut Panel) {
        let place =
            |x: f32, width: f32| Rect::from_min_size(origin + vec2(x, TOP), vec2(width, HEIGHT));
        self.presets(ui, place(104.0, 200.0), panel);

        let names = [("A", false, 316.0), ("B", true, 344.0)];
        for (name, is_b, x) in names {
            let is_on = self.compare.is_b() == is_b;
            let look = Look {
                rect: place(x, 28.0),
                text: name,
                color: theme::REMIX,
                help: "Compare two settings, A and B.",
            };
            if button(ui, Id::unique(("compare", name)), is_on, &look).clicked() && !is_on {
                self.compare.switch(panel);
            }
        }
        let look = Look {
            rect: place(378.0, 64.0),
            text: if self.compare.is_b() {
                "B to A"
            } else {
                "A to B"
            },
            color: theme::REMIX,
            help: "Copy this setting to the other one.",
        };
        if action(ui, Id::unique("copy"), true, &look) {
            self.compare.copy(panel);
        }

        let look = |x, text, help| Look {
            rect: place(x, 56.0),
            text,
            color: theme::REMIX,
            help,
        };
        let undo = look(454.0, "Undo", "Undo the last change made in this window.");
        let can_undo = panel.gestures.history.can_undo();
        if action(ui, Id::unique("undo"), can_undo, &undo) {
            let values = panel.gestures.history.undo();
            panel.restore(&values);
        }
        let redo = look(514.0, "Redo", "Redo the last undone change.");
        let can_redo = panel.gestures.history.can_redo();
        if action(ui, Id::unique("redo"), can_redo, &redo) {
            let values = panel.gestures.history.redo();
            panel.restore(&values);
        }
    }

    fn presets(&mut self, ui: &Ui, rect: Rect, panel: &mut Panel) {
        let look = Look {
            rect,
            text: self.preset.unwrap_or("Presets"),
            color: theme::REMIX,
            help: "",
        };
        let response = button(ui, Id::unique("presets"), false, &look);
        arrow(ui, pos2(rect.right() - 12.0, rect.center().y));
        Popup::menu(&response).width(rect.width()).show(|ui| {
            for preset in &FACTORY {
                if ui.button(preset.name).on_hover_text(preset.help).clicked() {
                    preset.apply(panel);
                    self.preset = Some(preset.name);
                    ui.close();
                }
            }
        });
    }
}

/// A small triangle that marks a button with a menu.
pub fn arrow(ui: &Ui, at: Pos2) {
    let points = [(-4.0, -2.0), (4.0, -2.0), (0.0, 3.0)].map(|(x, y)| at + vec2(x, y));
    ui.painter().add(egui::Shape::convex_polygon(
        points.to_vec(),
        theme::DIM,
        egui::Stroke::NONE,
    ));
}
