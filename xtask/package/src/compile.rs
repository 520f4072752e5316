//! Builds the plugin and the standalone program in the profile `dist`, and takes the debug information out of them.

use std::env;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX, EXE_SUFFIX};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use graft_material::workspace::{self, Commit};

/// What was built.
pub struct Built {
    /// `Graft.clap`: a file, on macOS a folder.
    pub clap: PathBuf,
    /// `Graft.vst3`: a folder.
    pub vst3: PathBuf,
    /// The standalone program.
    pub standalone: PathBuf,
    /// The debug information: files, on macOS folders.
    pub symbols: Vec<PathBuf>,
}

const PROGRAM: &str = "graft-standalone";

/// The processors of a universal program for macOS.
const MACOS_TARGETS: [&str; 2] = ["aarch64-apple-darwin", "x86_64-apple-darwin"];

/// Options that keep the debug information of macOS out of the programs.
const MACOS_OPTIONS: [&str; 2] = [
    "--config=profile.dist.split-debuginfo='packed'",
    "--config=profile.dist.strip='symbols'",
];

/// Builds in the folder `target`; on macOS, for both processors.
///
/// # Errors
///
/// Returns an error if something cannot be built.
pub fn build(target: &Path, commit: Option<&Commit>) -> Result<Built> {
    let library = format!("{DLL_PREFIX}graft{DLL_SUFFIX}");
    let program = format!("{PROGRAM}{EXE_SUFFIX}");
    let targets: &[&str] = if cfg!(target_os = "macos") {
        &MACOS_TARGETS
    } else {
        &[]
    };
    let folders: Vec<PathBuf> = match targets {
        [] => vec![target.join("dist")],
        _ => targets
            .iter()
            .map(|name| target.join(name).join("dist"))
            .collect(),
    };
    let targets: Vec<String> = targets
        .iter()
        .map(|name| format!("--target={name}"))
        .collect();

    // The program first: Cargo also links a plugin for it, with the parts that only the program needs.
    cargo(
        &[
            "build",
            "--package=graft",
            "--features=standalone",
            "--bin",
            PROGRAM,
        ],
        &targets,
        commit,
    )?;
    // With its second type of crate, which other packages link to, Cargo would not optimise the plugin as a whole.
    cargo(
        &["rustc", "--package=graft", "--lib", "--crate-type=cdylib"],
        &targets,
        commit,
    )?;

    let mut symbols = Vec::new();
    for folder in &folders {
        for name in [&library, &program] {
            symbols.extend(take_symbols(folder, name)?);
        }
    }
    let bundled = target.join("bundled");
    bundle(target)?;
    let standalone = match &folders[..] {
        [folder] => folder.join(&program),
        _ => {
            let universal = bundled.join(&program);
            let mut lipo = Command::new("lipo");
            lipo.args(["-create", "-output"]).arg(&universal);
            lipo.args(folders.iter().map(|folder| folder.join(&program)));
            run(lipo)?;
            universal
        }
    };
    Ok(Built {
        clap: bundled.join("Graft.clap"),
        vst3: bundled.join("Graft.vst3"),
        standalone,
        symbols,
    })
}

/// Runs Cargo in the profile `dist`.
fn cargo(arguments: &[&str], targets: &[String], commit: Option<&Commit>) -> Result<()> {
    let mut cargo = workspace::cargo();
    let (task, options) = arguments.split_first().context("expected a task")?;
    cargo
        .args([task, "--profile=dist", "--locked"])
        .args(targets)
        .args(options);
    if cfg!(target_os = "macos") {
        cargo.args(MACOS_OPTIONS);
    }
    // For the editor's About.
    match commit {
        Some(commit) => cargo.env("GRAFT_COMMIT", commit.to_string()),
        None => cargo.env_remove("GRAFT_COMMIT"),
    };
    cargo.env("CARGO_ENCODED_RUSTFLAGS", remapping());
    run(cargo)
}

/// Options for the compiler that replace the folders of this machine in messages and debug information.
fn remapping() -> OsString {
    let home = env::home_dir().unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut options = OsString::new();
    for (folder, name) in [
        (cargo_home.as_path(), "cargo"),
        (workspace::root(), "graft"),
    ] {
        if !options.is_empty() {
            options.push("\x1f");
        }
        options.push("--remap-path-prefix=");
        options.push(folder);
        options.push("=");
        options.push(name);
    }
    options
}

/// Moves the debug information of a program or library in `folder` into a file of its own, and returns it.
fn take_symbols(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let file = folder.join(name);
    if cfg!(target_os = "macos") {
        return Ok(Some(folder.join(format!("{name}.dSYM"))));
    }
    if cfg!(windows) {
        let stem = name.split('.').next().unwrap_or(name);
        return Ok(Some(folder.join(format!("{}.pdb", stem.replace('-', "_")))));
    }
    let symbols = folder.join(format!("{name}.debug"));
    let stripped = folder.join(format!("{name}.stripped"));
    let mut only = Command::new("objcopy");
    only.arg("--only-keep-debug").arg(&file).arg(&symbols);
    run(only)?;
    let mut strip = Command::new("objcopy");
    strip.current_dir(folder).arg("--strip-all");
    strip.arg(format!("--add-gnu-debuglink={name}.debug"));
    strip.arg(name).arg(&stripped);
    run(strip)?;
    // Cargo keeps a hard link to the whole file, and puts it back before the next build.
    std::fs::rename(&stripped, &file)
        .with_context(|| format!("cannot replace {}", file.display()))?;
    Ok(Some(symbols))
}

/// Makes the bundles from the library.
fn bundle(target: &Path) -> Result<()> {
    // The bundler works in the root of the project.
    env::set_current_dir(workspace::root()).context("cannot find the project")?;
    let is_universal = cfg!(target_os = "macos");
    let options = ["--profile=dist".to_owned()];
    nice_plug_xtask::bundle(target, "graft", &options, is_universal)
        .context("cannot bundle the plugin")
}

fn run(mut command: Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let status = command
        .status()
        .with_context(|| format!("cannot start {name}"))?;
    ensure!(status.success(), "{name} failed: {command:?}");
    Ok(())
}
