//! Phrases that several instruments play, rendered with a General MIDI sound font: the material of the network for timbre.
//!
//! A *phrase* is a random melody. Rendered by several programs, it is the same music with other timbres, so a conversion has a
//! true counterpart ([`Conversion`]), which no recording has. Some programs are held out of the training.

pub mod melody;
pub mod sampler;

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use graft_material::audio_cache::Pcm;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::midi::render_all;
use crate::notes::programs::{PROGRAMS, Program};
use melody::Note;

/// The least range that the programs of a phrase share, in semitones.
const LEAST_RANGE_SEMITONES: u8 = 12;

/// A one-shot that is triggered again and again: the time between the triggers, and the length of its note, in seconds.
const ONE_SHOT_SECONDS: f64 = 2.0;
const ONE_SHOT_NOTE_SECONDS: f64 = 1.9;

/// Settings of the phrases.
#[derive(Clone, Debug, PartialEq)]
pub struct PhraseSettings {
    /// Number of phrases to train on.
    pub phrases: usize,
    /// Length of a phrase in seconds.
    pub seconds: f64,
    /// Programs that play each phrase.
    pub programs_per_phrase: usize,
    /// Share of the notes that are chords.
    pub chord_share: f64,
    /// Numbers of the programs to train on, from 0.
    pub programs: Vec<u8>,
    /// Numbers of the programs that are kept for the validation.
    pub held_out_programs: Vec<u8>,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl PhraseSettings {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// Returns an error that names the setting.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.phrases > 0 && self.programs_per_phrase >= 2,
            "phrases: expected a phrase and two programs for each at least, found {} and {}",
            self.phrases,
            self.programs_per_phrase
        );
        ensure!(
            self.seconds > 0.0 && (0.0..=1.0).contains(&self.chord_share),
            "phrases: expected seconds above 0 and a chord_share from 0 to 1, found {} and {}",
            self.seconds,
            self.chord_share
        );
        ensure!(
            self.programs.len() >= 2 && !self.held_out_programs.is_empty(),
            "phrases: expected two programs and a held-out one at least, found {:?} and {:?}",
            self.programs,
            self.held_out_programs
        );
        let both = self.programs.iter().chain(&self.held_out_programs);
        if let Some(number) = both.clone().find(|number| **number > 127) {
            anyhow::bail!("phrases: expected programs from 0 to 127, found {number}");
        }
        if let Some(number) = self
            .held_out_programs
            .iter()
            .find(|n| self.programs.contains(n))
        {
            anyhow::bail!("phrases: program {number} is both trained on and held out");
        }
        Ok(())
    }
}

/// A phrase, played by several programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Phrase {
    /// Each program's number with its rendering. All have the same length.
    pub renderings: Vec<(u8, Pcm)>,
}

/// The phrase of one program with the timbre of another, and its truth.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The program that plays the phrase.
    pub source: &'static Program,
    /// The program whose timbre it should get.
    pub target: &'static Program,
    /// The phrase by the source.
    pub phrase: Pcm,
    /// The phrase by the target: the truth.
    pub truth: Pcm,
    /// Another sound of the target.
    pub colour: Pcm,
}

/// The other sound of the target, in a [`Conversion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Another phrase.
    Phrase,
    /// One note in the middle of the phrase's range, triggered every two seconds.
    OneShot,
}

/// Which conversions to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConversionSettings {
    /// Number of conversions.
    pub count: usize,
    /// Length in seconds.
    pub seconds: f64,
    /// Independent voices of a phrase; each is a melody without chords.
    pub voices: usize,
    /// What the timbre is taken from.
    pub colour: Colour,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Renders the phrases to train on, or reads them from the cache. Renderings that are silent are left out, and phrases with fewer
/// than two others.
///
/// # Errors
///
/// Returns an error if a setting is out of range, the system has no sound font, or a file cannot be read or written.
pub fn render(
    settings: &PhraseSettings,
    cache_folder: &Path,
    sample_rate_hz: u32,
) -> Result<Vec<Phrase>> {
    settings.check()?;
    let programs = find(&settings.programs)?;
    let mut random = StdRng::seed_from_u64(settings.seed);
    let mut order = programs.clone();
    order.shuffle(&mut random);
    let mut plans = Vec::new();
    for phrase in 0..settings.phrases {
        // Every program leads as often as any other.
        let first = order[phrase % order.len()];
        let (players, keys) = draw_players(first, &programs, settings, &mut random);
        let notes = melody::draw(&keys, settings.seconds, settings.chord_share, &mut random);
        plans.extend(players.into_iter().map(|program| {
            let plan = melody::arrangement(program.number, &notes);
            (phrase, program.number, plan)
        }));
    }
    let arrangements = plans.iter().map(|(phrase, program, plan)| {
        let name = format!("phrase {phrase} by program {program}");
        (name, plan.clone())
    });
    let arrangements = arrangements.collect();
    let rendered = render_all(arrangements, settings.seconds, cache_folder, sample_rate_hz)?;
    let mut phrases = vec![
        Phrase {
            renderings: Vec::new(),
        };
        settings.phrases
    ];
    for ((phrase, program, _), pcm) in plans.into_iter().zip(rendered) {
        phrases[phrase]
            .renderings
            .extend(pcm.map(|pcm| (program, pcm)));
    }
    phrases.retain(|phrase| phrase.renderings.len() >= 2);
    ensure!(
        !phrases.is_empty(),
        "expected phrases of the programs {:?}, found only silence",
        settings.programs
    );
    Ok(phrases)
}

