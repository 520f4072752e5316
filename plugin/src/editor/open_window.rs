//! A window whose thread is joined when it closes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use baseview::Window;

/// Longest wait for the window's thread: an unresponsive display must not hang the host.
const LONGEST: Duration = Duration::from_secs(2);

/// An open window, until it is dropped.
///
/// On Linux, a window has its own thread. baseview 0.4.2 does not always wait for it to end, so it may still run when
/// the host unloads the plugin. Therefore dropping this value tells the thread to end and waits for it.
pub struct OpenWindow {
    window: Option<Window>,
    closing: Arc<AtomicBool>,
}

impl OpenWindow {
    /// Takes a window that closes itself soon after `closing` is set.
    pub fn new(window: Window, closing: Arc<AtomicBool>) -> Self {
        Self {
            window: Some(window),
            closing,
        }
    }

    /// The window.
    pub fn get(&self) -> &Window {
        self.window
            .as_ref()
            .expect("the window is there until the end")
    }

    /// Shows the window and waits until the user closes it.
    ///
    /// # Errors
    ///
    /// If the window fails.
    pub fn run_until_closed(mut self) -> Result<(), baseview::Error> {
        match self.window.take() {
            Some(window) => window.run_until_closed(),
            None => Ok(()),
        }
    }
}

impl Drop for OpenWindow {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let is_open = || self.window.as_ref().is_some_and(Window::is_open);
        // On other systems, windows run on this thread.
        while cfg!(target_os = "linux") && is_open() && began.elapsed() < LONGEST {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
