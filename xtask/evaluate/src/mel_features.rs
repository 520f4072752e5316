//! The compared features of a clip, read from its mel alone.

use vocoder::{LogMel, MelConfig};

use crate::chroma::PITCH_CLASSES;
use crate::margins::{CHROMA_FRAMES, Features, centroid_octaves, mean_rises_db};

/// Bands between these frequencies count for the chroma: lower ones are wider than a semitone, and higher ones hardly have tones.
const PITCHED_HZ: std::ops::Range<f64> = 400.0..5000.0;

/// A C.
const C4_HZ: f64 = 261.625_565_300_598_6;

/// Decibels in a neper.
const DB_PER_NEPER: f32 = 20.0 * std::f32::consts::LOG10_E;

/// The features of a log-mel without its sound, to be compared only with others of log-mels: bands are about as wide as a
/// semitone, so chromas differ less than those of sounds. The level is that of `like` plus the difference to the energy of its log-mel.
pub fn of_mel(log_mel: &LogMel, like: &Features) -> Features {
    let mut levels_db: Vec<f32> = log_mel
        .values()
        .iter()
        .map(|nepers| DB_PER_NEPER * nepers)
        .collect();
    Features {
        chroma: chroma(log_mel),
        onset_strength: mean_rises_db(&mut levels_db, log_mel.n_mels()),
        level_db: like.level_db + energy_db(log_mel) - energy_db(&like.log_mel),
        centroid_octaves: centroid_octaves(log_mel),
        log_mel: log_mel.clone(),
    }
}

/// Strength of the pitch classes from C to B, one array for each [`CHROMA_FRAMES`] frames: each band counts for the two nearest
/// pitch classes.
fn chroma(log_mel: &LogMel) -> Vec<[f32; PITCH_CLASSES]> {
    let config = MelConfig::default();
    let n_mels = log_mel.n_mels();
    let bands: Vec<(usize, usize, f32)> = (0..n_mels)
        .map(|band| (band, config.band_centre_hz(band as f64)))
        .filter(|(_, hz)| PITCHED_HZ.contains(hz))
        .map(|(band, hz)| {
            let semitones = 12.0 * (hz / C4_HZ).log2();
            let class = (semitones.floor() as i64).rem_euclid(PITCH_CLASSES as i64) as usize;
            (band, class, semitones.rem_euclid(1.0) as f32)
        })
        .collect();
    let groups = log_mel.values().chunks(CHROMA_FRAMES * n_mels);
    groups
        .map(|frames| {
            let mut chroma = [0.0; PITCH_CLASSES];
            for frame in frames.chunks_exact(n_mels) {
                for &(band, class, share) in &bands {
                    let magnitude = frame[band].exp();
                    chroma[class] += (1.0 - share) * magnitude;
                    chroma[(class + 1) % PITCH_CLASSES] += share * magnitude;
                }
            }
            chroma
        })
        .collect()
}

/// Energy of a log-mel in dB, relative to nothing in particular: bands count by their widths, for which their magnitudes are
/// normalised.
fn energy_db(log_mel: &LogMel) -> f32 {
    let config = MelConfig::default();
    let width_hz = |band: usize| {
        let band = band as f64;
        config.band_centre_hz(band + 0.5) - config.band_centre_hz(band - 0.5)
    };
    let widths: Vec<f64> = (0..log_mel.n_mels()).map(width_hz).collect();
    let frames = log_mel.values().chunks_exact(log_mel.n_mels());
    let energies = frames.map(|frame| {
        let bands = frame.iter().zip(&widths);
        bands
            .map(|(value, width)| width * f64::from(2.0 * value).exp())
            .sum::<f64>()
    });
    let energy = energies.sum::<f64>() / log_mel.frames().max(1) as f64;
    10.0 * energy.max(f64::MIN_POSITIVE).log10() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::margins::{FeatureExtractor, Margins, onset_correlation};
    use crate::test_signal::plucks;
    use model_runtime::AudioClip;

    fn features(clip: &AudioClip) -> [Features; 2] {
        let sound = FeatureExtractor::new().unwrap().extract(clip).unwrap();
        [of_mel(&sound.log_mel, &sound), sound]
    }

    #[test]
    fn a_mel_has_nearly_the_features_of_its_sound() {
        let [mel, sound] = features(&plucks());
        assert_eq!(mel.level_db, sound.level_db);
        let correlation = onset_correlation(&mel, &sound);
        // Frames of the mel are centred half a hop later.
        assert!(correlation > 0.7, "{correlation}");
        let mut louder = plucks();
        louder.channels[0]
            .iter_mut()
            .for_each(|sample| *sample *= 2.0);
        let louder = of_mel(&features(&louder)[1].log_mel, &sound);
        let raised_db = louder.level_db - sound.level_db;
        assert!((raised_db - 6.02).abs() < 0.05, "{raised_db}");
    }

    #[test]
    fn pitch_classes_are_where_they_belong() {
        for class in 0..PITCH_CLASSES {
            let hz = 4.0 * C4_HZ * 2f64.powf(class as f64 / 12.0);
            let tone = (0..22_050).map(|n| {
                let phase = std::f64::consts::TAU * hz * f64::from(n) / 22_050.0;
                (0.2 * phase.sin()) as f32
            });
            let clip = AudioClip {
                sample_rate_hz: 22_050,
                channels: vec![tone.collect()],
            };
            let [mel, _] = features(&clip);
            let frame = mel.chroma[5];
            let loudest = (0..PITCH_CLASSES).max_by(|&a, &b| frame[a].total_cmp(&frame[b]));
            assert_eq!(loudest, Some(class));
        }
    }

    #[test]
    fn margins_of_mels_tell_the_sources_apart() {
        let mut b = plucks();
        b.sample_rate_hz = 31_183;
        b.channels[0].reverse();
        let length = b.channels[0].len() * 22_050 / 31_183;
        let mut a = plucks();
        a.channels[0].truncate(length);
        let ([a, _], [b, _]) = (features(&a), features(&b));
        let margins = Margins::of(&a, &a, &b);
        assert!(
            margins.harmony > 0.1 && margins.rhythm < -0.5,
            "{margins:?}"
        );
    }
}
