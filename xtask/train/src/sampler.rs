//! Batches of crops for training.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use graft_material::audio_cache::Pcm;
use model_runtime::{Factor, FactorMap};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use vocoder::{AnalysisWindow, MelConfig};

use crate::batches::{MakeBatch, random};
use crate::dataset::Track;
use crate::equaliser::Equaliser;
use crate::midi::{Rendering, Renderings, Swap};
use crate::shifted_mel::{Layer, ShiftedMel};

/// Sampling and augmentation of crops.
#[derive(Debug, Clone, PartialEq)]
pub struct CropSettings {
    /// Crops in a batch.
    pub batch: usize,
    /// Length of a crop in mel frames.
    pub frames: usize,
    /// Pitch shifts are drawn uniformly from `-max_shift..=max_shift` semitones.
    pub max_shift: u32,
    /// Largest random change of a crop's level, up or down, in nepers.
    pub gain_nepers: f32,
    /// Share of the crops that are not shifted.
    pub unshifted_share: f64,
    /// Whether the rhythm view gets its own shift or that of the harmony view.
    pub two_views: bool,
    /// Largest random detuning of a crop, up or down, in cents; the same for all its views.
    pub tuning_cents: f64,
    /// Limit of the random equaliser, in dB; see [`Equaliser::draw`].
    pub equaliser_db: f32,
    /// Share of the crops with an added drum loop, which is never shifted. The harmony view gets a different loop or
    /// none, so that the network cannot take the drums from it.
    pub drums_share: f64,
    /// Share of the crops that come from renderings of MIDI files.
    pub midi_share: f64,
    /// Share of the crops that are swaps of such renderings.
    pub swaps_share: f64,
    /// Share of the crops whose views are analysed with the low-delay window. The target never is.
    pub live_share: f64,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl CropSettings {
    fn check(&self) -> Result<()> {
        CropLimits {
            batch: self.batch,
            frames: self.frames,
            max_shift: self.max_shift,
            gain_nepers: self.gain_nepers,
            equaliser_db: self.equaliser_db,
        }
        .check()?;
        check_shares(&[
            ("unshifted_share", self.unshifted_share),
            ("drums_share", self.drums_share),
            ("analysis.live_share", self.live_share),
        ])?;
        let Self {
            midi_share,
            swaps_share,
            ..
        } = *self;
        ensure!(
            midi_share >= 0.0 && swaps_share >= 0.0 && midi_share + swaps_share <= 1.0,
            "midi.share and midi.swaps_share must be at least 0 and at most 1 in sum, found {midi_share} and {swaps_share}"
        );
        ensure!(
            (0.0..=100.0).contains(&self.tuning_cents),
            "tuning_cents must be between 0 and 100, found {}",
            self.tuning_cents
        );
        Ok(())
    }
}

/// What all settings of crops have in common, to be checked.
pub(crate) struct CropLimits {
    pub(crate) batch: usize,
    pub(crate) frames: usize,
    pub(crate) max_shift: u32,
    pub(crate) gain_nepers: f32,
    pub(crate) equaliser_db: f32,
}

impl CropLimits {
    pub(crate) fn check(&self) -> Result<()> {
        let Self {
            batch,
            frames,
            max_shift,
            gain_nepers,
            equaliser_db,
        } = *self;
        ensure!(
            batch > 0 && frames > 0,
            "batch and frames must be at least 1, found {batch} and {frames}"
        );
        ensure!(
            max_shift <= 24,
            "max_shift_semitones must be at most 24, found {max_shift}"
        );
        ensure!(
            gain_nepers >= 0.0 && gain_nepers.is_finite(),
            "gain_nepers must be at least 0, found {gain_nepers}"
        );
        ensure!(
            (0.0..=40.0).contains(&equaliser_db),
            "equaliser_db must be between 0 and 40, found {equaliser_db}"
        );
        Ok(())
    }
}

/// Rejects shares that are none, and names the first.
pub(crate) fn check_shares(shares: &[(&str, f64)]) -> Result<()> {
    for (name, share) in shares {
        ensure!(
            (0.0..=1.0).contains(share),
            "{name} must be between 0 and 1, found {share}"
        );
    }
    Ok(())
}

/// Training data that crops are drawn from.
#[derive(Debug, Clone, Default)]
pub struct Material {
    /// Music.
    pub tracks: Vec<Arc<Track>>,
    /// Clips of MIDI files, and swaps of them.
    pub midi: Renderings,
    /// Drum loops to mix into the music.
    pub drums: Vec<Pcm>,
}

/// Training data for one step. Log-mels are `(size, n_mels, frames)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The target crops, unshifted.
    pub target: Vec<f32>,
    /// Input of each factor's encoder.
    pub views: FactorMap<View>,
    /// Crops in the batch.
    pub size: usize,
    /// Frames of a crop.
    pub frames: usize,
}

