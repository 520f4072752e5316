//! The exchange of audio between the audio thread and the worker.
//!
//! ```text
//! host samples -> AudioPort -> full windows -> WorkerPort -> WindowProcessor
//! host samples <- AudioPort <- remixed windows <- WorkerPort <-'
//! ```
//!
//! The audio thread gathers its input into windows of fixed length, each in a [`Packet`] that was
//! allocated beforehand, and sends them to the worker through a wait-free queue. They come back by
//! another one with the remix in them, and are played at a constant latency
//! ([`Geometry::latency_samples`]). All decisions are made per sample from sample positions, so as
//! long as nothing is late the output does not depend on the host's block sizes.
//!
//! A window that is not back in time is replaced by the main input, delayed by the same latency,
//! with a short fade each way; its late part is dropped, so the latency never grows.

use std::cell::Cell;
use std::f32::consts::PI;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::credit::{Clock, Credit};
use crate::delay::Delay;
use crate::status::Status;

/// Length of the fades between the remix and the delayed main input.
const FADE_SECONDS: f64 = 0.005;

/// A sidechain that was digitally silent for this long counts as missing. Hosts fill an unused
/// sidechain with zeros, so silence is the only sign; shorter rests belong to the music.
const SIDECHAIN_HOLD_SECONDS: f64 = 2.0;

/// Packets beyond those that one window of lateness needs.
const SPARE_PACKETS: usize = 2;

/// How long the audio thread sleeps at a time when it may wait.
const WAIT_STEP: Duration = Duration::from_micros(200);

/// The position of the two knobs: 0 takes all from main, 1 all from the sidechain.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Controls {
    /// Where the harmony comes from.
    pub harmony: f32,
    /// Where the rhythm comes from.
    pub rhythm: f32,
}

/// The lengths that an exchange is made of, in samples at the host's rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// The host's sample rate.
    pub sample_rate_hz: f32,
    /// Length of a window.
    pub window_samples: usize,
    /// Distance of the knob readings within a window.
    pub control_interval_samples: usize,
    /// How far the processor's output lags behind its input.
    pub processor_latency_samples: usize,
    /// How long the worker may take from the last sample of a window to the first of its remix.
    pub compute_allowance_samples: usize,
}

impl Geometry {
    /// The allowance for a live host: one window, or the host's longest block if that is longer,
    /// because in such a block whole windows come and fall due at once.
    pub fn live_allowance_samples(window_samples: usize, max_block_samples: usize) -> usize {
        window_samples.max(max_block_samples)
    }

    /// The delay from input to output: window + compute allowance + processor latency.
    pub fn latency_samples(&self) -> usize {
        self.window_samples + self.compute_allowance_samples + self.processor_latency_samples
    }

    /// Length of the fades; a result is due by that much before its first sample is played.
    fn fade_samples(&self) -> usize {
        let wanted = (FADE_SECONDS * f64::from(self.sample_rate_hz)) as usize;
        wanted.clamp(1, self.window_samples / 2)
    }

    fn validate(&self) -> Result<(), GeometryError> {
        let at_least = |term, found, expected| match found < expected {
            true => Err(GeometryError {
                term,
                expected,
                found,
            }),
            false => Ok(()),
        };
        at_least("sample rate in Hz", self.sample_rate_hz as usize, 1)?;
        at_least("window", self.window_samples, 2)?;
        at_least("control interval", self.control_interval_samples, 1)?;
        at_least(
            "compute allowance",
            self.compute_allowance_samples,
            self.fade_samples(),
        )
    }

    /// Windows between the one that is being filled and the one that is being played, both counted.
    fn windows_in_use(&self) -> usize {
        2 + self.compute_allowance_samples.div_ceil(self.window_samples)
    }
}

/// A term of a [`Geometry`] is too short.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{term}: expected at least {expected}, found {found}")]
pub struct GeometryError {
    term: &'static str,
    expected: usize,
    found: usize,
}

/// Input of one window: what a [`crate::worker::WindowProcessor`] works on.
#[derive(Debug)]
pub struct Window {
    /// The main input, left and right, `window_samples` each.
    pub main: [Vec<f32>; 2],
    /// The sidechain, left and right, `window_samples` each; zeros when it is missing.
    pub sidechain: [Vec<f32>; 2],
    /// Whether the sidechain counts as connected in any part of the window.
    pub sidechain_present: bool,
    /// The knobs at samples 0, `control_interval_samples`, 2 `control_interval_samples`, and so on.
    pub controls: Vec<Controls>,
    /// Distance of the entries of `controls`.
    pub control_interval_samples: usize,
}

