//! The hash index: from a key to the location of its newest record.
//!
//! An [`entry`] has 8 bytes: a *tag* of 24 bits of the key's hash, and the 40 bits of a
//! [`Location`]. The index stores no keys. A look-up that finds the tag compares its key with the
//! record's. Bits of the hash outside the tag choose one of the [shards](shard), each with a
//! [`table`] of its own. The tag of an entry names its home bucket, so a table grows without a look
//! at the log.
//!
//! Look-ups take no lock. A scan locks one shard at a time to list its locations. Only a commit
//! locks several shards at once, in ascending order, and before the commit lock. No thread reads a
//! file while it holds a shard, except in recovery. A writer that needs a cold record unlocks the
//! shard first.

mod by_shard;
mod checkpointed;
mod entry;
mod replaced;
mod settle;
mod shard;
mod suspects;
mod table;

use foldhash::fast::FixedState;
use kv_core::{Error, Op, Result};
use kv_wal_format::{Record, encoded_len};
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::memory::prefetch;
use crate::reclaim::{Guard, pin};
use crate::segments::{Found, Image, Location, Look, SegmentTable};
use entry::{Entry, TAG_BITS};
use replaced::Replaced;
use shard::Shard;
use suspects::Suspects;

pub(crate) use by_shard::{ByShard, RecordAt, Records, prefetched};
pub(crate) use checkpointed::{ShardCopy, location_of};
pub(crate) use shard::TagMatch;

/// The hash of a key, as this index computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    #[inline]
    fn tag(self) -> u64 {
        self.0 >> (64 - TAG_BITS)
    }
}

#[cfg(all(test, not(shuttle)))]
pub(crate) use table::gate;

#[derive(Debug)]
pub(crate) struct Index {
    shards: Box<[Shard]>,
    hasher: FixedState,
    replaced: Replaced,
    seed: u64,
    /// Entries of a checkpoint that are in no table.
    suspects: Suspects,
    /// Whether the bytes of the pairs are an estimate.
    is_estimated: AtomicBool,
}

impl Index {
    /// `shards` is a power of two.
    pub(crate) fn new(shards: usize, seed: u64) -> Self {
        debug_assert!(shards.is_power_of_two());
        Index {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            hasher: FixedState::with_seed(seed),
            replaced: Replaced::default(),
            seed,
            suspects: Suspects::new(shards),
            is_estimated: AtomicBool::new(false),
        }
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

    /// Prefetches the bucket at which a search for the key begins.
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash, guard: &Guard) {
        let shard = self.shard(self.shard_of(hash));
        prefetch(shard.line());
        prefetch(shard.table(guard).home_line(hash.tag()));
    }

    /// Looks at the tag of a key, once its bucket is in the cache, and prefetches the record that
    /// the key most likely has.
    #[inline]
    pub(crate) fn prefetch_record(&self, hash: KeyHash, segments: &SegmentTable, guard: &Guard) -> TagMatch {
        let tag_match = self.match_tag(hash, guard);
        if let TagMatch::Likely(location) = tag_match {
            segments.get(location, guard).lines_of(location.offset(), guard).for_each(prefetch);
        }
        tag_match
    }

    /// As [`Shard::match_tag`], with regard to the suspects.
    #[expect(clippy::inline_always, reason = "a look-up has no instruction to spare")]
    #[inline(always)]
    fn match_tag(&self, hash: KeyHash, guard: &Guard) -> TagMatch {
        match self.shard(self.shard_of(hash)).match_tag(hash.tag(), guard) {
            // Perhaps a suspect.
            TagMatch::Absent if !self.suspects.are_settled() => TagMatch::Unsure,
            tag_match => tag_match,
        }
    }