/// The crops of a batch as input of one factor's encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Log-mels in the layout of the target.
    pub mels: Vec<f32>,
    /// Pitch shift of each crop relative to the target, in semitones.
    pub shift_semitones: Vec<i32>,
}

impl Batch {
    /// A batch of `size` crops of `crop_values` zeros, without shifts yet.
    fn silent(size: usize, frames: usize, crop_values: usize) -> Self {
        let view = |factor| {
            let view = View {
                mels: vec![0.0; size * crop_values],
                shift_semitones: Vec::with_capacity(size),
            };
            (factor, view)
        };
        Self {
            target: vec![0.0; size * crop_values],
            views: [Factor::Harmony, Factor::Rhythm]
                .map(view)
                .into_iter()
                .collect(),
            size,
            frames,
        }
    }
}

/// Makes batches. A batch depends only on the settings, the tracks and its index, so a resumed run gets the same
/// batches as an uninterrupted one.
#[derive(Clone)]
pub struct CropSampler {
    settings: CropSettings,
    hop_length: usize,
    n_mels: usize,
    library: Arc<Library>,
    analysis: ShiftedMel,
}

/// The material that is long enough for crops.
struct Library {
    tracks_by_artist: Vec<Vec<Arc<Track>>>,
    /// Renderings with at least two transpositions, long enough for a crop.
    renderings: Vec<Arc<Rendering>>,
    /// Swaps of such renderings.
    swaps: Vec<Swap>,
    /// Drum loops, repeated to be long enough for a crop.
    drums: Vec<Pcm>,
}

/// Loudness of added drums relative to the music, in dB.
const DRUMS_DB: std::ops::RangeInclusive<f32> = -10.0..=2.0;
/// Share of the crops with drums whose harmony view also has drums.
const OTHER_DRUMS_SHARE: f64 = 0.5;

impl CropSampler {
    /// Creates a sampler. The material must have the sample rate of `mel`. Artists are drawn uniformly, then one of
    /// their tracks, then a position in it. Tracks shorter than a crop are skipped; drum loops are repeated.
    ///
    /// # Errors
    ///
    /// Returns an error if no track is long enough for a crop, or a setting is out of range.
    pub fn new(material: &Material, mel: &MelConfig, settings: CropSettings) -> Result<Self> {
        settings.check()?;
        let crop_samples = settings.frames * mel.hop_length;
        Ok(Self {
            library: Arc::new(Library::new(material, &settings, crop_samples)?),
            analysis: ShiftedMel::new(mel)?,
            hop_length: mel.hop_length,
            n_mels: mel.n_mels,
            settings,
        })
    }
}

impl MakeBatch for CropSampler {
    type Batch = Batch;