impl Window {
    /// A silent window.
    pub fn new(window_samples: usize, control_interval_samples: usize) -> Self {
        Self {
            main: stereo(window_samples),
            sidechain: stereo(window_samples),
            sidechain_present: false,
            controls: vec![Controls::default(); window_samples.div_ceil(control_interval_samples)],
            control_interval_samples,
        }
    }

    /// Length in samples.
    pub fn samples(&self) -> usize {
        self.main[0].len()
    }

    /// Whether every sample of both inputs is zero.
    pub fn is_silent(&self) -> bool {
        let mut channels = self.main.iter().chain(&self.sidechain);
        channels.all(|channel| channel.iter().all(|&sample| sample == 0.0))
    }
}

/// One window on its way to the worker, or back.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) window: Window,
    /// The processor's output for the window, left and right, `window_samples` each.
    pub(crate) remix: [Vec<f32>; 2],
    /// Counts resets. A packet of an older generation is stale.
    pub(crate) generation: u64,
    /// Number of the window since the reset.
    pub(crate) sequence: u64,
    /// Whether `remix` may be heard: false after a fault and while the processor recovers from one.
    pub(crate) usable: bool,
}

/// What both ports share.
#[derive(Debug)]
struct Shared {
    generation: AtomicU64,
    status: Arc<Status>,
}

/// Makes the two ends of an exchange. `clock` tells the audio thread how far the host is ahead.
///
/// # Errors
///
/// When a term of the geometry is too short to work with.
pub fn exchange<C: Clock>(
    geometry: &Geometry,
    clock: C,
    status: Arc<Status>,
) -> Result<(AudioPort<C>, WorkerPort), GeometryError> {
    geometry.validate()?;
    let packets = geometry.windows_in_use() + SPARE_PACKETS;
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
        usable: false,
    };
    let mut free = Vec::with_capacity(packets);
    free.extend((0..packets).map(|_| packet()));
    let fade_samples = geometry.fade_samples();
    let audio = AudioPort {
        shared: Arc::clone(&shared),
        to_worker,
        from_worker,
        free,
        arrived: Vec::with_capacity(packets),
        at_worker: 0,
        filling: None,
        playing: None,
        next: None,
        position: 0,
        fade: (0..=fade_samples)
            .map(|step| 0.5 - 0.5 * (PI * step as f32 / fade_samples as f32).cos())
            .collect(),
        remix_fade: fade_samples,
        sidechain_fade: 0,
        sidechain_silence_samples: u64::MAX,
        sidechain_hold_samples: (SIDECHAIN_HOLD_SECONDS * f64::from(geometry.sample_rate_hz))
            as u64,
        main: Delay::new(geometry.latency_samples()),
        credit: Credit::default(),
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

/// Audio thread: one sample of both inputs, and the knobs at its time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input {
    /// The main input, left and right.
    pub main: [f32; 2],
    /// The sidechain, left and right; zeros when it is missing.
    pub sidechain: [f32; 2],
    /// The knobs.
    pub controls: Controls,
}

/// Audio thread: one sample of output, [`Geometry::latency_samples`] after its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    /// The main input, delayed.
    pub dry: [f32; 2],
    /// The remix; the same as `dry` where the remix is late or the sidechain is missing.
    pub remix: [f32; 2],
}

/// Audio thread: a sample in the dry path, with how much of the remix goes with it.
#[derive(Clone, Copy, Debug, Default)]
struct Dry {
    main: [f32; 2],
    remix_gain: f32,
}

/// Audio thread: the host's end of the exchange.
///
/// `Send`, so that it can be made elsewhere, but not `Sync`. Neither [`Self::process`] nor the other
/// methods allocate, lock, log or wake a thread; they wait only as [`crate::credit`] says.
#[derive(Debug)]
pub struct AudioPort<C: Clock> {
    geometry: Geometry,
    shared: Arc<Shared>,
    to_worker: Producer<Packet>,
    from_worker: Consumer<Packet>,
    clock: C,
    credit: Credit,
    /// Whether to wait as long as it takes.
    patient: bool,

    /// Packets that hold nothing of use.
    free: Vec<Packet>,
    /// Packets that came back and are not due yet.
    arrived: Vec<Packet>,
    /// Packets that are with the worker or on their way.
    at_worker: usize,
    filling: Option<Packet>,
    playing: Option<Packet>,
    next: Option<Packet>,

