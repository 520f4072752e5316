//! Where the plugin gets its remix from.

use model_runtime::delay::Delay;
use model_runtime::packet::Window;
use model_runtime::worker::{ProcessorError, WindowProcessor};

/// Makes the processor that a worker runs, for windows of `window_samples` at the host's rate.
///
/// # Errors
///
/// When the built-in model cannot be used.
pub fn processor(
    sample_rate_hz: f32,
    window_samples: usize,
) -> Result<Box<dyn WindowProcessor>, ProcessorError> {
    let _ = window_samples;
    Ok(Box::new(Stub {
        delay: Delay::new((0.1 * sample_rate_hz) as usize),
    }))
}

/// The name of the model in use, for the editor.
pub fn model_name() -> &'static str {
    "none"
}

/// Stands in for the remix until it is there.
struct Stub {
    delay: Delay<[f32; 2]>,
}

impl WindowProcessor for Stub {
    fn latency_samples(&self) -> usize {
        self.delay.samples()
    }

    fn reset(&mut self, _position_samples: u64) {
        self.delay.reset();
    }

    fn process(
        &mut self,
        window: &Window,
        [left, right]: [&mut [f32]; 2],
    ) -> Result<(), ProcessorError> {
        for i in 0..window.samples() {
            let controls = window.controls[i / window.control_interval_samples];
            let mixed = |channel: usize| {
                window.main[channel][i] * (1.0 - controls.harmony)
                    + window.sidechain[channel][i] * controls.rhythm
            };
            [left[i], right[i]] = self.delay.push([mixed(0), mixed(1)]);
        }
        Ok(())
    }
}
