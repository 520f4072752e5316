//! The contents of an open window, and what is kept after it closes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use baseview::WindowSize;
use egui::{CentralPanel, Rect, Ui};
use nice_plug::context::gui::GuiContext;
use parking_lot::Mutex;

use super::about::About;
use super::doctor::{Advice, Doctor};
use super::entry::Entry;
use super::face::{self, Holds};
use super::history::History;
use super::models::Models;
use super::panel::{Gestures, Panel};
use super::pictures::Pictures;
use super::surface::{Content, Frame};
use super::toolbar::Toolbar;
use super::{status, theme, window};
use crate::editor_size::FACE;
use crate::params::{GraftParams, ParamId};
use crate::readout::Readout;
use crate::setup::Activation;

/// How often the figures are refreshed.
const REFRESH_SECONDS: f64 = 0.25;

/// State that is kept from one window to the next.
#[derive(Default)]
pub struct Kept {
    history: History,
    toolbar: Toolbar,
}

/// Displayed values that change without user input, as last read.
#[derive(Default)]
struct Figures {
    read_seconds: f64,
    late_windows: u64,
    faults: u64,
    work_percent: f32,
    activation: Option<Activation>,
    model: (u64, bool, Option<String>),
    values: Vec<f32>,
    advice: Option<Advice>,
}

impl Figures {
    /// Whether a window with the other figures would look the same.
    fn look_like(&self, other: &Self) -> bool {
        let all = |f: &Self| {
            let counts = (f.late_windows, f.faults, f.work_percent, f.activation);
            (counts, f.model.clone(), f.values.clone(), f.advice.clone())
        };
        all(self) == all(other)
    }
}

/// The contents of an open window.
pub struct App {
    params: Arc<GraftParams>,
    readout: Arc<Readout>,
    context: GuiContext,
    gestures: Gestures,
    entry: Entry,
    holds: Holds,
    pictures: Pictures,
    doctor: Doctor,
    toolbar: Toolbar,
    models: Models,
    about: About,
    kept: Arc<Mutex<Kept>>,
    figures: Figures,
    hidden: Arc<AtomicBool>,
}

impl App {
    /// Shows the parameters and the readout of a plugin, with the state that the last window kept.
    pub fn new(
        params: Arc<GraftParams>,
        readout: Arc<Readout>,
        context: GuiContext,
        kept: Arc<Mutex<Kept>>,
        hidden: Arc<AtomicBool>,
    ) -> Self {
        let Kept { history, toolbar } = std::mem::take(&mut *kept.lock());
        Self {
            params,
            readout,
            context,
            gestures: Gestures::with_history(history),
            entry: Entry::default(),
            holds: Holds::default(),
            pictures: Pictures::default(),
            doctor: Doctor::default(),
            toolbar,
            models: Models::default(),
            about: About::default(),
            kept,
            figures: Figures::default(),
            hidden,
        }
    }

    fn values(&self) -> Vec<f32> {
        let values = ParamId::ALL.iter().map(|id| id.of(&self.params).value());
        values.collect()
    }

    fn read_figures(&mut self, now_seconds: f64) -> Figures {
        let status = &self.readout.status;
        let model = &self.params.model.0;
        Figures {
            read_seconds: now_seconds,
            late_windows: status.late_windows(),
            faults: status.faults(),
            work_percent: (100.0 * status.real_time_factor()).round(),
            activation: self.readout.activation(),
            model: (model.version(), model.is_loading(), model.note()),
            values: self.values(),
            advice: self
                .doctor
                .advice(&self.params, &self.readout.meters, now_seconds),
        }
    }
}

impl Content for App {
    fn begin(&mut self, ctx: &egui::Context) {
        theme::install(ctx);
        self.readout.scope.watch(true);
    }

    fn is_hidden(&self) -> bool {
        self.hidden.load(Ordering::Relaxed)
    }

    fn has_changed(&mut self, now_seconds: f64) -> bool {
        let asked = self.readout.meters.take_asked();
        if now_seconds < self.figures.read_seconds + REFRESH_SECONDS {
            return asked;
        }
        let figures = self.read_figures(now_seconds);
        let changed = !figures.look_like(&self.figures);
        self.figures = figures;
        asked || changed
    }

    fn resized(&mut self, size: WindowSize) {
        self.params.editor_scale.note(size);
    }

    fn hover(&mut self, is_over: bool) {
        self.models.hover(is_over);
    }

    fn drop_file(&mut self, file: PathBuf) {
        self.params.model.0.load(file);
    }

    fn ui(&mut self, ui: &mut Ui, frame: &mut Frame) {
        let face = Rect::from_center_size(ui.max_rect().center(), FACE);
        let mut panel = Panel {
            params: &self.params,
            setter: self.context.param_setter(),
            now_seconds: ui.input(|input| input.time),
            gestures: &mut self.gestures,
        };
        CentralPanel::no_frame().show(ui, |ui| {
            let origin = face.min;
            ui.painter()
                .rect_filled(ui.max_rect(), 0.0, theme::BACKGROUND);
            let meters = &self.readout.meters;
            face::controls(ui, origin, &mut panel, meters, &mut self.holds);
            let ground = face::PICTURES.translate(origin.to_vec2());
            face::ground(ui, ground, "");
            let activation = self.readout.activation();
            let news = self.readout.scope.take();
            self.doctor.listen(&news, activation.as_ref());
            self.pictures.take(ui.ctx(), &news);
            let engine = self.params.engine.value();
            let picture = ground.shrink(10.0);
            if self.pictures.show(ui, picture, activation, engine) {
                ui.ctx().request_repaint();
            }
            let line = face::STATUS.translate(origin.to_vec2());
            let advice = self.figures.advice.as_ref();
            let api = self.context.plugin_api();
            status::line(ui, line, &mut panel, &self.readout, advice, api);
            self.toolbar.show(ui, origin, &mut panel);
            let store = &self.params.model.0;
            self.models
                .button(ui, face::MODEL.translate(origin.to_vec2()), store, engine);
            self.models.show(ui, store, engine);
            self.models.show_drop(ui, face);
            self.about.name(ui, origin);
            self.about.show(ui, store, engine);
            window::grip(ui, face, frame);
            self.entry.show(ui, &mut panel);
        });
    }
}

impl Drop for App {
    /// The host may close the window during a gesture.
    fn drop(&mut self) {
        self.readout.scope.watch(false);
        let mut panel = Panel {
            params: &self.params,
            setter: self.context.param_setter(),
            now_seconds: 0.0,
            gestures: &mut self.gestures,
        };
        panel.end_all();
        *self.kept.lock() = Kept {
            history: std::mem::take(&mut self.gestures.history),
            toolbar: std::mem::take(&mut self.toolbar),
        };
    }
}
