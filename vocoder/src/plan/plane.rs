//! A signal inside a plan: the frames that were computed and are still needed.

use crate::conv::PadMode;

/// Layout of a plane, and what its readers need around its frames.
#[derive(Clone, Debug)]
pub(super) struct PlaneSpec {
    pub(super) rows: usize,
    pub(super) channels: usize,
    /// Rows above and below each frame.
    pub(super) row_padding: usize,
    /// Frames before the first one.
    pub(super) before: usize,
    /// Frames after the last one.
    pub(super) after: usize,
    /// Values of all of these.
    pub(super) mode: PadMode,
    /// Space before the first frame; at least `before`.
    pub(super) lead: usize,
    /// Space after the last frame, whose values do not matter.
    pub(super) slack: usize,
}

impl PlaneSpec {
    pub(super) fn new(rows: usize, channels: usize) -> Self {
        Self {
            rows,
            channels,
            row_padding: 0,
            before: 0,
            after: 0,
            mode: PadMode::Zero,
            lead: 0,
            slack: 0,
        }
    }

    /// Values of a frame without its padding.
    pub(super) fn inner_len(&self) -> usize {
        self.rows * self.channels
    }

    /// Values of a frame.
    pub(super) fn frame_len(&self) -> usize {
        (self.rows + 2 * self.row_padding) * self.channels
    }

    /// Offset of a frame's first row behind the padding.
    pub(super) fn inner_offset(&self) -> usize {
        self.row_padding * self.channels
    }
}

/// The frames of one signal for all batch elements: (batch, frame, row, channel). A *place* is the number of a frame
/// plus [`PlaneSpec::lead`], so it is never negative.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    pub(super) spec: PlaneSpec,
    pub(super) data: Vec<f32>,
    batch: usize,
    /// Places in `data` per batch element.
    capacity: usize,
    /// The first place that is in `data`.
    start: usize,
    /// The place after the last frame.
    end: usize,
    /// Whether the frames before the first one are there, and the first one itself. Until then, the plane keeps all places.
    is_led_in: bool,
    /// Number of frames, once the signal has ended.
    pub(super) total: Option<usize>,
}

impl Plane {
    pub(super) fn new(spec: PlaneSpec, batch: usize) -> Self {
        let mut plane = Self {
            data: Vec::new(),
            batch,
            capacity: 0,
            start: 0,
            end: 0,
            is_led_in: false,
            total: None,
            spec,
        };
        plane.reset();
        plane
    }

    /// Batch elements.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// Returns to the beginning.
    pub(super) fn reset(&mut self) {
        (self.start, self.end) = (0, self.spec.lead);
        self.is_led_in = self.spec.lead == 0;
        self.total = None;
    }

    /// Frames that can be read, including those after the last one.
    pub(super) fn frames(&self) -> usize {
        self.end - self.spec.lead
    }

    /// As [`Self::frames`], for a reader that needs the frames before the first one.
    pub(super) fn frames_after_lead_in(&self) -> usize {
        if self.is_led_in { self.frames() } else { 0 }
    }

    /// Distance between the batch elements in `data`.
    pub(super) fn batch_len(&self) -> usize {
        self.capacity * self.spec.frame_len()
    }

    /// Offset in `data` of the first row of the first batch element at a place.
    pub(super) fn offset(&self, place: usize) -> usize {
        debug_assert!(place >= self.start);
        (place - self.start) * self.spec.frame_len() + self.spec.inner_offset()
    }

