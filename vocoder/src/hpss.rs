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

/// Settings of a separation; the defaults are those of librosa.
#[derive(Clone, Debug, PartialEq)]
pub struct HpssConfig {
    /// Length of the median filter along time; odd.
    pub median_frames: usize,
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

    /// Lag of the masks, in frames: half the median filter along time.
    pub fn delay_frames(&self) -> usize {
        self.config.median_frames / 2
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
        let leaves_next = (self.next_frame).saturating_sub(self.delay_frames() + 1);
        if self.first_frame < leaves_next {
            self.first_frame += 1;
            return self.history.pop_front();
        }
        None
    }

    fn next_masks(&mut self) -> HpssMasks<&[f32]> {
        let frame = self.next_frame as isize;
        let reach = self.delay_frames() as isize;
        if frame == 0 {
            for entering in -reach..=reach {
                self.slide_along_time(None, entering);
            }
        } else {
            self.slide_along_time(Some(frame - 1 - reach), frame + reach);
        }
        for (block, medians) in self.along_time.iter().enumerate() {
            self.harmonic[block * LANES..][..LANES].copy_from_slice(medians.median());
        }
        let current = &self.history[self.next_frame - self.first_frame][..self.n_bins];
        self.along_frequency.filter(current, &mut self.percussive);

        if let Some(steady) = &mut self.steady {
            steady.next(&self.harmonic[..self.n_bins], &self.percussive);
        }
        let split_zeros =
            self.config.margin_harmonic == 1.0 && self.config.margin_percussive == 1.0;
        let nothing = if split_zeros { 0.5 } else { 0.0 };
        for (harmonic, percussive) in self.harmonic.iter_mut().zip(&mut self.percussive) {
            let (h, p) = (*harmonic, *percussive);
            *harmonic = soft_mask(h, p * self.config.margin_harmonic, nothing);
            *percussive = soft_mask(p, h * self.config.margin_percussive, nothing);
        }
        self.next_frame += 1;
        self.masks()
    }

    /// Moves the filters along time by one frame; frame numbers outside the clip are mirrored.
    fn slide_along_time(&mut self, leaving: Option<isize>, entering: isize) {
        let position = |frame: isize| mirror(frame, self.pushed_frames()) - self.first_frame;
        let (entering, _) = self.history[position(entering)].as_chunks();
        match leaving {
            Some(leaving) => {
                let (leaving, _) = self.history[position(leaving)].as_chunks();
                for ((medians, old), new) in self.along_time.iter_mut().zip(leaving).zip(entering) {
                    medians.replace(old, new);
                }
            }
            None => {
                for (medians, new) in self.along_time.iter_mut().zip(entering) {
                    medians.replace(&VACANT, new);
                }
            }
        }
    }
}

/// The share of `value` relative to `reference`, power 2; `nothing` if both are zero.
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
    /// the new value is inserted between its neighbours.
    fn replace(&mut self, old: &[f32; LANES], new: &[f32; LANES]) {
        let mut below = [f32::NEG_INFINITY; LANES];
        for k in 0..self.sorted.len() {
            let next = self.sorted.get(k + 1).copied().unwrap_or(VACANT);
            let row = &mut self.sorted[k];
            for lane in 0..LANES {
                let kept = select(row[lane] < old[lane], row[lane], next[lane]);
                let lower = select(kept < new[lane], kept, new[lane]);
                row[lane] = select(lower > below[lane], lower, below[lane]);
                below[lane] = kept;
            }
        }
    }

    fn median(&self) -> &[f32; LANES] {
        &self.sorted[self.sorted.len() / 2]
    }
}

/// Compiles to a vector blend, minimum or maximum, which `f32::min` with its rules for NaN does not.
#[inline(always)]
fn select(condition: bool, yes: f32, no: f32) -> f32 {
    if condition { yes } else { no }
}

/// Median filter across the bins of one frame: [`LANES`] filters, each of which slides over its own range of bins.
struct FrequencyMedian {
    window: usize,
    stretch: usize,
    medians: SlidingMedians,
    /// The frame, mirrored at both ends as far as the filters reach.
    mirrored: Vec<f32>,
    n_bins: usize,
}

impl FrequencyMedian {
    fn new(n_bins: usize, window: usize) -> Self {
        let stretch = n_bins.div_ceil(LANES);
        Self {
            window,
            stretch,
            medians: SlidingMedians::new(window),
            mirrored: vec![0.0; stretch * LANES + window - 1],
            n_bins,
        }
    }

    fn filter(&mut self, frame: &[f32], filtered: &mut [f32]) {
        let reach = self.window / 2;
        self.mirrored[reach..reach + self.n_bins].copy_from_slice(frame);
        for index in (0..reach).chain(reach + self.n_bins..self.mirrored.len()) {
            let bin = index as isize - reach as isize;
            self.mirrored[index] = frame[mirror(bin, self.n_bins)];
        }
        self.medians.clear();
        let value_at = |step: usize| {
            let mut values = [0.0; LANES];
            for (lane, value) in values.iter_mut().enumerate() {
                *value = self.mirrored[lane * self.stretch + step];
            }
            values
        };
        for step in 0..self.stretch + self.window - 1 {
            let old = step.checked_sub(self.window).map_or(VACANT, value_at);
            self.medians.replace(&old, &value_at(step));
            let Some(first_bin) = step.checked_sub(self.window - 1) else {
                continue;
            };
            for (lane, median) in self.medians.median().iter().enumerate() {
                if let Some(value) = filtered.get_mut(lane * self.stretch + first_bin) {
                    *value = *median;
                }
            }
        }
    }
}
