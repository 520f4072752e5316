//! The window: its size, which the session keeps, and what the host does to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use baseview::{WindowContext, WindowSize};
use egui::{Id, Pos2, Rect, Sense, Stroke, Ui, Vec2, pos2, vec2};
use nice_plug::editor::dpi::{LogicalSize, NativeSize, PhysicalSize, Size};
use nice_plug::editor::{EditorHandle, ParentWindowHandle, ResizeHint};
use nice_plug::params::persist::PersistentField;

use super::open_window::OpenWindow;
use super::theme;
use crate::meters::Meters;

/// Size of the face at 100 %, in points.
pub const FACE: Vec2 = vec2(960.0, 600.0);

/// Smallest and largest scale.
const MIN_SCALE: f32 = 0.75;
const MAX_SCALE: f32 = 3.0;

/// Scales that the grip's menu offers.
const SCALES: [f32; 6] = [0.75, 1.0, 1.25, 1.5, 2.0, 3.0];

/// Side of the grip in the corner, in points.
const GRIP: f32 = 16.0;

/// A number that several threads share.
#[derive(Debug)]
struct Shared(AtomicU32);

impl Shared {
    fn new(value: f32) -> Self {
        Self(AtomicU32::new(value.to_bits()))
    }

    fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, value: f32) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// The scale of the face, saved with the plugin's state.
#[derive(Debug)]
pub struct EditorScale {
    scale: Shared,
    /// Pixels for each logical one, as the system said last.
    system: Shared,
}

impl Default for EditorScale {
    fn default() -> Self {
        Self {
            scale: Shared::new(1.0),
            system: Shared::new(1.0),
        }
    }
}

impl PersistentField<'_, f32> for EditorScale {
    fn set(&self, scale: f32) {
        if scale.is_finite() {
            self.scale.set(scale.clamp(MIN_SCALE, MAX_SCALE));
        }
    }

    fn map<F, R>(&self, f: F) -> R
    where
        F: Fn(&f32) -> R,
    {
        f(&self.scale.get())
    }
}

impl EditorScale {
    /// The scale.
    pub fn get(&self) -> f32 {
        self.scale.get()
    }

    /// The size of the window in the units of the host.
    pub fn native_size(&self) -> NativeSize<u32> {
        NativeSize::from_size(logical_size(self.get()), f64::from(self.system.get()))
    }

    /// The window has a new size.
    pub fn note(&self, size: WindowSize) {
        self.system.set(size.scale_factor as f32);
        let logical = vec2(size.logical.width as f32, size.logical.height as f32);
        self.scale
            .set(scale_of(logical).clamp(MIN_SCALE, MAX_SCALE));
    }

    /// The size that the window had last, in logical pixels.
    pub fn size(&self) -> Size {
        logical_size(self.get())
    }
}

fn logical_size(scale: f32) -> Size {
    Size::Logical(LogicalSize {
        width: f64::from(FACE.x * scale),
        height: f64::from(FACE.y * scale),
    })
}

/// The scale at which the face fits into a window, however small.
pub fn scale_of(size: Vec2) -> f32 {
    (size / FACE).min_elem().max(0.1)
}

/// How the host may resize the window. The limits are not in here, so that a host that knows better is not fought.
pub const RESIZE: ResizeHint = ResizeHint {
    preserve_aspect_ratio: true,
    aspect_ratio_width: FACE.x as u32 / 120,
    aspect_ratio_height: FACE.y as u32 / 120,
    ..ResizeHint::RESIZABLE
};

/// Shows the grip that resizes the window, for hosts that have none.
pub fn grip(ui: &Ui, face: Rect, window: &WindowContext) {
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
        resize(
            window,
            scale_at(pointer, window, ui.ctx().pixels_per_point()),
        );
    }
    if response.double_clicked() {
        resize(window, 1.0);
    }
    response.context_menu(|ui| {
        for scale in SCALES {
            if ui.button(format!("{:.0} %", 100.0 * scale)).clicked() {
                resize(window, scale);
                ui.close();
            }
        }
    });
    response.on_hover_text("Drag to resize; right-click for sizes, double-click for 100 %.");
}

/// The scale that puts the corner where the pointer is.
fn scale_at(pointer: Pos2, window: &WindowContext, pixels_per_point: f32) -> f32 {
    let logical = pointer.to_vec2() * pixels_per_point / window.scale_factor() as f32;
    (logical / FACE).max_elem().clamp(MIN_SCALE, MAX_SCALE)
}

fn resize(window: &WindowContext, scale: f32) {
    // A host may refuse; then the window stays as it is.
    let _refused = window.resize(logical_size(scale));
}

/// The open window, as the host sees it.
pub struct Handle {
    /// Told when there is something new to draw.
    pub meters: Arc<Meters>,
    /// Whether the host hides the window.
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

/// The size of the face's ratio that is nearest to what the host wants: the side that the user moved decides.
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

    #[test]
    fn a_scale_that_is_none_is_not_taken_from_a_session() {
        let scale = EditorScale::default();
        for (saved, taken) in [(2.0, 2.0), (f32::NAN, 2.0), (100.0, 3.0), (-1.0, 0.75)] {
            scale.set(saved);
            assert_eq!(scale.get(), taken);
        }
    }

    #[test]
    fn a_window_of_another_shape_holds_the_whole_face() {
        assert_eq!(scale_of(vec2(1920.0, 600.0)), 1.0);
        assert_eq!(scale_of(vec2(960.0, 5000.0)), 1.0);
        assert_eq!(scale_of(vec2(96.0, 96.0)), 0.1);
        assert!(scale_of(vec2(0.0, 0.0)) > 0.0);
    }
}
