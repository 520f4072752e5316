//! Undo history of the editor.

use crate::params::ParamId;

/// Changes in faster succession are merged, such as the notches of a wheel.
const TOGETHER_SECONDS: f64 = 0.8;

/// How many changes can be undone.
const LONGEST: usize = 200;

/// A change of one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The parameter.
    pub id: ParamId,
    /// The old value.
    pub before: f32,
    /// The new value.
    pub after: f32,
}

/// The undo history.
#[derive(Default)]
pub struct History {
    done: Vec<Vec<Change>>,
    undone: Vec<Vec<Change>>,
    last_seconds: f64,
}

impl History {
    /// Records the changes of one gesture, at a time. Gestures on the same parameters in quick succession are merged.
    pub fn push(&mut self, changes: Vec<Change>, now_seconds: f64) {
        let changes: Vec<_> = changes
            .into_iter()
            .filter(|change| change.before != change.after)
            .collect();
        if changes.is_empty() {
            return;
        }
        self.undone.clear();
        let goes_on = now_seconds - self.last_seconds < TOGETHER_SECONDS;
        self.last_seconds = now_seconds;
        if goes_on
            && let Some(last) = self.done.last_mut()
            && last.len() == changes.len()
            && last.iter().zip(&changes).all(|(a, b)| a.id == b.id)
        {
            for (last, change) in last.iter_mut().zip(changes) {
                last.after = change.after;
            }
            return;
        }
        if self.done.len() == LONGEST {
            self.done.remove(0);
        }
        self.done.push(changes);
    }

    /// Whether there is something to undo.
    pub fn can_undo(&self) -> bool {
        !self.done.is_empty()
    }

    /// Whether there is something to redo.
    pub fn can_redo(&self) -> bool {
        !self.undone.is_empty()
    }

    /// Undoes the last change. Returns the values to set.
    pub fn undo(&mut self) -> Vec<(ParamId, f32)> {
        let Some(changes) = self.done.pop() else {
            return Vec::new();
        };
        let values = changes.iter().map(|change| (change.id, change.before));
        let values = values.collect();
        self.last_seconds = f64::NEG_INFINITY;
        self.undone.push(changes);
        values
    }

    /// Redoes the last undone change. Returns the values to set.
    pub fn redo(&mut self) -> Vec<(ParamId, f32)> {
        let Some(changes) = self.undone.pop() else {
            return Vec::new();
        };
        let values = changes.iter().map(|change| (change.id, change.after));
        let values = values.collect();
        self.last_seconds = f64::NEG_INFINITY;
        self.done.push(changes);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(id: ParamId, before: f32, after: f32) -> Vec<Change> {
        vec![Change { id, before, after }]
    }

    #[test]
    fn undo_and_redo_walk_through_the_changes() {
        let mut history = History::default();
        history.push(change(ParamId::Mix, 1.0, 0.5), 1.0);
        history.push(change(ParamId::Harmony, 0.0, 0.3), 5.0);
        assert_eq!(history.undo(), [(ParamId::Harmony, 0.0)]);
        assert_eq!(history.undo(), [(ParamId::Mix, 1.0)]);
        assert!(!history.can_undo() && history.undo().is_empty());
        assert_eq!(history.redo(), [(ParamId::Mix, 0.5)]);
        history.push(change(ParamId::Rhythm, 1.0, 0.9), 9.0);
        assert!(
            !history.can_redo(),
            "a new change ends what could be redone"
        );
    }

    #[test]
    fn changes_in_quick_succession_are_one() {
        let mut history = History::default();
        for step in 0..5 {
            let at = step as f32 / 10.0;
            history.push(change(ParamId::Mix, at, at + 0.1), 0.1 * f64::from(step));
        }
        history.push(change(ParamId::Harmony, 0.0, 0.1), 0.5);
        assert_eq!(history.undo(), [(ParamId::Harmony, 0.0)]);
        assert_eq!(history.undo(), [(ParamId::Mix, 0.0)]);
        assert!(!history.can_undo());
    }

    #[test]
    fn a_change_soon_after_undo_or_redo_is_one_of_its_own() {
        let mut history = History::default();
        history.push(change(ParamId::Mix, 1.0, 0.5), 1.0);
        history.push(change(ParamId::Harmony, 0.0, 0.3), 1.1);
        history.undo();
        history.push(change(ParamId::Mix, 0.5, 0.4), 1.2);
        assert_eq!(history.undo(), [(ParamId::Mix, 0.5)]);
        history.redo();
        history.push(change(ParamId::Mix, 0.4, 0.3), 1.3);
        assert_eq!(history.undo(), [(ParamId::Mix, 0.4)]);
    }

    #[test]
    fn nothing_that_moved_is_nothing_to_undo() {
        let mut history = History::default();
        history.push(change(ParamId::Mix, 0.5, 0.5), 1.0);
        assert!(!history.can_undo());
    }
}
