//! The size of the editor window, saved in the session.

use std::sync::atomic::{AtomicU32, Ordering};

use baseview::WindowSize;
use egui::{Vec2, vec2};
use nice_plug::editor::dpi::{LogicalSize, NativeSize, Size};
use nice_plug::params::persist::PersistentField;

/// Size of the face at 100 %, in points.
pub const FACE: Vec2 = vec2(960.0, 600.0);

/// Smallest scale.
pub const MIN_SCALE: f32 = 0.75;
/// Largest scale.
pub const MAX_SCALE: f32 = 3.0;

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
    /// Pixels per logical pixel, as last reported by the system.
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

    /// The size of the window in the host's units.
    pub fn native_size(&self) -> NativeSize<u32> {
        NativeSize::from_size(logical_size(self.get()), f64::from(self.system.get()))
    }

    /// Records the new size of the window.
    pub fn note(&self, size: WindowSize) {
        self.system.set(size.scale_factor as f32);
        let logical = vec2(size.logical.width as f32, size.logical.height as f32);
        self.scale
            .set(scale_of(logical).clamp(MIN_SCALE, MAX_SCALE));
    }

    /// The last size of the window, in logical pixels.
    pub fn size(&self) -> Size {
        logical_size(self.get())
    }
}

/// The size of the window at a scale.
pub fn logical_size(scale: f32) -> Size {
    Size::Logical(LogicalSize {
        width: f64::from(FACE.x * scale),
        height: f64::from(FACE.y * scale),
    })
}

/// The largest scale at which the face fits into a window of this size.
pub fn scale_of(size: Vec2) -> f32 {
    (size / FACE).min_elem().max(0.1)
}

#[cfg(test)]
mod tests {
    use super::*;

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
