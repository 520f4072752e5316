//! Exchanges audio between the audio thread and the worker.
//!
//! ```text
//! host samples -> AudioPort -> full windows -> WorkerPort -> WindowProcessor
//! host samples <- AudioPort <- remixed windows <- WorkerPort <-'
//! ```
//!
//! The audio thread collects its input into windows, each in a preallocated packet, and sends them to the worker
//! through a wait-free queue. A second queue returns them with the remix, which is played at a constant latency
//! ([`Geometry::latency_samples`]). Windows end on the host's beat grid if there is one ([`crate::transport`]); the
//! latency is sized for the longest window. All decisions are made per sample: as long as no window is late, the output
//! does not depend on the host's block sizes.
//!
//! If a window is late, the main input plays instead, delayed by the same latency, with short crossfades. The late part
//! of the window is dropped, so the latency never grows.
//!
//! At a jump (the transport starts, stops or relocates), one stream ends and the next begins. The remix fades out and
//! in around it; the output after a jump uses only audio from after it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::f32::consts::PI;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::controls::Controls;
use crate::credit::{Clock, Credit};
use crate::delay::Delay;
use crate::freeze::FreezeStore;
use crate::gate::Gate;
use crate::geometry::{Geometry, GeometryError};
use crate::sample::{Input, Output, finite_or_zero};
use crate::status::Status;
use crate::transport::{Timeline, Transport, window_end_beats};
use crate::window::{Window, stereo};

/// Windows on the beat grid can be shorter than the maximum, so more of them may be in flight.
const SHORT_WINDOWS: usize = 2;

/// Packets in addition to those needed when one window is late.
const SPARE_PACKETS: usize = 4;

/// Shortest stream between two jumps of the transport. Jumps in faster succession count as one.
const SHORTEST_STREAM_SECONDS: f64 = 0.1;

/// Longest run of samples that are processed together.
const RUN_SAMPLES: usize = 64;

/// How long the audio thread sleeps at a time while it waits.
const WAIT_STEP: Duration = Duration::from_micros(200);

/// One window on its way to the worker and back.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) window: Window,
    /// The processor's output for the window, left and right, as long as the window.
    pub(crate) remix: [Vec<f32>; 2],
    /// Number of resets so far. A packet of an older generation is stale.
    pub(crate) generation: u64,
    /// Number of the window since the reset.
    pub(crate) sequence: u64,
    /// Number of its first sample since the reset.
    pub(crate) start: u64,
    /// Whether `remix` may be played: false after a fault and while the processor recovers from one.
    pub(crate) usable: bool,
}

/// State that both ports share.
#[derive(Debug)]
struct Shared {
    generation: AtomicU64,
    status: Arc<Status>,
}

