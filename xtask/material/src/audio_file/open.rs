//! Opens audio files: detects the format, and refuses by name what cannot be decoded.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_AC3, CODEC_ID_DCA, CODEC_ID_EAC3, CODEC_ID_OPUS, CODEC_ID_PCM_ALAW,
    CODEC_ID_PCM_MULAW, CODEC_ID_SPEEX, CODEC_ID_TRUEHD,
};
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions,
};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;

use super::aiff::{self, Aiff};
use super::caf::{self, Caf};
use super::mp4::{self, Edit};
use super::splice::Splice;
use super::wave::{self, Wave};

/// More channels than any recording has.
const MOST_CHANNELS: usize = 64;

/// More samples than a packet of any codec has. Decoders prepare for as many as the file announces.
const MOST_PACKET_SAMPLES: u64 = 1 << 17;

/// An audio file whose format is known.
pub(super) struct Opened {
    pub(super) format: Box<dyn FormatReader>,
    /// What the header of a WAVE, AIFF or CAF file said; the decoder sees another one.
    pub(super) header: Option<Header>,
    /// The part of an MP4 file that is played.
    pub(super) edit: Option<Edit>,
}

/// The header of a file whose decoder sees another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    /// Samples per channel that it announces, if it does.
    pub(super) promised_samples: Option<u64>,
    /// Samples per channel in the file, unless they are compressed.
    pub(super) samples: Option<u64>,
}

