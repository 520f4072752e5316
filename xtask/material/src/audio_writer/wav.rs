//! WAV: header and samples, without a channel mask. So one channel is plain mono, which players play on all sides.

use anyhow::{Context, Result, ensure};

use super::{AudioSpec, WavFormat, to_pcm};

/// Length of the chunk `ds64` of RF64 (EBU Tech 3306) without a table, and of the chunk that keeps its place.
const DS64_BYTES: u32 = 28;

/// A size that is not known, or is in the chunk `ds64`.
const NO_SIZE: u32 = u32::MAX;

/// Encodes WAV.
pub struct Encoder {
    format: WavFormat,
    sample_rate_hz: u32,
    channels: u16,
    sizes: Sizes,
    data_bytes: u64,
}

/// How the header gives the size of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sizes {
    /// As 32-bit integers: up to 4 GiB.
    Small,
    /// With room for 64-bit integers: RF64 above 4 GiB.
    Large,
    /// Not at all, as usual in a pipe.
    Unknown,
}

impl Encoder {
    /// For a file with about `expected_samples`.
    pub fn for_file(
        spec: AudioSpec,
        format: WavFormat,
        expected_samples: Option<u64>,
    ) -> Result<Self> {
        let mut encoder = Self::new(spec, format, Sizes::Small)?;
        let expected = expected_samples.map(|samples| samples * encoder.block_bytes());
        // An expectation may be wrong, but not by much.
        if expected.is_none_or(|bytes| bytes > u64::from(u32::MAX) / 2) {
            encoder.sizes = Sizes::Large;
        }
        Ok(encoder)
    }

    /// For a pipe.
    pub fn for_pipe(spec: AudioSpec, format: WavFormat) -> Result<Self> {
        Self::new(spec, format, Sizes::Unknown)
    }

    fn new(spec: AudioSpec, format: WavFormat, sizes: Sizes) -> Result<Self> {
        ensure!(
            spec.channels > 0,
            "expected at least one channel, found none"
        );
        Ok(Self {
            format,
            sample_rate_hz: spec.sample_rate_hz,
            channels: u16::try_from(spec.channels).context("too many channels for WAV")?,
            sizes,
            data_bytes: 0,
        })
    }

    fn sample_bytes(&self) -> u16 {
        match self.format {
            WavFormat::Float32 => 4,
            WavFormat::Pcm24 => 3,
            WavFormat::Pcm16 => 2,
        }
    }

    /// Bytes of one sample of all channels.
    fn block_bytes(&self) -> u64 {
        u64::from(self.channels) * u64::from(self.sample_bytes())
    }
}

impl super::Encoder for Encoder {
    fn header(&self, samples: Option<u64>) -> Result<Vec<u8>> {
        let is_float = self.format == WavFormat::Float32;
        let mut fmt = Vec::new();
        let tag = if is_float { 3u16 } else { 1 };
        fmt.extend(tag.to_le_bytes());
        fmt.extend(self.channels.to_le_bytes());
        fmt.extend(self.sample_rate_hz.to_le_bytes());
        let rate_bytes = u64::from(self.sample_rate_hz) * self.block_bytes();
        fmt.extend((rate_bytes as u32).to_le_bytes());
        fmt.extend((self.block_bytes() as u16).to_le_bytes());
        fmt.extend((8 * self.sample_bytes()).to_le_bytes());
        if is_float {
            // No extension follows.
            fmt.extend(0u16.to_le_bytes());
        }

        let room = self.sizes == Sizes::Large;
        let room_bytes = if room { 8 + u64::from(DS64_BYTES) } else { 0 };
        let fact_bytes = if is_float { 12 } else { 0 };
        // "WAVE", the chunks before the samples, and the head of the samples' own chunk.
        let before_data = 4 + room_bytes + 8 + fmt.len() as u64 + fact_bytes + 8;
        let data = samples.map(|samples| samples * self.block_bytes());
        let riff = data.map(|data| before_data + data.next_multiple_of(2));
        let is_rf64 = room && riff.is_some_and(|riff| riff >= u64::from(NO_SIZE));
        let size = |size: Option<u64>| match size {
            Some(size) if !is_rf64 => u32::try_from(size).context("the file is too large for WAV"),
            _ => Ok(NO_SIZE),
        };

        let mut header = Vec::new();
        header.extend(if is_rf64 { b"RF64" } else { b"RIFF" });
        header.extend(size(riff)?.to_le_bytes());
        header.extend(b"WAVE");
        if room {
            header.extend(if is_rf64 { b"ds64" } else { b"JUNK" });
            header.extend(DS64_BYTES.to_le_bytes());
            for size in [riff, data, samples] {
                let size = size.filter(|_| is_rf64).unwrap_or(0);
                header.extend(size.to_le_bytes());
            }
            // The table of other chunks is empty.
            header.extend(0u32.to_le_bytes());
        }
        header.extend(b"fmt ");
        header.extend((fmt.len() as u32).to_le_bytes());
        header.extend(fmt);
        if is_float {
            header.extend(b"fact");
            header.extend(4u32.to_le_bytes());
            header.extend(size(samples)?.to_le_bytes());
        }
        header.extend(b"data");
        header.extend(size(data)?.to_le_bytes());
        Ok(header)
    }

