//! The stages of an evaluation. Finished results are stored on disk, so that an interrupted evaluation can resume.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use graft_material::whole_file;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Stored results by name, in a folder.
pub struct Stages {
    folder: PathBuf,
    /// Everything that the results depend on.
    key: String,
    begun: Instant,
}

/// Contents of a result file.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    key: String,
    result: T,
}

impl Stages {
    /// Opens the results in `folder`, which is created if necessary. Results with another `key` are ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder cannot be created.
    pub fn new(folder: &Path, key: String) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
            begun: Instant::now(),
        })
    }

    /// Seconds since the evaluation started or resumed.
    pub fn elapsed_s(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    /// Prints the current stage with the elapsed time.
    pub fn say(&self, what: &str) {
        let seconds = self.elapsed_s();
        println!("[{:>2}:{:02}] {what}", seconds / 60, seconds % 60);
    }

    /// Returns the stored result of this name, or runs `work` and stores its result.
    ///
    /// # Errors
    ///
    /// Returns an error if `work` fails, or its result cannot be written.
    pub fn run<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
    {
        let slug: String = name
            .chars()
            .map(|c| {
                if c.is_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        let path = self.folder.join(slug + ".json");
        // On any error, the result is computed again.
        let kept = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Kept<T>>(&bytes).ok());
        if let Some(kept) = kept.filter(|kept| kept.key == self.key) {
            self.say(&format!("{name} (already done)"));
            return Ok(kept.result);
        }
        self.say(name);
        let result = work().with_context(|| format!("{name} failed"))?;
        let kept = Kept {
            key: self.key.clone(),
            result,
        };
        whole_file::write(&path, &serde_json::to_vec(&kept)?)?;
        Ok(kept.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use graft_material::testing::TestFolder;

    #[test]
    fn what_is_done_is_not_done_again_unless_it_differs() {
        let folder = TestFolder::new("stages");
        let stages = |key: &str| Stages::new(folder.path(), key.to_owned()).unwrap();
        assert!(
            stages("a")
                .run::<u32>("first Part", || bail!("no"))
                .is_err()
        );
        assert_eq!(stages("a").run("first Part", || Ok(1)).unwrap(), 1);
        assert_eq!(stages("a").run("first Part", || Ok(2)).unwrap(), 1);
        assert_eq!(stages("a").run("other", || Ok(3)).unwrap(), 3);
        assert_eq!(stages("b").run("first Part", || Ok(4)).unwrap(), 4);
        fs::write(folder.path().join("other.json"), "{").unwrap();
        assert_eq!(stages("a").run("other", || Ok(5)).unwrap(), 5);
    }
}