/// Creates the two ends of an exchange. `clock` tells the audio thread how far the host is ahead of real time.
///
/// # Errors
///
/// If a term of the geometry is too short.
pub fn exchange<C: Clock>(
    geometry: &Geometry,
    clock: C,
    status: Arc<Status>,
) -> Result<(AudioPort<C>, WorkerPort), GeometryError> {
    geometry.validate()?;
    let packets = SHORT_WINDOWS * geometry.windows_in_use() + SPARE_PACKETS;
    let (to_worker, from_audio) = RingBuffer::new(packets);
    let (to_audio, from_worker) = RingBuffer::new(packets);
    let shared = Arc::new(Shared {
        generation: AtomicU64::new(0),
        status,
    });
    let packet = || Packet {
        window: Window::new(geometry.window_samples, geometry.control_interval_samples),
        remix: stereo(geometry.window_samples),
        generation: 0,
        sequence: 0,
        start: 0,
        usable: false,
    };
    let mut free = Vec::with_capacity(packets);
    free.extend((0..packets).map(|_| packet()));
    let fade_samples = geometry.fade_samples();
    let seconds = |seconds: f64| (seconds * f64::from(geometry.sample_rate_hz)) as usize;
    let shortest_stream_samples = seconds(SHORTEST_STREAM_SECONDS).max(1);
    let audio = AudioPort {
        shared: Arc::clone(&shared),
        to_worker,
        from_worker,
        free,
        at_worker: 0,
        slots: VecDeque::with_capacity(2 * packets),
        first_sequence: 0,
        due_sequence: 0,
        ready_sequence: 0,
        open: None,
        timeline: Timeline::new(f64::from(geometry.sample_rate_hz)),
        window_beats: None,
        stream_position: 0,
        next_reading: 0,
        shortest_stream_samples,
        jump_pending: false,
        seams: VecDeque::with_capacity(geometry.latency_samples() / shortest_stream_samples + 4),
        position: 0,
        quiet_samples: 0,
        fade: (0..=fade_samples)
            .map(|step| 0.5 - 0.5 * (PI * step as f32 / fade_samples as f32).cos())
            .collect(),
        remix_fade: fade_samples,
        gate: Gate::new(geometry.sample_rate_hz.round() as u32),
        gate_fade: 0,
        main: Delay::new(geometry.latency_samples()),
        credit: Credit::new(geometry.max_block_seconds()),
        patient: false,
        clock,
        geometry: geometry.clone(),
        not_sync: PhantomData,
    };
    let worker = WorkerPort {
        shared,
        from_audio,
        to_audio,
        geometry: geometry.clone(),
    };
    Ok((audio, worker))
}

/// Audio thread: a sample of the dry path, with the gain of the remix.
#[derive(Clone, Copy, Debug, Default)]
struct Dry {
    main: [f32; 2],
    remix_gain: f32,
}

/// Audio thread: a window in flight, from the first input sample to the last sample that is played.
#[derive(Debug)]
struct Slot {
    /// Number of its first sample since the reset.
    start: usize,
    /// Number of the first sample after it; unknown while the window is being filled.
    end: usize,
    /// Present once it is back.
    packet: Option<Packet>,
}

impl Slot {
    fn is_usable(&self) -> bool {
        self.packet.as_ref().is_some_and(|packet| packet.usable)
    }
}

/// Audio thread: the window being filled.
#[derive(Debug)]
struct OpenWindow {
    start: usize,
    /// Where it ends, if it ends on a beat.
    end_beats: Option<f64>,
    /// None if no packet was free: the window is lost, and its remix counts as late.
    packet: Option<Packet>,
}

/// Audio thread: the host's end of the exchange.
///
/// `Send`, so that another thread can create it, but not `Sync`. [`Self::process`] and the other methods never
/// allocate, lock, log or wake a thread. They wait only as described in [`crate::credit`].
#[derive(Debug)]
pub struct AudioPort<C: Clock> {
    geometry: Geometry,
    shared: Arc<Shared>,
    to_worker: Producer<Packet>,
    from_worker: Consumer<Packet>,
    clock: C,
    credit: Credit,
    /// Whether to wait for late windows without limit.
    patient: bool,

    /// Packets that are not in use.
    free: Vec<Packet>,
    /// Packets with the worker or in a queue.
    at_worker: usize,
    /// Windows from the one being played to the one being filled; the first has number `first_sequence`. There are
    /// twice as many slots as packets. Beyond that, windows are merged with the last one, which is lost.
    slots: VecDeque<Slot>,
    first_sequence: u64,
    /// The first window that is not due yet.
    due_sequence: u64,
    /// The first window that must not be played yet.
    ready_sequence: u64,
    open: Option<OpenWindow>,

    timeline: Timeline,
    window_beats: Option<f64>,
    /// Samples since the stream began.
    stream_position: usize,
    /// Position in the stream where the controls are read next.
    next_reading: usize,
    shortest_stream_samples: usize,
    /// Whether the transport jumped while the stream was still too short to end.
    jump_pending: bool,
    /// Numbers of the first samples of the streams whose remix has not played yet, except the first one.
    seams: VecDeque<usize>,

