//! Harmonic/percussive separation by median filtering.
//!
//! D. Fitzgerald, "Harmonic/Percussive Separation Using Median Filtering", DAFx 2010; margins: J. Driedger, M. Müller
//! and S. Disch, "Extending Harmonic-Percussive Separation of Audio", ISMIR 2014. A magnitude spectrogram is
//! median-filtered along time, which keeps steady tones, and along frequency, which keeps broadband transients. Soft
//! masks of power 2 compare the two in every bin. The results equal those of `librosa.decompose.hpss` at the same
//! settings.

mod steady;

use std::collections::VecDeque;

use steady::Steady;

use crate::error::{Error, Result};
use crate::simd::{Isa, Vector, Work};
use crate::vectorized;

/// Settings of a separation; the defaults are those of librosa.
#[derive(Clone, Debug, PartialEq)]
pub struct HpssConfig {
    /// Length of the median filter along time; odd.
    pub median_frames: usize,
    /// How many of its frames follow the one whose masks it gives, at most half of them; half of them, as in librosa, without
    /// this.
    pub look_ahead_frames: Option<usize>,
    /// Length of the median filter along frequency; odd.
    pub median_bins: usize,
    /// Factor by which the harmonic part must exceed the percussive part to get half of a bin; at least 1.
    pub margin_harmonic: f32,
    /// Factor by which the percussive part must exceed the harmonic part to get half of a bin; at least 1.
    pub margin_percussive: f32,
}

impl Default for HpssConfig {
    fn default() -> Self {
        Self {
            median_frames: 31,
            look_ahead_frames: None,
            median_bins: 31,
            margin_harmonic: 1.0,
            margin_percussive: 1.0,
        }
    }
}

impl HpssConfig {
    fn validate(&self) -> Result<()> {
        for (setting, length) in [
            ("median_frames", self.median_frames),
            ("median_bins", self.median_bins),
        ] {
            if !(1..=1023).contains(&length) || length.is_multiple_of(2) {
                return Err(Error::setting(
                    setting,
                    "an odd number from 1 to 1023",
                    length,
                ));
            }
        }
        if self.ahead() > self.median_frames / 2 {
            return Err(Error::setting(
                "look_ahead_frames",
                format!("at most half of median_frames = {}", self.median_frames),
                self.ahead(),
            ));
        }
        for (setting, margin) in [
            ("margin_harmonic", self.margin_harmonic),
            ("margin_percussive", self.margin_percussive),
        ] {
            if !(1.0..=f32::MAX).contains(&margin) {
                return Err(Error::setting(setting, "1 or more", margin));
            }
        }
        Ok(())
    }

    fn ahead(&self) -> usize {
        self.look_ahead_frames.unwrap_or(self.median_frames / 2)
    }
}

/// Soft masks, from 0 to 1, of one frame or of a spectrogram. If both margins are 1, they add up to 1 in every bin.
#[derive(Clone, Debug, PartialEq)]
pub struct HpssMasks<T> {
    /// Share of the harmonic part.
    pub harmonic: T,
    /// Share of the percussive part.
    pub percussive: T,
}

/// Masks of a whole spectrogram. The layout of `magnitude` and of the masks is `[frame * n_bins + bin]`.
///
/// At the borders the spectrogram is mirrored, including the border (`mode="reflect"` of `scipy.ndimage`).
///
/// # Errors
///
/// If a setting is out of range or `magnitude` does not hold whole frames.
pub fn hpss(magnitude: &[f32], n_bins: usize, config: &HpssConfig) -> Result<HpssMasks<Vec<f32>>> {
    let mut stream = HpssStream::new(n_bins, config)?;
    if !magnitude.len().is_multiple_of(n_bins) {
        let expected = format!("a whole number of frames of {n_bins} bins");
        return Err(Error::setting("magnitude", expected, magnitude.len()));
    }
    let mut all = HpssMasks {
        harmonic: Vec::with_capacity(magnitude.len()),
        percussive: Vec::with_capacity(magnitude.len()),
    };
    let mut keep = |masks: HpssMasks<&[f32]>| {
        all.harmonic.extend_from_slice(masks.harmonic);
        all.percussive.extend_from_slice(masks.percussive);
    };
    for frame in magnitude.chunks_exact(n_bins) {
        if let Some(masks) = stream.push(frame) {
            keep(masks);
        }
    }
    while let Some(masks) = stream.drain() {
        keep(masks);
    }
    Ok(all)
}

