//! The plugin in time with the host: the same sound however the host cuts it, automation where it was drawn, latents
//! frozen in time with the beat.

mod common;

use std::f32::consts::TAU;
use std::thread;
use std::time::{Duration, Instant};

use common::assert_same;
use graft_tests::{Automation, Plugin, RenderJob, Rendered, Song, Stretch, built_library};
use test_signals::noise;

const RATE_HZ: u32 = 44_100;

fn plugin() -> Plugin {
    Plugin::load(&built_library().unwrap()).unwrap()
}

/// A held chord of sines on the notes (MIDI numbers).
fn chord(notes: &[f32], samples: usize) -> Vec<f32> {
    (0..samples)
        .map(|n| {
            let tone = |note: &f32| {
                let hz = 440.0 * ((note - 69.0) / 12.0).exp2();
                let time = n as f32 / RATE_HZ as f32;
                [1.0, 0.5, 0.3, 0.2]
                    .iter()
                    .zip(1..)
                    .map(|(level, partial)| {
                        level * (TAU * (partial as f32 * hz * time).fract()).sin()
                    })
                    .sum::<f32>()
            };
            0.1 * notes.iter().map(tone).sum::<f32>()
        })
        .collect()
}

/// Noise bursts at the given times in samples.
fn bursts(times: &[usize], samples: usize) -> Vec<f32> {
    let mut out = vec![0.0; samples];
    let noise = noise(3, 4000);
    for &time in times {
        for (n, value) in noise.iter().enumerate().take(samples.saturating_sub(time)) {
            out[time + n] += 0.8 * value * (-(n as f32) / 700.0).exp();
        }
    }
    out
}

fn twice(channel: Vec<f32>) -> Vec<Vec<f32>> {
    vec![channel.clone(), channel]
}

fn change(position_samples: usize, parameter: &str, value: f64) -> Automation {
    Automation {
        position_samples,
        parameter: parameter.to_owned(),
        value,
    }
}

/// Four seconds with a tempo ramp, a loop and a stop, and automation of nearly everything.
fn busy_session() -> RenderJob {
    let samples = 4 * RATE_HZ as usize;
    let stretch = |samples, start_beats, start_bpm, end_bpm| Stretch {
        samples,
        playing: true,
        start_beats,
        start_bpm,
        end_bpm,
    };
    RenderJob {
        sample_rate_hz: RATE_HZ,
        offline: true,
        main: twice(chord(&[48.0, 55.0, 64.0], samples)),
        sidechain: Some(twice(bursts(
            &[1000, 30_000, 55_555, 90_000, 130_000],
            samples,
        ))),
        transport: Some(Song {
            stretches: vec![
                stretch(50_000, -1.0, 100.0, 180.0),
                stretch(41_003, 4.0, 180.0, 90.0),
                stretch(41_003, 4.0, 90.0, 90.0),
                Stretch {
                    playing: false,
                    ..stretch(10_000, 0.0, 90.0, 90.0)
                },
                stretch(60_000, 0.0, 133.3, 133.3),
            ],
        }),
        automation: vec![
            change(5_000, "Harmony", 0.7),
            change(20_001, "Rhythm", 0.25),
            change(31_234, "Transpose", 3.0),
            change(60_000, "Mix", 0.8),
            change(70_001, "Transpose", -2.0),
            change(80_001, "Link", 1.0),
            change(100_000, "Output Gain", -6.0),
            change(110_000, "Window", 4.0),
            change(120_000, "Bypass", 1.0),
            change(125_000, "Bypass", 0.0),
        ],
        ..RenderJob::default()
    }
}

