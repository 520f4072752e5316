//! Training music: files, artists, and the split into training and validation.

mod manifest;
mod short;
mod split;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use graft_material::audio_cache::{AudioCache, LoadError, Pcm};
use graft_material::{audio_file, folder, progress};

pub use split::{Cut, Split};

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
    tracks: Vec<Track>,
    sample_rate_hz: u32,
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
    /// Returns an error if one of `folders` cannot be read, the cache cannot be written, or there is no usable file.
    pub fn load(folders: &[PathBuf], cache_folder: &Path, sample_rate_hz: u32) -> Result<Self> {
        let sources = find_sources(folders)?;
        let found = sources.len();
        let mut tracks = read_sources(sources, cache_folder, sample_rate_hz)?;
        ensure!(
            !tracks.is_empty(),
            "expected audio files ({}) in {folders:?}, found {}",
            audio_file::EXTENSIONS.join(", "),
            match found {
                0 => "none".to_owned(),
                _ => format!("{found}, none of which can be used"),
            }
        );
        let artists: BTreeSet<&str> = tracks.iter().map(|track| &*track.artist).collect();
        if artists.len() == 1 {
            for track in &mut tracks {
                track.artist = file_name(&track.path);
            }
        }
        Ok(Self {
            tracks,
            sample_rate_hz,
        })
    }

    /// Splits the tracks into training and validation.
    ///
    /// # Errors
    ///
    /// Returns an error if either part is empty, because the split was drawn for other music.
    pub fn partition(self, split: &Split) -> Result<Partition> {
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        for track in self.tracks {
            match &split.recording {
                _ if split.validates(&track) => validation.push(track),
                Some(cut) if cut.applies_to(&track) => {
                    let [first, last] = cut.parts(&track, self.sample_rate_hz);
                    training.push(first);
                    validation.push(last);
                }
                _ => training.push(track),
            }
        }
        let in_arcs = |tracks: Vec<Track>| -> Vec<Arc<Track>> {
            let tracks = tracks.into_iter().map(Arc::new);
            tracks
                .filter(|track| !track.pcm.samples.is_empty())
                .collect()
        };
        let parts = Partition {
            training: in_arcs(training),
            validation: in_arcs(validation),
            sample_rate_hz: self.sample_rate_hz,
        };
        ensure!(
            !parts.training.is_empty() && !parts.validation.is_empty(),
            "the split keeps {split} for validation: expected this and other music, found {} tracks to train on and {} to \
             validate with",
            parts.training.len(),
            parts.validation.len()
        );
        Ok(parts)
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
        let warn = |warning: &str| {
            bar.suspend(|| eprintln!("warning: {}: {warning}", source.path.display()));
        };
        match cache.load(&source.path, warn) {
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
    /// Validation tracks, by artists without training tracks; or the last part of the only recording.
    pub validation: Vec<Arc<Track>>,
    /// Sample rate of the tracks.
    pub sample_rate_hz: u32,
}

impl Partition {
    /// Without tracks.
    pub fn empty(sample_rate_hz: u32) -> Self {
        Self {
            training: Vec::new(),
            validation: Vec::new(),
            sample_rate_hz,
        }
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
    use std::fs;

    use super::*;
    use graft_material::audio_writer::{WavFormat, write_wav};
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
        let error = load(folder.path().to_owned(), &folder).unwrap_err();
        assert!(error.to_string().contains("found none"), "{error}");
        let error = load(folder.path().join("missing"), &folder).unwrap_err();
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
            .load(&first.path, |_| {})
            .unwrap();
        let cached = fs::read_dir(&cache)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        fs::remove_file(&cached).unwrap();
        fs::create_dir(&cached).unwrap();
        let error = format!("{:#}", load(music, &folder).unwrap_err());
        assert!(error.contains("cache folder"), "{error}");
    }
}
