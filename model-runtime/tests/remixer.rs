//! Remixes of whole clips.

mod common;

use std::sync::Arc;

use common::whole::whole_remix;
use common::{error_db, music, stereo};
use model_runtime::credit::SystemClock;
use model_runtime::exchange::exchange;
use model_runtime::geometry::{Geometry, GeometrySettings};
use model_runtime::sample::{Input, Output};
use model_runtime::transport::Transport;
use model_runtime::worker::{WindowProcessor, Worker};
use model_runtime::{
    AudioClip, ClipRemixer, Controls, Error, Factor, LatencyMode, Model, RemixSettings,
    RemixStream, Remixer, StreamSettings, Voice,
};
use test_signals::Noise;

fn remixer() -> Remixer {
    Remixer::new(Model::built_in().unwrap())
}

fn clip(rate: u32, seed: u32) -> AudioClip {
    stereo(rate, &music(rate, 2.0, seed))
}

#[test]
fn the_remix_has_mains_rate_channels_and_length() {
    for (main_rate, side_rate) in [(8_000, 44_100), (44_100, 22_050), (96_000, 48_000)] {
        let mut main = clip(main_rate, 1);
        let sidechain = clip(side_rate, 2);
        for channels in [2, 1] {
            main.channels.truncate(channels);
            for voice in [Voice::Guided, Voice::GriffinLim] {
                let settings = RemixSettings {
                    voice,
                    ..RemixSettings::default()
                };
                let out = remixer().remix(&main, &sidechain, &settings).unwrap();
                assert_eq!(out.sample_rate_hz, main_rate);
                assert_eq!(out.channels.len(), channels);
                for channel in &out.channels {
                    assert_eq!(channel.len(), main.channels[0].len());
                    assert!(channel.iter().all(|sample| sample.is_finite()));
                    assert!(
                        channel.iter().any(|sample| sample.abs() > 1e-3),
                        "{voice:?} is silent"
                    );
                }
            }
        }
    }
}

#[test]
fn a_short_sidechain_is_followed_by_silence() {
    let main = clip(44_100, 1);
    let mut short = clip(44_100, 2);
    short
        .channels
        .iter_mut()
        .for_each(|channel| channel.truncate(30_000));
    let mut padded = short.clone();
    padded
        .channels
        .iter_mut()
        .for_each(|channel| channel.resize(main.channels[0].len(), 0.0));
    let settings = RemixSettings::default();
    let (a, b) = (
        remixer().remix(&main, &short, &settings).unwrap(),
        remixer().remix(&main, &padded, &settings).unwrap(),
    );
    assert_eq!(a, b);
}

#[test]
fn clips_shorter_than_a_frame_pass() {
    for samples in [0, 1, 100, 600] {
        let main = AudioClip {
            sample_rate_hz: 44_100,
            channels: vec![vec![0.1; samples]],
        };
        let out = remixer()
            .remix(&main, &main, &RemixSettings::default())
            .unwrap();
        assert_eq!(out.channels[0].len(), samples);
    }
}

#[test]
fn the_knobs_choose_the_source() {
    let (main, sidechain) = (clip(44_100, 1), clip(44_100, 2));
    let remix = |harmony: f32, rhythm: f32| {
        let settings = RemixSettings {
            controls: Controls::default()
                .with_share(Factor::Harmony, harmony)
                .with_share(Factor::Rhythm, rhythm),
            ..RemixSettings::default()
        };
        remixer()
            .remix(&main, &sidechain, &settings)
            .unwrap()
            .channels
            .remove(0)
    };
    let swapped = remixer()
        .remix(
            &sidechain,
            &main,
            &RemixSettings {
                controls: Controls::default()
                    .with_share(Factor::Harmony, 1.0)
                    .with_share(Factor::Rhythm, 1.0),
                ..RemixSettings::default()
            },
        )
        .unwrap();
    assert!(error_db(&remix(0.0, 0.0), &swapped.channels[0]) < -80.0);
    assert!(error_db(&remix(0.0, 1.0), &remix(0.0, 0.0)) > -20.0);
}

