//! Progress bars. Nothing is drawn if the output is not a terminal.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::ProgressStyle;

pub use indicatif::ProgressBar;

/// A progress bar for a task of `length` steps, with the remaining time.
pub fn bar(message: impl Into<Cow<'static, str>>, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{wide_bar}] {percent:>3} %, {eta} left")
        .expect("the template is valid")
        .progress_chars("=> ");
    ProgressBar::new(length)
        .with_style(style)
        .with_message(message)
}

/// A spinner with the elapsed time, for a task of unknown length.
pub fn spinner(message: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.set_style(
        ProgressStyle::with_template("{spinner} {msg}, {elapsed}").expect("the template is valid"),
    );
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}
