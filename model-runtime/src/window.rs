//! The input of one window, on its way from the audio thread to the worker.

use crate::controls::Controls;
use crate::sample::{Input, finite_or_zero};

/// Input of one window, processed by a [`crate::worker::WindowProcessor`].
#[derive(Debug)]
pub struct Window {
    /// The main input, left and right.
    pub main: [Vec<f32>; 2],
    /// The sidechain, left and right, as long as the main input; zeros if it is missing.
    pub sidechain: [Vec<f32>; 2],
    /// Whether the remix plays at each sample, as long as the inputs. Elsewhere the main input plays, and the stream may
    /// rest.
    pub remixed: Vec<bool>,
    /// Samples of the stream before this window. At 0, a new stream begins, which uses no earlier audio.
    pub stream_position_samples: u64,
    /// The controls at stream positions that are multiples of `control_interval_samples`.
    pub controls: Vec<Controls>,
    /// Distance between the entries of `controls`.
    pub control_interval_samples: usize,
}

impl Window {
    /// A silent window of `samples` samples, all of them remixed, the first of a stream.
    pub fn new(samples: usize, control_interval_samples: usize) -> Self {
        Self {
            main: stereo(samples),
            sidechain: stereo(samples),
            remixed: vec![true; samples],
            stream_position_samples: 0,
            controls: vec![Controls::default(); samples.div_ceil(control_interval_samples)],
            control_interval_samples,
        }
    }

    /// Length in samples.
    pub fn samples(&self) -> usize {
        self.main[0].len()
    }

    /// Audio thread: clears the window and keeps its memory.
    pub(crate) fn begin(&mut self, stream_position_samples: u64) {
        for channel in self.main.iter_mut().chain(&mut self.sidechain) {
            channel.clear();
        }
        self.remixed.clear();
        self.controls.clear();
        self.stream_position_samples = stream_position_samples;
    }

    /// Audio thread: appends samples, and whether the remix plays there. The window has memory for `window_samples` of
    /// them.
    pub(crate) fn extend(&mut self, inputs: &[Input], remixed: &[bool]) {
        self.remixed.extend_from_slice(remixed);
        for channel in 0..2 {
            let main = inputs.iter().map(|input| input.main[channel]);
            let sidechain = inputs.iter().map(|input| input.sidechain[channel]);
            self.main[channel].extend(main.map(finite_or_zero));
            self.sidechain[channel].extend(sidechain.map(finite_or_zero));
        }
    }
}

/// Silence, left and right.
pub(crate) fn stereo(samples: usize) -> [Vec<f32>; 2] {
    [vec![0.0; samples], vec![0.0; samples]]
}
