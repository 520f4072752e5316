//! Independent work items on all CPU cores.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;
use graft_material::progress;

/// Maps items with `work`, in order, with a progress bar. Each thread has its own state, made by `prepare`.
///
/// # Errors
///
/// The first error in the order of the items; the other items are still worked on.
pub fn map<T: Sync, S, R: Send>(
    message: &'static str,
    items: &[T],
    prepare: impl Fn() -> Result<S> + Sync,
    work: impl Fn(&mut S, &T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let bar = progress::bar(message, items.len() as u64);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(items.len()))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut state = prepare()?;
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(index) else {
                            return Ok(());
                        };
                        let result = work(&mut state, item);
                        let mut done = done.lock().expect("no thread panics while it holds it");
                        done.push((index, result));
                        bar.inc(1);
                    }
                })
            })
            .collect();
        let mut ends = workers
            .into_iter()
            .map(|worker| worker.join().expect("no worker panics"));
        ends.try_for_each(|end| end)
    })?;
    bar.finish_and_clear();
    let mut done = done.into_inner().expect("all threads have ended");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    #[test]
    fn results_are_in_order_and_the_first_error_counts() {
        let items: Vec<u32> = (0..50).collect();
        let squares = map(
            "Squaring",
            &items,
            || Ok(2),
            |power, item| Ok(item.pow(*power)),
        );
        assert_eq!(squares.unwrap()[7], 49);
        let work = |(): &mut (), item: &u32| {
            ensure!(*item < 20, "{item} is too much");
            Ok(())
        };
        let error = map("Refusing", &items, || Ok(()), work).unwrap_err();
        assert_eq!(error.to_string(), "20 is too much");
        assert!(map("Failing", &items, || anyhow::bail!("no"), work).is_err());
    }
}
