//! Reproducible signals for the tests and benchmarks of all packages, and a measure of their memory.

pub mod memory;

/// Uniform pseudo-random numbers, the same for each seed: the linear congruential generator of Press et al., "Numerical
/// Recipes", third edition, section 7.1.
#[derive(Clone, Debug)]
pub struct Noise(u32);

impl Noise {
    /// The sequence of a seed.
    pub fn new(seed: u32) -> Self {
        Self(seed)
    }

    /// The next number from -0.5 to 0.5.
    pub fn sample(&mut self) -> f32 {
        self.step() as f32 / u32::MAX as f32 - 0.5
    }

    /// The next whole number from 0 to `end - 1`, for `end` up to 2^24.
    pub fn below(&mut self, end: u32) -> u32 {
        (self.step() >> 8) % end
    }

    fn step(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0
    }
}

/// White noise from -0.5 to 0.5.
pub fn noise(seed: u32, samples: usize) -> Vec<f32> {
    let mut noise = Noise::new(seed);
    (0..samples).map(|_| noise.sample()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_white_and_depends_on_its_seed() {
        let samples = noise(1, 100_000);
        let mean = samples.iter().sum::<f32>() / 1e5;
        let power = samples.iter().map(|x| x * x).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.01 && (power - 1.0 / 12.0).abs() < 0.002);
        assert_ne!(samples[..4], noise(2, 4));
    }
}
