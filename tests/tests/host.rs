//! The built plugin in a host.

mod common;

use std::f32::consts::TAU;

use common::assert_same;
use graft_tests::{Activation, Automation, Block, Plugin, RenderJob, Session, built_library};

const RATE_HZ: u32 = 44_100;

fn plugin() -> Plugin {
    Plugin::load(&built_library().unwrap()).unwrap()
}

fn noise(seed: u32, samples: usize) -> Vec<f32> {
    let noise = test_signals::noise(seed, samples).into_iter();
    noise.map(|sample| 0.5 * sample).collect()
}

fn stereo_noise(seed: u32, samples: usize) -> Vec<Vec<f32>> {
    vec![noise(seed, samples), noise(seed + 1, samples)]
}

/// A second and a half of two different inputs.
fn job() -> RenderJob {
    let samples = RATE_HZ as usize * 3 / 2;
    RenderJob {
        sample_rate_hz: RATE_HZ,
        offline: true,
        main: stereo_noise(1, samples),
        sidechain: Some(stereo_noise(7, samples)),
        ..RenderJob::default()
    }
}

fn peak(channel: &[f32]) -> f32 {
    channel
        .iter()
        .fold(0.0, |peak, sample| peak.max(sample.abs()))
}

fn parameter(name: &str, value: f64) -> (String, f64) {
    (name.to_owned(), value)
}

#[track_caller]
#[test]
fn the_output_is_the_same_at_any_block_size_declared_offline_or_not() {
    let plugin = plugin();
    let change = |position_samples, parameter: &str, value| Automation {
        position_samples,
        parameter: parameter.to_owned(),
        value,
    };
    let job = RenderJob {
        automation: vec![
            change(5_000, "Harmony", 1.0),
            change(12_345, "Rhythm", 0.25),
            change(12_345, "Mix", 0.8),
            change(30_001, "Link", 1.0),
            change(40_000, "Output Gain", -6.0),
            change(50_000, "Bypass", 1.0),
            change(55_000, "Bypass", 0.0),
        ],
        ..job()
    };
    let reference = plugin.render(&job).unwrap();
    assert!(peak(&reference.aligned()[0]) > 0.01);
    for blocks in [
        vec![1],
        vec![64],
        vec![127],
        vec![512],
        vec![4096],
        vec![8192],
        vec![3, 1000, 1, 64, 4096, 511],
    ] {
        let render = |offline| {
            let rendered = plugin.render(&RenderJob {
                blocks: blocks.clone(),
                offline,
                ..job.clone()
            });
            rendered.unwrap()
        };
        assert_same(&render(true), &reference, &format!("blocks {blocks:?}"));
        // A render that is not declared is known by its speed. A busy machine may be slow for once, but not three times in a row.
        let same = (0..3).any(|_| render(false).aligned() == reference.aligned());
        assert!(same, "blocks {blocks:?}, not declared offline");
    }
}

/// The latency modes as the host numbers them.
const MODES: [f64; 3] = [0.0, 1.0, 2.0];

#[test]
fn an_impulse_and_noise_on_the_dry_path_land_at_the_reported_latency() {
    let plugin = plugin();
    let dry = [("Mix", 0.0), ("Bypass", 1.0)].map(|(name, value)| state_with(&plugin, name, value));
    for sample_rate_hz in [22_050, 44_100, 48_000, 88_200, 96_000, 192_000] {
        for mode in MODES {
            for (case, block) in [1, 16, 64, 127, 256, 512, 1024, 4096]
                .into_iter()
                .enumerate()
            {
                let mut main = vec![vec![0.0; 2000]; 2];
                main[0][0] = 0.5;
                main[1][777] = -0.25;
                main[0][1000..].copy_from_slice(&noise(5, 1000));
                let rendered = plugin
                    .render(&RenderJob {
                        sample_rate_hz,
                        blocks: vec![block],
                        main: main.clone(),
                        sidechain: Some(stereo_noise(7, 2000)),
                        // Parameters set with the first sample take a moment; a state does not.
                        state: Some(dry[case % 2].clone()),
                        before_activation: vec![parameter("Latency", mode)],
                        ..job()
                    })
                    .unwrap();
                let what = format!("mode {mode}, {sample_rate_hz} Hz, blocks of {block}");
                assert!(rendered.latency_samples > 0, "{what}");
                for (out, expected) in rendered.aligned().iter().zip(&main) {
                    let differs = (0..2000).find(|&n| out[n] != expected[n]);
                    assert_eq!(differs, None, "{what}: {:?}", &out[..8]);
                }
                let early = &rendered.channels[0][..rendered.latency_samples];
                assert_eq!(peak(early), 0.0, "{what}");
            }
        }
    }
}