    /// Samples received since the reset.
    position: usize,
    /// Number of coming samples for which no decision is due.
    quiet_samples: usize,
    /// Raised cosine from 0 to 1 in `fade_samples` steps; the two `_fade` fields are indices into it.
    fade: Vec<f32>,
    remix_fade: usize,
    gate: Gate,
    gate_fade: usize,
    main: Delay<Dry>,
    not_sync: PhantomData<Cell<()>>,
}

impl<C: Clock> AudioPort<C> {
    /// The lengths of this exchange.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Sets whether to wait for a late window without limit. Only for hosts that reliably report offline rendering;
    /// otherwise the port waits only as long as the host is ahead of real time.
    pub fn set_patient(&mut self, patient: bool) {
        self.patient = patient;
    }

    /// Sets the grid on which windows end, from the next one on: multiples of this many quarter notes, or of the
    /// largest power-of-two division that fits the longest window. With `None`, or if the host reports no beats,
    /// windows run free.
    pub fn set_window_beats(&mut self, beats: Option<f64>) {
        self.window_beats = beats.filter(|&beats| beats > 0.0);
    }

    /// Lets frozen factors keep the remix playing without a sidechain: those of the processor that keeps its loops in
    /// `store` ([`crate::worker::WindowProcessor::freeze_store`]).
    pub fn set_freeze_store(&mut self, store: Arc<FreezeStore>) {
        self.gate.set_loops(store);
    }

    /// Resets: the next sample begins a new stream, and nothing of the old one is played.
    pub fn reset(&mut self) {
        let generation = self.shared.generation.load(Ordering::Relaxed) + 1;
        self.shared.generation.store(generation, Ordering::Release);
        self.free
            .extend(self.open.take().and_then(|open| open.packet));
        while let Some(slot) = self.slots.pop_front() {
            self.free.extend(slot.packet);
        }
        (self.first_sequence, self.due_sequence, self.ready_sequence) = (0, 0, 0);
        self.timeline.reset();
        (self.stream_position, self.next_reading) = (0, 0);
        self.jump_pending = false;
        self.seams.clear();
        (self.position, self.quiet_samples) = (0, 0);
        self.remix_fade = self.fade.len() - 1;
        self.gate.reset();
        self.gate_fade = 0;
        self.main.reset();
        self.credit.reset();
    }

    /// To be called at the start of each host block, with its length, before [`Self::process`] is called for all of its
    /// samples.
    pub fn begin_block(&mut self, block_samples: usize, transport: &Transport) {
        let block_seconds = block_samples as f64 / f64::from(self.geometry.sample_rate_hz);
        self.credit.begin_call(self.clock.now(), block_seconds);
        self.jump_pending |= self.timeline.begin_block(transport, block_samples);
        self.gate.begin_block();
        self.receive();
        self.quiet_samples = 0;
    }

    /// Processes samples, with constant `controls`, and returns as many.
    ///
    /// # Panics
    ///
    /// If `outputs` is shorter than `inputs`.
    pub fn process(&mut self, inputs: &[Input], controls: &Controls, outputs: &mut [Output]) {
        self.gate.set_controls(controls);
        let mut remixed = [false; RUN_SAMPLES];
        let mut done = 0;
        while done < inputs.len() {
            let coming = self.quiet_samples.min(inputs.len() - done);
            let run = done..done + coming.clamp(1, RUN_SAMPLES);
            let (inputs, outputs) = (&inputs[run.clone()], &mut outputs[run.clone()]);
            let remixed = &mut remixed[..run.len()];
            for (remixed, input) in remixed.iter_mut().zip(inputs) {
                *remixed = self.gate.next(input.sidechain);
            }
            let seam_gain = match self.quiet_samples {
                0 => {
                    self.fill(&inputs[0], remixed[0], controls);
                    let seam_gain = self.seam_gain();
                    self.play();
                    seam_gain
                }
                _ => {
                    self.advance(inputs, remixed);
                    self.quiet_samples -= run.len();
                    1.0
                }
            };
            self.blend(inputs, remixed, seam_gain, outputs);
            self.position += run.len();
            if self.quiet_samples == 0 {
                self.quiet_samples = self.count_quiet_samples();
            }
            done = run.end;
        }
    }

