//! The voice that shapes whole sources: what it keeps and what it changes, and when its output is final.

mod signals;

use signals::{error_db, music, noise, rms, tone};
use vocoder::guided::{GuidedConfig, ShapedControls, ShapedVoice};
use vocoder::{AnalysisWindow, LogMel, MelConfig, MelSpectrogram};

fn knobs(pitch: f32, variation: f32) -> ShapedControls {
    ShapedControls {
        pitch,
        variation,
        transpose_semitones: 0,
    }
}

fn config(sample_rate_hz: u32, channels: usize) -> GuidedConfig {
    GuidedConfig::new(MelConfig::default(), sample_rate_hz, channels)
}

/// As in the mode Live.
fn live(sample_rate_hz: u32, channels: usize) -> GuidedConfig {
    GuidedConfig {
        window: AnalysisWindow::LowDelay,
        synthesis_hops: 2,
        ..config(sample_rate_hz, channels)
    }
}

/// A mel above any other, so that every gain is at its limit.
fn loud_mel(frames: usize) -> LogMel {
    LogMel::from_values(128, vec![20.0; frames * 128]).unwrap()
}

fn whole(
    config: &GuidedConfig,
    [main, sidechain]: [&[f32]; 2],
    decoded: &LogMel,
    controls: ShapedControls,
) -> Vec<f32> {
    let mut voice = ShapedVoice::new(config).unwrap();
    let mut out = [Vec::new()];
    voice.push_audio(&[main], &[sidechain]).unwrap();
    voice
        .push_mel(decoded, &vec![controls; decoded.frames()])
        .unwrap();
    voice.finish(&mut out).unwrap();
    let [out] = out;
    assert_eq!(out.len(), main.len());
    out
}

#[test]
fn one_source_at_unit_gain_comes_out_as_it_went_in() {
    for rate in [22_050, 44_100, 48_000, 96_000] {
        let samples = rate as usize / 2 + 77;
        let decoded = loud_mel(samples * 22_050 / rate as usize / 512);
        let (main, sidechain) = (noise(1, samples), noise(2, samples));
        for config in [config(rate, 1), live(rate, 1)] {
            let config = GuidedConfig {
                gain_limit: 1.0,
                ..config
            };
            for (knob, source) in [(0.0, &main), (1.0, &sidechain)] {
                let out = whole(&config, [&main, &sidechain], &decoded, knobs(knob, knob));
                let error = error_db(&out, source);
                assert!(error < -110.0, "{rate} Hz, knobs at {knob}: {error} dB");
            }
        }
    }
}

#[test]
fn output_does_not_depend_on_how_the_input_is_cut() {
    for config in [config(48_000, 2), live(44_100, 2)] {
        let samples = 30_001;
        let channels = |seed| [noise(seed, samples), noise(seed + 1, samples)];
        let (main, sidechain) = (channels(1), channels(3));
        let frames = samples / 1200;
        let values = noise(9, frames * 128);
        let decoded = LogMel::from_values(128, values).unwrap();
        let controls: Vec<ShapedControls> = (0..frames)
            .map(|i| ShapedControls {
                transpose_semitones: (i / 4 % 3) as i32 - 1,
                ..knobs((i % 5) as f32 / 4.0, (i % 3) as f32 / 2.0)
            })
            .collect();
        let played = |push_samples: usize, push_frames: usize| {
            let mut voice = ShapedVoice::new(&config).unwrap();
            let mut out = [Vec::new(), Vec::new()];
            let mut next = 0;
            for start in (0..samples).step_by(push_samples) {
                let end = (start + push_samples).min(samples);
                let [main, sidechain] =
                    [&main, &sidechain].map(|source| source.each_ref().map(|x| &x[start..end]));
                voice.push_audio(&main, &sidechain).unwrap();
                while next < frames && (next * 2000 < end || end == samples) {
                    let mut mel = LogMel::new(128);
                    let until = (next + push_frames).min(frames);
                    (next..until).for_each(|frame| mel.push_frame(decoded.frame(frame)));
                    voice.push_mel(&mel, &controls[next..until]).unwrap();
                    next = until;
                }
                voice.pull(&mut out).unwrap();
            }
            voice.finish(&mut out).unwrap();
            out
        };
        let expected = played(samples, frames);
        assert_eq!(expected[0].len(), samples);
        for (push_samples, push_frames) in [(1, 1), (64, 7), (4096, 3)] {
            assert!(
                played(push_samples, push_frames) == expected,
                "pushes of {push_samples} and {push_frames}"
            );
        }
    }
}

