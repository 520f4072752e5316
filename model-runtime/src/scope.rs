//! Inputs, latents and output of the worker, frame by frame, for display in an editor.
//!
//! The worker writes only while an editor watches. Only the worker and the editor share the lock, and both hold it only
//! to copy a few frames; the audio thread never touches it.

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use candle_core::Tensor;
use parking_lot::Mutex;
use vocoder::LogMel;

use crate::error::Result;
use crate::factor::Factor;
use crate::transport::Beat;

/// Range of log-mels, in nepers, that maps to 0 to 255.
const SOFTEST: f32 = -8.0;
const LOUDEST: f32 = 2.0;

/// Latent value that maps to 255. The latents' prior has the standard deviation 1.
const LARGEST_LATENT: f32 = 3.0;

/// Longest queue, in frames. A slow editor gets only the newest frames.
const MOST_FRAMES: usize = 1024;

/// The kind of data in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The main input's log-mel.
    Main,
    /// The sidechain's log-mel.
    Sidechain,
    /// The log-mel of the remix, as decoded by the network if there is one.
    Remix,
    /// The mixed latent of a factor.
    Latent(Factor),
}

/// One frame of a lane.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The lane.
    pub lane: Lane,
    /// Number of the column's first mel frame. All lanes count the same frames.
    pub frame: u64,
    /// Number of mel frames that the column covers.
    pub frames: u64,
    /// The values, from low to high frequency, 0 to 255.
    pub values: Vec<u8>,
}

/// New data since the last [`Scope::take`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    /// Columns in the order in which they were computed.
    pub columns: Vec<Column>,
    /// Positions on the beat grid at the start of input frames.
    pub beats: Vec<(u64, Beat)>,
}

/// Passes frames from the worker to the editor.
#[derive(Debug, Default)]
pub struct Scope {
    watched: AtomicBool,
    /// Number of the next input frame.
    next_frame: AtomicU64,
    news: Mutex<News>,
}

impl Scope {
    /// Editor: starts or stops watching.
    pub fn watch(&self, watched: bool) {
        *self.news.lock() = News::default();
        self.watched.store(watched, Ordering::Relaxed);
    }

    /// Editor: the new data since the last call.
    pub fn take(&self) -> News {
        mem::take(&mut self.news.lock())
    }
}

/// Worker thread: writes into a [`Scope`].
#[derive(Debug, Default)]
pub(crate) struct ScopeWriter {
    scope: Arc<Scope>,
    /// Number of the clip's first frame.
    clip_start: u64,
    /// Frames of the inputs in the clip.
    clip_frames: u64,
}

impl ScopeWriter {
    /// Continues the frame count of the last writer.
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        Self {
            clip_start: scope.next_frame.load(Ordering::Relaxed),
            scope,
            ..Self::default()
        }
    }

    /// Whether an editor watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.scope.watched.load(Ordering::Relaxed)
    }

    /// Begins a clip, whose frames count from 0 again.
    pub(crate) fn begin_clip(&mut self) {
        self.clip_start += self.clip_frames;
        self.clip_frames = 0;
    }

    /// Writes frames of the inputs; `first` is the number of the first frame in the clip, `beat` returns the position
    /// at the start of a frame.
    pub(crate) fn inputs(
        &mut self,
        clip_frames: Range<usize>,
        mels: [&LogMel; 2],
        beat: impl Fn(usize) -> Beat,
    ) {
        self.clip_frames = clip_frames.end as u64;
        let next_frame = self.number(clip_frames.end);
        self.scope.next_frame.store(next_frame, Ordering::Relaxed);
        if !self.is_watched() {
            return;
        }
        let mut news = self.scope.news.lock();
        for (lane, mel) in [Lane::Main, Lane::Sidechain].into_iter().zip(mels) {
            self.write_mel(&mut news, lane, clip_frames.clone(), mel);
        }
        for frame in clip_frames {
            news.beats.push((self.number(frame), beat(frame)));
        }
        let excess = news.beats.len().saturating_sub(MOST_FRAMES);
        news.beats.drain(..excess);
    }

    /// Writes frames of the remix from number `first` of the clip on.
    pub(crate) fn remix(&self, first: usize, mel: &LogMel) {
        if self.is_watched() {
            let clip_frames = first..first + mel.frames();
            self.write_mel(&mut self.scope.news.lock(), Lane::Remix, clip_frames, mel);
        }
    }

    /// Writes frames of a latent (B, C, H, T), from number `first` of the clip on, for the first batch element. Each
    /// frame covers `pool_frames` mel frames.
    pub(crate) fn latent(
        &self,
        lane: Lane,
        first: usize,
        pool_frames: usize,
        latent: &Tensor,
    ) -> Result<()> {
        if !self.is_watched() {
            return Ok(());
        }
        let (_, channels, height, frames) = latent.dims4()?;
        // On a note axis, show one value per note; otherwise show each latent.
        let rows = if height > channels {
            height
        } else {
            channels * height
        };
        let together = channels * height / rows;
        let values = latent.get(0)?.flatten_all()?.to_vec1::<f32>()?;
        let size = |row: usize, frame: usize| {
            let latents = (0..together).map(|i| values[(i * rows + row) * frames + frame]);
            latents.map(|x| x * x).sum::<f32>().sqrt()
        };
        let mut news = self.scope.news.lock();
        for frame in 0..frames {
            let values = (0..rows).map(|row| to_byte(size(row, frame) / LARGEST_LATENT));
            news.columns.push(Column {
                lane,
                frame: self.number((first + frame) * pool_frames),
                frames: pool_frames as u64,
                values: values.collect(),
            });
        }
        Ok(())
    }

    fn write_mel(&self, news: &mut News, lane: Lane, clip_frames: Range<usize>, mel: &LogMel) {
        for (index, clip_frame) in clip_frames.enumerate() {
            let values = mel.frame(index).iter();
            let share = |x: &f32| (x - SOFTEST) / (LOUDEST - SOFTEST);
            news.columns.push(Column {
                lane,
                frame: self.number(clip_frame),
                frames: 1,
                values: values.map(|x| to_byte(share(x))).collect(),
            });
        }
        let excess = news
            .columns
            .len()
            .saturating_sub((3 + Factor::COUNT) * MOST_FRAMES);
        news.columns.drain(..excess);
    }

    fn number(&self, clip_frame: usize) -> u64 {
        self.clip_start + clip_frame as u64
    }
}

