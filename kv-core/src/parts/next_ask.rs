#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

/// When a background worker will ask a policy again by itself, so that a writer knows whether to
/// wake it. A part that engines share.
///
/// The worker says that it is [`asking`](Self::asking), *then* looks at the pending changes, and
/// then says until when it is [`asleep`](Self::asleep_until), or that it is
/// [`at_work`](Self::at_work). A writer makes its change, and *then* looks whether the worker
/// [`asks_by`](Self::asks_by) the time that the policy wants. So no wake-up is lost: the worker
/// sees the change, or the writer sees that it must be woken, however the change itself was
/// published.
///
/// ```
/// use kv_core::parts::NextAsk;
/// use std::time::Duration;
///
/// let (next, second) = (NextAsk::default(), Duration::from_secs(1));
/// next.asking();
/// assert!(!next.asks_by(second), "a writer that comes now must wake the worker");
/// next.asleep_until(Some(second));
/// assert!(next.asks_by(second) && !next.asks_by(second / 2));
/// next.at_work();
/// assert!(next.asks_by(Duration::ZERO), "when it is done, it asks");
/// ```
#[derive(Debug)]
pub struct NextAsk {
    /// Nanoseconds of the monotonic clock.
    at_ns: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// The worker asks only when it is woken.
impl Default for NextAsk {
    fn default() -> Self {
        NextAsk { at_ns: AtomicU64::new(NEVER) }
    }
}

impl NextAsk {
    /// The worker is about to look at the pending changes: later changes may escape it.
    pub fn asking(&self) {
        self.at_ns.store(NEVER, Ordering::Relaxed);
        // Before the worker's look; its counterpart is in `asks_by`. Of two threads that store,
        // fence and then load the other's store, at least one sees it.
        fence(Ordering::SeqCst);
    }

    /// The worker carries out the decision, and asks again as soon as it is done.
    pub fn at_work(&self) {
        self.at_ns.store(0, Ordering::Relaxed);
    }

    /// The worker asks at this time; with `None` only when it is woken.
    pub fn asleep_until(&self, time: Option<Duration>) {
        let at_ns = time.map_or(NEVER, |time| u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1));
        self.at_ns.store(at_ns, Ordering::Relaxed);
    }

    /// Whether the worker asks at `time` or before, without being woken. For a writer, after its
    /// change.
    #[inline]
    pub fn asks_by(&self, time: Duration) -> bool {
        fence(Ordering::SeqCst);
        u128::from(self.at_ns.load(Ordering::Relaxed)) <= time.as_nanos()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn times_beyond_counting_are_not_never() {
        let next = NextAsk::default();
        assert!(!next.asks_by(Duration::from_secs(1 << 33)));
        next.asleep_until(Some(Duration::MAX));
        assert!(next.asks_by(Duration::MAX) && !next.asks_by(Duration::from_secs(1 << 33)));
    }
}

/// Every order of steps, and every value that the memory model lets a load see:
/// `RUSTFLAGS="--cfg loom" cargo test -p kv-core --release --lib model`.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn the_worker_sees_the_change_or_the_writer_sees_that_it_must_wake_it() {
        loom::model(|| {
            let shared = Arc::new((NextAsk::default(), AtomicU64::new(0)));
            // As after work: a writer that does not see the worker ask expects it to ask.
            shared.0.at_work();
            let of_writer = Arc::clone(&shared);
            let writer = thread::spawn(move || {
                of_writer.1.store(1, Ordering::Relaxed);
                !of_writer.0.asks_by(Duration::ZERO)
            });
            shared.0.asking();
            let seen = shared.1.load(Ordering::Relaxed) == 1;
            shared.0.asleep_until(None);
            let woken = writer.join().unwrap();
            assert!(seen || woken, "a lost wake-up");
        });
    }
}