    /// Samples taken in since the reset.
    position: usize,
    /// Raised cosine from 0 to 1 in `fade_samples` steps; the two `_fade` fields are indices into it.
    fade: Vec<f32>,
    remix_fade: usize,
    sidechain_fade: usize,
    sidechain_silence_samples: u64,
    sidechain_hold_samples: u64,
    main: Delay<Dry>,
    not_sync: PhantomData<Cell<()>>,
}

impl<C: Clock> AudioPort<C> {
    /// The lengths that this exchange was made with.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Whether a late window is waited for as long as it takes. Only for hosts whose word that they
    /// are rendering can be relied on; without it the port waits as long as the host is ahead of the
    /// clock.
    pub fn set_patient(&mut self, patient: bool) {
        self.patient = patient;
    }

    /// Starts over: the next sample is the first of a new stream, and nothing of the old one will be
    /// heard.
    pub fn reset(&mut self) {
        let generation = self.shared.generation.load(Ordering::Relaxed) + 1;
        self.shared.generation.store(generation, Ordering::Release);
        self.free.extend(self.filling.take());
        self.free.extend(self.playing.take());
        self.free.extend(self.next.take());
        self.free.append(&mut self.arrived);
        self.position = 0;
        self.remix_fade = self.fade.len() - 1;
        self.sidechain_fade = 0;
        self.sidechain_silence_samples = u64::MAX;
        self.main.reset();
        self.credit = Credit::default();
    }

    /// To be called at the start of each host block, with its length, before [`Self::process`] is
    /// called once for each of its samples.
    pub fn begin_block(&mut self, block_samples: usize) {
        let block_seconds = block_samples as f64 / f64::from(self.geometry.sample_rate_hz);
        self.credit.begin_block(self.clock.now(), block_seconds);
        self.receive();
    }

    /// Takes one sample in and gives one out. Samples that are not finite are taken as zero.
    pub fn process(&mut self, input: Input) -> Output {
        let input = Input {
            main: input.main.map(finite_or_zero),
            sidechain: input.sidechain.map(finite_or_zero),
            ..input
        };
        let remix_gain = self.sidechain_gain(input.sidechain);
        self.fill(input, remix_gain > 0.0);
        let remix = self.play();
        self.position += 1;

        let dry = self.main.push(Dry {
            main: input.main,
            remix_gain,
        });
        let gain = dry.remix_gain * self.fade[self.remix_fade];
        let blend = |channel: usize| remix[channel] * gain + dry.main[channel] * (1.0 - gain);
        Output {
            dry: dry.main,
            remix: [blend(0), blend(1)],
        }
    }

    /// How much of the remix is to be heard for this input: none while the sidechain is missing.
    fn sidechain_gain(&mut self, sidechain: [f32; 2]) -> f32 {
        self.sidechain_silence_samples = match sidechain {
            [0.0, 0.0] => self.sidechain_silence_samples.saturating_add(1),
            _ => 0,
        };
        let present = self.sidechain_silence_samples < self.sidechain_hold_samples;
        if self.position == 0 && present {
            self.sidechain_fade = self.fade.len() - 1;
        }
        self.sidechain_fade = self.step_fade(self.sidechain_fade, present);
        self.fade[self.sidechain_fade]
    }

    fn step_fade(&self, fade: usize, up: bool) -> usize {
        match up {
            true => (fade + 1).min(self.fade.len() - 1),
            false => fade.saturating_sub(1),
        }
    }

    /// Puts the input into the current window, and sends the window when it is full.
    fn fill(&mut self, input: Input, sidechain_present: bool) {
        let window_samples = self.geometry.window_samples;
        let offset = self.position % window_samples;
        if offset == 0 {
            self.filling = self.free_packet();
        }
        // Without a packet this window is lost, and its remix will count as late.
        let Some(packet) = &mut self.filling else {
            return;
        };
        let window = &mut packet.window;
        for channel in 0..2 {
            window.main[channel][offset] = input.main[channel];
            window.sidechain[channel][offset] = input.sidechain[channel];
        }
        if offset == 0 {
            packet.generation = self.shared.generation.load(Ordering::Relaxed);
            packet.sequence = (self.position / window_samples) as u64;
            window.sidechain_present = false;
        }
        window.sidechain_present |= sidechain_present;
        if offset.is_multiple_of(window.control_interval_samples) {
            window.controls[offset / window.control_interval_samples] = input.controls;
        }
        if offset == window_samples - 1
            && let Some(packet) = self.filling.take()
        {
            match self.to_worker.push(packet) {
                Ok(()) => self.at_worker += 1,
                Err(PushError::Full(packet)) => self.free.push(packet),
            }
        }
    }

