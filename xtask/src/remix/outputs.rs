//! Checks before any work whether the outputs can be written.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use graft_material::whole_file::{self, PartFile};

/// The outputs in a folder: named after the inputs.
///
/// # Errors
///
/// Returns an error if an input has no file name.
pub fn in_folder(folder: &Path, inputs: &[PathBuf], extension: &str) -> Result<Vec<PathBuf>> {
    let named = |input: &PathBuf| -> Result<PathBuf> {
        let name = input
            .file_stem()
            .with_context(|| format!("{} has no file name", input.display()))?;
        // Only the input's extension is replaced: "a.b.wav" becomes "a.b.flac".
        let mut name = name.to_os_string();
        name.push(".");
        name.push(extension);
        Ok(folder.join(name))
    };
    inputs.iter().map(named).collect()
}

/// Checks that no output is an input or another output. Each output comes with the main input that it is made from.
///
/// # Errors
///
/// Returns an error that names both files.
pub fn check_distinct(outputs: &[(&Path, &Path)], inputs: &[&Path]) -> Result<()> {
    let inputs: HashMap<Identity, &Path> = inputs
        .iter()
        .filter_map(|&input| Some((identity(input)?, input)))
        .collect();
    let mut places: HashMap<OsString, (&Path, &Path)> = HashMap::new();
    for &(output, main) in outputs {
        if let Some(input) = identity(output).and_then(|output| inputs.get(&output)) {
            bail!(
                "cannot write {}: it is the input {}",
                output.display(),
                input.display()
            );
        }
        if let Some((other, other_main)) = places.insert(place(output)?, (output, main)) {
            bail!(
                "cannot write {} for {}: it is the same file as {} for {}",
                output.display(),
                main.display(),
                other.display(),
                other_main.display()
            );
        }
    }
    Ok(())
}

/// Checks that a file can be written: tries it, since permissions do not tell. Removes temporary files that a killed
/// process left for it.
///
/// # Errors
///
/// Returns an error that names the file and the reason.
pub fn check_writable(path: &Path) -> Result<()> {
    let try_to_write = || -> Result<()> {
        let file = whole_file::follow(path)?;
        match fs::symlink_metadata(&file) {
            Ok(metadata) if metadata.is_dir() => bail!("it is a folder"),
            Ok(metadata) => ensure!(metadata.is_file(), "it is not a file"),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // For example a name that is too long.
            Err(error) => return Err(error.into()),
        }
        ensure!(
            whole_file::folder(&file).is_dir(),
            "the folder does not exist"
        );
        // A folder that cannot be listed can still be written.
        let _ = whole_file::remove_abandoned(&file);
        PartFile::create(&file)?;
        Ok(())
    };
    try_to_write().with_context(|| format!("cannot write {}", path.display()))
}

/// What tells whether two paths are the same file, also through links.
#[cfg(unix)]
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// What tells whether two paths are the same file, also through symbolic links.
#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<Identity> {
    fs::canonicalize(path).ok()
}

/// The place of a file, which need not exist yet, in one spelling.
fn place(path: &Path) -> Result<OsString> {
    let file =
        whole_file::follow(path).with_context(|| format!("cannot write {}", path.display()))?;
    let folder = whole_file::folder(&file);
    // A folder that does not exist is one that this program creates.
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    let place = folder
        .join(file.file_name().unwrap_or_default())
        .into_os_string();
    // Elsewhere, names that differ only in case usually are the same.
    let differs_by_case = cfg!(target_os = "linux");
    Ok(match place.to_str() {
        Some(place) if !differs_by_case => place.to_lowercase().into(),
        _ => place,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::testing::TestFolder;

    fn error(result: Result<()>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn outputs_are_named_after_the_inputs() {
        let inputs = ["in/x.wav", "y.ogg", "a.b.flac"].map(PathBuf::from);
        let outputs = in_folder(Path::new("out"), &inputs, "flac").unwrap();
        let expected = ["out/x.flac", "out/y.flac", "out/a.b.flac"].map(PathBuf::from);
        assert_eq!(outputs, expected);
    }

    #[test]
    fn outputs_that_are_the_same_file_are_refused() {
        let mains = ["a/x.wav", "b/x.flac"].map(PathBuf::from);
        let outputs = in_folder(Path::new("no/such"), &mains, "wav").unwrap();
        let outputs = outputs.iter().zip(&mains);
        let outputs: Vec<(&Path, &Path)> = outputs.map(|(a, b)| (&**a, &**b)).collect();
        let message = error(check_distinct(&outputs, &[]));
        for main in &mains {
            assert!(message.contains(main.to_str().unwrap()), "{message}");
        }
        assert!(check_distinct(&outputs[..1], &[]).is_ok());
    }

    #[test]
    fn an_output_that_is_an_input_is_refused() {
        let folder = TestFolder::new("same_file");
        let input = folder.path().join("x.wav");
        fs::write(&input, b"sound").unwrap();
        let same = folder.path().join("../").join(
            folder
                .path()
                .file_name()
                .map(Path::new)
                .unwrap()
                .join("x.wav"),
        );
        let links = ["soft.wav", "hard.wav"].map(|name| folder.path().join(name));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&input, &links[0]).unwrap();
            fs::hard_link(&input, &links[1]).unwrap();
        }
        let links = links.into_iter().filter(|link| link.exists());
        for output in [input.clone(), same].into_iter().chain(links) {
            let message = error(check_distinct(
                &[(&output, &input)],
                &[Path::new("other"), &input],
            ));
            assert!(message.contains("it is the input"), "{message}");
        }
        let other = folder.path().join("y.wav");
        assert!(check_distinct(&[(&other, &input)], &[&input]).is_ok());
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let folder = TestFolder::new("writable");
        fs::write(folder.path().join("file"), b"").unwrap();
        fs::create_dir(folder.path().join("folder.wav")).unwrap();
        for (name, reason) in [
            ("folder.wav", "it is a folder"),
            ("no/such/remix.wav", "the folder does not exist"),
            ("file/remix.wav", ""),
            // Windows calls it a wrong name.
            (
                &format!("{}.wav", "n".repeat(300)),
                if cfg!(windows) { "" } else { "too long" },
            ),
        ] {
            let message = error(check_writable(&folder.path().join(name)));
            assert!(message.contains(name), "{message}");
            assert!(message.contains(reason), "{message}");
        }
        for name in ["remix.wav", "file", &"n".repeat(255)] {
            check_writable(&folder.path().join(name)).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_refuses_files_is_found_out_by_trying() {
        // Says that everyone may search it, and lets nobody create files, not even root.
        let message = error(check_writable(Path::new("/proc/self/remix.wav")));
        assert!(message.contains("/proc/self/remix.wav"), "{message}");
    }
}
