//! Packages of the operating system that Graft needs at run time.

#[cfg(target_os = "linux")]
use std::process::Command;

#[cfg(target_os = "linux")]
use graft_material::editor_packages;

/// Installs the missing packages. A failure does not stop the installation: without these packages only the editor
/// does not open.
#[cfg(target_os = "linux")]
pub fn install_missing() {
    let Some(missing) = missing_packages() else {
        println!("      not Debian or Ubuntu: if the editor does not open, install the libraries");
        println!("      EGL, X11, X11-xcb, xcb, xkbcommon and xkbcommon-x11");
        return;
    };
    if missing.is_empty() {
        println!("      all installed");
        return;
    }
    println!("      installing, for the editor: {}", missing.join(" "));
    if !install_packages(&missing) {
        println!(
            "      cannot install them. Graft works, but its editor does not open. To fix this, run:"
        );
        println!("      sudo apt-get install {}", missing.join(" "));
    }
}

/// Other systems include all libraries that the plugin needs.
#[cfg(not(target_os = "linux"))]
pub fn install_missing() {
    println!("      none needed");
}

/// The packages that are not installed; `None` on systems without dpkg.
#[cfg(target_os = "linux")]
fn missing_packages() -> Option<Vec<&'static str>> {
    let mut missing = Vec::new();
    for package in editor_packages::DEBIAN {
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

/// Installs the packages with apt-get, as root or through sudo. Returns whether it succeeded.
#[cfg(target_os = "linux")]
fn install_packages(packages: &[&str]) -> bool {
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if !is_root {
        println!("      running apt-get with sudo, which may ask for your password");
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
    // Failure is fine: an outdated index may still list the packages.
    apt_get(&["update", "--quiet=2"]);
    apt_get(
        &[
            &["install", "--yes", "--no-install-recommends", "--quiet=2"],
            packages,
        ]
        .concat(),
    )
}
