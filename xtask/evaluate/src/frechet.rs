//! Fréchet distance between sets of features, as Heusel et al. ("GANs Trained by a Two Time-Scale Update Rule Converge to a
//! Local Nash Equilibrium", 2017) and Kilgour et al. ("Fréchet Audio Distance", 2019) use it, for small samples.

use anyhow::{Result, ensure};
use graft_material::report::Measured;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Repetitions of the bootstrap.
const REPETITIONS: usize = 200;

/// Features of one clip: rows of equal length, one for each window.
pub type ClipFeatures = Vec<Vec<f32>>;

/// A normal distribution in d dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct Gaussian {
    mean: Vec<f64>,
    /// d x d.
    covariance: Vec<f64>,
}

impl Gaussian {
    /// The distribution with this mean (d) and covariance (d x d, by rows).
    ///
    /// # Errors
    ///
    /// Returns an error if the sizes do not fit.
    pub fn new(mean: Vec<f64>, covariance: Vec<f64>) -> Result<Self> {
        ensure!(
            !mean.is_empty() && covariance.len() == mean.len().pow(2),
            "expected a covariance of {0} x {0}, found {1} values",
            mean.len(),
            covariance.len()
        );
        Ok(Self { mean, covariance })
    }

    /// Fits rows of features. The covariance is drawn towards a multiple of the identity by as much as loses least on
    /// average (Ledoit and Wolf, "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", 2004), so that few
    /// rows do not make directions without any variance.
    ///
    /// # Errors
    ///
    /// Returns an error if there are fewer than two rows, or they differ in length.
    pub fn fit<'a>(rows: impl Iterator<Item = &'a Vec<f32>> + Clone) -> Result<Self> {
        let count = rows.clone().count();
        let d = rows.clone().next().map_or(0, Vec::len);
        ensure!(
            count > 1 && d > 0 && rows.clone().all(|row| row.len() == d),
            "expected at least two rows of features of one length, found {count}"
        );
        let n = count as f64;
        let mut mean = vec![0.0; d];
        for row in rows.clone() {
            for (mean, &value) in mean.iter_mut().zip(row) {
                *mean += f64::from(value) / n;
            }
        }
        let mut covariance = vec![0.0; d * d];
        // Sum over rows of the fourth power of their length, for the variance of the covariance.
        let mut fourth = 0.0;
        for row in rows {
            let centred: Vec<f64> = row
                .iter()
                .zip(&mean)
                .map(|(&x, m)| f64::from(x) - m)
                .collect();
            fourth += centred.iter().map(|x| x * x).sum::<f64>().powi(2);
            for (a, out) in centred.iter().zip(covariance.chunks_exact_mut(d)) {
                for (b, out) in centred.iter().zip(out) {
                    *out += a * b / n;
                }
            }
        }
        let level = (0..d).map(|i| covariance[i * d + i]).sum::<f64>() / d as f64;
        let squares: f64 = covariance.iter().map(|c| c * c).sum();
        let spread = squares - d as f64 * level * level;
        let noise = (fourth / n - squares) / n;
        let shrinkage = if spread > 0.0 {
            (noise / spread).clamp(0.0, 1.0)
        } else {
            1.0
        };
        for (index, value) in covariance.iter_mut().enumerate() {
            let target = if index % (d + 1) == 0 { level } else { 0.0 };
            *value += shrinkage * (target - *value);
        }
        Self::new(mean, covariance)
    }

    /// Squared Fréchet distance: `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`.
    pub fn distance(&self, other: &Self) -> f64 {
        let d = self.mean.len();
        let means = self.mean.iter().zip(&other.mean);
        let means: f64 = means.map(|(a, b)| (a - b).powi(2)).sum();
        let trace = |matrix: &[f64]| (0..d).map(|i| matrix[i * d + i]).sum::<f64>();
        // (C1 C2)^(1/2) has the trace of the root of the symmetric C1^(1/2) C2 C1^(1/2).
        let root = symmetric_root(&self.covariance, d);
        let mut product = multiply(&multiply(&root, &other.covariance, d), &root, d);
        let (values, _) = eigen(&mut product, d);
        let cross: f64 = values.iter().map(|value| value.max(0.0).sqrt()).sum();
        (means + trace(&self.covariance) + trace(&other.covariance) - 2.0 * cross).max(0.0)
    }
}

