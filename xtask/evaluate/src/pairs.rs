//! The excerpts of music that remixes are measured on.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use graft_material::loudness::loudness_gain;
use graft_train::dataset::Track;
use model_runtime::AudioClip;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

/// Length of an excerpt.
pub const EXCERPT_SECONDS: usize = 20;

/// Every second of an excerpt is at least this loud, once the track is at [`TARGET_RMS_DBFS`](graft_material::loudness::TARGET_RMS_DBFS).
const MIN_SECOND_DBFS: f32 = -40.0;

/// Part of a track.
#[derive(Debug, Clone)]
pub struct Excerpt {
    /// File name of the track.
    pub name: String,
    /// File of the track.
    pub path: PathBuf,
    /// Start of the excerpt in the track.
    pub start_seconds: usize,
    /// The sound, mono. As drawn, it is at [`TARGET_RMS_DBFS`](graft_material::loudness::TARGET_RMS_DBFS).
    pub clip: AudioClip,
    /// Factor from the drawn sound to the one in its track, when the whole track is at
    /// [`TARGET_RMS_DBFS`](graft_material::loudness::TARGET_RMS_DBFS).
    pub level_in_track: f32,
}

/// Two excerpts by different artists, to be remixed: the harmony of `main` with the rhythm of `sidechain`.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Source of the harmony.
    pub main: Excerpt,
    /// Source of the rhythm.
    pub sidechain: Excerpt,
}

/// Draws `count` pairs of `tracks`. The result depends only on the tracks and the seed.
///
/// All artists take turns as the source of harmony; the other artist is drawn uniformly from the rest, then a track
/// of each artist. Excerpts start at a random whole second, and each of their seconds is louder than -40 dBFS, so
/// that silence is not measured. `sample_rate_hz` is the sample rate of the tracks.
///
/// # Errors
///
/// Returns an error if fewer than two artists have a track with such an excerpt.
pub fn draw(
    tracks: &[Arc<Track>],
    sample_rate_hz: u32,
    count: usize,
    seed: u64,
) -> Result<Vec<Pair>> {
    let mut artists = artists_with_excerpts(tracks, sample_rate_hz);
    ensure!(
        artists.len() > 1,
        "need tracks with {EXCERPT_SECONDS} s without a pause by at least two artists, found {}",
        artists.len()
    );
    let mut random = StdRng::seed_from_u64(seed);
    artists.shuffle(&mut random);
    let mut excerpt = |artist: &Artist| draw_excerpt(artist, sample_rate_hz, &mut random);
    let mut turn = 0;
    (0..count)
        .map(|index| {
            // The distance from one artist to the other changes from round to round.
            let main = index % artists.len();
            turn = if main == 0 {
                turn % (artists.len() - 1) + 1
            } else {
                turn
            };
            let sidechain = (main + turn) % artists.len();
            Ok(Pair {
                main: excerpt(&artists[main])?,
                sidechain: excerpt(&artists[sidechain])?,
            })
        })
        .collect()
}

/// Draws `count` excerpts of `tracks`, like [`draw`] for the source of harmony.
///
/// # Errors
///
/// Returns an error if no track has such an excerpt.
pub fn draw_excerpts(
    tracks: &[Arc<Track>],
    sample_rate_hz: u32,
    count: usize,
    seed: u64,
) -> Result<Vec<Excerpt>> {
    let mut artists = artists_with_excerpts(tracks, sample_rate_hz);
    ensure!(
        !artists.is_empty(),
        "expected a track of {EXCERPT_SECONDS} s without a pause, found none"
    );
    let mut random = StdRng::seed_from_u64(seed);
    artists.shuffle(&mut random);
    (0..count)
        .map(|index| draw_excerpt(&artists[index % artists.len()], sample_rate_hz, &mut random))
        .collect()
}

/// The tracks of one artist, each with the seconds at which an excerpt may begin.
type Artist<'a> = Vec<(&'a Track, Vec<usize>)>;

fn artists_with_excerpts(tracks: &[Arc<Track>], sample_rate_hz: u32) -> Vec<Artist<'_>> {
    let mut artists: Vec<Artist> = Vec::new();
    for track in tracks {
        let starts = excerpt_starts(track, sample_rate_hz);
        if starts.is_empty() {
            continue;
        }
        match artists
            .iter_mut()
            .find(|artist| artist[0].0.artist == track.artist)
        {
            Some(artist) => artist.push((track, starts)),
            None => artists.push(vec![(track, starts)]),
        }
    }
    artists
}

fn draw_excerpt(artist: &Artist, sample_rate_hz: u32, random: &mut StdRng) -> Result<Excerpt> {
    let (track, starts) = artist.choose(random).context("an artist has a track")?;
    let start_seconds = *starts.choose(random).context("a track has an excerpt")?;
    Excerpt::of(track, start_seconds, sample_rate_hz)
}