/// Where the remix of two clicks has its middle, after the latency is taken off.
#[test]
fn a_click_on_the_remixed_path_lands_at_the_reported_latency() {
    let plugin = plugin();
    for sample_rate_hz in [44_100, 96_000] {
        for mode in MODES {
            let samples = sample_rate_hz as usize * 2;
            let click = samples / 2;
            let mut main = vec![vec![0.0; samples]; 2];
            for channel in &mut main {
                channel[click..click + 8]
                    .copy_from_slice(&[0.9, -0.9, 0.9, -0.9, 0.5, -0.5, 0.2, -0.2]);
            }
            let rendered = plugin
                .render(&RenderJob {
                    sample_rate_hz,
                    main: main.clone(),
                    sidechain: Some(main),
                    before_activation: vec![parameter("Latency", mode)],
                    ..job()
                })
                .unwrap();
            let aligned = &rendered.aligned()[0];
            let energy = |range: std::ops::Range<usize>| -> f32 {
                aligned[range].iter().map(|x| x * x).sum()
            };
            // What is not at the click is within the frames of the transform around it.
            let near = energy(click - 2..click + 12);
            let all = energy(0..samples);
            assert!(
                near > 0.8 * all,
                "mode {mode}, {sample_rate_hz} Hz: {near} of {all}"
            );
        }
    }
}

#[test]
fn a_new_latency_is_asked_for_once_and_waits_for_the_restart() {
    let plugin = plugin();
    let latency = |mode| {
        let job = RenderJob {
            before_activation: vec![parameter("Latency", mode)],
            ..job()
        };
        plugin.render(&job).unwrap().latency_samples
    };
    let [live, default, full] = MODES.map(latency);
    assert!(
        live < default && default < full,
        "{live}, {default}, {full}"
    );
    let job = RenderJob {
        automation: vec![Automation {
            position_samples: 30_000,
            parameter: "Latency".to_owned(),
            value: MODES[2],
        }],
        parameters: vec![parameter("Mix", 0.0)],
        ..job()
    };
    let changed = plugin.render(&job).unwrap();
    let unchanged = plugin
        .render(&RenderJob {
            automation: Vec::new(),
            ..job.clone()
        })
        .unwrap();
    assert_eq!(changed.latency_samples, default);
    assert_eq!(changed.restart_requests, unchanged.restart_requests + 1);
    // The host does not restart the plugin, so the sound comes back at the old latency.
    let (changed, unchanged) = (&changed.channels[0], &unchanged.channels[0]);
    assert!(changed[..30_000] == unchanged[..30_000]);
    let silent = 30_000 + 2048..30_000 + 20_000;
    assert_eq!(peak(&changed[silent]), 0.0);
    assert!(changed[30_000 + 25_000..] == unchanged[30_000 + 25_000..]);
    let gains = (30_000..55_000).map(|n| changed[n].abs() - unchanged[n].abs());
    assert!(gains.into_iter().all(|difference| difference <= 0.0));
}

/// A stereo tone, loud enough for a jump in it to be a large step.
fn tone(samples: usize) -> Vec<f32> {
    let tone = |n: usize| 0.5 * (TAU * (220.0 * n as f32 / RATE_HZ as f32).fract()).sin();
    (0..samples).map(tone).collect()
}

/// Plays blocks of 512 samples of the dry main input, and stops early if the plugin asks for a restart.
fn play(session: &mut Session, input: &mut &[f32], blocks: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for _ in 0..blocks {
        let (block, rest) = input.split_at(512);
        *input = rest;
        let block = Block {
            main: [block; 2],
            sidechain: [block; 2],
            events: &[],
            transport: None,
        };
        let [left, _] = session.process(&block, |process| process()).unwrap();
        out.extend(left);
        if session.wants_restart() {
            break;
        }
    }
    out
}

