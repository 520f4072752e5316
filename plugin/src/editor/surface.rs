//! Connects the system's window (baseview) with the user interface (egui) and OpenGL.
//!
//! This is our own thin layer because egui-baseview 0.9 ignores files dragged into the window and inverts the relation
//! between scale and window size. It redraws only on changes, and the face fills the window as far as its aspect ratio
//! allows.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use baseview::dpi::{PhysicalPosition, Size};
use baseview::gl::{GlConfig, GlContext};
use baseview::{
    DropData, DropEffect, Event, EventStatus, HandlerError, MouseButton, MouseCursor, MouseEvent,
    ScrollDelta, TimerHandle, Window, WindowContext, WindowEvent, WindowHandler, WindowSettings,
    WindowSize,
};
use copypasta::{ClipboardContext, ClipboardProvider};
use egui::{
    CursorIcon, FullOutput, Modifiers, OutputCommand, PointerButton, Pos2, RawInput, Rect, Ui,
};
use egui_glow::Painter;
use egui_glow::glow;
use keyboard_types::{Key, KeyState, KeyboardEvent};
use nice_plug::editor::{HostMethods, ParentWindowHandle};

use super::open_window::OpenWindow;
use super::reentrant::Reentrant;
use crate::editor_size::scale_of;

/// How often the window checks whether it has to redraw.
const POLL: Duration = Duration::from_micros(15_625);

/// Where to open the window.
pub struct Place<'a> {
    /// The host's window, if it is already known.
    pub parent: Option<&'a ParentWindowHandle>,
    /// Whether the host sets the parent window later.
    pub wait_for_parent: bool,
    /// Pixels per logical pixel, if the system does not report a value.
    pub fallback_scale_factor: Option<f64>,
    /// Initial size.
    pub size: Size,
}

/// The contents of a window.
pub trait Content: 'static {
    /// Called before the first frame.
    fn begin(&mut self, ctx: &egui::Context);
    /// Whether the host hid the window.
    fn is_hidden(&self) -> bool;
    /// Whether the contents changed without user input.
    fn has_changed(&mut self, now_seconds: f64) -> bool;
    /// Called when the window has a new size.
    fn resized(&mut self, size: WindowSize);
    /// Called when a file is dragged over the window or leaves it.
    fn hover(&mut self, is_over: bool);
    /// Called when a file was dropped.
    fn drop_file(&mut self, file: PathBuf);
    /// Draws a frame.
    fn ui(&mut self, ui: &mut Ui, frame: &mut Frame);
}

/// Properties of the window, and requests to it that are sent after the frame is drawn, because a window may answer a
/// request at once with another callback.
pub struct Frame {
    /// Pixels per logical pixel, as reported by the system.
    pub scale_factor: f64,
    wanted_size: Option<Size>,
}

impl Frame {
    /// Requests another size.
    pub fn resize(&mut self, size: Size) {
        self.wanted_size = Some(size);
    }
}

/// Opens a window for `content`.
///
/// # Errors
///
/// If the system cannot create a window.
pub fn open(
    content: impl Content + Send,
    place: &Place,
    host: Option<HostMethods>,
) -> Result<OpenWindow, baseview::Error> {
    #[cfg(target_os = "linux")]
    super::pinned::pin_libraries();
    let mut settings = WindowSettings::new()
        .with_title("Graft")
        .with_size(place.size)
        .with_resizable(true)
        .with_wait_for_parent(place.wait_for_parent)
        .with_fallback_scale_factor(place.fallback_scale_factor)
        .with_gl_config(Some(GlConfig::default()));
    if let Some(parent) = place.parent {
        settings = settings.with_parent(parent);
    }
    let closing = Arc::new(AtomicBool::new(false));
    let surface_closing = Arc::clone(&closing);
    let window = Window::create_with_host(
        settings,
        |window| Surface::new(window, content, surface_closing),
        host.map(adapt),
    )?;
    Ok(OpenWindow::new(window, closing))
}

