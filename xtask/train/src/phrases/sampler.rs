//! Batches of crops of phrases.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use graft_material::audio_cache::Pcm;
use model_runtime::Factor;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use vocoder::{AnalysisWindow, MelConfig};

use super::{Conversion, Phrase};
use crate::batches::{MakeBatch, random};
use crate::dataset::Track;
use crate::equaliser::Equaliser;
use crate::sampler::{Batch, CropLimits, View, by_artist, check_shares, draw_track};
use crate::shifted_mel::{Layer, ShiftedMel};

/// Sampling and augmentation of crops.
#[derive(Clone, Debug, PartialEq)]
pub struct PhraseCropSettings {
    /// Crops in a batch.
    pub batch: usize,
    /// Length of a crop in mel frames.
    pub frames: usize,
    /// Largest pitch shift between the pitch view and the target, in semitones.
    pub max_shift: u32,
    /// Share of the crops whose pitch view is not shifted.
    pub unshifted_share: f64,
    /// Largest random change of a crop's level, up or down, in nepers.
    pub gain_nepers: f32,
    /// Limit of the random equaliser of views that are the target itself, in dB; see [`Equaliser::draw`].
    pub equaliser_db: f32,
    /// Share of the pairs whose variation is that of the target. That of the others comes from the pitch view, as when main has
    /// both.
    pub own_variation_share: f64,
    /// Share of the crops that are one sound: pitch and variation view are the target with other colours, the timbre view is the
    /// target at another pitch.
    pub unpaired_share: f64,
    /// Share of the crops that are such sounds from recordings.
    pub music_share: f64,
    /// Share of the crops whose views are analysed with the low-delay window. The target never is.
    pub live_share: f64,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl PhraseCropSettings {
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
            ("own_variation_share", self.own_variation_share),
            ("unpaired_share", self.unpaired_share),
            ("music_share", self.music_share),
            ("live_share", self.live_share),
            (
                "the sum of unpaired_share and music_share",
                self.unpaired_share + self.music_share,
            ),
        ])
    }
}

/// Makes batches. A batch depends only on the settings, the material and its index, so a resumed run gets the same batches as an
/// uninterrupted one.
#[derive(Clone)]
pub struct PhraseSampler {
    settings: PhraseCropSettings,
    mel: MelConfig,
    library: Arc<Library>,
    analysis: ShiftedMel,
}

struct Library {
    phrases: Vec<Phrase>,
    /// For each program, the phrases that it plays, with the place of its rendering.
    by_program: BTreeMap<u8, Vec<(usize, usize)>>,
    /// Recordings that are long enough for a crop, by artist.
    music: Vec<Vec<Arc<Track>>>,
}

impl PhraseSampler {
    /// Creates a sampler. The material must have the sample rate of `mel`, and phrases must be longer than a crop.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is out of range, the phrases are too short, or a share needs recordings and there are none.
    pub fn new(
        phrases: Vec<Phrase>,
        music: &[Arc<Track>],
        mel: &MelConfig,
        settings: PhraseCropSettings,
    ) -> Result<Self> {
        settings.check()?;
        let crop_samples = settings.frames * mel.hop_length;
        let mut by_program: BTreeMap<u8, Vec<_>> = BTreeMap::new();
        for (number, phrase) in phrases.iter().enumerate() {
            for (place, (program, pcm)) in phrase.renderings.iter().enumerate() {
                ensure!(
                    pcm.samples.len() >= crop_samples,
                    "expected phrases of at least {crop_samples} samples, found {}",
                    pcm.samples.len()
                );
                by_program
                    .entry(*program)
                    .or_default()
                    .push((number, place));
            }
        }
        ensure!(!phrases.is_empty(), "expected phrases, found none");
        let music = match settings.music_share > 0.0 {
            true => by_artist(music, crop_samples).context("music_share needs recordings")?,
            false => Vec::new(),
        };
        Ok(Self {
            library: Arc::new(Library {
                phrases,
                by_program,
                music,
            }),
            analysis: ShiftedMel::new(mel)?,
            mel: mel.clone(),
            settings,
        })
    }
}

