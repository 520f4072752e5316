//! The log-mel front end compared with librosa, and the stream with the whole clip.

mod signals;

use std::collections::BTreeMap;

use signals::music;
use vocoder::{
    AnalysisWindow, LogMel, MEL_FLOOR, MelConfig, MelFilterBank, MelSpectrogram, MelStream,
};

const WINDOWS: [AnalysisWindow; 2] = [AnalysisWindow::Symmetric, AnalysisWindow::LowDelay];

fn whole_clip(config: &MelConfig, samples: &[f32]) -> LogMel {
    MelSpectrogram::new(config).unwrap().log_mel(samples)
}

fn whole_clip_with(window: AnalysisWindow, samples: &[f32]) -> LogMel {
    let mut spectrogram = MelSpectrogram::with_window(&MelConfig::default(), window).unwrap();
    spectrogram.log_mel(samples)
}

fn streamed(window: AnalysisWindow, samples: &[f32], push_samples: usize) -> LogMel {
    let config = MelConfig::default();
    let mut stream = MelStream::with_window(&config, window).unwrap();
    let mut mel = LogMel::new(config.n_mels);
    for piece in samples.chunks(push_samples) {
        stream.push(piece, &mut mel);
    }
    stream.finish(&mut mel);
    mel
}

// import json, librosa, numpy as np
// x = (np.fromfile("music_excerpt.i16", "<i2") / 32768).astype(np.float32)
// S = np.abs(librosa.stft(np.pad(x, 768, mode="reflect"), n_fft=2048, hop_length=512, center=False))
// mel = librosa.filters.mel(sr=22050, n_fft=2048, n_mels=128, fmin=0, fmax=11025) @ S
// r = np.log(np.maximum(mel, 1e-5))
// json.dump({str(f): [round(float(v), 5) for v in r[:, f]] for f in (0, 6, 12)}, open("mel_reference.json", "w"))
#[test]
fn music_gives_the_numbers_of_librosa() {
    let reference: BTreeMap<usize, Vec<f32>> =
        serde_json::from_str(include_str!("data/mel_reference.json")).unwrap();
    let mel = whole_clip(&MelConfig::default(), &music());
    assert_eq!(mel.frames(), 13);
    for (frame, expected) in reference {
        for (band, (found, expected)) in mel.frame(frame).iter().zip(&expected).enumerate() {
            let error = (found - expected).abs();
            assert!(
                error < 2e-5,
                "frame {frame}, band {band}: {found}, librosa has {expected}"
            );
        }
    }
}

#[test]
fn a_stream_gives_the_whole_clip_bit_for_bit() {
    let config = MelConfig::default();
    let music = music();
    for window in WINDOWS {
        for clip_samples in [0, 1, 2, 511, 512, 600, 1024, 1279, 1280, 2048, 5000, 6700] {
            let whole = whole_clip_with(window, &music[..clip_samples]);
            assert_eq!(whole.frames(), config.frames(clip_samples));
            for push_samples in [1, 7, 512, 700, 4096] {
                let stream = streamed(window, &music[..clip_samples], push_samples);
                assert!(
                    stream == whole,
                    "{window:?}, {clip_samples} samples in pushes of {push_samples}"
                );
            }
        }
    }
}

#[test]
fn a_frame_appears_with_its_last_sample() {
    let config = MelConfig::default();
    for (window, needed) in [
        (AnalysisWindow::Symmetric, 1280),
        (AnalysisWindow::LowDelay, 865),
    ] {
        assert_eq!(config.analysis_samples(window), needed);
        let mut stream = MelStream::with_window(&config, window).unwrap();
        let mut mel = LogMel::new(config.n_mels);
        for (pushed, sample) in music().into_iter().enumerate() {
            stream.push(&[sample], &mut mel);
            let complete = (pushed + 1 + 512).saturating_sub(needed) / 512;
            assert_eq!(mel.frames(), complete, "after {} samples", pushed + 1);
        }
    }
}