    /// The result of one short look at `key`, which nearly always suffices. The fewer instructions
    /// it takes, the earlier the processor reaches the next look-up and overlaps their cache
    /// misses.
    #[expect(clippy::inline_always, reason = "without inlining, the result would go through memory")]
    #[inline(always)]
    pub(crate) fn glance<'g>(
        &self,
        hash: KeyHash,
        key: &[u8],
        segments: &SegmentTable,
        guard: &'g Guard,
    ) -> Glance<'g> {
        match self.match_tag(hash, guard) {
            TagMatch::Likely(location) => match segments.look(location, key, guard) {
                Look::Found(found) => Glance::Found(location, found),
                Look::OtherKey | Look::Cold => Glance::Unsure,
            },
            TagMatch::Absent => Glance::Absent,
            TagMatch::Unsure => Glance::Unsure,
        }
    }

    /// Calls `found` with the newest record of `key` and its location, if there is one. Adds to
    /// `others` the cold records that were read and have other keys. A caller that passes `others`
    /// replaces the record, and uses no more than the length of its value, which may be damaged.
    ///
    /// # Errors
    /// A cold record cannot be read.
    #[inline]
    pub(crate) fn find<R>(
        &self,
        hash: KeyHash,
        key: &[u8],
        others: Option<&mut Vec<Location>>,
        segments: &SegmentTable,
        guard: &Guard,
        found: impl FnOnce(Location, Found<'_>) -> R,
    ) -> Result<Option<R>> {
        match self.glance(hash, key, segments, guard) {
            Glance::Found(location, one) if others.is_none() || self.suspects.are_settled() => {
                Ok(Some(found(location, one)))
            }
            Glance::Absent => Ok(None),
            Glance::Found(..) | Glance::Unsure => self.search(hash, key, others, segments, guard, found),
        }
    }

    /// As [`find`](Self::find), after a glance was not sufficient.
    #[cold]
    #[inline(never)]
    pub(crate) fn search<R>(
        &self,
        hash: KeyHash,
        key: &[u8],
        others: Option<&mut Vec<Location>>,
        segments: &SegmentTable,
        guard: &Guard,
        found: impl FnOnce(Location, Found<'_>) -> R,
    ) -> Result<Option<R>> {
        let shard = Unlocked { shard: self.shard(self.shard_of(hash)), guard };
        let mut own = Vec::new();
        let purpose = if others.is_some() { Purpose::Replace } else { Purpose::Read };
        let others = others.unwrap_or(&mut own);
        if !self.suspects.are_settled() {
            let replaced = (purpose == Purpose::Replace).then_some(key);
            self.settle_tag(hash, replaced, segments, guard)?;
        }
        let sought = Sought { hash, key, purpose };
        search(&shard, &sought, others, segments, guard, |location, record, record_len, image| {
            found(location, Found { value: record.value, record_len, image })
        })
    }

    /// Locks one shard for changes.
    pub(crate) fn lock(&self, shard: usize) -> LockedShard<'_> {
        let (shard, number) = (self.shard(shard).lock(), shard);
        LockedShard { shard, replaced: &self.replaced, suspects: &self.suspects, number }
    }

    /// The current locations of all keys in one shard.
    pub(crate) fn locations(&self, shard: usize, into: &mut Vec<Location>) {
        into.clear();
        into.extend(self.shard(shard).lock().entries().map(Entry::location));
    }

    /// Whether the newest record of its key lies at `location`.
    pub(crate) fn points_at(&self, hash: KeyHash, location: Location, guard: &Guard) -> bool {
        self.shard(self.shard_of(hash)).find(hash.tag(), guard, |entry| entry == location).is_some()
    }

    /// Moves a key from one location to another, unless a writer has changed it meanwhile. Returns
    /// whether it moved.
    pub(crate) fn relocate(&self, hash: KeyHash, from: Location, to: Location) -> bool {
        let mut shard = self.shard(self.shard_of(hash)).lock();
        let found = shard.find(hash.tag(), |entry| entry == from);
        if let Some((at, _)) = found {
            shard.relocate(at, Entry::new(hash.tag(), to));
        }
        found.is_some()
    }

    /// Memory of all tables, bytes. It takes no lock, because a caller may hold others.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let guard = pin();
        let tables: usize = self.shards.iter().map(|shard| shard.table(&guard).allocated_bytes()).sum();
        tables + size_of_val(&*self.shards)
    }

    /// Memory of replaced tables that readers may still look at, bytes.
    pub(crate) fn replaced_bytes(&self) -> u64 {
        self.replaced.bytes()
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(Shard::len).sum()
    }

    /// Bytes of all keys and their values.
    pub(crate) fn pair_bytes(&self) -> usize {
        self.shards.iter().map(Shard::pair_bytes).sum()
    }
}

