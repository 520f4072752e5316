//! The Griffin-Lim voice: how close its sound comes to the given mel, and its stream compared with the whole clip.

mod signals;

use realfft::RealFftPlanner;
use signals::music;
use vocoder::griffin_lim::{DEFAULT_ITERATIONS, GriffinLim, GriffinLimStream, MelInverse};
use vocoder::guided::{FrameControls, GuidedConfig, GuidedVoice};
use vocoder::{LogMel, MEL_FLOOR, MelConfig, MelFilterBank, MelSpectrogram, Spectrum};

fn log_mel(samples: &[f32]) -> LogMel {
    MelSpectrogram::new(&MelConfig::default())
        .unwrap()
        .log_mel(samples)
}

fn whole(mel: &LogMel, iterations: usize) -> Vec<f32> {
    let mut voice = GriffinLim::new(&MelConfig::default(), iterations).unwrap();
    voice.samples(mel).unwrap()
}

fn streamed(mel: &LogMel, push_frames: usize) -> Vec<f32> {
    let mut voice = GriffinLimStream::new(&MelConfig::default()).unwrap();
    let mut out = Vec::new();
    for piece in mel.values().chunks(push_frames * mel.n_mels()) {
        let piece = LogMel::from_values(mel.n_mels(), piece.to_vec()).unwrap();
        voice.push(&piece, &mut out).unwrap();
    }
    voice.finish(&mut out);
    out
}

/// Mean distance between two mels in nepers, where the first is less than 60 dB below its peak.
fn mel_distance(a: &LogMel, b: &LogMel) -> f32 {
    assert_eq!(a.frames(), b.frames());
    let peak = a
        .values()
        .iter()
        .fold(f32::NEG_INFINITY, |peak, x| peak.max(*x));
    let distances: Vec<f32> = (a.values().iter().zip(b.values()))
        .filter(|(a, _)| **a > peak - 6.9)
        .map(|(a, b)| (a - b).abs())
        .collect();
    distances.iter().sum::<f32>() / distances.len() as f32
}

/// Distance of the magnitudes of `samples` from those that the mel implies (0 = equal), without the frames at the ends.
fn spectral_convergence(mel: &LogMel, samples: &[f32]) -> f32 {
    let config = MelConfig::default();
    let fft = RealFftPlanner::<f32>::new().plan_fft_forward(config.n_fft);
    let mut inverse = MelInverse::new(&config).unwrap();
    let mut target = vec![0.0; config.n_bins()];
    let mut spectrum = fft.make_output_vec();
    let (mut error, mut energy) = (0.0, 0.0);
    for frame in 2..mel.frames() - 2 {
        inverse.magnitude(mel.frame(frame), &mut target);
        let start = frame * config.hop_length - config.padding_samples();
        let mut windowed: Vec<f32> = (samples[start..][..config.n_fft].iter().enumerate())
            .map(|(n, x)| {
                x * (std::f32::consts::PI * n as f32 / config.n_fft as f32)
                    .sin()
                    .powi(2)
            })
            .collect();
        fft.process(&mut windowed, &mut spectrum).unwrap();
        for (bin, target) in spectrum.iter().zip(&target) {
            error += (bin.norm() - target).powi(2);
            energy += target.powi(2);
        }
    }
    (error / energy).sqrt()
}

#[test]
fn magnitudes_give_their_mel_again() {
    let config = MelConfig::default();
    let filter_bank = MelFilterBank::new(&config).unwrap();
    let mut inverse = MelInverse::new(&config).unwrap();
    let mel = log_mel(&music());
    let mut magnitude = vec![0.0; config.n_bins()];
    let mut values = vec![0.0; config.n_mels];
    let mut again = LogMel::new(config.n_mels);
    for frame in 0..mel.frames() {
        inverse.magnitude(mel.frame(frame), &mut magnitude);
        assert!(magnitude.iter().all(|&x| x >= 0.0));
        filter_bank.apply(&magnitude, &mut values);
        values.iter_mut().for_each(|x| *x = x.max(MEL_FLOOR).ln());
        again.push_frame(&values);
    }
    let distance = mel_distance(&mel, &again);
    assert!(distance < 0.02, "{distance} nepers");
}

#[test]
fn more_iterations_come_closer() {
    let mel = log_mel(&music());
    let convergence = [0, 8, DEFAULT_ITERATIONS]
        .map(|iterations| spectral_convergence(&mel, &whole(&mel, iterations)));
    assert!(convergence[1] < 0.7 * convergence[0], "{convergence:?}");
    assert!(convergence[2] < 0.9 * convergence[1], "{convergence:?}");
}

