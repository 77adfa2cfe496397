//! Work on several items at a time, on all processors.

use kv_core::{Background, Result};
use parking_lot::Mutex;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Carries out `work` on all processors, in inline mode on this thread alone. Returns once every
/// thread has finished. The threads share `jobs` jobs, so no more threads than jobs work.
pub(crate) fn on_all_processors(background: Background, jobs: usize, work: impl Fn() + Sync) {
    let workers = match background {
        Background::Threads => thread::available_parallelism().map_or(1, NonZero::get).min(jobs),
        Background::Inline => 1,
    };
    let work = &work;
    thread::scope(|scope| {
        // If the system refuses a thread, fewer threads do the work.
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).is_ok();
        let _all_started = (1..workers).all(start);
        work();
    });
}

/// Carries out both, at the same time unless in inline mode, and returns their results.
pub(crate) fn both<A: Send, B>(
    background: Background,
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B,
) -> (A, B) {
    // If the system refuses a thread, this one does both.
    let one = Mutex::new(Some(one));
    let take = || one.lock().take().map(|one| one());
    thread::scope(|scope| {
        let start = || thread::Builder::new().spawn_scoped(scope, take).ok();
        let thread = if background == Background::Threads { start() } else { None };
        let early = if thread.is_none() { take() } else { None };
        let other = other();
        let late = thread.and_then(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        (early.or(late).expect("one of the threads took it"), other)
    })
}

/// The results of `one` for each of `items`, in their order. Each thread has a state of its own.
///
/// # Errors
/// The first one in the order of the items. After an error, no thread takes another item.
pub(crate) fn each_on_all_processors<I: Sync, S: Default, T: Send>(
    background: Background,
    items: &[I],
    one: impl Fn(&I, &mut S) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        let mut state = S::default();
        loop {
            // Neither publishes other memory: the end of the threads does.
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number).filter(|_| !has_failed.load(Ordering::Relaxed)) else {
                return;
            };
            let result = one(item, &mut state);
            if result.is_err() {
                has_failed.store(true, Ordering::Relaxed);
            }
            results.lock().push((number, result));
        }
    };
    on_all_processors(background, items.len(), work);
    let mut results = results.into_inner();
    results.sort_unstable_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::Error;

    #[test]
    fn both_are_done_in_any_mode() {
        for background in [Background::Threads, Background::Inline] {
            assert_eq!(both(background, || "one".to_owned(), || 2), ("one".to_owned(), 2));
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        // Neither could end alone.
        let (answer, ()) =
            both(Background::Threads, move || receiver.recv(), move || sender.send("now").unwrap());
        assert_eq!(answer, Ok("now"));
    }

    #[test]
    fn results_have_the_order_of_the_items_and_an_error_ends_the_work() {
        for background in [Background::Threads, Background::Inline] {
            let items: Vec<u32> = (0..100).collect();
            let doubled = each_on_all_processors(background, &items, |item, calls: &mut u32| {
                *calls += 1;
                Ok((item * 2, *calls))
            });
            let (doubled, calls): (Vec<u32>, Vec<u32>) = doubled.unwrap().into_iter().unzip();
            assert!(doubled.iter().zip(&items).all(|(doubled, item)| *doubled == item * 2));
            assert!(calls.iter().max() > Some(&1), "a thread keeps its state");
            let begun = AtomicUsize::new(0);
            let failed = each_on_all_processors(background, &items, |item, (): &mut ()| {
                begun.fetch_add(1, Ordering::Relaxed);
                if *item == 3 { Err(Error::ReadOnly) } else { Ok(()) }
            });
            assert!(matches!(failed, Err(Error::ReadOnly)));
            assert!(background == Background::Threads || begun.into_inner() == 4);
        }
    }
}
