//! `cargo xtask bench`: measures the CPU cost of the plugin in real time and its missed deadlines.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use graft_material::{arguments, audio_file, progress, rate, workspace};
use graft_tests::{Activation, Block, Plugin, Session, Song};
use model_runtime::LatencyMode;

use crate::{bundle, host};

/// Measure the plugin's cost in real time
///
/// Plays the demo loops through one or more instances of the plugin, block by block, at the pace of a sound card. The
/// table lists the audio-thread time of the first instance, the CPU load of the process, and the number of samples
/// that differ from an offline render (0 if no window was late). As a control, the audio thread runs arithmetic
/// between blocks that takes as long as the median block: its 99.9th percentile shows the machine's own jitter.
///
/// Example: cargo xtask bench --block 64 --seconds 600
#[derive(Args)]
pub struct Bench {
    /// Block size in samples; repeatable
    #[arg(long = "block", value_name = "N", default_values_t = [32, 64, 128],
          value_parser = clap::value_parser!(u32).range(1..=65536))]
    blocks: Vec<u32>,
    /// Seconds of playback per block size
    #[arg(long, value_name = "S", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Number of instances, processed in turn on one audio thread
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=64))]
    instances: u32,
    /// Sample rate of the host, in Hz
    #[arg(long, value_name = "HZ", default_value_t = 48_000,
          value_parser = clap::value_parser!(u32).range(8_000..=192_000))]
    rate: u32,
    /// Latency mode
    #[arg(long, value_parser = arguments::latency(), default_value = "default")]
    latency: LatencyMode,
    /// Engine
    #[arg(long, value_enum, default_value_t = EngineName::Network)]
    engine: EngineName,
    /// Play silence, to measure an idle track
    #[arg(long)]
    silent: bool,
}

/// Values of the plugin's parameter Engine by their names on the command line, in the parameter's order.
#[derive(Clone, Copy, ValueEnum)]
enum EngineName {
    /// The model's network
    Network,
    /// Harmonic part of one input, percussive part of the other
    Split,
    /// Product of the spectra
    Morph,
    /// Notes of one input, colour of the other, by a model's network
    Timbre,
    /// The same by the spectral envelope
    Envelope,
}

/// Stereo material for the main input and the sidechain.
struct Material {
    main: Vec<Vec<f32>>,
    sidechain: Vec<Vec<f32>>,
}

/// Results for one block size.
struct Figures {
    block_samples: usize,
    sample_rate_hz: u32,
    /// Times of the first instance, ascending.
    block_seconds: Vec<f64>,
    /// Times of the control arithmetic, ascending.
    control_seconds: Vec<f64>,
    /// CPU time of all threads of all instances per second of real time, if the system reports it.
    load: Option<f64>,
    instances: usize,
    different_samples: usize,
    samples: usize,
}

