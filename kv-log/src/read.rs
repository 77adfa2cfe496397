//! Reads: the reader finds the location of a record in the index, and reads the record in place. A
//! get of a resident record takes no lock. A scan locks each shard while it lists locations, and a
//! cold read locks the segment's file handle. `get` copies the value; a visitor sees it in place.
//!
//! A caller's code may look at a value for long, and while a reader is pinned, no memory at all is
//! freed. So no reader is pinned then: a hazard pointer protects each value.

use kv_core::{Result, ScanVisitor, Value};
use std::sync::Arc;

use crate::context::Context;
use crate::index::{Glance, Index, KeyHash, TagMatch};
use crate::reclaim::{Guard, HAZARDS_MAX, Hold, pin};
use crate::segments::{Contents, Found, Location, Look, Segment, SegmentTable};

/// Keys that are looked up together. Sixteen overlap as many cache misses as a processor allows.
/// They take half of the hazard pointers, so a `read_many` inside a visitor still finds free ones.
const KEYS_AT_A_TIME: usize = HAZARDS_MAX / 2;

/// A segment that a scan visits, its image if it had one, and the offsets of its records.
struct InSegment {
    segment: Arc<Segment>,
    contents: Option<Contents>,
    offsets: Vec<usize>,
}

/// Serves gets and scans.
#[derive(Debug)]
pub(crate) struct Reader {
    context: Arc<Context>,
    index: Arc<Index>,
    segments: Arc<SegmentTable>,
}

impl Reader {
    pub(crate) fn new(context: Arc<Context>, index: Arc<Index>, segments: Arc<SegmentTable>) -> Self {
        Reader { context, index, segments }
    }

    /// As [`Engine::get`](kv_core::Engine::get).
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.check_look_up(key)?;
        let (hash, guard) = (self.index.hash(key), pin());
        self.index.find(hash, key, None, &self.segments, &guard, |_, found| Value::from(found.value))
    }

    /// As [`Engine::read`](kv_core::Engine::read).
    pub(crate) fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.check_look_up(key)?;
        let (hash, guard) = (self.index.hash(key), pin());
        let hold = guard.hold();
        let value = match self.index.glance(hash, key, &self.segments, &guard) {
            Glance::Found(_, found) => found.keep_in(&hold),
            Glance::Absent => return Ok(false),
            Glance::Unsure => return self.read_unsure(hash, key, &hold, guard, visit),
        };
        drop(guard);
        visit(value);
        Ok(true)
    }

    /// Continues [`read`](Self::read) after a glance was not sufficient. It is a function of its
    /// own, because the compiler would merge the two ways through memory.
    #[cold]
    fn read_unsure(
        &self,
        hash: KeyHash,
        key: &[u8],
        hold: &Hold,
        guard: Guard,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<bool> {
        let keep = |_, found: Found<'_>| found.keep_in(hold);
        let value = self.index.search(hash, key, None, &self.segments, &guard, keep)?;
        drop(guard);
        value.map(visit);
        Ok(value.is_some())
    }

    #[inline]
    fn check_look_up(&self, key: &[u8]) -> Result<()> {
        self.context.health.check_readable()?;
        self.context.check_key(key)
    }

    /// As [`Engine::read_many`](kv_core::Engine::read_many).
    ///
    /// A look-up waits for memory twice: for the index and for the record. The reader prefetches
    /// both for several keys before it waits for the first (Chen, Ailamaki, Gibbons and Mowry,
    /// "Improving Hash Join Performance through Prefetching", ICDE 2004: group prefetching).
    pub(crate) fn read_many(
        &self,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        self.context.health.check_readable()?;
        keys.iter().try_for_each(|key| self.context.check_key(key))?;
        for (group, keys) in keys.chunks(KEYS_AT_A_TIME).enumerate() {
            let (guard, mut values) = (pin(), [None; KEYS_AT_A_TIME]);
            let hold = guard.hold();
            self.look_up_group(keys, &guard, |position, found| {
                if let Some(value) = values.get_mut(position) {
                    *value = Some(found.keep_in(&hold));
                }
            })?;
            drop(guard);
            for (position, value) in values.into_iter().take(keys.len()).enumerate() {
                visit(group * KEYS_AT_A_TIME + position, value);
            }
        }
        Ok(())
    }

    /// Looks up at most [`KEYS_AT_A_TIME`] keys together. The answers are of moments in the order
    /// of the keys, as those of single reads.
    #[inline]
    fn look_up_group(
        &self,
        keys: &[&[u8]],
        guard: &Guard,
        mut found: impl FnMut(usize, Found<'_>),
    ) -> Result<()> {
        let mut hashes = [KeyHash::default(); KEYS_AT_A_TIME];
        for (key, hash) in keys.iter().zip(&mut hashes) {
            *hash = self.index.hash(key);
            self.index.prefetch(*hash, guard);
        }
        let mut matches = [TagMatch::Unsure; KEYS_AT_A_TIME];
        for (hash, tag_match) in hashes.iter().take(keys.len()).zip(&mut matches) {
            *tag_match = self.index.prefetch_record(*hash, &self.segments, guard);
        }
        // The look at the tag decides, unless a key before this one had to be looked up later.
        let mut decides = true;
        for (position, ((key, hash), tag_match)) in keys.iter().zip(hashes).zip(matches).enumerate() {
            match tag_match {
                TagMatch::Likely(location) if decides => {
                    if let Look::Found(one) = self.segments.look(location, key, guard) {
                        found(position, one);
                        continue;
                    }
                }
                TagMatch::Absent if decides => continue,
                _ => {}
            }
            decides = false;
            self.index.find(hash, key, None, &self.segments, guard, |_, one| found(position, one))?;
        }
        Ok(())
    }

    /// As [`Engine::scan`](kv_core::Engine::scan): shard by shard, and in each in the order of
    /// memory.
    pub(crate) fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.context.health.check_readable()?;
        let mut locations = Vec::new();
        for shard in 0..self.index.shard_count() {
            self.index.settle_shard(shard, &self.segments, &pin())?;
            for part in self.by_segment(shard, &mut locations) {
                for offset in part.offsets {
                    let flow = if let Some(contents) = &part.contents {
                        let (record, _) = contents.record_at(offset);
                        visit(record.key, record.value)
                    } else {
                        let fetched = self.segments.fetch(&part.segment, offset)?;
                        visit(fetched.record().key, fetched.record().value)
                    };
                    if flow.is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The segments and offsets of the records in one shard. The records stay while the caller
    /// holds the answer.
    fn by_segment(&self, shard: usize, locations: &mut Vec<Location>) -> Vec<InSegment> {
        // Pinned before the locations are read, so that their segments can be shared.
        let guard = pin();
        self.index.locations(shard, locations);
        locations.sort_unstable_by_key(|location| location.bits());
        locations
            .chunk_by(|one, next| one.slot() == next.slot())
            .filter_map(|in_segment| {
                let last = in_segment.last()?;
                let segment = self.segments.share(*last, &guard);
                let contents = segment.contents_through(last.offset());
                let offsets = in_segment.iter().map(|location| location.offset()).collect();
                Some(InSegment { segment, contents, offsets })
            })
            .collect()
    }
}
