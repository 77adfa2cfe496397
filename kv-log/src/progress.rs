use crossbeam_utils::CachePadded;
use kv_core::{Clock, Lsn, Pending, Stats};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::sync::change;

/// How far the log is visible, written and durable.
///
/// The visible side moves under the commit lock, the durable side under the leadership of a flush.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    visible: CachePadded<Visible>,
    durable: CachePadded<Reach>,
    /// Bytes of changes that were handed to the operating system.
    written_bytes: AtomicU64,
    /// Whether a change came since the last sync began: then `since_sync_began` is set.
    changed_since_sync_began: AtomicBool,
    /// When the first change came after the last sync began.
    since_sync_began: Mutex<Option<Duration>>,
    /// When the oldest change that is not durable came, nanoseconds; `NONE` if there is none. Changed
    /// with `since_sync_began` locked.
    oldest_ns: AtomicU64,
    last_dump_ns: AtomicU64,
    /// The clock as it was last read for a change, nanoseconds.
    now_ns: AtomicU64,
}

/// What every change writes, side by side.
#[derive(Debug, Default)]
struct Visible {
    reach: Reach,
    pairs: Pairs,
}

/// What is there. Changed under the commit lock only.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) keys: AtomicU64,
    /// Of keys and values.
    pub(crate) bytes: AtomicU64,
}

/// A place in log order.
#[derive(Debug, Default)]
struct Reach {
    lsn: AtomicU64,
    /// Changes since open.
    changes: AtomicU64,
    /// Bytes of their records.
    bytes: AtomicU64,
}

/// A place in log order, as it was at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) lsn: Lsn,
    pub(crate) changes: u64,
    pub(crate) bytes: u64,
}

const NONE: u64 = u64::MAX;

fn to_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NONE - 1)
}

/// Changes between two readings of the clock, at most.
const CHANGES_PER_CLOCK_READING: u64 = 16;

impl Reach {
    fn position(&self) -> Position {
        Position {
            lsn: Lsn::new(self.lsn.load(Ordering::Acquire)),
            changes: self.changes.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// Only one thread at a time moves it.
    fn set(&self, position: Position) {
        self.bytes.store(position.bytes, Ordering::Relaxed);
        self.changes.store(position.changes, Ordering::Relaxed);
        self.lsn.store(position.lsn.get(), Ordering::Release);
    }
}

impl Progress {
    /// Of a store that was just recovered up to `lsn`.
    pub(crate) fn new(lsn: Lsn, pairs: Pairs, now: Duration) -> Self {
        let visible = CachePadded::new(Visible { reach: Reach::default(), pairs });
        let progress = Progress { visible, ..Progress::default() };
        progress.visible.reach.lsn.store(lsn.get(), Ordering::Relaxed);
        progress.durable.lsn.store(lsn.get(), Ordering::Relaxed);
        progress.oldest_ns.store(NONE, Ordering::Relaxed);
        progress.last_dump_ns.store(to_ns(now), Ordering::Relaxed);
        progress
    }

    #[inline]
    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn::new(self.visible.reach.lsn.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.durable.lsn.load(Ordering::Acquire))
    }

    /// A key came to be, or its newest value did: they are so long together. Under the commit lock.
    #[inline]
    pub(crate) fn add_pair(&self, len: usize) {
        change(&self.visible.pairs.keys, |keys| keys + 1);
        change(&self.visible.pairs.bytes, |bytes| bytes + len as u64);
    }

    /// A key went, or one of its values did. Under the commit lock.
    #[inline]
    pub(crate) fn remove_pair(&self, len: usize) {
        change(&self.visible.pairs.keys, |keys| keys - 1);
        change(&self.visible.pairs.bytes, |bytes| bytes - len as u64);
    }

    /// Counts a change. Under the commit lock.
    #[inline]
    pub(crate) fn committed(&self, lsn: Lsn, len: u64, clock: &dyn Clock) {
        let before = self.visible.reach.position();
        self.visible.reach.set(Position { lsn, changes: before.changes + 1, bytes: before.bytes + len });
        if !self.changed_since_sync_began.load(Ordering::Relaxed) {
            let now = clock.monotonic();
            let mut since_sync_began = self.since_sync_began.lock();
            *since_sync_began = Some(now);
            if self.oldest_ns.load(Ordering::Relaxed) == NONE {
                self.oldest_ns.store(to_ns(now), Ordering::Relaxed);
            }
            self.changed_since_sync_began.store(true, Ordering::Relaxed);
        }
    }

    /// A flush takes stock; `to_sync` when it will end in a sync. Under the commit lock.
    pub(crate) fn begin_dump(&self, to_sync: bool) -> Position {
        if to_sync {
            *self.since_sync_began.lock() = None;
            self.changed_since_sync_began.store(false, Ordering::Relaxed);
        }
        self.visible.reach.position()
    }

    /// Everything up to `position` was written.
    pub(crate) fn written(&self, position: Position, now: Duration) {
        self.written_bytes.store(position.bytes, Ordering::Release);
        self.last_dump_ns.store(to_ns(now), Ordering::Relaxed);
    }

    /// Everything up to `position` was written and synced.
    pub(crate) fn synced(&self, position: Position, now: Duration) {
        self.durable.set(position);
        self.last_dump_ns.store(to_ns(now), Ordering::Relaxed);
        let since_sync_began = self.since_sync_began.lock();
        self.oldest_ns.store(since_sync_began.map_or(NONE, to_ns), Ordering::Relaxed);
    }

    /// Bytes of changes that are in memory only.
    #[inline]
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        let written = self.written_bytes.load(Ordering::Acquire);
        self.visible.reach.bytes.load(Ordering::Relaxed).saturating_sub(written)
    }

