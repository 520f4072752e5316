//! Drum patterns for music without drums, and the detection of its beat.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::song::{Note, Song};

/// General MIDI drum keys.
const KICK: u8 = 36;
const RIM: u8 = 37;
const SNARE: u8 = 38;
const CLAP: u8 = 39;
const HAT: u8 = 42;
const OPEN_HAT: u8 = 46;
const TOM: u8 = 45;
const CRASH: u8 = 49;
const RIDE: u8 = 51;
const TAMBOURINE: u8 = 54;
const CONGA: u8 = 64;
const SHAKER: u8 = 70;

/// One bar of sixteenths per drum: `X` is an accent, `x` a normal stroke, `o` a soft one. A bar in triple metre uses
/// the first three quarters.
type Groove = &'static [(u8, &'static str)];

const GROOVES: [Groove; 12] = [
    // Rock.
    &[
        (HAT, "X.x.X.x.X.x.X.x."),
        (SNARE, "....X.......X..."),
        (KICK, "X.......X.x....."),
    ],
    // Four on the floor.
    &[
        (HAT, "..X...X...X...X."),
        (CLAP, "....X.......X..."),
        (KICK, "X...X...X...X..."),
    ],
    // Disco.
    &[
        (HAT, "xx.xxx.xxx.xxx.x"),
        (OPEN_HAT, "..x...x...x...x."),
        (SNARE, "....X.......X..."),
        (KICK, "X...X...X...X..."),
    ],
    // Half time.
    &[
        (HAT, "x.x.x.x.x.x.x.x."),
        (SNARE, "........X......."),
        (KICK, "X.....x.......x."),
    ],
    // Hip-hop.
    &[
        (HAT, "X.x.X.x.X.xxX.x."),
        (SNARE, "....X..o.o..X..."),
        (KICK, "X......x..X....."),
    ],
    // Bossa nova.
    &[
        (HAT, "xoxoxoxoxoxoxoxo"),
        (RIM, "X..X..X...X..X.."),
        (KICK, "X..xX..xX..xX..x"),
    ],
    // Funk in sixteenths.
    &[
        (HAT, "XoxoXoxoXoxoXoxo"),
        (SNARE, "....X..o.o.oX..o"),
        (KICK, "X.x...x...x..x.."),
    ],
    // Soul: the snare on every beat.
    &[
        (TAMBOURINE, "..x...x...x...x."),
        (SNARE, "X...X...X...X..."),
        (KICK, "X.....x.X.....x."),
    ],
    // Train beat.
    &[
        (SNARE, "ooXoooXoooXoooXo"),
        (KICK, "X...X...X...X..."),
        (HAT, "..x...x...x...x."),
    ],
    // One drop.
    &[
        (HAT, "x.x.x.x.x.x.x.xo"),
        (RIM, "........X......."),
        (KICK, "........X......."),
    ],
    // Broken beat.
    &[
        (HAT, "x.x.x.x.x.x.x.x."),
        (SNARE, "....X..o.o..X..o"),
        (KICK, "X.x.......xx...."),
    ],
    // Hands and toms.
    &[
        (SHAKER, "XoxoXoxoXoxoXoxo"),
        (CONGA, "x..x..x...x.x..."),
        (TOM, "X.......x.....x."),
    ],
];

/// Positions of sixteenths and bars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Tick at the start of a bar.
    origin_tick: f64,
    sixteenth_ticks: f64,
    bar_sixteenths: i64,
}

/// Weights for finding the bar: how likely a note falls on each sixteenth of a bar in quadruple metre.
const METRE_OF_FOUR: [f64; 16] = [
    8., 0., 2., 0., 3., 0., 2., 0., 4., 0., 2., 0., 3., 0., 2., 0.,
];
/// The same for triple metre.
const METRE_OF_THREE: [f64; 12] = [8., 0., 2., 0., 3., 0., 2., 0., 3., 0., 2., 0.];

/// Notes below this key get more weight when the beat is detected.
const LOW_KEY: u8 = 52;
/// Factor on the weight of these notes.
const LOW_KEY_WEIGHT: f64 = 4.0;
/// The bars of the file are kept if their score is at least this share of the best score.
const FILE_PREFERENCE: f64 = 0.9;

