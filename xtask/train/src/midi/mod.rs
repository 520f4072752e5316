//! MIDI files as training material, rendered with a General MIDI sound font.
//!
//! Each clip is a section of a song, arranged with other instruments, tempo and drums ([`arrange`]), and rendered at
//! several transpositions ([`render`]). Two of these differ in pitch only, while the drums, rendered once, are
//! identical. Pitch-shifting a mix cannot do that.
//!
//! A swap has the chords of one clip at the strokes and with the drums of another ([`swap`]): what a remix of the two
//! should sound like, which no recording tells.

pub mod arrange;
mod clip_cache;
mod files;
mod groove;
pub(crate) mod render;
pub mod song;
mod swap;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use crossbeam_channel::unbounded;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use arrange::{Arrangement, ClipShape, arrange};
use clip_cache::{Clip, ClipCache};
use graft_material::audio_cache::Pcm;
use graft_material::progress;
use render::Renderer;
use song::Song;

/// The same section of a piece at several transpositions, with drums that are not transposed.
///
/// All stems have the same length. The pitched stem at any transposition and the drums, each at its level, add up to
/// a mix that is as loud as other tracks.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendering {
    /// The song's file and the number of the clip.
    pub name: String,
    /// Transpositions in semitones, ascending (0 need not be among them), each with its pitched stem.
    pub pitched: Vec<(i32, Pcm)>,
    /// The drums, if any.
    pub drums: Option<Pcm>,
}

impl Rendering {
    fn new(name: String, clip: Clip) -> Self {
        Self {
            name,
            pitched: clip.pitched,
            drums: clip.drums,
        }
    }
}

/// Two clips, and the remix of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Swap {
    /// The pitched notes of `harmony`, struck when those of `rhythm` are, with the drums of `rhythm`; at the
    /// transpositions of `harmony`.
    pub remix: Rendering,
    /// The clip with the chords.
    pub harmony: Arc<Rendering>,
    /// The clip with the strokes.
    pub rhythm: Arc<Rendering>,
}

/// Everything rendered from MIDI files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Renderings {
    /// The clips.
    pub clips: Vec<Arc<Rendering>>,
    /// Swaps of these clips.
    pub swaps: Vec<Swap>,
}