/// Maps 0 to 1 to 0 to 255.
fn to_byte(share: f32) -> u8 {
    (255.0 * share.clamp(0.0, 1.0)).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn mel(frames: usize) -> LogMel {
        LogMel::from_values(2, [SOFTEST, LOUDEST].repeat(frames)).unwrap()
    }

    fn writer() -> (Arc<Scope>, ScopeWriter) {
        let scope = Arc::new(Scope::default());
        (Arc::clone(&scope), ScopeWriter::new(scope))
    }

    #[test]
    fn nothing_is_written_for_nobody() {
        let (scope, mut writer) = writer();
        writer.inputs(0..4, [&mel(4), &mel(4)], |_| Beat::default());
        writer.remix(0, &mel(4));
        assert!(scope.take().columns.is_empty());
        scope.watch(true);
        writer.inputs(4..5, [&mel(1), &mel(1)], |_| Beat::default());
        let news = scope.take();
        assert_eq!(news.columns.len(), 2);
        assert_eq!(news.columns[0].values, [0, 255]);
        assert_eq!(news.columns[0].frame, 4);
        assert!(scope.take().columns.is_empty(), "taken is taken");
    }

    #[test]
    fn frames_count_on_from_writer_to_writer() {
        let (scope, mut writer) = writer();
        scope.watch(true);
        writer.inputs(0..3, [&mel(3), &mel(3)], |_| Beat::default());
        let mut writer = ScopeWriter::new(Arc::clone(&scope));
        writer.inputs(0..1, [&mel(1), &mel(1)], |_| Beat::default());
        let beats = scope.take().beats;
        let frames: Vec<u64> = beats.iter().map(|(frame, _)| *frame).collect();
        assert_eq!(frames, [0, 1, 2, 3]);
    }

    #[test]
    fn frames_count_on_from_clip_to_clip() {
        let (scope, mut writer) = writer();
        scope.watch(true);
        writer.begin_clip();
        writer.inputs(0..3, [&mel(3), &mel(3)], |_| Beat::default());
        writer.begin_clip();
        writer.inputs(0..1, [&mel(1), &mel(1)], |_| Beat::default());
        writer.remix(0, &mel(1));
        let frames = |lane| {
            let columns = scope.take().columns.into_iter();
            let columns = columns.filter(move |column| column.lane == lane);
            columns.map(|column| column.frame).collect::<Vec<_>>()
        };
        assert_eq!(frames(Lane::Main), [0, 1, 2, 3]);
        writer.remix(1, &mel(2));
        assert_eq!(frames(Lane::Remix), [4, 5]);
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let (scope, mut writer) = writer();
        scope.watch(true);
        for n in 0..100 {
            writer.inputs(100 * n..100 * (n + 1), [&mel(100), &mel(100)], |_| {
                Beat::default()
            });
        }
        let news = scope.take();
        assert_eq!(news.columns.len(), (3 + Factor::COUNT) * MOST_FRAMES);
        assert_eq!(news.beats.len(), MOST_FRAMES);
        assert_eq!(news.beats.last().map(|(frame, _)| *frame), Some(9999));
    }

    #[test]
    fn the_latents_of_a_note_are_one() {
        let (scope, writer) = writer();
        scope.watch(true);
        // Two latents of three notes, in two frames. Only the middle note sounds, in the second frame, with the values
        // 0.3 and 0.4.
        let values = [
            0.0_f32, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 1.2, 0.0, 0.0,
        ];
        let latent = Tensor::from_slice(&values, (1, 2, 3, 2), &Device::Cpu).unwrap();
        writer
            .latent(Lane::Latent(Factor::Harmony), 5, 4, &latent)
            .unwrap();
        let news = scope.take();
        assert_eq!(news.columns[0].values, [0, 0, 0]);
        assert_eq!(news.columns[1].values, [0, 128, 0]);
        assert_eq!((news.columns[1].frame, news.columns[1].frames), (24, 4));
    }
}
