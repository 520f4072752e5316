//! Files that are shorter than a crop.

use std::collections::BTreeMap;
use std::sync::Arc;

use graft_material::audio_cache::Pcm;

use super::{Partition, Track};

/// Artist of joined files by several artists.
const SEVERAL_ARTISTS: &str = "several artists";

impl Partition {
    /// Joins the files that are shorter than `crop_samples`, so that crops can be drawn from them: those of an artist, or
    /// of several artists if theirs are shorter than a crop even so. Reports this on the terminal.
    pub fn with_short_files_joined(mut self, crop_samples: usize) -> Self {
        let seconds = crop_samples as f64 / f64::from(self.sample_rate_hz);
        let mut joined = 0;
        for tracks in [&mut self.training, &mut self.validation] {
            let (count, rest) = join_short(tracks, crop_samples);
            joined += count;
            for track in rest {
                let path = track.path.display();
                eprintln!(
                    "skipped: {path}: shorter than a crop of {seconds:.1} s, also when joined with other such files"
                );
            }
        }
        if joined > 0 {
            println!("joined {joined} files that are shorter than a crop of {seconds:.1} s");
        }
        self
    }
}

/// Replaces the tracks that are shorter than `crop_samples` by joined ones. Returns how many were joined, and those that
/// cannot be used.
fn join_short(tracks: &mut Vec<Arc<Track>>, crop_samples: usize) -> (usize, Vec<Arc<Track>>) {
    let mut by_artist: BTreeMap<String, Vec<Arc<Track>>> = BTreeMap::new();
    let mut count = 0;
    for track in tracks.extract_if(.., |track| track.pcm.samples.len() < crop_samples) {
        count += 1;
        let of_artist = by_artist.entry(track.artist.clone()).or_default();
        of_artist.push(track);
    }
    let mut rest = Vec::new();
    for (artist, short) in by_artist {
        match join(artist, &short, crop_samples) {
            Some(joined) => tracks.push(joined),
            None => rest.extend(short),
        }
    }
    if let Some(joined) = join(SEVERAL_ARTISTS.to_owned(), &rest, crop_samples) {
        tracks.push(joined);
        rest.clear();
    }
    (count - rest.len(), rest)
}

/// One track after the other, each at its level, if together they are at least `crop_samples` long.
fn join(artist: String, short: &[Arc<Track>], crop_samples: usize) -> Option<Arc<Track>> {
    let samples: Vec<f32> = short.iter().flat_map(|track| track.pcm.floats()).collect();
    let first = short.first()?;
    (samples.len() >= crop_samples).then(|| {
        Arc::new(Track {
            path: first.path.clone(),
            artist,
            pcm: Pcm::amplified(&samples, 1.0),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(artist: &str, name: &str, samples: &[i16], level: f32) -> Arc<Track> {
        Arc::new(Track {
            path: name.into(),
            artist: artist.to_owned(),
            pcm: Pcm {
                samples: samples.to_vec(),
                level,
            },
        })
    }

    #[test]
    fn short_files_are_joined_by_artist_and_the_rest_with_each_other() {
        let mut tracks = vec![
            track("a", "1", &[20_000; 10], 1e-5),
            track("a", "2", &[10_000; 3], 1e-5),
            track("b", "3", &[10_000; 4], 1e-5),
            track("a", "4", &[100; 5], 4e-5),
            track("c", "5", &[10_000; 4], 2e-5),
        ];
        assert_eq!(join_short(&mut tracks, 8).0, 4);
        let [long, of_a, of_others] = &*tracks else {
            panic!("expected three tracks, found {tracks:?}");
        };
        assert_eq!(long.pcm.samples, [20_000; 10]);
        assert_eq!(of_a.artist, "a");
        let expected = [&[0.1; 3][..], &[0.004; 5]].concat();
        let near = |found: &[f32], expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{found}, {expected}");
            }
        };
        near(&of_a.pcm.floats(), &expected);
        near(&of_others.pcm.floats(), &[[0.1; 4], [0.2; 4]].concat());
        assert_eq!(of_others.artist, SEVERAL_ARTISTS);
    }

    #[test]
    fn what_is_too_short_also_when_joined_is_returned() {
        let mut tracks = vec![
            track("a", "1", &[1; 8], 1.0),
            track("a", "2", &[1; 3], 1.0),
            track("b", "3", &[1; 4], 1.0),
        ];
        let (joined, rest) = join_short(&mut tracks, 8);
        let names: Vec<_> = rest
            .iter()
            .map(|track| track.path.to_str().unwrap())
            .collect();
        assert_eq!((joined, &*names), (0, ["2", "3"].as_slice()));
        assert_eq!(tracks.len(), 1);
        assert_eq!(join_short(&mut tracks, 8).0, 0);
    }
}
