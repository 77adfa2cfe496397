//! How far changes are durable, and since when others wait: what a policy is asked about.
//!
//! The durable side moves under the leadership of a snapshot. Numbers read while it moves may belong to
//! different snapshots; they only feed the policy, which is asked again.

use kv_core::{Clock, Lsn, Pending};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::table::Position;

#[derive(Debug)]
pub(crate) struct Progress {
    durable_lsn: AtomicU64,
    /// Changes since open that are durable, and their bytes.
    durable_changes: AtomicU64,
    durable_bytes: AtomicU64,
    /// Whether `since_cut` is set: all that a change looks at, as a rule.
    changed_since_cut: AtomicBool,
    /// When the first change came after the last cut began.
    since_cut: Mutex<Option<Duration>>,
    /// When the oldest change that is not durable came, nanoseconds, or `NONE`. Changed with `since_cut`
    /// locked.
    oldest_ns: AtomicU64,
    last_snapshot_ns: AtomicU64,
    /// The clock as it was last read for a change, nanoseconds.
    now_ns: AtomicU64,
}

const NONE: u64 = u64::MAX;

/// Changes between two readings of the clock, at most.
const CHANGES_PER_CLOCK_READING: u64 = 16;

fn to_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NONE - 1)
}

impl Progress {
    /// Of a store that was recovered as of `lsn`.
    pub(crate) fn new(lsn: Lsn, now: Duration) -> Self {
        Progress {
            durable_lsn: AtomicU64::new(lsn.get()),
            durable_changes: AtomicU64::new(0),
            durable_bytes: AtomicU64::new(0),
            changed_since_cut: AtomicBool::new(false),
            since_cut: Mutex::new(None),
            oldest_ns: AtomicU64::new(NONE),
            last_snapshot_ns: AtomicU64::new(to_ns(now)),
            now_ns: AtomicU64::new(to_ns(now)),
        }
    }

    #[inline]
    pub(crate) fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.durable_lsn.load(Ordering::Acquire))
    }

    /// Notes a change, which is visible already.
    #[inline]
    pub(crate) fn changed(&self, clock: &dyn Clock) {
        if !self.changed_since_cut.load(Ordering::Acquire) {
            self.first_change(clock);
        }
    }

    #[cold]
    fn first_change(&self, clock: &dyn Clock) {
        let now = clock.monotonic();
        let mut since_cut = self.since_cut.lock();
        if since_cut.is_none() {
            *since_cut = Some(now);
            if self.oldest_ns.load(Ordering::Relaxed) == NONE {
                self.oldest_ns.store(to_ns(now), Ordering::Relaxed);
            }
            self.changed_since_cut.store(true, Ordering::Release);
        }
        self.now_ns.fetch_max(to_ns(now), Ordering::Relaxed);
    }

    /// A cut is about to begin. A change that is noted after this and lies in the cut makes those after it
    /// look a little older than they are.
    pub(crate) fn before_cut(&self) {
        let mut since_cut = self.since_cut.lock();
        *since_cut = None;
        self.changed_since_cut.store(false, Ordering::Release);
    }

    /// Everything up to `position`, where the cut was, is durable.
    pub(crate) fn became_durable(&self, position: Position, now: Duration) {
        self.durable_bytes.store(position.bytes, Ordering::Relaxed);
        self.durable_changes.store(position.changes, Ordering::Relaxed);
        self.last_snapshot_ns.store(to_ns(now), Ordering::Relaxed);
        self.durable_lsn.store(position.lsn.get(), Ordering::Release);
        let since_cut = self.since_cut.lock();
        self.oldest_ns.store(since_cut.map_or(NONE, to_ns), Ordering::Relaxed);
    }

    /// What waits, when the table is at `position` and the time is `now`.
    #[inline]
    pub(crate) fn pending(&self, position: Position, now: Duration) -> Pending {
        let since = |then_ns: u64| Duration::from_nanos(to_ns(now).saturating_sub(then_ns));
        Pending {
            bytes: position.bytes.saturating_sub(self.durable_bytes.load(Ordering::Relaxed)),
            records: position.changes.saturating_sub(self.durable_changes.load(Ordering::Relaxed)),
            oldest_age: since(self.oldest_ns.load(Ordering::Relaxed)),
            since_last_dump: since(self.last_snapshot_ns.load(Ordering::Relaxed)),
        }
    }

    /// The time, as of at most some changes ago: reading the clock would cost a put a good part of its
    /// time. What a policy decides by time alone, the worker asks with the exact one.
    #[inline]
    pub(crate) fn recent_time(&self, position: Position, clock: &dyn Clock) -> Duration {
        if position.changes.is_multiple_of(CHANGES_PER_CLOCK_READING) {
            self.now_ns.fetch_max(to_ns(clock.monotonic()), Ordering::Relaxed);
        }
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::ManualClock;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn at(lsn: u64, changes: u64, bytes: u64) -> Position {
        Position { lsn: Lsn::new(lsn), changes, bytes }
    }

    #[test]
    fn changes_during_a_snapshot_go_on_waiting() {
        let clock = ManualClock::default();
        let progress = Progress::new(Lsn::new(5), MS(0));
        assert_eq!(progress.pending(at(5, 0, 0), MS(9)).records, 0);
        clock.advance(MS(10));
        progress.changed(&clock);
        clock.advance(MS(5));
        progress.changed(&clock);
        let pending = progress.pending(at(7, 2, 30), MS(15));
        let expected = Pending { bytes: 30, records: 2, oldest_age: MS(5), since_last_dump: MS(15) };
        assert_eq!(pending, expected);

        progress.before_cut();
        clock.advance(MS(5));
        progress.changed(&clock);
        assert_eq!(progress.pending(at(8, 3, 40), MS(20)).oldest_age, MS(10));
        progress.became_durable(at(7, 2, 30), MS(30));
        assert_eq!(progress.durable_lsn(), Lsn::new(7));
        let pending = progress.pending(at(8, 3, 40), MS(32));
        let expected = Pending { bytes: 10, records: 1, oldest_age: MS(12), since_last_dump: MS(2) };
        assert_eq!(pending, expected);

        progress.before_cut();
        progress.became_durable(at(8, 3, 40), MS(33));
        let pending = progress.pending(at(8, 3, 40), MS(40));
        assert_eq!((pending.records, pending.oldest_age), (0, MS(0)));
    }

    #[test]
    fn the_clock_is_read_now_and_then() {
        let clock = ManualClock::default();
        let progress = Progress::new(Lsn::ZERO, MS(0));
        clock.advance(MS(10));
        assert_eq!(progress.recent_time(at(1, 1, 1), &clock), MS(0));
        assert_eq!(progress.recent_time(at(16, 16, 1), &clock), MS(10));
        clock.advance(MS(10));
        assert_eq!(progress.recent_time(at(17, 17, 1), &clock), MS(10));
    }
}
