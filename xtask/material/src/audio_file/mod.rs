//! Reads audio files with symphonia.

mod aiff;
mod chunks;
mod downmix;
mod he_aac;
mod mp4;
mod mpeg;
mod open;
mod reader;
mod splice;
mod survey;
mod wave;

use std::path::Path;

use anyhow::Result;
use model_runtime::AudioClip;

pub use reader::AudioReader;

/// File name extensions of the formats that [`read`] supports.
pub const EXTENSIONS: [&str; 19] = [
    "wav", "wave", "bwf", "rf64", "w64", "aif", "aiff", "aifc", "caf", "flac", "ogg", "oga", "mp3",
    "mp2", "m4a", "m4b", "mp4", "aac", "mka",
];

/// A whole audio file.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The samples, in one or two channels.
    pub clip: AudioClip,
    /// What was noticed: see [`AudioReader::warnings`].
    pub warnings: Vec<String>,
}

/// Reads a whole audio file, as [`AudioReader`] does.
///
/// # Errors
///
/// As [`AudioReader::open`] and [`AudioReader::next_block`].
pub fn read(path: &Path) -> Result<Recording> {
    let mut reader = AudioReader::open(path)?;
    let mut blocks = vec![Vec::new(); reader.channels()];
    let mut block = Vec::new();
    while reader.next_block(&mut block)? {
        for (blocks, channel) in blocks.iter_mut().zip(&mut block) {
            blocks.push(std::mem::take(channel));
        }
    }
    // Joined one channel after the other, so that little memory is used twice.
    let channels = blocks.into_iter().map(|blocks| blocks.concat()).collect();
    Ok(Recording {
        clip: AudioClip {
            sample_rate_hz: reader.sample_rate_hz(),
            channels,
        },
        warnings: reader.warnings().to_vec(),
    })
}

/// Duration of a clip in seconds. The clip must have at least one channel.
pub fn seconds(clip: &AudioClip) -> f64 {
    clip.channels[0].len() as f64 / f64::from(clip.sample_rate_hz)
}

/// The mean of all channels.
pub fn mono(clip: &AudioClip) -> Vec<f32> {
    let mut channels = clip.channels.iter();
    let mut sum = channels.next().cloned().unwrap_or_default();
    for channel in channels {
        for (sum, sample) in sum.iter_mut().zip(channel) {
            *sum += sample;
        }
    }
    let scale = 1.0 / clip.channels.len().max(1) as f32;
    sum.iter_mut().for_each(|sample| *sample *= scale);
    sum
}

/// Resamples from `from_hz` to `to_hz` with the filter that the plugin uses in front of its network, for material that a
/// network is trained or judged on. The result has `ceil(len * to_hz / from_hz)` samples and no delay.
///
/// # Errors
///
/// Returns an error if a rate is 0.
pub fn resample(samples: &[f32], from_hz: u32, to_hz: u32) -> Result<Vec<f32>> {
    Ok(model_runtime::resample(samples, from_hz, to_hz)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audio_writer::{WavFormat, write_wav};
    use crate::testing::TestFolder;

    // soundfile.write(name, (0.5 * sin(2 pi 440 arange(11025) / 22050)).astype("f4"), 22050)
    const TONE_OGG: &[u8] = include_bytes!("../fixtures/tone.ogg");
    const TONE_MP3: &[u8] = include_bytes!("../fixtures/tone.mp3");
    const TONE_FLAC: &[u8] = include_bytes!("../fixtures/tone.flac");

    fn sine(frequency_hz: f64, rate_hz: u32, samples: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * frequency_hz / f64::from(rate_hz);
        (0..samples)
            .map(|n| (0.5 * (step * n as f64).sin()) as f32)
            .collect()
    }

    fn read_error(folder: &TestFolder, name: &str, bytes: &[u8]) -> String {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let message = format!("{:#}", read(&path).unwrap_err());
        assert!(message.contains(name), "{message}");
        message
    }

    #[test]
    fn compressed_formats_give_the_same_tone() {
        let folder = TestFolder::new("formats");
        let tone = sine(440.0, 22_050, 11_025);
        for (name, bytes, tolerance) in [
            ("tone.flac", TONE_FLAC, 1e-4),
            ("tone.ogg", TONE_OGG, 0.02),
            ("tone.mp3", TONE_MP3, 0.02),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let clip = read(&path).unwrap();
            assert_eq!(
                (clip.sample_rate_hz, clip.channels.len()),
                (22_050, 1),
                "{name}"
            );
            assert_eq!(clip.channels[0].len(), tone.len(), "{name}");
            // The ends of the tone are where lossy coders may differ most.
            let pairs = clip.channels[0].iter().zip(&tone).enumerate();
            for (n, (found, expected)) in pairs.skip(2000).take(7000) {
                let difference = (found - expected).abs();
                assert!(
                    difference < tolerance,
                    "{name}: sample {n} is off by {difference}"
                );
            }
        }
    }

    /// Vorbis packets at the end of a page whose length symphonia misjudges.
    // ffmpeg -i music.ogg -t 2.3 -ac 1 -ar 22050 -c:a libvorbis -q:a 0 short_blocks.ogg
    #[test]
    fn no_samples_are_lost_between_pages() {
        let folder = TestFolder::new("pages");
        let path = folder.path().join("short_blocks.ogg");
        fs::write(&path, include_bytes!("../fixtures/short_blocks.ogg")).unwrap();
        // soundfile.info("short_blocks.ogg").frames
        assert_eq!(read(&path).unwrap().channels[0].len(), 50_656);
    }

    #[test]
    fn bad_files_are_named_with_what_is_wrong() {
        let folder = TestFolder::new("bad");
        let missing = folder.path().join("missing.wav");
        assert!(format!("{:#}", read(&missing).unwrap_err()).contains("missing.wav"));
        assert!(format!("{:#}", read(folder.path()).unwrap_err()).contains("folder"));
        assert!(read_error(&folder, "empty.wav", b"").contains("empty file"));
        assert!(
            read_error(&folder, "text.wav", b"these are words, not samples\n")
                .contains("expected a WAV")
        );
        for length in [
            TONE_OGG.len() - 1,
            TONE_OGG.len() - 100,
            TONE_OGG.len() * 9 / 10,
        ] {
            let message = read_error(&folder, "short.ogg", &TONE_OGG[..length]);
            assert!(message.contains("cut short"), "{length}: {message}");
        }
        assert!(
            read_error(&folder, "short.flac", &TONE_FLAC[..TONE_FLAC.len() / 2]).contains("short")
        );

        let path = folder.path().join("nan.wav");
        let mut clip = AudioClip {
            sample_rate_hz: 44_100,
            channels: vec![vec![0.0; 10]; 2],
        };
        clip.channels[1][3] = f32::NAN;
        write_wav(&path, &clip, WavFormat::Float32).unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("NaN at sample 3 of channel 1"));

        clip.channels = vec![vec![]];
        write_wav(&path, &clip, WavFormat::Float32).unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("no"));

        let whole = folder.path().join("whole.wav");
        clip.channels = vec![sine(440.0, 44_100, 1000)];
        write_wav(&whole, &clip, WavFormat::Pcm16).unwrap();
        let bytes = fs::read(&whole).unwrap();
        assert!(read_error(&folder, "short.wav", &bytes[..1000]).contains("cut short"));
    }

    #[test]
    fn mono_is_the_mean_of_the_channels() {
        let clip = AudioClip {
            sample_rate_hz: 44_100,
            channels: vec![vec![1.0, 0.0], vec![0.5, -1.0]],
        };
        assert_eq!(mono(&clip), [0.75, -0.5]);
    }
}
