//! Reads audio files step by step.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use symphonia::core::codecs::audio::{AudioCodecId, AudioDecoder};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::well_known::{
    FORMAT_ID_ADTS, FORMAT_ID_FLAC, FORMAT_ID_MKV, FORMAT_ID_MP1, FORMAT_ID_MP2, FORMAT_ID_MP3,
    FORMAT_ID_OGG,
};
use symphonia::core::formats::{FormatId, Track};
use symphonia::core::packet::Packet;
use symphonia::core::units::TimeBase;

use super::downmix::Downmix;
use super::mpeg;
use super::open::{Opened, audio_track, decoder, open};
use super::survey::Survey;

/// Samples that a block has at least, except at the end.
const BLOCK_SAMPLES: usize = 4096;

/// A file that is shorter than it announces by less than this is whole: containers round.
const SHORTFALL_SECONDS: f64 = 0.1;

/// The longest silence that takes the place of one damaged part.
const LONGEST_REPAIR_SECONDS: u64 = 1;

/// Damaged parts in a row after which a file counts as unreadable from there on.
const MOST_DAMAGED_PARTS: usize = 64;

/// Sample rates of music, and of what measuring devices record.
const RATES_HZ: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// Reads an audio file step by step, in constant memory.
///
/// More than two channels are mixed to two. Delay and padding of lossy encoders are removed, as far as the file names
/// them. A damaged part becomes silence of its length. Every such departure from the file is one of the
/// [`warnings`](Self::warnings).
pub struct AudioReader {
    path: PathBuf,
    survey: Option<Survey>,
    opened: Opened,
    decoder: Box<dyn AudioDecoder>,
    codec: AudioCodecId,
    /// Layout of the packets that the decoder was made for, for MPEG audio.
    layout: Option<mpeg::Layout>,
    track_id: u32,
    time_base: Option<TimeBase>,
    stream: StreamPart,
    /// Number of the current stream of the file.
    streams: usize,
    sample_rate_hz: u32,
    channels: usize,
    downmix: Downmix,
    /// The last packet, with the channels of the file.
    decoded: Vec<Vec<f32>>,
    mixed: Vec<Vec<f32>>,
    /// The first block, which is decoded when the file is opened.
    first: Option<Vec<Vec<f32>>>,
    has_ended: bool,
    damage: Damage,
    warnings: Vec<String>,
}

/// The samples of one stream that are music.
#[derive(Debug, Clone, Default)]
struct StreamPart {
    /// Decoded samples to leave out.
    skip: u64,
    /// Samples that follow, if known. What is decoded after those is padding.
    length: Option<u64>,
    /// Samples that the file announces.
    promised: Option<u64>,
    /// Samples so far.
    found: u64,
    /// Whether the file ends within a packet.
    is_cut: bool,
    /// Whether a packet was decoded.
    has_begun: bool,
    /// Where the next packet should begin, in FLAC files.
    next_position: Option<u64>,
}

/// Parts that could not be decoded.
#[derive(Debug, Default)]
struct Damage {
    parts: usize,
    in_a_row: usize,
    lost_samples: u64,
    first_at_samples: u64,
}

