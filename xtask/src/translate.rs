//! `cargo xtask translate`: a recording, played by another instrument.

mod level;
mod names;
mod spool;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use graft_material::audio_file::AudioReader;
use graft_material::whole_file;
use model_runtime::Model;
use model_runtime::lord::LordModel;
use model_runtime::translation::{
    ClassListener, InstrumentCode, RecordingSettings, TranslationVoice, Translator,
};

use crate::remix::format;
use crate::remix::messages::Messages;
use crate::remix::output::Output;
use crate::remix::outputs;
use crate::speed::Speed;
use level::Survey;
use spool::Spool;

/// Translate a recording: what it plays, played by another instrument
///
/// Needs a model of instruments, as `cargo xtask train xtask/recipes/lord-small.toml` and `cargo xtask export` make it; the plugin
/// does not use such models. Reads every format that `cargo xtask remix` reads, of any length and sample rate, mono or stereo, and
/// writes WAV (32-bit float) or FLAC (24 bits) with the same rate, channels, length and loudness. INPUT should be one instrument.
///
/// Examples:
///   cargo xtask translate --list --model instruments.safetensors
///   cargo xtask translate flute.wav --to Violin -o violin.wav --model instruments.safetensors
///   cargo xtask translate flute.wav --like my-guitar.wav -o guitar.wav --model instruments.safetensors
#[derive(Args)]
#[command(
    verbatim_doc_comment,
    override_usage = "cargo xtask translate <INPUT> --to <INSTRUMENT> -o <OUT> --model <MODEL.safetensors>\n       \
                      cargo xtask translate <INPUT> --like <FILE> -o <OUT> --model <MODEL.safetensors>\n       \
                      cargo xtask translate --list --model <MODEL.safetensors>"
)]
pub struct Translate {
    /// Recording to translate
    #[arg(value_name = "INPUT", required_unless_present = "list")]
    input: Option<PathBuf>,
    /// Instrument to play it, one of those that --list names; upper and lower case are the same
    #[arg(long, value_name = "INSTRUMENT", conflicts_with = "like")]
    to: Option<String>,
    /// Recording of the instrument to play it, which the model need not know
    #[arg(long, value_name = "FILE")]
    like: Option<PathBuf>,
    /// File to write, WAV or FLAC
    #[arg(short, long, value_name = "OUT", required_unless_present = "list")]
    output: Option<PathBuf>,
    /// Model of instruments
    #[arg(long, value_name = "MODEL.safetensors")]
    model: PathBuf,
    /// What turns the translated spectrogram into sound
    #[arg(long, value_enum, default_value_t = VoiceName::Guided)]
    voice: VoiceName,
    /// List the instruments of the model
    #[arg(long, conflicts_with_all = ["input", "to", "like", "output"])]
    list: bool,
}

/// Voices by their names on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum VoiceName {
    /// Filters the recording: keeps its stereo image and every detail in time, but makes no partials that it does not have
    Guided,
    /// The HiFi-GAN generator of the built-in model: makes everything anew, in mono and up to 11 kHz
    Generated,
}

impl Translate {
    /// Lists the instruments, or translates the recording and prints how long it took.
    pub fn run(self) -> Result<()> {
        let model = LordModel::load(&self.model)?;
        if self.list {
            for name in model.instruments() {
                println!("{name}");
            }
            return Ok(());
        }
        let (Some(input), Some(output)) = (&self.input, &self.output) else {
            bail!("expected INPUT and -o OUT");
        };
        let format = format::of_file(None, output)?;
        let mut read = vec![input.as_path(), &self.model];
        read.extend(self.like.as_deref());
        outputs::check_distinct(&[(output, input)], &read)?;
        outputs::check_writable(output)?;
        whole_file::remove_parts_on_interrupt()?;
        let target = match (&self.to, &self.like) {
            (Some(name), _) => {
                model.class_of(names::find(name, model.instruments(), &self.model)?)?
            }
            (_, Some(like)) => listen(&model, like)?,
            _ => bail!(
                "expected the instrument to play it: --to INSTRUMENT, one of those that --list names, or --like FILE, a recording of it"
            ),
        };
        let generator = match self.voice {
            VoiceName::Guided => None,
            VoiceName::Generated => Some(Model::built_in()?),
        };
        let voice = generator
            .as_deref()
            .map_or(TranslationVoice::Guided, TranslationVoice::Generated);
        let output = Output::File(output.clone(), format);
        translate(&model, &target, voice, input, &output)
    }
}

