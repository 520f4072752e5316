//! Reads audio files with symphonia.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use model_runtime::AudioClip;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::well_known::{FORMAT_ID_MP3, FORMAT_ID_OGG};
use symphonia::core::formats::{FormatId, FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

/// File name extensions of the formats that [`read`] supports.
pub const EXTENSIONS: [&str; 5] = ["wav", "flac", "ogg", "oga", "mp3"];

/// Reads a whole WAV, FLAC, Ogg Vorbis or MP3 file.
///
/// # Errors
///
/// Every error names the file: when it is missing or empty, is not one of these formats, ends before
/// the length that it announces (an Ogg file: before its end-of-stream page), cannot be decoded, or
/// holds no samples or samples that are not finite. An MP3 file announces no length that can be
/// relied on, so a shortened one reads as a shorter clip.
pub fn read(path: &Path) -> Result<AudioClip> {
    decode(path).with_context(|| format!("cannot read audio from {}", path.display()))
}

fn decode(path: &Path) -> Result<AudioClip> {
    let mut format = open(path)?;
    let track = format
        .default_track(TrackType::Audio)
        .context("expected an audio track, found none")?;
    let track_id = track.id;
    let expected = ExpectedSamples::of(track, format.format_info().format);
    let params = track
        .codec_params
        .as_ref()
        .and_then(|params| params.audio())
        .context("expected an audio track, found one of an unknown kind")?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(
            params,
            &AudioDecoderOptions::default().gapless(expected.trimmed_by_decoder),
        )
        .context("expected PCM, FLAC, Vorbis or MP3 audio, found another codec")?;
    let mut clip = decode_packets(format.as_mut(), decoder.as_mut(), track_id)?;
    for channel in &mut clip.channels {
        expected.cut_out(channel)?;
    }
    ensure_finite(&clip)?;
    Ok(clip)
}

/// Decodes all samples of a track.
fn decode_packets(
    format: &mut dyn FormatReader,
    decoder: &mut dyn AudioDecoder,
    track_id: u32,
) -> Result<AudioClip> {
    let mut clip: Option<AudioClip> = None;
    let mut packet_channels: Vec<Vec<f32>> = Vec::new();
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(SymphoniaError::IoError(error))
                if error.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                let read_samples = clip.as_ref().map_or(0, |clip| clip.channels[0].len());
                bail!(
                    "the file is cut short: it ends before its end-of-stream mark, after \
                     {read_samples} samples"
                );
            }
            Err(error) => return Err(error).context("cannot read the next packet"),
        };
        if packet.track_id != track_id {
            continue;
        }
        let buffer = decoder.decode(&packet).context("cannot decode the audio")?;
        let spec = buffer.spec();
        let (rate_hz, channels) = (spec.rate(), spec.channels().count());
        let clip = clip.get_or_insert_with(|| AudioClip {
            sample_rate_hz: rate_hz,
            channels: vec![Vec::new(); channels],
        });
        ensure!(
            rate_hz == clip.sample_rate_hz && channels == clip.channels.len(),
            "the format changes within the file: expected {} channels at {} Hz, found {channels} channels at {rate_hz} Hz",
            clip.channels.len(),
            clip.sample_rate_hz,
        );
        buffer.copy_to_vecs_planar(&mut packet_channels);
        for (channel, samples) in clip.channels.iter_mut().zip(&packet_channels) {
            channel.extend_from_slice(samples);
        }
    }
    clip.context("the file has no samples")
}

fn ensure_finite(clip: &AudioClip) -> Result<()> {
    for (index, channel) in clip.channels.iter().enumerate() {
        if let Some(sample) = channel.iter().position(|sample| !sample.is_finite()) {
            bail!(
                "expected finite samples, found {} at sample {sample} of channel {index}",
                channel[sample]
            );
        }
    }
    Ok(())
}

/// The range of decoded samples that belongs to the music, without encoder padding.
struct ExpectedSamples {
    /// Whether the decoder removes the encoder's padding itself.
    trimmed_by_decoder: bool,
    /// Samples of padding at the beginning.
    skipped: u64,
    /// Samples of music after those, if known.
    length: Option<u64>,
}

impl ExpectedSamples {
    fn of(track: &Track, format: FormatId) -> Self {
        if format == FORMAT_ID_OGG {
            // Ogg pages may carry positions that are a few hundred samples off in the middle of a stream; symphonia
            // (0.6.1) takes the samples after them for padding and removes them.
            let delay = i64::from(track.delay.unwrap_or(0));
            let start = track.start_ts.get();
            let late_start = (start + delay).max(0) as u64;
            Self {
                trimmed_by_decoder: false,
                skipped: delay.max(-start) as u64,
                length: track.num_frames.map(|end| end.saturating_sub(late_start)),
            }
        } else {
            Self {
                trimmed_by_decoder: true,
                skipped: 0,
                // For an MP3 file, symphonia may estimate the length from the bit rate.
                length: track.num_frames.filter(|_| format != FORMAT_ID_MP3),
            }
        }
    }

    /// Removes the padding from the decoded samples of a channel.
    fn cut_out(&self, channel: &mut Vec<f32>) -> Result<()> {
        let found = (channel.len() as u64).saturating_sub(self.skipped);
        let length = self.length.unwrap_or(found);
        ensure!(
            found >= length,
            "the file is cut short: expected {length} samples, found {found}"
        );
        channel.drain(..channel.len() - found as usize);
        channel.truncate(length as usize);
        ensure!(!channel.is_empty(), "the file has no samples");
        Ok(())
    }
}

/// Opens the file and detects its format.
fn open(path: &Path) -> Result<Box<dyn FormatReader>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    ensure!(
        metadata.is_file(),
        "expected a file, found a folder or a device"
    );
    ensure!(metadata.len() > 0, "expected audio, found an empty file");

    let mut hint = Hint::new();
    if let Some(extension) = path.extension().and_then(|extension| extension.to_str()) {
        hint.with_extension(extension);
    }
    symphonia::default::get_probe()
        .probe(
            &hint,
            MediaSourceStream::new(Box::new(file), Default::default()),
            FormatOptions::default(),
            MetadataOptions::default(),
        )
        .context("expected a WAV, FLAC, Ogg Vorbis or MP3 file, found another format or a file cut short in its header")
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
