//! Placeholder.
#[allow(dead_code)]
mod audio_file;
#[cfg(test)]
mod test_folder;
fn main() {}
