//! Which instrument plays: a linear classifier of log-mels, fitted to renderings of General MIDI programs.
//!
//! The features are the cosine transforms of the mean spectrum and of its deviation over time, in nepers relative to the level of a
//! frame, with frames weighted by their amplitudes. The classifier is that of equal covariances (linear discriminant analysis).

use std::collections::BTreeMap;
use std::f32::consts::PI;

use anyhow::{Result, ensure};
use vocoder::LogMel;

/// Coefficients of the cosine transforms of the mean and of the deviation.
const MEAN_COEFFICIENTS: usize = 40;
const DEVIATION_COEFFICIENTS: usize = 16;
const FEATURES: usize = MEAN_COEFFICIENTS + DEVIATION_COEFFICIENTS;

/// Bands further below the level of their frame count as this far, in nepers: the noise floor differs from sound to sound.
const LEAST_NEPERS: f32 = -7.0;

/// Share of the mean variance that is added to each variance, so that the covariance has an inverse.
const SHRINKAGE: f64 = 0.05;

/// Tells programs apart.
pub struct Instruments {
    /// Mean of each program's features, after a change of basis in which the covariance is the identity.
    means: BTreeMap<u8, Vec<f64>>,
    /// Lower triangle of the Cholesky factor of the covariance.
    factor: Vec<Vec<f64>>,
}

impl Instruments {
    /// Fits the classifier to log-mels, each with its program.
    ///
    /// # Errors
    ///
    /// Returns an error if there are fewer than two programs, or no two log-mels of one program.
    pub fn fit(examples: &[(u8, LogMel)]) -> Result<Self> {
        let mut by_program: BTreeMap<u8, Vec<Vec<f64>>> = BTreeMap::new();
        for (program, log_mel) in examples {
            by_program
                .entry(*program)
                .or_default()
                .push(features(log_mel));
        }
        ensure!(
            by_program.len() >= 2 && examples.len() > by_program.len(),
            "expected several log-mels of two programs at least, found {} of {}",
            examples.len(),
            by_program.len()
        );
        let mut covariance = vec![vec![0.0; FEATURES]; FEATURES];
        let mut means = BTreeMap::new();
        for (program, features) in by_program {
            let mean: Vec<f64> = (0..FEATURES)
                .map(|i| features.iter().map(|x| x[i]).sum::<f64>() / features.len() as f64)
                .collect();
            for x in &features {
                for (i, row) in covariance.iter_mut().enumerate() {
                    for (j, sum) in row.iter_mut().enumerate() {
                        *sum += (x[i] - mean[i]) * (x[j] - mean[j]) / examples.len() as f64;
                    }
                }
            }
            means.insert(program, mean);
        }
        let variance = (0..FEATURES).map(|i| covariance[i][i]).sum::<f64>() / FEATURES as f64;
        for (i, row) in covariance.iter_mut().enumerate() {
            row[i] += SHRINKAGE * variance;
        }
        let factor = cholesky(&covariance);
        let means = means
            .into_iter()
            .map(|(program, mean)| (program, solve(&factor, &mean)))
            .collect();
        Ok(Self { means, factor })
    }

    /// The program that a log-mel sounds like most.
    pub fn nearest(&self, log_mel: &LogMel) -> u8 {
        let x = solve(&self.factor, &features(log_mel));
        let distances = self
            .means
            .iter()
            .map(|(program, mean)| (*program, squared_distance(&x, mean)));
        let nearest = distances.min_by(|a, b| a.1.total_cmp(&b.1));
        nearest.expect("there are programs").0
    }

    /// Whether a log-mel sounds more like program `a` than like program `b`. One that was not fitted is never like it.
    pub fn is_rather(&self, log_mel: &LogMel, a: u8, b: u8) -> bool {
        let x = solve(&self.factor, &features(log_mel));
        let distance = |program: u8| {
            let mean = self.means.get(&program);
            mean.map_or(f64::INFINITY, |mean| squared_distance(&x, mean))
        };
        distance(a) < distance(b)
    }

