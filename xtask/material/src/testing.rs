//! Helpers for tests.

use std::path::{Path, PathBuf};

use crate::report::{
    self, Check, Example, JudgedModel, Measured, Picture, Report, Row, Sound, Table,
};

/// A fresh, empty folder for one test, removed with everything in it when this value is dropped.
pub struct TestFolder(PathBuf);

impl TestFolder {
    /// Creates the folder. `name` must differ between the tests of one run.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("graft-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        Self(path)
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A report with one table of one row and two columns.
pub fn small_report(value: f64) -> Report {
    Report {
        version: report::VERSION,
        protocol: "A test.".into(),
        seconds: 61,
        models: vec![JudgedModel {
            name: "graft".into(),
            sha256: "00".into(),
            steps: 7,
        }],
        tables: vec![Table {
            title: "Table".into(),
            note: "A note.".into(),
            columns: vec!["first".into(), "second".into()],
            rows: vec![Row {
                name: "graft, guided voice".into(),
                cells: vec![
                    Some(Measured {
                        value,
                        low: value - 0.1,
                        high: value + 0.1,
                    }),
                    None,
                ],
            }],
        }],
        checks: vec![Check {
            name: "it holds".into(),
            found: "<it>".into(),
            holds: false,
        }],
        pictures: vec![Picture {
            file: "a.png".into(),
            caption: "A picture".into(),
        }],
        examples: vec![Example {
            name: "One / Two".into(),
            sounds: vec![Sound {
                name: "A".into(),
                sound: "a.wav".into(),
                picture: "a.png".into(),
            }],
        }],
    }
}