/// An open window.
struct Surface<C> {
    content: Reentrant<C>,
    context: egui::Context,
    painter: RefCell<Painter>,
    clipboard: RefCell<Option<ClipboardContext>>,
    input: RefCell<RawInput>,
    window: WindowContext,
    /// Set when the window is to close.
    closing: Arc<AtomicBool>,
    poll: TimerHandle,
    started: Instant,
    /// Time of the next redraw, in nanoseconds after `started`.
    due: Arc<AtomicU64>,
    /// Earliest next redraw: without a graphics card, drawing must leave CPU time to the worker.
    rest_until: Cell<Duration>,
    pointer: Cell<Pos2>,
    cursor: Cell<MouseCursor>,
}

impl<C: Content> Surface<C> {
    fn new(
        window: WindowContext,
        mut content: C,
        closing: Arc<AtomicBool>,
    ) -> Result<Self, HandlerError> {
        let gl = opengl(&window)?;
        let painter = current(&gl, || {
            let load = |symbol: &CStr| gl.get_proc_address(symbol);
            // SAFETY: the context is current, and the loader returns its functions.
            let context = unsafe { glow::Context::from_loader_function_cstr(load) };
            // Dithering costs more than it gains without a graphics card.
            Painter::new(Arc::new(context), "", None, false)
        })??;
        let context = egui::Context::default();
        let started = Instant::now();
        let due = Arc::new(AtomicU64::new(0));
        context.set_request_repaint_callback({
            let due = Arc::clone(&due);
            move |request| {
                let at = started.elapsed().saturating_add(request.delay);
                due.fetch_min(nanoseconds(at), Ordering::Relaxed);
            }
        });
        content.begin(&context);
        let input = RawInput {
            max_texture_side: Some(painter.max_texture_side()),
            ..RawInput::default()
        };
        Ok(Self {
            content: Reentrant::new(content),
            context,
            painter: RefCell::new(painter),
            clipboard: RefCell::new(ClipboardContext::new().ok()),
            input: RefCell::new(input),
            poll: window.create_timer(POLL)?,
            window,
            closing,
            started,
            due,
            rest_until: Cell::new(Duration::ZERO),
            pointer: Cell::new(Pos2::ZERO),
            cursor: Cell::new(MouseCursor::Default),
        })
    }

    /// Pixels per point of the face.
    fn pixels_per_point(&self) -> f32 {
        let pixels = self.window.size().physical;
        scale_of(egui::vec2(pixels.width as f32, pixels.height as f32))
    }

    fn draw_soon(&self) {
        self.due.store(0, Ordering::Relaxed);
        self.window.request_redraw();
    }

    fn is_due(&self) -> bool {
        let now = self.started.elapsed();
        let asked = self.due.load(Ordering::Relaxed) <= nanoseconds(now);
        let is_hidden = || self.content.try_with(|content| content.is_hidden());
        asked && now >= self.rest_until.get() && is_hidden() == Some(false)
    }

    /// The egui input of a frame.
    fn take_input(&self) -> RawInput {
        let pixels = self.window.size().physical;
        let scale = self.pixels_per_point();
        let size = egui::vec2(pixels.width as f32, pixels.height as f32) / scale;
        let mut input = self.input.borrow_mut();
        input.time = Some(self.started.elapsed().as_secs_f64());
        input.screen_rect = Some(Rect::from_min_size(Pos2::ZERO, size));
        let id = input.viewport_id;
        let viewport = input.viewports.entry(id).or_default();
        viewport.native_pixels_per_point = Some(scale);
        input.take()
    }

    fn push(&self, event: egui::Event) {
        self.input.borrow_mut().events.push(event);
    }

    fn point(&self, position: PhysicalPosition<f64>) -> Pos2 {
        let scale = self.pixels_per_point();
        egui::pos2(position.x as f32 / scale, position.y as f32 / scale)
    }

