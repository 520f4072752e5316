//! A minimal sound font for tests: a sine for all programs, a burst of noise for all drums.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Frequency of the sine at key 69.
pub const SINE_HZ: f64 = 441.0;

/// Samples of silence after each sound, as the format requires.
const GUARD_SAMPLES: usize = 46;

/// Contents of a SoundFont 2 file.
pub fn bytes() -> Vec<u8> {
    let step = std::f64::consts::TAU * SINE_HZ / 44_100.0;
    let sine = (0..2000).map(|n| (12_000.0 * (step * f64::from(n)).sin()) as i16);
    let mut random = StdRng::seed_from_u64(1);
    let noise =
        (0..4000).map(|n| (random.random_range(-12_000..12_000) * (4000 - n) / 4000) as i16);
    let guard = [0; GUARD_SAMPLES];
    let sine: Vec<i16> = sine.chain(guard).collect();
    let noise: Vec<i16> = noise.chain(guard).collect();
    let samples: Vec<u8> = sine
        .iter()
        .chain(&noise)
        .flat_map(|sample| sample.to_le_bytes())
        .collect();

    let info = list(*b"INFO", &[chunk(*b"ifil", &[2, 0, 1, 0])]);
    let data = list(*b"sdta", &[chunk(*b"smpl", &samples)]);
    let parameters = list(
        *b"pdta",
        &[
            chunk(
                *b"phdr",
                &[preset(0, 0), preset(128, 1), preset(0, 2)].concat(),
            ),
            chunk(*b"pbag", &words(&[[0, 0], [1, 0], [2, 0]])),
            chunk(*b"pmod", &[0; 10]),
            // Generator 41: the instrument.
            chunk(*b"pgen", &words(&[[41, 0], [41, 1], [0, 0]])),
            chunk(
                *b"inst",
                &[instrument(0), instrument(1), instrument(2)].concat(),
            ),
            chunk(*b"ibag", &words(&[[0, 0], [2, 0], [3, 0]])),
            chunk(*b"imod", &[0; 10]),
            // Generator 54: 1 to play in a loop; 53: the sample.
            chunk(*b"igen", &words(&[[54, 1], [53, 0], [53, 1], [0, 0]])),
            chunk(
                *b"shdr",
                &[
                    sample(0, 2000, [100, 1900]),
                    sample(sine.len(), 4000, [0, 0]),
                    sample(0, 0, [0, 0]),
                ]
                .concat(),
            ),
        ],
    );
    let content = [b"sfbk".to_vec(), info, data, parameters].concat();
    chunk(*b"RIFF", &content)
}

fn chunk(id: [u8; 4], content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_le_bytes();
    [&id[..], &length, content].concat()
}

fn list(id: [u8; 4], chunks: &[Vec<u8>]) -> Vec<u8> {
    chunk(*b"LIST", &[id.to_vec(), chunks.concat()].concat())
}

fn words(rows: &[[u16; 2]]) -> Vec<u8> {
    let words = rows.iter().flatten();
    words.flat_map(|word| word.to_le_bytes()).collect()
}

fn preset(bank: u16, first_zone: u16) -> Vec<u8> {
    let mut bytes = vec![0; 38];
    bytes[22..24].copy_from_slice(&bank.to_le_bytes());
    bytes[24..26].copy_from_slice(&first_zone.to_le_bytes());
    bytes
}

fn instrument(first_zone: u16) -> Vec<u8> {
    let mut bytes = vec![0; 22];
    bytes[20..].copy_from_slice(&first_zone.to_le_bytes());
    bytes
}

/// Header of a sample that starts at `start` and has the root key 69.
fn sample(start: usize, length: usize, sample_loop: [usize; 2]) -> Vec<u8> {
    let mut bytes = vec![0; 46];
    let places = [0, length, sample_loop[0], sample_loop[1]];
    for (field, place) in bytes[20..36].chunks_mut(4).zip(places) {
        field.copy_from_slice(&((start + place) as u32).to_le_bytes());
    }
    bytes[36..40].copy_from_slice(&44_100u32.to_le_bytes());
    bytes[40] = 69;
    bytes[44] = 1;
    bytes
}
