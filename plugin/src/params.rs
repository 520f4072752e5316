//! The plugin's parameters.

use std::sync::Arc;

use model_runtime::LatencyMode;
use model_runtime::freeze::{FreezeStore, FrozenLatents};
use nice_plug::params::persist::PersistentField;
use nice_plug::prelude::*;
use vocoder::classic::Method;

use crate::editor_size::EditorScale;
use crate::models::ModelChoice;

/// Largest transposition either way: what the built-in model was trained for.
pub const MAX_TRANSPOSE_SEMITONES: i32 = 8;

/// [`LatencyMode`] as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Enum)]
pub enum Latency {
    /// [`LatencyMode::Live`].
    #[id = "live"]
    Live,
    /// [`LatencyMode::Default`].
    #[id = "default"]
    Default,
    /// [`LatencyMode::Full`].
    #[id = "full"]
    Full,
}

/// What makes the remix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum EngineKind {
    /// The network of the model.
    #[id = "network"]
    Network,
    /// [`Method::Separation`]: harmonic parts with percussive parts.
    #[id = "split"]
    Split,
    /// [`Method::Morphing`]: spectra multiplied.
    #[id = "morph"]
    Morph,
}

impl EngineKind {
    /// How it remixes, if it does so without a network.
    pub fn method(self) -> Option<Method> {
        match self {
            Self::Network => None,
            Self::Split => Some(Method::Separation),
            Self::Morph => Some(Method::Morphing),
        }
    }
}

/// Length of the loop that a frozen latent plays, as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Enum)]
pub enum FreezeLength {
    /// One beat.
    #[id = "1"]
    #[name = "1 beat"]
    One,
    /// Two beats.
    #[id = "2"]
    #[name = "2 beats"]
    Two,
    /// Four beats.
    #[id = "4"]
    #[name = "4 beats"]
    Four,
    /// Eight beats.
    #[id = "8"]
    #[name = "8 beats"]
    Eight,
}

impl FreezeLength {
    /// In quarter notes.
    pub fn beats(self) -> f64 {
        match self {
            Self::One => 1.0,
            Self::Two => 2.0,
            Self::Four => 4.0,
            Self::Eight => 8.0,
        }
    }
}

/// The frozen latents, saved with the plugin's state.
#[derive(Default)]
pub struct Frozen(pub Arc<FreezeStore>);

impl PersistentField<'_, FrozenLatents> for Frozen {
    fn set(&self, latents: FrozenLatents) {
        self.0.set(latents);
    }

    fn map<F, R>(&self, f: F) -> R
    where
        F: Fn(&FrozenLatents) -> R,
    {
        f(&self.0.get())
    }
}

/// Where the worker's windows end, as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Enum)]
pub enum WindowLength {
    /// On quarters of a beat.
    #[id = "quarter"]
    #[name = "1/4 beat"]
    QuarterBeat,
    /// On halves of a beat.
    #[id = "half"]
    #[name = "1/2 beat"]
    HalfBeat,
    /// On beats.
    #[id = "one"]
    #[name = "1 beat"]
    OneBeat,
    /// On every second beat.
    #[id = "two"]
    #[name = "2 beats"]
    TwoBeats,
    /// Anywhere.
    #[id = "free"]
    Free,
}

impl WindowLength {
    /// In quarter notes; none when windows run free.
    pub fn beats(self) -> Option<f64> {
        match self {
            Self::QuarterBeat => Some(0.25),
            Self::HalfBeat => Some(0.5),
            Self::OneBeat => Some(1.0),
            Self::TwoBeats => Some(2.0),
            Self::Free => None,
        }
    }
}

impl From<Latency> for LatencyMode {
    fn from(latency: Latency) -> Self {
        match latency {
            Latency::Live => Self::Live,
            Latency::Default => Self::Default,
            Latency::Full => Self::Full,
        }
    }
}

/// All that the host automates and saves.
#[derive(Params)]
pub struct GraftParams {
    /// Scale of the editor's window.
    #[persist = "editor-scale"]
    pub editor_scale: EditorScale,
    /// What is frozen.
    #[persist = "frozen"]
    pub frozen: Frozen,
    /// The model.
    #[persist = "model"]
    pub model: ModelChoice,

