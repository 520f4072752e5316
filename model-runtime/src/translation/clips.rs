//! Cuts a recording into overlapping clips, and joins what is made of them.
//!
//! Clips begin half a clip after each other. The last one ends with the recording, and so begins earlier; a recording that is
//! shorter than a clip is mirrored at its end until it fills one, so that norms over the clip hear nothing but the recording.

use std::f32::consts::FRAC_PI_2;

use vocoder::LogMel;

/// Cuts frames into clips.
pub(super) struct Cutter {
    clip_frames: usize,
    step_frames: usize,
    /// From the beginning of the latest clip on, or from that of the recording.
    frames: LogMel,
    has_cut: bool,
}

/// The end of a recording.
#[derive(Debug, PartialEq)]
pub(super) struct LastClip {
    pub(super) log_mel: LogMel,
    /// Number of its frames that no clip before has: its last ones. Of the only clip the first ones, all that are not mirrored.
    pub(super) new_frames: usize,
}

impl Cutter {
    pub(super) fn new(clip_frames: usize, n_mels: usize) -> Self {
        Self {
            clip_frames,
            step_frames: step(clip_frames),
            frames: LogMel::new(n_mels),
            has_cut: false,
        }
    }

    /// Takes the next frames. Returns the clips that they complete.
    pub(super) fn push(&mut self, frames: &LogMel) -> Vec<LogMel> {
        self.frames.extend(frames);
        let mut clips = Vec::new();
        loop {
            let start = if self.has_cut { self.step_frames } else { 0 };
            if self.frames.frames() < start + self.clip_frames {
                return clips;
            }
            self.frames.take_first(start);
            self.has_cut = true;
            clips.push(self.frames.clone().take_first(self.clip_frames));
        }
    }

    /// Ends the recording. Returns a last clip, unless the one before ended with the recording.
    pub(super) fn finish(mut self) -> Option<LastClip> {
        let frames = self.frames.frames();
        let new_frames = match self.has_cut {
            true => frames - self.clip_frames,
            false => frames,
        };
        if new_frames == 0 {
            return None;
        }
        let log_mel = match self.has_cut {
            true => {
                self.frames.take_first(new_frames);
                self.frames
            }
            false => mirrored(&self.frames, self.clip_frames),
        };
        Some(LastClip {
            log_mel,
            new_frames,
        })
    }
}

/// Joins clips of frames by crossfades over all that they share.
pub(super) struct Joiner {
    clip_frames: usize,
    step_frames: usize,
    /// What the clip before shares with the next one.
    tail: Option<LogMel>,
}

impl Joiner {
    pub(super) fn new(clip_frames: usize) -> Self {
        Self {
            clip_frames,
            step_frames: step(clip_frames),
            tail: None,
        }
    }

    /// Takes the next clip and appends the frames that it completes to `out`.
    pub(super) fn push(&mut self, mut clip: LogMel, out: &mut LogMel) {
        self.fade_into(&mut clip);
        out.extend(&clip.take_first(self.step_frames));
        self.tail = Some(clip);
    }

    /// Ends the recording with its last clip, if there is one, and appends the remaining frames.
    pub(super) fn finish(mut self, last: Option<LastClip>, out: &mut LogMel) {
        let Some(LastClip {
            mut log_mel,
            new_frames,
        }) = last
        else {
            if let Some(tail) = self.tail {
                out.extend(&tail);
            }
            return;
        };
        if self.tail.is_none() {
            out.extend(&log_mel.take_first(new_frames));
            return;
        }
        // Up to there, the recording is joined.
        let shared_frames = self.clip_frames - self.step_frames;
        log_mel.take_first(self.clip_frames - shared_frames - new_frames);
        self.fade_into(&mut log_mel);
        out.extend(&log_mel);
    }

    /// Crossfades from the end of the clip before to the beginning of this one.
    fn fade_into(&mut self, clip: &mut LogMel) {
        let Some(mut faded) = self.tail.take() else {
            return;
        };
        let new = clip.take_first(faded.frames());
        let (n_mels, frames) = (faded.n_mels(), faded.frames() as f32);
        let mut values = Vec::with_capacity(faded.values().len());
        for (index, (old, new)) in faded.values().iter().zip(new.values()).enumerate() {
            let place = ((index / n_mels) as f32 + 0.5) / frames;
            let share = (FRAC_PI_2 * place).sin().powi(2);
            values.push(old + share * (new - old));
        }
        faded = LogMel::from_values(n_mels, values).expect("as many values as before");
        faded.extend(clip);
        *clip = faded;
    }
}

