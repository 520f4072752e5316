//! The memory of a remix in steps. A test binary of its own, because it has its own allocator.

mod common;

use common::music;
use model_runtime::{ClipRemixer, LatencyMode, Model, RemixSettings, Voice};
use test_signals::memory::{MeasuringAllocator, peak_bytes};

#[global_allocator]
static ALLOCATOR: MeasuringAllocator = MeasuringAllocator;

const RATE_HZ: u32 = 22_050;

/// Remixes `seconds` more of mono audio, second by second. Returns the most bytes that were in use at a time.
fn most_bytes(remixer: &mut ClipRemixer, [main, sidechain]: [&[f32]; 2], seconds: usize) -> usize {
    let remix = || {
        for _ in 0..seconds {
            let mut out = [Vec::new()];
            remixer.push(&[main], &[sidechain], &mut out).unwrap();
        }
    };
    peak_bytes(remix).0
}

#[test]
fn a_clip_of_any_length_needs_the_same_memory() {
    let model = Model::built_in().unwrap();
    let (main, sidechain) = (music(RATE_HZ, 1.0, 1), music(RATE_HZ, 1.0, 2));
    let silence = vec![0.0; sidechain.len()];
    for (voice, generated, mode, sidechain) in [
        (Voice::Guided, 0.0, LatencyMode::Full, &sidechain),
        (Voice::Guided, 1.0, LatencyMode::Default, &sidechain),
        (Voice::GriffinLim, 0.0, LatencyMode::Live, &sidechain),
        (Voice::Guided, 0.0, LatencyMode::Full, &silence),
    ] {
        let mut settings = RemixSettings {
            voice,
            mode,
            ..RemixSettings::default()
        };
        settings.controls.generated = generated;
        let mut remixer = ClipRemixer::new(&model, RATE_HZ, 1, &settings).unwrap();
        let short = most_bytes(&mut remixer, [&main, sidechain], 4);
        let long = most_bytes(&mut remixer, [&main, sidechain], 36);
        println!("{voice:?} {generated}, {mode:?}: {short} and {long} bytes");
        // A sample of one channel more per frame would be 6 kB.
        assert!(
            long < short + 4096,
            "{voice:?} {generated}, {mode:?}: {short} bytes in 4 s, {long} in 40 s"
        );
    }
}
