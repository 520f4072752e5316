//! Reads damaged audio files: thousands of small files of every format, changed at random. Whatever a file holds, the
//! reader returns samples or an error in reasonable time and memory.
//!
//! `GRAFT_HOSTILE_CASES` sets the number of cases; a failure names the case, which `GRAFT_HOSTILE_FIRST` repeats.

use std::env;
use std::fs;
use std::panic;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use graft_material::audio_file;
use graft_material::testing::TestFolder;
use test_signals::memory::{MeasuringAllocator, peak_bytes, used_bytes};

/// Cases in a run of all tests.
const CASES: u64 = 3000;

/// Longest time for a case; each takes some milliseconds.
const LONGEST: Duration = Duration::from_secs(20);

/// Memory for buffers and tables that does not depend on the length of the audio.
const FIXED_BYTES: usize = 8 << 20;

#[global_allocator]
static ALLOCATOR: MeasuringAllocator = MeasuringAllocator;

/// A small reproducible random generator (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Whole files, one of each format, with the extensions that they go by.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let ogg = include_bytes!("../fixtures/tone.ogg");
    vec![
        ("wav", wav(b"RIFF", 1, 16)),
        ("wav", wav(b"RIFF", 3, 32)),
        ("wav", wav(b"RF64", 1, 24)),
        ("wav", wav(b"RIFF", 6, 8)),
        ("w64", w64()),
        ("aiff", include_bytes!("../fixtures/tone.aiff").to_vec()),
        ("caf", include_bytes!("../fixtures/tone.caf").to_vec()),
        ("flac", include_bytes!("../fixtures/tone.flac").to_vec()),
        ("ogg", ogg.to_vec()),
        ("ogg", [&ogg[..], ogg].concat()),
        ("mp3", include_bytes!("../fixtures/tone.mp3").to_vec()),
        ("aac", include_bytes!("../fixtures/tone.aac").to_vec()),
        ("m4a", include_bytes!("../fixtures/tone_aac.m4a").to_vec()),
        ("m4a", include_bytes!("../fixtures/tone_alac.m4a").to_vec()),
        ("mka", include_bytes!("../fixtures/tone.mka").to_vec()),
    ]
}

fn wav(form: &[u8; 4], tag: u16, bits: u16) -> Vec<u8> {
    let block_bytes = 2 * bits / 8;
    let samples: Vec<u8> = match tag {
        3 => (0..300)
            .flat_map(|n: i16| (f32::from(n) / 300.0).to_le_bytes())
            .collect(),
        _ => (0..1200_u32).map(|n| (n * n / 7) as u8).collect(),
    };
    let long = form == b"RF64";
    let bytes = if long { u32::MAX } else { samples.len() as u32 };
    let mut file = [&form[..], &bytes.to_le_bytes(), b"WAVE"].concat();
    if long {
        file.extend(*b"ds64\x1c\0\0\0");
        file.extend([0; 8]);
        file.extend((samples.len() as u64).to_le_bytes());
        file.extend([0; 12]);
    }
    file.extend(*b"fmt \x10\0\0\0");
    file.extend(tag.to_le_bytes());
    file.extend(2_u16.to_le_bytes());
    file.extend(8000_u32.to_le_bytes());
    file.extend((8000 * u32::from(block_bytes)).to_le_bytes());
    file.extend(block_bytes.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(*b"data");
    file.extend(bytes.to_le_bytes());
    file.extend(samples);
    file
}

fn w64() -> Vec<u8> {
    let wav = wav(b"RIFF", 1, 16);
    let chunk = |letters: &[u8; 4], content: &[u8]| {
        let guid = *b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a";
        let size = 24 + content.len() as u64;
        [&letters[..], &guid, &size.to_le_bytes(), content].concat()
    };
    let chunks = [chunk(b"fmt ", &wav[20..36]), chunk(b"data", &wav[44..])].concat();
    let riff = *b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00";
    let wave = *b"wave\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a";
    let size = 40 + chunks.len() as u64;
    [&riff[..], &size.to_le_bytes(), &wave, &chunks].concat()
}

/// Changes a file in one to four ways.
fn damage(mut file: Vec<u8>, other: &[u8], random: &mut Random) -> Vec<u8> {
    for _ in 0..1 + random.below(4) {
        // Headers are short, so half of the changes are near the beginning.
        let reach = match random.below(2) {
            0 => file.len().min(128),
            _ => file.len(),
        };
        let at = random.below(reach);
        let count = 1 + random.below(64);
        match random.below(8) {
            0 => file
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 1 << random.below(8)),
            1 => file
                .iter_mut()
                .skip(at)
                .take(count)
                .for_each(|byte| *byte = random.next() as u8),
            2 => file
                .iter_mut()
                .skip(at)
                .take(count)
                .for_each(|byte| *byte = 0),
            3 => file
                .iter_mut()
                .skip(at)
                .take(4)
                .for_each(|byte| *byte = 0xff),
            4 => file.truncate(at),
            5 => drop(file.drain(at.min(file.len())..(at + count).min(file.len()))),
            6 => {
                let begin = random.below(other.len());
                let end = (begin + 4 * count).min(other.len());
                let at = at.min(file.len());
                file.splice(at..at, other[begin..end].iter().copied());
            }
            _ => {
                // A size that no file has.
                let sizes = [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 7, u32::MAX];
                let size = sizes[random.below(sizes.len())];
                let bytes = match random.below(2) {
                    0 => size.to_le_bytes(),
                    _ => size.to_be_bytes(),
                };
                file.iter_mut()
                    .skip(at)
                    .zip(bytes)
                    .for_each(|(byte, new)| *byte = new);
            }
        }
    }
    file
}

