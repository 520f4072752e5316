//! Pairs of clips as they are remixed: at one tempo, in beat phase, at the levels of their files.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use graft_material::audio_file;
use graft_material::loudness::loudness_gain;
use graft_train::dataset::Track;

use crate::beat::{self, BEAT_SECONDS};
use crate::margins::{FeatureExtractor, SAMPLE_RATE_HZ};
use crate::pairs::{self, Excerpt, Pair};
use crate::{parallel, stretch};

/// Length of the clips of an evaluation.
pub const CLIP_SECONDS: usize = 8;

/// Draws pairs of `tracks` as [`pairs::draw`] does, stretches their clips to the common tempo, shifts each sidechain by less
/// than a beat, so that its beats fall on those of the main input, cuts both to `clip_seconds`, and gives them the level that
/// their files have.
///
/// # Errors
///
/// Returns an error if there are too few tracks, or a file cannot be read.
pub fn pairs(
    tracks: &[Arc<Track>],
    count: usize,
    clip_seconds: usize,
    seed: u64,
) -> Result<Vec<Pair>> {
    let mut pairs = pairs::draw(tracks, SAMPLE_RATE_HZ, count, seed)?;
    let clip_samples = clip_seconds * SAMPLE_RATE_HZ as usize;
    let beat_samples = (BEAT_SECONDS * f64::from(SAMPLE_RATE_HZ)) as usize;
    let clips = pairs
        .iter_mut()
        .flat_map(|Pair { main, sidechain }| [main, sidechain]);
    stretch_all(clips.collect(), clip_samples + beat_samples)?;
    align_all(&mut pairs, clip_samples)?;
    let gains = file_gains(&pairs)?;
    for Pair { main, sidechain } in &mut pairs {
        for excerpt in [main, sidechain] {
            excerpt.amplify(excerpt.level_in_track * gains[&excerpt.path]);
        }
    }
    Ok(pairs)
}

/// Stretches excerpts to the common tempo and cuts them to `samples`.
///
/// # Errors
///
/// Returns an error if a transform fails; the error names the excerpt.
pub fn stretch_all(excerpts: Vec<&mut Excerpt>, samples: usize) -> Result<()> {
    let stretched = parallel::map(
        "Stretching clips",
        &excerpts,
        FeatureExtractor::new,
        |extractor, excerpt| {
            let mut stretched = stretch::to_common_tempo(extractor, &excerpt.clip.channels[0])
                .with_context(|| format!("cannot stretch {}", excerpt.name))?;
            stretched.truncate(samples);
            Ok(stretched)
        },
    )?;
    for (excerpt, samples) in excerpts.into_iter().zip(stretched) {
        excerpt.clip.channels[0] = samples;
    }
    Ok(())
}

/// Shifts sidechains so that their beats fall on those of the main inputs, and cuts all clips to `samples`.
fn align_all(pairs: &mut [Pair], samples: usize) -> Result<()> {
    let dropped = parallel::map(
        "Aligning beats",
        pairs,
        FeatureExtractor::new,
        |extractor, Pair { main, sidechain }| {
            let first_beat_s = |excerpt: &Excerpt| {
                beat::first_beat_s(extractor, &excerpt.clip.channels[0])
                    .with_context(|| format!("cannot find the beats of {}", excerpt.name))
            };
            Ok(beat::samples_to_drop(
                first_beat_s(sidechain)?,
                first_beat_s(main)?,
            ))
        },
    )?;
    for (Pair { main, sidechain }, dropped) in pairs.iter_mut().zip(dropped) {
        sidechain.clip.channels[0].drain(..dropped);
        for excerpt in [main, sidechain] {
            excerpt.clip.channels[0].truncate(samples);
        }
    }
    Ok(())
}

/// Factors from the normalised tracks of all excerpts to the level of their files.
fn file_gains(pairs: &[Pair]) -> Result<HashMap<PathBuf, f32>> {
    let excerpts = pairs
        .iter()
        .flat_map(|Pair { main, sidechain }| [main, sidechain]);
    let mut paths: Vec<&PathBuf> = excerpts.map(|excerpt| &excerpt.path).collect();
    paths.sort();
    paths.dedup();
    let gains = parallel::map(
        "Reading levels",
        &paths,
        || Ok(()),
        |(), path| {
            let clip = audio_file::read(path)?.clip;
            let normalising = loudness_gain(&audio_file::mono(&clip), clip.sample_rate_hz)
                .with_context(|| format!("cannot use {}", path.display()))?;
            Ok(1.0 / normalising)
        },
    )?;
    Ok(paths.into_iter().cloned().zip(gains).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::audio_cache::Pcm;
    use graft_material::audio_writer::{WavFormat, write_wav};
    use graft_material::testing::TestFolder;
    use model_runtime::AudioClip;

    #[test]
    fn clips_have_the_levels_of_their_files_and_common_beats() {
        let folder = TestFolder::new("preparation");
        // Clicks at 120 BPM in three files of different levels and phases.
        let track = |artist: &str, level: f32, first: usize| {
            let samples: Vec<f32> = (0..22 * 22_050)
                .map(|n| {
                    let since = ((n + 22_050 - first) % 11_025) as f32;
                    level * (-since / 600.0).exp() * (since * 0.2).sin()
                })
                .collect();
            let clip = AudioClip {
                sample_rate_hz: SAMPLE_RATE_HZ,
                channels: vec![samples.clone()],
            };
            let path = folder.path().join(format!("{artist}.wav"));
            write_wav(&path, &clip, WavFormat::Float32).unwrap();
            Arc::new(Track {
                path,
                artist: artist.to_owned(),
                pcm: Pcm::normalised(&samples, SAMPLE_RATE_HZ).unwrap(),
            })
        };
        let tracks = [track("loud", 0.9, 0), track("soft", 0.09, 4000)];
        let extractor = FeatureExtractor::new().unwrap();
        for Pair { main, sidechain } in pairs(&tracks, 2, 8, 1).unwrap() {
            let mut peaks = [0.0; 2];
            for (excerpt, peak) in [&main, &sidechain].into_iter().zip(&mut peaks) {
                let samples = &excerpt.clip.channels[0];
                assert_eq!(samples.len(), 8 * 22_050);
                *peak = samples.iter().fold(0f32, |peak, x| peak.max(x.abs()));
            }
            let ratio_db = 20.0 * (peaks[0] / peaks[1]).log10().abs();
            assert!((ratio_db - 20.0).abs() < 1.0, "{peaks:?}");
            let [main, sidechain] = [main, sidechain]
                .map(|excerpt| beat::first_beat_s(&extractor, &excerpt.clip.channels[0]).unwrap());
            let apart = (main - sidechain + 0.25).rem_euclid(BEAT_SECONDS) - 0.25;
            assert!(apart.abs() < 0.015, "{main} {sidechain}");
        }
    }
}