    /// Computes the output samples from the dry path and the remix.
    fn blend(
        &mut self,
        inputs: &[Input],
        remixed: &[bool],
        seam_gain: f32,
        outputs: &mut [Output],
    ) {
        self.read_remix(outputs);
        for ((input, &remixed), output) in inputs.iter().zip(remixed).zip(outputs) {
            let remix_gain = self.gate_gain(remixed);
            let main = input.main.map(finite_or_zero);
            let dry = self.main.push(Dry { main, remix_gain });
            let gain = dry.remix_gain * self.fade[self.remix_fade];
            let remix = output.remix;
            let blend = |channel: usize| {
                remix[channel] * gain * seam_gain + dry.main[channel] * (1.0 - gain)
            };
            *output = Output {
                dry: dry.main,
                remix: [blend(0), blend(1)],
            };
        }
    }

    /// Gain of the remix for this input: fades to 0 while the remix does not play.
    fn gate_gain(&mut self, remixed: bool) -> f32 {
        if self.position == 0 && remixed {
            self.gate_fade = self.fade.len() - 1;
        }
        self.gate_fade = self.step_fade(self.gate_fade, remixed);
        self.fade[self.gate_fade]
    }

    fn step_fade(&self, fade: usize, up: bool) -> usize {
        match up {
            true => (fade + 1).min(self.fade.len() - 1),
            false => fade.saturating_sub(1),
        }
    }

    /// Adds the input to the current window, and sends the window when it is complete.
    fn fill(&mut self, input: &Input, remixed: bool, controls: &Controls) {
        if self.jump_pending
            && (self.stream_position == 0 || self.stream_position >= self.shortest_stream_samples)
        {
            self.jump_pending = false;
            self.end_stream();
        }
        let window_samples = self.geometry.window_samples;
        if self.open.is_none() {
            self.open_window();
        }
        let is_read = self.stream_position == self.next_reading;
        if is_read {
            self.next_reading += self.geometry.control_interval_samples;
        }
        let beat = self.timeline.beat();
        if is_read && let Some(packet) = self.open.as_mut().and_then(|open| open.packet.as_mut()) {
            let mut controls = Controls { beat, ..*controls };
            if !remixed {
                // Nothing that was not heard is captured.
                controls.unfreeze();
            }
            packet.window.controls.push(controls);
        }
        self.advance(std::slice::from_ref(input), &[remixed]);
        let next = self.timeline.beat();
        let Some(open) = &self.open else { return };
        // Whether the next sample is the first at or after the line, up to rounding.
        let line_is_reached = |line: f64| next.position_beats + 0.5 * next.beats_per_sample > line;
        if self.position + 1 - open.start == window_samples
            || open.end_beats.is_some_and(line_is_reached)
        {
            self.close_window(self.position + 1);
        }
    }

    /// Adds the inputs to the open window.
    fn advance(&mut self, inputs: &[Input], remixed: &[bool]) {
        self.stream_position += inputs.len();
        self.timeline.advance(inputs.len());
        if let Some(packet) = self.open.as_mut().and_then(|open| open.packet.as_mut()) {
            packet.window.extend(inputs, remixed);
        }
    }

