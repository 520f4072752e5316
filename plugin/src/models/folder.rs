//! Folders of model files.

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Extension of model files.
const EXTENSION: &str = "safetensors";

/// Most folders that a search visits, in case it starts at the root of a disk.
const MOST_FOLDERS: usize = 1000;

/// The model files and subfolders of a folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// Names of its subfolders.
    pub folders: Vec<String>,
    /// Names of its model files.
    pub models: Vec<String>,
    /// Why it cannot be read.
    pub error: Option<String>,
}

impl Folder {
    /// Reads a folder. Skips hidden folders and names that are not Unicode.
    pub fn read(path: &Path) -> Self {
        let mut folder = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => {
                folder.error = Some(error.to_string());
                return folder;
            }
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = entry.path();
            let is_model = path
                .extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION));
            if path.is_dir() && !name.starts_with('.') {
                folder.folders.push(name);
            } else if is_model && path.is_file() {
                folder.models.push(name);
            }
        }
        folder.folders.sort_by_key(|name| name.to_lowercase());
        folder.models.sort_by_key(|name| name.to_lowercase());
        folder
    }

    /// The folder that contains a file, or its nearest ancestor that exists.
    pub fn nearest(file: &Path) -> Self {
        let above = file.ancestors().skip(1).find(|path| path.is_dir());
        Self::read(above.unwrap_or(Path::new("/")))
    }

    /// The parent folder.
    pub fn parent(&self) -> Option<&Path> {
        self.path.parent()
    }
}

/// The model files in some folders and their subfolders, nearest first.
pub fn model_files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut waiting: VecDeque<PathBuf> = folders.iter().cloned().collect();
    let mut files = Vec::new();
    for _ in 0..MOST_FOLDERS {
        let Some(path) = waiting.pop_front() else {
            break;
        };
        let folder = Folder::read(&path);
        let is_no_link = |name: &&String| !path.join(name).is_symlink();
        waiting.extend(
            folder
                .folders
                .iter()
                .filter(is_no_link)
                .map(|name| path.join(name)),
        );
        files.extend(folder.models.iter().map(|name| path.join(name)));
    }
    files
}

/// The user's model folder, which is created if it does not exist.
pub fn model_folder() -> PathBuf {
    let folder = data_folder().join(match cfg!(any(target_os = "macos", windows)) {
        true => "Graft/Models",
        false => "graft/models",
    });
    // If it cannot be created, the browser reports that it cannot be read.
    let _says_so_itself = fs::create_dir_all(&folder);
    folder
}

/// The folder for application data of the current user.
fn data_folder() -> PathBuf {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from);
    let home = env::home_dir().unwrap_or_default();
    if cfg!(target_os = "macos") {
        home.join("Library/Application Support")
    } else if cfg!(windows) {
        variable("APPDATA").unwrap_or(home)
    } else {
        let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
        data.unwrap_or_else(|| home.join(".local/share"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_models_are_listed_by_name() {
        let path = env::temp_dir().join(format!("graft folder ünï {}", std::process::id()));
        fs::create_dir_all(path.join("Zoë’s")).unwrap();
        fs::create_dir_all(path.join(".hidden")).unwrap();
        for name in [
            "b.safetensors",
            "Ä model.SAFETENSORS",
            "a.wav",
            "C.safetensors",
        ] {
            fs::write(path.join(name), "").unwrap();
        }
        let folder = Folder::read(&path);
        let inside = Folder::nearest(&path.join("gone/too/x.safetensors"));
        let missing = Folder::read(&path.join("gone"));
        fs::write(path.join("Zoë’s/d.safetensors"), "").unwrap();
        let files = model_files(&[path.join("gone"), path.clone()]);
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(folder.folders, ["Zoë’s"]);
        assert_eq!(
            folder.models,
            ["b.safetensors", "C.safetensors", "Ä model.SAFETENSORS"]
        );
        assert_eq!(folder.error, None);
        assert_eq!(inside.path, path);
        assert!(missing.error.is_some());
        let names = [
            "b.safetensors",
            "C.safetensors",
            "Ä model.SAFETENSORS",
            "Zoë’s/d.safetensors",
        ];
        assert_eq!(files, names.map(|name| path.join(name)));
    }
}
