//! A host that does anything, from a seed: random blocks, jumps, loops, tempo changes, rates, activations, storms of
//! parameters, states, other models; renders, and live playback that is late or jitters; cores that are busy with other work, so
//! that the worker starves. Two short sessions by default; `GRAFT_SEEDS=200 GRAFT_MINUTES=30` plays as many and as
//! long as one likes, `GRAFT_FIRST_SEED` begins elsewhere.
//!
//! The seeds begin with the engines in turn. Every twentieth seed plays the built-in model and a small one in turn, the others two small ones: what a host does has
//! nothing to do with a network's size, and most of the time would go there.

mod common;

use std::collections::HashMap;
use std::env;
use std::f32::consts::TAU;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{latency_parameters, linked_plugin, model_of, sleeps, with_model, write_small_model};
use graft::models::ModelFile;
use graft_tests::{
    Activation, Block, CountingAllocator, Plugin, Session, Song, Stretch, allocations,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A step in the sound between two samples that would be heard as a click, as the second difference of the output. The inputs'
/// own is below a tenth of it.
const CLICK: f32 = 0.05;

/// A generator of random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn share(&mut self) -> f64 {
        self.next() as f64 / u64::MAX as f64
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Longest time between two activations.
const LONGEST_SECONDS: f64 = 7.0;

/// The same in live playback, which takes as long.
const LONGEST_LIVE_SECONDS: f64 = 2.0;

/// When a host asks for its blocks.
enum Pace {
    /// As soon as it has the one before.
    Render,
    /// A block's duration after the one before was done, or later: never ahead of the clock.
    Late(Instant),
    /// When they are due; after a delay, several at once.
    Jitter(Instant),
}

impl Pace {
    fn new(random: &mut Random) -> Self {
        match random.below(8) {
            0 => Self::Late(Instant::now()),
            1 => Self::Jitter(Instant::now()),
            _ => Self::Render,
        }
    }

    fn is_render(&self) -> bool {
        matches!(self, Self::Render)
    }

    /// Waits for the next block.
    fn wait(&self, random: &mut Random) {
        let (Self::Late(due) | Self::Jitter(due)) = self else {
            return;
        };
        let late_seconds = match random.below(200) {
            0 => 0.1 * random.share(),
            1..20 => 0.005 * random.share(),
            _ => 0.0,
        };
        let asks = *due + Duration::from_secs_f64(late_seconds);
        thread::sleep(asks.saturating_duration_since(Instant::now()));
    }

    /// After a block.
    fn advance(&mut self, block_seconds: f64) {
        let block = Duration::from_secs_f64(block_seconds);
        match self {
            Self::Render => {}
            Self::Late(due) => *due = Instant::now() + block,
            Self::Jitter(due) => *due += block,
        }
    }
}

/// Threads that keep all cores busy until they are dropped.
struct Hogs {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Hogs {
    fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let hog = |_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..4 * cores).map(hog).collect();
        Self { is_over, threads }
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// Two smooth, lively stereo inputs that fade in, for a time between two activations.
fn signals(rate_hz: u32) -> [Vec<f32>; 4] {
    let samples = (LONGEST_SECONDS * f64::from(rate_hz)) as usize;
    let tones = |tones: [(f32, f32); 2]| {
        let sample = |n: usize| {
            let time = n as f32 / rate_hz as f32;
            let fade = (time / 0.05).min(1.0);
            let tone = |(hz, swell_hz): (f32, f32)| {
                let swell = 0.6 + 0.4 * (TAU * (swell_hz * time).fract()).sin();
                0.15 * fade * fade * swell * (TAU * (hz * time).fract()).sin()
            };
            tones.map(tone).iter().sum()
        };
        (0..samples).map(sample).collect()
    };
    [
        tones([(220.0, 1.3), (277.2, 0.7)]),
        tones([(220.0, 1.1), (329.6, 0.9)]),
        tones([(110.0, 4.0), (466.2, 3.0)]),
        tones([(146.8, 4.0), (415.3, 2.0)]),
    ]
}

/// All parameters with two values each between which they may move. Gains only go down, so that the input stays smooth.
const PARAMETERS: [(&str, f64, f64); 21] = [
    ("Harmony", 0.0, 1.0),
    ("Rhythm", 0.0, 1.0),
    ("Link", 0.0, 1.0),
    ("Transpose", -8.0, 8.0),
    ("Freeze Harmony", 0.0, 1.0),
    ("Freeze Rhythm", 0.0, 1.0),
    ("Freeze Length", 0.0, 3.0),
    ("Voice", 0.0, 1.0),
    ("Air", 0.0, 1.0),
    ("Window", 0.0, 4.0),
    ("Latency", 0.0, 2.0),
    ("Engine", 0.0, 4.0),
    ("Main Gain", -60.0, 0.0),
    ("Sidechain Gain", -60.0, 0.0),
    ("Mix", 0.0, 1.0),
    ("Output Gain", -60.0, 0.0),
    ("Bypass", 0.0, 1.0),
    ("Timbre", 0.0, 1.0),
    ("Pitch", 0.0, 1.0),
    ("Variation", 0.0, 1.0),
    ("Freeze Timbre", 0.0, 1.0),
];

/// The engines with which sessions begin, in turn: Morph, Network, Timbre, Split, Envelope.
const ENGINES: [f64; 5] = [2.0, 0.0, 3.0, 1.0, 4.0];

fn storm(random: &mut Random, samples: usize) -> Vec<(usize, String, f64)> {
    let mut events: Vec<_> = (0..random.below(6))
        .map(|_| {
            let (name, low, high) = random.choose(&PARAMETERS);
            let mut value = low + random.share() * (high - low);
            if high - low == (high - low).round()
                && !name.contains("Gain")
                && !matches!(
                    name,
                    "Harmony"
                        | "Rhythm"
                        | "Voice"
                        | "Air"
                        | "Mix"
                        | "Timbre"
                        | "Pitch"
                        | "Variation"
                )
            {
                value = value.round();
            }
            (random.below(samples), name.to_owned(), value)
        })
        // A new latency or engine is rare, since each costs a restart.
        .filter(|(time, name, _)| !["Latency", "Engine"].contains(&name.as_str()) || time % 16 == 0)
        .collect();
    events.sort_by_key(|(time, ..)| *time);
    events
}

fn song(random: &mut Random) -> Song {
    let bpm = 40.0 + 200.0 * random.share();
    let stretches = (0..100)
        .map(|_| {
            let ramp = random.one_in(3);
            Stretch {
                samples: 100 + random.below(200_000),
                playing: !random.one_in(5),
                start_beats: (random.below(64) as f64 - 8.0) / random.choose(&[1.0, 2.0, 3.0]),
                start_bpm: bpm,
                end_bpm: if ramp {
                    40.0 + 200.0 * random.share()
                } else {
                    bpm
                },
            }
        })
        .collect();
    Song { stretches }
}

fn activation(random: &mut Random, pace: &Pace) -> Activation {
    Activation {
        sample_rate_hz: random.choose(&[44_100, 48_000, 88_200, 96_000, 22_050, 32_000]),
        max_block_samples: random.choose(&[32, 64, 256, 441, 1024, 2048]),
        // A render is declared, since a busy machine may not be fast enough to be known as one.
        offline: pace.is_render(),
    }
}

#[derive(Default)]
struct Report {
    activations: usize,
    /// Those in live playback.
    live: usize,
    /// Those on busy cores.
    starved: usize,
    states: usize,
    largest_step: f32,
}

fn play(plugin: &Plugin, models: [Option<&ModelFile>; 2], seed: u64, seconds: f64) -> Report {
    let mut random = Random(seed);
    let mut report = Report::default();
    let mut session = Session::new(plugin).unwrap();
    let engine = ENGINES[seed as usize % ENGINES.len()];
    session.set_parameter("Engine", engine).unwrap();
    let fresh = session.save_state().unwrap();
    let mut states = models.map(|model| with_model(&fresh, model)).to_vec();
    session.load_state(&states[0]).unwrap();
    // The latency of each activation with the same settings has to be the same.
    let mut latencies: HashMap<(u32, usize, String, bool), usize> = HashMap::new();
    let mut inputs = HashMap::new();
    let mut played = 0.0;
    while played < seconds {
        let mut pace = Pace::new(&mut random);
        let activation = activation(&mut random, &pace);
        let rate = f64::from(activation.sample_rate_hz);
        let latency = session.activate(&activation).unwrap();
        report.activations += 1;
        let hogs = random.one_in(5).then(Hogs::start);
        report.starved += usize::from(hogs.is_some());
        let state = session.save_state().unwrap();
        let mode = latency_parameters(&state);
        // A model's own voice has its part in the latency.
        let has_own_model = model_of(&state).is_some();
        let key = (
            activation.sample_rate_hz,
            activation.max_block_samples,
            mode.clone(),
            has_own_model,
        );
        let known = *latencies.entry(key.clone()).or_insert(latency);
        assert_eq!(known, latency, "seed {seed}: the latency of {key:?} drifts");

        let song = song(&mut random);
        let [left, right, side_left, side_right] = inputs
            .entry(activation.sample_rate_hz)
            .or_insert_with_key(|&rate_hz| signals(rate_hz));
        let mut last = [[0.0f32; 2]; 2];
        let longest_seconds = match pace.is_render() {
            true => LONGEST_SECONDS,
            false => LONGEST_LIVE_SECONDS,
        };
        let lasts = (rate * (1.0 + (longest_seconds - 1.5) * random.share())) as usize;
        report.live += usize::from(!pace.is_render());
        let mut position = 0;
        while position < lasts {
            let longest = activation
                .max_block_samples
                .min(song.samples_to_jump(position));
            let samples = 1 + random.below(longest);
            let range = position..position + samples;
            let events = match random.one_in(20) {
                true => storm(&mut random, samples),
                false => Vec::new(),
            };
            let block = Block {
                main: [&left[range.clone()], &right[range.clone()]],
                sidechain: [&side_left[range.clone()], &side_right[range.clone()]],
                events: &events,
                transport: Some(song.at(position, rate)),
            };
            pace.wait(&mut random);
            let (mut allocated, mut slept) = (0, 0);
            let watch = |process: &mut dyn FnMut()| {
                let before = sleeps();
                allocated = allocations(process);
                slept = sleeps() - before;
            };
            let out = session.process(&block, watch).unwrap();
            pace.advance(samples as f64 / rate);
            assert!(
                slept == 0 || !matches!(pace, Pace::Late(_)),
                "seed {seed}, {played:.1} s + sample {position}: the audio thread slept"
            );
            assert_eq!(
                allocated, 0,
                "seed {seed}, {played:.1} s + sample {position}: allocations"
            );
            for (channel, last) in out.iter().zip(&mut last) {
                for &sample in channel {
                    assert!(
                        sample == 0.0 || sample.is_normal(),
                        "seed {seed}, {played:.1} s + sample {position}: {sample}"
                    );
                    let step = (sample - 2.0 * last[1] + last[0]).abs();
                    report.largest_step = report.largest_step.max(step);
                    // A low rate has steeper samples.
                    let allowed = CLICK * (44_100.0 / rate as f32).max(1.0);
                    assert!(
                        step < allowed,
                        "seed {seed}, {played:.1} s + sample {position}, {mode}: a step of {step}"
                    );
                    *last = [last[1], sample];
                }
            }
            position += samples;
            if random.one_in(400) {
                states.push(session.save_state().unwrap());
                report.states += 1;
            }
            if random.one_in(400) {
                let state = &states[random.below(states.len())];
                session
                    .load_state(&with_model(state, random.choose(&models)))
                    .unwrap();
                report.states += 1;
            }
            if session.wants_restart() {
                break;
            }
        }
        played += position as f64 / rate;
        session.deactivate();
    }
    report
}

#[test]
fn nothing_that_a_host_does_breaks_the_sound() {
    let number = |name: &str, default: f64| -> f64 {
        env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let seeds = number("GRAFT_SEEDS", 2.0) as u64;
    let first = number("GRAFT_FIRST_SEED", 1.0) as u64;
    let seconds = 60.0 * number("GRAFT_MINUTES", 0.25);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("simulator {first}"));
    fs::create_dir_all(&folder).unwrap();
    let small = ["one", "two"].map(|name| write_small_model(&folder.join(name)));
    let plugin = linked_plugin();
    for seed in first..first + seeds {
        println!("seed {seed}");
        let built_in = seed % 20 == 1;
        let other = (!built_in).then_some(&small[0]);
        let report = play(&plugin, [other, Some(&small[1])], seed, seconds);
        println!(
            "  {} activations ({} live, {} starved), {} states, largest second difference {:.4}",
            report.activations, report.live, report.starved, report.states, report.largest_step
        );
    }
}
