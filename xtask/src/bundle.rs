//! `cargo xtask bundle`: builds the plugin files that hosts load.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use graft_material::{mac_bundle, workspace};

/// The bundles of one build.
pub struct Bundles {
    /// `Graft.clap`: a file, on macOS a folder.
    pub clap: PathBuf,
    /// `Graft.vst3`: a folder.
    pub vst3: PathBuf,
}

/// Build the CLAP and VST3 files into target/bundled
///
/// Example: cargo xtask bundle graft --release
#[derive(Args)]
pub struct Bundle {
    /// On macOS: build for Intel and Apple processors, in one bundle
    #[arg(long)]
    universal: bool,
    /// Package to build
    #[arg(default_value = "graft")]
    package: String,
    /// Options for `cargo build`, such as --release or --target
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo_options: Vec<String>,
}

impl Bundle {
    /// Builds and bundles.
    pub fn run(self) -> Result<()> {
        let command = match self.universal {
            true => "bundle-universal",
            false => "bundle",
        };
        bundle(command, self.package, self.cargo_options)
    }
}

/// Builds and bundles Graft in the release profile.
///
/// # Errors
///
/// Returns an error if the build fails or a bundle cannot be written.
pub fn release() -> Result<Bundles> {
    // Same packages as `cargo xtask` builds (the default members): this gives the same features, so nothing is built
    // twice.
    bundle(
        "bundle",
        "graft".into(),
        ["--release", "--package", "xtask"].map(String::from).into(),
    )?;
    bundles()
}

/// Where the bundles are after a build.
///
/// # Errors
///
/// Returns an error if Cargo does not tell where its build folder is.
pub fn bundles() -> Result<Bundles> {
    let folder = workspace::target()?.join("bundled");
    Ok(Bundles {
        clap: folder.join("Graft.clap"),
        vst3: folder.join("Graft.vst3"),
    })
}

/// Runs a command of the bundler.
fn bundle(command: &str, package: String, mut cargo_options: Vec<String>) -> Result<()> {
    // For the editor's About.
    if let Some(commit) = workspace::commit() {
        cargo_options.push(format!("--config=env.GRAFT_COMMIT='{commit}'"));
    }
    // The bundler works in the root of the project; paths from the user are relative to the current folder.
    let folder = env::current_dir().context("cannot find the current folder")?;
    env::set_current_dir(workspace::root()).context("cannot find the project")?;
    let arguments = [command.into(), package].into_iter().chain(cargo_options);
    let bundled = nice_plug_xtask::main_with_args("cargo xtask", arguments);
    env::set_current_dir(folder).context("cannot return to the current folder")?;
    bundled.context("cannot bundle the plugin")?;
    if cfg!(target_os = "macos") {
        let Bundles { clap, vst3 } = bundles()?;
        mac_bundle::finish(&clap, "clap")?;
        mac_bundle::finish(&vst3, "vst3")?;
    }
    Ok(())
}
