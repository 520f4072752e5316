use std::f64::consts::TAU;
use std::fs;
use std::path::PathBuf;

use super::*;
use crate::audio_writer::{WavFormat, write_wav};
use crate::testing::TestFolder;

// soundfile.write(name, (0.5 * sin(2 pi 440 arange(11025) / 22050)).astype("f4"), 22050)
const TONE_OGG: &[u8] = include_bytes!("../../fixtures/tone.ogg");
const TONE_MP3: &[u8] = include_bytes!("../../fixtures/tone.mp3");
const TONE_FLAC: &[u8] = include_bytes!("../../fixtures/tone.flac");

// ffmpeg -f lavfi -i sine=frequency=440:sample_rate=22050:duration=0.25 -fflags +bitexact -flags:a +bitexact
//   -c:a aac -b:a 32k tone_aac.m4a    -c:a aac -b:a 32k tone.aac    -c:a alac tone_alac.m4a
//   -c:a pcm_s16be -ar 8000 tone.aiff    -c:a pcm_s24be -ar 8000 tone.caf    -c:a libvorbis -q:a 0 tone.mka
//   -c:a aac -b:a 64k -movflags +faststart tone_fast_start.m4a
//   -ac 2 -b:a 32k -write_xing 0 -id3v2_version 0 tone_stereo.mp3
const TONE_AAC_MP4: &[u8] = include_bytes!("../../fixtures/tone_aac.m4a");
const TONE_AAC: &[u8] = include_bytes!("../../fixtures/tone.aac");
const TONE_FAST_START: &[u8] = include_bytes!("../../fixtures/tone_fast_start.m4a");
const TONE_ALAC: &[u8] = include_bytes!("../../fixtures/tone_alac.m4a");
const TONE_AIFF: &[u8] = include_bytes!("../../fixtures/tone.aiff");
const TONE_CAF: &[u8] = include_bytes!("../../fixtures/tone.caf");
const TONE_MKA: &[u8] = include_bytes!("../../fixtures/tone.mka");
const SHORT_BLOCKS_OGG: &[u8] = include_bytes!("../../fixtures/short_blocks.ogg");
const TONE_STEREO_MP3: &[u8] = include_bytes!("../../fixtures/tone_stereo.mp3");

/// Samples of a packet of AAC.
const AAC_SAMPLES: usize = 1024;

/// A folder into which a test writes files.
struct Files(TestFolder);