#[test]
fn the_mel_of_the_sound_is_the_given_one() {
    let mel = log_mel(&music());
    let (whole, stream) = (whole(&mel, DEFAULT_ITERATIONS), streamed(&mel, 1));
    for (form, samples, limit) in [("whole clip", &whole, 0.18), ("stream", &stream, 0.1)] {
        assert_eq!(samples.len(), mel.frames() * 512);
        let distance = mel_distance(&mel, &log_mel(samples));
        assert!(distance < limit, "{form}: {distance} nepers");
    }
    // The two find different phases for the same mel.
    let distance = mel_distance(&log_mel(&whole), &log_mel(&stream));
    assert!(distance < 0.25, "{distance} nepers between them");
}

#[test]
fn the_stream_does_not_depend_on_how_the_mel_is_cut() {
    let mel = log_mel(&music());
    let expected = streamed(&mel, 1);
    for push_frames in [2, 5, 100] {
        assert!(streamed(&mel, push_frames) == expected);
    }
    for frames in 0..5 {
        let short = LogMel::from_values(128, mel.values()[..frames * 128].to_vec()).unwrap();
        assert_eq!(streamed(&short, 1).len(), frames * 512);
        assert_eq!(whole(&short, 4).len(), frames * 512);
    }
}

#[test]
fn the_stream_is_behind_by_its_look_ahead() {
    let mel = log_mel(&music());
    for (look_ahead_frames, early_samples) in [(3, 0), (1, 256), (1, 0), (0, 512)] {
        let config = MelConfig::default();
        let mut voice =
            GriffinLimStream::with_look_ahead(&config, look_ahead_frames, early_samples).unwrap();
        let lag = look_ahead_frames * 512 + 768 - early_samples;
        assert_eq!(voice.lag_samples(), lag);
        let mut out = Vec::new();
        for frame in 0..mel.frames() {
            let piece = LogMel::from_values(128, mel.frame(frame).to_vec()).unwrap();
            voice.push(&piece, &mut out).unwrap();
            assert_eq!(out.len(), ((frame + 1) * 512).saturating_sub(lag));
        }
        voice.finish(&mut out);
        assert_eq!(out.len(), mel.frames() * 512);
    }
    assert!(GriffinLimStream::with_look_ahead(&MelConfig::default(), 1, 513).is_err());
}

#[test]
fn what_is_given_early_is_nearly_what_it_becomes() {
    let mel = log_mel(&music());
    let [early, late] = [256, 0].map(|early_samples| {
        let config = MelConfig::default();
        let mut voice = GriffinLimStream::with_look_ahead(&config, 1, early_samples).unwrap();
        let mut out = Vec::new();
        voice.push(&mel, &mut out).unwrap();
        voice.finish(&mut out);
        out
    });
    let energy = |samples: &mut dyn Iterator<Item = f32>| samples.map(|x| x * x).sum::<f32>();
    let difference = energy(&mut early.iter().zip(&late).map(|(a, b)| a - b));
    let share = difference / energy(&mut late.iter().copied());
    assert!(share > 0.0 && share < 1e-3, "{share}");
}

#[test]
fn a_stream_starts_afresh_after_finish_and_reset() {
    let mel = log_mel(&music());
    let expected = streamed(&mel, 4);
    let mut voice = GriffinLimStream::new(&MelConfig::default()).unwrap();
    voice.push(&mel, &mut Vec::new()).unwrap();
    voice.reset();
    for _ in 0..2 {
        let mut out = Vec::new();
        voice.push(&mel, &mut out).unwrap();
        voice.finish(&mut out);
        assert!(out == expected);
    }
}

#[test]
fn no_mel_gives_anything_but_finite_numbers() {
    for value in [
        MEL_FLOOR.ln(),
        0.0,
        200.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ] {
        let mel = LogMel::from_values(128, vec![value; 6 * 128]).unwrap();
        for samples in [whole(&mel, 8), streamed(&mel, 2)] {
            assert!(samples.iter().all(|x| x.is_finite()), "log-mel of {value}");
        }
    }
    let silence = LogMel::from_values(128, vec![MEL_FLOOR.ln(); 6 * 128]).unwrap();
    for samples in [whole(&silence, 8), streamed(&silence, 2)] {
        assert!(samples.iter().all(|x| x.abs() < 1e-4));
    }
}

#[test]
fn another_number_of_bands_is_refused() {
    let mel = LogMel::from_values(80, vec![0.0; 80]).unwrap();
    let config = MelConfig::default();
    assert!(GriffinLim::new(&config, 1).unwrap().samples(&mel).is_err());
    let mut stream = GriffinLimStream::new(&config).unwrap();
    assert!(stream.push(&mel, &mut Vec::new()).is_err());
}

