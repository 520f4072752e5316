//! The pictures of the report.

use std::path::Path;

use anyhow::Result;
use graft_material::plot::{self, HeatPanel, IntervalCurve, MelPanel};
use graft_material::report::{Measured, Picture};
use model_runtime::tensors::to_tensor;
use model_runtime::{AudioClip, Factor, Network, RemixSettings, Remixer};
use vocoder::{LogMel, MelConfig};

use crate::chords::{self, CLASSES};
use crate::disentanglement::frames_first;
use crate::levels::{Figure, Level, LevelScores};
use crate::margins::{FeatureExtractor, HOP_LENGTH, SAMPLE_RATE_HZ};
use crate::pairs::Pair;
use crate::songs::{Song, mel_frame};
use crate::transposition::Transposition;

/// MIDI numbers in the piano roll: those of the pitch-aligned harmony latent.
const ROLL_KEYS: std::ops::Range<u8> = 36..124;

/// Frames of the picture of latents: 10 s.
const LATENT_FRAMES: usize = 430;

/// Range of latent values in the picture; their prior has a standard deviation of 1.
const LATENT_RANGE: (f32, f32) = (-2.5, 2.5);

/// Figure 1 of Wu's paper: two sources and their two remixes.
///
/// # Errors
///
/// Returns an error if the pair cannot be remixed, or the file cannot be written.
pub fn swaps(
    folder: &Path,
    file: &str,
    remixer: &Remixer,
    settings: &RemixSettings,
    pair: &Pair,
) -> Result<Picture> {
    let (a, b) = (&pair.main.clip, &pair.sidechain.clip);
    let swapped = RemixSettings {
        controls: (settings.controls)
            .with_share(Factor::Harmony, 1.0)
            .with_share(Factor::Rhythm, 0.0),
        ..*settings
    };
    let mut extractor = FeatureExtractor::new()?;
    let mut log_mel = |clip: &AudioClip| -> Result<LogMel> { Ok(extractor.extract(clip)?.log_mel) };
    let mels = [
        log_mel(a)?,
        log_mel(b)?,
        log_mel(&remixer.remix(a, b, settings)?)?,
        log_mel(&remixer.remix(a, b, &swapped)?)?,
    ];
    let titles = [
        "A",
        "B",
        "Harmony of A, rhythm of B",
        "Harmony of B, rhythm of A",
    ];
    let panels: Vec<MelPanel> = titles
        .into_iter()
        .zip(&mels)
        .map(|(title, log_mel)| MelPanel { title, log_mel })
        .collect();
    plot::plot_log_mels(&folder.join(file), &panels, &MelConfig::default())?;
    Ok(Picture {
        file: file.to_owned(),
        caption: format!(
            "Two sources, {} and {}, and their two remixes",
            pair.main, pair.sidechain
        ),
    })
}

/// Figure 4 of Wu's paper: both latents below the true notes.
///
/// # Errors
///
/// Returns an error if the network fails, or the file cannot be written.
pub fn latents(folder: &Path, file: &str, network: &dyn Network, song: &Song) -> Result<Picture> {
    let mut log_mel = song.log_mel.clone();
    let log_mel = log_mel.take_first(LATENT_FRAMES.min(song.log_mel.frames()));
    let frames = log_mel.frames();
    let found = network.encode(&to_tensor(&[log_mel])?)?;
    let latents = found.try_map(|_, latent| frames_first(&latent.mean, frames))?;
    let titles = found.map(|factor, _| format!("Latent of {factor}"));
    let roll = piano_roll(song, frames);
    let mut panels = vec![HeatPanel {
        title: "True notes; the line below them: onsets of notes and drums",
        y_name: "key above C2",
        rows: ROLL_KEYS.len(),
        values: &roll,
        range: (0.0, 1.0),
    }];
    for (factor, (rows, values)) in latents.iter() {
        panels.push(HeatPanel {
            title: &titles[factor],
            y_name: "latent",
            rows: *rows,
            values,
            range: LATENT_RANGE,
        });
    }
    let frames_per_second = f64::from(SAMPLE_RATE_HZ) / HOP_LENGTH as f64;
    plot::plot_heat(&folder.join(file), &panels, frames_per_second)?;
    Ok(Picture {
        file: file.to_owned(),
        caption: "Notes (top) and latents".to_owned(),
    })
}

/// 1 where a key sounds, column after column; the lowest two keys show onsets instead.
fn piano_roll(song: &Song, frames: usize) -> Vec<f32> {
    let rows = ROLL_KEYS.len();
    let mut roll = vec![0.0; rows * frames];
    for note in song
        .notes
        .iter()
        .filter(|note| ROLL_KEYS.contains(&note.key))
    {
        let last = mel_frame(note.end_s).min(frames);
        for frame in mel_frame(note.start_s)..last {
            roll[frame * rows + usize::from(note.key - ROLL_KEYS.start)] = 1.0;
        }
    }
    for frame in song
        .struck_s
        .iter()
        .map(|&onset_s| mel_frame(onset_s))
        .filter(|&frame| frame < frames)
    {
        roll[frame * rows..][..2].fill(0.6);
    }
    roll
}

/// Confusion matrix of chords, each row as shares.
///
/// # Errors
///
/// Returns an error if the file cannot be written.
pub fn confusion(folder: &Path, file: &str, counts: &[Vec<u32>]) -> Result<Picture> {
    let shares: Vec<f32> = counts
        .iter()
        .flat_map(|row| {
            let sum = row.iter().sum::<u32>().max(1) as f32;
            row.iter().map(move |&count| count as f32 / sum)
        })
        .collect();
    let names: Vec<&str> = (0..CLASSES).map(chords::name).collect();
    plot::plot_matrix(
        &folder.join(file),
        "Chords from the harmony latent",
        ["predicted", "true"],
        &names,
        &shares,
    )?;
    Ok(Picture {
        file: file.to_owned(),
        caption: "Confusion matrix of the harmony latent's chord probe: true chords (rows), predicted chords (columns). Lower case: minor; N: none".to_owned(),
    })
}

