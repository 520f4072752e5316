//! Instruments by their names.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// The place of an instrument among those of a model. Upper and lower case are the same.
///
/// # Errors
///
/// Returns an error that says which name is the nearest.
pub fn find(name: &str, instruments: &[String], model: &Path) -> Result<usize> {
    let wanted = name.to_lowercase();
    let is_it = |known: &String| known.to_lowercase() == wanted;
    if let Some(place) = instruments.iter().position(is_it) {
        return Ok(place);
    }
    let by_likeness = |known: &&String| {
        let known = known.to_lowercase();
        (!known.contains(&wanted), edits(&wanted, &known))
    };
    let nearest = instruments.iter().min_by_key(by_likeness);
    let nearest = nearest.context("the model has no instruments")?;
    bail!(
        "{} has no instrument \"{name}\": the nearest is \"{nearest}\"; --list names all",
        model.display()
    );
}

/// The least number of letters to insert, delete or replace to get from one word to the other (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_the_nearest_is_offered() {
        let names = ["Cello", "Violin", "Viola", "Acoustic Grand Piano"].map(str::to_owned);
        let model = Path::new("m.safetensors");
        assert_eq!(find("violin", &names, model).unwrap(), 1);
        assert_eq!(find("ACOUSTIC grand piano", &names, model).unwrap(), 3);
        for (name, nearest) in [
            ("Vioin", "Violin"),
            ("piano", "Acoustic Grand Piano"),
            ("", "Cello"),
        ] {
            let error = find(name, &names, model).unwrap_err().to_string();
            assert!(
                error.contains(&format!("nearest is \"{nearest}\"")),
                "{error}"
            );
            assert!(
                error.contains("m.safetensors") && error.contains("--list"),
                "{error}"
            );
        }
    }

    #[test]
    fn edits_are_counted() {
        for (from, to, expected) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("a", "a", 0),
            ("é", "e", 1),
        ] {
            assert_eq!(edits(from, to), expected, "{from} {to}");
            assert_eq!(edits(to, from), expected, "{to} {from}");
        }
    }
}