    /// Number of coming samples of this block for which no decision is due: no window begins, ends, is due or finishes
    /// playing, no knob is read, and neither the remix nor a seam fades. This is the fast path for nearly all samples.
    fn count_quiet_samples(&self) -> usize {
        let delay = self.delay_samples();
        let fade_samples = self.fade.len() - 1;
        let (Some(open), false) = (&self.open, self.jump_pending) else {
            return 0;
        };
        let until = |position: usize| position.saturating_sub(self.position);
        let full = until(open.start + self.geometry.window_samples - 1);
        let line = open.end_beats.map_or(usize::MAX, |line| {
            let beat = self.timeline.beat();
            let samples = (line - beat.position_beats) / beat.beats_per_sample;
            // Too few is safe, one too many is not.
            (samples as usize).saturating_sub(2)
        });
        let reading = self.next_reading - self.stream_position;
        let fades_before = |slot: &Slot| until((slot.start + delay).saturating_sub(fade_samples));
        let due = self
            .slot(self.due_sequence)
            .map_or(usize::MAX, fades_before);
        let played = |slot: &Slot| until(slot.end.saturating_add(delay));
        let played = self.slots.front().map_or(usize::MAX, played);
        let audible = self
            .slot(self.ready_sequence)
            .map_or(usize::MAX, fades_before);
        let fade = match (audible, self.remix_fade) {
            (0, 0) => usize::MAX,
            (_, full) if full == fade_samples => audible,
            _ => 0,
        };
        let seam = self.seams.front().map_or(usize::MAX, |seam| {
            until((seam + self.geometry.latency_samples()).saturating_sub(fade_samples))
        });
        let all = [full, line, reading, due, played, fade, seam];
        all.into_iter().min().unwrap_or(0)
    }

    /// Begins a new stream with the next sample.
    fn end_stream(&mut self) {
        if self.stream_position == 0 {
            return;
        }
        self.close_window(self.position);
        (self.stream_position, self.next_reading) = (0, 0);
        if self.seams.len() < self.seams.capacity() {
            self.seams.push_back(self.position);
        }
    }

    fn open_window(&mut self) {
        let has_room = self.slots.len() < self.slots.capacity();
        let mut packet = match has_room {
            true => self.wait_until(|port| port.free.pop()),
            false => None,
        };
        let sequence = self.first_sequence + self.slots.len() as u64;
        if let Some(packet) = &mut packet {
            packet.window.begin(self.stream_position as u64);
            packet.generation = self.shared.generation.load(Ordering::Relaxed);
            packet.sequence = sequence;
            packet.start = self.position as u64;
        }
        if has_room {
            self.slots.push_back(Slot {
                start: self.position,
                end: usize::MAX,
                packet: None,
            });
        }
        self.open = Some(OpenWindow {
            start: self.position,
            end_beats: window_end_beats(
                self.timeline.beat(),
                self.window_beats,
                self.geometry.window_samples,
            ),
            packet,
        });
    }

    /// Sends the open window, if there is one. `end` is the number of the first sample after it.
    fn close_window(&mut self, end: usize) {
        let Some(open) = self.open.take() else { return };
        if let Some(slot) = self.slots.back_mut() {
            slot.end = end;
        }
        if let Some(packet) = open.packet {
            match self.to_worker.push(packet) {
                Ok(()) => self.at_worker += 1,
                Err(PushError::Full(packet)) => self.free.push(packet),
            }
        }
    }

    /// Gain of the remix around the seam between two streams.
    fn seam_gain(&mut self) -> f32 {
        let latency = self.geometry.latency_samples();
        let fade_samples = self.fade.len() - 1;
        while let Some(&seam) = self.seams.front()
            && seam + latency + fade_samples < self.position
        {
            self.seams.pop_front();
        }
        match self.seams.front() {
            Some(&seam) => {
                let distance = (seam + latency).abs_diff(self.position);
                self.fade[distance.min(fade_samples)]
            }
            None => 1.0,
        }
    }

    /// Makes the window that plays now the first of the slots, and moves `remix_fade` by one step.
    fn play(&mut self) {
        let delay = self.delay_samples();
        let fade_samples = self.fade.len() - 1;
        while let Some(slot) = self.slot(self.due_sequence)
            && slot.start + delay <= self.position + fade_samples
        {
            if !self.wait_for(self.due_sequence) {
                self.shared.status.count_late_window();
            }
            self.due_sequence += 1;
        }
        let played = self.position.checked_sub(delay);
        while let Some(played) = played
            && let Some(slot) = self.slots.pop_front_if(|slot| slot.end <= played)
        {
            self.free.extend(slot.packet);
            self.first_sequence += 1;
        }
        self.ready_sequence = self.ready_sequence.max(self.first_sequence);
        while self.slot(self.ready_sequence).is_some_and(Slot::is_usable) {
            self.ready_sequence += 1;
        }
        let audible = self
            .slot(self.ready_sequence)
            .is_none_or(|missing| missing.start + delay > self.position + fade_samples);
        self.remix_fade = self.step_fade(self.remix_fade, audible);
    }