    /// The next sample of the remix, before any fade. Moves `remix_fade` by one step.
    fn play(&mut self) -> [f32; 2] {
        let window_samples = self.geometry.window_samples;
        // Window `upcoming` starts at offset 0 of the next window, so `upcoming - 1` is being played.
        let Some(played) = self
            .position
            .checked_sub(self.geometry.compute_allowance_samples)
        else {
            return [0.0; 2];
        };
        let upcoming = (played / window_samples) as u64;
        let offset = played % window_samples;
        let due_offset = window_samples - (self.fade.len() - 1);

        if offset == 0 {
            self.free.extend(self.playing.take());
            self.playing = self.next.take();
        }
        if self.playing.is_none() && upcoming > 0 {
            self.playing = self.take_arrived(upcoming - 1);
        }
        if offset == due_offset {
            self.next = self.wait_for(upcoming);
            if self.next.is_none() {
                self.shared.status.count_late_window();
            }
        } else if offset > due_offset && self.next.is_none() {
            self.next = self.take_arrived(upcoming);
        }

        let usable = |packet: &Option<Packet>| packet.as_ref().is_some_and(|p| p.usable);
        // Before the first window there is silence, which needs no packet.
        let now_usable = upcoming == 0 || usable(&self.playing);
        let audible = now_usable && (offset < due_offset || usable(&self.next));
        self.remix_fade = self.step_fade(self.remix_fade, audible);
        match &self.playing {
            Some(packet) if packet.usable => [packet.remix[0][offset], packet.remix[1][offset]],
            _ => [0.0; 2],
        }
    }

    /// A packet to fill.
    fn free_packet(&mut self) -> Option<Packet> {
        self.wait_until(|port| port.free.pop())
    }

    /// The remix of window `sequence`, which is due.
    fn wait_for(&mut self, sequence: u64) -> Option<Packet> {
        self.wait_until(|port| port.take_arrived(sequence))
    }

    fn wait_until(&mut self, find: impl Fn(&mut Self) -> Option<Packet>) -> Option<Packet> {
        loop {
            self.receive();
            if let Some(packet) = find(self) {
                return Some(packet);
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

    /// Takes window `sequence` from those that arrived, and frees those whose time is over.
    fn take_arrived(&mut self, sequence: u64) -> Option<Packet> {
        let mut index = 0;
        while index < self.arrived.len() {
            match self.arrived[index].sequence.cmp(&sequence) {
                std::cmp::Ordering::Less => {
                    let stale = self.arrived.swap_remove(index);
                    self.free.push(stale);
                }
                std::cmp::Ordering::Equal => return Some(self.arrived.swap_remove(index)),
                std::cmp::Ordering::Greater => index += 1,
            }
        }
        None
    }

    /// Empties the queue from the worker.
    fn receive(&mut self) {
        let generation = self.shared.generation.load(Ordering::Relaxed);
        while let Ok(packet) = self.from_worker.pop() {
            self.at_worker -= 1;
            match packet.generation == generation {
                true => self.arrived.push(packet),
                false => self.free.push(packet),
            }
        }
    }
}

fn stereo(samples: usize) -> [Vec<f32>; 2] {
    [vec![0.0; samples], vec![0.0; samples]]
}

/// Audio thread: a sample that does no harm.
pub fn finite_or_zero(sample: f32) -> f32 {
    if sample.is_finite() { sample } else { 0.0 }
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
    /// The lengths that this exchange was made with.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What the editor reads.
    pub(crate) fn status(&self) -> &Status {
        &self.shared.status
    }

    /// The next window to remix. Stale ones are sent back as they are.
    pub(crate) fn receive(&mut self) -> Option<Packet> {
        loop {
            let packet = self.from_audio.pop().ok()?;
            if packet.generation == self.shared.generation.load(Ordering::Acquire) {
                return Some(packet);
            }
            self.send(packet);
        }
    }

    /// Sends a packet back. The queue holds all there are, so there is room for it.
    pub(crate) fn send(&mut self, packet: Packet) {
        let _room = self.to_audio.push(packet);
    }
}

#[cfg(test)]
mod tests;
