//! Recipes for an encoder and decoder.

use anyhow::{Result, ensure};
use model_runtime::{Architecture, Factor};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::is_standard;
use super::optimiser::Optimiser;
use crate::adversary::AdversaryConfig;
use crate::discriminator;
use crate::loss::{Guide, Loss};
use crate::midi::MidiSettings;
use crate::phrases::PhraseSettings;
use crate::phrases::sampler::PhraseCropSettings;
use crate::sampler::CropSettings;
use vocoder::MelConfig;

/// A recipe for a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecipe {
    /// Name of the trained model.
    pub name: String,
    /// The mel spectrogram; the standard one without this.
    #[serde(default, skip_serializing_if = "is_standard")]
    pub mel: MelConfig,
    /// The network.
    pub network: Architecture,
    /// Start of HARD at the level of music; that of all layers is random without this table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// Sampling of crops.
    pub crops: Crops,
    /// Crops rendered from MIDI files; none without this table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub midi: Option<Midi>,
    /// Phrases that several instruments play, for the network for timbre; no other network has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phrases: Option<Box<Phrases>>,
    /// Crops analysed as in the latency mode Live; none without this table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// Steps with limited look-ahead, for low-latency streams; none without this table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_ahead: Option<LimitedLookAhead>,
    /// The loss.
    pub loss: Loss,
    /// The discriminator's part of the loss; no discriminator without this table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<Adversarial>,
    /// Settings of the optimiser.
    pub optimiser: Optimiser,
}

/// The start of HARD's first and last layers. The network works on raw log-mels, whose level is most of what random
/// layers pass on. These layers start so that the others see log-mels with mean 0 and deviation 1, and decode such.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Mean of log-mels of music, in nepers.
    pub mel_mean: f64,
    /// Standard deviation of log-mels of music, in nepers.
    pub mel_deviation: f64,
}

impl Start {
    fn check(&self, network: &Architecture) -> Result<()> {
        let Self {
            mel_mean,
            mel_deviation,
        } = *self;
        ensure!(
            mel_mean.is_finite() && mel_deviation.is_finite() && mel_deviation > 0.0,
            "start: mel_mean must be finite and mel_deviation above 0, found {mel_mean} and {mel_deviation}"
        );
        ensure!(
            matches!(network, Architecture::Hard(_)),
            "start: expected the network \"hard\", found {network:?}"
        );
        Ok(())
    }
}

/// Sampling and augmentation of crops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crops {
    /// Seed of all random numbers.
    pub seed: u64,
    /// Crops per step.
    pub batch: usize,
    /// Mel frames per crop.
    pub frames: usize,
    /// Largest pitch shift in semitones, up or down. A shift is drawn uniformly for each crop.
    pub max_shift_semitones: u32,
    /// Share of crops that are not shifted.
    pub unshifted_share: f64,
    /// Whether the rhythm encoder gets a different shift from the harmony encoder.
    pub two_views: bool,
    /// Largest random change of a crop's level, up or down, in nepers.
    pub gain_nepers: f32,
    /// Largest random detuning of a crop, up or down, in cents.
    #[serde(default)]
    pub tuning_cents: f64,
    /// Largest gain of the random equaliser, in dB: two bell filters with up to this gain, positive or negative, and
    /// a tilt of up to a sixth of it per octave.
    #[serde(default)]
    pub equaliser_db: f32,
    /// Share of the crops that get an added drum loop (`--drums`), which is not shifted. The harmony encoder gets a
    /// different loop or none.
    #[serde(default)]
    pub drums_share: f64,
}

/// Clips of MIDI files, rendered at several transpositions; the drums are not transposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Midi {
    /// Share of the crops that come from these clips.
    pub share: f64,
    /// Share of the crops that are swaps: the target has the chords of one clip, struck when another clip strikes,
    /// with the drums of that one. The harmony encoder gets the one clip, the rhythm encoder the other.
    #[serde(default)]
    pub swaps_share: f64,
    /// Number of clips.
    pub clips: usize,
    /// Length of a clip, in seconds.
    pub seconds: f64,
    /// Number of transpositions per clip.
    pub transpositions: usize,
}

