//! The crates of other people that are linked into the plugin and the standalone program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use graft_material::workspace;
use serde::Deserialize;

/// A crate at a version.
#[derive(Clone, Debug)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, as an SPDX expression.
    pub licence: String,
    /// Its authors, as its manifest names them.
    pub authors: Vec<String>,
    /// Address of its source code.
    pub repository: Option<String>,
    /// SHA-256 of its package, in hexadecimal; none if it does not come from a registry.
    pub sha256: Option<String>,
    /// Folder with its sources.
    pub folder: PathBuf,
    /// A licence file with a name of its own.
    pub licence_file: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<PathBuf>,
    authors: Vec<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
    /// None for the packages of the workspace.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<LockPackage>,
}

#[derive(Deserialize)]
struct LockPackage {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// All crates that are linked on any system, in order of their names. Not those that only run during the build, such as
/// procedural macros.
///
/// # Errors
///
/// Returns an error if Cargo fails or a crate does not name its licence.
pub fn linked() -> Result<Vec<Crate>> {
    let metadata = cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        "--features=graft/standalone",
    ])?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).context("cannot parse the output of cargo metadata")?;
    let packages = metadata.packages.into_iter();
    let mut packages: BTreeMap<_, _> = packages
        .map(|package| ((package.name.clone(), package.version.clone()), package))
        .collect();
    let mut checksums = checksums()?;
    let mut crates = Vec::new();
    for key in linked_names()? {
        let package = packages.remove(&key);
        let sha256 = checksums.remove(&key).flatten();
        let (name, version) = key;
        let package = package
            .with_context(|| format!("cargo metadata: expected {name} {version}, found none"))?;
        if package.source.is_none() {
            continue;
        }
        let folder = package.manifest_path.parent();
        let folder = folder.context("expected a manifest in a folder")?;
        crates.push(Crate {
            licence: package.license.with_context(|| {
                format!("{name} {version}: expected a licence in its manifest, found none")
            })?,
            authors: package.authors,
            repository: package.repository,
            sha256,
            licence_file: package.license_file.map(|file| folder.join(file)),
            folder: folder.to_owned(),
            name,
            version,
        });
    }
    Ok(crates)
}

/// Names and versions of the linked packages, including those of the workspace.
fn linked_names() -> Result<BTreeSet<(String, String)>> {
    // `cargo metadata` would resolve the features for the whole workspace, the trainer included.
    let tree = cargo(&[
        "tree",
        "--locked",
        "--package=graft",
        "--features=graft/standalone",
        "--target=all",
        "--edges=normal,no-proc-macro",
        "--prefix=none",
        "--format={p}",
    ])?;
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some((name.to_owned(), version.to_owned()))
    };
    tree.lines()
        .filter(|text| !text.is_empty())
        .map(|text| {
            line(text).with_context(|| {
                format!("cargo tree: expected a name and a version, found {text:?}")
            })
        })
        .collect()
}

fn checksums() -> Result<BTreeMap<(String, String), Option<String>>> {
    let path = workspace::root().join("Cargo.lock");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lock: Lock =
        toml::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))?;
    let packages = lock.package.into_iter();
    Ok(packages
        .map(|package| ((package.name, package.version), package.checksum))
        .collect())
}

/// What Cargo prints.
fn cargo(arguments: &[&str]) -> Result<String> {
    let output = workspace::cargo()
        .args(arguments)
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "cargo {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    match String::from_utf8(output.stdout) {
        Ok(text) => Ok(text),
        Err(error) => bail!("cargo {}: {error}", arguments.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_nothing_else() {
        let crates = linked().unwrap();
        let has = |name: &str| crates.iter().any(|package| package.name == name);
        // Of the plugin, of the standalone program, and of each system.
        for name in [
            "candle-core",
            "cpal",
            "x11rb",
            "windows-sys",
            "core-foundation",
        ] {
            assert!(has(name), "{name} is linked");
        }
        // Of the workspace, of a procedural macro, of the build, of the trainer.
        for name in ["vocoder", "syn", "pkg-config", "rustysynth"] {
            assert!(!has(name), "{name} is not linked");
        }
        for package in &crates {
            assert!(package.sha256.is_some(), "{} has a checksum", package.name);
        }
    }
}
