//! Principal components.

use anyhow::{Result, ensure};
use candle_core::{D, DType, Tensor};

/// Steps of the orthogonal iteration. Directions of almost the same variance may still be mixed after them, the space that they span
/// is right.
const STEPS: usize = 50;

/// The directions in which some rows vary most.
pub struct Principal {
    /// Mean of the rows, (1, width).
    pub mean: Tensor,
    /// Orthonormal directions, that of the largest variance first, (count, width).
    pub directions: Tensor,
}

impl Principal {
    /// The `count` directions of the largest variance of `rows` (rows, width), by orthogonal iteration (Golub and Van Loan,
    /// "Matrix Computations", section 8.2).
    ///
    /// # Errors
    ///
    /// Returns an error if there are fewer values in a row than directions, or no rows.
    pub fn of(rows: &Tensor, count: usize) -> Result<Self> {
        let (height, width) = rows.dims2()?;
        ensure!(
            height > 0 && (1..=width).contains(&count),
            "expected rows and 1 to {width} directions, found {height} rows and {count} directions"
        );
        let (device, dtype) = (rows.device(), rows.dtype());
        let rows = rows.to_dtype(DType::F64)?;
        let mean = rows.mean_keepdim(0)?;
        let centred = rows.broadcast_sub(&mean)?;
        // Any directions do that are not perpendicular to those that are sought.
        let start = (0..count * width).map(|n| (0.37 * (n * n % 100_003) as f64).sin());
        let mut directions: Vec<Vec<f64>> = start
            .collect::<Vec<_>>()
            .chunks_exact(width)
            .map(<[f64]>::to_vec)
            .collect();
        for _ in 0..STEPS {
            orthonormalise(&mut directions);
            let now = Tensor::new(directions, device)?;
            let next = now.matmul(&centred.t()?)?.matmul(&centred)?;
            directions = next.to_vec2()?;
        }
        orthonormalise(&mut directions);
        Ok(Self {
            mean: mean.to_dtype(dtype)?,
            directions: Tensor::new(directions, device)?.to_dtype(dtype)?,
        })
    }

    /// Coordinates of rows along the directions, (rows, count), and the share of the variance that each direction has.
    ///
    /// # Errors
    ///
    /// Returns an error if the rows have another width.
    pub fn project(&self, rows: &Tensor) -> Result<(Tensor, Vec<f64>)> {
        let centred = rows.broadcast_sub(&self.mean)?;
        let points = centred.matmul(&self.directions.t()?)?;
        let sum = |values: Tensor| values.sqr()?.to_dtype(DType::F64)?.sum(0);
        let all = sum(centred)?.sum(D::Minus1)?.to_scalar::<f64>()?;
        let own: Vec<f64> = sum(points.clone())?.to_vec1()?;
        let shares = own.iter().map(|own| own / all.max(f64::MIN_POSITIVE));
        Ok((points, shares.collect()))
    }
}

/// The method of Gram and Schmidt, each row twice for the rounding errors. A row that the ones before it span becomes 0.
fn orthonormalise(rows: &mut [Vec<f64>]) {
    for place in 0..rows.len() {
        let (before, rest) = rows.split_at_mut(place);
        let row = &mut rest[0];
        let whole = dot(row, row).sqrt();
        for other in before.iter().chain(&*before) {
            let along = dot(row, other);
            let pairs = row.iter_mut().zip(other);
            pairs.for_each(|(value, other)| *value -= along * other);
        }
        let left = dot(row, row).sqrt();
        let scale = if left > 1e-12 * whole {
            1.0 / left
        } else {
            0.0
        };
        row.iter_mut().for_each(|value| *value *= scale);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// An ellipse with the axes 5 and 2 in a plane, with an offset.
    fn ellipse() -> (Tensor, Vec<[f64; 2]>) {
        let axes = (0..100).map(|n| {
            let turn = std::f64::consts::TAU * n as f64 / 100.0;
            [5.0 * turn.cos(), 2.0 * turn.sin()]
        });
        let axes: Vec<[f64; 2]> = axes.collect();
        let rows: Vec<Vec<f64>> = axes
            .iter()
            .map(|[long, short]| vec![7.0 + 0.6 * long, 3.0, 0.8 * long - 1.0, *short])
            .collect();
        (Tensor::new(rows, &Device::Cpu).unwrap(), axes)
    }

    #[test]
    fn components_are_the_directions_of_the_largest_variance() {
        let (rows, axes) = ellipse();
        let principal = Principal::of(&rows, 2).unwrap();
        let (points, shares) = principal.project(&rows).unwrap();
        for (point, axes) in points.to_vec2::<f64>().unwrap().iter().zip(axes) {
            for (found, expected) in point.iter().zip(axes) {
                assert!(
                    (found.abs() - expected.abs()).abs() < 1e-9,
                    "{found}, {expected}"
                );
            }
        }
        assert!((shares[0] - 25.0 / 29.0).abs() < 1e-9 && (shares[1] - 4.0 / 29.0).abs() < 1e-9);
    }

    #[test]
    fn directions_are_orthonormal_and_there_are_no_more_than_the_rows_span() {
        let (rows, _) = ellipse();
        let directions = Principal::of(&rows, 4).unwrap().directions;
        let products = directions.matmul(&directions.t().unwrap()).unwrap();
        let products: Vec<Vec<f64>> = products.to_vec2().unwrap();
        for (i, row) in products.iter().enumerate() {
            for (j, product) in row.iter().enumerate() {
                let expected = f64::from(u8::from(i == j && i < 2));
                assert!((product - expected).abs() < 1e-9, "{products:?}");
            }
        }
        assert!(Principal::of(&rows, 5).is_err());
    }
}
