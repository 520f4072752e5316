//! Writes WAV and FLAC files, whole or in steps.

mod flac;
mod wav;

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use model_runtime::AudioClip;

use crate::whole_file::PartFile;

/// Samples that are encoded at a time.
const PIECE_SAMPLES: usize = 65_536;

/// How samples are stored in a WAV file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WavFormat {
    /// 32-bit floating point: keeps every sample unchanged.
    Float32,
    /// 16-bit integers: samples are clipped at full scale and rounded.
    Pcm16,
    /// 24-bit integers: samples are clipped at full scale and rounded.
    Pcm24,
}

/// How samples are stored in a FLAC file: clipped at full scale and rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlacFormat {
    /// 16-bit integers.
    Pcm16,
    /// 24-bit integers.
    Pcm24,
}

/// Container and samples of an audio file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioFormat {
    /// A WAV file; RF64 if it is larger than 4 GiB.
    Wav(WavFormat),
    /// A FLAC file.
    Flac(FlacFormat),
}

impl AudioFormat {
    /// File name extension of the container.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wav(_) => "wav",
            Self::Flac(_) => "flac",
        }
    }

    /// Whether samples beyond full scale are clipped.
    fn clips(self) -> bool {
        self != Self::Wav(WavFormat::Float32)
    }
}

/// What the samples of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpec {
    /// The sample rate.
    pub sample_rate_hz: u32,
    /// Number of channels.
    pub channels: usize,
    /// Container and samples.
    pub format: AudioFormat,
}

/// Writes an audio file in steps, in constant memory.
pub struct AudioWriter {
    spec: AudioSpec,
    encoder: Box<dyn Encoder>,
    sink: Sink,
    /// The samples of a step, channel by channel for every time.
    interleaved: Vec<f32>,
    bytes: Vec<u8>,
    samples: u64,
    clipped_samples: u64,
}

/// Where the bytes go.
enum Sink {
    File(BufWriter<PartFile>),
    Pipe(Box<dyn Write>),
}

/// Turns samples into the bytes of a file.
trait Encoder {
    /// The bytes in front of the samples: always as many, so that they can be written once more at the end. `samples` is
    /// the length of the file, if known.
    fn header(&self, samples: Option<u64>) -> Result<Vec<u8>>;

    /// Takes the next samples, interleaved, and appends what they complete.
    fn encode(&mut self, interleaved: &[f32], bytes: &mut Vec<u8>) -> Result<()>;

    /// Appends the rest.
    fn finish(&mut self, bytes: &mut Vec<u8>) -> Result<()>;
}

impl AudioWriter {
    /// Starts a file at `path`, which appears there when it is finished. `expected_samples` is its length, if known; a WAV
    /// file that is expected to be small has no room to grow beyond 4 GiB.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written, or the format does not hold so many channels or such a sample
    /// rate.
    pub fn create(path: &Path, spec: AudioSpec, expected_samples: Option<u64>) -> Result<Self> {
        let start = || -> Result<Self> {
            let encoder: Box<dyn Encoder> = match spec.format {
                AudioFormat::Wav(format) => {
                    Box::new(wav::Encoder::for_file(spec, format, expected_samples)?)
                }
                AudioFormat::Flac(format) => Box::new(flac::Encoder::new(spec, format)?),
            };
            let part = PartFile::create(path)?;
            Self::start(spec, encoder, Sink::File(BufWriter::new(part)))
        };
        start().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Starts a WAV file of unknown length in a pipe.
    ///
    /// # Errors
    ///
    /// Returns an error if the pipe is closed, or WAV does not hold so many channels.
    pub fn pipe(
        pipe: impl Write + 'static,
        sample_rate_hz: u32,
        channels: usize,
        format: WavFormat,
    ) -> Result<Self> {
        let spec = AudioSpec {
            sample_rate_hz,
            channels,
            format: AudioFormat::Wav(format),
        };
        let encoder = wav::Encoder::for_pipe(spec, format)?;
        Self::start(spec, Box::new(encoder), Sink::Pipe(Box::new(pipe)))
    }

    fn start(spec: AudioSpec, encoder: Box<dyn Encoder>, mut sink: Sink) -> Result<Self> {
        sink.writer().write_all(&encoder.header(None)?)?;
        Ok(Self {
            spec,
            encoder,
            sink,
            interleaved: Vec::new(),
            bytes: Vec::new(),
            samples: 0,
            clipped_samples: 0,
        })
    }

    /// Writes the next samples, one slice per channel.
    ///
    /// # Errors
    ///
    /// Returns an error if the number of channels differs, the channels differ in length, or the file cannot be written
    /// or would be too large.
    pub fn push<C: AsRef<[f32]>>(&mut self, channels: &[C]) -> Result<()> {
        ensure!(
            channels.len() == self.spec.channels,
            "expected {} channels, found {}",
            self.spec.channels,
            channels.len()
        );
        let samples = channels[0].as_ref().len();
        for channel in channels {
            ensure!(
                channel.as_ref().len() == samples,
                "all channels must have {samples} samples, found one with {}",
                channel.as_ref().len()
            );
        }
        // Piece by piece: a push may be a whole clip.
        for start in (0..samples).step_by(PIECE_SAMPLES) {
            let end = samples.min(start + PIECE_SAMPLES);
            self.interleaved.clear();
            for sample in start..end {
                let channels = channels.iter().map(|channel| channel.as_ref()[sample]);
                self.interleaved.extend(channels);
            }
            self.write_interleaved()?;
        }
        self.samples += samples as u64;
        Ok(())
    }

    fn write_interleaved(&mut self) -> Result<()> {
        if self.spec.format.clips() {
            let clipped = self.interleaved.iter().filter(|sample| sample.abs() > 1.0);
            self.clipped_samples += clipped.count() as u64;
        }
        self.bytes.clear();
        self.encoder.encode(&self.interleaved, &mut self.bytes)?;
        Ok(self.sink.writer().write_all(&self.bytes)?)
    }

    /// Completes the file. Returns how many samples of it were clipped.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written.
    pub fn finish(mut self) -> Result<u64> {
        self.bytes.clear();
        self.encoder.finish(&mut self.bytes)?;
        self.sink.writer().write_all(&self.bytes)?;
        match self.sink {
            Sink::File(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&self.encoder.header(Some(self.samples))?)?;
                file.into_inner()?.keep()?;
            }
            Sink::Pipe(mut pipe) => pipe.flush()?,
        }
        Ok(self.clipped_samples)
    }
}

