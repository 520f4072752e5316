//! The remix in steps compared with the remix of the whole clip at once.

mod common;

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use common::whole::whole_remix;
use common::{
    error_db, music, small_hard, small_pitch_aligned, small_timbre, small_timbre_model, stereo,
};
use model_runtime::model_file::{HEADER_KEY, to_bytes};
use model_runtime::transport::Beat;
use model_runtime::worker::WindowProcessor;
use safetensors::SafeTensors;
use vocoder::generator::{Generator, GeneratorConfig};
use vocoder::{MelConfig, MelSpectrogram};

use model_runtime::{
    AudioClip, Controls, Factor, FactorControls, LatencyMode, Model, Network, RemixSettings,
    RemixStream, Remixer, StreamSettings, Voice, Window,
};

/// Runs the network in steps of the given sizes and compares latents and mels with those of the whole clip, up to its end.
fn compare_network(network: &dyn Network, mel: &Tensor, sizes: &[usize]) {
    let whole = network.encode(mel).unwrap().means();
    let whole_mel = network.decode(&whole).unwrap();
    let (mut encoder, mut decoder) = (network.encoder().unwrap(), network.decoder().unwrap());
    let mut encoded = whole.map(|_, _| Vec::new());
    let mut decoded = Vec::new();
    let frames = mel.dim(D::Minus1).unwrap();
    let mut start = 0;
    for &size in sizes.iter().cycle() {
        if start == frames {
            break;
        }
        let size = size.min(frames - start);
        let step = mel
            .narrow(D::Minus1, start, size)
            .unwrap()
            .contiguous()
            .unwrap();
        start += size;
        let latents = encoder.step(&step).unwrap();
        decoded.extend(decoder.step(&latents).unwrap());
        for (factor, latent) in latents.iter() {
            encoded[factor].push(latent.clone());
        }

        let count: usize = decoded
            .iter()
            .map(|mel: &Tensor| mel.dim(D::Minus1).unwrap())
            .sum();
        let look_ahead = network.look_ahead_frames();
        assert!(
            count + look_ahead >= start,
            "{count} of {start} frames decoded"
        );
    }
    let rest = encoder.finish(None).unwrap();
    decoded.extend(decoder.finish(&rest).unwrap());
    for (factor, latent) in rest.iter() {
        encoded[factor].push(latent.clone());
    }
    let latents = encoded.iter();
    let latents = latents.map(|(factor, steps)| (factor.name(), steps, &whole[factor]));
    for (what, steps, whole) in latents.chain([("mel", &decoded, &whole_mel)]) {
        let steps = Tensor::cat(steps, D::Minus1).unwrap();
        let count = whole.dim(D::Minus1).unwrap();
        assert_eq!(steps.dim(D::Minus1).unwrap(), count, "{what}");
        for range in [0..count, count.saturating_sub(6)..count] {
            let values = |t: &Tensor| {
                let part = t.narrow(D::Minus1, range.start, range.len()).unwrap();
                part.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            let error = error_db(&values(&steps), &values(whole));
            assert!(
                error < -80.0,
                "{what} in steps of {sizes:?}, frames {range:?} of {count}: {error:.1} dB"
            );
        }
    }
}

fn networks() -> [Arc<dyn Network>; 4] {
    [
        small_pitch_aligned(4),
        small_pitch_aligned(1),
        small_hard(),
        small_timbre(),
    ]
}

#[test]
fn latents_and_mels_in_steps_equal_those_of_the_whole_clip() {
    let mel = common::log_mel(150);
    for frames in [2, 3, 5, 27, 149] {
        let mel = mel
            .narrow(D::Minus1, 0, frames)
            .unwrap()
            .contiguous()
            .unwrap();
        for network in networks() {
            for look_ahead in [0, 8, 100] {
                let network = network.with_look_ahead(look_ahead).unwrap();
                compare_network(&*network, &mel, &[4, 1]);
            }
        }
    }
    for network in networks() {
        for look_ahead in [0, 1, 3, 8, 21, 100] {
            let network = network.with_look_ahead(look_ahead).unwrap();
            for sizes in [&[1][..], &[4], &[3, 7, 1, 16]] {
                compare_network(&*network, &mel, sizes);
            }
        }
    }
}

#[test]
fn a_limited_look_ahead_is_kept_and_used() {
    for (network, least, full) in [
        (small_pitch_aligned(4), 3, 44),
        (small_pitch_aligned(1), 0, 21),
        (small_hard(), 0, 30),
        (small_timbre(), 0, 2),
    ] {
        assert_eq!(network.look_ahead_frames(), full);
        for frames in 0..full + 5 {
            let limited = network.with_look_ahead(frames).unwrap();
            let found = limited.look_ahead_frames();
            assert!(found <= frames.max(least), "{found} frames of {frames}");
            assert!(
                found + 1 >= frames.min(full),
                "{found} frames of {frames} that could be used"
            );
        }
    }
}

/// The built-in model with an untrained generator.
fn with_generator(causal: bool, template: bool) -> Arc<Model> {
    with_voice(Some(GeneratorConfig {
        upsample_initial_channel: 32,
        causal,
        template,
        ..GeneratorConfig::v2()
    }))
}

/// The built-in model with another generator, untrained, or none.
fn with_voice(generator: Option<GeneratorConfig>) -> Arc<Model> {
    let bytes = graft_model::HARMONY_AND_RHYTHM;
    let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    let header = &metadata.metadata().as_ref().unwrap()[HEADER_KEY];
    let mut header: model_runtime::model_file::Header = serde_json::from_str(header).unwrap();
    let mut tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap();
    tensors.retain(|name, _| !name.starts_with("generator."));
    if let Some(config) = &generator {
        let vars = VarMap::new();
        let builder = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu).pp("generator");
        Generator::new(config.clone(), false, &builder).unwrap();
        for (name, var) in vars.data().lock().unwrap().iter() {
            tensors.insert(name.clone(), var.as_detached_tensor());
        }
    }
    header.generator = generator;
    Arc::new(Model::from_bytes(&to_bytes(&header, &tensors).unwrap()).unwrap())
}

