//! The model in use, its card, and a browser to choose another.

use std::path::{Path, PathBuf};

use egui::{
    Align, Align2, Color32, Frame, Grid, Id, Key, Label, LayerId, Layout, Modal, Order, Rect,
    RichText, ScrollArea, Sense, StrokeKind, TextEdit, Ui, Vec2, vec2,
};
use model_runtime::Model;
use nice_plug::prelude::Enum;

use super::buttons::{Look, button};
use super::theme;
use super::toolbar::arrow;
use crate::engines::Engine;
use crate::models::ModelStore;
use crate::models::folder::{Folder, model_folder};

const SIZE: Vec2 = vec2(680.0, 440.0);
const LIST_WIDTH: f32 = 320.0;

/// The browser, if it is open.
#[derive(Default)]
pub struct Models {
    open: Option<Browser>,
    is_hovered: bool,
}

struct Browser {
    folder: Folder,
    /// The typed path.
    typed: String,
}

/// An action of the user in the browser.
enum Step {
    Go(PathBuf),
    Load(PathBuf),
    BuiltIn,
    /// Search for the session's model file.
    Find,
    Close,
}

impl Models {
    /// Shows the button that opens the browser.
    pub fn button(&mut self, ui: &Ui, rect: Rect, store: &ModelStore, engine: Engine) {
        let name = name(store, engine);
        let trouble = store.note().is_some();
        let look = Look {
            rect,
            text: &shortened(ui, &name, rect.width() - 44.0),
            color: if trouble {
                theme::WARNING
            } else {
                theme::REMIX
            },
            help: "The current model. Click to choose another.",
        };
        if button(ui, Id::unique("model"), trouble, &look).clicked() {
            self.open = match self.open {
                Some(_) => None,
                None => Some(Browser::new(store)),
            };
        }
        arrow(ui, rect.right_center() - vec2(12.0, 0.0));
    }

    /// Notes whether a file is being dragged over the window.
    pub fn hover(&mut self, is_over: bool) {
        self.is_hovered = is_over;
    }

    /// Shows that a file can be dropped.
    pub fn show_drop(&self, ui: &Ui, face: Rect) {
        if !self.is_hovered {
            return;
        }
        let painter = ui
            .ctx()
            .layer_painter(LayerId::new(Order::Foreground, Id::unique("drop")));
        painter.rect_filled(face, 0.0, Color32::from_black_alpha(190));
        let inner = face.shrink(12.0);
        painter.rect_stroke(inner, 8.0, (2.0, theme::REMIX), StrokeKind::Inside);
        painter.text(
            face.center(),
            Align2::CENTER_CENTER,
            "Drop the model file to load it",
            theme::bold(20.0),
            theme::TEXT,
        );
    }

    /// Shows the browser over the face, if it is open.
    pub fn show(&mut self, ui: &Ui, store: &ModelStore, engine: Engine) {
        let Some(browser) = &mut self.open else {
            return;
        };
        let frame = Frame::window(ui.style())
            .fill(theme::PANEL)
            .inner_margin(14);
        let modal = Modal::new(Id::unique("models"))
            .frame(frame)
            .backdrop_color(Color32::from_black_alpha(140))
            .show(ui.ctx(), |ui| {
                ui.set_min_size(SIZE - Vec2::splat(28.0));
                ui.set_max_size(SIZE - Vec2::splat(28.0));
                browser.show(ui, store, engine)
            });
        let beside = modal.should_close();
        let mut step = modal.inner;
        if beside {
            step = Some(Step::Close);
        }
        match step {
            Some(Step::Go(path)) => browser.folder = Folder::read(&path),
            Some(Step::Load(path)) => store.load(path),
            Some(Step::BuiltIn) => store.use_built_in(),
            Some(Step::Find) => {
                store.find(vec![model_folder(), browser.folder.path.clone()]);
            }
            Some(Step::Close) => self.open = None,
            None => {}
        }
        if store.is_loading() {
            ui.ctx().request_repaint_after_secs(0.05);
        }
    }
}

