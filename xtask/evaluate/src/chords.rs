//! Chord annotations, reduced to triads.

use anyhow::{Context, Result, bail};

/// Major triads on C to B, minor triads on C to B, no chord.
pub const CLASSES: usize = 25;

/// The class for no chord.
pub const NO_CHORD: u32 = 24;

/// A time span with its chord class; none if the chord is not a major or minor triad.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Start, in seconds.
    pub start_s: f64,
    /// End, in seconds.
    pub end_s: f64,
    /// Chord class.
    pub class: Option<u32>,
}

/// Reads lines of `start end chord`, times in seconds, as POP909's `chord_midi.txt` has them.
///
/// # Errors
///
/// Returns an error if a line has another format.
pub fn parse(text: &str) -> Result<Vec<Segment>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let describe = || format!("expected \"start end chord\", found {line:?}");
            let mut fields = line.split_whitespace();
            let mut next = || fields.next().with_context(describe);
            Ok(Segment {
                start_s: next()?.parse().with_context(describe)?,
                end_s: next()?.parse().with_context(describe)?,
                class: class(next()?).with_context(describe)?,
            })
        })
        .collect()
}

/// Class of a chord as Harte et al. write it (ISMIR 2005).
///
/// A chord with a major third and a perfect fifth counts as its major triad, one with a minor third and a perfect fifth as its
/// minor triad, whatever else it has and whatever its bass is. All others (suspended, diminished, augmented) have no class and
/// do not count, as in `mir_eval.chord.majmin`.
fn class(label: &str) -> Result<Option<u32>> {
    if label == "N" {
        return Ok(Some(NO_CHORD));
    }
    let (root, quality) = label.split_once(':').unwrap_or((label, "maj"));
    let mut letters = root.chars();
    let natural = match letters.next() {
        Some('C') => 0,
        Some('D') => 2,
        Some('E') => 4,
        Some('F') => 5,
        Some('G') => 7,
        Some('A') => 9,
        Some('B') => 11,
        _ => bail!("invalid chord {label:?}: no root"),
    };
    let mut pitch: i32 = natural;
    for accidental in letters {
        pitch += match accidental {
            '#' => 1,
            'b' => -1,
            _ => bail!("invalid chord {label:?}: no root"),
        };
    }
    let pitch = pitch.rem_euclid(12) as u32;
    let quality = quality.split(['/', '(']).next().unwrap_or(quality);
    Ok(match quality {
        "maj" | "maj6" | "maj7" | "maj9" | "7" | "9" => Some(pitch),
        "min" | "min6" | "min7" | "min9" | "minmaj7" => Some(12 + pitch),
        _ => None,
    })
}

/// Name of a class: C to B, c to b for minor, N for none.
pub fn name(class: usize) -> &'static str {
    const NAMES: [&str; CLASSES] = [
        "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B", "c", "c#", "d", "d#", "e",
        "f", "f#", "g", "g#", "a", "a#", "b", "N",
    ];
    NAMES[class]
}

#[cfg(test)]
mod tests {
    use super::*;

    // Python (mir_eval 0.8.2): r, intervals, _ = mir_eval.chord.encode(label); r and whether intervals[:8] are those of a
    // major or minor triad, as mir_eval.chord.majmin compares them. These are all qualities of POP909.
    #[test]
    fn chords_are_reduced_as_mir_eval_does() {
        for (label, expected) in [
            ("N", Some(24)),
            ("C:maj", Some(0)),
            ("Bb:min", Some(22)),
            ("C#:7/b7", Some(1)),
            ("F:sus2", None),
            ("G:dim", None),
            ("A:hdim7", None),
            ("D:dim7", None),
            ("D:aug", None),
            ("E:maj6", Some(4)),
            ("Eb:min7/b7", Some(15)),
            ("B:minmaj7", Some(23)),
            ("Ab:maj/3", Some(8)),
            ("C:sus4(b7)", None),
            ("F#:maj7", Some(6)),
            ("G:min6", Some(19)),
            ("Cb:maj", Some(11)),
        ] {
            assert_eq!(class(label).unwrap(), expected, "{label}");
        }
        assert!(class("H:maj").is_err() && class("Cx:maj").is_err() && class("").is_err());
        assert_eq!((name(1), name(22), name(24)), ("C#", "a#", "N"));
    }

    #[test]
    fn lines_are_read() {
        let found = parse("0.5\t2.25\tC:maj\n\n2.25 3 G:sus4\n").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].start_s, found[0].end_s, found[0].class),
            (0.5, 2.25, Some(0))
        );
        assert_eq!(found[1].class, None);
        assert!(parse("0.5 C:maj").is_err());
    }
}
