//! Lines for the user, above a progress bar.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use graft_material::progress::{self, ProgressBar};

/// Prints results on standard output, or on standard error if the remix itself goes to standard output; warnings on
/// standard error.
pub struct Messages {
    bar: ProgressBar,
    results_to_stderr: bool,
    said: RefCell<HashSet<String>>,
}

impl Messages {
    /// Starts a progress bar of this length for a task.
    pub fn new(task: &'static str, results_to_stderr: bool, length: u64) -> Self {
        Self {
            bar: progress::bar(task, length),
            results_to_stderr,
            said: RefCell::default(),
        }
    }

    /// The progress bar.
    pub fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// Prints a result.
    pub fn result(&self, text: impl Display) {
        // A closed output is no reason to stop.
        self.bar.suspend(|| {
            let _ = match self.results_to_stderr {
                true => writeln!(io::stderr(), "{text}"),
                false => writeln!(io::stdout(), "{text}"),
            };
        });
    }

    /// Prints what the user may want to know besides the results, once.
    pub fn note(&self, text: impl Display) {
        let text = text.to_string();
        if !self.said.borrow_mut().insert(text.clone()) {
            return;
        }
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "{text}");
        });
    }

    /// Prints warnings about a file, each once.
    pub fn warnings(&self, file: &Path, warnings: &[String]) {
        for warning in warnings {
            self.note(format_args!("warning: {}: {warning}", file.display()));
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
