//! Keeps the system's graphics libraries loaded.
//!
//! baseview unloads them with its last window. Threads that end later run per-thread destructors of these libraries
//! (EGL keeps state per thread); jumping into an unloaded library crashes the host.

use std::ffi::CStr;

/// Libraries with per-thread state that a window loads.
const LIBRARIES: [&CStr; 5] = [
    c"libEGL.so.1",
    c"libGL.so.1",
    c"libX11.so.6",
    c"libX11-xcb.so.1",
    c"libxcb.so.1",
];

/// Pins the libraries. Call this before a window opens.
pub fn pin_libraries() {
    for name in LIBRARIES {
        // SAFETY: the names are C strings, and opening a window would run the libraries' initialisers anyway. A missing
        // library is ignored here; its user reports it.
        unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NODELETE) };
    }
}