    fn mouse(&self, event: MouseEvent) -> EventStatus {
        match event {
            MouseEvent::CursorMoved {
                position,
                modifiers,
            } => {
                self.modifiers(modifiers);
                self.pointer.set(self.point(position));
                self.push(egui::Event::PointerMoved(self.pointer.get()));
            }
            MouseEvent::ButtonPressed { button, modifiers } => {
                // An embedded window gets no keys unless it takes the focus.
                if !self.window.has_focus() {
                    let _keys_go_elsewhere = self.window.focus();
                }
                self.button(button, true, modifiers);
            }
            MouseEvent::ButtonReleased { button, modifiers } => {
                self.button(button, false, modifiers);
            }
            MouseEvent::WheelScrolled { delta, modifiers } => {
                let modifiers = self.modifiers(modifiers);
                let (unit, delta) = match delta {
                    ScrollDelta::Lines { x, y } => (egui::MouseWheelUnit::Line, egui::vec2(x, y)),
                    // In spite of their name, logical pixels: only macOS sends them.
                    ScrollDelta::Pixels { x, y } => {
                        let pixels = egui::vec2(x, y) * self.window.scale_factor() as f32;
                        let scale = self.pixels_per_point();
                        (egui::MouseWheelUnit::Point, pixels / scale)
                    }
                };
                self.push(egui::Event::MouseWheel {
                    unit,
                    delta,
                    modifiers,
                    phase: egui::TouchPhase::Move,
                    source: egui::MouseWheelSource::Unknown,
                });
            }
            MouseEvent::CursorLeft => self.push(egui::Event::PointerGone),
            MouseEvent::DragEntered { data, .. } | MouseEvent::DragMoved { data, .. } => {
                return self.drag(&data);
            }
            MouseEvent::DragDropped { data, .. } => {
                let status = self.drag(&data);
                self.content.when_free(move |content| {
                    content.hover(false);
                    if let Some(file) = file(&data) {
                        content.drop_file(file);
                    }
                });
                return status;
            }
            MouseEvent::DragLeft => self.content.when_free(|content| content.hover(false)),
            _ => return EventStatus::Ignored,
        }
        EventStatus::Captured
    }

    fn drag(&self, data: &DropData) -> EventStatus {
        let wanted = file(data).is_some();
        self.content.when_free(move |content| content.hover(wanted));
        match wanted {
            true => EventStatus::AcceptDrop(DropEffect::Copy),
            false => EventStatus::Ignored,
        }
    }

    fn button(&self, button: MouseButton, pressed: bool, modifiers: keyboard_types::Modifiers) {
        let modifiers = self.modifiers(modifiers);
        let button = match button {
            MouseButton::Left => PointerButton::Primary,
            MouseButton::Right => PointerButton::Secondary,
            MouseButton::Middle => PointerButton::Middle,
            _ => return,
        };
        self.push(egui::Event::PointerButton {
            pos: self.pointer.get(),
            button,
            pressed,
            modifiers,
        });
    }

    fn modifiers(&self, held: keyboard_types::Modifiers) -> Modifiers {
        let is_mac = cfg!(target_os = "macos");
        let modifiers = Modifiers {
            alt: held.alt(),
            ctrl: held.ctrl(),
            shift: held.shift(),
            mac_cmd: is_mac && held.meta(),
            command: if is_mac { held.meta() } else { held.ctrl() },
        };
        self.push(egui::Event::ModifiersChanged(modifiers));
        modifiers
    }

    /// Keys that no widget uses are passed to the host, so that the space bar still controls playback.
    fn key(&self, event: &KeyboardEvent) -> EventStatus {
        let modifiers = self.modifiers(event.modifiers);
        let pressed = event.state == KeyState::Down;
        let (name, character) = match &event.key {
            Key::Character(text) => (text.to_uppercase(), Some(text.clone())),
            Key::Named(name) => (name.to_string(), None),
        };
        let key = egui::Key::from_name(&name);
        if let Some(key) = key {
            self.push(egui::Event::Key {
                key,
                physical_key: None,
                pressed,
                repeat: event.repeat,
                modifiers,
            });
        }
        if pressed {
            match (key, modifiers.command, character) {
                (Some(egui::Key::X), true, _) => self.push(egui::Event::Cut),
                (Some(egui::Key::C), true, _) => self.push(egui::Event::Copy),
                (Some(egui::Key::V), true, _) => {
                    let mut clipboard = self.clipboard.borrow_mut();
                    let text = clipboard.as_mut().and_then(|c| c.get_contents().ok());
                    self.input
                        .borrow_mut()
                        .events
                        .extend(text.map(egui::Event::Paste));
                }
                (_, false, Some(text)) => self.push(egui::Event::Text(text)),
                _ => {}
            }
        }
        let context = &self.context;
        let moves = matches!(&event.key, Key::Named(_)) && context.egui_wants_keyboard_input();
        match context.text_edit_focused() || moves || key == Some(egui::Key::Tab) {
            true => EventStatus::Captured,
            false => EventStatus::Ignored,
        }
    }

