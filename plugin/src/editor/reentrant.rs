//! A value for callbacks that may be re-entered.
//!
//! A window or host may answer a request with the next callback before the request returns: on Windows and macOS, a
//! resize request triggers the resize callback at once.

use std::cell::RefCell;
use std::collections::VecDeque;

type Work<T> = Box<dyn FnOnce(&mut T)>;

/// A value that only one callback at a time can use.
pub struct Reentrant<T> {
    value: RefCell<T>,
    waiting: RefCell<VecDeque<Work<T>>>,
}

impl<T> Reentrant<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self {
            value: RefCell::new(value),
            waiting: RefCell::default(),
        }
    }

    /// Runs `work` on the value. Does nothing if another callback is using it.
    pub fn try_with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let result = work(&mut *self.value.try_borrow_mut().ok()?);
        self.catch_up();
        Some(result)
    }

    /// Runs `work` on the value now, or as soon as the callback that is using it has finished.
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
