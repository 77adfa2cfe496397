//! Segments: the units in which the log is allocated, written, compacted and freed.
//!
//! A segment is one memory image ([`image`]) and one file of the same bytes ([`file`], [`files`]). Its slot in
//! the [`table`] is the first half of every [`Location`] in it. Once it is durable, compaction in memory
//! may replace it by one with the same id and file, an image of what is left, and another slot. It may
//! also give up its image ([`residence`]). Then it is cold: records are read from its file ([`cold`]). An
//! image that was given up is freed once nobody looks at it ([`readers`](crate::readers)).

mod cold;
mod file;
mod files;
mod found;
mod image;
mod location;
mod residence;
mod table;

pub(crate) use cold::{Contents, Fetched};
pub(crate) use file::{SegmentFile, Via};
pub(crate) use files::SegmentFiles;
pub(crate) use found::{Found, Look};
pub(crate) use image::Image;
pub(crate) use location::{Location, SEGMENT_BYTES_MAX, SEGMENTS_MAX, SLOTS_FOR_COMPACTION};
pub(crate) use table::SegmentTable;

use crate::readers::{Guard, pin};
use crate::sync::change;
use kv_core::{Lsn, SegmentId};
use kv_wal_format::{Record, RecordKind, SEGMENT_HEADER_LEN, Seal, SegmentKind};
use residence::Residence;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// One segment of the log.
///
/// Everything but the counters is fixed at creation. Bytes of the image below a record's end never
/// change once the record is published.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    /// Its place in the segment table, and in every location.
    pub(crate) slot: u16,
    pub(crate) kind: SegmentKind,
    residence: Residence,
    /// Room for records, bytes from the start: of the image it was made with, and of the file until it is trimmed.
    pub(crate) capacity: usize,
    /// Whether a location is a place in the file, too. Not any more once compaction in memory left something out.
    pub(crate) mirrors_file: bool,
    pub(crate) file: Arc<SegmentFile>,
    /// Monotonic time of its newest record, as known at creation: the age that policies see.
    pub(crate) created: Duration,
    pub(crate) sums: Sums,
    sealed: AtomicBool,
    /// Bytes from the start that are in the file. Changed by the leader of a flush only.
    written: AtomicUsize,
    /// Bytes from the start that are synced. Changed by the leader of a flush only.
    synced: AtomicUsize,
    /// Everything up to `end` is synced, and `end` is final.
    durable: AtomicBool,
    /// Length of its records on average, bytes, as far as it was known when it was sealed.
    mean_record_len: AtomicUsize,
}

/// What a segment holds. Of the head, most of it is up to date only when somebody needs it: see
/// [`log`](crate::log). On a cache line of its own, since whoever replaces a record writes here.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Sums {
    /// End of the records in the image, bytes from the start. Set under the commit lock; fixed once sealed.
    end: AtomicUsize,
    /// Of those of `put_bytes` that the index does not point at, or not yet.
    dead_put_bytes: AtomicU64,
    pub(crate) tombstone_bytes: AtomicU64,
    /// Puts and deletes in its file, and their bytes.
    pub(crate) records: AtomicU64,
    change_bytes: AtomicU64,
    pub(crate) put_bytes: AtomicU64,
    min_put_lsn: AtomicU64,
    max_lsn: AtomicU64,
}

impl Sums {
    fn new(end: usize) -> Self {
        let zero = || AtomicU64::new(0);
        Sums {
            end: AtomicUsize::new(end),
            dead_put_bytes: zero(),
            tombstone_bytes: zero(),
            records: zero(),
            change_bytes: zero(),
            put_bytes: zero(),
            min_put_lsn: AtomicU64::new(u64::MAX),
            max_lsn: zero(),
        }
    }

    /// A put with this LSN is the first one.
    pub(crate) fn first_put(&self, lsn: u64) {
        self.min_put_lsn.fetch_min(lsn, Ordering::Relaxed);
    }

    /// Says what there is by now; where that is more records, the newest has this LSN. By whoever has the commit lock.
    pub(crate) fn settle(&self, records: u64, put_bytes: u64, tombstone_bytes: u64, last_lsn: Lsn) {
        if records > self.records.load(Ordering::Relaxed) {
            self.max_lsn.store(last_lsn.get(), Ordering::Relaxed);
        }
        self.records.store(records, Ordering::Relaxed);
        self.change_bytes.store(put_bytes + tombstone_bytes, Ordering::Relaxed);
        self.put_bytes.store(put_bytes, Ordering::Relaxed);
        self.tombstone_bytes.store(tombstone_bytes, Ordering::Relaxed);
    }

