//! A delay line.

/// Audio thread: delays a stream of values by a fixed number of samples.
#[derive(Debug)]
pub struct Delay<T> {
    values: Vec<T>,
    next: usize,
    /// Values pushed since the reset, up to the length of the line. Older memory is not read.
    filled: usize,
}

impl<T: Copy + Default> Delay<T> {
    /// Creates a line of `samples` values. Allocates; all other methods are real-time safe.
    pub fn new(samples: usize) -> Self {
        Self {
            values: vec![T::default(); samples],
            next: 0,
            filled: 0,
        }
    }

    /// Clears the line, in constant time.
    pub fn reset(&mut self) {
        self.filled = 0;
    }

    /// Pushes `value` and returns the value from [`Self::samples`] pushes ago, or the default if there was none.
    pub fn push(&mut self, value: T) -> T {
        if self.values.is_empty() {
            return value;
        }
        let oldest = std::mem::replace(&mut self.values[self.next], value);
        self.next += 1;
        if self.next == self.values.len() {
            self.next = 0;
        }
        if self.filled < self.values.len() {
            self.filled += 1;
            return T::default();
        }
        oldest
    }

    /// The delay in samples.
    pub fn samples(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_by_its_length_and_forgets_on_reset() {
        let mut delay = Delay::new(3);
        let out: Vec<i32> = (1..=6).map(|value| delay.push(value)).collect();
        assert_eq!(out, [0, 0, 0, 1, 2, 3]);
        delay.reset();
        let out: Vec<i32> = (7..=11).map(|value| delay.push(value)).collect();
        assert_eq!(out, [0, 0, 0, 7, 8]);
    }

    #[test]
    fn no_length_is_no_delay() {
        assert_eq!(Delay::new(0).push(5), 5);
    }
}
