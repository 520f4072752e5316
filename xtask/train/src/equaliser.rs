//! Random equalisation, as data augmentation.

use rand::Rng;
use rand::rngs::StdRng;

/// Octaves around which a curve is drawn start at this frequency.
const CENTRE_HZ: f32 = 1000.0;
/// Range of peak frequencies, in octaves around it.
const PEAK_RANGE_OCTAVES: f32 = 3.5;
/// Frequency below which a curve no longer changes.
const LOWEST_HZ: f32 = 30.0;

/// A smooth curve over frequency: a tilt and two bells.
#[derive(Debug, Clone, PartialEq)]
pub struct Equaliser {
    tilt_nepers_per_octave: f32,
    bells: [Bell; 2],
}

#[derive(Debug, Clone, PartialEq)]
struct Bell {
    nepers: f32,
    centre_octaves: f32,
    width_octaves: f32,
}

impl Equaliser {
    /// Draws bells of up to `limit_db`, positive or negative, and a tilt of up to a sixth of that per octave.
    pub fn draw(limit_db: f32, random: &mut StdRng) -> Self {
        let limit = limit_db / 20.0 * std::f32::consts::LN_10;
        Self {
            tilt_nepers_per_octave: random.random_range(-1.0..=1.0) * limit / 6.0,
            bells: std::array::from_fn(|_| Bell {
                nepers: random.random_range(-1.0..=1.0) * limit,
                centre_octaves: random.random_range(-PEAK_RANGE_OCTAVES..=PEAK_RANGE_OCTAVES),
                width_octaves: random.random_range(0.5..=1.5),
            }),
        }
    }

    /// Factor on the magnitude at the frequency `hz`.
    pub fn gain(&self, hz: f32) -> f32 {
        let octaves = (hz.max(LOWEST_HZ) / CENTRE_HZ).log2();
        let bells: f32 = self
            .bells
            .iter()
            .map(|bell| {
                let distance = (octaves - bell.centre_octaves) / bell.width_octaves;
                bell.nepers * (-0.5 * distance * distance).exp()
            })
            .sum();
        (self.tilt_nepers_per_octave * octaves + bells).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn curves_stay_within_their_limits_and_differ() {
        let mut random = StdRng::seed_from_u64(1);
        let curves: Vec<_> = (0..50).map(|_| Equaliser::draw(6.0, &mut random)).collect();
        for curve in &curves {
            for hz in [0.0, 30.0, 100.0, 1000.0, 11_025.0] {
                let db = 20.0 * curve.gain(hz).log10();
                // Two bells, and a tilt over the five octaves from 30 Hz to 1 kHz.
                assert!(db.abs() <= 2.0 * 6.0 + 5.1, "{db} dB at {hz} Hz");
            }
        }
        assert!(
            curves
                .iter()
                .any(|curve| (curve.gain(200.0) / curve.gain(5000.0)).log10().abs() > 0.1)
        );
        let flat = Equaliser::draw(0.0, &mut random);
        assert_eq!(flat.gain(440.0), 1.0);
    }
}
