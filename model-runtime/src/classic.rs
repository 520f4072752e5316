//! Runs the remixes without a network on the worker.

use std::sync::Arc;

use vocoder::classic::{COLOUR_BANDS, ClassicRemix, Method, Palette};
use vocoder::{AnalysisWindow, MelConfig};

use crate::clip_stream::{ClipStream, StreamState};
use crate::error::Result;
use crate::factor::Factor;
use crate::freeze::{FreezeStore, Holder};
use crate::geometry::LatencyMode;
use crate::scope::Scope;
use crate::sketch::Sketch;
use crate::voice::frame_controls;
use crate::window::Window;

/// Worker thread: remixes two stereo streams without a network, window by window. [`Method::Separation`] and
/// [`Method::Morphing`] ignore transposition and freezing; [`Method::Timbre`] transposes, and freezes colours.
pub struct ClassicStream {
    remix: ClassicRemix,
    /// The frozen colour, if the method has colours and they are kept.
    freeze_store: Option<Arc<FreezeStore>>,
    state: StreamState,
    sketch: Option<Sketch>,
    sample_rate_hz: u32,
}

impl ClassicStream {
    /// Creates a stream at its beginning. In Live, its windows have low delay; the other modes are the same.
    ///
    /// # Errors
    ///
    /// If the rate is out of range.
    pub fn new(method: Method, mode: LatencyMode, sample_rate_hz: u32) -> Result<Self> {
        let window = match mode {
            LatencyMode::Live => AnalysisWindow::LowDelay,
            LatencyMode::Default | LatencyMode::Full => AnalysisWindow::Symmetric,
        };
        let remix = ClassicRemix::new(method, window, sample_rate_hz, 2)?;
        let hop_samples = remix.hop_samples() as f64;
        let mut stream = Self {
            state: StreamState::new(hop_samples, remix.latency_samples(), sample_rate_hz, 2),
            remix,
            freeze_store: None,
            sketch: None,
            sample_rate_hz,
        };
        stream.restart();
        Ok(stream)
    }

    /// Keeps the frozen colour in `store`, so that it can be saved and loaded: for [`Method::Timbre`].
    #[must_use]
    pub fn with_freeze_store(mut self, store: Arc<FreezeStore>) -> Self {
        let holder = Holder::new(Factor::Timbre, COLOUR_BANDS, Arc::clone(&store));
        self.remix = self.remix.with_palette(Box::new(holder));
        self.freeze_store = Some(store);
        self
    }

    /// Writes log-mels of the inputs and the remix to `scope` while the editor watches.
    ///
    /// # Errors
    ///
    /// If the rate is out of range.
    pub fn with_scope(mut self, scope: Arc<Scope>) -> Result<Self> {
        self.sketch = Some(Sketch::new(scope, self.sample_rate_hz)?);
        Ok(self)
    }

    /// Draws the remix in the output queue, from sample `first` on.
    fn draw_remix(&mut self, first: usize) {
        if let Some(sketch) = &mut self.sketch {
            let output = &self.state.output;
            sketch.make([&output[0][first..], &output[1][first..]]);
        }
    }
}

impl Palette for Holder {
    fn colour(&mut self, is_frozen: bool, live: Option<&[f32]>) -> Option<&[f32]> {
        self.frame(is_frozen, live)
    }
}

impl ClipStream for ClassicStream {
    fn state(&self) -> &StreamState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut StreamState {
        &mut self.state
    }

    fn frame_seconds(&self) -> f64 {
        MelConfig::default().hop_seconds()
    }

    fn freeze_store(&self) -> Option<&Arc<FreezeStore>> {
        self.freeze_store.as_ref()
    }

    fn begin_clip(&mut self, position_samples: u64) {
        self.remix.reset();
        self.state.knobs.begin_clip(position_samples);
        if let Some(sketch) = &mut self.sketch {
            sketch.begin_clip();
        }
    }

    fn finish_clip(&mut self) -> Result<()> {
        let StreamState { knobs, output, .. } = &mut self.state;
        let made = output[0].len();
        let controls = |frame| frame_controls(&knobs.at(frame));
        self.remix.finish(controls, output)?;
        self.draw_remix(made);
        Ok(())
    }

