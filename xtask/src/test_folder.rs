//! A folder for one test, removed with everything in it when the test ends.

use std::path::{Path, PathBuf};

/// A fresh, empty folder that lives as long as this value.
pub struct TestFolder(PathBuf);

impl TestFolder {
    /// Makes the folder; `name` tells the tests of one run apart.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("graft-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