/// Settings for rendering MIDI files.
#[derive(Debug, Clone, PartialEq)]
pub struct MidiSettings {
    /// Number of clips.
    pub clips: usize,
    /// Length of a clip, in seconds.
    pub seconds: f64,
    /// Number of different transpositions per clip.
    pub transpositions: usize,
    /// Largest transposition in semitones, up or down.
    pub max_shift_semitones: u32,
    /// Whether each clip is also rendered as the harmony of a swap.
    pub swaps: bool,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl MidiSettings {
    fn ensure_valid(&self) -> Result<()> {
        ensure!(
            self.seconds.is_finite() && self.seconds > 0.0,
            "midi.seconds must be above 0, found {}",
            self.seconds
        );
        ensure!(
            self.max_shift_semitones <= 24,
            "MIDI transpositions must be at most 24 semitones, found {}",
            self.max_shift_semitones
        );
        let most = 2 * self.max_shift_semitones as usize + 1;
        ensure!(
            (1..=most).contains(&self.transpositions),
            "midi.transpositions must be between 1 and {most} within {} semitones, found {}",
            self.max_shift_semitones,
            self.transpositions
        );
        Ok(())
    }
}

/// Renders clips of the MIDI files below `folders` and in their `.tar.gz` archives, or reads them from the cache in
/// `cache_folder`. Returns nothing if there are no such files.
///
/// Sources (archives, and folders directly below one of `folders`) are drawn uniformly, then their songs. Unusable
/// files are reported on the terminal and skipped. The clips depend only on the files and the settings, and fewer
/// clips are a prefix of more clips. The rhythm of a clip's swap comes from any other clip.
///
/// # Errors
///
/// Returns an error if a setting is out of range, there are MIDI files but none that can be used, the system has no
/// sound font, or a file cannot be read or written.
pub fn load(
    folders: &[PathBuf],
    settings: &MidiSettings,
    cache_folder: &Path,
    sample_rate_hz: u32,
) -> Result<Renderings> {
    settings.ensure_valid()?;
    let sources = files::find(folders)?;
    if sources.is_empty() {
        return Ok(Renderings::default());
    }
    let sound_font = render::find_sound_font()?;
    let workshop = Workshop {
        seconds: settings.seconds,
        sample_rate_hz,
        sound_font: &sound_font,
    };
    workshop.renderings(plan(sources, settings)?, settings, cache_folder)
}

/// A clip of a song whose chords are known.
#[derive(Debug, Clone, PartialEq)]
pub struct AnnotatedClip {
    /// The song's file and the number of the clip.
    pub name: String,
    /// The mix at the song's own pitch, mono.
    pub samples: Vec<f32>,
    /// The messages of the clip.
    pub arrangement: Arrangement,
    /// Lines of start, end and chord, in the time of the song.
    pub chords: String,
}

/// Like [`load`], but only for songs with chord annotations, and only at the first transposition.
///
/// # Errors
///
/// As [`load`].
pub fn load_annotated(
    folders: &[PathBuf],
    settings: &MidiSettings,
    cache_folder: &Path,
    sample_rate_hz: u32,
) -> Result<Vec<AnnotatedClip>> {
    settings.ensure_valid()?;
    let mut sources = files::find(folders)?;
    for files in &mut sources {
        files.retain(|file| file.chords.is_some());
    }
    sources.retain(|files| !files.is_empty());
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let clips = clips(sources, settings, cache_folder, sample_rate_hz)?.into_iter();
    let annotated = clips.filter_map(|(plan, clip)| {
        let mut samples = clip.pitched.first()?.1.floats();
        if let Some(drums) = &clip.drums {
            let drums = drums.floats();
            samples
                .iter_mut()
                .zip(drums)
                .for_each(|(sample, drum)| *sample += drum);
        }
        Some(AnnotatedClip {
            name: plan.name,
            samples,
            arrangement: plan.arrangement,
            chords: plan.chords?,
        })
    });
    Ok(annotated.collect())
}

/// Renders arrangements at their first transposition, without drums, or reads them from the cache. Nothing is returned for silent
/// ones, which are reported on the terminal by their names.
///
/// # Errors
///
/// Returns an error if the system has no sound font, or a file cannot be read or written.
pub fn render_all(
    arrangements: Vec<(String, Arrangement)>,
    seconds: f64,
    cache_folder: &Path,
    sample_rate_hz: u32,
) -> Result<Vec<Option<Pcm>>> {
    let sound_font = render::find_sound_font()?;
    let workshop = Workshop {
        seconds,
        sample_rate_hz,
        sound_font: &sound_font,
    };
    let plans = arrangements.into_iter().map(|(name, arrangement)| Plan {
        name,
        arrangement,
        chords: None,
    });
    let clips = workshop.rendered(&plans.collect::<Vec<_>>(), cache_folder)?;
    let pitched = clips
        .into_iter()
        .map(|clip| Some(clip?.pitched.remove(0).1));
    Ok(pitched.collect())
}

/// Plans clips and renders them, or reads them from the cache.
fn clips(
    sources: Vec<Vec<files::MidiFile>>,
    settings: &MidiSettings,
    cache_folder: &Path,
    sample_rate_hz: u32,
) -> Result<Vec<(Plan, Clip)>> {
    let plans = plan(sources, settings)?;
    let sound_font = render::find_sound_font()?;
    let workshop = Workshop {
        seconds: settings.seconds,
        sample_rate_hz,
        sound_font: &sound_font,
    };
    workshop.clips(plans, cache_folder)
}

/// A clip to render.
struct Plan {
    name: String,
    arrangement: Arrangement,
    chords: Option<String>,
}

/// A song that clips can be taken from.
struct UsableSong {
    name: String,
    song: Song,
    chords: Option<String>,
}

/// Draws the clips.
fn plan(sources: Vec<Vec<files::MidiFile>>, settings: &MidiSettings) -> Result<Vec<Plan>> {
    let mut skipped = 0;
    let mut usable: Vec<Vec<UsableSong>> = Vec::new();
    for files in sources {
        let mut songs = Vec::new();
        for file in files {
            let song = Song::parse(&file.bytes)
                .and_then(|song| song.ensure_long_enough(settings.seconds).map(|()| song));
            match song {
                Ok(song) => songs.push(UsableSong {
                    name: file.name,
                    song,
                    chords: file.chords,
                }),
                Err(error) => {
                    skipped += 1;
                    eprintln!("skipped: {}: {error:#}", file.name);
                }
            }
        }
        // Shuffle, so that a small number of clips does not use the first songs only.
        songs.shuffle(&mut StdRng::seed_from_u64(settings.seed));
        if !songs.is_empty() {
            usable.push(songs);
        }
    }
    let songs: usize = usable.iter().map(Vec::len).sum();
    if skipped > 0 {
        eprintln!("skipped {skipped} MIDI files, using {songs}");
    }
    ensure!(songs > 0, "no usable MIDI files found");

    let shape = ClipShape {
        seconds: settings.seconds,
        transpositions: settings.transpositions,
        max_shift_semitones: settings.max_shift_semitones,
    };
    (0..settings.clips)
        .map(|index| {
            let songs = &usable[index % usable.len()];
            let UsableSong { name, song, chords } = &songs[index / usable.len() % songs.len()];
            let arrangement = arrange(song, shape, &mut random(settings.seed, index))
                .with_context(|| format!("cannot use {name}"))?;
            let name = format!("{name}, clip {index}");
            Ok(Plan {
                name,
                arrangement,
                chords: chords.clone(),
            })
        })
        .collect()
}

/// Random numbers for the clip with this index.
fn random(seed: u64, index: usize) -> StdRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&(index as u64).to_le_bytes());
    StdRng::from_seed(bytes)
}

