//! How far back past states are kept. A policy decides, the engine executes.

use crate::Lsn;
use std::fmt;
use std::time::Duration;

/// Records that the newest state does not need any more, and that past states before `lsn` do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// The oldest state that does not need them.
    pub lsn: Lsn,
    /// The changes up to `lsn` had been made by then, milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Bytes that they take on the disk.
    pub bytes: u64,
}

/// Everything that a retention policy may look at.
#[derive(Clone, Copy, Debug)]
pub struct RetentionView<'a> {
    /// The kept records, in the order of their LSNs.
    pub superseded: &'a [Superseded],
    /// The present, milliseconds since the Unix epoch.
    pub now_unix_ms: u64,
}

/// Decides how far back past states are kept: see [`PointInTime`](crate::PointInTime).
///
/// An engine asks when records are superseded, and from time to time. It may ask under its locks,
/// so the policy must not call the engine.
pub trait RetentionPolicy: fmt::Debug + Send + Sync {
    /// How many of the superseded records go, counted from the oldest. The window then begins at
    /// the LSN of the last one that goes. A point may keep them longer.
    fn expired(&self, view: &RetentionView<'_>) -> usize;

    /// Whether the window goes before a full disk refuses a change. Points stay.
    fn yields_to_full_disk(&self) -> bool;
}

/// Keeps no replaced record: the default. Only points keep states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepNothing;

impl RetentionPolicy for KeepNothing {
    fn expired(&self, view: &RetentionView<'_>) -> usize {
        view.superseded.len()
    }

    fn yields_to_full_disk(&self) -> bool {
        true
    }
}

/// Keeps past states by time, bytes and count, as far as limits are set. A state beyond one limit
/// goes.
///
/// ```
/// use kv_core::KeepPast;
/// use std::time::Duration;
///
/// // The states of the last hour, as far as 1 GiB on the disk reaches.
/// let policy = KeepPast::of_time(Duration::from_secs(3600)).bytes_max(1 << 30);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepPast {
    time: Option<Duration>,
    bytes_max: Option<u64>,
    count_max: Option<usize>,
    yields: bool,
}

impl KeepPast {
    /// Keeps every past state.
    pub fn all() -> Self {
        KeepPast { time: None, bytes_max: None, count_max: None, yields: true }
    }

    /// Keeps the states of the last `time`.
    pub fn of_time(time: Duration) -> Self {
        KeepPast { time: Some(time), ..KeepPast::all() }
    }

    /// Keeps at most so many bytes of superseded records. Default no limit.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = Some(bytes);
        self
    }

    /// Keeps at most so many superseded snapshots or segments. Default no limit.
    #[must_use]
    pub fn count_max(mut self, count: usize) -> Self {
        self.count_max = Some(count);
        self
    }

    /// Keeps the window on a full disk, which then refuses changes earlier. By default the window
    /// goes first.
    #[must_use]
    pub fn stays_on_full_disk(mut self) -> Self {
        self.yields = false;
        self
    }
}

impl RetentionPolicy for KeepPast {
    fn expired(&self, view: &RetentionView<'_>) -> usize {
        let age = |one: &Superseded| u128::from(view.now_unix_ms.saturating_sub(one.unix_ms));
        let too_old = self
            .time
            .map_or(0, |time| view.superseded.iter().take_while(|one| age(one) >= time.as_millis()).count());
        let mut sum: u64 = view.superseded.iter().map(|one| one.bytes).sum();
        let too_many = self.bytes_max.map_or(0, |max| {
            let goes = |one: &&Superseded| {
                let exceeds = sum > max;
                sum -= one.bytes;
                exceeds
            };
            view.superseded.iter().take_while(goes).count()
        });
        let beyond_count = self.count_max.map_or(0, |max| view.superseded.len().saturating_sub(max));
        too_old.max(too_many).max(beyond_count)
    }

    fn yields_to_full_disk(&self) -> bool {
        self.yields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(policy: &dyn RetentionPolicy, now_unix_ms: u64) -> usize {
        let superseded = [(3, 100, 10), (5, 200, 20), (9, 300, 30)].map(|(lsn, unix_ms, bytes)| Superseded {
            lsn: Lsn::new(lsn),
            unix_ms,
            bytes,
        });
        policy.expired(&RetentionView { superseded: &superseded, now_unix_ms })
    }

    #[test]
    fn each_limit_expires_the_oldest_that_exceed_it() {
        let time = |ms| KeepPast::of_time(Duration::from_millis(ms));
        for (policy, now, goes) in [
            (KeepPast::all(), u64::MAX, 0),
            (time(100), 199, 0),
            (time(100), 200, 1),
            (time(100), 1000, 3),
            // The clock was set back.
            (time(100), 50, 0),
            (KeepPast::all().bytes_max(60), 0, 0),
            (KeepPast::all().bytes_max(59), 0, 1),
            (KeepPast::all().bytes_max(30), 0, 2),
            (KeepPast::all().bytes_max(29), 0, 3),
            (time(100).bytes_max(30), 200, 2),
            (time(100).bytes_max(59), 300, 2),
            (KeepPast::all().count_max(3), 0, 0),
            (KeepPast::all().count_max(2), 0, 1),
            (KeepPast::all().count_max(0), 0, 3),
            (time(100).count_max(2), 300, 2),
        ] {
            assert_eq!(expired(&policy, now), goes, "{policy:?} at {now}");
        }
        assert_eq!(expired(&KeepNothing, 0), 3);
    }

    #[test]
    fn the_window_yields_unless_it_is_told_to_stay() {
        assert!(KeepPast::all().yields_to_full_disk() && KeepNothing.yields_to_full_disk());
        assert!(!KeepPast::all().stays_on_full_disk().yields_to_full_disk());
    }
}