/// A sound for one crop of a batch, without its place there.
struct Sound<'a> {
    pcm: &'a Pcm,
    start_samples: usize,
    semitones: i32,
    gain: f32,
    equaliser: Option<Equaliser>,
}

/// The four sounds of a crop.
struct Item<'a> {
    target: Sound<'a>,
    timbre: Sound<'a>,
    pitch: Sound<'a>,
    variation: Sound<'a>,
}

impl Library {
    fn draw<'a>(
        &'a self,
        settings: &PhraseCropSettings,
        crop_samples: usize,
        random: &mut StdRng,
    ) -> Result<Item<'a>> {
        let kind = random.random_range(0.0..1.0);
        if kind < settings.music_share {
            let track: &Arc<Track> = draw_track(&self.music, random)?;
            return Ok(unpaired(&track.pcm, settings, crop_samples, random));
        }
        let phrase = self.phrases.choose(random).context("there are phrases")?;
        let (program, target) = phrase
            .renderings
            .choose(random)
            .context("a phrase has renderings")?;
        if kind < settings.music_share + settings.unpaired_share {
            return Ok(unpaired(target, settings, crop_samples, random));
        }
        let others: Vec<_> = phrase
            .renderings
            .iter()
            .filter(|(other, _)| other != program)
            .collect();
        let (_, other) = others
            .choose(random)
            .context("a phrase has two programs at least")?;
        let (number, place) = self.by_program[program]
            .choose(random)
            .context("a program has phrases")?;
        let (_, colour) = &self.phrases[*number].renderings[*place];
        let start_samples = draw_start(target, crop_samples, random);
        let gain = draw_gain(settings, random);
        let plain = |pcm| Sound {
            pcm,
            start_samples,
            semitones: 0,
            gain,
            equaliser: None,
        };
        let variation = match random.random_bool(settings.own_variation_share) {
            true => Sound {
                equaliser: draw_equaliser(settings, random),
                ..plain(target)
            },
            false => plain(other),
        };
        Ok(Item {
            target: plain(target),
            pitch: Sound {
                semitones: draw_shift(settings, random),
                ..plain(other)
            },
            timbre: Sound {
                start_samples: draw_start(colour, crop_samples, random),
                gain: draw_gain(settings, random),
                ..plain(colour)
            },
            variation,
        })
    }
}

/// One sound as target and as all views.
fn unpaired<'a>(
    pcm: &'a Pcm,
    settings: &PhraseCropSettings,
    crop_samples: usize,
    random: &mut StdRng,
) -> Item<'a> {
    let start_samples = draw_start(pcm, crop_samples, random);
    let gain = draw_gain(settings, random);
    let plain = || Sound {
        pcm,
        start_samples,
        semitones: 0,
        gain,
        equaliser: None,
    };
    Item {
        target: plain(),
        timbre: Sound {
            semitones: draw_shift(settings, random),
            gain: draw_gain(settings, random),
            ..plain()
        },
        pitch: Sound {
            semitones: draw_shift(settings, random),
            equaliser: draw_equaliser(settings, random),
            ..plain()
        },
        variation: Sound {
            equaliser: draw_equaliser(settings, random),
            ..plain()
        },
    }
}

fn draw_start(pcm: &Pcm, crop_samples: usize, random: &mut StdRng) -> usize {
    random.random_range(0..=pcm.samples.len() - crop_samples)
}

fn draw_gain(settings: &PhraseCropSettings, random: &mut StdRng) -> f32 {
    let most = settings.gain_nepers;
    random.random_range(-most..=most).exp()
}

fn draw_equaliser(settings: &PhraseCropSettings, random: &mut StdRng) -> Option<Equaliser> {
    (settings.equaliser_db > 0.0).then(|| Equaliser::draw(settings.equaliser_db, random))
}

fn draw_shift(settings: &PhraseCropSettings, random: &mut StdRng) -> i32 {
    let most = settings.max_shift as i32;
    match random.random_bool(settings.unshifted_share) {
        true => 0,
        false => random.random_range(-most..=most),
    }
}

impl MakeBatch for PhraseSampler {
    type Batch = Batch;

