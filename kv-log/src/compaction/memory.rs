//! Compaction in memory: the compactor copies a segment's live records to an image of exactly their
//! size. The old image is freed once no reader uses it. The file stays as it is, so a crash can
//! lose nothing.
//!
//! Source: Rumble, Kejriwal and Ousterhout, "Log-structured Memory for DRAM-based Storage", FAST
//! 2014. Memory costs more than disk, so it is kept at a higher utilization, and freed without I/O.

use kv_wal_format::{Decoder, Encoder, RecordKind, SEGMENT_HEADER_LEN};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::choice::oldest_dead_put;
use super::claims::{Alone, Claims};
use crate::context::Context;
use crate::index::{Index, KeyHash};
use crate::manifest::Catalog;
use crate::memory::prefetch;
use crate::reclaim::{Guard, collect, pin};
use crate::relocation::{LOOK_UPS_AT_A_TIME, count_relocated};
use crate::segments::{Contents, Image, Location, Segment, SegmentTable, Shifts};
use crate::working::Working;

/// Prefetch distance of a walk through an image, bytes.
const AHEAD: usize = 2048;

/// A record that may survive.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    encoded: &'a [u8],
    from: Location,
    hash: KeyHash,
    /// Otherwise it is a tombstone, which survives.
    is_put: bool,
}

/// Compacts segments in memory.
#[derive(Debug)]
pub(super) struct MemoryCompactor {
    context: Arc<Context>,
    index: Arc<Index>,
    segments: Arc<SegmentTable>,
    catalog: Arc<Catalog>,
    claims: Arc<Claims>,
}

impl MemoryCompactor {
    pub(super) fn new(
        context: &Arc<Context>,
        index: &Arc<Index>,
        segments: &Arc<SegmentTable>,
        catalog: &Arc<Catalog>,
        claims: &Arc<Claims>,
    ) -> Self {
        MemoryCompactor {
            context: Arc::clone(context),
            index: Arc::clone(index),
            segments: Arc::clone(segments),
            catalog: Arc::clone(catalog),
            claims: Arc::clone(claims),
        }
    }

    /// Compacts each of the durable victims. Returns the bytes of images that came free. Other
    /// threads may compact in memory between two victims.
    pub(super) fn compact(&self, victims: &[Arc<Segment>]) -> u64 {
        victims.iter().filter_map(|victim| self.shrink(victim, &self.claims.lock())).sum()
    }

    /// Compacts one victim. `None` if there is nothing to gain, no memory or slot for the copy, or
    /// another compaction has the victim.
    pub(super) fn shrink(&self, old: &Arc<Segment>, alone: &Alone<'_>) -> Option<u64> {
        if !alone.is_free(old) || !self.catalog.is_current(old) {
            return None;
        }
        let oldest_elsewhere = oldest_dead_put(&self.catalog.segments(), &[old.id]);
        let hides = |lsn: u64| lsn > oldest_elsewhere;
        // Records may die meanwhile, but none becomes live, so the survivors fit.
        let tombstones =
            if hides(old.max_lsn()) { old.tally.tombstone_bytes.load(Ordering::Relaxed) } else { 0 };
        let survivors = old.tally.live_bytes() + tombstones;
        let capacity = SEGMENT_HEADER_LEN + usize::try_from(survivors).unwrap_or(usize::MAX);
        let contents = old.resident_contents().filter(|contents| capacity < contents.memory_bytes())?;
        let copy = Working::of(&self.context.counters.copy_bytes, capacity);
        let image = Image::new(capacity).ok()?;
        let slot = self.segments.reserve_slot(0)?;
        let new = Arc::new(old.with_image(slot, image));
        self.segments.install(&new);
        self.move_records(&contents, old, &new, hides);
        let replaced = Working::of(&self.context.counters.promised_bytes, old.resident_bytes());
        self.catalog.replace_image(&new);
        drop(copy);

        let freed = contents.memory_bytes() - new.capacity;
        // Dropped, so that the image can be recycled once no reader uses it.
        drop(contents);
        self.segments.retire(old);
        drop(replaced);
        collect();
        self.context.counters.memory_compactions.fetch_add(1, Ordering::Relaxed);
        Some(freed as u64)
    }

