//! Whether rotating the harmony latent transposes the music.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{Device, Tensor};
use graft_material::progress;
use graft_train::dataset::Track;
use graft_train::shifted_mel::{Layer, ShiftedMel};
use model_runtime::Network;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;

/// Transpositions that are measured, this many semitones either way.
const FURTHEST_SEMITONES: i32 = 7;

/// Length of the excerpt of each track: 3 s.
const FRAMES: usize = 128;

/// Mean absolute differences of log-mels, in nepers, to the music shifted by some semitones; one for each track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transposition {
    /// How far the music is shifted.
    pub semitones: i32,
    /// With the harmony latent rotated by as much.
    pub rotated: Vec<f32>,
    /// With the harmony latent as it is.
    pub not_rotated: Vec<f32>,
}

/// Measures a network on the middle of each track.
///
/// # Errors
///
/// Returns an error if the network fails.
pub fn measure(network: &dyn Network, tracks: &[Arc<Track>]) -> Result<Vec<Transposition>> {
    let config = MelConfig::default();
    let mut analysis = ShiftedMel::new(&config)?;
    let mut log_mel = |track: &Track, semitones: i32| -> Result<Tensor> {
        let mut values = vec![0.0; config.n_mels * FRAMES];
        let layer = Layer {
            pcm: &track.pcm,
            start_samples: (track.pcm.samples.len() - FRAMES * config.hop_length) / 2,
            semitones: semitones.into(),
            gain: 1.0,
            equaliser: None,
        };
        analysis.log_mel(&[layer], &mut values)?;
        let shape = (1, 1, config.n_mels, FRAMES);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    };
    let shifts = (-FURTHEST_SEMITONES..=FURTHEST_SEMITONES).filter(|&semitones| semitones != 0);
    let mut found: Vec<Transposition> = shifts
        .map(|semitones| Transposition {
            semitones,
            rotated: Vec::new(),
            not_rotated: Vec::new(),
        })
        .collect();
    let long_enough = |track: &&Arc<Track>| {
        track.pcm.samples.len() >= FRAMES * config.hop_length + 2 * config.n_fft
    };
    let bar = progress::bar("Transposing", tracks.len() as u64);
    for track in tracks.iter().filter(long_enough) {
        let latents = network.encode(&log_mel(track, 0)?)?;
        let decode = |semitones: i32| -> Result<Tensor> {
            let transposed = latents
                .try_map(|factor, latent| network.transpose(factor, &latent.mean, &[semitones]))?;
            Ok(network.decode(&transposed)?)
        };
        let plain = decode(0)?;
        for Transposition {
            semitones,
            rotated,
            not_rotated,
        } in &mut found
        {
            let shifted = log_mel(track, *semitones)?;
            rotated.push(mel_l1(&decode(*semitones)?, &shifted)?);
            not_rotated.push(mel_l1(&plain, &shifted)?);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(found)
}

fn mel_l1(a: &Tensor, b: &Tensor) -> Result<f32> {
    Ok((a - b)?.abs()?.mean_all()?.to_scalar()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::audio_cache::Pcm;
    use model_runtime::Model;

    #[test]
    fn rotation_brings_the_built_in_model_closer_to_the_shifted_music() {
        let tone = |hz: f64, n: u32| {
            let phase = std::f64::consts::TAU * hz * f64::from(n) / 22_050.0;
            (1..=5)
                .map(|k| (phase * f64::from(k)).sin() / f64::from(k))
                .sum::<f64>()
        };
        let samples: Vec<f32> = (0..90_000)
            .map(|n| {
                let chord = tone(262.0, n) + tone(330.0, n) + tone(392.0, n);
                (0.1 * chord * (-f64::from(n % 9000) / 4000.0).exp()) as f32
            })
            .collect();
        let track = Arc::new(Track {
            path: "chord".into(),
            artist: "test".into(),
            pcm: Pcm::normalised(&samples, 22_050).unwrap(),
        });
        let model = Model::built_in().unwrap();
        let found = measure(&**model.network(), &[track]).unwrap();
        assert_eq!(found.len(), 14);
        for Transposition {
            semitones,
            rotated,
            not_rotated,
        } in found
        {
            assert!(
                rotated[0] < 0.8 * not_rotated[0],
                "{semitones}: {rotated:?} rotated, {not_rotated:?} not"
            );
        }
    }
}
