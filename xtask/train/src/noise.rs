//! Random numbers for samples of latents.

use rand::Rng;
use rand::rngs::StdRng;

/// Values of a standard normal distribution.
pub fn normal(count: usize, random: &mut StdRng) -> Vec<f32> {
    let mut noise = Vec::with_capacity(count + 1);
    while noise.len() < count {
        let radius = (-2.0 * (1.0 - random.random::<f32>()).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * random.random::<f32>()).sin_cos();
        noise.extend([radius * cos, radius * sin]);
    }
    noise.truncate(count);
    noise
}

/// Values of a standard Gumbel distribution.
pub fn gumbel(count: usize, random: &mut StdRng) -> Vec<f32> {
    // Above 0, so that the logarithms are finite.
    let mut uniform = || (1.0 - random.random::<f32>()).min(1.0 - f32::EPSILON);
    (0..count).map(|_| -(-uniform().ln()).ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn mean_and_variance(values: &[f32]) -> [f64; 2] {
        let count = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let squares = values.iter().map(|&x| (f64::from(x) - mean).powi(2));
        [mean, squares.sum::<f64>() / count]
    }

    #[test]
    fn noise_has_the_moments_of_its_distribution() {
        let mut random = StdRng::seed_from_u64(1);
        let [mean, variance] = mean_and_variance(&normal(100_001, &mut random));
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02);
        let [mean, variance] = mean_and_variance(&gumbel(100_000, &mut random));
        // The Euler constant, and pi squared over 6.
        assert!((mean - 0.577_216).abs() < 0.02, "{mean}");
        assert!((variance - 1.644_934).abs() < 0.05, "{variance}");
    }
}