/// A steady chord, and a click every quarter of a second.
fn struck() -> (Vec<f32>, Vec<usize>) {
    let strokes: Vec<usize> = (1..8).map(|beat| beat * 5512 + 100).collect();
    let tone = |n: usize, hz: f32| (n as f32 * hz * std::f32::consts::TAU / 22_050.0).sin();
    let mut samples: Vec<f32> = (0..44_100)
        .map(|n| 0.02 * (tone(n, 220.0) + tone(n, 277.2)))
        .collect();
    for &stroke in &strokes {
        samples[stroke] += 0.9;
    }
    (samples, strokes)
}

/// The spectra that the guided voice has of a sound, with this mel.
fn spectra(samples: &[f32], mel: &LogMel) -> Vec<Spectrum> {
    let config = GuidedConfig::new(MelConfig::default(), 22_050, 1);
    let mut voice = GuidedVoice::new(&config).unwrap().with_spectra();
    voice
        .push_mel(mel, &vec![FrameControls::default(); mel.frames()])
        .unwrap();
    let silence = vec![0.0; samples.len()];
    voice.push_audio(&[samples], &[&silence]).unwrap();
    voice.finish(&mut [Vec::new()]).unwrap();
    let mut spectra = voice.take_spectra();
    spectra.truncate(mel.frames());
    spectra
}

/// The template of a stream, with a sound to start from if there is one, in pushes of some frames.
fn started(mel: &LogMel, starts: Option<&[Spectrum]>, push_frames: usize) -> Vec<f32> {
    let mut voice = GriffinLimStream::with_look_ahead(&MelConfig::default(), 1, 256).unwrap();
    let (mut out, mut frame) = (Vec::new(), 0);
    for piece in mel.values().chunks(push_frames * mel.n_mels()) {
        let piece = LogMel::from_values(mel.n_mels(), piece.to_vec()).unwrap();
        let frames = frame..frame + piece.frames();
        frame = frames.end;
        let starts = starts.map(|starts| &starts[frames]);
        voice.push_with(&piece, starts, &mut out).unwrap();
    }
    voice.finish(&mut out);
    out
}

#[test]
fn strokes_are_as_sharp_as_in_the_sound_to_start_from_and_at_the_same_place() {
    let (sound, strokes) = struck();
    let mel = log_mel(&sound);
    let with = started(&mel, Some(&spectra(&sound, &mel)), 1);
    let without = started(&mel, None, 1);
    let energy = |samples: &[f32]| samples.iter().map(|x| x * x).sum::<f32>();
    let mut shares = [0.0; 2];
    for &stroke in &strokes {
        let around = stroke - 1024..stroke + 1024;
        for (share, samples) in shares.iter_mut().zip([&with, &without]) {
            let close = energy(&samples[stroke - 44..stroke + 44]);
            *share += close / energy(&samples[around.clone()]) / strokes.len() as f32;
        }
        let peak = around.max_by(|&a, &b| with[a].abs().total_cmp(&with[b].abs()));
        let off = peak.unwrap().abs_diff(stroke);
        assert!(off <= 2, "the stroke at {stroke} is off by {off} samples");
    }
    let [share_with, share_without] = shares;
    println!("within 2 ms: {share_with} of the energy, {share_without} without");
    assert!(share_with > 2.0 * share_without);
    // The levels are those of the mel all the same.
    let distance = |samples: &[f32]| mel_distance(&mel, &log_mel(samples));
    let (with, without) = (distance(&with), distance(&without));
    assert!(with < 1.1 * without, "{with} {without}");
}

#[test]
fn a_stream_with_a_sound_to_start_from_is_the_same_however_it_is_cut() {
    let sound = music();
    let mel = log_mel(&sound);
    let spectra = spectra(&sound, &mel);
    let expected = started(&mel, Some(&spectra), 1);
    assert_eq!(expected.len(), mel.frames() * 512);
    for push_frames in [2, 5, 100] {
        assert!(started(&mel, Some(&spectra), push_frames) == expected);
    }
}

#[test]
fn a_silent_sound_to_start_from_is_as_none() {
    let sound = music();
    let mel = log_mel(&sound);
    let silent = spectra(&vec![0.0; sound.len()], &mel);
    assert!(started(&mel, Some(&silent), 4) == started(&mel, None, 4));
    assert!(started(&mel, Some(&spectra(&sound, &mel)), 4) != started(&mel, None, 4));
    let mut stream = GriffinLimStream::new(&MelConfig::default()).unwrap();
    let error = stream
        .push_with(&mel, Some(&silent[1..]), &mut Vec::new())
        .unwrap_err();
    assert!(error.to_string().contains("spectra"), "{error}");
}
