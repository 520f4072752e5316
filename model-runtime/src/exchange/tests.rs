//! The exchange, with a worker that runs when the test says so.

use std::ops::Range;

use parking_lot::Mutex;
use test_signals::Noise;

use super::*;
use crate::factor::Factor;
use crate::freeze::{FrozenLatents, FrozenLoop};
use crate::gate::SIDECHAIN_HOLD_SECONDS;
use crate::geometry::{GeometrySettings, LatencyMode};
use crate::model_file::Model;
use crate::stream::{RemixStream, StreamSettings};
use crate::voice::Voice;
use crate::worker::{ProcessorError, Session, WindowProcessor};

const RATE_HZ: f32 = 8000.0;
const STREAM_RATE_HZ: u32 = 22_050;
const WINDOW: usize = 256;
const PROCESSOR_LATENCY: usize = 100;
const CONTROL_INTERVAL: usize = 32;
const FADE: usize = 40;

fn geometry(max_block_samples: usize) -> Geometry {
    Geometry {
        sample_rate_hz: RATE_HZ,
        max_block_samples,
        window_samples: WINDOW,
        control_interval_samples: CONTROL_INTERVAL,
        processor_latency_samples: PROCESSOR_LATENCY,
        compute_allowance_samples: WINDOW.max(max_block_samples),
    }
}

/// What the [`DelayedMix`] does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Error,
    Panic,
    NotANumber,
}

type PlantedFault = Arc<Mutex<Option<Fault>>>;

fn mix(input: Sample) -> [f32; 2] {
    let [harmony, rhythm] = [Factor::Harmony, Factor::Rhythm].map(|f| input.controls[f].share);
    [0, 1].map(|channel| 0.5 * input.main[channel] + rhythm * input.sidechain[channel] + harmony)
}

/// One sample of both inputs, and the knobs at its time.
#[derive(Clone, Copy)]
struct Sample {
    main: [f32; 2],
    sidechain: [f32; 2],
    controls: Controls,
}

impl Sample {
    fn input(&self) -> Input {
        Input {
            main: self.main,
            sidechain: self.sidechain,
        }
    }
}

/// Where each window began in its stream, and its length.
type Windows = Arc<Mutex<Vec<(u64, usize)>>>;

/// The [`mix`] of both inputs, delayed.
struct DelayedMix {
    delay: Delay<[f32; 2]>,
    controls: Controls,
    fault: PlantedFault,
    windows: Windows,
}

impl WindowProcessor for DelayedMix {
    fn latency_samples(&self) -> usize {
        self.delay.samples()
    }

    fn reset(&mut self) {
        self.delay.reset();
    }

    fn process(
        &mut self,
        window: &Window,
        [left, right]: [&mut [f32]; 2],
    ) -> Result<(), ProcessorError> {
        let position = window.stream_position_samples;
        self.windows.lock().push((position, window.samples()));
        let mut readings = window.controls.iter();
        for i in 0..window.samples() {
            if (position as usize + i).is_multiple_of(window.control_interval_samples) {
                self.controls = *readings.next().unwrap();
            }
            [left[i], right[i]] = self.delay.push(mix(Sample {
                main: [window.main[0][i], window.main[1][i]],
                sidechain: [window.sidechain[0][i], window.sidechain[1][i]],
                controls: self.controls,
            }));
        }
        match *self.fault.lock() {
            None => {}
            Some(Fault::Error) => return Err("planted".into()),
            Some(Fault::Panic) => panic!("planted"),
            Some(Fault::NotANumber) => right[3] = f32::NAN,
        }
        Ok(())
    }
}

/// A clock that stands still unless it is told to move. While the audio thread sleeps, the worker
/// gets on with its work.
#[derive(Clone, Default)]
struct TestClock(Arc<Mutex<TestTime>>);

#[derive(Default)]
struct TestTime {
    now: Duration,
    worker: Option<Session>,
    /// How many sleeps of the audio thread the worker takes for a window.
    sleeps_per_window: u32,
    sleeps: u32,
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        self.0.lock().now
    }

    fn sleep(&self, duration: Duration) {
        let mut time = self.0.lock();
        time.now += duration;
        time.sleeps += 1;
        if time.sleeps.is_multiple_of(time.sleeps_per_window)
            && let Some(worker) = &mut time.worker
        {
            worker.step();
        }
    }
}

struct Bench {
    audio: AudioPort<TestClock>,
    clock: TestClock,
    status: Arc<Status>,
    fault: PlantedFault,
    windows: Windows,
    transport: Transport,
}

