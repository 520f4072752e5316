//! The audio thread: no allocation or release of memory, no system call, no lock.
//!
//! The plugin is linked into this test, so that its code uses the allocator below, and is driven through its CLAP entry
//! point. Planted faults test the checks themselves.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../common/mod.rs"]
mod common;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::linked_plugin;
use graft_tests::{Automation, CountingAllocator, RenderJob, Song, Stretch};
use test_signals::Noise;
use watch::{Deeds, atomics, watch};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const RATE_HZ: u32 = 44_100;

/// Atomic read-modify-writes that nice-plug 0.4.2 makes for each block. The plugin's own code needs
/// none.
const ATOMICS_PER_BLOCK: usize = 7;

/// Lets one plugin process at a time. nice-plug keeps settings in `AtomicCell`s, whose sequence locks are shared by all
/// instances, by address: single-stepping one thread through such a lock makes the thread of another instance yield to
/// the kernel.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two seconds of noise in a loop with moving parameters, including the latency, which causes a restart request.
fn job(blocks: Vec<usize>) -> RenderJob {
    let mut noise = Noise::new(1);
    let mut stereo = || vec![(0..2 * RATE_HZ).map(|_| noise.sample()).collect::<Vec<_>>(); 2];
    let change = |step: usize, parameter: &str| Automation {
        position_samples: 3000 + 5000 * step,
        parameter: parameter.to_owned(),
        value: (step % 2) as f64,
    };
    RenderJob {
        sample_rate_hz: RATE_HZ,
        blocks,
        main: stereo(),
        sidechain: Some(stereo()),
        automation: (0..8)
            .flat_map(|step| {
                [
                    "Harmony",
                    "Rhythm",
                    "Mix",
                    "Link",
                    "Bypass",
                    "Transpose",
                    "Freeze Harmony",
                    "Freeze Rhythm",
                    "Window",
                    "Latency",
                ]
                .map(|p| change(step, p))
            })
            .collect(),
        transport: Some(Song {
            stretches: (0..5)
                .map(|pass| Stretch {
                    samples: 17_000,
                    playing: pass != 3,
                    start_beats: 2.0,
                    start_bpm: 90.0,
                    end_bpm: 170.0,
                })
                .collect(),
        }),
        ..RenderJob::default()
    }
}

/// The clock of a host that is slightly slower than real time, so that the plugin never gets time to wait.
struct LiveTime {
    last_call: Instant,
    last_position_samples: usize,
}

impl LiveTime {
    fn new() -> Self {
        Self {
            last_call: Instant::now(),
            last_position_samples: 0,
        }
    }

    /// Waits until the block that starts at `position_samples` is due.
    fn wait_for(&mut self, position_samples: usize) {
        let samples = position_samples - self.last_position_samples;
        let lasts = Duration::from_secs_f64(1.1 * samples as f64 / f64::from(RATE_HZ));
        thread::sleep((self.last_call + lasts).saturating_duration_since(Instant::now()));
        self.last_call = Instant::now();
        self.last_position_samples = position_samples;
    }
}

#[test]
fn processing_neither_allocates_nor_enters_the_kernel() {
    let _alone = alone();
    let mut live_time = LiveTime::new();
    let mut position = 0;
    let mut deeds = Vec::new();
    let rendered = linked_plugin().render_with(&job(vec![64, 1, 512, 127]), |end, process| {
        live_time.wait_for(position);
        position = end;
        deeds.push(watch(process));
    });
    rendered.unwrap();
    assert!(deeds.len() > 500);
    let first_offence = deeds.iter().position(|deeds| *deeds != Deeds::default());
    assert_eq!(first_offence.map(|block| (block, deeds[block])), None);
}

#[test]
fn processing_takes_no_lock() {
    let _alone = alone();
    let mut block = 0;
    let mut counts = Vec::new();
    let rendered = linked_plugin().render_with(&job(vec![8]), |_, process| {
        block += 1;
        // Only in some blocks, because single steps are slow.
        if block % 500 == 0 {
            counts.push(atomics::count(process));
        } else {
            process();
        }
    });
    rendered.unwrap();
    assert!(counts.len() > 10);
    let offence = counts.iter().find(|&&count| count != ATOMICS_PER_BLOCK);
    assert_eq!(offence, None, "{counts:?}");
}

#[test]
fn a_planted_allocation_is_found() {
    assert_eq!(
        watch(|| drop(std::hint::black_box(Box::new(1)))).allocations,
        2
    );
    assert_eq!(watch(|| ()), Deeds::default());
}

#[test]
fn a_planted_file_read_is_found() {
    let deeds = watch(|| {
        std::hint::black_box(std::fs::read("/proc/self/cmdline")).unwrap();
    });
    assert_eq!(deeds.system_call, Some(libc::SYS_openat));
}

#[test]
fn a_planted_lock_is_found_when_it_is_free() {
    let std_lock = std::sync::Mutex::new(1);
    let fast_lock = parking_lot::Mutex::new(1);
    let read_write_lock = parking_lot::RwLock::new(1);
    assert!(atomics::count(|| drop(std::hint::black_box(std_lock.lock()))) >= 2);
    assert!(atomics::count(|| drop(std::hint::black_box(fast_lock.lock()))) >= 2);
    assert!(atomics::count(|| drop(std::hint::black_box(read_write_lock.read()))) >= 2);
    assert_eq!(atomics::count(|| ()), 0);
}

#[test]
fn a_planted_lock_is_found_when_it_is_taken() {
    let lock = parking_lot::Mutex::new(());
    let taken = lock.lock();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| watch(|| drop(lock.lock())));
        thread::sleep(Duration::from_millis(100));
        drop(taken);
        assert!(waiting.join().unwrap().system_call.is_some());
    });
}