    /// Number of programs.
    pub fn programs(&self) -> usize {
        self.means.len()
    }
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

fn features(log_mel: &LogMel) -> Vec<f64> {
    let n_mels = log_mel.n_mels();
    let (mut mean, mut square) = (vec![0.0; n_mels], vec![0.0; n_mels]);
    let mut sum = f32::MIN_POSITIVE;
    for frame in log_mel.values().chunks_exact(n_mels) {
        let amplitude = frame.iter().map(|value| value.exp()).sum::<f32>() / n_mels as f32;
        let level = amplitude.max(f32::MIN_POSITIVE).ln();
        sum += amplitude;
        for ((mean, square), value) in mean.iter_mut().zip(&mut square).zip(frame) {
            let relative = (value - level).max(LEAST_NEPERS);
            *mean += amplitude * relative;
            *square += amplitude * relative * relative;
        }
    }
    let deviation = mean.iter().zip(&square).map(|(mean, square)| {
        let mean = mean / sum;
        (square / sum - mean * mean).max(0.0).sqrt()
    });
    let deviation: Vec<f32> = deviation.collect();
    mean.iter_mut().for_each(|mean| *mean /= sum);
    let cosines = |values: &[f32], count: usize| -> Vec<f64> {
        let turn = |k: usize, n: usize| (PI * k as f32 * (n as f32 + 0.5) / n_mels as f32).cos();
        let coefficient = |k: usize| {
            let products = values.iter().enumerate().map(|(n, x)| x * turn(k, n));
            f64::from(products.sum::<f32>() / n_mels as f32)
        };
        (0..count).map(coefficient).collect()
    };
    // The first coefficient of the mean is its level.
    let mut features = cosines(&mean, MEAN_COEFFICIENTS + 1);
    features.remove(0);
    features.extend(cosines(&deviation, DEVIATION_COEFFICIENTS));
    features
}

/// The lower triangle whose product with its transpose is a positive definite matrix.
fn cholesky(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut factor: Vec<Vec<f64>> = Vec::with_capacity(matrix.len());
    for (i, row) in matrix.iter().enumerate() {
        let mut own = vec![0.0; i + 1];
        for j in 0..=i {
            let other = if j == i { &own } else { &factor[j] };
            let dot: f64 = own[..j].iter().zip(&other[..j]).map(|(a, b)| a * b).sum();
            own[j] = match i == j {
                true => (row[i] - dot).max(f64::MIN_POSITIVE).sqrt(),
                false => (row[j] - dot) / factor[j][j],
            };
        }
        factor.push(own);
    }
    factor
}

/// Solves a triangular system by substitution.
fn solve(factor: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for (row, value) in factor.iter().zip(x) {
        let known: f64 = row.iter().zip(&y).map(|(a, b): (_, &f64)| a * b).sum();
        y.push((value - known) / row[y.len()]);
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log-mel of 20 frames with this tilt and a comb of this distance, with some noise.
    fn log_mel(tilt: f32, comb: f32, seed: u32) -> LogMel {
        let mut state = seed;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let mut log_mel = LogMel::new(128);
        for frame in 0..20 {
            let level = -2.0 - 0.05 * frame as f32 + noise();
            let values: Vec<f32> = (0..128)
                .map(|band| {
                    let band = band as f32;
                    level + tilt * band / 128.0 + (band / comb).cos() + 0.5 * noise()
                })
                .collect();
            log_mel.push_frame(&values);
        }
        log_mel
    }

    #[test]
    fn programs_are_told_by_their_colour_whatever_they_play() {
        let of = |program: u8, seed: u32| {
            let comb = 2.0 + (seed * 7 % 5) as f32;
            log_mel([-1.0, -4.0, 2.0][usize::from(program)], comb, seed)
        };
        let examples: Vec<_> = (0..3)
            .flat_map(|program| (1..20).map(move |seed| (program, of(program, seed))))
            .collect();
        let instruments = Instruments::fit(&examples).unwrap();
        assert_eq!(instruments.programs(), 3);
        for program in 0..3 {
            for seed in 50..60 {
                let heard = of(program, seed);
                assert_eq!(instruments.nearest(&heard), program);
                assert!(instruments.is_rather(&heard, program, (program + 1) % 3));
                assert!(!instruments.is_rather(&heard, 9, program));
                // The level makes no difference.
                let softer = heard.values().iter().map(|value| value - 1.0).collect();
                let softer = LogMel::from_values(128, softer).unwrap();
                assert_eq!(instruments.nearest(&softer), program);
            }
        }
        assert!(Instruments::fit(&examples[..5]).is_err());
    }
}
