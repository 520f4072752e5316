//! The guided voice: what it keeps and what it changes, and when its output is final.

mod signals;

use signals::{error_db, music, noise, rms, tone};
use vocoder::guided::{FrameControls, GuidedConfig, GuidedVoice};
use vocoder::{AnalysisWindow, LogMel, MelConfig, MelSpectrogram};

/// Host rates with hops of whole and of fractional samples.
const RATES_HZ: [u32; 6] = [22_050, 44_100, 48_000, 88_200, 96_000, 192_000];

/// A clip for the voice: both sources, decoded mel and knobs.
struct Clip {
    main: Vec<Vec<f32>>,
    sidechain: Vec<Vec<f32>>,
    decoded: LogMel,
    controls: Vec<FrameControls>,
}

fn knobs(harmony: f32, rhythm: f32) -> FrameControls {
    FrameControls {
        harmony,
        rhythm,
        ..FrameControls::default()
    }
}

fn refs(channels: &[Vec<f32>]) -> Vec<&[f32]> {
    channels.iter().map(Vec::as_slice).collect()
}

/// The number of frames that the model has for a clip.
fn model_frames(samples: usize, sample_rate_hz: u32) -> usize {
    samples * 22_050 / sample_rate_hz as usize / 512
}

/// A mel above any other, so that every gain is at its limit.
fn loud_mel(frames: usize) -> LogMel {
    LogMel::from_values(128, vec![20.0; frames * 128]).unwrap()
}

/// Limits all gains to 1.
fn transparent(sample_rate_hz: u32, channels: usize) -> GuidedConfig {
    GuidedConfig {
        gain_limit: 1.0,
        ..GuidedConfig::new(MelConfig::default(), sample_rate_hz, channels)
    }
}

fn whole(config: &GuidedConfig, clip: &Clip) -> Vec<Vec<f32>> {
    let mut voice = GuidedVoice::new(config).unwrap();
    let mut out = vec![Vec::new(); config.channels];
    voice
        .push_audio(&refs(&clip.main), &refs(&clip.sidechain))
        .unwrap();
    voice.push_mel(&clip.decoded, &clip.controls).unwrap();
    voice.finish(&mut out).unwrap();
    out
}

fn stereo_noise(seed: u32, samples: usize) -> Vec<Vec<f32>> {
    vec![noise(seed, samples), noise(seed + 1, samples)]
}

#[test]
fn one_source_at_unit_gain_comes_out_as_it_went_in() {
    for rate in RATES_HZ {
        for channels in [1, 2] {
            let samples = rate as usize / 2 + 77;
            let frames = model_frames(samples, rate);
            for (knob, synthesis_hops, window) in [
                (0.0, 4, AnalysisWindow::Symmetric),
                (1.0, 4, AnalysisWindow::Symmetric),
                (0.0, 2, AnalysisWindow::Symmetric),
                (1.0, 3, AnalysisWindow::Symmetric),
                (0.0, 2, AnalysisWindow::LowDelay),
            ] {
                let clip = Clip {
                    main: stereo_noise(1, samples)[..channels].to_vec(),
                    sidechain: stereo_noise(3, samples)[..channels].to_vec(),
                    decoded: loud_mel(frames),
                    controls: vec![knobs(knob, knob); frames],
                };
                let config = GuidedConfig {
                    synthesis_hops,
                    window,
                    ..transparent(rate, channels)
                };
                let out = whole(&config, &clip);
                let source = if knob == 0.0 {
                    &clip.main
                } else {
                    &clip.sidechain
                };
                for (out, source) in out.iter().zip(source) {
                    let error = error_db(out, source);
                    assert!(error < -110.0, "{rate} Hz, knobs at {knob}: {error} dB");
                }
            }
        }
    }
}

