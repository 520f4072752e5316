//! The training loop: steps, metrics, validations, previews and checkpoints, until the end or Ctrl-C.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use graft_material::whole_file;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::checkpoint::{self, CheckpointHeader};
use crate::curves;
use crate::trainee::Trainee;

/// Steps between two lines of training metrics.
const METRICS_STEPS: u64 = 10;
/// Time of an early first validation and checkpoint, if none has happened by then. With slow steps the first interval
/// is long; a wrong folder or a bad recipe should show within minutes.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// At this step of the run.
    Step(u64),
    /// After this much time in this call.
    Time(Duration),
}

/// Time spent on a number of steps.
#[derive(Debug, Default)]
struct Pace {
    /// In total.
    stepped: Duration,
    /// Part of this time that was spent waiting for batches.
    waited: Duration,
}

impl Pace {
    /// Share of the time that was spent waiting for batches.
    fn wait_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.stepped.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// A run in progress.
pub struct Run<T> {
    folder: PathBuf,
    header: CheckpointHeader,
    trainee: T,
    metrics: File,
    /// Times since the last validation.
    pace: Pace,
}

impl<T: Trainee> Run<T> {
    /// The run in `folder`, in the state that `header` describes.
    ///
    /// # Errors
    ///
    /// Returns an error if its metrics cannot be opened.
    pub fn new(folder: &Path, header: CheckpointHeader, trainee: T) -> Result<Self> {
        Ok(Self {
            metrics: open_metrics(&folder.join("metrics.jsonl"), header.step)?,
            folder: folder.to_owned(),
            header,
            trainee,
            pace: Pace::default(),
        })
    }

    /// Trains until the given end, the trainee's own or Ctrl-C. Saves a checkpoint at intervals and at the end.
    ///
    /// # Errors
    ///
    /// Returns an error if a step fails. The last checkpoint is then unchanged.
    pub fn train(mut self, until: Until) -> Result<()> {
        let interrupted = interrupt_flag()?;
        let mut saved_step = self.header.step;
        let result = self.train_until(until, interrupted, &mut saved_step);
        result.with_context(|| match saved_step {
            0 => "the run stopped before its first checkpoint".to_owned(),
            step => format!(
                "the run stopped; resume from the checkpoint of step {step} in {} with --resume",
                self.folder.display()
            ),
        })?;
        if interrupted.load(Ordering::Relaxed) {
            println!(
                "stopped at step {}; continue with --resume",
                self.header.step
            );
        }
        Ok(())
    }

    fn train_until(
        &mut self,
        until: Until,
        interrupted: &AtomicBool,
        saved_step: &mut u64,
    ) -> Result<()> {
        let bar = progress_bar(until, self.header.step);
        let (begin, begin_seconds) = (Instant::now(), self.header.train_seconds);
        let new = self.header.step == 0;
        let mut validated_step = None;
        loop {
            let done = match until {
                Until::Step(last) => self.header.step >= last,
                Until::Time(limit) => begin.elapsed() >= limit,
            };
            if done || interrupted.load(Ordering::Relaxed) {
                break;
            }
            if let Some(reason) = self.trainee.end(&self.header) {
                bar.suspend(|| println!("the run is finished: {reason}"));
                break;
            }
            let line = self.step()?;
            self.header.train_seconds = begin_seconds + begin.elapsed().as_secs_f64();
            match until {
                Until::Step(_) => bar.inc(1),
                Until::Time(_) => bar.set_position(begin.elapsed().as_secs()),
            }
            bar.set_message(line);
            let intervals = self.header.recipe.intervals();
            let first_look = new && validated_step.is_none() && begin.elapsed() >= FIRST_LOOK;
            let validate =
                first_look || self.header.step.is_multiple_of(intervals.validation_steps);
            let save = first_look || self.header.step.is_multiple_of(intervals.checkpoint_steps);
            if validate {
                let line = self.validate()?;
                validated_step = Some(self.header.step);
                bar.suspend(|| println!("{line}"));
                self.trainee.preview(&self.header, &self.folder)?;
            }
            if save {
                self.save()?;
                *saved_step = self.header.step;
            }
        }
        bar.finish_and_clear();
        // Save the checkpoint first, so that a second Ctrl-C does not lose it.
        self.save()?;
        *saved_step = self.header.step;
        let validated = validated_step == Some(self.header.step);
        if !validated && !interrupted.load(Ordering::Relaxed) {
            println!("{}", self.validate()?);
            self.trainee.preview(&self.header, &self.folder)?;
            self.save()?;
        }
        Ok(())
    }

