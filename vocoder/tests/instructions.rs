//! The loops outside networks return the same with all vector instructions of this processor, bit for bit. A single test, as
//! it forces the instructions of its whole process.

use test_signals::noise;
use vocoder::griffin_lim::GriffinLimStream;
use vocoder::guided::{FrameControls, GuidedConfig, GuidedVoice};
use vocoder::simd::Isa;
use vocoder::{LogMel, MelConfig, MelSpectrogram};

/// A decaying burst every quarter of a second in a tone.
fn music(rate_hz: u32, seconds: f32, seed: u32) -> Vec<f32> {
    let samples = noise(seed, (rate_hz as f32 * seconds) as usize);
    let music = samples.iter().enumerate().map(|(n, noise)| {
        let time = n as f32 / rate_hz as f32;
        let tone = (time * 220.0 * (1 + seed) as f32 * std::f32::consts::TAU).sin();
        0.2 * tone + noise * (-20.0 * (time % 0.25)).exp()
    });
    music.collect()
}

/// The guided voice between two clips, and its sound made anew from its mel and its spectra.
fn sound(rate_hz: u32, channels: usize, transpose_semitones: i32) -> Vec<Vec<f32>> {
    let mel = MelConfig::default();
    let [main, sidechain] = [1, 2].map(|seed| music(rate_hz, 1.5, seed));
    let decoded = MelSpectrogram::new(&mel)
        .unwrap()
        .log_mel(&music(mel.sample_rate_hz, 1.5, 3));
    let controls = (0..decoded.frames()).map(|frame| FrameControls {
        harmony: 0.1,
        rhythm: (frame as f32 / 20.0).min(1.0),
        transpose_semitones,
        ..FrameControls::default()
    });
    let mut voice = GuidedVoice::new(&GuidedConfig::new(mel.clone(), rate_hz, channels))
        .unwrap()
        .with_spectra();
    let controls: Vec<_> = controls.collect();
    voice.push_mel(&decoded, &controls).unwrap();
    let quieter: Vec<f32> = main.iter().map(|sample| 0.7 * sample).collect();
    let main = [main.as_slice(), &quieter];
    let sidechain = [sidechain.as_slice(), &sidechain];
    voice
        .push_audio(&main[..channels], &sidechain[..channels])
        .unwrap();
    let mut out = vec![Vec::new(); channels];
    voice.finish(&mut out).unwrap();

    let spectra = voice.take_spectra();
    let frames = decoded.frames().min(spectra.len());
    let mut rest = decoded.clone();
    let first: LogMel = rest.take_first(frames);
    let mut stream = GriffinLimStream::new(&mel).unwrap();
    let mut remade = Vec::new();
    stream
        .push_with(&first, Some(&spectra[..frames]), &mut remade)
        .unwrap();
    stream.push(&decoded, &mut remade).unwrap();
    stream.finish(&mut remade);
    out.push(remade);
    out
}

#[test]
fn all_instructions_give_the_same_sound() {
    for (rate_hz, channels, semitones) in [(44_100, 2, 0), (48_000, 1, 3)] {
        let mut sounds = Isa::available().map(|isa| {
            isa.force();
            assert_eq!(Isa::best(), isa);
            (isa, sound(rate_hz, channels, semitones))
        });
        let (_, first) = sounds.next().unwrap();
        assert!(first.iter().all(|x| x.iter().any(|x| x.abs() > 0.01)));
        for (isa, other) in sounds {
            assert!(other == first, "{isa:?} at {rate_hz} Hz");
        }
    }
}
