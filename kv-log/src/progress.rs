use crossbeam_utils::CachePadded;
use kv_core::{Clock, Lsn, Pending, Stats};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A place in log order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lsn: Lsn,
    /// Bytes of the records of changes since the store was opened.
    pub(crate) bytes: u64,
}

/// How far the log is written and durable. [`LogEnd`](crate::log::LogEnd) holds how far it is visible.
///
/// The leader of a flush moves it. Only the arrival times of changes move under the commit lock.
#[derive(Debug)]
pub(crate) struct Progress {
    /// LSNs up to this one belong to earlier openings. Above it, LSNs have no gaps.
    lsn_floor: Lsn,
    durable_lsn: AtomicU64,
    /// Bytes of changes that are durable.
    durable_bytes: AtomicU64,
    /// Bytes of changes that were written to files.
    written_bytes: AtomicU64,
    /// Whether `since_sync_began` is set. Every change reads it.
    changed_since_sync_began: AtomicBool,
    /// When the first change after the begin of the last sync was made.
    since_sync_began: Mutex<Option<Duration>>,
    /// When the oldest change that is not durable was made, nanoseconds, or `NONE`. Changed with
    /// `since_sync_began` locked.
    oldest_ns: AtomicU64,
    last_dump_ns: AtomicU64,
    /// The last reading of the clock for a change, nanoseconds. It has a cache line of its own,
    /// because every change reads the fields beside it.
    now_ns: CachePadded<AtomicU64>,
}

const NONE: u64 = u64::MAX;

fn to_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NONE - 1)
}

/// Changes between two readings of the clock, at most.
const CHANGES_PER_CLOCK_READING: u64 = 16;

impl Progress {
    /// Of a store that was recovered up to `lsn`. New changes have LSNs above `lsn_floor`.
    pub(crate) fn new(lsn: Lsn, lsn_floor: Lsn, now: Duration) -> Self {
        Progress {
            lsn_floor,
            durable_lsn: lsn.get().into(),
            durable_bytes: 0.into(),
            written_bytes: 0.into(),
            changed_since_sync_began: false.into(),
            since_sync_began: Mutex::new(None),
            oldest_ns: NONE.into(),
            last_dump_ns: to_ns(now).into(),
            now_ns: CachePadded::default(),
        }
    }

    #[inline]
    pub(crate) fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.durable_lsn.load(Ordering::Acquire))
    }

    /// Number of changes since the store was opened, up to the one with this LSN.
    #[inline]
    fn changes(&self, lsn: Lsn) -> u64 {
        lsn.get().saturating_sub(self.lsn_floor.get())
    }

    /// Notes a change. The caller holds the commit lock.
    #[inline]
    pub(crate) fn changed(&self, clock: &dyn Clock) {
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

    /// Notes that a flush with a sync begins. The caller holds the commit lock.
    pub(crate) fn begin_sync(&self) {
        *self.since_sync_began.lock() = None;
        self.changed_since_sync_began.store(false, Ordering::Relaxed);
    }

    /// Notes that everything up to `position` is written.
    pub(crate) fn written(&self, position: Position, now: Duration) {
        self.written_bytes.store(position.bytes, Ordering::Release);
        self.last_dump_ns.store(to_ns(now), Ordering::Relaxed);
    }

    /// Notes that everything up to `position` is written and synced.
    pub(crate) fn synced(&self, position: Position, now: Duration) {
        self.durable_bytes.store(position.bytes, Ordering::Relaxed);
        self.durable_lsn.store(position.lsn.get(), Ordering::Release);
        self.last_dump_ns.store(to_ns(now), Ordering::Relaxed);
        let since_sync_began = self.since_sync_began.lock();
        self.oldest_ns.store(since_sync_began.map_or(NONE, to_ns), Ordering::Relaxed);
    }

    /// Bytes of changes that are in memory only, if the log ends at `end`.
    #[inline]
    pub(crate) fn unflushed_bytes(&self, end: Position) -> u64 {
        end.bytes.saturating_sub(self.written_bytes.load(Ordering::Acquire))
    }

    /// What a policy sees at the time `now`, if the log ends at `end`.
    pub(crate) fn pending(&self, end: Position, now: Duration) -> Pending {
        let durable_lsn = self.durable_lsn();
        let age = |ns: u64| now.saturating_sub(Duration::from_nanos(ns));
        Pending {
            bytes: end.bytes.saturating_sub(self.durable_bytes.load(Ordering::Relaxed)),
            records: self.changes(end.lsn).saturating_sub(self.changes(durable_lsn)),
            oldest_age: age(self.oldest_ns.load(Ordering::Relaxed)),
            since_last_dump: age(self.last_dump_ns.load(Ordering::Relaxed)),
        }
    }

    /// The time as of a few changes ago at most. The newest change has this LSN.
    pub(crate) fn recent_time(&self, lsn: Lsn, clock: &dyn Clock) -> Duration {
        if self.changes(lsn).is_multiple_of(CHANGES_PER_CLOCK_READING) {
            let now = clock.monotonic();
            self.now_ns.store(to_ns(now), Ordering::Relaxed);
            return now;
        }
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    /// Fills in the LSNs and counts. The caller read `durable_lsn` before `end`, so it is not above it.
    pub(crate) fn fill(&self, stats: &mut Stats, durable_lsn: Lsn, end: Position) {
        stats.durable_lsn = durable_lsn;
        stats.last_lsn = end.lsn;
        stats.changes = self.changes(end.lsn);
        stats.unflushed_bytes = self.unflushed_bytes(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::ManualClock;

    #[test]
    fn the_oldest_pending_change_dates_from_after_the_last_sync_began() {
        let clock = ManualClock::new(0);
        let progress = Progress::new(Lsn::new(70), Lsn::new(90), Duration::ZERO);
        let second = Duration::from_secs(1);
        let at = |lsn, bytes| Position { lsn: Lsn::new(lsn), bytes };
        let changed = |lsn, bytes| {
            progress.changed(&clock);
            at(lsn, bytes)
        };
        assert_eq!(progress.pending(at(70, 0), clock.monotonic()), Pending::default());
        changed(91, 10);
        clock.advance(second);
        let position = changed(92, 20);
        progress.begin_sync();
        clock.advance(second);
        let end = changed(93, 25);
        let pending = progress.pending(end, clock.monotonic());
        assert_eq!((pending.bytes, pending.records, pending.oldest_age), (25, 3, 2 * second));
        assert_eq!(progress.durable_lsn(), Lsn::new(70));

        clock.advance(second);
        progress.written(position, clock.monotonic());
        assert_eq!(progress.unflushed_bytes(end), 5);
        progress.synced(position, clock.monotonic());
        clock.advance(second);
        let pending = progress.pending(end, clock.monotonic());
        assert_eq!((pending.bytes, pending.records), (5, 1));
        assert_eq!((pending.oldest_age, pending.since_last_dump), (2 * second, second));
        assert_eq!(progress.durable_lsn(), Lsn::new(92));

        progress.begin_sync();
        progress.synced(end, clock.monotonic());
        assert_eq!(progress.pending(end, clock.monotonic()).oldest_age, Duration::ZERO);
        let mut stats = Stats::default();
        progress.fill(&mut stats, Lsn::new(93), at(94, 30));
        assert_eq!((stats.changes, stats.unflushed_bytes), (4, 10));
    }
}
