//! Packages of the operating system that Graft needs at run time.

#[cfg(target_os = "linux")]
use std::process::Command;

/// Libraries that the plugin's editor opens at run time, as packages of Debian and Ubuntu.
#[cfg(target_os = "linux")]
const PACKAGES: [&str; 6] = [
    "libegl1",
    "libx11-6",
    "libx11-xcb1",
    "libxcb1",
    "libxkbcommon0",
    "libxkbcommon-x11-0",
];

/// Installs what is missing. Nothing here stops the installation: without these packages only the
/// editor does not open.
#[cfg(target_os = "linux")]
pub fn install_missing() {
    let Some(missing) = missing_packages() else {
        println!("      this is not Debian or Ubuntu; for the editor, install the libraries");
        println!("      EGL, X11, X11-xcb, xcb, xkbcommon and xkbcommon-x11 if they are missing");
        return;
    };
    if missing.is_empty() {
        println!("      all there");
        return;
    }
    println!("      missing, for the editor: {}", missing.join(" "));
    if !install_packages(&missing) {
        println!("      could not install them; Graft works, but its editor stays closed until:");
        println!("      sudo apt-get install {}", missing.join(" "));
    }
}

/// Elsewhere the system brings all that the plugin needs.
#[cfg(not(target_os = "linux"))]
pub fn install_missing() {
    println!("      none needed on this system");
}

/// The packages that are not installed; `None` where dpkg does not manage the system.
#[cfg(target_os = "linux")]
fn missing_packages() -> Option<Vec<&'static str>> {
    let mut missing = Vec::new();
    for package in PACKAGES {
        let output = Command::new("dpkg-query")
            .args(["--show", "--showformat=${db:Status-Status}", package])
            .output()
            .ok()?;
        if output.stdout != b"installed" {
            missing.push(package);
        }
    }
    Some(missing)
}

/// Whether apt-get, as root or through sudo, installed the packages.
#[cfg(target_os = "linux")]
fn install_packages(packages: &[&str]) -> bool {
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if !is_root {
        println!("      sudo, which may ask for your password, runs apt-get to install them");
    }
    let apt_get = |arguments: &[&str]| {
        let mut command = if is_root {
            Command::new("apt-get")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.arg("apt-get");
            sudo
        };
        command
            .args(arguments)
            .status()
            .is_ok_and(|status| status.success())
    };
    // An outdated index is no obstacle as long as the packages can be had.
    apt_get(&["update", "--quiet=2"]);
    apt_get(
        &[
            &["install", "--yes", "--no-install-recommends", "--quiet=2"],
            packages,
        ]
        .concat(),
    )
}
