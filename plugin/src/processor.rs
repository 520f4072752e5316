//! Where the plugin gets its remix from.

use std::sync::Arc;

use model_runtime::freeze::FreezeStore;
use model_runtime::scope::Scope;
use model_runtime::worker::{ProcessorError, WindowProcessor};
use model_runtime::{ClassicStream, Model, RemixStream, StreamSettings, Voice};

use crate::setup::Setup;

/// Makes the processor that a worker runs at the host's rate. What is frozen is kept in `frozen`, and what it
/// hears and makes is shown in `scope`.
///
/// # Errors
///
/// When the model cannot be used.
pub fn processor(
    model: &Model,
    sample_rate_hz: f32,
    setup: &Setup,
    frozen: Arc<FreezeStore>,
    scope: Arc<Scope>,
) -> Result<Box<dyn WindowProcessor>, ProcessorError> {
    let sample_rate_hz = sample_rate_hz.round() as u32;
    if let Some(method) = setup.engine.method() {
        let stream = ClassicStream::new(method, sample_rate_hz)?;
        return Ok(Box::new(stream.with_scope(scope)?));
    }
    let settings = StreamSettings {
        sample_rate_hz,
        voice: Voice::Guided,
        mode: setup.mode,
    };
    let stream = RemixStream::new(model, settings)?;
    Ok(Box::new(stream.with_freeze_store(frozen).with_scope(scope)))
}