/// Opens a recording.
fn open(path: &Path) -> Result<AudioReader> {
    ensure!(
        !path.is_dir(),
        "expected a recording, found the folder {}",
        path.display()
    );
    AudioReader::open(path)
}

/// The code of the instrument in a recording.
fn listen(model: &LordModel, path: &Path) -> Result<InstrumentCode> {
    let mut reader = open(path)?;
    let survey = Survey::take(&mut reader, path)?;
    reader.rewind()?;
    let recording = settings(&reader, &survey);
    let mut heard = || -> Result<_> {
        let mut listener = ClassListener::new(model, recording)?;
        let mut block = Vec::new();
        while reader.next_block(&mut block)? {
            listener.push(&slices(&block))?;
        }
        Ok(listener.finish()?)
    };
    heard().with_context(|| format!("cannot use {}", path.display()))
}

fn settings(reader: &AudioReader, survey: &Survey) -> RecordingSettings {
    RecordingSettings {
        sample_rate_hz: reader.sample_rate_hz(),
        channels: reader.channels(),
        gain: survey.training_gain,
    }
}

/// Translates in steps, in constant memory: the loudness of the translation is known when all of it is there, so it waits in a
/// temporary file.
fn translate(
    model: &LordModel,
    target: &InstrumentCode,
    voice: TranslationVoice,
    input: &Path,
    output: &Output,
) -> Result<()> {
    let start = Instant::now();
    let mut reader = open(input)?;
    let survey = Survey::take(&mut reader, input)?;
    reader.rewind()?;
    let messages = Messages::new("Translating", false, survey.samples);
    let (rate_hz, channels) = (reader.sample_rate_hz(), reader.channels());
    let place = output.path().context("expected a file")?;
    let mut spool = Spool::create(place, rate_hz, channels)?;
    let mut work = || -> Result<()> {
        let mut translator = Translator::new(model, target, voice, settings(&reader, &survey))?;
        let (mut block, mut translated) = (Vec::new(), vec![Vec::new(); channels]);
        while reader.next_block(&mut block)? {
            translator.push(&slices(&block), &mut translated)?;
            spool.push(&mut translated)?;
            messages.bar().inc(block[0].len() as u64);
        }
        translator.finish(&mut translated)?;
        spool.push(&mut translated)
    };
    work().with_context(|| format!("cannot translate {}", input.display()))?;
    messages.warnings(input, reader.warnings());

    let spooled = spool.finish()?;
    let wanted = level::gain(survey.lufs, spooled.lufs);
    // Full scale, or as loud as a recording that is beyond it.
    let most = survey.peak.max(1.0) / spooled.peak.max(f32::MIN_POSITIVE);
    if wanted > most {
        messages.note(format_args!(
            "note: {:.1} dB softer than {}, so that nothing clips",
            20.0 * (wanted / most).log10(),
            input.display()
        ));
    }
    let mut writing = output.start(rate_hz, channels, Some(survey.samples))?;
    spooled.read(wanted.min(most), |block| writing.push(block))?;
    writing.finish(&messages)?;
    messages.result(Speed {
        audio_seconds: survey.samples as f64 / f64::from(rate_hz),
        wall_seconds: start.elapsed().as_secs_f64(),
    });
    Ok(())
}

fn slices(channels: &[Vec<f32>]) -> Vec<&[f32]> {
    channels.iter().map(Vec::as_slice).collect()
}
