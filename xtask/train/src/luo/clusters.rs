//! How well clusters without names fit classes with names.

/// Share of the items that lie in the cluster of their class, when each class gets a cluster of its own such that this share is
/// largest (clustering accuracy).
///
/// `items` holds the cluster and class of each item, both below `count`.
pub fn assigned_accuracy(items: &[(usize, usize)], count: usize) -> f64 {
    let counts = counts(items, count);
    let costs: Vec<f64> = counts.iter().map(|&count| -(count as f64)).collect();
    let matched = cheapest_assignment(&costs, count);
    let right: usize = matched
        .iter()
        .enumerate()
        .map(|(cluster, &class)| counts[cluster * count + class])
        .sum();
    right as f64 / items.len().max(1) as f64
}

/// Share of the items that have the commonest class of their cluster (majority mapping, purity).
pub fn majority_accuracy(items: &[(usize, usize)], count: usize) -> f64 {
    let counts = counts(items, count);
    let most = counts.chunks(count).map(|row| row.iter().max());
    let right: usize = most.flatten().sum();
    right as f64 / items.len().max(1) as f64
}

/// Numbers of items by cluster (rows) and class.
fn counts(items: &[(usize, usize)], count: usize) -> Vec<usize> {
    let mut counts = vec![0; count * count];
    for &(cluster, class) in items {
        counts[cluster * count + class] += 1;
    }
    counts
}

/// The column of each row such that all columns differ and the sum of the costs (rows x columns, as many of both) is least: the
/// Hungarian method with shortest augmenting paths (Jonker and Volgenant, 1987), in cubic time.
fn cheapest_assignment(costs: &[f64], count: usize) -> Vec<usize> {
    // Rows and columns are counted from 1; 0 stands for none.
    let mut row_prices = vec![0.0; count + 1];
    let mut column_prices = vec![0.0; count + 1];
    let mut row_of_column = vec![0; count + 1];
    for row in 1..=count {
        row_of_column[0] = row;
        let mut column = 0;
        let mut distances = vec![f64::INFINITY; count + 1];
        let mut previous = vec![0; count + 1];
        let mut done = vec![false; count + 1];
        // Search the nearest column without a row.
        while row_of_column[column] != 0 {
            done[column] = true;
            let from = row_of_column[column];
            let (mut nearest, mut distance) = (0, f64::INFINITY);
            for next in 1..=count {
                if done[next] {
                    continue;
                }
                let reduced =
                    costs[(from - 1) * count + next - 1] - row_prices[from] - column_prices[next];
                if reduced < distances[next] {
                    distances[next] = reduced;
                    previous[next] = column;
                }
                if distances[next] < distance {
                    distance = distances[next];
                    nearest = next;
                }
            }
            for other in 0..=count {
                if done[other] {
                    row_prices[row_of_column[other]] += distance;
                    column_prices[other] -= distance;
                } else {
                    distances[other] -= distance;
                }
            }
            column = nearest;
        }
        // Swap the rows along the path.
        while column != 0 {
            row_of_column[column] = row_of_column[previous[column]];
            column = previous[column];
        }
    }
    let mut columns = vec![0; count];
    for column in 1..=count {
        columns[row_of_column[column] - 1] = column - 1;
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// The least sum over all assignments, tried one by one.
    fn least_cost(costs: &[f64], count: usize, row: usize, used: &mut Vec<usize>) -> f64 {
        if row == count {
            return 0.0;
        }
        let mut least = f64::INFINITY;
        for column in 0..count {
            if !used.contains(&column) {
                used.push(column);
                let rest = least_cost(costs, count, row + 1, used);
                least = least.min(costs[row * count + column] + rest);
                used.pop();
            }
        }
        least
    }

    #[test]
    fn the_assignment_is_the_cheapest_of_all() {
        let mut random = StdRng::seed_from_u64(1);
        for count in [1, 2, 3, 6] {
            for _ in 0..20 {
                let costs: Vec<f64> = (0..count * count)
                    .map(|_| f64::from(random.random_range(-9..9)))
                    .collect();
                let found = cheapest_assignment(&costs, count);
                let mut columns = found.clone();
                columns.sort_unstable();
                assert!(columns.iter().copied().eq(0..count), "{found:?}");
                let cost = |(row, &column): (usize, &usize)| costs[row * count + column];
                let sum: f64 = found.iter().enumerate().map(cost).sum();
                assert_eq!(sum, least_cost(&costs, count, 0, &mut Vec::new()));
            }
        }
    }

    // Python (scipy): with w[i, j] the number of items in cluster i of class j,
    //   r, c = scipy.optimize.linear_sum_assignment(w.max() - w); w[r, c].sum() / w.sum()
    #[test]
    fn accuracy_counts_items_in_the_cluster_of_their_class() {
        // Cluster 0 holds the classes 1, 1, 2, 2, 2; cluster 1: 2, 2, 2, 2; cluster 2: 0.
        let items = [1, 1, 2, 2, 2].map(|class| (0, class)).into_iter();
        let items = items.chain([2; 4].map(|class| (1, class)));
        let items: Vec<(usize, usize)> = items.chain([(2, 0)]).collect();
        assert_eq!(assigned_accuracy(&items, 3), 0.7);
        assert_eq!(majority_accuracy(&items, 3), 0.8);
        let collapsed: Vec<(usize, usize)> = (0..4).map(|class| (3, class)).collect();
        assert_eq!(assigned_accuracy(&collapsed, 4), 0.25);
        assert_eq!(majority_accuracy(&collapsed, 4), 0.25);
    }
}
