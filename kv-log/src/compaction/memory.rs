//! Compaction in memory: a segment's live records move to an image that is just as large as they are, and the old
//! image goes back to the system once no reader can look at it. The file stays as it is; nothing changes on disk, so
//! nothing can be lost by a crash.
//!
//! From Rumble, Kejriwal and Ousterhout, "Log-structured Memory for DRAM-based Storage", FAST 2014: memory is dearer
//! than disk, so it is kept fuller, and freed without I/O.

use kv_core::{Error, Result};
use kv_wal_format::{Encoder, RecordKind, SEGMENT_HEADER_LEN};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{LOOK_UPS_AT_A_TIME, Move, oldest_lsn};
use crate::segment::{Image, Location, Segment};
use crate::store::Store;

impl Store {
    /// Compacts each of the victims, which are durable, by itself. Returns how many bytes of images came free.
    pub(super) fn compact_in_memory(&self, victims: &[Arc<Segment>]) -> Result<u64> {
        let mut freed = 0;
        for victim in victims {
            freed += self.shrink(victim)?;
        }
        Ok(freed)
    }

    fn shrink(&self, old: &Arc<Segment>) -> Result<u64> {
        let oldest_elsewhere = oldest_lsn(&self.catalog.segments(), &[old.id]);
        let hides = |lsn: u64| lsn > oldest_elsewhere;
        // Records die meanwhile, and none comes to life: there will be room for all that must stay.
        let tombstones = if hides(old.max_lsn()) { old.tombstone_bytes.load(Ordering::Relaxed) } else { 0 };
        let survivors = old.live_bytes.load(Ordering::Relaxed) + tombstones;
        let capacity = SEGMENT_HEADER_LEN + usize::try_from(survivors).unwrap_or(usize::MAX);
        if capacity >= old.image.capacity() {
            return Ok(0);
        }
        let Some(slot) = self.segments.reserve_slot() else { return Ok(0) };
        let image = Image::new(capacity).map_err(|error| {
            self.segments.return_slot(slot);
            Error::io("allocate memory for", old.file.path(), error)
        })?;
        let new = Arc::new(old.with_image(slot, image));
        self.segments.install(&new);
        self.move_records(old, &new, hides);
        self.catalog.replace_image(&new);

        let guard = crossbeam_epoch::pin();
        self.segments.retire(old, &guard);
        guard.flush();
        self.counters.memory_compactions.fetch_add(1, Ordering::Relaxed);
        Ok((old.image.capacity() - new.image.capacity()) as u64)
    }

    /// Copies what must stay from `old` to `new`, and points the index there.
    fn move_records(&self, old: &Segment, new: &Segment, hides: impl Fn(u64) -> bool) {
        let (bytes, mut from, mut to) = (old.bytes(), SEGMENT_HEADER_LEN, SEGMENT_HEADER_LEN);
        // SAFETY: `new` has no reader yet, since the index holds no location in it.
        unsafe {
            let header = bytes.get(..SEGMENT_HEADER_LEN).unwrap_or_default();
            new.image.fill(0, header.len(), |out| out.copy_from_slice(header));
        }
        let mut group = Vec::with_capacity(LOOK_UPS_AT_A_TIME);
        while from < bytes.len() {
            let guard = crossbeam_epoch::pin();
            while group.len() < LOOK_UPS_AT_A_TIME && from < bytes.len() {
                let record = old.record_at(from);
                let hash = self.index.hash(record.key);
                self.index.prefetch(hash, &guard);
                group.push((from, record, hash));
                from += record.encoded_len();
            }
            for (from, record, hash) in group.drain(..) {
                let is_tombstone = record.kind == RecordKind::Delete && hides(record.lsn);
                if is_tombstone || record.kind == RecordKind::Put {
                    let one = Move {
                        hash,
                        from: Location::new(old.slot, from),
                        to: Location::new(new.slot, to),
                        len: record.encoded_len() as u64,
                    };
                    to += self.move_record(old, new, &one, is_tombstone);
                    new.set_end(to);
                }
            }
        }
    }

    /// Copies one record, and returns how many bytes of `new` it takes: none when it is dead. It is copied before that is
    /// known, and written over by the next one then, which saves looking it up twice.
    fn move_record(&self, old: &Segment, new: &Segment, one: &Move, is_tombstone: bool) -> usize {
        let (from, to) = (one.from.offset(), one.to.offset());
        let len = old.record_at(from).encoded_len();
        if to + len > new.image.capacity() {
            // There is room for all that is not dead.
            return 0;
        }
        let encoded = old.bytes().get(from..from + len).unwrap_or_default();
        // SAFETY: the bytes from `to` on were never published: no location of theirs is in the index, and `end` is before
        // them.
        let copied = unsafe { new.image.fill(to, len, |out| Encoder::new(old.id.get()).copy(encoded, out)) };
        assert_eq!(copied, Some(len), "an image holds whole records");
        if is_tombstone {
            new.tombstone_bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        if is_tombstone || self.relocate(new, one) { len } else { 0 }
    }
}