/// Squared Fréchet distance between normal distributions fitted to two sets of rows, with the covariances as they are. The work
/// grows with the numbers of rows instead of the number of features, of which there may be more.
///
/// # Errors
///
/// Returns an error if there are fewer than two rows in a set, or rows differ in length.
pub fn sample_distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> Result<f64> {
    let d = a.first().map_or(0, Vec::len);
    ensure!(
        a.len() > 1 && b.len() > 1 && a.iter().chain(b).all(|row| row.len() == d),
        "expected two sets of at least two rows of features of one length, found {} and {} rows",
        a.len(),
        b.len()
    );
    let (mean_a, a) = centred(a);
    let (mean_b, b) = centred(b);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let trace = |rows: &[Vec<f64>]| rows.iter().map(|row| dot(row, row)).sum::<f64>();
    let means = mean_a.iter().zip(&mean_b);
    let means: f64 = means.map(|(a, b)| (a - b).powi(2)).sum();
    // (C1 C2)^(1/2) has the trace of the singular values of the products of all rows, whose squares are the eigenvalues below.
    let products = |row: &Vec<f64>| b.iter().map(|other| dot(row, other)).collect();
    let products: Vec<Vec<f64>> = a.iter().map(products).collect();
    let n = a.len();
    let mut squares: Vec<f64> = (0..n * n)
        .map(|place| dot(&products[place / n], &products[place % n]))
        .collect();
    let (values, _) = eigen(&mut squares, n);
    let cross: f64 = values.iter().map(|value| value.max(0.0).sqrt()).sum();
    Ok((means + trace(&a) + trace(&b) - 2.0 * cross).max(0.0))
}

/// The mean of rows, and the rows' differences from it over the root of one less than their number: the sum of their outer products
/// is the covariance.
fn centred(rows: &[Vec<f32>]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let count = rows.len() as f64;
    let mut mean = vec![0.0; rows[0].len()];
    for row in rows {
        for (mean, &value) in mean.iter_mut().zip(row) {
            *mean += f64::from(value) / count;
        }
    }
    let scale = 1.0 / (count - 1.0).sqrt();
    let differences = rows.iter().map(|row| {
        let values = row.iter().zip(&mean);
        values.map(|(&x, m)| (f64::from(x) - m) * scale).collect()
    });
    let differences = differences.collect();
    (mean, differences)
}

/// Distance between two sets of clips with a 95 % interval, from the spread of distances between sets that are drawn anew from
/// both: whole clips, as the windows of a clip are alike (bootstrap, Efron, 1979). Small sets make all distances too large, so the
/// interval is around the distance itself, and only distances between sets of the same sizes can be compared.
///
/// # Errors
///
/// Returns an error if a set is too small.
pub fn distance(a: &[ClipFeatures], b: &[ClipFeatures], seed: u64) -> Result<Measured> {
    let fit = |clips: &[usize], of: &[ClipFeatures]| {
        Gaussian::fit(clips.iter().flat_map(|&clip| &of[clip]))
    };
    let all = |of: &[ClipFeatures]| -> Vec<usize> { (0..of.len()).collect() };
    let value = fit(&all(a), a)?.distance(&fit(&all(b), b)?);
    let mut random = StdRng::seed_from_u64(seed);
    let drawn = (0..REPETITIONS)
        .map(|_| {
            let mut draw = |of: &[ClipFeatures]| {
                let clips = (0..of.len()).map(|_| random.random_range(0..of.len()));
                fit(&clips.collect::<Vec<_>>(), of)
            };
            Ok(draw(a)?.distance(&draw(b)?))
        })
        .collect::<Result<Vec<f64>>>()?;
    Ok(Measured::bootstrapped(value, &drawn))
}

