//! Training music: files, artists, and the split into training and validation.

mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use graft_material::audio_cache::{AudioCache, LoadError, Pcm};
use graft_material::{audio_file, folder, progress, whole_file};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Share of the artists used for validation only.
const VALIDATION_SHARE: f64 = 0.15;

/// File with the split in the run folder.
const SPLIT_FILE: &str = "split.json";

/// One track in memory, mono, at the model's sample rate.
#[derive(Debug)]
pub struct Track {
    /// Path of the audio file.
    pub path: PathBuf,
    /// The artist. All tracks of an artist are either for training or for validation.
    pub artist: String,
    /// The samples.
    pub pcm: Pcm,
}

/// An audio file and its artist.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    path: PathBuf,
    artist: String,
}

/// All usable tracks of a list of folders, ordered by path.
#[derive(Debug)]
pub struct Dataset {
    tracks: Vec<Arc<Track>>,
}

impl Dataset {
    /// Reads every audio file below `folders`, at `sample_rate_hz`, through the cache in
    /// `cache_folder`, with a progress bar.
    ///
    /// The artist of a file comes from its row in a `manifest.csv` in its folder, or else from the name of the
    /// folder. If this gives a single artist for all files, each file counts as a separate artist, so that some can
    /// be used for validation. Hidden files are passed over. Unusable files, manifests and folders below the given ones
    /// are reported on the terminal and skipped.
    ///
    /// # Errors
    ///
    /// Returns an error if one of `folders` cannot be read, the cache cannot be written, or there are fewer than two
    /// usable tracks.
    pub fn load(folders: &[PathBuf], cache_folder: &Path, sample_rate_hz: u32) -> Result<Self> {
        let mut tracks = read_sources(find_sources(folders)?, cache_folder, sample_rate_hz)?;
        ensure!(
            tracks.len() > 1,
            "expected at least two usable audio files, found {}",
            tracks.len()
        );
        let artists: BTreeSet<&str> = tracks.iter().map(|track| &*track.artist).collect();
        if artists.len() == 1 {
            for track in &mut tracks {
                track.artist = file_name(&track.path);
            }
        }
        Ok(Self {
            tracks: tracks.into_iter().map(Arc::new).collect(),
        })
    }

    /// Splits the tracks into training and validation.
    ///
    /// # Errors
    ///
    /// Returns an error if either part is empty.
    pub fn partition(&self, split: &Split) -> Result<Partition> {
        let (validation, training): (Vec<_>, Vec<_>) = self
            .tracks
            .iter()
            .cloned()
            .partition(|track| split.validation_artists.contains(&track.artist));
        ensure!(
            !training.is_empty() && !validation.is_empty(),
            "need at least one training and one validation track, found {} and {}",
            training.len(),
            validation.len()
        );
        Ok(Partition {
            training,
            validation,
        })
    }
}

/// Shorter sounds in folders of drum loops are taken for single hits and skipped.
const SHORTEST_LOOP_SECONDS: f64 = 2.0;

/// Reads the drum loops below `folders`: all audio files of at least 2 s. Unusable files are reported on the terminal
/// and skipped.
///
/// # Errors
///
/// Returns an error if a folder cannot be read, or there are folders but no loop.
pub fn load_loops(
    folders: &[PathBuf],
    cache_folder: &Path,
    sample_rate_hz: u32,
) -> Result<Vec<Pcm>> {
    let mut loops = read_sources(find_sources(folders)?, cache_folder, sample_rate_hz)?;
    let shortest_samples = SHORTEST_LOOP_SECONDS * f64::from(sample_rate_hz);
    loops.retain(|track| track.pcm.samples.len() as f64 >= shortest_samples);
    ensure!(
        folders.is_empty() || !loops.is_empty(),
        "expected drum loops of at least {SHORTEST_LOOP_SECONDS} s in {folders:?}, found none"
    );
    Ok(loops.into_iter().map(|track| track.pcm).collect())
}

