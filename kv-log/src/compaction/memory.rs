//! Compaction in memory: a segment's live records move to an image that is just as large as they are, and the old
//! image goes back to the system once no reader can look at it. The file stays as it is; nothing changes on disk, so
//! nothing can be lost by a crash.
//!
//! From Rumble, Kejriwal and Ousterhout, "Log-structured Memory for DRAM-based Storage", FAST 2014: memory is dearer
//! than disk, so it is kept fuller, and freed without I/O.

use kv_wal_format::{Encoder, RecordKind, SEGMENT_HEADER_LEN};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::choice::oldest_dead_put;
use crate::context::Context;
use crate::index::{Index, KeyHash};
use crate::manifest::Catalog;
use crate::prefetch::prefetch;
use crate::readers::{Guard, collect, pin};
use crate::relocation::{LOOK_UPS_AT_A_TIME, count_relocated};
use crate::segment::{Contents, Image, Location, Segment, SegmentTable};

/// How far a walk through an image asks for memory ahead, bytes.
const AHEAD: usize = 2048;

/// A record that may have to stay.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    encoded: &'a [u8],
    from: Location,
    hash: KeyHash,
    /// Or else a tombstone, which stays.
    is_put: bool,
}

/// Compacts segments in memory.
#[derive(Debug)]
pub(super) struct MemoryCompactor {
    context: Arc<Context>,
    index: Arc<Index>,
    segments: Arc<SegmentTable>,
    catalog: Arc<Catalog>,
}

impl MemoryCompactor {
    pub(super) fn new(
        context: &Arc<Context>,
        index: &Arc<Index>,
        segments: &Arc<SegmentTable>,
        catalog: &Arc<Catalog>,
    ) -> Self {
        MemoryCompactor {
            context: Arc::clone(context),
            index: Arc::clone(index),
            segments: Arc::clone(segments),
            catalog: Arc::clone(catalog),
        }
    }

    /// Compacts each of the victims, which are durable, by itself. Returns how many bytes of images came free.
    pub(super) fn compact(&self, victims: &[Arc<Segment>]) -> u64 {
        victims.iter().filter_map(|victim| self.shrink(victim)).sum()
    }

    /// `None` where nothing is to be gained, or what it takes cannot be had now.
    fn shrink(&self, old: &Arc<Segment>) -> Option<u64> {
        let oldest_elsewhere = oldest_dead_put(&self.catalog.segments(), &[old.id]);
        let hides = |lsn: u64| lsn > oldest_elsewhere;
        // Records die meanwhile, and none comes to life: there will be room for all that must stay.
        let tombstones =
            if hides(old.max_lsn()) { old.sums.tombstone_bytes.load(Ordering::Relaxed) } else { 0 };
        let survivors = old.sums.live_bytes() + tombstones;
        let capacity = SEGMENT_HEADER_LEN + usize::try_from(survivors).unwrap_or(usize::MAX);
        let contents = old.resident_contents().filter(|contents| capacity < contents.memory_bytes())?;
        let image = Image::new(capacity).ok()?;
        let slot = self.segments.reserve_slot(0)?;
        let new = Arc::new(old.with_image(slot, image));
        self.segments.install(&new);
        self.move_records(&contents, old.slot, &new, hides);
        self.catalog.replace_image(&new);

        let freed = contents.memory_bytes() - new.capacity;
        // Let go of, so that the image can be used again as soon as no reader looks at it.
        drop(contents);
        self.segments.retire(old);
        collect();
        self.context.counters.memory_compactions.fetch_add(1, Ordering::Relaxed);
        Some(freed as u64)
    }

    /// Copies what must stay of the segment in slot `old` to `new`, and points the index there.
    fn move_records(&self, contents: &Contents, old: u16, new: &Segment, hides: impl Fn(u64) -> bool) {
        let image = new.share_image().expect("only what is in the catalog is evicted");
        let (bytes, mut from, mut to) = (contents.bytes(), SEGMENT_HEADER_LEN, SEGMENT_HEADER_LEN);
        // SAFETY: `new` has no reader yet, since the index holds no location in it.
        unsafe {
            let header = bytes.get(..SEGMENT_HEADER_LEN).unwrap_or_default();
            image.fill(0, header.len(), |out| out.copy_from_slice(header));
        }
        let mut group: Vec<Candidate<'_>> = Vec::with_capacity(LOOK_UPS_AT_A_TIME);
        while from < bytes.len() {
            let guard = pin();
            while group.len() < LOOK_UPS_AT_A_TIME && from < bytes.len() {
                prefetch(bytes.as_ptr().wrapping_add(from + AHEAD));
                let record = contents.record_at(from);
                let (hash, len) = (self.index.hash(record.key), record.encoded_len());
                if record.kind == RecordKind::Put {
                    self.index.prefetch(hash, &guard);
                }
                if record.kind == RecordKind::Put || record.kind == RecordKind::Delete && hides(record.lsn) {
                    let encoded = bytes.get(from..from + len).unwrap_or_default();
                    let from = Location::new(old, from);
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
                    to += len;
                }
                new.set_end(to);
                moved
            });
        }
    }

    /// Copies one record to the end of `new`, and returns how many bytes it takes there: none when it is dead.
    fn move_record(
        &self,
        candidate: &Candidate<'_>,
        new: &Segment,
        image: &Image,
        to: usize,
        guard: &Guard,
    ) -> usize {
        let Candidate { encoded, from, hash, is_put } = *candidate;
        // Most of what is dead is seen to be so without a lock.
        if is_put && !self.index.points_at(hash, from, guard) {
            return 0;
        }
        // SAFETY: the bytes from `to` on were never published: no location of theirs is in the index, and `end` is before
        // them.
        let copied =
            unsafe { image.fill(to, encoded.len(), |out| Encoder::new(new.id.get()).copy(encoded, out)) };
        assert_eq!(copied, Some(encoded.len()), "an image holds whole records");
        if !is_put {
            new.sums.tombstone_bytes.fetch_add(encoded.len() as u64, Ordering::Relaxed);
        } else if !self.index.relocate(hash, from, Location::new(new.slot, to)) {
            // It died meanwhile. The next one is written over it.
            return 0;
        }
        encoded.len()
    }
}