impl Files {
    fn new(name: &str) -> Self {
        Self(TestFolder::new(name))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn read(&self, name: &str, bytes: &[u8]) -> Recording {
        read(&self.write(name, bytes)).unwrap_or_else(|error| panic!("{name}: {error:#}"))
    }

    /// Reads a file without any warning.
    fn read_whole(&self, name: &str, bytes: &[u8]) -> AudioClip {
        let recording = self.read(name, bytes);
        assert_eq!(recording.warnings, Vec::<String>::new(), "{name}");
        recording.clip
    }

    /// The error for a file; it names the file.
    fn error(&self, name: &str, bytes: &[u8]) -> String {
        let message = format!("{:#}", read(&self.write(name, bytes)).unwrap_err());
        assert!(message.contains(name), "{message}");
        message
    }
}

/// A WAV file of 16 bits, in parts that a test can change.
#[derive(Clone)]
struct Wav {
    riff_bytes: Option<u32>,
    format: Vec<u8>,
    /// Between the format and the samples.
    extra: Vec<u8>,
    data_bytes: Option<u32>,
    samples: Vec<u8>,
}

impl Wav {
    fn new() -> Self {
        Self {
            riff_bytes: None,
            format: format_chunk(1, 2, 16),
            extra: Vec::new(),
            data_bytes: None,
            samples: ramp(4000)
                .flat_map(|sample| [sample, -sample].map(i16::to_le_bytes).concat())
                .collect(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let data_bytes = self.data_bytes.unwrap_or(self.samples.len() as u32);
        let content = [
            &b"WAVEfmt "[..],
            &(self.format.len() as u32).to_le_bytes(),
            &self.format,
            &self.extra,
            b"data",
            &data_bytes.to_le_bytes(),
            &self.samples,
        ]
        .concat();
        let riff_bytes = self.riff_bytes.unwrap_or(content.len() as u32);
        [&b"RIFF"[..], &riff_bytes.to_le_bytes(), &content].concat()
    }
}

fn ramp(samples: i16) -> impl Iterator<Item = i16> {
    (0..samples).map(|n| 8 * n)
}

/// The clip in [`Wav::new`].
fn ramps() -> AudioClip {
    let ramp: Vec<f32> = ramp(4000)
        .map(|sample| f32::from(sample) / 32768.0)
        .collect();
    AudioClip {
        sample_rate_hz: 8000,
        channels: vec![ramp.clone(), ramp.iter().map(|sample| -sample).collect()],
    }
}

fn format_chunk(tag: u16, channels: u16, bits: u16) -> Vec<u8> {
    let block_bytes = channels * bits.div_ceil(8);
    [
        &tag.to_le_bytes()[..],
        &channels.to_le_bytes(),
        &8000_u32.to_le_bytes(),
        &(8000 * u32::from(block_bytes)).to_le_bytes(),
        &block_bytes.to_le_bytes(),
        &bits.to_le_bytes(),
    ]
    .concat()
}

fn extensible(tag: u16, channels: u16, bits: u16, valid_bits: u16, mask: u32) -> Vec<u8> {
    [
        &format_chunk(0xfffe, channels, bits)[..],
        &22_u16.to_le_bytes(),
        &valid_bits.to_le_bytes(),
        &mask.to_le_bytes(),
        &tag.to_le_bytes(),
        b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71",
    ]
    .concat()
}

/// Amplitude and phase in radians of a sine at 440 Hz, between 0.1 and 0.2 s after `start`.
fn tone(samples: &[f32], rate_hz: u32, start: usize) -> (f64, f64) {
    let rate_hz = f64::from(rate_hz);
    let range = (0.1 * rate_hz) as usize..(0.2 * rate_hz) as usize;
    let count = range.len() as f64;
    let (sine, cosine) = range.fold((0.0, 0.0), |(sine, cosine), n| {
        let sample = f64::from(samples[start + n]);
        let angle = TAU * 440.0 * n as f64 / rate_hz;
        (sine + sample * angle.sin(), cosine + sample * angle.cos())
    });
    (2.0 * sine.hypot(cosine) / count, cosine.atan2(sine))
}

#[test]
fn all_formats_give_the_same_tone() {
    let files = Files::new("formats");
    // ffmpeg's generator of tones has an amplitude of an eighth.
    for (name, bytes, length_seconds, amplitude) in [
        ("tone.flac", TONE_FLAC, 0.5, 0.5),
        ("tone.ogg", TONE_OGG, 0.5, 0.5),
        ("tone.mp3", TONE_MP3, 0.5, 0.5),
        ("tone_aac.m4a", TONE_AAC_MP4, 0.25, 0.125),
        ("tone_alac.m4a", TONE_ALAC, 0.25, 0.125),
        ("tone.aiff", TONE_AIFF, 0.25, 0.125),
        ("tone.caf", TONE_CAF, 0.25, 0.125),
        // Matroska counts in milliseconds, and symphonia ignores the padding at its end.
        ("tone.mka", TONE_MKA, 0.256, 0.125),
        // Without a container, the delay and padding of the encoder stay.
        ("tone.aac", TONE_AAC, 0.325, 0.125),
    ] {
        // The contents decide, not the name.
        for name in [name, &format!("{name}.dat")] {
            let clip = files.read_whole(name, bytes);
            assert_eq!(clip.channels.len(), 1, "{name}");
            let found = seconds(&clip);
            assert!((found - length_seconds).abs() < 5e-3, "{name}: {found} s");
            let delay = if name.starts_with("tone.aac") {
                AAC_SAMPLES
            } else {
                0
            };
            let (found, phase) = tone(&clip.channels[0], clip.sample_rate_hz, delay);
            assert!(
                (found / amplitude - 1.0).abs() < 0.1,
                "{name}: amplitude {found}"
            );
            // Less than a sample; half a millisecond.
            let most = if name.starts_with("tone.mka") {
                1.4
            } else {
                0.1
            };
            assert!(phase.abs() < most, "{name}: phase {phase}");
        }
    }
}

/// Vorbis packets at the end of a page whose length symphonia misjudges.
// ffmpeg -i music.ogg -t 2.3 -ac 1 -ar 22050 -c:a libvorbis -q:a 0 short_blocks.ogg
#[test]
fn no_samples_are_lost_between_pages() {
    let files = Files::new("pages");
    let clip = files.read_whole("short.ogg", SHORT_BLOCKS_OGG);
    // soundfile.info("short_blocks.ogg").frames
    assert_eq!(clip.channels[0].len(), 50_656);
}

#[test]
fn wav_headers_that_are_not_quite_right_are_understood() {
    let files = Files::new("headers");
    let good = Wav::new();
    let changed = |change: fn(&mut Wav)| {
        let mut wav = good.clone();
        change(&mut wav);
        wav.bytes()
    };
    let with_list = |list: &[u8]| [good.bytes().as_slice(), list].concat();
    let long = |form: &[u8; 4]| {
        let mut wav = Wav::new();
        let data_bytes = wav.samples.len() as u64;
        let sizes = [
            &0_u64.to_le_bytes()[..],
            &data_bytes.to_le_bytes(),
            &[0; 12],
        ]
        .concat();
        (wav.riff_bytes, wav.data_bytes) = (Some(u32::MAX), Some(u32::MAX));
        let mut bytes = [wav.bytes().as_slice(), b"LIST\x04\0\0\0INFO"].concat();
        bytes.splice(12..12, [&b"ds64\x1c\0\0\0"[..], &sizes].concat());
        bytes.splice(..4, *form);
        bytes
    };
    for (name, bytes) in [
        ("plain.wav", good.bytes()),
        (
            "piped.wav",
            changed(|wav| (wav.riff_bytes, wav.data_bytes) = (Some(u32::MAX), Some(u32::MAX))),
        ),
        (
            "sox.wav",
            changed(|wav| {
                (wav.riff_bytes, wav.data_bytes) = (Some(0x7fff_f024), Some(0x7fff_f000))
            }),
        ),
        (
            "crashed.wav",
            changed(|wav| (wav.riff_bytes, wav.data_bytes) = (Some(0), Some(0))),
        ),
        ("short_riff.wav", changed(|wav| wav.riff_bytes = Some(40))),
        (
            "long_riff.wav",
            changed(|wav| wav.riff_bytes = Some(1 << 30)),
        ),
        (
            "long_data.wav",
            changed(|wav| wav.data_bytes = Some(16_000 + 6)),
        ),
        (
            "odd.wav",
            changed(|wav| wav.extra = b"junk\x03\0\0\0abc\0".to_vec()),
        ),
        (
            "odd_unpadded.wav",
            changed(|wav| wav.extra = b"junk\x03\0\0\0abc".to_vec()),
        ),
        ("followed.wav", with_list(b"LIST\x04\0\0\0INFO")),
        ("followed_badly.wav", with_list(b"LIST\xff\0\0\0INFO")),
        (
            "ex.wav",
            changed(|wav| {
                wav.format = format_chunk(1, 2, 16)
                    .into_iter()
                    .chain([0, 0, 7])
                    .collect()
            }),
        ),
        (
            "extensible.wav",
            changed(|wav| wav.format = extensible(1, 2, 16, 16, 0x3)),
        ),
        (
            "no_mask.wav",
            changed(|wav| wav.format = extensible(1, 2, 16, 16, 0)),
        ),
        ("wrong_rates.wav", changed(|wav| wav.format[8..12].fill(0))),
        ("rf64.wav", long(b"RF64")),
        ("bw64.wav", long(b"BW64")),
    ] {
        assert_eq!(files.read_whole(name, &bytes), ramps(), "{name}");
    }
    let empty = Wav {
        samples: Vec::new(),
        ..Wav::new()
    };
    assert!(
        files
            .error("empty.wav", &empty.bytes())
            .contains("no samples")
    );
    let empty = [&empty.bytes()[..], b"LIST\x04\0\0\0INFO"].concat();
    assert!(
        files
            .error("empty_followed.wav", &empty)
            .contains("no samples")
    );
}

#[test]
fn wav_samples_of_all_sizes_are_read() {
    let files = Files::new("sizes");
    // A quarter of full scale, then minus a quarter.
    let quarters = |positive: &[u8], negative: &[u8]| [positive, negative].concat();
    for (name, format, samples) in [
        ("u8", format_chunk(1, 1, 8), quarters(&[0xa0], &[0x60])),
        (
            "s12",
            format_chunk(1, 1, 12),
            quarters(&[0, 0x20], &[0, 0xe0]),
        ),
        (
            "s16",
            format_chunk(1, 1, 16),
            quarters(&[0, 0x20], &[0, 0xe0]),
        ),
        (
            "s20",
            format_chunk(1, 1, 20),
            quarters(&[0, 0, 0x20], &[0, 0, 0xe0]),
        ),
        (
            "s24",
            format_chunk(1, 1, 24),
            quarters(&[0, 0, 0x20], &[0, 0, 0xe0]),
        ),
        (
            "s24 in 32",
            extensible(1, 1, 32, 24, 4),
            quarters(&[0, 0, 0, 0x20], &[0, 0, 0, 0xe0]),
        ),
        (
            "s32",
            format_chunk(1, 1, 32),
            quarters(&[0, 0, 0, 0x20], &[0, 0, 0, 0xe0]),
        ),
        (
            "f32",
            format_chunk(3, 1, 32),
            quarters(&0.25_f32.to_le_bytes(), &(-0.25_f32).to_le_bytes()),
        ),
        (
            "f64",
            format_chunk(3, 1, 64),
            quarters(&0.25_f64.to_le_bytes(), &(-0.25_f64).to_le_bytes()),
        ),
        // ITU-T G.711: 8064 and 8316 of 32768.
        ("A-law", format_chunk(6, 1, 8), quarters(&[0x8a], &[0x0a])),
        ("mu-law", format_chunk(7, 1, 8), quarters(&[0x9f], &[0x1f])),
    ] {
        let wav = Wav {
            format,
            samples,
            ..Wav::new()
        };
        let clip = files.read_whole(&format!("{name}.wav"), &wav.bytes());
        let [positive, negative] = clip.channels[0][..] else {
            panic!("{name}: {} samples", clip.channels[0].len());
        };
        assert!(
            (positive - 0.25).abs() < 0.009 && negative == -positive,
            "{name}: {positive} {negative}"
        );
    }
    let odd = Wav {
        format: format_chunk(1, 1, 64),
        ..Wav::new()
    };
    assert!(files.error("s64.wav", &odd.bytes()).contains("found 64"));
}

#[test]
fn wave64_is_read() {
    let files = Files::new("w64");
    let wav = Wav::new();
    let chunk = |letters: &[u8; 4], content: &[u8]| {
        let size = 24 + content.len() as u64;
        let guid = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a";
        [
            &letters[..],
            guid,
            &size.to_le_bytes(),
            content,
            &vec![0; content.len().next_multiple_of(8) - content.len()],
        ]
        .concat()
    };
    let chunks = [
        chunk(b"junk", &[1; 5]),
        chunk(b"fmt ", &wav.format),
        chunk(b"data", &wav.samples),
    ]
    .concat();
    let bytes = [
        &b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"[..],
        &(40 + chunks.len() as u64).to_le_bytes(),
        b"wave\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a",
        &chunks,
    ]
    .concat();
    assert_eq!(files.read_whole("a.w64", &bytes), ramps());
}

#[test]
fn aiff_headers_that_are_not_quite_right_are_understood() {
    let files = Files::new("aiff");
    let whole = files.read_whole("whole.aiff", TONE_AIFF);
    let sound = TONE_AIFF.windows(4).position(|id| id == b"SSND").unwrap();
    let with_size = |at: usize, size: u32| {
        let mut bytes = TONE_AIFF.to_vec();
        bytes.splice(at + 4..at + 8, size.to_be_bytes());
        bytes
    };
    for (name, bytes) in [
        ("piped.aiff", with_size(sound, u32::MAX)),
        ("crashed.aiff", with_size(sound, 0)),
        ("short_form.aiff", with_size(0, 20)),
        ("long_form.aiff", with_size(0, u32::MAX)),
        ("long_sound.aiff", with_size(sound, TONE_AIFF.len() as u32)),
    ] {
        assert_eq!(files.read_whole(name, &bytes), whole, "{name}");
    }
    let missing = files.read("cut.aiff", &TONE_AIFF[..sound + 16 + 1000]);
    assert_eq!(missing.clip.channels[0], whole.channels[0][..500]);
    assert!(
        missing.warnings[0].contains("cut short: expected 0.25 s, found 0.06 s"),
        "{:?}",
        missing.warnings
    );
}

#[test]
fn caf_recordings_of_unknown_length_are_read() {
    let files = Files::new("caf");
    let whole = files.read_whole("whole.caf", TONE_CAF);
    let data = TONE_CAF.windows(4).position(|id| id == b"data").unwrap();
    // 2000 samples of 24 bits are the end of the file.
    let mut bytes = TONE_CAF[..data + 16 + 3 * 2000].to_vec();
    bytes[data + 4..data + 12].fill(0xff);
    assert_eq!(files.read_whole("piped.caf", &bytes), whole);
}

#[test]
fn an_mp4_file_with_its_tables_first_plays_as_far_as_it_goes() {
    let files = Files::new("fast_start");
    let whole = files.read_whole("whole.m4a", TONE_FAST_START).channels;
    let cut = files.read("cut.m4a", &TONE_FAST_START[..TONE_FAST_START.len() * 2 / 3]);
    assert!(
        cut.warnings[0].contains("cut short: expected 0.25 s"),
        "{:?}",
        cut.warnings
    );
    let found = cut.clip.channels[0].len();
    assert!(found > 1000 && found < whole[0].len(), "{found} samples");
    assert_eq!(cut.clip.channels[0], whole[0][..found]);
}

#[test]
fn joined_mp3_files_play_to_the_end_in_stereo() {
    let files = Files::new("joined");
    let mono = files.read_whole("mono.mp3", TONE_MP3);
    let stereo = files.read_whole("stereo.mp3", TONE_STEREO_MP3);
    assert_eq!((mono.channels.len(), stereo.channels.len()), (1, 2));
    let joined = files.read_whole("joined.mp3", &[TONE_MP3, TONE_STEREO_MP3].concat());
    assert_eq!(joined.channels.len(), 2);
    let (found, parts) = (
        joined.channels[0].len(),
        mono.channels[0].len() + stereo.channels[0].len(),
    );
    // The padding of the first part plays.
    assert!((parts..parts + 1152).contains(&found), "{found} of {parts}");
    assert_eq!(joined.channels[0][..10_000], mono.channels[0][..10_000]);
    assert_eq!(joined.channels[1][..10_000], mono.channels[0][..10_000]);
    let tail = &stereo.channels[1][stereo.channels[1].len() - 2000..];
    assert_eq!(joined.channels[1][found - 2000..], *tail);
}

#[test]
fn mp3_files_without_an_encoders_header_play_to_the_end() {
    let files = Files::new("no_xing");
    // Loud and quiet parts have frames of different sizes, so a length by the first frames is wrong.
    let frames = TONE_STEREO_MP3.repeat(8);
    let clip = files.read_whole("vbr.mp3", &frames);
    let one = files.read_whole("one.mp3", TONE_STEREO_MP3).channels[0].len();
    assert_eq!(clip.channels[0].len(), 8 * one);
    let tagged = [&b"ID3\x04\0\0\0\0\x02\x00"[..], &[0xff; 256], &frames].concat();
    assert_eq!(files.read_whole("tagged.mp3", &tagged), clip);
}

#[test]
fn a_damaged_frame_is_skipped_and_named() {
    let files = Files::new("damaged");
    let whole = files.read_whole("whole.flac", TONE_FLAC).channels;
    let mut bytes = TONE_FLAC.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40].fill(0x55);
    let recording = files.read("damaged.flac", &bytes);
    let [warning] = &recording.warnings[..] else {
        panic!("{:?}", recording.warnings);
    };
    assert!(warning.contains("damaged"), "{warning}");
    let found = &recording.clip.channels;
    assert_eq!(
        found[0].len(),
        whole[0].len(),
        "the time after the damage is kept"
    );
    let same = found[0]
        .iter()
        .zip(&whole[0])
        .filter(|(found, whole)| found == whole)
        .count();
    assert!(same > whole[0].len() / 2 && same < whole[0].len(), "{same}");

    let mut bytes = TONE_MP3.repeat(4);
    let middle = bytes.len() / 2;
    bytes[middle..middle + 60].fill(0);
    let clip = files.read("damaged.mp3", &bytes).clip;
    let whole = files.read_whole("whole.mp3", &TONE_MP3.repeat(4));
    let lost = whole.channels[0].len() - clip.channels[0].len();
    assert!(lost <= 2 * 1152, "{lost} samples lost");
}

#[test]
fn chained_ogg_streams_play_one_after_the_other() {
    let files = Files::new("chained");
    let read = |name, bytes: &[u8]| files.read_whole(name, bytes).channels.remove(0);
    let one = read("one.ogg", TONE_OGG);
    let other = read("other.ogg", SHORT_BLOCKS_OGG);
    let chain = read(
        "chain.ogg",
        &[TONE_OGG, SHORT_BLOCKS_OGG, TONE_OGG].concat(),
    );
    let expected = [&one[..], &other, &one].concat();
    assert_eq!(chain.len(), expected.len());
    assert!(chain == expected, "other samples");
}

#[test]
fn what_is_cut_short_plays_with_a_warning() {
    let files = Files::new("cut");
    let wav = Wav::new().bytes();
    for (name, bytes, whole_seconds) in [
        ("cut.wav", &wav[..wav.len() / 2], 0.5),
        (
            "cut.ogg",
            &SHORT_BLOCKS_OGG[..SHORT_BLOCKS_OGG.len() - 1],
            2.3,
        ),
        ("cut.flac", &TONE_FLAC[..TONE_FLAC.len() / 2], 0.5),
        ("cut.mp3", &TONE_MP3[..TONE_MP3.len() / 2], 0.5),
        ("cut.caf", &TONE_CAF[..TONE_CAF.len() / 2], 0.25),
        ("cut.mka", &TONE_MKA[..TONE_MKA.len() / 2], 0.25),
        ("cut.m4a", &TONE_ALAC[..TONE_ALAC.len() / 2], 0.25),
    ] {
        let path = files.write(name, bytes);
        match read(&path) {
            Ok(Recording { clip, warnings }) => {
                assert!(seconds(&clip) < whole_seconds, "{name}");
                let says = warnings.iter().any(|warning| warning.contains("cut short"));
                assert!(says, "{name}: {warnings:?}");
            }
            // The tables of this MP4 file were at its end; Matroska files are refused.
            Err(error) => {
                assert!(["cut.m4a", "cut.mka"].contains(&name), "{error:#}");
                assert!(format!("{error:#}").contains("cut short"), "{error:#}");
            }
        }
    }
    // Containers round: less than a tenth of a second is nothing. The last page of the Ogg file promises 4414 samples.
    // ffmpeg -ss 1 -t 0.2 -i short_blocks.ogg -c copy cut.ogg
    let cut = include_bytes!("../../fixtures/cut.ogg");
    let samples = files.read_whole("rounded.ogg", cut).channels[0].len();
    // ffmpeg -i cut.ogg -f f32le - | wc -c, divided by 4
    assert!(samples.abs_diff(3902) < 22_050 / 20, "{samples}");
    files.read_whole("rounded.wav", &wav[..wav.len() - 4 * 700]);
}

#[test]
fn more_channels_are_mixed_to_two() {
    let files = Files::new("surround");
    // 5.1: front left, right, centre, bass, rear left, right.
    let levels = [0.5_f32, 0.25, 0.125, 1.0, 0.0625, 0.75];
    let wav = Wav {
        format: extensible(3, 6, 32, 32, 0x3f),
        samples: levels
            .iter()
            .flat_map(|level| level.to_le_bytes())
            .collect::<Vec<_>>()
            .repeat(10),
        ..Wav::new()
    };
    let Recording { clip, warnings } = files.read("surround.wav", &wav.bytes());
    assert!(warnings[0].contains("6 channels"), "{warnings:?}");
    let half = std::f32::consts::FRAC_1_SQRT_2;
    let scale = 1.0 + 2.0 * half;
    let left = (levels[0] + half * levels[2] + half * levels[4]) / scale;
    let right = (levels[1] + half * levels[2] + half * levels[5]) / scale;
    for (channel, expected) in clip.channels.iter().zip([left, right]) {
        assert_eq!(channel.len(), 10);
        assert!(
            (channel[9] - expected).abs() < 1e-6,
            "{} {expected}",
            channel[9]
        );
    }
}

#[test]
fn what_cannot_be_decoded_is_refused_by_name() {
    let files = Files::new("refused");
    // ffmpeg -f lavfi -i sine=frequency=440:sample_rate=48000:duration=0.1 -c:a libopus -b:a 16k tone_opus.ogg
    let opus = include_bytes!("../../fixtures/tone_opus.ogg");
    for (name, bytes, expected) in [
        ("opus.ogg", &opus[..], "Opus is not supported"),
        ("he.aac", &he_aac(), "HE-AAC is not supported"),
        ("a.wv", b"wvpk\0\0\0\0", "WavPack is not supported"),
        (
            "a.wma",
            b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\0",
            "Windows Media Audio",
        ),
        (
            "text.wav",
            b"these are words, not samples\n",
            "found another format",
        ),
        ("empty.wav", b"", "empty file"),
    ] {
        let message = files.error(name, bytes);
        assert!(message.contains(expected), "{message}");
    }
    let gsm = Wav {
        format: format_chunk(0x31, 1, 0),
        ..Wav::new()
    };
    assert!(files.error("gsm.wav", &gsm.bytes()).contains("GSM"));
    let missing = files.0.path().join("missing.wav");
    assert!(format!("{:#}", read(&missing).unwrap_err()).contains("missing.wav"));
    assert!(format!("{:#}", read(files.0.path()).unwrap_err()).contains("folder"));
}

/// A stream of silent AAC packets, each with a fill element for spectral band replication.
fn he_aac() -> Vec<u8> {
    // A single channel element of silence, as far as the end mark: 38 bits. Then the fill element: its id, a length of
    // 2 bytes, the type of its content, 12 bits; the end mark.
    let bits = "00000000110010000000000010000000001000 110 0010 1101 000000000000 111";
    let bits: Vec<u8> = bits
        .bytes()
        .filter(|bit| *bit != b' ')
        .map(|bit| bit - b'0')
        .collect();
    let packet: Vec<u8> = bits
        .chunks(8)
        .map(|byte| (0..8).fold(0, |sum, bit| sum << 1 | byte.get(bit).copied().unwrap_or(0)))
        .collect();
    // ADTS: sync word without check sum, LC at 22,050 Hz, one channel, length with these 7 bytes.
    let length = 7 + packet.len() as u32;
    let header = [
        0xff,
        0xf1,
        0x5c,
        0x40 | (length >> 11) as u8,
        (length >> 3) as u8,
        (length << 5) as u8 | 0x1f,
        0xfc,
    ];
    [&header[..], &packet].concat().repeat(20)
}

#[test]
fn samples_that_are_not_finite_are_refused() {
    let files = Files::new("nan");
    let path = files.0.path().join("nan.wav");
    let mut clip = AudioClip {
        sample_rate_hz: 44_100,
        channels: vec![vec![0.0; 10]; 2],
    };
    clip.channels[1][3] = f32::NAN;
    write_wav(&path, &clip, WavFormat::Float32).unwrap();
    assert!(format!("{:#}", read(&path).unwrap_err()).contains("NaN at sample 3 of channel 1"));
}

#[test]
fn a_reader_begins_again_after_a_rewind() {
    let files = Files::new("rewind");
    let cut = &TONE_FLAC[..TONE_FLAC.len() / 2];
    let mut reader = AudioReader::open(&files.write("cut.flac", cut)).unwrap();
    let all = |reader: &mut AudioReader| {
        let (mut samples, mut block) = (Vec::new(), Vec::new());
        while reader.next_block(&mut block).unwrap() {
            samples.extend_from_slice(&block[0]);
        }
        assert!(
            !reader.next_block(&mut block).unwrap(),
            "the end stays the end"
        );
        samples
    };
    let first = all(&mut reader);
    let warnings = reader.warnings().to_vec();
    reader.rewind().unwrap();
    assert_eq!(all(&mut reader), first);
    assert_eq!(reader.warnings(), warnings);
    assert_eq!(warnings.len(), 1);
}

#[test]
fn the_expected_length_is_known_where_the_file_tells_it() {
    let files = Files::new("expected");
    for (name, bytes) in [
        ("a.wav", Wav::new().bytes()),
        (
            "piped.wav",
            Wav {
                data_bytes: Some(u32::MAX),
                ..Wav::new()
            }
            .bytes(),
        ),
        ("a.flac", TONE_FLAC.to_vec()),
        ("a.ogg", TONE_OGG.to_vec()),
        ("a.mp3", TONE_MP3.to_vec()),
        ("vbr.mp3", TONE_STEREO_MP3.repeat(3)),
        ("a.m4a", TONE_AAC_MP4.to_vec()),
    ] {
        let path = files.write(name, &bytes);
        let expected = AudioReader::open(&path).unwrap().expected_samples();
        let found = read(&path).unwrap().clip.channels[0].len() as u64;
        let near = expected.is_some_and(|expected| expected.abs_diff(found) <= 300);
        assert!(near, "{name}: {expected:?} {found}");
    }
}

#[test]
fn mono_is_the_mean_of_the_channels() {
    let clip = AudioClip {
        sample_rate_hz: 44_100,
        channels: vec![vec![1.0, 0.0], vec![0.5, -1.0]],
    };
    assert_eq!(mono(&clip), [0.75, -0.5]);
}
