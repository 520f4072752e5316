//! The plugin's window: sliders and figures.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use egui::{CentralPanel, Color32, Grid, RichText, Ui};
use model_runtime::LatencyMode;
use model_runtime::status::Status;
use nice_plug::context::PluginApi;
use nice_plug::context::gui::{GuiContext, ParamSetter};
use nice_plug::editor::dpi::{LogicalSize, NativeSize, Size};
use nice_plug::editor::{
    Editor, HostMethods, ParentWindowHandle, ResizeHint, SizeConstraints, SpawnedEditor,
};
use nice_plug::params::persist::PersistentField;
use nice_plug::prelude::{BoolParam, Param};
use nice_plug_egui::baseview::{HandlerError, WindowSize};
use nice_plug_egui::widgets::ParamSlider;
use nice_plug_egui::{
    EguiEditorHandle, EguiEditorState, EguiNiceSettings, Frame, NiceEguiApp, RepaintNotifier,
    create_egui_editor,
};
use parking_lot::Mutex;

use crate::params::GraftParams;
use crate::processor;

const DEFAULT_SIZE: LogicalSize<f32> = LogicalSize {
    width: 460.0,
    height: 560.0,
};
const MIN_SIZE: LogicalSize<f32> = LogicalSize {
    width: 360.0,
    height: 360.0,
};
const MAX_SIZE: LogicalSize<f32> = LogicalSize {
    width: 4096.0,
    height: 4096.0,
};
const SLIDER_WIDTH: f32 = 180.0;
/// How often the figures are read anew.
const REFRESH: Duration = Duration::from_millis(200);

/// What the editor shows of the running plugin.
#[derive(Default)]
pub struct Readout {
    /// Of the exchange with the worker.
    pub status: Arc<Status>,
    latency_samples: AtomicU32,
    sample_rate_hz_bits: AtomicU32,
    /// The mode in force.
    mode: Mutex<LatencyMode>,
}

impl Readout {
    /// Main thread: notes the mode in force and the latency that was reported to the host.
    pub fn set_latency(&self, mode: LatencyMode, latency_samples: u32, sample_rate_hz: f32) {
        *self.mode.lock() = mode;
        self.latency_samples
            .store(latency_samples, Ordering::Relaxed);
        self.sample_rate_hz_bits
            .store(sample_rate_hz.to_bits(), Ordering::Relaxed);
    }

    fn latency_text(&self) -> String {
        let samples = self.latency_samples.load(Ordering::Relaxed);
        let rate_hz = f32::from_bits(self.sample_rate_hz_bits.load(Ordering::Relaxed));
        if rate_hz == 0.0 {
            return "not running".to_owned();
        }
        let ms = 1000.0 * samples as f32 / rate_hz;
        format!("{ms:.1} ms ({samples} samples)")
    }
}

/// Size of the window in logical pixels, saved with the plugin's state.
pub struct EditorSize(Mutex<LogicalSize<f32>>);

impl Default for EditorSize {
    fn default() -> Self {
        Self(Mutex::new(DEFAULT_SIZE))
    }
}

impl PersistentField<'_, (f32, f32)> for EditorSize {
    fn set(&self, (width, height): (f32, f32)) {
        *self.0.lock() = LogicalSize {
            width: width.clamp(MIN_SIZE.width, MAX_SIZE.width),
            height: height.clamp(MIN_SIZE.height, MAX_SIZE.height),
        };
    }

    fn map<F, R>(&self, f: F) -> R
    where
        F: Fn(&(f32, f32)) -> R,
    {
        let size = *self.0.lock();
        f(&(size.width, size.height))
    }
}

/// Makes a window each time the host opens one, at the size that was saved last.
pub struct GraftEditor {
    params: Arc<GraftParams>,
    readout: Arc<Readout>,
}

impl GraftEditor {
    /// An editor for these parameters.
    pub fn new(params: Arc<GraftParams>, readout: Arc<Readout>) -> Self {
        Self { params, readout }
    }

    fn saved_size(&self) -> Size {
        Size::Logical((*self.params.editor_size.0.lock()).cast())
    }
}

impl Editor for GraftEditor {
    type Handle = EguiEditorHandle;

    fn spawn(
        &self,
        parent: Option<ParentWindowHandle>,
        wait_for_parent: bool,
        fallback_scale_factor: Option<f64>,
        gui_context: GuiContext,
        host: Option<HostMethods>,
    ) -> Result<SpawnedEditor<EguiEditorHandle>, Box<dyn Error>> {
        let app = App {
            params: Arc::clone(&self.params),
            readout: Arc::clone(&self.readout),
            context: None,
            restart_asked_for: None,
        };
        create_egui_editor(
            EguiEditorState::from_size(self.saved_size(), 1.0),
            RepaintNotifier::new(),
            EguiNiceSettings::new()
                .with_tile("Graft")
                .with_resize_hint(self.resize_hint()),
            app,
        )
        .ok_or("no editor")?
        .spawn(
            parent,
            wait_for_parent,
            fallback_scale_factor,
            gui_context,
            host,
        )
    }