impl Bench {
    /// Plays and prints the table.
    pub fn run(self) -> Result<()> {
        let bundles = bundle::release()?;
        let plugin = Plugin::load(&bundles.clap)?;
        let material = self.material()?;
        println!(
            "| block | median | 99.9 % | worst | 99.9 % as share of block | control | CPU per instance | samples that differ from a render |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
        for &block in &self.blocks {
            println!("{}", self.measure(&plugin, &material, block as usize)?);
        }
        Ok(())
    }

    fn material(&self) -> Result<Material> {
        let loops = workspace::root().join("assets/demo");
        let samples = self.seconds as usize * self.rate as usize;
        let read = |name: &str| -> Result<Vec<Vec<f32>>> {
            let clip = audio_file::read(&loops.join(name))?.clip;
            let mut channels = clip.channels;
            channels.resize(2, channels[0].clone());
            channels
                .iter()
                .map(|channel| {
                    let once = rate::convert(channel, clip.sample_rate_hz, self.rate)?;
                    let gain = if self.silent { 0.0 } else { 1.0 };
                    let repeated = once.iter().map(|sample| gain * sample).cycle();
                    Ok(repeated.take(samples).collect())
                })
                .collect()
        };
        Ok(Material {
            main: read("harmony.ogg")?,
            sidechain: read("rhythm.ogg")?,
        })
    }

    fn measure(&self, plugin: &Plugin, material: &Material, block: usize) -> Result<Figures> {
        let latency_step = host::latency_step(self.latency);
        let engine_step = f64::from(self.engine as u8);
        let sessions = |count: u32, offline: bool| -> Result<Vec<Session>> {
            (0..count)
                .map(|_| {
                    let mut session = Session::new(plugin)?;
                    session.set_parameter("Latency", latency_step)?;
                    session.set_parameter("Engine", engine_step)?;
                    session.activate(&Activation {
                        sample_rate_hz: self.rate,
                        max_block_samples: block,
                        offline,
                    })?;
                    Ok(session)
                })
                .collect()
        };
        let reference = self.play(&mut sessions(1, true)?, material, block, None)?;
        let rounds = arithmetic_rounds(percentile(&reference.block_seconds, 0.5));
        let before = processor_seconds();
        let began = Instant::now();
        let mut instances = sessions(self.instances, false)?;
        let live = as_audio_thread(|| self.play(&mut instances, material, block, Some(rounds)))?;
        let wall_seconds = began.elapsed().as_secs_f64();
        let load = processor_seconds()
            .zip(before)
            .map(|(after, before)| (after - before) / wall_seconds);
        let pairs = live.out.iter().zip(&reference.out);
        Ok(Figures {
            block_samples: block,
            sample_rate_hz: self.rate,
            block_seconds: live.block_seconds,
            control_seconds: live.control_seconds,
            load,
            instances: self.instances as usize,
            different_samples: pairs.filter(|(live, render)| live != render).count(),
            samples: live.out.len(),
        })
    }

    /// Plays all of the material through all sessions and returns the left channel of the first. `in_real_time` is
    /// the number of rounds of arithmetic between blocks; without it, plays as fast as possible.
    fn play(
        &self,
        sessions: &mut [Session],
        material: &Material,
        block: usize,
        in_real_time: Option<usize>,
    ) -> Result<Played> {
        let samples = material.main[0].len();
        let song = Song::steady(120.0, samples);
        let rate = f64::from(self.rate);
        let bar = progress::bar("Playing", samples as u64);
        let mut played = Played {
            out: Vec::with_capacity(samples),
            block_seconds: Vec::with_capacity(samples / block),
            control_seconds: Vec::with_capacity(samples / block),
        };
        let began = Instant::now();
        let sleep_until = |sample: f64| {
            let due = Duration::from_secs_f64(sample / rate);
            thread::sleep(due.saturating_sub(began.elapsed()));
        };
        for start in block_starts(samples, block)? {
            if in_real_time.is_some() {
                sleep_until(start as f64);
            }
            let slice =
                |channels: &[Vec<f32>], c: usize| channels[c][start..start + block].to_vec();
            let inputs = [0, 1].map(|c| (slice(&material.main, c), slice(&material.sidechain, c)));
            let input = Block {
                main: [&inputs[0].0, &inputs[1].0],
                sidechain: [&inputs[0].1, &inputs[1].1],
                events: &[],
                transport: Some(song.at(start, rate)),
            };
            for (index, session) in sessions.iter_mut().enumerate() {
                let mut seconds = 0.0;
                let [left, _] = session.process(&input, |process| {
                    let began = Instant::now();
                    process();
                    seconds = began.elapsed().as_secs_f64();
                })?;
                if index == 0 {
                    played.out.extend(left);
                    played.block_seconds.push(seconds);
                }
            }
            if let Some(rounds) = in_real_time {
                sleep_until(start as f64 + 0.5 * block as f64);
                played.control_seconds.push(arithmetic_seconds(rounds));
            }
            bar.set_position(start as u64);
        }
        played.block_seconds.sort_by(f64::total_cmp);
        played.control_seconds.sort_by(f64::total_cmp);
        bar.finish_and_clear();
        ensure!(
            !played.block_seconds.is_empty(),
            "expected at least one block"
        );
        Ok(played)
    }
}

/// Runs `work` with real-time priority, if the system permits it, as hosts do. The plugin's worker threads have
/// already been started and keep normal priority.
fn as_audio_thread<T>(work: impl FnOnce() -> T) -> T {
    let is_real_time = set_real_time(true);
    if !is_real_time {
        eprintln!("cannot set real-time priority for the audio thread; figures will be noisier");
    }
    let result = work();
    if is_real_time {
        set_real_time(false);
    }
    result
}

#[cfg(target_os = "linux")]
fn set_real_time(on: bool) -> bool {
    let (policy, sched_priority) = match on {
        true => (libc::SCHED_FIFO, 20),
        false => (libc::SCHED_OTHER, 0),
    };
    let parameters = libc::sched_param { sched_priority };
    // SAFETY: the parameters are valid for the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &parameters) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn set_real_time(_on: bool) -> bool {
    false
}

struct Played {
    out: Vec<f32>,
    /// Ascending.
    block_seconds: Vec<f64>,
    /// Ascending.
    control_seconds: Vec<f64>,
}

/// Time of `rounds` rounds of arithmetic, which hardly touch memory.
fn arithmetic_seconds(rounds: usize) -> f64 {
    let began = Instant::now();
    let sum = (0..rounds).fold(1.0, |sum: f32, round| 0.99 * sum + round as f32);
    std::hint::black_box(sum);
    began.elapsed().as_secs_f64()
}

/// Number of rounds of arithmetic that take `seconds`.
fn arithmetic_rounds(seconds: f64) -> usize {
    const TRIAL_ROUNDS: usize = 100_000;
    let trials = (0..20).map(|_| arithmetic_seconds(TRIAL_ROUNDS));
    let shortest_seconds = trials.fold(f64::INFINITY, f64::min);
    (seconds / shortest_seconds * TRIAL_ROUNDS as f64) as usize
}

/// The percentile `share` (0 to 1) of ascending values.
fn percentile(values: &[f64], share: f64) -> f64 {
    let index = (share * values.len() as f64) as usize;
    values[index.min(values.len() - 1)]
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |share: f64| percentile(&self.block_seconds, share);
        let microseconds = |seconds: f64| format!("{:.1} µs", 1e6 * seconds);
        let lasts = self.block_samples as f64 / f64::from(self.sample_rate_hz);
        let load = self.load.map_or("-".to_owned(), |load| {
            format!("{:.1} %", 100.0 * load / self.instances as f64)
        });
        write!(
            f,
            "| {} | {} | {} | {} | {:.2} % | {:.2} % | {load} | {} of {} |",
            self.block_samples,
            microseconds(at(0.5)),
            microseconds(at(0.999)),
            microseconds(at(1.0)),
            100.0 * at(0.999) / lasts,
            100.0 * percentile(&self.control_seconds, 0.999) / lasts,
            self.different_samples,
            self.samples,
        )
    }
}

/// CPU time that this process has used, if the system reports it.
fn processor_seconds() -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may contain spaces; user and system time are the 12th and 13th field after it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Where the blocks of a run begin. The last block is left out: a host does not end on a whole one.
fn block_starts(samples: usize, block: usize) -> Result<impl Iterator<Item = usize>> {
    ensure!(
        (1..samples).contains(&block),
        "--block: expected fewer samples than the run has, {samples}, found {block}"
    );
    Ok((0..samples - block).step_by(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_longer_than_the_run_is_refused() {
        assert_eq!(block_starts(10, 4).unwrap().collect::<Vec<_>>(), [0, 4]);
        for block in [0, 10, 11] {
            let error = block_starts(10, block).map(Iterator::count).unwrap_err();
            assert!(error.to_string().contains("--block"), "{error}");
        }
    }
}
