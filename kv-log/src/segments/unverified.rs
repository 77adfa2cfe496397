//! Unverified locations: those in a segment that a checkpoint put into the index.
//!
//! No record was read for them. Before the segment gets an image, or is compacted, a walk goes
//! through its records, one shard of the index after the other. It counts the locations that lead
//! to a record. The others are left over.
//!
//! Writers go on during the walk, and replace records. A writer counts the record that dies if the
//! walk has not done its shard yet. Otherwise the walk has counted it. Both hold the shard
//! meanwhile.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The count of the unverified locations in one segment.
#[derive(Debug, Default)]
pub(super) struct Unverified {
    /// Locations that the checkpoint put into the index.
    entries: u64,
    /// The lower bound of the dead bytes before any writer changed it.
    dead_at_first: u64,
    /// The walk has counted the records whose keys are in shards below this number.
    walked: AtomicUsize,
    /// Puts that died before the walk came to them, and their bytes.
    died: AtomicU64,
    died_bytes: AtomicU64,
}

impl Unverified {
    pub(super) fn new(entries: u64, dead_at_first: u64) -> Self {
        Unverified { entries, dead_at_first, ..Unverified::default() }
    }

    /// Counts a put that dies, unless the walk has counted it. The caller holds its shard.
    #[cold]
    pub(super) fn died(&self, shard: usize, len: u64) {
        // Relaxed suffices: the shard's lock orders this with the walk's count of the same record.
        if shard >= self.walked.load(Ordering::Relaxed) {
            self.died.fetch_add(1, Ordering::Relaxed);
            self.died_bytes.fetch_add(len, Ordering::Relaxed);
        }
    }

    /// The walk has counted the records of `shard`, which the caller holds.
    pub(super) fn note_walked(&self, shard: usize) {
        self.walked.store(shard + 1, Ordering::Relaxed);
    }

    /// The number of locations that lead to no record, after a walk that found `live` live puts.
    pub(super) fn unfounded(&self, live: u64) -> u64 {
        self.entries.saturating_sub(live + self.died.load(Ordering::Relaxed))
    }

    pub(super) fn dead_at_first(&self) -> u64 {
        self.dead_at_first
    }

    pub(super) fn died_bytes(&self) -> u64 {
        self.died_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_put_is_counted_by_the_walk_or_by_the_writer_that_replaced_it() {
        let unverified = Unverified::new(3, 0);
        unverified.died(1, 10);
        unverified.note_walked(1);
        unverified.died(1, 20);
        unverified.died(0, 20);
        assert_eq!((unverified.died_bytes(), unverified.unfounded(2), unverified.unfounded(1)), (10, 0, 1));
        unverified.died(2, 5);
        assert_eq!((unverified.died_bytes(), unverified.unfounded(1)), (15, 0));
    }
}
