use super::*;
use realfft::RealFftPlanner;
use std::f64::consts::TAU;

const RATE_HZ: u32 = 22_050;

/// What pedalboard 0.9.26 makes of [`sound`], every eighth sample of each effect:
///
/// ```python
/// import numpy as np, pedalboard as pb
/// RATE, N = 22050, 4096
/// n = np.arange(N)
/// x = 0.3 * np.sin(0.0627 * n) + 0.2 * np.sin(0.4274 * n) + 0.1 * np.sin(0.37 * n * n)
/// effects = [pb.Chorus(), pb.Distortion(), pb.Phaser(), pb.LadderFilter(), pb.HighpassFilter(),
///            pb.LowpassFilter(), pb.Reverb(), pb.Bitcrush()]
/// rows = [effect(x[None].astype(np.float32), RATE)[0, 7::8] for effect in effects]
/// np.round(32767 * np.array(rows)).astype("<i2").tofile("pedalboard-effects.i16")
/// ```
const PEDALBOARD: &[u8] = include_bytes!("../../../tests/data/pedalboard-effects.i16");

/// The effects in the order of the file, with the largest difference that is allowed. Half a step of the file's 16 bits is 1.5e-5.
/// The ladder of pedalboard reads its hyperbolic tangent from a table, and its phaser the sine of the modulation, so that these two
/// agree to 1e-3 of their level; its chorus adds up the phase of its modulation in 32 bits, which drifts after the first second.
const EFFECTS: [(Effect, f32); 8] = [
    (Effect::Chorus, 1e-4),
    (Effect::Distortion, 2e-5),
    (Effect::Phaser, 5e-4),
    (Effect::LadderFilter, 3e-4),
    (Effect::HighpassFilter, 2e-5),
    (Effect::LowpassFilter, 2e-5),
    (Effect::Reverb, 2e-5),
    (Effect::Bitcrush, 2e-5),
];

fn sound() -> Vec<f32> {
    let sample =
        |n: f64| 0.3 * (0.0627 * n).sin() + 0.2 * (0.4274 * n).sin() + 0.1 * (0.37 * n * n).sin();
    (0..4096).map(|n| sample(f64::from(n)) as f32).collect()
}

#[test]
fn effects_sound_as_those_of_pedalboard() {
    let rows = PEDALBOARD.as_chunks::<1024>().0;
    assert_eq!(rows.len(), EFFECTS.len());
    for ((effect, limit), row) in EFFECTS.into_iter().zip(rows) {
        let mut samples = sound();
        effect.apply(&mut samples, RATE_HZ);
        let found = samples.iter().skip(7).step_by(8);
        let expected = row
            .as_chunks()
            .0
            .iter()
            .map(|bytes| i16::from_le_bytes(*bytes));
        let differences = found
            .zip(expected)
            .map(|(found, expected)| (found - f32::from(expected) / f32::from(i16::MAX)).abs());
        let largest = differences.fold(0.0, f32::max);
        assert!(largest < limit, "{effect:?}: {largest}");
    }
}

/// The codec of pedalboard does its sums in integers and frames the sound elsewhere, so only what it does on average can be
/// compared: how much of the sound is left, and at what level in each band.
///
/// ```python
/// import numpy as np, pedalboard as pb
/// RATE, N = 22050, 16384
/// n = np.arange(N)
/// x = 0.2 * sum(np.sin(0.0627 * k * n + k * k) / k for k in range(1, 40))
/// y = pb.GSMFullRateCompressor()(x[None].astype(np.float32), RATE)[0]
/// a, b = x[4096:12288], y[4096 + 501:12288 + 501]
/// print("correlation", a @ b / np.sqrt(a @ a * (b @ b)))
/// level = lambda v: [10 * np.log10(sum(abs(np.fft.rfft(v * np.hanning(8192))[l:l + 186]) ** 2))
///                    for l in range(0, 2232, 186)]
/// print("gain in dB of each 500 Hz", np.round(np.array(level(b)) - level(a), 2))
/// ```
#[test]
fn the_codec_keeps_what_that_of_pedalboard_keeps() {
    let partial = |k: f64, n: f64| (0.0627 * k * n + k * k).sin() / k;
    let sample = |n: i32| -> f64 { (1..40).map(|k| partial(f64::from(k), f64::from(n))).sum() };
    let sound: Vec<f32> = (0..16_384).map(|n| 0.2 * sample(n) as f32).collect();
    let mut coded = sound.clone();
    Effect::GsmFullRateCompressor.apply(&mut coded, RATE_HZ);
    let (sound, coded) = (&sound[4096..12_288], &coded[4096..12_288]);
    let product = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let correlation =
        product(sound, coded) / (product(sound, sound) * product(coded, coded)).sqrt();
    let levels_db = [coded, sound].map(band_levels_db);
    let gains_db: Vec<f32> = (0..12)
        .map(|band| levels_db[0][band] - levels_db[1][band])
        .collect();
    assert!((correlation - CORRELATION).abs() < 0.02, "{correlation}");
    for (band, (found, expected)) in gains_db.iter().zip(GAINS_DB).enumerate() {
        // From 4 kHz on, there is only what the conversion of the rate mirrors, which differs.
        let near = (found - expected).abs() < 2.0;
        assert!(
            near || (band >= 8 && *found < -10.0),
            "{band}: {gains_db:?}"
        );
    }
}

const CORRELATION: f32 = 0.984;
const GAINS_DB: [f32; 12] = [
    -0.02, 0.01, 0.08, 0.06, -0.64, -3.29, -5.08, -7.51, -10.21, -18.19, -27.48, -35.98,
];

/// Level of each 500 Hz.
fn band_levels_db(samples: &[f32]) -> [f32; 12] {
    let fft = RealFftPlanner::new().plan_fft_forward(samples.len());
    let last = (samples.len() - 1) as f64;
    let windowed = samples
        .iter()
        .enumerate()
        .map(|(n, sample)| sample * (0.5 - 0.5 * (TAU * n as f64 / last).cos()) as f32);
    let (mut windowed, mut spectrum) = (windowed.collect::<Vec<_>>(), fft.make_output_vec());
    fft.process(&mut windowed, &mut spectrum).unwrap();
    std::array::from_fn(|band| {
        let power: f32 = spectrum[186 * band..][..186]
            .iter()
            .map(|bin| bin.norm_sqr())
            .sum();
        10.0 * power.log10()
    })
}

#[test]
fn effects_are_finite_on_silence_and_at_full_scale_and_at_any_rate() {
    for effect in Effect::ALL {
        for rate_hz in [8000, 22_050, 44_100] {
            let mut silence = vec![0.0; 3000];
            effect.apply(&mut silence, rate_hz);
            // The smallest pulse of the codec is not 0.
            assert!(
                silence.iter().all(|sample| sample.abs() < 2e-3),
                "{effect:?} at {rate_hz} Hz makes sound of silence"
            );
            let mut loud: Vec<f32> = (0..3001)
                .map(|n| if n / 50 % 2 == 0 { 1.0 } else { -1.0 })
                .collect();
            effect.apply(&mut loud, rate_hz);
            assert!(
                loud.iter().all(|sample| sample.abs() < 4.0),
                "{effect:?} at {rate_hz} Hz"
            );
            assert!(
                loud[1000..].iter().any(|sample| sample.abs() > 0.05),
                "{effect:?}"
            );
            effect.apply(&mut [], rate_hz);
        }
    }
}