#[track_caller]
#[test]
fn a_session_with_ramp_loop_and_automation_is_the_same_at_any_block_size() {
    let plugin = plugin();
    for mode in [0.0, 1.0] {
        let job = RenderJob {
            before_activation: vec![("Latency".to_owned(), mode)],
            ..busy_session()
        };
        // The longest block may be a term of the latency, so all have the same.
        let render = |blocks: &[usize]| {
            let job = RenderJob {
                blocks: blocks.to_vec(),
                max_block_samples: Some(1024),
                ..job.clone()
            };
            plugin.render(&job).unwrap()
        };
        let reference = render(&[512]);
        let peak = reference.channels[0]
            .iter()
            .fold(0.0f32, |a, b| a.max(b.abs()));
        assert!((0.05..2.0).contains(&peak), "{peak}");
        for blocks in [&[1][..], &[64], &[127], &[1024], &[3, 1000, 1, 64, 511]] {
            assert_same(
                &render(blocks),
                &reference,
                &format!("mode {mode}, blocks {blocks:?}"),
            );
        }
        let after_a_round_trip = RenderJob {
            state: Some(
                plugin
                    .render(&RenderJob {
                        automation: Vec::new(),
                        ..job.clone()
                    })
                    .unwrap()
                    .state,
            ),
            max_block_samples: Some(1024),
            before_activation: Vec::new(),
            ..job.clone()
        };
        let again = plugin.render(&after_a_round_trip).unwrap();
        assert_same(&again, &reference, &format!("mode {mode}, from a state"));
    }
}

/// Where the sidechain of [`timbre_session`] falls silent, and where it sounds again.
const SILENT: [usize; 2] = [6 * RATE_HZ as usize / 5, 11 * RATE_HZ as usize / 2];

/// Seven seconds of an engine of [`TIMBRES`] with a ramp, a loop, a stop, a rest, and all knobs automated. The colour is frozen
/// while the sidechain falls silent, and later again.
fn timbre_session(engine: f64) -> RenderJob {
    let samples = 7 * RATE_HZ as usize;
    let mut sidechain = chord(&[53.0], samples);
    sidechain[SILENT[0]..SILENT[1]].fill(0.0);
    let busy = busy_session();
    let mut song = busy.transport.clone().unwrap();
    song.stretches.push(Stretch {
        samples,
        playing: true,
        start_beats: 0.0,
        start_bpm: 120.0,
        end_bpm: 120.0,
    });
    RenderJob {
        main: twice(chord(&[48.0, 55.0, 64.0], samples)),
        sidechain: Some(twice(sidechain)),
        transport: Some(song),
        before_activation: vec![("Engine".to_owned(), engine)],
        automation: vec![
            change(5_000, "Timbre", 0.7),
            change(15_001, "Pitch", 0.4),
            change(25_000, "Variation", 0.2),
            change(31_234, "Transpose", 3.0),
            change(35_000, "Freeze Timbre", 1.0),
            change(70_001, "Transpose", 0.0),
            change(88_200, "Freeze Timbre", 0.0),
            change(250_000, "Variation", 0.6),
            change(260_001, "Freeze Timbre", 1.0),
        ],
        ..busy
    }
}

/// The engines Timbre and Envelope as a host numbers them.
const TIMBRES: [f64; 2] = [3.0, 4.0];

#[test]
fn a_line_with_another_colour_is_the_same_at_any_block_size_through_jumps_rest_and_freeze() {
    let plugin = plugin();
    for (engine, mode) in TIMBRES
        .into_iter()
        .flat_map(|engine| [(engine, 0.0), (engine, 1.0)])
    {
        let what = format!("engine {engine}, mode {mode}");
        let mut job = timbre_session(engine);
        job.before_activation.push(("Latency".to_owned(), mode));
        let render = |blocks: &[usize]| {
            let job = RenderJob {
                blocks: blocks.to_vec(),
                max_block_samples: Some(1024),
                ..job.clone()
            };
            plugin.render(&job).unwrap()
        };
        let reference = render(&[512]);
        let latency_seconds = reference.latency_samples as f64 / f64::from(RATE_HZ);
        assert!(mode > 0.0 || latency_seconds < 0.15, "{latency_seconds} s");
        let out = &reference.aligned()[0];
        let main = &job.main[0];
        let rest = 7 * RATE_HZ as usize / 2..SILENT[1] - 1000;
        assert!(
            out[rest.clone()] == main[rest],
            "{what}: at rest, main plays"
        );
        let frozen = 60_000..85_000;
        assert!(
            out[frozen.clone()] != main[frozen],
            "{what}: frozen, main plays"
        );
        for blocks in [&[1][..], &[64], &[1024], &[3, 1000, 1, 64, 511]] {
            let what = format!("{what}, blocks {blocks:?}");
            assert_same(&render(blocks), &reference, &what);
        }
    }
}