/// Reads audio files, with a progress bar. Unusable files are reported on the terminal and skipped.
///
/// # Errors
///
/// Returns an error if the cache cannot be written.
fn read_sources(
    sources: Vec<Source>,
    cache_folder: &Path,
    sample_rate_hz: u32,
) -> Result<Vec<Track>> {
    let cache = AudioCache::new(cache_folder, sample_rate_hz)?;
    let bar = progress::bar("Reading audio", sources.len() as u64);
    let mut tracks = Vec::new();
    let mut skipped = 0;
    for source in sources {
        match cache.load(&source.path) {
            Ok(pcm) => tracks.push(Track {
                path: source.path,
                artist: source.artist,
                pcm,
            }),
            Err(LoadError::Track(error)) => {
                skipped += 1;
                bar.suspend(|| eprintln!("skipped: {error:#}"));
            }
            Err(LoadError::Cache(error)) => return Err(error),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if skipped > 0 {
        eprintln!("skipped {skipped} files, using {}", tracks.len());
    }
    Ok(tracks)
}

/// The two parts of a [`Dataset`].
#[derive(Debug, Clone)]
pub struct Partition {
    /// Training tracks.
    pub training: Vec<Arc<Track>>,
    /// Validation tracks, by artists without training tracks.
    pub validation: Vec<Arc<Track>>,
}

/// The artists that are used for validation only. Drawn once per run and stored in the run folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Names of the validation artists, in order.
    pub validation_artists: BTreeSet<String>,
}

impl Split {
    /// Draws about 15 % of the artists. The result depends only on the artists and the seed.
    pub fn draw(dataset: &Dataset, seed: u64) -> Self {
        let artists: BTreeSet<&str> = dataset.tracks.iter().map(|track| &*track.artist).collect();
        let mut artists: Vec<&str> = artists.into_iter().collect();
        artists.shuffle(&mut StdRng::seed_from_u64(seed));
        let count = (artists.len() as f64 * VALIDATION_SHARE).round().max(1.0) as usize;
        Self {
            validation_artists: artists[..count]
                .iter()
                .map(|&artist| artist.to_owned())
                .collect(),
        }
    }

    /// Loads the split in `run_folder`, or draws a new one and saves it there as `split.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, parsed or written.
    pub fn load_or_draw(run_folder: &Path, dataset: &Dataset, seed: u64) -> Result<Self> {
        let path = run_folder.join(SPLIT_FILE);
        if path.exists() {
            return Self::load(run_folder);
        }
        let split = Self::draw(dataset, seed);
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
        let path = run_folder.join(SPLIT_FILE);
        let describe = || format!("cannot read the split {}", path.display());
        let text = fs::read_to_string(&path).with_context(describe)?;
        serde_json::from_str(&text).with_context(describe)
    }
}

/// Finds all audio files below `folders`, each once, in order, with their artists. What cannot be read is reported on the
/// terminal and skipped.
fn find_sources(folders: &[PathBuf]) -> Result<Vec<Source>> {
    let found = folder::files(folders)?;
    for warning in found.warnings {
        eprintln!("skipped: {warning}");
    }
    let mut manifests = BTreeMap::new();
    let files = found.files.into_iter().map(|file| file.path);
    let sources = files.filter(|path| is_audio(path)).map(|path| {
        let folder = path.parent().unwrap_or(Path::new("."));
        let artists = manifests
            .entry(folder.to_owned())
            .or_insert_with(|| read_manifest(folder));
        let artist = artists.get(&file_name(&path)).cloned();
        Source {
            artist: artist.unwrap_or_else(|| file_name(folder)),
            path,
        }
    });
    Ok(sources.collect())
}

/// Artists by file name. A file that is not a manifest is reported on the terminal.
fn read_manifest(folder: &Path) -> BTreeMap<String, String> {
    manifest::read(folder).unwrap_or_else(|error| {
        eprintln!("warning: {error:#}; taking artists from the names of folders");
        BTreeMap::new()
    })
}

fn is_audio(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| audio_file::EXTENSIONS.contains(&&*extension.to_lowercase()))
}

