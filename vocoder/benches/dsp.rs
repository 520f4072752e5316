//! Cost of the signal processing. Each benchmark processes one second of audio, so its time in milliseconds divided by
//! ten is the load of one core in percent.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use test_signals::noise;
use vocoder::guided::{FrameControls, GuidedConfig, GuidedVoice};
use vocoder::{LogMel, MelConfig, MelStream};

fn mel(criterion: &mut Criterion) {
    let config = MelConfig::default();
    let mut stream = MelStream::new(&config).expect("the default is valid");
    let second = noise(1, config.sample_rate_hz as usize);
    let mut out = LogMel::new(config.n_mels);
    criterion.bench_function("mel, 1 s", |bencher| {
        bencher.iter(|| {
            out = LogMel::new(config.n_mels);
            stream.push(black_box(&second), &mut out);
        });
    });
}

fn guided(criterion: &mut Criterion) {
    for rate in [44_100, 48_000, 96_000] {
        let mut voice = GuidedVoice::new(&GuidedConfig::new(MelConfig::default(), rate, 2))
            .expect("a valid setting");
        let second = noise(1, rate as usize);
        let channels = [second.as_slice(), second.as_slice()];
        let frames = 43;
        let controls = FrameControls {
            harmony: 0.5,
            rhythm: 0.5,
            ..FrameControls::default()
        };
        let decoded = LogMel::from_values(128, vec![0.0; frames * 128]).expect("whole frames");
        let mut out = vec![Vec::new(); 2];
        criterion.bench_function(&format!("guided voice, stereo {rate} Hz, 1 s"), |bencher| {
            bencher.iter(|| {
                voice
                    .push_audio(&channels, &channels)
                    .expect("two channels");
                voice
                    .push_mel(&decoded, &[controls; 43])
                    .expect("controls for each frame");
                out.iter_mut().for_each(Vec::clear);
                voice.pull(&mut out).expect("two channels");
            });
        });
    }
}

criterion_group!(benches, mel, guided);
criterion_main!(benches);