    /// Makes space for the frames before place `end`. May forget those before place `keep`.
    pub(super) fn reserve(&mut self, end: usize, keep: usize) {
        let end = end + self.spec.slack;
        if end - self.start <= self.capacity {
            return;
        }
        // The frames before the first one may be copies of any of the first.
        let keep = if self.is_led_in {
            keep.clamp(self.start, self.end)
        } else {
            self.start
        };
        let (from, old) = (keep - self.start, self.capacity);
        // At first there is not even space for the frames before the first one.
        let kept = (self.end - keep).min(old - from);
        let frame = self.spec.frame_len();
        if end - keep > old {
            let capacity = end - keep;
            let mut data = vec![0.0; self.batch * capacity * frame];
            for b in 0..self.batch {
                data[b * capacity * frame..][..kept * frame]
                    .copy_from_slice(&self.data[(b * old + from) * frame..][..kept * frame]);
            }
            (self.data, self.capacity) = (data, capacity);
        } else {
            for b in 0..self.batch {
                let source = (b * old + from) * frame;
                self.data
                    .copy_within(source..source + kept * frame, b * old * frame);
            }
        }
        self.start = keep;
    }

    /// Takes over the frames that were written up to place `end`.
    pub(super) fn written(&mut self, end: usize) {
        self.pad_rows(self.end, end);
        self.end = end;
        self.lead_in();
    }

    /// Ends the signal after `total` frames, and appends the frames after the last one.
    pub(super) fn finish(&mut self, total: usize, keep: usize) {
        self.total = Some(total);
        if total == 0 {
            return;
        }
        let PlaneSpec { lead, after, .. } = self.spec;
        self.end = lead + total;
        self.lead_in();
        let mode = self.mode_at_end();
        self.reserve(
            self.end + after,
            keep.min(self.end.saturating_sub(after + 1)),
        );
        for i in 0..after {
            let last = lead + total - 1;
            let source = match mode {
                PadMode::Zero => None,
                PadMode::Replicate => Some(last),
                PadMode::Reflect => Some(last - 1 - i),
            };
            self.copy_frame(source, lead + total + i);
        }
        self.end += after;
    }

    /// A signal that is too short for reflection repeats its edges.
    fn mode_at_end(&self) -> PadMode {
        let PlaneSpec {
            before,
            after,
            mode,
            ..
        } = self.spec;
        match (mode, self.total) {
            (PadMode::Reflect, Some(total)) if total <= before.max(after) => PadMode::Replicate,
            _ => mode,
        }
    }

    /// Writes the frames before the first one, as soon as those are there that they copy.
    fn lead_in(&mut self) {
        let PlaneSpec { lead, before, .. } = self.spec;
        let mode = self.mode_at_end();
        let needed = if mode == PadMode::Reflect {
            before + 1
        } else {
            1
        };
        if self.is_led_in || self.frames() < needed {
            return;
        }
        for i in 1..=before {
            let source = match mode {
                PadMode::Zero => None,
                PadMode::Replicate => Some(lead),
                PadMode::Reflect => Some(lead + i),
            };
            self.copy_frame(source, lead - i);
        }
        self.is_led_in = true;
    }

    /// Copies the frame at a place, or zeros, to another place.
    fn copy_frame(&mut self, source: Option<usize>, target: usize) {
        let frame = self.spec.frame_len();
        for b in 0..self.batch {
            let base = b * self.batch_len();
            let target = base + (target - self.start) * frame;
            match source {
                Some(source) => {
                    let source = base + (source - self.start) * frame;
                    self.data.copy_within(source..source + frame, target);
                }
                None => self.data[target..target + frame].fill(0.0),
            }
        }
    }

    /// Writes the rows above and below the frames from one place to another.
    fn pad_rows(&mut self, from: usize, to: usize) {
        let PlaneSpec {
            rows,
            channels,
            row_padding,
            mode,
            ..
        } = self.spec;
        // Nothing ever writes other values than zero there.
        if row_padding == 0 || mode == PadMode::Zero {
            return;
        }
        for b in 0..self.batch {
            for place in from..to {
                let first = b * self.batch_len() + self.offset(place);
                let row = |i: usize| first + i * channels;
                for i in 1..=row_padding {
                    let (above, below) = match mode {
                        PadMode::Reflect => (i, rows - 1 - i),
                        _ => (0, rows - 1),
                    };
                    let above = row(above);
                    self.data
                        .copy_within(above..above + channels, first - i * channels);
                    let below = row(below);
                    self.data
                        .copy_within(below..below + channels, row(rows - 1 + i));
                }
            }
        }
    }
}