    /// Copies the survivors of `old` to `new`, and points the index at them.
    fn move_records(&self, contents: &Contents, old: &Segment, new: &Segment, hides: impl Fn(u64) -> bool) {
        let mut shifts = Shifts::default();
        let image = new.share_image().expect("the evictor takes only segments in the catalog");
        let (bytes, mut from, mut to) = (contents.bytes(), SEGMENT_HEADER_LEN, SEGMENT_HEADER_LEN);
        // SAFETY: `new` has no reader yet, because the index holds no location in it.
        unsafe {
            let header = bytes.get(..SEGMENT_HEADER_LEN).unwrap_or_default();
            image.fill(0, header.len(), |out| out.copy_from_slice(header));
        }
        let mut group: Vec<Candidate<'_>> = Vec::with_capacity(LOOK_UPS_AT_A_TIME);
        while from < bytes.len() {
            let guard = pin();
            while group.len() < LOOK_UPS_AT_A_TIME && from < bytes.len() {
                prefetch(bytes.as_ptr().wrapping_add(from + AHEAD));
                let (record, len) = contents.record_at(from);
                let hash = self.index.hash(record.key);
                if record.kind == RecordKind::Put {
                    self.index.prefetch(hash, &guard);
                }
                if record.kind == RecordKind::Put || record.kind == RecordKind::Delete && hides(record.lsn) {
                    let encoded = bytes.get(from..from + len).unwrap_or_default();
                    let from = Location::new(old.slot, from);
                    group.push(Candidate { encoded, from, hash, is_put: record.kind == RecordKind::Put });
                }
                from += len;
            }
            let puts = group
                .iter()
                .filter(|candidate| candidate.is_put)
                .map(|candidate| candidate.encoded.len() as u64);
            count_relocated(new, puts.sum(), || {
                let mut moved = 0;
                for candidate in group.drain(..) {
                    let len = self.move_record(&candidate, new, &image, to, &guard);
                    moved += if candidate.is_put { len as u64 } else { 0 };
                    if len > 0 {
                        shifts.note(to, old.offset_in_file(candidate.from.offset()));
                    }
                    to += len;
                }
                new.set_end(to);
                moved
            });
        }
        new.set_shifts(shifts);
    }

    /// Copies one record to the end of `new`. Returns the bytes that it takes there: 0 if it is
    /// dead.
    fn move_record(
        &self,
        candidate: &Candidate<'_>,
        new: &Segment,
        image: &Image,
        to: usize,
        guard: &Guard,
    ) -> usize {
        let Candidate { encoded, from, hash, is_put } = *candidate;
        // Recognises most dead records without a lock.
        if is_put && !self.index.points_at(hash, from, guard) {
            return 0;
        }
        // SAFETY: the bytes from `to` on were never published: the index holds no location there,
        // and the segment's end is before them.
        let copied = unsafe {
            // Not only the bytes: a copy stands alone, without the rest of its batch.
            let (encoder, decoder) = (Encoder::new(new.origin()), Decoder::new(new.origin()));
            image.fill(to, encoded.len(), |out| encoder.copy(&decoder, encoded, out))
        };
        assert_eq!(copied, Some(encoded.len()), "an image holds whole records");
        if !is_put {
            new.tally.tombstone_bytes.fetch_add(encoded.len() as u64, Ordering::Relaxed);
        } else if !self.index.relocate(hash, from, Location::new(new.slot, to)) {
            // A writer replaced it meanwhile. The next record overwrites the copy.
            return 0;
        }
        encoded.len()
    }
}
