use crate::{Action, Clock, Decision, Lsn, Pending, PersistencePolicy, Stats};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A place in log order: the changes up to one LSN, counted since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last change.
    pub lsn: Lsn,
    /// How many changes there are, each batch counted once.
    pub changes: u64,
    /// Their bytes, as the engine counts them.
    pub bytes: u64,
}

/// How far the changes of a store are written and durable, and how long the others have waited.
/// From that it makes the [`Pending`] that a [`PersistencePolicy`] decides on.
///
/// The engine itself knows how far its changes are visible, and passes that [`Position`] in. It
/// calls, in this order:
///
/// | when | call |
/// |---|---|
/// | a change became visible | [`changed`](Self::changed) |
/// | it asks the policy | [`decide`](Self::decide) |
/// | a dump with a sync begins | [`begin_sync`](Self::begin_sync) |
/// | the operating system has the bytes | [`written`](Self::written) |
/// | the sync succeeded | [`synced`](Self::synced) |
///
/// One thread at a time dumps, as under a [`Leadership`](super::Leadership). `changed` costs a load
/// on a cache line that only dumps write; once for each sync it reads the clock.
///
/// ```
/// use kv_core::parts::{Position, Progress};
/// use kv_core::{Action, Clock, Lsn, ManualClock, MaxLogSize};
///
/// let (clock, policy) = (ManualClock::default(), MaxLogSize::new(100));
/// let progress = Progress::new(Lsn::ZERO, clock.monotonic());
///
/// // A change of 120 bytes.
/// let end = Position { lsn: Lsn::new(1), changes: 1, bytes: 120 };
/// progress.changed(&clock);
/// let decision = progress.decide(&policy, end, clock.monotonic());
/// assert_eq!(decision.action, Action::WriteAndSync);
///
/// // The dump.
/// progress.begin_sync();
/// progress.synced(end, clock.monotonic());
/// assert_eq!(progress.durable_lsn(), Lsn::new(1));
/// assert_eq!(progress.pending(end, clock.monotonic()).records, 0);
/// ```
#[derive(Debug)]
pub struct Progress {
    durable_lsn: AtomicU64,
    durable_changes: AtomicU64,
    durable_bytes: AtomicU64,
    /// Bytes of changes that were handed to the operating system.
    written_bytes: AtomicU64,
    /// Whether `since_sync_began` is set.
    changed_since_sync_began: AtomicBool,
    /// When the first change after the beginning of the last sync came.
    since_sync_began: Mutex<Option<Duration>>,
    /// When the oldest change that is not durable came, nanoseconds, or `NONE`. Stored under the
    /// lock of `since_sync_began`.
    oldest_ns: AtomicU64,
    last_dump_ns: AtomicU64,
    now_ns: RecentTime,
}

/// The time of the last clock reading for a change, nanoseconds. Apart from the other fields, which
/// every change reads: changes write this one.
#[derive(Debug)]
#[repr(align(128))]
struct RecentTime(AtomicU64);

const NONE: u64 = u64::MAX;

/// Most changes between two readings of the clock.
const CHANGES_PER_CLOCK_READING: u64 = 16;

fn to_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NONE - 1)
}

impl Progress {
    /// The progress of a store that was opened at the time `now`, with changes durable up to
    /// `durable_lsn`.
    pub fn new(durable_lsn: Lsn, now: Duration) -> Self {
        Progress {
            durable_lsn: durable_lsn.get().into(),
            durable_changes: 0.into(),
            durable_bytes: 0.into(),
            written_bytes: 0.into(),
            changed_since_sync_began: false.into(),
            since_sync_began: Mutex::new(None),
            oldest_ns: NONE.into(),
            last_dump_ns: to_ns(now).into(),
            now_ns: RecentTime(to_ns(now).into()),
        }
    }

    /// The newest durable change. A caller that sees an LSN here also sees the effects of the sync
    /// that made it durable.
    #[inline]
    pub fn durable_lsn(&self) -> Lsn {
        // Acquire pairs with the Release in `synced`.
        Lsn::new(self.durable_lsn.load(Ordering::Acquire))
    }

    /// Notes a change that just became visible.
    #[inline]
    pub fn changed(&self, clock: &dyn Clock) {
        // A change beyond the position of a sync happened after `begin_sync`, and so sees its
        // `false`. For a change within that position, `true` and `false` are both right.
        if !self.changed_since_sync_began.load(Ordering::Relaxed) {
            self.first_change(clock);
        }
    }

    #[cold]
    fn first_change(&self, clock: &dyn Clock) {
        let now = clock.monotonic();
        let mut since_sync_began = self.since_sync_began();
        if since_sync_began.is_none() {
            *since_sync_began = Some(now);
            if self.oldest_ns.load(Ordering::Relaxed) == NONE {
                self.oldest_ns.store(to_ns(now), Ordering::Relaxed);
            }
            self.changed_since_sync_began.store(true, Ordering::Relaxed);
        }
        self.now_ns.0.store(to_ns(now), Ordering::Relaxed);
    }

