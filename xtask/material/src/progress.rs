//! Progress bars. Nothing is drawn if the output is not a terminal.

use std::borrow::Cow;

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