impl AudioReader {
    /// Opens an audio file.
    ///
    /// # Errors
    ///
    /// Every error names the file: when it is missing or empty, is of a format that cannot be read or is cut short in
    /// its header, or holds no samples.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || Self::with_survey(path, Survey::take(path)?);
        caught(open).with_context(|| describe(path))
    }

    fn with_survey(path: &Path, survey: Option<Survey>) -> Result<Self> {
        let opened = open(path)?;
        let (track, params) = audio_track(&*opened.format)?;
        let mut reader = Self {
            path: path.to_owned(),
            decoder: decoder(params)?,
            codec: params.codec,
            layout: None,
            track_id: track.id,
            time_base: track.time_base,
            stream: StreamPart::default(),
            streams: 0,
            sample_rate_hz: 0,
            channels: survey.as_ref().map_or(0, |survey| survey.channels),
            downmix: Downmix::Stereo,
            decoded: Vec::new(),
            mixed: Vec::new(),
            first: None,
            has_ended: false,
            damage: Damage::default(),
            warnings: Vec::new(),
            survey,
            opened,
        };
        reader.begin_stream()?;
        let mut first = Vec::new();
        ensure!(reader.decode_block(&mut first)?, "the file has no samples");
        reader.first = Some(first);
        Ok(reader)
    }

    /// The sample rate.
    pub fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    /// Number of channels of all blocks: 1 or 2.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Samples per channel of the file, as far as its headers tell: it may be cut short or damaged.
    pub fn expected_samples(&self) -> Option<u64> {
        let header = self.opened.header.and_then(|header| header.samples);
        let surveyed = self.survey.as_ref().map(|survey| {
            let samples: u64 = survey.stream_samples.iter().sum();
            samples.saturating_sub(self.stream.skip)
        });
        let is_chain = surveyed.is_some() && self.stream.promised.is_none();
        match is_chain {
            true => surveyed,
            false => header.or(self.stream.length).or(self.stream.promised),
        }
    }

    /// What was noticed so far: parts that are missing, damaged or mixed. Complete at the end of the file.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns to the beginning of the file.
    ///
    /// # Errors
    ///
    /// If the file has changed so that it can no longer be read.
    pub fn rewind(&mut self) -> Result<()> {
        let path = self.path.clone();
        let survey = self.survey.take();
        let open = || Self::with_survey(&path, survey);
        let mut reader = caught(open).with_context(|| describe(&path))?;
        // The same again.
        reader.warnings = std::mem::take(&mut self.warnings);
        *self = reader;
        Ok(())
    }

    /// Replaces `block` by the next samples, channel by channel. Returns false at the end of the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, a sample is not finite, or the file goes on in a form that does not fit its
    /// beginning.
    pub fn next_block(&mut self, block: &mut Vec<Vec<f32>>) -> Result<bool> {
        if let Some(first) = self.first.take() {
            *block = first;
            return Ok(true);
        }
        let decoded = caught(|| self.decode_block(block));
        self.has_ended |= decoded.is_err();
        decoded.with_context(|| describe(&self.path))
    }

    fn decode_block(&mut self, block: &mut Vec<Vec<f32>>) -> Result<bool> {
        block.iter_mut().for_each(Vec::clear);
        while !self.has_ended {
            if !self.decode_packet()? {
                self.has_ended = true;
                self.end_stream();
                self.report_damage();
                break;
            }
            self.trim();
            let samples = self.decoded.first().map_or(0, Vec::len);
            if samples == 0 {
                continue;
            }
            self.mix_into(block)?;
            if block[0].len() >= BLOCK_SAMPLES {
                break;
            }
        }
        Ok(block.first().is_some_and(|channel| !channel.is_empty()))
    }

    /// Decodes the next packet of the track. Returns false at the end.
    fn decode_packet(&mut self) -> Result<bool> {
        loop {
            match self.opened.format.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track_id => {
                    self.decode(&packet)?;
                    return Ok(true);
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(false),
                // Another stream follows.
                Err(SymphoniaError::ResetRequired) => {
                    self.end_stream();
                    let (track, params) = audio_track(&*self.opened.format)?;
                    self.decoder = decoder(params)?;
                    self.codec = params.codec;
                    self.track_id = track.id;
                    self.time_base = track.time_base;
                    self.begin_stream()?;
                }
                Err(SymphoniaError::IoError(error))
                    if error.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    // The reader of WAVE files does not know where they end.
                    self.stream.is_cut = self.opened.header.is_none();
                    return Ok(false);
                }
                Err(SymphoniaError::IoError(error)) => return Err(error.into()),
                Err(_) => {
                    self.damage.in_a_row += 1;
                    self.add_damage(0);
                    if self.damage.in_a_row > MOST_DAMAGED_PARTS {
                        let found = self.seconds(self.stream.found);
                        self.warn(format!("the file cannot be read after {found:.2} s"));
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Decodes a packet, or puts silence in its place.
    fn decode(&mut self, packet: &Packet) -> Result<()> {
        let layout = mpeg::Layout::of(self.codec, &packet.data);
        if layout != self.layout {
            if self.layout.is_some() {
                self.decoder = decoder(audio_track(&*self.opened.format)?.1)?;
            }
            self.layout = layout;
        }
        let mut lost_samples = self.gap_before(packet);
        if let Ok(buffer) = self.decoder.decode(packet) {
            let spec = buffer.spec();
            let (rate_hz, downmix) = (spec.rate(), Downmix::new(spec.channels()));
            let count = spec.channels().count();
            buffer.copy_to_vecs_planar(&mut self.decoded);
            self.damage.in_a_row = 0;
            self.take_format(rate_hz, count, downmix)?;
        } else {
            self.decoded.iter_mut().for_each(Vec::clear);
            lost_samples += self.samples_of(packet);
            self.damage.in_a_row += 1;
        }
        if lost_samples > 0 || self.damage.in_a_row > 0 {
            self.add_damage(lost_samples);
            for channel in &mut self.decoded {
                channel.splice(..0, std::iter::repeat_n(0.0, lost_samples as usize));
            }
        }
        self.skip_before_start(packet);
        Ok(())
    }

    /// Checks that the file goes on as it began.
    fn take_format(&mut self, rate_hz: u32, channels: usize, downmix: Downmix) -> Result<()> {
        if self.sample_rate_hz == 0 {
            ensure!(
                RATES_HZ.contains(&rate_hz),
                "expected a sample rate from {} to {} Hz, found {rate_hz} Hz",
                RATES_HZ.start(),
                RATES_HZ.end()
            );
            self.sample_rate_hz = rate_hz;
            self.channels = self.channels.max(downmix.channels());
        }
        let place = || format!("after {:.2} s", self.seconds(self.stream.found));
        ensure!(
            rate_hz == self.sample_rate_hz,
            "expected one sample rate, found {} Hz and {rate_hz} Hz {}",
            self.sample_rate_hz,
            place()
        );
        ensure!(
            downmix.channels() <= self.channels,
            "expected one channel as at the beginning, found {channels} {}",
            place()
        );
        if matches!(downmix, Downmix::Matrix(_)) {
            self.warn(format!(
                "{channels} channels are mixed to stereo (ITU-R BS.775)"
            ));
        }
        self.downmix = downmix;
        Ok(())
    }

    /// Leaves out what is not music.
    fn trim(&mut self) {
        let stream = &mut self.stream;
        let samples = self.decoded.first().map_or(0, Vec::len) as u64;
        let skipped = stream.skip.min(samples);
        stream.skip -= skipped;
        let left = stream
            .length
            .map_or(u64::MAX, |length| length.saturating_sub(stream.found));
        let kept = (samples - skipped).min(left);
        stream.found += kept;
        for channel in &mut self.decoded {
            channel.truncate((skipped + kept) as usize);
            channel.drain(..skipped as usize);
        }
    }

    /// Appends the decoded samples to the block, in the channels of the reader.
    fn mix_into(&mut self, block: &mut Vec<Vec<f32>>) -> Result<()> {
        self.downmix.mix(&self.decoded, &mut self.mixed);
        let begin = self.stream.found - self.mixed[0].len() as u64;
        for (index, channel) in self.mixed.iter().enumerate() {
            if let Some(sample) = channel.iter().position(|sample| !sample.is_finite()) {
                bail!(
                    "expected finite samples, found {} at sample {} of channel {index}",
                    channel[sample],
                    begin + sample as u64
                );
            }
        }
        block.resize(self.channels, Vec::new());
        for (index, channel) in block.iter_mut().enumerate() {
            // One channel plays on both sides.
            channel.extend_from_slice(&self.mixed[index.min(self.mixed.len() - 1)]);
        }
        Ok(())
    }

    /// Prepares for the stream of the file that the format reader is at.
    fn begin_stream(&mut self) -> Result<()> {
        let (track, params) = audio_track(&*self.opened.format)?;
        let surveyed = self.survey.as_ref();
        let surveyed = surveyed.and_then(|survey| survey.stream_samples.get(self.streams));
        let rate_hz = params.sample_rate.unwrap_or_default();
        let format = self.opened.format.format_info().format;
        self.stream = match self.opened.header {
            Some(header) => StreamPart {
                promised: header.promised_samples,
                ..StreamPart::default()
            },
            None => StreamPart::of(track, format, surveyed.copied()),
        };
        if let Some(edit) = self.opened.edit {
            let samples = |seconds: f64| (seconds * f64::from(rate_hz)).round() as u64;
            let whole = self.stream.length;
            self.stream.skip = samples(edit.skip_seconds);
            self.stream.length = edit.length_seconds.map(samples).or(whole);
            self.stream.promised = self.stream.length;
        }
        self.streams += 1;
        Ok(())
    }

    /// Compares the length of a stream with what the file announces.
    fn end_stream(&mut self) {
        let StreamPart {
            promised,
            found,
            is_cut,
            ..
        } = self.stream;
        let expected = self.seconds(promised.unwrap_or(0));
        let found = self.seconds(found);
        if expected - found > SHORTFALL_SECONDS {
            self.warn(format!(
                "the file is cut short: expected {expected:.2} s, found {found:.2} s"
            ));
        } else if is_cut {
            self.warn(format!(
                "the file is cut short: it ends within a packet, after {found:.2} s"
            ));
        }
    }

    /// Matroska files tell the delay of the encoder only by the negative time of the first packet.
    fn skip_before_start(&mut self, packet: &Packet) {
        let is_first = !std::mem::replace(&mut self.stream.has_begun, true);
        if is_first && self.opened.format.format_info().format == FORMAT_ID_MKV {
            let early = packet.pts.get().min(0).unsigned_abs();
            self.stream.skip = self.in_samples(early);
        }
    }

    /// Samples that are missing before this packet. Only packets of FLAC files have exact positions.
    fn gap_before(&mut self, packet: &Packet) -> u64 {
        if self.opened.format.format_info().format != FORMAT_ID_FLAC {
            return 0;
        }
        let position = packet.pts.get().max(0) as u64;
        let expected = self.stream.next_position.unwrap_or(position);
        self.stream.next_position = Some(position + packet.block_dur().get());
        let most = LONGEST_REPAIR_SECONDS * u64::from(self.sample_rate_hz);
        position.saturating_sub(expected).min(most)
    }

    /// Length of a packet in samples.
    fn samples_of(&self, packet: &Packet) -> u64 {
        if let Some(layout) = self.layout {
            return layout.samples;
        }
        let most = LONGEST_REPAIR_SECONDS * u64::from(self.sample_rate_hz);
        self.in_samples(packet.block_dur().get()).min(most)
    }

    /// Converts a time in units of the track.
    fn in_samples(&self, units: u64) -> u64 {
        let Some(base) = self.time_base else {
            return units;
        };
        let (numerator, denominator) = (u64::from(base.numer.get()), u64::from(base.denom.get()));
        let rate_hz = u64::from(self.sample_rate_hz);
        let samples = u128::from(units) * u128::from(numerator) * u128::from(rate_hz)
            / u128::from(denominator);
        samples.min(u128::from(u64::MAX)) as u64
    }

    /// Notes a damaged part.
    fn add_damage(&mut self, lost_samples: u64) {
        if self.damage.parts == 0 {
            self.damage.first_at_samples = self.stream.found;
        }
        self.damage.parts += 1;
        self.damage.lost_samples += lost_samples;
    }

    fn report_damage(&mut self) {
        let Damage {
            parts,
            lost_samples,
            first_at_samples,
            ..
        } = self.damage;
        if parts > 0 {
            self.warn(format!(
                "damaged parts: {parts}, the first at {:.2} s; {:.2} s of silence take their place",
                self.seconds(first_at_samples),
                self.seconds(lost_samples)
            ));
        }
    }

    fn seconds(&self, samples: u64) -> f64 {
        samples as f64 / f64::from(self.sample_rate_hz.max(1))
    }

    /// Adds a warning, unless it is there already.
    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

impl StreamPart {
    /// What a track says about its length. `surveyed` is the number of samples in all of its packets.
    fn of(track: &Track, format: FormatId, surveyed: Option<u64>) -> Self {
        let delay = track.delay.unwrap_or(0);
        let announced = track.num_frames.filter(|samples| *samples > 0);
        if format == FORMAT_ID_OGG {
            // A file that was cut without re-encoding may begin before or after time 0.
            let skip = u64::from(delay);
            let start = track.start_ts.get().saturating_add(i64::from(delay));
            let length = match announced {
                Some(end) => end.checked_add_signed(start.saturating_neg()),
                None => surveyed.map(|samples| samples.saturating_sub(skip)),
            };
            return Self {
                skip,
                length,
                promised: announced.and(length),
                ..Self::default()
            };
        }
        if [FORMAT_ID_MP1, FORMAT_ID_MP2, FORMAT_ID_MP3, FORMAT_ID_ADTS].contains(&format) {
            // Without an encoder's header, the reader only estimates the length.
            let announced = announced.filter(|_| track.delay.is_some());
            let padding = track.padding.unwrap_or(0);
            let whole = announced.map(|samples| samples + u64::from(delay) + u64::from(padding));
            return Self {
                skip: u64::from(delay),
                // A joined file goes on after the length of its first part.
                length: announced.filter(|_| surveyed <= whole),
                promised: announced,
                ..Self::default()
            };
        }
        // FLAC has no padding: what is there is music.
        let has_padding = format != FORMAT_ID_FLAC;
        Self {
            skip: u64::from(delay),
            length: announced.filter(|_| has_padding),
            promised: announced,
            ..Self::default()
        }
    }
}

/// Runs code of symphonia, whose decoders (0.6.1) may panic on a damaged header.
fn caught<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    // Whatever a panic leaves half-done is not used again.
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| bail!("the file is damaged: its decoder failed"))
}

fn describe(path: &Path) -> String {
    format!("cannot read audio from {}", path.display())
}