/// Deterministic audio, mels and knobs that all vary.
fn lively_clip(rate: u32, samples: usize) -> Clip {
    let frames = model_frames(samples, rate);
    let values = noise(9, frames * 128).iter().map(|x| 2.0 * x).collect();
    let mut main = stereo_noise(5, samples);
    for channel in &mut main {
        // A change of level by 20 dB.
        channel[samples / 2..].iter_mut().for_each(|x| *x *= 0.1);
    }
    Clip {
        main,
        sidechain: vec![tone(440.0, rate, samples), tone(660.0, rate, samples)],
        decoded: LogMel::from_values(128, values).unwrap(),
        controls: (0..frames)
            .map(|i| FrameControls {
                transpose_semitones: (i / 4 % 3) as i32 - 1,
                ..knobs((i % 5) as f32 / 4.0, (i % 3) as f32 / 2.0)
            })
            .collect(),
    }
}

#[test]
fn output_does_not_depend_on_how_the_input_is_cut() {
    let live = |rate| GuidedConfig {
        window: AnalysisWindow::LowDelay,
        look_ahead_frames: Some(1),
        synthesis_hops: 2,
        ..GuidedConfig::new(MelConfig::default(), rate, 2)
    };
    let default = |rate| GuidedConfig::new(MelConfig::default(), rate, 2);
    for (config, samples) in [
        (default(22_050), 15_000),
        (default(48_000), 30_001),
        (default(44_100), 600),
        (default(44_100), 100),
        (live(48_000), 30_001),
        (live(44_100), 600),
    ] {
        let rate = config.sample_rate_hz;
        let clip = lively_clip(rate, samples);
        let expected = whole(&config, &clip);
        assert!(expected.iter().all(|channel| channel.len() == samples));
        let frames = clip.decoded.frames();
        for (push_samples, push_frames) in [(1, 1), (64, 7), (1000, 3), (4096, frames.max(1))] {
            let mut voice = GuidedVoice::new(&config).unwrap();
            let mut out = vec![Vec::new(); 2];
            let mut next_frame = 0;
            for start in (0..samples).step_by(push_samples) {
                let end = (start + push_samples).min(samples);
                let piece = |source: &[Vec<f32>]| -> Vec<Vec<f32>> {
                    source
                        .iter()
                        .map(|channel| channel[start..end].to_vec())
                        .collect()
                };
                let (main, sidechain) = (piece(&clip.main), piece(&clip.sidechain));
                voice.push_audio(&refs(&main), &refs(&sidechain)).unwrap();
                // Mel frames arrive late, as from a model.
                while (next_frame + push_frames) * 2600 < end {
                    push_mel_frames(&mut voice, &clip, next_frame, next_frame + push_frames);
                    next_frame += push_frames;
                }
                voice.pull(&mut out).unwrap();
            }
            push_mel_frames(&mut voice, &clip, next_frame, frames);
            voice.finish(&mut out).unwrap();
            assert!(
                out == expected,
                "{rate} Hz, pushes of {push_samples} and {push_frames}"
            );
        }
    }
}

fn push_mel_frames(voice: &mut GuidedVoice, clip: &Clip, start: usize, end: usize) {
    let (start, end) = (start.min(clip.controls.len()), end.min(clip.controls.len()));
    let mut decoded = LogMel::new(128);
    (start..end).for_each(|frame| decoded.push_frame(clip.decoded.frame(frame)));
    voice
        .push_mel(&decoded, &clip.controls[start..end])
        .unwrap();
}

