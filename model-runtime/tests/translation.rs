//! Translations of recordings with a small untrained model.

mod common;

use common::{error_db, music, small_lord};
use model_runtime::Model;
use model_runtime::translation::{
    ClassListener, InstrumentCode, RecordingSettings, TranslationVoice, Translator, translate_clip,
    translate_mel,
};
use test_signals::noise;
use vocoder::{LogMel, MelConfig, MelSpectrogram};

const RATE_HZ: u32 = 22_050;
const CLIP_FRAMES: usize = 32;
const CLIP_SAMPLES: usize = CLIP_FRAMES * 512;

fn at_rate(sample_rate_hz: u32, channels: usize) -> RecordingSettings {
    RecordingSettings {
        sample_rate_hz,
        channels,
        gain: 1.0,
    }
}

/// Translates a recording that is pushed in pieces.
fn translated(
    voice: TranslationVoice,
    recording: RecordingSettings,
    channels: &[Vec<f32>],
    piece_samples: usize,
) -> Vec<Vec<f32>> {
    let model = small_lord();
    let class = model.class_of(1).unwrap();
    let mut translator = Translator::new(&model, &class, voice, recording).unwrap();
    let mut out = vec![Vec::new(); channels.len()];
    let samples = channels[0].len();
    for start in (0..samples).step_by(piece_samples) {
        let end = samples.min(start + piece_samples);
        let piece: Vec<&[f32]> = channels
            .iter()
            .map(|channel| &channel[start..end])
            .collect();
        translator.push(&piece, &mut out).unwrap();
    }
    translator.finish(&mut out).unwrap();
    out
}

fn log_mel(samples: &[f32]) -> LogMel {
    MelSpectrogram::new(&MelConfig::default())
        .unwrap()
        .log_mel(samples)
}

fn class(number: usize) -> InstrumentCode {
    small_lord().class_of(number).unwrap()
}

#[test]
fn a_translation_has_the_length_and_the_channels_of_the_recording() {
    let built_in = Model::built_in().unwrap();
    for (rate_hz, channels) in [
        (8_000, 1),
        (22_050, 2),
        (44_100, 1),
        (48_000, 2),
        (96_000, 1),
    ] {
        for clips in [0.1, 1.0, 1.3, 2.0, 2.75] {
            let seconds = clips * CLIP_SAMPLES as f32 / RATE_HZ as f32;
            // Not a whole number of frames.
            let recording = vec![[music(rate_hz, seconds, 1), vec![0.1; 77]].concat(); channels];
            let voices = [
                TranslationVoice::Guided,
                TranslationVoice::Generated(&built_in),
            ];
            // The generator takes its time.
            let voices = &voices[..if clips < 1.0 || clips == 2.75 && rate_hz == 44_100 {
                2
            } else {
                1
            }];
            for voice in voices {
                let out = translated(*voice, at_rate(rate_hz, channels), &recording, 4096);
                assert_eq!(out.len(), channels);
                for channel in &out {
                    assert_eq!(
                        channel.len(),
                        recording[0].len(),
                        "{rate_hz} Hz, {clips} clips"
                    );
                    assert!(channel.iter().all(|sample| sample.is_finite()));
                    assert!(channel.iter().any(|sample| sample.abs() > 1e-3));
                }
            }
        }
    }
}

#[test]
fn a_recording_of_one_clip_is_translated_as_a_clip() {
    let model = small_lord();
    let clip = log_mel(&music(RATE_HZ, 1.0, 2)[..CLIP_SAMPLES]);
    assert_eq!(clip.frames(), CLIP_FRAMES);
    let directly = translate_clip(&model, &class(1), &clip).unwrap();
    assert_eq!(translate_mel(&model, &class(1), &clip).unwrap(), directly);
    assert_ne!(directly, clip);
    assert_ne!(translate_mel(&model, &class(0), &clip).unwrap(), directly);
}

#[test]
fn the_first_half_clip_is_that_of_the_first_clip() {
    let model = small_lord();
    let whole = log_mel(&music(RATE_HZ, 4.0, 2));
    let first = translate_clip(&model, &class(1), &whole.clone().take_first(CLIP_FRAMES)).unwrap();
    let translated = translate_mel(&model, &class(1), &whole).unwrap();
    assert_eq!(translated.frames(), whole.frames());
    let half = CLIP_FRAMES / 2 * whole.n_mels();
    assert_eq!(translated.values()[..half], first.values()[..half]);
}

#[test]
fn a_clip_has_no_share_where_it_begins_and_all_where_the_one_before_ends() {
    let model = small_lord();
    let step = CLIP_FRAMES / 2;
    // The last clip begins at no multiple of half a clip.
    let whole = log_mel(&music(RATE_HZ, 4.0, 3)[..(7 * step + 5) * 512]);
    let last = whole.frames() - CLIP_FRAMES;
    let out = translate_mel(&model, &class(1), &whole).unwrap();
    let of_clip = |start: usize| {
        let mut clip = whole.clone();
        clip.take_first(start);
        translate_clip(&model, &class(1), &clip.take_first(CLIP_FRAMES)).unwrap()
    };
    let difference = |a: &[f32], b: &[f32]| {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| (a - b).abs()).sum::<f32>()
    };
    let mut before = (0, of_clip(0));
    let starts = (step..last).step_by(step).chain([last]);
    for start in starts {
        let clip = of_clip(start);
        // What both share of what was not joined yet.
        let (first, end) = (before.0 + step, before.0 + CLIP_FRAMES);
        for (frame, mixed, (has_it, has_none)) in [
            (first, out.frame(first), (&before, &(start, clip.clone()))),
            (
                end - 1,
                out.frame(end - 1),
                (&(start, clip.clone()), &before),
            ),
        ] {
            let own = |(start, clip): &(usize, LogMel)| clip.frame(frame - start).to_vec();
            let apart = difference(&own(has_it), &own(has_none));
            let found = difference(mixed, &own(has_it));
            assert!(apart > 1.0, "{apart}");
            assert!(found < 0.01 * apart, "frame {frame}: {found} of {apart}");
        }
        before = (start, clip);
    }
}