    fn take(&mut self, window: &Window, first: usize) -> Result<()> {
        let sources = [&window.main, &window.sidechain]
            .map(|source| source.each_ref().map(|channel| &channel[first..]));
        let StreamState { knobs, output, .. } = &mut self.state;
        let hop_samples = self.remix.hop_samples() as f64;
        if let Some(sketch) = &mut self.sketch {
            sketch.hear(sources, |sample| knobs.beat_at(sample / hop_samples));
        }
        let controls = |frame| frame_controls(&knobs.at(frame));
        let made = output[0].len();
        let sources = [&sources[0][..], &sources[1][..]];
        self.remix.push(sources, controls, output)?;
        self.draw_remix(made);
        self.state.knobs.forget_before(self.remix.frames());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::Controls;
    use crate::freeze::FrozenLatents;
    use crate::gate::Gate;
    use crate::worker::WindowProcessor;
    use test_signals::noise;

    const RATE_HZ: u32 = 48_000;

    /// Plays two streams of main, the second from sample `seam` on, in windows of the given lengths in turn.
    fn play(
        method: Method,
        mode: LatencyMode,
        main: &[f32],
        seam: usize,
        lengths: &[usize],
    ) -> (Vec<f32>, usize) {
        let mut stream = ClassicStream::new(method, mode, RATE_HZ).unwrap();
        let interval = 256;
        let (mut out, mut start, mut stream_start) = (Vec::new(), 0, 0);
        for length in lengths.iter().copied().cycle() {
            if start == main.len() {
                break;
            }
            if start == seam {
                stream_start = start;
            }
            let limit = if start < seam { seam } else { main.len() };
            let end = (start + length).min(limit);
            let position = start - stream_start;
            let readings =
                (position..position + end - start).filter(|p| p.is_multiple_of(interval));
            let mut window = Window::new(end - start, interval);
            window.stream_position_samples = position as u64;
            window.controls = readings.map(|_| Controls::default()).collect();
            for channel in 0..2 {
                window.main[channel].copy_from_slice(&main[start..end]);
                window.sidechain[channel].fill(0.1);
            }
            let (mut left, mut right) = (vec![0.0; end - start], vec![0.0; end - start]);
            stream.process(&window, [&mut left, &mut right]).unwrap();
            out.extend(left);
            start = end;
        }
        (out, stream.latency_samples())
    }

    #[test]
    fn knobs_move_in_a_clip_that_begins_in_the_middle_of_a_stream() {
        let mut stream =
            ClassicStream::new(Method::Separation, LatencyMode::Default, RATE_HZ).unwrap();
        stream.reset();
        let samples = 1024;
        let mut out = vec![0.0; samples];
        for index in 0..40 {
            let knob = if index < 10 { 0.0 } else { 1.0 };
            let controls = Controls::default()
                .with_share(Factor::Harmony, knob)
                .with_share(Factor::Rhythm, knob);
            let mut window = Window::new(samples, 256);
            window.stream_position_samples = (100 + index) * samples as u64;
            window.controls.fill(controls);
            window
                .main
                .iter_mut()
                .for_each(|channel| channel.fill(-0.2));
            let sidechain = window.sidechain.iter_mut();
            sidechain.for_each(|channel| channel.fill(0.1));
            let mut right = vec![0.0; samples];
            stream.process(&window, [&mut out, &mut right]).unwrap();
        }
        assert!(out.iter().all(|x| (x - 0.1).abs() < 1e-4), "{}", out[0]);
    }

    /// One second of sound, four of silence, one of sound on the sidechain, in windows of a length; main sounds all the time.
    fn play_with_a_rest(window_samples: usize) -> (Vec<f32>, Vec<usize>) {
        let main = noise(1, 6 * RATE_HZ as usize);
        let mut stream =
            ClassicStream::new(Method::Separation, LatencyMode::Default, RATE_HZ).unwrap();
        let mut gate = Gate::new(RATE_HZ);
        let (mut out, mut frames) = (Vec::new(), Vec::new());
        for (start, main) in (0..)
            .step_by(window_samples)
            .zip(main.chunks(window_samples))
        {
            let mut window = Window::new(main.len(), 1);
            window.stream_position_samples = start as u64;
            for channel in 0..2 {
                window.main[channel].copy_from_slice(main);
                for (n, sample) in window.sidechain[channel].iter_mut().enumerate() {
                    let second = (start + n) / RATE_HZ as usize;
                    *sample = if (1..5).contains(&second) { 0.0 } else { 0.1 };
                }
            }
            for (remixed, &sample) in window.remixed.iter_mut().zip(&window.sidechain[0]) {
                *remixed = gate.next([sample; 2]);
            }
            let (mut left, mut right) = (main.to_vec(), main.to_vec());
            stream.process(&window, [&mut left, &mut right]).unwrap();
            out.extend(left);
            frames.push(stream.remix.frames());
        }
        (out, frames)
    }

    #[test]
    fn it_rests_while_the_sidechain_is_silent_and_begins_anew_wherever_windows_end() {
        let (out, frames) = play_with_a_rest(1000);
        let (cut, _) = play_with_a_rest(777);
        // The stream goes idle in between, at the end of a window; there, the audio thread plays the main input.
        let place = |seconds: f64| (seconds * f64::from(RATE_HZ)) as usize;
        assert!(out[..place(3.0)] == cut[..place(3.0)]);
        assert!(out[place(3.5)..] == cut[place(3.5)..]);
        let at = |seconds: f64| frames[place(seconds) / 1000];
        assert!(at(1.5) > 0);
        assert_eq!(at(4.9), 0, "frames while it should rest");
        assert!(at(5.9) > 0);
        let heard = |from: f64| &out[place(from)..][..1000];
        assert!(heard(4.9).iter().all(|&x| x == 0.0));
        assert!(heard(5.8).iter().any(|&x| x != 0.0));
    }

    /// Six seconds of the method Timbre, whose knobs move, in windows of the given lengths in turn. The sidechain sounds in the
    /// first second and the last one; the colour is frozen in between for a while; the host jumps in the last second.
    fn play_timbre(mode: LatencyMode, lengths: &[usize]) -> (Vec<f32>, FrozenLatents) {
        const INTERVAL: usize = 256;
        let place = |seconds: f64| (seconds * f64::from(RATE_HZ)) as usize;
        let (samples, seam) = (place(6.0), place(5.5));
        let main = noise(1, samples);
        let mut sidechain = noise(2, samples);
        sidechain[place(1.0)..place(5.0)].fill(0.0);
        let controls = |n: usize| {
            let seconds = n as f32 / RATE_HZ as f32;
            let mut controls = Controls {
                transpose_semitones: (seconds as i32 + 3) % 4 - 1,
                ..Controls::default()
                    .with_share(Factor::Timbre, (0.9 * seconds).fract())
                    .with_share(Factor::Pitch, (0.7 * seconds).fract())
                    .with_share(Factor::Variation, 0.5 * (0.4 * seconds).fract())
            };
            let is_frozen = (place(0.5)..place(2.0)).contains(&n) || n >= place(5.6);
            controls[Factor::Timbre].loop_beats = is_frozen.then_some(1.0);
            controls
        };
        let store = Arc::<FreezeStore>::default();
        let mut stream = ClassicStream::new(Method::Timbre, mode, RATE_HZ)
            .unwrap()
            .with_freeze_store(Arc::clone(&store));
        let mut gate = Gate::new(RATE_HZ);
        gate.set_loops(Arc::clone(&store));
        gate.begin_block();
        let mut out = Vec::new();
        let mut start = 0;
        for length in lengths.iter().copied().cycle() {
            if start == samples {
                break;
            }
            let limit = if start < seam { seam } else { samples };
            let stream_start = if start < seam { 0 } else { seam };
            let end = (start + length).min(limit);
            let mut window = Window::new(end - start, INTERVAL);
            window.stream_position_samples = (start - stream_start) as u64;
            let readings = (start..end).filter(|n| (n - stream_start).is_multiple_of(INTERVAL));
            window.controls = readings.map(controls).collect();
            let samples = sidechain[start..end].iter().zip(&mut window.remixed);
            for (n, (&sample, remixed)) in (start..).zip(samples) {
                gate.set_controls(&controls(n));
                *remixed = gate.next([sample; 2]);
            }
            for channel in 0..2 {
                window.main[channel].copy_from_slice(&main[start..end]);
                window.sidechain[channel].copy_from_slice(&sidechain[start..end]);
            }
            let (mut left, mut right) = (vec![0.0; end - start], vec![0.0; end - start]);
            stream.process(&window, [&mut left, &mut right]).unwrap();
            assert!(left.iter().all(|x| x.is_finite()));
            out.extend(left);
            start = end;
        }
        (out, store.get())
    }

    #[test]
    fn timbre_sounds_the_same_in_any_windows_through_rest_jump_and_freeze() {
        for mode in LatencyMode::ALL {
            let (whole, frozen) = play_timbre(mode, &[2000]);
            let held = frozen.0.get(Factor::Timbre).unwrap();
            assert_eq!((held.frames, held.values.len()), (1, COLOUR_BANDS));
            let (cut, frozen_cut) = play_timbre(mode, &[100, 1, 777]);
            assert!(frozen == frozen_cut);
            // In between it goes to rest at the end of a window, and the audio thread plays the main input.
            let place = |seconds: f64| (seconds * f64::from(RATE_HZ)) as usize;
            assert!(whole[..place(3.0)] == cut[..place(3.0)], "{mode:?}");
            assert!(whole[place(3.6)..] == cut[place(3.6)..], "{mode:?}");
            let sounds = |from: f64, to: f64| {
                let heard = &whole[place(from)..place(to)];
                heard.iter().map(|x| x * x).sum::<f32>() > 1.0
            };
            assert!(sounds(0.2, 0.4) && sounds(1.5, 1.9) && sounds(5.3, 5.5) && sounds(5.8, 6.0));
            assert!(whole[place(4.0)..place(5.0)].iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn with_all_knobs_on_main_it_comes_out_after_the_latency_over_a_seam_and_however_it_is_cut() {
        let main = noise(1, 40_000);
        for mode in LatencyMode::ALL {
            for method in [Method::Separation, Method::Timbre] {
                let (out, latency) = play(method, mode, &main, 17_000, &[1024]);
                assert!(out[..latency].iter().all(|&x| x == 0.0));
                for (n, (x, y)) in out[latency..].iter().zip(&main).enumerate() {
                    assert!((x - y).abs() < 1e-4, "{method:?}, {n}: {x} for {y}");
                }
            }
            for method in [Method::Separation, Method::Morphing, Method::Timbre] {
                let (whole, _) = play(method, mode, &main, 17_000, &[2000]);
                let (cut, _) = play(method, mode, &main, 17_000, &[100, 1, 777]);
                assert!(whole == cut, "{method:?}");
            }
        }
    }
}
