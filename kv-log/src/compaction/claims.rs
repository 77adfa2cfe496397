//! Claims: the segments that a compaction on disk has to itself while compactions in memory go on.
//!
//! A compaction on disk takes milliseconds, because it waits for syncs. A writer that needs memory
//! must not wait for it. So compaction in memory has a lock of its own, and leaves alone the
//! segments that a compaction on disk has claimed: its victims, and its outputs.
//!
//! The lock also keeps tombstones safe. Compaction drops a tombstone if no other segment holds an
//! older dead put. While a thread points the index at the copies in a segment, that segment may
//! seem to have no dead put. So a thread holds the lock while it does that, and while it looks for
//! the oldest dead put.

use kv_core::SegmentId;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::time::Duration;

use crate::segments::Segment;

/// The lock of compaction in memory, and the claimed segments.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claimed: Mutex<BTreeSet<SegmentId>>,
}

/// The lock is held: no other thread points the index at copies.
#[derive(Debug)]
pub(super) struct Alone<'a> {
    claimed: MutexGuard<'a, BTreeSet<SegmentId>>,
}

/// Segments that one compaction on disk has to itself. The drop takes the lock.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    ids: Vec<SegmentId>,
}

impl Claims {
    pub(super) fn lock(&self) -> Alone<'_> {
        Alone { claimed: self.claimed.lock() }
    }

    pub(super) fn try_lock_for(&self, patience: Duration) -> Option<Alone<'_>> {
        Some(Alone { claimed: self.claimed.try_lock_for(patience)? })
    }

    /// A claim without a segment.
    pub(super) fn begin(&self) -> Claim<'_> {
        Claim { claims: self, ids: Vec::new() }
    }
}

impl Alone<'_> {
    pub(super) fn is_free(&self, segment: &Segment) -> bool {
        !self.claimed.contains(&segment.id)
    }
}

impl Claim<'_> {
    /// Adds a segment.
    pub(super) fn add(&mut self, alone: &mut Alone<'_>, id: SegmentId) {
        alone.claimed.insert(id);
        self.ids.push(id);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claimed = self.claims.claimed.lock();
        for id in &self.ids {
            claimed.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_ends_with_its_owner() {
        let claims = Claims::default();
        let count = || claims.lock().claimed.len();
        let mut claim = claims.begin();
        claim.add(&mut claims.lock(), SegmentId::new(1));
        claim.add(&mut claims.lock(), SegmentId::new(2));
        let mut other = claims.begin();
        other.add(&mut claims.lock(), SegmentId::new(3));
        assert_eq!(count(), 3);
        drop(claim);
        assert_eq!(count(), 1);
        drop(other);
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_thread_waits_for_the_lock_no_longer_than_its_patience() {
        let claims = Claims::default();
        let alone = claims.lock();
        assert!(claims.try_lock_for(Duration::from_millis(1)).is_none());
        drop(alone);
        assert!(claims.try_lock_for(Duration::from_millis(1)).is_some());
    }
}
