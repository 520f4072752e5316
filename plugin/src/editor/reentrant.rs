//! A value for callbacks that may come while another is at work.
//!
//! What a window or a host is asked for in a callback, it may answer with the next callback before the first returns: on Windows
//! and macOS a window that is to change its size says at once that it did.

use std::cell::RefCell;
use std::collections::VecDeque;

type Work<T> = Box<dyn FnOnce(&mut T)>;

/// A value that one callback at a time works on.
pub struct Reentrant<T> {
    value: RefCell<T>,
    waiting: RefCell<VecDeque<Work<T>>>,
}

impl<T> Reentrant<T> {
    /// Makes it of a value.
    pub fn new(value: T) -> Self {
        Self {
            value: RefCell::new(value),
            waiting: RefCell::default(),
        }
    }

    /// Works on the value; does nothing while another callback does.
    pub fn try_with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let result = work(&mut *self.value.try_borrow_mut().ok()?);
        self.catch_up();
        Some(result)
    }

    /// Works on the value now, or as soon as the callback that does is done.
    pub fn when_free(&self, work: impl FnOnce(&mut T) + 'static) {
        self.waiting.borrow_mut().push_back(Box::new(work));
        self.catch_up();
    }

    fn catch_up(&self) {
        while let Ok(mut value) = self.value.try_borrow_mut() {
            let Some(work) = self.waiting.borrow_mut().pop_front() else {
                break;
            };
            work(&mut value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_between_waits_for_its_turn() {
        let log = Reentrant::new(Vec::new());
        log.when_free(|log| log.push(1));
        let inner = log.try_with(|entries| {
            log.when_free(|log| log.push(3));
            log.when_free(|log| log.push(4));
            entries.push(2);
            log.try_with(|log| log.push(0))
        });
        assert_eq!(inner, Some(None), "only one works at a time");
        assert_eq!(log.try_with(|log| log.clone()), Some(vec![1, 2, 3, 4]));
    }
}