    /// What a policy sees at the time `now`.
    pub(crate) fn pending(&self, now: Duration) -> Pending {
        let durable = self.durable.position();
        let visible = self.visible.reach.position();
        let age = |ns: u64| now.saturating_sub(Duration::from_nanos(ns));
        Pending {
            bytes: visible.bytes.saturating_sub(durable.bytes),
            records: visible.changes.saturating_sub(durable.changes),
            oldest_age: age(self.oldest_ns.load(Ordering::Relaxed)),
            since_last_dump: age(self.last_dump_ns.load(Ordering::Relaxed)),
        }
    }

    /// The time, at most a few changes old.
    pub(crate) fn recent_time(&self, clock: &dyn Clock) -> Duration {
        let changes = self.visible.reach.changes.load(Ordering::Relaxed);
        if changes.is_multiple_of(CHANGES_PER_CLOCK_READING) {
            let now = clock.monotonic();
            self.now_ns.store(to_ns(now), Ordering::Relaxed);
            return now;
        }
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        // Before the visible side, which it never passes.
        stats.durable_lsn = self.durable_lsn();
        stats.last_lsn = self.last_lsn();
        stats.changes = self.visible.reach.changes.load(Ordering::Relaxed);
        stats.keys = self.visible.pairs.keys.load(Ordering::Relaxed);
        stats.live_bytes = self.visible.pairs.bytes.load(Ordering::Relaxed);
        stats.unflushed_bytes = self.unflushed_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::ManualClock;

    #[test]
    fn the_oldest_pending_change_dates_from_after_the_last_sync_began() {
        let clock = ManualClock::new(0);
        let progress = Progress::new(Lsn::new(70), Pairs::default(), Duration::ZERO);
        let second = Duration::from_secs(1);
        assert_eq!(progress.pending(clock.monotonic()), Pending::default());
        progress.committed(Lsn::new(91), 10, &clock);
        clock.advance(second);
        progress.committed(Lsn::new(92), 10, &clock);
        let position = progress.begin_dump(true);
        clock.advance(second);
        progress.committed(Lsn::new(93), 5, &clock);
        let pending = progress.pending(clock.monotonic());
        assert_eq!((pending.bytes, pending.records, pending.oldest_age), (25, 3, 2 * second));
        assert_eq!(progress.durable_lsn(), Lsn::new(70));

        clock.advance(second);
        progress.written(position, clock.monotonic());
        assert_eq!(progress.unflushed_bytes(), 5);
        progress.synced(position, clock.monotonic());
        clock.advance(second);
        let pending = progress.pending(clock.monotonic());
        assert_eq!((pending.bytes, pending.records), (5, 1));
        assert_eq!((pending.oldest_age, pending.since_last_dump), (2 * second, second));
        assert_eq!((progress.durable_lsn(), progress.last_lsn()), (Lsn::new(92), Lsn::new(93)));

        let position = progress.begin_dump(true);
        progress.synced(position, clock.monotonic());
        assert_eq!(progress.pending(clock.monotonic()).oldest_age, Duration::ZERO);
    }
}
