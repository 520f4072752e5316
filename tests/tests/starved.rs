//! The signal path with a worker that is slower than it should be, under the clocks of live hosts and of renders.

mod common;

use std::f32::consts::TAU;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::sleeps;
use graft::engines::{Engine, Parts};
use graft::params::GraftParams;
use graft::setup::Setup;
use graft::signal_path::{Config, SignalPath};
use graft_tests::{CountingAllocator, allocations};
use model_runtime::status::Status;
use model_runtime::transport::Transport;
use model_runtime::worker::{ProcessorError, WindowProcessor};
use model_runtime::{LatencyMode, Model, Window};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const RATE_HZ: u32 = 44_100;
const BLOCK: usize = 256;
const SECONDS: f64 = 4.0;
const ALWAYS: Range<f64> = 0.0..f64::INFINITY;
/// An audible step between samples, as the second difference; that of the inputs is below a tenth of it.
const CLICK: f32 = 0.01;

/// The remix, where some windows take a multiple of their duration.
struct Slow {
    remix: Box<dyn WindowProcessor>,
    /// How many times its duration a window takes at least.
    factor: f64,
    /// When it is slow, in seconds on the clock.
    span: Range<f64>,
    start: Instant,
}

impl WindowProcessor for Slow {
    fn latency_samples(&self) -> usize {
        self.remix.latency_samples()
    }

    fn reset(&mut self) {
        self.remix.reset();
    }

    fn process(&mut self, window: &Window, remix: [&mut [f32]; 2]) -> Result<(), ProcessorError> {
        let began = Instant::now();
        self.remix.process(window, remix)?;
        let seconds = window.samples() as f64 / f64::from(RATE_HZ);
        if self.span.contains(&self.start.elapsed().as_secs_f64()) {
            let wanted = Duration::from_secs_f64(self.factor * seconds);
            thread::sleep(wanted.saturating_sub(began.elapsed()));
        }
        Ok(())
    }
}

/// When the host asks for its blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Host {
    /// A block's duration after the one before, or later: never ahead of the clock.
    Live,
    /// When they are due, up to 4 ms late; every hundredth block a tenth of a second, and those after it at once.
    Jittery,
    /// As soon as it has the one before.
    Render,
    /// The same, with a declaration.
    DeclaredRender,
}

impl Host {
    fn is_live(self) -> bool {
        matches!(self, Self::Live | Self::Jittery)
    }

    /// Waits for the time of a block.
    fn wait(self, due: Instant, block: usize) {
        let late_ms = match self {
            Self::Jittery if block % 100 == 99 => 100,
            Self::Jittery => (block as u64 * 7) % 5,
            _ => 0,
        };
        if self.is_live() {
            let asks = due + Duration::from_millis(late_ms);
            thread::sleep(asks.saturating_duration_since(Instant::now()));
        }
    }

