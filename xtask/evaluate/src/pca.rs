//! Principal components, to draw codes of many values as points.

/// Steps of the power iteration for a component. They need not be exact to be drawn.
const STEPS: usize = 100;

/// The coordinates of each row along the two directions of the largest variance, and the shares of the variance that these have.
/// All rows have the same length.
pub fn project(rows: &[Vec<f32>]) -> (Vec<[f64; 2]>, [f64; 2]) {
    let width = rows.first().map_or(0, Vec::len);
    let count = rows.len() as f64;
    let mean = |place: usize| rows.iter().map(|row| f64::from(row[place])).sum::<f64>() / count;
    let means: Vec<f64> = (0..width).map(mean).collect();
    let centred = rows.iter().map(|row| {
        let values = row.iter().zip(&means);
        values.map(|(value, mean)| f64::from(*value) - mean)
    });
    let mut rest: Vec<Vec<f64>> = centred.map(Iterator::collect).collect();
    let variance = rest.iter().map(|row| dot(row, row)).sum::<f64>();
    let mut points = vec![[0.0; 2]; rows.len()];
    let mut shares = [0.0; 2];
    for axis in 0..2 {
        let direction = largest(&rest, width);
        for (row, point) in rest.iter_mut().zip(&mut points) {
            let along = dot(row, &direction);
            point[axis] = along;
            shares[axis] += along * along / variance.max(f64::MIN_POSITIVE);
            let pairs = row.iter_mut().zip(&direction);
            pairs.for_each(|(value, direction)| *value -= along * direction);
        }
    }
    (points, shares)
}

/// The direction of the largest variance of centred rows, by power iteration.
fn largest(rows: &[Vec<f64>], width: usize) -> Vec<f64> {
    // Any direction does that is not perpendicular to the one that is sought.
    let mut direction: Vec<f64> = (0..width).map(|n| (n as f64).cos() + 0.1).collect();
    for _ in 0..STEPS {
        let mut next = vec![0.0; width];
        for row in rows {
            let along = dot(row, &direction);
            let pairs = next.iter_mut().zip(row);
            pairs.for_each(|(next, value)| *next += along * value);
        }
        let norm = dot(&next, &next).sqrt().max(f64::MIN_POSITIVE);
        direction = next.into_iter().map(|value| value / norm).collect();
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_the_directions_of_the_largest_variance() {
        // An ellipse with the axes 5 and 2 in a plane, with an offset.
        let rows: Vec<Vec<f32>> = (0..100)
            .map(|n| {
                let turn = std::f32::consts::TAU * n as f32 / 100.0;
                let (long, short) = (5.0 * turn.cos(), 2.0 * turn.sin());
                vec![7.0 + 0.6 * long, 3.0, 0.8 * long - 1.0, short]
            })
            .collect();
        let (points, shares) = project(&rows);
        for (n, point) in points.iter().enumerate() {
            let turn = std::f64::consts::TAU * n as f64 / 100.0;
            assert!((point[0].abs() - 5.0 * turn.cos().abs()).abs() < 1e-3);
            assert!((point[1].abs() - 2.0 * turn.sin().abs()).abs() < 1e-3);
        }
        assert!(
            (shares[0] - 25.0 / 29.0).abs() < 1e-6 && (shares[0] + shares[1] - 1.0).abs() < 1e-6
        );
    }
}