    /// Bytes of records that the index points at.
    pub(crate) fn live_bytes(&self) -> u64 {
        let dead = self.dead_put_bytes.load(Ordering::Relaxed);
        self.put_bytes.load(Ordering::Relaxed).saturating_sub(dead)
    }

    /// The index does not point at a put of `len` bytes any more.
    #[inline]
    pub(crate) fn died(&self, len: u64) {
        self.dead_put_bytes.fetch_add(len, Ordering::Relaxed);
    }

    /// The index points at puts of so many bytes that it did not point at before.
    pub(crate) fn came_to_life(&self, bytes: u64) {
        self.dead_put_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The index points at none of the puts yet.
    pub(crate) fn nothing_lives_yet(&self) {
        self.dead_put_bytes.store(self.put_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What a processor fetches at a time, bytes.
const CACHE_LINE: usize = 64;

/// Cache lines of a record that are worth asking for: the processor sees by itself where a longer one goes on.
const LINES_MAX: usize = 16;

impl Segment {
    pub(crate) fn new(
        id: SegmentId,
        slot: u16,
        kind: SegmentKind,
        image: Image,
        file: Arc<SegmentFile>,
        created: Duration,
        end: usize,
    ) -> Self {
        Segment {
            id,
            slot,
            kind,
            capacity: image.capacity(),
            residence: Residence::new(Some(image)),
            mirrors_file: true,
            file,
            created,
            sums: Sums::new(end),
            sealed: AtomicBool::new(false),
            written: AtomicUsize::new(end),
            synced: AtomicUsize::new(end),
            durable: AtomicBool::new(false),
            mean_record_len: AtomicUsize::new(2 * CACHE_LINE),
        }
    }

    /// This segment, durable, with an image in another slot that holds nothing yet, for what compaction keeps. What is
    /// said of the file stays.
    pub(crate) fn with_image(&self, slot: u16, image: Image) -> Self {
        Segment {
            capacity: image.capacity(),
            mirrors_file: false,
            ..self.in_slot(slot, Residence::new(Some(image)), SEGMENT_HEADER_LEN)
        }
    }

    /// This segment, durable and cold, in another slot, with the locations of its file.
    pub(crate) fn without_image(&self, slot: u16) -> Self {
        self.in_slot(slot, Residence::new(None), self.file_len())
    }

    fn in_slot(&self, slot: u16, residence: Residence, end: usize) -> Self {
        let copy = |from: &AtomicU64| AtomicU64::new(from.load(Ordering::Relaxed));
        Segment {
            id: self.id,
            slot,
            kind: self.kind,
            residence,
            capacity: self.file_len(),
            mirrors_file: true,
            file: Arc::clone(&self.file),
            created: self.created,
            sums: Sums {
                records: copy(&self.sums.records),
                change_bytes: copy(&self.sums.change_bytes),
                put_bytes: copy(&self.sums.put_bytes),
                min_put_lsn: copy(&self.sums.min_put_lsn),
                max_lsn: copy(&self.sums.max_lsn),
                // The index does not point here yet.
                dead_put_bytes: copy(&self.sums.put_bytes),
                ..Sums::new(end)
            },
            sealed: AtomicBool::new(true),
            written: AtomicUsize::new(self.written()),
            synced: AtomicUsize::new(self.synced()),
            durable: AtomicBool::new(true),
            mean_record_len: AtomicUsize::new(self.mean_record_len()),
        }
    }

    /// The image, where it has one, for as long as the caller is pinned.
    #[inline]
    pub(crate) fn image<'g>(&self, guard: &'g Guard) -> Option<&'g Image> {
        self.residence.get(guard)
    }

    /// The image, where it has one, for as long as the caller likes.
    pub(crate) fn share_image(&self) -> Option<Arc<Image>> {
        self.residence.share()
    }

    /// Bytes of the image, where it has one.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.image(&pin()).map_or(0, Image::capacity)
    }

    /// Length of its file, bytes, as far as it is used.
    pub(crate) fn file_len(&self) -> usize {
        if self.is_durable() { self.synced() } else { self.end() }
    }

    /// End of the records, bytes from the start of the image.
    pub(crate) fn end(&self) -> usize {
        self.sums.end.load(Ordering::Acquire)
    }

    pub(crate) fn set_end(&self, end: usize) {
        self.sums.end.store(end, Ordering::Release);
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    pub(crate) fn mark_sealed(&self) {
        let records = usize::try_from(self.sums.records.load(Ordering::Relaxed)).unwrap_or(usize::MAX).max(1);
        self.mean_record_len
            .store(self.file_len().saturating_sub(SEGMENT_HEADER_LEN) / records, Ordering::Relaxed);
        self.sealed.store(true, Ordering::Release);
    }

    /// Sealed, written and synced: a compaction may take it.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn mark_durable(&self) {
        self.durable.store(true, Ordering::Release);
        self.file.may_close();
    }

    /// Bytes from the start that are in the file.
    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn set_written(&self, len: usize) {
        self.written.store(len, Ordering::Relaxed);
    }

    /// Bytes from the start that are synced.
    pub(crate) fn synced(&self) -> usize {
        self.synced.load(Ordering::Relaxed)
    }

    pub(crate) fn set_synced(&self, len: usize) {
        self.synced.store(len, Ordering::Relaxed);
    }

    /// Counts a put or delete of `len` bytes that was added. By whoever writes the segment, one thread at a time.
    #[inline]
    pub(crate) fn add_record(&self, lsn: Lsn, kind: RecordKind, len: usize) {
        change(&self.sums.records, |records| records + 1);
        change(&self.sums.change_bytes, |bytes| bytes + len as u64);
        if kind == RecordKind::Put {
            change(&self.sums.put_bytes, |bytes| bytes + len as u64);
            change(&self.sums.min_put_lsn, |min| min.min(lsn.get()));
        } else {
            change(&self.sums.tombstone_bytes, |bytes| bytes + len as u64);
        }
        change(&self.sums.max_lsn, |max| max.max(lsn.get()));
    }

    /// An LSN that none of the dead puts in its file is below; `u64::MAX` when there are none.
    ///
    /// Not exact for changes that come meanwhile: a put that dies now is newer than every durable tombstone of its key.
    pub(crate) fn oldest_dead_put(&self) -> u64 {
        let all_live = self.sums.dead_put_bytes.load(Ordering::Relaxed) == 0;
        if all_live { u64::MAX } else { self.sums.min_put_lsn.load(Ordering::Relaxed) }
    }

    /// Bytes of the changes in its file that are neither live nor among these tombstones.
    pub(crate) fn dead_bytes(&self, needed_tombstone_bytes: u64) -> u64 {
        let kept = self.sums.live_bytes() + needed_tombstone_bytes;
        self.sums.change_bytes.load(Ordering::Relaxed).saturating_sub(kept)
    }

    /// Highest LSN of its changes; 0 when it holds none.
    pub(crate) fn max_lsn(&self) -> u64 {
        self.sums.max_lsn.load(Ordering::Relaxed)
    }

    /// How many records a compaction keeps at most, roughly.
    pub(crate) fn survivors_max(&self) -> usize {
        let bytes = self.sums.live_bytes() + self.sums.tombstone_bytes.load(Ordering::Relaxed);
        usize::try_from(bytes).unwrap_or(usize::MAX) / self.mean_record_len().max(1)
    }

    /// The seal that finishes the segment as it is now.
    pub(crate) fn seal(&self) -> Seal {
        Seal { records: self.sums.records.load(Ordering::Relaxed), max_lsn: self.max_lsn() }
    }

    fn mean_record_len(&self) -> usize {
        self.mean_record_len.load(Ordering::Relaxed)
    }

    /// The cache lines of the record at `offset`, if it is in memory and as long as others are.
    #[inline]
    pub(crate) fn lines_of(&self, offset: usize, guard: &Guard) -> impl Iterator<Item = *const u8> {
        let start = self.image(guard).map(|image| image.address(offset));
        let lines = (self.mean_record_len() / CACHE_LINE + 1).min(LINES_MAX);
        start
            .into_iter()
            .flat_map(move |start| (0..lines).map(move |line| start.wrapping_add(line * CACHE_LINE)))
    }

    /// Whether the record at `offset`, where the index says that one starts, is one of `key`.
    #[inline]
    pub(crate) fn look<'g>(&self, offset: usize, key: &[u8], guard: &'g Guard) -> Look<'g> {
        let Some(image) = self.image(guard) else { return Look::Cold };
        // SAFETY: `offset` comes from the index, and what the index points at is published.
        let value = unsafe { image.value_of(key, offset) };
        value.map_or(Look::OtherKey, |value| Look::Found(Found { value, image: Some(image) }))
    }

    /// The record at `offset`, where the index says that one starts, and what it lies in; `None` when the segment is cold.
    pub(crate) fn resident<'g>(&self, offset: usize, guard: &'g Guard) -> Option<(Record<'g>, &'g Image)> {
        let image = self.image(guard)?;
        // SAFETY: as above.
        let record = unsafe { image.record_at(offset) };
        Some((record.expect("the index points at a published record"), image))
    }
}