    /// Notes that a dump with a sync begins.
    ///
    /// The engine takes the position of the dump afterwards, or under the lock that its changes
    /// take. Every change beyond that position must happen after this call. A change within the
    /// position may still be noted after it: then later changes look a little older than they are.
    pub fn begin_sync(&self) {
        let mut since_sync_began = self.since_sync_began();
        *since_sync_began = None;
        self.changed_since_sync_began.store(false, Ordering::Relaxed);
    }

    /// Notes that the operating system has the changes up to `position`.
    pub fn written(&self, position: Position, now: Duration) {
        // Release pairs with the Acquire in `unflushed_bytes`.
        self.written_bytes.store(position.bytes, Ordering::Release);
        self.last_dump_ns.store(to_ns(now), Ordering::Relaxed);
    }

    /// Notes that the changes up to `position` are written and durable.
    pub fn synced(&self, position: Position, now: Duration) {
        self.synced_in_part(position, now);
        let since_sync_began = self.since_sync_began();
        self.oldest_ns.store(since_sync_began.map_or(NONE, to_ns), Ordering::Relaxed);
    }

    /// Notes that the changes up to `position` are written and durable, without a
    /// [`begin_sync`](Self::begin_sync): the changes behind them may have come before the sync. So
    /// they count as old as the oldest of all.
    pub fn synced_in_part(&self, position: Position, now: Duration) {
        self.written(position, now);
        self.durable_bytes.store(position.bytes, Ordering::Relaxed);
        self.durable_changes.store(position.changes, Ordering::Relaxed);
        // Release pairs with the Acquire in `durable_lsn`.
        self.durable_lsn.store(position.lsn.get(), Ordering::Release);
    }

    /// Bytes of changes up to `end` that are in memory only.
    #[inline]
    pub fn unflushed_bytes(&self, end: Position) -> u64 {
        end.bytes.saturating_sub(self.written_bytes.load(Ordering::Acquire))
    }

    /// The changes up to `end` that are not durable at the time `now`. While a sync ends, the
    /// numbers may be partly from before it: they are for a policy, which is asked again.
    #[inline]
    pub fn pending(&self, end: Position, now: Duration) -> Pending {
        let age = |then_ns: u64| now.saturating_sub(Duration::from_nanos(then_ns));
        Pending {
            bytes: end.bytes.saturating_sub(self.durable_bytes.load(Ordering::Relaxed)),
            records: end.changes.saturating_sub(self.durable_changes.load(Ordering::Relaxed)),
            oldest_age: age(self.oldest_ns.load(Ordering::Relaxed)),
            since_last_dump: age(self.last_dump_ns.load(Ordering::Relaxed)),
        }
    }

    /// The answer of `policy` for the changes up to `end` at the time `now`. Where none is pending
    /// it is [`Action::Hold`], and the policy is not asked.
    #[inline]
    pub fn decide(&self, policy: &dyn PersistencePolicy, end: Position, now: Duration) -> Decision {
        let pending = self.pending(end, now);
        if pending.records == 0 { Decision::now(Action::Hold) } else { policy.decide(&pending) }
    }

    /// The time, at most a few changes old. A change asks the policy with it, because reading the
    /// clock takes a good part of the time of a put. The background thread asks with the exact
    /// time.
    #[inline]
    pub fn recent_time(&self, end: Position, clock: &dyn Clock) -> Duration {
        if end.changes.is_multiple_of(CHANGES_PER_CLOCK_READING) {
            let now = clock.monotonic();
            self.now_ns.0.store(to_ns(now), Ordering::Relaxed);
            return now;
        }
        Duration::from_nanos(self.now_ns.0.load(Ordering::Relaxed))
    }

    /// Fills in `durable_lsn`, `last_lsn`, `changes` and `unflushed_bytes`. `end` returns how far
    /// the changes are visible; it is called after the durable LSN was read, which so never passes
    /// the visible one.
    pub fn fill(&self, stats: &mut Stats, end: impl FnOnce() -> Position) {
        stats.durable_lsn = self.durable_lsn();
        let end = end();
        stats.last_lsn = end.lsn;
        stats.changes = end.changes;
        stats.unflushed_bytes = self.unflushed_bytes(end);
    }