fn multiply(a: &[f64], b: &[f64], d: usize) -> Vec<f64> {
    let mut product = vec![0.0; d * d];
    for (row, out) in a.chunks_exact(d).zip(product.chunks_exact_mut(d)) {
        for (value, row) in row.iter().zip(b.chunks_exact(d)) {
            for (b, out) in row.iter().zip(out.iter_mut()) {
                *out += value * b;
            }
        }
    }
    product
}

/// The root of a symmetric matrix without negative eigenvalues.
fn symmetric_root(matrix: &[f64], d: usize) -> Vec<f64> {
    let (values, vectors) = eigen(&mut matrix.to_vec(), d);
    let mut root = vec![0.0; d * d];
    for (value, vector) in values.iter().zip(vectors.chunks_exact(d)) {
        let value = value.max(0.0).sqrt();
        for (a, row) in vector.iter().zip(root.chunks_exact_mut(d)) {
            for (b, out) in vector.iter().zip(row) {
                *out += value * a * b;
            }
        }
    }
    root
}

/// Eigenvalues, and eigenvectors by rows, of a symmetric matrix, by Jacobi's rotations. Leaves the matrix diagonal.
fn eigen(matrix: &mut [f64], d: usize) -> (Vec<f64>, Vec<f64>) {
    const MOST_SWEEPS: usize = 50;
    let mut vectors = vec![0.0; d * d];
    vectors
        .iter_mut()
        .step_by(d + 1)
        .for_each(|value| *value = 1.0);
    let scale: f64 = matrix.iter().map(|value| value * value).sum();
    for _ in 0..MOST_SWEEPS {
        let mut off_diagonal = 0.0;
        for p in 0..d {
            for q in p + 1..d {
                let apq = matrix[p * d + q];
                off_diagonal += apq * apq;
                if apq == 0.0 {
                    continue;
                }
                let theta = (matrix[q * d + q] - matrix[p * d + p]) / (2.0 * apq);
                let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                let sine = tangent * cosine;
                for k in 0..d {
                    let (a, b) = (matrix[k * d + p], matrix[k * d + q]);
                    matrix[k * d + p] = cosine * a - sine * b;
                    matrix[k * d + q] = sine * a + cosine * b;
                }
                for rows in [&mut *matrix, &mut vectors] {
                    for k in 0..d {
                        let (a, b) = (rows[p * d + k], rows[q * d + k]);
                        rows[p * d + k] = cosine * a - sine * b;
                        rows[q * d + k] = sine * a + cosine * b;
                    }
                }
            }
        }
        if off_diagonal <= 1e-28 * scale {
            break;
        }
    }
    ((0..d).map(|i| matrix[i * d + i]).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Python (numpy 2.4, scipy 1.17):
    //   A = numpy.array([[2, .5, .3], [.5, 1, .2], [.3, .2, .5]])
    //   B = numpy.array([[1, -.3, 0], [-.3, 1.5, .4], [0, .4, .8]])
    //   a, b = numpy.array([1, 0, -1.]), numpy.array([.5, .25, 0])
    //   ((a - b) ** 2).sum() + numpy.trace(A + B - 2 * scipy.linalg.sqrtm(A @ B).real)
    #[test]
    fn the_distance_of_gaussians_is_that_of_scipy() {
        let a = vec![2.0, 0.5, 0.3, 0.5, 1.0, 0.2, 0.3, 0.2, 0.5];
        let b = vec![1.0, -0.3, 0.0, -0.3, 1.5, 0.4, 0.0, 0.4, 0.8];
        let a = Gaussian::new(vec![1.0, 0.0, -1.0], a).unwrap();
        let b = Gaussian::new(vec![0.5, 0.25, 0.0], b).unwrap();
        assert!((a.distance(&b) - 1.840_142_448_657_189_3).abs() < 1e-9);
        assert!((b.distance(&a) - 1.840_142_448_657_189_3).abs() < 1e-9);
        assert!(a.distance(&a) < 1e-9);
        assert!(Gaussian::new(vec![0.0; 2], vec![0.0; 3]).is_err());
    }

    fn rows(count: usize, k: f64, scale: f64, offset: f64) -> Vec<Vec<f32>> {
        let value = |i: f64, j: f64| (k * i * i + 1.3 * j * i).sin() + 0.5 * j * (0.9 * i).cos();
        (0..count)
            .map(|i| {
                (0..3)
                    .map(|j| (scale * value(i as f64, f64::from(j)) + offset) as f32)
                    .collect()
            })
            .collect()
    }

    // Python (scikit-learn 1.9):
    //   def rows(n, k): return numpy.array(
    //       [[numpy.sin(k*i*i + 1.3*j*i) + .5*j*numpy.cos(.9*i) for j in range(3)] for i in range(n)])
    //   a, b = rows(12, 0.37), 0.5 * rows(15, 0.61) + 0.2
    //   A, B = sklearn.covariance.ledoit_wolf(a)[0], sklearn.covariance.ledoit_wolf(b)[0]; print(A[0])
    //   ((a.mean(0) - b.mean(0)) ** 2).sum() + numpy.trace(A + B - 2 * scipy.linalg.sqrtm(A @ B).real)
    #[test]
    fn shrinkage_is_that_of_scikit_learn() {
        let a = Gaussian::fit(rows(12, 0.37, 1.0, 0.0).iter()).unwrap();
        let b = Gaussian::fit(rows(15, 0.61, 0.5, 0.2).iter()).unwrap();
        let first_row = [0.620_078_037_5, 0.017_266_378_0, -0.020_133_944_4];
        for (found, expected) in a.covariance.iter().zip(first_row) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert!((a.distance(&b) - 1.046_472_915_9).abs() < 1e-6);
    }

    // Python (numpy 2.4), with a and b as above, A = numpy.cov(a.T), B = numpy.cov(b.T):
    //   ((a.mean(0) - b.mean(0)) ** 2).sum() + numpy.trace(A + B) - 2 * numpy.sqrt(numpy.linalg.eigvals(A @ B).real).sum()
    #[test]
    fn the_distance_of_samples_is_that_of_numpy() {
        let (a, b) = (rows(12, 0.37, 1.0, 0.0), rows(15, 0.61, 0.5, 0.2));
        let found = sample_distance(&a, &b).unwrap();
        assert!((found - 1.200_295_529).abs() < 1e-6, "{found}");
        assert!((sample_distance(&b, &a).unwrap() - found).abs() < 1e-6);
        assert!(sample_distance(&a, &a).unwrap() < 1e-6);
        // Fewer rows than features.
        assert!(sample_distance(&a[..2], &a[..2]).unwrap() < 1e-6);
        assert!(sample_distance(&a[..1], &b).is_err());
    }

    #[test]
    fn like_sets_are_near_and_unlike_ones_far_beyond_their_intervals() {
        let clips = |seed: u64, offset: f32| -> Vec<ClipFeatures> {
            let mut random = StdRng::seed_from_u64(seed);
            let mut row = || {
                (0..4)
                    .map(|_| random.random_range(-1.0..1.0) + offset)
                    .collect()
            };
            (0..60).map(|_| vec![row(), row()]).collect()
        };
        let near = distance(&clips(1, 0.0), &clips(2, 0.0), 1).unwrap();
        let far = distance(&clips(1, 0.0), &clips(2, 1.0), 1).unwrap();
        assert!(
            near.high < 0.1 && (far.value - 4.0).abs() < 0.5,
            "{near:?} {far:?}"
        );
        assert!(far.low < far.value && far.value < far.high && far.low > near.high);
        assert!(distance(&clips(1, 0.0), &[], 1).is_err());
    }
}
