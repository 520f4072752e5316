//! `cargo xtask evaluate-voice`: measures how accurately voices resynthesise sound from its mel.

use std::fmt;
use std::path::PathBuf;
use std::slice;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use clap::Args;
use graft_material::estimate::Estimate;
use graft_material::{audio_file, progress, workspace};
use graft_train::dataset::{Dataset, Split};
use graft_train::voice::spectra::{StftLoss, log_spectral_distance_db};
use model_runtime::Model;
use model_runtime::tensors::{to_log_mels, to_tensor};
use vocoder::generated::{GeneratedVoice, template_stream, whole_template};
use vocoder::generator::Generator;
use vocoder::griffin_lim::GriffinLim;
use vocoder::{LogMel, MelConfig, MelSpectrogram};

use crate::evaluate::load_models;
use crate::margins::SAMPLE_RATE_HZ;
use crate::pairs::{self, Excerpt};

/// Iterations of Griffin-Lim, for reference.
const GRIFFIN_LIM: [usize; 2] = [32, 100];

/// Measure how accurately voices turn mels into sound.
///
/// Turns excerpts by validation artists into mels and back into sound with the models' HiFi-GAN voices, their
/// templates, and Griffin-Lim; from the music's own mels and from mels decoded by the models' networks. Prints a
/// Markdown table of three distances to the excerpt; smaller is better.
#[derive(Args)]
pub struct EvaluateVoice {
    /// Run folder, for its validation artists.
    run: PathBuf,
    /// Folders of the run's music.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Model file; repeatable [default: the built-in model]
    #[arg(long, value_name = "MODEL.safetensors")]
    model: Vec<PathBuf>,
    /// Number of excerpts.
    #[arg(long, default_value_t = 20)]
    clips: usize,
    /// Length of an excerpt in seconds, up to 20.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=20))]
    seconds: u32,
    /// Seed for the choice of excerpts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl EvaluateVoice {
    /// Prints the table.
    pub fn run(&self) -> Result<()> {
        let models = load_models(&self.model)?;
        let dataset = Dataset::load(&self.data, &workspace::cache("audio"), SAMPLE_RATE_HZ)?;
        let validation = dataset.partition(&Split::load(&self.run)?)?.validation;
        let excerpts = pairs::draw_excerpts(&validation, SAMPLE_RATE_HZ, self.clips, self.seed)?;
        let samples = (self.seconds * SAMPLE_RATE_HZ) as usize;
        let clips = excerpts.iter().map(|excerpt| Clip::new(excerpt, samples));
        let clips = clips.collect::<Result<Vec<_>>>()?;

        let mut table = Table::default();
        let own: Vec<LogMel> = clips.iter().map(|clip| clip.mel.clone()).collect();
        table.griffin_lim("the music's mel", &clips, &own)?;
        for (name, model) in &models {
            let decoded = clips.iter().map(|clip| decode(model, &clip.mel));
            let decoded = decoded.collect::<Result<Vec<_>>>()?;
            let decoded_by = format!("decoded by {name}");
            let generator = model.generator();
            let corrects = |generator: &Generator| generator.config().template;
            if model.magnitudes().is_some() || generator.as_ref().is_ok_and(|g| corrects(g)) {
                let mut stream = template_stream(&model.header().mel, model.magnitudes())?;
                let mut voice = |mel: &LogMel| Ok(whole_template(&mut stream, mel)?);
                let row = format!("template of {name}");
                table.measure(&row, "the music's mel", &clips, &own, &mut voice)?;
                table.measure(&row, &decoded_by, &clips, &decoded, &mut voice)?;
            }
            if let Ok(generator) = generator {
                let mut generated =
                    GeneratedVoice::new(generator, model.magnitudes(), &model.header().mel)?;
                let mut voice = |mel: &LogMel| Ok(generated.samples(mel)?);
                let row = format!("HiFi-GAN of {name}");
                table.measure(&row, "the music's mel", &clips, &own, &mut voice)?;
                table.measure(&row, &decoded_by, &clips, &decoded, &mut voice)?;
            }
            table.griffin_lim(&decoded_by, &clips, &decoded)?;
        }
        println!("{} excerpts of {} s\n", clips.len(), self.seconds);
        for excerpt in &excerpts {
            println!("- {excerpt}");
        }
        print!("\n{table}");
        Ok(())
    }
}

/// A clip with its mel.
struct Clip {
    /// (1, 1, L).
    samples: Tensor,
    mel: LogMel,
}

impl Clip {
    /// The first `samples` samples of an excerpt, mono.
    fn new(excerpt: &Excerpt, samples: usize) -> Result<Self> {
        let mono = audio_file::mono(&excerpt.clip);
        let mut mono = audio_file::resample(&mono, excerpt.clip.sample_rate_hz, SAMPLE_RATE_HZ)?;
        let config = MelConfig::default();
        mono.truncate(samples / config.hop_length * config.hop_length);
        Ok(Self {
            mel: MelSpectrogram::new(&config)?.log_mel(&mono),
            samples: to_clip(mono)?,
        })
    }
}