impl Bench {
    fn new(max_block_samples: usize) -> Self {
        let (fault, windows) = (PlantedFault::default(), Windows::default());
        let processor = DelayedMix {
            delay: Delay::new(PROCESSOR_LATENCY),
            controls: Controls::default(),
            fault: Arc::clone(&fault),
            windows: Arc::clone(&windows),
        };
        Self {
            fault,
            windows,
            ..Self::with(&geometry(max_block_samples), Box::new(processor))
        }
    }

    fn with(geometry: &Geometry, processor: Box<dyn WindowProcessor>) -> Self {
        let clock = TestClock::default();
        let status = Arc::new(Status::default());
        let (audio, worker) = exchange(geometry, clock.clone(), Arc::clone(&status)).unwrap();
        {
            let mut time = clock.0.lock();
            time.worker = Some(Session::new(worker, processor));
            time.sleeps_per_window = 1;
        }
        Self {
            audio,
            clock,
            status,
            fault: PlantedFault::default(),
            windows: Windows::default(),
            transport: Transport::default(),
        }
    }

    /// Lets the worker finish all that it has been given.
    fn work(&self) {
        let mut time = self.clock.0.lock();
        let worker = time.worker.as_mut().unwrap();
        while worker.step() {}
    }

    fn block(&mut self, input: &[Sample]) -> Vec<Output> {
        self.audio.begin_block(input.len(), &self.transport);
        let mut output = vec![Output::default(); input.len()];
        let mut rest = &mut output[..];
        for run in input.chunk_by(|a, b| a.controls == b.controls) {
            let inputs: Vec<Input> = run.iter().map(Sample::input).collect();
            let (outputs, later) = rest.split_at_mut(run.len());
            self.audio.process(&inputs, &run[0].controls, outputs);
            rest = later;
        }
        if let (Some(beats), Some(bpm)) =
            (&mut self.transport.position_beats, self.transport.tempo_bpm)
        {
            *beats += input.len() as f64 * bpm / 60.0 / f64::from(RATE_HZ);
        }
        output
    }

    fn pass_seconds(&self, seconds: f64) {
        self.clock.0.lock().now += Duration::from_secs_f64(seconds);
    }

    /// Plays `input` in real time, in blocks of 64, with a worker that is never late.
    fn play(&mut self, input: &[Sample]) -> Vec<Output> {
        let mut output = Vec::new();
        for block in input.chunks(64) {
            output.extend(self.block(block));
            self.pass_seconds(block.len() as f64 / f64::from(RATE_HZ));
            self.work();
        }
        output
    }
}

/// Reproducible noise in both inputs, and knobs that move.
fn noise(samples: usize) -> Vec<Sample> {
    let mut noise = Noise::new(1);
    let mut random = || noise.sample();
    (0..samples)
        .map(|i| Sample {
            main: [random(), random()],
            sidechain: [random(), random()],
            controls: Controls::default()
                .with_share(Factor::Harmony, 0.1 * (i / CONTROL_INTERVAL) as f32)
                .with_share(Factor::Rhythm, (i / CONTROL_INTERVAL % 7) as f32),
        })
        .collect()
}

/// What the exchange has to give when nothing is late.
fn expected(input: &[Sample], latency: usize) -> Vec<[f32; 2]> {
    let silence = std::iter::repeat_n([0.0; 2], latency);
    let mixed = input.iter().map(|&i| mix(i));
    silence.chain(mixed).take(input.len()).collect()
}

fn remix(output: &[Output]) -> Vec<[f32; 2]> {
    output.iter().map(|o| o.remix).collect()
}

fn dry(output: &[Output]) -> Vec<[f32; 2]> {
    output.iter().map(|o| o.dry).collect()
}

#[test]
fn remix_and_dry_path_arrive_after_the_reported_latency() {
    let input = noise(5000);
    let mut bench = Bench::new(64);
    let latency = geometry(64).latency_samples();
    assert_eq!(latency, WINDOW + WINDOW + PROCESSOR_LATENCY);
    let output = bench.play(&input);
    assert_eq!(remix(&output), expected(&input, latency));
    let delayed: Vec<_> = std::iter::repeat_n([0.0; 2], latency)
        .chain(input.iter().map(|i| i.main))
        .take(input.len())
        .collect();
    assert_eq!(dry(&output), delayed);
    assert_eq!(bench.status.late_windows(), 0);
}

