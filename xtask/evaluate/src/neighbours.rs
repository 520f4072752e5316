//! Classification by the nearest neighbours, which says what features tell without any training.

/// Neighbours that vote.
const NEIGHBOURS: usize = 5;

/// Features with their classes.
#[derive(Clone, Debug, Default)]
pub struct Neighbours<'a> {
    examples: Vec<(&'a [f32], usize)>,
}

impl<'a> Neighbours<'a> {
    /// From features of one width, with their classes.
    pub fn new(examples: impl IntoIterator<Item = (&'a [f32], usize)>) -> Self {
        Self {
            examples: examples.into_iter().collect(),
        }
    }

    /// The most frequent class among the five nearest examples, of several the one with the nearest. `None` without examples.
    pub fn class(&self, features: &[f32]) -> Option<usize> {
        self.class_without(features, None)
    }

    /// The same without the example with an index, for the classification of the examples themselves.
    pub fn class_without(&self, features: &[f32], left_out: Option<usize>) -> Option<usize> {
        let examples = self.examples.iter().enumerate();
        let examples = examples.filter(|(index, _)| Some(*index) != left_out);
        let mut distances: Vec<(f32, usize)> = examples
            .map(|(_, (example, class))| (squared_distance(example, features), *class))
            .collect();
        let count = NEIGHBOURS.min(distances.len());
        if count == 0 {
            return None;
        }
        distances.select_nth_unstable_by(count - 1, |a, b| a.0.total_cmp(&b.0));
        let nearest = &mut distances[..count];
        nearest.sort_by(|a, b| a.0.total_cmp(&b.0));
        let votes = |class: usize| nearest.iter().filter(|(_, other)| *other == class).count();
        // The last of equal ones wins, so the nearest comes last.
        let classes = nearest.iter().rev().map(|(_, class)| *class);
        classes.max_by_key(|class| votes(*class))
    }

    /// The accuracy of guessing as often as the examples have each class, for tests with these classes.
    pub fn chance(&self, tests: &[usize]) -> f64 {
        let share = |class: usize| {
            let same = self.examples.iter().filter(|(_, other)| *other == class);
            same.count() as f64 / self.examples.len().max(1) as f64
        };
        tests.iter().map(|class| share(*class)).sum::<f64>() / tests.len().max(1) as f64
    }
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_of_the_nearest_five_wins() {
        let places = [0.0, 0.1, 0.2, 1.0, 1.1, 1.2, 1.3, 9.0];
        let classes = [7, 7, 7, 3, 3, 3, 3, 5];
        let places: Vec<[f32; 1]> = places.map(|place| [place]).into();
        let examples = places.iter().map(|place| &place[..]).zip(classes);
        let neighbours = Neighbours::new(examples);
        for (place, class) in [(0.0, 7), (0.5, 7), (0.8, 3), (1.2, 3), (20.0, 3)] {
            assert_eq!(neighbours.class(&[place]), Some(class), "{place}");
        }
        // Without the example itself, four of class 3 outvote two of class 7.
        assert_eq!(neighbours.class_without(&[0.2], Some(2)), Some(3));
        assert_eq!(Neighbours::default().class(&[0.0]), None);
        assert_eq!(
            neighbours.chance(&[3, 3, 5, 7]),
            (0.5 + 0.5 + 0.125 + 0.375) / 4.0
        );
    }

    #[test]
    fn equal_votes_go_to_the_nearest() {
        let places = [[0.0f32], [1.0], [2.0], [3.0]];
        let neighbours = Neighbours::new(places.iter().map(|p| &p[..]).zip([1, 2, 2, 1]));
        assert_eq!(neighbours.class(&[-1.0]), Some(1));
        assert_eq!(neighbours.class(&[1.6]), Some(2));
    }
}