#[test]
fn a_host_that_grants_each_restart_at_once_hears_one_pair_of_fades() {
    let plugin = plugin();
    let mut session = Session::new(&plugin).unwrap();
    session.set_parameter("Mix", 0.0).unwrap();
    let mut full = Session::new(&plugin).unwrap();
    for (name, value) in [("Mix", 0.0), ("Latency", 2.0)] {
        full.set_parameter(name, value).unwrap();
    }
    let full = full.save_state().unwrap();
    let saved = session.save_state().unwrap();
    let activation = Activation {
        sample_rate_hz: RATE_HZ,
        max_block_samples: 512,
        offline: true,
    };
    let tone = tone(16 * RATE_HZ as usize);
    // Between two restarts the host plays nothing, or some blocks.
    for blocks_between in [0, 5] {
        let mut input = &tone[..];
        session.load_state(&saved).unwrap();
        session.activate(&activation).unwrap();
        let default_samples = session.restart().unwrap();
        let mut out = play(&mut session, &mut input, 80);
        session.load_state(&full).unwrap();
        out.extend(play(&mut session, &mut input, 80));
        let mut latency_samples = default_samples;
        let mut restarts = 0;
        let announced = session.latency_changes();
        while session.wants_restart() {
            restarts += 1;
            latency_samples = session.restart().unwrap();
            out.extend(play(&mut session, &mut input, blocks_between));
        }
        out.extend(play(&mut session, &mut input, 200));
        assert!(!session.wants_restart());
        session.deactivate();
        // nice-plug announces the new latency in a second restart.
        assert_eq!((restarts, session.latency_changes()), (2, announced + 1));
        assert!(latency_samples > 2 * default_samples);

        let heard = out.iter().position(|&x| x != 0.0).unwrap();
        assert!(peak(&out[out.len() - 512..]) > 0.49, "the sound is back");
        let steps = out[heard..].windows(3);
        // The tone's own is 0.0005; a fade of 20 ms adds little.
        let largest = steps.map(|x| (x[2] - 2.0 * x[1] + x[0]).abs());
        let largest = largest.fold(0.0, f32::max);
        assert!(largest < 0.002, "{blocks_between} blocks: {largest}");
        let silences = out[heard..].split(|&x| x != 0.0);
        let silences = silences.filter(|silence| silence.len() > 100).count();
        assert_eq!(silences, 1);
    }
}

#[test]
fn the_engines_without_a_network_have_a_latency_of_their_own() {
    let plugin = plugin();
    let samples = 40_000;
    let render = |engine: f64, mode: f64| {
        plugin
            .render(&RenderJob {
                main: stereo_noise(1, samples),
                sidechain: Some(stereo_noise(2, samples)),
                before_activation: vec![parameter("Engine", engine), parameter("Latency", mode)],
                parameters: vec![parameter("Rhythm", 0.0)],
                ..job()
            })
            .unwrap()
    };
    let engines = [0.0, 1.0, 2.0, 3.0, 4.0];
    let latencies = engines.map(|engine| render(engine, MODES[0]).latency_samples);
    let [live, split, morph, timbre, envelope] = latencies;
    assert!(
        morph < split && split < timbre && timbre <= live,
        "{latencies:?}"
    );
    assert_eq!(envelope, morph);
    // Default and Full differ for the network alone.
    let others = [MODES[1], MODES[2]].map(|mode| render(1.0, mode));
    let [default, full] = others.each_ref().map(|rendered| rendered.latency_samples);
    assert!(
        split < default && default == full,
        "{split} {default} {full}"
    );
    // With both knobs on main, the parts add up to it.
    let main = stereo_noise(1, samples);
    let [rendered, _] = others;
    for rendered in [render(1.0, MODES[0]), rendered] {
        for (out, main) in rendered.aligned().iter().zip(&main) {
            let largest = out.iter().zip(main).skip(RATE_HZ as usize / 2);
            let largest = largest.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(largest < 1e-4, "{largest}");
        }
    }
}

/// The plugin's state with one parameter changed.
fn state_with(plugin: &Plugin, name: &str, value: f64) -> Vec<u8> {
    let job = RenderJob {
        main: vec![vec![0.0; 64]; 2],
        parameters: vec![parameter(name, value)],
        ..RenderJob::default()
    };
    plugin.render(&job).unwrap().state
}

