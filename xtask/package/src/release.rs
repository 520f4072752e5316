//! What is released: version, commit, time and system.

use std::env;

use anyhow::{Context, Result};
use graft_material::workspace::Commit;

/// 1980-01-01, the earliest time in zip archives: for sources without a commit.
const EARLIEST_SECONDS: u64 = 315_532_800;

/// One release for one system.
#[derive(Clone, Debug)]
pub struct Release {
    /// Version of the workspace, with `-dirty` if the sources differ from their commit.
    pub version: String,
    /// Time of all files, in seconds since 1970.
    pub time_seconds: u64,
    /// The system, such as `x86_64-linux`.
    pub system: &'static str,
}

impl Release {
    /// The release of the sources at a commit, for the system that this program runs on. `SOURCE_DATE_EPOCH` sets the
    /// time; without it, it is that of the commit.
    ///
    /// # Errors
    ///
    /// Returns an error if `SOURCE_DATE_EPOCH` is not a number.
    pub fn new(commit: Option<&Commit>) -> Result<Self> {
        let wanted = env::var("SOURCE_DATE_EPOCH").ok();
        let wanted = wanted.map(|text| {
            let seconds = text.parse::<u64>();
            seconds.with_context(|| {
                format!("SOURCE_DATE_EPOCH: expected seconds since 1970, found {text:?}")
            })
        });
        let of_commit = commit.map(|commit| commit.time_seconds);
        let time_seconds = wanted.transpose()?.or(of_commit);
        let suffix = match commit {
            Some(commit) if commit.is_dirty => "-dirty",
            _ => "",
        };
        Ok(Self {
            version: format!("{}{suffix}", env!("CARGO_PKG_VERSION")),
            time_seconds: time_seconds
                .unwrap_or(EARLIEST_SECONDS)
                .max(EARLIEST_SECONDS),
            system: system(),
        })
    }

    /// Name of the archive without its extension, and of the folder in it.
    pub fn name(&self) -> String {
        format!("graft-{}-{}", self.version, self.system)
    }

    /// Name of the Debian package.
    pub fn debian_name(&self) -> String {
        format!(
            "graft_{}_{}.deb",
            self.debian_version(),
            self.debian_architecture()
        )
    }

    /// The version as Debian writes it: `~` sorts before the end, so that a release replaces a dirty build.
    pub fn debian_version(&self) -> String {
        self.version.replace('-', "~")
    }

    /// The architecture as Debian names it.
    pub fn debian_architecture(&self) -> &'static str {
        match self.system {
            "aarch64-linux" => "arm64",
            _ => "amd64",
        }
    }
}

/// The system that the packages are for: that of this program. On macOS, they are for both processors.
fn system() -> &'static str {
    if cfg!(target_os = "macos") {
        "universal-macos"
    } else if cfg!(windows) {
        "x86_64-windows"
    } else if cfg!(target_arch = "aarch64") {
        "aarch64-linux"
    } else {
        "x86_64-linux"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dirty_tree_is_marked_in_every_name() {
        let mut commit = Commit {
            hash: "0123456789ab".into(),
            time_seconds: 1_800_000_000,
            is_dirty: false,
        };
        let version = env!("CARGO_PKG_VERSION");
        let clean = Release::new(Some(&commit)).unwrap();
        assert_eq!(clean.name(), format!("graft-{version}-{}", clean.system));
        commit.is_dirty = true;
        let dirty = Release::new(Some(&commit)).unwrap();
        let name = format!("graft-{version}-dirty-{}", dirty.system);
        assert_eq!(dirty.name(), name);
        assert!(
            dirty
                .debian_name()
                .starts_with(&format!("graft_{version}~dirty_"))
        );
    }
}