/// Distance to shifted music, with the harmony latent rotated and not.
///
/// # Errors
///
/// Returns an error if the file cannot be written.
pub fn transposition(folder: &Path, file: &str, found: &[Transposition]) -> Result<Picture> {
    let curve = |name, values: fn(&Transposition) -> &[f32]| IntervalCurve {
        name,
        points: found
            .iter()
            .map(|transposition| {
                let Measured { value, low, high } =
                    Measured::mean(values(transposition).iter().copied());
                (transposition.semitones.into(), value, low, high)
            })
            .collect(),
    };
    let curves = [
        curve("harmony latent rotated", |transposition| {
            &transposition.rotated
        }),
        curve("not rotated", |transposition| &transposition.not_rotated),
    ];
    let axes = ["semitones", "mel distance to the shifted music, nepers"];
    plot::plot_intervals(
        &folder.join(file),
        "Rotation compared with true transposition",
        axes,
        &curves,
    )?;
    Ok(Picture {
        file: file.to_owned(),
        caption: "Distance between the decoded mel and that of the pitch-shifted music, with 95 % intervals over tracks".to_owned(),
    })
}

/// A margin over the offset between the levels of both inputs, below those sources that have it by themselves.
///
/// # Errors
///
/// Returns an error if the file cannot be written.
pub fn levels(
    folder: &Path,
    file: &str,
    figure: Figure,
    ceilings: &[(String, LevelScores)],
    scores: &[(String, LevelScores)],
) -> Result<Picture> {
    let has_it = |(_, ceiling): &&(String, LevelScores)| {
        Measured::mean(ceiling.values(0, figure).into_iter()).value > 0.0
    };
    let curves: Vec<IntervalCurve> = ceilings
        .iter()
        .filter(has_it)
        .chain(scores)
        .map(|(name, scores)| IntervalCurve {
            name,
            points: Level::all()
                .into_iter()
                .enumerate()
                .filter_map(|(index, level)| match level {
                    Level::AsFiles => None,
                    Level::Offset(offset_db) => {
                        let values = scores.values(index, figure).into_iter();
                        let Measured { value, low, high } = Measured::mean(values);
                        Some((offset_db.into(), value, low, high))
                    }
                })
                .collect(),
        })
        .collect();
    let axes = ["main input above the sidechain, dB", figure.0];
    plot::plot_intervals(&folder.join(file), "Levels of the inputs", axes, &curves)?;
    Ok(Picture {
        file: file.to_owned(),
        caption: format!(
            "{} over the offset between the levels of main and sidechain, with 95 % intervals over pairs",
            figure.0
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levels::MARGINS;
    use crate::margins::Margins;
    use crate::songs::Note;
    use graft_material::testing::TestFolder;
    use model_runtime::Model;

    #[test]
    fn the_roll_shows_notes_and_onsets_and_is_drawn() {
        let mut log_mel = LogMel::new(128);
        (0..48).for_each(|_| log_mel.push_frame(&[-6.0; 128]));
        let song = Song {
            name: "a".into(),
            log_mel,
            chords: Vec::new(),
            detected_s: Vec::new(),
            struck_s: vec![0.25],
            notes: vec![
                Note {
                    start_s: 0.25,
                    end_s: 0.5,
                    key: 40,
                },
                Note {
                    start_s: 0.0,
                    end_s: 9.0,
                    key: 20,
                },
            ],
        };
        let roll = piano_roll(&song, 48);
        let at = |frame: usize, row: usize| roll[frame * ROLL_KEYS.len() + row];
        assert_eq!(
            (at(9, 4), at(10, 4), at(20, 4), at(22, 4)),
            (0.0, 1.0, 1.0, 0.0)
        );
        assert_eq!((at(10, 0), at(11, 0)), (0.6, 0.0));
        let folder = TestFolder::new("pictures");
        let model = Model::built_in().unwrap();
        latents(folder.path(), "latents.png", &**model.network(), &song).unwrap();
        confusion(
            folder.path(),
            "confusion.png",
            &vec![vec![1; CLASSES]; CLASSES],
        )
        .unwrap();
        assert!(
            folder.path().join("latents.png").exists()
                && folder.path().join("confusion.png").exists()
        );
    }

    #[test]
    fn margins_over_levels_are_drawn_above_and_below_0() {
        let margins = |value: f32| Margins {
            harmony: value,
            rhythm: -value,
            harmony_similarity: value,
            rhythm_correlation: value,
        };
        let scores = [0.3, -0.2].map(|value| {
            let scores = LevelScores {
                margins: vec![vec![margins(value), margins(0.1)]; Level::all().len()],
                beside_parts_lu: Vec::new(),
            };
            (value.to_string(), scores)
        });
        let folder = TestFolder::new("pictures-levels");
        for (index, figure) in MARGINS.into_iter().enumerate() {
            let file = format!("levels-{index}.png");
            let picture = levels(folder.path(), &file, figure, &scores[..1], &scores).unwrap();
            assert!(picture.caption.starts_with(figure.0));
            assert!(folder.path().join(file).exists());
        }
        assert!(levels(folder.path(), "none.png", MARGINS[0], &[], &[]).is_err());
    }
}