/// The last component of a path, as text.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::audio_file::{WavFormat, write_wav};
    use graft_material::testing::TestFolder;
    use model_runtime::AudioClip;

    const RATE_HZ: u32 = 22_050;

    fn write_sine(path: &Path, hz: f32, level: f32) {
        let sine = |n: i32| level * (std::f32::consts::TAU * hz * n as f32 / 44_100.0).sin();
        let clip = AudioClip {
            sample_rate_hz: 44_100,
            channels: vec![(0..44_100).map(sine).collect(); 2],
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_wav(path, &clip, WavFormat::Pcm16).unwrap();
    }

    /// Three folders with two sines each, a text file with the name of a sound, and a picture.
    fn music(folder: &TestFolder) -> PathBuf {
        let music = folder.path().join("music");
        for (artist, hz) in [("one", 200.0), ("two", 300.0), ("three", 400.0)] {
            write_sine(&music.join(artist).join("a.wav"), hz, 0.5);
            write_sine(&music.join(artist).join("b.WAV"), hz * 1.5, 0.1);
        }
        fs::write(music.join("one/broken.wav"), "no audio").unwrap();
        fs::write(music.join("one/cover.png"), "no audio").unwrap();
        music
    }

    fn load(music: PathBuf, folder: &TestFolder) -> Result<Dataset> {
        Dataset::load(&[music], &folder.path().join("cache"), RATE_HZ)
    }

    /// Names of files and their artists.
    fn artists(dataset: &Dataset) -> Vec<(String, &str)> {
        let tracks = dataset.tracks.iter();
        let artists = tracks.map(|track| (file_name(&track.path), &*track.artist));
        artists.collect()
    }

    #[test]
    fn tracks_are_found_by_folder_and_made_equally_loud() {
        let folder = TestFolder::new("dataset");
        let music = music(&folder);
        let cache = folder.path().join("cache");
        let dataset = Dataset::load(&[music.clone(), music], &cache, RATE_HZ).unwrap();
        assert_eq!(dataset.tracks.len(), 6);
        for track in &dataset.tracks {
            let Pcm { samples, level } = &track.pcm;
            assert_eq!(samples.len(), RATE_HZ as usize);
            let energy: f64 = samples
                .iter()
                .map(|&x| f64::from(f32::from(x) * level).powi(2))
                .sum();
            let rms = (energy / samples.len() as f64).sqrt();
            assert!((rms - 0.1).abs() < 1e-3, "{}: {rms}", track.path.display());
        }
        let artists: BTreeSet<&str> = dataset.tracks.iter().map(|track| &*track.artist).collect();
        assert_eq!(artists, BTreeSet::from(["one", "three", "two"]));
    }

    #[test]
    fn the_split_is_by_artist_kept_with_the_run_and_never_mixed() {
        let folder = TestFolder::new("split");
        let dataset =
            Dataset::load(&[music(&folder)], &folder.path().join("cache"), RATE_HZ).unwrap();
        let split = Split::load_or_draw(folder.path(), &dataset, 1).unwrap();
        assert_eq!(split.validation_artists.len(), 1);
        assert_eq!(Split::draw(&dataset, 1), split);
        assert_eq!(
            Split::load_or_draw(folder.path(), &dataset, 2).unwrap(),
            split,
            "drawn anew"
        );
        assert!(
            (0..20).any(|seed| Split::draw(&dataset, seed) != split),
            "the seed has no effect"
        );

        let Partition {
            training,
            validation,
        } = dataset.partition(&split).unwrap();
        assert_eq!((training.len(), validation.len()), (4, 2));
        for track in &training {
            assert!(validation.iter().all(|other| other.artist != track.artist));
        }
        fs::write(folder.path().join(SPLIT_FILE), "{\"validation\": 1}").unwrap();
        assert!(Split::load_or_draw(folder.path(), &dataset, 1).is_err());
    }

    #[test]
    fn files_of_one_folder_are_told_apart_whatever_a_mac_adds() {
        let folder = TestFolder::new("one_folder");
        let music = folder.path().join("music");
        write_sine(&music.join("a.wav"), 200.0, 0.5);
        write_sine(&music.join("b.wav"), 300.0, 0.5);
        fs::create_dir(music.join("__MACOSX")).unwrap();
        for name in ["__MACOSX/._a.wav", "__MACOSX/c.wav", "._a.wav", ".DS_Store"] {
            fs::write(music.join(name), "no audio").unwrap();
        }
        let told_apart = [("a.wav".to_owned(), "a.wav"), ("b.wav".to_owned(), "b.wav")];
        assert_eq!(artists(&load(music.clone(), &folder).unwrap()), told_apart);
        // Nor does an artist count whose files cannot be used.
        fs::create_dir(music.join("other")).unwrap();
        fs::write(music.join("other/d.wav"), "no audio").unwrap();
        assert_eq!(artists(&load(music, &folder).unwrap()), told_apart);
    }

    #[test]
    fn a_manifest_names_artists_and_anything_else_does_no_harm() {
        let folder = TestFolder::new("manifest");
        let music = music(&folder);
        let manifest = music.join("one/manifest.csv");
        let artist_of_a = || {
            artists(&load(music.clone(), &folder).unwrap())[0]
                .1
                .to_owned()
        };
        fs::write(&manifest, "\u{feff}file,artist\r\na.wav,Kim\r\n").unwrap();
        assert_eq!(artist_of_a(), "kim");
        for other in [b"name,artist\na.wav,Kim\n".as_slice(), b"RIFF\xff\x00", b""] {
            fs::write(&manifest, other).unwrap();
            assert_eq!(artist_of_a(), "one");
        }
        let error = manifest::read(&music.join("one")).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("manifest.csv") && error.contains("columns file and artist"));
        fs::remove_file(&manifest).unwrap();
        fs::create_dir(&manifest).unwrap();
        assert_eq!(artist_of_a(), "one");
    }

    #[test]
    fn a_folder_without_music_is_an_error() {
        let folder = TestFolder::new("no_music");
        let cache = folder.path().join("cache");
        assert!(Dataset::load(&[folder.path().to_owned()], &cache, RATE_HZ).is_err());
        let missing = folder.path().join("missing");
        let error = Dataset::load(&[missing], &cache, RATE_HZ).unwrap_err();
        assert!(format!("{error:#}").contains("missing"));
    }

    #[test]
    fn a_cache_that_cannot_be_written_ends_the_reading() {
        let folder = TestFolder::new("full_cache");
        let music = music(&folder);
        let cache = folder.path().join("cache");
        let first = find_sources(std::slice::from_ref(&music))
            .unwrap()
            .remove(0);
        // A folder in the place of the cached file cannot be replaced by it.
        AudioCache::new(&cache, RATE_HZ)
            .unwrap()
            .load(&first.path)
            .unwrap();
        let cached = fs::read_dir(&cache)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        fs::remove_file(&cached).unwrap();
        fs::create_dir(&cached).unwrap();
        let error = format!(
            "{:#}",
            Dataset::load(&[music], &cache, RATE_HZ).unwrap_err()
        );
        assert!(error.contains("cache folder"), "{error}");
    }
}
