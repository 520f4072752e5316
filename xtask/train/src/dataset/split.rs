//! The split of the music into training and validation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use graft_material::audio_cache::Pcm;
use graft_material::whole_file;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::{Dataset, Track, file_name};

/// Share of the artists, or of the only recording, that is used for validation only.
const VALIDATION_SHARE: f64 = 0.15;

/// Share of the only recording between its two parts, which nobody uses: what rings on is not validated with.
const GAP_SHARE: f64 = 0.05;

/// Names in messages.
const NAMES_SHOWN: usize = 8;

/// File with the split in the run folder.
const FILE: &str = "split.json";

/// What is used for validation only. Drawn once per run and stored in the run folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Names of the validation artists, in order. Where fewer than two artists have music enough: names of files.
    pub validation_artists: BTreeSet<String>,
    /// The recording that is used for both, if there is only one that is long enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<Cut>,
}

/// The two parts of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// Name of the file.
    pub file: String,
    /// End of the part for training, in seconds.
    pub training_until_seconds: f64,
    /// Start of the part for validation, in seconds.
    pub validation_from_seconds: f64,
}

impl Split {
    /// Draws about 15 % of the artists. The result depends only on the artists, their amount of music and the seed.
    ///
    /// Both parts get at least one crop of `crop_samples`. An artist with more than half of the music is not drawn.
    /// Artists with less than a crop are drawn only if there are no others, and then several that have one crop
    /// together. If this leaves no artists, files are drawn in the same way, and if it leaves no files either, the
    /// longest one is cut in two.
    ///
    /// # Errors
    ///
    /// Returns an error if there is too little music.
    pub fn draw(dataset: &Dataset, seed: u64, crop_samples: usize) -> Result<Self> {
        let by_artist = |track: &Track| track.artist.clone();
        let by_file = |track: &Track| file_name(&track.path);
        let names = draw_names(dataset, by_artist, seed, crop_samples)
            .or_else(|| draw_names(dataset, by_file, seed, crop_samples));
        if let Some(validation_artists) = names {
            return Ok(Self {
                validation_artists,
                recording: None,
            });
        }
        let samples = |track: &Track| track.pcm.samples.len();
        let rate = f64::from(dataset.sample_rate_hz);
        match dataset.tracks.iter().max_by_key(|track| samples(track)) {
            Some(track) if samples(track) >= 2 * crop_samples => Ok(Self {
                validation_artists: BTreeSet::new(),
                recording: Some(Cut::new(track, crop_samples, dataset.sample_rate_hz)),
            }),
            _ => bail!(
                "expected at least one crop of {:.1} s to train on and one to validate with, found {:.1} s in {} files: \
                 add music, or lower the frames of a crop in the recipe",
                crop_samples as f64 / rate,
                dataset.tracks.iter().map(samples).sum::<usize>() as f64 / rate,
                dataset.tracks.len()
            ),
        }
    }

    /// Whether a track is by a validation artist.
    pub fn validates(&self, track: &Track) -> bool {
        let names = &self.validation_artists;
        names.contains(&track.artist) || names.contains(&file_name(&track.path))
    }

    /// Loads the split in `run_folder`, or draws a new one and saves it there as `split.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, parsed or written, or there is too little music.
    pub fn load_or_draw(
        run_folder: &Path,
        dataset: &Dataset,
        seed: u64,
        crop_samples: usize,
    ) -> Result<Self> {
        let path = run_folder.join(FILE);
        if path.exists() {
            return Self::load(run_folder);
        }
        let split = Self::draw(dataset, seed, crop_samples)?;
        whole_file::write(&path, serde_json::to_string_pretty(&split)?.as_bytes())?;
        Ok(split)
    }

    /// The split of the built-in model.
    ///
    /// # Errors
    ///
    /// Returns an error if the file in the assets is damaged.
    pub fn of_built_in_model() -> Result<Self> {
        let text = include_str!("../../../../assets/split.json");
        serde_json::from_str(text).context("cannot read assets/split.json")
    }

    /// Loads the split in `run_folder`.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is missing or cannot be parsed.
    pub fn load(run_folder: &Path) -> Result<Self> {
        let path = run_folder.join(FILE);
        let describe = || format!("cannot read the split {}", path.display());
        let text = fs::read_to_string(&path).with_context(describe)?;
        serde_json::from_str(&text).with_context(describe)
    }
}

