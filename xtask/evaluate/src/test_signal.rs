//! A sound that reference numbers are for.

use model_runtime::AudioClip;

/// Three plucked notes with five harmonics each, one second at 22,050 Hz. In Python:
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