    /// The batch with this index.
    ///
    /// # Errors
    ///
    /// Returns an error if a Fourier transform fails.
    fn batch(&mut self, index: u64) -> Result<Batch> {
        let CropSettings {
            batch: size,
            frames,
            max_shift,
            gain_nepers,
            ..
        } = self.settings;
        let crop_values = self.n_mels * frames;
        let mut batch = Batch::silent(size, frames, crop_values);
        let mut random = random(self.settings.seed, index);
        let max_shift = max_shift as i32;
        for crop in 0..size {
            let source = self.library.draw_source(&self.settings, &mut random)?;
            let crop_samples = frames * self.hop_length;
            let start_samples = random.random_range(0..=source.samples() - crop_samples);
            let gain = random.random_range(-gain_nepers..=gain_nepers).exp();
            let mut sounds = source.draw_views(max_shift, &mut random);
            let unshifted = random.random_bool(self.settings.unshifted_share);
            if source.has_one_sound() {
                if !self.settings.two_views {
                    sounds.rhythm = sounds.harmony;
                }
                if unshifted {
                    (sounds.harmony, sounds.rhythm) = (sounds.target, sounds.target);
                }
            }

            let tuning = match self.settings.tuning_cents {
                0.0 => 0.0,
                cents => random.random_range(-cents..=cents) / 100.0,
            };
            let equaliser = (self.settings.equaliser_db > 0.0)
                .then(|| Equaliser::draw(self.settings.equaliser_db, &mut random));
            let [drums, other_drums] = match random.random_bool(self.settings.drums_share) {
                true => self.library.draw_drums(crop_samples, gain, &mut random),
                false => [None, None],
            };

            // As with MIDI, draw no random number without live crops.
            let live_share = self.settings.live_share;
            let window = match live_share > 0.0 && random.random_bool(live_share) {
                true => AnalysisWindow::LowDelay,
                false => AnalysisWindow::Symmetric,
            };

            let values = crop * crop_values..(crop + 1) * crop_values;
            let target = &mut batch.target;
            let mut outputs = vec![(sounds.target, AnalysisWindow::Symmetric, drums, target)];
            for (factor, view) in batch.views.iter_mut() {
                // The harmony has a view of its own, all other factors share one.
                let (sound, drums) = match factor == Factor::Harmony {
                    true => (sounds.harmony, other_drums),
                    false => (sounds.rhythm, drums),
                };
                let shift_semitones = sound.semitones - sounds.target.semitones;
                view.shift_semitones.push(shift_semitones);
                outputs.push((sound, window, drums, &mut view.mels));
            }
            for (view, window, drums, out) in outputs {
                let own = Layer {
                    pcm: view.pcm,
                    start_samples,
                    semitones: f64::from(view.analysed_semitones) + tuning,
                    gain,
                    equaliser: equaliser.as_ref(),
                };
                let still = view.drums.map(|pcm| Layer {
                    pcm,
                    semitones: tuning,
                    ..own
                });
                let layers: Vec<Layer> = [own].into_iter().chain(still).chain(drums).collect();
                let out = &mut out[values.clone()];
                self.analysis.log_mel_with(window, &layers, out)?;
            }
        }
        Ok(batch)
    }
}

impl Library {
    /// Selects the material that is long enough for crops and repeats drum loops.
    fn new(material: &Material, settings: &CropSettings, crop_samples: usize) -> Result<Self> {
        ensure!(
            settings.drums_share == 0.0 || !material.drums.is_empty(),
            "drums_share needs drum loops (--drums), found none"
        );
        let tracks_by_artist = by_artist(&material.tracks, crop_samples)?;
        let is_usable = |rendering: &Rendering| match rendering.pitched.as_slice() {
            [(_, first), _, ..] => first.samples.len() >= crop_samples,
            _ => false,
        };
        let renderings = material.midi.clips.iter();
        let renderings: Vec<_> = renderings.filter(|clip| is_usable(clip)).cloned().collect();
        ensure!(
            settings.midi_share == 0.0 || !renderings.is_empty(),
            "the MIDI share needs MIDI files with two transpositions of at least {crop_samples} samples, found none"
        );
        let swaps = material.midi.swaps.iter();
        let swaps: Vec<_> = swaps
            .filter(|swap| is_usable(&swap.remix))
            .cloned()
            .collect();
        ensure!(
            settings.swaps_share == 0.0 || !swaps.is_empty(),
            "the share of swaps needs two MIDI clips with two transpositions of at least {crop_samples} samples, found none"
        );
        let long_enough = |pcm: &Pcm| Pcm {
            samples: pcm
                .samples
                .iter()
                .copied()
                .cycle()
                .take(pcm.samples.len().max(crop_samples + pcm.samples.len()))
                .collect(),
            level: pcm.level,
        };
        Ok(Self {
            tracks_by_artist,
            renderings,
            swaps,
            drums: material.drums.iter().map(long_enough).collect(),
        })
    }

