//! Common parts of the streams with and without a network. A stream is a sequence of clips. A clip begins after a jump,
//! or with the first sample of the remix after a rest.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::freeze::FreezeStore;
use crate::geometry::StreamLatency;
use crate::knobs::Knobs;
use crate::rest::{Rest, Step};
use crate::window::Window;
use crate::worker::{ProcessorError, WindowProcessor};

/// State that a stream keeps from clip to clip.
pub(crate) struct StreamState {
    pub(crate) knobs: Knobs,
    pub(crate) latency_samples: usize,
    /// Output queue, one per channel. It starts with silence for the latency of the stream.
    pub(crate) output: Vec<Vec<f32>>,
    rest: Rest,
}

impl StreamState {
    /// Creates the state of a stream with this latency that reads its knobs once per frame. Frames are `hop_samples`
    /// apart. Call [`ClipStream::restart`] first.
    pub(crate) fn new(
        hop_samples: f64,
        latency_samples: usize,
        sample_rate_hz: u32,
        channels: usize,
    ) -> Self {
        Self {
            knobs: Knobs::new(hop_samples),
            latency_samples,
            output: vec![Vec::new(); channels],
            rest: Rest::new(latency_samples, sample_rate_hz),
        }
    }

    /// Moves the first samples of the output queue to the remix of a window, one slice per channel.
    pub(crate) fn hand_out<'a>(
        &mut self,
        remix: impl IntoIterator<Item = &'a mut [f32]>,
    ) -> Result<()> {
        for (out, ready) in remix.into_iter().zip(&mut self.output) {
            let samples = out.len();
            if ready.len() < samples {
                return Err(Error::input("remixed samples", samples, ready.len()));
            }
            out.copy_from_slice(&ready[..samples]);
            ready.drain(..samples);
        }
        Ok(())
    }
}

/// A stream of clips.
pub(crate) trait ClipStream {
    fn state(&self) -> &StreamState;

    fn state_mut(&mut self) -> &mut StreamState;

    /// Time between frames.
    fn frame_seconds(&self) -> f64;

    /// The terms of the latency, if they are known one by one.
    fn latency_terms(&self) -> Option<StreamLatency> {
        None
    }

    /// The frozen loops, if the stream plays them.
    fn freeze_store(&self) -> Option<&Arc<FreezeStore>> {
        None
    }

    /// Begins a new clip, this many samples after the last jump, and forgets the clip before. The output queue stays.
    fn begin_clip(&mut self, position_samples: u64);

    /// Ends the clip and appends its remaining output.
    fn finish_clip(&mut self) -> Result<()>;

    /// Takes the samples of a window from number `first` on, and appends the output that they complete.
    fn take(&mut self, window: &Window, first: usize) -> Result<()>;

    /// Processes a window.
    fn push(&mut self, window: &Window) -> Result<()> {
        if window.stream_position_samples == 0 {
            if !self.state_mut().rest.is_asleep() {
                self.finish_clip()?;
                self.begin_clip(0);
            }
            self.state_mut().knobs.begin_stream();
        }
        let state = self.state_mut();
        state.knobs.read(window);
        let was_asleep = state.rest.is_asleep();
        let Step::Rest { idle_samples } = state.rest.listen(window) else {
            return self.take(window, 0);
        };
        if !was_asleep {
            self.fall_silent();
        }
        let end = window.stream_position_samples + idle_samples as u64;
        let state = self.state_mut();
        state.knobs.forget_before_sample(end);
        for channel in &mut state.output {
            channel.resize(channel.len() + idle_samples, 0.0);
        }
        if idle_samples == window.samples() {
            return Ok(());
        }
        self.begin_clip(end);
        self.take(window, idle_samples)
    }

    /// Ends the last clip, if there is one. The output queue then holds the rest of the output, as long as the latency.
    fn finish(&mut self) -> Result<()> {
        match self.state().rest.is_asleep() {
            true => Ok(()),
            false => self.finish_clip(),
        }
    }

    /// Returns to the initial state.
    fn restart(&mut self) {
        self.fall_silent();
        let state = self.state_mut();
        state.rest.reset();
        state.knobs.begin_stream();
    }

    /// Forgets all input, as if silence followed.
    fn fall_silent(&mut self) {
        self.begin_clip(0);
        let state = self.state_mut();
        for channel in &mut state.output {
            channel.clear();
            channel.resize(state.latency_samples, 0.0);
        }
    }
}

impl<S: ClipStream + Send> WindowProcessor for S {
    fn latency_samples(&self) -> usize {
        self.state().latency_samples
    }

    fn latency_terms(&self) -> Option<StreamLatency> {
        ClipStream::latency_terms(self)
    }

    fn frame_seconds(&self) -> f64 {
        ClipStream::frame_seconds(self)
    }

    fn freeze_store(&self) -> Option<&Arc<FreezeStore>> {
        ClipStream::freeze_store(self)
    }

    fn reset(&mut self) {
        self.restart();
    }

    fn process(
        &mut self,
        window: &Window,
        remix: [&mut [f32]; 2],
    ) -> std::result::Result<(), ProcessorError> {
        self.push(window)?;
        Ok(self.state_mut().hand_out(remix)?)
    }
}
