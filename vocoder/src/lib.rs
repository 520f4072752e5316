#![doc = include_str!("../README.md")]
//!
//! # The mel contract
//!
//! A [`MelConfig`] describes the mel spectrogram. The default is that of HARD (Wu, DAFx 2023):
//!
//! - 22,050 Hz mono; `n_fft` = window = 2048 samples, periodic Hann; `hop_length` = 512 samples;
//! - the signal is reflection-padded with `(n_fft - hop_length) / 2` samples on both sides, and frames are not centred:
//!   `n` samples give `n / hop_length` frames, and frame `i` is centred at sample `i * hop_length + hop_length / 2`;
//! - magnitude (not power), 128 Slaney mel bands from 0 to 11,025 Hz with Slaney's area norm, then `ln(max(x, 1e-5))`;
//! - stored frame by frame ([`LogMel`]): `values[frame * n_mels + mel]`.
//!
//! *Frames* are mel columns; *samples* are counted per channel.
//!
//! # The guided voice
//!
//! This example filters the sound of two tracks to match a mel, here that of the first track itself:
//!
//! ```
//! use vocoder::guided::{FrameControls, GuidedConfig, GuidedVoice};
//! use vocoder::{MelConfig, MelSpectrogram};
//!
//! let config = MelConfig::default();
//! let main: Vec<f32> = (0..22_050).map(|n| 0.3 * (n as f32 * 0.1).sin()).collect();
//! let sidechain = vec![0.0; main.len()];
//! let mel = MelSpectrogram::new(&config)?.log_mel(&main);
//!
//! let mut voice = GuidedVoice::new(&GuidedConfig::new(config, 22_050, 1))?;
//! voice.push_mel(&mel, &vec![FrameControls::default(); mel.frames()])?;
//! voice.push_audio(&[&main], &[&sidechain])?;
//! let mut sound = vec![Vec::new()];
//! voice.finish(&mut sound)?;
//! assert_eq!(sound[0].len(), main.len());
//! # vocoder::Result::Ok(())
//! ```

pub mod classic;
pub mod conv;
mod error;
pub mod generated;
pub mod generator;
pub mod griffin_lim;
pub mod guided;
pub mod hpss;
pub mod layers;
pub mod magnitudes;
mod mel;
pub mod plan;
mod separated;
pub mod simd;
mod spectrum;
mod stft;
mod window;

pub use error::{Error, Result};
pub use mel::{LogMel, MEL_FLOOR, MelConfig, MelFilterBank, MelSpectrogram, MelStream};
pub use spectrum::Spectrum;
pub use window::AnalysisWindow;