    /// No other lock is taken while this one is held.
    fn since_sync_began(&self) -> MutexGuard<'_, Option<Duration>> {
        self.since_sync_began.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Always, ManualClock, Periodic};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn at(lsn: u64, changes: u64, bytes: u64) -> Position {
        Position { lsn: Lsn::new(lsn), changes, bytes }
    }

    #[test]
    fn after_a_sync_in_part_the_rest_counts_as_old_as_before() {
        let clock = ManualClock::default();
        let progress = Progress::new(Lsn::ZERO, MS(0));
        progress.changed(&clock);
        clock.advance(MS(50));
        progress.changed(&clock);
        progress.synced_in_part(at(1, 1, 100), clock.monotonic());
        assert_eq!(progress.durable_lsn(), Lsn::new(1));
        let pending = progress.pending(at(2, 2, 250), clock.monotonic());
        assert_eq!((pending.records, pending.bytes, pending.oldest_age), (1, 150, MS(50)));
        let periodic = progress.decide(&Periodic::new(MS(50)), at(2, 2, 250), clock.monotonic());
        assert_eq!(periodic.action, Action::WriteAndSync);
    }

    #[test]
    fn changes_during_a_sync_stay_pending() {
        let clock = ManualClock::default();
        let progress = Progress::new(Lsn::new(5), MS(0));
        assert_eq!(
            progress.pending(at(5, 0, 0), MS(9)),
            Pending { since_last_dump: MS(9), ..Pending::default() }
        );
        clock.advance(MS(10));
        progress.changed(&clock);
        clock.advance(MS(5));
        progress.changed(&clock);
        let pending = progress.pending(at(7, 2, 30), MS(15));
        let expected = Pending { bytes: 30, records: 2, oldest_age: MS(5), since_last_dump: MS(15) };
        assert_eq!(pending, expected);

        progress.begin_sync();
        clock.advance(MS(5));
        progress.changed(&clock);
        assert_eq!(progress.pending(at(8, 3, 40), MS(20)).oldest_age, MS(10));
        progress.synced(at(7, 2, 30), MS(30));
        assert_eq!(progress.durable_lsn(), Lsn::new(7));
        let pending = progress.pending(at(8, 3, 40), MS(32));
        let expected = Pending { bytes: 10, records: 1, oldest_age: MS(12), since_last_dump: MS(2) };
        assert_eq!(pending, expected);

        progress.begin_sync();
        progress.synced(at(8, 3, 40), MS(33));
        let pending = progress.pending(at(8, 3, 40), MS(40));
        assert_eq!((pending.records, pending.oldest_age), (0, MS(0)));
    }

    #[test]
    fn written_changes_are_flushed_and_stay_pending() {
        let clock = ManualClock::default();
        let progress = Progress::new(Lsn::ZERO, MS(0));
        progress.changed(&clock);
        let end = at(2, 2, 50);
        progress.written(at(1, 1, 20), MS(7));
        assert_eq!(progress.unflushed_bytes(end), 30);
        let pending = progress.pending(end, MS(9));
        let expected = Pending { bytes: 50, records: 2, oldest_age: MS(9), since_last_dump: MS(2) };
        assert_eq!(pending, expected);
        assert_eq!(progress.durable_lsn(), Lsn::ZERO);
        progress.synced(end, MS(10));
        assert_eq!(progress.unflushed_bytes(end), 0);
    }

    #[test]
    fn a_policy_is_asked_only_about_pending_changes() {
        let clock = ManualClock::default();
        let progress = Progress::new(Lsn::ZERO, MS(0));
        assert_eq!(progress.decide(&Always, at(0, 0, 0), MS(1)), Decision::now(Action::Hold));
        progress.changed(&clock);
        assert_eq!(progress.decide(&Always, at(1, 1, 1), MS(1)).action, Action::WriteAndSync);
        let later = Decision { action: Action::Hold, ask_again_in: Some(MS(4)) };
        assert_eq!(progress.decide(&Periodic::new(MS(5)), at(1, 1, 1), MS(1)), later);
    }

    #[test]
    fn the_clock_is_read_for_the_first_change_and_for_every_sixteenth() {
        let clock = ManualClock::default();
        let progress = Progress::new(Lsn::ZERO, MS(0));
        clock.advance(MS(10));
        assert_eq!(progress.recent_time(at(1, 1, 1), &clock), MS(0));
        assert_eq!(progress.recent_time(at(16, 16, 1), &clock), MS(10));
        clock.advance(MS(10));
        assert_eq!(progress.recent_time(at(17, 17, 1), &clock), MS(10));
        progress.changed(&clock);
        assert_eq!(progress.recent_time(at(18, 18, 1), &clock), MS(20));
    }

    #[test]
    fn stats_are_filled_in_with_the_durable_lsn_first() {
        let clock = ManualClock::default();
        let (progress, mut stats) = (Progress::new(Lsn::ZERO, MS(0)), Stats::default());
        progress.changed(&clock);
        progress.written(at(1, 1, 20), MS(1));
        progress.fill(&mut stats, || {
            // A sync that ends between the two looks.
            progress.synced(at(2, 2, 30), MS(2));
            at(3, 3, 70)
        });
        assert_eq!((stats.durable_lsn, stats.last_lsn), (Lsn::ZERO, Lsn::new(3)));
        assert_eq!((stats.changes, stats.unflushed_bytes), (3, 40));
    }
}
