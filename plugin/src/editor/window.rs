//! The resize grip, and the window as the host controls it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use egui::{Id, Pos2, Rect, Sense, Stroke, Ui, Vec2, pos2};
use nice_plug::editor::dpi::{NativeSize, PhysicalSize};
use nice_plug::editor::{EditorHandle, ParentWindowHandle, ResizeHint};

use super::open_window::OpenWindow;
use super::surface::Frame;
use super::theme;
use crate::editor_size::{FACE, MAX_SCALE, MIN_SCALE, logical_size};
use crate::meters::Meters;

/// Scales in the menu of the grip.
const SCALES: [f32; 6] = [0.75, 1.0, 1.25, 1.5, 2.0, 3.0];

/// Side length of the grip, in points.
const GRIP: f32 = 16.0;

/// How the host may resize the window. Contains no limits, so as not to conflict with hosts that enforce their own.
pub const RESIZE: ResizeHint = ResizeHint {
    preserve_aspect_ratio: true,
    aspect_ratio_width: FACE.x as u32 / 120,
    aspect_ratio_height: FACE.y as u32 / 120,
    ..ResizeHint::RESIZABLE
};

/// Shows the resize grip, for hosts without one.
pub fn grip(ui: &Ui, face: Rect, frame: &mut Frame) {
    let corner = face.right_bottom();
    let rect = Rect::from_min_max(corner - Vec2::splat(GRIP), corner);
    let response = ui.interact(rect, Id::unique("grip"), Sense::click_and_drag());
    let stroke = Stroke::new(
        1.0,
        if response.hovered() {
            theme::TEXT
        } else {
            theme::DIM
        },
    );
    for inset in [4.0, 7.5, 11.0] {
        ui.painter().line_segment(
            [
                pos2(corner.x - inset, corner.y - 3.0),
                pos2(corner.x - 3.0, corner.y - inset),
            ],
            stroke,
        );
    }
    if response.hovered() || response.dragged() {
        ui.ctx().set_cursor_icon(egui::CursorIcon::ResizeNwSe);
    }
    if response.dragged()
        && let Some(pointer) = response.interact_pointer_pos()
    {
        let pixels_per_point = ui.ctx().pixels_per_point();
        let scale = scale_at(pointer, frame.scale_factor, pixels_per_point);
        frame.resize(logical_size(scale));
    }
    if response.double_clicked() {
        frame.resize(logical_size(1.0));
    }
    response.context_menu(|ui| {
        for scale in SCALES {
            if ui.button(format!("{:.0} %", 100.0 * scale)).clicked() {
                frame.resize(logical_size(scale));
                ui.close();
            }
        }
    });
    response.on_hover_text("Drag to resize; right-click for sizes, double-click for 100 %.");
}

/// The scale that puts the corner of the window at the pointer.
fn scale_at(pointer: Pos2, scale_factor: f64, pixels_per_point: f32) -> f32 {
    let logical = pointer.to_vec2() * pixels_per_point / scale_factor as f32;
    (logical / FACE).max_elem().clamp(MIN_SCALE, MAX_SCALE)
}

/// The handle of the open window for the host.
pub struct Handle {
    /// Notified when there is something new to draw.
    pub meters: Arc<Meters>,
    /// Whether the host hid the window.
    pub hidden: Arc<AtomicBool>,
}

impl EditorHandle for Handle {
    type Window = OpenWindow;
    type Error = baseview::Error;

    fn run_until_closed(window: OpenWindow) -> Result<(), Self::Error> {
        window.run_until_closed()
    }

    fn set_parent(
        &self,
        parent: ParentWindowHandle,
        window: &OpenWindow,
    ) -> Result<(), Self::Error> {
        window.get().set_parent(&parent)
    }

    fn show(&self, window: &OpenWindow) -> Result<(), Self::Error> {
        let shown = window.get().show();
        self.hidden.store(false, Ordering::Relaxed);
        self.meters.ask_to_look();
        shown
    }

    fn hide(&self, window: &OpenWindow) -> Result<(), Self::Error> {
        self.hidden.store(true, Ordering::Relaxed);
        window.get().hide()
    }

    fn set_size(&self, size: NativeSize<u32>, window: &OpenWindow) -> Result<(), Self::Error> {
        window.get().resize(size)
    }

    fn host_main_thread_callback(&self, window: &OpenWindow) {
        window.get().host_main_thread_callback();
    }

    fn adjust_size(&self, wanted: NativeSize<u32>, window: &OpenWindow) -> Option<NativeSize<u32>> {
        let now = window.get().size();
        Some(nearest_size(wanted, now.physical, now.scale_factor))
    }

    fn set_fallback_scale_factor(
        &self,
        factor: f64,
        window: &OpenWindow,
    ) -> Result<(), Self::Error> {
        window.get().suggest_fallback_scale_factor(factor)
    }

    fn state_changed(&self) {
        self.meters.ask_to_look();
    }

    fn param_value_changed(&self, _id: &str, _value: f32) {
        self.meters.ask_to_look();
    }

    fn param_modulation_changed(&self, _id: &str, _offset: f32) {
        self.meters.ask_to_look();
    }
}

/// The nearest size with the aspect ratio of the face. The side that the user moved decides.
fn nearest_size(
    wanted: NativeSize<u32>,
    now: PhysicalSize<u32>,
    system_scale: f64,
) -> NativeSize<u32> {
    let physical = wanted.to_physical(system_scale);
    let moved = |wanted: u32, now: u32| (f64::from(wanted) / f64::from(now.max(1)) - 1.0).abs();
    let by_width = moved(physical.width, now.width) >= moved(physical.height, now.height);
    let pixels = match by_width {
        true => physical.width as f32 / FACE.x,
        false => physical.height as f32 / FACE.y,
    };
    let scale = (pixels / system_scale as f32).clamp(MIN_SCALE, MAX_SCALE);
    NativeSize::from_size(logical_size(scale), system_scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(width: u32, height: u32) -> (u32, u32) {
        let now = PhysicalSize {
            width: 960,
            height: 600,
        };
        let size = nearest_size(NativeSize::new(width, height), now, 1.0);
        (size.width, size.height)
    }

    #[test]
    fn sizes_keep_the_ratio_and_the_limits() {
        assert_eq!(nearest(960, 600), (960, 600));
        assert_eq!(nearest(1920, 600), (1920, 1200), "the right edge moved");
        assert_eq!(nearest(960, 900), (1440, 900), "the bottom edge moved");
        assert_eq!(nearest(10, 10), (720, 450));
        assert_eq!(nearest(9000, 9000), (2880, 1800));
    }
}
