//! The remix in steps against the remix of the whole clip.

mod common;

use candle_core::{D, Tensor};
use common::{error_db, music, small_hard, small_pitch_aligned, stereo};
use model_runtime::packet::Window;
use model_runtime::worker::WindowProcessor;
use model_runtime::{
    AudioClip, Controls, Model, Network, RemixSettings, RemixStream, Remixer, StreamSettings, Voice,
};

/// Runs the network in steps of the given sizes and compares latents and mels with those of the whole clip.
fn compare_network(network: &Network, mel: &Tensor, sizes: &[usize]) {
    let whole = network.encode(mel).unwrap();
    let whole_mel = network
        .decode(&whole.harmony.mean, &whole.rhythm.mean)
        .unwrap();
    let (mut encoder, mut decoder) = (network.encoder_state(), network.decoder_state());
    let (mut harmony, mut rhythm, mut decoded) = (Vec::new(), Vec::new(), Vec::new());
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
        let (h, r) = network.encode_step(&mut encoder, &step).unwrap();
        decoded.extend(
            network
                .decode_step(&mut decoder, h.as_ref(), r.as_ref())
                .unwrap(),
        );
        harmony.extend(h);
        rhythm.extend(r);

        let count: usize = decoded
            .iter()
            .map(|mel: &Tensor| mel.dim(D::Minus1).unwrap())
            .sum();
        let look_ahead = network.encoder_look_ahead_frames() + network.decoder_look_ahead_frames();
        assert!(
            count + look_ahead >= start,
            "{count} of {start} frames decoded"
        );
    }
    for (what, steps, whole) in [
        ("harmony", &harmony, &whole.harmony.mean),
        ("rhythm", &rhythm, &whole.rhythm.mean),
        ("mel", &decoded, &whole_mel),
    ] {
        let steps = Tensor::cat(steps, D::Minus1).unwrap();
        let count = steps.dim(D::Minus1).unwrap();
        assert!(count > 0, "{what}");
        let whole = whole.narrow(D::Minus1, 0, count).unwrap();
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let error = error_db(&values(&steps), &values(&whole));
        assert!(error < -80.0, "{what} in steps of {sizes:?}: {error:.1} dB");
    }
}

#[test]
fn latents_and_mels_in_steps_equal_those_of_the_whole_clip() {
    let mel = common::log_mel(150);
    for network in [small_pitch_aligned(4), small_pitch_aligned(1), small_hard()] {
        for sizes in [&[1][..], &[4], &[3, 7, 1, 16]] {
            compare_network(&network, &mel, sizes);
        }
    }
}

