//! The package for Debian and Ubuntu.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use graft_material::editor_packages;

use crate::archive::{self, Entry};
use crate::needs::{self, Needs};
use crate::release::Release;

/// Shared libraries, their packages, and the beginning of the versions of their interfaces.
const LIBRARIES: [(&str, &str, &str); 8] = [
    ("ld-linux-aarch64.so.1", "libc6", "GLIBC_"),
    ("ld-linux-x86-64.so.2", "libc6", "GLIBC_"),
    ("libasound.so.2", "libasound2", "ALSA_"),
    ("libc.so.6", "libc6", "GLIBC_"),
    ("libdl.so.2", "libc6", "GLIBC_"),
    ("libgcc_s.so.1", "libgcc-s1", "GCC_"),
    ("libm.so.6", "libc6", "GLIBC_"),
    ("libpthread.so.0", "libc6", "GLIBC_"),
];

/// The machine-readable copyright file.
const COPYRIGHT: &str = include_str!("../files/copyright");

/// Folders of the archive and where the package installs them.
const FOLDERS: [(&str, &str); 6] = [
    ("bin/", "usr/bin/"),
    ("clap/", "usr/lib/clap/"),
    ("licences/", "usr/share/doc/graft/"),
    ("presets/", "usr/share/vst3/presets/Graft/Graft/"),
    ("share/", "usr/share/"),
    ("vst3/", "usr/lib/vst3/"),
];

/// The package with the contents of the archive.
///
/// # Errors
///
/// Returns an error if a program needs a library whose package is unknown.
pub fn package(release: &Release, contents: &[Entry]) -> Result<Vec<u8>> {
    let time_seconds = release.time_seconds;
    let mut files: Vec<Entry> = contents.iter().filter_map(installed).collect();
    files.push(Entry::new("usr/share/doc/graft/copyright", COPYRIGHT));
    let mut needs = Vec::new();
    for entry in files.iter().filter(|entry| is_binary(&entry.path)) {
        let found = needs::of(&entry.data).with_context(|| entry.path.clone())?;
        needs.push(found);
    }
    let depends = depends(&needs)?;
    let bytes: usize = files.iter().map(|entry| entry.data.len()).sum();
    let control = control(release, &depends, bytes.div_ceil(1024));
    let control = archive::tar_xz(&[Entry::new("control", control)], time_seconds)?;
    let data = archive::tar_xz(&files, time_seconds)?;
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.xz", control),
        ("data.tar.xz", data),
    ];
    archive::ar(&members, time_seconds)
}

/// A file of the archive where the package installs it; none for those that it does not need.
fn installed(entry: &Entry) -> Option<Entry> {
    let (folder, place) = FOLDERS
        .iter()
        .find(|(folder, _)| entry.path.starts_with(folder))?;
    let path = format!("{place}{}", &entry.path[folder.len()..]);
    Some(Entry {
        path,
        ..entry.clone()
    })
}

fn is_binary(path: &str) -> bool {
    path.starts_with("usr/bin/") || path.ends_with(".clap") || path.ends_with(".so")
}

/// The packages with the libraries that the programs need.
fn depends(programs: &[Needs]) -> Result<String> {
    let mut packages: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for (name, version) in programs.iter().flatten() {
        let known = LIBRARIES.iter().find(|(library, ..)| library == name);
        let (_, package, prefix) = known.with_context(|| {
            format!("{name}: expected a library whose package is listed in debian.rs")
        })?;
        let newest = packages.entry(package).or_default();
        let version = version
            .as_deref()
            .and_then(|text| text.strip_prefix(prefix));
        if let Some(version) = version
            && newest.is_none_or(|newest| needs::is_newer(version, newest))
        {
            *newest = Some(version);
        }
    }
    let with_versions = packages
        .into_iter()
        .map(|(package, version)| match version {
            Some(version) => format!("{package} (>= {version})"),
            None => package.to_owned(),
        });
    Ok(with_versions.collect::<Vec<_>>().join(", "))
}

fn control(release: &Release, depends: &str, installed_kib: usize) -> String {
    let mut control = String::new();
    for (field, value) in [
        ("Package", "graft"),
        ("Version", &release.debian_version()),
        ("Architecture", release.debian_architecture()),
        (
            "Maintainer",
            "The Graft maintainers <maintainers@graft.invalid>",
        ),
        ("Installed-Size", &installed_kib.to_string()),
        ("Depends", depends),
        // The editor loads them when it opens; the rest works without.
        ("Recommends", &editor_packages::DEBIAN.join(", ")),
        // The standalone program plays through it if it is there.
        ("Suggests", "pipewire-jack | libjack-jackd2-0"),
        ("Section", "sound"),
        ("Priority", "optional"),
        (
            "Description",
            "remixes two tracks in real time (CLAP and VST3 plugin)",
        ),
    ] {
        writeln!(control, "{field}: {value}").expect("a text takes any length");
    }
    control.push_str(
        " Graft is an audio plugin that takes the harmony of one track and the rhythm of\n \
         another, and plays music that has both. Put it on a track, route a second\n \
         track to its sidechain and turn two knobs. The package also has a program that\n \
         plays two files through Graft without a DAW.\n",
    );
    control
}

#[cfg(test)]
mod tests {
    use std::fs;

    use graft_material::workspace;

    use super::*;

    fn words(text: &str) -> Vec<&str> {
        text.split_whitespace()
            .filter(|word| *word != ".")
            .collect()
    }

    #[test]
    fn the_copyright_file_holds_the_licence() {
        let licence = fs::read_to_string(workspace::root().join("LICENSE-MIT")).unwrap();
        let (_, permission) = licence.split_once("\n\nPermission").unwrap();
        let (permission, copyright) = (words(permission), words(COPYRIGHT));
        assert!(
            copyright
                .windows(permission.len())
                .any(|part| part == permission)
        );
    }

    #[test]
    fn the_newest_interface_of_each_library_is_needed() {
        let needs = |list: &[(&str, Option<&str>)]| -> Needs {
            let list = list.iter().copied();
            list.map(|(name, version)| (name.into(), version.map(Into::into)))
                .collect()
        };
        let plugin = needs(&[
            ("libc.so.6", Some("GLIBC_2.9")),
            ("libgcc_s.so.1", Some("GCC_4.2.0")),
            ("ld-linux-x86-64.so.2", None),
        ]);
        let program = needs(&[("libm.so.6", Some("GLIBC_2.35")), ("libasound.so.2", None)]);
        let found = depends(&[plugin, program]).unwrap();
        assert_eq!(found, "libasound2, libc6 (>= 2.35), libgcc-s1 (>= 4.2.0)");

        let error = depends(&[needs(&[("libnew.so.1", None)])]).unwrap_err();
        assert!(error.to_string().contains("libnew.so.1"), "{error}");
    }

    #[test]
    fn files_are_installed_where_hosts_look() {
        for (path, expected) in [
            ("clap/Graft.clap", Some("usr/lib/clap/Graft.clap")),
            (
                "vst3/Graft.vst3/Contents/a",
                Some("usr/lib/vst3/Graft.vst3/Contents/a"),
            ),
            ("bin/graft-standalone", Some("usr/bin/graft-standalone")),
            (
                "presets/A.vstpreset",
                Some("usr/share/vst3/presets/Graft/Graft/A.vstpreset"),
            ),
            ("install.sh", None),
        ] {
            let found = installed(&Entry::new(path, ""));
            assert_eq!(found.as_ref().map(|entry| entry.path.as_str()), expected);
        }
    }
}