/// Whether a generator is causal, and whether it uses a template: as published, and as in the recipe for music.
const GENERATORS: [(bool, bool); 3] = [(false, false), (true, false), (true, true)];

const fn share(share: f32) -> FactorControls {
    FactorControls {
        share,
        loop_beats: None,
    }
}

const CONTROLS: Controls = Controls {
    factors: [
        share(0.25),
        share(0.75),
        share(0.75),
        share(0.25),
        share(0.5),
    ],
    generated: 0.0,
    air: 0.5,
    transpose_semitones: 2,
    beat: Beat {
        position_beats: 0.0,
        beats_per_sample: 0.0,
        is_host: false,
    },
};

fn guided(sample_rate_hz: u32, mode: LatencyMode) -> StreamSettings {
    StreamSettings {
        sample_rate_hz,
        voice: Voice::Guided,
        mode,
    }
}

/// The output of a whole stream, with its latency compensated.
fn stream(
    model: &Arc<Model>,
    main: &AudioClip,
    sidechain: &AudioClip,
    settings: StreamSettings,
    controls: impl Fn(usize) -> Controls,
    window: usize,
) -> Vec<Vec<f32>> {
    let mut stream = RemixStream::new(model, settings).unwrap();
    let latency = stream.latency_samples();
    let samples = main.channels[0].len();
    let mut out = vec![Vec::new(), Vec::new()];
    let mut position = 0;
    while position < samples + latency {
        let mut input = Window::new(window, window);
        input.stream_position_samples = position as u64;
        for channel in 0..2 {
            for i in 0..window.min(samples.saturating_sub(position)) {
                input.main[channel][i] = main.channels[channel][position + i];
                input.sidechain[channel][i] = sidechain.channels[channel][position + i];
            }
        }
        input.controls = vec![controls(position)];
        let (mut left, mut right) = (vec![0.0; window], vec![0.0; window]);
        stream.process(&input, [&mut left, &mut right]).unwrap();
        out[0].extend(left);
        out[1].extend(right);
        position += window;
    }
    for channel in &mut out {
        channel.drain(..latency);
        channel.truncate(samples);
    }
    out
}