#[test]
fn bad_input_is_refused_in_words() {
    let good = clip(44_100, 1);
    let refusal =
        |main: &AudioClip, settings: &RemixSettings| match remixer().remix(main, &good, settings) {
            Err(error @ Error::Input { .. }) => error.to_string(),
            other => panic!("expected a refusal, found {:?}", other.map(|_| "a remix")),
        };
    let defaults = RemixSettings::default();
    let six = AudioClip {
        sample_rate_hz: 44_100,
        channels: vec![vec![0.0; 100]; 6],
    };
    assert!(refusal(&six, &defaults).contains("one or two channels, found 6"));
    let mut broken = good.clone();
    broken.channels[1][7] = f32::NAN;
    assert!(refusal(&broken, &defaults).contains("finite"));
    broken.channels[1].truncate(7);
    assert!(refusal(&broken, &defaults).contains("same length"));
    let loud = RemixSettings {
        controls: Controls::default().with_share(Factor::Harmony, 1.5),
        ..defaults
    };
    assert!(refusal(&good, &loud).contains("0 to 1, found 1.5"));
    let high = RemixSettings {
        controls: Controls {
            transpose_semitones: 40,
            ..Controls::default()
        },
        ..defaults
    };
    assert!(refusal(&good, &high).contains("found 40"));
}

#[test]
fn pushes_of_any_length_give_the_same_remix() {
    let rate = 22_050;
    let (main, sidechain) = (clip(rate, 1), clip(rate, 2));
    let settings = RemixSettings::default();
    let whole = remixer().remix(&main, &sidechain, &settings).unwrap();
    let model = Model::built_in().unwrap();
    for sizes in [&[1][..], &[977, 0, 20_000]] {
        let mut remixer = ClipRemixer::new(&model, rate, 2, &settings).unwrap();
        let mut out = vec![Vec::new(); 2];
        let (mut start, mut lengths) = (0, sizes.iter().cycle());
        while start < main.channels[0].len() {
            let end = (start + lengths.next().unwrap()).min(main.channels[0].len());
            let [main, sidechain] = [&main, &sidechain]
                .map(|clip| [0, 1].map(|channel| &clip.channels[channel][start..end]));
            remixer.push(&main, &sidechain, &mut out).unwrap();
            start = end;
        }
        remixer.finish(&mut out).unwrap();
        assert!(out == whole.channels, "pushes of {sizes:?}");
    }
}

#[test]
fn bad_steps_are_refused_in_words_and_change_nothing() {
    let model = Model::built_in().unwrap();
    let settings = RemixSettings::default();
    let refused = ClipRemixer::new(&model, 44_100, 3, &settings)
        .err()
        .unwrap();
    assert!(refused.to_string().contains("one or two channels, found 3"));
    let sound = music(22_050, 0.5, 1);
    let mut broken = sound.clone();
    broken[7] = f32::NAN;
    let mut remixer = ClipRemixer::new(&model, 22_050, 1, &settings).unwrap();
    let mut out = [Vec::new()];
    for (main, sidechain, why) in [
        (&[&sound[..]][..], &[&sound[..9]][..], "found 9"),
        (&[&sound[..]; 2], &[&sound[..]], "one channel, found 2"),
        (&[&sound[..]], &[&broken[..]], "finite"),
    ] {
        let error = remixer.push(main, sidechain, &mut out).err().unwrap();
        assert!(error.to_string().contains(why), "{error}");
    }
    remixer.push(&[&sound], &[&sound], &mut out).unwrap();
    remixer.finish(&mut out).unwrap();
    assert_eq!(out[0].len(), sound.len());
}

/// The error at the start, over the whole clip, and at its end.
fn errors_db(actual: &[Vec<f32>], expected: &[Vec<f32>], edge: usize) -> [f64; 3] {
    let samples = expected[0].len();
    [0..edge, 0..samples, samples - edge..samples].map(|range| {
        let errors = actual
            .iter()
            .zip(expected)
            .map(|(a, b)| error_db(&a[range.clone()], &b[range.clone()]));
        errors.fold(f64::NEG_INFINITY, f64::max)
    })
}

#[test]
fn the_remix_equals_that_of_the_whole_clip_up_to_both_ends() {
    let model = Model::built_in().unwrap();
    let controls = Controls {
        transpose_semitones: 2,
        ..RemixSettings::default()
            .controls
            .with_share(Factor::Harmony, 0.25)
            .with_share(Factor::Rhythm, 0.75)
    };
    // Clips of all remainders of groups and averages, with a part of a frame at the end.
    for (rate, channels, mode, odd_samples) in [
        (44_100, 2, LatencyMode::Full, 0),
        (44_100, 1, LatencyMode::Full, 1100),
        (48_000, 2, LatencyMode::Full, 2300),
        (22_050, 2, LatencyMode::Full, 1600),
        (96_000, 1, LatencyMode::Full, 1),
        (44_100, 2, LatencyMode::Default, 1300),
        (44_100, 2, LatencyMode::Live, 700),
    ] {
        let [main, sidechain] = [1, 2].map(|seed| {
            let mut clip = clip(rate, seed);
            clip.channels.truncate(channels);
            let samples = clip.channels[0].len() - odd_samples;
            clip.channels
                .iter_mut()
                .for_each(|channel| channel.truncate(samples));
            clip
        });
        let settings = RemixSettings {
            controls,
            mode,
            ..RemixSettings::default()
        };
        let whole = whole_remix(&model, &main, &sidechain, &settings);
        let remix = remixer().remix(&main, &sidechain, &settings).unwrap();
        let errors = errors_db(&remix.channels, &whole, rate as usize / 20);
        let what = format!("{rate} Hz, {channels} channels, {mode:?}, {odd_samples} less");
        println!("{what}: {errors:.1?} dB");
        assert!(
            errors.iter().all(|&error| error < -80.0),
            "{what}: {errors:.1?} dB"
        );
    }
}

