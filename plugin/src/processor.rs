//! Where the plugin gets its remix from.

use model_runtime::worker::{ProcessorError, WindowProcessor};
use model_runtime::{Model, RemixStream, StreamSettings, Voice};

/// Makes the processor that a worker runs at the host's rate.
///
/// # Errors
///
/// When the built-in model cannot be used.
pub fn processor(sample_rate_hz: f32) -> Result<Box<dyn WindowProcessor>, ProcessorError> {
    let settings = StreamSettings {
        sample_rate_hz: sample_rate_hz.round() as u32,
        voice: Voice::Guided,
        transpose_semitones: 0,
    };
    Ok(Box::new(RemixStream::new(Model::built_in()?, settings)?))
}

/// The name of the model in use, for the editor.
pub fn model_name() -> String {
    Model::built_in().map_or_else(
        |error| error.to_string(),
        |model| model.header().card.name.clone(),
    )
}