#[test]
fn a_frozen_colour_plays_without_a_sidechain_and_survives_a_session() {
    for engine in TIMBRES {
        assert_survives(engine);
    }
}

fn assert_survives(engine: f64) {
    let plugin = plugin();
    let samples = 4 * RATE_HZ as usize;
    let main = chord(&[48.0, 55.0, 64.0], samples);
    // A dull sound, then a bright one.
    let dull: Vec<f32> = noise(3, samples)
        .into_iter()
        .scan(0.0, |kept, x| {
            *kept = 0.95 * *kept + 0.05 * x;
            Some(*kept)
        })
        .collect();
    let frozen_at = RATE_HZ as usize;
    let mut sidechain = dull;
    sidechain[frozen_at..].copy_from_slice(&noise(4, samples - frozen_at));
    let job = RenderJob {
        sample_rate_hz: RATE_HZ,
        offline: true,
        main: twice(main),
        sidechain: Some(twice(sidechain)),
        before_activation: vec![("Engine".to_owned(), engine)],
        automation: vec![change(frozen_at, "Freeze Timbre", 1.0)],
        ..RenderJob::default()
    };
    let end = |rendered: &Rendered| rendered.aligned()[0][3 * RATE_HZ as usize..].to_vec();
    let frozen = plugin.render(&job).unwrap();
    let live = plugin.render(&RenderJob {
        automation: Vec::new(),
        ..job.clone()
    });
    let live = end(&live.unwrap());
    let distance = |a: &[f32], b: &[f32]| {
        let error: f32 = a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum();
        error / b.iter().map(|x| x * x).sum::<f32>()
    };
    let first = end(&frozen);
    for sidechain in [None, Some(twice(vec![0.0; samples]))] {
        let reopened = plugin.render(&RenderJob {
            state: Some(frozen.state.clone()),
            before_activation: Vec::new(),
            automation: Vec::new(),
            sidechain,
            ..job.clone()
        });
        let reopened = end(&reopened.unwrap());
        // The colour of main is a running mean that began elsewhere.
        assert!(
            distance(&reopened, &first) < 1e-3,
            "{}",
            distance(&reopened, &first)
        );
        assert!(
            distance(&reopened, &live) > 0.03,
            "{}",
            distance(&reopened, &live)
        );
        assert!(reopened[..] != job.main[0][3 * RATE_HZ as usize..]);
    }
}

#[test]
fn real_time_gives_the_same_as_a_render_when_nothing_is_late() {
    let plugin = plugin();
    let short = |job: RenderJob| RenderJob {
        main: vec![chord(&[48.0, 55.0], 40_000); 2],
        sidechain: Some(twice(bursts(&[1000, 20_000], 40_000))),
        ..job
    };
    let timbres = TIMBRES.map(timbre_session);
    for job in [busy_session()].into_iter().chain(timbres).map(short) {
        assert_same_in_real_time(&plugin, &job);
    }
}

