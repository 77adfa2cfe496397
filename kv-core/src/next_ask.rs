use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

/// When a background worker will ask a policy again by itself, so that a writer knows whether to wake it. A part that
/// engines share.
///
/// The worker says that it is [`asking`](Self::asking), *then* looks at what is pending, and then says until when it is
/// [`asleep`](Self::asleep_until), or that it is [`at_work`](Self::at_work). A writer makes its change, and *then* looks
/// whether the worker [`asks_by`](Self::asks_by) the time that the policy wants. So no wake-up is lost: the worker sees
/// the change, or the writer sees that it must be woken, however the change itself was published.
///
/// ```
/// use kv_core::NextAsk;
/// use std::time::Duration;
///
/// let (next, second) = (NextAsk::default(), Duration::from_secs(1));
/// next.asking();
/// assert!(!next.asks_by(second), "whoever comes now has to wake the worker");
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
    /// The worker is about to look at what is pending: changes from now on may escape it.
    pub fn asking(&self) {
        self.at_ns.store(NEVER, Ordering::Relaxed);
        // Before the worker's look; its counterpart is in `asks_by`. Of two threads that store, fence and then load
        // what the other stored, at least one sees it.
        fence(Ordering::SeqCst);
    }

    /// The worker does what the policy said, and asks as soon as it is done.
    pub fn at_work(&self) {
        self.at_ns.store(0, Ordering::Relaxed);
    }

    /// The worker asks at this time; with `None` only when it is woken.
    pub fn asleep_until(&self, time: Option<Duration>) {
        let at_ns = time.map_or(NEVER, |time| u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1));
        self.at_ns.store(at_ns, Ordering::Relaxed);
    }

    /// Whether the worker asks at `time` or before, without being woken. For a writer, after its change.
    #[inline]
    pub fn asks_by(&self, time: Duration) -> bool {
        fence(Ordering::SeqCst);
        u128::from(self.at_ns.load(Ordering::Relaxed)) <= time.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn the_worker_sees_the_change_or_the_writer_sees_that_it_sleeps() {
        const ROUNDS: usize = 20_000;
        let changes: Vec<AtomicU64> = (0..ROUNDS).map(|_| AtomicU64::new(0)).collect();
        let nexts: Vec<NextAsk> = (0..ROUNDS).map(|_| NextAsk::default()).collect();
        // As after a first sleep: whoever does not see the worker ask takes it for one that will.
        nexts.iter().for_each(NextAsk::at_work);
        let start = Barrier::new(2);
        let (seen, woken) = std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                start.wait();
                let look = |(next, change): (&NextAsk, &AtomicU64)| {
                    next.asking();
                    let seen = change.load(Ordering::Relaxed) == 1;
                    next.asleep_until(None);
                    seen
                };
                nexts.iter().zip(&changes).map(look).collect::<Vec<bool>>()
            });
            let writer = scope.spawn(|| {
                start.wait();
                let write = |(next, change): (&NextAsk, &AtomicU64)| {
                    change.store(1, Ordering::Relaxed);
                    !next.asks_by(Duration::ZERO)
                };
                nexts.iter().zip(&changes).map(write).collect::<Vec<bool>>()
            });
            (worker.join().unwrap(), writer.join().unwrap())
        });
        let lost = seen.iter().zip(&woken).position(|(seen, woken)| !seen && !woken);
        assert_eq!(lost, None, "neither saw the other");
    }

    #[test]
    fn times_beyond_counting_are_not_never() {
        let next = NextAsk::default();
        assert!(!next.asks_by(Duration::from_secs(1 << 33)));
        next.asleep_until(Some(Duration::MAX));
        assert!(next.asks_by(Duration::MAX) && !next.asks_by(Duration::from_secs(1 << 33)));
    }
}
