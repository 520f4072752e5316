//! Builds the plugin and the standalone program in the profile `dist`, and takes the debug information out of them.

use std::env;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX, EXE_SUFFIX};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use graft_material::mac_bundle;
use graft_material::workspace::{self, Commit};

/// What was built.
pub struct Built {
    /// `Graft.clap`: a file, on macOS a folder.
    pub clap: PathBuf,
    /// `Graft.vst3`: a folder.
    pub vst3: PathBuf,
    /// The standalone program.
    pub standalone: PathBuf,
    /// The debug information: names of processors, empty unless there are several, with files, on macOS folders.
    pub symbols: Vec<(&'static str, PathBuf)>,
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
    let processors: Vec<Option<&'static str>> = match cfg!(target_os = "macos") {
        true => MACOS_TARGETS.into_iter().map(Some).collect(),
        false => vec![None],
    };
    let mut programs = Vec::new();
    let mut symbols = Vec::new();
    for processor in processors {
        let folder = match processor {
            Some(processor) => target.join(processor).join("dist"),
            None => target.join("dist"),
        };
        let cargo = |task: &str, options: &[&str]| -> Result<()> {
            let mut cargo = workspace::cargo();
            cargo.args([task, "--profile=dist", "--locked", "--package=graft"]);
            cargo.args(options);
            if let Some(processor) = processor {
                cargo.arg(format!("--target={processor}"));
                cargo.args(MACOS_OPTIONS);
            }
            if let Some(commit) = commit {
                // For the editor's About.
                cargo.env("GRAFT_COMMIT", commit.to_string());
            }
            run(cargo)
        };
        // The program first: Cargo also links a plugin for it, with the parts that only the program needs.
        cargo("build", &["--features=standalone", "--bin", PROGRAM])?;
        // With its second type of crate, which other packages link to, Cargo would not optimise the plugin as a whole.
        cargo("rustc", &["--lib", "--crate-type=cdylib"])?;
        for name in [&library, &program] {
            symbols.push((processor.unwrap_or_default(), take_symbols(&folder, name)?));
        }
        programs.push(folder.join(&program));
    }
    bundle(target)?;
    let bundled = target.join("bundled");
    let [clap, vst3] = ["Graft.clap", "Graft.vst3"].map(|name| bundled.join(name));
    if cfg!(target_os = "macos") {
        mac_bundle::finish(&clap, "clap")?;
        mac_bundle::finish(&vst3, "vst3")?;
    }
    Ok(Built {
        clap,
        vst3,
        standalone: joined(programs, &bundled.join(&program))?,
        symbols,
    })
}

/// One program for the processors of all. `universal` is its place if there are several.
fn joined(mut programs: Vec<PathBuf>, universal: &Path) -> Result<PathBuf> {
    if programs.len() == 1 {
        return Ok(programs.remove(0));
    }
    let mut lipo = Command::new("lipo");
    lipo.args(["-create", "-output"])
        .arg(universal)
        .args(programs);
    run(lipo)?;
    Ok(universal.to_owned())
}

/// Moves the debug information of a program or library in `folder` into a file of its own, and returns it.
fn take_symbols(folder: &Path, name: &str) -> Result<PathBuf> {
    let file = folder.join(name);
    if cfg!(target_os = "macos") {
        return Ok(folder.join(format!("{name}.dSYM")));
    }
    if cfg!(windows) {
        let stem = name.split('.').next().unwrap_or(name);
        return Ok(folder.join(format!("{}.pdb", stem.replace('-', "_"))));
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
    Ok(symbols)
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
