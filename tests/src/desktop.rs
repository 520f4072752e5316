//! A virtual desktop: an X server without a monitor, a host window on it, a mouse and a keyboard.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    BUTTON_PRESS_EVENT, BUTTON_RELEASE_EVENT, ClientMessageEvent, ConfigureWindowAux,
    ConnectionExt, CreateWindowAux, EventMask, ImageFormat, KEY_PRESS_EVENT, KEY_RELEASE_EVENT,
    MOTION_NOTIFY_EVENT, PropMode, SELECTION_NOTIFY_EVENT, SelectionNotifyEvent, WindowClass,
};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

/// Time for a server and a plugin to process mouse events.
const MOUSE_PAUSE: Duration = Duration::from_millis(30);

/// A running X server. Dropping this stops it.
pub struct Desktop {
    server: Child,
}

impl Desktop {
    /// Starts Xvfb with a screen of this size in pixels, and makes it the display of this process.
    ///
    /// # Errors
    ///
    /// If Xvfb is not installed or does not start.
    ///
    /// # Safety
    ///
    /// Sets an environment variable: no other thread may run.
    pub unsafe fn start(width: u32, height: u32) -> Result<Self> {
        let mut server = Command::new("Xvfb")
            // Without -noreset, the server would reset whenever the last window closes.
            .args([
                "-displayfd",
                "1",
                "-nolisten",
                "tcp",
                "-noreset",
                "-screen",
                "0",
            ])
            .arg(format!("{width}x{height}x24"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start Xvfb (Debian: apt-get install xvfb)")?;
        let stdout = server.stdout.take().context("Xvfb has no output")?;
        let mut number = String::new();
        BufReader::new(stdout).read_line(&mut number)?;
        ensure!(!number.trim().is_empty(), "Xvfb did not start");
        // SAFETY: the caller ensures that there is no other thread.
        unsafe { env::set_var("DISPLAY", format!(":{}", number.trim())) };
        Ok(Self { server })
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        let _ended_already = self.server.kill();
        let _status = self.server.wait();
    }
}

/// A host window on the display of this process.
pub struct HostWindow {
    connection: RustConnection,
    root: u32,
    window: u32,
    size: (u16, u16),
}

/// The visible contents of a window.
pub struct Screenshot {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Red, green and blue of each pixel, row by row.
    pub rgb: Vec<u8>,
}

/// A mouse button.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Button {
    /// For clicks and drags.
    Left = 1,
    /// For menus.
    Right = 3,
    /// One notch of the wheel away from the user.
    WheelUp = 4,
    /// One notch towards the user.
    WheelDown = 5,
}

impl HostWindow {
    /// Opens a window of this size in pixels in the upper left corner.
    ///
    /// # Errors
    ///
    /// If there is no display.
    pub fn open(width: u16, height: u16) -> Result<Self> {
        let (connection, screen) = x11rb::connect(None).context("no display")?;
        let root = connection.setup().roots[screen].root;
        let window = connection.generate_id()?;
        let attributes = CreateWindowAux::new()
            .event_mask(EventMask::STRUCTURE_NOTIFY)
            .override_redirect(1);
        connection
            .create_window(
                x11rb::COPY_DEPTH_FROM_PARENT,
                window,
                root,
                0,
                0,
                width,
                height,
                0,
                WindowClass::INPUT_OUTPUT,
                x11rb::COPY_FROM_PARENT,
                &attributes,
            )?
            .check()?;
        connection.map_window(window)?.check()?;
        Ok(Self {
            connection,
            root,
            window,
            size: (width, height),
        })
    }

    /// The id of the window, in which a plugin can be embedded.
    pub fn id(&self) -> u32 {
        self.window
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u16, u16) {
        self.size
    }

    /// Resizes the window, in pixels.
    ///
    /// # Errors
    ///
    /// If the display is gone.
    pub fn resize(&mut self, width: u16, height: u16) -> Result<()> {
        let size = ConfigureWindowAux::new()
            .width(u32::from(width))
            .height(u32::from(height));
        self.connection
            .configure_window(self.window, &size)?
            .check()?;
        self.size = (width, height);
        Ok(())
    }

    /// Takes a screenshot of the window.
    ///
    /// # Errors
    ///
    /// If the display is gone, or does not have 24 bits per pixel.
    pub fn screenshot(&self) -> Result<Screenshot> {
        let (width, height) = self.size;
        let image = self
            .connection
            .get_image(ImageFormat::Z_PIXMAP, self.root, 0, 0, width, height, !0)?
            .reply()?;
        ensure!(
            image.depth == 24 && image.data.len() == 4 * usize::from(width) * usize::from(height),
            "expected 24 bits for a pixel, found {}",
            image.depth
        );
        let pixels = image.data.chunks_exact(4);
        Ok(Screenshot {
            width: u32::from(width),
            height: u32::from(height),
            rgb: pixels.flat_map(|bgr| [bgr[2], bgr[1], bgr[0]]).collect(),
        })
    }

    /// Moves the mouse to a pixel of the window.
    ///
    /// # Errors
    ///
    /// If the display is gone.
    pub fn move_to(&self, x: i16, y: i16) -> Result<()> {
        self.fake(MOTION_NOTIFY_EVENT, 0, (x, y))?;
        thread::sleep(MOUSE_PAUSE);
        Ok(())
    }

    /// Presses a mouse button and holds it.
    ///
    /// # Errors
    ///
    /// If the display is gone.
    pub fn press(&self, button: Button) -> Result<()> {
        self.fake(BUTTON_PRESS_EVENT, button as u8, (0, 0))?;
        thread::sleep(MOUSE_PAUSE);
        Ok(())
    }