    /// The samples of the remix that play now, from one window; silence if there are none.
    fn read_remix(&self, outputs: &mut [Output]) {
        let played = self.position.checked_sub(self.delay_samples());
        let remix = match (self.slots.front(), played) {
            (
                Some(Slot {
                    start,
                    packet: Some(packet),
                    ..
                }),
                Some(played),
            ) if packet.usable => [0, 1].map(|channel| {
                let samples = packet.remix[channel].get(played - start..);
                samples.unwrap_or_default()
            }),
            _ => [&[][..]; 2],
        };
        for (i, output) in outputs.iter_mut().enumerate() {
            output.remix = remix.map(|channel| channel.get(i).copied().unwrap_or_default());
        }
    }

    /// Delay from an input sample to the same sample of the remix.
    fn delay_samples(&self) -> usize {
        self.geometry.window_samples + self.geometry.compute_allowance_samples
    }

    fn slot(&self, sequence: u64) -> Option<&Slot> {
        let index = sequence.checked_sub(self.first_sequence)?;
        self.slots.get(index as usize)
    }

    /// Whether window `sequence`, which is due, is back. May wait for it.
    fn wait_for(&mut self, sequence: u64) -> bool {
        let is_back = |port: &mut Self| {
            let slot = port.slot(sequence)?;
            slot.packet.is_some().then_some(())
        };
        self.wait_until(is_back).is_some()
    }

    fn wait_until<T>(&mut self, find: impl Fn(&mut Self) -> Option<T>) -> Option<T> {
        loop {
            self.receive();
            if let Some(found) = find(self) {
                return Some(found);
            }
            let nothing_to_come = self.at_worker == 0;
            if nothing_to_come || !self.may_wait() {
                return None;
            }
            self.clock.sleep(WAIT_STEP);
        }
    }

    fn may_wait(&self) -> bool {
        let patient = self.patient && !self.from_worker.is_abandoned();
        patient || self.clock.now() < self.credit.deadline()
    }

    /// Empties the queue from the worker.
    fn receive(&mut self) {
        let generation = self.shared.generation.load(Ordering::Relaxed);
        while let Ok(packet) = self.from_worker.pop() {
            self.at_worker -= 1;
            let index = packet.sequence.checked_sub(self.first_sequence);
            match index.and_then(|index| self.slots.get_mut(index as usize)) {
                Some(slot) if packet.generation == generation => slot.packet = Some(packet),
                _ => self.free.push(packet),
            }
        }
    }
}

/// Worker thread: the worker's end of the exchange.
#[derive(Debug)]
pub struct WorkerPort {
    shared: Arc<Shared>,
    from_audio: Consumer<Packet>,
    to_audio: Producer<Packet>,
    geometry: Geometry,
}

impl WorkerPort {
    /// The lengths of this exchange.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Status shown by the editor.
    pub(crate) fn status(&self) -> &Status {
        &self.shared.status
    }

    /// The next window to remix. Stale windows are sent back unprocessed.
    pub(crate) fn receive(&mut self) -> Option<Packet> {
        loop {
            let packet = self.from_audio.pop().ok()?;
            if packet.generation == self.shared.generation.load(Ordering::Acquire) {
                return Some(packet);
            }
            self.send(packet);
        }
    }

    /// Returns a packet. The queue has room for all packets.
    pub(crate) fn send(&mut self, packet: Packet) {
        let _room = self.to_audio.push(packet);
    }
}

#[cfg(test)]
mod tests;