/// Draws names for validation from those that `name_of` gives the tracks, if there are enough.
fn draw_names(
    dataset: &Dataset,
    name_of: impl Fn(&Track) -> String,
    seed: u64,
    crop_samples: usize,
) -> Option<BTreeSet<String>> {
    let mut lengths = BTreeMap::new();
    for track in &dataset.tracks {
        *lengths.entry(name_of(track)).or_default() += track.pcm.samples.len();
    }
    let all_samples: usize = lengths.values().sum();
    let mut names: Vec<(String, usize)> = lengths.into_iter().collect();
    names.shuffle(&mut StdRng::seed_from_u64(seed));
    let (long, short): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|(_, samples)| *samples >= crop_samples);
    let at_most = [all_samples / 2, all_samples.saturating_sub(crop_samples)];
    let mut groups = [long, short].into_iter().zip(at_most);
    groups.find_map(|(names, at_most)| {
        let wanted = (names.len() as f64 * VALIDATION_SHARE).round().max(1.0) as usize;
        let mut drawn = BTreeSet::new();
        let mut drawn_samples = 0;
        for (name, samples) in names {
            let is_enough = drawn.len() >= wanted && drawn_samples >= crop_samples;
            if !is_enough && drawn_samples + samples <= at_most {
                drawn_samples += samples;
                drawn.insert(name);
            }
        }
        (drawn_samples >= crop_samples).then_some(drawn)
    })
}

impl Cut {
    /// Cuts a track of at least two crops.
    fn new(track: &Track, crop_samples: usize, sample_rate_hz: u32) -> Self {
        let length = track.pcm.samples.len();
        let share = |share: f64| (length as f64 * share) as usize;
        let validation_from = length - share(VALIDATION_SHARE).max(crop_samples);
        let gap = share(GAP_SHARE).min(validation_from - crop_samples);
        let seconds = |samples: usize| samples as f64 / f64::from(sample_rate_hz);
        Self {
            file: file_name(&track.path),
            training_until_seconds: seconds(validation_from - gap),
            validation_from_seconds: seconds(validation_from),
        }
    }

    /// Whether this is the cut of a track.
    pub(super) fn applies_to(&self, track: &Track) -> bool {
        self.file == file_name(&track.path)
    }

    /// The parts of a track for training and for validation; one of them may be empty if the file has changed.
    pub(super) fn parts(&self, track: &Track, sample_rate_hz: u32) -> [Track; 2] {
        let samples = &track.pcm.samples;
        let position = |seconds: f64| {
            let position = (seconds * f64::from(sample_rate_hz)).round() as usize;
            position.min(samples.len())
        };
        let part = |range: Range<usize>| Track {
            path: track.path.clone(),
            artist: track.artist.clone(),
            pcm: Pcm {
                samples: samples[range].to_vec(),
                level: track.pcm.level,
            },
        };
        [
            part(0..position(self.training_until_seconds)),
            part(position(self.validation_from_seconds)..samples.len()),
        ]
    }
}

impl fmt::Display for Split {
    /// What is used for validation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cut) = &self.recording {
            return write!(f, "the end of {}", cut.file);
        }
        let names: Vec<&str> = self.validation_artists.iter().map(String::as_str).collect();
        match names.split_at_checked(NAMES_SHOWN) {
            Some((shown, more)) if !more.is_empty() => {
                write!(f, "{} and {} more", shown.join(", "), more.len())
            }
            _ => write!(f, "{}", names.join(", ")),
        }
    }
}

impl fmt::Display for Cut {
    /// A line for the terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "one long recording, {}: training on its first {:.1} s, validating with the rest from {:.1} s on",
            self.file, self.training_until_seconds, self.validation_from_seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::testing::TestFolder;

    const RATE_HZ: u32 = 1000;

    /// Crops of one second.
    const CROP: usize = 1000;

    /// Tracks of an artist with this many milliseconds; their names are numbers.
    fn dataset(artists: &[(&str, &[usize])]) -> Dataset {
        let tracks = artists.iter().flat_map(|&(artist, lengths)| {
            let track = move |(index, &length): (usize, &usize)| Track {
                path: format!("{artist}/{artist}-{index}.wav").into(),
                artist: artist.to_owned(),
                pcm: Pcm {
                    samples: (0..length as i16).collect(),
                    level: 1e-4,
                },
            };
            lengths.iter().enumerate().map(track)
        });
        Dataset {
            tracks: tracks.collect(),
            sample_rate_hz: RATE_HZ,
        }
    }

    /// Names that are drawn with each of some seeds; every split must give both parts a crop.
    fn drawn(artists: &[(&str, &[usize])]) -> BTreeSet<Vec<String>> {
        let draws = (0..50).map(|seed| {
            let split = Split::draw(&dataset(artists), seed, CROP).unwrap();
            let parts = dataset(artists).partition(&split).unwrap();
            let parts = parts.with_short_files_joined(CROP);
            for tracks in [&parts.training, &parts.validation] {
                assert!(tracks.iter().any(|track| track.pcm.samples.len() >= CROP));
            }
            assert_eq!(split.recording, None);
            split.validation_artists.into_iter().collect()
        });
        draws.collect()
    }

