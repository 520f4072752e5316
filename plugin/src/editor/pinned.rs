//! Keeps the system's graphics libraries in memory once they are there.
//!
//! With its last window, baseview lets go of them. Threads that end later still have something of theirs to tidy up (EGL keeps
//! its state per thread), jump to where the library was, and take the host with them.

use std::ffi::CStr;

/// What a window loads, and has state of threads in.
const LIBRARIES: [&CStr; 5] = [
    c"libEGL.so.1",
    c"libGL.so.1",
    c"libX11.so.6",
    c"libX11-xcb.so.1",
    c"libxcb.so.1",
];

/// To be called before a window is opened.
pub fn pin_libraries() {
    for name in LIBRARIES {
        // SAFETY: the names are strings, and what loading these libraries does is about to be done anyway. One that is not
        // there is missed by whoever needs it.
        unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NODELETE) };
    }
}
