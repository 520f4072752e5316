//! Frozen latents: the last beats of a latent, looped in time with the beat grid. Every factor of a network is frozen this way,
//! frame by frame of its own latent. The colour of a remix without a network is a latent too: of one frame, which is held.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Result;
use crate::factor::{Factor, FactorMap};

/// Longest loop, in quarter notes.
pub const MAX_BEATS: f64 = 16.0;

/// Longest history, in frames: over a minute of the rhythm latent.
const MAX_FRAMES: usize = 4096;

/// A loop of latent frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenLoop {
    /// Length in quarter notes; loops begin on its multiples.
    pub beats: f64,
    /// Number of evenly spaced frames.
    pub frames: usize,
    /// The values of all frames, frame by frame.
    pub values: Vec<f32>,
}

impl FrozenLoop {
    /// Whether the loop fits a latent with `width` values per frame.
    fn fits(&self, width: usize) -> bool {
        (1..=MAX_FRAMES).contains(&self.frames)
            && self.values.len() == self.frames * width
            && self.beats > 0.0
            && self.beats <= MAX_BEATS
            && self.values.iter().all(|value| value.is_finite())
    }

    /// The values at a position in the song.
    fn at(&self, position_beats: f64) -> &[f32] {
        let phase = position_beats.rem_euclid(self.beats) / self.beats;
        let frame = ((phase * self.frames as f64) as usize).min(self.frames - 1);
        let width = self.values.len() / self.frames;
        &self.values[frame * width..][..width]
    }
}

/// The loops of all frozen factors. Serialised as a map from the factors' names to their loops. Harmony and rhythm are always
/// there, with null for no loop; earlier versions know only these, and load states without the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrozenLatents(pub FactorMap<FrozenLoop>);

impl Serialize for FrozenLatents {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let loops = Factor::ALL.map(|factor| (factor, self.0.get(factor)));
        let is_named = |factor| matches!(factor, Factor::Harmony | Factor::Rhythm);
        serializer.collect_map(
            loops
                .into_iter()
                .filter(|(factor, frozen)| frozen.is_some() || is_named(*factor)),
        )
    }
}

impl<'de> Deserialize<'de> for FrozenLatents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let loops = BTreeMap::<Factor, Option<FrozenLoop>>::deserialize(deserializer)?;
        let loops = loops.into_iter();
        Ok(Self(
            loops
                .filter_map(|(factor, frozen)| Some((factor, frozen?)))
                .collect(),
        ))
    }
}

/// The frozen loops, shared by the worker, which captures and plays them, and the main thread, which saves and loads
/// them. The audio thread sees which loops were loaded.
#[derive(Debug, Default)]
pub struct FreezeStore {
    stored: Mutex<Stored>,
    /// [`Loaded`] in one number.
    loaded: AtomicU64,
}

#[derive(Debug, Default)]
struct Stored {
    latents: FrozenLatents,
    /// Number of loads so far.
    loads: u64,
    /// Values per frame of the latents that are played.
    widths: FactorMap<usize>,
}

/// The state after the last load, or since a stream was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Number of loads so far.
    pub(crate) loads: u64,
    /// For each factor, whether there is a loop that the stream can play.
    pub(crate) factors: [bool; Factor::COUNT],
}

impl FreezeStore {
    /// Main thread: the current frozen loops.
    pub fn get(&self) -> FrozenLatents {
        self.stored.lock().latents.clone()
    }

    /// Main thread: sets the loops to play for frozen factors.
    pub fn set(&self, latents: FrozenLatents) {
        let mut stored = self.stored.lock();
        stored.latents = latents;
        stored.loads += 1;
        self.publish(&stored);
    }

    /// Prepares for a stream whose latents have these numbers of values per frame.
    pub(crate) fn begin(&self, widths: FactorMap<usize>) {
        let mut stored = self.stored.lock();
        stored.widths = widths;
        self.publish(&stored);
    }