/// The streaming form of [`hpss`]: takes one frame and returns the masks of an earlier one, equal to those of the whole
/// clip.
pub struct HpssStream {
    config: HpssConfig,
    n_bins: usize,
    /// Magnitudes of the frames from number `first_frame` on, each zero-padded to whole [`LANES`].
    history: VecDeque<Vec<f32>>,
    first_frame: usize,
    next_frame: usize,
    along_time: Vec<SlidingMedians>,
    along_frequency: FrequencyMedian,
    harmonic: Vec<f32>,
    percussive: Vec<f32>,
    /// If anybody asks for it.
    steady: Option<Steady>,
}

impl HpssStream {
    /// Creates a stream at its beginning, for frames of `n_bins` magnitudes.
    ///
    /// # Errors
    ///
    /// If a setting is out of range or `n_bins` is 0.
    pub fn new(n_bins: usize, config: &HpssConfig) -> Result<Self> {
        config.validate()?;
        if n_bins == 0 {
            return Err(Error::setting("n_bins", "1 or more", n_bins));
        }
        let blocks = n_bins.div_ceil(LANES);
        Ok(Self {
            config: config.clone(),
            n_bins,
            history: VecDeque::new(),
            first_frame: 0,
            next_frame: 0,
            along_time: vec![SlidingMedians::new(config.median_frames); blocks],
            along_frequency: FrequencyMedian::new(n_bins, config.median_bins),
            harmonic: vec![0.0; blocks * LANES],
            percussive: vec![0.0; n_bins],
            steady: None,
        })
    }

    /// Also computes [`steady_shares`](Self::steady_shares).
    pub(crate) fn with_steady_shares(mut self) -> Self {
        self.steady = Some(Steady::new(self.n_bins));
        self
    }

    /// The masks that were returned last.
    pub(crate) fn masks(&self) -> HpssMasks<&[f32]> {
        HpssMasks {
            harmonic: &self.harmonic[..self.n_bins],
            percussive: &self.percussive,
        }
    }

    /// The harmonic share of each bin of the frame whose masks were returned last, without a margin, as a median filter
    /// along time of about twice the length would find it. Empty unless asked for.
    pub(crate) fn steady_shares(&self) -> &[f32] {
        self.steady.as_ref().map_or(&[], Steady::shares)
    }

    /// Lag of the masks, in frames.
    pub fn delay_frames(&self) -> usize {
        self.config.ahead()
    }

    /// How many frames of the median filter along time lie before the one whose masks it gives.
    fn past_frames(&self) -> usize {
        self.config.median_frames - 1 - self.config.ahead()
    }

    /// Takes the next frame (`n_bins` magnitudes without NaN) and returns the masks of the frame
    /// [`delay_frames`](Self::delay_frames) before it, if there is one.
    ///
    /// # Panics
    ///
    /// If `magnitude` has the wrong length.
    pub fn push(&mut self, magnitude: &[f32]) -> Option<HpssMasks<&[f32]>> {
        assert_eq!(magnitude.len(), self.n_bins, "magnitude bins");
        let mut frame = self.take_unneeded_frame().unwrap_or_default();
        frame.clear();
        frame.extend_from_slice(magnitude);
        frame.resize(self.harmonic.len(), 0.0);
        self.history.push_back(frame);
        (self.pushed_frames() > self.next_frame + self.delay_frames()).then(|| self.next_masks())
    }

    /// Returns the masks of the remaining frames after the last push, one per call.
    pub fn drain(&mut self) -> Option<HpssMasks<&[f32]>> {
        (self.pushed_frames() > self.next_frame).then(|| self.next_masks())
    }

    /// Resets the stream.
    pub fn reset(&mut self) {
        self.history.clear();
        self.first_frame = 0;
        self.next_frame = 0;
        for medians in &mut self.along_time {
            medians.clear();
        }
        if let Some(steady) = &mut self.steady {
            steady.reset();
        }
    }