impl Browser {
    fn new(store: &ModelStore) -> Self {
        // The folder of the chosen model, or where it would be if it is missing.
        let folder = match store.chosen() {
            Some(file) => Folder::nearest(&file.path),
            None => Folder::read(&model_folder()),
        };
        Self {
            folder,
            typed: String::new(),
        }
    }

    fn show(&mut self, ui: &mut Ui, store: &ModelStore, engine: Engine) -> Option<Step> {
        let mut step = None;
        ui.horizontal(|ui| {
            ui.heading("Models");
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                if ui.button("Close").clicked() {
                    step = Some(Step::Close);
                }
            });
        });
        ui.add_space(4.0);
        ui.horizontal_top(|ui| {
            ui.allocate_ui_with_layout(
                vec2(LIST_WIDTH, SIZE.y - 120.0),
                Layout::top_down(Align::Min),
                |ui| step = step.take().or(self.list(ui, store)),
            );
            ui.add_space(10.0);
            ui.vertical(|ui| card(ui, store, engine));
        });
        ui.with_layout(Layout::bottom_up(Align::Min), |ui| {
            step = step.take().or(self.path_line(ui));
            step = step.take().or(state(ui, store, engine));
        });
        step
    }

    fn list(&self, ui: &mut Ui, store: &ModelStore) -> Option<Step> {
        let mut step = None;
        ui.horizontal(|ui| {
            if let Some(parent) = self.folder.parent()
                && ui.button("Up").on_hover_text("Parent folder.").clicked()
            {
                step = Some(Step::Go(parent.to_owned()));
            }
            if ui
                .button("My models")
                .on_hover_text("Your model folder.")
                .clicked()
            {
                step = Some(Step::Go(model_folder()));
            }
            let path = self.folder.path.display().to_string();
            ui.add(Label::new(RichText::new(&path).color(theme::DIM)).truncate())
                .on_hover_text(path);
        });
        let chosen = store.chosen();
        Frame::new()
            .fill(theme::BACKGROUND)
            .corner_radius(4)
            .inner_margin(4)
            .show(ui, |ui| {
                ScrollArea::vertical()
                    .auto_shrink(false)
                    .max_height(SIZE.y - 170.0)
                    .show(ui, |ui| {
                        let row = |ui: &mut Ui, is_on: bool, text: RichText| {
                            let row = ui.selectable_label(is_on, text);
                            row.clicked()
                        };
                        if row(ui, chosen.is_none(), RichText::new("Built-in model")) {
                            step = Some(Step::BuiltIn);
                        }
                        for name in &self.folder.folders {
                            let text = RichText::new(format!("{name}/")).color(theme::DIM);
                            if row(ui, false, text) {
                                step = Some(Step::Go(self.folder.path.join(name)));
                            }
                        }
                        for name in &self.folder.models {
                            let path = self.folder.path.join(name);
                            let is_on = chosen.as_ref().is_some_and(|file| file.path == path);
                            if row(ui, is_on, RichText::new(name)) {
                                step = Some(Step::Load(path));
                            }
                        }
                        if let Some(error) = &self.folder.error {
                            ui.colored_label(theme::WARNING, error);
                        } else if self.folder.models.is_empty() {
                            ui.weak("No model files (.safetensors) here.");
                        }
                    });
            });
        step
    }

    fn path_line(&mut self, ui: &mut Ui) -> Option<Step> {
        let mut step = None;
        ui.horizontal(|ui| {
            let field = TextEdit::singleline(&mut self.typed)
                .hint_text("Path of a model file or a folder")
                .desired_width(SIZE.x - 110.0);
            let response = ui.add(field);
            let enter = response.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            if (ui.button("Open").clicked() || enter) && !self.typed.trim().is_empty() {
                let path = PathBuf::from(self.typed.trim());
                step = Some(match path.is_dir() {
                    true => Step::Go(path),
                    false => Step::Load(path),
                });
            }
        });
        step
    }
}

