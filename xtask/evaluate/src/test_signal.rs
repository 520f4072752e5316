//! Sounds for tests.

use model_runtime::AudioClip;

/// The sound that reference numbers are for: three plucked notes with five harmonics each, one second at 22,050 Hz. In Python:
///
/// ```python
/// t = numpy.arange(22050) / 22050
/// x = numpy.zeros(22050)
/// for start, hz, decay in [(0.1, 261.63, 6.0), (0.35, 392.0, 9.0), (0.6, 329.63, 4.0)]:
///     s = t - start
///     for k in range(1, 6):
///         x += numpy.where(s >= 0, numpy.exp(-decay * s) * numpy.sin(2 * numpy.pi * hz * k * s) / k, 0) * 0.2
/// x = x.astype("f4")
/// ```
pub fn plucks() -> AudioClip {
    let mut samples = vec![0.0f64; 22_050];
    for (start, hz, decay) in [(0.1, 261.63, 6.0), (0.35, 392.0, 9.0), (0.6, 329.63, 4.0)] {
        for (n, sample) in samples.iter_mut().enumerate() {
            let since = n as f64 / 22_050.0 - start;
            for harmonic in (1..=5).map(f64::from).filter(|_| since >= 0.0) {
                let phase = std::f64::consts::TAU * hz * harmonic * since;
                *sample += 0.2 * (-decay * since).exp() * phase.sin() / harmonic;
            }
        }
    }
    AudioClip {
        sample_rate_hz: 22_050,
        channels: vec![samples.into_iter().map(|sample| sample as f32).collect()],
    }
}

/// Three seconds and a half of a chord on `hz`, struck every `beat_samples`, at 22,050 Hz.
pub fn struck(hz: f32, beat_samples: usize) -> AudioClip {
    let samples = (0..77_000).map(|n| {
        let decay = (-((n % beat_samples) as f32) / 2000.0).exp();
        let tone = |hz: f32| (std::f32::consts::TAU * hz * n as f32 / 22_050.0).sin();
        0.1 * decay * (tone(hz) + tone(1.5 * hz) + tone(2.0 * hz))
    });
    AudioClip {
        sample_rate_hz: 22_050,
        channels: vec![samples.collect()],
    }
}
