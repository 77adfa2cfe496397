//! Runs futures on the caller's thread: as much of an executor as the cases need.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Wakes one future. The executor polls only after a wake, so a lost wake-up shows.
struct Task {
    woken: AtomicBool,
    thread: Thread,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Runs `futures`, each with its own waker, until all are ready; returns the answers in order.
/// `None` when one of them is not woken within `patience`.
pub(crate) fn run_all<F: Future + Unpin>(
    futures: impl IntoIterator<Item = F>,
    patience: Duration,
) -> Option<Vec<F::Output>> {
    struct Running<F: Future> {
        future: F,
        task: Arc<Task>,
        answer: Option<F::Output>,
    }
    let task = || Arc::new(Task { woken: AtomicBool::new(true), thread: thread::current() });
    let mut running: Vec<Running<F>> =
        futures.into_iter().map(|future| Running { future, task: task(), answer: None }).collect();
    let start = Instant::now();
    loop {
        for one in running.iter_mut().filter(|one| one.answer.is_none()) {
            // Acquire pairs with the Release store in `wake`: the poll sees the change that caused
            // the wake.
            if one.task.woken.swap(false, Ordering::Acquire) {
                let waker = Waker::from(Arc::clone(&one.task));
                if let Poll::Ready(answer) = Pin::new(&mut one.future).poll(&mut Context::from_waker(&waker))
                {
                    one.answer = Some(answer);
                }
            }
        }
        if running.iter().all(|one| one.answer.is_some()) {
            return Some(running.into_iter().filter_map(|one| one.answer).collect());
        }
        thread::park_timeout(patience.checked_sub(start.elapsed())?);
    }
}

/// Runs one future. `None` when it is not woken within `patience`.
pub(crate) fn run<F: Future + Unpin>(future: F, patience: Duration) -> Option<F::Output> {
    run_all([future], patience)?.pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, poll_fn, ready};

    #[test]
    fn it_polls_woken_futures_only() {
        assert_eq!(run_all([ready(1), ready(2)], Duration::ZERO), Some(vec![1, 2]));
        assert_eq!(run(pending::<()>(), Duration::from_millis(5)), None);
        let mut polls = 0;
        let forgets = poll_fn(|_| {
            polls += 1;
            Poll::<()>::Pending
        });
        assert_eq!(run(forgets, Duration::from_millis(5)), None);
        assert_eq!(polls, 1);
        let mut polls = 0;
        let wakes = poll_fn(|cx| {
            polls += 1;
            let waker = cx.waker().clone();
            thread::spawn(move || waker.wake());
            if polls == 3 { Poll::Ready(()) } else { Poll::Pending }
        });
        assert_eq!(run(wakes, Duration::from_mins(1)), Some(()));
    }
}