    /// The batch with this index.
    ///
    /// # Errors
    ///
    /// Returns an error if a Fourier transform fails.
    fn batch(&mut self, index: u64) -> Result<Batch> {
        let settings = self.settings.clone();
        let crop_samples = settings.frames * self.mel.hop_length;
        let mut random = random(settings.seed, index);
        let library = Arc::clone(&self.library);
        let mut batch = silent(settings.batch, settings.frames, self.mel.n_mels);
        for crop in 0..settings.batch {
            let item = library.draw(&settings, crop_samples, &mut random)?;
            let window = match random.random_bool(settings.live_share) {
                true => AnalysisWindow::LowDelay,
                false => AnalysisWindow::Symmetric,
            };
            write(&mut self.analysis, &item, window, crop, &mut batch)?;
        }
        Ok(batch)
    }
}

/// A batch of `size` crops of silence, without shifts yet.
fn silent(size: usize, frames: usize, n_mels: usize) -> Batch {
    let mels = || vec![0.0; size * n_mels * frames];
    let view = |factor| {
        let view = View {
            mels: mels(),
            shift_semitones: Vec::with_capacity(size),
        };
        (factor, view)
    };
    let factors = [Factor::Timbre, Factor::Pitch, Factor::Variation];
    Batch {
        target: mels(),
        views: factors.map(view).into_iter().collect(),
        size,
        frames,
    }
}

/// Analyses the crop number `crop` of a batch.
fn write(
    analysis: &mut ShiftedMel,
    item: &Item,
    window: AnalysisWindow,
    crop: usize,
    batch: &mut Batch,
) -> Result<()> {
    let values = batch.target.len() / batch.size;
    let values = crop * values..(crop + 1) * values;
    let mut outputs = vec![(
        &item.target,
        AnalysisWindow::Symmetric,
        &mut batch.target[values.clone()],
    )];
    for (factor, view) in batch.views.iter_mut() {
        let sound = match factor {
            Factor::Timbre => &item.timbre,
            Factor::Pitch => &item.pitch,
            _ => &item.variation,
        };
        view.shift_semitones.push(sound.semitones);
        outputs.push((sound, window, &mut view.mels[values.clone()]));
    }
    for (sound, window, out) in outputs {
        let layer = Layer {
            pcm: sound.pcm,
            start_samples: sound.start_samples,
            semitones: f64::from(sound.semitones),
            gain: sound.gain,
            equaliser: sound.equaliser.as_ref(),
        };
        analysis.log_mel_with(window, &[layer], out)?;
    }
    Ok(())
}