    fn paint(&self, mut output: FullOutput) -> Result<(), HandlerError> {
        let gl = opengl(&self.window)?;
        let pixels = self.window.size().physical;
        let shapes = self
            .context
            .tessellate(output.shapes, output.pixels_per_point);
        current(&gl, || {
            self.painter.borrow_mut().paint_and_update_textures(
                [pixels.width, pixels.height],
                output.pixels_per_point,
                &shapes,
                &mut output.textures_delta,
            );
            gl.swap_buffers()
        })??;
        for command in output.platform_output.commands {
            if let (OutputCommand::CopyText(text), Some(clipboard)) =
                (command, self.clipboard.borrow_mut().as_mut())
            {
                // Without a clipboard, copying does nothing.
                let _nothing_to_copy_to = clipboard.set_contents(text);
            }
        }
        let cursor = cursor(output.platform_output.cursor_icon);
        if self.cursor.replace(cursor) != cursor {
            self.window.set_mouse_cursor(cursor)?;
        }
        Ok(())
    }
}

impl<C: Content> WindowHandler for Surface<C> {
    fn draw(&self) -> Result<(), HandlerError> {
        if !self.is_due() {
            return Ok(());
        }
        self.due.store(u64::MAX, Ordering::Relaxed);
        let began = self.started.elapsed();
        let input = self.take_input();
        draw(
            &self.content,
            &self.context,
            input,
            self.window.scale_factor(),
            |output| self.paint(output),
            |size| {
                // If the host refuses, the window keeps its size.
                let _refused = self.window.resize(size);
            },
        )?;
        let ended = self.started.elapsed();
        self.rest_until.set(ended + (ended - began));
        Ok(())
    }

    fn damage(&self, _area: baseview::DamageArea) {
        self.draw_soon();
    }

    fn resized(&self, size: WindowSize) -> Result<(), HandlerError> {
        self.content.when_free(move |content| content.resized(size));
        self.draw_soon();
        Ok(())
    }

    fn on_event(&self, event: Event) -> EventStatus {
        let status = match event {
            Event::Mouse(event) => self.mouse(event),
            Event::Keyboard(event) => self.key(&event),
            Event::Window(WindowEvent::Focused) => {
                self.push(egui::Event::WindowFocused(true));
                EventStatus::Captured
            }
            Event::Window(WindowEvent::Unfocused) => {
                self.push(egui::Event::WindowFocused(false));
                EventStatus::Captured
            }
            _ => return EventStatus::Ignored,
        };
        self.draw_soon();
        status
    }

    fn on_timer(&self, timer: &TimerHandle) {
        if self.closing.load(Ordering::Relaxed) {
            self.window.request_close();
        } else if timer == self.poll {
            let now_seconds = self.started.elapsed().as_secs_f64();
            let has_changed = |content: &mut C| content.has_changed(now_seconds);
            if self.content.try_with(has_changed) == Some(true) {
                self.due.store(0, Ordering::Relaxed);
            }
            if self.is_due() {
                self.window.request_redraw();
            }
        }
    }
}

impl<C> Drop for Surface<C> {
    fn drop(&mut self) {
        if let Some(gl) = self.window.gl_context() {
            let mut painter = self.painter.borrow_mut();
            // Without the context, the painter's resources are gone as well.
            let _context_is_gone = current(&gl, || painter.destroy());
        }
    }
}

/// Runs a frame, paints it, and then sends its requests to the window.
fn draw<C: Content, E>(
    content: &Reentrant<C>,
    context: &egui::Context,
    input: RawInput,
    scale_factor: f64,
    paint: impl FnOnce(FullOutput) -> Result<(), E>,
    resize: impl FnOnce(Size),
) -> Result<(), E> {
    let mut frame = Frame {
        scale_factor,
        wanted_size: None,
    };
    let ui = |content: &mut C| context.run_ui(input, |ui: &mut Ui| content.ui(ui, &mut frame));
    let Some(output) = content.try_with(ui) else {
        return Ok(());
    };
    paint(output)?;
    if let Some(size) = frame.wanted_size {
        resize(size);
    }
    Ok(())
}