    /// Where the harmony comes from: 0 main, 1 sidechain.
    #[id = "harmony"]
    pub harmony: FloatParam,
    /// Where the rhythm comes from: 0 main, 1 sidechain.
    #[id = "rhythm"]
    pub rhythm: FloatParam,
    /// Whether Rhythm follows Harmony.
    #[id = "link"]
    pub link: BoolParam,
    /// By how many semitones the harmony is transposed.
    #[id = "transpose"]
    pub transpose: IntParam,
    /// Whether the harmony is frozen.
    #[id = "freeze-harmony"]
    pub freeze_harmony: BoolParam,
    /// Whether the rhythm is frozen.
    #[id = "freeze-rhythm"]
    pub freeze_rhythm: BoolParam,
    /// Length of the loop that a frozen latent plays.
    #[id = "freeze-length"]
    pub freeze_length: EnumParam<FreezeLength>,
    /// From the sources' own sound, 0, to that of the model's generator, 1.
    #[id = "voice"]
    pub voice: FloatParam,
    /// How much of the sources is heard above what the generator can make.
    #[id = "air"]
    pub air: FloatParam,
    /// On which beats windows end.
    #[id = "window"]
    pub window: EnumParam<WindowLength>,
    /// How much of the future the remix waits for. Takes effect when the host restarts the plugin.
    #[id = "latency"]
    pub latency: EnumParam<Latency>,
    /// What makes the remix. Takes effect when the host restarts the plugin.
    #[id = "engine"]
    pub engine: EnumParam<EngineKind>,
    /// Gain of the main input.
    #[id = "main-gain"]
    pub main_gain: FloatParam,
    /// Gain of the sidechain.
    #[id = "sidechain-gain"]
    pub sidechain_gain: FloatParam,
    /// Dry or wet: 0 the delayed main input, 1 the remix.
    #[id = "mix"]
    pub mix: FloatParam,
    /// Gain of the output.
    #[id = "output-gain"]
    pub output_gain: FloatParam,
    /// Whether the main input passes as it is, delayed.
    #[id = "bypass"]
    pub bypass: BoolParam,
}

impl Default for GraftParams {
    fn default() -> Self {
        Self {
            editor_scale: EditorScale::default(),
            frozen: Frozen::default(),
            model: ModelChoice::default(),
            harmony: amount("Harmony", 0.0),
            rhythm: amount("Rhythm", 1.0),
            link: BoolParam::new("Link", false),
            transpose: IntParam::new(
                "Transpose",
                0,
                IntRange::Linear {
                    min: -MAX_TRANSPOSE_SEMITONES,
                    max: MAX_TRANSPOSE_SEMITONES,
                },
            )
            .with_unit(" st"),
            freeze_harmony: BoolParam::new("Freeze Harmony", false),
            freeze_rhythm: BoolParam::new("Freeze Rhythm", false),
            freeze_length: EnumParam::new("Freeze Length", FreezeLength::Four),
            voice: amount("Voice", 0.0),
            air: amount("Air", 1.0),
            window: EnumParam::new("Window", WindowLength::OneBeat),
            // Hosts can only restart a plugin now and then, so automation would have no effect.
            latency: EnumParam::new("Latency", Latency::Default).non_automatable(),
            engine: EnumParam::new("Engine", EngineKind::Network).non_automatable(),
            main_gain: gain("Main Gain"),
            sidechain_gain: gain("Sidechain Gain"),
            mix: amount("Mix", 1.0),
            output_gain: gain("Output Gain"),
            bypass: BoolParam::new("Bypass", false).make_bypass(),
        }
    }
}

fn amount(name: &str, default: f32) -> FloatParam {
    FloatParam::new(name, default, FloatRange::Linear { min: 0.0, max: 1.0 })
        .with_value_to_string(formatters::v2s_f32_rounded(2))
}

/// A gain of -60 to 12 dB, shown in dB.
fn gain(name: &str) -> FloatParam {
    let (min_db, max_db) = (-60.0, 12.0);
    let range = FloatRange::Skewed {
        min: util::db_to_gain(min_db),
        max: util::db_to_gain(max_db),
        factor: FloatRange::gain_skew_factor(min_db, max_db),
    };
    FloatParam::new(name, 1.0, range)
        .with_unit(" dB")
        .with_value_to_string(formatters::v2s_f32_gain_to_db(1))
        .with_string_to_value(formatters::s2v_f32_gain_to_db())
}
