//! `cargo xtask package`: the files that users download.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use graft_material::{whole_file, workspace};
use sha2::{Digest, Sha256};

use crate::archive::{self, Entry};
use crate::compile::{self, Built};
use crate::release::Release;
use crate::{contents, crates, debian, licences, sbom};

/// Build Graft for others, and write archives of it into dist/
///
/// On Linux, writes a .tar.xz with an install script, and a package for Debian and Ubuntu; on macOS and Windows a .zip.
/// In all of them: the plugin (CLAP and VST3), its presets, the standalone program, licences and the model's card.
/// Beside them: debug information for crash reports, a bill of materials (CycloneDX) and checksums.
///
/// The version is that in Cargo.toml, with "-dirty" if the files differ from the commit. The same commit, folder and
/// tools give the same files; SOURCE_DATE_EPOCH sets the time of the files, which is else that of the commit. On Linux,
/// the build needs the packages pkg-config, libasound2-dev and libjack-jackd2-dev.
#[derive(Args)]
pub struct Package {}

impl Package {
    /// Builds everything, then writes it.
    pub fn run(self) -> Result<()> {
        let commit = workspace::commit();
        let release = Release::new(commit.as_ref())?;
        let linked = crates::linked()?;
        let wanted = licences::text(&linked, &licences::accepted()?)?;
        let found = fs::read_to_string(workspace::root().join(licences::FILE));
        ensure!(
            found.is_ok_and(|found| found.replace("\r\n", "\n") == wanted),
            "{} is out of date; see CONTRIBUTING.md",
            licences::FILE
        );

        let target = workspace::target()?;
        println!("[1/2] Building {} (takes long)", release.name());
        let built = compile::build(&target, commit.as_ref())?;

        println!("[2/2] Writing the packages");
        let scratch = target.join("package");
        fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot create {}", scratch.display()))?;
        let mut files = packages(&release, &contents::of(&built, &scratch)?)?;
        files.push(symbols(&release, &built)?);
        let bill = sbom::text(&release, &linked)?;
        files.push((format!("graft-{}.cdx.json", release.version), bill.into()));
        write(&workspace::root().join("dist"), files)
    }
}

/// A name and the contents of the file.
type File = (String, Vec<u8>);

/// The archive of a system, and its other packages.
fn packages(release: &Release, contents: &[Entry]) -> Result<Vec<File>> {
    let in_folder = contents.iter().map(|entry| Entry {
        path: format!("{}/{}", release.name(), entry.path),
        ..entry.clone()
    });
    let archive = archived(&release.name(), &in_folder.collect::<Vec<_>>(), release)?;
    let mut files = vec![archive];
    if release.system.ends_with("-linux") {
        files.push((release.debian_name(), debian::package(release, contents)?));
    }
    Ok(files)
}

/// The debug information.
fn symbols(release: &Release, built: &Built) -> Result<File> {
    let mut entries = Vec::new();
    let name = format!("{}-symbols", release.name());
    for (processor, path) in &built.symbols {
        let folder = format!("{name}/{processor}");
        contents::add(&mut entries, folder.trim_end_matches('/'), path)?;
    }
    archived(&name, &entries, release)
}

/// An archive in the format that is usual on the system.
fn archived(name: &str, entries: &[Entry], release: &Release) -> Result<File> {
    let time_seconds = release.time_seconds;
    Ok(match release.system.ends_with("-linux") {
        true => (
            format!("{name}.tar.xz"),
            archive::tar_xz(entries, time_seconds)?,
        ),
        false => (format!("{name}.zip"), archive::zip(entries, time_seconds)?),
    })
}

/// Replaces the contents of a folder with the files and their checksums, as `sha256sum` reads them.
fn write(folder: &Path, mut files: Vec<File>) -> Result<()> {
    let clear = || -> std::io::Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)
    };
    clear().with_context(|| format!("cannot clear {}", folder.display()))?;
    files.sort();
    let mut sums = String::new();
    for (name, data) in &files {
        sums += &format!("{:x}  {name}\n", Sha256::digest(data));
    }
    files.push(("SHA256SUMS".into(), sums.into()));
    for (name, data) in &files {
        let path = folder.join(name);
        whole_file::write(&path, data)?;
        let megabytes = data.len() as f64 / 1e6;
        println!("{megabytes:9.2} MB  {}", workspace::display(&path));
    }
    Ok(())
}