/// One shard, locked for changes. They become visible when it is dropped.
#[derive(Debug)]
pub(crate) struct LockedShard<'a> {
    shard: shard::LockedShard<'a>,
    replaced: &'a Replaced,
    suspects: &'a Suspects,
    number: usize,
}

/// The location of the newest record of a key, and the lengths by which a writer counts the dead
/// record. Limits keep both lengths within 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) location: Location,
    pub(crate) value_len: u32,
    pub(crate) record_len: u32,
}

impl Newest {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a segment has at most 128 MiB")]
    pub(crate) fn new(location: Location, found: Found<'_>) -> Self {
        let (value_len, record_len) = (found.value.len() as u32, found.record_len as u32);
        Newest { location, value_len, record_len }
    }
}

/// The search met a cold record that the caller had not read, or a suspect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unresolved;

impl LockedShard<'_> {
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// As [`Index::points_at`].
    pub(crate) fn points_at(&self, hash: KeyHash, location: Location) -> bool {
        self.shard.find(hash.tag(), |entry| entry == location).is_some()
    }

    /// The locations with this hash that are `wanted`.
    pub(crate) fn locations_with(&self, hash: KeyHash, wanted: impl Fn(Location) -> bool) -> Vec<Location> {
        let mut locations = Vec::new();
        self.shard.find(hash.tag(), |location| {
            if wanted(location) {
                locations.push(location);
            }
            false
        });
        locations
    }

    /// As [`Index::find`]. Cold records at `others` have other keys.
    ///
    /// # Errors
    /// A cold record cannot be read.
    pub(crate) fn find<R>(
        &self,
        hash: KeyHash,
        key: &[u8],
        others: &mut Vec<Location>,
        segments: &SegmentTable,
        guard: &Guard,
        found: impl FnOnce(Location, Record<'_>, usize) -> R,
    ) -> Result<Option<R>> {
        let sought = Sought { hash, key, purpose: Purpose::Read };
        search(&self.shard, &sought, others, segments, guard, |location, record, len, _| {
            found(location, record, len)
        })
    }

    /// The location of the newest record of `key`, without a read of any file. Before the caller
    /// locked the shard, it found the record at `newest`, and cold records of other keys with the
    /// same tag at `others`. Both may be outdated.
    ///
    /// # Errors
    /// The look-ups of the caller are outdated, and the record is cold. A suspect has the same tag.
    #[inline]
    pub(crate) fn resolve(
        &self,
        hash: KeyHash,
        key: &[u8],
        newest: Option<Newest>,
        others: &[Location],
        segments: &SegmentTable,
        guard: &Guard,
    ) -> Result<Option<Newest>, Unresolved> {
        if self.suspects.has_tag(self.number, hash.tag()) {
            return Err(Unresolved);
        }
        self.resolve_in_table(hash, key, newest, others, segments, guard)
    }

    /// As [`resolve`](Self::resolve), whether there are suspects or not.
    #[inline]
    fn resolve_in_table(
        &self,
        hash: KeyHash,
        key: &[u8],
        newest: Option<Newest>,
        others: &[Location],
        segments: &SegmentTable,
        guard: &Guard,
    ) -> Result<Option<Newest>, Unresolved> {
        let (mut resolved, mut unresolved) = (None, false);
        self.shard.find(hash.tag(), |location| {
            if newest.is_some_and(|newest| newest.location == location) {
                resolved = newest;
                return true;
            }
            if others.contains(&location) {
                return false;
            }
            match segments.look(location, key, guard) {
                Look::Found(found) => resolved = Some(Newest::new(location, found)),
                Look::OtherKey => return false,
                Look::Cold => unresolved = true,
            }
            true
        });
        if unresolved { Err(Unresolved) } else { Ok(resolved) }
    }

    /// Counts the bytes of added and removed pairs.
    #[inline]
    pub(crate) fn count_pairs(&mut self, added: usize, removed: usize) {
        self.shard.count_pairs(added, removed);
    }

    /// Makes room for `keys` more keys. Changes nothing that a reader sees.
    ///
    /// # Errors
    /// The system has no memory for a larger table. `path` is the error's.
    #[inline]
    pub(crate) fn reserve(&mut self, keys: usize, path: &Path) -> Result<()> {
        self.shard.reserve(keys, self.replaced).map_err(|error| Error::io(Op::GrowIndex, path, error))
    }

    /// Points a key at `location`. It pointed at `before`, if it was present. Otherwise the caller
    /// has [reserved](Self::reserve) room for it.
    #[inline]
    pub(crate) fn insert(&mut self, hash: KeyHash, before: Option<Location>, location: Location) {
        let entry = Entry::new(hash.tag(), location);
        match before {
            Some(before) => {
                let (at, _) =
                    self.shard.find(hash.tag(), |found| found == before).expect("it was just found");
                self.shard.replace(at, entry);
            }
            None => self.shard.insert(entry),
        }
    }

    /// Removes the key that points at `location`, if one does.
    pub(crate) fn remove(&mut self, hash: KeyHash, location: Location) {
        if let Some((at, _)) = self.shard.find(hash.tag(), |found| found == location) {
            self.shard.remove(at);
        }
    }
}