/// Samples as (1, 1, L).
fn to_clip(samples: Vec<f32>) -> Result<Tensor> {
    Ok(Tensor::from_vec(samples, (1, 1, ()), &Device::Cpu)?)
}

/// Encodes a mel and decodes it from the means of the latents.
fn decode(model: &Model, mel: &LogMel) -> Result<LogMel> {
    let network = model.network();
    let latents = network.encode(&to_tensor(slice::from_ref(mel))?)?;
    Ok(to_log_mels(&network.decode(&latents.means())?)?.remove(0))
}

/// Distances to the original, over all clips.
struct Row {
    voice: String,
    mel: String,
    stft: Estimate,
    mel_l1: Estimate,
    spectral_db: Estimate,
}

/// One row for each voice and kind of mel, shown as a Markdown table.
#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    /// Adds the rows of Griffin-Lim.
    fn griffin_lim(&mut self, mel: &str, clips: &[Clip], mels: &[LogMel]) -> Result<()> {
        for iterations in GRIFFIN_LIM {
            let mut griffin_lim = GriffinLim::new(&MelConfig::default(), iterations)?;
            let name = format!("Griffin-Lim, {iterations} iterations");
            let mut voice = |mel: &LogMel| Ok(griffin_lim.samples(mel)?);
            self.measure(&name, mel, clips, mels, &mut voice)?;
        }
        Ok(())
    }

    /// Adds the row of a voice for `mels`, one per clip.
    fn measure(
        &mut self,
        name: &str,
        mel: &str,
        clips: &[Clip],
        mels: &[LogMel],
        voice: &mut dyn FnMut(&LogMel) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let stft = StftLoss::new(DType::F32, &Device::Cpu)?;
        let mut spectrogram = MelSpectrogram::new(&MelConfig::default())?;
        let bar = progress::bar("Synthesising", clips.len() as u64);
        let mut distances = Vec::with_capacity(clips.len());
        for (clip, mel) in clips.iter().zip(mels) {
            let samples = voice(mel)?;
            let found = spectrogram.log_mel(&samples);
            let pairs = found.values().iter().zip(clip.mel.values());
            let mel_l1 =
                pairs.map(|(a, b)| (a - b).abs()).sum::<f32>() / found.values().len() as f32;
            let samples = to_clip(samples)?;
            let stft = stft.distance(&samples, &clip.samples)?.to_scalar::<f32>()?;
            let spectral_db = log_spectral_distance_db(&samples, &clip.samples)?;
            distances.push([stft, mel_l1, spectral_db]);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let [stft, mel_l1, spectral_db] =
            [0, 1, 2].map(|i| Estimate::of(distances.iter().map(|distance| distance[i])));
        self.0.push(Row {
            voice: name.to_owned(),
            mel: mel.to_owned(),
            stft,
            mel_l1,
            spectral_db,
        });
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| voice | from | STFT distance | log-mel L1, nepers | log-spectral distance, dB |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for Row {
            voice,
            mel,
            stft,
            mel_l1,
            spectral_db,
        } in &self.0
        {
            writeln!(f, "| {voice} | {mel} | {stft} | {mel_l1} | {spectral_db} |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_voice_has_no_distance_and_griffin_lim_gets_better() {
        let samples: Vec<f32> = (0..48 * 512)
            .map(|n| {
                let tone = |hz: f32| (std::f32::consts::TAU * hz * n as f32 / 22_050.0).sin();
                let decay = (-((n % 6000) as f32) / 2500.0).exp();
                0.2 * decay * (tone(220.0) + tone(331.0) + tone(1250.0))
            })
            .collect();
        let mel = MelSpectrogram::new(&MelConfig::default())
            .unwrap()
            .log_mel(&samples);
        let mels = [mel.clone()];
        let clips = [Clip {
            samples: to_clip(samples.clone()).unwrap(),
            mel,
        }];
        let mut table = Table::default();
        let mut perfect = |_: &LogMel| Ok(samples.clone());
        table
            .measure("perfect", "mel", &clips, &mels, &mut perfect)
            .unwrap();
        let mut silent = |_: &LogMel| Ok(vec![0.0; 48 * 512]);
        table
            .measure("silent", "mel", &clips, &mels, &mut silent)
            .unwrap();
        table.griffin_lim("mel", &clips, &mels).unwrap();
        let [perfect, silent, few, many] = &table.0[..] else {
            panic!("expected four rows");
        };
        assert!(perfect.stft.mean < 1e-6 && perfect.mel_l1.mean == 0.0);
        assert_eq!(perfect.spectral_db.mean, 0.0);
        assert!(many.stft.mean <= few.stft.mean);
        assert!(many.stft.mean < 0.5 * silent.stft.mean);
        assert!(many.mel_l1.mean < 0.5 * silent.mel_l1.mean);
        assert!(many.spectral_db.mean < silent.spectral_db.mean);
        assert_eq!(table.to_string().lines().count(), 6);
    }
}