    fn pushed_frames(&self) -> usize {
        self.first_frame + self.history.len()
    }

    /// The buffer of the oldest frame, once no filter needs it any more.
    fn take_unneeded_frame(&mut self) -> Option<Vec<f32>> {
        let leaves_next = self.next_frame.saturating_sub(self.past_frames() + 1);
        if self.first_frame < leaves_next {
            self.first_frame += 1;
            return self.history.pop_front();
        }
        None
    }

    fn next_masks(&mut self) -> HpssMasks<&[f32]> {
        Isa::best().run_on_vectors(NextMedians(self));
        if let Some(steady) = &mut self.steady {
            steady.next(&self.harmonic[..self.n_bins], &self.percussive);
        }
        let split_zeros =
            self.config.margin_harmonic == 1.0 && self.config.margin_percussive == 1.0;
        let nothing = if split_zeros { 0.5 } else { 0.0 };
        vectorized!({
            for (harmonic, percussive) in self.harmonic.iter_mut().zip(&mut self.percussive) {
                let (h, p) = (*harmonic, *percussive);
                *harmonic = soft_mask(h, p * self.config.margin_harmonic, nothing);
                *percussive = soft_mask(p, h * self.config.margin_percussive, nothing);
            }
        });
        self.next_frame += 1;
        self.masks()
    }

    /// Moves the filters along time by one frame; frame numbers outside the clip are mirrored. Those before it mirror no more
    /// than the frames that are there when the first masks are made.
    ///
    /// # Safety
    /// The processor must have the instructions of `V`.
    #[inline(always)]
    unsafe fn slide_along_time<V: Vector>(&mut self, leaving: Option<isize>, entering: isize) {
        let position = |frame: isize| {
            let length = match frame < 0 {
                true => self.pushed_frames().min(self.delay_frames() + 1),
                false => self.pushed_frames(),
            };
            mirror(frame, length) - self.first_frame
        };
        let (entering, _) = self.history[position(entering)].as_chunks();
        let leaving = leaving.map(|frame| self.history[position(frame)].as_chunks().0);
        for (block, (medians, new)) in self.along_time.iter_mut().zip(entering).enumerate() {
            let old = leaving.map_or(&VACANT, |leaving| &leaving[block]);
            // SAFETY: the caller vouches for the instructions.
            unsafe { medians.replace::<V>(old, new) };
        }
    }
}

/// The medians of the next frame: along time to `harmonic`, along frequency to `percussive`.
struct NextMedians<'a>(&'a mut HpssStream);

impl Work for NextMedians<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self(stream) = self;
        let frame = stream.next_frame as isize;
        let [past, ahead] =
            [stream.past_frames(), stream.delay_frames()].map(|frames| frames as isize);
        // SAFETY: the caller vouches for the instructions; so below.
        unsafe {
            if frame == 0 {
                for entering in -past..=ahead {
                    stream.slide_along_time::<V>(None, entering);
                }
            } else {
                stream.slide_along_time::<V>(Some(frame - 1 - past), frame + ahead);
            }
        }
        for (block, medians) in stream.along_time.iter().enumerate() {
            stream.harmonic[block * LANES..][..LANES].copy_from_slice(medians.median());
        }
        let current = &stream.history[stream.next_frame - stream.first_frame][..stream.n_bins];
        // SAFETY: see above.
        unsafe {
            stream
                .along_frequency
                .filter::<V>(current, &mut stream.percussive);
        }
    }
}

/// The share of `value` relative to `reference`, power 2; `nothing` if both are zero.
#[inline(always)]
fn soft_mask(value: f32, reference: f32, nothing: f32) -> f32 {
    let larger = value.max(reference);
    let value = (value / larger).powi(2);
    let reference = (reference / larger).powi(2);
    let share = value / (value + reference);
    if larger < f32::MIN_POSITIVE {
        nothing
    } else {
        share
    }
}

/// Position in `0..length` of `index`, mirrored at the borders, including the border: `c b a | a b c | c b a`.
fn mirror(index: isize, length: usize) -> usize {
    let length = length as isize;
    let folded = index.rem_euclid(2 * length);
    folded.min(2 * length - 1 - folded) as usize
}