    /// Releases a mouse button.
    ///
    /// # Errors
    ///
    /// If the display is gone.
    pub fn release(&self, button: Button) -> Result<()> {
        self.fake(BUTTON_RELEASE_EVENT, button as u8, (0, 0))?;
        thread::sleep(MOUSE_PAUSE);
        Ok(())
    }

    /// Clicks at a pixel of the window.
    ///
    /// # Errors
    ///
    /// If the display is gone.
    pub fn click(&self, button: Button, x: i16, y: i16) -> Result<()> {
        self.move_to(x, y)?;
        self.press(button)?;
        self.release(button)
    }

    /// Types letters, digits and other characters that need no modifier key.
    ///
    /// # Errors
    ///
    /// If the display is gone, or has no such key.
    pub fn type_text(&self, text: &str) -> Result<()> {
        for letter in text.chars() {
            // Latin-1 characters are their own key symbols.
            self.strike(u32::from(letter))?;
        }
        Ok(())
    }

    /// Presses and releases a key, such as 0xff0d for Return.
    ///
    /// # Errors
    ///
    /// If the display is gone, or has no such key.
    pub fn strike(&self, key_symbol: u32) -> Result<()> {
        self.hold(key_symbol, true)?;
        self.hold(key_symbol, false)?;
        thread::sleep(MOUSE_PAUSE);
        Ok(())
    }

    /// Presses or releases a key, such as 0xffe1 for Shift.
    ///
    /// # Errors
    ///
    /// If the display is gone, or has no such key.
    pub fn hold(&self, key_symbol: u32, down: bool) -> Result<()> {
        let setup = self.connection.setup();
        let first = setup.min_keycode;
        let count = setup.max_keycode - first + 1;
        let keys = self
            .connection
            .get_keyboard_mapping(first, count)?
            .reply()?;
        let width = usize::from(keys.keysyms_per_keycode);
        let position = keys
            .keysyms
            .chunks(width)
            .position(|key| key[0] == key_symbol);
        let Some(position) = position else {
            bail!("the keyboard has no key {key_symbol:#x}");
        };
        let kind = if down {
            KEY_PRESS_EVENT
        } else {
            KEY_RELEASE_EVENT
        };
        self.fake(kind, first + position as u8, (0, 0))
    }

    /// Drags a file from this window onto the middle of the embedded window, and drops it there (XDND).
    ///
    /// # Errors
    ///
    /// If the display is gone, nothing is embedded, or the embedded window does not request the file.
    pub fn drop_file(&self, path: &Path) -> Result<()> {
        let connection = &self.connection;
        let atom = |name: &str| -> Result<u32> {
            Ok(connection
                .intern_atom(false, name.as_bytes())?
                .reply()?
                .atom)
        };
        let (selection, uri_list) = (atom("XdndSelection")?, atom("text/uri-list")?);
        let children = connection.query_tree(self.window)?.reply()?.children;
        let target = *children
            .first()
            .context("nothing is embedded in the window")?;
        connection.set_selection_owner(self.window, selection, x11rb::CURRENT_TIME)?;
        let tell = |name: &str, rest: [u32; 4]| -> Result<()> {
            let [a, b, c, d] = rest;
            let data = [self.window, a, b, c, d];
            let message = ClientMessageEvent::new(32, target, atom(name)?, data);
            connection.send_event(false, target, EventMask::NO_EVENT, message)?;
            connection.sync()?;
            thread::sleep(MOUSE_PAUSE);
            Ok(())
        };
        let version = 5 << 24;
        let middle = u32::from(self.size.0 / 2) << 16 | u32::from(self.size.1 / 2);
        tell("XdndEnter", [version, uri_list, 0, 0])?;
        tell("XdndPosition", [0, middle, 0, atom("XdndActionCopy")?])?;

        let give_up = Instant::now() + Duration::from_secs(5);
        let asked = loop {
            match connection.poll_for_event()? {
                Some(Event::SelectionRequest(asked)) => break asked,
                _ if Instant::now() > give_up => bail!("the window does not ask for the file"),
                _ => thread::sleep(Duration::from_millis(5)),
            }
        };
        let uri = format!("file://{}\r\n", percent_encoded(path));
        connection.change_property8(
            PropMode::REPLACE,
            asked.requestor,
            asked.property,
            uri_list,
            uri.as_bytes(),
        )?;
        let answer = SelectionNotifyEvent {
            response_type: SELECTION_NOTIFY_EVENT,
            sequence: 0,
            time: asked.time,
            requestor: asked.requestor,
            selection,
            target: asked.target,
            property: asked.property,
        };
        connection.send_event(false, asked.requestor, EventMask::NO_EVENT, answer)?;
        connection.sync()?;
        thread::sleep(MOUSE_PAUSE);
        tell("XdndDrop", [0, 0, 0, 0])
    }

    fn fake(&self, kind: u8, detail: u8, (x, y): (i16, i16)) -> Result<()> {
        self.connection
            .xtest_fake_input(kind, detail, 0, self.root, x, y, 0)?
            .check()?;
        self.connection.sync()?;
        Ok(())
    }
}

/// A path, percent-encoded for a URI.
fn percent_encoded(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    let encoded = bytes.map(|&byte| match byte {
        b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

impl Drop for HostWindow {
    fn drop(&mut self) {
        let _display_is_gone = self.connection.destroy_window(self.window);
        let _display_is_gone = self.connection.flush();
    }
}
