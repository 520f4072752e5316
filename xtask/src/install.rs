//! `cargo xtask install`: from a fresh checkout to an installed plugin and a first remix.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use graft_material::workspace;

use crate::{bundle, demo, system_packages};

/// Build and install Graft for the current user, and render a demo remix
///
/// Installs missing system packages (Debian, Ubuntu), builds the plugin, copies it and its presets to your CLAP and VST3
/// folders, and remixes two short loops with it into target/demo. Run it again after every update.
#[derive(Args)]
pub struct Install {}

impl Install {
    /// Runs the four steps.
    pub fn run(self) -> Result<()> {
        println!("[1/4] System packages");
        system_packages::install_missing();

        println!("[2/4] Building the plugin (the first build takes several minutes)");
        let bundles = bundle::release()?;

        println!("[3/4] Installing the plugin for the current user");
        let home = std::env::home_dir().context("cannot find your home folder")?;
        let folders = PluginFolders::of(&home);
        let clap = install(&bundles.clap, &folders.clap)?;
        let vst3 = install(&bundles.vst3, &folders.vst3)?;
        install_presets(&folders.vst3_presets)?;

        println!("[4/4] Rendering a demo with the installed plugin");
        let demo = demo::render(&clap, &workspace::target()?.join("demo"))?;

        let [latency, speed] = demo.figures;
        println!("\nGraft is installed. Rescan plugins in your DAW.");
        println!("  CLAP       {}", clap.display());
        println!("  VST3       {}", vst3.display());
        println!("  presets    {}", folders.vst3_presets.display());
        println!("  remix      {}", workspace::display(&demo.audio));
        println!("  picture    {}", workspace::display(&demo.picture));
        println!("  latency    {latency}");
        println!("  speed      {speed}");
        Ok(())
    }
}

/// The plugin folders of one user.
struct PluginFolders {
    clap: PathBuf,
    vst3: PathBuf,
    vst3_presets: PathBuf,
}

impl PluginFolders {
    fn of(home: &Path) -> Self {
        let (clap, vst3, presets) = if cfg!(target_os = "macos") {
            (
                "Library/Audio/Plug-Ins/CLAP",
                "Library/Audio/Plug-Ins/VST3",
                "Library/Audio/Presets",
            )
        } else if cfg!(windows) {
            (
                "AppData/Local/Programs/Common/CLAP",
                "AppData/Local/Programs/Common/VST3",
                "Documents/VST3 Presets",
            )
        } else {
            (".clap", ".vst3", ".vst3/presets")
        };
        // By maker, then by plugin.
        let presets = Path::new(presets).join("Graft/Graft");
        Self {
            clap: place(home, clap.as_ref()),
            vst3: place(home, vst3.as_ref()),
            vst3_presets: place(home, &presets),
        }
    }
}

/// A path below the home folder.
#[cfg(not(windows))]
fn place(home: &Path, path: &Path) -> PathBuf {
    home.join(path)
}

/// A path below the home folder, or where the user or OneDrive has moved its first part to.
#[cfg(windows)]
fn place(home: &Path, path: &Path) -> PathBuf {
    for (usual, name) in [
        ("AppData/Local", "LocalApplicationData"),
        ("Documents", "MyDocuments"),
    ] {
        if let Ok(rest) = path.strip_prefix(usual)
            && let Some(folder) = known_folder(name)
        {
            return folder.join(rest);
        }
    }
    home.join(path)
}

/// A folder of the current user, as .NET names it.
#[cfg(windows)]
fn known_folder(name: &str) -> Option<PathBuf> {
    let script = format!(
        "[Console]::OutputEncoding = [Text.Encoding]::UTF8; [Environment]::GetFolderPath('{name}')"
    );
    let output = std::process::Command::new("powershell")
        .args(["-NoProfile", "-NonInteractive", "-Command", &script])
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(path.trim_start_matches('\u{feff}').trim()))
        .filter(|path| path.is_absolute())
}

/// Copies a bundle, a file or a folder, into `folder` and replaces an older one.
///
/// The copy is complete before it gets its name. A host that has the old bundle open keeps it; on Windows, it must be closed.
fn install(bundle: &Path, folder: &Path) -> Result<PathBuf> {
    let name = bundle
        .file_name()
        .context("expected a bundle with a name")?;
    let installed = folder.join(name);
    let part = installed.with_extension("part");
    let place = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        remove(&part)?;
        copy(bundle, &part)?;
        remove(&installed)?;
        fs::rename(&part, &installed)
    };
    let hint = match cfg!(windows) && installed.exists() {
        true => ": close your DAW if it is running",
        false => "",
    };
    place().with_context(|| format!("cannot install {}{hint}", installed.display()))?;
    Ok(installed)
}

/// Copies the factory presets.
fn install_presets(folder: &Path) -> Result<()> {
    let presets = workspace::root().join("assets/presets");
    let place = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(presets)? {
            let entry = entry?;
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        Ok(())
    };
    place().with_context(|| format!("cannot install the presets in {}", folder.display()))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(|_| ());
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
