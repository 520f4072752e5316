//! What streams have in common, with or without a network: a stream is a row of clips, each of which begins after a jump or with
//! the sidechain's first sound after a rest.

use crate::error::{Error, Result};
use crate::knobs::Knobs;
use crate::rest::{Rest, Step};
use crate::window::Window;
use crate::worker::{ProcessorError, WindowProcessor};

/// What every stream keeps from clip to clip.
pub(crate) struct StreamState {
    pub(crate) knobs: Knobs,
    pub(crate) latency_samples: usize,
    /// Stereo samples that wait to be handed out. The stream begins with as many as its latency.
    pub(crate) output: [Vec<f32>; 2],
    rest: Rest,
}

impl StreamState {
    /// For a stream of that latency, which has to [`ClipStream::restart`] first, that reads its knobs with each of its frames, which are `hop_samples` apart.
    pub(crate) fn new(hop_samples: f64, latency_samples: usize, sample_rate_hz: u32) -> Self {
        Self {
            knobs: Knobs::new(hop_samples),
            latency_samples,
            output: Default::default(),
            rest: Rest::new(latency_samples, sample_rate_hz),
        }
    }

    /// Moves the first samples of what waits to a window's remix.
    pub(crate) fn hand_out(&mut self, remix: [&mut [f32]; 2]) -> Result<()> {
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

    /// Time from one frame to the next.
    fn frame_seconds(&self) -> f64;

    /// Forgets the clip before and begins one, so many samples after the last jump. What waits to be handed out stays.
    fn begin_clip(&mut self, position_samples: u64);

    /// Ends the clip: what it has not given yet is put out.
    fn finish_clip(&mut self) -> Result<()>;

    /// Takes the samples of a window from number `first` on, and puts out what they complete.
    fn take(&mut self, window: &Window, first: usize) -> Result<()>;

    /// Takes a window.
    fn push(&mut self, window: &Window) -> Result<()> {
        if window.stream_position_samples == 0 {
            if !self.state_mut().rest.is_asleep() {
                self.finish_clip()?;
                self.begin_clip(0);
            }
            self.state_mut().rest.begin_stream();
            self.state_mut().knobs.begin_stream();
        }
        let state = self.state_mut();
        state.knobs.read(window);
        let was_asleep = state.rest.is_asleep();
        let Step::Rest { silent_samples } = state.rest.listen(window) else {
            return self.take(window, 0);
        };
        if !was_asleep {
            self.fall_silent();
        }
        let end = window.stream_position_samples + silent_samples as u64;
        let state = self.state_mut();
        state.knobs.forget_before_sample(end);
        for channel in &mut state.output {
            channel.resize(channel.len() + silent_samples, 0.0);
        }
        if silent_samples == window.samples() {
            return Ok(());
        }
        self.begin_clip(end);
        self.take(window, silent_samples)
    }

    /// Goes back to the beginning.
    fn restart(&mut self) {
        self.fall_silent();
        let state = self.state_mut();
        state.rest.reset();
        state.knobs.begin_stream();
    }

    /// Forgets the past: silence follows.
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

    fn frame_seconds(&self) -> f64 {
        ClipStream::frame_seconds(self)
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