/// Random melodies, each rendered by several General MIDI programs. A crop is a *pair* unless it is one sound: the target is one
/// program's rendering, the pitch encoder hears the same notes by another program, and the timbre encoder another phrase by the
/// program of the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phrases {
    /// Number of phrases.
    pub count: usize,
    /// Length of a phrase in seconds.
    pub seconds: f64,
    /// Programs that play each phrase.
    pub programs_per_phrase: usize,
    /// Share of the notes that are chords.
    pub chord_share: f64,
    /// Numbers of the programs to train on, from 0.
    pub programs: Vec<u8>,
    /// Numbers of the programs that are kept for the validation.
    pub held_out_programs: Vec<u8>,
    /// Share of the pairs whose variation encoder hears the target, through a random equaliser. That of the others hears what the
    /// pitch encoder does.
    pub own_variation_share: f64,
    /// Share of the crops that are one rendering: pitch and variation encoder hear it through a random equaliser, the timbre
    /// encoder at another pitch.
    pub unpaired_share: f64,
    /// Share of the crops that are one sound from the recordings (`--data`), heard in the same way.
    #[serde(default)]
    pub music_share: f64,
}

/// Analysis of the crops, so that one model serves all latency settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// Share of the crops whose encoders hear through the low-delay window of the latency mode Live. The target is that of the
    /// symmetric window.
    pub live_share: f64,
}

/// Steps with a limited look-ahead (`Network::with_look_ahead`), so that one model serves all latency settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitedLookAhead {
    /// Share of the steps with limited look-ahead.
    pub share: f64,
    /// Look-ahead limits in mel frames; each such step uses one of them.
    pub frames: Vec<usize>,
}

/// The discriminator and its part of the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversarial {
    /// Weight of the network's least-squares loss; the reconstruction loss has weight 1.
    pub weight: f64,
    /// Weight of feature matching.
    pub feature_matching: f64,
    /// Step from which the discriminator is trained and used in the loss.
    pub start_step: u64,
    /// Channels of its first layer (16 as published); five stages double them.
    pub channels: usize,
    /// Learning rate of its RAdam optimiser at the first step. It decays like that of the network.
    pub learning_rate: f64,
}

impl Adversarial {
    /// Settings for adversarial training; `optimiser` is that of the network.
    pub fn config(&self, optimiser: &Optimiser) -> AdversaryConfig {
        AdversaryConfig {
            weight: self.weight,
            feature_matching: self.feature_matching,
            start_step: self.start_step,
            relative_rate: self.learning_rate / optimiser.learning_rate,
        }
    }

    fn check(&self, crops: &Crops) -> Result<()> {
        let Self {
            weight,
            feature_matching,
            channels,
            learning_rate,
            ..
        } = *self;
        ensure!(
            weight >= 0.0 && feature_matching >= 0.0,
            "weight and feature_matching must be at least 0, found {weight} and {feature_matching}"
        );
        ensure!(
            learning_rate > 0.0 && channels > 0,
            "the discriminator's learning_rate and channels must be above 0, found {learning_rate} and {channels}"
        );
        ensure!(
            crops.frames >= discriminator::MIN_FRAMES,
            "the discriminator needs crops of at least {} frames, found {}",
            discriminator::MIN_FRAMES,
            crops.frames
        );
        Ok(())
    }
}

