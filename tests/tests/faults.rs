//! The signal path with a processor that fails: audio continues, the fault is counted, and the remix comes back.

use std::f32::consts::TAU;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use graft::engines::{Engine, Parts};
use graft::params::GraftParams;
use graft::setup::Setup;
use graft::signal_path::{Config, SignalPath};
use model_runtime::status::Status;
use model_runtime::transport::Transport;
use model_runtime::worker::{ProcessorError, WindowProcessor};
use model_runtime::{LatencyMode, Window};

const RATE_HZ: u32 = 44_100;
const BLOCK: usize = 64;
/// The window in which the fault lies: at about 2.3 s.
const FAULTY_WINDOW: usize = 50;
/// An audible step between samples, as the second difference; that of the inputs is below a tenth of it.
const CLICK: f32 = 0.01;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Error,
    Panic,
    NotANumber,
    /// Two seconds pass.
    Stall,
}

/// The remix, with a fault in one window.
struct Faulty {
    remix: Box<dyn WindowProcessor>,
    fault: Fault,
    window: usize,
}

impl WindowProcessor for Faulty {
    fn latency_samples(&self) -> usize {
        self.remix.latency_samples()
    }

    fn reset(&mut self) {
        self.remix.reset();
    }

    fn process(
        &mut self,
        window: &Window,
        mut remix: [&mut [f32]; 2],
    ) -> Result<(), ProcessorError> {
        let [left, right] = &mut remix;
        self.remix
            .process(window, [&mut left[..], &mut right[..]])?;
        self.window += 1;
        if self.window == FAULTY_WINDOW {
            match self.fault {
                Fault::None => {}
                Fault::Error => return Err("planted".into()),
                Fault::Panic => panic!("planted"),
                Fault::NotANumber => remix[1][7] = f32::NAN,
                Fault::Stall => thread::sleep(Duration::from_secs(2)),
            }
        }
        Ok(())
    }
}

struct Played {
    left: Vec<f32>,
    latency_samples: usize,
    status: Arc<Status>,
}

fn sine(hz: f32, n: usize) -> f32 {
    0.3 * (TAU * (hz * n as f32 / RATE_HZ as f32).fract()).sin()
}

fn main_sample(n: usize) -> f32 {
    sine(220.0, n)
}

/// Plays seven seconds, in real time or as fast as possible.
fn play(engine: Engine, mode: LatencyMode, fault: Fault, live: bool) -> Played {
    let model = engine.built_in_model().unwrap();
    let parts = Parts {
        model: &model,
        sample_rate_hz: RATE_HZ,
        mode,
        frozen: Arc::default(),
        scope: Arc::default(),
    };
    let remix = engine.processor(parts).unwrap();
    let config = Config {
        setup: Setup {
            engine,
            mode,
            model_version: 0,
        },
        sample_rate_hz: RATE_HZ as f32,
        max_block_samples: BLOCK,
        patient: !live,
        fade_in: false,
    };
    let faulty = Faulty {
        remix,
        fault,
        window: 0,
    };
    let status = Arc::new(Status::default());
    let mut path = SignalPath::new(&config, Some(Box::new(faulty)), Arc::clone(&status)).unwrap();
    let params = GraftParams::default();
    path.reset(&params);
    let mut left = Vec::new();
    let began = Instant::now();
    while left.len() < 7 * RATE_HZ as usize {
        if live {
            let due = Duration::from_secs_f64(left.len() as f64 / f64::from(RATE_HZ));
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let block = left.len()..left.len() + BLOCK;
        let mut main = [0, 1].map(|_| block.clone().map(main_sample).collect::<Vec<_>>());
        let mut sidechain =
            [0, 1].map(|_| block.clone().map(|n| sine(110.0, n)).collect::<Vec<_>>());
        let mut main = main.each_mut().map(Vec::as_mut_slice);
        let sidechain = sidechain.each_mut().map(Vec::as_mut_slice);
        path.process(&params, &Transport::default(), &mut main, &sidechain);
        left.extend_from_slice(main[0]);
    }
    Played {
        left,
        latency_samples: path.latency_samples() as usize,
        status,
    }
}

/// The span after the first latency from the first to the last run in which the delayed main input plays.
fn without_remix(played: &Played) -> Range<usize> {
    // A single sample of a remix may equal that of the main input by chance.
    const RUN: usize = 16;
    let main = |n: usize| main_sample(n - played.latency_samples);
    let is_dry = |n: &usize| (*n..n + RUN).all(|n| played.left[n] == main(n));
    let places = played.latency_samples + BLOCK..played.left.len() - RUN;
    let first = places.clone().find(is_dry);
    let last = places.clone().rfind(is_dry);
    first.map_or(0..0, |first| first..last.unwrap_or(first) + RUN)
}

fn assert_no_click(samples: &[f32], what: &str) {
    let step = |three: &[f32]| (three[2] - 2.0 * three[1] + three[0]).abs();
    // Skips the onset of the tones, which is a step itself.
    let steps = samples[RATE_HZ as usize / 2..].windows(3).map(step);
    let largest = steps.fold(0.0, f32::max);
    assert!(largest < CLICK, "{what}: {largest}");
}

#[test]
fn a_fault_costs_one_latency_of_the_remix_and_no_click() {
    let networks = Engine::WITH_NETWORK
        .into_iter()
        .flat_map(|kind| LatencyMode::ALL.map(|mode| (kind, mode)));
    let others = [Engine::Split, Engine::Morph, Engine::Envelope]
        .into_iter()
        .flat_map(|kind| [LatencyMode::Live, LatencyMode::Default].map(|mode| (kind, mode)));
    for (engine, mode) in networks.chain(others) {
        let whole = play(engine, mode, Fault::None, false);
        assert_eq!((whole.status.faults(), whole.status.late_windows()), (0, 0));
        assert_eq!(without_remix(&whole), 0..0);
        for fault in [Fault::Error, Fault::Panic, Fault::NotANumber] {
            let what = format!("{engine:?}, {mode:?}, {fault:?}");
            let played = play(engine, mode, fault, false);
            assert_eq!(played.status.faults(), 1, "{what}");
            assert_eq!(played.status.late_windows(), 0, "{what}");
            assert_no_click(&played.left, &what);
            let lost = without_remix(&played);
            println!(
                "{what}: {} ms without the remix",
                lost.len() * 1000 / RATE_HZ as usize
            );
            assert!(
                !lost.is_empty() && lost.len() <= played.latency_samples,
                "{what}: {lost:?}"
            );
        }
    }
}

#[test]
fn a_stall_of_two_seconds_makes_no_click_and_is_counted() {
    let played = play(Engine::Network, LatencyMode::Live, Fault::Stall, true);
    assert!(played.status.late_windows() > 0);
    assert_eq!(played.status.faults(), 0);
    assert_no_click(&played.left, "stall");
    let lost = without_remix(&played);
    println!(
        "a stall of 2000 ms: {} windows late, {} ms without the remix",
        played.status.late_windows(),
        lost.len() * 1000 / RATE_HZ as usize
    );
    assert!(!lost.is_empty());
}