    fn draw_source(&self, settings: &CropSettings, random: &mut StdRng) -> Result<Source<'_>> {
        let CropSettings {
            midi_share,
            swaps_share,
            ..
        } = *settings;
        // Draw no random number without MIDI or swaps, so that the crops of recipes without them stay the same.
        if midi_share > 0.0 && random.random_bool(midi_share) {
            let rendering = self.renderings.choose(random);
            return Ok(Source::Rendering(
                rendering.context("there are renderings")?,
            ));
        }
        // Of the crops that are left.
        if swaps_share > 0.0 && random.random_bool((swaps_share / (1.0 - midi_share)).min(1.0)) {
            let swap = self.swaps.choose(random);
            return Ok(Source::Swap(swap.context("there are swaps")?));
        }
        Ok(Source::Track(draw_track(&self.tracks_by_artist, random)?))
    }

    /// Draws drums for the target and for the harmony view, for music with this gain.
    fn draw_drums(
        &self,
        crop_samples: usize,
        music_gain: f32,
        random: &mut StdRng,
    ) -> [Option<Layer<'_>>; 2] {
        let gain = music_gain * 10f32.powf(random.random_range(DRUMS_DB) / 20.0);
        let own = draw_loop(&self.drums, crop_samples, gain, random);
        let other = match random.random_bool(OTHER_DRUMS_SHARE) {
            true => draw_loop(&self.drums, crop_samples, gain, random),
            false => None,
        };
        [own, other]
    }
}

/// Groups tracks by artist; skips tracks shorter than `least_samples`.
///
/// # Errors
///
/// Returns an error if no track is left.
pub fn by_artist(tracks: &[Arc<Track>], least_samples: usize) -> Result<Vec<Vec<Arc<Track>>>> {
    let mut by_artist: BTreeMap<&str, Vec<Arc<Track>>> = BTreeMap::new();
    for track in tracks {
        if track.pcm.samples.len() >= least_samples {
            let of_artist = by_artist.entry(&track.artist).or_default();
            of_artist.push(Arc::clone(track));
        }
    }
    ensure!(
        !by_artist.is_empty(),
        "no track has at least {least_samples} samples, among {}",
        tracks.len()
    );
    Ok(by_artist.into_values().collect())
}

/// Draws a track: artists are drawn uniformly, then one of their tracks.
///
/// # Errors
///
/// Returns an error if no track is left.
pub fn draw_track<'a, T>(by_artist: &'a [Vec<T>], random: &mut StdRng) -> Result<&'a T> {
    let artist = by_artist.choose(random);
    let track = artist.and_then(|tracks| tracks.choose(random));
    track.context("every artist has a track")
}

/// Source of a crop.
enum Source<'a> {
    Track(&'a Track),
    Rendering(&'a Rendering),
    Swap(&'a Swap),
}

/// What target, harmony view and rhythm view are made of.
struct Views<'a> {
    target: Sound<'a>,
    harmony: Sound<'a>,
    rhythm: Sound<'a>,
}

/// A sound and its pitch.
#[derive(Clone, Copy)]
struct Sound<'a> {
    pcm: &'a Pcm,
    /// Transposition relative to the source.
    semitones: i32,
    /// Part of the transposition that the analysis applies.
    analysed_semitones: i32,
    /// Drums, which are not transposed.
    drums: Option<&'a Pcm>,
}

impl<'a> Sound<'a> {
    /// A rendering at one of its transpositions.
    fn of(rendering: &'a Rendering, (semitones, pcm): &'a (i32, Pcm)) -> Self {
        Self {
            pcm,
            semitones: *semitones,
            analysed_semitones: 0,
            drums: rendering.drums.as_ref(),
        }
    }

    /// Draws one of the transpositions of a rendering.
    fn draw(rendering: &'a Rendering, random: &mut StdRng) -> Self {
        let transposed = rendering.pitched.choose(random);
        Self::of(
            rendering,
            transposed.expect("renderings have transpositions"),
        )
    }

    /// Draws one of the transpositions that differ from `semitones` by at most `max_shift`.
    fn draw_near(
        rendering: &'a Rendering,
        semitones: i32,
        max_shift: i32,
        random: &mut StdRng,
    ) -> Option<Self> {
        let near = rendering.pitched.iter();
        let near = near.filter(|(other, _)| (other - semitones).abs() <= max_shift);
        let near: Vec<_> = near.collect();
        Some(Self::of(rendering, near.choose(random)?))
    }
}

impl<'a> Source<'a> {
    fn samples(&self) -> usize {
        match self {
            Self::Track(track) => track.pcm.samples.len(),
            Self::Rendering(rendering) => rendering.pitched[0].1.samples.len(),
            Self::Swap(swap) => swap.remix.pitched[0].1.samples.len(),
        }
    }