/// Renders conversions from one of `sources` to one of `targets`, or reads them from the cache. Conversions with a silent part are
/// left out.
///
/// # Errors
///
/// As [`render`]; or if no two of the programs share a range.
pub fn conversions(
    sources: &[u8],
    targets: &[u8],
    settings: ConversionSettings,
    cache_folder: &Path,
    sample_rate_hz: u32,
) -> Result<Vec<Conversion>> {
    let (sources, targets) = (find(sources)?, find(targets)?);
    let mut random = StdRng::seed_from_u64(settings.seed);
    let pairs = draw_pairs(&sources, &targets, settings.count, &mut random)?;
    let mut arrangements = Vec::new();
    for Pair {
        source,
        target,
        keys,
    } in &pairs
    {
        let mut phrase = |keys: &RangeInclusive<u8>| -> Vec<Note> {
            let voices = 0..settings.voices;
            voices
                .flat_map(|_| melody::draw(keys, settings.seconds, 0.0, &mut random))
                .collect()
        };
        let notes = phrase(keys);
        let colour = match settings.colour {
            Colour::Phrase => phrase(&natural_range(target)),
            Colour::OneShot => {
                let shots = (settings.seconds / ONE_SHOT_SECONDS).ceil() as usize;
                let shot = |start_s| Note {
                    start_s,
                    end_s: start_s + ONE_SHOT_NOTE_SECONDS,
                    key: keys.start() + (keys.end() - keys.start()) / 2,
                    velocity: 90,
                };
                (0..shots)
                    .map(|n| shot(n as f64 * ONE_SHOT_SECONDS))
                    .collect()
            }
        };
        for (program, notes) in [(source, &notes), (target, &notes), (target, &colour)] {
            let name = format!("{} for a conversion", program.name);
            arrangements.push((name, melody::arrangement(program.number, notes)));
        }
    }
    let rendered = render_all(arrangements, settings.seconds, cache_folder, sample_rate_hz)?;
    let mut rendered = rendered.into_iter();
    let conversions = pairs.into_iter().filter_map(|Pair { source, target, .. }| {
        let [phrase, truth, colour] = [(); 3].map(|()| rendered.next().flatten());
        Some(Conversion {
            source,
            target,
            phrase: phrase?,
            truth: truth?,
            colour: colour?,
        })
    });
    Ok(conversions.collect())
}

fn find(numbers: &[u8]) -> Result<Vec<&'static Program>> {
    numbers
        .iter()
        .map(|number| {
            let program = PROGRAMS.iter().find(|program| program.number == *number);
            program.with_context(|| format!("expected a program from 0 to 127, found {number}"))
        })
        .collect()
}

/// Programs that play a phrase, `first` among them, and the keys that all of them have.
fn draw_players(
    first: &'static Program,
    programs: &[&'static Program],
    settings: &PhraseSettings,
    random: &mut StdRng,
) -> (Vec<&'static Program>, RangeInclusive<u8>) {
    let mut players = vec![first];
    let mut keys = natural_range(first);
    let mut others = programs.to_vec();
    others.shuffle(random);
    for other in others {
        if players.len() == settings.programs_per_phrase {
            break;
        }
        if let Some(shared) = shared_keys(&keys, &natural_range(other))
            && other.number != first.number
        {
            keys = shared;
            players.push(other);
        }
    }
    (players, keys)
}

/// Two programs, and the keys that both have.
#[derive(Clone)]
struct Pair {
    source: &'static Program,
    target: &'static Program,
    keys: RangeInclusive<u8>,
}

/// Draws pairs of different programs, with the keys that both have.
fn draw_pairs(
    sources: &[&'static Program],
    targets: &[&'static Program],
    count: usize,
    random: &mut StdRng,
) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for source in sources {
        for target in targets {
            let keys = shared_keys(&natural_range(source), &natural_range(target));
            if let Some(keys) = keys.filter(|_| source.number != target.number) {
                pairs.push(Pair {
                    source,
                    target,
                    keys,
                });
            }
        }
    }
    ensure!(
        !pairs.is_empty(),
        "expected two programs that share {LEAST_RANGE_SEMITONES} semitones, found none"
    );
    let drawn = (0..count).filter_map(|_| pairs.choose(random).cloned());
    Ok(drawn.collect())
}

/// The keys of both ranges, if there are enough of them.
fn shared_keys(a: &RangeInclusive<u8>, b: &RangeInclusive<u8>) -> Option<RangeInclusive<u8>> {
    let (lowest, highest) = (*a.start().max(b.start()), *a.end().min(b.end()));
    (highest >= lowest + LEAST_RANGE_SEMITONES).then_some(lowest..=highest)
}

/// The natural range of a program.
fn natural_range(program: &Program) -> RangeInclusive<u8> {
    program.lowest_key..=program.highest_key
}