#[test]
fn the_lag_is_the_stated_one() {
    for config in [config(22_050, 1), config(48_000, 1), live(48_000, 1)] {
        let mut voice = ShapedVoice::new(&config).unwrap();
        voice
            .push_mel(&loud_mel(100), &[knobs(0.0, 0.0); 100])
            .unwrap();
        let mut out = [Vec::new()];
        let mut most_behind = 0;
        for (newest, sample) in noise(2, 20_000).iter().enumerate() {
            voice.push_audio(&[&[*sample]], &[&[0.0]]).unwrap();
            voice.pull(&mut out).unwrap();
            most_behind = most_behind.max((newest + 1).saturating_sub(out[0].len()));
        }
        assert_eq!(most_behind, voice.latency_samples());
    }
}

#[test]
fn the_colour_is_that_of_the_mel_and_the_pitch_that_of_the_source() {
    let config = config(22_050, 1);
    let music = music();
    let mut analysis = MelSpectrogram::new(&config.mel).unwrap();
    let source = analysis.log_mel(&music);
    // About every second octave attenuated.
    let decoded: Vec<f32> = (source.values().iter().enumerate())
        .map(|(i, value)| value + [0.7, -0.7, -2.0][i % 128 / 16 % 3])
        .collect();
    let decoded = LogMel::from_values(128, decoded).unwrap();
    let silence = vec![0.0; music.len()];
    let out = whole(&config, [&music, &silence], &decoded, knobs(0.0, 0.0));
    let found = analysis.log_mel(&out);
    // The loudness is that of the source, so a common difference does not count.
    let distance = |a: &LogMel| {
        let pairs = a.values().iter().zip(decoded.values());
        let differences: Vec<f32> = pairs.map(|(a, b)| a - b).collect();
        let mean = differences.iter().sum::<f32>() / differences.len() as f32;
        let deviations = differences.iter().map(|x| (x - mean).abs());
        deviations.sum::<f32>() / differences.len() as f32
    };
    let (before, after) = (distance(&source), distance(&found));
    assert!(
        after < 0.3 * before,
        "mel distance from {before} to {after}"
    );

    let rate = 44_100;
    let [low, high] = [500.0, 800.0].map(|hz| tone(hz, rate, rate as usize));
    let decoded = loud_mel(43);
    let config = GuidedConfig {
        gain_limit: 1.0,
        ..self::config(rate, 1)
    };
    for (pitch, expected) in [(0.0, &low), (1.0, &high)] {
        let out = whole(&config, [&low, &high], &decoded, knobs(pitch, pitch));
        let error = error_db(&out[4000..40_000], &expected[4000..40_000]);
        assert!(error < -60.0, "pitch at {pitch}: {error} dB");
    }
}

#[test]
fn the_loudness_is_that_of_the_source_of_the_variation() {
    let rate = 44_100;
    let loud = tone(500.0, rate, 3 * rate as usize);
    let soft: Vec<f32> = tone(700.0, rate, loud.len())
        .iter()
        .map(|x| 0.1 * x)
        .collect();
    let decoded = loud_mel(loud.len() / 1024);
    let config = GuidedConfig {
        gain_limit: 1.0,
        ..config(rate, 1)
    };
    let level_db = |variation: f32, pitch: f32| {
        let controls = knobs(pitch, variation);
        let out = whole(&config, [&loud, &soft], &decoded, controls);
        20.0 * (rms(&out[2 * rate as usize..]) / rms(&loud)).log10()
    };
    for pitch in [0.0, 1.0] {
        let [main, sidechain] = [0.0, 1.0].map(|variation| level_db(variation, pitch));
        assert!(main.abs() < 1.0, "{main} dB");
        assert!((sidechain + 20.0).abs() < 1.0, "{sidechain} dB");
    }
}
