//! Remixes that need no network, to compare with.

use anyhow::Result;
use graft_material::audio_file;
use graft_material::loudness::TARGET_RMS_DBFS;
use model_runtime::AudioClip;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vocoder::AnalysisWindow;
use vocoder::classic::{ClassicRemix, Method as Engine};
use vocoder::guided::FrameControls;
use vocoder::hpss::{HpssConfig, HpssMasks, hpss};

use crate::margins::SAMPLE_RATE_HZ;
use crate::method::Method;
use crate::stft::Stft;

/// Name of the row of real clips.
pub const REAL: &str = "A alone";

/// Name of the row of noise.
pub const NOISE: &str = "white noise";

/// A alone, the sum of A and B, the harmonic part of A with the percussive part of B, both remixes that the plugin
/// makes without a network, and noise, as the worst case.
pub fn methods() -> Vec<Method<'static>> {
    vec![
        Method::new(REAL, |a, _| Ok(a.clone())).for_reference(),
        Method::new("A + B", |a, b| Ok(sum(&mono(a)?, &mono(b)?))),
        Method::new("HPSS: harmonic A + percussive B", separated),
        engine(
            "engine Split",
            Engine::Separation,
            AnalysisWindow::Symmetric,
        ),
        engine(
            "engine Split, Live",
            Engine::Separation,
            AnalysisWindow::LowDelay,
        ),
        engine("engine Morph", Engine::Morphing, AnalysisWindow::Symmetric),
        engine(
            "engine Morph, Live",
            Engine::Morphing,
            AnalysisWindow::LowDelay,
        ),
        Method::new(NOISE, |a, _| Ok(noise(a))).for_reference(),
    ]
}

/// A row of one of the plugin's engines without a network.
fn engine(name: &str, method: Engine, window: AnalysisWindow) -> Method<'static> {
    Method::new(name, move |a, b| classic(method, window, a, b))
}

/// White noise as long as `a`, at the level of all excerpts.
fn noise(a: &AudioClip) -> AudioClip {
    let mut random = StdRng::seed_from_u64(1);
    // Uniform numbers from -1 to 1 have an RMS of 1 / sqrt(3).
    let peak = 3f32.sqrt() * 10f32.powf(TARGET_RMS_DBFS / 20.0);
    let samples = a.channels.first().map_or(0, Vec::len);
    AudioClip {
        sample_rate_hz: a.sample_rate_hz,
        channels: vec![
            (0..samples)
                .map(|_| random.random_range(-peak..peak))
                .collect(),
        ],
    }
}

/// The harmonic part of `a` and the percussive part of `b` by median filtering with librosa's default
/// settings (`librosa.effects.hpss`), mono.
///
/// # Errors
///
/// Returns an error if a clip cannot be resampled or separated.
pub fn separated(a: &AudioClip, b: &AudioClip) -> Result<AudioClip> {
    let [harmonic, percussive] = parts(a, b)?;
    Ok(sum(&harmonic, &percussive))
}

/// The two parts that [`separated`] adds up.
///
/// # Errors
///
/// Returns an error if a clip cannot be resampled or separated.
pub fn parts(a: &AudioClip, b: &AudioClip) -> Result<[Vec<f32>; 2]> {
    let harmonic = part(&mono(a)?, |masks| masks.harmonic)?;
    let percussive = part(&mono(b)?, |masks| masks.percussive)?;
    Ok([harmonic, percussive])
}

/// The harmony of `a` with the rhythm of `b` by one of the plugin's engines without a network, mono.
///
/// # Errors
///
/// Returns an error if a clip cannot be resampled.
fn classic(
    method: Engine,
    window: AnalysisWindow,
    a: &AudioClip,
    b: &AudioClip,
) -> Result<AudioClip> {
    let (a, b) = (mono(a)?, mono(b)?);
    let samples = a.len().min(b.len());
    let mut remix = ClassicRemix::new(method, window, SAMPLE_RATE_HZ, 1)?;
    let controls = |_: usize| FrameControls {
        harmony: 0.0,
        rhythm: 1.0,
        ..FrameControls::default()
    };
    let mut channels = vec![Vec::new()];
    remix.push(
        [&[&a[..samples]], &[&b[..samples]]],
        controls,
        &mut channels,
    )?;
    remix.finish(controls, &mut channels)?;
    Ok(AudioClip {
        sample_rate_hz: SAMPLE_RATE_HZ,
        channels,
    })
}

/// The samples of a clip, mixed to mono and resampled.
///
/// # Errors
///
/// Returns an error if the clip cannot be resampled.
pub fn mono(clip: &AudioClip) -> Result<Vec<f32>> {
    let mono = audio_file::mono(clip);
    audio_file::resample(&mono, clip.sample_rate_hz, SAMPLE_RATE_HZ)
}

fn sum(a: &[f32], b: &[f32]) -> AudioClip {
    AudioClip {
        sample_rate_hz: SAMPLE_RATE_HZ,
        channels: vec![a.iter().zip(b).map(|(a, b)| a + b).collect()],
    }
}

/// One of the two parts of a clip.
fn part(samples: &[f32], choose: fn(HpssMasks<Vec<f32>>) -> Vec<f32>) -> Result<Vec<f32>> {
    let stft = Stft::new(2048, 512);
    let mut spectra = stft.analyse(samples)?;
    let magnitude: Vec<f32> = spectra.iter().map(|bin| bin.norm()).collect();
    let mask = choose(hpss(&magnitude, stft.n_bins(), &HpssConfig::default())?);
    for (bin, mask) in spectra.iter_mut().zip(mask) {
        *bin *= mask;
    }
    stft.synthesise(&spectra, samples.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separation_keeps_the_tone_of_a_and_the_clicks_of_b() {
        let tone: Vec<f32> = (0..44_100).map(|n| 0.1 * (n as f32 * 0.2).sin()).collect();
        let click = |n: usize| if n.is_multiple_of(8000) { 1.0 } else { 0.0 };
        let clicks: Vec<f32> = (0..44_100).map(click).collect();
        let clip = |samples: &[f32]| AudioClip {
            sample_rate_hz: SAMPLE_RATE_HZ,
            channels: vec![samples.to_vec()],
        };
        let both = separated(&clip(&tone), &clip(&clicks)).unwrap();
        let swapped = separated(&clip(&clicks), &clip(&tone)).unwrap();
        let energy = |clip: &AudioClip| -> f32 {
            clip.channels[0][4000..40_000].iter().map(|x| x * x).sum()
        };
        let sources = energy(&clip(&tone)) + energy(&clip(&clicks));
        assert!(
            energy(&both) > 0.8 * sources,
            "{} of {sources}",
            energy(&both)
        );
        assert!(
            energy(&swapped) < 0.05 * sources,
            "{} of {sources}",
            energy(&swapped)
        );
    }
}
