//! Frozen latents: the last beats of a latent, played over and over in time with the beat grid.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Longest loop, in quarter notes.
pub const MAX_BEATS: f64 = 16.0;

/// Frames that are remembered at most: over a minute of the rhythm latent.
const MAX_FRAMES: usize = 4096;

/// A loop of latent frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenLoop {
    /// Length in quarter notes; loops begin on its multiples.
    pub beats: f64,
    /// Number of frames, evenly spaced.
    pub frames: usize,
    /// The values of all frames, one frame after the other.
    pub values: Vec<f32>,
}

impl FrozenLoop {
    /// Whether it can be played where frames have `width` values.
    fn fits(&self, width: usize) -> bool {
        (1..=MAX_FRAMES).contains(&self.frames)
            && self.values.len() == self.frames * width
            && self.beats > 0.0
            && self.beats <= MAX_BEATS
            && self.values.iter().all(|value| value.is_finite())
    }

    /// The values to play at a place in the song.
    fn at(&self, position_beats: f64) -> &[f32] {
        let phase = position_beats.rem_euclid(self.beats) / self.beats;
        let frame = ((phase * self.frames as f64) as usize).min(self.frames - 1);
        let width = self.values.len() / self.frames;
        &self.values[frame * width..][..width]
    }
}

/// Which latent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The harmony latent.
    Harmony,
    /// The rhythm latent.
    Rhythm,
}

/// What is frozen of both latents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenLatents {
    /// Of the harmony latent.
    pub harmony: Option<FrozenLoop>,
    /// Of the rhythm latent.
    pub rhythm: Option<FrozenLoop>,
}

impl FrozenLatents {
    fn part(&mut self, part: Part) -> &mut Option<FrozenLoop> {
        match part {
            Part::Harmony => &mut self.harmony,
            Part::Rhythm => &mut self.rhythm,
        }
    }
}

/// What is frozen, between the worker that captures and plays it and the main thread that saves and loads it.
#[derive(Debug, Default)]
pub struct FreezeStore(Mutex<Stored>);

#[derive(Debug, Default)]
struct Stored {
    latents: FrozenLatents,
    /// Counts loads.
    loads: u64,
}

impl FreezeStore {
    /// Main thread: what is frozen now.
    pub fn get(&self) -> FrozenLatents {
        self.0.lock().latents.clone()
    }

    /// Main thread: what is to be played where a latent is frozen.
    pub fn set(&self, latents: FrozenLatents) {
        let mut stored = self.0.lock();
        stored.latents = latents;
        stored.loads += 1;
    }
}

/// Worker thread: freezes one latent.
pub(crate) struct Freezer {
    part: Part,
    /// Place and values of the latest frames.
    history: VecDeque<(f64, Vec<f32>)>,
    frozen: Option<FrozenLoop>,
    was_on: bool,
    loads: u64,
}

impl Freezer {
    pub(crate) fn new(part: Part) -> Self {
        Self {
            part,
            history: VecDeque::new(),
            frozen: None,
            was_on: false,
            loads: 0,
        }
    }

    /// Forgets the frames; what is frozen stays.
    pub(crate) fn begin(&mut self) {
        self.history.clear();
    }

    /// Takes the next frame, heard at `position_beats`, and gives the one to play in its place. `loop_beats` is the length
    /// of the loop where the latent is frozen. A loop that was loaded is played; without one, the last `loop_beats` are
    /// captured as soon as they have been heard.
    pub(crate) fn frame(
        &mut self,
        live: Vec<f32>,
        position_beats: f64,
        loop_beats: Option<f64>,
        store: &FreezeStore,
    ) -> Vec<f32> {
        self.remember(live, position_beats);
        let (_, live) = &self.history[self.history.len() - 1];
        let mut stored = store.0.lock();
        let Some(loop_beats) = loop_beats else {
            if self.was_on {
                *stored.latents.part(self.part) = None;
            }
            self.was_on = false;
            self.frozen = None;
            return live.clone();
        };
        if !self.was_on || stored.loads != self.loads {
            let loaded = stored.latents.part(self.part).clone();
            self.frozen = loaded.filter(|loaded| loaded.fits(live.len()));
            self.loads = stored.loads;
        }
        self.was_on = true;
        if self.frozen.is_none() {
            self.frozen = self.capture(loop_beats);
            stored.latents.part(self.part).clone_from(&self.frozen);
        }
        match &self.frozen {
            Some(frozen) => frozen.at(position_beats).to_vec(),
            None => live.clone(),
        }
    }

    fn remember(&mut self, live: Vec<f32>, position_beats: f64) {
        // Places that do not follow each other make no loop.
        if let Some((last, _)) = self.history.back()
            && position_beats <= *last
        {
            self.history.clear();
        }
        self.history.push_back((position_beats, live));
        while self.history.len() > MAX_FRAMES
            || self.history[0].0 < position_beats - MAX_BEATS - 1.0
        {
            self.history.pop_front();
        }
    }

    /// The last `beats`, if that much was heard: from the first frame to the end of the last one, give or take half of one,
    /// so that a loop of the host can be frozen in one pass.
    fn capture(&self, beats: f64) -> Option<FrozenLoop> {
        let beats = beats.clamp(1.0 / 64.0, MAX_BEATS);
        let (first, end) = (self.history.front()?.0, self.history.back()?.0);
        let spacing = (end - first) / self.history.len() as f64;
        if first - 1.5 * spacing > end - beats {
            return None;
        }
        let begin = self
            .history
            .partition_point(|(place, _)| *place <= end - beats);
        let heard = || self.history.range(begin..);
        let frames = heard().len();
        let mut values = Vec::new();
        for frame in 0..frames {
            let phase = (frame as f64 + 0.5) * beats / frames as f64;
            let distance = |place: f64| {
                let off = (place - phase).rem_euclid(beats);
                off.min(beats - off)
            };
            let nearest = heard().min_by(|(a, _), (b, _)| distance(*a).total_cmp(&distance(*b)));
            values.extend_from_slice(&nearest?.1);
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

    /// Frames of one value, the number of the frame, `per_beat` to a beat; frozen from frame `on` to frame `off`.
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
                freezer.frame(vec![n as f32], n as f64 / per_beat, beats, store)[0]
            })
            .collect()
    }

    #[test]
    fn the_last_beats_come_again_at_their_place_on_the_grid() {
        let store = FreezeStore::default();
        let out = run(&mut Freezer::new(Part::Rhythm), &store, 200, 60, 150);
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
        let out = run(&mut Freezer::new(Part::Harmony), &store, 60, 5, 60);
        let first_repeat = (0..60).find(|&n| out[n] != n as f32).unwrap();
        assert!((19..=22).contains(&first_repeat), "{first_repeat}");
    }

    #[test]
    fn what_was_saved_plays_in_a_new_session() {
        let store = FreezeStore::default();
        let mut freezer = Freezer::new(Part::Harmony);
        let before = run(&mut freezer, &store, 100, 60, 100);
        let saved = serde_json::to_string(&store.get()).unwrap();
        let loaded = FreezeStore::default();
        loaded.set(serde_json::from_str(&saved).unwrap());
        let after = run(&mut Freezer::new(Part::Harmony), &loaded, 100, 0, 100);
        assert_eq!(after[60..], before[60..]);
        // A load while it plays counts, too.
        loaded.set(FrozenLatents {
            harmony: Some(FrozenLoop {
                beats: 1.0,
                frames: 1,
                values: vec![-7.0],
            }),
            rhythm: None,
        });
        assert_eq!(freezer.frame(vec![0.0], 200.0, Some(2.0), &loaded), [-7.0]);
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