fn opengl(window: &WindowContext) -> Result<GlContext, HandlerError> {
    let missing = || HandlerError::from_boxed("the window has no OpenGL context".into());
    window.gl_context().ok_or_else(missing)
}

/// Runs `work` with the context current.
fn current<T>(gl: &GlContext, work: impl FnOnce() -> T) -> Result<T, baseview::Error> {
    // SAFETY: the context is this window's, on the window's thread, and no other is current there.
    unsafe { gl.make_current()? };
    let result = work();
    // SAFETY: as above.
    unsafe { gl.make_not_current()? };
    Ok(result)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The dragged file, if it is exactly one.
fn file(data: &DropData) -> Option<PathBuf> {
    match data {
        DropData::Files(files) => match &files[..] {
            [file] => Some(file.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn cursor(icon: CursorIcon) -> MouseCursor {
    match icon {
        CursorIcon::PointingHand => MouseCursor::Hand,
        CursorIcon::Text => MouseCursor::Text,
        CursorIcon::Crosshair => MouseCursor::Crosshair,
        CursorIcon::ResizeVertical => MouseCursor::NsResize,
        CursorIcon::ResizeNwSe => MouseCursor::NwseResize,
        _ => MouseCursor::Default,
    }
}

/// Adapts the host's methods to baseview.
fn adapt(host: HostMethods) -> baseview::host::Host {
    struct Callbacks(Box<dyn nice_plug::editor::HostCallbacks>);

    impl baseview::host::HostCallbacks for Callbacks {
        fn request_resize(&mut self, size: WindowSize) -> Result<(), HandlerError> {
            self.0
                .request_resize(size.physical.into(), size.scale_factor)
                .map_err(HandlerError::from_boxed)
        }

        fn destroyed(&mut self) {
            self.0.destroyed();
        }
    }

    struct MainThread(Box<dyn nice_plug::editor::HostMainThreadCaller>);

    impl baseview::host::HostMainThreadCaller for MainThread {
        fn call_main_thread(&mut self) {
            self.0.call_main_thread();
        }
    }

    baseview::host::Host::new()
        .with_callbacks(Callbacks(host.callbacks))
        .with_main_thread(MainThread(host.main_thread_caller))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use baseview::dpi::LogicalSize;

    use super::*;

    /// Requests a size in its first frame.
    struct Resizing {
        wanted: Option<Size>,
        events: Rc<RefCell<Vec<&'static str>>>,
    }

    impl Content for Resizing {
        fn begin(&mut self, _ctx: &egui::Context) {}

        fn is_hidden(&self) -> bool {
            false
        }

        fn has_changed(&mut self, _now_seconds: f64) -> bool {
            false
        }

        fn resized(&mut self, _size: WindowSize) {
            self.events.borrow_mut().push("resized");
        }

        fn hover(&mut self, _is_over: bool) {}

        fn drop_file(&mut self, _file: PathBuf) {}

        fn ui(&mut self, _ui: &mut Ui, frame: &mut Frame) {
            self.events.borrow_mut().push("frame");
            if let Some(size) = self.wanted.take() {
                frame.resize(size);
            }
        }
    }

    #[test]
    fn a_window_may_call_back_while_it_is_resized() {
        let events = Rc::default();
        let content = Reentrant::new(Resizing {
            wanted: Some(Size::Logical(LogicalSize::new(480.0, 300.0))),
            events: Rc::clone(&events),
        });
        let context = egui::Context::default();
        let no_paint = |_: FullOutput| -> Result<(), HandlerError> {
            events.borrow_mut().push("paint");
            Ok(())
        };
        // As on Windows: `resized` is called, and another frame requested, before this returns.
        let resize = |size: Size| {
            events.borrow_mut().push("resize");
            let size = WindowSize::from_physical(size.to_physical(1.0), 1.0);
            content.when_free(move |content: &mut Resizing| content.resized(size));
            let never = |_| unreachable!("the second frame wants nothing");
            draw(
                &content,
                &context,
                RawInput::default(),
                1.0,
                no_paint,
                never,
            )
            .unwrap();
        };
        draw(
            &content,
            &context,
            RawInput::default(),
            1.0,
            no_paint,
            resize,
        )
        .unwrap();
        let expected = ["frame", "paint", "resize", "resized", "frame", "paint"];
        assert_eq!(*events.borrow(), expected);
    }
}
