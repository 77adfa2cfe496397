//! The hash index: from a key to the location of its newest record.
//!
//! A slot is 8 bytes: 24 bits of the key's hash (the tag) over the 40 bits of a [`Location`]. Keys are
//! not stored; they are compared in the log, and only where the tag matches. The table is split into
//! shards, each a `hashbrown` table behind a lock of its own; the hash that `hashbrown` asks for when a
//! table grows is derived from the tag, so growing never touches the log.
//!
//! Several shards are locked at once only by a commit, in ascending order.

use crossbeam_epoch::Guard;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::{RwLock, RwLockWriteGuard};
use std::hash::BuildHasher;

use kv_wal_format::Record;

use crate::segment::{Location, SegmentTable};

/// The hash of a key, as this index computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash(u64);

const TAG_BITS: u32 = 64 - Location::BITS;

/// 24 bits of the key's hash, and a location.
#[derive(Clone, Copy, Debug)]
struct Slot(u64);

impl Slot {
    #[inline]
    fn new(hash: KeyHash, location: Location) -> Self {
        Slot(hash.tag() << Location::BITS | location.bits())
    }

    #[inline]
    fn tag(self) -> u64 {
        self.0 >> Location::BITS
    }

    #[inline]
    fn location(self) -> Location {
        Location::from_bits(self.0)
    }
}

impl KeyHash {
    #[inline]
    fn tag(self) -> u64 {
        self.0 >> (64 - TAG_BITS)
    }
}

/// What `hashbrown` sees: its top 7 bits and its low bits both depend on the whole tag.
#[inline]
fn table_hash(tag: u64) -> u64 {
    tag.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Each shard on a cache line of its own, so that readers of one do not slow those of the next.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(RwLock<HashTable<Slot>>);

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
    fn shard(&self, shard: usize) -> &RwLock<HashTable<Slot>> {
        &self.shards[shard].0
    }

    /// The newest record of `key`.
    #[inline]
    pub(crate) fn find<'g>(
        &self,
        hash: KeyHash,
        key: &[u8],
        segments: &SegmentTable,
        guard: &'g Guard,
    ) -> Option<Record<'g>> {
        let mut found = None;
        let shard = self.shard(self.shard_of(hash)).read();
        shard.find(table_hash(hash.tag()), |slot| {
            slot.tag() == hash.tag() && {
                let record = slot.location().record(segments, guard);
                let same = record.key == key;
                if same {
                    found = Some(record);
                }
                same
            }
        });
        found
    }

    /// Locks one shard for changes.
    pub(crate) fn lock(&self, shard: usize) -> LockedShard<'_> {
        LockedShard { table: self.shard(shard).write() }
    }

    /// The locations of all keys in one shard, as they are now.
    pub(crate) fn locations(&self, shard: usize, into: &mut Vec<Location>) {
        into.clear();
        into.extend(self.shard(shard).read().iter().map(|slot| slot.location()));
    }

    /// Whether the newest record of its key lies at `location`.
    pub(crate) fn points_at(&self, hash: KeyHash, location: Location) -> bool {
        self.shard(self.shard_of(hash)).read().find(table_hash(hash.tag()), is_at(location)).is_some()
    }

    /// Moves a key from one location to another, unless it has moved on meanwhile. Returns whether
    /// it did.
    pub(crate) fn relocate(&self, hash: KeyHash, from: Location, to: Location) -> bool {
        let mut shard = self.shard(self.shard_of(hash)).write();
        match shard.find_mut(table_hash(hash.tag()), is_at(from)) {
            Some(slot) => {
                *slot = Slot::new(hash, to);
                true
            }
            None => false,
        }
    }

    /// Keeps the keys whose location `keep` wants. For recovery, before the index is shared.
    pub(crate) fn retain(&self, mut keep: impl FnMut(Location) -> bool) {
        for shard in &self.shards {
            shard.0.write().retain(|slot| keep(slot.location()));
        }
    }

    /// Memory of all tables, bytes.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let tables: usize = self.shards.iter().map(|shard| shard.0.read().allocation_size()).sum();
        tables + size_of_val(&*self.shards)
    }
}

/// One shard, locked for changes.
pub(crate) struct LockedShard<'a> {
    table: RwLockWriteGuard<'a, HashTable<Slot>>,
}

impl LockedShard<'_> {
    /// Points `key` at `location`; returns where it pointed before.
    pub(crate) fn insert(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        location: Location,
        segments: &SegmentTable,
        guard: &Guard,
    ) -> Option<Location> {
        let slot = Slot::new(hash, location);
        let rehash = |slot: &Slot| table_hash(slot.tag());
        match self.table.entry(table_hash(hash.tag()), same_key(hash, key, segments, guard), rehash) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), slot).location()),
            Entry::Vacant(entry) => {
                entry.insert(slot);
                None
            }
        }
    }

    /// Forgets `key`; returns where it pointed.
    pub(crate) fn remove(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        segments: &SegmentTable,
        guard: &Guard,
    ) -> Option<Location> {
        let entry =
            self.table.find_entry(table_hash(hash.tag()), same_key(hash, key, segments, guard)).ok()?;
        Some(entry.remove().0.location())
    }

    /// Where `key` points.
    pub(crate) fn find(
        &self,
        hash: KeyHash,
        key: &[u8],
        segments: &SegmentTable,
        guard: &Guard,
    ) -> Option<Location> {
        self.table
            .find(table_hash(hash.tag()), same_key(hash, key, segments, guard))
            .map(|slot| slot.location())
    }
}

#[inline]
fn same_key<'a>(
    hash: KeyHash,
    key: &'a [u8],
    segments: &'a SegmentTable,
    guard: &'a Guard,
) -> impl Fn(&Slot) -> bool + 'a {
    move |slot| slot.tag() == hash.tag() && slot.location().record(segments, guard).key == key
}

#[inline]
fn is_at(location: Location) -> impl Fn(&Slot) -> bool {
    move |slot| slot.location() == location
}
