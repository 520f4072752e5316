//! The plugin's parameters.

use nice_plug::prelude::*;

use crate::editor::EditorSize;

const SMOOTHING_MS: f32 = 20.0;

/// All that the host automates and saves.
#[derive(Params)]
pub struct GraftParams {
    /// Size of the editor's window.
    #[persist = "editor-size"]
    pub editor_size: EditorSize,

    /// Where the harmony comes from: 0 main, 1 sidechain.
    #[id = "harmony"]
    pub harmony: FloatParam,
    /// Where the rhythm comes from: 0 main, 1 sidechain.
    #[id = "rhythm"]
    pub rhythm: FloatParam,
    /// Whether Rhythm follows Harmony.
    #[id = "link"]
    pub link: BoolParam,
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
            editor_size: EditorSize::default(),
            harmony: amount("Harmony", 0.0),
            rhythm: amount("Rhythm", 1.0),
            link: BoolParam::new("Link", false),
            main_gain: gain("Main Gain"),
            sidechain_gain: gain("Sidechain Gain"),
            mix: amount("Mix", 1.0),
            output_gain: gain("Output Gain"),
            bypass: BoolParam::new("Bypass", false).make_bypass(),
        }
    }
}

impl GraftParams {
    /// Audio thread: lets every smoothed parameter be where it is going.
    pub fn skip_smoothing(&self) {
        for param in [
            &self.harmony,
            &self.rhythm,
            &self.main_gain,
            &self.sidechain_gain,
            &self.mix,
            &self.output_gain,
        ] {
            param.smoothed.reset(param.value());
        }
    }
}

fn amount(name: &str, default: f32) -> FloatParam {
    FloatParam::new(name, default, FloatRange::Linear { min: 0.0, max: 1.0 })
        .with_smoother(SmoothingStyle::Linear(SMOOTHING_MS))
        .with_value_to_string(formatters::v2s_f32_rounded(2))
}

/// A gain of -60 to 12 dB, smoothed as a factor and shown in dB.
fn gain(name: &str) -> FloatParam {
    let (min_db, max_db) = (-60.0, 12.0);
    let range = FloatRange::Skewed {
        min: util::db_to_gain(min_db),
        max: util::db_to_gain(max_db),
        factor: FloatRange::gain_skew_factor(min_db, max_db),
    };
    FloatParam::new(name, 1.0, range)
        .with_smoother(SmoothingStyle::Logarithmic(SMOOTHING_MS))
        .with_unit(" dB")
        .with_value_to_string(formatters::v2s_f32_gain_to_db(1))
        .with_string_to_value(formatters::s2v_f32_gain_to_db())
}