impl Grid {
    /// Finds the grid of `notes`: pitched notes of `song`, in order.
    ///
    /// Files recorded to a click have its tempo, but their beats may be offset from the beats of the file. So the
    /// sixteenths are aligned with the notes (circular mean), and the bar is chosen by the weights of long and low
    /// notes.
    pub fn find(song: &Song, notes: &[&Note]) -> Self {
        let sixteenth_ticks = song.ticks_per_beat / 4.0;
        let first_tick = notes.first().map_or(0, |note| note.start_tick);
        let (file_origin_tick, bar_sixteenths) = song
            .bars
            .iter()
            .rev()
            .find(|(tick, _)| *tick <= first_tick)
            .copied()
            .unwrap_or((0, 16));
        let metre: &[f64] = match bar_sixteenths {
            12 => &METRE_OF_THREE,
            _ => &METRE_OF_FOUR,
        };
        let positions: Vec<f64> = notes
            .iter()
            .map(|note| (note.start_tick as f64 - file_origin_tick as f64) / sixteenth_ticks)
            .collect();
        let (sine, cosine) = positions
            .iter()
            .fold((0.0, 0.0), |(sine, cosine), position| {
                let angle = position * std::f64::consts::TAU;
                (sine + angle.sin(), cosine + angle.cos())
            });
        let phase = f64::atan2(sine, cosine) / std::f64::consts::TAU;

        let mut weights = vec![0.0; metre.len()];
        for (note, position) in notes.iter().zip(&positions) {
            let sixteenth = ((position - phase).round() as i64).rem_euclid(metre.len() as i64);
            let beat_s = song
                .tempo
                .seconds(note.start_tick as f64 + song.ticks_per_beat)
                - note.start_s;
            let beats = ((note.end_s - note.start_s) / beat_s).min(2.0) + 0.25;
            let low = if note.key < LOW_KEY {
                LOW_KEY_WEIGHT
            } else {
                1.0
            };
            weights[sixteenth as usize] += low * beats;
        }
        let score = |offset: usize| -> f64 {
            let turned = weights.iter().cycle().skip(offset);
            metre.iter().zip(turned).map(|(a, b)| a * b).sum()
        };
        let best = (0..metre.len()).max_by(|&a, &b| score(a).total_cmp(&score(b)));
        let offset = best
            .filter(|&best| score(0) < FILE_PREFERENCE * score(best))
            .unwrap_or(0);
        Self {
            origin_tick: file_origin_tick as f64 + (offset as f64 + phase) * sixteenth_ticks,
            sixteenth_ticks,
            bar_sixteenths: metre.len() as i64,
        }
    }
}

/// A drum stroke.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stroke {
    /// Time, in ticks.
    pub tick: f64,
    /// General MIDI key of the drum.
    pub key: u8,
    /// Velocity in the pattern, 1 to 127.
    pub velocity: u8,
}

/// An endless sequence of strokes from `first_tick` on, in order: a random pattern with random instruments.
pub fn strokes(
    grid: Grid,
    first_tick: f64,
    random: &mut StdRng,
) -> impl Iterator<Item = Stroke> + use<> {
    let groove = *GROOVES.choose(random).expect("there are patterns");
    let hat = replacement(HAT, &[RIDE, TAMBOURINE, SHAKER], random);
    let snare = replacement(SNARE, &[RIM, CLAP], random);
    let crash_bars = [None, Some(4), Some(8)].choose(random).copied().flatten();
    let first = ((first_tick - grid.origin_tick) / grid.sixteenth_ticks).ceil() as i64;
    (first..).flat_map(move |sixteenth| {
        let tick = grid.origin_tick + sixteenth as f64 * grid.sixteenth_ticks;
        let step = sixteenth.rem_euclid(grid.bar_sixteenths);
        let bar = sixteenth.div_euclid(grid.bar_sixteenths);
        let crash = crash_bars
            .filter(|bars| step == 0 && bar % bars == 0)
            .map(|_| (CRASH, b'x'));
        groove
            .iter()
            .map(move |(key, line)| (*key, line.as_bytes()[step as usize]))
            .chain(crash)
            .filter_map(move |(key, mark)| {
                let velocity = match mark {
                    b'X' => 112,
                    b'x' => 90,
                    b'o' => 52,
                    _ => return None,
                };
                let key = match key {
                    HAT => hat,
                    SNARE => snare,
                    other => other,
                };
                Some(Stroke {
                    tick,
                    key,
                    velocity,
                })
            })
    })
}

/// Returns `drum` or, sometimes, one of `others`.
fn replacement(drum: u8, others: &[u8], random: &mut StdRng) -> u8 {
    match others.choose(random) {
        Some(&other) if random.random_bool(0.3) => other,
        _ => drum,
    }
}