#[test]
fn output_is_final_exactly_when_it_says_so() {
    for (rate, median_frames, synthesis_hops, look_ahead_frames, window) in [
        (22_050, 9, 4, None, AnalysisWindow::Symmetric),
        (44_100, 11, 3, None, AnalysisWindow::Symmetric),
        (48_000, 17, 2, None, AnalysisWindow::Symmetric),
        (48_000, 7, 4, None, AnalysisWindow::Symmetric),
        (48_000, 7, 2, None, AnalysisWindow::LowDelay),
        (44_100, 7, 2, Some(1), AnalysisWindow::LowDelay),
    ] {
        let config = GuidedConfig {
            median_frames,
            synthesis_hops,
            look_ahead_frames,
            window,
            ..GuidedConfig::new(MelConfig::default(), rate, 1)
        };
        let signal = noise(2, 40_000);
        let mut voice = GuidedVoice::new(&config).unwrap();
        voice
            .push_mel(&loud_mel(100), &[knobs(0.0, 0.0); 100])
            .unwrap();
        let mut out = [Vec::new()];
        let mut most_behind = 0;
        for (newest, sample) in signal.iter().enumerate() {
            voice.push_audio(&[&[*sample]], &[&[0.0]]).unwrap();
            voice.pull(&mut out).unwrap();
            let (pushed, pulled) = (newest + 1, out[0].len());
            assert!(voice.samples_needed(pulled) <= pushed);
            assert!(voice.samples_needed(pulled + 1) > pushed);
            // Output sample `pulled` is not final although input sample `newest` was pushed.
            most_behind = most_behind.max((newest + 1).saturating_sub(pulled));
        }
        assert_eq!(most_behind, voice.latency_samples(), "{rate} Hz");
    }
}

#[test]
fn output_waits_for_its_mel_frames_and_no_longer() {
    let mut voice = GuidedVoice::new(&GuidedConfig::new(MelConfig::default(), 48_000, 1)).unwrap();
    let signal = noise(2, 60_000);
    voice.push_audio(&[&signal], &[&signal]).unwrap();
    let mut out = [Vec::new()];
    for frames in 1..30 {
        voice.push_mel(&loud_mel(1), &[knobs(0.0, 0.0)]).unwrap();
        voice.pull(&mut out).unwrap();
        let pulled = out[0].len();
        assert!(voice.frames_needed(pulled) <= frames);
        assert!(voice.frames_needed(pulled + 1) > frames);
    }
}

#[test]
fn a_reset_voice_starts_afresh() {
    let config = GuidedConfig::new(MelConfig::default(), 44_100, 2);
    let clip = lively_clip(44_100, 12_000);
    let expected = whole(&config, &clip);
    let mut voice = GuidedVoice::new(&config).unwrap();
    voice
        .push_audio(&refs(&clip.sidechain), &refs(&clip.main))
        .unwrap();
    voice
        .push_mel(&clip.decoded, &vec![knobs(0.9, 0.1); clip.controls.len()])
        .unwrap();
    voice.reset();
    for _ in 0..2 {
        let mut out = vec![Vec::new(); 2];
        voice
            .push_audio(&refs(&clip.main), &refs(&clip.sidechain))
            .unwrap();
        voice.push_mel(&clip.decoded, &clip.controls).unwrap();
        voice.finish(&mut out).unwrap();
        assert!(out == expected);
    }
}

#[test]
fn the_mel_of_the_output_becomes_the_decoded_mel() {
    let config = GuidedConfig::new(MelConfig::default(), 22_050, 1);
    let music = music();
    let mut analysis = MelSpectrogram::new(&config.mel).unwrap();
    let source = analysis.log_mel(&music);
    // Louder, quieter, and with about every second octave attenuated.
    let decoded: Vec<f32> = (source.values().iter().enumerate())
        .map(|(i, value)| value + [0.7, -0.7, -2.0][i % 128 / 16 % 3])
        .collect();
    let decoded = LogMel::from_values(128, decoded).unwrap();
    let frames = decoded.frames();
    let clip = Clip {
        main: vec![music.clone()],
        sidechain: vec![vec![0.0; music.len()]],
        decoded: decoded.clone(),
        controls: vec![knobs(0.0, 0.0); frames],
    };
    let mut voice = GuidedVoice::new(&config).unwrap();
    let mut out = [Vec::new()];
    voice
        .push_audio(&refs(&clip.main), &refs(&clip.sidechain))
        .unwrap();
    voice.push_mel(&clip.decoded, &clip.controls).unwrap();
    voice.finish(&mut out).unwrap();
    // Before the loudness of the output is set.
    let gains = voice.output_gains();
    assert_eq!(gains.len(), music.len());
    let matched: Vec<f32> = out[0].iter().zip(gains).map(|(x, gain)| x / gain).collect();
    let found = analysis.log_mel(&matched);
    let distance = |a: &LogMel| {
        let differences = a
            .values()
            .iter()
            .zip(decoded.values())
            .map(|(a, b)| (a - b).abs());
        differences.sum::<f32>() / a.values().len() as f32
    };
    let (before, after) = (distance(&source), distance(&found));
    assert!(
        after < 0.15 * before,
        "mel distance from {before} to {after}"
    );
}