fn assert_same_in_real_time(plugin: &Plugin, job: &RenderJob) {
    let render = plugin.render(job).unwrap();
    // A block never begins earlier after the one before than that lasted, so that the host is never ahead.
    let live = || {
        let mut due = Instant::now();
        let job = RenderJob {
            offline: false,
            ..job.clone()
        };
        plugin.render_with(&job, |_, process| {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due = Instant::now() + Duration::from_secs_f64(512.0 / f64::from(RATE_HZ));
            process();
        })
    };
    // A machine that does something else for a third of a second makes windows late. Not three times in a row.
    let same = (0..3).any(|_| live().unwrap().channels == render.channels);
    assert!(same, "live playback differs from a render each time");
}

#[test]
fn a_step_of_the_knobs_at_beat_five_is_heard_at_beat_five() {
    let bpm = 100.0;
    let samples_per_beat = RATE_HZ as usize * 60 / 100;
    let samples = 8 * samples_per_beat;
    let turn = 5 * samples_per_beat;
    // The sidechain is next to silent, at -71 dBFS, so that the sound goes where the knobs turn to it.
    let faint = noise(9, samples).iter().map(|x| 1e-3 * x).collect();
    let rendered = plugin()
        .render(&RenderJob {
            sample_rate_hz: RATE_HZ,
            offline: true,
            main: twice(noise(1, samples)),
            sidechain: Some(twice(faint)),
            parameters: vec![("Rhythm".to_owned(), 0.0)],
            transport: Some(Song::steady(bpm, samples)),
            automation: vec![change(turn, "Harmony", 1.0), change(turn, "Rhythm", 1.0)],
            ..RenderJob::default()
        })
        .unwrap();
    let out = &rendered.aligned()[0];
    let rms = |from: usize, to: usize| {
        (out[from..to].iter().map(|x| x * x).sum::<f32>() / (to - from) as f32).sqrt()
    };
    // Half a frame of the transform, and a latent frame for the ramp of the knob.
    let frame = 2048 + 1024;
    let before = rms(turn - frame - 10_000, turn - frame);
    let after = rms(turn + frame, turn + frame + 10_000);
    assert!(
        before > 0.05 && after < 0.01 * before,
        "{before} before, {after} after"
    );
}

/// Energy of each pitch class from C to B.
fn chroma(samples: &[f32]) -> [f32; 12] {
    let mut chroma = [0.0; 12];
    for note in 48..84 {
        let hz = 440.0 * ((note as f32 - 69.0) / 12.0).exp2();
        let step = TAU * hz / RATE_HZ as f32;
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in samples.iter().enumerate() {
            let window = 0.5 - 0.5 * (TAU * n as f32 / samples.len() as f32).cos();
            let phase = (step * n as f32) % TAU;
            re += window * sample * phase.cos();
            im += window * sample * phase.sin();
        }
        chroma[note % 12] += (re * re + im * im).sqrt();
    }
    chroma
}

#[test]
fn transpose_moves_the_harmony_by_semitones() {
    let samples = 5 * RATE_HZ as usize / 2;
    let plugin = plugin();
    let classes = |semitones: i32| {
        let rendered = plugin
            .render(&RenderJob {
                sample_rate_hz: RATE_HZ,
                offline: true,
                main: twice(chord(&[57.0, 61.0, 64.0], samples)),
                sidechain: Some(twice(bursts(&[500, 30_000, 60_000, 90_000], samples))),
                parameters: vec![
                    ("Transpose".to_owned(), f64::from(semitones)),
                    ("Rhythm".to_owned(), 0.0),
                ],
                ..RenderJob::default()
            })
            .unwrap();
        chroma(&rendered.aligned()[0][RATE_HZ as usize..2 * RATE_HZ as usize])
    };
    let original = classes(0);
    for semitones in [-7, -2, 1, 4, 8] {
        let moved = classes(semitones);
        let similarity = |shift: i32| {
            let pairs = (0..12).map(|class| {
                let from = (class as i32 - shift).rem_euclid(12) as usize;
                (original[from], moved[class])
            });
            let (mut dot, mut a2, mut b2) = (0.0, 0.0, 0.0);
            for (a, b) in pairs {
                dot += a * b;
                a2 += a * a;
                b2 += b * b;
            }
            dot / (a2 * b2).sqrt()
        };
        let best = (-8..=8)
            .max_by(|a, b| similarity(*a).total_cmp(&similarity(*b)))
            .unwrap();
        println!(
            "{semitones} semitones: similarity {}",
            similarity(semitones)
        );
        assert_eq!(
            (best - semitones).rem_euclid(12),
            0,
            "{semitones} semitones"
        );
        assert!(
            similarity(semitones) > 0.9,
            "{semitones}: {}",
            similarity(semitones)
        );
    }
}

