//! The running program, where Cargo is about to build it anew.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Makes room for a new build of this program: Windows does not let a running program be replaced, but renamed. Elsewhere
/// nothing is in the way.
///
/// # Errors
///
/// Returns an error if the program cannot be renamed.
pub fn step_aside() -> Result<()> {
    if cfg!(windows) {
        let program = env::current_exe().context("cannot find the running program")?;
        rename(&program).with_context(|| format!("cannot rename {}", program.display()))?;
    }
    Ok(())
}

fn rename(program: &Path) -> io::Result<PathBuf> {
    let aside = program.with_extension("running.exe");
    fs::rename(program, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::testing::TestFolder;

    #[test]
    fn a_program_makes_room_again_and_again() {
        let folder = TestFolder::new("aside");
        let program = folder.path().join("xtask.exe");
        for build in ["old", "new"] {
            fs::write(&program, build).unwrap();
            let aside = rename(&program).unwrap();
            assert!(!program.exists());
            assert_eq!(fs::read_to_string(aside).unwrap(), build);
        }
    }
}