impl NetworkRecipe {
    /// Checks that the recipe can be trained.
    pub fn check(&self) -> Result<()> {
        if let Some(LimitedLookAhead { share, frames }) = &self.look_ahead {
            ensure!(
                (0.0..=1.0).contains(share) && !frames.is_empty(),
                "look_ahead: share must be between 0 and 1 and frames must not be empty, found {share} and {frames:?}"
            );
        }
        if let Some(start) = &self.start {
            start.check(&self.network)?;
        }
        if let Some(Guide { weight, steps }) = &self.loss.guide {
            ensure!(
                *weight > 0.0 && *steps > 0,
                "guide: weight and steps must be above 0, found {weight} and {steps}"
            );
            ensure!(
                matches!(self.network, Architecture::Hard(_)),
                "guide: expected the network \"hard\", found {:?}",
                self.network
            );
        }
        if let Some(adversarial) = &self.adversarial {
            adversarial.check(&self.crops)?;
        }
        let is_timbre = matches!(self.network, Architecture::Timbre(_));
        ensure!(
            is_timbre == self.phrases.is_some(),
            "phrases: expected this table for the network \"timbre\" and for no other, found {:?} for {:?}",
            self.phrases,
            self.network
        );
        ensure!(
            !is_timbre || self.midi.is_none() && self.crops.drums_share == 0.0,
            "phrases: expected neither a table [midi] nor a drums_share beside it, found {:?} and {}",
            self.midi,
            self.crops.drums_share
        );
        if let Some(settings) = self.phrase_settings() {
            settings.check()?;
        }
        let factors = match is_timbre {
            true => [Factor::Timbre, Factor::Pitch, Factor::Variation].as_slice(),
            false => &[Factor::Harmony, Factor::Rhythm],
        };
        for factor in Factor::ALL {
            let (is_needed, found) = (factors.contains(&factor), self.loss.kl(factor));
            ensure!(
                is_needed == found.is_some(),
                "loss: expected the weights of the divergences of {factors:?}, found {found:?} for kl_{factor}"
            );
        }
        Ok(())
    }

    /// Whether it trains on recordings.
    pub fn needs_music(&self) -> bool {
        let phrases = self.phrases.as_ref();
        phrases.is_none_or(|phrases| phrases.music_share > 0.0)
    }

    /// Look-ahead limit of a step in mel frames, if it has one.
    pub fn look_ahead_frames(&self, step: u64) -> Option<usize> {
        let LimitedLookAhead { share, frames } = self.look_ahead.as_ref()?;
        let mut random = StdRng::seed_from_u64(self.crops.seed.rotate_left(32) ^ step);
        if !random.random_bool(*share) {
            return None;
        }
        frames.choose(&mut random).copied()
    }

    /// Settings for rendering MIDI files, if the recipe uses them.
    pub fn midi_settings(&self) -> Option<MidiSettings> {
        self.midi.as_ref().map(|midi| MidiSettings {
            clips: midi.clips,
            seconds: midi.seconds,
            transpositions: midi.transpositions,
            // Two renderings can differ by twice as much; pairs that differ too much are not used.
            max_shift_semitones: self.crops.max_shift_semitones,
            swaps: midi.swaps_share > 0.0,
            seed: self.crops.seed,
        })
    }

    /// Settings for rendering phrases, if the recipe uses them.
    pub fn phrase_settings(&self) -> Option<PhraseSettings> {
        self.phrases.as_ref().map(|phrases| PhraseSettings {
            phrases: phrases.count,
            seconds: phrases.seconds,
            programs_per_phrase: phrases.programs_per_phrase,
            chord_share: phrases.chord_share,
            programs: phrases.programs.clone(),
            held_out_programs: phrases.held_out_programs.clone(),
            seed: self.crops.seed,
        })
    }

    /// Settings for the sampler of crops of phrases, if the recipe uses them.
    pub fn phrase_crop_settings(&self) -> Option<PhraseCropSettings> {
        let crops = &self.crops;
        self.phrases.as_ref().map(|phrases| PhraseCropSettings {
            batch: crops.batch,
            frames: crops.frames,
            max_shift: crops.max_shift_semitones,
            unshifted_share: crops.unshifted_share,
            gain_nepers: crops.gain_nepers,
            equaliser_db: crops.equaliser_db,
            own_variation_share: phrases.own_variation_share,
            unpaired_share: phrases.unpaired_share,
            music_share: phrases.music_share,
            live_share: self.analysis.as_ref().map_or(0.0, |a| a.live_share),
            seed: crops.seed,
        })
    }

