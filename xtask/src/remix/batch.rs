//! Remixing of all files, one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};

use super::messages::Messages;
use super::output::Output;
use crate::speed::Speed;

/// A main input and where its remix is written.
pub struct Job {
    /// File of the main input.
    pub main: PathBuf,
    /// Where the remix is written.
    pub output: Output,
}

/// Remixes all files with `remix`, also if some of them fail. `remix` gets a function to call with the share that is
/// done, and returns the duration of the remix in seconds.
///
/// # Errors
///
/// Returns the error of the only file, or one that names the files that failed.
pub fn run(
    jobs: &[Job],
    remix: impl Fn(&Job, &Messages, &(dyn Fn(f64) + Sync)) -> Result<f64>,
) -> Result<()> {
    let start = Instant::now();
    let lengths: Vec<u64> = jobs.iter().map(|job| file_bytes(&job.main)).collect();
    let to_stdout = jobs
        .iter()
        .any(|job| matches!(job.output, Output::Stdout(_)));
    let messages = Messages::new("Remixing", to_stdout, lengths.iter().sum());
    let (mut done_bytes, mut audio_seconds) = (0, 0.0);
    let mut failed = Vec::new();
    for (number, (job, length)) in jobs.iter().zip(lengths).enumerate() {
        let bar = messages.bar();
        if jobs.len() > 1 {
            let name = job.main.file_name().unwrap_or_default().to_string_lossy();
            let message = format!("{name} ({} of {})", number + 1, jobs.len());
            bar.set_message(message);
        }
        let on_progress =
            |share: f64| bar.set_position(done_bytes + (share * length as f64) as u64);
        match remix(job, &messages, &on_progress) {
            Ok(seconds) => audio_seconds += seconds,
            Err(error) if jobs.len() == 1 => return Err(error),
            Err(error) => {
                let name = job.main.display();
                messages.note(format_args!("error: cannot remix {name}: {error:#}"));
                failed.push(name.to_string());
            }
        }
        done_bytes += length;
        bar.set_position(done_bytes);
    }
    if audio_seconds > 0.0 {
        messages.result(Speed {
            audio_seconds,
            wall_seconds: start.elapsed().as_secs_f64(),
        });
    }
    ensure!(
        failed.is_empty(),
        "{} of {} files failed: {}",
        failed.len(),
        jobs.len(),
        failed.join(", ")
    );
    Ok(())
}

/// Size of a file, as a measure of its duration; 0 if it cannot be read.
fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
