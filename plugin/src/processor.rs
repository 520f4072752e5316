//! Where the plugin gets its remix from.

use std::sync::Arc;

use model_runtime::freeze::FreezeStore;
use model_runtime::worker::{ProcessorError, WindowProcessor};
use model_runtime::{LatencyMode, Model, RemixStream, StreamSettings, Voice};

/// Makes the processor that a worker runs at the host's rate in a latency mode. What is frozen is kept in `frozen`.
///
/// # Errors
///
/// When the built-in model cannot be used.
pub fn processor(
    sample_rate_hz: f32,
    mode: LatencyMode,
    frozen: Arc<FreezeStore>,
) -> Result<Box<dyn WindowProcessor>, ProcessorError> {
    let settings = StreamSettings {
        sample_rate_hz: sample_rate_hz.round() as u32,
        voice: Voice::Guided,
        mode,
    };
    let stream = RemixStream::new(&*Model::built_in()?, settings)?;
    Ok(Box::new(stream.with_freeze_store(frozen)))
}

/// The name of the model in use, for the editor.
pub fn model_name() -> String {
    Model::built_in().map_or_else(
        |error| error.to_string(),
        |model| model.header().card.name.clone(),
    )
}
