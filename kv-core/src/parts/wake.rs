#[cfg(all(test, loom))]
use loom::sync::{
    Condvar, Mutex,
    atomic::{AtomicBool, Ordering, fence},
};
use std::sync::PoisonError;
#[cfg(not(all(test, loom)))]
use std::sync::{
    Condvar, Mutex,
    atomic::{AtomicBool, Ordering, fence},
};
use std::time::{Duration, Instant};

/// Wakes a background thread. Any number of wake-ups before the thread looks are one.
///
/// A caller makes its change and *then* [wakes](Self::wake). The thread takes the wake-up, by
/// [`wait`](Self::wait) or [`take`](Self::take), and *then* looks. So no change is lost: the thread
/// sees it, or is woken once more. Where a wake-up is waiting already, another one costs a fence
/// and a load, and writes to no memory.
///
/// ```
/// use kv_core::parts::Wake;
/// use std::time::Duration;
///
/// let wake = Wake::default();
/// wake.wake();
/// wake.wake();
/// assert!(wake.wait(None)); // returns at once
/// assert!(!wake.wait(Some(Duration::from_millis(1)))); // the two were one
/// assert!(!wake.take());
/// ```
#[derive(Debug)]
pub struct Wake {
    is_woken: AtomicBool,
    /// Whether the thread sleeps, or is about to. Guards nothing else.
    is_asleep: Mutex<bool>,
    woken: Condvar,
}

/// No wake-up is waiting.
impl Default for Wake {
    fn default() -> Self {
        Wake { is_woken: AtomicBool::new(false), is_asleep: Mutex::new(false), woken: Condvar::new() }
    }
}

impl Wake {
    /// Wakes the thread, now or when it waits next.
    #[inline]
    pub fn wake(&self) {
        // Pairs with the fence in `take`. Of two threads that write, fence and then read the
        // other's write, at least one sees it: the thread sees the caller's change, or the caller
        // sees that the wake-up was taken.
        fence(Ordering::SeqCst);
        if !self.is_woken.load(Ordering::Relaxed) {
            self.wake_up();
        }
    }

    #[cold]
    fn wake_up(&self) {
        // Release pairs with the Acquire in `take`: the caller's change is visible to the thread.
        if self.is_woken.swap(true, Ordering::Release) {
            return;
        }
        let is_asleep = self.is_asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_asleep {
            self.woken.notify_one();
        }
    }

    /// Takes the wake-up that is waiting; returns whether there was one.
    pub fn take(&self) -> bool {
        let was_woken = self.is_woken.swap(false, Ordering::Acquire);
        fence(Ordering::SeqCst);
        was_woken
    }

    /// Waits until the thread is woken, or for `timeout`, and takes the wake-up. Returns whether
    /// there was one. One thread at a time waits.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        if self.take() {
            return true;
        }
        let start = Instant::now();
        let mut is_asleep = self.is_asleep.lock().unwrap_or_else(PoisonError::into_inner);
        *is_asleep = true;
        // A waker sets `is_woken` before it takes the lock. So it finds the thread asleep, or the
        // thread finds itself woken here.
        let was_woken = loop {
            if self.take() {
                break true;
            }
            let Some(timeout) = timeout else {
                is_asleep = self.woken.wait(is_asleep).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let rest = timeout.saturating_sub(start.elapsed());
            if rest.is_zero() {
                break false;
            }
            is_asleep = self.woken.wait_timeout(is_asleep, rest).unwrap_or_else(PoisonError::into_inner).0;
        };
        *is_asleep = false;
        was_woken
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    #[test]
    fn wake_ups_before_a_look_are_one() {
        let wake = Wake::default();
        assert!(!wake.take() && !wake.wait(Some(Duration::ZERO)));
        wake.wake();
        wake.wake();
        assert!(wake.take() && !wake.take());
        wake.wake();
        assert!(wake.wait(Some(Duration::ZERO)) && !wake.wait(Some(Duration::from_millis(2))));
    }

    #[test]
    fn a_sleeping_thread_sees_every_change_that_was_followed_by_a_wake_up() {
        const CHANGES: u32 = 20_000;
        let (wake, changes) = (Wake::default(), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..CHANGES {
                        changes.fetch_add(1, Ordering::Relaxed);
                        wake.wake();
                    }
                });
            }
            while changes.load(Ordering::Relaxed) < 2 * CHANGES {
                assert!(wake.wait(Some(Duration::from_mins(1))), "a lost wake-up");
            }
        });
    }
}

/// Every order of steps, and every value that the memory model lets a load see:
/// `RUSTFLAGS="--cfg loom" cargo test -p kv-core --release --lib model`.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    /// Wakers with one change each, and a thread that waits until it saw all changes. A lost
    /// wake-up lets it sleep forever, which loom reports.
    fn wake_for_changes(wakers: usize) {
        let shared = Arc::new((Wake::default(), [(); 2].map(|()| AtomicU64::new(0))));
        let threads: Vec<_> = (0..wakers)
            .map(|waker| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    // A single waker makes all changes.
                    for change in shared.1.iter().skip(waker).step_by(wakers) {
                        change.store(1, Ordering::Relaxed);
                        shared.0.wake();
                    }
                })
            })
            .collect();
        while shared.1.iter().any(|change| change.load(Ordering::Relaxed) == 0) {
            shared.0.wait(None);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn the_thread_sees_every_change_that_was_followed_by_a_wake_up() {
        loom::model(|| wake_for_changes(1));
    }

    /// All orders with up to two preemptions: all of them are too many.
    #[test]
    fn two_wakers_lose_no_wake_up() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| wake_for_changes(2));
    }
}