/// Seconds of a track at which an excerpt may begin.
fn excerpt_starts(track: &Track, sample_rate_hz: u32) -> Vec<usize> {
    let min_rms = 10f32.powf(MIN_SECOND_DBFS / 20.0);
    let is_loud = |second: &[i16]| {
        let energy: f64 = second.iter().map(|&sample| f64::from(sample).powi(2)).sum();
        (energy / second.len() as f64).sqrt() * f64::from(track.pcm.level) > f64::from(min_rms)
    };
    let seconds = track.pcm.samples.chunks_exact(sample_rate_hz as usize);
    let loud: Vec<bool> = seconds.map(is_loud).collect();
    let windows = loud.windows(EXCERPT_SECONDS).enumerate();
    windows
        .filter(|(_, seconds)| seconds.iter().all(|&loud| loud))
        .map(|(start, _)| start)
        .collect()
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} s", self.name, self.start_seconds)
    }
}

impl Excerpt {
    /// [`EXCERPT_SECONDS`] of a track, which is in memory at `sample_rate_hz`, from `start_seconds` on.
    fn of(track: &Track, start_seconds: usize, sample_rate_hz: u32) -> Result<Self> {
        let rate = sample_rate_hz as usize;
        let excerpt = track
            .pcm
            .samples
            .get(start_seconds * rate..(start_seconds + EXCERPT_SECONDS) * rate);
        let excerpt = excerpt.with_context(|| {
            let seconds = start_seconds + EXCERPT_SECONDS;
            format!(
                "expected at least {seconds} s of audio in {}",
                track.path.display()
            )
        })?;
        let samples = excerpt
            .iter()
            .map(|&sample| f32::from(sample) * track.pcm.level);
        let samples: Vec<f32> = samples.collect();
        let gain = loudness_gain(&samples, sample_rate_hz).with_context(|| {
            format!(
                "{} is silent from {start_seconds} s on",
                track.path.display()
            )
        })?;
        let name = track.path.file_stem().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            path: track.path.clone(),
            start_seconds,
            clip: AudioClip {
                sample_rate_hz,
                channels: vec![samples.iter().map(|sample| sample * gain).collect()],
            },
            level_in_track: 1.0 / gain,
        })
    }

    /// Multiplies the sound by `gain`.
    pub fn amplify(&mut self, gain: f32) {
        for sample in self.clip.channels.iter_mut().flatten() {
            *sample *= gain;
        }
    }
}

#[cfg(test)]
impl Excerpt {
    /// An excerpt without any samples.
    pub fn silent(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: name.into(),
            start_seconds: 0,
            clip: AudioClip {
                sample_rate_hz: 22_050,
                channels: vec![Vec::new()],
            },
            level_in_track: 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::audio_cache::Pcm;

    const RATE_HZ: u32 = 8_000;

    /// A sine of 25 s with silence from `pause` seconds on, for one second.
    fn track(artist: &str, pause: usize) -> Arc<Track> {
        let rate = RATE_HZ as usize;
        let mut samples: Vec<f32> = (0..25 * rate)
            .map(|n| 0.5 * (n as f32 * 0.3).sin())
            .collect();
        samples[pause * rate..(pause + 1) * rate].fill(0.0);
        Arc::new(Track {
            path: format!("{artist}-{pause}.wav").into(),
            artist: artist.to_owned(),
            pcm: Pcm::normalised(&samples, RATE_HZ).unwrap(),
        })
    }

    #[test]
    fn pairs_are_by_different_artists_without_silence_and_equally_loud() {
        let tracks = [
            track("one", 24),
            track("one", 0),
            track("two", 2),
            track("three", 12),
            track("four", 23),
        ];
        let pairs = draw(&tracks, RATE_HZ, 9, 1).unwrap();
        assert_eq!(pairs.len(), 9);
        for Pair { main, sidechain } in &pairs {
            let artist = |excerpt: &Excerpt| excerpt.name.split('-').next().unwrap().to_owned();
            assert_ne!(artist(main), artist(sidechain));
            for excerpt in [main, sidechain] {
                assert_ne!(artist(excerpt), "three", "an excerpt with a pause");
                let samples = &excerpt.clip.channels[0];
                assert_eq!(samples.len(), EXCERPT_SECONDS * RATE_HZ as usize);
                let energy: f32 = samples.iter().map(|x| x * x).sum();
                assert!(((energy / samples.len() as f32).sqrt() - 0.1).abs() < 1e-3);
            }
        }
        let names = |pairs: &[Pair]| -> Vec<_> {
            let name = |excerpt: &Excerpt| (excerpt.name.clone(), excerpt.start_seconds);
            pairs
                .iter()
                .map(|pair| (name(&pair.main), name(&pair.sidechain)))
                .collect()
        };
        assert_eq!(names(&draw(&tracks, RATE_HZ, 9, 1).unwrap()), names(&pairs));
        assert_ne!(names(&draw(&tracks, RATE_HZ, 9, 2).unwrap()), names(&pairs));
    }

    #[test]
    fn one_artist_is_not_enough() {
        let tracks = [track("one", 24), track("one", 0), track("two", 12)];
        assert!(draw(&tracks, RATE_HZ, 1, 1).is_err());
    }
}