/// The whole stream's output, its latency taken off.
fn stream(
    main: &AudioClip,
    sidechain: &AudioClip,
    settings: StreamSettings,
    window: usize,
) -> Vec<Vec<f32>> {
    let mut stream = RemixStream::new(Model::built_in().unwrap(), settings).unwrap();
    let latency = stream.latency_samples();
    let samples = main.channels[0].len();
    let mut out = vec![Vec::new(), Vec::new()];
    let mut position = 0;
    while position < samples + latency {
        let mut input = Window::new(window, window);
        for channel in 0..2 {
            for i in 0..window.min(samples.saturating_sub(position)) {
                input.main[channel][i] = main.channels[channel][position + i];
                input.sidechain[channel][i] = sidechain.channels[channel][position + i];
            }
        }
        input.sidechain_present = true;
        input.controls = vec![Controls {
            harmony: 0.25,
            rhythm: 0.75,
        }];
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

fn compare_audio(voice: Voice, rate: u32, window: usize) -> f64 {
    let main = stereo(rate, &music(rate, 5.0, 1));
    let sidechain = stereo(rate, &music(rate, 5.0, 2));
    let settings = RemixSettings {
        controls: Controls {
            harmony: 0.25,
            rhythm: 0.75,
        },
        transpose_semitones: 2,
        voice,
    };
    let whole = Remixer::new(Model::built_in().unwrap())
        .remix(&main, &sidechain, &settings)
        .unwrap();
    let settings = StreamSettings {
        sample_rate_hz: rate,
        voice,
        transpose_semitones: 2,
    };
    let steps = stream(&main, &sidechain, settings, window);
    // The end of the clip is within the model's reach for the last second and a half.
    let end = 3 * rate as usize + rate as usize / 2;
    (0..2)
        .map(|channel| error_db(&steps[channel][..end], &whole.channels[channel][..end]))
        .fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn guided_audio_in_steps_equals_that_of_the_whole_clip() {
    for (rate, window) in [
        (44_100, 4096),
        (48_000, 4458),
        (22_050, 512),
        (96_000, 8917),
    ] {
        let error = compare_audio(Voice::Guided, rate, window);
        assert!(error < -60.0, "{rate} Hz: {error:.1} dB");
    }
}

#[test]
fn the_stream_is_the_same_for_every_window_length() {
    let (main, sidechain) = (
        stereo(48_000, &music(48_000, 2.5, 1)),
        stereo(48_000, &music(48_000, 2.5, 2)),
    );
    let settings = StreamSettings {
        sample_rate_hz: 48_000,
        voice: Voice::Guided,
        transpose_semitones: 0,
    };
    let reference = stream(&main, &sidechain, settings, 4458);
    for window in [64, 1000, 20_000] {
        let other = stream(&main, &sidechain, settings, window);
        let error = error_db(&other[0], &reference[0]);
        assert!(error < -80.0, "windows of {window}: {error:.1} dB");
    }
}

#[test]
fn silence_stays_silence_and_a_restart_forgets() {
    let settings = StreamSettings {
        sample_rate_hz: 44_100,
        voice: Voice::Guided,
        transpose_semitones: 0,
    };
    let mut stream = RemixStream::new(Model::built_in().unwrap(), settings).unwrap();
    let mut window = Window::new(4096, 4096);
    let noise = music(44_100, 0.1, 3);
    window.main[0].copy_from_slice(&noise[..4096]);
    window.sidechain[1].copy_from_slice(&noise[..4096]);
    let (mut left, mut right) = (vec![0.0; 4096], vec![0.0; 4096]);
    for _ in 0..4 {
        stream.process(&window, [&mut left, &mut right]).unwrap();
    }
    stream.reset(0);
    let silence = Window::new(4096, 4096);
    for _ in 0..40 {
        stream.process(&silence, [&mut left, &mut right]).unwrap();
        assert!(left.iter().chain(&right).all(|&sample| sample == 0.0));
    }
}

#[test]
fn knobs_land_where_they_were_drawn() {
    // The sidechain is silent and the main sounds, so the remix fades out where the knobs turn to the sidechain.
    let rate = 44_100;
    let main = stereo(rate, &music(rate, 5.0, 1));
    let settings = StreamSettings {
        sample_rate_hz: rate,
        voice: Voice::Guided,
        transpose_semitones: 0,
    };
    let mut stream = RemixStream::new(Model::built_in().unwrap(), settings).unwrap();
    let latency = stream.latency_samples();
    let turn = 2 * rate as usize;
    let (window, interval) = (4096, 256);
    let mut out = Vec::new();
    for position in (0..main.channels[0].len() - window).step_by(window) {
        let mut input = Window::new(window, interval);
        for channel in 0..2 {
            input.main[channel].copy_from_slice(&main.channels[channel][position..][..window]);
        }
        for (i, controls) in input.controls.iter_mut().enumerate() {
            let side = f32::from(position + i * interval >= turn);
            *controls = Controls {
                harmony: side,
                rhythm: side,
            };
        }
        let (mut left, mut right) = (vec![0.0; window], vec![0.0; window]);
        stream.process(&input, [&mut left, &mut right]).unwrap();
        out.extend(left);
    }
    out.drain(..latency);
    let rms = |samples: &[f32]| {
        (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
    };
    // The guided voice mixes analysis frames of 93 ms, so a turn is over half a frame on either side of its place.
    let half_frame = 2048 + 1024;
    let before = rms(&out[turn - half_frame - rate as usize / 4..turn - half_frame]);
    let after = rms(&out[turn + half_frame..turn + half_frame + rate as usize / 4]);
    assert!(
        before > 1e-3 && after < 1e-3 * before,
        "{before} before, {after} after the turn"
    );
}