#[test]
fn noise_is_as_loud_where_clips_begin_and_end_as_elsewhere() {
    let recording = [noise(3, 24 * CLIP_SAMPLES)];
    let guided = TranslationVoice::Guided;
    let out = translated(guided, at_rate(RATE_HZ, 1), &recording, 4096);
    let window_samples = CLIP_SAMPLES / 16;
    let level_db = |window: &[f32]| {
        let energy: f32 = window.iter().map(|x| x * x).sum();
        10.0 * (energy / window.len() as f32).log10()
    };
    // Centred at multiples of a sixteenth of a clip.
    let windows = out[0][window_samples / 2..].chunks_exact(window_samples);
    let levels: Vec<f32> = windows.map(level_db).collect();
    let mean = |levels: Vec<f32>| levels.iter().sum::<f32>() / levels.len() as f32;
    let at = |place: usize| mean(levels.iter().skip(16 + place).step_by(8).copied().collect());
    let places: Vec<f32> = (0..8).map(at).collect();
    let (border, others) = (places[7], mean(places[..7].to_vec()));
    assert!(
        (border - others).abs() < 0.5,
        "{border} dB at borders, {places:?} dB from there on"
    );
}

#[test]
fn pieces_make_no_difference() {
    let recording = [music(44_100, 2.5, 1), music(44_100, 2.5, 2)];
    let guided = |piece| {
        translated(
            TranslationVoice::Guided,
            at_rate(44_100, 2),
            &recording,
            piece,
        )
    };
    let whole = guided(usize::MAX >> 1);
    assert_eq!(guided(1000), whole);
    assert_eq!(guided(65_536), whole);
}

#[test]
fn a_soft_recording_is_translated_like_a_loud_one() {
    let built_in = Model::built_in().unwrap();
    let loud = vec![music(RATE_HZ, 1.2, 1)];
    let soft = vec![
        loud[0]
            .iter()
            .map(|sample| 0.125 * sample)
            .collect::<Vec<_>>(),
    ];
    for voice in [
        TranslationVoice::Guided,
        TranslationVoice::Generated(&built_in),
    ] {
        let of_loud = translated(voice, at_rate(RATE_HZ, 1), &loud, 4096);
        let amplified = RecordingSettings {
            gain: 8.0,
            ..at_rate(RATE_HZ, 1)
        };
        let of_soft = translated(voice, amplified, &soft, 4096);
        let of_soft: Vec<f32> = of_soft[0].iter().map(|sample| 8.0 * sample).collect();
        let error = error_db(&of_soft, &of_loud[0]);
        assert!(error < -45.0, "{error} dB");
    }
}

#[test]
fn silence_has_no_part_in_the_code_of_an_instrument() {
    let model = small_lord();
    let code = |samples: &[f32]| -> Vec<f32> {
        let mut listener = ClassListener::new(&model, at_rate(RATE_HZ, 1)).unwrap();
        samples
            .chunks(5000)
            .for_each(|piece| listener.push(&[piece]).unwrap());
        listener
            .finish()
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    };
    let distance = |a: &[f32], b: &[f32]| {
        let squares = a.iter().zip(b).map(|(a, b)| (a - b).powi(2));
        squares.sum::<f32>().sqrt()
    };
    let sound = noise(1, 8 * CLIP_SAMPLES);
    let silence = vec![0.0; 24 * CLIP_SAMPLES];
    let alone = code(&sound);
    assert_eq!(alone.len(), 6);
    let followed = code(&[sound.as_slice(), &silence].concat());
    // What it would be if silence counted.
    let of_silence = code(&silence);
    let far = distance(&alone, &of_silence);
    assert!(far > 0.1, "{far}");
    // One clip in sixteen is half silent.
    let near = distance(&alone, &followed);
    assert!(near < 0.15 * far, "{near} of {far}");
    // The shortest recording.
    assert!(code(&sound[..512]).iter().all(|value| value.is_finite()));
}

#[test]
fn what_cannot_be_translated_is_refused() {
    let model = small_lord();
    let class = class(0);
    let new = |recording| Translator::new(&model, &class, TranslationVoice::Guided, recording);
    let refused = |recording, words: &[&str]| {
        let error = new(recording).err().unwrap().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refused(at_rate(RATE_HZ, 3), &["one or two channels", "3"]);
    refused(at_rate(0, 1), &["0 Hz"]);
    refused(
        RecordingSettings {
            gain: 0.0,
            ..at_rate(RATE_HZ, 1)
        },
        &["gain", "above 0"],
    );

    let mut out = [Vec::new()];
    let mut translator = new(at_rate(RATE_HZ, 1)).unwrap();
    for (recording, words) in [
        (&[&[0.1, f32::NAN][..]][..], "finite"),
        (&[&[0.1][..], &[0.1]], "1 channels"),
    ] {
        let error = translator
            .push(recording, &mut out)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    translator.push(&[&[0.1; 511]], &mut out).unwrap();
    let error = translator.finish(&mut out).unwrap_err().to_string();
    assert!(error.contains("at least 23 ms"), "{error}");
}