    /// Audio thread: the loops that were loaded last.
    pub(crate) fn loaded(&self) -> Loaded {
        let number = self.loaded.load(Ordering::Relaxed);
        Loaded {
            loads: number >> Factor::COUNT,
            factors: Factor::ALL.map(|factor| number >> factor as u64 & 1 == 1),
        }
    }

    fn publish(&self, stored: &Stored) {
        let fits = |(factor, frozen): (Factor, &FrozenLoop)| {
            let width = stored.widths.get(factor)?;
            frozen.fits(*width).then_some(1 << factor as u64)
        };
        let factors: u64 = stored.latents.0.iter().filter_map(fits).sum();
        let number = stored.loads << Factor::COUNT | factors;
        self.loaded.store(number, Ordering::Relaxed);
    }
}

/// Worker thread: freezes the latent of one factor.
pub(crate) struct Freezer {
    history: History,
    held: Held,
}

/// Worker thread: freezes a single frame of one factor.
pub(crate) struct Holder {
    held: Held,
    /// Values of the frame.
    width: usize,
    store: Arc<FreezeStore>,
}

/// The loop of one factor that is played, if any.
struct Held {
    factor: Factor,
    frozen: Option<FrozenLoop>,
    was_on: bool,
    loads: u64,
}

/// The latest frames, each with its position in quarter notes.
#[derive(Default)]
struct History {
    places: VecDeque<f64>,
    /// The values of all frames, frame by frame.
    values: VecDeque<f32>,
}

impl Freezer {
    pub(crate) fn new(factor: Factor) -> Self {
        Self {
            history: History::default(),
            held: Held::new(factor),
        }
    }

    /// Clears the history; frozen loops stay.
    pub(crate) fn begin(&mut self) {
        self.history.clear();
    }

    /// Takes the next frames of a latent (B, C, H, T) and returns the frames to play in their place. `middle(t)`
    /// returns the position of the middle of frame `t` in quarter notes, and the loop length if the factor is frozen
    /// there.
    ///
    /// # Errors
    ///
    /// If the latent has another shape.
    pub(crate) fn play(
        &mut self,
        latent: Tensor,
        middle: impl Fn(usize) -> (f64, Option<f64>),
        store: &FreezeStore,
    ) -> Result<Tensor> {
        let (batch, channels, height, frames) = latent.dims4()?;
        let width = batch * channels * height;
        let by_frame = latent.reshape((width, frames))?.t()?.contiguous()?;
        let live = by_frame.flatten_all()?.to_vec1::<f32>()?;
        let middles = (0..frames).map(middle).collect::<Vec<_>>();
        let live = live.chunks_exact(width).zip(middles.iter().copied());
        if !self.held.was_on && middles.iter().all(|(_, loop_beats)| loop_beats.is_none()) {
            live.for_each(|(live, (position_beats, _))| self.history.push(live, position_beats));
            return Ok(latent);
        }
        let mut stored = store.stored.lock();
        let mut played = Vec::with_capacity(width * frames);
        for (live, (position_beats, loop_beats)) in live {
            played.extend_from_slice(self.frame(live, position_beats, loop_beats, &mut stored));
        }
        let played = Tensor::from_vec(played, (frames, width), latent.device())?;
        let played = played.t()?.contiguous()?;
        Ok(played.reshape((batch, channels, height, frames))?)
    }

    /// Takes the next frame, at `position_beats`, and returns the frame to play in its place. `loop_beats` is the loop
    /// length if the latent is frozen. A loaded loop plays at once; otherwise the last `loop_beats` are captured as
    /// soon as the history is long enough.
    fn frame<'a>(
        &'a mut self,
        live: &'a [f32],
        position_beats: f64,
        loop_beats: Option<f64>,
        stored: &mut Stored,
    ) -> &'a [f32] {
        self.history.push(live, position_beats);
        let history = &self.history;
        let capture = loop_beats.map(|beats| move || history.capture(beats));
        match self.held.next(live.len(), capture, stored) {
            Some(frozen) => frozen.at(position_beats),
            None => live,
        }
    }
}