/// Onset strength: how much the level rises from one hop of 256 to the next.
fn onsets(samples: &[f32]) -> Vec<f32> {
    let levels: Vec<f32> = samples
        .chunks_exact(256)
        .map(|hop| (hop.iter().map(|x| x * x).sum::<f32>() + 1e-9).ln())
        .collect();
    levels
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).max(0.0))
        .collect()
}

/// Correlation of a sequence with itself, `lag` later.
fn autocorrelation(values: &[f32], lag: usize) -> f32 {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let product = |a: &[f32], b: &[f32]| -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    let (early, late) = (&values[..values.len() - lag], &values[lag..]);
    product(early, late) / (product(early, early) * product(late, late)).sqrt()
}

/// One beat at 120 BPM.
const BEAT: usize = RATE_HZ as usize / 2;

/// Fourteen beats of a chord, with a rhythm of two beats in the first four of the sidechain and silence after it. The
/// rhythm is frozen from there on.
fn frozen_rhythm() -> RenderJob {
    let samples = 14 * BEAT;
    let pattern = [0.0, 0.75, 1.25];
    let times: Vec<usize> = (0..2)
        .flat_map(|bar| pattern.map(|at| ((2.0 * bar as f32 + at) * BEAT as f32) as usize + 200))
        .collect();
    RenderJob {
        sample_rate_hz: RATE_HZ,
        offline: true,
        main: twice(chord(&[48.0, 52.0, 55.0, 60.0], samples)),
        sidechain: Some(twice(bursts(&times, samples))),
        parameters: vec![("Freeze Length".to_owned(), 1.0)],
        transport: Some(Song::steady(120.0, samples)),
        automation: vec![change(4 * BEAT - 1000, "Freeze Rhythm", 1.0)],
        ..RenderJob::default()
    }
}

/// Checks that a rhythm of two beats plays from a sample on.
#[track_caller]
fn assert_repeats(rendered: &Rendered, from: usize, what: &str) {
    let onsets = onsets(&rendered.aligned()[0][from..14 * BEAT - 4096]);
    let lag = 2 * BEAT / 256;
    let best = (lag / 3..lag * 3 / 2)
        .max_by(|a, b| autocorrelation(&onsets, *a).total_cmp(&autocorrelation(&onsets, *b)))
        .unwrap();
    println!(
        "{what}: best lag {best} hops, expected {lag}: {}",
        autocorrelation(&onsets, best)
    );
    assert!(best.abs_diff(lag) <= 4, "{what}: {best} hops");
    assert!(autocorrelation(&onsets, best) > 0.5, "{what}");
}

