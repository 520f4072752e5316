//! Placeholder.
#[allow(dead_code)]
mod audio_file;
#[allow(dead_code)]
mod evaluate;
#[allow(dead_code)]
mod progress;
#[cfg(test)]
mod test_folder;
#[allow(dead_code)]
mod train;
fn main() {}