impl Holder {
    /// Keeps the frame in `store`, so that it can be saved and loaded.
    pub(crate) fn new(factor: Factor, width: usize, store: Arc<FreezeStore>) -> Self {
        store.begin([(factor, width)].into_iter().collect());
        Self {
            held: Held::new(factor),
            width,
            store,
        }
    }

    /// Takes the next frame, if it is known, and returns the one to play in its place, if any. A loaded frame plays at once;
    /// otherwise the first one is captured that is known.
    pub(crate) fn frame(&mut self, is_on: bool, live: Option<&[f32]>) -> Option<&[f32]> {
        if !is_on && !self.held.was_on {
            return None;
        }
        let capture = || {
            let values = live?.to_vec();
            // A single frame fills a loop of any length.
            Some(FrozenLoop {
                beats: 1.0,
                frames: 1,
                values,
            })
        };
        let mut stored = self.store.stored.lock();
        let capture = is_on.then_some(capture);
        let frozen = self.held.next(self.width, capture, &mut stored);
        frozen.map(|frozen| frozen.at(0.0))
    }
}

impl Held {
    fn new(factor: Factor) -> Self {
        Self {
            factor,
            frozen: None,
            was_on: false,
            loads: 0,
        }
    }

    /// The loop to play at the next frame. `capture` makes one of what was heard, if that was enough; none if the factor is not
    /// frozen. `width` is the number of values per frame.
    fn next(
        &mut self,
        width: usize,
        capture: Option<impl FnOnce() -> Option<FrozenLoop>>,
        stored: &mut Stored,
    ) -> Option<&FrozenLoop> {
        let Some(capture) = capture else {
            if self.was_on {
                stored.latents.0.remove(self.factor);
            }
            self.was_on = false;
            self.frozen = None;
            return None;
        };
        if !self.was_on || stored.loads != self.loads {
            let loaded = stored.latents.0.get(self.factor).cloned();
            self.frozen = loaded.filter(|loaded| loaded.fits(width));
            self.loads = stored.loads;
        }
        self.was_on = true;
        if self.frozen.is_none() {
            self.frozen = capture();
            match &self.frozen {
                Some(frozen) => stored.latents.0.insert(self.factor, frozen.clone()),
                None => stored.latents.0.remove(self.factor),
            };
        }
        self.frozen.as_ref()
    }
}

impl History {
    fn clear(&mut self) {
        self.places.clear();
        self.values.clear();
    }

    fn push(&mut self, frame: &[f32], position_beats: f64) {
        // Positions that are not consecutive do not form a loop.
        if self
            .places
            .back()
            .is_some_and(|last| position_beats <= *last)
        {
            self.clear();
        }
        self.places.push_back(position_beats);
        self.values.extend(frame);
        while self.places.len() > MAX_FRAMES || self.places[0] < position_beats - MAX_BEATS - 1.0 {
            self.places.pop_front();
            self.values.drain(..frame.len());
        }
    }