    /// Runs one step and returns its progress line.
    fn step(&mut self) -> Result<String> {
        let start = Instant::now();
        let batch = self.trainee.next_batch()?;
        self.pace.waited += start.elapsed();
        let report = self.trainee.step(&self.header, batch)?;
        self.header.step += 1;
        if self.header.step.is_multiple_of(METRICS_STEPS) {
            self.log(report.figures)?;
        }
        self.pace.stepped += start.elapsed();
        Ok(format!("step {} {}", self.header.step, report.line))
    }

    /// Validates the averaged weights and returns a line with the results.
    fn validate(&mut self) -> Result<String> {
        let mut report = self.trainee.validate(&self.header)?;
        let pace = mem::take(&mut self.pace);
        report.figures["train_seconds"] = json!(self.header.train_seconds);
        report.figures["crop_wait_share"] = json!(pace.wait_share());
        self.log(report.figures)?;
        Ok(format!("step {}: {}", self.header.step, report.line))
    }

    fn save(&self) -> Result<()> {
        checkpoint::save(&self.folder, &self.header, &self.trainee.state()?)?;
        curves::draw(&self.folder)
    }

    fn log(&mut self, mut figures: Value) -> Result<()> {
        figures["step"] = json!(self.header.step);
        writeln!(self.metrics, "{figures}").context("cannot write metrics.jsonl")
    }
}

/// A flag for the whole process that Ctrl-C sets. A second Ctrl-C exits immediately.
fn interrupt_flag() -> Result<&'static AtomicBool> {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    static HANDLER: OnceLock<Result<(), ctrlc::Error>> = OnceLock::new();
    let set = HANDLER.get_or_init(|| {
        ctrlc::set_handler(|| {
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            eprintln!("stopping after this step; press Ctrl-C again to stop immediately");
        })
    });
    match set {
        Ok(()) => Ok(&INTERRUPTED),
        Err(error) => bail!("cannot listen for Ctrl-C: {error}"),
    }
}

/// Opens the run's metrics for appending. Drops lines that a killed call wrote after `step`, the last checkpoint.
fn open_metrics(path: &Path, step: u64) -> Result<File> {
    let kept = match fs::read_to_string(path) {
        Ok(text) => text
            .lines()
            .filter(|line| {
                serde_json::from_str(line)
                    .is_ok_and(|figures: serde_json::Value| figures["step"].as_u64() <= Some(step))
            })
            .flat_map(|line| [line, "\n"])
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    whole_file::write(path, kept.as_bytes())?;
    OpenOptions::new()
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn progress_bar(until: Until, step: u64) -> ProgressBar {
    let (length, template) = match until {
        Until::Step(last) => (
            last,
            "[{wide_bar}] {pos}/{len}, {per_sec}, {eta} left, {msg}",
        ),
        Until::Time(limit) => (limit.as_secs(), "[{wide_bar}] {eta} left, {msg}"),
    };
    let style = ProgressStyle::with_template(template)
        .expect("the template is valid")
        .progress_chars("=> ");
    let bar = ProgressBar::new(length).with_style(style);
    if let Until::Step(_) = until {
        bar.set_position(step);
        bar.reset_eta();
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::testing::TestFolder;

    #[test]
    fn figures_after_the_checkpoint_are_dropped_on_resume() {
        let folder = TestFolder::new("figures");
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":10}\n{\"step\":20}\n{\"step\":30}\n{\"ste").unwrap();
        drop(open_metrics(&path, 20).unwrap());
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"step\":10}\n{\"step\":20}\n"
        );
    }
}
