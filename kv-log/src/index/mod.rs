//! The hash index: from a key to the location of its newest record.
//!
//! A [`slot`] is 8 bytes: 24 bits of the key's hash (the tag) over the 40 bits of a [`Location`]. Keys are not stored; they
//! are compared in the log, and only where the tag matches. The slots are split into [shards](shard), by bits of the hash
//! that the tag does not use; each has a [`table`] of its own, which grows without touching the log, since homes follow
//! from tags.
//!
//! Readers take no lock. Several shards are locked at once only by a commit, in ascending order.

mod prefetch;
mod shard;
mod slot;
mod table;

use crossbeam_epoch::Guard;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

use kv_wal_format::Record;

use crate::segment::{Location, SegmentTable};
use prefetch::prefetch;
use shard::Shard;
use slot::{Slot, TAG_BITS};

/// The hash of a key, as this index computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    #[inline]
    fn tag(self) -> u64 {
        self.0 >> (64 - TAG_BITS)
    }
}

#[derive(Debug)]
pub(crate) struct Index {
    shards: Box<[Shard]>,
    hasher: FixedState,
}

impl Index {
    /// `shards` is a power of two.
    pub(crate) fn new(shards: usize, seed: u64) -> Self {
        debug_assert!(shards.is_power_of_two());
        Index { shards: (0..shards).map(|_| Shard::default()).collect(), hasher: FixedState::with_seed(seed) }
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.hasher.hash_one(key))
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The shard of a key: from the low bits of its hash, which the tag does not use.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to at most 16 bits")]
    pub(crate) fn shard_of(&self, hash: KeyHash) -> usize {
        hash.0 as usize & (self.shards.len() - 1)
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "every caller's number comes from `shard_of` or a loop")]
    fn shard(&self, shard: usize) -> &Shard {
        &self.shards[shard]
    }

    /// Asks for the memory at which a search for the key begins, for a search to come.
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash, guard: &Guard) {
        prefetch(self.shard(self.shard_of(hash)).table(guard).home_line(hash.tag()));
    }

    /// Asks for the memory of the record that the key most likely has, once the index is at hand.
    #[inline]
    pub(crate) fn prefetch_record(&self, hash: KeyHash, segments: &SegmentTable, guard: &Guard) {
        // Whichever has the same tag: all that is lost with a wrong one is time.
        let likely = self.shard(self.shard_of(hash)).table(guard).find(hash.tag(), |_| true);
        if let Some((_, location)) = likely {
            segments.get(location, guard).lines_of(location.offset()).for_each(prefetch);
        }
    }

    /// The newest record of `key`, and where it lies.
    #[inline]
    pub(crate) fn find<'g>(
        &self,
        hash: KeyHash,
        key: &[u8],
        segments: &SegmentTable,
        guard: &'g Guard,
    ) -> Option<(Location, Record<'g>)> {
        let mut found = None;
        let location = self.shard(self.shard_of(hash)).find(hash.tag(), guard, |location| {
            let record = location.record(segments, guard);
            found = Some(record);
            record.key == key
        })?;
        Some((location, found?))
    }

    /// Locks one shard for changes.
    pub(crate) fn lock(&self, shard: usize) -> LockedShard<'_> {
        LockedShard(self.shard(shard).lock())
    }

    /// The locations of all keys in one shard, as they are now.
    pub(crate) fn locations(&self, shard: usize, into: &mut Vec<Location>) {
        into.clear();
        into.extend(self.shard(shard).lock().slots().map(Slot::location));
    }

    /// Whether the newest record of its key lies at `location`.
    pub(crate) fn points_at(&self, hash: KeyHash, location: Location, guard: &Guard) -> bool {
        self.shard(self.shard_of(hash)).find(hash.tag(), guard, |slot| slot == location).is_some()
    }

    /// Moves a key from one location to another, unless it has moved on meanwhile. Returns whether it did.
    pub(crate) fn relocate(&self, hash: KeyHash, from: Location, to: Location) -> bool {
        let mut shard = self.shard(self.shard_of(hash)).lock();
        let found = shard.find(hash.tag(), |slot| slot == from);
        if let Some((at, _)) = found {
            shard.relocate(at, Slot::new(hash.tag(), to));
        }
        found.is_some()
    }

    /// Keeps the keys whose location `keep` wants. For recovery, before the index is shared.
    pub(crate) fn retain(&self, mut keep: impl FnMut(Location) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let unwanted: Vec<Slot> = shard.slots().filter(|slot| !keep(slot.location())).collect();
            for slot in unwanted {
                if let Some((at, _)) = shard.find(slot.tag(), |location| location == slot.location()) {
                    shard.remove(at);
                }
            }
        }
    }

    /// Memory of all tables, bytes.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let tables: usize = self.shards.iter().map(|shard| shard.lock().allocated_bytes()).sum();
        tables + size_of_val(&*self.shards)
    }
}

/// One shard, locked for changes, which become visible when it is dropped.
#[derive(Debug)]
pub(crate) struct LockedShard<'a>(shard::LockedShard<'a>);

/// What a caller found out about a key before it locked the shard: where it pointed. It may have moved on.
pub(crate) type Hint = Option<Location>;

impl LockedShard<'_> {
    /// Where `key` points.
    pub(crate) fn find(
        &self,
        hash: KeyHash,
        key: &[u8],
        segments: &SegmentTable,
        guard: &Guard,
    ) -> Option<Location> {
        Some(self.0.find(hash.tag(), is(key, None, segments, guard))?.1)
    }

    /// Points `key` at `location`; returns where it pointed before.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        hint: Hint,
        location: Location,
        segments: &SegmentTable,
        guard: &Guard,
    ) -> Option<Location> {
        let slot = Slot::new(hash.tag(), location);
        let found = self.0.find(hash.tag(), is(key, hint, segments, guard));
        match found {
            Some((at, _)) => self.0.replace(at, slot),
            None => self.0.insert(slot, guard),
        }
        found.map(|(_, before)| before)
    }

    /// Forgets `key`; returns where it pointed.
    pub(crate) fn remove(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        hint: Hint,
        segments: &SegmentTable,
        guard: &Guard,
    ) -> Option<Location> {
        let (at, before) = self.0.find(hash.tag(), is(key, hint, segments, guard))?;
        self.0.remove(at);
        Some(before)
    }
}

/// Whether a location is that of `key`: at the one that is known to be, no record has to be looked at.
#[inline]
fn is<'a>(
    key: &'a [u8],
    hint: Hint,
    segments: &'a SegmentTable,
    guard: &'a Guard,
) -> impl Fn(Location) -> bool + 'a {
    move |location| hint == Some(location) || location.record(segments, guard).key == key
}
