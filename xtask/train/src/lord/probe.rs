//! How well a linear classifier tells the instrument from content codes: by chance, if they hold none of it.

use anyhow::{Result, ensure};

/// Ridge relative to the mean square of the features.
const RIDGE: f64 = 0.3;

/// Codes with their classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labelled {
    /// Features of each code.
    pub rows: Vec<Vec<f32>>,
    /// Its class.
    pub classes: Vec<usize>,
}

impl Labelled {
    /// Mean and deviation over time of each channel, for codes of `frames` frames, channel by channel.
    pub fn pooled(&self, frames: usize) -> Self {
        let pool = |row: &Vec<f32>| {
            let channels = row.chunks_exact(frames);
            let moments = channels.flat_map(|values| {
                let mean = values.iter().sum::<f32>() / frames as f32;
                let squares = values.iter().map(|value| (value - mean).powi(2));
                [mean, (squares.sum::<f32>() / frames as f32).sqrt()]
            });
            moments.collect()
        };
        Self {
            rows: self.rows.iter().map(pool).collect(),
            classes: self.classes.clone(),
        }
    }
}

/// Share of the codes in `test` whose class is found by ridge regression, fitted to `training`, of the classes as vectors of 0 and 1.
///
/// # Errors
///
/// Returns an error if there are no codes, or their sizes differ.
pub fn accuracy(training: &Labelled, test: &Labelled, classes: usize) -> Result<f64> {
    let size = training.rows.first().map_or(0, Vec::len);
    let all = training.rows.iter().chain(&test.rows);
    ensure!(
        size > 0 && !test.rows.is_empty() && all.clone().all(|row| row.len() == size),
        "a probe expects codes of one size, found {} and {} codes",
        training.rows.len(),
        test.rows.len()
    );
    let count = training.rows.len();
    let mean =
        |place: usize| training.rows.iter().map(|row| row[place]).sum::<f32>() / count as f32;
    let means: Vec<f32> = (0..size).map(mean).collect();
    let deviation = |place: usize| {
        let squares = training
            .rows
            .iter()
            .map(|row| (row[place] - means[place]).powi(2));
        (squares.sum::<f32>() / count as f32).sqrt().max(1e-6)
    };
    let deviations: Vec<f32> = (0..size).map(deviation).collect();
    let standard = |row: &Vec<f32>| -> Vec<f32> {
        let values = row.iter().zip(&means).zip(&deviations);
        values
            .map(|((value, mean), deviation)| (value - mean) / deviation)
            .collect()
    };
    let train: Vec<Vec<f32>> = training.rows.iter().map(standard).collect();
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>().into() };

    // Dual form: as many unknowns as codes.
    let mut kernel: Vec<Vec<f64>> = train
        .iter()
        .enumerate()
        .map(|(i, a)| {
            train[..=i]
                .iter()
                .map(|b| dot(a, b) / size as f64)
                .collect()
        })
        .collect();
    kernel
        .iter_mut()
        .enumerate()
        .for_each(|(i, row)| row[i] += RIDGE);
    factorise(&mut kernel);
    let share = |class: usize| {
        training.classes.iter().filter(|own| **own == class).count() as f64 / count as f64
    };
    let weights: Vec<Vec<f64>> = (0..classes)
        .map(|class| {
            let targets = training.classes.iter();
            let targets = targets.map(|own| f64::from(u8::from(*own == class)) - share(class));
            solve(&kernel, targets.collect())
        })
        .collect();
    let mut hits = 0;
    for (row, class) in test.rows.iter().zip(&test.classes) {
        let row = standard(row);
        let likeness: Vec<f64> = train
            .iter()
            .map(|other| dot(&row, other) / size as f64)
            .collect();
        let score = |class: usize| -> f64 {
            let products = likeness.iter().zip(&weights[class]).map(|(a, b)| a * b);
            products.sum::<f64>() + share(class)
        };
        let best = (0..classes).max_by(|a, b| score(*a).total_cmp(&score(*b)));
        hits += usize::from(best == Some(*class));
    }
    Ok(hits as f64 / test.rows.len() as f64)
}

/// The Cholesky factor of the lower triangle of a positive definite matrix, in place.
fn factorise(matrix: &mut [Vec<f64>]) {
    for i in 0..matrix.len() {
        let (above, rest) = matrix.split_at_mut(i);
        let row = &mut rest[0];
        for (j, other) in above.iter().enumerate() {
            let dot: f64 = row[..j].iter().zip(&other[..j]).map(|(a, b)| a * b).sum();
            row[j] = (row[j] - dot) / other[j];
        }
        let own: f64 = row[..i].iter().map(|value| value * value).sum();
        row[i] = (row[i] - own).max(f64::MIN_POSITIVE).sqrt();
    }
}

/// Solves a system by its Cholesky factor.
fn solve(factor: &[Vec<f64>], mut x: Vec<f64>) -> Vec<f64> {
    for i in 0..x.len() {
        let dot: f64 = factor[i][..i].iter().zip(&x).map(|(a, b)| a * b).sum();
        x[i] = (x[i] - dot) / factor[i][i];
    }
    for i in (0..x.len()).rev() {
        x[i] /= factor[i][i];
        let (value, row) = (x[i], &factor[i]);
        x[..i]
            .iter_mut()
            .zip(row)
            .for_each(|(x, weight)| *x -= value * weight);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::normal;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// Codes of 3 channels of 4 frames in 5 classes; `trace` is what one value has of each class.
    fn codes(count: usize, trace: f32, seed: u64) -> Labelled {
        let mut random = StdRng::seed_from_u64(seed);
        let classes: Vec<usize> = (0..count).map(|n| n % 5).collect();
        let row = |class: &usize| {
            let mut row = normal(12, &mut random);
            row[2 * class] += trace;
            row
        };
        Labelled {
            rows: classes.iter().map(row).collect(),
            classes,
        }
    }

    #[test]
    fn a_probe_finds_what_the_codes_hold_and_nothing_else() {
        let found = |trace| accuracy(&codes(400, trace, 1), &codes(200, trace, 2), 5).unwrap();
        assert!(found(6.0) > 0.9, "{}", found(6.0));
        let chance = found(0.0);
        assert!((0.1..0.3).contains(&chance), "{chance}");
    }

    #[test]
    fn pooled_codes_are_means_and_deviations_of_channels() {
        let codes = Labelled {
            rows: vec![vec![1.0, 3.0, -2.0, -2.0]],
            classes: vec![0],
        };
        assert_eq!(codes.pooled(2).rows, [[2.0, 1.0, -2.0, 0.0]]);
    }
}
