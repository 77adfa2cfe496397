//! Eviction: where memory has a budget, the coldest segments give up their images. Their records are read from their
//! files from then on, and the store goes on with more data than memory.
//!
//! What counts against the budget: images, those of heads to come included, and the index. Only images go: as many as
//! it takes to leave room for what compaction reads and writes next.
//!
//! Two ways lead there. An image with the same bytes as the file is taken away in place: locations stay true. That is
//! done by the flush once segments are durable, and whenever an image is added, so that writers cannot outrun it. An
//! image that compaction in memory has been at goes with its locations: its keys are pointed at the same records in the
//! file. That is done with compaction's lock held.

use kv_wal_format::{RecordKind, SEGMENT_HEADER_LEN, Scanner};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::compaction::Move;
use crate::readers::collect;
use crate::segment::{Location, Segment};
use crate::store::Store;

impl Store {
    /// Evicts in place until the rest is within the budget, or nothing more can go like that.
    pub(crate) fn evict_in_place(&self) {
        let Some((mut excess, victims)) = self.eviction_due() else { return };
        for victim in victims.iter().filter(|victim| victim.mirrors_file) {
            if excess == 0 {
                break;
            }
            let freed = self.segments.evict(victim);
            self.counters.evictions.fetch_add(u64::from(freed > 0), Ordering::Relaxed);
            excess = excess.saturating_sub(freed);
        }
        collect();
    }

    /// Evicts until the rest is within the budget, or nothing more can go. With compaction's lock held.
    pub(crate) fn evict_all_that_must_go(&self) {
        let Some((mut excess, victims)) = self.eviction_due() else { return };
        for victim in victims {
            if excess == 0 {
                break;
            }
            let freed = if victim.mirrors_file { self.segments.evict(&victim) } else { self.unload(&victim) };
            self.counters.evictions.fetch_add(u64::from(freed > 0), Ordering::Relaxed);
            excess = excess.saturating_sub(freed);
        }
        collect();
    }

    /// How many bytes of images must go, and the segments that may give up theirs, coldest first; `None` within the budget.
    fn eviction_due(&self) -> Option<(u64, Vec<Arc<Segment>>)> {
        let limit = self.options.resident_bytes_max()?;
        let mut segments = self.catalog.segments();
        let images: u64 = segments.iter().map(|segment| segment.memory_bytes() as u64).sum();
        let used = images + self.index.allocated_bytes() as u64;
        let excess = used.checked_sub(limit).filter(|excess| *excess > 0)?;
        segments.retain(|segment| segment.is_durable());
        // Records that were written long ago are read the least, as far as anybody knows.
        segments.sort_by_key(|segment| (segment.created, segment.id));
        Some((excess, segments))
    }

    /// Leaves out the last of the victims where loading all cold ones would take too much memory: a policy names the most
    /// worthwhile first.
    pub(crate) fn keep_what_can_be_loaded(&self, victims: &mut Vec<Arc<Segment>>) {
        let (mut left, mut any) = (self.options.loaded_bytes_max(), false);
        victims.retain(|victim| {
            let cost = if victim.memory_bytes() > 0 { 0 } else { victim.file_len() as u64 };
            // One at least: it may be larger than others.
            let fits = cost <= left || !any;
            if fits {
                left = left.saturating_sub(cost);
                any = true;
            }
            fits
        });
    }

    /// Gives up the image of a segment that compaction in memory has been at; returns its size. Where the file cannot be
    /// read now, the image stays: it may be all that is left of its records.
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
        new.sums.tombstone_bytes.store(old.sums.tombstone_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.segments.install(&new);
        self.relocate_all(&new, moves.into_iter());
        self.catalog.replace_image(&new);
        self.segments.retire(old);
        freed
    }

    /// From the places of records in the image of `old` to those in the file that it shares with `new`: both hold them in
    /// the same order, and the file holds all of them. `None` when it cannot be read.
    fn moves_to_file(&self, old: &Segment, new: &Segment) -> Option<Vec<Move>> {
        let (image, file) = (old.resident_contents()?, new.contents().ok()?);
        let mut in_file = Scanner::new(old.id.get(), file.bytes(), SEGMENT_HEADER_LEN);
        let (mut moves, mut from) = (Vec::new(), SEGMENT_HEADER_LEN);
        while from < image.bytes().len() {
            let record = image.record_at(from);
            let len = record.encoded_len();
            if record.kind == RecordKind::Put {
                let (to, _) = in_file.by_ref().find(|(_, other)| {
                    (other.kind, other.lsn, other.key) == (record.kind, record.lsn, record.key)
                })?;
                moves.push(Move {
                    hash: self.index.hash(record.key),
                    from: Location::new(old.slot, from),
                    to: Location::new(new.slot, to),
                    len: len as u64,
                });
            }
            from += len;
        }
        Some(moves)
    }
}