    #[test]
    fn the_split_is_by_artist_kept_with_the_run_and_never_mixed() {
        let folder = TestFolder::new("split");
        let music: &[(&str, &[usize])] = &[
            ("one", &[2000; 2]),
            ("two", &[2000; 2]),
            ("three", &[2000; 2]),
        ];
        let load_or_draw = |seed| Split::load_or_draw(folder.path(), &dataset(music), seed, CROP);
        let split = load_or_draw(1).unwrap();
        assert_eq!(split.validation_artists.len(), 1);
        assert_eq!(Split::draw(&dataset(music), 1, CROP).unwrap(), split);
        assert_eq!(load_or_draw(2).unwrap(), split, "drawn anew");
        assert!(drawn(music).len() > 1, "the seed has no effect");

        let parts = dataset(music).partition(&split).unwrap();
        assert_eq!((parts.training.len(), parts.validation.len()), (4, 2));
        for track in &parts.training {
            assert!(
                parts
                    .validation
                    .iter()
                    .all(|other| other.artist != track.artist)
            );
        }
        fs::write(folder.path().join(FILE), "{\"validation\": 1}").unwrap();
        assert!(load_or_draw(1).is_err());
    }

    #[test]
    fn artists_with_less_than_a_crop_are_not_validated_with_alone() {
        let with_short: &[(&str, &[usize])] = &[
            ("a", &[3000]),
            ("b", &[3000]),
            ("c", &[3000]),
            ("x", &[400]),
            ("y", &[300; 3]),
        ];
        let long = ["a", "b", "c"].map(|name| vec![name.to_owned()]);
        assert_eq!(drawn(with_short), BTreeSet::from(long));
        // None is long enough: several have a crop together.
        let short: &[(&str, &[usize])] = &[
            ("a", &[600]),
            ("b", &[600]),
            ("c", &[600]),
            ("d", &[600]),
            ("e", &[300]),
        ];
        assert!(drawn(short).iter().all(|names| names.len() >= 2));
        // The only one that is long enough is trained on.
        let one: &[(&str, &[usize])] = &[("a", &[9000]), ("b", &[600]), ("c", &[600])];
        assert_eq!(
            drawn(one),
            BTreeSet::from([vec!["b".to_owned(), "c".to_owned()]])
        );
        // Without others to validate with, some of its files are.
        let files: &[(&str, &[usize])] = &[("a", &[3000; 4]), ("b", &[600])];
        for names in drawn(files) {
            assert!(names.len() == 1 && names[0].starts_with("a-"), "{names:?}");
        }
    }

    #[test]
    fn validation_takes_at_most_half_of_the_music() {
        let music: &[(&str, &[usize])] = &[("large", &[9000]), ("small", &[1500])];
        assert_eq!(drawn(music), BTreeSet::from([vec!["small".to_owned()]]));
    }

    #[test]
    fn the_only_recording_is_cut_in_two_with_a_gap() {
        let folder = TestFolder::new("cut");
        for (length, until, from) in [
            (20_000, 16_000, 17_000),
            (2500, 1375, 1500),
            (2000, 1000, 1000),
        ] {
            let run = folder.path().join(length.to_string());
            fs::create_dir(&run).unwrap();
            let lengths = [length, 200];
            let music: &[(&str, &[usize])] = &[("mix", &lengths)];
            let draw = || Split::load_or_draw(&run, &dataset(music), 1, CROP).unwrap();
            let split = draw();
            assert_eq!(draw(), split, "the stored one differs");
            let line = split.recording.as_ref().unwrap().to_string();
            assert!(line.contains("recording, mix-0.wav:"), "{line}");
            let parts = dataset(music).partition(&split).unwrap();
            // The short file is trained on.
            let [first, _] = &*parts.training else {
                panic!(
                    "expected two tracks to train on, found {:?}",
                    parts.training
                );
            };
            let [last] = &*parts.validation else {
                panic!(
                    "expected a track to validate with, found {:?}",
                    parts.validation
                );
            };
            let whole: Vec<i16> = (0..length as i16).collect();
            assert_eq!(first.pcm.samples, whole[..until]);
            assert_eq!(last.pcm.samples, whole[from..]);
        }
    }

    #[test]
    fn too_little_music_is_refused_with_what_is_missing() {
        for music in [
            &[("a", [1900].as_slice())][..],
            &[("a", &[700]), ("b", &[700])],
        ] {
            let error = Split::draw(&dataset(music), 1, CROP).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("one crop of 1.0 s to train on"), "{error}");
            assert!(error.contains("add music"), "{error}");
        }
    }

    #[test]
    fn a_split_for_other_music_names_what_it_expects() {
        let split = Split::of_built_in_model().unwrap();
        let music = || dataset(&[("a", &[3000]), ("b", &[3000])]);
        let error = music().partition(&split).unwrap_err().to_string();
        assert!(error.contains("alexandr zhelanov, aminos"), "{error}");
        assert!(error.contains("2 tracks to train on and 0"), "{error}");
        let cut = Split::draw(&dataset(&[("mix", &[5000])]), 1, CROP).unwrap();
        let error = music().partition(&cut).unwrap_err().to_string();
        assert!(error.contains("the end of mix-0.wav"), "{error}");
    }
}
