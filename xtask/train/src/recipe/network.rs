//! A recipe for an encoder and decoder.

use anyhow::{Result, ensure};
use model_runtime::Architecture;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::is_standard;
use super::optimiser::Optimiser;
use crate::adversary::AdversaryConfig;
use crate::discriminator;
use crate::loss::Loss;
use crate::midi::MidiSettings;
use crate::sampler::CropSettings;
use vocoder::MelConfig;

/// A recipe for a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecipe {
    /// Name of the model that comes of it.
    pub name: String,
    /// The mel spectrogram; the standard one without this.
    #[serde(default, skip_serializing_if = "is_standard")]
    pub mel: MelConfig,
    /// The network.
    pub network: Architecture,
    /// How crops are drawn.
    pub crops: Crops,
    /// Crops rendered from MIDI files, if there are to be any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub midi: Option<Midi>,
    /// Practice for streams that cannot wait for all that the network sees ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_ahead: Option<LimitedLookAhead>,
    /// What is minimised.
    pub loss: Loss,
    /// What a discriminator adds to it; none takes part without this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<Adversarial>,
    /// How it is minimised.
    pub optimiser: Optimiser,
}

/// How crops are drawn and changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crops {
    /// Start of all random numbers.
    pub seed: u64,
    /// Crops a step.
    pub batch: usize,
    /// Mel frames a crop.
    pub frames: usize,
    /// Pitch shifts are drawn evenly from minus to plus this many semitones, for each crop on its own.
    pub max_shift_semitones: u32,
    /// Share of crops that are not shifted.
    pub unshifted_share: f64,
    /// Whether the rhythm encoder hears a shift of its own.
    pub two_views: bool,
    /// A crop's level changes by up to this much either way.
    pub gain_nepers: f32,
    /// A crop is out of tune by up to this much either way.
    #[serde(default)]
    pub tuning_cents: f64,
    /// A crop is coloured by two bells of up to this much either way, and a tilt of a sixth of it an octave.
    #[serde(default)]
    pub equaliser_db: f32,
    /// Share of the crops with a drum loop (`--drums`) under them, which is not shifted. The harmony encoder hears
    /// another one, or none.
    #[serde(default)]
    pub drums_share: f64,
}

/// Clips of MIDI files, rendered at several transpositions, with drums that do not move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Midi {
    /// Share of the crops that are taken from them.
    pub share: f64,
    /// Number of clips.
    pub clips: usize,
    /// Length of a clip.
    pub seconds: f64,
    /// Transpositions of a clip.
    pub transpositions: usize,
}

/// Steps with a limited look-ahead (`Network::with_look_ahead`), so that one model serves all latency settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitedLookAhead {
    /// Share of the steps that are limited,
    pub share: f64,
    /// each to one of these numbers of mel frames.
    pub frames: Vec<usize>,
}

/// The discriminator, and what it adds to the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversarial {
    /// Weight of the network's least-squares loss, where the reconstruction's is one.
    pub weight: f64,
    /// Weight of feature matching.
    pub feature_matching: f64,
    /// The discriminator takes part, and begins to learn, after so many steps.
    pub start_step: u64,
    /// Channels of its first layer (16 as published); five stages double them.
    pub channels: usize,
    /// RAdam's learning rate for it at the first step; it falls as the network's does.
    pub learning_rate: f64,
}

impl Adversarial {
    /// What it adds to the loss, and when; `optimiser` is that of the network.
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
            "expected adversarial weights of 0 or more, found {weight} and {feature_matching}"
        );
        ensure!(
            learning_rate > 0.0 && channels > 0,
            "expected a discriminator with a learning rate and channels above 0, found {learning_rate} and {channels}"
        );
        ensure!(
            crops.frames >= discriminator::MIN_FRAMES,
            "the discriminator expects crops of at least {} frames, found {}",
            discriminator::MIN_FRAMES,
            crops.frames
        );
        Ok(())
    }
}

impl NetworkRecipe {
    /// Refuses what cannot be trained.
    pub fn check(&self) -> Result<()> {
        if let Some(LimitedLookAhead { share, frames }) = &self.look_ahead {
            ensure!(
                (0.0..=1.0).contains(share) && !frames.is_empty(),
                "look_ahead: expected a share of 0 to 1 and a number of frames, found {share} and {frames:?}"
            );
        }
        if let Some(adversarial) = &self.adversarial {
            adversarial.check(&self.crops)?;
        }
        Ok(())
    }

    /// Mel frames that the network may see ahead in a step, if they are limited.
    pub fn look_ahead_frames(&self, step: u64) -> Option<usize> {
        let LimitedLookAhead { share, frames } = self.look_ahead.as_ref()?;
        let mut random = StdRng::seed_from_u64(self.crops.seed.rotate_left(32) ^ step);
        if !random.random_bool(*share) {
            return None;
        }
        frames.choose(&mut random).copied()
    }

    /// What is rendered of MIDI files, if anything.
    pub fn midi_settings(&self) -> Option<MidiSettings> {
        self.midi.as_ref().map(|midi| MidiSettings {
            clips: midi.clips,
            seconds: midi.seconds,
            transpositions: midi.transpositions,
            // Two of them are up to twice as far apart; those too far are not paired.
            max_shift_semitones: self.crops.max_shift_semitones,
            seed: self.crops.seed,
        })
    }

    /// The crops as the sampler wants them.
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
            seed: crops.seed,
        }
    }
}
