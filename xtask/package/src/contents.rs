//! The files that a package contains.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use graft_material::audio_writer::{self, WavFormat};
use graft_material::{audio_file, workspace};

use crate::archive::Entry;
use crate::compile::Built;
use crate::licences;

/// Texts of packages, which are kept beside the packager.
const TEXTS: &str = "xtask/package/files";

/// Files of packages that are copied from the repository, and their paths there.
const COPIES: [(&str, &str); 6] = [
    ("README.md", "xtask/package/files/README.md"),
    ("licences/LICENSE-APACHE", "LICENSE-APACHE"),
    ("licences/LICENSE-MIT", "LICENSE-MIT"),
    ("licences/model-card.md", "assets/graft.md"),
    ("licences/timbre-model-card.md", "assets/timbre.md"),
    ("licences/third-party-licences.txt", licences::FILE),
];

/// Files for Linux only.
const LINUX_COPIES: [(&str, &str); 3] = [
    ("install.sh", "install.sh"),
    ("share/applications/graft.desktop", "graft.desktop"),
    ("share/icons/hicolor/scalable/apps/graft.svg", "graft.svg"),
];

/// The contents of the archive, without the folder around them. `scratch` is a folder for temporary files.
///
/// # Errors
///
/// Returns an error if a file cannot be read, or the demo cannot be converted.
pub fn of(built: &Built, scratch: &Path) -> Result<Vec<Entry>> {
    let root = workspace::root();
    let mut entries = Vec::new();
    for (path, source) in COPIES {
        entries.push(Entry::new(path, read(&root.join(source))?));
    }
    if cfg!(target_os = "linux") {
        for (path, source) in LINUX_COPIES {
            let data = read(&root.join(TEXTS).join(source))?;
            entries.push(Entry {
                is_executable: path.ends_with(".sh"),
                ..Entry::new(path, data)
            });
        }
    }
    add(&mut entries, "clap", &built.clap)?;
    add(&mut entries, "vst3", &built.vst3)?;
    add(&mut entries, "bin", &built.standalone)?;
    for preset in sorted(&root.join("assets/presets"))? {
        add(&mut entries, "presets", &preset)?;
    }
    // The standalone program reads only WAV files.
    for name in ["harmony", "rhythm"] {
        let clip = audio_file::read(&root.join(format!("assets/demo/{name}.ogg")))?.clip;
        let wav = scratch.join(format!("{name}.wav"));
        audio_writer::write_wav(&wav, &clip, WavFormat::Pcm16)?;
        add(&mut entries, "share/graft/demo", &wav)?;
    }
    Ok(entries)
}

/// Adds a file or a folder under its own name to a folder of the archive.
///
/// # Errors
///
/// Returns an error if a file cannot be read or has a name that is not Unicode.
pub fn add(entries: &mut Vec<Entry>, folder: &str, source: &Path) -> Result<()> {
    let name = source.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("expected a name in Unicode: {}", source.display()))?;
    let path = format!("{folder}/{name}");
    if source.is_dir() {
        for inner in sorted(source)? {
            add(entries, &path, &inner)?;
        }
        return Ok(());
    }
    entries.push(Entry {
        is_executable: folder == "bin",
        ..Entry::new(path, read(source)?)
    });
    Ok(())
}