/// The result of one short look at a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Glance<'g> {
    Found(Location, Found<'g>),
    Absent,
    /// Another key has the same tag, the record is cold, or a writer changes the shard.
    Unsure,
}

/// A shard that can be searched with or without its lock.
trait Probe {
    /// The location with this tag for which `wanted` is true.
    fn probe(&self, tag: u64, wanted: impl FnMut(Location) -> bool) -> Option<Location>;
}

struct Unlocked<'a> {
    shard: &'a Shard,
    guard: &'a Guard,
}

impl Probe for Unlocked<'_> {
    #[inline]
    fn probe(&self, tag: u64, wanted: impl FnMut(Location) -> bool) -> Option<Location> {
        self.shard.find(tag, self.guard, wanted)
    }
}

impl Probe for shard::LockedShard<'_> {
    #[inline]
    fn probe(&self, tag: u64, wanted: impl FnMut(Location) -> bool) -> Option<Location> {
        self.find(tag, wanted).map(|(_, location)| location)
    }
}

/// The use of a record that is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Read,
    /// Only the key and the length of the value matter.
    Replace,
}

/// The record that is searched.
struct Sought<'a> {
    hash: KeyHash,
    key: &'a [u8],
    purpose: Purpose,
}

/// Searches for the newest record of a key, and calls `use_it` with it and its length in bytes: to
/// return it would take longer than to find it.
///
/// Reads cold records between two probes. During a probe, a change would make the probe begin
/// again. A location leads to the same record while the caller is pinned, so the last probe has the
/// answer.
fn search<R>(
    shard: &impl Probe,
    sought: &Sought<'_>,
    others: &mut Vec<Location>,
    segments: &SegmentTable,
    guard: &Guard,
    use_it: impl FnOnce(Location, Record<'_>, usize, Option<&Image>) -> R,
) -> Result<Option<R>> {
    let Sought { hash, key, purpose } = *sought;
    loop {
        let found = shard.probe(hash.tag(), |location| match segments.look(location, key, guard) {
            Look::Found(_) => true,
            Look::OtherKey => false,
            Look::Cold => !others.contains(&location),
        });
        let Some(location) = found else { return Ok(None) };
        let segment = segments.get(location, guard);
        let fetched;
        let (record, image) = if let Some((record, image)) = segment.resident(location.offset(), guard) {
            (record, Some(image))
        } else {
            fetched = match purpose {
                Purpose::Read => segments.fetch(segment, location.offset())?,
                Purpose::Replace => segments.fetch_replaced(segment, location.offset(), key)?,
            };
            (fetched.record(), None)
        };
        if record.key == key {
            let len = encoded_len(segment.base_lsn, record.lsn, record.key.len(), record.value.len());
            return Ok(Some(use_it(location, record, len, image)));
        }
        others.push(location);
    }
}