/// Opens a file and detects its format.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    ensure!(
        metadata.is_file(),
        "expected a file, found a folder or a device"
    );
    ensure!(metadata.len() > 0, "expected audio, found an empty file");
    let mut start = Vec::new();
    (&mut file).take(64).read_to_end(&mut start)?;
    if let Some(name) = name_of_refused(&start) {
        bail!("{name} is not supported; expected {SUPPORTED}");
    }
    let hint = |extension: &str| {
        let mut hint = Hint::new();
        hint.with_extension(extension);
        hint
    };
    if let Some(family) = wave::family(&start) {
        let wave = Wave::locate(&mut file, family)?;
        let header = wave.header();
        let (splice, extension) = wave.splice(file);
        return Opened::with_header(splice, &hint(extension), header);
    }
    if aiff::is_aiff(&start) {
        let aiff = Aiff::locate(&mut file)?;
        let header = aiff.header();
        return Opened::with_header(aiff.splice(file)?, &hint("aiff"), header);
    }
    if caf::is_caf(&start)
        && let Some(caf) = Caf::locate(&mut file)?
    {
        return Opened::with_header(caf.splice(file), &hint("caf"), caf.header());
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let mut edit = None;
    let mut source: Option<Box<dyn MediaSource>> = None;
    if mp4::is_mp4(&start) {
        edit = mp4::edit(&mut file);
        if let Some((start, samples)) = mp4::fitted(&mut file)? {
            source = Some(Box::new(Splice::new(start, file.try_clone()?, samples)));
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(Opened {
        format: probe(source.unwrap_or_else(|| Box::new(file)), &hint(&extension))?,
        header: None,
        edit,
    })
}

impl Opened {
    fn with_header(splice: Splice, hint: &Hint, header: Header) -> Result<Self> {
        Ok(Self {
            format: probe(Box::new(splice), hint)?,
            header: Some(header),
            edit: None,
        })
    }
}

/// The formats that can be read.
const SUPPORTED: &str =
    "WAV, AIFF, CAF, FLAC, Ogg (Vorbis, FLAC), MP3, MP4 (AAC, ALAC) or Matroska";

fn probe(source: Box<dyn MediaSource>, hint: &Hint) -> Result<Box<dyn FormatReader>> {
    symphonia::default::get_probe()
        .probe(
            hint,
            MediaSourceStream::new(source, Default::default()),
            FormatOptions::default(),
            MetadataOptions::default(),
        )
        .map_err(|error| match error {
            // No format reader took it.
            SymphoniaError::Unsupported(text) if text.starts_with("core") => {
                anyhow!("expected {SUPPORTED}, found another format")
            }
            error => anyhow!(error).context(format!(
                "expected {SUPPORTED}, found a file that is damaged or cut short in its header"
            )),
        })
}

/// The audio track that players choose, with its codec.
pub(super) fn audio_track(format: &dyn FormatReader) -> Result<(&Track, &AudioCodecParameters)> {
    let track = format
        .default_track(TrackType::Audio)
        .context("expected an audio track, found none")?;
    let params = track
        .codec_params
        .as_ref()
        .and_then(|params| params.audio());
    Ok((
        track,
        params.context("the codec of the audio track is unknown")?,
    ))
}

/// A decoder for the codec.
///
/// # Errors
///
/// If there is none. The error names the codec.
pub(super) fn decoder(params: &AudioCodecParameters) -> Result<Box<dyn AudioDecoder>> {
    let channels = params
        .channels
        .as_ref()
        .map_or(0, |channels| channels.count());
    ensure!(
        channels <= MOST_CHANNELS,
        "expected up to {MOST_CHANNELS} channels, found {channels}"
    );
    let samples = params.max_frames_per_packet.unwrap_or(0);
    ensure!(
        samples <= MOST_PACKET_SAMPLES,
        "expected packets of up to {MOST_PACKET_SAMPLES} samples, found {samples}"
    );
    let mut params = params.clone();
    // Files name the 8 bits that are stored, the decoder expects the 16 that they stand for.
    if [CODEC_ID_PCM_ALAW, CODEC_ID_PCM_MULAW].contains(&params.codec) {
        params
            .with_bits_per_sample(16)
            .with_bits_per_coded_sample(16);
    }
    // The padding of the encoder is removed by the reader: symphonia (0.6.1) estimates the length of an MP3 file from
    // its bit rate, and takes samples after an Ogg page with a position that is slightly off for padding.
    let options = AudioDecoderOptions::default().gapless(false);
    symphonia::default::get_codecs()
        .make_audio_decoder(&params, &options)
        .map_err(|_| {
            anyhow!(
                "{} is not supported; expected {SUPPORTED}",
                name_of_codec(&params)
            )
        })
}

fn name_of_codec(params: &AudioCodecParameters) -> String {
    const NAMES: [(AudioCodecId, &str); 6] = [
        (CODEC_ID_OPUS, "Opus"),
        (CODEC_ID_SPEEX, "Speex"),
        (CODEC_ID_AC3, "AC-3"),
        (CODEC_ID_EAC3, "Enhanced AC-3"),
        (CODEC_ID_DCA, "DTS"),
        (CODEC_ID_TRUEHD, "Dolby TrueHD"),
    ];
    let channels = params
        .channels
        .as_ref()
        .map_or(0, |channels| channels.count());
    let name = NAMES.iter().find(|(codec, _)| *codec == params.codec);
    match name {
        Some((_, name)) => (*name).into(),
        None if params.codec == CODEC_ID_AAC && channels > 2 => {
            format!("AAC with {channels} channels")
        }
        None if params.codec == CODEC_ID_AAC => {
            "AAC of another profile than LC, such as HE-AAC,".into()
        }
        None => match symphonia::default::get_codecs().get_audio_decoder(params.codec) {
            Some(decoder) => format!("{} of this kind", decoder.codec.info.long_name),
            None => format!("the codec {}", params.codec),
        },
    }
}

/// The name of a format that is known but cannot be read, from the first bytes of a file.
fn name_of_refused(start: &[u8]) -> Option<&'static str> {
    const NAMES: [(&[u8], &str); 15] = [
        (b"RIFX", "big-endian WAV (RIFX)"),
        (b"wvpk", "WavPack"),
        (b"MAC ", "Monkey's Audio"),
        (b"TTA1", "True Audio"),
        (b"tBaK", "TAK"),
        (b"MPCK", "Musepack"),
        (b"MP+", "Musepack"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media Audio"),
        (b"DSD ", "DSD"),
        (b"FRM8", "DSD"),
        (b".snd", "Sun audio (AU)"),
        (b"\x0b\x77", "AC-3"),
        (b"\x7f\xfe\x80\x01", "DTS"),
        (b"#!AMR", "AMR"),
        (b"MThd", "MIDI"),
    ];
    let name = NAMES.iter().find(|(magic, _)| start.starts_with(magic));
    name.map(|(_, name)| *name)
}