/// Number of sliding medians that advance together, for vector instructions.
const LANES: usize = 16;

/// Placeholder for empty positions of a filter; sorts last.
const VACANT: [f32; LANES] = [f32::INFINITY; LANES];

/// The sorted contents of [`LANES`] running medians: row `k` holds the `k`-th smallest value of each.
#[derive(Clone)]
struct SlidingMedians {
    sorted: Vec<[f32; LANES]>,
}

impl SlidingMedians {
    fn new(window: usize) -> Self {
        Self {
            sorted: vec![VACANT; window],
        }
    }

    fn clear(&mut self) {
        self.sorted.fill(VACANT);
    }

    /// Replaces one value, which must be present, in each of them.
    ///
    /// A single pass without branches or searches: row `k` without the old value is the former row `k` or `k + 1`; then
    /// the new value is inserted between its neighbours. Written with vectors, as the compiler would work on several rows at a
    /// time instead of several lanes, much slower.
    ///
    /// # Safety
    /// The processor must have the instructions of `V`.
    #[inline(always)]
    unsafe fn replace<V: Vector>(&mut self, old: &[f32; LANES], new: &[f32; LANES]) {
        const { assert!(LANES.is_multiple_of(V::LANES)) };
        for first in (0..LANES).step_by(V::LANES) {
            // SAFETY: the caller vouches for the instructions; from `first` on, a row has a whole vector.
            unsafe {
                let lanes = |row: &[f32; LANES]| V::load(row[first..].as_ptr());
                let (old, new) = (lanes(old), lanes(new));
                let mut below = V::splat(f32::NEG_INFINITY);
                let mut row = lanes(&self.sorted[0]);
                for k in 0..self.sorted.len() {
                    let next = lanes(self.sorted.get(k + 1).unwrap_or(&VACANT));
                    let kept = row.if_less(old, row, next);
                    let inserted = kept.min(new).max(below);
                    inserted.store(self.sorted[k][first..].as_mut_ptr());
                    (below, row) = (kept, next);
                }
            }
        }
    }

    fn median(&self) -> &[f32; LANES] {
        &self.sorted[self.sorted.len() / 2]
    }
}

/// Median filter across the bins of one frame: [`LANES`] filters, each of which slides over its own range of bins.
struct FrequencyMedian {
    window: usize,
    /// Bins in a range.
    stretch: usize,
    medians: SlidingMedians,
    /// For each step, the value that enters each filter.
    entering: Vec<[f32; LANES]>,
    n_bins: usize,
}

impl FrequencyMedian {
    fn new(n_bins: usize, window: usize) -> Self {
        let stretch = n_bins.div_ceil(LANES);
        Self {
            window,
            stretch,
            medians: SlidingMedians::new(window),
            entering: vec![VACANT; stretch + window - 1],
            n_bins,
        }
    }

    /// Filters a frame, mirrored at both ends as far as the filters reach.
    ///
    /// # Safety
    /// The processor must have the instructions of `V`.
    #[inline(always)]
    unsafe fn filter<V: Vector>(&mut self, frame: &[f32], filtered: &mut [f32]) {
        let (stretch, reach) = (self.stretch, self.window / 2);
        for (step, values) in self.entering.iter_mut().enumerate() {
            for (lane, value) in values.iter_mut().enumerate() {
                let bin = (lane * stretch + step) as isize - reach as isize;
                *value = match frame.get(bin as usize) {
                    Some(value) => *value,
                    None => frame[mirror(bin, self.n_bins)],
                };
            }
        }
        self.medians.clear();
        for (step, new) in self.entering.iter().enumerate() {
            let leaving = step.checked_sub(self.window);
            let old = leaving.map_or(&VACANT, |step| &self.entering[step]);
            // SAFETY: the caller vouches for the instructions.
            unsafe { self.medians.replace::<V>(old, new) };
            let Some(first_bin) = step.checked_sub(self.window - 1) else {
                continue;
            };
            for (lane, median) in self.medians.median().iter().enumerate() {
                if let Some(value) = filtered.get_mut(lane * stretch + first_bin) {
                    *value = *median;
                }
            }
        }
    }
}