#[test]
fn a_state_makes_a_new_instance_sound_the_same() {
    let plugin = plugin();
    let settings = vec![
        parameter("Harmony", 0.25),
        parameter("Rhythm", 0.75),
        parameter("Link", 1.0),
        parameter("Main Gain", -3.0),
        parameter("Sidechain Gain", 4.0),
        parameter("Mix", 0.5),
        parameter("Output Gain", -12.0),
    ];
    // Set before the first sample, so that nothing ramps: the voice follows the levels of the last seconds.
    let set = plugin
        .render(&RenderJob {
            before_activation: settings,
            ..job()
        })
        .unwrap();
    let render_state = |state: Vec<u8>| {
        plugin
            .render(&RenderJob {
                state: Some(state),
                ..job()
            })
            .unwrap()
    };
    let loaded = render_state(set.state.clone());
    assert_same(
        &loaded,
        &render_state(loaded.state.clone()),
        "a second trip",
    );
    assert_same(&set, &loaded, "the state");
    let defaults = plugin.render(&job()).unwrap();
    assert!(loaded.aligned() != defaults.aligned());
}

#[test]
fn a_state_that_is_none_is_refused() {
    let refused = plugin().render(&RenderJob {
        state: Some(b"\x08\0\0\0\0\0\0\0no state".to_vec()),
        ..job()
    });
    let error = format!("{:#}", refused.unwrap_err());
    assert!(error.contains("the plugin refuses the state"), "{error}");
}

#[test]
fn parameters_appear_by_name_with_their_defaults() {
    let parameters = plugin().parameters().unwrap();
    let listed: Vec<_> = parameters
        .iter()
        .map(|p| (p.name.as_str(), p.text.as_str()))
        .collect();
    assert_eq!(
        listed,
        [
            ("Harmony", "0.00"),
            ("Rhythm", "1.00"),
            ("Link", "Off"),
            ("Transpose", "0 st"),
            ("Freeze Harmony", "Off"),
            ("Freeze Rhythm", "Off"),
            ("Freeze Length", "4 beats"),
            ("Voice", "0.00"),
            ("Air", "1.00"),
            ("Window", "1 beat"),
            ("Latency", "Default"),
            ("Engine", "Network"),
            ("Main Gain", "0.0 dB"),
            ("Sidechain Gain", "0.0 dB"),
            ("Mix", "1.00"),
            ("Output Gain", "0.0 dB"),
            ("Bypass", "Off"),
            ("Timbre", "1.00"),
            ("Pitch", "0.00"),
            ("Variation", "0.00"),
            ("Freeze Timbre", "Off"),
        ]
    );
}

#[test]
fn an_unknown_parameter_is_named_in_the_error() {
    let refused = plugin().render(&RenderJob {
        parameters: vec![parameter("Melody", 0.5)],
        ..job()
    });
    let error = format!("{:#}", refused.unwrap_err());
    assert!(
        error.contains("no parameter \"Melody\"; the plugin has Harmony"),
        "{error}"
    );
}

#[test]
fn mono_layouts_play() {
    let plugin = plugin();
    let stereo = job();
    let first = |audio: &[Vec<f32>]| vec![audio[0].clone()];
    let mono_main = first(&stereo.main);
    let mono_sidechain = stereo.sidechain.as_deref().map(first);

    let mono = plugin
        .render(&RenderJob {
            main: mono_main.clone(),
            sidechain: mono_sidechain.clone(),
            ..stereo.clone()
        })
        .unwrap();
    // The same channel on both sides of a stereo instance.
    let twice = |audio: &[Vec<f32>]| vec![audio[0].clone(); 2];
    let doubled = plugin
        .render(&RenderJob {
            main: twice(&stereo.main),
            sidechain: stereo.sidechain.as_deref().map(twice),
            ..stereo.clone()
        })
        .unwrap();
    let mono = mono.aligned();
    assert_eq!(mono.len(), 1);
    assert!(peak(&mono[0]) > 0.01);
    let doubled = doubled.aligned();
    let middle = doubled[0]
        .iter()
        .zip(&doubled[1])
        .map(|(l, r)| 0.5 * (l + r));
    assert!(middle.zip(&mono[0]).all(|(a, &b)| a == b));

    for (main, sidechain) in [
        (mono_main, stereo.sidechain.clone()),
        (stereo.main.clone(), mono_sidechain),
    ] {
        let channels = main.len();
        let job = RenderJob {
            main,
            sidechain,
            ..stereo.clone()
        };
        let rendered = plugin.render(&job).unwrap().aligned();
        assert_eq!(rendered.len(), channels);
        assert!(rendered.iter().all(|channel| peak(channel) > 0.01));
    }
}

