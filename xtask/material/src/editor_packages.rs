//! System packages of the libraries that the plugin's editor loads at run time, on Linux.

/// Their names in Debian and Ubuntu.
pub const DEBIAN: [&str; 6] = [
    "libegl1",
    "libx11-6",
    "libx11-xcb1",
    "libxcb1",
    "libxkbcommon0",
    "libxkbcommon-x11-0",
];