#[test]
fn a_frozen_rhythm_goes_on_without_a_sidechain_and_survives_a_session() {
    let plugin = plugin();
    let mut job = frozen_rhythm();
    // The frames of the remix begin with the first sound: with the song, as they do in the session with a loop.
    for channel in job.sidechain.iter_mut().flatten() {
        channel[0] = 0.1;
    }
    // The sidechain is missing from here on.
    let missing = 9 * BEAT;
    let first = plugin.render(&job).unwrap();
    assert_repeats(&first, missing, "after the sidechain fell silent");
    let silence = twice(vec![0.0; job.main[0].len()]);
    for (what, sidechain) in [("disconnected", None), ("silent", Some(silence))] {
        let reopened = plugin.render(&RenderJob {
            state: Some(first.state.clone()),
            parameters: Vec::new(),
            automation: Vec::new(),
            blocks: vec![64, 500],
            max_block_samples: Some(512),
            sidechain,
            ..job.clone()
        });
        let reopened = reopened.unwrap();
        assert_repeats(&reopened, missing, what);
        // The voice did not hear the sidechain and its level here, so the remix is not the same in each sample.
        let level_db = |rendered: &Rendered| {
            let power: f32 = rendered.aligned()[0][missing..].iter().map(|x| x * x).sum();
            10.0 * power.log10()
        };
        let change_db = level_db(&reopened) - level_db(&first);
        assert!(change_db.abs() < 2.0, "{what}: {change_db} dB");
    }
    // Without the freeze, the main input plays. Frames before the end look ahead, for less than a beat.
    let end = 11 * BEAT + 123;
    let mut thawed = job.clone();
    thawed.automation.push(change(end, "Freeze Rhythm", 0.0));
    let thawed = plugin.render(&thawed).unwrap();
    for ((thawed, first), main) in thawed.aligned().iter().zip(&first.aligned()).zip(&job.main) {
        assert!(thawed[..end - BEAT] == first[..end - BEAT]);
        assert!(thawed[end + 500..] == main[end + 500..]);
    }
}

#[test]
fn a_freeze_without_a_sidechain_and_without_a_loop_passes_the_main_input() {
    // The sidechain goes missing 30 ms before seven and a half beats. The worker is still at work then, but later rests.
    for freeze in [0, 15 * BEAT / 2, 10 * BEAT] {
        let silent = freeze == 0;
        let mut job = frozen_rhythm();
        job.automation = vec![change(freeze, "Freeze Rhythm", 1.0)];
        if silent {
            job.sidechain = None;
        }
        let rendered = plugin().render(&job).unwrap();
        let main_from = if silent { 0 } else { 9 * BEAT };
        for (out, main) in rendered.aligned().iter().zip(&job.main) {
            assert!(out[main_from..] == main[main_from..], "frozen at {freeze}");
        }
        let text = String::from_utf8_lossy(&rendered.state).into_owned();
        assert!(text.contains("\\\"rhythm\\\":null"), "frozen at {freeze}");
    }
}

#[test]
fn a_frozen_rhythm_repeats_with_its_beats_and_survives_a_session() {
    let plugin = plugin();
    let (beat, samples) = (BEAT, 14 * BEAT);
    // After the rhythm there is noise without any.
    let mut job = frozen_rhythm();
    for channel in job.sidechain.iter_mut().flatten() {
        for (n, value) in noise(4, samples).iter().enumerate().skip(4 * beat) {
            channel[n] = 0.1 * value;
        }
    }
    let first = plugin.render(&job).unwrap();
    let check = |rendered: &Rendered, what: &str| assert_repeats(rendered, 6 * beat, what);
    check(&first, "frozen");
    // The session is opened again, where nothing but noise is heard: the loop is that which was saved.
    let reopened = plugin.render(&RenderJob {
        state: Some(first.state.clone()),
        parameters: Vec::new(),
        automation: Vec::new(),
        sidechain: Some(twice(noise(5, samples).iter().map(|x| 0.1 * x).collect())),
        ..job.clone()
    });
    let reopened = reopened.unwrap();
    check(&reopened, "reopened");
    let text = String::from_utf8_lossy(&first.state).into_owned();
    assert!(text.contains("\"frozen\""));
    // Live, there is no such rhythm.
    let live = plugin
        .render(&RenderJob {
            automation: Vec::new(),
            ..job
        })
        .unwrap();
    let live = onsets(&live.aligned()[0][6 * beat..14 * beat - 4096]);
    assert!(autocorrelation(&live, 2 * beat / 256) < 0.4);
}
