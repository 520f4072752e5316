//! Means with standard errors.

use std::fmt;

/// A mean with its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Mean of all values.
    pub mean: f32,
    /// Standard error of that mean; 0 for a single value.
    pub standard_error: f32,
}

impl Estimate {
    /// Mean and standard error of `values`.
    pub fn of(values: impl ExactSizeIterator<Item = f32> + Clone) -> Self {
        let count = values.len().max(1) as f32;
        let mean = values.clone().sum::<f32>() / count;
        let squares: f32 = values.map(|value| (value - mean).powi(2)).sum();
        Self {
            mean,
            standard_error: (squares / (count - 1.0).max(1.0) / count).sqrt(),
        }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ± {:.3}", self.mean, self.standard_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_carry_their_standard_error() {
        // numpy: x = [1, 2, 4, 9]; mean(x), std(x, ddof=1) / sqrt(4)
        let estimate = Estimate::of([1.0, 2.0, 4.0, 9.0].into_iter());
        assert_eq!(estimate.mean, 4.0);
        assert!((estimate.standard_error - 1.779_513).abs() < 1e-5);
        assert_eq!(Estimate::of([3.0].into_iter()).standard_error, 0.0);
    }
}