fn sorted(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let list = || -> std::io::Result<Vec<_>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder)? {
            paths.push(entry?.path());
        }
        paths.sort();
        Ok(paths)
    };
    list().with_context(|| format!("cannot read {}", folder.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, Output};

    use graft_material::testing::TestFolder;
    use liblzma::read::XzDecoder;

    use super::*;
    use crate::archive;

    /// A package of small files that was unpacked, and a home folder.
    struct Unpacked {
        folder: TestFolder,
    }

    impl Unpacked {
        fn new(name: &str) -> Self {
            let folder = TestFolder::new(name);
            let path = folder.path();
            let write = |name: &str, text: &str| {
                let file = path.join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, text).unwrap();
                file
            };
            write("built/Graft.vst3/Contents/x86_64-linux/Graft.so", "vst3");
            let built = Built {
                clap: write("built/Graft.clap", "clap"),
                vst3: path.join("built/Graft.vst3"),
                standalone: write("built/graft-standalone", "program"),
                symbols: Vec::new(),
            };
            let entries = of(&built, path).unwrap();
            let file = archive::tar_xz(&entries, 1_800_000_000).unwrap();
            let mut tar = tar::Archive::new(XzDecoder::new(file.as_slice()));
            tar.unpack(path.join("unpacked")).unwrap();
            Self { folder }
        }

        fn home(&self) -> PathBuf {
            self.folder.path().join("home")
        }

        fn install(&self, arguments: &[&str]) -> Output {
            let mut install = Command::new(self.folder.path().join("unpacked/install.sh"));
            install.args(arguments).env("HOME", self.home());
            install.env("DESTDIR", self.folder.path().join("root"));
            install.output().unwrap()
        }
    }

    /// All files below a folder, as paths from there, sorted.
    fn files(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for path in sorted(folder).unwrap() {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                let inner = files(&path).into_iter();
                found.extend(inner.map(|inner| format!("{name}/{inner}")));
            } else {
                found.push(name.to_owned());
            }
        }
        found
    }

    /// Without the presets, whose number changes.
    fn without_presets(mut files: Vec<String>) -> Vec<String> {
        let all = files.len();
        files.retain(|path| !path.ends_with(".vstpreset"));
        assert!(files.len() < all, "there are presets");
        files
    }

    #[test]
    fn a_package_holds_all_that_it_promises() {
        let unpacked = Unpacked::new("contents");
        let expected = [
            "README.md",
            "bin/graft-standalone",
            "clap/Graft.clap",
            "install.sh",
            "licences/LICENSE-APACHE",
            "licences/LICENSE-MIT",
            "licences/model-card.md",
            "licences/third-party-licences.txt",
            "licences/timbre-model-card.md",
            "share/applications/graft.desktop",
            "share/graft/demo/harmony.wav",
            "share/graft/demo/rhythm.wav",
            "share/icons/hicolor/scalable/apps/graft.svg",
            "vst3/Graft.vst3/Contents/x86_64-linux/Graft.so",
        ];
        let found = files(&unpacked.folder.path().join("unpacked"));
        assert_eq!(without_presets(found), expected);
    }

    #[test]
    fn a_user_installs_updates_and_removes() {
        let unpacked = Unpacked::new("install with a space");
        let home = unpacked.home();
        let expected = [
            ".clap/Graft.clap",
            ".local/bin/graft-standalone",
            ".local/share/applications/graft.desktop",
            ".local/share/graft/demo/harmony.wav",
            ".local/share/graft/demo/rhythm.wav",
            ".local/share/icons/hicolor/scalable/apps/graft.svg",
            ".vst3/Graft.vst3/Contents/x86_64-linux/Graft.so",
        ];
        for text in ["clap", "newer clap"] {
            fs::write(
                unpacked.folder.path().join("unpacked/clap/Graft.clap"),
                text,
            )
            .unwrap();
            let output = unpacked.install(&[]);
            assert!(output.status.success(), "{output:?}");
            assert_eq!(without_presets(files(&home)), expected);
            let clap = fs::read_to_string(home.join(".clap/Graft.clap")).unwrap();
            assert_eq!(clap, text);
        }
        let entry = home.join(".local/share/applications/graft.desktop");
        let entry = fs::read_to_string(entry).unwrap();
        let exec = format!("Exec=\"{}/.local/bin/graft-standalone\"\n", home.display());
        assert!(entry.contains(&exec), "{entry}");

        let own = [
            ".local/share/graft/models/own.safetensors",
            ".vst3/presets/Graft/Graft/own.vstpreset",
        ];
        for own in own {
            let own = home.join(own);
            fs::create_dir_all(own.parent().unwrap()).unwrap();
            fs::write(own, "own").unwrap();
        }
        let output = unpacked.install(&["--uninstall"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(files(&home), own);
    }

    #[test]
    fn the_system_is_installed_to_and_cleared() {
        let unpacked = Unpacked::new("install system");
        let root = unpacked.folder.path().join("root");
        assert!(unpacked.install(&["--system"]).status.success());
        let expected = [
            "usr/lib/clap/Graft.clap",
            "usr/local/bin/graft-standalone",
            "usr/local/lib/vst3/Graft.vst3/Contents/x86_64-linux/Graft.so",
            "usr/local/share/applications/graft.desktop",
            "usr/local/share/graft/demo/harmony.wav",
            "usr/local/share/graft/demo/rhythm.wav",
            "usr/local/share/icons/hicolor/scalable/apps/graft.svg",
        ];
        assert_eq!(without_presets(files(&root)), expected);
        assert!(!unpacked.home().exists(), "the home folder was touched");
        assert!(
            unpacked
                .install(&["--system", "--uninstall"])
                .status
                .success()
        );
        assert_eq!(files(&root), [""; 0]);
    }

    #[test]
    fn an_unknown_option_installs_nothing() {
        let unpacked = Unpacked::new("install option");
        let output = unpacked.install(&["--sytem"]);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("found --sytem"), "{error}");
        assert!(!unpacked.home().exists());
    }
}