/// The remix of two clips, whole and in steps, without the end that is within the model's look-ahead.
fn both_ways(
    model: &Arc<Model>,
    stream_settings: StreamSettings,
    controls: Controls,
    window: usize,
) -> [Vec<Vec<f32>>; 2] {
    let rate = stream_settings.sample_rate_hz;
    let main = stereo(rate, &music(rate, 5.0, 1));
    let sidechain = stereo(rate, &music(rate, 5.0, 2));
    let settings = RemixSettings {
        controls,
        voice: stream_settings.voice,
        mode: stream_settings.mode,
    };
    let mut pair = [
        whole_remix(model, &main, &sidechain, &settings),
        stream(
            model,
            &main,
            &sidechain,
            stream_settings,
            |_| controls,
            window,
        ),
    ];
    let end = 3 * rate as usize + rate as usize / 2;
    pair.iter_mut()
        .flatten()
        .for_each(|channel| channel.truncate(end));
    pair
}

fn audio_error_db([whole, steps]: &[Vec<Vec<f32>>; 2]) -> f64 {
    (0..2)
        .map(|c| error_db(&steps[c], &whole[c]))
        .fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn guided_audio_in_steps_equals_that_of_the_whole_clip() {
    let model = Model::built_in().unwrap();
    for (rate, window) in [
        (44_100, 4096),
        (48_000, 4458),
        (22_050, 512),
        (96_000, 8917),
    ] {
        for mode in LatencyMode::ALL {
            let settings = guided(rate, mode);
            let error = audio_error_db(&both_ways(&model, settings, CONTROLS, window));
            println!("guided, {rate} Hz, {mode:?}: {error:.1} dB");
            assert!(error < -80.0, "{rate} Hz, {mode:?}: {error:.1} dB");
        }
    }
}

#[test]
fn a_timbre_model_in_steps_equals_that_of_the_whole_clip() {
    let model = small_timbre_model();
    for (rate, window) in [(44_100, 4096), (48_000, 4458), (96_000, 8917)] {
        for mode in LatencyMode::ALL {
            let settings = guided(rate, mode);
            let error = audio_error_db(&both_ways(&model, settings, CONTROLS, window));
            println!("timbre, {rate} Hz, {mode:?}: {error:.1} dB");
            assert!(error < -80.0, "{rate} Hz, {mode:?}: {error:.1} dB");
        }
    }
}

#[test]
fn a_model_of_another_rate_hop_and_number_of_bands_plays() {
    for (sample_rate_hz, n_fft, hop_length, n_mels) in [
        (44_100, 4096, 1024, 128),
        (16_000, 1024, 256, 64),
        (32_000, 2048, 320, 192),
    ] {
        let mel = MelConfig {
            sample_rate_hz,
            n_fft,
            hop_length,
            n_mels,
            f_min_hz: 30.0,
            f_max_hz: 7_000.0,
        };
        let model = common::small_model(mel.clone());
        for voice in [Voice::Guided, Voice::GriffinLim] {
            let settings = StreamSettings {
                voice,
                ..guided(44_100, LatencyMode::Default)
            };
            let stream = RemixStream::new(&model, settings).unwrap();
            assert_eq!(stream.frame_seconds(), mel.hop_seconds());
            let [whole, streamed] = both_ways(&model, settings, CONTROLS, 1500);
            let loudest = |out: &[Vec<f32>]| out[0].iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(loudest(&streamed) > 1e-3, "{mel:?}, {voice:?}: silence");
            // The two Griffin-Lim algorithms differ.
            if voice == Voice::Guided {
                let error = audio_error_db(&[whole, streamed]);
                assert!(error < -80.0, "{mel:?}: {error:.1} dB");
            }
        }
    }
}

#[test]
fn the_generated_voice_in_steps_equals_that_of_the_whole_clip() {
    for (causal, template) in GENERATORS {
        let model = with_generator(causal, template);
        for (rate, window, voice) in [(22_050, 700, 1.0), (44_100, 4096, 1.0), (48_000, 4458, 0.3)]
        {
            let controls = Controls {
                generated: voice,
                ..CONTROLS
            };
            let settings = guided(rate, LatencyMode::Default);
            let error = audio_error_db(&both_ways(&model, settings, controls, window));
            let kind = format!("causal: {causal}, template: {template}, {rate} Hz");
            println!("{kind}: {error:.1} dB");
            assert!(error < -80.0, "{kind}: {error:.1} dB");
        }
    }
}

/// The side comes from the sources, so the mid must have their phases.
#[test]
fn a_sound_on_one_side_stays_there_in_the_generated_voice() {
    let model = with_generator(true, true);
    for rate in [44_100, 48_000] {
        let on_the_left = |seed| {
            let left = music(rate, 4.0, seed);
            AudioClip {
                sample_rate_hz: rate,
                channels: vec![left.clone(), vec![0.0; left.len()]],
            }
        };
        let controls = |_| Controls {
            generated: 1.0,
            transpose_semitones: 0,
            ..CONTROLS
        };
        let settings = guided(rate, LatencyMode::Default);
        let (main, sidechain) = (on_the_left(1), on_the_left(2));
        let out = stream(&model, &main, &sidechain, settings, controls, 4096);
        let energy_db = |channel: &[f32]| {
            let energy: f32 = channel.iter().map(|x| x * x).sum();
            10.0 * energy.log10()
        };
        let [left, right] = [&out[0], &out[1]].map(|channel| energy_db(channel));
        println!("{rate} Hz: left {left:.1} dB, right {right:.1} dB");
        assert!(left - right > 5.0, "{rate} Hz: {left:.1} dB, {right:.1} dB");
    }
}

#[test]
fn the_generated_voice_of_a_clip_reaches_its_end() {
    for (causal, template) in GENERATORS {
        let model = with_generator(causal, template);
        for (rate, generated) in [(44_100, 1.0), (48_000, 0.3)] {
            let [main, sidechain] = [1, 2].map(|seed| stereo(rate, &music(rate, 1.23, seed)));
            let settings = RemixSettings {
                controls: Controls {
                    generated,
                    ..CONTROLS
                },
                mode: LatencyMode::Default,
                voice: Voice::Guided,
            };
            let whole = whole_remix(&model, &main, &sidechain, &settings);
            let remix = Remixer::new(Arc::clone(&model))
                .remix(&main, &sidechain, &settings)
                .unwrap();
            let samples = whole[0].len();
            for part in [0..samples, samples - rate as usize / 10..samples] {
                let error = error_db(&remix.channels[0][part.clone()], &whole[0][part]);
                let kind = format!("causal: {causal}, template: {template}, {rate} Hz");
                assert!(error < -80.0, "{kind}: {error:.1} dB");
            }
        }
    }
}

#[test]
fn a_voice_that_was_turned_up_sounds_as_if_it_always_had() {
    let rate = 44_100;
    let main = stereo(rate, &music(rate, 5.0, 1));
    let sidechain = stereo(rate, &music(rate, 5.0, 2));
    let settings = guided(rate, LatencyMode::Default);
    let turned_at = 2 * rate as usize;
    // Before that it is turned up and down, with a gap that is shorter than the generator's warm-up.
    let heard = [22_050..35_000, 38_000..44_100, turned_at..usize::MAX];
    for (causal, template) in GENERATORS {
        let model = with_generator(causal, template);
        let generated = |_| Controls {
            generated: 1.0,
            ..CONTROLS
        };
        let turned = |position| Controls {
            generated: f32::from(heard.iter().any(|range| range.contains(&position))),
            ..CONTROLS
        };
        let stream = |controls: &dyn Fn(usize) -> Controls| {
            stream(&model, &main, &sidechain, settings, controls, 1024)
        };
        let (always, guided) = (stream(&generated), stream(&|_| CONTROLS));
        let turned = stream(&turned);
        let error = |a: &[Vec<f32>], b: &[Vec<f32>], range: std::ops::Range<usize>| {
            error_db(&a[0][range.clone()], &b[0][range])
        };
        let before = error(&turned, &guided, 0..22_050 - 1024);
        assert!(before < -100.0, "{before:.1} dB before");
        // The generator uses about 26 past frames, of which the warm-up gave it eight.
        let after = turned_at + 30 * 1024..5 * rate as usize / 2 + 30 * 1024;
        if template {
            // The phases of a template depend on where it began; its levels do not.
            let distance = mel_distance(&turned[0][after.clone()], &always[0][after]);
            assert!(distance < 0.3, "{distance:.2} nepers after");
        } else {
            let after = error(&turned, &always, after);
            assert!(after < -80.0, "causal: {causal}, {after:.1} dB after");
        }
        let apart = error(&guided, &always, turned_at..3 * rate as usize);
        assert!(apart > -10.0, "the voices are alike: {apart:.1} dB");
    }
}

/// Mean distance of the log-mels of two sounds, nepers.
fn mel_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut analysis = MelSpectrogram::new(&MelConfig::default()).unwrap();
    let (a, b) = (analysis.log_mel(a), analysis.log_mel(b));
    let distances = a
        .values()
        .iter()
        .zip(b.values())
        .map(|(a, b)| (a - b).abs());
    distances.sum::<f32>() / a.values().len() as f32
}