/// Stereo noise with an RMS level in dBFS.
fn noise_at(level_db: f32, samples: usize) -> Vec<Vec<f32>> {
    let gain = 12f32.sqrt() * 10f32.powf(level_db / 20.0);
    let channel = |seed| {
        let noise = test_signals::noise(seed, samples).into_iter();
        noise.map(|sample| gain * sample).collect()
    };
    vec![channel(11), channel(12)]
}

/// A muted track with the dither of 16 bits.
fn dithered_silence(samples: usize) -> Vec<Vec<f32>> {
    let dither = |a: f32, b: f32| (a + b).round() / 32_768.0;
    let channel = |seed| {
        let pairs = noise(seed, samples)
            .into_iter()
            .zip(noise(seed + 1, samples));
        pairs.map(|(a, b)| dither(a, b)).collect()
    };
    vec![channel(1), channel(3)]
}

#[test]
fn a_missing_or_silent_sidechain_passes_the_aligned_main() {
    let plugin = plugin();
    let job = job();
    let samples = job.main[0].len();
    let silence = vec![vec![0.0; samples]; 2];
    for (what, sidechain) in [
        ("none", None),
        ("zeros", Some(silence)),
        ("noise at -120 dBFS", Some(noise_at(-120.0, samples))),
        ("dither", Some(dithered_silence(samples))),
    ] {
        for blocks in [vec![512], vec![1, 4096, 64]] {
            let rendered = plugin.render(&RenderJob {
                sidechain: sidechain.clone(),
                blocks,
                ..job.clone()
            });
            assert!(rendered.unwrap().aligned() == job.main, "{what}");
        }
    }
}

#[test]
fn a_soft_sidechain_is_remixed_and_its_gain_decides() {
    let plugin = plugin();
    let samples = job().main[0].len();
    for (level_db, gain_db, is_remixed) in [(-70.0, 0.0, true), (-70.0, -30.0, false)] {
        let job = RenderJob {
            sidechain: Some(noise_at(level_db, samples)),
            before_activation: vec![parameter("Sidechain Gain", gain_db)],
            ..job()
        };
        let rendered = plugin.render(&job).unwrap();
        let passes = rendered.aligned() == job.main;
        assert_eq!(passes, !is_remixed, "{level_db} dBFS, gain of {gain_db} dB");
    }
}

#[test]
fn silence_gives_silence() {
    let job = job();
    let silence = vec![vec![0.0; job.main[0].len()]; 2];
    let rendered = plugin()
        .render(&RenderJob {
            main: silence.clone(),
            sidechain: Some(silence.clone()),
            ..job
        })
        .unwrap();
    assert!(rendered.aligned() == silence);
}

#[test]
fn every_sample_rate_plays_with_about_the_same_latency_in_seconds() {
    let plugin = plugin();
    let reference = plugin.render(&job()).unwrap().latency_samples as f64 / f64::from(RATE_HZ);
    for sample_rate_hz in [22_050, 32_000, 48_000, 88_200, 96_000, 176_400, 192_000] {
        let samples = sample_rate_hz as usize;
        let rendered = plugin
            .render(&RenderJob {
                sample_rate_hz,
                main: stereo_noise(1, samples),
                sidechain: Some(stereo_noise(7, samples)),
                ..job()
            })
            .unwrap();
        let seconds = rendered.latency_samples as f64 / f64::from(sample_rate_hz);
        println!("latency {seconds} s at {sample_rate_hz} Hz, {reference} s at {RATE_HZ} Hz");
        // Resamplers make the difference.
        assert!((seconds - reference).abs() < 0.1);
        let aligned = rendered.aligned();
        assert!(
            aligned
                .iter()
                .all(|channel| channel.iter().all(|s| s.is_finite()))
        );
        assert!(
            aligned.iter().all(|channel| peak(channel) > 0.01),
            "{sample_rate_hz} Hz"
        );
    }
}

#[test]
fn input_that_is_not_finite_stays_where_it_is() {
    let mut job = job();
    job.main[0][1000] = f32::NAN;
    job.main[1][2000] = f32::INFINITY;
    if let Some(sidechain) = &mut job.sidechain {
        sidechain[0][3000] = f32::NEG_INFINITY;
    }
    let rendered = plugin().render(&job).unwrap().aligned();
    assert!(rendered.iter().flatten().all(|sample| sample.is_finite()));
}
