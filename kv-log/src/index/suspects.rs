//! Suspects: entries of a checkpoint that a replayed record has displaced.
//!
//! Replay meets a record, and the index holds an entry of a checkpoint with the same tag. Most
//! often both are records of one key, and the replayed one is newer. Only the old record can tell,
//! and to read it takes a random read. So replay moves the entry here, and puts its own in the
//! table.
//!
//! A suspect is *settled* by a read of its record. If the table has the key, or a replayed
//! tombstone deleted it, the record is dead. Otherwise the entry goes back into the table. The
//! replayed record of the same key is newer than the suspect: the log after a checkpoint is newer
//! than all that the checkpoint covers, and a compaction copies only records that live.
//!
//! These rules keep a key from being lost or found again:
//!
//! 1. Before a look-up searches the table for a key, it settles the suspects with the key's tag. A
//!    hit needs no search: a key in the table is newer than its suspect.
//! 2. Before a writer changes a key, it settles them, too, and checks under the shard's lock that
//!    none is left. Otherwise a delete would bring the suspect back.
//! 3. Entries move from here to the table only. The mover holds the shard's lock, and fills the
//!    table first.
//! 4. A reader that finds [`are_settled`](Suspects::are_settled) trusts a miss. The flag is set
//!    after every reader has unpinned that was pinned when the last suspect moved.

use kv_core::SegmentId;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::entry::{Entry, TAG_BITS};
use crate::reclaim::{collect, defer};
use crate::segments::Location;

/// The suspects of all shards.
#[derive(Debug)]
pub(super) struct Suspects {
    settled: Arc<AtomicBool>,
    left: AtomicUsize,
    shards: Box<[Mutex<InShard>]>,
}

#[derive(Debug, Default)]
struct InShard {
    /// The bits of entries, so that those with one tag are neighbours.
    entries: BTreeSet<u64>,
    /// Keys that replayed tombstones deleted, each with the newest LSN.
    deleted: HashMap<Vec<u8>, u64>,
}

impl Suspects {
    pub(super) fn new(shards: usize) -> Self {
        Suspects {
            settled: Arc::new(AtomicBool::new(true)),
            left: AtomicUsize::new(0),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    /// Whether there are none, and no reader looks for one any more.
    #[inline]
    pub(super) fn are_settled(&self) -> bool {
        // Acquire pairs with the Release in `remove`: all entries are in the table.
        self.settled.load(Ordering::Acquire)
    }

    /// Number of suspects.
    pub(super) fn len(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    #[expect(clippy::indexing_slicing, reason = "there are as many as shards of the index")]
    fn shard(&self, shard: usize) -> &Mutex<InShard> {
        &self.shards[shard]
    }

    /// Adds an entry that replay displaced. No reader looks at the index yet.
    pub(super) fn add(&self, shard: usize, entry: Entry) {
        self.settled.store(false, Ordering::Relaxed);
        let added = self.shard(shard).lock().entries.insert(entry.bits());
        self.left.fetch_add(usize::from(added), Ordering::Relaxed);
    }

    /// A replayed tombstone with this LSN deleted `key`.
    pub(super) fn note_deleted(&self, shard: usize, key: &[u8], lsn: u64) {
        let mut shard = self.shard(shard).lock();
        let newest = shard.deleted.entry(key.to_vec()).or_default();
        *newest = lsn.max(*newest);
    }

    /// Whether a replayed tombstone is newer than the record of `key` with this LSN.
    pub(super) fn is_deleted(&self, shard: usize, key: &[u8], lsn: u64) -> bool {
        self.shard(shard).lock().deleted.get(key).is_some_and(|deleted| *deleted > lsn)
    }

    /// Whether there is a suspect with this tag.
    #[inline]
    pub(super) fn has_tag(&self, shard: usize, tag: u64) -> bool {
        !self.are_settled() && !self.with_tag(shard, tag).is_empty()
    }

    /// The suspects with this tag.
    pub(super) fn with_tag(&self, shard: usize, tag: u64) -> Vec<Entry> {
        let first = tag << Location::BITS;
        let last = first | ((1 << Location::BITS) - 1);
        debug_assert!(tag < 1 << TAG_BITS);
        let shard = self.shard(shard).lock();
        shard.entries.range(first..=last).filter_map(|bits| Entry::from_bits(*bits)).collect()
    }

    pub(super) fn contains(&self, shard: usize, entry: Entry) -> bool {
        self.shard(shard).lock().entries.contains(&entry.bits())
    }

    /// The suspects of one shard.
    pub(super) fn of_shard(&self, shard: usize) -> Vec<Entry> {
        self.shard(shard).lock().entries.iter().filter_map(|bits| Entry::from_bits(*bits)).collect()
    }

    /// The suspects, with their shards, whose locations are `wanted`.
    pub(super) fn at(&self, wanted: impl Fn(Location) -> bool) -> Vec<(usize, Entry)> {
        let of = |shard| self.of_shard(shard).into_iter().map(move |entry| (shard, entry));
        let all = (0..self.shards.len()).flat_map(of);
        all.filter(|(_, entry)| wanted(entry.location())).collect()
    }

    /// Removes a suspect that was settled. The caller holds the shard's lock, and has filled the
    /// table.
    pub(super) fn remove(&self, shard: usize, entry: Entry) {
        let removed = self.shard(shard).lock().entries.remove(&entry.bits());
        if removed && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let settled = Arc::clone(&self.settled);
            defer(move || settled.store(true, Ordering::Release));
        }
    }

    /// Sets the flag, if readers have left.
    pub(super) fn try_to_rest(&self) {
        if self.len() == 0 && !self.are_settled() {
            collect();
            for shard in self.shards.iter().filter(|_| self.are_settled()) {
                *shard.lock() = InShard::default();
            }
        }
    }
}

/// The record of a suspect does not fit the entry, so the checkpoint is wrong.
pub(super) fn unfounded(path: &std::path::Path, offset: usize, id: SegmentId) -> kv_core::Error {
    let fault = format!("the checkpoint points at a put of another key in segment {id}");
    kv_core::Error::corruption(path, offset as u64, fault)
}