#[test]
fn knobs_choose_tone_and_strokes_by_source() {
    let rate = 44_100;
    let samples = 2 * rate as usize;
    let frames = model_frames(samples, rate);
    let strokes = |offset: usize| -> Vec<f32> {
        let mut signal = vec![0.0; samples];
        (offset..samples)
            .step_by(20_000)
            .for_each(|n| signal[n] = 1.0);
        signal
    };
    let (main_tone, main_strokes) = (tone(500.0, rate, samples), strokes(7_000));
    let (sidechain_tone, sidechain_strokes) = (tone(800.0, rate, samples), strokes(16_000));
    for (harmony, rhythm) in [(0.0, 1.0), (1.0, 0.0)] {
        let clip = Clip {
            main: vec![sum(&main_tone, &main_strokes)],
            sidechain: vec![sum(&sidechain_tone, &sidechain_strokes)],
            decoded: loud_mel(frames),
            controls: vec![knobs(harmony, rhythm); frames],
        };
        let out = &whole(&transparent(rate, 1), &clip)[0];
        let expected = if harmony == 0.0 {
            sum(&main_tone, &sidechain_strokes)
        } else {
            sum(&sidechain_tone, &main_strokes)
        };
        // Ignore the ends: the mirrored tone is a transient there.
        let inside = 8_000..samples - 8_000;
        let error = error_db(&out[inside.clone()], &expected[inside]);
        assert!(
            error < -12.0,
            "harmony {harmony}, rhythm {rhythm}: {error} dB"
        );
    }
}

#[test]
fn the_stereo_image_stays() {
    let samples = 20_000;
    let frames = model_frames(samples, 44_100);
    let left = noise(1, samples);
    let right: Vec<f32> = left.iter().map(|x| -0.25 * x).collect();
    let clip = Clip {
        main: vec![left.clone(), right],
        sidechain: vec![left.clone(), left],
        decoded: lively_clip(44_100, samples).decoded,
        controls: vec![knobs(0.0, 0.0); frames],
    };
    let out = whole(&GuidedConfig::new(MelConfig::default(), 44_100, 2), &clip);
    let expected: Vec<f32> = out[0].iter().map(|x| -0.25 * x).collect();
    assert!(rms(&out[0]) > 1e-3);
    assert!(error_db(&out[1], &expected) < -100.0);
}

#[test]
fn sound_above_the_models_range_follows_the_top_band() {
    let (rate, samples) = (44_100, 40_000);
    let frames = model_frames(samples, rate);
    let air = tone(15_000.0, rate, samples);
    let level_with_top_band_at = |log_mel: f32| {
        let mut values = vec![0.0; frames * 128];
        values
            .iter_mut()
            .skip(127)
            .step_by(128)
            .for_each(|value| *value = log_mel);
        let clip = Clip {
            main: vec![air.clone()],
            sidechain: vec![vec![0.0; samples]],
            decoded: LogMel::from_values(128, values).unwrap(),
            controls: vec![knobs(0.0, 0.0); frames],
        };
        rms(&whole(&transparent(rate, 1), &clip)[0])
    };
    assert!((level_with_top_band_at(5.0) / rms(&air) - 1.0).abs() < 1e-3);
    assert!(level_with_top_band_at(-20.0) < 1e-2 * rms(&air));
}

