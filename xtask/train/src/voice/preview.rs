//! Previews of a voice in training: pictures and sounds of validation music.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use graft_material::audio_writer::{self, WavFormat};
use graft_material::plot::{self, MelPanel};
use model_runtime::AudioClip;
use vocoder::{LogMel, MelConfig, MelSpectrogram};

use crate::dataset::Track;
use crate::preview::{excerpts, folder};

/// Excerpts of two tracks, by different artists if there are any.
pub struct VoicePreview {
    clips: [AudioClip; 2],
    mel: MelConfig,
}

impl VoicePreview {
    /// Takes the middle of the first track and of the first track by another artist.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no tracks.
    pub fn new(tracks: &[Arc<Track>], mel: &MelConfig) -> Result<Self> {
        Ok(Self {
            clips: excerpts(tracks, mel.sample_rate_hz)?,
            mel: mel.clone(),
        })
    }

    /// Writes `previews/step-N.png`, the log-mels of the excerpts and of their resynthesis by `voice`, and
    /// `previews/step-N-*.wav`, the sounds. `voice` turns a log-mel into samples.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be written.
    pub fn write(
        &self,
        run: &Path,
        step: u64,
        voice: impl Fn(&LogMel) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let folder = folder(run)?;
        let mut spectrogram = MelSpectrogram::new(&self.mel)?;
        let mut mels = Vec::new();
        for (name, clip) in ["main", "sidechain"].into_iter().zip(&self.clips) {
            let mel = spectrogram.log_mel(&clip.channels[0]);
            let samples = voice(&mel)?;
            mels.extend([mel, spectrogram.log_mel(&samples)]);
            let generated = AudioClip {
                sample_rate_hz: clip.sample_rate_hz,
                channels: vec![samples],
            };
            let path = folder.join(format!("step-{step:06}-{name}.wav"));
            audio_writer::write_wav(&path, &generated, WavFormat::Pcm16)?;
            audio_writer::write_wav(&folder.join(format!("{name}.wav")), clip, WavFormat::Pcm16)?;
        }
        let titles = [
            "First excerpt",
            "By the voice",
            "Second excerpt",
            "By the voice",
        ];
        let panels: Vec<MelPanel> = titles
            .into_iter()
            .zip(&mels)
            .map(|(title, log_mel)| MelPanel { title, log_mel })
            .collect();
        plot::plot_log_mels(
            &folder.join(format!("step-{step:06}.png")),
            &panels,
            &self.mel,
        )
    }
}
