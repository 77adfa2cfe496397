//! The tally of a segment: counts and sizes of its records.

use kv_core::Lsn;
use kv_wal_format::RecordKind;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::unverified::Unverified;
use crate::sync::change;

/// The numbers of one segment.
///
/// For the active segment, most of them are updated on demand only: see
/// [`LockedEnd::settle`](crate::log::LockedEnd::settle). They have a cache line of their own,
/// because a writer that replaces a record writes here.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Tally {
    /// End of the records in the image, bytes from the start. Set under the commit lock, and final
    /// once the segment is sealed.
    end: AtomicUsize,
    /// The part of `put_bytes` that the index does not point at, or not yet. With [`UNVERIFIED`],
    /// the rest is a lower bound.
    dead_put_bytes: AtomicU64,
    pub(crate) tombstone_bytes: AtomicU64,
    /// Puts and deletes in its file.
    records: AtomicU64,
    /// Their bytes.
    change_bytes: AtomicU64,
    put_bytes: AtomicU64,
    min_put_lsn: AtomicU64,
    max_lsn: AtomicU64,
    pub(super) unverified: Unverified,
}

/// The bit of `dead_put_bytes` that says that a checkpoint has filled the index, and that the index
/// was not compared with the records yet.
const UNVERIFIED: u64 = 1 << 63;

/// The numbers of a segment's file, as a checkpoint holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileFacts {
    pub(crate) records: u64,
    pub(crate) change_bytes: u64,
    pub(crate) put_bytes: u64,
    /// An upper bound for the bytes of its live puts.
    pub(crate) live_bytes: u64,
    pub(crate) min_put_lsn: u64,
    pub(crate) max_lsn: u64,
}

impl Tally {
    pub(super) fn new(end: usize) -> Self {
        let zero = || AtomicU64::new(0);
        Tally {
            end: AtomicUsize::new(end),
            dead_put_bytes: zero(),
            tombstone_bytes: zero(),
            records: zero(),
            change_bytes: zero(),
            put_bytes: zero(),
            min_put_lsn: AtomicU64::new(u64::MAX),
            max_lsn: zero(),
            unverified: Unverified::default(),
        }
    }

    /// Of a durable segment whose bytes were not read, with records up to `end`. The index will
    /// hold `entries` locations in it.
    pub(super) fn unverified(end: usize, facts: &FileFacts, entries: u64) -> Self {
        let dead = facts.put_bytes.saturating_sub(facts.live_bytes);
        let number = AtomicU64::new;
        Tally {
            records: number(facts.records),
            change_bytes: number(facts.change_bytes),
            put_bytes: number(facts.put_bytes),
            tombstone_bytes: number(facts.change_bytes.saturating_sub(facts.put_bytes)),
            min_put_lsn: number(facts.min_put_lsn),
            max_lsn: number(facts.max_lsn),
            dead_put_bytes: number(dead | UNVERIFIED),
            unverified: Unverified::new(entries, dead),
            ..Tally::new(end)
        }
    }

    /// The numbers of the file.
    pub(crate) fn file_facts(&self) -> FileFacts {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        FileFacts {
            records: read(&self.records),
            change_bytes: read(&self.change_bytes),
            put_bytes: read(&self.put_bytes),
            live_bytes: self.live_bytes(),
            min_put_lsn: read(&self.min_put_lsn),
            max_lsn: read(&self.max_lsn),
        }
    }

    /// Whether the index was filled from a checkpoint, and not compared with the records yet.
    pub(super) fn is_unverified(&self) -> bool {
        self.dead_put_bytes.load(Ordering::Relaxed) & UNVERIFIED != 0
    }

    /// Makes the dead bytes exact: the walk that has just ended found live puts of `live` bytes.
    pub(super) fn verified(&self, live: u64) {
        let dead = self.put_bytes().wrapping_sub(live).wrapping_sub(self.unverified.died_bytes());
        let correction = dead.wrapping_sub(self.unverified.dead_at_first());
        self.dead_put_bytes.fetch_add(correction.wrapping_sub(UNVERIFIED), Ordering::Relaxed);
    }

    fn dead_put_bytes(&self) -> u64 {
        self.dead_put_bytes.load(Ordering::Relaxed) & !UNVERIFIED
    }

    /// For another image of the same file, with records up to `end`. The index does not point there
    /// yet.
    pub(super) fn of_same_file(&self, end: usize) -> Self {
        let copy = |from: &AtomicU64| AtomicU64::new(from.load(Ordering::Relaxed));
        Tally {
            records: copy(&self.records),
            change_bytes: copy(&self.change_bytes),
            put_bytes: copy(&self.put_bytes),
            min_put_lsn: copy(&self.min_put_lsn),
            max_lsn: copy(&self.max_lsn),
            dead_put_bytes: copy(&self.put_bytes),
            ..Tally::new(end)
        }
    }

