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

use super::{LOOK_UPS_AT_A_TIME, Move, oldest_dead_put};
use crate::segment::{Contents, Image, Location, Segment};
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
        let oldest_elsewhere = oldest_dead_put(&self.catalog.segments(), &[old.id]);
        let hides = |lsn: u64| lsn > oldest_elsewhere;
        // Records die meanwhile, and none comes to life: there will be room for all that must stay.
        let tombstones = if hides(old.max_lsn()) { old.tombstone_bytes.load(Ordering::Relaxed) } else { 0 };
        let survivors = old.live_bytes.load(Ordering::Relaxed) + tombstones;
        let capacity = SEGMENT_HEADER_LEN + usize::try_from(survivors).unwrap_or(usize::MAX);
        let Some(contents) = old.resident_contents().filter(|contents| capacity < contents.memory_bytes())
        else {
            return Ok(0);
        };
        let Some(slot) = self.segments.reserve_slot() else { return Ok(0) };
        let image = Image::new(capacity).map_err(|error| {
            self.segments.return_slot(slot);
            Error::io("allocate memory for", old.file.path(), error)
        })?;
        let new = Arc::new(old.with_image(slot, image));
        self.segments.install(&new);
        self.move_records(&contents, old.slot, &new, hides);
        self.catalog.replace_image(&new);

        let guard = crossbeam_epoch::pin();
        self.segments.retire(old, &guard);
        guard.flush();
        self.counters.memory_compactions.fetch_add(1, Ordering::Relaxed);
        Ok((contents.memory_bytes() - new.capacity) as u64)
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
        let mut group = Vec::with_capacity(LOOK_UPS_AT_A_TIME);
        while from < bytes.len() {
            let guard = crossbeam_epoch::pin();
            while group.len() < LOOK_UPS_AT_A_TIME && from < bytes.len() {
                let record = contents.record_at(from);
                let (hash, len) = (self.index.hash(record.key), record.encoded_len());
                self.index.prefetch(hash, &guard);
                group.push((bytes.get(from..from + len).unwrap_or_default(), from, record, hash));
                from += len;
            }
            for (encoded, from, record, hash) in group.drain(..) {
                let is_tombstone = record.kind == RecordKind::Delete && hides(record.lsn);
                if is_tombstone || record.kind == RecordKind::Put {
                    let one = Move {
                        hash,
                        from: Location::new(old, from),
                        to: Location::new(new.slot, to),
                        len: encoded.len() as u64,
                    };
                    to += self.move_record(encoded, new, &image, &one, is_tombstone);
                    new.set_end(to);
                }
            }
        }
    }

    /// Copies one record, and returns how many bytes of `new` it takes: none when it is dead. It is copied before that is
    /// known, and written over by the next one then, which saves looking it up twice.
    fn move_record(
        &self,
        encoded: &[u8],
        new: &Segment,
        image: &Image,
        one: &Move,
        is_tombstone: bool,
    ) -> usize {
        let (to, len) = (one.to.offset(), encoded.len());
        if to + len > image.capacity() {
            // There is room for all that is not dead.
            return 0;
        }
        // SAFETY: the bytes from `to` on were never published: no location of theirs is in the index, and `end` is before
        // them.
        let copied = unsafe { image.fill(to, len, |out| Encoder::new(new.id.get()).copy(encoded, out)) };
        assert_eq!(copied, Some(len), "an image holds whole records");
        if is_tombstone {
            new.tombstone_bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        if is_tombstone || self.relocate(new, one) { len } else { 0 }
    }
}