#[test]
fn a_render_is_the_same_at_any_block_size_and_loses_nothing() {
    let input = noise(20_000);
    for blocks in [
        &[1][..],
        &[7],
        &[64],
        &[127],
        &[256],
        &[1024],
        &[8192],
        &[1, 500, 33, 2048],
    ] {
        let max_block = *blocks.iter().max().unwrap();
        let mut bench = Bench::new(max_block);
        // As slow as real time allows: 32 ms windows that take 30 ms, done only while waited for.
        bench.clock.0.lock().sleeps_per_window = 150;
        let mut output = Vec::new();
        let mut rest = &input[..];
        for &length in blocks.iter().cycle() {
            let (block, later) = rest.split_at(length.min(rest.len()));
            output.extend(bench.block(block));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let latency = geometry(max_block).latency_samples();
        assert_eq!(bench.status.late_windows(), 0, "blocks {blocks:?}");
        assert!(
            remix(&output) == expected(&input, latency),
            "blocks {blocks:?}"
        );
    }
}

#[test]
fn a_patient_port_waits_for_a_worker_slower_than_real_time() {
    let input = noise(5000);
    for patient in [false, true] {
        let mut bench = Bench::new(64);
        bench.clock.0.lock().sleeps_per_window = 1000;
        bench.audio.set_patient(patient);
        let output: Vec<_> = input.chunks(64).flat_map(|b| bench.block(b)).collect();
        let complete = remix(&output) == expected(&input, geometry(64).latency_samples());
        assert_eq!(complete, patient);
        assert_eq!(bench.status.late_windows() == 0, patient);
    }
}

#[test]
fn a_patient_port_does_not_wait_for_a_worker_that_is_gone() {
    let mut bench = Bench::new(64);
    bench.audio.set_patient(true);
    bench.clock.0.lock().worker = None;
    let output: Vec<_> = noise(5000)
        .chunks(64)
        .flat_map(|b| bench.block(b))
        .collect();
    assert_eq!(output.len(), 5000);
}

/// Plays live; the worker works only in the blocks that `works` names.
fn live_with_stalls(input: &[Sample], works: impl Fn(usize) -> bool) -> (Vec<Output>, u64) {
    let mut bench = Bench::new(64);
    let mut output = Vec::new();
    for (index, block) in input.chunks(64).enumerate() {
        let before = bench.clock.now();
        output.extend(bench.block(block));
        assert_eq!(
            bench.clock.now(),
            before,
            "the audio thread waited in block {index}"
        );
        bench.pass_seconds(block.len() as f64 / f64::from(RATE_HZ));
        if works(index) {
            bench.work();
        }
    }
    (output, bench.status.late_windows())
}

/// A live host: blocks of up to `longest` samples at the pace of the clock, each late by some part of `jitter_seconds`, and cut
/// into several calls where parameters change. The worker works only while the audio thread sleeps. Gives the longest time that
/// the audio thread slept in a block.
fn live_sleep_seconds(longest: usize, jitter_seconds: f64, seed: u32) -> f64 {
    let mut random = Noise::new(seed);
    let mut share = || f64::from(random.sample()) + 0.5;
    let mut bench = Bench::new(longest);
    let rate = f64::from(RATE_HZ);
    let mut longest_sleep = 0.0f64;
    let mut played = 0;
    for _ in 0..2000 {
        let samples = longest - (share() * 0.5 * longest as f64) as usize;
        let due = Duration::from_secs_f64(played as f64 / rate + share() * jitter_seconds);
        {
            let mut time = bench.clock.0.lock();
            time.now = time.now.max(due);
        }
        let began = bench.clock.now();
        let input = noise(samples);
        let mut rest = &input[..];
        while !rest.is_empty() {
            let cut = 1 + (share() * 0.5 * longest as f64) as usize;
            let (call, later) = rest.split_at(cut.min(rest.len()));
            bench.block(call);
            rest = later;
        }
        longest_sleep = longest_sleep.max((bench.clock.now() - began).as_secs_f64());
        played += samples;
    }
    assert!(bench.status.late_windows() > 0);
    longest_sleep
}

#[test]
fn a_block_that_events_cut_is_no_reason_to_sleep() {
    for longest in [16, 64, 256, 1000, 4096] {
        let slept = live_sleep_seconds(longest, 0.0, longest as u32);
        assert_eq!(slept, 0.0, "blocks of up to {longest}");
    }
}

#[test]
fn a_live_host_with_jitter_is_held_up_by_no_more_than_its_jitter() {
    for longest in [16, 64, 256, 1000, 4096] {
        for jitter_seconds in [0.001, 0.01] {
            let longest_sleep = live_sleep_seconds(longest, jitter_seconds, longest as u32);
            // A sleep goes on to the end of its step.
            let most = jitter_seconds + WAIT_STEP.as_secs_f64();
            assert!(
                longest_sleep <= most,
                "blocks of up to {longest}, {jitter_seconds} s of jitter: {longest_sleep} s"
            );
        }
    }
}

#[test]
fn late_windows_become_the_aligned_main_and_then_the_remix_comes_back_in_time() {
    let input = noise(20_000);
    let stalled = 80..120;
    let (output, late) = live_with_stalls(&input, |block| !stalled.contains(&block));
    assert!((5..20).contains(&late), "{late} late windows");

    let (remix, dry) = (remix(&output), dry(&output));
    let good = expected(&input, geometry(64).latency_samples());
    let agrees =
        |range: Range<usize>, reference: &[[f32; 2]]| remix[range.clone()] == reference[range];
    assert!(agrees(0..80 * 64, &good), "before the stall");
    assert!(agrees(90 * 64..120 * 64, &dry), "during the stall");
    // After it: one window and its lateness, then the processor's own past, then the fade.
    let recovered = 120 * 64 + 3 * WINDOW + PROCESSOR_LATENCY + WINDOW + FADE;
    assert!(agrees(recovered..input.len(), &good), "after the stall");
}

#[test]
fn no_step_is_larger_than_that_of_a_fade() {
    // Remix and main are constant, so all that moves is the blend of the two.
    let input = vec![
        Sample {
            main: [1.0; 2],
            sidechain: [0.1; 2],
            controls: Controls::default(),
        };
        20_000
    ];
    let (output, late) = live_with_stalls(&input, |block| block % 50 < 30);
    assert!(late > 5);
    let steady = geometry(64).latency_samples() + FADE;
    let largest = remix(&output)[steady..]
        .windows(2)
        .map(|pair| (pair[1][0] - pair[0][0]).abs())
        .fold(0.0, f32::max);
    let steepest = 0.5 * 0.5 * PI / FADE as f32;
    assert!(largest > 0.0 && largest <= 1.01 * steepest, "{largest}");
}

#[test]
fn faults_leave_the_main_input_sounding_and_are_reported() {
    for (fault, text) in [
        (Fault::Error, "planted"),
        (Fault::Panic, "the remix panicked: planted"),
        (
            Fault::NotANumber,
            "the remix held samples that are not finite",
        ),
    ] {
        let input = noise(15_000);
        let mut bench = Bench::new(64);
        let mut output = bench.play(&input[..5120]);
        *bench.fault.lock() = Some(fault);
        output.extend(bench.play(&input[5120..10_240]));
        *bench.fault.lock() = None;
        output.extend(bench.play(&input[10_240..]));

        let (remix, dry) = (remix(&output), dry(&output));
        let latency = geometry(64).latency_samples();
        assert!(
            remix[5120 + latency..10_240] == dry[5120 + latency..10_240],
            "{fault:?}"
        );
        let recovered = 10_240 + latency + 3 * WINDOW;
        assert!(
            remix[recovered..] == expected(&input, latency)[recovered..],
            "{fault:?}"
        );
        assert!(remix.iter().flatten().all(|sample| sample.is_finite()));
        assert_eq!(bench.status.last_fault().as_deref(), Some(text));
        assert!(bench.status.faults() >= 20);
        assert_eq!(bench.status.late_windows(), 0);
    }
}

/// A worker that stalls for up to two seconds, fails, panics and gives NaN, at random.
#[test]
fn whatever_the_worker_does_the_sound_goes_on_without_a_click() {
    // Remix and main are constant, so all that moves is the blend of the two and the start of the remix.
    let input = vec![
        Sample {
            main: [1.0; 2],
            sidechain: [0.1; 2],
            controls: Controls::default(),
        };
        64
    ];
    let steepest = 1.01 * 0.5 * 0.5 * PI / FADE as f32;
    let block_seconds = 64.0 / f64::from(RATE_HZ);
    for seed in 1..=20u32 {
        let mut noise = Noise::new(seed);
        let mut random = |end: u32| noise.below(end);
        let mut bench = Bench::new(64);
        let latency = geometry(64).latency_samples();
        let (mut stalled_blocks, mut faulty_blocks, mut longest_recovery) = (0, 0, 0);
        let (mut since_trouble, mut recovered) = (0usize, true);
        let mut last = 0.0;
        for block in 0..4000 {
            if stalled_blocks == 0 && random(200) == 0 {
                stalled_blocks = 1 + random(2 * RATE_HZ as u32 / 64);
            }
            if faulty_blocks == 0 && random(200) == 0 {
                faulty_blocks = 1 + random(10);
                let fault = [Fault::Error, Fault::Panic, Fault::NotANumber][random(3) as usize];
                *bench.fault.lock() = Some(fault);
            }
            let output = bench.block(&input);
            bench.pass_seconds(block_seconds);
            let trouble = stalled_blocks > 0 || faulty_blocks > 0;
            if stalled_blocks > 0 {
                stalled_blocks -= 1;
            } else {
                bench.work();
            }
            if faulty_blocks > 0 {
                faulty_blocks -= 1;
                if faulty_blocks == 0 {
                    *bench.fault.lock() = None;
                }
            }
            if trouble {
                (since_trouble, recovered) = (0, false);
            }
            for out in output {
                let sample = out.remix[0];
                assert!(sample.is_finite());
                // The first of the sound itself is a step, after the latency.
                if block * 64 > latency + FADE {
                    assert!(
                        (sample - last).abs() <= steepest,
                        "seed {seed}, block {block}"
                    );
                }
                last = sample;
            }
            // A tenth of the sidechain is not in this mix, so that half is the remix and one the main.
            since_trouble += 64;
            if !recovered && (last - 0.5).abs() < 1e-6 {
                recovered = true;
                longest_recovery = longest_recovery.max(since_trouble);
            }
        }
        println!(
            "seed {seed}: {} late, {} faults, recovered within {longest_recovery} samples",
            bench.status.late_windows(),
            bench.status.faults()
        );
        assert!(bench.status.late_windows() > 0 && bench.status.faults() > 0);
        let enough = latency + 3 * WINDOW + PROCESSOR_LATENCY + 2 * FADE;
        assert!(
            longest_recovery <= enough,
            "seed {seed}: {longest_recovery} samples"
        );
    }
}

#[test]
fn a_reset_leaves_nothing_of_the_old_stream() {
    let input = noise(5000);
    let reference = Bench::new(64).play(&input);
    // At any place in a window, with packets under way.
    for samples in [1, 100, 256, 1000, 3001] {
        let mut bench = Bench::new(64);
        for block in noise(samples).chunks(64) {
            bench.block(block);
        }
        bench.audio.reset();
        let output = bench.play(&input);
        assert!(
            remix(&output) == remix(&reference),
            "after {samples} samples"
        );
        assert!(dry(&output) == dry(&reference), "after {samples} samples");
    }
}

#[test]
fn a_missing_sidechain_passes_the_aligned_main() {
    let hold = (SIDECHAIN_HOLD_SECONDS * f64::from(RATE_HZ)) as usize;
    let mut input = noise(3 * hold);
    let (start, end) = (3000, 9000);
    for (i, input) in input.iter_mut().enumerate() {
        if !(start..end).contains(&i) {
            input.sidechain = [0.0; 2];
        }
    }
    let mut bench = Bench::new(64);
    let output = bench.play(&input);
    let (remix, dry) = (remix(&output), dry(&output));
    let latency = geometry(64).latency_samples();
    let good = expected(&input, latency);
    let (start, gone) = (start + latency, end + hold + latency);
    assert!(
        remix[..start] == dry[..start],
        "before the sidechain starts"
    );
    assert!(
        remix[start + FADE..gone - 1] == good[start + FADE..gone - 1],
        "with the sidechain"
    );
    assert!(
        remix[gone + FADE..] == dry[gone + FADE..],
        "after the sidechain ended"
    );
}

/// Noise with a sidechain until sample 6000, and the rhythm frozen in a part of it.
fn frozen_noise(samples: usize, is_frozen: impl Fn(usize) -> bool) -> Vec<Sample> {
    let mut input = noise(samples);
    for (n, sample) in input.iter_mut().enumerate() {
        if n >= 6000 {
            sample.sidechain = [0.0; 2];
        }
        sample.controls[Factor::Rhythm].loop_beats = is_frozen(n).then_some(2.0);
    }
    input
}

/// Loops of the rhythm, and latents that they fit.
fn store_with_a_loop() -> Arc<FreezeStore> {
    let store = FreezeStore::default();
    let frozen = FrozenLoop {
        beats: 2.0,
        frames: 1,
        values: vec![0.0],
    };
    store.begin([(Factor::Rhythm, 1)].into_iter().collect());
    store.set(FrozenLatents(
        [(Factor::Rhythm, frozen)].into_iter().collect(),
    ));
    Arc::new(store)
}

/// Checks that the remix plays from sample to sample of the input; elsewhere it is the dry sound.
#[track_caller]
fn assert_remixed(output: &[Output], input: &[Sample], remixed: Range<usize>) {
    let latency = geometry(64).latency_samples();
    let good = expected(input, latency);
    for (n, (output, good)) in output.iter().zip(&good).enumerate().skip(latency) {
        let place = n - latency;
        let fades =
            [remixed.start, remixed.end].map(|edge| edge > 0 && edge.abs_diff(place) <= FADE);
        if fades == [false; 2] {
            let is_remixed = remixed.contains(&place);
            let expected = if is_remixed { *good } else { output.dry };
            assert_eq!(output.remix, expected, "sample {place}");
        }
    }
}

#[test]
fn a_freeze_that_plays_goes_on_without_a_sidechain() {
    let missing = 6000 + (SIDECHAIN_HOLD_SECONDS * f64::from(RATE_HZ)) as usize;
    let samples = 50_000;
    for (frozen, remixed_until) in [
        // From within the sound, from within the hold, and until it is over.
        (5001..40_003, 40_003),
        (missing - 7..40_003, 40_003),
        (5001..samples, samples),
        // Off before the sidechain is missing, or on after that.
        (5001..7000, missing),
        (missing + 1..40_003, missing),
    ] {
        let input = frozen_noise(samples, |n| frozen.contains(&n));
        for blocks in [&[64][..], &[1, 63, 7]] {
            let mut bench = Bench::new(64);
            bench.audio.set_freeze_store(Arc::default());
            let mut output = Vec::new();
            let mut rest = &input[..];
            for &length in blocks.iter().cycle() {
                let (block, later) = rest.split_at(length.min(rest.len()));
                output.extend(bench.play(block));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            println!("frozen in {frozen:?}, blocks {blocks:?}");
            assert_remixed(&output, &input, 0..remixed_until);
        }
    }
    // An engine without latents has nothing to freeze.
    let input = frozen_noise(samples, |n| (5001..40_003).contains(&n));
    let output = Bench::new(64).play(&input);
    assert_remixed(&output, &input, 0..missing);
}

#[test]
fn a_freeze_with_a_loop_of_a_session_needs_no_sidechain() {
    let mut input = frozen_noise(50_000, |n| n / 10_000 % 2 == 0);
    input
        .iter_mut()
        .for_each(|input| input.sidechain = [0.0; 2]);
    let mut bench = Bench::new(64);
    bench.audio.set_freeze_store(store_with_a_loop());
    let output = bench.play(&input);
    // The loop is gone when the freeze is over.
    assert_remixed(&output, &input, 0..10_000);

    // Loaded in the course of playback, and replaced by a session without it.
    let input = &input[..10_000];
    let mut bench = Bench::new(64);
    let store = store_with_a_loop();
    let frozen = store.get();
    store.set(FrozenLatents::default());
    bench.audio.set_freeze_store(Arc::clone(&store));
    let mut output = bench.play(&input[..3200]);
    store.set(frozen);
    output.extend(bench.play(&input[3200..6400]));
    store.set(FrozenLatents::default());
    output.extend(bench.play(&input[6400..]));
    assert_remixed(&output, input, 3200..6400);
}

#[test]
fn a_freeze_outlasts_a_reset() {
    let input = frozen_noise(50_000, |n| n > 5000);
    let mut bench = Bench::new(64);
    bench.audio.set_freeze_store(Arc::default());
    bench.play(&input[..40_000]);
    bench.audio.reset();
    let later = &input[40_000..];
    assert_remixed(&bench.play(later), later, 0..later.len());
}

/// The remix by the built-in model, with its latency compensated.
fn play_stream(store: &Arc<FreezeStore>, input: &[Sample], block: usize) -> Vec<[f32; 2]> {
    let settings = StreamSettings {
        sample_rate_hz: STREAM_RATE_HZ,
        voice: Voice::Guided,
        mode: LatencyMode::Live,
    };
    let stream = RemixStream::new(&Model::built_in().unwrap(), settings).unwrap();
    let stream = stream.with_freeze_store(Arc::clone(store)).unwrap();
    let geometry = Geometry::new(&GeometrySettings {
        mode: settings.mode,
        frame_seconds: stream.frame_seconds(),
        sample_rate_hz: STREAM_RATE_HZ as f32,
        max_block_samples: 1024,
        processor_latency_samples: stream.latency_samples(),
    });
    let mut bench = Bench::with(&geometry, Box::new(stream));
    bench.audio.set_freeze_store(Arc::clone(store));
    let mut output = Vec::new();
    for block in input.chunks(block) {
        output.extend(bench.block(block));
        bench.work();
    }
    assert_eq!(bench.status.late_windows(), 0);
    assert_eq!(bench.status.last_fault(), None);
    remix(&output).split_off(geometry.latency_samples())
}

#[test]
fn a_frozen_groove_goes_on_without_a_sidechain_in_a_new_session() {
    let place = |seconds: f64| (seconds * f64::from(STREAM_RATE_HZ)) as usize;
    let (freeze, end) = (place(1.5), place(2.0));
    let mut random = Noise::new(1);
    let tone =
        |n: usize, hz: f32| (2.0 * PI * (hz * n as f32 / STREAM_RATE_HZ as f32).fract()).sin();
    let mut input: Vec<_> = (0..place(7.0))
        .map(|n| Sample {
            main: [0.2 * tone(n, 220.0) + 0.2 * tone(n, 277.2) + 0.05 * random.sample(); 2],
            sidechain: [0.8 * random.sample() * (-((n % 5512) as f32) / 700.0).exp(); 2],
            controls: Controls::default().with_share(Factor::Rhythm, 1.0),
        })
        .collect();
    for sample in &mut input[freeze..] {
        sample.controls[Factor::Rhythm].loop_beats = Some(2.0);
    }
    for sample in &mut input[end..] {
        sample.sidechain = [0.0; 2];
    }
    let store = Arc::default();
    let played = play_stream(&store, &input, 64);
    let saved = store.get();
    assert!(saved.0.get(Factor::Rhythm).is_some());

    for sample in &mut input {
        sample.sidechain = [0.0; 2];
        sample.controls[Factor::Rhythm].loop_beats = Some(2.0);
    }
    let loaded = Arc::new(FreezeStore::default());
    loaded.set(saved.clone());
    let reopened = play_stream(&loaded, &input, 1000);
    // The networks remember about a second. The voice remembers the level of the sidechain, which the new session never
    // heard.
    let same = place(5.0)..played.len();
    let main: Vec<_> = input[same.clone()].iter().map(|x| x.main).collect();
    let product =
        |a: &[[f32; 2]], b: &[[f32; 2]]| -> f32 { a.iter().zip(b).map(|(a, b)| a[0] * b[0]).sum() };
    let likeness =
        |a: &[[f32; 2]], b: &[[f32; 2]]| product(a, b) / (product(a, a) * product(b, b)).sqrt();
    let (played, reopened) = (&played[same.clone()], &reopened[same]);
    assert!(likeness(played, reopened) > 0.99);
    assert!(likeness(&main, played) < 0.9);
    assert_eq!(loaded.get(), saved);
}

/// A transport that rolls from `beats` on.
fn rolling(beats: f64, tempo_bpm: f64) -> Transport {
    Transport {
        playing: true,
        tempo_bpm: Some(tempo_bpm),
        position_beats: Some(beats),
        position_samples: None,
    }
}

#[test]
fn windows_end_on_beats_and_the_sound_stays_the_same() {
    let input = noise(20_000);
    let good = expected(&input, geometry(64).latency_samples());
    for (beats, tempo) in [(0.0, 120.0), (-1.3, 97.0), (7.77, 180.0), (0.0, 33.0)] {
        for block in [64, 37] {
            let mut bench = Bench::new(64);
            bench.audio.set_window_beats(Some(1.0));
            bench.transport = rolling(beats, tempo);
            let mut output = Vec::new();
            for block in input.chunks(block) {
                output.extend(bench.block(block));
                bench.pass_seconds(block.len() as f64 / f64::from(RATE_HZ));
                bench.work();
            }
            assert!(
                remix(&output) == good,
                "from {beats} at {tempo}, blocks of {block}"
            );
            assert_eq!(bench.status.late_windows(), 0);
            let windows = bench.windows.lock();
            assert!(windows.iter().all(|&(_, samples)| samples <= WINDOW));
            let beats_per_sample = tempo / 60.0 / f64::from(RATE_HZ);
            // Longer than half the limit, since otherwise the next larger division would have fitted.
            let length = windows[1].1 as f64 * beats_per_sample;
            assert!(windows[1].1 > WINDOW / 2 - 2, "{}", windows[1].1);
            let division = 2f64.powi(length.log2().round() as i32);
            for &(start, _) in &windows[1..] {
                let beat = beats + start as f64 * beats_per_sample;
                let off_samples =
                    (beat / division - (beat / division).round()) * division / beats_per_sample;
                assert!(
                    off_samples.abs() < 1.0,
                    "window at beat {beat}, division {division}"
                );
            }
        }
    }
}

#[test]
fn a_tempo_ramp_does_not_move_the_latency() {
    let input = noise(40_000);
    let good = expected(&input, geometry(64).latency_samples());
    for length_beats in [None, Some(0.25), Some(1.0), Some(2.0)] {
        let mut bench = Bench::new(64);
        bench.audio.set_window_beats(length_beats);
        bench.transport = rolling(3.0, 60.0);
        let mut output = Vec::new();
        for block in input.chunks(64) {
            output.extend(bench.play(block));
            bench.transport.tempo_bpm = bench.transport.tempo_bpm.map(|bpm| bpm * 1.004);
        }
        assert!(remix(&output) == good, "{length_beats:?}");
        assert_eq!(bench.status.late_windows(), 0);
    }
}

#[test]
fn jumps_begin_streams_with_a_dip_of_the_remix_and_nothing_else() {
    let input = noise(40_000);
    let mut bench = Bench::new(64);
    bench.audio.set_window_beats(Some(1.0));
    bench.transport = rolling(0.0, 120.0);
    // Start of a loop, back to its start, stop, start elsewhere; the last two in a hurry.
    let jumps = [
        (6400, 8.0),
        (12_800, 8.0),
        (19_200, 2.0),
        (19_264, 5.0),
        (19_328, 1.0),
    ];
    let mut output = Vec::new();
    for (index, block) in input.chunks(64).enumerate() {
        if let Some((_, beats)) = jumps.iter().find(|(at, _)| *at == 64 * index) {
            bench.transport.position_beats = Some(*beats);
        }
        output.extend(bench.play(block));
    }
    assert_eq!(bench.status.late_windows(), 0);
    let latency = geometry(64).latency_samples();
    let streams: Vec<u64> = bench
        .windows
        .lock()
        .iter()
        .map(|&(start, _)| start)
        .collect();
    assert_eq!(streams.iter().filter(|&&start| start == 0).count(), 5);
    // The last three jumps make two streams: one at once, one when the first is long enough.
    let shortest = (SHORTEST_STREAM_SECONDS * f64::from(RATE_HZ)) as usize;
    let seams = [6400, 12_800, 19_200, 19_200 + shortest].map(|at| at + latency);
    let good = expected(&input, latency);
    for (n, (out, good)) in remix(&output).iter().zip(&good).enumerate() {
        let distance = seams.iter().map(|seam| seam.abs_diff(n)).min().unwrap();
        if distance == 0 {
            assert_eq!(*out, [0.0; 2]);
        } else if distance >= FADE {
            assert_eq!(out, good, "sample {n}");
        } else {
            let fade = 0.5 - 0.5 * (PI * distance as f32 / FADE as f32).cos();
            assert!((out[0] - fade * good[0]).abs() < 1e-5, "sample {n}");
        }
    }
}

#[test]
fn a_port_that_jumps_all_the_time_keeps_sounding() {
    let input = noise(20_000);
    let mut bench = Bench::new(8192);
    bench.audio.set_window_beats(Some(0.25));
    let mut output = Vec::new();
    for (index, block) in input.chunks(7).enumerate() {
        bench.transport = rolling(index as f64 * 3.3, 120.0);
        output.extend(bench.play(block));
    }
    assert!(
        remix(&output)
            .iter()
            .flatten()
            .all(|sample| sample.is_finite())
    );
    let heard = &remix(&output)[geometry(8192).latency_samples() + 2000..];
    assert!(heard.iter().filter(|sample| sample[0] != 0.0).count() > heard.len() / 2);
}

#[test]
fn input_that_is_not_finite_is_silence() {
    let mut input = noise(3000);
    input[100].main = [f32::NAN, f32::INFINITY];
    input[200].sidechain = [f32::NEG_INFINITY, f32::NAN];
    let output = Bench::new(64).play(&input);
    let samples = output.iter().flat_map(|o| [o.dry, o.remix]).flatten();
    assert!(samples.into_iter().all(f32::is_finite));
}

#[test]
fn geometry_that_cannot_work_is_refused() {
    let refused = |change: fn(&mut Geometry)| {
        let mut geometry = geometry(64);
        change(&mut geometry);
        exchange(&geometry, TestClock::default(), Arc::default())
            .err()
            .map(|error| error.to_string())
            .unwrap()
    };
    assert_eq!(
        refused(|g| g.window_samples = 0),
        "window: expected at least 2, found 0"
    );
    assert_eq!(
        refused(|g| g.compute_allowance_samples = 3),
        "compute allowance: expected at least 40, found 3"
    );
    assert!(refused(|g| g.control_interval_samples = 0).starts_with("control interval"));
    assert!(refused(|g| g.sample_rate_hz = 0.0).starts_with("sample rate"));
}
