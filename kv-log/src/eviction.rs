//! Eviction: with a memory budget, the oldest segments give up their images, and readers read
//! their records from the files.
//!
//! Images and the index count against the budget. Only images can be evicted. The evictor leaves
//! room for the images that compaction reads and writes next.
//!
//! There are two ways:
//!
//! - In place: the image holds the same bytes as the file, so locations stay true. The flusher
//!   evicts in place once segments are durable. `Spares` evicts before each new image. So writers
//!   cannot outrun eviction.
//! - With new locations: compaction in memory has changed the image, so the evictor points the
//!   index at the same records in the file. This needs the compaction lock.

use kv_wal_format::{RecordKind, SEGMENT_HEADER_LEN, Scanner};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::context::Context;
use crate::index::Index;
use crate::manifest::Catalog;
use crate::reclaim::collect;
use crate::relocation::{Move, relocate_all};
use crate::segments::{Location, Segment, SegmentTable};

/// Keeps the images of segments within the memory budget.
#[derive(Debug)]
pub(crate) struct Evictor {
    context: Arc<Context>,
    index: Arc<Index>,
    segments: Arc<SegmentTable>,
    catalog: Arc<Catalog>,
}

impl Evictor {
    pub(crate) fn new(
        context: Arc<Context>,
        index: Arc<Index>,
        segments: Arc<SegmentTable>,
        catalog: Arc<Catalog>,
    ) -> Self {
        Evictor { context, index, segments, catalog }
    }

    /// Evicts in place until the images are within the budget, or no image can be evicted in place.
    pub(crate) fn evict_in_place(&self) {
        self.evict(|victim| if victim.mirrors_file { self.segments.evict(victim) } else { 0 });
    }

    /// Evicts until the images are within the budget, or no image can be evicted. The caller holds
    /// the compaction lock.
    pub(crate) fn evict_to_limit(&self) {
        self.evict(
            |victim| {
                if victim.mirrors_file { self.segments.evict(victim) } else { self.unload(victim) }
            },
        );
    }

    /// Calls `take_image`, which returns the bytes of an evicted image, for the oldest segments
    /// until the images are within the budget.
    fn evict(&self, take_image: impl Fn(&Arc<Segment>) -> u64) {
        let Some((mut excess, victims)) = self.eviction_due() else { return };
        for victim in &victims {
            if excess == 0 {
                break;
            }
            let freed = take_image(victim);
            self.context.counters.evictions.fetch_add(u64::from(freed > 0), Ordering::Relaxed);
            excess = excess.saturating_sub(freed);
        }
        collect();
    }

    /// The excess over the budget, bytes of images, and the segments that may be evicted, coldest
    /// first. `None` within the budget.
    fn eviction_due(&self) -> Option<(u64, Vec<Arc<Segment>>)> {
        let limit = self.context.options.resident_bytes_max()?;
        let mut segments = self.catalog.segments();
        let images: u64 = segments.iter().map(|segment| segment.memory_bytes() as u64).sum();
        let used = images + self.index.allocated_bytes() as u64;
        let excess = used.checked_sub(limit).filter(|excess| *excess > 0)?;
        segments.retain(|segment| segment.is_durable());
        // Age stands for coldness: the engine does not count reads.
        segments.sort_by_key(|segment| (segment.created, segment.id));
        Some((excess, segments))
    }

    /// Keeps each victim, in the policy's order, that fits the memory for loaded segments. Resident
    /// victims always fit. The first one is kept in any case.
    pub(crate) fn keep_loadable(&self, victims: &mut Vec<Arc<Segment>>) {
        keep_fitting(victims, self.context.options.loaded_bytes_max(), |victim| {
            if victim.memory_bytes() > 0 { 0 } else { victim.file_len() as u64 }
        });
    }

    /// Evicts an image that compaction in memory has changed. Returns its size in bytes. If the
    /// file cannot be read, the image stays, because it may hold the only copy of its records.
    fn unload(&self, old: &Arc<Segment>) -> u64 {
        let freed = old.memory_bytes() as u64;
        if freed == 0 {
            return 0;
        }
        let Some(slot) = self.segments.reserve_slot(0) else { return 0 };
        let new = Arc::new(old.without_image(slot));
        let Some(moves) = self.moves_to_file(old, &new) else {
            self.segments.return_slot(slot);
            return 0;
        };
        new.tally.tombstone_bytes.store(old.tally.tombstone_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.segments.install(&new);
        relocate_all(&self.index, &new, moves.into_iter());
        self.catalog.replace_image(&new);
        self.segments.retire(old);
        freed
    }

    /// The moves of records from the image of `old` to the file that it shares with `new`. Both
    /// hold the records in the same order, and the file holds all of them. `None` if the file
    /// cannot be read.
    fn moves_to_file(&self, old: &Segment, new: &Segment) -> Option<Vec<Move>> {
        let (image, file) = (old.resident_contents()?, new.contents().ok()?);
        let mut in_file = Scanner::new(old.origin(), file.bytes(), SEGMENT_HEADER_LEN);
        let (mut moves, mut from) = (Vec::new(), SEGMENT_HEADER_LEN);
        while from < image.bytes().len() {
            let (record, len) = image.record_at(from);
            if record.kind == RecordKind::Put {
                let (to, _) = in_file.by_ref().find(|(_, other)| {
                    (other.kind, other.lsn, other.key) == (record.kind, record.lsn, record.key)
                })?;
                moves.push(Move {
                    hash: self.index.hash(record.key),
                    from: Location::new(old.slot, from),
                    to: Location::new(new.slot, to.start),
                    len: len as u64,
                });
            }
            from += len;
        }
        Some(moves)
    }
}

/// Keeps each victim, in the given order, whose cost fits what those before it have left of
/// `limit`. The first one is kept in any case.
pub(crate) fn keep_fitting(victims: &mut Vec<Arc<Segment>>, limit: u64, cost: impl Fn(&Segment) -> u64) {
    let (mut left, mut any) = (limit, false);
    victims.retain(|victim| {
        let cost = cost(victim);
        let fits = cost <= left || !any;
        if fits {
            left = left.saturating_sub(cost);
            any = true;
        }
        fits
    });
}