/// Ends the program if a case takes too long.
fn watch(case: Arc<AtomicU64>) {
    thread::spawn(move || {
        loop {
            let before = case.load(Ordering::Relaxed);
            thread::sleep(LONGEST);
            if case.load(Ordering::Relaxed) == before {
                eprintln!("case {before} takes more than {LONGEST:?}");
                process::abort();
            }
        }
    });
}

fn variable(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect(name))
}

#[test]
fn no_file_makes_the_reader_panic_hang_or_take_much_memory() {
    let first = variable("GRAFT_HOSTILE_FIRST", 0);
    let cases = first..first + variable("GRAFT_HOSTILE_CASES", CASES);
    let seeds = seeds();
    let folder = TestFolder::new("hostile");
    let running = Arc::new(AtomicU64::new(0));
    watch(Arc::clone(&running));
    for (extension, seed) in &seeds {
        let path = folder.path().join(format!("whole.{extension}"));
        fs::write(&path, seed).unwrap();
        let warnings = audio_file::read(&path).unwrap().warnings;
        assert!(warnings.is_empty(), "{extension}: {warnings:?}");
    }
    // The reader takes a panic of a decoder for a damaged file, but its own code must not panic. A backtrace would take more
    // memory than a file.
    let own_panics = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&own_panics);
    panic::set_hook(Box::new(move |info| {
        eprintln!("{info}");
        let place = info.location().map_or("", |location| location.file());
        if !place.contains("symphonia") {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let mut read = 0;
    for case in cases.clone() {
        running.store(case, Ordering::Relaxed);
        let mut random = Random(case);
        let (extension, seed) = &seeds[random.below(seeds.len())];
        let other = &seeds[random.below(seeds.len())].1;
        // A new file each time: some file systems wait for the disk when a file is overwritten.
        let path: PathBuf = folder.path().join(format!("{case}.{extension}"));
        fs::write(&path, damage(seed.clone(), other, &mut random)).unwrap();
        let before = used_bytes();
        let (peak, result) = peak_bytes(|| audio_file::read(&path));
        let peak = peak - before;
        fs::remove_file(&path).unwrap();
        assert_eq!(
            own_panics.load(Ordering::Relaxed),
            0,
            "case {case} ({extension})"
        );
        let mut decoded = 0;
        if let Ok(recording) = result {
            read += 1;
            decoded = 4 * recording.clip.channels.len() * recording.clip.channels[0].len();
        }
        assert!(
            peak <= 2 * decoded + FIXED_BYTES,
            "case {case} ({extension}): {peak} bytes for {decoded} bytes of audio"
        );
    }
    let cases = cases.end - cases.start;
    assert!(
        (cases / 10..cases).contains(&read),
        "{read} of {cases} files can still be read: too few or too many to show anything"
    );
}
