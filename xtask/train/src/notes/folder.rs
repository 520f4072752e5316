//! Recorded notes in a folder with a table.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use graft_material::audio_cache::Pcm;
use graft_material::audio_file;

use super::{Note, NoteLabel, NoteSet, from_onset, peak};
use crate::csv_table;

/// Peak of a recorded note: about that of a note of the sound font, struck with a middle velocity.
const PEAK: f32 = 0.1;

/// Columns of the table.
const COLUMNS: [&str; 3] = ["file", "instrument", "midi_pitch"];

/// Reads the notes of a folder: those in the one CSV file in it, with the columns `file` (relative to the folder),
/// `instrument` and `midi_pitch` (rounded to a key). Each note begins at its onset, is `seconds` long and has the same
/// peak. The instruments are ordered by name.
///
/// # Errors
///
/// Returns an error that names the file and what was expected if there is no such table, or a row of it cannot be used.
pub fn read_folder(folder: &Path, sample_rate_hz: u32, seconds: f64) -> Result<NoteSet> {
    let table = table(folder)?;
    let describe = || format!("cannot use the notes in {}", table.display());
    let bytes = fs::read(&table).with_context(describe)?;
    let rows = csv_table::rows(&bytes, COLUMNS).with_context(describe)?;
    ensure!(
        !rows.is_empty(),
        "expected a row for each note in {}, found none",
        table.display()
    );
    let names: BTreeSet<&String> = rows.iter().map(|[_, name, _]| name).collect();
    let length = (seconds * f64::from(sample_rate_hz)).round() as usize;
    let note = |[file, instrument, pitch]: &[String; 3]| -> Result<Note> {
        ensure!(
            !instrument.is_empty(),
            "expected an instrument for {file:?}, found none"
        );
        let label = NoteLabel {
            instrument: names.iter().take_while(|&&name| name != instrument).count(),
            key: key(pitch).with_context(|| format!("in the row of {file:?}"))?,
            velocity: 0,
        };
        let clip = audio_file::read(&folder.join(file))?.clip;
        let mono = audio_file::mono(&clip);
        let mono = audio_file::resample(&mono, clip.sample_rate_hz, sample_rate_hz)?;
        let samples = from_onset(&mono, length);
        let peak = peak(&samples);
        ensure!(peak > 0.0, "expected a note in {file:?}, found silence");
        let pcm = Pcm::amplified(&samples, PEAK / peak);
        Ok(Note { label, pcm })
    };
    let notes = rows.iter().map(note).collect::<Result<_>>();
    Ok(NoteSet {
        notes: notes.with_context(describe)?,
        instruments: names.into_iter().cloned().collect(),
        sample_rate_hz,
    })
}

fn key(pitch: &str) -> Result<u8> {
    let key = pitch.trim().parse::<f64>().ok().map(f64::round);
    let key = key.filter(|key| (0.0..128.0).contains(key));
    key.map(|key| key as u8)
        .with_context(|| format!("expected a midi_pitch between 0 and 127, found {pitch:?}"))
}

/// The one CSV file in a folder.
fn table(folder: &Path) -> Result<PathBuf> {
    let describe = || format!("cannot read the folder {}", folder.display());
    let mut tables = Vec::new();
    for entry in fs::read_dir(folder).with_context(describe)? {
        let path = entry.with_context(describe)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            tables.push(path);
        }
    }
    match &tables[..] {
        [table] => Ok(table.clone()),
        _ => bail!(
            "expected one CSV file with the columns {} in {}, found {}",
            COLUMNS.join(", "),
            folder.display(),
            tables.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::audio_writer::{self, WavFormat};
    use graft_material::testing::TestFolder;
    use model_runtime::AudioClip;

    fn folder(name: &str) -> TestFolder {
        let folder = TestFolder::new(name);
        for (file, rate_hz, gain) in [("a.wav", 22_050u32, 0.5), ("b.wav", 44_100, 0.02)] {
            let step = std::f64::consts::TAU * 441.0 / f64::from(rate_hz);
            let silence = vec![0.0; rate_hz as usize / 10];
            let sine = (0..rate_hz).map(|n| gain * (step * f64::from(n)).cos() as f32);
            let clip = AudioClip {
                sample_rate_hz: rate_hz,
                channels: vec![silence.into_iter().chain(sine).collect()],
            };
            let path = folder.path().join(file);
            audio_writer::write_wav(&path, &clip, WavFormat::Float32).unwrap();
        }
        folder
    }

    #[test]
    fn notes_get_the_labels_of_their_rows_and_one_level() {
        let folder = folder("note-folder");
        let table =
            "seconds,midi_pitch,file,instrument\n1,69.2,a.wav,sitar\n1,57,b.wav,grand piano\n";
        fs::write(folder.path().join("table.csv"), table).unwrap();
        let set = read_folder(folder.path(), 22_050, 0.5).unwrap();
        assert_eq!(set.instruments, ["grand piano", "sitar"]);
        let labels: Vec<(usize, u8)> = set
            .notes
            .iter()
            .map(|note| (note.label.instrument, note.label.key))
            .collect();
        assert_eq!(labels, [(1, 69), (0, 57)]);
        for note in &set.notes {
            let samples = note.pcm.floats();
            assert_eq!(samples.len(), 11_025);
            assert!((peak(&samples) - PEAK).abs() < 1e-3);
            assert!(peak(&samples[..40]) > 0.5 * PEAK, "silence before the note");
        }
    }

    #[test]
    fn a_table_that_cannot_be_used_is_named_with_what_was_expected() {
        let folder = folder("note-errors");
        let error = |table: &str| {
            fs::write(folder.path().join("table.csv"), table).unwrap();
            format!("{:#}", read_folder(folder.path(), 22_050, 0.5).unwrap_err())
        };
        for (table, expected) in [
            (
                "file,instrument\na.wav,x\n",
                "file, instrument and midi_pitch",
            ),
            ("file,instrument,midi_pitch\n", "a row for each note"),
            (
                "file,instrument,midi_pitch\na.wav,,60\n",
                "an instrument for \"a.wav\"",
            ),
            ("file,instrument,midi_pitch\na.wav,x,C4\n", "found \"C4\""),
            (
                "file,instrument,midi_pitch\na.wav,x,128\n",
                "between 0 and 127",
            ),
            ("file,instrument,midi_pitch\nc.wav,x,60\n", "c.wav"),
        ] {
            let error = error(table);
            assert!(
                error.contains(expected) && error.contains("table.csv"),
                "{error}"
            );
        }
        fs::write(folder.path().join("other.CSV"), "").unwrap();
        assert!(error("").contains("found 2"));
    }
}