#[test]
fn a_low_delay_window_hears_steady_sound_and_the_times_of_strokes_as_a_symmetric_one() {
    let config = MelConfig::default();
    let samples = 80 * 512;
    let tone: Vec<f32> = (0..samples).map(|n| 0.3 * (n as f32 * 0.1).sin()).collect();
    let [symmetric, low_delay] = WINDOWS.map(|window| whole_clip_with(window, &tone));
    let loudest = config
        .band_at_hz(0.1 / std::f64::consts::TAU * 22_050.0)
        .round() as usize;
    let (a, b) = (symmetric.frame(40)[loudest], low_delay.frame(40)[loudest]);
    assert!((a - b).abs() < 0.05, "{a} {b}");

    // The centre of gravity in time of clicks, over all of their positions in a hop.
    let centre = |window| {
        let clicks = (0..64).map(|step| {
            let mut click = vec![0.0; samples];
            click[40 * 512 + 8 * step] = 1.0;
            let mel = whole_clip_with(window, &click);
            let power = |frame: usize| (2.0 * f64::from(mel.frame(frame)[100])).exp();
            let frames = 20..60;
            let sum: f64 = frames.clone().map(power).sum();
            let moment: f64 = frames.map(|frame| frame as f64 * power(frame)).sum();
            moment / sum
        });
        clicks.sum::<f64>() / 64.0
    };
    let [a, b] = WINDOWS.map(centre);
    assert!((a - b).abs() < 0.05, "{a} {b}");
}

#[test]
fn a_stream_starts_afresh_after_finish_and_reset() {
    let config = MelConfig::default();
    let music = music();
    let whole = whole_clip(&config, &music);
    let mut stream = MelStream::new(&config).unwrap();
    stream.push(&music[..3000], &mut LogMel::new(config.n_mels));
    stream.reset();
    for _ in 0..2 {
        let mut mel = LogMel::new(config.n_mels);
        stream.push(&music, &mut mel);
        stream.finish(&mut mel);
        assert!(mel == whole);
    }
}

// numpy.pad reflects a clip shorter than its padding again and again:
// x = np.sin(0.1 * np.arange(600)).astype(np.float32), then as above, r[[0, 9, 20, 60], 0]
#[test]
fn a_clip_shorter_than_its_padding_is_reflected_again_and_again() {
    let clip: Vec<f32> = (0..600).map(|n| (0.1 * n as f32).sin()).collect();
    let mel = whole_clip(&MelConfig::default(), &clip);
    assert_eq!(mel.frames(), 1);
    for (band, expected) in SHORT_CLIP {
        let found = mel.frame(0)[band];
        assert!((found - expected).abs() < 1e-4, "{found}, not {expected}");
    }
}

const SHORT_CLIP: [(usize, f32); 4] = [(0, 0.56898), (9, 1.55865), (20, 0.25762), (60, -2.57726)];

#[test]
fn no_input_gives_anything_but_finite_numbers() {
    let config = MelConfig::default();
    let silence = whole_clip(&config, &[0.0; 4096]);
    assert!(
        silence
            .values()
            .iter()
            .all(|&value| value == MEL_FLOOR.ln())
    );
    for sample in [
        1.0,
        -1.0,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
    ] {
        let mel = whole_clip(&config, &[sample; 4096]);
        assert!(mel.values().iter().all(|value| value.is_finite()));
    }
}

#[test]
fn every_band_of_the_default_has_bins() {
    let config = MelConfig::default();
    let filter_bank = MelFilterBank::new(&config).unwrap();
    let mut mel = vec![0.0; filter_bank.n_mels()];
    filter_bank.apply(&vec![1.0; filter_bank.n_bins()], &mut mel);
    assert!(mel.iter().all(|&value| value > 0.0));
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let good = MelConfig::default();
    let refused = [
        (
            "sample_rate_hz",
            MelConfig {
                sample_rate_hz: 0,
                ..good.clone()
            },
        ),
        (
            "n_fft",
            MelConfig {
                n_fft: 2047,
                ..good.clone()
            },
        ),
        (
            "hop_length",
            MelConfig {
                hop_length: 0,
                ..good.clone()
            },
        ),
        (
            "hop_length",
            MelConfig {
                hop_length: 4096,
                ..good.clone()
            },
        ),
        (
            "n_mels",
            MelConfig {
                n_mels: 0,
                ..good.clone()
            },
        ),
        (
            "f_max_hz",
            MelConfig {
                f_max_hz: f32::NAN,
                ..good.clone()
            },
        ),
        (
            "f_min_hz",
            MelConfig {
                f_min_hz: 12_000.0,
                ..good.clone()
            },
        ),
    ];
    for (setting, config) in refused {
        let error = MelSpectrogram::new(&config).err().unwrap().to_string();
        assert!(error.starts_with(setting), "{error}");
    }
    assert!(LogMel::from_values(128, vec![0.0; 129]).is_err());
}