/// Conversions as batches of at most `size` crops, from the beginning of their sounds: pitch and variation of the phrase, timbre of
/// the other sound.
///
/// # Errors
///
/// Returns an error if a sound is too short or a Fourier transform fails.
pub fn conversion_batches(
    conversions: &[Conversion],
    frames: usize,
    size: usize,
    mel: &MelConfig,
) -> Result<Vec<Batch>> {
    let mut analysis = ShiftedMel::new(mel)?;
    let plain = |pcm| Sound {
        pcm,
        start_samples: 0,
        semitones: 0,
        gain: 1.0,
        equaliser: None,
    };
    conversions
        .chunks(size)
        .map(|conversions| {
            let mut batch = silent(conversions.len(), frames, mel.n_mels);
            for (crop, conversion) in conversions.iter().enumerate() {
                let item = Item {
                    target: plain(&conversion.truth),
                    timbre: plain(&conversion.colour),
                    pitch: plain(&conversion.phrase),
                    variation: plain(&conversion.phrase),
                };
                let window = AnalysisWindow::Symmetric;
                write(&mut analysis, &item, window, crop, &mut batch)?;
            }
            Ok(batch)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: usize = 32;

    /// A tone with this many partials, at a level of 1.
    fn tone(hz: f32, partials: u32) -> Pcm {
        let samples: Vec<f32> = (0..2 * 22_050)
            .map(|n| {
                let turn = std::f32::consts::TAU * hz * n as f32 / 22_050.0;
                let partial = |k: u32| 0.2 / k as f32 * (turn * k as f32).sin();
                (1..=partials).map(partial).sum()
            })
            .collect();
        Pcm::amplified(&samples, 1.0)
    }

    fn settings() -> PhraseCropSettings {
        PhraseCropSettings {
            batch: 8,
            frames: FRAMES,
            max_shift: 0,
            unshifted_share: 1.0,
            gain_nepers: 0.0,
            equaliser_db: 0.0,
            own_variation_share: 0.0,
            unpaired_share: 0.0,
            music_share: 0.0,
            live_share: 0.0,
            seed: 1,
        }
    }

    /// Two phrases of one tone, each by two programs: number 1 has one partial, number 2 five.
    fn sampler(settings: PhraseCropSettings) -> Result<PhraseSampler> {
        let phrase = |hz| Phrase {
            renderings: vec![(1, tone(hz, 1)), (2, tone(hz, 5))],
        };
        let phrases = vec![phrase(440.0), phrase(660.0)];
        PhraseSampler::new(phrases, &[], &MelConfig::default(), settings)
    }

    /// For each crop, the loudest band, and the mean over the bands around 2 kHz.
    fn heard(mels: &[f32]) -> Vec<(usize, f32)> {
        let crops = mels.chunks_exact(128 * FRAMES);
        crops
            .map(|crop| {
                let band = |band: usize| crop[band * FRAMES + FRAMES / 2];
                let loudest = (0..128).max_by(|a, b| band(*a).total_cmp(&band(*b)));
                let bright = (55..100).map(band).sum::<f32>() / 45.0;
                (loudest.unwrap(), bright)
            })
            .collect()
    }

    #[test]
    fn a_pair_has_the_pitch_of_one_view_and_the_timbre_of_the_other() {
        let batch = sampler(settings()).unwrap().batch(3).unwrap();
        let target = heard(&batch.target);
        let view = |factor| heard(&batch.views[factor].mels);
        let (timbre, pitch) = (view(Factor::Timbre), view(Factor::Pitch));
        assert_eq!(view(Factor::Variation), pitch);
        let mut other_notes = 0;
        for ((target, timbre), pitch) in target.iter().zip(&timbre).zip(&pitch) {
            assert_eq!(target.0, pitch.0);
            assert!((target.1 - timbre.1).abs() < 1.5, "{target:?} {timbre:?}");
            assert!((target.1 - pitch.1).abs() > 1.5, "{target:?} {pitch:?}");
            other_notes += usize::from(target.0 != timbre.0);
        }
        assert!(other_notes > 0);
        let again = sampler(settings()).unwrap().batch(3).unwrap();
        assert_eq!(again, batch);
        assert_ne!(sampler(settings()).unwrap().batch(4).unwrap(), batch);
    }

    #[test]
    fn one_sound_has_views_of_other_pitch_and_colour() {
        let unpaired = PhraseCropSettings {
            max_shift: 5,
            unshifted_share: 0.0,
            equaliser_db: 12.0,
            unpaired_share: 1.0,
            ..settings()
        };
        let batch = sampler(unpaired).unwrap().batch(1).unwrap();
        let pitch = &batch.views[Factor::Pitch];
        assert!(pitch.shift_semitones.iter().any(|shift| *shift != 0));
        for view in batch.views.values() {
            assert_ne!(view.mels, batch.target);
        }
        // The variation keeps the pitch, and gets another colour.
        let variation = heard(&batch.views[Factor::Variation].mels);
        let target = heard(&batch.target);
        let moved = variation.iter().zip(&target);
        assert!(moved.clone().any(|(a, b)| (a.1 - b.1).abs() > 0.2));
        assert!(moved.filter(|(a, b)| a.0.abs_diff(b.0) > 1).count() < 3);
    }

    #[test]
    fn what_is_missing_is_named() {
        let needs_music = PhraseCropSettings {
            music_share: 0.1,
            ..settings()
        };
        let error = format!("{:#}", sampler(needs_music).err().unwrap());
        assert!(error.contains("music_share"), "{error}");
        let too_long = PhraseCropSettings {
            frames: 1000,
            ..settings()
        };
        let error = format!("{:#}", sampler(too_long).err().unwrap());
        assert!(error.contains("512000"), "{error}");
        let too_much = PhraseCropSettings {
            unpaired_share: 0.6,
            music_share: 0.6,
            ..settings()
        };
        let error = format!("{:#}", sampler(too_much).err().unwrap());
        assert!(error.contains("unpaired_share"), "{error}");
    }
}