/// Frames from the beginning of a clip to that of the next one.
fn step(clip_frames: usize) -> usize {
    clip_frames.div_ceil(2)
}

/// The frames, then the same backwards, and so on, until there are enough.
fn mirrored(frames: &LogMel, length: usize) -> LogMel {
    let count = frames.frames();
    let mut mirrored = LogMel::new(frames.n_mels());
    for frame in 0..length {
        let place = frame % (2 * count);
        mirrored.push_frame(frames.frame(place.min(2 * count - 1 - place)));
    }
    mirrored
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of two bands: a ramp, and the same downwards.
    fn ramp(frames: usize) -> LogMel {
        let mut ramp = LogMel::new(2);
        (0..frames).for_each(|frame| ramp.push_frame(&[frame as f32, -(frame as f32)]));
        ramp
    }

    /// Cuts a ramp that is pushed in pieces, changes every clip, and joins them.
    fn joined(
        frames: usize,
        clip_frames: usize,
        piece_frames: usize,
        change: impl Fn(usize, LogMel) -> LogMel,
    ) -> (LogMel, usize) {
        let (mut cutter, mut joiner) = (Cutter::new(clip_frames, 2), Joiner::new(clip_frames));
        let (mut rest, mut out) = (ramp(frames), LogMel::new(2));
        let mut clips = 0;
        let mut numbered = |clip: LogMel| {
            assert_eq!(clip.frames(), clip_frames);
            clips += 1;
            change(clips, clip)
        };
        while rest.frames() > 0 {
            let piece = rest.take_first(piece_frames.min(rest.frames()));
            for clip in cutter.push(&piece) {
                joiner.push(numbered(clip), &mut out);
            }
        }
        let last = cutter.finish().map(|last| LastClip {
            log_mel: numbered(last.log_mel),
            ..last
        });
        joiner.finish(last, &mut out);
        (out, clips)
    }

    #[test]
    fn clips_that_stay_as_they_are_join_to_the_recording() {
        for clip_frames in [1, 7, 8] {
            for frames in 0..40 {
                let (out, clips) = joined(frames, clip_frames, 3, |_, clip| clip);
                assert_eq!(out.frames(), frames, "{frames} in clips of {clip_frames}");
                for (found, expected) in out.values().iter().zip(ramp(frames).values()) {
                    assert!(
                        (found - expected).abs() < 1e-4,
                        "{frames} frames in clips of {clip_frames}: {found}, {expected}"
                    );
                }
                let least = frames.div_ceil(clip_frames);
                assert!((least..=2 * least + 1).contains(&clips), "{clips}");
            }
        }
    }

    #[test]
    fn pieces_make_no_difference() {
        let change = |number: usize, clip: LogMel| {
            let values = clip.values().iter().map(|value| value * number as f32);
            LogMel::from_values(2, values.collect()).unwrap()
        };
        let whole = joined(45, 8, 45, change);
        assert_eq!(joined(45, 8, 1, change), whole);
        assert_eq!(joined(45, 8, 5, change), whole);
    }

    #[test]
    fn a_clip_fades_into_the_next_without_a_step() {
        // Every other clip is 1 higher.
        let change = |number: usize, clip: LogMel| {
            let values = clip.values().iter().map(|_| (number % 2) as f32);
            LogMel::from_values(2, values.collect()).unwrap()
        };
        for frames in [160, 161, 176, 191] {
            let (out, _) = joined(frames, 32, 10, change);
            let band: Vec<f32> = out.values().iter().step_by(2).copied().collect();
            let steps = band.windows(2).map(|pair| (pair[1] - pair[0]).abs());
            let largest = steps.fold(0.0, f32::max);
            // The steepest part of a crossfade over 16 frames.
            assert!(largest < 0.1, "{frames}: {largest}");
            assert!(band.iter().any(|value| *value < 0.01));
        }
    }

    #[test]
    fn a_short_recording_is_mirrored_to_a_clip() {
        let mut cutter = Cutter::new(8, 2);
        assert_eq!(cutter.push(&ramp(3)), []);
        let last = cutter.finish().unwrap();
        assert_eq!(last.new_frames, 3);
        let band: Vec<f32> = last.log_mel.values().iter().step_by(2).copied().collect();
        assert_eq!(band, [0.0, 1.0, 2.0, 2.0, 1.0, 0.0, 0.0, 1.0]);
    }
}