impl Sink {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::File(file) => file,
            Self::Pipe(pipe) => pipe,
        }
    }
}

/// Writes a clip as a WAV file, atomically.
///
/// # Errors
///
/// Returns an error if the clip has no channels or channels of different lengths, or the file cannot be written.
pub fn write_wav(path: &Path, clip: &AudioClip, format: WavFormat) -> Result<()> {
    let spec = AudioSpec {
        sample_rate_hz: clip.sample_rate_hz,
        channels: clip.channels.len(),
        format: AudioFormat::Wav(format),
    };
    let samples = clip.channels.first().map(|channel| channel.len() as u64);
    let mut writer = AudioWriter::create(path, spec, samples)?;
    writer
        .push(&clip.channels)
        .and_then(|()| writer.finish())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Rounds a sample to an integer of `bits` bits. Clips at full scale; NaN becomes 0.
fn to_pcm(sample: f32, bits: u32) -> i32 {
    let full_scale = 1 << (bits - 1);
    let scaled = (sample * full_scale as f32).round() as i32;
    scaled.clamp(-full_scale, full_scale - 1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audio_file::{self, AudioReader};
    use crate::testing::TestFolder;

    const ALL_FORMATS: [AudioFormat; 5] = [
        AudioFormat::Wav(WavFormat::Float32),
        AudioFormat::Wav(WavFormat::Pcm16),
        AudioFormat::Wav(WavFormat::Pcm24),
        AudioFormat::Flac(FlacFormat::Pcm16),
        AudioFormat::Flac(FlacFormat::Pcm24),
    ];

    /// Half the last bit.
    fn rounding(format: AudioFormat) -> f32 {
        match format {
            AudioFormat::Wav(WavFormat::Float32) => 0.0,
            AudioFormat::Wav(WavFormat::Pcm16) | AudioFormat::Flac(FlacFormat::Pcm16) => {
                0.5 / 32_768.0
            }
            AudioFormat::Wav(WavFormat::Pcm24) | AudioFormat::Flac(FlacFormat::Pcm24) => {
                0.5 / 8_388_608.0
            }
        }
    }

    /// Noise of full scale, the hardest signal for FLAC.
    fn noise(seed: u32, samples: usize) -> Vec<f32> {
        let mut state = seed;
        (0..samples)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    fn sine(frequency_hz: f64, rate_hz: u32, samples: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * frequency_hz / f64::from(rate_hz);
        (0..samples)
            .map(|n| (0.5 * (step * n as f64).sin()) as f32)
            .collect()
    }

    /// Writes in pushes of several lengths.
    fn write_in_steps(path: &Path, clip: &AudioClip, format: AudioFormat) -> Result<u64> {
        let spec = AudioSpec {
            sample_rate_hz: clip.sample_rate_hz,
            channels: clip.channels.len(),
            format,
        };
        let mut writer = AudioWriter::create(path, spec, None)?;
        let (mut start, mut step) = (0, 1);
        while start < clip.channels[0].len() {
            let end = clip.channels[0].len().min(start + step);
            let slices = clip.channels.iter().map(|channel| &channel[start..end]);
            writer.push(&slices.collect::<Vec<_>>())?;
            (start, step) = (end, step * 7 % 9973);
        }
        writer.finish()
    }

    #[test]
    fn every_format_is_read_as_it_was_written() {
        let folder = TestFolder::new("written");
        // FLAC: shorter than a block, a whole number of blocks, and one sample more.
        for (channels, rate_hz, samples) in [
            (1, 44_100, 1),
            (2, 48_000, 20),
            (1, 96_000, 8192),
            (2, 44_099, 8193),
            (2, 8_000, 30_001),
        ] {
            let music = [sine(440.0, rate_hz, samples), sine(300.0, rate_hz, samples)];
            let noise = [noise(1, samples), noise(2, samples)];
            for signals in [music, noise] {
                let clip = AudioClip {
                    sample_rate_hz: rate_hz,
                    channels: signals[..channels].to_vec(),
                };
                for format in ALL_FORMATS {
                    let name = format!("{samples}.{}", format.extension());
                    let path = folder.path().join(name);
                    write_in_steps(&path, &clip, format).unwrap();
                    let read = audio_file::read(&path).unwrap();
                    assert!(read.warnings.is_empty(), "{format:?}: {:?}", read.warnings);
                    let read = read.clip;
                    assert_eq!(read.sample_rate_hz, rate_hz, "{format:?}");
                    assert_eq!(read.channels.len(), channels, "{format:?}");
                    for (read, exact) in read.channels.iter().zip(&clip.channels) {
                        assert_eq!(read.len(), samples, "{format:?}");
                        for (read, exact) in read.iter().zip(exact) {
                            // The largest integer is one less than full scale.
                            let exact = exact.min(1.0 - 2.0 * rounding(format));
                            let difference = (read - exact).abs();
                            assert!(difference <= rounding(format), "{format:?}: {difference}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn whole_clips_are_read_as_they_were_written() {
        let folder = TestFolder::new("wav");
        let path = folder.path().join("stereo.wav");
        let clip = AudioClip {
            sample_rate_hz: 48_000,
            channels: vec![sine(440.0, 48_000, 1000), sine(300.0, 48_000, 1000)],
        };
        write_wav(&path, &clip, WavFormat::Float32).unwrap();
        assert_eq!(audio_file::read(&path).unwrap().clip, clip);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "temporary file left over"
        );
    }

    #[test]
    fn flac_is_smaller_and_says_how_long_it_is() {
        let folder = TestFolder::new("flac");
        let clip = AudioClip {
            sample_rate_hz: 44_100,
            channels: vec![sine(440.0, 44_100, 20_000); 2],
        };
        let path = folder.path().join("sine.flac");
        write_in_steps(&path, &clip, AudioFormat::Flac(FlacFormat::Pcm16)).unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 40_000);
        let reader = AudioReader::open(&path).unwrap();
        assert_eq!(reader.expected_samples(), Some(20_000));
    }

    #[test]
    fn clipped_samples_are_counted_and_stay_at_full_scale() {
        let folder = TestFolder::new("clipped");
        let clip = AudioClip {
            sample_rate_hz: 44_100,
            channels: vec![vec![1.0, 1.5, -1.0, -2.0, 0.25], vec![0.0; 5]],
        };
        for format in ALL_FORMATS {
            let path = folder.path().join(format!("x.{}", format.extension()));
            let clipped = write_in_steps(&path, &clip, format).unwrap();
            assert_eq!(clipped, if format.clips() { 2 } else { 0 }, "{format:?}");
            let read = audio_file::read(&path).unwrap().clip;
            for (read, exact) in read.channels[0].iter().zip(&clip.channels[0]) {
                let limit = if format.clips() { 1.0 } else { 2.0 };
                let difference = (read - exact.clamp(-limit, limit)).abs();
                assert!(difference <= 2.0 * rounding(format), "{format:?}: {read}");
            }
        }
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = TestFolder::new("failed_write");
        let clip = AudioClip {
            sample_rate_hz: 44_100,
            channels: vec![vec![0.0; 10], vec![0.0; 9]],
        };
        let path = folder.path().join("uneven.wav");
        assert!(write_wav(&path, &clip, WavFormat::Float32).is_err());
        let clip = AudioClip {
            sample_rate_hz: 192_000,
            channels: vec![vec![0.0; 10]],
        };
        let error = write_in_steps(&path, &clip, AudioFormat::Flac(FlacFormat::Pcm24));
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("192000 Hz"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