    /// The last `beats`, if the history is long enough. The length is measured from the first frame to the end of the
    /// last one, to within half a frame, so that a loop of the host can be frozen in one pass.
    fn capture(&self, beats: f64) -> Option<FrozenLoop> {
        let beats = beats.clamp(1.0 / 64.0, MAX_BEATS);
        let (first, end) = (*self.places.front()?, *self.places.back()?);
        let spacing = (end - first) / self.places.len() as f64;
        if first - 1.5 * spacing > end - beats {
            return None;
        }
        let begin = self.places.partition_point(|place| *place <= end - beats);
        let width = self.values.len() / self.places.len();
        let frames = self.places.len() - begin;
        let mut values = Vec::with_capacity(frames * width);
        for frame in 0..frames {
            let phase = (frame as f64 + 0.5) * beats / frames as f64;
            let distance = |index: &usize| {
                let off = (self.places[*index] - phase).rem_euclid(beats);
                off.min(beats - off)
            };
            let nearest =
                (begin..self.places.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
            values.extend(self.values.range(nearest * width..(nearest + 1) * width));
        }
        (frames > 0).then_some(FrozenLoop {
            beats,
            frames,
            values,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays frames whose value is their number, `per_beat` per beat, frozen from frame `on` to frame `off`.
    fn run(
        freezer: &mut Freezer,
        store: &FreezeStore,
        frames: usize,
        on: usize,
        off: usize,
    ) -> Vec<f32> {
        let per_beat = 10.3;
        (0..frames)
            .map(|n| {
                let beats = (on..off).contains(&n).then_some(2.0);
                let mut stored = store.stored.lock();
                freezer.frame(&[n as f32], n as f64 / per_beat, beats, &mut stored)[0]
            })
            .collect()
    }

    #[test]
    fn the_last_beats_come_again_at_their_place_on_the_grid() {
        let store = FreezeStore::default();
        let out = run(&mut Freezer::new(Factor::Rhythm), &store, 200, 60, 150);
        let live = |n: usize| out[n] == n as f32;
        assert!((0..60).all(live) && (150..200).all(live));
        for (n, &played) in out.iter().enumerate().take(150).skip(60) {
            let age_frames = n as f32 - played;
            let loops = (age_frames / 20.6).round();
            assert!(
                (60.0 - 20.6..=60.0).contains(&played),
                "frame {n}: {played}"
            );
            assert!(
                (age_frames - loops * 20.6).abs() <= 1.01,
                "frame {n}: {played}"
            );
        }
        assert_eq!(store.get(), FrozenLatents::default());
    }

    #[test]
    fn it_waits_until_the_loop_was_heard() {
        let store = FreezeStore::default();
        let out = run(&mut Freezer::new(Factor::Harmony), &store, 60, 5, 60);
        let first_repeat = (0..60).find(|&n| out[n] != n as f32).unwrap();
        assert!((19..=22).contains(&first_repeat), "{first_repeat}");
    }

    #[test]
    fn what_was_saved_plays_in_a_new_session() {
        let store = FreezeStore::default();
        let mut freezer = Freezer::new(Factor::Harmony);
        let before = run(&mut freezer, &store, 100, 60, 100);
        let saved = serde_json::to_string(&store.get()).unwrap();
        let loaded = FreezeStore::default();
        loaded.set(serde_json::from_str(&saved).unwrap());
        let after = run(&mut Freezer::new(Factor::Harmony), &loaded, 100, 0, 100);
        assert_eq!(after[60..], before[60..]);
        // Loading during playback works too.
        let frozen = FrozenLoop {
            beats: 1.0,
            frames: 1,
            values: vec![-7.0],
        };
        loaded.set(FrozenLatents(
            [(Factor::Harmony, frozen)].into_iter().collect(),
        ));
        let mut stored = loaded.stored.lock();
        assert_eq!(freezer.frame(&[0.0], 200.0, Some(2.0), &mut stored), [-7.0]);
    }

    #[test]
    fn a_single_frame_is_held_from_the_moment_it_is_known_and_plays_in_a_new_session() {
        let store = Arc::<FreezeStore>::default();
        let mut holder = Holder::new(Factor::Timbre, 2, Arc::clone(&store));
        assert_eq!(holder.frame(false, Some(&[1.0, 2.0])), None);
        assert_eq!(holder.frame(true, None), None, "nothing was heard yet");
        assert_eq!(store.get(), FrozenLatents::default());
        let held = Some(&[3.0, 4.0][..]);
        for live in [[3.0, 4.0], [5.0, 6.0]] {
            assert_eq!(holder.frame(true, Some(&live)), held);
        }
        assert_eq!(holder.frame(true, None), held);
        let saved = serde_json::to_string(&store.get()).unwrap();
        assert_eq!(holder.frame(false, Some(&[7.0, 8.0])), None);
        assert_eq!(store.get(), FrozenLatents::default());
        store.set(serde_json::from_str(&saved).unwrap());
        assert!(store.loaded().factors[Factor::Timbre as usize]);
        assert_eq!(holder.frame(true, Some(&[7.0, 8.0])), held);
        // One that does not fit is not played.
        let mut other = Holder::new(Factor::Timbre, 3, Arc::clone(&store));
        assert!(!store.loaded().factors[Factor::Timbre as usize]);
        let live = [7.0, 8.0, 9.0];
        assert_eq!(other.frame(true, Some(&live)), Some(&live[..]));
    }

    #[test]
    fn the_audio_thread_sees_loaded_loops_that_fit_but_no_captured_ones() {
        let store = FreezeStore::default();
        let seen = |store: &FreezeStore| {
            let Loaded { loads, factors } = store.loaded();
            let seen = Factor::ALL.into_iter().filter(|f| factors[*f as usize]);
            (loads, seen.collect::<Vec<_>>())
        };
        let of = |frozen: &FrozenLoop| {
            let loops = Factor::ALL.map(|factor| (factor, frozen.clone()));
            FrozenLatents(loops.into_iter().collect())
        };
        let frozen = FrozenLoop {
            beats: 1.0,
            frames: 2,
            values: vec![0.5; 6],
        };
        store.set(of(&frozen));
        assert_eq!(seen(&store), (1, vec![]), "no stream, no latents");
        store.begin(
            [(Factor::Harmony, 4), (Factor::Rhythm, 3)]
                .into_iter()
                .collect(),
        );
        assert_eq!(seen(&store), (1, vec![Factor::Rhythm]));
        store.set(FrozenLatents::default());
        assert_eq!(seen(&store), (2, vec![]));
        store.begin(
            [(Factor::Harmony, 1), (Factor::Rhythm, 1)]
                .into_iter()
                .collect(),
        );
        let mut freezer = Freezer::new(Factor::Harmony);
        run(&mut freezer, &store, 100, 60, 100);
        assert!(store.get().0.get(Factor::Harmony).is_some());
        assert_eq!(seen(&store), (2, vec![]));
        store.begin(
            [(Factor::Harmony, 1), (Factor::Rhythm, 1)]
                .into_iter()
                .collect(),
        );
        assert_eq!(
            seen(&store),
            (2, vec![Factor::Harmony]),
            "for the next stream it is there"
        );
    }

    #[test]
    fn states_of_harmony_and_rhythm_are_those_of_earlier_versions() {
        let old = r#"{"harmony":{"beats":2.0,"frames":1,"values":[0.5]},"rhythm":null}"#;
        let frozen: FrozenLatents = serde_json::from_str(old).unwrap();
        assert_eq!(frozen.0[Factor::Harmony].values, [0.5]);
        assert_eq!(frozen.0.get(Factor::Rhythm), None);
        assert_eq!(serde_json::to_string(&frozen).unwrap(), old);
        assert!(serde_json::from_str::<FrozenLatents>(r#"{"colour":null}"#).is_err());
        let frozen = FrozenLoop {
            beats: 2.0,
            frames: 1,
            values: vec![0.5],
        };
        let frozen = FrozenLatents([(Factor::Timbre, frozen)].into_iter().collect());
        let text = serde_json::to_string(&frozen).unwrap();
        assert_eq!(
            text,
            r#"{"harmony":null,"rhythm":null,"timbre":{"beats":2.0,"frames":1,"values":[0.5]}}"#
        );
        assert_eq!(
            serde_json::from_str::<FrozenLatents>(&text).unwrap(),
            frozen
        );
    }

    #[test]
    fn what_does_not_fit_is_not_played() {
        for (beats, frames, values) in [
            (1.0, 2, vec![0.0; 5]),
            (0.0, 1, vec![0.0]),
            (f64::NAN, 1, vec![0.0]),
            (1.0, 0, vec![]),
            (1.0, 1, vec![f32::NAN]),
        ] {
            let frozen = FrozenLoop {
                beats,
                frames,
                values,
            };
            assert!(!frozen.fits(1), "{frozen:?}");
        }
    }
}