    /// Whether target and views are the same music, so that they may also be the same sound.
    fn has_one_sound(&self) -> bool {
        !matches!(self, Self::Swap(_))
    }

    /// Views whose pitch differs from the target's by at most `max_shift`.
    fn draw_views(&self, max_shift: i32, random: &mut StdRng) -> Views<'a> {
        match *self {
            Self::Track(track) => {
                let shifted = |semitones| Sound {
                    pcm: &track.pcm,
                    semitones,
                    analysed_semitones: semitones,
                    drums: None,
                };
                let mut draw = || shifted(random.random_range(-max_shift..=max_shift));
                Views {
                    harmony: draw(),
                    rhythm: draw(),
                    target: shifted(0),
                }
            }
            Self::Rendering(rendering) => {
                let target = Sound::draw(rendering, random);
                let mut draw = || {
                    Sound::draw_near(rendering, target.semitones, max_shift, random)
                        .expect("the target is near itself")
                };
                Views {
                    harmony: draw(),
                    rhythm: draw(),
                    target,
                }
            }
            Self::Swap(Swap {
                remix,
                harmony,
                rhythm,
            }) => {
                let target = Sound::draw(remix, random);
                Views {
                    harmony: Sound::draw_near(harmony, target.semitones, max_shift, random)
                        .expect("a remix has the transpositions of its harmony"),
                    // Its chords are others, so it has no pitch relative to the target.
                    rhythm: Sound {
                        semitones: target.semitones,
                        ..Sound::draw(rhythm, random)
                    },
                    target,
                }
            }
        }
    }
}