/// Each reconstructs its own phases, so only their mels can agree.
#[test]
fn griffin_lim_audio_in_steps_has_the_mel_of_the_whole_clip() {
    let settings = StreamSettings {
        voice: Voice::GriffinLim,
        ..guided(22_050, LatencyMode::Full)
    };
    let [whole, steps] = both_ways(&Model::built_in().unwrap(), settings, CONTROLS, 2048);
    let distance = mel_distance(&whole[0], &steps[0]);
    println!("Griffin-Lim: mel distance {distance:.3} nepers");
    assert!(distance < 0.35, "{distance} nepers");
}

#[test]
fn griffin_lim_audio_of_a_clip_has_the_mel_of_the_whole_clip_up_to_its_end() {
    let model = Model::built_in().unwrap();
    let settings = RemixSettings {
        controls: CONTROLS,
        voice: Voice::GriffinLim,
        mode: LatencyMode::Full,
    };
    // The phases, and with them the distance of a few frames, hang on the last bit of the mel: single ones are 0.2 to 0.5
    // apart. So this is the mean of several.
    let distances: Vec<f32> = (0..12)
        .flat_map(|pair| {
            let [main, sidechain] =
                [2 * pair + 1, 2 * pair + 2].map(|seed| stereo(22_050, &music(22_050, 1.5, seed)));
            let whole = whole_remix(&model, &main, &sidechain, &settings);
            let remixer = Remixer::new(Arc::clone(&model));
            let remix = remixer.remix(&main, &sidechain, &settings).unwrap();
            // The last quarter of a second is whole frames.
            let end = whole[0].len() / 512 * 512;
            let channels = remix.channels.into_iter().zip(whole);
            channels
                .map(|(remix, whole)| {
                    mel_distance(&remix[end - 5632..end], &whole[end - 5632..end])
                })
                .collect::<Vec<_>>()
        })
        .collect();
    let distance = distances.iter().sum::<f32>() / distances.len() as f32;
    println!("Griffin-Lim: mel distance {distance:.3} nepers at the end: {distances:.2?}");
    assert!(distance < 0.42, "{distance} nepers");
}