/// The remix that the plugin plays, with its latency compensated.
fn through_the_plugin(
    main: &AudioClip,
    sidechain: &AudioClip,
    settings: &RemixSettings,
) -> Vec<Vec<f32>> {
    const BLOCK: usize = 512;
    let rate = main.sample_rate_hz;
    let stream_settings = StreamSettings {
        sample_rate_hz: rate,
        voice: settings.voice,
        mode: settings.mode,
    };
    let stream = RemixStream::new(&Model::built_in().unwrap(), stream_settings).unwrap();
    let geometry = Geometry::new(&GeometrySettings {
        mode: settings.mode,
        frame_seconds: stream.frame_seconds(),
        sample_rate_hz: rate as f32,
        max_block_samples: BLOCK,
        processor_latency_samples: stream.latency_samples(),
    });
    let (mut audio, worker) = exchange(&geometry, SystemClock::default(), Arc::default()).unwrap();
    let _worker = Worker::spawn(worker, Box::new(stream)).unwrap();
    audio.set_patient(true);
    let samples = main.channels[0].len();
    let latency = geometry.latency_samples();
    let mut played = Vec::new();
    while played.len() < samples + latency {
        let at = |clip: &AudioClip, n: usize| {
            [0, 1].map(|c| clip.channels[c].get(n).copied().unwrap_or(0.0))
        };
        let inputs: Vec<Input> = (played.len()..played.len() + BLOCK)
            .map(|n| Input {
                main: at(main, n),
                sidechain: at(sidechain, n),
            })
            .collect();
        let mut outputs = [Output::default(); BLOCK];
        audio.begin_block(BLOCK, &Transport::default());
        audio.process(&inputs, &settings.controls, &mut outputs);
        played.extend(outputs.map(|output| output.remix));
    }
    let played = &played[latency..latency + samples];
    let channel = |c: usize| played.iter().map(|sample| sample[c]).collect();
    vec![channel(0), channel(1)]
}

#[test]
fn without_a_sidechain_the_main_input_plays_as_in_the_plugin() {
    let rate = 22_050;
    let main = stereo(rate, &music(rate, 11.0, 1));
    let mut sidechain = stereo(rate, &music(rate, 11.0, 2));
    // Missing at first, then for 5 s. A muted track is not digitally silent.
    let (begin, stop, resume) = (7_001, 3 * rate as usize, 8 * rate as usize + 123);
    let mut noise = Noise::new(1);
    for channel in &mut sidechain.channels {
        channel[..begin].fill(0.0);
        for sample in &mut channel[stop..resume] {
            *sample = 1e-6 * noise.sample();
        }
        channel[begin] = 0.3;
        channel[resume] = 0.3;
    }
    for mode in LatencyMode::ALL {
        let settings = RemixSettings {
            mode,
            ..RemixSettings::default()
        };
        let remix = remixer().remix(&main, &sidechain, &settings).unwrap();
        let remix = remix.channels;
        let gone = stop + 2 * rate as usize + rate as usize / 10;
        for (remix, main) in remix.iter().zip(&main.channels) {
            for missing in [0..begin, gone..resume] {
                assert!(remix[missing.clone()] == main[missing], "{mode:?}");
            }
            for present in [begin..stop, resume..main.len()] {
                let error = error_db(&remix[present.clone()], &main[present]);
                assert!(
                    error > -20.0,
                    "{mode:?}: the main input plays, {error:.1} dB"
                );
            }
        }
        let played = through_the_plugin(&main, &sidechain, &settings);
        // The plugin's stream goes on after the end of the clip.
        let end = main.channels[0].len() - rate as usize * 3 / 2;
        for (remix, played) in remix.iter().zip(&played) {
            let error = error_db(&remix[..end], &played[..end]);
            assert!(error < -100.0, "{mode:?}: {error:.1} dB");
        }
    }
}