/// Draws a section of one of the drum loops.
fn draw_loop<'a>(
    drums: &'a [Pcm],
    crop_samples: usize,
    gain: f32,
    random: &mut StdRng,
) -> Option<Layer<'a>> {
    let pcm = drums.choose(random)?;
    Some(Layer {
        pcm,
        start_samples: random.random_range(0..=pcm.samples.len() - crop_samples),
        semitones: 0.0,
        gain,
        equaliser: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    fn settings() -> CropSettings {
        CropSettings {
            batch: 4,
            frames: 16,
            max_shift: 7,
            gain_nepers: 0.7,
            unshifted_share: 0.1,
            two_views: true,
            tuning_cents: 0.0,
            equaliser_db: 0.0,
            drums_share: 0.0,
            midi_share: 0.0,
            swaps_share: 0.0,
            live_share: 0.0,
            seed: 3,
        }
    }

    /// A sine for each artist; the last one is too short for a crop.
    fn tracks() -> Vec<Arc<Track>> {
        [(200.0, 20_000), (500.0, 30_000), (900.0, 2_000)]
            .into_iter()
            .map(|(hz, samples)| {
                let step = std::f32::consts::TAU * hz / 22_050.0;
                let samples: Vec<f32> = (0..samples).map(|n| (step * n as f32).sin()).collect();
                Arc::new(Track {
                    path: "sine".into(),
                    artist: hz.to_string(),
                    pcm: Pcm::normalised(&samples, 22_050).unwrap(),
                })
            })
            .collect()
    }

    fn material() -> Material {
        Material {
            tracks: tracks(),
            ..Material::default()
        }
    }

    fn sampler(settings: CropSettings) -> CropSampler {
        CropSampler::new(&material(), &MelConfig::default(), settings).unwrap()
    }

    /// The band with the most energy in each crop.
    fn loudest_bands(values: &[f32], frames: usize) -> Vec<usize> {
        loudest_bands_among(values, 0..128, frames)
    }

    /// The one of these bands with the most energy in each crop.
    fn loudest_bands_among(values: &[f32], bands: Range<usize>, frames: usize) -> Vec<usize> {
        let of_crop = |crop: &[f32]| {
            let row = |band: usize| crop[band * frames..(band + 1) * frames].iter().sum::<f32>();
            bands
                .clone()
                .max_by(|&a, &b| row(a).total_cmp(&row(b)))
                .unwrap()
        };
        values.chunks(128 * frames).map(of_crop).collect()
    }

    #[test]
    fn a_batch_depends_on_seed_and_index_alone() {
        let mut first = sampler(settings());
        let batches: Vec<Batch> = (0..3).map(|index| first.batch(index).unwrap()).collect();
        assert_ne!(batches[0], batches[1]);
        assert_eq!(sampler(settings()).batch(2).unwrap(), batches[2]);
        assert_ne!(
            sampler(CropSettings {
                seed: 4,
                ..settings()
            })
            .batch(2)
            .unwrap(),
            batches[2]
        );

        for threads in 1..=3 {
            let mut stream = sampler(settings()).stream_from(0, threads);
            for batch in &batches {
                assert_eq!(stream.next_batch().unwrap(), *batch);
            }
        }
    }

    #[test]
    fn views_hold_the_target_moved_by_their_shifts() {
        let mut sampler = sampler(CropSettings {
            batch: 32,
            ..settings()
        });
        let batch = sampler.batch(0).unwrap();
        let values = 32 * 128 * 16;
        assert_eq!((batch.size, batch.frames), (32, 16));
        assert_eq!(batch.target.len(), values);
        assert_eq!(batch.views[Factor::Harmony].mels.len(), values);
        assert_eq!(batch.views[Factor::Rhythm].mels.len(), values);
        assert_ne!(
            batch.views[Factor::Harmony].shift_semitones,
            batch.views[Factor::Rhythm].shift_semitones
        );
        let target = loudest_bands(&batch.target, 16);
        for (view, shifts) in [
            (
                &batch.views[Factor::Harmony].mels,
                &batch.views[Factor::Harmony].shift_semitones,
            ),
            (
                &batch.views[Factor::Rhythm].mels,
                &batch.views[Factor::Rhythm].shift_semitones,
            ),
        ] {
            assert_eq!(shifts.len(), 32);
            let found = loudest_bands(view, 16);
            for ((target, found), shift) in target.iter().zip(found).zip(shifts) {
                assert!((-7..=7).contains(shift));
                // Below 1 kHz bands are evenly spaced, so a shift multiplies their number.
                let ratio = (*shift as f32 / 12.0).exp2();
                let expected = (*target as f32 + 1.0) * ratio - 1.0;
                let off = (found as f32 - expected).abs();
                assert!(off <= 1.5, "{shift}: band {found} from {target}");
            }
        }
    }

    #[test]
    fn unshifted_crops_are_the_target_itself() {
        let mut sampler = sampler(CropSettings {
            unshifted_share: 1.0,
            ..settings()
        });
        let batch = sampler.batch(0).unwrap();
        assert_eq!(batch.views[Factor::Harmony].shift_semitones, [0; 4]);
        assert_eq!(batch.views[Factor::Harmony].mels, batch.target);
        assert_eq!(batch.views[Factor::Rhythm].mels, batch.target);
    }

    #[test]
    fn with_one_view_both_branches_see_the_same() {
        let mut sampler = sampler(CropSettings {
            two_views: false,
            ..settings()
        });
        let batch = sampler.batch(0).unwrap();
        assert_eq!(
            batch.views[Factor::Harmony].shift_semitones,
            batch.views[Factor::Rhythm].shift_semitones
        );
        assert_eq!(
            batch.views[Factor::Harmony].mels,
            batch.views[Factor::Rhythm].mels
        );
        assert_ne!(batch.views[Factor::Harmony].mels, batch.target);
    }

    #[test]
    fn live_crops_hear_the_sound_of_their_target_through_the_low_delay_window() {
        let batch = |live_share: f64, unshifted_share: f64, index: u64| {
            let settings = CropSettings {
                batch: 1,
                live_share,
                unshifted_share,
                ..settings()
            };
            sampler(settings).batch(index).unwrap()
        };
        let [live, plain] = [1.0, 0.0].map(|share| batch(share, 0.0, 0));
        assert_eq!(live.target, plain.target);
        for factor in [Factor::Harmony, Factor::Rhythm] {
            let (live, plain) = (&live.views[factor], &plain.views[factor]);
            assert_eq!(live.shift_semitones, plain.shift_semitones);
            assert_ne!(live.mels, plain.mels);
            // Sines sound the same through both windows, and stay where they are.
            let peaks = [&live.mels, &plain.mels].map(|mels| loudest_bands(mels, 16)[0]);
            assert_eq!(peaks[0], peaks[1]);
            let at_peak = peaks[0] * 16..(peaks[0] + 1) * 16;
            for (a, b) in live.mels[at_peak.clone()].iter().zip(&plain.mels[at_peak]) {
                assert!((a - b).abs() < 0.1, "{a} {b}");
            }
        }

        let is_live = |index| {
            let unshifted = batch(0.5, 1.0, index);
            let [harmony, rhythm] = [Factor::Harmony, Factor::Rhythm]
                .map(|factor| unshifted.views[factor].mels != unshifted.target);
            assert_eq!(harmony, rhythm);
            harmony
        };
        let live = (0..32).filter(|&index| is_live(index)).count();
        assert!((6..=26).contains(&live), "{live} of 32 crops are live");
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for wrong in [
            CropSettings {
                batch: 0,
                ..settings()
            },
            CropSettings {
                frames: 100,
                ..settings()
            },
            CropSettings {
                unshifted_share: 1.5,
                ..settings()
            },
            CropSettings {
                live_share: -0.1,
                ..settings()
            },
            CropSettings {
                gain_nepers: f32::NAN,
                ..settings()
            },
            CropSettings {
                max_shift: 25,
                ..settings()
            },
        ] {
            assert!(CropSampler::new(&material(), &MelConfig::default(), wrong).is_err());
        }
    }

    #[test]
    fn drums_lie_under_target_and_rhythm_alone_and_do_not_move() {
        // A click every 4000 samples, against sines below 1 kHz.
        let clicks = (0..6000).map(|n| if n % 4000 == 100 { i16::MAX } else { 0 });
        let material = Material {
            drums: vec![Pcm {
                samples: clicks.collect(),
                level: 1e-3,
            }],
            ..material()
        };
        let settings = CropSettings {
            drums_share: 1.0,
            batch: 16,
            ..settings()
        };
        let mut sampler = CropSampler::new(&material, &MelConfig::default(), settings).unwrap();
        let batch = sampler.batch(0).unwrap();
        let highs = |view: &[f32], crop: usize| -> Vec<f32> {
            let bands = 100 * 16..128 * 16;
            view[crop * 128 * 16..(crop + 1) * 128 * 16][bands].to_vec()
        };
        let distance = |a: &[f32], b: &[f32]| -> f32 {
            a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
        };
        let mut without = 0;
        for crop in 0..16 {
            let target = highs(&batch.target, crop);
            let near = distance(&target, &highs(&batch.views[Factor::Rhythm].mels, crop));
            let far = distance(&target, &highs(&batch.views[Factor::Harmony].mels, crop));
            assert!(near < 0.1 * far, "{near} {far}");
            let peak = highs(&batch.views[Factor::Harmony].mels, crop)
                .into_iter()
                .fold(-20.0, f32::max);
            without += usize::from(peak < -8.0);
        }
        assert!(
            (1..16).contains(&without),
            "{without} harmony views without drums"
        );
    }

    #[test]
    fn crops_of_midi_pair_transpositions_and_keep_their_drums() {
        let sine = |hz: f32, samples: usize| -> Vec<f32> {
            let step = std::f32::consts::TAU * hz / 22_050.0;
            (0..samples).map(|n| (step * n as f32).sin()).collect()
        };
        let pcm = |hz: f32| Pcm::normalised(&sine(hz, 20_000), 22_050).unwrap();
        let transposed = |semitones: i32| pcm(400.0 * (semitones as f32 / 12.0).exp2());
        let material = Material {
            midi: Renderings {
                clips: vec![Arc::new(Rendering {
                    name: "song".into(),
                    pitched: [-6, -1, 4, 8].map(|n| (n, transposed(n))).into(),
                    drums: Some(Pcm {
                        level: 1e-6,
                        ..pcm(6000.0)
                    }),
                })],
                swaps: Vec::new(),
            },
            ..material()
        };
        let settings = CropSettings {
            midi_share: 1.0,
            unshifted_share: 0.0,
            batch: 32,
            ..settings()
        };
        let mut sampler = CropSampler::new(&material, &MelConfig::default(), settings).unwrap();
        let batch = sampler.batch(0).unwrap();
        let target = loudest_bands(&batch.target, 16);
        let heard = loudest_bands(&batch.views[Factor::Harmony].mels, 16);
        for ((target, found), shift) in target
            .iter()
            .zip(heard)
            .zip(&batch.views[Factor::Harmony].shift_semitones)
        {
            assert!(shift.abs() <= 7, "{shift}");
            let ratio = (*shift as f32 / 12.0).exp2();
            let expected = (*target as f32 + 1.0) * ratio - 1.0;
            let off = (found as f32 - expected).abs();
            assert!(off <= 1.5, "{shift}: band {found} from {target}");
        }
        assert!(
            batch.views[Factor::Harmony]
                .shift_semitones
                .iter()
                .any(|&shift| shift != 0)
        );
        // Bands around 6 kHz hold the drums, which are the same in all views.
        for band in 104..108 {
            for crop in 0..32 {
                let values = (crop * 128 + band) * 16..(crop * 128 + band + 1) * 16;
                let pairs = batch.target[values.clone()]
                    .iter()
                    .zip(&batch.views[Factor::Harmony].mels[values]);
                for (a, b) in pairs {
                    assert!((a - b).abs() < 0.05, "{band}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn crops_of_swaps_have_the_harmony_of_one_clip_and_the_drums_of_the_other() {
        let pcm = |hz: f32| {
            let step = std::f32::consts::TAU * hz / 22_050.0;
            let samples: Vec<f32> = (0..20_000).map(|n| (step * n as f32).sin()).collect();
            Pcm::normalised(&samples, 22_050).unwrap()
        };
        // Sines for chords, and sines above 3 kHz for drums.
        let rendering = |hz: f32, drums_hz: f32, semitones: [i32; 3]| Rendering {
            name: "song".into(),
            pitched: semitones
                .map(|n| (n, pcm(hz * (n as f32 / 12.0).exp2())))
                .into(),
            drums: Some(pcm(drums_hz)),
        };
        let clips = [
            Arc::new(rendering(300.0, 4000.0, [-5, 0, 4])),
            Arc::new(rendering(900.0, 8000.0, [-2, 1, 3])),
        ];
        let material = Material {
            midi: Renderings {
                swaps: vec![Swap {
                    remix: rendering(300.0, 8000.0, [-5, 0, 4]),
                    harmony: Arc::clone(&clips[0]),
                    rhythm: Arc::clone(&clips[1]),
                }],
                clips: clips.into(),
            },
            ..material()
        };
        for two_views in [false, true] {
            let settings = CropSettings {
                swaps_share: 1.0,
                unshifted_share: 0.5,
                two_views,
                batch: 32,
                ..settings()
            };
            let mut sampler = CropSampler::new(&material, &MelConfig::default(), settings).unwrap();
            let batch = sampler.batch(0).unwrap();
            let chords = |mels| loudest_bands_among(mels, 0..64, 16);
            let drums = |mels| loudest_bands_among(mels, 64..128, 16);
            let [harmony, rhythm] = [Factor::Harmony, Factor::Rhythm].map(|f| &batch.views[f]);
            let (target, heard) = (chords(&batch.target), chords(&harmony.mels));
            for ((target, found), shift) in target.iter().zip(heard).zip(&harmony.shift_semitones) {
                assert!(shift.abs() <= 7, "{shift}");
                let expected = (*target as f32 + 1.0) * (*shift as f32 / 12.0).exp2() - 1.0;
                let off = (found as f32 - expected).abs();
                assert!(off <= 1.5, "{shift}: band {found} from {target}");
            }
            assert!(harmony.shift_semitones.iter().any(|&shift| shift != 0));
            let others = chords(&rhythm.mels);
            assert!(target.iter().zip(others).all(|(a, b)| b > 2 * a));
            let struck = drums(&batch.target);
            assert_eq!(struck, drums(&rhythm.mels));
            let others = drums(&harmony.mels);
            assert!(struck.iter().zip(others).all(|(a, b)| b + 10 < *a));
            assert_eq!(rhythm.shift_semitones, [0; 32]);
        }
    }

    #[test]
    fn all_views_are_out_of_tune_by_the_same() {
        let settings = CropSettings {
            unshifted_share: 1.0,
            tuning_cents: 50.0,
            equaliser_db: 6.0,
            ..settings()
        };
        let batch = sampler(settings).batch(0).unwrap();
        assert_eq!(batch.views[Factor::Harmony].mels, batch.target);
        assert_eq!(batch.views[Factor::Rhythm].mels, batch.target);
        assert_ne!(
            batch.target,
            sampler(self::settings()).batch(0).unwrap().target
        );
    }
}