    fn size(&self) -> NativeSize<u32> {
        NativeSize::from_size(self.saved_size(), 1.0)
    }

    fn resize_hint(&self) -> ResizeHint {
        ResizeHint {
            can_resize: true,
            can_resize_horizontally: true,
            can_resize_vertically: true,
            size_constraints: SizeConstraints::Logical {
                min_size: Some(MIN_SIZE),
                max_size: None,
            },
            ..ResizeHint::NON_RESIZABLE
        }
    }
}

/// One open window.
struct App {
    params: Arc<GraftParams>,
    readout: Arc<Readout>,
    context: Option<GuiContext>,
    /// The latency mode that the host was last asked to restart for.
    restart_asked_for: Option<LatencyMode>,
}

impl App {
    /// Asks a VST3 host for a restart when the latency is to change; in CLAP the audio thread does.
    fn request_restart(&mut self, context: &GuiContext) {
        let wanted = LatencyMode::from(self.params.latency.value());
        let changed = wanted != *self.readout.mode.lock();
        if !changed {
            self.restart_asked_for = None;
        } else if context.plugin_api() == PluginApi::Vst3 && self.restart_asked_for != Some(wanted)
        {
            self.restart_asked_for = Some(wanted);
            context.request_restart();
        }
    }
}

impl NiceEguiApp for App {
    fn build(
        &mut self,
        _egui_ctx: egui::Context,
        context: GuiContext,
        _frame: &mut Frame,
    ) -> Result<(), HandlerError> {
        self.context = Some(context);
        Ok(())
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut Frame) {
        let Some(context) = self.context.clone() else {
            return;
        };
        self.request_restart(&context);
        let setter = context.param_setter();
        CentralPanel::default().show(ui, |ui| {
            ui.heading("Graft");
            ui.separator();
            sliders(ui, &self.params, &setter);
            ui.separator();
            figures(ui, &self.readout);
        });
        ui.ctx().request_repaint_after(REFRESH);
    }

    fn resized(&mut self, size: WindowSize) {
        *self.params.editor_size.0.lock() = size.logical.cast();
    }

    fn editor_closed(&mut self) {
        self.context = None;
    }
}

fn sliders(ui: &mut Ui, params: &GraftParams, setter: &ParamSetter) {
    Grid::new("sliders").num_columns(2).show(ui, |ui| {
        fn slider<P: Param>(ui: &mut Ui, param: &P, setter: &ParamSetter) {
            ui.label(param.name());
            ui.add(ParamSlider::for_param(param, setter).with_width(SLIDER_WIDTH));
            ui.end_row();
        }
        let checkbox = |ui: &mut Ui, param: &BoolParam| {
            ui.label(param.name());
            let mut on = param.value();
            if ui.checkbox(&mut on, "").changed() {
                setter.begin_set_parameter(param);
                setter.set_parameter(param, on);
                setter.end_set_parameter(param);
            }
            ui.end_row();
        };
        slider(ui, &params.harmony, setter);
        slider(ui, &params.rhythm, setter);
        checkbox(ui, &params.link);
        slider(ui, &params.transpose, setter);
        checkbox(ui, &params.freeze_harmony);
        checkbox(ui, &params.freeze_rhythm);
        slider(ui, &params.freeze_length, setter);
        slider(ui, &params.window, setter);
        slider(ui, &params.latency, setter);
        slider(ui, &params.main_gain, setter);
        slider(ui, &params.sidechain_gain, setter);
        slider(ui, &params.mix, setter);
        slider(ui, &params.output_gain, setter);
        checkbox(ui, &params.bypass);
    });
}

fn figures(ui: &mut Ui, readout: &Readout) {
    let status = &readout.status;
    Grid::new("figures").num_columns(2).show(ui, |ui| {
        let mut row = |name: &str, text: String| {
            ui.label(name);
            ui.label(text);
            ui.end_row();
        };
        row("Model", processor::model_name());
        row("Latency", readout.latency_text());
        row(
            "Real-time factor",
            format!("{:.3}", status.real_time_factor()),
        );
        row("Late windows", status.late_windows().to_string());
    });
    if let Some(fault) = status.last_fault() {
        let text = format!("{fault} ({} in all)", status.faults());
        ui.label(RichText::new(text).color(Color32::LIGHT_RED));
    }
}
