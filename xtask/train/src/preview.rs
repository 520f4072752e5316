//! Previews of a model in training: pictures and sounds of two validation tracks.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Tensor;
use graft_material::audio_writer::{self, WavFormat};
use graft_material::plot::{self, MelPanel};
use model_runtime::tensors::{to_log_mels, to_tensor};
use model_runtime::{AudioClip, FactorMap, Model, Network, RemixSettings, Remixer};
use vocoder::{LogMel, MelConfig, MelSpectrogram};

use crate::dataset::Track;

/// Length of the excerpts.
const SECONDS: usize = 8;

/// Folder for previews in that of a run.
const FOLDER: &str = "previews";

/// Excerpts of two tracks, by different artists if there are any.
pub struct Preview {
    main: AudioClip,
    sidechain: AudioClip,
}

impl Preview {
    /// Takes the middle of the first track and of the first track by another artist.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no tracks.
    pub fn new(tracks: &[Arc<Track>], sample_rate_hz: u32) -> Result<Self> {
        let [main, sidechain] = excerpts(tracks, sample_rate_hz)?;
        Ok(Self { main, sidechain })
    }

    /// Writes `previews/step-N.png`, the log-mels of the excerpts, of the first one's reconstruction and of both swaps as
    /// the network decodes them, and `previews/step-N-*.wav`, the same remixes as the plugin plays them.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be written.
    pub fn write(&self, run: &Path, step: u64, model: Arc<Model>) -> Result<()> {
        let folder = folder(run)?;
        let picture = folder.join(format!("step-{step:06}.png"));
        self.draw(&picture, &**model.network(), &model.header().mel)?;

        let [first, others @ ..] = model.network().factors() else {
            anyhow::bail!("expected a network with factors, found none");
        };
        let first = first.factor;
        let mut settings = RemixSettings::default();
        for other in others {
            settings.controls[other.factor].share = 1.0;
        }
        let remixer = Remixer::new(Arc::clone(&model));
        let remixes = [
            ("reconstruction".to_owned(), &self.main, &self.main),
            (format!("main-{first}"), &self.main, &self.sidechain),
            (format!("sidechain-{first}"), &self.sidechain, &self.main),
        ];
        let write = |name: &str, clip: &AudioClip| {
            audio_writer::write_wav(&folder.join(name), clip, WavFormat::Pcm16)
        };
        for (name, first, others) in remixes {
            let remix = remixer.remix(first, others, &settings)?;
            write(&format!("step-{step:06}-{name}.wav"), &remix)?;
        }
        write("main.wav", &self.main)?;
        write("sidechain.wav", &self.sidechain)
    }

    fn draw(&self, path: &Path, network: &dyn Network, mel: &MelConfig) -> Result<()> {
        let mut spectrogram = MelSpectrogram::new(mel)?;
        let [main, sidechain] =
            [&self.main, &self.sidechain].map(|clip| spectrogram.log_mel(&clip.channels[0]));
        // The shorter track determines the length of the swaps.
        let frames = main.frames().min(sidechain.frames());
        let [a, b] = [&main, &sidechain].map(|mel| -> Result<_> {
            Ok(network
                .encode(&to_tensor(&[mel.clone().take_first(frames)])?)?
                .means())
        });
        let (a, b) = (a?, b?);
        // The first factor of one track, all others of the other.
        let first = network.factors()[0].factor;
        let decode = |own: &FactorMap<Tensor>, other: &FactorMap<Tensor>| -> Result<LogMel> {
            let mut swapped = other.clone();
            swapped.insert(first, own[first].clone());
            Ok(to_log_mels(&network.decode(&swapped)?)?.remove(0))
        };
        let decoded = [decode(&a, &a)?, decode(&a, &b)?, decode(&b, &a)?];
        let [reconstruction, of_main, of_sidechain] = &decoded;
        let others = network.factors()[1..].iter();
        let others: Vec<&str> = others.map(|layout| layout.factor.name()).collect();
        let others = others.join(" and ");
        let swap =
            |own: &str, other: &str| format!("The {first} of {own}, the {others} of {other}");
        let swaps = [swap("main", "sidechain"), swap("sidechain", "main")];
        let panels = [
            ("Main", &main),
            ("Sidechain", &sidechain),
            ("Main, reconstructed", reconstruction),
            (&swaps[0], of_main),
            (&swaps[1], of_sidechain),
        ]
        .map(|(title, log_mel)| MelPanel { title, log_mel });
        plot::plot_log_mels(path, &panels, mel)
    }
}

/// The middle of the first track and of the first one by another artist, if there is any.
///
/// # Errors
///
/// Returns an error if there are no tracks.
pub fn excerpts(tracks: &[Arc<Track>], sample_rate_hz: u32) -> Result<[AudioClip; 2]> {
    let main = tracks.first().context("expected a track to preview")?;
    let sidechain = tracks
        .iter()
        .find(|track| track.artist != main.artist)
        .or(tracks.last())
        .unwrap_or(main);
    Ok([main, sidechain].map(|track| {
        let samples = &track.pcm.samples;
        let length = samples.len().min(SECONDS * sample_rate_hz as usize);
        let start = (samples.len() - length) / 2;
        let samples = samples[start..start + length].iter();
        AudioClip {
            sample_rate_hz,
            channels: vec![samples.map(|&x| f32::from(x) * track.pcm.level).collect()],
        }
    }))
}

/// The previews folder of a run, which is created if necessary.
///
/// # Errors
///
/// Returns an error if the folder cannot be created.
pub fn folder(run: &Path) -> Result<PathBuf> {
    let folder = run.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}
