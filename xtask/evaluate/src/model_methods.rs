//! The methods that need a model: its voices, and its decoded mel.

use anyhow::Result;
use model_runtime::{
    AudioClip, Controls, Factor, LatencyMode, Model, RemixSettings, Remixer, Voice,
};

use crate::decoded::MelDecoder;
use crate::method::Method;

/// Names of the plain voices.
const GUIDED: &str = "guided";
const GRIFFIN_LIM: &str = "Griffin-Lim";
const GENERATED: &str = "HiFi-GAN";

/// End of the name of a row with harmony and rhythm swapped.
pub const SWAPPED: &str = "harmony of B with rhythm of A";

/// The decoded mel, each voice, and harmony and rhythm swapped. `name` is that of the model.
///
/// # Errors
///
/// Returns an error if the model cannot be used in this mode.
pub fn all<'a>(
    name: &str,
    model: &Model,
    remixer: &'a Remixer,
    mode: LatencyMode,
) -> Result<Vec<Method<'a>>> {
    let mut methods = vec![decoded_mel(name, model, mode)?];
    let voices = voices(model, mode).into_iter();
    methods.extend(voices.map(|(voice, settings)| {
        Method::new(&voice_row(name, voice), remix(remixer, settings)).reconstructing()
    }));
    let swapped = RemixSettings {
        controls: Controls::default().with_share(Factor::Harmony, 1.0),
        mode,
        ..RemixSettings::default()
    };
    methods.push(Method::new(&swapped_row(name), remix(remixer, swapped)));
    Ok(methods)
}

/// The methods that are measured at all levels: the decoded mel, the guided voice, and the generated one if there is one.
///
/// # Errors
///
/// Returns an error if the model cannot be used in this mode.
pub fn at_levels<'a>(
    name: &str,
    model: &Model,
    remixer: &'a Remixer,
    mode: LatencyMode,
) -> Result<Vec<Method<'a>>> {
    let mut methods = vec![decoded_mel(name, model, mode)?];
    let voices = voices(model, mode).into_iter();
    let voices = voices.filter(|(voice, _)| [GUIDED, GENERATED].contains(voice));
    methods.extend(
        voices.map(|(voice, settings)| {
            Method::new(&voice_row(name, voice), remix(remixer, settings))
        }),
    );
    Ok(methods)
}

/// Name of the row of the guided voice.
pub fn guided_row(model: &str) -> String {
    voice_row(model, GUIDED)
}

/// Name of the row with harmony and rhythm swapped.
pub fn swapped_row(model: &str) -> String {
    format!("{}, {SWAPPED}", guided_row(model))
}

fn voice_row(model: &str, voice: &str) -> String {
    format!("{model}, {voice} voice")
}

fn decoded_mel(name: &str, model: &Model, mode: LatencyMode) -> Result<Method<'static>> {
    let decoder = MelDecoder::new(model, mode)?;
    let decode = move |a: &AudioClip, b: &AudioClip| decoder.decode(a, b, Factor::Rhythm);
    Ok(Method::of_mels(&format!("{name}, decoded mel"), decode).reconstructing())
}

fn remix(
    remixer: &Remixer,
    settings: RemixSettings,
) -> impl Fn(&AudioClip, &AudioClip) -> Result<AudioClip> + Sync {
    move |a, b| Ok(remixer.remix(a, b, &settings)?)
}

/// The voices of a model and the remix settings for each.
fn voices(model: &Model, mode: LatencyMode) -> Vec<(&'static str, RemixSettings)> {
    let settings = RemixSettings {
        mode,
        ..RemixSettings::default()
    };
    let griffin_lim = RemixSettings {
        voice: Voice::GriffinLim,
        ..settings
    };
    let mut voices = vec![(GUIDED, settings), (GRIFFIN_LIM, griffin_lim)];
    if model.header().generator.is_some() && mode.has_generated_voice() {
        for (name, generated) in [(GENERATED, 1.0), ("half guided, half HiFi-GAN", 0.5)] {
            let controls = Controls {
                generated,
                ..settings.controls
            };
            let settings = RemixSettings {
                controls,
                ..settings
            };
            voices.push((name, settings));
        }
    }
    voices
}