/// Shows the result of the last choice.
fn state(ui: &mut Ui, store: &ModelStore, engine: Engine) -> Option<Step> {
    let mut step = None;
    if store.is_loading() {
        ui.colored_label(theme::TEXT, "Loading …");
    } else if let Some(note) = store.note() {
        let plays = match store.in_use(engine) {
            Ok(model) => format!(" Playing “{}”.", model.header().card.name),
            Err(_) => String::new(),
        };
        if store.is_lost() {
            let help = "Searches My models and the folder shown, including subfolders, for the same file under any name.";
            if ui.button("Find it").on_hover_text(help).clicked() {
                step = Some(Step::Find);
            }
        }
        ui.add(Label::new(RichText::new(format!("{note}.{plays}")).color(theme::WARNING)).wrap());
    } else if let Some(other) = store.is_for_another(engine) {
        let [own, other] = [engine, other].map(|engine| Engine::variants()[engine.to_index()]);
        let text = format!("Your model is for the engine {other}. {own} plays the built-in one.");
        ui.add(Label::new(RichText::new(text).color(theme::WARNING)).wrap());
    }
    step
}

/// Shows the card of the model in use.
fn card(ui: &mut Ui, store: &ModelStore, engine: Engine) {
    let model = match store.in_use(engine) {
        Ok(model) => model,
        Err(error) => {
            ui.colored_label(theme::WARNING, error.to_string());
            return;
        }
    };
    let card = &model.header().card;
    ui.label(RichText::new(&card.name).font(theme::bold(14.0)));
    let rows = [
        ("Version", card.version.clone()),
        ("Licence", card.licence.clone()),
        (
            "Training",
            format!("{} steps, {:.1} h", card.steps, card.train_hours),
        ),
        ("Sample rate", hears(&model)),
        (
            "Transpose range",
            format!("±{} semitones", model.header().max_shift_semitones),
        ),
    ];
    ScrollArea::vertical()
        .id_salt("card")
        .max_height(SIZE.y - 150.0)
        .show(ui, |ui| {
            Grid::new("card")
                .num_columns(2)
                .max_col_width(210.0)
                .show(ui, |ui| {
                    let figures = card
                        .figures
                        .iter()
                        .map(|figure| (figure.name.as_str(), format!("{:.3}", figure.value)));
                    for (name, value) in rows.into_iter().chain(figures) {
                        ui.add(Label::new(RichText::new(name).color(theme::DIM)).wrap());
                        ui.add(Label::new(value).wrap());
                        ui.end_row();
                    }
                });
            ui.add_space(4.0);
            ui.colored_label(theme::DIM, "Trained on");
            ui.add(Label::new(&card.data).wrap());
            if let Some(file) = store.chosen() {
                ui.colored_label(theme::DIM, "File");
                ui.add(
                    Label::new(file.path.display().to_string())
                        .wrap()
                        .sense(Sense::hover()),
                );
            }
        });
}

fn hears(model: &Model) -> String {
    let mel = &model.header().mel;
    format!("{:.2} kHz", f64::from(mel.sample_rate_hz) / 1000.0)
}

/// The name of the chosen model, even if its file is missing.
fn name(store: &ModelStore, engine: Engine) -> String {
    if store.is_loading() {
        return "Loading …".to_owned();
    }
    match (store.chosen(), store.note()) {
        (Some(file), Some(_)) => file_name(&file.path),
        _ => store.in_use(engine).map_or_else(
            |error| error.to_string(),
            |model| format!("Model: {}", model.header().card.name),
        ),
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// A text, truncated to `width`.
fn shortened(ui: &Ui, text: &str, width: f32) -> String {
    let fits = |text: &str| {
        let font = theme::font(theme::NORMAL);
        let galley = ui
            .painter()
            .layout_no_wrap(text.to_owned(), font, theme::TEXT);
        galley.size().x <= width
    };
    if fits(text) {
        return text.to_owned();
    }
    let mut letters: Vec<char> = text.chars().collect();
    loop {
        letters.pop();
        let short = letters.iter().collect::<String>() + "…";
        if letters.is_empty() || fits(&short) {
            return short;
        }
    }
}