    /// Acquire pairs with the Release in [`set_end`](Self::set_end): the bytes before the end are
    /// written.
    pub(super) fn end(&self) -> usize {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn set_end(&self, end: usize) {
        self.end.store(end, Ordering::Release);
    }

    /// Puts and deletes in the segment's file.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Bytes of the puts in the segment's file.
    pub(crate) fn put_bytes(&self) -> u64 {
        self.put_bytes.load(Ordering::Relaxed)
    }

    /// Notes the LSN of the first put.
    pub(crate) fn first_put(&self, lsn: u64) {
        self.min_put_lsn.fetch_min(lsn, Ordering::Relaxed);
    }

    /// Counts an added put or delete of `len` bytes. One thread at a time calls this.
    #[inline]
    pub(super) fn add_record(&self, lsn: Lsn, kind: RecordKind, len: usize) {
        change(&self.records, |records| records + 1);
        change(&self.change_bytes, |bytes| bytes + len as u64);
        if kind == RecordKind::Put {
            change(&self.put_bytes, |bytes| bytes + len as u64);
            change(&self.min_put_lsn, |min| min.min(lsn.get()));
        } else {
            change(&self.tombstone_bytes, |bytes| bytes + len as u64);
        }
        change(&self.max_lsn, |max| max.max(lsn.get()));
    }

    /// Updates the numbers of the active segment. If there are more records, the newest has the LSN
    /// `last_lsn`. The caller holds the commit lock.
    pub(crate) fn settle(&self, records: u64, put_bytes: u64, tombstone_bytes: u64, last_lsn: Lsn) {
        if records > self.records.load(Ordering::Relaxed) {
            self.max_lsn.store(last_lsn.get(), Ordering::Relaxed);
        }
        self.records.store(records, Ordering::Relaxed);
        self.change_bytes.store(put_bytes + tombstone_bytes, Ordering::Relaxed);
        self.put_bytes.store(put_bytes, Ordering::Relaxed);
        self.tombstone_bytes.store(tombstone_bytes, Ordering::Relaxed);
    }

    /// Bytes of the live puts.
    pub(crate) fn live_bytes(&self) -> u64 {
        let dead = self.dead_put_bytes();
        self.put_bytes.load(Ordering::Relaxed).saturating_sub(dead)
    }

    /// The index no longer points at a put of `len` bytes.
    #[inline]
    pub(crate) fn died(&self, len: u64) {
        self.dead_put_bytes.fetch_add(len, Ordering::Relaxed);
    }

    /// As [`died`](Self::died), of a put in this shard of the index. The caller holds the shard.
    #[inline]
    pub(crate) fn died_in(&self, shard: usize, len: u64) {
        let before = self.dead_put_bytes.fetch_add(len, Ordering::Relaxed);
        if before & UNVERIFIED != 0 {
            self.unverified.died(shard, len);
        }
    }

    /// The index newly points at puts of `bytes` bytes.
    pub(crate) fn came_to_life(&self, bytes: u64) {
        self.dead_put_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The index points at no put yet.
    pub(crate) fn nothing_lives_yet(&self) {
        self.dead_put_bytes.store(self.put_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// A lower bound for the LSNs of the dead puts in the file. `u64::MAX` if there are none.
    ///
    /// It may be too high for puts that die meanwhile. Such a put is newer than every durable
    /// tombstone of its key, so no tombstone is needed for it.
    pub(super) fn oldest_dead_put(&self) -> u64 {
        // An unverified segment may hold dead puts.
        let all_live = self.dead_put_bytes.load(Ordering::Relaxed) == 0;
        if all_live { u64::MAX } else { self.min_put_lsn.load(Ordering::Relaxed) }
    }

    /// Bytes of the changes in the file that are neither live nor among the needed tombstones.
    pub(super) fn dead_bytes(&self, needed_tombstone_bytes: u64) -> u64 {
        let kept = self.live_bytes() + needed_tombstone_bytes;
        self.change_bytes.load(Ordering::Relaxed).saturating_sub(kept)
    }

    pub(super) fn max_lsn(&self) -> u64 {
        self.max_lsn.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_live_and_die_and_tombstones_count_apart() {
        let tally = Tally::new(16);
        tally.add_record(Lsn::new(7), RecordKind::Put, 40);
        tally.add_record(Lsn::new(5), RecordKind::Put, 60);
        tally.add_record(Lsn::new(9), RecordKind::Delete, 8);
        assert_eq!(
            (tally.records(), tally.put_bytes(), tally.live_bytes(), tally.max_lsn()),
            (3, 100, 100, 9)
        );
        assert_eq!((tally.oldest_dead_put(), tally.dead_bytes(8), tally.dead_bytes(0)), (u64::MAX, 0, 8));
        tally.died(60);
        assert_eq!((tally.oldest_dead_put(), tally.live_bytes(), tally.dead_bytes(8)), (5, 40, 60));

        let copy = tally.of_same_file(16);
        assert_eq!((copy.live_bytes(), copy.records(), copy.end()), (0, 3, 16));
        copy.came_to_life(40);
        assert_eq!((copy.live_bytes(), copy.dead_bytes(0)), (40, 68));
        copy.nothing_lives_yet();
        assert_eq!(copy.live_bytes(), 0);
    }
}