    /// When the next block is due, after the one that was due at `due`.
    fn next(self, due: Instant) -> Instant {
        let length = Duration::from_secs_f64(BLOCK as f64 / f64::from(RATE_HZ));
        match self {
            Self::Live => Instant::now() + length,
            _ => due + length,
        }
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

/// Plays two tones through a worker that is slow in a span.
fn play(host: Host, factor: f64, span: Range<f64>) -> Played {
    let engine = Engine::Split;
    let mode = engine.mode(LatencyMode::Live);
    let parts = Parts {
        model: &Model::built_in().unwrap(),
        sample_rate_hz: RATE_HZ,
        mode,
        frozen: Arc::default(),
        scope: Arc::default(),
    };
    let slow = Slow {
        remix: engine.processor(parts).unwrap(),
        factor,
        span,
        start: Instant::now(),
    };
    let config = Config {
        setup: Setup {
            engine,
            mode,
            model_version: 0,
        },
        sample_rate_hz: RATE_HZ as f32,
        max_block_samples: BLOCK,
        patient: host == Host::DeclaredRender,
        fade_in: false,
    };
    let status = Arc::new(Status::default());
    let mut path = SignalPath::new(&config, Some(Box::new(slow)), Arc::clone(&status)).unwrap();
    let params = GraftParams::default();
    path.reset(&params);
    let mut left = Vec::new();
    let mut due = Instant::now();
    for block in 0..(SECONDS * f64::from(RATE_HZ)) as usize / BLOCK {
        host.wait(due, block);
        let tone = |hz: f32| {
            let tone = (block * BLOCK..(block + 1) * BLOCK).map(|n| sine(hz, n));
            tone.collect::<Vec<_>>()
        };
        let (mut main, mut sidechain) = ([tone(220.0), tone(220.0)], [tone(110.0), tone(110.0)]);
        let mut main = main.each_mut().map(Vec::as_mut_slice);
        let sidechain = sidechain.each_mut().map(Vec::as_mut_slice);
        let before = sleeps();
        let allocated = allocations(&mut || {
            path.process(&params, &Transport::default(), &mut main, &sidechain);
        });
        let slept = sleeps() - before;
        due = host.next(due);
        assert_eq!(allocated, 0, "{host:?}: allocations in block {block}");
        // A host that asks for late blocks at once is ahead for that moment.
        let may_wait = host != Host::Live;
        assert!(slept == 0 || may_wait, "{host:?}: slept in block {block}");
        left.extend_from_slice(main[0]);
    }
    Played {
        left,
        latency_samples: path.latency_samples() as usize,
        status,
    }
}

impl Played {
    /// The share of a span of the main input in which the main input plays and not the remix.
    fn share_without_remix(&self, seconds: Range<f64>) -> f64 {
        let [from, to] = [seconds.start, seconds.end].map(|s| (s * f64::from(RATE_HZ)) as usize);
        let to = to.min(self.left.len() - self.latency_samples);
        let is_main = |n: &usize| self.left[n + self.latency_samples] == sine(220.0, *n);
        (from..to).filter(is_main).count() as f64 / (to - from) as f64
    }

    fn assert_no_click(&self) {
        // Skips the onset of the tones, which is a step itself.
        let steps = self.left[RATE_HZ as usize / 2..].windows(3);
        let largest = steps.map(|three| (three[2] - 2.0 * three[1] + three[0]).abs());
        let largest = largest.fold(0.0, f32::max);
        assert!(largest < CLICK, "{largest}");
    }
}

#[test]
fn live_the_main_input_stands_in_for_late_windows_and_the_remix_comes_back() {
    for host in [Host::Live, Host::Jittery] {
        let played = play(host, 3.0, 1.0..2.0);
        let late = played.status.late_windows();
        let shares = [0.2..0.9, 1.2..1.9, 3.0..4.0].map(|span| played.share_without_remix(span));
        println!("{host:?}: {late} late windows, without the remix {shares:.2?}");
        assert!(late > 0);
        played.assert_no_click();
        let [_, starved, after] = shares;
        assert!(starved > 0.5, "{host:?}: {starved}");
        assert!(after < 0.5, "{host:?}: {after}");
    }
}

#[test]
fn a_declared_render_waits_for_a_worker_that_is_slower_than_real_time() {
    let calm = play(Host::DeclaredRender, 0.0, ALWAYS);
    let slow = play(Host::DeclaredRender, 1.5, ALWAYS);
    assert_eq!(slow.status.late_windows(), 0);
    assert_eq!(slow.left, calm.left);
}

#[test]
fn an_undeclared_render_waits_for_a_worker_that_is_faster_than_real_time() {
    let calm = play(Host::DeclaredRender, 0.0, ALWAYS);
    // A busy machine may be slower than real time for once, but not three times in a row.
    let same = (0..3).any(|_| play(Host::Render, 0.6, ALWAYS).left == calm.left);
    assert!(same);
}

/// Such a host looks like a live host that is overloaded, which must not be held up.
#[test]
fn an_undeclared_render_with_a_slower_worker_gets_the_main_input() {
    let played = play(Host::Render, 1.5, ALWAYS);
    let share = played.share_without_remix(1.0..SECONDS);
    let late = played.status.late_windows();
    println!("{late} late windows, without the remix {share:.2}");
    played.assert_no_click();
    assert!(late > 0 && share > 0.5, "{share}");
}
