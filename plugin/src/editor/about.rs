//! The version, the model in use, the licences, and details for reports of faults.

use std::env::consts::{ARCH, OS};
use std::fmt::Write;

use egui::{
    Align, Align2, Color32, Frame, Grid, Id, Layout, Modal, Pos2, Rect, RichText, ScrollArea,
    Sense, TextWrapMode, Ui, Vec2, vec2,
};

use super::theme;
use crate::params::GraftParams;
use crate::readout::Readout;

const SIZE: Vec2 = vec2(680.0, 440.0);

/// Position of the name that opens the view.
const NAME: Rect = Rect {
    min: Pos2::new(10.0, 13.0),
    max: Pos2::new(78.0, 39.0),
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, if whoever built the plugin names it; `cargo xtask` does.
const COMMIT: Option<&str> = option_env!("GRAFT_COMMIT");

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
    pub fn show(&mut self, ui: &Ui, params: &GraftParams, readout: &Readout) {
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
                contents(ui, params, readout)
            });
        if modal.inner || modal.should_close() {
            self.is_open = false;
        }
    }
}

/// Shows the contents. Returns whether the user wants to close them.
fn contents(ui: &mut Ui, params: &GraftParams, readout: &Readout) -> bool {
    let mut is_closed = false;
    ui.horizontal(|ui| {
        ui.heading(format!("Graft {VERSION}"));
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            is_closed = ui.button("Close").clicked();
            let help = "Copies version, system, model, latency and late windows, for the report of a fault.";
            if ui.button("Copy details").on_hover_text(help).clicked() {
                ui.ctx().copy_text(details(params, readout));
            }
        });
    });
    ui.add_space(4.0);
    let (model, model_licence) = match params.model.0.in_use() {
        Ok(model) => {
            let card = &model.header().card;
            let name = format!("{} {}", card.name, card.version);
            (name, card.licence.clone())
        }
        Err(error) => (error.to_string(), String::new()),
    };
    Grid::new("about").num_columns(2).show(ui, |ui| {
        for (name, value) in [
            ("Commit", COMMIT.unwrap_or("unknown")),
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

/// What helps to find a fault, as text.
fn details(params: &GraftParams, readout: &Readout) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name}: {value}").expect("a text takes any length");
    };
    line("Graft", VERSION.to_owned());
    line("Commit", COMMIT.unwrap_or("unknown").to_owned());
    line("System", format!("{OS}, {ARCH}"));
    match params.model.0.in_use() {
        Ok(model) => {
            let card = &model.header().card;
            let hash = model.sha256();
            line("Model", format!("{} {} ({hash})", card.name, card.version));
        }
        Err(error) => line("Model", error.to_string()),
    }
    match readout.activation() {
        Some(activation) => {
            let setup = activation.setup;
            line("Engine", format!("{:?}, {:?}", setup.engine, setup.mode));
            line("Sample rate", format!("{} Hz", activation.sample_rate_hz));
            let block = activation.max_block_samples;
            line("Block", format!("at most {block} samples"));
            let latency = activation.latency_samples;
            line("Latency", format!("{latency} samples"));
        }
        None => line("State", "never activated".to_owned()),
    }
    let status = &readout.status;
    let load_percent = 100.0 * status.real_time_factor();
    line("Worker", format!("{load_percent:.0} % of real time"));
    line("Late windows", status.late_windows().to_string());
    line("Faults", status.faults().to_string());
    if let Some(fault) = status.last_fault() {
        line("Last fault", fault);
    }
    text
}

#[cfg(test)]
mod tests {
    use model_runtime::LatencyMode;

    use super::*;
    use crate::engines::Engine;
    use crate::setup::{Activation, Setup};

    #[test]
    fn details_name_what_a_report_needs() {
        let params = GraftParams::default();
        let readout = Readout::default();
        assert!(details(&params, &readout).contains("State: never activated\n"));

        readout.set_activation(Activation {
            setup: Setup {
                engine: Engine::Network,
                mode: LatencyMode::Live,
                model_version: 0,
            },
            sample_rate_hz: 48_000.0,
            max_block_samples: 480,
            latency_samples: 8640,
            frames_hz: 0.0,
        });
        readout.status.report_fault("too hot".to_owned());
        let text = details(&params, &readout);
        let model = params.model.0.in_use().unwrap();
        for part in [
            VERSION,
            model.sha256(),
            "Live",
            "48000 Hz",
            "at most 480 samples",
            "8640 samples",
            "Late windows: 0\n",
            "Last fault: too hot\n",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }
}
