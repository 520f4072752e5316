//! The editor window.
//!
//! It reads atomics and data that the worker leaves for it; no other thread ever waits for it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nice_plug::context::gui::GuiContext;
use nice_plug::editor::dpi::NativeSize;
use nice_plug::editor::{Editor, HostMethods, ParentWindowHandle, ResizeHint, SpawnedEditor};
use parking_lot::Mutex;

mod about;
mod app;
mod buttons;
mod doctor;
mod entry;
mod face;
mod history;
mod knob;
mod meter;
mod models;
mod open_window;
mod pad;
mod panel;
mod pictures;
#[cfg(target_os = "linux")]
mod pinned;
pub mod presets;
mod reentrant;
mod report;
mod status;
mod surface;
mod theme;
mod toolbar;
mod window;

use crate::params::GraftParams;
use crate::readout::Readout;
use app::{App, Kept};
use surface::Place;
use window::Handle;

/// Creates a window each time the host opens one, at the last saved size.
pub struct GraftEditor {
    params: Arc<GraftParams>,
    readout: Arc<Readout>,
    kept: Arc<Mutex<Kept>>,
}

impl GraftEditor {
    /// Creates an editor for these parameters.
    pub fn new(params: Arc<GraftParams>, readout: Arc<Readout>) -> Self {
        Self {
            params,
            readout,
            kept: Arc::default(),
        }
    }
}

impl Editor for GraftEditor {
    type Handle = Handle;

    fn spawn(
        &self,
        parent: Option<ParentWindowHandle>,
        wait_for_parent: bool,
        fallback_scale_factor: Option<f64>,
        gui_context: GuiContext,
        host: Option<HostMethods>,
    ) -> Result<SpawnedEditor<Handle>, Box<dyn Error>> {
        let hidden = Arc::new(AtomicBool::new(false));
        let app = App::new(
            Arc::clone(&self.params),
            Arc::clone(&self.readout),
            gui_context,
            Arc::clone(&self.kept),
            Arc::clone(&hidden),
        );
        let place = Place {
            parent: parent.as_ref(),
            wait_for_parent,
            fallback_scale_factor,
            size: self.params.editor_scale.size(),
        };
        Ok(SpawnedEditor {
            window: surface::open(app, &place, host)?,
            handle: Handle {
                meters: Arc::clone(&self.readout.meters),
                hidden,
            },
        })
    }

    fn size(&self) -> NativeSize<u32> {
        self.params.editor_scale.native_size()
    }

    fn resize_hint(&self) -> ResizeHint {
        window::RESIZE
    }
}