#[test]
fn whatever_is_played_every_voice_is_finite() {
    let model = with_generator(true, true);
    let (rate, samples) = (44_100, 44_100);
    let noise: Vec<f32> = music(rate, 1.0, 7).iter().map(|x| x.signum()).collect();
    let click = |n: usize| f32::from(n.is_multiple_of(5000));
    let sounds = [
        vec![0.0; samples],
        noise,
        (0..samples).map(click).collect(),
        vec![1.0; samples],
    ];
    for sound in &sounds {
        for voice in [0.0, 0.5, 1.0] {
            let clip = stereo(rate, sound);
            let controls = |_| Controls {
                generated: voice,
                ..CONTROLS
            };
            let settings = guided(rate, LatencyMode::Default);
            let out = stream(&model, &clip, &clip, settings, controls, 4096);
            assert!(out.iter().flatten().all(|sample| sample.is_finite()));
        }
    }
}

#[test]
fn a_voice_adds_the_crossover_and_what_it_sees_of_the_future_to_the_latency() {
    let latency = |model: &Arc<Model>, mode| {
        let stream = RemixStream::new(model, guided(44_100, mode)).unwrap();
        stream.latency_samples()
    };
    for mode in LatencyMode::ALL {
        let without = latency(&with_voice(None), mode);
        let added = |causal, template| latency(&with_generator(causal, template), mode) - without;
        if mode == LatencyMode::Live {
            assert_eq!((added(true, true), added(false, false)), (0, 0));
            continue;
        }
        assert_eq!(added(true, false), 256);
        // The template has a latency of 1055 samples at 22,050 Hz.
        assert_eq!(added(true, true), 702);
        // A published generator looks 287 ms ahead; the guided voice already waits for up to 35 ms of that.
        assert!(added(false, false) > 10_000);
    }
}