#[test]
fn no_input_gives_anything_but_finite_numbers() {
    let (rate, samples) = (44_100, 15_000);
    let frames = model_frames(samples, rate);
    let silence = vec![0.0; samples];
    let mut strange = noise(1, samples);
    for (n, value) in [f32::NAN, f32::INFINITY, f32::MAX, -f32::MAX]
        .into_iter()
        .enumerate()
    {
        strange[1000 * n + 500] = value;
    }
    for signal in [
        silence.clone(),
        vec![1.0; samples],
        noise(4, samples),
        strange,
    ] {
        for log_mel in [-11.5, 0.0, 100.0, f32::NAN, f32::NEG_INFINITY] {
            let clip = Clip {
                main: vec![signal.clone()],
                sidechain: vec![silence.clone()],
                decoded: LogMel::from_values(128, vec![log_mel; frames * 128]).unwrap(),
                controls: vec![knobs(f32::NAN, -3.0); frames],
            };
            let out = &whole(&GuidedConfig::new(MelConfig::default(), rate, 1), &clip)[0];
            assert!(out.iter().all(|x| x.is_finite()));
            if signal == silence {
                assert!(*out == silence);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_in_so_many_words() {
    let good = GuidedConfig::new(MelConfig::default(), 44_100, 2);
    let refused = [
        (
            "sample_rate_hz",
            GuidedConfig {
                sample_rate_hz: 100,
                ..good.clone()
            },
        ),
        (
            "channels",
            GuidedConfig {
                channels: 3,
                ..good.clone()
            },
        ),
        (
            "median_frames",
            GuidedConfig {
                median_frames: 8,
                ..good.clone()
            },
        ),
        (
            "synthesis_hops",
            GuidedConfig {
                window: AnalysisWindow::LowDelay,
                ..good.clone()
            },
        ),
        (
            "gain_limit",
            GuidedConfig {
                gain_limit: f32::NAN,
                ..good.clone()
            },
        ),
    ];
    for (setting, config) in refused {
        let error = GuidedVoice::new(&config).err().unwrap().to_string();
        assert!(error.starts_with(setting), "{error}");
    }

    let mut voice = GuidedVoice::new(&good).unwrap();
    let (short, long) = (&[0.0; 10][..], &[0.0; 11][..]);
    assert!(voice.push_audio(&[short], &[short, short]).is_err());
    assert!(voice.push_audio(&[short, short], &[short, long]).is_err());
    assert!(voice.push_mel(&LogMel::new(80), &[]).is_err());
    assert!(voice.push_mel(&loud_mel(2), &[knobs(0.0, 0.0)]).is_err());
    assert!(voice.pull(&mut [Vec::new()]).is_err());
    assert!(voice.finish(&mut []).is_err());
}

#[test]
fn a_transposed_tone_has_its_new_pitch_and_keeps_its_level() {
    for rate in [22_050, 44_100, 48_000] {
        let samples = 2 * rate as usize;
        let frames = model_frames(samples, rate);
        for (hz, semitones) in [(440.0, 5), (440.0, -7), (150.0, 1), (1234.5, 8)] {
            for synthesis_hops in [2, 4] {
                let config = GuidedConfig {
                    synthesis_hops,
                    ..transparent(rate, 1)
                };
                let clip = Clip {
                    main: vec![tone(hz, rate, samples)],
                    sidechain: vec![vec![0.0; samples]],
                    decoded: loud_mel(frames),
                    controls: vec![
                        FrameControls {
                            transpose_semitones: semitones,
                            ..knobs(0.0, 0.0)
                        };
                        frames
                    ],
                };
                let out = &whole(&config, &clip)[0];
                let inner = &out[samples / 4..samples * 3 / 4];
                let expected_hz = hz * (semitones as f32 / 12.0).exp2();
                // The residual after fitting a sine of the new pitch.
                let step = std::f64::consts::TAU * f64::from(expected_hz) / f64::from(rate);
                let project = |wave: fn(f64) -> f64| -> f64 {
                    let dot = inner
                        .iter()
                        .enumerate()
                        .map(|(n, &x)| f64::from(x) * wave(step * n as f64));
                    2.0 * dot.sum::<f64>() / inner.len() as f64
                };
                let (a, b) = (project(f64::cos), project(f64::sin));
                let fitted: Vec<f32> = (0..inner.len())
                    .map(|n| (a * (step * n as f64).cos() + b * (step * n as f64).sin()) as f32)
                    .collect();
                let error = error_db(inner, &fitted);
                let level = rms(inner) / rms(&clip.main[0]);
                let what = format!("{rate} Hz, {hz} Hz by {semitones}, {synthesis_hops} hops");
                println!("{what}: {error:.1} dB off a sine, level {level:.3}");
                assert!(
                    error < -12.0 && (0.8..1.2).contains(&level),
                    "{what}: {error} dB, {level}"
                );
            }
        }
    }
}

const SCENE_HZ: u32 = 22_050;
const MAIN_HZ: [f32; 3] = [330.0, 660.0, 1650.0];
const SIDECHAIN_HZ: [f32; 3] = [466.0, 932.0, 2330.0];

/// Chords of both sources, and strokes of noise of the sidechain.
struct Scene {
    main: Vec<f32>,
    sidechain_chord: Vec<f32>,
    strokes: Vec<f32>,
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn scaled(gain: f32, samples: &[f32]) -> Vec<f32> {
    samples.iter().map(|x| gain * x).collect()
}

fn scene() -> Scene {
    let samples = 8 * SCENE_HZ as usize;
    let chord = |tones_hz: [f32; 3]| -> Vec<f32> {
        let tones = tones_hz.map(|hz| tone(hz, SCENE_HZ, samples));
        (0..samples)
            .map(|n| 0.2 * tones.iter().map(|tone| tone[n]).sum::<f32>())
            .collect()
    };
    let noise = noise(1, samples);
    Scene {
        main: chord(MAIN_HZ),
        sidechain_chord: chord(SIDECHAIN_HZ),
        strokes: (0..samples)
            .map(|n| 0.5 * noise[n] * (-((n % 9_000) as f32) / 600.0).exp())
            .collect(),
    }
}

impl Scene {
    fn sidechain(&self) -> Vec<f32> {
        sum(&self.sidechain_chord, &self.strokes)
    }

    /// The scene with the main input at `main_gain` times its level, and knobs at 0 or 1. As from a network, the decoded
    /// mel has the level of the source of the rhythm, but not exactly: it is 6 dB softer.
    fn play(&self, main_gain: f32, harmony: f32, rhythm: f32) -> Vec<f32> {
        let chord = match harmony {
            0.0 => &self.main,
            _ => &self.sidechain_chord,
        };
        let remix = match rhythm {
            0.0 => scaled(main_gain, chord),
            _ => sum(chord, &self.strokes),
        };
        let mut analysis = MelSpectrogram::new(&MelConfig::default()).unwrap();
        let decoded = analysis.log_mel(&scaled(0.5, &remix));
        let clip = Clip {
            main: vec![scaled(main_gain, &self.main)],
            sidechain: vec![self.sidechain()],
            controls: vec![knobs(harmony, rhythm); decoded.frames()],
            decoded,
        };
        let config = GuidedConfig::new(MelConfig::default(), SCENE_HZ, 1);
        whole(&config, &clip).remove(0)
    }
}

/// Amplitude of the tone at `hz`.
fn amplitude_at(hz: f32, samples: &[f32]) -> f32 {
    let step = std::f64::consts::TAU * f64::from(hz) / f64::from(SCENE_HZ);
    let project = |wave: fn(f64) -> f64| -> f64 {
        let products = samples.iter().enumerate();
        products
            .map(|(n, &x)| f64::from(x) * wave(step * n as f64))
            .sum()
    };
    let amplitude = project(f64::cos).hypot(project(f64::sin));
    (2.0 * amplitude / samples.len() as f64) as f32
}

#[test]
fn levels_of_the_sources_do_not_decide_what_is_heard() {
    let scene = scene();
    let settled = 2 * SCENE_HZ as usize..7 * SCENE_HZ as usize;
    let at = |gain_db: f32| {
        let out = scene.play(10f32.powf(gain_db / 20.0), 0.0, 1.0);
        let out = &out[settled.clone()];
        let level = rms(out);
        out.iter().map(|x| x / level).collect::<Vec<f32>>()
    };
    let matched = at(0.0);
    for gain_db in [-18.0, -12.0, -6.0, 6.0, 12.0, 18.0] {
        let out = at(gain_db);
        let error = error_db(&out, &matched);
        assert!(error < -20.0, "main at {gain_db} dB: {error} dB");
        for (main_hz, sidechain_hz) in MAIN_HZ.into_iter().zip(SIDECHAIN_HZ) {
            let (main, sidechain) = (
                amplitude_at(main_hz, &out),
                amplitude_at(sidechain_hz, &out),
            );
            assert!(
                sidechain < 0.05 * main,
                "main at {gain_db} dB, {main_hz} Hz: {main}, {sidechain_hz} Hz: {sidechain}"
            );
        }
        // Strokes: what is left without the chord follows those of the sidechain.
        let stroke_level = |range: std::ops::Range<usize>| rms(&out[range]);
        let first = 9_000 * 5 - settled.start;
        let (stroke, pause) = (
            stroke_level(first..first + 1_000),
            stroke_level(first + 6_000..first + 8_000),
        );
        assert!(
            stroke > 1.5 * pause,
            "main at {gain_db} dB: {stroke} {pause}"
        );
    }
}

#[test]
fn with_both_knobs_at_one_source_the_loudness_is_that_of_the_source() {
    let scene = scene();
    let settled = 4 * SCENE_HZ as usize..7 * SCENE_HZ as usize;
    for gain_db in [-18.0_f32, 0.0, 12.0] {
        let gain = 10f32.powf(gain_db / 20.0);
        let (main, sidechain) = (scaled(gain, &scene.main), scene.sidechain());
        for (knob, source) in [(0.0, &main), (1.0, &sidechain)] {
            let out = scene.play(gain, knob, knob);
            let (found, expected) = (rms(&out[settled.clone()]), rms(&source[settled.clone()]));
            let off_db = 20.0 * (found / expected).log10();
            assert!(
                off_db.abs() < 1.0,
                "{gain_db} dB, knobs at {knob}: {off_db} dB"
            );
        }
        // Tones of the one and strokes of the other. The voice weights the loudness by frequency, which RMS does not.
        let out = scene.play(gain, 0.0, 1.0);
        let mixture = sum(&main, &scene.strokes);
        let off_db = 20.0 * (rms(&out[settled.clone()]) / rms(&mixture[settled.clone()])).log10();
        assert!(off_db.abs() < 2.0, "{gain_db} dB: {off_db} dB");
    }
}

#[test]
fn a_change_of_level_leaves_no_seam() {
    let scene = scene();
    let samples = scene.main.len();
    // The sidechain gets 12 dB softer; the chord of the main input goes on.
    let change = samples / 2;
    let mut quieter = scene.sidechain();
    quieter[change..].iter_mut().for_each(|x| *x *= 0.25);
    let frames = model_frames(samples, SCENE_HZ);
    let clip = Clip {
        main: vec![scene.main.clone()],
        sidechain: vec![quieter],
        decoded: loud_mel(frames),
        controls: vec![knobs(0.0, 1.0); frames],
    };
    let out = whole(&transparent(SCENE_HZ, 1), &clip).remove(0);
    let amplitudes: Vec<f32> = out[SCENE_HZ as usize..]
        .chunks_exact(512)
        .map(|hop| amplitude_at(MAIN_HZ[0], hop))
        .collect();
    let change = (change - SCENE_HZ as usize) / 512;
    let most = |pairs: &[f32]| {
        let steps = pairs
            .windows(2)
            .map(|pair| (pair[1] / pair[0]).log10().abs());
        20.0 * steps.fold(0.0, f32::max)
    };
    let (at_rest, at_change) = (
        most(&amplitudes[..change - 8]),
        most(&amplitudes[change - 8..change + 40]),
    );
    assert!(at_change < at_rest + 0.5, "{at_rest} dB, {at_change} dB");
}

#[test]
fn the_hum_of_a_silent_source_stays_inaudible() {
    let scene = scene();
    let samples = scene.main.len();
    let frames = model_frames(samples, SCENE_HZ);
    let clip = Clip {
        main: vec![scaled(3e-5, &tone(MAIN_HZ[2], SCENE_HZ, samples))],
        sidechain: vec![scene.sidechain()],
        decoded: loud_mel(frames),
        controls: vec![knobs(0.0, 1.0); frames],
    };
    let config = GuidedConfig::new(MelConfig::default(), SCENE_HZ, 1);
    let out = whole(&config, &clip).remove(0);
    // Between two strokes.
    let hum = amplitude_at(MAIN_HZ[2], &out[96_000..98_000]);
    assert!(rms(&out) > 0.05 && hum < 0.005, "{hum}");
}

#[test]
fn strokes_stay_where_they_are_and_sharper_than_a_long_window() {
    for rate in RATES_HZ {
        let samples = rate as usize;
        let frames = model_frames(samples, rate);
        let stroke = samples / 2 + 123;
        // A click, and a burst of noise that decays.
        let mut click = vec![0.0; samples];
        click[stroke] = 1.0;
        let mut burst = noise(3, samples);
        for (n, x) in burst.iter_mut().enumerate() {
            let seconds = (n as f32 - stroke as f32) / rate as f32;
            *x *= if seconds < 0.0 {
                0.0
            } else {
                (-seconds / 0.02).exp()
            };
        }
        // Gains that rise at the stroke, as a long window sees it.
        let mut levels = vec![-3.0; frames * 128];
        let frame = stroke * 22_050 / rate as usize / 512;
        levels[frame * 128..(frame + 2) * 128].fill(20.0);
        for (synthesis_hops, window) in [
            (2, AnalysisWindow::Symmetric),
            (3, AnalysisWindow::Symmetric),
            (4, AnalysisWindow::Symmetric),
            (2, AnalysisWindow::LowDelay),
        ] {
            let play = |sidechain: &[f32]| {
                let clip = Clip {
                    main: vec![vec![0.0; samples]],
                    sidechain: vec![sidechain.to_vec()],
                    decoded: LogMel::from_values(128, levels.clone()).unwrap(),
                    controls: vec![knobs(0.0, 1.0); frames],
                };
                let config = GuidedConfig {
                    synthesis_hops,
                    window,
                    ..transparent(rate, 1)
                };
                whole(&config, &clip).remove(0)
            };
            let what = format!("{rate} Hz, {synthesis_hops} hops, {window:?}");
            let out = play(&click);
            let loudest = (0..samples).max_by(|&a, &b| out[a].abs().total_cmp(&out[b].abs()));
            assert_eq!(loudest, Some(stroke), "{what}");
            // From half a long window before the stroke to half a short one.
            let out = play(&burst);
            let at = |seconds: f32| (stroke as f32 + seconds * rate as f32) as usize;
            let before = rms(&out[at(-0.046)..at(-0.0245)]);
            let after = rms(&out[stroke..at(0.02)]);
            assert!(
                after > 1e-2 && before < 1e-3 * after,
                "{what}: {before} {after}"
            );
        }
    }
}

#[test]
fn a_small_turn_of_a_knob_is_a_small_change() {
    let scene = scene();
    let frames = model_frames(scene.main.len(), SCENE_HZ);
    let play = |rhythm: f32| {
        let clip = Clip {
            main: vec![scene.sidechain()],
            sidechain: vec![scene.main.clone()],
            decoded: loud_mel(frames),
            controls: vec![knobs(0.0, rhythm); frames],
        };
        whole(&transparent(SCENE_HZ, 1), &clip).remove(0)
    };
    let together = play(0.0);
    let error = error_db(&play(0.01), &together);
    assert!(error < -25.0, "{error} dB");
}