/// Renderer and cache for all clips.
struct Workshop<'a> {
    seconds: f64,
    sample_rate_hz: u32,
    sound_font: &'a Path,
}

impl Workshop<'_> {
    /// Renders `plans` and, if the settings ask for them, swaps of them.
    fn renderings(
        &self,
        plans: Vec<Plan>,
        settings: &MidiSettings,
        cache_folder: &Path,
    ) -> Result<Renderings> {
        let clips = self.clips(plans, cache_folder)?.into_iter();
        let clips: Vec<(Arrangement, Arc<Rendering>)> = clips
            .map(|(plan, clip)| (plan.arrangement, Arc::new(Rendering::new(plan.name, clip))))
            .collect();
        let swaps = match settings.swaps {
            true => self.swaps(&clips, settings.seed, cache_folder)?,
            false => Vec::new(),
        };
        Ok(Renderings {
            clips: clips.into_iter().map(|(_, clip)| clip).collect(),
            swaps,
        })
    }

    /// Renders `plans`, in order. Silent clips are dropped.
    fn clips(&self, plans: Vec<Plan>, cache_folder: &Path) -> Result<Vec<(Plan, Clip)>> {
        let clips = self.rendered(&plans, cache_folder)?;
        let clips = plans.into_iter().zip(clips);
        Ok(clips
            .filter_map(|(plan, clip)| Some((plan, clip?)))
            .collect())
    }

    /// Renders the swap of each of `clips` with another one.
    fn swaps(
        &self,
        clips: &[(Arrangement, Arc<Rendering>)],
        seed: u64,
        cache_folder: &Path,
    ) -> Result<Vec<Swap>> {
        if clips.len() < 2 {
            return Ok(Vec::new());
        }
        let mut partners = Vec::new();
        let mut plans = Vec::new();
        for (index, (harmony, clip)) in clips.iter().enumerate() {
            let other = random(!seed, index).random_range(1..clips.len());
            let (rhythm, partner) = &clips[(index + other) % clips.len()];
            plans.push(Plan {
                name: format!("{} at the strokes of {}", clip.name, partner.name),
                arrangement: swap::swap(harmony, rhythm),
                chords: None,
            });
            partners.push((clip, partner));
        }
        let remixes = self.rendered(&plans, cache_folder)?;
        let swaps = plans.into_iter().zip(remixes).zip(partners);
        let swaps = swaps.filter_map(|((plan, remix), (harmony, rhythm))| {
            Some(Swap {
                remix: Rendering::new(plan.name, remix?),
                harmony: Arc::clone(harmony),
                rhythm: Arc::clone(rhythm),
            })
        });
        Ok(swaps.collect())
    }

    /// Renders `plans`, in order, or reads them from the cache. Nothing is returned for silent clips.
    fn rendered(&self, plans: &[Plan], cache_folder: &Path) -> Result<Vec<Option<Clip>>> {
        let identity = render::sound_font_identity(self.sound_font)?;
        let cache = ClipCache::new(cache_folder, &identity, self.seconds, self.sample_rate_hz)?;
        let mut clips: Vec<Option<Clip>> = plans
            .iter()
            .map(|plan| cache.load(&plan.arrangement))
            .collect();
        let missing: Vec<usize> = (0..plans.len())
            .filter(|&index| clips[index].is_none())
            .collect();
        println!(
            "MIDI: {} clips of {} s, rendering {}",
            plans.len(),
            self.seconds,
            missing.len()
        );
        self.render_missing(plans, &missing, &cache, &mut clips)?;
        Ok(clips)
    }

    /// Renders with one thread per CPU core. The sound font is loaded once.
    fn render_missing(
        &self,
        plans: &[Plan],
        missing: &[usize],
        cache: &ClipCache,
        clips: &mut [Option<Clip>],
    ) -> Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let renderer = Renderer::new(self.sound_font, self.seconds, self.sample_rate_hz)?;
        let bar = progress::bar("Rendering MIDI", missing.len() as u64);
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (sender, rendered) = unbounded();
            for _ in 0..threads.min(missing.len()) {
                let (sender, next, renderer) = (sender.clone(), &next, &renderer);
                scope.spawn(move || {
                    while let Some(&index) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let clip = renderer.clip(&plans[index].arrangement);
                        if sender.send((index, clip)).is_err() {
                            // Another thread failed, and the receiver is gone.
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for (index, clip) in rendered {
                let plan = &plans[index];
                match clip {
                    Ok(clip) => {
                        cache.store(&plan.arrangement, &clip)?;
                        clips[index] = Some(clip);
                    }
                    Err(error) => {
                        bar.suspend(|| eprintln!("skipped: {}: {error:#}", plan.name));
                    }
                }
                bar.inc(1);
            }
            bar.finish_and_clear();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tiny_sound_font;
