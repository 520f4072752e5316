//! The version, the model in use, and the licences.

use egui::{
    Align, Align2, Color32, Frame, Grid, Id, Layout, Modal, Pos2, Rect, RichText, ScrollArea,
    Sense, TextWrapMode, Ui, Vec2, vec2,
};

use super::theme;
use crate::engines::Engine;
use crate::models::ModelStore;

const SIZE: Vec2 = vec2(680.0, 440.0);

/// Position of the name that opens the view.
const NAME: Rect = Rect {
    min: Pos2::new(10.0, 13.0),
    max: Pos2::new(78.0, 39.0),
};

/// The version of the project.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, if whoever built the plugin names it; `cargo xtask` does.
pub const COMMIT: &str = match option_env!("GRAFT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

const LICENCE: &str = "MIT or Apache 2.0, at your option";

/// Written by a test of `xtask/package`.
const THIRD_PARTY: &str = include_str!("../../../assets/third-party-licences.txt");

/// The view, which may be open.
#[derive(Default)]
pub struct About {
    is_open: bool,
}

impl About {
    /// Shows the plugin's name, which opens the view. `origin` is the face's upper left corner.
    pub fn name(&mut self, ui: &Ui, origin: Pos2) {
        let rect = NAME.translate(origin.to_vec2());
        let response = ui
            .interact(rect, Id::unique("about"), Sense::click())
            .on_hover_text("Version, model and licences.");
        let is_marked = response.hovered() || response.has_focus();
        if is_marked {
            ui.painter().rect_filled(rect, 4.0, theme::RAISED);
        }
        ui.painter().text(
            rect.left_center() + vec2(4.0, 0.0),
            Align2::LEFT_CENTER,
            "Graft",
            theme::bold(20.0),
            theme::TEXT,
        );
        if response.clicked() {
            self.is_open = true;
        }
    }

    /// Shows the view over the face, if it is open.
    pub fn show(&mut self, ui: &Ui, store: &ModelStore, engine: Engine) {
        if !self.is_open {
            return;
        }
        let frame = Frame::window(ui.style())
            .fill(theme::PANEL)
            .inner_margin(14);
        let modal = Modal::new(Id::unique("about view"))
            .frame(frame)
            .backdrop_color(Color32::from_black_alpha(140))
            .show(ui.ctx(), |ui| {
                ui.set_min_size(SIZE - Vec2::splat(28.0));
                ui.set_max_size(SIZE - Vec2::splat(28.0));
                contents(ui, store, engine)
            });
        if modal.inner || modal.should_close() {
            self.is_open = false;
        }
    }
}

/// Shows the contents. Returns whether the user wants to close them.
fn contents(ui: &mut Ui, store: &ModelStore, engine: Engine) -> bool {
    let mut is_closed = false;
    ui.horizontal(|ui| {
        ui.heading(format!("Graft {VERSION}"));
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            is_closed = ui.button("Close").clicked();
        });
    });
    ui.add_space(4.0);
    let (model, model_licence) = match store.in_use(engine) {
        Ok(model) => {
            let card = &model.header().card;
            let name = format!("{} {}", card.name, card.version);
            (name, card.licence.clone())
        }
        Err(error) => (error.to_string(), String::new()),
    };
    Grid::new("about").num_columns(2).show(ui, |ui| {
        for (name, value) in [
            ("Commit", COMMIT),
            ("Licence", LICENCE),
            ("Model", &model),
            ("Licence of the model", &model_licence),
        ] {
            ui.colored_label(theme::DIM, name);
            ui.label(value);
            ui.end_row();
        }
    });
    ui.add_space(6.0);
    third_party(ui);
    is_closed
}

/// Shows the licences of third parties. Lays out only the lines in view: there are thousands.
fn third_party(ui: &mut Ui) {
    let lines: Vec<&str> = THIRD_PARTY.lines().collect();
    Frame::new()
        .fill(theme::BACKGROUND)
        .corner_radius(4)
        .inner_margin(6)
        .show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = 1.0;
            let height = ui.text_style_height(&egui::TextStyle::Body);
            ScrollArea::vertical().auto_shrink(false).show_rows(
                ui,
                height,
                lines.len(),
                |ui, rows| {
                    ui.style_mut().wrap_mode = Some(TextWrapMode::Extend);
                    for line in &lines[rows] {
                        ui.label(RichText::new(*line).color(theme::DIM));
                    }
                },
            );
        });
}