    fn encode(&mut self, interleaved: &[f32], bytes: &mut Vec<u8>) -> Result<()> {
        self.data_bytes += interleaved.len() as u64 * u64::from(self.sample_bytes());
        // 1 KiB for the header.
        ensure!(
            self.sizes != Sizes::Small || self.data_bytes < u64::from(u32::MAX) - 1024,
            "the file would be larger than 4 GiB, and was expected to be much smaller"
        );
        for &sample in interleaved {
            match self.format {
                WavFormat::Float32 => bytes.extend(sample.to_le_bytes()),
                WavFormat::Pcm24 => bytes.extend(&to_pcm(sample, 24).to_le_bytes()[..3]),
                WavFormat::Pcm16 => bytes.extend(&to_pcm(sample, 16).to_le_bytes()[..2]),
            }
        }
        Ok(())
    }

    fn finish(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        // Chunks have even lengths.
        if self.data_bytes % 2 == 1 && self.sizes != Sizes::Unknown {
            bytes.push(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio_writer::{AudioFormat, Encoder as _};

    const FORMATS: [WavFormat; 3] = [WavFormat::Float32, WavFormat::Pcm16, WavFormat::Pcm24];

    fn spec(channels: usize, format: WavFormat) -> AudioSpec {
        AudioSpec {
            sample_rate_hz: 44_100,
            channels,
            format: AudioFormat::Wav(format),
        }
    }

    fn u16_at(bytes: &[u8], position: usize) -> u16 {
        u16::from_le_bytes(bytes[position..][..2].try_into().unwrap())
    }

    fn u32_at(bytes: &[u8], position: usize) -> u32 {
        u32::from_le_bytes(bytes[position..][..4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], position: usize) -> u64 {
        u64::from_le_bytes(bytes[position..][..8].try_into().unwrap())
    }

    #[test]
    fn mono_and_stereo_have_no_channel_mask() {
        for format in FORMATS {
            for channels in [1, 2] {
                let encoder =
                    Encoder::for_file(spec(channels, format), format, Some(1000)).unwrap();
                let header = encoder.header(Some(1000)).unwrap();
                assert_eq!(&header[12..16], b"fmt ");
                // PCM or floating point; 0xFFFE would be extensible, with a mask.
                let tag = u16_at(&header, 20);
                assert!(tag == 1 || tag == 3, "{format:?}: {tag:#x}");
                assert_eq!(u16_at(&header, 22), channels as u16);
                let data = 1000 * channels as u32 * u32::from(encoder.sample_bytes());
                assert_eq!(u32_at(&header, 4), header.len() as u32 - 8 + data);
                assert_eq!(u32_at(&header, header.len() - 4), data);
            }
        }
    }

    #[test]
    fn sizes_in_a_pipe_are_unknown() {
        let encoder = Encoder::for_pipe(spec(1, WavFormat::Pcm16), WavFormat::Pcm16).unwrap();
        let header = encoder.header(None).unwrap();
        assert_eq!(header.len(), 44);
        assert_eq!([u32_at(&header, 4), u32_at(&header, 40)], [u32::MAX; 2]);
    }

    #[test]
    fn a_file_of_unknown_length_has_room_for_more_than_4_gib() {
        for format in FORMATS {
            let encoder = Encoder::for_file(spec(2, format), format, None).unwrap();
            let small = encoder.header(Some(1000)).unwrap();
            assert_eq!([&small[..4], &small[12..16]], [b"RIFF", b"JUNK"]);
            let samples = 3_000_000_000u64;
            let large = encoder.header(Some(samples)).unwrap();
            assert_eq!(large.len(), small.len());
            assert_eq!([&large[..4], &large[12..16]], [b"RF64", b"ds64"]);
            assert_eq!(u32_at(&large, 4), u32::MAX);
            let data = samples * encoder.block_bytes();
            assert_eq!(u64_at(&large, 20), large.len() as u64 - 8 + data);
            assert_eq!(u64_at(&large, 28), data);
            assert_eq!(u64_at(&large, 36), samples);
            assert_eq!(u32_at(&large, large.len() - 4), u32::MAX);
        }
    }

    #[test]
    fn a_file_that_outgrows_its_expected_length_is_refused() {
        let format = WavFormat::Float32;
        let mut encoder = Encoder::for_file(spec(1, format), format, Some(1000)).unwrap();
        encoder.data_bytes = u64::from(u32::MAX) - 1100;
        let mut bytes = Vec::new();
        encoder.encode(&[0.0; 10], &mut bytes).unwrap();
        let error = encoder.encode(&[0.0; 100], &mut bytes).unwrap_err();
        assert!(error.to_string().contains("4 GiB"), "{error}");
    }
}