#[test]
fn without_a_generator_and_in_live_the_knob_voice_does_nothing_in_a_stream_and_is_refused_for_a_clip()
 {
    let clip = stereo(44_100, &music(44_100, 1.0, 1));
    for (model, mode, why) in [
        (with_voice(None), LatencyMode::Default, "generator"),
        (with_generator(true, true), LatencyMode::Live, "Live"),
    ] {
        let generated = Controls {
            generated: 1.0,
            ..CONTROLS
        };
        let settings = guided(44_100, mode);
        let played = |controls| stream(&model, &clip, &clip, settings, |_| controls, 1024);
        assert!(played(CONTROLS) == played(generated));
        let settings = RemixSettings {
            controls: generated,
            mode,
            ..RemixSettings::default()
        };
        let error = Remixer::new(model).remix(&clip, &clip, &settings).err();
        let text = error.unwrap().to_string();
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn the_stream_is_the_same_for_every_window_length() {
    let (main, sidechain) = (
        stereo(48_000, &music(48_000, 2.5, 1)),
        stereo(48_000, &music(48_000, 2.5, 2)),
    );
    let settings = guided(48_000, LatencyMode::Default);
    let reference = stream(
        &Model::built_in().unwrap(),
        &main,
        &sidechain,
        settings,
        |_| CONTROLS,
        4458,
    );
    for window in [64, 1000, 20_000] {
        let other = stream(
            &Model::built_in().unwrap(),
            &main,
            &sidechain,
            settings,
            |_| CONTROLS,
            window,
        );
        assert!(other == reference, "windows of {window}");
    }
}

#[test]
fn a_timbre_model_is_the_same_for_every_window_length_and_looks_at_its_own_knobs() {
    let (main, sidechain) = (
        stereo(48_000, &music(48_000, 2.5, 1)),
        stereo(48_000, &music(48_000, 2.5, 2)),
    );
    let model = small_timbre_model();
    let settings = guided(48_000, LatencyMode::Live);
    let played =
        |controls, window| stream(&model, &main, &sidechain, settings, |_| controls, window);
    let reference = played(CONTROLS, 4458);
    for window in [64, 1000, 20_000] {
        assert!(played(CONTROLS, window) == reference, "windows of {window}");
    }
    for factor in Factor::ALL {
        let turned = played(CONTROLS.with_share(factor, 1.0), 4458);
        let is_used = !matches!(factor, Factor::Harmony | Factor::Rhythm);
        assert_eq!(turned != reference, is_used, "{factor}");
    }
}

#[test]
fn silence_stays_silence_and_a_restart_forgets() {
    let settings = guided(44_100, LatencyMode::Default);
    let mut stream = RemixStream::new(&Model::built_in().unwrap(), settings).unwrap();
    let mut window = Window::new(4096, 4096);
    let noise = music(44_100, 0.1, 3);
    window.main[0].copy_from_slice(&noise[..4096]);
    window.sidechain[1].copy_from_slice(&noise[..4096]);
    let (mut left, mut right) = (vec![0.0; 4096], vec![0.0; 4096]);
    for _ in 0..4 {
        stream.process(&window, [&mut left, &mut right]).unwrap();
        window.stream_position_samples += 4096;
    }
    stream.reset();
    let mut silence = Window::new(4096, 4096);
    for _ in 0..40 {
        stream.process(&silence, [&mut left, &mut right]).unwrap();
        assert!(left.iter().chain(&right).all(|&sample| sample == 0.0));
        silence.stream_position_samples += 4096;
    }
}

#[test]
fn knobs_land_where_they_were_drawn() {
    // The sidechain is silent and the main input sounds, so the remix fades out where the knobs turn to the sidechain.
    let rate = 44_100;
    let main = stereo(rate, &music(rate, 5.0, 1));
    let settings = guided(rate, LatencyMode::Default);
    let mut stream = RemixStream::new(&Model::built_in().unwrap(), settings).unwrap();
    let latency = stream.latency_samples();
    let turn = 2 * rate as usize;
    let (window, interval) = (4096, 256);
    let mut out = Vec::new();
    for position in (0..main.channels[0].len() - window).step_by(window) {
        let mut input = Window::new(window, interval);
        input.stream_position_samples = position as u64;
        for channel in 0..2 {
            input.main[channel].copy_from_slice(&main.channels[channel][position..][..window]);
        }
        for (i, controls) in input.controls.iter_mut().enumerate() {
            let side = f32::from(position + i * interval >= turn);
            *controls = Controls::default()
                .with_share(Factor::Harmony, side)
                .with_share(Factor::Rhythm, side);
        }
        let (mut left, mut right) = (vec![0.0; window], vec![0.0; window]);
        stream.process(&input, [&mut left, &mut right]).unwrap();
        out.extend(left);
    }
    out.drain(..latency);
    let rms = |samples: &[f32]| {
        (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
    };
    // The guided voice mixes analysis windows of 93 ms, so a turn takes effect within half a window on either side.
    let half_frame = 2048 + 1024;
    let before = rms(&out[turn - half_frame - rate as usize / 4..turn - half_frame]);
    let after = rms(&out[turn + half_frame..turn + half_frame + rate as usize / 4]);
    assert!(
        before > 1e-3 && after < 1e-3 * before,
        "{before} before, {after} after the turn"
    );
}

/// Plays stereo `main` and `sidechain` in windows of the given lengths, in turn; streams begin at `starts`. The latency
/// is not compensated.
fn play(
    stream: &mut RemixStream,
    clips: [&AudioClip; 2],
    starts: &[usize],
    windows: &[usize],
) -> Vec<f32> {
    play_where(stream, clips, starts, windows, |_| true)
}

/// As [`play`]; `is_remixed` tells where the remix plays.
fn play_where(
    stream: &mut RemixStream,
    [main, sidechain]: [&AudioClip; 2],
    starts: &[usize],
    windows: &[usize],
    is_remixed: impl Fn(usize) -> bool,
) -> Vec<f32> {
    let samples = main.channels[0].len();
    let mut lengths = windows.iter().cycle();
    let mut out = Vec::new();
    let mut position = 0;
    while position < samples {
        let stream_start = starts.iter().rfind(|&&start| start <= position);
        let next_start = starts.iter().find(|&&start| start > position);
        let end = (position + lengths.next().unwrap()).min(*next_start.unwrap_or(&samples));
        let stream_position = position - stream_start.unwrap_or(&0);
        let mut input = Window::new(end - position, 256);
        input.stream_position_samples = stream_position as u64;
        let readings = (stream_position..stream_position + end - position)
            .filter(|position| position.is_multiple_of(256))
            .count();
        input.controls = vec![CONTROLS; readings];
        input.remixed = (position..end).map(&is_remixed).collect();
        for channel in 0..2 {
            input.main[channel].copy_from_slice(&main.channels[channel][position..end]);
            input.sidechain[channel].copy_from_slice(&sidechain.channels[channel][position..end]);
        }
        let (mut left, mut right) = (vec![0.0; end - position], vec![0.0; end - position]);
        stream.process(&input, [&mut left, &mut right]).unwrap();
        out.extend(left);
        position = end;
    }
    out
}

#[test]
fn a_new_stream_has_no_part_in_the_old_one() {
    let rate = 44_100;
    let (a, b) = (
        stereo(rate, &music(rate, 3.0, 1)),
        stereo(rate, &music(rate, 3.0, 2)),
    );
    for mode in LatencyMode::ALL {
        let new = || RemixStream::new(&Model::built_in().unwrap(), guided(rate, mode)).unwrap();
        let alone = play(&mut new(), [&b, &a], &[], &[1024]);
        // A jump in the middle of a hop, after which the sources are swapped.
        let jump = 50_001;
        let join = |first: &AudioClip, second: &AudioClip| AudioClip {
            sample_rate_hz: rate,
            channels: (0..2)
                .map(|c| [&first.channels[c][..jump], &second.channels[c]].concat())
                .collect(),
        };
        let joined = [&join(&a, &b), &join(&b, &a)];
        let mut first = new();
        let latency = first.latency_samples();
        let out = play(&mut first, joined, &[jump], &[1024]);
        assert!(
            out[jump + latency..] == alone[latency..],
            "{mode:?}: after the jump"
        );
        assert!(
            out == play(&mut new(), joined, &[jump], &[500, 1, 977]),
            "{mode:?}: windows"
        );
        // Up to the jump, the output is that of a clip that ends there.
        let cut = |clip: &AudioClip| AudioClip {
            sample_rate_hz: rate,
            channels: clip.channels.iter().map(|c| c[..jump].to_vec()).collect(),
        };
        let settings = RemixSettings {
            controls: CONTROLS,
            mode,
            voice: Voice::Guided,
        };
        let model = Model::built_in().unwrap();
        let whole = whole_remix(&model, &cut(&a), &cut(&b), &settings);
        let error = error_db(&out[latency..latency + jump], &whole[0]);
        println!("{mode:?}: {error:.1} dB from the clip that ends at the jump");
        assert!(error < -80.0, "{mode:?}: {error:.1} dB");
    }
}

#[test]
fn after_a_rest_a_clip_begins_with_the_remix_wherever_windows_end() {
    let rate = 48_000;
    let main = stereo(rate, &music(rate, 5.0, 2));
    let sidechain = stereo(rate, &music(rate, 5.0, 1));
    let (end, begin) = (40_000 + 2 * rate as usize, 190_003);
    let is_remixed = |position| !(end..begin).contains(&position);
    let settings = guided(rate, LatencyMode::Live);
    let new = || RemixStream::new(&Model::built_in().unwrap(), settings).unwrap();
    let remix = |windows: &[usize]| {
        let clips = [&main, &sidechain];
        play_where(&mut new(), clips, &[], windows, is_remixed)
    };
    let reference = remix(&[1024]);
    let latency = new().latency_samples();
    // The stream rests in between, from the end of a window; there, the audio thread plays the main input.
    let heard = end + latency;
    let asleep = end + rate as usize / 2 + 4000;
    for windows in [&[64][..], &[1111, 3, 900], &[4000]] {
        let other = remix(windows);
        assert!(other[..heard] == reference[..heard], "{windows:?}");
        assert!(other[asleep..] == reference[asleep..], "{windows:?}");
    }
    assert!(
        reference[asleep..begin + latency]
            .iter()
            .all(|&sample| sample == 0.0)
    );
    let after = |clip: &AudioClip| AudioClip {
        sample_rate_hz: rate,
        channels: clip.channels.iter().map(|c| c[begin..].to_vec()).collect(),
    };
    let (main, sidechain) = (after(&main), after(&sidechain));
    let anew = play(&mut new(), [&main, &sidechain], &[], &[1024]);
    assert!(reference[begin + latency..] == anew[latency..]);
}