    /// Settings for the crop sampler.
    pub fn crop_settings(&self) -> CropSettings {
        let crops = &self.crops;
        CropSettings {
            batch: crops.batch,
            frames: crops.frames,
            max_shift: crops.max_shift_semitones,
            gain_nepers: crops.gain_nepers,
            unshifted_share: crops.unshifted_share,
            two_views: crops.two_views,
            tuning_cents: crops.tuning_cents,
            equaliser_db: crops.equaliser_db,
            drums_share: crops.drums_share,
            midi_share: self.midi.as_ref().map_or(0.0, |midi| midi.share),
            swaps_share: self.midi.as_ref().map_or(0.0, |midi| midi.swaps_share),
            live_share: self.analysis.as_ref().map_or(0.0, |a| a.live_share),
            seed: crops.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recipe;

    const RECIPE: &str = include_str!("../../../recipes/graft.toml");

    #[test]
    fn a_recipe_says_how_many_crops_are_heard_as_in_live() {
        let live_share = |text: &str| match Recipe::parse(text).unwrap() {
            Recipe::Network(recipe) => recipe.crop_settings().live_share,
            other => panic!("{other:?}"),
        };
        let recipe = |analysis: &str| {
            let mut tables = toml::from_str::<toml::Table>(RECIPE).unwrap();
            tables.remove("analysis");
            format!("{}\n{analysis}", toml::to_string(&tables).unwrap())
        };
        assert_eq!(live_share(&recipe("")), 0.0);
        assert_eq!(live_share(&recipe("[analysis]\nlive_share = 0.4\n")), 0.4);
        assert!(Recipe::parse(&recipe("[analysis]\nlife_share = 0.4\n")).is_err());
    }

    #[test]
    fn the_network_for_timbre_trains_on_phrases_with_weights_for_its_own_factors() {
        let text = include_str!("../../../recipes/timbre.toml");
        let needs_music = |recipe: Recipe| match recipe {
            Recipe::Network(recipe) => recipe.needs_music(),
            other => panic!("{other:?}"),
        };
        assert!(!needs_music(Recipe::parse(text).unwrap()));
        let changed = |change: &dyn Fn(&mut toml::Table)| {
            let mut tables = toml::from_str::<toml::Table>(text).unwrap();
            change(&mut tables);
            Recipe::parse(&toml::to_string(&tables).unwrap())
        };
        let loss = |tables: &mut toml::Table, name: &str, weight: Option<f64>| {
            let loss = tables["loss"].as_table_mut().unwrap();
            match weight {
                Some(weight) => loss.insert(name.to_owned(), weight.into()),
                None => loss.remove(name),
            };
        };
        let phrases = |tables: &mut toml::Table, name: &str, value: toml::Value| {
            let phrases = tables["phrases"].as_table_mut().unwrap();
            phrases.insert(name.to_owned(), value);
        };
        let with_music = changed(&|tables| phrases(tables, "music_share", 0.2.into())).unwrap();
        assert!(needs_music(with_music));
        for (change, named) in [
            (
                &(|tables: &mut toml::Table| {
                    tables.remove("phrases");
                }) as &dyn Fn(&mut toml::Table),
                "phrases",
            ),
            (&|tables| loss(tables, "kl_pitch", None), "kl_pitch"),
            (&|tables| loss(tables, "kl_rhythm", Some(0.1)), "kl_rhythm"),
            (
                &|tables| phrases(tables, "held_out_programs", vec![0].into()),
                "program 0",
            ),
            (
                &|tables| phrases(tables, "programs_per_phrase", 1.into()),
                "two programs",
            ),
        ] {
            let error = format!("{:#}", changed(change).err().unwrap());
            assert!(error.contains(named), "{named}: {error}");
        }
        let tables = toml::from_str::<toml::Table>(text).unwrap();
        let mut music = toml::from_str::<toml::Table>(RECIPE).unwrap();
        music.insert("phrases".to_owned(), tables["phrases"].clone());
        let error = Recipe::parse(&toml::to_string(&music).unwrap());
        assert!(error.unwrap_err().to_string().contains("phrases"));
    }
}
