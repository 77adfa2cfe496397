//! Work on several threads.

use crate::failure::Failure;

/// Works on each item on a thread of its own; returns their results in the order of the items.
pub(crate) fn concurrently<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<T, Failure>>| {
            thread.join().map_err(|_| Failure::Wrong("a thread panicked".to_owned()))?
        };
        running.into_iter().map(join).collect()
    })
}
